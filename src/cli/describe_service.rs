//! `describe service`: a service with its endpoints, in the way of kubectl.

use serde_json::{Value, json};

use crate::daemon::client::Client;
use crate::diag::Problem;
use crate::objects::{ObjectKey, Service, balancers};
use crate::spec::edit::ObjectKind;

use super::describe::Lines;
use super::output::text;
use super::{kube, reach, tables};

/// All that is known of a service: the object, its slices, and why they may lead nowhere.
pub fn ask(client: &Client, key: &ObjectKey) -> Result<Value, Box<Problem>> {
    let object = kube::one(client, ObjectKind::Service, key)?;
    let (slices, notes) = (reach::slices(client, key)?, reach::notes(client, &object)?);
    Ok(json!({ "kind": "service", "object": object, "endpointSlices": slices, "notes": notes }))
}

pub fn draw(all: &Value) -> String {
    let object = &all["object"];
    let at = |pointer: &str| text(object, pointer).to_owned();
    let mut out = Lines::default();
    out.line("Name", at("/metadata/name"));
    out.line("Namespace", at("/metadata/namespace"));
    out.line("Labels", tables::pairs(object.pointer("/metadata/labels")));
    out.line("Selector", tables::pairs(object.pointer("/spec/selector")));
    out.line("Type", at("/spec/type"));
    for (name, pointer) in [
        ("Cluster IP", "/spec/clusterIP"),
        ("External name", "/spec/externalName"),
        ("Affinity", "/spec/sessionAffinity"),
        ("External", "/spec/externalTrafficPolicy"),
        ("Internal", "/spec/internalTrafficPolicy"),
    ] {
        if let Some(value) = object.pointer(pointer).and_then(Value::as_str) {
            out.line(name, value);
        }
    }
    if let Some(balancer) = balancer(object) {
        out.line("Balancer", balancer);
    }
    for (name, pointer) in [("External IPs", "/spec/externalIPs"), ("Only from", "/spec/loadBalancerSourceRanges")] {
        if let Some(words) = object.pointer(pointer).and_then(Value::as_array) {
            out.list(name, words.iter().filter_map(Value::as_str));
        }
    }
    if let Some(port) = object.pointer("/spec/healthCheckNodePort").and_then(Value::as_u64).filter(|p| *p > 0) {
        out.line("Health check", format!("port {port} of each host"));
    }
    for port in object.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten() {
        let name = port["name"].as_str().unwrap_or("<unset>");
        out.line("Port", format!("{name} {}/{}", port["port"], text(port, "/protocol")));
        let target = port["targetPort"].as_str().map_or_else(|| port["targetPort"].to_string(), str::to_owned);
        out.line("Target port", target);
        if let Some(node) = port["nodePort"].as_u64().filter(|n| *n > 0) {
            out.line("Node port", node);
        }
    }
    let lines = endpoints(all);
    if lines.is_empty() {
        out.line("Endpoints", "<none>");
    } else {
        out.block("Endpoints", &lines);
    }
    for note in all["notes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        out.line("Note", note);
    }
    out.take()
}

/// The load balancer's address, or why there is none yet.
fn balancer(service: &Value) -> Option<String> {
    if text(service, "/spec/type") != "LoadBalancer" {
        return None;
    }
    let address = text(service, "/status/loadBalancer/ingress/0/ip");
    let typed = serde_json::from_value::<Service>(service.clone()).ok();
    let reason = typed.as_ref().and_then(balancers::pending);
    Some(match (address, text(service, "/spec/loadBalancerClass"), reason) {
        ("", _, Some(reason)) => format!("<pending> ({reason})"),
        ("", "", None) => "<pending>".to_owned(),
        ("", class, None) => format!("<pending> (the class {class} is another controller's)"),
        (ip, ..) => ip.to_owned(),
    })
}

/// A line for each endpoint: where it is, whose it is, and what it is up to.
fn endpoints(all: &Value) -> String {
    let mut out = String::new();
    let has_ports = all.pointer("/object/spec/ports").and_then(Value::as_array).is_some_and(|p| !p.is_empty());
    for slice in all["endpointSlices"].as_array().into_iter().flatten() {
        // Pods that have none of the ports that the service names stand behind none of them.
        if has_ports && slice["ports"].as_array().is_some_and(Vec::is_empty) {
            continue;
        }
        let ports: Vec<String> =
            slice["ports"].as_array().into_iter().flatten().map(|p| p["port"].to_string()).collect();
        for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
            let is = |condition: &str| endpoint["conditions"][condition] == true;
            // A missing condition counts as ready, as the API has it.
            let ready = is("ready") || endpoint["conditions"]["ready"].is_null();
            let state = match (ready, is("terminating"), is("serving")) {
                (true, ..) => "ready",
                (false, true, true) => "terminating, still serving",
                (false, true, false) => "terminating",
                (false, false, _) => "not ready",
            };
            let who = text(endpoint, "/targetRef/name");
            let on = match text(endpoint, "/nodeName") {
                "" => String::new(),
                node => format!(" on {node}"),
            };
            let address = format!("{}:{}", text(endpoint, "/addresses/0"), ports.join(","));
            out.push_str(&format!("{address:<22} {who}{on}, {state}\n").replace(" , ", ", "));
        }
    }
    out
}
