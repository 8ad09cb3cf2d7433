//! Pods and hosts in Kubernetes' own shape (core/v1 Pod and Node), with the state that they are
//! in now. Only fields that labctl knows something about are there.

use serde_json::{Value, json};

use crate::kernel::path;
use crate::lab::names::NsName;
use crate::lab::{Client, Container, Host, Lab, Network, Pod, Port, Run};
use crate::objects::ObjectKey;
use crate::plan::underlay;

use super::programs::State;
use super::state::Daemon;

/// A list as `kubectl get -o json` prints it.
pub fn list(items: Vec<Value>) -> Value {
    json!({ "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": "" }, "items": items })
}

/// What a container does now and whether it is ready.
struct Status {
    state: State,
    ready: bool,
    restarts: u32,
    /// Why it is not ready, where a probe says so.
    message: String,
}

fn status(daemon: &Daemon, ns: &NsName, container: &Container) -> Status {
    let (state, restarts) = match &container.run {
        // The echo server is part of the daemon itself.
        Run::Echo => (State::Running { pid: std::process::id() }, 0),
        Run::Dns => daemon.services.dns.state(ns).unwrap_or((creating(), 0)),
        Run::Program { .. } | Run::Ingress => daemon
            .workloads
            .program(ns, &container.name, |s| (s.state.borrow().clone(), *s.restarts.borrow()))
            .unwrap_or((creating(), 0)),
    };
    let running = matches!(state, State::Running { .. });
    let verdict = daemon.readiness.verdict(ns, &container.name);
    let (ready, message) = verdict.map_or((true, String::new()), |v| (v.ready, v.message));
    Status { ready: running && ready, message: if ready { String::new() } else { message }, state, restarts }
}

fn creating() -> State {
    State::Waiting { reason: "ContainerCreating".to_owned(), message: String::new() }
}

/// A pod's phase.
pub fn pod_phase(daemon: &Daemon, pod: &Pod) -> &'static str {
    let ns = pod.ns();
    let states: Vec<State> = pod.containers.iter().map(|c| status(daemon, &ns, c).state).collect();
    phase(states.iter())
}

/// A pod.
pub fn pod(daemon: &Daemon, lab: &Lab, pod: &Pod) -> Value {
    let ns = pod.ns();
    let statuses: Vec<_> = pod.containers.iter().map(|c| (c, status(daemon, &ns, c))).collect();
    let ready = statuses.iter().all(|(_, s)| s.ready);
    let not_ready: Vec<_> = statuses.iter().filter(|(_, s)| !s.ready).map(|(c, s)| why(c, s)).collect();
    let owner = pod.owner.as_ref().map(|name| json!([{ "apiVersion": "apps/v1", "kind": "Deployment", "name": name }]));
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod.id.name,
            "namespace": pod.id.namespace,
            "labels": pod.labels,
        },
        "spec": {
            "nodeName": pod.host,
            "restartPolicy": pod.restart_policy,
            "terminationGracePeriodSeconds": pod.grace.as_secs(),
            "containers": pod.containers.iter().map(container).collect::<Vec<_>>(),
        },
        "status": {
            "phase": phase(statuses.iter().map(|(_, s)| &s.state)),
            "podIP": pod.ip(),
            "podIPs": [{ "ip": pod.ip() }],
            "hostIP": lab.host(&pod.host).map(Host::ip),
            "conditions": [{
                "type": "Ready",
                "status": if ready { "True" } else { "False" },
                "message": not_ready.join("; "),
            }],
            "containerStatuses": statuses.iter().map(|(c, s)| container_status(c, s)).collect::<Vec<_>>(),
        },
    });
    let key = ObjectKey::new(pod.id.namespace.as_str(), pod.id.name.as_str());
    if let Some(leaving) = daemon.births.leaving(&key) {
        object["metadata"]["deletionTimestamp"] = leaving.until.to_string().into();
        object["metadata"]["deletionGracePeriodSeconds"] = leaving.grace.into();
    }
    if let Some(born) = daemon.births.of("Pod", key) {
        object["metadata"]["creationTimestamp"] = born.into();
    }
    if let Some(owner) = owner {
        object["metadata"]["ownerReferences"] = owner;
    }
    object
}

/// Whether all containers of a pod are ready.
pub fn is_ready(daemon: &Daemon, pod: &Pod) -> bool {
    pod.containers.iter().all(|c| status(daemon, &pod.ns(), c).ready)
}

/// Why a pod is not ready, in words; nothing where it is, or where its work is done.
pub fn trouble(daemon: &Daemon, pod: &Pod) -> Option<String> {
    let ns = pod.ns();
    let statuses: Vec<_> = pod.containers.iter().map(|c| (c, status(daemon, &ns, c))).collect();
    let is_leaving = daemon.services.is_terminating(&pod.id);
    if is_leaving || phase(statuses.iter().map(|(_, s)| &s.state)) == "Succeeded" {
        return None;
    }
    let all: Vec<_> = statuses.iter().filter(|(_, s)| !s.ready).map(|(c, s)| why(c, s)).collect();
    (!all.is_empty()).then(|| format!("pod {}: {}", pod.id, all.join("; ")))
}

fn why(container: &Container, status: &Status) -> String {
    let name = &container.name;
    let why = match &status.state {
        State::Waiting { reason, message } if message.is_empty() => format!("{name}: {reason}"),
        State::Waiting { reason, message } => format!("{name}: {reason}, {message}"),
        State::Terminated { exit_code, reason } => format!("{name}: {reason}, exit code {exit_code}"),
        State::Running { .. } => format!("{name}: {}", status.message),
    };
    match missing_program(container) {
        Some(what) if !matches!(status.state, State::Running { .. }) => format!("{why}: {what}"),
        _ => why,
    }
}

/// What is said of a container whose program this machine does not have.
pub fn missing_program(container: &Container) -> Option<String> {
    let Run::Program { command, env } = &container.run else { return None };
    let program = command.first()?;
    // One that sets its PATH may look elsewhere.
    if env.iter().any(|e| e.name == "PATH") || path::is_there(program) {
        return None;
    }
    Some(format!("this machine has no program `{program}`, and no images run here: install it, or leave `command` out"))
}

/// Kubernetes' pod phase from its containers' states.
fn phase<'a>(states: impl Iterator<Item = &'a State>) -> &'static str {
    let states: Vec<_> = states.collect();
    let ended = |s: &&&State| matches!(s, State::Terminated { .. });
    if states.iter().any(|s| matches!(s, State::Waiting { reason, .. } if reason == "ContainerCreating")) {
        return "Pending";
    }
    if states.iter().filter(ended).count() < states.len() {
        return "Running";
    }
    let failed = states.iter().any(|s| matches!(s, State::Terminated { exit_code, .. } if *exit_code != 0));
    if failed { "Failed" } else { "Succeeded" }
}

fn port(port: &Port) -> Value {
    let mut all = json!({ "containerPort": port.number, "protocol": port.protocol });
    if let Some(name) = &port.name {
        all["name"] = json!(name);
    }
    if let Some(host) = &port.host_port {
        all["hostPort"] = json!(host.number);
        if let Some(ip) = host.ip {
            all["hostIP"] = json!(ip);
        }
    }
    all
}

fn container(container: &Container) -> Value {
    let ports: Vec<_> = container.ports.iter().map(port).collect();
    match &container.run {
        Run::Echo => json!({ "name": container.name, "image": "labctl/echo", "ports": ports }),
        Run::Dns => json!({ "name": container.name, "image": "labctl/coredns", "ports": ports }),
        Run::Ingress => json!({ "name": container.name, "image": "labctl/ingress-controller", "ports": ports }),
        Run::Program { command, env } => {
            json!({ "name": container.name, "command": command, "env": env, "ports": ports })
        }
    }
}

fn container_status(container: &Container, status: &Status) -> Value {
    let state = match &status.state {
        State::Running { .. } => json!({ "running": {} }),
        State::Waiting { reason, message } => json!({ "waiting": { "reason": reason, "message": message } }),
        State::Terminated { exit_code, reason } => {
            json!({ "terminated": { "exitCode": exit_code, "reason": reason } })
        }
    };
    json!({ "name": container.name, "ready": status.ready, "restartCount": status.restarts, "state": state })
}

/// A host, as a node.
pub fn node(host: &Host) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": host.name, "labels": host.labels },
        "spec": { "podCIDR": host.pod_cidr, "podCIDRs": [host.pod_cidr] },
        "status": {
            "addresses": [
                { "type": "InternalIP", "address": host.ip() },
                { "type": "Hostname", "address": host.name },
            ],
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    })
}

/// A machine outside the cluster, which Kubernetes has no kind for.
pub fn client(lab: &Lab, client: &Client) -> Value {
    let ports: Vec<_> = client.ports.iter().map(|p| json!({ "port": p.number, "protocol": p.protocol })).collect();
    json!({
        "apiVersion": "labctl/v1",
        "kind": "Client",
        "metadata": { "name": client.name },
        "spec": { "network": lab.network_of(&client.attachment).name, "ports": ports },
        "status": { "addresses": [{ "type": "InternalIP", "address": client.ip() }] },
    })
}

/// A network with who is plugged into it.
pub fn network(lab: &Lab, network: &Network) -> Value {
    let hosts = lab.hosts.iter().map(|h| (h.name.as_str(), &h.attachment));
    let clients = lab.clients.iter().map(|c| (c.name.as_str(), &c.attachment));
    let here = |(name, at): (&str, &crate::lab::Attachment)| {
        (lab.network_of(at).name == network.name).then(|| name.to_owned())
    };
    json!({
        "apiVersion": "labctl/v1",
        "kind": "Network",
        "metadata": { "name": network.name },
        "spec": { "cidr": network.gateway.trunc(), "gateway": network.gateway.addr(), "mtu": network.mtu },
        "status": {
            "bridge": underlay::bridge_name(network),
            "machines": hosts.chain(clients).filter_map(here).collect::<Vec<_>>(),
        },
    })
}
