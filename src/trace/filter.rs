//! Which packets may be a question's, or a machine's that is followed, as a filter for recording them: others'
//! traffic is then neither read nor kept. A packet too many does no harm, one too few does. So where what is read
//! back says that anything may be made of a packet, everything is recorded.
//!
//! Every packet of a flow has at one end the address of the one who began it, or, masqueraded, that of
//! a host or the router. Its ports are the one that was asked for and those to which rules translate it.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::kernel::record::{Filter, Tunnel};
use crate::lab::dns::DNS_PORT;
use crate::lab::names::NsName;
use crate::lab::probe::{Ask, Probe, Target};
use crate::lab::{Backend, Lab, Pod, Run};
use crate::objects::{ObjectKey, Service};
use crate::plan::deviation::Deviation;
use crate::plan::rules::Rules;
use crate::plan::{LinkKind, NsPlan, Plan};
use crate::probe;

use super::who;

/// Targets of rules that change packets in ways that are not read here.
const OBSCURE: [&str; 5] = ["NETMAP", "TPROXY", "TEE", "CLUSTERIP", "SYNPROXY"];

/// The packets that may be the question's, by what the lab's kernel holds. In the machines `serving` programs
/// take connections that the lab does not know.
pub fn of_question(lab: &Lab, there: &Plan, asked: &Probe, serving: &[NsName]) -> Filter {
    let Some(translated) = Translated::of(there) else { return Filter::default() };
    let from = own(there, &asked.from);
    // What the router sends has its address, as all that it masquerades.
    if asked.from == NsName::Router || from.is_empty() {
        return Filter::default();
    }
    let mut addresses = [from, between(lab, there), translated.addresses, loopback(lab, asked)].concat();
    let mut ports = translated.ports;
    if let Ask::Http(_) = asked.ask {
        // Whoever is a program may ask somebody else in its turn, on any port.
        let programs = lab.pods.iter().filter(|pod| !is_only(pod, |run| matches!(run, Run::Echo | Run::Dns)));
        if programs.clone().any(|pod| !is_only(pod, |run| *run == Run::Ingress)) || !serving.is_empty() {
            ports = None;
        }
        if let (Some(_), Some(ports)) = (&lab.ingress, &mut ports) {
            ports.extend(behind_proxies(lab));
        }
        let clients = lab.clients.iter().map(|client| client.ns());
        let proxies = programs.map(Pod::ns).chain(clients).chain(serving.iter().cloned());
        addresses.extend(proxies.flat_map(|ns| own(there, &ns)));
    }
    let ports = ports.map(|ports| [ports, vec![DNS_PORT], asked_port(&asked.ask).into_iter().collect()].concat());
    filter(lab, there, addresses, ports.unwrap_or_default())
}

/// The addresses of which look-ups of routes may be the question's: those that the filter lets through and, as a
/// datagram may be looked up before it has a source, whom it asks; all of the lab where everything is recorded.
pub fn lookups(filter: &Filter, there: &Plan, asked: &Probe) -> HashSet<Ipv4Addr> {
    if filter.addresses.is_empty() {
        return there.namespaces.iter().flat_map(of_namespace).collect();
    }
    let asked = match asked.ask.target() {
        Some((Target::Address(ip), _)) => v4(*ip).into_iter().collect(),
        Some((Target::Machine(ns), _)) => own(there, ns),
        _ => Vec::new(),
    };
    filter.addresses.iter().copied().chain(asked).collect()
}

/// The asker's own address for itself, where that is asked for.
fn loopback(lab: &Lab, asked: &Probe) -> Vec<Ipv4Addr> {
    let ip = match asked.ask.target() {
        Some((Target::Address(ip), _)) => Some(*ip),
        Some((Target::Name(name), _)) => probe::by_hosts_file(lab, &asked.from, name),
        _ => None,
    };
    ip.filter(IpAddr::is_loopback).and_then(v4).into_iter().collect()
}

/// The packets that may be the machine's: those with an address of its own, of a host, which may have taken its
/// place by masquerading, or of a service.
pub fn of_machine(lab: &Lab, there: &Plan, machine: &NsName) -> Filter {
    // The router has a part in everything, and what it masquerades must be seen before, too.
    if *machine == NsName::Router {
        return Filter::default();
    }
    let mut addresses = [own(there, machine), between(lab, there), leading_to(lab, machine)].concat();
    // A host masquerades what its pods send.
    let pods = lab.pods.iter().filter(|pod| *machine == NsName::Host(pod.host.clone()));
    addresses.extend(pods.filter_map(|pod| v4(pod.ip())));
    filter(lab, there, addresses, Vec::new())
}

fn filter(lab: &Lab, there: &Plan, mut addresses: Vec<Ipv4Addr>, mut ports: Vec<u16>) -> Filter {
    let tunnel = match lab.cluster.backend {
        Backend::Vxlan { port, .. } => Some(Tunnel::vxlan(port)),
        Backend::Udp { port } => Some(Tunnel::flannel_udp(port)),
        Backend::HostGw => None,
    };
    if !ports.is_empty() {
        // Of a tunnel that is not as it should be the outer packets are recorded.
        let links = there.namespaces.iter().flat_map(|ns| &ns.links);
        ports.extend(links.filter_map(|link| match link.kind {
            LinkKind::Vxlan { port, .. } if tunnel.is_none_or(|t| t.port != port) => Some(port),
            _ => None,
        }));
    }
    addresses.sort_unstable();
    addresses.dedup();
    ports.sort_unstable();
    ports.dedup();
    Filter { addresses, ports, tunnel }
}

/// Addresses of those that forward, and may masquerade.
fn between(lab: &Lab, there: &Plan) -> Vec<Ipv4Addr> {
    let hosts = lab.hosts.iter().map(|host| host.ns());
    std::iter::once(NsName::Router).chain(hosts).flat_map(|ns| own(there, &ns)).collect()
}

fn own(there: &Plan, ns: &NsName) -> Vec<Ipv4Addr> {
    there.get(ns).map(of_namespace).unwrap_or_default()
}

fn of_namespace(ns: &NsPlan) -> Vec<Ipv4Addr> {
    ns.addresses.iter().filter_map(|a| v4(a.net.addr())).collect()
}

pub fn v4(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

/// The addresses of services that may lead to the machine: those of its namespace where it is a pod.
fn leading_to(lab: &Lab, machine: &NsName) -> Vec<Ipv4Addr> {
    let NsName::Pod(pod) = machine else { return Vec::new() };
    let mine = lab.services.iter().filter(|s| ObjectKey::of(&s.metadata).namespace == pod.namespace.as_str());
    mine.flat_map(|service| who::addresses(service).filter_map(v4).collect::<Vec<_>>()).collect()
}

fn is_only(pod: &Pod, wanted: impl Fn(&Run) -> bool) -> bool {
    pod.containers.iter().all(|container| wanted(&container.run))
}

fn asked_port(ask: &Ask) -> Option<u16> {
    match ask {
        Ask::Tcp { port, .. } | Ask::Udp { port, .. } | Ask::Dns { port, .. } => Some(*port),
        Ask::Http(http) => Some(http.to_port),
        Ask::Ping { .. } | Ask::Exec { .. } => None,
    }
}

/// The ports that an ingress controller may ask: services' and those behind them.
fn behind_proxies(lab: &Lab) -> Vec<u16> {
    let number = |port: i32| u16::try_from(port).ok();
    let of_service = |service: &Service| {
        let ports = service.spec.as_ref().and_then(|spec| spec.ports.clone()).unwrap_or_default();
        ports.into_iter().flat_map(move |port| {
            let target = port.target_port.and_then(|target| match target {
                IntOrString::Int(target) => number(target),
                IntOrString::String(_) => None,
            });
            number(port.port).into_iter().chain(target)
        })
    };
    let given = lab.slices.iter().flat_map(|slice| slice.ports.iter().flatten());
    let containers = lab.pods.iter().flat_map(|pod| &pod.containers);
    let mut all: Vec<u16> = lab.services.iter().flat_map(of_service).collect();
    all.extend(given.filter_map(|port| number(port.port?)));
    all.extend(containers.flat_map(|container| &container.ports).map(|port| port.number));
    all
}

/// What rules may put in the place of addresses and ports.
#[derive(Debug, Default, PartialEq, Eq)]
struct Translated {
    /// Sources.
    addresses: Vec<Ipv4Addr>,
    /// Ports; nothing where any may be.
    ports: Option<Vec<u16>>,
}

impl Translated {
    /// Nothing where anything may be made of a packet.
    fn of(there: &Plan) -> Option<Translated> {
        let mut all = Translated { addresses: Vec::new(), ports: Some(Vec::new()) };
        for ns in &there.namespaces {
            all.add(ns, &ns.rules)?;
            for deviation in &ns.deviations {
                match deviation {
                    Deviation::NftTable(_) | Deviation::Qdisc(_) => return None,
                    Deviation::LegacyRules(rules) => all.add(ns, rules)?,
                    _ => {}
                }
            }
        }
        if let Some(ports) = &mut all.ports {
            ports.sort_unstable();
            ports.dedup();
        }
        Some(all)
    }

    fn add(&mut self, ns: &NsPlan, rules: &Rules) -> Option<()> {
        for rule in rules.tables.iter().flat_map(|t| &t.chains).flat_map(|chain| &chain.rules) {
            // The target and its options come last.
            let Some((_, target)) = rule.rsplit_once("-j ") else { continue };
            let mut words = target.split(' ');
            match words.next().unwrap_or_default() {
                "DNAT" => self.port(option(target, "--to-destination")?.split_once(':').map(|(_, port)| port)),
                "REDIRECT" => self.port(option(target, "--to-ports")),
                "SNAT" => self.addresses.push(option(target, "--to-source")?.split(':').next()?.parse().ok()?),
                "MASQUERADE" => self.addresses.extend(of_namespace(ns)),
                obscure if OBSCURE.contains(&obscure) => return None,
                _ => {}
            }
        }
        Some(())
    }

    /// Where a rule says no port, it leaves that as it is.
    fn port(&mut self, port: Option<&str>) {
        let Some(port) = port else { return };
        match (port.parse(), &mut self.ports) {
            (Ok(port), Some(ports)) => ports.push(port),
            _ => self.ports = None,
        }
    }
}

/// The value of a target's option.
fn option<'r>(target: &'r str, name: &str) -> Option<&'r str> {
    let mut words = target.split(' ').skip_while(|word| *word != name);
    words.nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::deviation::NftTable;
    use crate::trace::question::Question;
    use crate::trace::{sample, walk};

    const LAB: &str = "hosts: { node1: { address: 192.168.1.11, podCIDR: 10.244.1.0/24 } }\n\
        clients: { laptop: { address: 192.168.1.51 } }\n\
        pods: { a: { host: node1, address: 10.244.1.10 }, b: { host: node1, address: 10.244.1.11 }, \
        web: { host: node1, address: 10.244.1.12, labels: { app: web }, ports: [9000] } }\n\
        services: { web: { selector: { app: web }, ports: [{ port: 80, targetPort: 9000 }] } }\n";

    fn lab(more: &str) -> Lab {
        sample::lab(&format!("{LAB}{more}"))
    }

    fn of(lab: &Lab, to: &str, change: impl FnOnce(&mut NsPlan)) -> Filter {
        let question = Question { from: "a".into(), to: to.into(), ..Question::default() };
        let asked = question.probe(lab).unwrap_or_else(|e| panic!("{e:?}"));
        let mut there = walk::prediction(lab);
        let node = there.namespaces.iter_mut().find(|ns| matches!(ns.ns, NsName::Host(_)));
        change(node.expect("a host"));
        of_question(lab, &there, &asked, &[])
    }

    fn has(filter: &Filter, ip: &str) -> bool {
        filter.addresses.contains(&ip.parse().expect("an address"))
    }

    #[test]
    fn the_askers_addresses_are_recorded_and_those_that_masquerading_may_put_in_their_place() {
        let filter = of(&lab(""), "b", |_| {});
        let router = lab("").networks[0].gateway.addr().to_string();
        assert!(["10.244.1.10", "10.244.1.1", "192.168.1.11", &router].iter().all(|ip| has(&filter, ip)), "{filter:?}");
        assert!(["10.244.1.11", "10.244.1.12", "192.168.1.51"].iter().all(|ip| !has(&filter, ip)), "{filter:?}");
        assert_eq!(filter.tunnel, Some(Tunnel::vxlan(8472)));
        let filter = of(&lab(""), "b", |node| {
            node.rules.table("nat").chain("POSTROUTING").add("-o eth0 -j SNAT --to-source 10.1.1.1:80");
        });
        assert!(has(&filter, "10.1.1.1"));
    }

    #[test]
    fn a_machine_that_asks_itself_is_recorded() {
        for to in ["127.0.0.1:8080", "http://localhost:8080/"] {
            assert!(has(&of(&lab(""), to, |_| {}), "127.0.0.1"), "{to}");
        }
        assert!(!has(&of(&lab(""), "b", |_| {}), "127.0.0.1"));
    }

    #[test]
    fn look_ups_are_asked_for_of_the_filters_addresses_and_whom_the_question_asks() {
        let lab = lab("");
        let there = walk::prediction(&lab);
        let question = Question { from: "a".into(), to: "b".into(), ..Question::default() };
        let asked = question.probe(&lab).expect("a question");
        let all = lookups(&of_question(&lab, &there, &asked, &[]), &there, &asked);
        let has = |ip: &str| all.contains(&ip.parse().expect("an address"));
        assert!(has("10.244.1.10") && has("10.244.1.11") && !has("10.244.1.12"), "{all:?}");
        let open = lookups(&Filter::default(), &there, &asked);
        assert!(open.contains(&"10.244.1.12".parse().expect("an address")), "{open:?}");
    }

    #[test]
    fn the_asked_port_is_recorded_and_those_that_rules_translate_to() {
        let filter = of(&lab(""), "b:8080", |_| {});
        assert!([53, 8080, 9000].iter().all(|port| filter.ports.contains(port)), "{filter:?}");
        assert!(!filter.ports.contains(&80));
        let filter = of(&lab(""), "b:8080", |node| {
            let nat = node.rules.table("nat").chain("PREROUTING");
            nat.add("-p tcp -j DNAT --to-destination 10.9.9.9:81");
            nat.add("-p udp -j REDIRECT --to-ports 82");
        });
        assert!(filter.ports.contains(&81) && filter.ports.contains(&82), "{filter:?}");
    }

    #[test]
    fn where_rules_may_choose_any_port_every_port_is_recorded() {
        let filter = of(&lab(""), "b:8080", |node| {
            node.rules.table("nat").chain("PREROUTING").add("-p tcp -j DNAT --to-destination 10.9.9.9:81-90");
        });
        assert!(filter.ports.is_empty() && !filter.addresses.is_empty(), "{filter:?}");
    }

    #[test]
    fn where_anything_may_be_made_of_a_packet_everything_is_recorded() {
        let table = |node: &mut NsPlan| {
            let table = NftTable { family: 2, name: "foo".into() };
            node.deviations.push(Deviation::NftTable(table));
        };
        assert_eq!(of(&lab(""), "b", table), Filter::default());
        let mapped = |node: &mut NsPlan| {
            node.rules.table("nat").chain("PREROUTING").add("-d 10.0.0.0/8 -j NETMAP --to 11.0.0.0/8");
        };
        assert_eq!(of(&lab(""), "b", mapped), Filter::default());
        let bare = |node: &mut NsPlan| node.addresses.clear();
        let question = Question { from: "node1".into(), to: "b".into(), ..Question::default() };
        let (lab, mut there) = (lab(""), walk::prediction(&lab("")));
        there.namespaces.iter_mut().filter(|ns| matches!(ns.ns, NsName::Host(_))).for_each(bare);
        let asked = question.probe(&lab).expect("a question");
        assert_eq!(of_question(&lab, &there, &asked, &[]), Filter::default());
    }

    #[test]
    fn of_the_router_which_masquerades_for_everybody_everything_is_recorded() {
        let (lab, there) = (lab(""), walk::prediction(&lab("")));
        let question = Question { from: "router".into(), to: "b".into(), ..Question::default() };
        let asked = question.probe(&lab).expect("a question");
        assert_eq!(of_question(&lab, &there, &asked, &[]), Filter::default());
    }

    #[test]
    fn a_tunnel_with_another_port_than_the_labs_is_recorded() {
        let filter = of(&lab(""), "b:8080", |node| {
            for link in &mut node.links {
                if let LinkKind::Vxlan { port, .. } = &mut link.kind {
                    *port = 4789;
                }
            }
        });
        assert!(filter.ports.contains(&4789), "{filter:?}");
    }

    #[test]
    fn of_a_request_what_programs_ask_in_their_turn_is_recorded() {
        let lab = lab("deployments: { proxy: { replicas: 1, containers: [{ name: c, command: [sleep, inf] }] } }\n");
        let proxy = lab.pods.iter().find(|pod| pod.id.to_string().contains("proxy")).expect("a pod").ip().to_string();
        let filter = of(&lab, "http://b:8080/", |_| {});
        assert!(has(&filter, &proxy) && has(&filter, "192.168.1.51") && filter.ports.is_empty(), "{filter:?}");
        let filter = of(&lab, "b:8080", |_| {});
        assert!(!has(&filter, &proxy) && !filter.ports.is_empty(), "{filter:?}");
    }
}
