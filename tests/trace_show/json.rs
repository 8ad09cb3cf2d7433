//! The JSON Schema of traces: it is the one that the types give, it takes what is right and refuses
//! what is wrong. `UPDATE_SCHEMA=1` writes it anew.

use labctl::trace::show::schema;

use super::{SAMPLES, sample, sample_text};

fn validator() -> jsonschema::Validator {
    let schema = serde_json::from_str(&schema::text()).expect("the schema is JSON");
    jsonschema::validator_for(&schema).expect("the schema is one")
}

#[test]
fn the_committed_schemas_are_those_that_the_types_give() {
    for (name, text) in [("trace", schema::text()), ("follow", schema::followed())] {
        let path = format!("{}/schemas/{name}.schema.json", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            std::fs::write(&path, &text).expect("the schema is written");
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == text, "{path} is behind the types; UPDATE_SCHEMA=1 writes it anew");
    }
}

#[test]
fn the_schema_takes_what_a_trace_prints() {
    let validator = validator();
    for name in SAMPLES {
        let printed = serde_json::to_value(sample(name)).expect("JSON");
        let faults: Vec<_> = validator.iter_errors(&printed).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(faults.is_empty(), "{name}: {faults:#?}");
    }
}

#[test]
fn the_schema_refuses_what_is_no_trace() {
    let whole: serde_json::Value = serde_json::from_str(&sample_text("too-big")).expect("JSON");
    for (path, wrong) in
        [("/verdict", "yes"), ("/flows/0/protocol", "ftp"), ("/flows/0/packets/0/steps/0/what/kind", "jump")]
    {
        let mut value = whole.clone();
        *value.pointer_mut(path).expect("a value") = wrong.into();
        assert!(!validator().is_valid(&value), "{path} passes with {wrong}");
    }
}

#[test]
fn a_trace_that_is_read_back_is_the_same() {
    for name in SAMPLES {
        let written = serde_json::to_value(sample(name)).expect("JSON");
        let whole: serde_json::Value = serde_json::from_str(&sample_text(name)).expect("JSON");
        assert_eq!(written, whole, "{name}");
    }
}
