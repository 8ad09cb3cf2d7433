//! What runs in a pod: containers, their ports, programs and readiness.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::diag::{Place, Problem, Problems, codes, did_you_mean};
use crate::objects::validate::{is_label_key, is_label_value, is_port_name};
use crate::spec::at::At;
use crate::spec::damage::Damage;
use crate::spec::types::{
    ContainerSpec, DeploymentSpec, EnvVar, HttpGet, HttpHeader, PodSpec, ReadinessSpec, UriScheme,
};
use crate::spec::value::{Labels, PortRef, PortSpec, Protocol};

use super::host_ports;
use super::model::{Container, HttpCheck, Port, Readiness, ReadinessCheck, Run};
use super::resolve::valid;

/// What pods and deployments have in common: the fields that describe containers.
pub(super) trait Workloads {
    /// The only container, as the short form describes it.
    fn only(&self, name: &At<String>) -> ContainerSpec;
    fn several(&self) -> Option<&Vec<At<ContainerSpec>>>;
}

macro_rules! has_workloads {
    ($($spec:ty),*) => { $(
        impl Workloads for $spec {
            fn only(&self, name: &At<String>) -> ContainerSpec {
                ContainerSpec {
                    name: Some(name.clone()),
                    image: self.image.clone(),
                    ports: self.ports.clone(),
                    command: self.command.clone(),
                    args: self.args.clone(),
                    env: self.env.clone(),
                    readiness_probe: self.readiness_probe.clone(),
                }
            }

            fn several(&self) -> Option<&Vec<At<ContainerSpec>>> {
                self.containers.as_ref()
            }
        }
    )* };
}

has_workloads!(PodSpec, DeploymentSpec);

/// The containers of one pod or deployment, as they were written.
pub(super) struct Workload<'a> {
    damage: &'a Damage,
    name: &'a At<String>,
    only: ContainerSpec,
    several: Option<&'a Vec<At<ContainerSpec>>>,
}

impl<'a> Workload<'a> {
    pub fn of(damage: &'a Damage, name: &'a At<String>, spec: &'a impl Workloads) -> Self {
        Workload { damage, name, only: spec.only(name), several: spec.several() }
    }

    /// Whether fields of the short form stand beside `containers`.
    fn both(&self) -> bool {
        let ContainerSpec { name: _, image, ports, command, args, env, readiness_probe } = &self.only;
        let lists = !args.is_empty() || !env.is_empty();
        let others = image.is_some() || ports.is_some() || command.is_some() || readiness_probe.is_some();
        self.several.is_some() && (lists || others)
    }
}

pub(super) fn resolve(workload: &Workload, problems: &mut Problems) -> Vec<Container> {
    if workload.both() {
        problems.push(
            Problem::error(
                codes::CONTAINERS_AND_SHORTHAND,
                format!("`{}` describes its container twice", workload.name.value),
            )
            .at(workload.name.place, "has `containers` and fields of a single one")
            .help("move image, ports, command, args, env and readinessProbe into the list"),
        );
    }
    let Some(several) = workload.several else {
        let only = vec![workload.container(&workload.only, &workload.name.value, None, problems)];
        host_ports::check_pod(&only, workload.name, problems);
        return only;
    };
    let mut all = Vec::new();
    let mut names: HashMap<String, Place> = HashMap::new();
    for (n, spec) in several.iter().enumerate() {
        let default = format!("{}-{}", workload.name.value, n + 1);
        let name = spec.name.as_ref().map_or(default, |n| n.value.clone());
        if let Some(first) = names.insert(name.clone(), spec.place) {
            problems.push(
                Problem::error(codes::NAME_TAKEN, format!("two containers are called `{name}`"))
                    .at(spec.place, "this one")
                    .at(first, "and this one")
                    .help("give one of them another name"),
            );
        }
        // In a pod of several containers only the first one listens by default.
        let silent: &[Port] = &[];
        all.push(workload.container(spec, &name, (n > 0).then_some(silent), problems));
    }
    check_ports(&all, workload.name, problems);
    host_ports::check_pod(&all, workload.name, problems);
    all
}

impl Workload<'_> {
    /// `default` are the ports where none are written; `None` stands for 8080, TCP and UDP.
    fn container(
        &self,
        spec: &ContainerSpec,
        name: &str,
        default: Option<&[Port]>,
        problems: &mut Problems,
    ) -> Container {
        let place = spec.name.as_ref().map_or(self.name.place, |n| n.place);
        // The only container has the pod's name, which is checked there.
        if let Some(written) = spec.name.as_ref().filter(|n| n.place != self.name.place) {
            valid::<super::names::PodName>(written, "container", problems);
        }
        check_env(&spec.env, place, problems);
        warn_image(spec, problems);
        let mut command = spec.command.clone().unwrap_or_default();
        let echo = command.is_empty();
        if echo && !spec.args.is_empty() && !self.damage.around(place) {
            problems.push(
                Problem::error(codes::SPEC_BAD_VALUE, "there are `args` but no `command`")
                    .at(place, "in this one")
                    .help("there are no images here; name the program in `command`"),
            );
        }
        command.extend(spec.args.iter().cloned());
        let ports = match &spec.ports {
            Some(written) => ports(written, problems),
            None if !echo => Vec::new(),
            None => default.map_or_else(echo_ports, <[Port]>::to_vec),
        };
        let readiness = spec.readiness_probe.as_ref().and_then(|r| readiness(r, &ports, self.damage, problems));
        let run = if echo { Run::Echo } else { Run::Program { command, env: spec.env.clone() } };
        Container { name: name.to_owned(), ports, run, readiness }
    }
}

/// A Kubernetes container has an image, so one that was copied from there has it, too.
fn warn_image(spec: &ContainerSpec, problems: &mut Problems) {
    let Some(image) = &spec.image else { return };
    let (what, help) = match &spec.command {
        Some(command) if !command.is_empty() => {
            ("the command is run from this machine's own programs", "leave `image` out; `command` alone says what runs")
        }
        _ => (
            "the built-in echo server answers in its place",
            "leave `image` out for the echo server, or name a program of this machine in `command`",
        ),
    };
    problems.push(
        Problem::warning(codes::IMAGE_NOT_RUN, format!("the image `{}` is not run: {what}", image.value))
            .at(image.place, "labctl runs no images")
            .help(help),
    );
}

/// The kernel keeps `NAME=value` with a zero byte behind it, so neither can be in a name.
fn check_env(env: &[EnvVar], place: Place, problems: &mut Problems) {
    for var in env {
        if var.name.is_empty() || var.name.contains(['=', '\0']) || var.value.contains('\0') {
            problems.push(
                Problem::error(codes::SPEC_BAD_VALUE, format!("`{}` cannot be an environment variable", var.name))
                    .at(place, "in this one")
                    .help("a name is not empty and has no `=`; `name: HOME` and `value: /root` make HOME=/root"),
            );
        }
    }
}

fn echo_ports() -> Vec<Port> {
    [Protocol::Tcp, Protocol::Udp].map(|protocol| Port { number: 8080, protocol, name: None, host_port: None }).to_vec()
}

/// Ports as written, each number and protocol once.
pub(super) fn ports(written: &[At<PortSpec>], problems: &mut Problems) -> Vec<Port> {
    let mut all: Vec<Port> = Vec::new();
    let mut places: HashMap<(u16, Protocol), Place> = HashMap::new();
    let mut names: HashMap<&str, Place> = HashMap::new();
    for spec in written {
        let number = spec.container_port.value.0;
        if let Some(first) = places.insert((number, spec.protocol), spec.place) {
            problems.push(port_taken(number, spec.protocol, spec.place, first));
            continue;
        }
        if let Some(name) = spec.name.as_ref().filter(|n| !is_port_name(n)) {
            problems.push(
                Problem::error(codes::NAME_INVALID, format!("`{}` cannot be a port's name", name.value))
                    .at(name.place, "this name")
                    .help("1 to 15 lower-case letters, digits and dashes, with at least one letter (RFC 6335)"),
            );
        }
        if let Some(name) = &spec.name
            && let Some(first) = names.insert(&name.value, name.place)
        {
            problems.push(
                Problem::error(codes::NAME_TAKEN, format!("two ports are called `{}`", name.value))
                    .at(name.place, "this one")
                    .at(first, "and this one")
                    .help("give one of them another name"),
            );
        }
        let name = spec.name.as_ref().map(|n| n.value.clone());
        all.push(Port { number, protocol: spec.protocol, name, host_port: host_ports::read(spec, problems) });
    }
    all
}

fn port_taken(number: u16, protocol: Protocol, place: Place, first: Place) -> Problem {
    Problem::error(codes::PORT_TAKEN, format!("port {number}/{protocol} is taken"))
        .at(place, "taken")
        .at(first, "by this one")
        .help("a port can be used once, and containers of a pod share its ports")
}

/// Containers of a pod share one network namespace, and so its ports.
fn check_ports(containers: &[Container], name: &At<String>, problems: &mut Problems) {
    let mut seen: HashMap<(u16, Protocol), &str> = HashMap::new();
    for container in containers {
        for port in &container.ports {
            if let Some(first) = seen.insert((port.number, port.protocol), &container.name) {
                let message = format!(
                    "port {}/{} of container `{}` is taken by container `{first}`",
                    port.number, port.protocol, container.name
                );
                problems.push(
                    Problem::error(codes::PORT_TAKEN, message)
                        .at(name.place, "in this pod")
                        .help("a port can be used once, and containers of a pod share its ports"),
                );
            }
        }
    }
}

fn readiness(spec: &At<ReadinessSpec>, ports: &[Port], damage: &Damage, problems: &mut Problems) -> Option<Readiness> {
    let lost_a_part = damage.around(spec.place);
    let mut port = |wanted: &PortRef| {
        let found = port_number(wanted, ports);
        if let (Err(name), false) = (found, lost_a_part) {
            problems.push(unknown_port(name, ports, spec.place));
        }
        found.ok()
    };
    let mut checks = Vec::new();
    if let Some(get) = &spec.http_get {
        checks.extend(port(&get.port).map(|port| http_check(get, port)));
    }
    if let Some(tcp) = &spec.tcp_socket {
        checks.extend(port(&tcp.port).map(|port| ReadinessCheck::TcpSocket { port }));
    }
    if let Some(exec) = spec.exec.as_ref().filter(|e| !e.command.is_empty()) {
        checks.push(ReadinessCheck::Exec { command: exec.command.clone() });
    }
    if let Some(grpc) = &spec.grpc {
        let service = grpc.service.clone().unwrap_or_default();
        checks.push(ReadinessCheck::Grpc { port: grpc.port.0, service });
    }
    let empty_command = spec.exec.as_ref().is_some_and(|e| e.command.is_empty());
    let asked = [spec.http_get.is_some(), spec.tcp_socket.is_some(), spec.exec.is_some(), spec.grpc.is_some()];
    let asked = asked.iter().filter(|a| **a).count();
    if asked > 1 || empty_command || (asked == 0 && !lost_a_part) {
        let (message, words) = match asked {
            1 => ("a readinessProbe's exec has no command", "no command".to_owned()),
            n => ("a readinessProbe has exactly one of httpGet, tcpSocket, exec and grpc", format!("this one has {n}")),
        };
        problems.push(
            Problem::error(codes::READINESS_PROBE, message)
                .at(spec.place, words)
                .help("for example `readinessProbe: { httpGet: { path: /healthz, port: 8080 } }`"),
        );
        return None;
    }
    if let Some(get) = &spec.http_get {
        check_http(get, spec.place, problems);
    }
    let seconds = |value: Option<u32>, default: u32| Duration::from_secs(u64::from(value.unwrap_or(default)));
    Some(Readiness {
        check: checks.pop()?,
        initial_delay: seconds(spec.initial_delay_seconds, 0),
        period: seconds(spec.period_seconds.map(|s| s.max(1)), 10),
        timeout: seconds(spec.timeout_seconds.map(|s| s.max(1)), 1),
        success_threshold: spec.success_threshold.unwrap_or(1).max(1),
        failure_threshold: spec.failure_threshold.unwrap_or(3).max(1),
    })
}

fn http_check(get: &HttpGet, port: u16) -> ReadinessCheck {
    ReadinessCheck::HttpGet(HttpCheck {
        path: get.path.clone().filter(|p| !p.is_empty()).unwrap_or_else(|| "/".to_owned()),
        port,
        https: get.scheme.unwrap_or_default() == UriScheme::Https,
        host: get.host.as_ref().and_then(|h| h.parse().ok()),
        headers: get.http_headers.iter().map(|h| (h.name.clone(), h.value.clone())).collect(),
    })
}

/// What cannot stand in a request.
fn check_http(get: &HttpGet, place: Place, problems: &mut Problems) {
    if let Some(host) = get.host.as_ref().filter(|h| h.parse::<IpAddr>().is_err()) {
        problems.push(
            Problem::error(codes::READINESS_PROBE, format!("`{}` is no address", host.value))
                .at(host.place, "here")
                .help("leave `host` out to ask the pod; `httpHeaders` with `Host` choose a virtual host"),
        );
    }
    let sound = |h: &&HttpHeader| {
        hyper::header::HeaderName::from_bytes(h.name.as_bytes()).is_ok()
            && hyper::header::HeaderValue::from_str(&h.value).is_ok()
    };
    if let Some(header) = get.http_headers.iter().find(|h| !sound(h)) {
        problems.push(
            Problem::error(codes::READINESS_PROBE, format!("`{}` cannot be a header of a request", header.name))
                .at(place, "in this probe")
                .help("for example `httpHeaders: [{ name: Host, value: tea.example.com }]`"),
        );
    }
    if get.path.as_ref().is_some_and(|p| p.contains(|c: char| c.is_control() || c == ' ')) {
        problems.push(
            Problem::error(codes::READINESS_PROBE, "a path has no blanks")
                .at(place, "in this probe")
                .help("write a blank as `%20`"),
        );
    }
}

/// A port by number or name; the name, where no port has it.
fn port_number<'w>(wanted: &'w PortRef, ports: &[Port]) -> Result<u16, &'w str> {
    match wanted {
        PortRef::Number(port) => Ok(port.0),
        PortRef::Name(name) => {
            ports.iter().find(|p| p.name.as_deref() == Some(name)).map(|p| p.number).ok_or(name.as_str())
        }
    }
}

fn unknown_port(name: &str, ports: &[Port], place: Place) -> Problem {
    let near = did_you_mean(name, ports.iter().filter_map(|p| p.name.as_deref()));
    Problem::error(codes::PORT_UNKNOWN, format!("no port of this container is called `{name}`"))
        .at(place, "in this probe")
        .help(near.map_or_else(
            || "write its number, or give a port this name".to_owned(),
            |near| format!("did you mean `{near}`?"),
        ))
}

/// Labels that the API server would refuse.
pub(super) fn check_labels(labels: &Labels, owner: &At<String>, problems: &mut Problems) {
    for (key, value) in labels {
        let message = match (is_label_key(key), is_label_value(value)) {
            (true, true) => continue,
            (false, _) => format!("`{key}` cannot be a label's key"),
            (true, false) => format!("`{value}` cannot be the value of the label `{key}`"),
        };
        problems.push(
            Problem::error(codes::LABEL_INVALID, message)
                .at(owner.place, "of this one")
                .help("at most 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends"),
        );
    }
}
