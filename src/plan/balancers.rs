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
//! An address that leads nowhere is unreachable by itself: the router has no default route.

use std::net::{IpAddr, SocketAddr};

use crate::lab::names::HostName;
use crate::lab::{Host, Lab};
use crate::objects::{ObjectKey, Service, balancers};

use super::proxy::chain::hash;
use super::proxy::service::{ServicePort, map};
use super::proxy::{Family, canonical};
use super::rules::Rules;
use super::types::{NextHop, Plan, Route};
use super::underlay::bridge_name;
use crate::lab::names::NsName;

/// In the nat table: from a load balancer's address and port to its own chain.
const SERVICES: &str = "LB-SERVICES";
/// In the mangle table, before any translation: who may not come.
const FIREWALL: &str = "LB-FIREWALL";
/// In the filter table: what may be routed to hosts, who would send anything else back.
const FORWARD: &str = "LB-FORWARD";

/// What the router holds for load balancers. Nothing of it is in the plan of a lab without.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Balancers {
    pub routes: Vec<Route>,
    pub rules: Rules,
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
        let translates = !checked && ports.iter().all(|p| p.node_port.is_some());
        all.add(lab, &Balancer { address, ports, hosts, translates });
    }
    all.link(&format!("-d {pool}"));
    if all.rules.tables.iter().any(|t| t.name == "nat") {
        let translated = format!("-m conntrack --ctstate DNAT --ctorigdst {pool} -j MASQUERADE");
        all.rules.table("nat").chain("POSTROUTING").add(translated);
    }
    all.rules.sort();
    all
}

impl Balancers {
    fn add(&mut self, lab: &Lab, balancer: &Balancer) {
        balancer.firewall(&mut self.rules);
        if balancer.translates {
            balancer.translate(&mut self.rules);
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
            // A rule has its source first.
            chain.rules.extend(port.source_ranges.iter().map(|range| {
                let source = if range.prefix_len() == 0 { String::new() } else { format!("-s {range} ") };
                format!("{source}{} -j ACCEPT", self.matched(port))
            }));
            chain.add(format!("{} -j DROP", self.matched(port)));
        }
    }

    fn translate(&self, rules: &mut Rules) {
        for port in self.ports.iter().filter(|_| !self.hosts.is_empty()) {
            let Some(node_port) = port.node_port else { continue };
            let protocol = port.name.protocol.name();
            let own = format!("LB-{}", hash(&[&port.name.to_string(), protocol]));
            rules.table("nat").chain(SERVICES).add(format!("{} -j {own}", self.matched(port)));
            for (n, host) in self.hosts.iter().enumerate() {
                let left = self.hosts.len() - n;
                let odds = canonical::odds(left).map(|o| format!("-m statistic --mode random --probability {o} "));
                let odds = odds.unwrap_or_default();
                let to = SocketAddr::new(host.ip(), node_port);
                rules.table("nat").chain(&own).add(format!("-p {protocol} {odds}-j DNAT --to-destination {to}"));
            }
        }
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
    for table in &balancers.rules.tables {
        for chain in &table.chains {
            router.rules.table(&table.name).chain(&chain.name).rules.extend(chain.rules.iter().cloned());
        }
    }
    router.rules.sort();
}
