//! What happens to a packet on its way, one step after the other, and its header there.

use std::fmt;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Cause, Drop, Means, Protocol};
use crate::lab::names::{HostName, IfName, NsName};

/// Something that happened to a packet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Nanoseconds since the first packet of the trace; nothing where the step has no time of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
    /// The namespace.
    #[schemars(with = "String")]
    pub place: NsName,
    /// The host on which that namespace is: itself for a host, nothing for clients and the router.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub host: Option<HostName>,
    /// The device, where one is concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub dev: Option<IfName>,
    /// 0 for the packet itself, 1 inside an outer packet (VXLAN, flannel's UDP).
    #[serde(default)]
    pub layer: u8,
    pub what: What,
    /// The header at this step, after what happened; that of the outer packet where the layer is 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<Header>,
    /// How this step is known; several means may agree. Where neither a tap nor rules, connection
    /// tracking, a look-up, a process or a drop reason is among them, it is inferred.
    pub known_by: Vec<Means>,
    /// What happened, in a sentence.
    pub says: String,
}

impl Step {
    /// Whether nothing was seen of it: it follows from what was.
    pub fn is_inferred(&self) -> bool {
        self.known_by.iter().all(|m| matches!(m, Means::State | Means::Plan | Means::Counter))
    }
}

/// The headers of a packet, as far as a trace looks at them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: Protocol,
    /// 0 where there is none; for ICMP echo the identifier, in both.
    pub source_port: u16,
    pub destination_port: u16,
    pub ttl: u8,
    /// Bytes of the IP packet.
    pub length: u32,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dont_fragment: bool,
    /// Source and destination MAC address, where the device has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub macs: Option<(String, String)>,
}

impl fmt::Display for Header {
    /// `10.244.1.2:41234 > 10.96.0.10:53 udp, TTL 64`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |ip: IpAddr, port: u16| match (self.protocol, ip) {
            (Protocol::Icmp | Protocol::Other, ip) => ip.to_string(),
            (_, ip) => std::net::SocketAddr::new(ip, port).to_string(),
        };
        let (source, destination) = (end(self.source, self.source_port), end(self.destination, self.destination_port));
        write!(f, "{source} > {destination} {}, TTL {}", self.protocol, self.ttl)
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum What {
    /// A program, or the kernel itself, sent it.
    Sent {
        /// Who, such as `a program`, `flanneld`, `the kernel`; where the kernel told of the process, the program's name,
        /// such as `curl`.
        by: String,
    },
    /// It came in by the device.
    In,
    /// It left by the device.
    Out,
    /// A bridge decided on the ports.
    Bridged {
        bridge: String,
        /// The port that it left by; nothing where it was flooded or taken by the bridge's own address.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<String>,
        flooded: bool,
    },
    /// A rule was met.
    Rule(RuleMet),
    /// Addresses or ports were rewritten.
    Rewritten { how: Rewrite, before: Box<Header>, after: Box<Header> },
    /// A routing table decided.
    Routed(Routed),
    /// A neighbour's MAC address was looked up.
    Neighbour {
        ip: IpAddr,
        /// Nothing where none was found.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mac: Option<String>,
        /// `permanent`, `learned`, `failed` or `missing`.
        state: String,
    },
    /// It was wrapped into an outer packet.
    Encapsulated {
        /// `vxlan 1` or `udp`.
        how: String,
        outer: Box<Header>,
        /// The FDB entry or lease that gave the outer destination, as `bridge fdb` prints it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        entry: Option<String>,
    },
    /// The outer packet was taken off.
    Decapsulated { how: String },
    /// A program was given it to pass on (flanneld's TUN).
    UserSpace { program: String },
    /// A proxy took the request in, and decided where it goes on.
    Proxied {
        program: String,
        request: String,
        /// The object that decided, such as `ingress default/cafe, path /tea`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        because: Option<String>,
        backend: String,
    },
    /// A name was asked for.
    Asked { name: String, answer: String },
    /// It arrived.
    Delivered {
        /// The program that has the socket, or `the kernel`.
        to: String,
    },
    /// Something sent an error in its place.
    Refused { with: String },
    /// It was dropped.
    Dropped(Drop),
}

/// A rule that was met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleMet {
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Ruleset::is_iptables")]
    pub of: Ruleset,
    /// With its family where it is nf_tables' own, as in `inet firewall`.
    pub table: String,
    pub chain: String,
    /// Its place in the chain, from 1; 0 for the chain's policy or end.
    pub number: u32,
    /// As `iptables -S` prints it, or `nft list` where it is nf_tables' own.
    pub rule: String,
    /// `ACCEPT`, `DROP`, `jump KUBE-SVC-…`, `RETURN`, `continue`.
    pub verdict: String,
    /// What the rule is there for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meaning: Option<String>,
}

/// Which rules a rule is one of: the kernel asks all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Ruleset {
    /// Those that `iptables` shows.
    #[default]
    Iptables,
    /// Those of the older xtables, which `iptables-legacy` shows where `iptables` speaks to nf_tables.
    IptablesLegacy,
    /// A table of nf_tables that somebody made without iptables.
    Nftables,
}

impl Ruleset {
    /// All that iptables has words for, in the order in which the kernel asks those of the same priority: whoever came
    /// last is asked first, and what is planned is there from the beginning (`nf_hook_entries_grow`).
    pub const OF_IPTABLES: [Ruleset; 2] = [Ruleset::IptablesLegacy, Ruleset::Iptables];

    /// A rule of a table, as its own tool takes or prints it; `chain` is that in which it stands.
    pub fn named(self, (table, chain): (&str, &str), rule: &str) -> String {
        match self {
            Ruleset::Iptables => format!("-t {table} {rule}"),
            Ruleset::IptablesLegacy => format!("iptables-legacy -t {table} {rule}"),
            Ruleset::Nftables => format!("table {table}, chain {chain}: {rule}"),
        }
    }

    /// A table within a sentence.
    pub fn in_words(self, table: &str) -> String {
        match self {
            Ruleset::Iptables | Ruleset::Nftables => table.to_owned(),
            Ruleset::IptablesLegacy => format!("{table} of iptables-legacy"),
        }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives it so")]
    fn is_iptables(&self) -> bool {
        *self == Ruleset::Iptables
    }
}

impl RuleMet {
    /// The rule with its table, as its own tool takes or prints it.
    pub fn named(&self) -> String {
        self.of.named((&self.table, &self.chain), &self.rule)
    }

    /// Its place within a sentence: `rule 2 of FORWARD in filter`.
    pub fn placed(&self) -> String {
        let RuleMet { of, table, chain, number, .. } = self;
        let name = if *number == 0 { "policy".to_owned() } else { format!("rule {number}") };
        format!("{name} of {chain} in {}", of.in_words(table))
    }

    /// Its table where there is little room.
    pub fn in_table(&self) -> String {
        match self.of {
            Ruleset::Iptables | Ruleset::Nftables => self.table.clone(),
            Ruleset::IptablesLegacy => format!("{} (legacy)", self.table),
        }
    }

    /// Which end of a connection's packets it rewrites.
    pub fn rewrites(&self) -> Option<Rewrite> {
        match self.of {
            Ruleset::Iptables | Ruleset::IptablesLegacy => {
                match self.rule.split(' ').skip_while(|word| *word != "-j").nth(1)? {
                    "DNAT" | "REDIRECT" => Some(Rewrite::Destination),
                    "SNAT" | "MASQUERADE" => Some(Rewrite::Source),
                    "NETMAP" if ["INPUT", "POSTROUTING"].contains(&self.chain.as_str()) => Some(Rewrite::Source),
                    "NETMAP" => Some(Rewrite::Destination),
                    _ => None,
                }
            }
            Ruleset::Nftables => {
                // What stands in quotes is a comment or a name.
                let words: Vec<&str> = self.rule.split('"').step_by(2).flat_map(str::split_whitespace).collect();
                (0..words.len()).find_map(|n| translation(&words[..n], &words[n..]))
            }
        }
    }

    /// The cause that it is where it dropped a packet: a chain's policy has the number 0.
    pub fn as_cause(&self) -> Cause {
        match (self.number, self.refuses()) {
            (0, _) => Cause::PolicyDrop,
            (_, true) => Cause::RuleReject,
            _ => Cause::RuleDrop,
        }
    }

    /// Whether it answers with an error, of which the kernel tells as of a drop.
    pub fn refuses(&self) -> bool {
        match self.of {
            Ruleset::Iptables | Ruleset::IptablesLegacy => self.rule.contains("-j REJECT"),
            Ruleset::Nftables => self.rule.split(' ').any(|word| word == "reject"),
        }
    }
}

/// Which end a statement of nft translates that begins with the first of `words` (nft(8), NAT statements). The same words
/// are also values: of `ct status`, and `redirect` of `icmp type`.
fn translation(before: &[&str], words: &[&str]) -> Option<Rewrite> {
    let (word, rest) = words.split_first()?;
    let next = rest.first().copied().unwrap_or_default();
    let is_value = before.last().is_some_and(|word| ["status", "type", "{"].contains(word));
    let has_end = ["to", "ip", "ip6", "prefix"].contains(&next);
    match *word {
        "dnat" if has_end => Some(Rewrite::Destination),
        "snat" if has_end => Some(Rewrite::Source),
        "redirect" if !is_value => Some(Rewrite::Destination),
        "masquerade" => Some(Rewrite::Source),
        _ => None,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Rewrite {
    /// By a DNAT rule.
    Destination,
    /// By MASQUERADE or SNAT.
    Source,
    /// By connection tracking, which remembers a rule's decision.
    Remembered,
}

/// A decision of a routing table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Routed {
    /// The route as `ip route` prints it; `local` where it is an address of the namespace itself.
    pub route: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dev: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewrites(of: Ruleset, chain: &str, rule: &str) -> Option<Rewrite> {
        let (table, chain, rule) = ("nat".to_owned(), chain.to_owned(), rule.to_owned());
        let met = RuleMet { of, table, chain, number: 1, rule, verdict: "ACCEPT".to_owned(), meaning: None };
        met.rewrites()
    }

    #[test]
    fn a_rule_of_iptables_translates_by_its_target() {
        let told = |chain, rule| rewrites(Ruleset::Iptables, chain, rule);
        assert_eq!(told("A", "-A A -p tcp -j DNAT --to-destination 10.0.0.1"), Some(Rewrite::Destination));
        assert_eq!(told("A", "-A A -j MASQUERADE --random-fully"), Some(Rewrite::Source));
        assert_eq!(told("POSTROUTING", "-A POSTROUTING -j NETMAP --to 10.0.0.0/24"), Some(Rewrite::Source));
        assert_eq!(told("A", "-A A -m comment --comment \"for DNAT\" -j ACCEPT"), None);
    }

    #[test]
    fn a_rule_of_nft_translates_by_its_statement_and_not_by_what_it_looks_at() {
        let told = |rule| rewrites(Ruleset::Nftables, "c", rule);
        for rule in
            ["tcp dport 80 dnat to 10.0.0.9:81", "meta l4proto tcp dnat ip to 10.0.0.9", "redirect to :81", "redirect"]
        {
            assert_eq!(told(rule), Some(Rewrite::Destination), "{rule}");
        }
        for rule in ["oifname \"eth0\" masquerade", "snat ip prefix to 10.0.0.0/24", "counter masquerade fully-random"]
        {
            assert_eq!(told(rule), Some(Rewrite::Source), "{rule}");
        }
        for rule in [
            "ct status dnat accept",
            "ct status snat,dnat counter",
            "icmp type redirect drop",
            "icmp type { redirect, echo-request } drop",
            "accept comment \"x masquerade y\"",
        ] {
            assert_eq!(told(rule), None, "{rule}");
        }
    }
}
