//! The ports of a service.

use std::collections::HashSet;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::meta::quoted;
use crate::lab::names::check_label;
use crate::objects::field::FieldError;
use crate::objects::{ServicePort, ServiceSpec, headless, protocol, service_type};

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const PORT_RANGE: &str = "must be between 1 and 65535, inclusive";

/// A port's name as RFC 6335 has it (IANA_SVC_NAME): at most 15 lower-case letters, digits and
/// single dashes, with at least one letter.
pub fn is_port_name(name: &str) -> bool {
    check_label(name).is_ok()
        && name.len() <= 15
        && !name.contains("--")
        && name.contains(|c: char| c.is_ascii_lowercase())
}

pub(super) fn check(spec: &ServiceSpec, found: &mut Vec<FieldError>) {
    let ports = spec.ports.as_deref().unwrap_or_default();
    let kind = service_type(spec);
    if ports.is_empty() && !headless(spec) && kind != "ExternalName" {
        found.push(FieldError::required("spec.ports", ""));
    }
    let mut seen = Seen::default();
    for (n, port) in ports.iter().enumerate() {
        let path = format!("spec.ports[{n}]");
        one(port, &path, ports.len() > 1, found);
        if port.node_port.is_some_and(|p| p != 0) && !matches!(kind, "NodePort" | "LoadBalancer") {
            let detail = format!("may not be used when `type` is '{kind}'");
            found.push(FieldError::forbidden(format!("{path}.nodePort"), detail));
        }
        seen.add(port, &path, found);
    }
}

/// What only one port of a service can have.
#[derive(Default)]
struct Seen<'a> {
    names: HashSet<&'a str>,
    ports: HashSet<(&'a str, i32)>,
    node_ports: HashSet<(&'a str, i32)>,
}

impl<'a> Seen<'a> {
    fn add(&mut self, port: &'a ServicePort, path: &str, found: &mut Vec<FieldError>) {
        let name = port.name.as_deref().unwrap_or_default();
        if !name.is_empty() && !self.names.insert(name) {
            found.push(FieldError::duplicate(format!("{path}.name"), quoted(name)));
        }
        let protocol = protocol(port.protocol.as_deref());
        if !self.ports.insert((protocol, port.port)) {
            found.push(FieldError::duplicate(path, format!("port {}, protocol {protocol}", port.port)));
        }
        let node_port = port.node_port.unwrap_or(0);
        if node_port != 0 && !self.node_ports.insert((protocol, node_port)) {
            found.push(FieldError::duplicate(format!("{path}.nodePort"), node_port));
        }
    }
}

fn one(port: &ServicePort, path: &str, needs_name: bool, found: &mut Vec<FieldError>) {
    match port.name.as_deref().unwrap_or_default() {
        "" if needs_name => found.push(FieldError::required(format!("{path}.name"), "")),
        "" => {}
        name if check_label(name).is_err() => {
            found.push(FieldError::invalid(format!("{path}.name"), quoted(name), "it is no label as RFC 1123 has it"));
        }
        _ => {}
    }
    if !(1..=65535).contains(&port.port) {
        found.push(FieldError::invalid(format!("{path}.port"), port.port, PORT_RANGE));
    }
    if let Some(written) = port.protocol.as_deref().filter(|p| !p.is_empty() && !PROTOCOLS.contains(p)) {
        found.push(FieldError::not_supported(format!("{path}.protocol"), written, PROTOCOLS));
    }
    match &port.target_port {
        Some(IntOrString::Int(n)) if !(0..=65535).contains(n) => {
            found.push(FieldError::invalid(format!("{path}.targetPort"), n, PORT_RANGE));
        }
        Some(IntOrString::String(name)) if !is_port_name(name) => {
            let detail = "a port's name has at most 15 lower-case letters, digits and '-', with at least one letter";
            found.push(FieldError::invalid(format!("{path}.targetPort"), quoted(name), detail));
        }
        _ => {}
    }
    if let Some(n) = port.node_port.filter(|n| !(0..=65535).contains(n)) {
        found.push(FieldError::invalid(format!("{path}.nodePort"), n, PORT_RANGE));
    }
}
