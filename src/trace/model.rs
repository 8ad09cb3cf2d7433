//! A trace as plain data: the answer of the lab's daemon, what is drawn, compared and exported, and
//! what `-o json` prints.
//!
//! A [`Trace`] has flows (a name that was looked up, the request itself, what a proxy asked in its
//! turn); a [`Flow`] has packets in both directions; a [`Packet`] has [`Step`]s in their order, from
//! the program that sent it to where it ended. A packet that is wrapped into another one stays the
//! same packet: steps of the outer one have a deeper [`Step::layer`].

mod ends;
mod step;

use std::fmt;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::lab::names::NsName;

pub use ends::{Cause, Drop, Fault, Remedy, Verdict};
pub use step::{Header, Rewrite, Routed, RuleMet, Ruleset, Step, What};

/// The version of the JSON form.
pub const VERSION: u32 = 1;

/// Where the packets of one question went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    /// The version of this form, which is 1.
    pub version: u32,
    /// The lab's name.
    pub lab: String,
    pub asked: Asked,
    /// When the first packet was seen, in nanoseconds since 1970; 0 where nothing was.
    #[serde(default)]
    pub began: u64,
    /// In the order in which they began.
    pub flows: Vec<Flow>,
    pub verdict: Verdict,
    /// How it is known.
    pub means: Vec<Means>,
    /// The first place where the way that was observed differs from the predicted one; nothing where
    /// they agree, or where nothing was compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parting: Option<Parting>,
    /// What a reader should know beside it: events that were lost, means that are missing here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    /// Who asked, as `pod/default/tea-1`, `host/node1`, `client/laptop` or `router`.
    #[schemars(with = "String")]
    pub from: NsName,
    /// Whom, as it was typed.
    pub to: String,
    /// `ping`, `tcp`, `udp`, `http`, `https` or `dns`; `follow` where nothing was sent.
    pub kind: String,
    /// The address that was tried, with its port where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried: Option<String>,
    /// What the asker saw, in words, such as `an answer from tea-1` or `no answer within 2 s`.
    pub seen: String,
    /// Whether the question was answered.
    pub answered: bool,
}

/// How something was found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Means {
    /// A packet socket saw the frame at a device (packet(7)).
    Tap,
    /// The kernel told of a rule that was met (`nftrace`; for rules of iptables-legacy by its log).
    Rules,
    /// Connection tracking told of an entry.
    Conntrack,
    /// The kernel told why it freed a packet (the tracepoint `skb:kfree_skb`).
    DropReason,
    /// The kernel told what its routing table answered (the tracepoint `fib:fib_table_lookup`).
    Lookup,
    /// The kernel told which process was at work when the packet came to its first device (the tracepoint `net:net_dev_queue`).
    Process,
    /// A counter of the namespace went up.
    Counter,
    /// A program of the lab told of it.
    Program,
    /// What the kernel holds says so: routes, neighbours, FDB and rules, read back before the question was sent.
    State,
    /// The plan says so.
    Plan,
}

/// Packets between the same two ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Flow {
    pub role: Role,
    pub protocol: Protocol,
    /// Both ends as the one who began it sees them.
    pub source: End,
    pub destination: End,
    pub packets: Vec<Packet>,
    /// What connection tracking made of it, in the order in which the packet came by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub translations: Vec<Translation>,
}

impl Flow {
    /// Who took a packet of the one who began it.
    pub fn taken_by(&self) -> Option<NsName> {
        let mut there = self.packets.iter().filter(|p| p.direction == Direction::There);
        there.find_map(|p| match &p.fate {
            Fate::Delivered { to } => Some(to.clone()),
            _ => None,
        })
    }
}

/// What a flow is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The question itself.
    Request,
    /// A name was looked up first.
    NameLookup,
    /// A proxy between asked in its turn.
    Proxied,
    /// Seen while following.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Icmp,
    Sctp,
    /// Any other.
    Other,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Icmp => "icmp",
            Protocol::Sctp => "sctp",
            Protocol::Other => "other",
        })
    }
}

/// One end of a flow.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct End {
    pub ip: IpAddr,
    /// 0 where the protocol has none.
    pub port: u16,
    /// Whose it is: a machine's short name, or `service default/tea-svc`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// An entry of connection tracking: what a packet of the flow is, and what an answer to it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Translation {
    /// Where the entry is.
    #[schemars(with = "String")]
    pub place: NsName,
    /// Source and destination of the packet as it came.
    pub original: (End, End),
    /// Source and destination that an answer has, which is the way back.
    pub reply: (End, End),
}

/// One packet from birth to end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Packet {
    /// Its number in the trace, from 1.
    pub number: u32,
    pub direction: Direction,
    /// What it is, such as `SYN`, `SYN-ACK`, `ACK`, `data, 78 bytes`, `echo request`,
    /// `destination unreachable: fragmentation needed`.
    pub kind: String,
    /// The number of the packet that this is another try of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again: Option<u32>,
    /// The number of the packet that this one tells of (an ICMP error), answers, or is a copy of
    /// (flooding).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<u32>,
    pub steps: Vec<Step>,
    pub fate: Fate,
}

/// What is said behind the kind of a packet that is a copy.
const COPY: &str = ", a copy";

impl Packet {
    /// The kind of a copy that a bridge made of a packet of this kind.
    pub fn copy_of(kind: &str) -> String {
        format!("{kind}{COPY}")
    }

    /// Whether it is a copy that a bridge made when it did not know where the packet goes.
    pub fn is_copy(&self) -> bool {
        self.kind.ends_with(COPY)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    There,
    Back,
}

/// How a packet ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "how")]
pub enum Fate {
    /// A program or the kernel of this namespace took it.
    Delivered {
        #[schemars(with = "String")]
        to: NsName,
    },
    /// It was dropped; the last step says where and by what.
    Dropped,
    /// It was refused: something answered with an error in its place.
    Refused,
    /// It was seen last at the last step, and nobody knows more.
    Lost,
}

/// Where what was observed and what was predicted part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Parting {
    /// The number of the packet.
    pub packet: u32,
    /// The predicted step, in words.
    pub predicted: String,
    /// The observed one, in words.
    pub observed: String,
}
