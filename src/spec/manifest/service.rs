//! Services of a lab file, where `services: { NAME: … }` holds the fields of a Service's `spec`
//! with `namespace`, `labels` and `annotations` beside them.

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::section::{self, Section};
use super::tree::entries;
use super::{Written, object};
use crate::diag::{Problem, Problems, codes};
use crate::spec::node::{Node, Value};

const SECTION: Section = Section {
    name: "services",
    example: "services: { tea-svc: { selector: { app: tea }, ports: [{ port: 80 }] } }",
    spec: true,
};

/// The services of the section `services`.
pub fn of_section(section: Node, problems: &mut Problems) -> Vec<Written<Service>> {
    let all = SECTION.entries(section, problems).into_iter();
    all.filter_map(|entry| service(SECTION.manifest(entry), problems)).collect()
}

/// A service. One that has a deployment's selector is told what a service's looks like.
pub(super) fn service(document: Node, problems: &mut Problems) -> Option<Written<Service>> {
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

/// The JSON Schema of the section: Kubernetes' own of a Service's `spec`, with the fields beside it.
pub fn schema(generator: &mut SchemaGenerator) -> Schema {
    section::schema(ServiceSpec::json_schema(generator), "service", true)
}
