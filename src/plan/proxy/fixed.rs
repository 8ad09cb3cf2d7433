//! What kube-proxy writes whether or not there are services: the shared chains, how packets are
//! masqueraded, and the jumps from the built-in chains.

use std::fmt::Write;

use super::chain::{EXTERNAL_SERVICES, FIREWALL, FORWARD, MARK_MASQ, NODEPORTS, POSTROUTING, PROXY_FIREWALL, SERVICES};
use super::config::{Family, ProxyConfig};

/// A table's shared chains, and its lines before and after those of services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub chains: Vec<&'static str>,
    pub head: String,
    pub tail: String,
}

/// A jump from a built-in chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jump {
    pub table: &'static str,
    pub from: &'static str,
    pub to: &'static str,
    /// Empty where the rule has none.
    pub comment: &'static str,
    /// Whether only a connection's first packet is of interest.
    pub new: bool,
}

const fn jump(from: &'static str, to: &'static str, comment: &'static str, new: bool) -> Jump {
    Jump { table: "filter", from, to, comment, new }
}

const fn nat_jump(from: &'static str, to: &'static str, comment: &'static str) -> Jump {
    Jump { table: "nat", from, to, comment, new: false }
}

/// In the order in which kube-proxy makes them, each at the top of its chain, so that the last one
/// ends up first (`iptablesJumpChains` and `iptablesKubeletJumpChains`).
pub const JUMPS: &[Jump] = &[
    jump("INPUT", EXTERNAL_SERVICES, "kubernetes externally-visible service portals", true),
    jump("FORWARD", EXTERNAL_SERVICES, "kubernetes externally-visible service portals", true),
    jump("INPUT", NODEPORTS, "kubernetes health check service ports", false),
    jump("FORWARD", SERVICES, "kubernetes service portals", true),
    jump("OUTPUT", SERVICES, "kubernetes service portals", true),
    jump("FORWARD", FORWARD, "kubernetes forwarding rules", false),
    jump("INPUT", PROXY_FIREWALL, "kubernetes load balancer firewall", true),
    jump("OUTPUT", PROXY_FIREWALL, "kubernetes load balancer firewall", true),
    jump("FORWARD", PROXY_FIREWALL, "kubernetes load balancer firewall", true),
    nat_jump("OUTPUT", SERVICES, "kubernetes service portals"),
    nat_jump("PREROUTING", SERVICES, "kubernetes service portals"),
    nat_jump("POSTROUTING", POSTROUTING, "kubernetes postrouting rules"),
    jump("INPUT", FIREWALL, "", false),
    jump("OUTPUT", FIREWALL, "", false),
];

impl Jump {
    /// The rule without its chain, as `iptables-save` prints it.
    pub fn rule(&self) -> String {
        let state = if self.new { "-m conntrack --ctstate NEW " } else { "" };
        match self.comment {
            "" => format!("{state}-j {}", self.to),
            comment => format!("{state}-m comment --comment \"{comment}\" -j {}", self.to),
        }
    }
}

/// The filter table. Writing to a String cannot fail, here and below.
pub fn filter(config: &ProxyConfig) -> Table {
    let mut chains = vec![SERVICES, EXTERNAL_SERVICES, FORWARD, NODEPORTS, PROXY_FIREWALL];
    let (mut head, mut tail, mark) = (String::new(), String::new(), config.mark());
    if config.on_localhost() {
        // route_localnet would let other machines reach what listens on this node's loopback.
        chains.push(FIREWALL);
        let _ = writeln!(
            head,
            "-A {FIREWALL} -m comment --comment \"block incoming localnet connections\" -d 127.0.0.0/8 \
             ! -s 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"
        );
    }
    if !config.conntrack_tcp_liberal {
        // A packet that conntrack cannot place would not be translated back, and whoever got it
        // would reset the connection.
        let counter = if config.nfacct { " -m nfacct --nfacct-name ct_state_invalid_dropped_pkts" } else { "" };
        let _ = writeln!(tail, "-A {FORWARD} -m conntrack --ctstate INVALID{counter} -j DROP");
    }
    let _ = writeln!(
        tail,
        "-A {FORWARD} -m comment --comment \"kubernetes forwarding rules\" -m mark --mark {mark}/{mark} -j ACCEPT\n\
         -A {FORWARD} -m comment --comment \"kubernetes forwarding conntrack rule\" \
         -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    );
    Table { chains, head, tail }
}

/// The nat table.
pub fn nat(config: &ProxyConfig) -> Table {
    let chains = vec![SERVICES, NODEPORTS, POSTROUTING, MARK_MASQ];
    let mark = config.mark();
    let random = if config.random_fully { " --random-fully" } else { "" };
    // The mark is taken off, so that a packet which passes again is not masqueraded again.
    let head = format!(
        "-A {POSTROUTING} -m mark ! --mark {mark}/{mark} -j RETURN\n\
         -A {POSTROUTING} -j MARK --xor-mark {mark}\n\
         -A {POSTROUTING} -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE{random}\n\
         -A {MARK_MASQ} -j MARK --or-mark {mark}\n"
    );
    Table { chains, head, tail: node_ports(config) }
}

/// The end of KUBE-SERVICES: packets to the node itself may be for a NodePort.
fn node_ports(config: &ProxyConfig) -> String {
    let start = format!(
        "-A {SERVICES} -m comment --comment \
         \"kubernetes service nodeports; NOTE: this must be the last rule in this chain\""
    );
    let Some(ips) = config.nodeport_ips() else {
        let except = match config.family {
            Family::V6 => " ! -d ::1/128",
            Family::V4 if config.on_localhost() => "",
            Family::V4 => " ! -d 127.0.0.0/8",
        };
        return format!("{start} -m addrtype --dst-type LOCAL{except} -j {NODEPORTS}\n");
    };
    ips.iter().map(|ip| format!("{start} -d {ip} -j {NODEPORTS}\n")).collect()
}
