//! Where a namespace is not what every namespace of a lab is by itself: what somebody put there
//! that no word of a plan says, and what the kernel gives each namespace and somebody took away.
//!
//! A plan has none of these. They are only ever read back (`kernel::deviations`), and each is mended by
//! one step of its own. What a plan does say is compared word by word in [`super::diff`].

use std::fmt;

use serde::Serialize;

use crate::lab::names::IfName;

use super::rules::Rules;
use super::{Mac, Sysctl};

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Deviation {
    /// The loopback device is down.
    LoopbackDown,
    /// The loopback device is up and has lost 127.0.0.1.
    LoopbackBare,
    /// A route that plans have no words for: one that refuses, one with a metric or several next
    /// hops, one of another table.
    Route(Told),
    /// An entry of the routing policy (`ip rule`) that somebody added.
    PolicyRule(Told),
    /// One of the three entries that the kernel begins with is missing.
    MissingPolicyRule { priority: u32, table: u8 },
    /// A queueing discipline that somebody chose. With it go its classes and filters.
    Qdisc(Qdisc),
    /// A port of a bridge that passes on less than others.
    Port(Port),
    /// An entry that somebody wrote into a bridge's forwarding table.
    BridgeEntry(BridgeEntry),
    /// A setting of which plans say nothing has not the value that it begins with.
    Setting(Setting),
    /// A table of nf_tables that is not iptables' own.
    NftTable(NftTable),
    /// Rules of the older xtables, which the kernel asks beside those of nf_tables.
    LegacyRules(Rules),
}

impl Deviation {
    /// The device with which it goes.
    pub fn device(&self) -> Option<&IfName> {
        match self {
            Deviation::Qdisc(qdisc) => Some(&qdisc.dev),
            Deviation::Port(port) => Some(&port.dev),
            Deviation::BridgeEntry(entry) => Some(&entry.port),
            _ => None,
        }
    }
}

/// Something in the kernel's own words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Told {
    /// As `ip` would show it.
    pub what: String,
    /// The body of the netlink message that told of it, by which the kernel knows it again.
    #[serde(skip)]
    pub message: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Qdisc {
    pub dev: IfName,
    /// Such as `tbf` or `clsact`.
    pub name: String,
    /// The device's index.
    pub index: u32,
    pub handle: u32,
    /// `TC_H_ROOT`, or `TC_H_INGRESS` for what looks at arriving packets.
    pub parent: u32,
}

impl Qdisc {
    /// Where at the device it is, as `tc qdisc` takes it.
    pub fn place(&self) -> &str {
        match self.name.as_str() {
            // What looks at arriving packets is there by its name.
            name @ ("ingress" | "clsact") => name,
            _ => "root",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Port {
    pub dev: IfName,
    /// The device's index.
    pub index: u32,
    pub fault: PortFault,
}

/// Why a port passes on less than others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortFault {
    /// It is in another state than forwarding (`BR_STATE_DISABLED` and the like, linux/if_bridge.h).
    State(u8),
    /// It passes nothing on to other isolated ports.
    Isolated,
}

impl fmt::Display for PortFault {
    /// As `bridge link` shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PortFault::State(0) => "state disabled",
            PortFault::State(1) => "state listening",
            PortFault::State(2) => "state learning",
            PortFault::State(4) => "state blocking",
            PortFault::State(_) => "state unknown",
            PortFault::Isolated => "isolated on",
        })
    }
}

impl PortFault {
    /// What `bridge link set` takes to end it.
    pub fn remedy(self) -> &'static str {
        match self {
            PortFault::State(_) => "state 3",
            PortFault::Isolated => "isolated off",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BridgeEntry {
    pub bridge: IfName,
    pub port: IfName,
    pub mac: Mac,
    /// Whether the bridge takes frames to this address for its own machine's.
    pub local: bool,
    /// As `bridge fdb` takes it.
    pub told: Told,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Setting {
    pub wanted: Sysctl,
    /// The value that it has.
    pub is: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NftTable {
    /// `NFPROTO_INET` and the like (linux/netfilter.h).
    pub family: u8,
    pub name: String,
}

impl NftTable {
    /// The family in nft's language.
    pub fn family_name(&self) -> &'static str {
        match self.family {
            1 => "inet",
            2 => "ip",
            3 => "arp",
            5 => "netdev",
            7 => "bridge",
            10 => "ip6",
            _ => "unknown",
        }
    }
}

impl fmt::Display for Deviation {
    /// The step that mends it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Deviation::LoopbackDown => f.write_str("link set lo up"),
            Deviation::LoopbackBare => f.write_str("address add 127.0.0.1/8 dev lo"),
            Deviation::Route(route) => write!(f, "route delete {}", route.what),
            Deviation::PolicyRule(rule) => write!(f, "rule delete {}", rule.what),
            Deviation::MissingPolicyRule { priority, table } => {
                write!(f, "rule add {priority}: from all lookup {}", table_name((*table).into()))
            }
            Deviation::Qdisc(q) => write!(f, "qdisc delete {} dev {}", q.name, q.dev),
            Deviation::Port(p) => write!(f, "bridge link set {} {} (was {})", p.dev, p.fault.remedy(), p.fault),
            Deviation::BridgeEntry(entry) => write!(f, "bridge fdb delete {}", entry.told.what),
            Deviation::Setting(Setting { wanted, is }) => {
                write!(f, "sysctl {}={} (was {is})", wanted.dotted(), wanted.value)
            }
            Deviation::NftTable(t) => write!(f, "nft delete table {} {}", t.family_name(), t.name),
            Deviation::LegacyRules(rules) => {
                let lines = rules.lines();
                write!(f, "iptables-legacy flush of {} rules", lines.len())?;
                lines.iter().try_for_each(|line| write!(f, "\n    - {line}"))
            }
        }
    }
}

/// A routing table's name where it has one (rt_tables).
pub fn table_name(table: u32) -> String {
    match table {
        253 => "default".to_owned(),
        254 => "main".to_owned(),
        255 => "local".to_owned(),
        other => other.to_string(),
    }
}
