//! Services of a lab file, where `services: { NAME: … }` holds the fields of a Service's `spec`
//! with `namespace`, `labels` and `annotations` beside them.

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::Written;
use super::section::{self, Section};
use crate::diag::Problems;
use crate::spec::node::Node;

const SECTION: Section = Section {
    name: "services",
    example: "services: { tea-svc: { selector: { app: tea }, ports: [{ port: 80 }] } }",
    spec: true,
};

/// The services of the section `services`.
pub fn of_section(section: Node, problems: &mut Problems) -> Vec<Written<Service>> {
    SECTION.read(section, problems)
}

/// The JSON Schema of the section: Kubernetes' own of a Service's `spec`, with the fields beside it.
pub fn schema(generator: &mut SchemaGenerator) -> Schema {
    section::schema(ServiceSpec::json_schema(generator), "service", true)
}
