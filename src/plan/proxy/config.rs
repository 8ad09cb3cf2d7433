//! How kube-proxy is set up on one node: its command line and what it finds out about the node.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The node label that names its zone.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// An address family. kube-proxy runs once for each, with rules of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Family {
    #[default]
    V4,
    V6,
}

impl Family {
    pub fn of(ip: &IpAddr) -> Family {
        if ip.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    pub fn has(self, ip: &IpAddr) -> bool {
        Family::of(ip) == self
    }

    /// As Kubernetes names it in `ipFamilies` and in a slice's `addressType`.
    pub fn name(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }
}

/// How traffic of this node's own pods is told from other traffic (`--detect-local-mode`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalTraffic {
    /// By the source: `-s CIDR`.
    Cidr(IpNet),
    /// By the device that it came in by, where `+` at the end stands for any ending: `-i NAME`.
    Interface(String),
}

impl LocalTraffic {
    /// By `--cluster-cidr`: the first range of this family. Nothing where there is none.
    pub fn by_cidr(cidrs: &[IpNet], family: Family) -> Option<LocalTraffic> {
        cidrs.iter().find(|c| family.has(&c.addr())).copied().map(LocalTraffic::Cidr)
    }
}

impl fmt::Display for LocalTraffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LocalTraffic::Cidr(cidr) => write!(f, "-s {cidr}"),
            LocalTraffic::Interface(name) => write!(f, "-i {name}"),
        }
    }
}

/// kube-proxy's configuration, as far as rules depend on it. [`ProxyConfig::new`] has its defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyConfig {
    pub family: Family,
    /// The node's name, by which endpoints are local.
    pub node_name: String,
    /// The node's address. A source range that holds it lets the node reach the load balancer.
    pub node_ip: IpAddr,
    /// The addresses of the node's devices with loopback's. They are looked at only where
    /// `nodeport_addresses` chooses among them.
    pub addresses: Vec<IpAddr>,
    /// The node's labels, of which its zone counts.
    pub labels: BTreeMap<String, String>,
    pub local: Option<LocalTraffic>,
    pub masquerade_all: bool,
    /// The bit of the mark that means "to be masqueraded", from 0 to 31.
    pub masquerade_bit: u8,
    /// Whether NodePorts answer on 127.0.0.0/8. They never do on `::1`.
    pub localhost_nodeports: bool,
    /// The ranges of addresses that NodePorts answer on; all addresses where none is of the family.
    pub nodeport_addresses: Vec<IpNet>,
    /// Whether masqueraded packets get random ports. kube-proxy does so with iptables 1.6.2 or newer.
    pub random_fully: bool,
    /// Whether the kernel has the counters that kube-proxy keeps with the `nfacct` match, by the
    /// names `ct_state_invalid_dropped_pkts` and `localhost_nps_accepted_pkts`.
    pub nfacct: bool,
    /// Whether `nf_conntrack_tcp_be_liberal` is set, which spares the rule against INVALID packets.
    pub conntrack_tcp_liberal: bool,
    /// Whether hints for nodes count (`PreferSameTrafficDistribution`, always on in 1.36).
    pub node_hints: bool,
}

impl ProxyConfig {
    /// kube-proxy's defaults for a node with this name and address, which gives the family.
    pub fn new(node_name: &str, node_ip: IpAddr) -> ProxyConfig {
        ProxyConfig {
            family: Family::of(&node_ip),
            node_name: node_name.to_owned(),
            node_ip,
            addresses: vec![node_ip],
            labels: BTreeMap::new(),
            local: None,
            masquerade_all: false,
            masquerade_bit: 14,
            localhost_nodeports: true,
            nodeport_addresses: Vec::new(),
            random_fully: false,
            nfacct: false,
            conntrack_tcp_liberal: false,
            node_hints: true,
        }
    }

    /// The mark as rules write it.
    pub fn mark(&self) -> String {
        format!("{:#x}", 1u32.checked_shl(u32::from(self.masquerade_bit)).unwrap_or_default())
    }

    pub fn zone(&self) -> &str {
        self.labels.get(ZONE_LABEL).map_or("", String::as_str)
    }

    /// The ranges of NodePorts that are of this family; none means all addresses. One range that is
    /// everything makes the others mean nothing (`NewNodePortAddresses`).
    fn nodeport_ranges(&self) -> Vec<IpNet> {
        let own: Vec<IpNet> = self.nodeport_addresses.iter().copied().filter(|r| self.family.has(&r.addr())).collect();
        if own.iter().any(|r| r.prefix_len() == 0) { Vec::new() } else { own }
    }

    /// Whether NodePorts answer on 127.0.0.0/8 in effect: wanted, in IPv4, and in the ranges.
    pub fn on_localhost(&self) -> bool {
        let loopback = |r: &IpNet| r.addr().is_loopback() || r.contains(&IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)));
        let ranges = self.nodeport_ranges();
        self.localhost_nodeports && self.family == Family::V4 && (ranges.is_empty() || ranges.iter().any(loopback))
    }

    /// The addresses that NodePorts answer on, where they do not answer on all.
    pub fn nodeport_ips(&self) -> Option<Vec<IpAddr>> {
        let ranges = self.nodeport_ranges();
        if ranges.is_empty() {
            return None;
        }
        let mut ips: Vec<IpAddr> = Vec::new();
        for ip in &self.addresses {
            let wanted = ranges.iter().any(|r| r.contains(ip)) && (!ip.is_loopback() || self.on_localhost());
            if wanted && !ips.contains(ip) {
                ips.push(*ip);
            }
        }
        Some(ips)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(ranges: &[&str]) -> ProxyConfig {
        let ip = |text: &str| text.parse().expect("an address");
        let mut config = ProxyConfig::new("node", ip("192.168.0.2"));
        config.addresses = ["127.0.0.1", "192.168.0.2", "192.168.1.2", "2001:db8::1", "192.168.0.2"].map(ip).to_vec();
        config.nodeport_addresses = ranges.iter().map(|r| r.parse().expect("a range")).collect();
        config
    }

    #[test]
    fn nodeports_answer_everywhere_by_default() {
        assert_eq!(config(&[]).nodeport_ips(), None);
        assert_eq!(config(&["::1/128"]).nodeport_ips(), None, "a range of the other family says nothing");
        assert_eq!(config(&["192.168.0.0/24", "0.0.0.0/0"]).nodeport_ips(), None);
        assert!(config(&["0.0.0.0/0"]).on_localhost());
    }

    #[test]
    fn a_range_chooses_addresses_once() {
        let chosen = config(&["192.168.0.0/24", "192.168.0.0/16"]);
        let texts: Vec<String> = chosen.nodeport_ips().unwrap_or_default().iter().map(IpAddr::to_string).collect();
        assert_eq!(texts, ["192.168.0.2", "192.168.1.2"]);
        assert!(!chosen.on_localhost(), "loopback is not in the ranges");
    }

    #[test]
    fn loopback_is_chosen_only_where_nodeports_may_answer_on_it() {
        let mut config = config(&["127.0.0.0/8"]);
        assert_eq!(config.nodeport_ips().map(|ips| ips.len()), Some(1));
        config.localhost_nodeports = false;
        assert_eq!(config.nodeport_ips(), Some(Vec::new()));
    }

    #[test]
    fn the_first_range_of_the_family_tells_local_traffic() {
        let cidrs = ["fd00::/8", "10.0.0.0/8", "11.0.0.0/8"].map(|c| c.parse().expect("a range"));
        let shown = |family| LocalTraffic::by_cidr(&cidrs, family).map(|l| l.to_string());
        assert_eq!(shown(Family::V4).as_deref(), Some("-s 10.0.0.0/8"));
        assert_eq!(shown(Family::V6).as_deref(), Some("-s fd00::/8"));
        assert_eq!(LocalTraffic::by_cidr(&cidrs[1..], Family::V6), None);
    }
}
