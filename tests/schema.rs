//! The JSON Schema that editors complete lab files by: it is the one that the types give, it takes
//! what is right and refuses what is wrong. `UPDATE_SCHEMA=1` writes it anew.

use std::path::{Path, PathBuf};

use labctl::diag::Problems;
use labctl::spec::node::{Node, Value};
use labctl::spec::{schema, yaml};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn yaml_files(name: &str, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder(name)).expect("the folder");
    let mut files: Vec<_> = entries.map(|e| e.expect("an entry").path()).collect();
    let named = |p: &PathBuf| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(prefix));
    files.retain(|p| p.extension().is_some_and(|e| e == "yaml") && named(p));
    files.sort();
    assert!(!files.is_empty(), "{name} has no {prefix}*.yaml");
    files
}

/// The file as an editor sees it: plain values.
fn json(path: &Path) -> serde_json::Value {
    let text = std::fs::read_to_string(path).expect("a file");
    let mut problems = Problems::default();
    let documents = yaml::read(&text, 0, &mut problems);
    assert!(problems.is_empty(), "{}: {problems:?}", path.display());
    plain(documents.first().expect("a document"))
}

fn plain(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Float(value) => (*value).into(),
        Value::Text(value) => value.clone().into(),
        Value::List(items) => items.iter().map(plain).collect(),
        Value::Map(entries) => entries.iter().map(|e| (e.key.text.clone(), plain(&e.value))).collect(),
    }
}

fn validator() -> jsonschema::Validator {
    let schema = serde_json::from_str(&schema::text()).expect("the schema is JSON");
    jsonschema::validator_for(&schema).expect("the schema is one")
}

#[test]
fn the_committed_schema_is_the_one_that_the_types_give() {
    let path = folder("schemas/lab.schema.json");
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(&path, schema::text()).expect("the schema is written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == schema::text(), "schemas/lab.schema.json is behind the types; UPDATE_SCHEMA=1 writes it anew");
}

#[test]
fn the_schema_takes_every_valid_lab() {
    let validator = validator();
    for path in yaml_files("labs", "") {
        let faults: Vec<_> =
            validator.iter_errors(&json(&path)).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(faults.is_empty(), "{}: {faults:#?}", path.display());
        let first = std::fs::read_to_string(&path).expect("a lab");
        let modeline = "# yaml-language-server: $schema=../schemas/lab.schema.json\n";
        assert!(first.starts_with(modeline), "{} does not name its schema", path.display());
    }
}

#[test]
fn the_schema_refuses_what_has_the_wrong_shape() {
    let validator = validator();
    for path in yaml_files("tests/golden", "spec-") {
        assert!(!validator.is_valid(&json(&path)), "{} passes", path.display());
    }
}

/// What an editor shows beside a field.
#[test]
fn every_field_of_the_schema_is_described() {
    fn walk(value: &serde_json::Value, at: &str, bare: &mut Vec<String>) {
        if let Some(fields) = value.get("properties").and_then(|p| p.as_object()) {
            let undescribed = fields.iter().filter(|(_, f)| f.get("description").is_none());
            bare.extend(undescribed.map(|(name, _)| format!("{at}.{name}")));
        }
        match value {
            serde_json::Value::Object(map) => map.iter().for_each(|(k, v)| walk(v, &format!("{at}/{k}"), bare)),
            serde_json::Value::Array(all) => all.iter().for_each(|v| walk(v, at, bare)),
            _ => {}
        }
    }
    let mut bare = Vec::new();
    walk(&serde_json::from_str(&schema::text()).expect("JSON"), "", &mut bare);
    assert!(bare.is_empty(), "without a description: {bare:#?}");
}
