//! What the lab's objects say of a fault: a rule that refuses because a service has no endpoints is the end
//! of a story that begins with a selector, a readiness probe or a port. Names, and what is said by whoever was reached,
//! have files of their own, as has what would mend it.

mod beyond;
mod names;
mod remedies;
mod speech;

use std::net::IpAddr;

use crate::lab::dns::{DNS_DEPLOYMENT, DNS_NAMESPACE, DNS_PORT, DNS_SERVICE};
use crate::lab::names::{HostName, NsName};
use crate::lab::{Backend, Deployment, Lab, Pod};
use crate::objects::hints::{self, Behind, Hint};
use crate::objects::{ObjectKey, Service};

use super::model::{Cause, Fate, Packet, Protocol};
use super::verdict::Case;
use super::walk::Blame;
use super::who;

pub use beyond::beyond_the_network;
pub use names::no_name;
pub use remedies::remedies;
pub use speech::{Speaks, speaks};

/// The field of a service that says whether connections from outside stay on the host to which they come.
const EXTERNAL_POLICY: &str = "externalTrafficPolicy";

/// The fault as the objects have it.
pub fn refined(case: &Case, blame: Blame) -> Blame {
    let blame = match blame.cause {
        // A DNS server that says so is asked for a service's addresses, and is no service without endpoints itself.
        Cause::NoEndpoints if case.outcome.tried.is_none() && matches!(blame.place, NsName::Pod(_)) => blame,
        Cause::NoEndpoints | Cause::NoLocalEndpoint => match asked_service(case) {
            Some(service) => without_endpoints(case.material.lab, service, blame),
            None => blame,
        },
        Cause::NoListener => wrong_port(case, blame),
        Cause::NoRoute => behind_a_router(case).unwrap_or(blame),
        _ => blame,
    };
    match blame.cause {
        Cause::NoRoute | Cause::NoNeighbour | Cause::TtlExceeded | Cause::NoListener => no_such_port(case, blame),
        _ => blame,
    }
}

/// A packet that found no route since host-gw has none for its target: a next hop must be a neighbour, and the
/// pod's host is on another network.
fn behind_a_router(case: &Case) -> Option<Blame> {
    let lab = case.material.lab;
    if lab.cluster.backend != Backend::HostGw {
        return None;
    }
    let lost = |p: &&Packet| !matches!(p.fate, Fate::Delivered { .. });
    let packet = case.flows.iter().flat_map(|f| &f.packets).rfind(lost)?;
    let host = |name: &HostName| lab.hosts.iter().find(|h| h.name == *name);
    let near = packet.steps.iter().rev().find_map(|s| host(s.host.as_ref()?))?;
    let target = packet.steps.iter().rev().find_map(|s| s.header.as_ref())?.destination;
    let far = lab.pods.iter().find(|p| p.address.addr() == target).and_then(|p| host(&p.host))?;
    if far.attachment.network == near.attachment.network {
        return None;
    }
    let says = format!(
        "host-gw has no route from {} to the pods of {}: its next hop would be {}, which is no neighbour but behind a router",
        near.name,
        far.name,
        far.attachment.address.addr(),
    );
    let object = format!("{} via {}", far.pod_cidr, far.attachment.address.addr());
    Some(Blame { cause: Cause::NotOnLink, place: NsName::Host(near.name.clone()), object, says })
}

/// The service whose address or NodePort was asked: the one that the question is for, or, where its name was not to be
/// had, the cluster's DNS.
fn asked_service<'l>(case: &Case<'l>) -> Option<&'l Service> {
    let lab = case.material.lab;
    let tried = super::tell::target(case.asked, case.outcome).map(|(ip, port, _)| (ip, port));
    let (ip, port) = match tried {
        Some(tried) => tried,
        None => (*lab.resolver_of(&case.asked.from).servers.first()?, DNS_PORT),
    };
    let is_host = |ip: IpAddr| matches!(case.evidence.who.machine(ip), Some(NsName::Host(_)));
    let has = |s: &&Service| who::addresses(s).any(|a| a == ip) || (is_host(ip) && node_ports(s).any(|p| p == port));
    lab.services.iter().find(has)
}

fn without_endpoints(lab: &Lab, service: &Service, blame: Blame) -> Blame {
    let key = ObjectKey::of(&service.metadata);
    let selected = pods_of(lab, service);
    if (key.namespace.as_str(), key.name.as_str()) == (DNS_NAMESPACE, DNS_SERVICE) {
        let Some(pod) = selected.first() else { return blame };
        let says = format!("no DNS server of the cluster is ready: {}", blame.says);
        return Blame { cause: Cause::DnsDead, place: pod.ns(), object: DNS_DEPLOYMENT.to_owned(), says };
    }
    if blame.cause == Cause::NoLocalEndpoint && !selected.is_empty() {
        return Blame { object: format!("{} of service {key}", policy(&blame.object)), ..blame };
    }
    if let Some(empty) = scaled_to_nothing(lab, service) {
        let says =
            format!("service {key} has no endpoints, as deployment {}, which it selects, has 0 replicas", empty.key);
        let object = format!("replicas of deployment {}, service {key}", empty.key);
        return Blame { cause: Cause::NoEndpoints, object, says, ..blame };
    }
    match (hints(lab, service).first(), selected.first()) {
        (Some(hint), _) => {
            let says = format!("service {key} has no endpoints, as {}", hint.what);
            Blame { cause: Cause::NoEndpoints, object: format!("{} of service {key}", hint.path), says, ..blame }
        }
        (None, Some(pod)) => {
            let names: Vec<String> = selected.iter().map(|p| p.id.to_string()).collect();
            let says = format!("service {key} has no ready endpoint: {}", unready(&names));
            Blame { cause: Cause::NotReady, place: pod.ns(), object: format!("readinessProbe of pod {}", pod.id), says }
        }
        (None, None) => {
            let says = format!("service {key} has no selector, and nobody has given it endpoints");
            Blame { cause: Cause::NoEndpoints, object: format!("endpoints of service {key}"), says, ..blame }
        }
    }
}

/// The policy that a rule without an endpoint comes from: connections from outside have a chain of their own.
fn policy(rule: &str) -> &'static str {
    if rule.contains("-A KUBE-EXTERNAL-SERVICES ") { EXTERNAL_POLICY } else { "internalTrafficPolicy" }
}

fn unready(names: &[String]) -> String {
    match names {
        [only] => format!("{only} does not pass its readiness probe"),
        _ => format!("{} do not pass their readiness probes", names.join(", ")),
    }
}

/// A deployment without pods whose pods a service would select.
fn scaled_to_nothing<'l>(lab: &'l Lab, service: &Service) -> Option<&'l Deployment> {
    let selector = service.spec.as_ref()?.selector.as_ref().filter(|s| !s.is_empty())?;
    let namespace = ObjectKey::of(&service.metadata).namespace;
    let fits = |d: &&Deployment| {
        d.key.namespace == namespace && d.replicas == 0 && selector.iter().all(|(k, v)| d.labels.get(k) == Some(v))
    };
    lab.deployments.iter().find(fits).filter(|_| pods_of(lab, service).is_empty())
}

/// A port that nobody listens on, where a service led there.
fn wrong_port(case: &Case, blame: Blame) -> Blame {
    let lab = case.material.lab;
    let NsName::Pod(id) = &blame.place else { return blame };
    let (Some(service), Some(pod)) = (asked_service(case), lab.pod(id)) else { return blame };
    let key = ObjectKey::of(&service.metadata);
    match hints(lab, service).first() {
        Some(hint) => {
            let says = format!("service {key} leads to {}, and {}", pod.id, hint.what);
            Blame { cause: Cause::WrongTargetPort, object: format!("{} of service {key}", hint.path), says, ..blame }
        }
        None => blame,
    }
}

/// A service's address on a port that the service does not have: no rule of a host takes such a packet, and
/// what becomes of it then is chance. Clients have no such rules for the addresses that are the cluster's own.
fn no_such_port(case: &Case, blame: Blame) -> Blame {
    let Some((ip, port, protocol)) = super::tell::target(case.asked, case.outcome) else { return blame };
    let lab = case.material.lab;
    let Some(service) = lab.services.iter().find(|s| who::addresses(s).any(|a| a == ip)) else { return blame };
    let is_own = lab.cluster.service_cidr.contains(&ip);
    let host = case.evidence.who.host_of(&case.asked.from);
    if (is_own && host.is_none()) || ports(service).any(|(number, of)| (number, of) == (port, protocol)) {
        return blame;
    }
    let key = ObjectKey::of(&service.metadata);
    let has: Vec<String> = ports(service).map(|(number, of)| format!("{number}/{of}")).collect();
    let has = if has.is_empty() { "no port at all".to_owned() } else { format!("only {}", has.join(", ")) };
    let lacks = match protocol {
        Protocol::Icmp => format!("service {key} answers no ping, as its address has rules for ports alone"),
        _ => format!("service {key} has no port {port}/{protocol}, {has}"),
    };
    let place = host.map_or_else(|| blame.place.clone(), NsName::Host);
    let says = format!("{lacks}: no rule takes the packet, and {}", blame.says);
    Blame { cause: Cause::NoServicePort, place, object: format!("spec.ports of service {key}"), says }
}

/// The numbers of a service's ports, each with its protocol.
fn ports(service: &Service) -> impl Iterator<Item = (u16, Protocol)> + '_ {
    let ports = service.spec.as_ref().and_then(|s| s.ports.as_ref()).into_iter().flatten();
    ports.filter_map(|p| {
        let protocol = match crate::objects::protocol(p.protocol.as_deref()) {
            "UDP" => Protocol::Udp,
            "SCTP" => Protocol::Sctp,
            _ => Protocol::Tcp,
        };
        Some((u16::try_from(p.port).ok()?, protocol))
    })
}

fn node_ports(service: &Service) -> impl Iterator<Item = u16> + '_ {
    let ports = service.spec.as_ref().and_then(|s| s.ports.as_ref()).into_iter().flatten();
    ports.filter_map(|p| p.node_port.and_then(|n| u16::try_from(n).ok()))
}

fn pods_of<'l>(lab: &'l Lab, service: &Service) -> Vec<&'l Pod> {
    let Some(selector) = service.spec.as_ref().and_then(|s| s.selector.as_ref()).filter(|s| !s.is_empty()) else {
        return Vec::new();
    };
    let namespace = ObjectKey::of(&service.metadata).namespace;
    let fits =
        |p: &&Pod| p.id.namespace.as_str() == namespace && selector.iter().all(|(k, v)| p.labels.get(k) == Some(v));
    lab.pods.iter().filter(fits).collect()
}

fn hints(lab: &Lab, service: &Service) -> Vec<Hint> {
    let behind: Vec<Behind> = lab.pods.iter().map(crate::lab::services::behind).collect();
    hints::of_service(service, behind.iter())
}
