//! Secrets and ConfigMaps. `data` of a secret is base64, which is checked here, where its place is
//! known; `generate: true` in the lab file asks for a certificate that the lab makes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, json};

use super::section::{self, Section};
use super::{Objects, Written, object};
use crate::diag::{Place, Problem, Problems, codes};
use crate::objects::ObjectKey;
use crate::spec::at::At;
use crate::spec::node::{Entry, Node, Value};

const SECRETS: Section =
    Section { name: "secrets", example: "secrets: { cafe-secret: { generate: true } }", spec: false };
const CONFIG_MAPS: Section =
    Section { name: "configMaps", example: "configMaps: { settings: { data: { proxy-body-size: 8m } } }", spec: false };
const GENERATE: &str = "generate";

/// The secrets of the section `secrets`, and those that are to be made.
pub fn of_section(section: Node, objects: &mut Objects, problems: &mut Problems) {
    for mut entry in SECRETS.entries(section, problems) {
        match asks_to_generate(&mut entry, problems) {
            true => objects.generate.extend(to_generate(entry, problems)),
            false => objects.secrets.extend(secret(SECRETS.manifest(entry), problems)),
        }
    }
}

/// The ConfigMaps of the section `configMaps`.
pub fn config_maps_of_section(section: Node, problems: &mut Problems) -> Vec<Written<ConfigMap>> {
    let all = CONFIG_MAPS.entries(section, problems).into_iter();
    all.filter_map(|entry| config_map(CONFIG_MAPS.manifest(entry), problems)).collect()
}

/// A manifest's secret; nothing where it has an error, which is reported.
pub fn secret(mut document: Node, problems: &mut Problems) -> Option<Written<Secret>> {
    let sound = check_base64(&mut document, "data", problems);
    object(document, problems).filter(|_| sound)
}

/// A manifest's ConfigMap; nothing where it has an error, which is reported.
pub fn config_map(mut document: Node, problems: &mut Problems) -> Option<Written<ConfigMap>> {
    let sound = check_base64(&mut document, "binaryData", problems);
    object(document, problems).filter(|_| sound)
}

pub fn schema(generator: &mut SchemaGenerator) -> Schema {
    let mut further = Map::new();
    let about = "Whether the lab makes a certificate for the hosts of the ingresses that name this secret, and signs \
                 it with an authority of its own. Default: false.";
    further.insert(GENERATE.to_owned(), json!({ "description": about, "type": "boolean" }));
    section::schema_with(Secret::json_schema(generator), "secret", true, further)
}

pub fn config_map_schema(generator: &mut SchemaGenerator) -> Schema {
    section::schema(ConfigMap::json_schema(generator), "ConfigMap", true)
}

/// Take `generate` out of an entry.
fn asks_to_generate(entry: &mut Entry, problems: &mut Problems) -> bool {
    let Value::Map(fields) = &mut entry.value.value else { return false };
    let Some(at) = fields.iter().position(|e| e.key.text == GENERATE) else { return false };
    let field = fields.remove(at);
    match field.value.value {
        Value::Bool(value) => value,
        _ => {
            problems.push(
                Problem::error(codes::SPEC_WRONG_TYPE, format!("expected true or false, found {}", field.value.kind()))
                    .at(field.value.place, "this one")
                    .help("write `generate: true`"),
            );
            false
        }
    }
}

fn to_generate(entry: Entry, problems: &mut Problems) -> Option<At<ObjectKey>> {
    let (name, place) = (entry.key.text.clone(), entry.key.place);
    if let Some(data) = ["data", "stringData"].iter().find_map(|field| entry.value.entry(field)) {
        problems.push(
            Problem::error(codes::SPEC_BAD_VALUE, format!("the secret `{name}` is made by the lab and brings its own"))
                .at(data.key.place, "this")
                .help("take it out, or `generate`"),
        );
        return None;
    }
    let written = object::<Secret>(SECRETS.manifest(entry), problems)?;
    Some(At::new(ObjectKey::of(&written.object.metadata), place))
}

/// Check that the texts of the map `field` are base64, and take line ends out of them, which Kubernetes'
/// own decoder passes over. What is wrong is told and taken out.
fn check_base64(document: &mut Node, field: &str, problems: &mut Problems) -> bool {
    let Value::Map(fields) = &mut document.value else { return true };
    let Some(data) = fields.iter_mut().find(|e| e.key.text == field) else { return true };
    let Value::Map(entries) = &mut data.value.value else { return true };
    let before = entries.len();
    entries.retain_mut(|entry| {
        let Value::Text(text) = &mut entry.value.value else { return true };
        text.retain(|c| c != '\n' && c != '\r');
        match STANDARD.decode(text.as_bytes()) {
            Ok(_) => true,
            Err(e) => {
                problems.push(not_base64((field, &entry.key.text), text, &e, entry.value.place));
                false
            }
        }
    });
    entries.len() == before
}

fn not_base64((field, key): (&str, &str), text: &str, error: &base64::DecodeError, place: Place) -> Problem {
    let why = match error {
        base64::DecodeError::InvalidByte(at, byte) => {
            format!("illegal base64 data at input byte {at}, `{}`", char::from(*byte).escape_debug())
        }
        base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => {
            format!("it ends too early: {} letters, which is no multiple of 4", text.len())
        }
        base64::DecodeError::InvalidLastSymbol(at, _) => format!("illegal base64 data at input byte {at}"),
    };
    let help = match field {
        "data" => format!("write it as it is under `stringData: {{ {key}: … }}`, or give `base64 -w0`'s output"),
        _ => format!("write it as it is under `data: {{ {key}: … }}`, or give `base64 -w0`'s output"),
    };
    let place = Place { end: place.end.min(place.start + 60), ..place };
    Problem::error(codes::OBJECT_INVALID, format!("{field}.{key}: Invalid value: {why}"))
        .at(place, "not base64")
        .help(help)
}
