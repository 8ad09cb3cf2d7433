//! What the lab's objects say of a fault: a rule that refuses because a service has no endpoints is the end
//! of a story that begins with a selector, a readiness probe or a port.

use std::net::IpAddr;

use crate::diag::did_you_mean;
use crate::lab::names::{HostName, NsName};
use crate::lab::probe::{Ask, Target};
use crate::lab::{Backend, Lab, Pod};
use crate::objects::hints::{self, Behind, Hint};
use crate::objects::{ObjectKey, Service};
use crate::spec::probe::FailureName;

use super::model::{Cause, Direction, Fate, Flow, Packet, Remedy, Role};
use super::verdict::Case;
use super::walk::Blame;
use super::{proxied, question, who};

/// The field of a service that says whether connections from outside stay on the host to which they come.
const EXTERNAL_POLICY: &str = "externalTrafficPolicy";
/// The cluster's DNS service.
const DNS_SERVICE: (&str, &str) = ("kube-system", "kube-dns");

/// The fault as the objects have it.
pub fn refined(case: &Case, blame: Blame) -> Blame {
    let lab = case.material.lab;
    match blame.cause {
        Cause::NoEndpoints | Cause::RuleReject | Cause::NoLocalEndpoint => match service_in(lab, &blame) {
            Some(service) => without_endpoints(lab, service, blame),
            None => blame,
        },
        Cause::NoListener => wrong_port(case, blame),
        Cause::NoRoute => behind_a_router(case).unwrap_or(blame),
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

/// The service that a rule of kube-proxy names.
fn service_in<'l>(lab: &'l Lab, blame: &Blame) -> Option<&'l Service> {
    let names = |s: &&Service| {
        let key = ObjectKey::of(&s.metadata).to_string();
        let ends = |rest: &str| rest.is_empty() || rest.starts_with([':', ' ', '"', ')']);
        let texts = [blame.object.as_str(), blame.says.as_str()];
        texts.iter().any(|t| t.match_indices(&key).any(|(at, _)| ends(&t[at + key.len()..])))
    };
    lab.services.iter().find(names)
}

fn without_endpoints(lab: &Lab, service: &Service, blame: Blame) -> Blame {
    let key = ObjectKey::of(&service.metadata);
    let selected = pods_of(lab, service);
    if (key.namespace.as_str(), key.name.as_str()) == DNS_SERVICE {
        let Some(pod) = selected.first() else { return blame };
        let says = format!("no DNS server of the cluster is ready: {}", blame.says);
        return Blame { cause: Cause::DnsDead, place: pod.ns(), object: "coredns".to_owned(), says };
    }
    if blame.cause == Cause::NoLocalEndpoint && !selected.is_empty() {
        return Blame { object: format!("{} of service {key}", policy(&blame.object)), ..blame };
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
        (None, None) => Blame { cause: Cause::NoEndpoints, ..blame },
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

/// A port that nobody listens on, where a service led there.
fn wrong_port(case: &Case, blame: Blame) -> Blame {
    let lab = case.material.lab;
    let NsName::Pod(id) = &blame.place else { return blame };
    let led = case.flows.iter().filter(|f| f.role == Role::Request).find_map(|f| behind(lab, f));
    let (Some(service), Some(pod)) = (led, lab.pod(id)) else { return blame };
    let key = ObjectKey::of(&service.metadata);
    match hints(lab, service).first() {
        Some(hint) => {
            let says = format!("service {key} leads to {}, and {}", pod.id, hint.what);
            Blame { cause: Cause::WrongTargetPort, object: format!("{} of service {key}", hint.path), says, ..blame }
        }
        None => blame,
    }
}

/// Whether the question went to an address of a service.
fn is_service_address(case: &Case, lab: &Lab) -> bool {
    let Some((ip, ..)) = super::tell::target(case.asked, case.outcome) else { return false };
    lab.services.iter().any(|s| who::addresses(s).any(|a| a == ip)) || lab.cluster.service_cidr.contains(&ip)
}

/// The service that a flow was sent to.
fn behind<'l>(lab: &'l Lab, flow: &Flow) -> Option<&'l Service> {
    let (ip, port) = (flow.destination.ip, flow.destination.port);
    let has =
        |s: &&Service| who::addresses(s).any(|a| a == ip) || (is_host(lab, ip) && node_ports(s).any(|p| p == port));
    lab.services.iter().find(has)
}

fn is_host(lab: &Lab, ip: IpAddr) -> bool {
    matches!(lab.owner_of(ip), Some(NsName::Host(_)))
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

/// A name that the cluster's DNS does not know.
pub fn no_name(case: &Case) -> Option<Blame> {
    let name = match &case.asked.ask {
        Ask::Ping { to: Target::Name(name), .. }
        | Ask::Tcp { to: Target::Name(name), .. }
        | Ask::Udp { to: Target::Name(name), .. }
        | Ask::Dns { name, .. } => name.clone(),
        Ask::Http(http) => match &http.to {
            Target::Name(name) => name.clone(),
            _ => return None,
        },
        _ => return None,
    };
    let seen = case.outcome.observed.as_str();
    let seen = seen.strip_prefix("name: ").unwrap_or(seen);
    let says = match alias(case.material.lab, &case.asked.from, &name) {
        Some((key, other)) => format!("service {key} is another name of {other}, which nobody knows: {seen}"),
        None => seen.to_owned(),
    };
    Some(Blame { cause: Cause::NoSuchName, place: case.asked.from.clone(), object: name, says })
}

/// The name that a service stands for, where that is all it does.
fn alias(lab: &Lab, from: &NsName, name: &str) -> Option<(ObjectKey, String)> {
    let service = question::service(lab, from, name)?;
    let other = service.spec.as_ref()?.external_name.clone().filter(|other| !other.is_empty())?;
    Some((ObjectKey::of(&service.metadata), other))
}

/// A fault above the network: what the one who was reached said no to.
pub fn beyond_the_network(case: &Case) -> Option<Blame> {
    let taken = case.flows.iter().rfind(|f| f.role == Role::Request).and_then(taken_by)?;
    let outcome = case.outcome;
    let says = outcome.observed.clone();
    match (outcome.details.failure?, outcome.details.status) {
        // A program's ports are not known before one of them is asked.
        (FailureName::Refused, _) => {
            let port =
                super::tell::target(case.asked, outcome).map(|(_, port, protocol)| format!("port {port}/{protocol}"));
            let object = port.unwrap_or_default();
            let says = format!("nothing in {taken} listens there: {says}");
            Some(Blame { cause: Cause::NoListener, place: taken, object, says })
        }
        (FailureName::Tls, _) if !says.contains("certificate") => {
            let says = format!("{says}: is it TLS that it speaks?");
            Some(Blame { cause: Cause::Other, place: taken, object: "TLS".to_owned(), says })
        }
        (FailureName::Tls, _) => {
            let name = match &case.asked.ask {
                Ask::Http(http) => http.host.clone(),
                _ => String::new(),
            };
            let object = secret_for(case.material.lab, &name).unwrap_or_else(|| format!("the certificate for {name}"));
            Some(Blame { cause: Cause::WrongCertificate, place: taken, object, says })
        }
        (_, Some(status)) if status >= 400 && !proxied::is_controller(case.material.lab, &taken) => {
            let object = format!("HTTP status {status}");
            Some(Blame { cause: Cause::Other, place: taken, object, says })
        }
        (_, Some(status)) if status >= 400 => {
            let decided = match &case.asked.ask {
                Ask::Http(http) => proxied::because(case.material.lab, &http.host, &http.path),
                _ => None,
            };
            let says = match &decided {
                Some(by) => format!("{says}; it is sent on by {by}"),
                None => says,
            };
            let object = decided.unwrap_or_else(|| format!("HTTP status {status}"));
            Some(Blame { cause: Cause::ProxyRefused, place: taken, object, says })
        }
        _ => None,
    }
}

fn taken_by(flow: &Flow) -> Option<NsName> {
    let mut there = flow.packets.iter().filter(|p| p.direction == Direction::There);
    there.find_map(|p| match &p.fate {
        Fate::Delivered { to } => Some(to.clone()),
        _ => None,
    })
}

/// The secret that an ingress names for a host.
fn secret_for(lab: &Lab, host: &str) -> Option<String> {
    let layer = lab.ingress.as_ref()?;
    layer.ingresses.iter().find_map(|ingress| {
        let tls = ingress.spec.as_ref()?.tls.as_ref()?;
        let entry = tls.iter().find(|t| t.hosts.iter().flatten().any(|h| h == host))?;
        let key = ObjectKey::of(&ingress.metadata);
        Some(format!("secret {}/{} of ingress {key}", key.namespace, entry.secret_name.as_deref()?))
    })
}

/// What would mend a fault of the lab's objects, in words.
pub fn remedies(case: &Case, blame: &Blame) -> Vec<Remedy> {
    let lab = case.material.lab;
    let say = |says: String| vec![Remedy { says, command: None }];
    match blame.cause {
        Cause::NoEndpoints | Cause::WrongTargetPort => {
            let hints = service_in(lab, blame).map(|s| hints(lab, s)).unwrap_or_default();
            hints.into_iter().map(|h| Remedy { says: format!("{}: {}", h.path, h.help), command: None }).collect()
        }
        Cause::NotReady => say(format!("see why with `labctl describe pod {}`, and mend the probe or the program", blame.place)),
        Cause::NoLocalEndpoint if blame.object.starts_with(EXTERNAL_POLICY) => say(format!(
            "ask a host that has a pod of the service, or set {EXTERNAL_POLICY}: Cluster, which costs the client's address"
        )),
        Cause::NoLocalEndpoint => {
            say(format!("let a pod of the service run on {}, or set internalTrafficPolicy: Cluster", blame.place))
        }
        Cause::NoSuchName if alias(lab, &case.asked.from, &blame.object).is_some() => {
            say("set the service's externalName to a name that there is, or tell it with `dns.records`".to_owned())
        }
        Cause::NoRoute if is_service_address(case, lab) => say(
            "a service's address leads somewhere only on the cluster's hosts, and only on the ports that the service has: \
             `labctl get services -A` shows them"
                .to_owned(),
        ),
        Cause::NoNeighbour => say(format!("nobody has the address {}: is it the right one?", blame.object)),
        Cause::NoSuchName => {
            let names = lab.services.iter().map(|s| ObjectKey::of(&s.metadata).name).collect::<Vec<_>>();
            let first = blame.object.split('.').next().unwrap_or_default();
            match did_you_mean(first, names.iter().map(String::as_str)) {
                Some(near) => say(format!("did you mean `{near}`?")),
                None => say("`labctl get services -A` shows the names that there are".to_owned()),
            }
        }
        Cause::WrongCertificate => say(format!("give {} a certificate for that name, or leave the secret out: the lab's authority then signs one", blame.object)),
        Cause::ProxyRefused => say("`labctl describe ingress` shows who stands behind each path, `labctl logs` what the controller says".to_owned()),
        Cause::NoListener => say(format!("let a program on {} listen on that port, or ask another one", blame.place)),
        Cause::NotOnLink if lab.cluster.backend == Backend::HostGw => say(
            "put the hosts on one network, or take `backend: vxlan` with `directRouting: true`, which tunnels only between networks"
                .to_owned(),
        ),
        Cause::ConntrackFull => vec![Remedy {
            says: format!("forget what {} tracks, with conntrack-tools; a larger net.netfilter.nf_conntrack_max on the machine lasts", blame.place),
            command: Some(format!("labctl exec {} -- conntrack -F", blame.place)),
        }],
        Cause::DnsDead => say("`labctl get pods -n kube-system` shows the DNS servers".to_owned()),
        _ => Vec::new(),
    }
}
