//! The cloud's load balancers, which stand at the router: rules and routes that follow from the
//! services, their public addresses and the hosts' health checks. Who has which address is decided in
//! [`crate::objects::balancers`]; asking the hosts is the daemon's.
//!
//! A load balancer works in one of two ways. Where every host takes packets on a NodePort (policy
//! Cluster), it translates: each new connection goes to one host's NodePort with even odds and
//! has the router's address on it, or the answer of a host would go past the router to a client on its
//! own network. Where the client's address must stay (policy Local), or where there are no NodePorts,
//! it routes: packets keep the load balancer's address and go to one of several next hops, of which
//! each connection keeps to one; kube-proxy's rules on the host take them, and the host answers
//! the client directly.
//!
//! Session affinity: one that translates remembers each client's host as kube-proxy remembers its pod, by
//! a list of the match `recent`, for the service's time. One that routes cannot remember: the router then
//! chooses next hops by source and destination alone ([`keeps_sources`]), which keeps a client at a host
//! while the set of hosts stays the same, for every routed address of the lab and without regard to time.
//! The pod is then kept by the host's own rules.
//!
//! An address that leads nowhere is unreachable by itself: the router has no default route.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use crate::lab::names::HostName;
use crate::lab::{Host, Lab};
use crate::objects::{ObjectKey, Service, balancers};

use super::proxy::chain::hash;
use super::proxy::service::{Protocol, ServicePort, map};
use super::proxy::{Family, canonical};
use super::rules::{Rules, Table};
use super::types::{NextHop, Plan, Route};
use super::underlay::bridge_name;
use crate::lab::names::NsName;

/// In the nat table: from a load balancer's address and port to its own chain.
const SERVICES: &str = "LB-SERVICES";
/// In the mangle table, before any translation: who may not come.
const FIREWALL: &str = "LB-FIREWALL";
/// In the nat table: who must send answers back to the router.
const POSTROUTING: &str = "LB-POSTROUTING";
/// In the filter table: what may be routed to hosts, who would send anything else back.
const FORWARD: &str = "LB-FORWARD";

/// What the router holds for load balancers. Nothing of it is in the plan of a lab without.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Balancers {
    pub routes: Vec<Route>,
    pub rules: Rules,
    /// Where UDP to a load balancer's address and port may be translated to.
    pub udp: BTreeMap<SocketAddr, BTreeSet<SocketAddr>>,
}

/// A host's answer that a load balancer wants before it sends packets there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Check {
    pub service: ObjectKey,
    pub host: HostName,
    /// The host's address and the service's healthCheckNodePort.
    pub at: SocketAddr,
}

/// The questions to ask: each host, for each service under policy Local that has a load balancer.
pub fn checks(lab: &Lab) -> Vec<Check> {
    let of_service = |service: &Service| {
        let key = ObjectKey::of(&service.metadata);
        let port = port_to_check(service).filter(|_| balancers::address(service).is_some());
        let check = move |host: &Host, port| Check {
            service: key.clone(),
            host: host.name.clone(),
            at: SocketAddr::new(host.ip(), port),
        };
        port.into_iter()
            .flat_map(|port| lab.hosts.iter().map(move |host| (host, port)))
            .map(move |(h, p)| check(h, p))
            .collect::<Vec<_>>()
    };
    lab.services.iter().flat_map(of_service).collect()
}

fn port_to_check(service: &Service) -> Option<u16> {
    let spec = service.spec.as_ref().filter(|s| s.external_traffic_policy.as_deref() == Some("Local"))?;
    spec.health_check_node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0)
}

/// Whether a service has its client's affinity kept by a load balancer that routes. See the module.
pub fn keeps_sources(lab: &Lab) -> bool {
    let routed = |service: &&Service| {
        balancers::address(service).is_some_and(|ip| {
            let ports = map([*service], Family::of(&ip));
            !translates(service, &ports) && ports.iter().any(|p| p.affinity.is_some())
        })
    };
    lab.services.iter().any(|s| routed(&s))
}

/// Whether packets are translated to NodePorts, and not routed.
fn translates(service: &Service, ports: &[ServicePort]) -> bool {
    port_to_check(service).is_none() && ports.iter().all(|p| p.node_port.is_some())
}

/// Whether a chain of the router is one of the load balancers' by its name.
pub fn is_own(chain: &str) -> bool {
    chain.starts_with("LB-")
}

/// One load balancer.
struct Balancer<'l> {
    address: IpAddr,
    ports: Vec<ServicePort>,
    /// The hosts that it may send to.
    hosts: Vec<&'l Host>,
    translates: bool,
}

/// The load balancers of `lab`. `healthy` says whether a host has answered a service's [`Check`] as one
/// that has endpoints of its own; it counts only for services that are checked.
pub fn plan(lab: &Lab, healthy: impl Fn(&ObjectKey, &HostName) -> bool) -> Balancers {
    let mut all = Balancers::default();
    let pool = lab.cluster.balancers;
    for service in &lab.services {
        let Some(address) = balancers::address(service) else { continue };
        let key = ObjectKey::of(&service.metadata);
        let checked = port_to_check(service).is_some();
        let hosts = lab.hosts.iter().filter(|h| !checked || healthy(&key, &h.name)).collect();
        let ports = map([service], Family::of(&address));
        let translates = translates(service, &ports);
        all.add(lab, &Balancer { address, ports, hosts, translates });
    }
    all.link(&format!("-d {pool}"));
    if all.rules.tables.iter().any(|t| t.name == "nat") {
        let translated = format!("-m conntrack --ctstate DNAT --ctorigdst {pool} -j MASQUERADE");
        let nat = all.rules.table("nat");
        nat.chain("POSTROUTING").add(format!("-j {POSTROUTING}"));
        nat.chain(POSTROUTING).add(translated);
    }
    all.rules.sort();
    all
}

impl Balancers {
    /// Whether a UDP flow that was sent to `to` and is answered from `by` leads where no new one would
    /// be led. Its packets would go there for as long as somebody sends some.
    pub fn is_stale(&self, before: &Balancers, to: SocketAddr, by: SocketAddr) -> bool {
        let led = |all: &Balancers| all.udp.get(&to).is_some_and(|targets| targets.contains(&by));
        led(before) && !led(self)
    }

    fn add(&mut self, lab: &Lab, balancer: &Balancer) {
        balancer.firewall(&mut self.rules);
        if balancer.translates {
            balancer.translate(&mut self.rules);
            self.udp.extend(balancer.udp_targets());
        } else {
            balancer.admit(&mut self.rules);
            self.routes.extend(route(lab, balancer.address, &balancer.hosts));
        }
    }

    /// Lead packets for load balancers into the chains that there are. What is routed and no service's
    /// ends here: the host would send it back, and so on until its time to live is over.
    fn link(&mut self, to_balancers: &str) {
        let places =
            [("nat", "PREROUTING", SERVICES), ("mangle", "PREROUTING", FIREWALL), ("filter", "FORWARD", FORWARD)];
        for (table, from, chain) in places {
            let Some(table) = self.rules.tables.iter_mut().find(|t| t.name == table) else { continue };
            table.chain(from).add(format!("{to_balancers} -j {chain}"));
            if chain == FORWARD {
                // Errors of routers on the way, such as the one that tells the MTU.
                table.chain(chain).add("-m conntrack --ctstate RELATED -j ACCEPT");
                table.chain(chain).add("-j REJECT --reject-with icmp-port-unreachable");
            }
        }
    }
}

impl Balancer<'_> {
    /// What a packet to one of its ports looks like.
    fn matched(&self, port: &ServicePort) -> String {
        let protocol = port.name.protocol.name();
        format!(
            "-d {}/32 -p {protocol} -m comment --comment \"{} load balancer\" -m {protocol} --dport {}",
            self.address, port.name, port.port
        )
    }

    /// loadBalancerSourceRanges: nobody else gets an answer, as with kube-proxy's own rules.
    fn firewall(&self, rules: &mut Rules) {
        for port in self.ports.iter().filter(|p| !p.source_ranges.is_empty()) {
            let chain = rules.table("mangle").chain(FIREWALL);
            let family = Family::of(&self.address);
            chain.rules.extend(
                port.source_ranges
                    .iter()
                    .map(|range| canonical::canonical(&format!("{} -s {range} -j ACCEPT", self.matched(port)), family)),
            );
            chain.add(format!("{} -j DROP", self.matched(port)));
        }
    }

    fn translate(&self, rules: &mut Rules) {
        for port in self.ports.iter().filter(|_| !self.hosts.is_empty()) {
            let Some(node_port) = port.node_port else { continue };
            let protocol = port.name.protocol.name();
            let own = format!("LB-{}", hash(&[&port.name.to_string(), protocol]));
            rules.table("nat").chain(SERVICES).add(format!("{} -j {own}", self.matched(port)));
            self.spread(rules.table("nat"), &own, (port, node_port));
        }
    }

    /// A port's own chain: first the clients that have a host, then by chance, with even odds.
    fn spread(&self, nat: &mut Table, own: &str, (port, node_port): (&ServicePort, u16)) {
        let protocol = port.name.protocol.name();
        let targets: Vec<SocketAddr> = self.hosts.iter().map(|host| SocketAddr::new(host.ip(), node_port)).collect();
        let host_chain = |to: &SocketAddr| format!("LB-{}", hash(&[&port.name.to_string(), protocol, &to.to_string()]));
        let canonical = |rule: String| canonical::canonical(&rule, Family::of(&self.address));
        for (to, seconds) in targets.iter().filter_map(|to| Some((to, port.affinity?))) {
            let host = host_chain(to);
            let again = format!("-m recent --name {host} --rcheck --seconds {seconds} --reap -j {host}");
            nat.chain(own).add(canonical(again));
            let remember = format!("-p {protocol} -m recent --name {host} --set -j DNAT --to-destination {to}");
            nat.chain(&host).add(canonical(remember));
        }
        for (left, to) in (1..=targets.len()).rev().zip(&targets) {
            let odds = canonical::odds(left).map(|o| format!("-m statistic --mode random --probability {o} "));
            let odds = odds.unwrap_or_default();
            nat.chain(own).add(match port.affinity {
                Some(_) => format!("{odds}-j {}", host_chain(to)),
                None => format!("-p {protocol} {odds}-j DNAT --to-destination {to}"),
            });
        }
    }

    fn udp_targets(&self) -> impl Iterator<Item = (SocketAddr, BTreeSet<SocketAddr>)> {
        self.ports.iter().filter(|p| p.name.protocol == Protocol::Udp).filter_map(|port| {
            let node_port = port.node_port?;
            let targets = self.hosts.iter().map(|host| SocketAddr::new(host.ip(), node_port)).collect();
            Some((SocketAddr::new(self.address, port.port), targets))
        })
    }

    fn admit(&self, rules: &mut Rules) {
        for port in &self.ports {
            rules.table("filter").chain(FORWARD).add(format!("{} -j ACCEPT", self.matched(port)));
        }
    }
}

/// The route to `address` over `hosts`; none where there is no host.
fn route(lab: &Lab, address: IpAddr, hosts: &[&Host]) -> Option<Route> {
    over(lab, address.into(), hosts)
}

/// A route of the router over these hosts, with one next hop each.
pub fn over(lab: &Lab, dst: ipnet::IpNet, hosts: &[&Host]) -> Option<Route> {
    let hop = |host: &&Host| NextHop { via: host.ip(), dev: bridge_name(lab.network_of(&host.attachment)) };
    let (first, others) = hosts.split_first()?;
    let NextHop { via, dev } = hop(first);
    Some(Route { dst, via: Some(via), dev, onlink: false, also: others.iter().map(hop).collect() })
}

/// Put load balancers into a plan.
pub fn add(plan: &mut Plan, balancers: &Balancers) {
    let Some(router) = plan.namespaces.iter_mut().find(|n| n.ns == NsName::Router) else { return };
    router.routes.extend(balancers.routes.iter().cloned());
    router.rules = planned(&router.rules, balancers);
}

/// All rules of the router: those without load balancers, and theirs. Their jumps come to the top of the
/// built-in chains, where they are also put back.
pub fn planned(bare: &Rules, balancers: &Balancers) -> Rules {
    let mut rules = bare.clone();
    for table in &balancers.rules.tables {
        for chain in &table.chains {
            rules.table(&table.name).chain(&chain.name).rules.splice(0..0, chain.rules.iter().cloned());
        }
    }
    rules.sort();
    rules
}

#[cfg(test)]
mod tests;
