//! What a lab makes of the objects in its file.

use super::*;
use crate::spec::edit::Edit;
use crate::spec::load::{Manifest, Text, decode_text};

/// A lab of one host with these services and a manifest, and what is told of it.
fn lab(services: &str, manifest: &str) -> (Lab, Vec<String>) {
    let manifest = Manifest { asked: None, name: "m.yaml".to_owned(), text: Ok(manifest.to_owned()), namespace: None };
    let text = Text {
        name: "lab".to_owned(),
        text: format!("hosts: {{ node1: {{}} }}\nservices: {services}\n"),
        default_name: "lab".to_owned(),
        edits: vec![Edit::Apply(manifest)],
        ..Text::default()
    };
    let mut loaded = decode_text(&text);
    let mut problems = std::mem::take(&mut loaded.problems);
    let lab = crate::lab::resolve(&loaded, None, &mut problems);
    let told = problems.iter().map(|p| p.message.clone()).collect();
    (lab.unwrap_or_else(|| panic!("no lab: {told:?}")), told)
}

#[test]
fn a_status_that_a_file_brings_is_not_believed() {
    let manifest = "apiVersion: v1\nkind: Service\nmetadata: { name: web }\nspec: { ports: [{ port: 80 }] }\n\
                    status: { loadBalancer: { ingress: [{ ip: 203.0.113.9 }] } }\n";
    let (lab, _) = lab("{}", manifest);
    let web = lab.services.iter().find(|s| s.metadata.name.as_deref() == Some("web")).unwrap();
    assert_eq!(web.status, None);
}

#[test]
fn endpoints_count_for_services_without_selector_alone() {
    let endpoints = "apiVersion: v1\nkind: Endpoints\nmetadata: { name: db }\n\
                     subsets: [{ addresses: [{ ip: 192.0.2.7 }], ports: [{ port: 80 }] }]\n";
    let with = |services: &str| {
        let (lab, told) = lab(services, endpoints);
        let is_told = told.iter().any(|m| m == "endpoints default/db belong to no service without selector");
        (lab.slices.len(), is_told)
    };
    assert_eq!(with("{ db: { ports: [{ port: 80 }] } }"), (1, false));
    assert_eq!(with("{ db: { selector: { app: db }, ports: [{ port: 80 }] } }"), (0, true));
    assert_eq!(with("{ other: { ports: [{ port: 80 }] } }"), (0, true));
}
