//! Ports of hosts that lead to pods (`hostPort`): what may be written, which pods cannot share a
//! host, and what they get in the way of. The rules that make them work are [`crate::plan::portmap`]'s.
//!
//! What the API server refuses is an error here, and so is what its scheduler would never place. What
//! a real cluster takes without a word and its owner would hardly want is a warning.

use std::collections::HashSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::diag::{Place, Problem, Problems, codes};
use crate::objects::{ObjectKey, protocol};
use crate::spec::LabFile;
use crate::spec::at::At;
use crate::spec::types::ContainerSpec;
use crate::spec::value::{PortSpec, Protocol};

use super::ingress::{INGRESS_NAME, INGRESS_NAMESPACE};
use super::model::{Backend, Container, Host, Lab, Pod, Port};
use super::names::PodId;

/// A port of a pod's host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPort {
    pub number: u16,
    /// The only address of the host that it is on; nothing stands for all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
}

/// What a pod takes of its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Claim {
    pub number: u16,
    pub protocol: Protocol,
    pub ip: Option<IpAddr>,
}

impl Claim {
    /// Whether two pods with these cannot be on one host (`HostPortInfo.CheckConflict` of the scheduler).
    pub fn overlaps(&self, other: &Claim) -> bool {
        let same = (self.number, self.protocol) == (other.number, other.protocol);
        same && (self.ip.is_none() || other.ip.is_none() || self.ip == other.ip)
    }
}

impl std::fmt::Display for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Claim { number, protocol, ip } = self;
        match ip {
            Some(ip) => write!(f, "{ip}:{number}/{protocol}"),
            None => write!(f, "{number}/{protocol}"),
        }
    }
}

/// What these containers take of their host, and the ports that it leads to.
pub(super) fn claims(containers: &[Container]) -> impl Iterator<Item = (Claim, &Port)> {
    containers.iter().flat_map(|c| &c.ports).filter_map(|port| {
        let HostPort { number, ip } = port.host_port.as_ref()?;
        Some((Claim { number: *number, protocol: port.protocol, ip: *ip }, port))
    })
}

/// The host's port that a container's port asks for.
pub(super) fn read(spec: &PortSpec, problems: &mut Problems) -> Option<HostPort> {
    let ip = match &spec.host_ip {
        Some(written) => host_ip(written, problems)?,
        None => None,
    };
    let Some(number) = &spec.host_port else {
        if let Some(ip) = &spec.host_ip {
            problems.push(
                Problem::warning(codes::HOST_PORT, "a `hostIP` without `hostPort` does nothing")
                    .at(ip.place, "an address alone")
                    .help("add `hostPort`, or take it out"),
            );
        }
        return None;
    };
    Some(HostPort { number: number.value.0, ip })
}

/// An address of a host; the unspecified one stands for all of them. Nothing where it cannot be used.
fn host_ip(written: &At<String>, problems: &mut Problems) -> Option<Option<IpAddr>> {
    match written.parse::<IpAddr>() {
        Ok(ip @ IpAddr::V4(_)) => Some((!ip.is_unspecified()).then_some(ip)),
        // As portmap does with an address of the family that the pod has none of.
        Ok(IpAddr::V6(_)) => {
            problems.push(
                Problem::warning(codes::HOST_PORT, format!("nothing comes in by the hostIP {}", written.value))
                    .at(written.place, "pods have IPv4 addresses only")
                    .help("write an IPv4 address of the host, or leave `hostIP` out"),
            );
            None
        }
        Err(_) => {
            problems.push(
                Problem::error(codes::HOST_PORT, format!("`{}` is no address", written.value))
                    .at(written.place, "here")
                    .help("write an address of the host, such as 192.168.1.11, or leave `hostIP` out for all of them"),
            );
            None
        }
    }
}

/// A host's or client's own ports are on its own addresses as they are.
pub(super) fn refuse(ports: &[At<PortSpec>], what: &str, problems: &mut Problems) {
    for written in ports.iter().filter_map(|port| port.host_port.as_ref()) {
        problems.push(
            Problem::error(codes::HOST_PORT, format!("a port of a {what} itself has no `hostPort`"))
                .at(written.place, "only ports of pods have one")
                .help(format!("take it out; the {what} listens on `containerPort`")),
        );
    }
}

/// The same port of a host twice in one pod (the API server's `checkHostPortConflicts`).
pub(super) fn check_pod(containers: &[Container], name: &At<String>, problems: &mut Problems) {
    let mut seen = HashSet::new();
    for (claim, _) in claims(containers) {
        if !seen.insert(claim) {
            problems.push(
                Problem::error(codes::HOST_PORT, format!("`{}` asks twice for hostPort {claim}", name.value))
                    .at(name.place, "in this pod")
                    .help("a port of the host leads to one port of one pod; take another"),
            );
        }
    }
}

/// Where a pod's `hostPort` was written, if it was.
pub(super) fn place_of(file: &LabFile, (id, owner): (&PodId, Option<&str>), port: &Port) -> Option<Place> {
    type Lists<'a> = (Option<&'a Vec<At<PortSpec>>>, Option<&'a Vec<At<ContainerSpec>>>);
    let at_home = |written: &Option<At<String>>| {
        written.as_ref().map_or("default", |n| n.value.as_str()) == id.namespace.as_str()
    };
    let (ports, containers): Lists = match owner {
        None => {
            let (_, pod) = file.pods.iter().find(|(n, s)| n.value == id.name.as_str() && at_home(&s.namespace))?;
            (pod.ports.as_ref(), pod.containers.as_ref())
        }
        // What the lab has without writing it.
        Some(INGRESS_NAME) if id.namespace.as_str() == INGRESS_NAMESPACE => {
            return file.cluster.ingress.as_ref()?.replicas.as_ref().map(|r| r.place);
        }
        Some(owner) => {
            let (_, all) = file.deployments.iter().find(|(n, s)| n.value == owner && at_home(&s.namespace))?;
            (all.ports.as_ref(), all.containers.as_ref())
        }
    };
    let of_containers = containers.into_iter().flatten().filter_map(|c| c.ports.as_ref()).flatten();
    let mut written = ports.into_iter().flatten().chain(of_containers);
    let found = written.find(|p| p.container_port.value.0 == port.number && p.protocol == port.protocol)?;
    found.host_port.as_ref().map(|p| p.place)
}

/// What a host's port gets in the way of, or is hidden by.
pub(super) fn warn(file: &LabFile, lab: &Lab, problems: &mut Problems) {
    let mut told = HashSet::new();
    for pod in &lab.pods {
        let Some(host) = lab.host(&pod.host) else { continue };
        for (claim, port) in claims(&pod.containers) {
            let place = place_of(file, (&pod.id, pod.owner.as_deref()), port);
            for clash in clashes(lab, host, pod, &claim) {
                // The pods of a deployment all say the same.
                if place.is_none_or(|place| told.insert((place, clash.about))) {
                    problems.push(clash.problem(place));
                }
            }
        }
    }
}

/// Something else that answers on a host's port.
struct Clash {
    /// Tells kinds of clashes apart.
    about: &'static str,
    message: String,
    words: &'static str,
    help: String,
}

impl Clash {
    fn problem(self, place: Option<Place>) -> Problem {
        let problem = Problem::warning(codes::HOST_PORT, self.message);
        match place {
            Some(place) => problem.at(place, self.words),
            None => problem,
        }
        .help(self.help)
    }
}

fn clashes(lab: &Lab, host: &Host, pod: &Pod, claim: &Claim) -> Vec<Clash> {
    let mut all = Vec::new();
    if claim.ip.is_some_and(|ip| !is_on(ip, host)) {
        all.push(Clash {
            about: "address",
            message: format!(
                "nothing comes in by hostPort {claim} of {}: host {} has no such address",
                pod.id, host.name
            ),
            words: "with a `hostIP` that is not this host's",
            help: format!("write {}, or leave `hostIP` out for all addresses of the host", host.ip()),
        });
    }
    if let Some(service) = node_port(lab, claim) {
        let range = &lab.cluster.node_ports;
        all.push(Clash {
            about: "node port",
            message: format!("hostPort {claim} of {} is the NodePort of service {service}, which wins", pod.id),
            words: "the pod does not get what comes for it",
            help: format!(
                "a packet meets kube-proxy's rules before portmap's; take a port outside {}-{}",
                range.start(),
                range.end()
            ),
        });
    }
    let listens = |p: &&Port| (p.number, p.protocol) == (claim.number, claim.protocol);
    if host.ports.iter().any(|p| listens(&p)) {
        all.push(Clash {
            about: "listener",
            message: format!("hostPort {claim} of {} hides the port that host {} itself listens on", pod.id, host.name),
            words: "the pod gets what comes for it",
            help: "packets are led to the pod before they come to the host; take another hostPort".to_owned(),
        });
    }
    if takes_tunnel(lab, host, claim) {
        all.push(Clash {
            about: "tunnel",
            message: format!(
                "hostPort {claim} of {} takes the packets of flannel's tunnel on host {}",
                pod.id, host.name
            ),
            words: "pods of other hosts are cut off",
            help: "take another hostPort, or another `cluster.flannel.port`".to_owned(),
        });
    }
    all
}

/// Whether an address is one of the host's, as the kernel sees it.
fn is_on(ip: IpAddr, host: &Host) -> bool {
    ip.is_loopback() || ip == host.ip() || ip == host.pod_cidr.network() || Some(ip) == host.pod_cidr.hosts().next()
}

fn node_port(lab: &Lab, claim: &Claim) -> Option<ObjectKey> {
    let has = |port: &crate::objects::ServicePort| {
        port.node_port == Some(claim.number.into()) && protocol(port.protocol.as_deref()) == claim.protocol.to_string()
    };
    let taken = lab.services.iter().find(|s| s.spec.iter().flat_map(|s| s.ports.iter().flatten()).any(has));
    taken.map(|s| ObjectKey::of(&s.metadata))
}

fn takes_tunnel(lab: &Lab, host: &Host, claim: &Claim) -> bool {
    let tunnel = match lab.cluster.backend {
        Backend::Vxlan { port, .. } | Backend::Udp { port } => Some(port),
        Backend::HostGw => None,
    };
    let here = claim.ip.is_none_or(|ip| ip == host.ip());
    here && claim.protocol == Protocol::Udp && tunnel == Some(claim.number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_shared_where_address_or_protocol_differ() {
        let claim = |protocol, ip: &str| Claim { number: 8080, protocol, ip: ip.parse().ok() };
        let one = claim(Protocol::Tcp, "192.168.1.11");
        assert!(one.overlaps(&one));
        assert!(one.overlaps(&claim(Protocol::Tcp, "")), "all addresses have this one among them");
        assert!(claim(Protocol::Tcp, "").overlaps(&one));
        assert!(!one.overlaps(&claim(Protocol::Tcp, "127.0.0.1")));
        assert!(!one.overlaps(&claim(Protocol::Udp, "192.168.1.11")));
        assert!(!one.overlaps(&Claim { number: 8081, ..one }));
    }
}
