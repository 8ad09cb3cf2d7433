//! `describe ingress`: an ingress with its rules and who is behind them, in the way of kubectl.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::daemon::client::Client;
use crate::diag::Problem;
use crate::objects::ObjectKey;
use crate::spec::edit::ObjectKind;

use super::describe::Lines;
use super::output::text;
use super::{kube, tables};

/// All that is known of an ingress: the object, the services of its namespace and their slices.
pub fn ask(client: &Client, key: &ObjectKey) -> Result<Value, Box<Problem>> {
    let object = kube::one(client, ObjectKind::Ingress, key)?;
    let services = kube::list(client, ObjectKind::Service, Some(&key.namespace))?;
    let slices = kube::list(client, ObjectKind::EndpointSlice, Some(&key.namespace))?;
    let trouble: Vec<String> = client.get(&format!("/labctl/v1/ingress-trouble?name={key}"))?;
    Ok(json!({
        "kind": "ingress", "object": object, "services": services, "endpointSlices": slices, "trouble": trouble,
    }))
}

pub fn draw(all: &Value) -> String {
    let object = &all["object"];
    let mut out = Lines::default();
    out.line("Name", text(object, "/metadata/name"));
    out.line("Namespace", text(object, "/metadata/namespace"));
    out.line("Labels", tables::pairs(object.pointer("/metadata/labels")));
    out.line("Address", text(object, "/status/loadBalancer/ingress/0/ip"));
    out.line("Class", tables::class(object));
    let trouble: Vec<&str> = items(all, "/trouble").iter().filter_map(|line| line.as_str()).collect();
    if !trouble.is_empty() {
        out.list("Trouble", trouble);
    }
    let default = object.pointer("/spec/defaultBackend");
    out.line("Default backend", default.map_or_else(|| "<default>".to_owned(), |b| backend(all, b)));
    let tls = items(object, "/spec/tls");
    if !tls.is_empty() {
        let lines: Vec<String> = tls.iter().map(secret).collect();
        out.block("TLS", &(lines.join("\n") + "\n"));
    }
    out.block("Rules", &rules(all));
    out.line("Annotations", tables::pairs(object.pointer("/metadata/annotations")));
    out.line("Age", tables::since(object));
    out.take()
}

fn items<'v>(value: &'v Value, pointer: &str) -> Vec<&'v Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten().collect()
}

fn secret(entry: &&Value) -> String {
    let hosts: Vec<&str> = items(entry, "/hosts").iter().filter_map(|h| h.as_str()).collect();
    let hosts = if hosts.is_empty() { "all hosts of the rules".to_owned() } else { hosts.join(",") };
    match text(entry, "/secretName") {
        "" => format!("the default certificate for {hosts}"),
        name => format!("secret {name} for {hosts}"),
    }
}

/// A line for each host, and below it one for each path.
fn rules(all: &Value) -> String {
    let mut out = String::new();
    for rule in items(&all["object"], "/spec/rules") {
        let host = text(rule, "/host");
        let _ = writeln!(out, "{}", if host.is_empty() { "*" } else { host });
        for path in items(rule, "/http/paths") {
            let (kind, who) = (text(path, "/pathType"), backend(all, &path["backend"]));
            let _ = writeln!(out, "  {:<16} {kind:<22} {who}", text(path, "/path"));
        }
    }
    if out.is_empty() { "<none>\n".to_owned() } else { out }
}

/// `tea-svc:80 (10.244.1.2:8080,10.244.2.2:8080)`, or what is missing.
fn backend(all: &Value, backend: &Value) -> String {
    let name = text(backend, "/service/name");
    if name.is_empty() {
        return format!("{} {} (not acted on)", text(backend, "/resource/kind"), text(backend, "/resource/name"));
    }
    let port = match text(backend, "/service/port/name") {
        "" => backend.pointer("/service/port/number").map(ToString::to_string).unwrap_or_default(),
        word => word.to_owned(),
    };
    let service = items(all, "/services").into_iter().find(|s| text(s, "/metadata/name") == name);
    let Some(service) = service else { return format!("{name}:{port} (there is no service {name})") };
    let number = port.parse::<u64>().ok();
    let is = |p: &&&Value| (number.is_some() && p["port"].as_u64() == number) || text(p, "/name") == port;
    let Some(port_name) = items(service, "/spec/ports").iter().find(is).map(|p| text(p, "/name").to_owned()) else {
        return format!("{name}:{port} (service {name} has no port {port})");
    };
    let ready = ready(all, name, &port_name);
    let who = if ready.is_empty() { "no endpoint is ready".to_owned() } else { tables::shortened(&ready) };
    format!("{name}:{port} ({who})")
}

fn ready(all: &Value, service: &str, port: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mine = |s: &&Value| s["metadata"]["labels"]["kubernetes.io/service-name"] == service;
    for slice in items(all, "/endpointSlices").into_iter().filter(mine) {
        let number = items(slice, "/ports").into_iter().find(|p| text(p, "/name") == port).map(|p| p["port"].clone());
        let Some(number) = number else { continue };
        let ready = items(slice, "/endpoints").into_iter().filter(|e| e["conditions"]["ready"] != false);
        found.extend(ready.map(|e| format!("{}:{number}", text(e, "/addresses/0"))));
    }
    found.sort();
    found
}
