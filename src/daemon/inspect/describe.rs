//! One pod, host or client with all that is known of it: the object, its devices and addresses as
//! the kernel has them, who lives there and how that one is.

use serde_json::{Value, json};

use crate::diag::Problem;
use crate::kernel::stack::Stack;
use crate::lab::names::NsName;
use crate::lab::{Container, Host, HostPort, HttpCheck, Lab, Pod, Port, Readiness, ReadinessCheck, Run};
use crate::plan::flannel::lease;
use crate::plan::portmap;

use super::super::objects;
use super::super::programs::State;
use super::super::state::Daemon;
use super::{Seen, read, seen};

/// How many lines of a program's output are shown.
const LAST_LINES: usize = 10;

pub async fn one(daemon: &Daemon, ns: &NsName) -> Result<Value, Box<Problem>> {
    let lab = daemon.lab();
    let stack = read(daemon, ns).await?;
    let mut all = json!({ "kind": ns.kind(), "name": ns.to_string(), "interfaces": interfaces(daemon, ns, &stack) });
    match ns {
        NsName::Pod(id) => {
            if let Some(pod) = lab.pod(id) {
                describe_pod(daemon, &lab, pod, &mut all).await?;
            }
        }
        NsName::Host(name) => {
            if let Some(host) = lab.host(name) {
                describe_host(daemon, &lab, host, &mut all);
            }
        }
        NsName::Client(name) => {
            if let Some(client) = lab.clients.iter().find(|c| c.name == *name) {
                let network = lab.network_of(&client.attachment);
                all["object"] = objects::client(&lab, client);
                all["network"] = json!({ "name": network.name, "router": network.gateway });
            }
        }
        NsName::Router => {}
    }
    Ok(all)
}

fn interfaces(daemon: &Daemon, ns: &NsName, stack: &Stack) -> Vec<Seen> {
    let plan = daemon.plan();
    stack.interfaces.iter().map(|i| seen(&plan, ns, i.clone())).collect()
}

/// The ports of the host that lead to the pod, with the chain of its rules there.
fn host_ports(pod: &Pod) -> Value {
    let chain = portmap::chain_of(portmap::NETWORK, &portmap::container_id(&pod.id));
    let one = |(port, host): (&Port, &HostPort)| {
        json!({
            "hostIP": host.ip, "hostPort": host.number, "protocol": port.protocol,
            "containerPort": port.number, "chain": chain,
        })
    };
    portmap::ports(pod).map(one).collect()
}

async fn describe_pod(daemon: &Daemon, lab: &Lab, pod: &Pod, all: &mut Value) -> Result<(), Box<Problem>> {
    all["object"] = objects::pod(daemon, lab, pod);
    let host = NsName::Host(pod.host.clone());
    let there = read(daemon, &host).await?;
    let plan = daemon.plan();
    let veth = there.interfaces.into_iter().find(|i| i.name == pod.veth.as_str());
    all["hostEnd"] = json!(veth.map(|i| seen(&plan, &host, i)));
    all["hostPorts"] = host_ports(pod);
    all["containers"] = pod.containers.iter().map(|c| container(daemon, pod, c)).collect();
    Ok(())
}

fn container(daemon: &Daemon, pod: &Pod, container: &Container) -> Value {
    let ns = pod.ns();
    let verdict = daemon.readiness.verdict(&ns, &container.name);
    let (log, process) = daemon
        .workloads
        .program(&ns, &container.name, |s| {
            let process = match &*s.state.borrow() {
                State::Running { pid } => Some(*pid),
                _ => None,
            };
            (last_lines(&s.log.since(0).0), process)
        })
        .unwrap_or_default();
    json!({
        "name": container.name,
        "runs": match &container.run {
            Run::Echo => "the built-in echo server".to_owned(),
            Run::Dns => "the cluster's DNS server".to_owned(),
            Run::Ingress => "the ingress controller".to_owned(),
            Run::Program { command, .. } => command.join(" "),
        },
        "missing": objects::missing_program(container),
        "refused": daemon.refused_by(&ns).filter(|_| container.run == Run::Ingress),
        "process": process,
        "readiness": container.readiness.as_ref().map(|r| json!({
            "probe": probe_text(r),
            "ready": verdict.as_ref().is_some_and(|v| v.ready),
            "lastFailure": verdict.map(|v| v.message).filter(|m| !m.is_empty()),
        })),
        "log": log,
    })
}

/// As kubectl writes a probe down.
fn probe_text(probe: &Readiness) -> String {
    let check = match &probe.check {
        ReadinessCheck::HttpGet(HttpCheck { path, port, https, host, .. }) => {
            let scheme = if *https { "https" } else { "http" };
            let host = host.map(|ip| ip.to_string()).unwrap_or_default();
            format!("http-get {scheme}://{host}:{port}{path}")
        }
        ReadinessCheck::Grpc { port, service } => format!("grpc <pod>:{port} {service}").trim_end().to_owned(),
        ReadinessCheck::TcpSocket { port } => format!("tcp-socket :{port}"),
        ReadinessCheck::Exec { command } => format!("exec {}", command.join(" ")),
    };
    format!(
        "{check} delay={}s timeout={}s period={}s #success={} #failure={}",
        probe.initial_delay.as_secs(),
        probe.timeout.as_secs(),
        probe.period.as_secs(),
        probe.success_threshold,
        probe.failure_threshold
    )
}

fn last_lines(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(LAST_LINES)).map(|l| (*l).to_owned()).collect()
}

fn describe_host(daemon: &Daemon, lab: &Lab, host: &Host, all: &mut Value) {
    let network = lab.network_of(&host.attachment);
    all["object"] = objects::node(host);
    all["network"] = json!({ "name": network.name, "router": network.gateway });
    all["backend"] = json!(lab.cluster.backend);
    all["lease"] = json!(lease(lab, host));
    all["flanneldProcess"] = json!(daemon.workloads.flannelds.pid(&host.ns()));
    all["ports"] = host
        .ports
        .iter()
        .map(|p| json!(format!("{}/{}", p.number, json!(p.protocol).as_str().unwrap_or(""))))
        .collect();
    all["pods"] = lab.pods_on(&host.name).map(|p| objects::pod(daemon, lab, p)).collect();
}
