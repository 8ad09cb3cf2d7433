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

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use crate::lab::names::HostName;
use crate::lab::{Host, Lab};
use crate::objects::{ObjectKey, Service, balancers};

use super::proxy::chain::hash;
use super::proxy::service::{Protocol, ServicePort, map};
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
            for (n, host) in self.hosts.iter().enumerate() {
                let left = self.hosts.len() - n;
                let odds = canonical::odds(left).map(|o| format!("-m statistic --mode random --probability {o} "));
                let odds = odds.unwrap_or_default();
                let to = SocketAddr::new(host.ip(), node_port);
                rules.table("nat").chain(&own).add(format!("-p {protocol} {odds}-j DNAT --to-destination {to}"));
            }
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
    for table in &balancers.rules.tables {
        for chain in &table.chains {
            router.rules.table(&table.name).chain(&chain.name).rules.extend(chain.rules.iter().cloned());
        }
    }
    router.rules.sort();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab;
    use crate::spec::load::{Text, decode_text};

    fn lab(services: &str) -> Lab {
        let text = format!(
            "networks: {{ rack1: {{}}, rack2: {{}} }}\nhosts: {{ node1: {{ network: rack1 }}, node2: {{ network: rack1 }}, \
             node3: {{ network: rack2 }} }}\npods: {{ tea: {{ labels: {{ app: tea }} }} }}\nservices: {services}\n"
        );
        let mut loaded = decode_text(&Text { text, default_name: "lab".to_owned(), ..Text::default() });
        let mut problems = std::mem::take(&mut loaded.problems);
        lab::resolve(&loaded, None, &mut problems).unwrap_or_else(|| panic!("{problems:#?}"))
    }

    fn tea(more: &str) -> Lab {
        lab(&format!("{{ tea: {{ type: LoadBalancer, selector: {{ app: tea }}, ports: [{{ port: 80 }}]{more} }} }}"))
    }

    const LOCAL: &str = ", externalTrafficPolicy: Local, healthCheckNodePort: 31000";

    #[test]
    fn under_policy_cluster_every_host_has_even_odds_and_the_routers_address_is_put_on() {
        let made = plan(&tea(""), |_, _| false);
        let lines = made.rules.lines();
        let odds: Vec<&str> = lines.iter().filter_map(|l| l.split("--probability ").nth(1)).collect();
        assert_eq!(odds.len(), 2, "{lines:#?}");
        assert!(odds[0].starts_with("0.33333333349 ") && odds[1].starts_with("0.50000000000 "), "{odds:?}");
        let to: Vec<&str> = lines.iter().filter_map(|l| l.split("--to-destination ").nth(1)).collect();
        assert_eq!(to, ["192.168.1.11:30086", "192.168.1.12:30086", "192.168.2.11:30086"]);
        assert!(lines.iter().any(|l| l.contains("POSTROUTING") && l.ends_with("-j MASQUERADE")), "{lines:#?}");
        assert_eq!(made.routes, []);
    }

    #[test]
    fn under_policy_local_the_healthy_hosts_are_next_hops_and_nothing_is_translated() {
        let lab = tea(LOCAL);
        let asked: Vec<String> = checks(&lab).iter().map(|c| c.at.to_string()).collect();
        assert_eq!(asked, ["192.168.1.11:31000", "192.168.1.12:31000", "192.168.2.11:31000"]);
        let made = plan(&lab, |service, host| service.name == "tea" && host.as_str() != "node2");
        let shown: Vec<String> = made.routes.iter().map(ToString::to_string).collect();
        let both = "198.51.100.1/32 nexthop via 192.168.1.11 dev br-rack1 nexthop via 192.168.2.11 dev br-rack2";
        assert_eq!(shown, [both]);
        assert!(made.rules.tables.iter().all(|t| t.name != "nat"));
        assert_eq!(plan(&lab, |_, _| false).routes, []);
    }

    #[test]
    fn without_node_ports_all_hosts_are_next_hops_whether_or_not_they_have_endpoints() {
        let lab = tea(", allocateLoadBalancerNodePorts: false");
        assert_eq!(checks(&lab), []);
        assert_eq!(plan(&lab, |_, _| false).routes[0].devices().count(), 3);
    }

    #[test]
    fn what_is_routed_ends_at_the_router_unless_a_service_has_the_port() {
        let lines = plan(&tea(LOCAL), |_, _| true).rules.lines();
        let forward: Vec<&String> = lines.iter().filter(|l| l.contains("-A LB-FORWARD")).collect();
        assert!(forward[0].contains("-d 198.51.100.1/32 -p tcp") && forward[0].ends_with("--dport 80 -j ACCEPT"));
        assert!(forward.last().is_some_and(|l| l.contains("-j REJECT")), "{lines:#?}");
    }

    #[test]
    fn source_ranges_come_before_everything_else() {
        let lines = plan(&tea(", loadBalancerSourceRanges: [10.0.0.0/8, 0.0.0.0/0]"), |_, _| true).rules.lines();
        let wall: Vec<&String> = lines.iter().filter(|l| l.contains("-t mangle -A LB-FIREWALL")).collect();
        assert_eq!(wall.len(), 3, "{lines:#?}");
        assert!(wall[0].contains("-s 10.0.0.0/8 -d 198.51.100.1/32") && wall[0].ends_with("-j ACCEPT"));
        assert!(!wall[1].contains("-s ") && wall[2].ends_with("-j DROP"));
    }

    #[test]
    fn a_lab_without_load_balancers_has_nothing_at_the_router() {
        let lab = lab("{ tea: { selector: { app: tea }, ports: [{ port: 80 }] } }");
        assert_eq!(plan(&lab, |_, _| true), Balancers::default());
    }

    #[test]
    fn a_udp_flow_is_stale_when_its_host_is_gone() {
        let udp = |ports: &str| {
            lab(&format!("{{ dns: {{ type: LoadBalancer, selector: {{ app: tea }}, ports: [{ports}] }} }}"))
        };
        let old = plan(&udp("{ port: 53, protocol: UDP, nodePort: 30053 }"), |_, _| true);
        let new = plan(&udp("{ port: 53, protocol: UDP, nodePort: 30054 }"), |_, _| true);
        let at = |text: &str| text.parse().expect("an address and a port");
        let (to, by) = (at("198.51.100.1:53"), at("192.168.1.11:30053"));
        assert!(new.is_stale(&old, to, by) && !old.is_stale(&old, to, by));
        assert!(!new.is_stale(&old, at("192.168.1.12:53"), by), "somebody else's flow");
    }
}
