//! `get`: what a running lab has, in tables like kubectl's or as Kubernetes objects.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::diag::{Problem, codes, did_you_mean};
use crate::spec::edit::ObjectKind;

use super::args::{GetArgs, Kind};
use super::output::{self, Table, text};
use super::{Done, find_lab, kube, rules_tree, tables};

/// Where the objects of a kind are, and how they are drawn.
struct Way {
    path: String,
    /// Whether its objects are in Kubernetes' namespaces.
    namespaced: bool,
}

fn way(args: &GetArgs) -> Way {
    let of = |kind| {
        let namespace = (!args.scope.all_namespaces).then_some(namespace(args));
        Way { path: kube::path(kind, namespace), namespaced: kind != ObjectKind::Namespace }
    };
    let own = |path: &str| Way { path: path.to_owned(), namespaced: false };
    match args.kind {
        Kind::Pods => of(ObjectKind::Pod),
        Kind::Services => of(ObjectKind::Service),
        Kind::Endpoints => of(ObjectKind::Endpoints),
        Kind::EndpointSlices => of(ObjectKind::EndpointSlice),
        Kind::Deployments => of(ObjectKind::Deployment),
        Kind::Namespaces => of(ObjectKind::Namespace),
        Kind::Hosts => own("/api/v1/nodes"),
        // Kubernetes has no such kinds; they are labctl's own.
        Kind::Clients => own("/labctl/v1/clients"),
        Kind::Networks | Kind::Rules => own("/labctl/v1/networks"),
    }
}

/// The namespace that is meant: a name may have it in front.
fn namespace(args: &GetArgs) -> &str {
    let given = args.name.as_deref().and_then(|name| name.split_once('/'));
    given.map_or(args.scope.namespace.as_str(), |(namespace, _)| namespace)
}

pub fn run(args: &GetArgs) -> Done {
    if args.kind == Kind::Rules {
        return rules_tree::run(args);
    }
    if let Some(more) = &args.service {
        let problem = Problem::error(codes::TARGET_UNKNOWN, format!("`{more}` is one name too many"));
        return Err(Box::new(problem.help("name one object, or none for all")).into());
    }
    let client = find_lab(args.lab.as_deref())?;
    let way = way(args);
    let mut list: Value = client.get(&way.path)?;
    let mut items = match list["items"].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    };
    let value = match &args.name {
        Some(name) => {
            items = vec![pick(items, name)?];
            items[0].clone()
        }
        // As kubectl prints what it has read, whatever the kind.
        None => {
            json!({ "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": "" }, "items": items })
        }
    };
    output::print(args.format.output, &value, |wide| {
        if items.is_empty() && way.namespaced {
            return match args.scope.all_namespaces {
                true => "No resources found\n".to_owned(),
                false => format!("No resources found in {} namespace.\n", namespace(args)),
            };
        }
        draw(args, &items, wide)
    });
    Ok(ExitCode::SUCCESS)
}

fn draw(args: &GetArgs, items: &[Value], wide: bool) -> String {
    let columns = match args.kind {
        Kind::Pods if args.scope.all_namespaces => {
            let names = |pod: &Value| vec![text(pod, "/metadata/namespace").to_owned(), plain_name(pod)];
            return pod_table(items, wide, (&["NAMESPACE", "NAME"], names));
        }
        Kind::Pods => return pod_table(items, wide, (&["NAME"], |pod: &Value| vec![plain_name(pod)])),
        Kind::Hosts => return hosts(items, wide),
        Kind::Clients => return clients(items),
        Kind::Networks | Kind::Rules => return networks(items, wide),
        Kind::Services => tables::SERVICES,
        Kind::Endpoints => tables::ENDPOINTS,
        Kind::EndpointSlices => tables::SLICES,
        Kind::Deployments => tables::DEPLOYMENTS,
        Kind::Namespaces => tables::NAMESPACES,
    };
    tables::table(items, &columns, wide, args.scope.all_namespaces)
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
    // In a namespace that was named, its name need not be in front.
    let is = |item: &Value, full: &str| full == name || text(item, "/metadata/name") == name;
    let found = items.into_iter().zip(&names).find(|(item, n)| is(item, n)).map(|(item, _)| item);
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
    if pod.pointer("/metadata/deletionTimestamp").is_some() {
        return "Terminating".to_owned();
    }
    let states = pod.pointer("/status/containerStatuses").and_then(Value::as_array);
    let reason = states.into_iter().flatten().find_map(|c| {
        let reason = c.pointer("/state/waiting/reason").or(c.pointer("/state/terminated/reason"));
        reason.and_then(Value::as_str)
    });
    reason.unwrap_or(text(pod, "/status/phase")).to_owned()
}

/// Pods of any namespace, which stands in front of a name where it is not `default`.
pub fn pods(items: &[Value], wide: bool) -> String {
    pod_table(items, wide, (&["NAME"], |pod: &Value| vec![name_of(pod)]))
}

fn plain_name(item: &Value) -> String {
    text(item, "/metadata/name").to_owned()
}

/// A table of pods, whose first columns are `names`.
fn pod_table(items: &[Value], wide: bool, names: (&[&'static str], impl Fn(&Value) -> Vec<String>)) -> String {
    if items.is_empty() {
        return "the lab has no pods\n".to_owned();
    }
    let mut headings = names.0.to_vec();
    headings.extend(["READY", "STATUS", "RESTARTS", "IP", "HOST"]);
    if wide {
        headings.extend(["PORTS", "LABELS"]);
    }
    let mut table = Table::new(&headings);
    for pod in items {
        let statuses = pod.pointer("/status/containerStatuses").and_then(Value::as_array).cloned().unwrap_or_default();
        let ready = statuses.iter().filter(|c| c["ready"] == true).count();
        let restarts: u64 = statuses.iter().filter_map(|c| c["restartCount"].as_u64()).sum();
        let mut row = (names.1)(pod);
        row.extend([
            format!("{ready}/{}", statuses.len()),
            status(pod),
            restarts.to_string(),
            text(pod, "/status/podIP").to_owned(),
            text(pod, "/spec/nodeName").to_owned(),
        ]);
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
