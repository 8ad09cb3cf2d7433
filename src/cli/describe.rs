//! `describe`: pods, services, deployments, ingresses, hosts and clients with all that is known of each, in
//! the way of kubectl. Services, deployments and ingresses are drawn in modules of their own.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::daemon::client::Client;
use crate::daemon::inspect::Seen;
use crate::diag::{Problem, codes};
use crate::lab::names::kind_of;
use crate::objects::ObjectKey;
use crate::spec::edit::ObjectKind;

use super::args::DescribeArgs;
use super::inspect::machine;
use super::output::{print, text};
use super::process::{outer_pid, program_pid};
use super::{Done, describe_deployment, describe_ingress, describe_service, find_lab, kube, named, tables};

/// What can be described.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thing {
    Pod,
    Host,
    Client,
    Service,
    Deployment,
    Ingress,
}

impl Thing {
    const ALL: [Thing; 6] = [Thing::Pod, Thing::Host, Thing::Client, Thing::Service, Thing::Deployment, Thing::Ingress];

    /// The kind that a word means: its name, its plural or its short form.
    fn of(word: &str) -> Option<Thing> {
        match ObjectKind::of(word) {
            Some(ObjectKind::Service) => return Some(Thing::Service),
            Some(ObjectKind::Deployment) => return Some(Thing::Deployment),
            Some(ObjectKind::Ingress) => return Some(Thing::Ingress),
            _ => {}
        }
        Some(match kind_of(word)? {
            "pod" => Thing::Pod,
            "host" => Thing::Host,
            _ => Thing::Client,
        })
    }

    fn word(self) -> &'static str {
        match self {
            Thing::Pod => "pod",
            Thing::Host => "host",
            Thing::Client => "client",
            Thing::Service => "service",
            Thing::Deployment => "deployment",
            Thing::Ingress => "ingress",
        }
    }

    /// All of the kind in a namespace, or all where the kind is in none.
    fn list(self, client: &Client, namespace: &str) -> Result<Vec<Value>, Box<Problem>> {
        let path = match self {
            Thing::Pod => kube::path(ObjectKind::Pod, Some(namespace)),
            Thing::Service => kube::path(ObjectKind::Service, Some(namespace)),
            Thing::Deployment => kube::path(ObjectKind::Deployment, Some(namespace)),
            Thing::Ingress => kube::path(ObjectKind::Ingress, Some(namespace)),
            Thing::Host => "/api/v1/nodes".to_owned(),
            Thing::Client => "/labctl/v1/clients".to_owned(),
        };
        kube::items(client, &path)
    }

    /// All that is known of one. `key` has the namespace also where the kind is in none.
    fn ask(self, client: &Client, key: &ObjectKey) -> Result<Value, Box<Problem>> {
        match self {
            Thing::Service => describe_service::ask(client, key),
            Thing::Deployment => describe_deployment::ask(client, key),
            Thing::Ingress => describe_ingress::ask(client, key),
            Thing::Pod => machine_of(client, &format!("pod/{}/{}", key.namespace, key.name)),
            _ => machine_of(client, &format!("{}/{}", self.word(), key.name)),
        }
    }
}

pub fn run(args: &DescribeArgs) -> Done {
    let client = find_lab(args.lab.as_deref())?;
    kube::check_namespace(&client, &args.namespace)?;
    let all = wanted(&client, args)?;
    let value = match all.as_slice() {
        [only] => only.clone(),
        _ => json!(all),
    };
    print(args.format.output, &value, |_| match all.is_empty() {
        true => format!("No resources found in {} namespace.\n", args.namespace),
        false => all.iter().map(draw).collect::<Vec<_>>().join("\n\n"),
    });
    Ok(ExitCode::SUCCESS)
}

/// Everything that the words name.
fn wanted(client: &Client, args: &DescribeArgs) -> Result<Vec<Value>, Box<Problem>> {
    let namespace = &args.namespace;
    let (kind, names) = match args.thing.as_slice() {
        [only] if !only.contains('/') => match Thing::of(only) {
            Some(kind) => {
                let all = kind.list(client, namespace)?;
                let key = |object: &Value| ObjectKey::new(namespace, text(object, "/metadata/name"));
                return all.iter().map(|object| kind.ask(client, &key(object))).collect();
            }
            None => (None, &args.thing[..]),
        },
        [first, rest @ ..] if !rest.is_empty() && !first.contains('/') => (Some(known(first)?), rest),
        names => (None, names),
    };
    names.iter().map(|name| one(client, kind, name, namespace)).collect()
}

fn known(word: &str) -> Result<Thing, Box<Problem>> {
    Thing::of(word).ok_or_else(|| {
        let problem = Problem::error(codes::TARGET_UNKNOWN, format!("`{word}` is no kind of thing to describe"));
        Box::new(
            problem.help("there are pod, service, deployment, ingress, host and client; a name alone will do, too"),
        )
    })
}

/// What is called `name`, which may have its kind or its namespace in front.
fn one(client: &Client, kind: Option<Thing>, name: &str, namespace: &str) -> Result<Value, Box<Problem>> {
    let (kind, name) = match name.split_once('/').map(|(word, rest)| (Thing::of(word), rest)) {
        // Behind another kind, a word in front is a namespace, even one that is called like a kind.
        Some((Some(of_name), rest)) if kind.is_none_or(|kind| kind == of_name) => (Some(of_name), rest),
        _ => (kind, name),
    };
    let key = named::key(name, Some(namespace));
    let things = called(client, &key)?;
    match (kind, things.as_slice()) {
        (Some(kind @ (Thing::Service | Thing::Deployment | Thing::Ingress)), _) => kind.ask(client, &key),
        (Some(kind), things) if things.contains(&kind) => kind.ask(client, &key),
        (None, [only]) => only.ask(client, &key),
        (None, [_, _, ..]) => Err(ambiguous(&things, name)),
        (kind, _) => elsewhere(client, kind, &key),
    }
}

/// What is called so where nothing is of this kind. The daemon knows what is near a name that nobody has.
fn elsewhere(client: &Client, kind: Option<Thing>, key: &ObjectKey) -> Result<Value, Box<Problem>> {
    let name = &key.name;
    let found = machine_of(client, &named::typed(key))?;
    let Some(kind) = kind else { return Ok(found) };
    let found = text(&found, "/kind");
    let message = format!("`{name}` is not a {} but a {found}", kind.word());
    let help = format!("`labctl describe {found} {name}` shows it");
    Err(Box::new(Problem::error(codes::TARGET_UNKNOWN, message).help(help)))
}

/// The kinds of which there is one with this name.
fn called(client: &Client, key: &ObjectKey) -> Result<Vec<Thing>, Box<Problem>> {
    let mut found = Vec::new();
    for thing in Thing::ALL {
        let all = thing.list(client, &key.namespace)?;
        found.extend(all.iter().any(|object| text(object, "/metadata/name") == key.name).then_some(thing));
    }
    Ok(found)
}

fn ambiguous(things: &[Thing], name: &str) -> Box<Problem> {
    let kinds: Vec<String> = things.iter().map(|t| format!("a {}", t.word())).collect();
    let ways: Vec<String> = things.iter().map(|t| format!("`labctl describe {} {name}`", t.word())).collect();
    let message = format!("`{name}` is {}", kinds.join(" and "));
    Box::new(Problem::error(codes::TARGET_UNKNOWN, message).help(format!("say which: {}", ways.join(" or "))))
}

/// A pod, host or client with what the kernel holds of it.
fn machine_of(client: &Client, target: &str) -> Result<Value, Box<Problem>> {
    let mut all: Value = client.get(&format!("/labctl/v1/inspect/describe?target={target}"))?;
    if text(&all, "/kind") == "router" {
        let problem = Problem::error(codes::TARGET_UNKNOWN, "the router is no pod, host or client");
        return Err(Box::new(problem.help("`labctl inspect stack router` shows its devices, routes and rules")));
    }
    number_processes(&mut all, client.pid()?);
    Ok(all)
}

fn draw(all: &Value) -> String {
    match text(all, "/kind") {
        "service" => describe_service::draw(all),
        "deployment" => describe_deployment::draw(all),
        "ingress" => describe_ingress::draw(all),
        "pod" => pod(all),
        "host" => host(all),
        _ => machine_text(all),
    }
}

/// Processes as the caller counts them, where that can be found out.
fn number_processes(all: &mut Value, daemon: i32) {
    let number = |value: &mut Value, outer: fn(i32, u32) -> Option<u32>| {
        let inner = value.as_u64().and_then(|n| u32::try_from(n).ok());
        if let Some(outer) = inner.and_then(|pid| outer(daemon, pid)) {
            *value = outer.into();
        }
    };
    number(&mut all["flanneldProcess"], outer_pid);
    for container in all["containers"].as_array_mut().into_iter().flatten() {
        number(&mut container["process"], program_pid);
    }
}

/// Lines of a name and a value.
#[derive(Default)]
pub struct Lines(String);

impl Lines {
    pub fn line(&mut self, name: &str, value: impl std::fmt::Display) {
        self.0.push_str(&format!("{:<14} {value}\n", format!("{name}:")));
    }

    pub fn list<'v>(&mut self, name: &str, values: impl IntoIterator<Item = &'v str>) {
        let mut name = format!("{name}:");
        for value in values {
            self.0.push_str(&format!("{name:<14} {value}\n"));
            name.clear();
        }
        if !name.is_empty() {
            self.0.push_str(&format!("{name:<14} <none>\n"));
        }
    }

    pub fn block(&mut self, name: &str, block: &str) {
        self.0.push_str(&format!("{name}:\n"));
        self.0.extend(block.lines().map(|l| format!("  {l}\n")));
    }

    pub fn take(self) -> String {
        self.0
    }
}

fn labels(object: &Value) -> Vec<String> {
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
    labels.into_iter().flatten().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect()
}

fn items<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn seen(value: &Value) -> Option<Seen> {
    serde_json::from_value(value.clone()).ok()
}

fn pod(all: &Value) -> String {
    let object = &all["object"];
    let mut out = Lines::default();
    out.line("Name", text(object, "/metadata/name"));
    out.line("Namespace", text(object, "/metadata/namespace"));
    out.line("Host", format!("{}/{}", text(object, "/spec/nodeName"), text(object, "/status/hostIP")));
    out.list("Labels", labels(object).iter().map(String::as_str));
    out.line("Status", tables::status(object));
    let condition = object.pointer("/status/conditions/0").cloned().unwrap_or_default();
    match text(&condition, "/message") {
        "" => out.line("Ready", text(&condition, "/status")),
        why => out.line("Ready", format!("{} ({why})", text(&condition, "/status"))),
    }
    out.line("IP", text(object, "/status/podIP"));
    if let Some(owner) = object.pointer("/metadata/ownerReferences/0") {
        out.line("Controlled by", format!("{}/{}", text(owner, "/kind"), text(owner, "/name")));
    }
    out.line("Restart policy", text(object, "/spec/restartPolicy"));
    let ports: Vec<String> = items(all, "hostPorts").iter().map(|p| tables::host_port(p, object)).collect();
    if !ports.is_empty() {
        out.list("Host ports", ports.iter().map(String::as_str));
    }
    out.block("Network", &cable(all));
    out.block("Interfaces", &interfaces(all));
    for (index, container) in items(all, "containers").iter().enumerate() {
        let at = |path: &str| object.pointer(&format!("{path}/{index}")).cloned().unwrap_or_default();
        let lines = container_text(container, &at("/spec/containers"), &at("/status/containerStatuses"));
        out.block(&format!("Container {}", text(container, "/name")), &lines);
    }
    out.0
}

/// The veth pair, both ends with their indices.
fn cable(all: &Value) -> String {
    let eth0 = items(all, "interfaces").iter().filter_map(seen).find(|s| s.interface.far_index.is_some());
    let Some(eth0) = eth0 else { return "no veth pair".to_owned() };
    let far = seen(&all["hostEnd"]);
    let end = |s: &Seen| {
        let i = &s.interface;
        format!("{} (index {}, {}, {})", i.name, i.index, i.mac.as_deref().unwrap_or("no MAC"), i.state)
    };
    let there = match (&far, &eth0.other_end) {
        (Some(far), Some(place)) => {
            let port = far.interface.master.as_ref().map(|m| format!(", port of {m}")).unwrap_or_default();
            format!("{} on {}{port}", end(far), machine(&place.kind, &place.name))
        }
        (None, Some(place)) => {
            let index = eth0.interface.far_index.unwrap_or_default();
            format!("{} (index {index}) on {}", place.device, machine(&place.kind, &place.name))
        }
        _ => "MISSING".to_owned(),
    };
    format!("veth pair: {}\n      and: {there}", end(&eth0))
}

fn interfaces(all: &Value) -> String {
    let seen: Vec<Seen> = items(all, "interfaces").iter().filter_map(seen).collect();
    super::inspect::stack::interfaces(&seen.iter().collect::<Vec<_>>())
}

fn container_text(more: &Value, spec: &Value, status: &Value) -> String {
    let mut out = Lines::default();
    out.line("Runs", text(more, "/runs"));
    if let Some(missing) = more["missing"].as_str() {
        out.line("Note", missing);
    }
    if let Some(refused) = more["refused"].as_str() {
        out.line("Trouble", refused);
    }
    if let Some(process) = more["process"].as_u64() {
        out.line("Process", process);
    }
    let ports: Vec<String> = items(spec, "ports")
        .iter()
        .map(|p| match text(p, "/name") {
            "" => format!("{}/{}", p["containerPort"], text(p, "/protocol")),
            name => format!("{}/{} ({name})", p["containerPort"], text(p, "/protocol")),
        })
        .collect();
    out.list("Ports", ports.iter().map(String::as_str));
    out.line("State", state(status));
    out.line("Ready", status["ready"] == true);
    out.line("Restarts", &status["restartCount"]);
    if let Some(readiness) = more["readiness"].as_object() {
        out.line("Readiness", readiness["probe"].as_str().unwrap_or_default());
        if let Some(failure) = readiness["lastFailure"].as_str() {
            out.line("Last failure", failure);
        }
    }
    let log: Vec<&str> = items(more, "log").iter().filter_map(Value::as_str).collect();
    if !log.is_empty() {
        out.block("Last output", &log.join("\n"));
    }
    out.0
}

fn state(status: &Value) -> String {
    let Some((word, more)) = status["state"].as_object().and_then(|s| s.iter().next()) else {
        return "unknown".to_owned();
    };
    let code = more["exitCode"].as_i64().map(|c| format!(", exit code {c}")).unwrap_or_default();
    let message = match text(more, "/message") {
        "" => String::new(),
        message => format!(", {message}"),
    };
    match text(more, "/reason") {
        "" => word.clone(),
        reason => format!("{word}: {reason}{message}{code}"),
    }
}

fn host(all: &Value) -> String {
    let object = &all["object"];
    let mut out = Lines::default();
    out.line("Name", text(object, "/metadata/name"));
    out.list("Labels", labels(object).iter().map(String::as_str));
    network(all, object, &mut out);
    out.list("Ports", items(all, "ports").iter().filter_map(Value::as_str));
    out.line("Pod subnet", text(object, "/spec/podCIDR"));
    out.line("flannel", text(all, "/backend/type"));
    out.line("Lease", &all["lease"]);
    if let Some(process) = all["flanneldProcess"].as_u64() {
        out.line("flanneld", format!("process {process}"));
    }
    out.block("Network", &cable(all));
    out.block("Interfaces", &interfaces(all));
    out.block("Pods", &tables::pods(items(all, "pods")));
    out.0
}

fn network(all: &Value, object: &Value, out: &mut Lines) {
    out.line("Address", text(object, "/status/addresses/0/address"));
    out.line("In network", format!("{}, router {}", text(all, "/network/name"), text(all, "/network/router")));
}

fn machine_text(all: &Value) -> String {
    let object = &all["object"];
    let mut out = Lines::default();
    out.line("Name", text(object, "/metadata/name"));
    network(all, object, &mut out);
    let ports = items(&object["spec"], "ports").iter();
    let ports: Vec<String> = ports.map(|p| format!("{}/{}", p["port"], text(p, "/protocol"))).collect();
    out.list("Ports", ports.iter().map(String::as_str));
    out.block("Network", &cable(all));
    out.block("Interfaces", &interfaces(all));
    out.0
}
