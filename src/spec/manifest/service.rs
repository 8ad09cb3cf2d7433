//! Services of a lab file, where `services: { NAME: … }` holds the fields of a Service's `spec`
//! with `namespace`, `labels` and `annotations` beside them.

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::tree::{Maker, entries};
use super::{Written, object};
use crate::diag::{Problem, Problems, codes};
use crate::spec::node::{Entry, Node, Value};

/// Fields that belong to an object's metadata.
const METADATA: &[&str] = &["namespace", "labels", "annotations"];

/// The services of the section `services`.
pub fn of_section(section: Node, problems: &mut Problems) -> Vec<Written<Service>> {
    if !matches!(section.value, Value::Map(_) | Value::Null) {
        problems.push(
            Problem::error(codes::SPEC_WRONG_TYPE, format!("`services` is a map from names, not {}", section.kind()))
                .at(section.place, "this one")
                .help("for example `services: { tea-svc: { selector: { app: tea }, ports: [{ port: 80 }] } }`"),
        );
        return Vec::new();
    }
    entries(section).into_iter().filter_map(|entry| checked(manifest(entry), problems)).collect()
}

/// A service. One that has a deployment's selector is told what a service's looks like.
pub(super) fn checked(document: Node, problems: &mut Problems) -> Option<Written<Service>> {
    let selector = document.get("spec").and_then(|spec| spec.get("selector"));
    for field in ["matchLabels", "matchExpressions"] {
        let Some(entry) = selector.and_then(|s| s.entry(field)) else { continue };
        if matches!(entry.value.value, Value::Text(_)) {
            continue;
        }
        let labels = entries(entry.value.clone()).into_iter();
        let labels = labels.filter_map(|e| Some(format!("{}: {}", e.key.text, e.value.text()?)));
        let example = Some(labels.collect::<Vec<_>>().join(", ")).filter(|l| !l.is_empty());
        problems.push(
            Problem::error(codes::OBJECT_INVALID, format!("a service's selector has no `{field}`"))
                .at(entry.key.place, "is a deployment's")
                .help(format!(
                    "write the labels at once: `selector: {{ {} }}`",
                    example.as_deref().unwrap_or("app: tea")
                )),
        );
        return None;
    }
    object(document, problems)
}

/// The manifest that says the same as an entry of `services`.
fn manifest(entry: Entry) -> Node {
    let mut make = Maker::new();
    let place = entry.value.place;
    let name = make.text(&entry.key.text, entry.key.place);
    let mut metadata = vec![make.entry("name", name)];
    let spec = match entry.value.value {
        Value::Map(fields) => {
            let (about, fields): (Vec<_>, Vec<_>) =
                fields.into_iter().partition(|e| METADATA.contains(&e.key.text.as_str()));
            metadata.extend(about);
            make.map(fields, place)
        }
        // `tea-svc:` with nothing behind it lacks its ports, which is told of the whole.
        Value::Null => make.map(Vec::new(), entry.key.place),
        _ => entry.value,
    };
    let metadata = make.map(metadata, entry.key.place);
    let entries = vec![make.entry("metadata", metadata), make.entry("spec", spec)];
    make.map(entries, entry.key.place)
}

/// The JSON Schema of the section: Kubernetes' own of a Service's `spec`, with the fields beside it.
pub fn schema(generator: &mut SchemaGenerator) -> Schema {
    let mut spec = ServiceSpec::json_schema(generator).to_value();
    let text = |about: &str| serde_json::json!({ "description": about, "type": "string" });
    let words = |about: &str| serde_json::json!({ "description": about, "type": "object", "additionalProperties": { "type": "string" } });
    if let Some(properties) = spec.get_mut("properties").and_then(serde_json::Value::as_object_mut) {
        properties.insert("namespace".to_owned(), text("The service's namespace. Default: `default`."));
        properties.insert("labels".to_owned(), words("The service's own labels."));
        properties.insert("annotations".to_owned(), words("Its annotations."));
    }
    close(&mut spec);
    schemars::json_schema!({ "type": ["object", "null"], "additionalProperties": spec })
}

/// Kubernetes' schemas allow any further field; an editor shall mark a misspelt one.
fn close(schema: &mut serde_json::Value) {
    match schema {
        serde_json::Value::Object(fields) => {
            if fields.get("properties").is_some_and(serde_json::Value::is_object) {
                fields.insert("additionalProperties".to_owned(), false.into());
            }
            fields.values_mut().for_each(close);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}
