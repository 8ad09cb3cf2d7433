//! Sections of a lab file whose entries are Kubernetes objects, keyed by name: `services:
//! { NAME: … }` and the like. An entry holds an object's own fields, with those of its metadata
//! beside them, and becomes the manifest that says the same.

use schemars::Schema;
use serde::de::DeserializeOwned;
use serde_json::{Map, json};

use super::tree::{Maker, entries};
use super::{Written, object};
use crate::diag::{Place, Problem, Problems, codes};
use crate::spec::node::{Entry, Node, Value};

/// Fields that belong to an object's metadata.
const METADATA: &[&str] = &["namespace", "labels", "annotations"];

/// A section's shape.
pub struct Section {
    pub name: &'static str,
    /// One as it may be written.
    pub example: &'static str,
    /// Whether the fields are those of the object's `spec`, and not of the object itself.
    pub spec: bool,
}

impl Section {
    /// The section's entries; nothing where it is no map, which is told.
    pub fn entries(&self, section: Node, problems: &mut Problems) -> Vec<Entry> {
        if !matches!(section.value, Value::Map(_) | Value::Null) {
            let message = format!("`{}` is a map from names, not {}", self.name, section.kind());
            problems.push(
                Problem::error(codes::SPEC_WRONG_TYPE, message)
                    .at(section.place, "this one")
                    .help(format!("for example `{}`", self.example)),
            );
        }
        let mut all = entries(section);
        // Where the fields stand in a `spec`, its type tells what is no map.
        all.retain(|entry| {
            let shapeless = !self.spec && !matches!(entry.value.value, Value::Map(_) | Value::Null);
            if shapeless {
                problems.push(
                    Problem::error(codes::SPEC_WRONG_TYPE, format!("expected a map, found {}", entry.value.kind()))
                        .at(entry.value.place, format!("this is {}", entry.value.kind()))
                        .help(format!("for example `{}`", self.example)),
                );
            }
            !shapeless
        });
        all
    }

    /// The objects of the section.
    pub fn read<T: DeserializeOwned + Default>(&self, section: Node, problems: &mut Problems) -> Vec<Written<T>> {
        let all = self.entries(section, problems).into_iter();
        all.filter_map(|entry| object(self.manifest(entry), problems)).collect()
    }

    /// The manifest that says the same as an entry.
    pub fn manifest(&self, entry: Entry) -> Node {
        let mut make = Maker::new();
        let place = entry.value.place;
        let name = make.text(&entry.key.text, entry.key.place);
        let mut metadata = vec![make.entry("name", name)];
        let fields = match entry.value.value {
            Value::Map(fields) => {
                let (about, fields): (Vec<_>, Vec<_>) =
                    fields.into_iter().partition(|e| METADATA.contains(&e.key.text.as_str()));
                metadata.extend(about);
                fields
            }
            // `tea-svc:` with nothing behind it lacks its fields, which is told of the whole.
            Value::Null => Vec::new(),
            other => {
                let spec = make.entry("spec", Node { value: other, ..entry.value });
                return whole(make, metadata, spec, entry.key.place);
            }
        };
        let metadata = make.map(metadata, entry.key.place);
        let mut all = vec![make.entry("metadata", metadata)];
        if self.spec {
            let place = if fields.is_empty() { entry.key.place } else { place };
            let spec = make.map(fields, place);
            all.push(make.entry("spec", spec));
        } else {
            all.extend(fields);
        }
        make.map(all, entry.key.place)
    }
}

fn whole(mut make: Maker, metadata: Vec<Entry>, spec: Entry, place: Place) -> Node {
    let metadata = make.map(metadata, place);
    let all = vec![make.entry("metadata", metadata), spec];
    make.map(all, place)
}

/// A section's JSON Schema: Kubernetes' own of the fields, closed, with those of the metadata beside them.
/// `what` is the object's kind in a word.
pub fn schema(fields: Schema, what: &str, namespaced: bool) -> Schema {
    schema_with(fields, what, namespaced, Map::new())
}

/// The same with further fields that Kubernetes does not have.
pub fn schema_with(fields: Schema, what: &str, namespaced: bool, further: Map<String, serde_json::Value>) -> Schema {
    let mut object = fields.to_value();
    let text = |about: String| json!({ "description": about, "type": "string" });
    let words =
        |about: String| json!({ "description": about, "type": "object", "additionalProperties": { "type": "string" } });
    if let Some(properties) = object.get_mut("properties").and_then(serde_json::Value::as_object_mut) {
        for field in ["apiVersion", "kind", "metadata"] {
            properties.remove(field);
        }
        properties.extend(further);
        if namespaced {
            properties.insert("namespace".to_owned(), text(format!("The {what}'s namespace. Default: `default`.")));
        }
        properties.insert("labels".to_owned(), words(format!("The {what}'s own labels.")));
        properties.insert("annotations".to_owned(), words("Its annotations.".to_owned()));
    }
    if let Some(fields) = object.as_object_mut() {
        fields.remove("required");
    }
    close(&mut object);
    schemars::json_schema!({ "type": ["object", "null"], "additionalProperties": object })
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
