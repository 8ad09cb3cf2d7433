//! What a recording is made of, as plain data.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use crate::kernel::conntrack::Tracked;
use crate::lab::names::{IfName, NsName};

/// Something that the kernel told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Nanoseconds since 1970 (`CLOCK_REALTIME`): when it happened for frames, freed packets, sendings and look-ups, when it
    /// was read for rules and connections, to which the kernel gives no time.
    pub at: u64,
    /// Counts all events in the order in which they were read. Within one namespace the rules and
    /// connections have it in the order in which they happened, and so have the frames.
    pub sequence: u64,
    /// The namespace; nothing for a freed packet, a sending and a look-up, of which the kernel does not tell it.
    pub place: Option<NsName>,
    pub seen: Seen,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Frame(Frame),
    Rule(RuleSeen),
    Conntrack(Entry),
    Freed(Freed),
    Sending(Sending),
    Lookup(Lookup),
}

impl Seen {
    /// The bytes that it takes beside itself, about.
    pub(super) fn heap(&self) -> usize {
        match self {
            Seen::Frame(frame) => frame.bytes.len(),
            Seen::Rule(rule) => {
                let headers = rule.link.len() + rule.network.len() + rule.transport.len();
                rule.table.len() + rule.chain.len() + headers
            }
            Seen::Freed(freed) => freed.reason.len() + freed.location.len() + freed.trail.len() * size_of::<Point>(),
            Seen::Conntrack(_) | Seen::Lookup(_) | Seen::Sending(_) => 0,
        }
    }
}

/// A frame at a device (packet(7)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The device's index in its namespace.
    pub index: u32,
    pub dev: IfName,
    /// Whether it left by the device (`PACKET_OUTGOING`).
    pub outgoing: bool,
    /// `PACKET_HOST` and the like (linux/if_packet.h).
    pub packet_type: u8,
    /// Whether `bytes` begin with an Ethernet header; those of a TUN device begin with the IP header.
    pub ethernet: bool,
    /// `ETH_P_IP` and the like.
    pub protocol: u16,
    /// The first bytes of it, at most `Options::snap`.
    pub bytes: Vec<u8>,
    /// All bytes that it had.
    pub length: u32,
    /// The packet's mark, where the kernel tells it (since 5.19).
    pub mark: Option<u32>,
}

/// What nf_tables tells of a packet that is traced (`NFT_MSG_TRACE`), or xtables (iptables-legacy) in the words of
/// its target TRACE.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleSeen {
    pub table: String,
    /// `NFPROTO_IPV4` and the like: the table's.
    pub family: u8,
    pub chain: String,
    /// The rule's number for the kernel; [`RuleBook`] makes of it the place in the chain.
    pub handle: Option<u64>,
    /// Of a rule of xtables, which has no handle: its place in its chain, from 1. A policy or an end is
    /// the one behind the last rule.
    pub legacy: Option<u32>,
    /// xtables calls a last rule that takes everything the end of its chain.
    pub kind: RuleKind,
    pub verdict: Verdict,
    /// Headers and devices come once for each hook that the packet passes, with the first rule (or the
    /// policy) that it meets there; later ones have none.
    pub link: Vec<u8>,
    /// The first 20 bytes or less.
    pub network: Vec<u8>,
    /// The first 20 bytes or less.
    pub transport: Vec<u8>,
    pub iif: Option<IfName>,
    pub oif: Option<IfName>,
    pub mark: Option<u32>,
    /// `NFPROTO_IPV4` and the like: the packet's.
    pub nfproto: Option<u32>,
    /// The kernel's number for the packet, which is used again and again, and changes on the way.
    pub id: u32,
    /// Newer kernels (since 6.15) tell the number of the connection's entry.
    pub connection: Option<u32>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RuleKind {
    /// A rule was met.
    #[default]
    Rule,
    /// A built-in chain's policy.
    Policy,
    /// A chain ended without a verdict. Behind a built-in one's end its policy comes.
    Return,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Drop,
    #[default]
    Continue,
    Return,
    Jump(String),
    Goto(String),
    /// `NF_STOLEN`, `NF_QUEUE` and the like, as the kernel numbers them.
    Other(i32),
    /// xtables does not tell what its rules decide; their text does.
    Untold,
}

/// What became of an entry of connection tracking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub change: EntryChange,
    pub entry: Tracked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryChange {
    New,
    Updated,
    Destroyed,
}

/// A packet that the kernel dropped, of any namespace of the machine (the tracepoint `skb:kfree_skb`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Freed {
    /// The kernel's word, such as `NETFILTER_DROP`.
    pub reason: String,
    /// The function that dropped it, as `ip_rcv_core+0x1a0`; its address where the kernel hides names.
    pub location: String,
    /// `ETH_P_IP` or `ETH_P_ARP`.
    pub protocol: u16,
    /// The devices that it was at, the last one last, and no more than some of them. It may begin with those of
    /// another packet that had the same place in the kernel's memory before.
    pub trail: Vec<Point>,
    /// Its place in the kernel's memory, which is used again and again.
    pub skb: u64,
}

/// A packet at a device, as tracepoints tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// As [`Event::at`]; a tap saw it at about this time.
    pub at: u64,
    /// By name alone: other namespaces may have one of that name.
    pub dev: IfName,
    pub outgoing: bool,
    /// Its bytes there, without the Ethernet header where it came in.
    pub length: u32,
}

/// A packet that a process sent and that leaves by a device (the tracepoints `net:net_dev_queue` and
/// `net:net_dev_start_xmit`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sending {
    /// From when to when, as [`Event::at`]: if a tap saw it there, then in this time.
    pub between: (u64, u64),
    /// By name alone, as the kernel does not tell the namespace.
    pub dev: IfName,
    /// Its bytes there, with the Ethernet header.
    pub length: u32,
    pub by: Sender,
}

/// A process that sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sender {
    /// Of the lab.
    Process {
        /// As the kernel calls it (/proc/PID/comm), which is no more than 15 bytes; what a program of labctl's is started as.
        name: String,
        /// The namespace that it is in.
        place: NsName,
    },
    /// The process that records, which has sockets in all namespaces.
    Daemon,
}

/// What a routing table answered (the tracepoint `fib:fib_table_lookup`), in any namespace of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    /// The table's number: 254 for `main`, 255 for `local`.
    pub table: u32,
    /// The source may be unspecified, and the ports be 0, where they were not looked at.
    pub source: SocketAddrV4,
    pub destination: SocketAddrV4,
    /// The index of the device that the packet came in by; 1 where it was born here.
    pub iif: u32,
    /// The device of the route; nothing where the table has none.
    pub dev: Option<IfName>,
    /// The next hop's address. Where the route has none the kernel leaves here what was there before.
    pub via: Ipv4Addr,
}

/// How much a counter went up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CounterDelta {
    pub place: NsName,
    /// Such as `Ip.InNoRoutes`, `TcpExt.IPReversePathFilter` or `dev flannel.1 tx_dropped`.
    pub name: String,
    pub by: u64,
}

/// A chain of nf_tables.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChainName {
    pub place: NsName,
    /// `NFPROTO_IPV4` and the like.
    pub family: u8,
    pub table: String,
    pub chain: String,
}

/// What stands in a chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// What `nft` prints of its hook and policy, where it was asked.
    pub head: Option<String>,
    /// Each rule's handle, and what `nft` prints of it, where it was asked.
    pub rules: Vec<(u64, Option<String>)>,
}

/// The rules of each chain, so that a handle becomes the place in its chain, which is the line of
/// `iptables -S`; and, of tables that are not iptables', what `nft` prints of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleBook(pub BTreeMap<ChainName, Listing>);

impl RuleBook {
    fn listing(&self, place: &NsName, rule: &RuleSeen) -> Option<&Listing> {
        let RuleSeen { family, table, chain, .. } = rule;
        let (place, table, chain) = (place.clone(), table.clone(), chain.clone());
        self.0.get(&ChainName { place, family: *family, table, chain })
    }

    /// Whether there are chains of a table.
    pub fn has(&self, place: &NsName, family: u8, table: &str) -> bool {
        self.0.keys().any(|c| (&c.place, c.family, c.table.as_str()) == (place, family, table))
    }

    /// The place of a rule in its chain, from 1.
    pub fn number(&self, place: &NsName, rule: &RuleSeen) -> Option<usize> {
        let rules = &self.listing(place, rule)?.rules;
        rules.iter().position(|(handle, _)| Some(*handle) == rule.handle).map(|at| at + 1)
    }

    /// What `nft` prints of a rule, or of its chain's hook and policy where it is none.
    pub fn text(&self, place: &NsName, rule: &RuleSeen) -> Option<&str> {
        let listing = self.listing(place, rule)?;
        match rule.handle {
            Some(handle) => listing.rules.iter().find(|(h, _)| *h == handle)?.1.as_deref(),
            None => listing.head.as_deref(),
        }
    }
}
