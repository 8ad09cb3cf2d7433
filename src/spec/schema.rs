//! The JSON Schema of the lab file, made from the very types that read it.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;

use super::types::LabFile;

/// The schema as it is committed in `schemas/lab.schema.json`, with a line end behind it.
pub fn text() -> String {
    of::<LabFile>()
}

/// The schema of any type, with a line end behind it.
pub fn of<T: JsonSchema>() -> String {
    let schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<T>();
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}
