//! `get`: pods, hosts, clients and networks of a running lab, in tables like kubectl's or as Kubernetes objects.

use std::process::ExitCode;

use serde_json::Value;

use crate::diag::{Problem, codes, did_you_mean};

use super::args::{GetArgs, Kind};
use super::output::{self, Table, text};
use super::{Done, find_lab};

pub fn run(args: &GetArgs) -> Done {
    let client = find_lab(args.lab.as_deref())?;
    let path = match args.kind {
        Kind::Pods => "/api/v1/pods",
        Kind::Hosts => "/api/v1/nodes",
        // Kubernetes has no such kinds; they are labctl's own.
        Kind::Clients => "/labctl/v1/clients",
        Kind::Networks => "/labctl/v1/networks",
    };
    let mut list: Value = client.get(path)?;
    let mut items = match list["items"].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    };
    let value = match &args.name {
        Some(name) => {
            items = vec![pick(items, name)?];
            items[0].clone()
        }
        None => {
            list["items"] = Value::Array(items.clone());
            list
        }
    };
    output::print(args.format.output, &value, |wide| match args.kind {
        Kind::Pods => pods(&items, wide),
        Kind::Hosts => hosts(&items, wide),
        Kind::Clients => clients(&items),
        Kind::Networks => networks(&items, wide),
    });
    Ok(ExitCode::SUCCESS)
}

/// An object's name as it is typed: with its namespace where that is not `default`.
pub fn name_of(item: &Value) -> String {
    match text(item, "/metadata/namespace") {
        "" | "default" => text(item, "/metadata/name").to_owned(),
        namespace => format!("{namespace}/{}", text(item, "/metadata/name")),
    }
}

fn pick(items: Vec<Value>, name: &str) -> Result<Value, Box<Problem>> {
    let names: Vec<String> = items.iter().map(name_of).collect();
    let found = items.into_iter().zip(&names).find(|(_, n)| *n == name).map(|(item, _)| item);
    found.ok_or_else(|| {
        let problem = Problem::error(codes::TARGET_UNKNOWN, format!("there is no `{name}` in the lab"));
        Box::new(match did_you_mean(name, names.iter().map(String::as_str)) {
            Some(near) => problem.help(format!("did you mean `{near}`?")),
            None => problem.help("without a name all are shown"),
        })
    })
}

/// Waiting and ended containers say more than the phase, as in kubectl's STATUS column.
pub fn status(pod: &Value) -> String {
    let states = pod.pointer("/status/containerStatuses").and_then(Value::as_array);
    let reason = states.into_iter().flatten().find_map(|c| {
        let reason = c.pointer("/state/waiting/reason").or(c.pointer("/state/terminated/reason"));
        reason.and_then(Value::as_str)
    });
    reason.unwrap_or(text(pod, "/status/phase")).to_owned()
}

pub fn pods(items: &[Value], wide: bool) -> String {
    if items.is_empty() {
        return "the lab has no pods\n".to_owned();
    }
    let mut headings = vec!["NAME", "READY", "STATUS", "RESTARTS", "IP", "HOST"];
    if wide {
        headings.extend(["PORTS", "LABELS"]);
    }
    let mut table = Table::new(&headings);
    for pod in items {
        let statuses = pod.pointer("/status/containerStatuses").and_then(Value::as_array).cloned().unwrap_or_default();
        let ready = statuses.iter().filter(|c| c["ready"] == true).count();
        let restarts: u64 = statuses.iter().filter_map(|c| c["restartCount"].as_u64()).sum();
        let mut row = vec![
            name_of(pod),
            format!("{ready}/{}", statuses.len()),
            status(pod),
            restarts.to_string(),
            text(pod, "/status/podIP").to_owned(),
            text(pod, "/spec/nodeName").to_owned(),
        ];
        if wide {
            row.extend([ports(pod), labels(pod)]);
        }
        table.row(row);
    }
    table.text()
}

pub fn ports(pod: &Value) -> String {
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array);
    let ports = containers.into_iter().flatten().filter_map(|c| c["ports"].as_array()).flatten();
    let all: Vec<String> = ports.map(|p| format!("{}/{}", p["containerPort"], text(p, "/protocol"))).collect();
    or_none(all.join(","))
}

pub fn labels(item: &Value) -> String {
    let labels = item.pointer("/metadata/labels").and_then(Value::as_object);
    let all: Vec<String> =
        labels.into_iter().flatten().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    or_none(all.join(","))
}

fn or_none(text: String) -> String {
    if text.is_empty() { "<none>".to_owned() } else { text }
}

fn hosts(items: &[Value], wide: bool) -> String {
    if items.is_empty() {
        return "the lab has no hosts\n".to_owned();
    }
    let mut headings = vec!["NAME", "STATUS", "ADDRESS", "POD SUBNET"];
    if wide {
        headings.push("LABELS");
    }
    let mut table = Table::new(&headings);
    for host in items {
        let mut row = vec![
            name_of(host),
            "Ready".to_owned(),
            text(host, "/status/addresses/0/address").to_owned(),
            text(host, "/spec/podCIDR").to_owned(),
        ];
        if wide {
            row.push(labels(host));
        }
        table.row(row);
    }
    table.text()
}

fn clients(items: &[Value]) -> String {
    if items.is_empty() {
        return "the lab has no clients\n".to_owned();
    }
    let mut table = Table::new(&["NAME", "ADDRESS", "NETWORK", "PORTS"]);
    for client in items {
        let ports = client.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten();
        let ports: Vec<String> = ports.map(|p| format!("{}/{}", p["port"], text(p, "/protocol"))).collect();
        table.row([
            name_of(client),
            text(client, "/status/addresses/0/address").to_owned(),
            text(client, "/spec/network").to_owned(),
            or_none(ports.join(",")),
        ]);
    }
    table.text()
}

fn networks(items: &[Value], wide: bool) -> String {
    let mut headings = vec!["NAME", "RANGE", "ROUTER", "MTU", "MACHINES"];
    if wide {
        headings.push("BRIDGE");
    }
    let mut table = Table::new(&headings);
    for network in items {
        let machines = network.pointer("/status/machines").and_then(Value::as_array).into_iter().flatten();
        let machines: Vec<&str> = machines.filter_map(Value::as_str).collect();
        let mut row = vec![
            name_of(network),
            text(network, "/spec/cidr").to_owned(),
            text(network, "/spec/gateway").to_owned(),
            network.pointer("/spec/mtu").map(ToString::to_string).unwrap_or_default(),
            or_none(machines.join(",")),
        ];
        if wide {
            row.push(text(network, "/status/bridge").to_owned());
        }
        table.row(row);
    }
    table.text()
}
