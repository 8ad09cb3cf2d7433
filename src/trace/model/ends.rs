//! How a trace and a packet in it end: the cause of a drop, the verdict, the fault and what would mend it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::lab::names::NsName;

/// Why a packet was dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drop {
    pub cause: Cause,
    /// What dropped it: the rule, route, device or setting in the kernel's or tool's own words.
    pub by: String,
    /// The kernel's own reason, such as `NETFILTER_DROP`, where it told one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The kinds of causes that a trace knows. Their names are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The namespace does not forward packets (`net.ipv4.ip_forward` is 0).
    ForwardingOff,
    /// A rule says DROP.
    RuleDrop,
    /// A rule says REJECT.
    RuleReject,
    /// The policy of a built-in chain says DROP.
    PolicyDrop,
    /// No route leads there.
    NoRoute,
    /// A route leads somewhere else than planned.
    WrongRoute,
    /// Nobody answers for the next hop's address.
    NoNeighbour,
    /// The neighbour entry names a MAC address that is not the next hop's.
    WrongNeighbour,
    /// The FDB has no entry for the peer's MAC address.
    NoFdbEntry,
    /// The FDB entry names another host.
    WrongFdbEntry,
    /// The peer's VTEP has another MAC address than the frame.
    WrongVtepMac,
    /// Both ends of the tunnel have different VNIs or ports.
    WrongVni,
    /// The packet is too large for the next device and must not be fragmented.
    TooBig,
    /// The reverse path filter found the source at the wrong device.
    ReversePath,
    /// A device on the way is down.
    LinkDown,
    /// A device on the way is missing.
    NoDevice,
    /// Two machines have the same address.
    AddressConflict,
    /// The bridge's range is not the one that is routed to it.
    WrongSubnet,
    /// The user-space daemon of flannel's udp back end does not run.
    FlanneldDead,
    /// The next hop is no neighbour: a router stands in between.
    NotOnLink,
    /// Bridged packets pass no iptables (`net.bridge.bridge-nf-call-iptables` is 0).
    BridgeNetfilterOff,
    /// A rule that is in no plan rewrote the packet's addresses or ports.
    Rewritten,
    /// The answer goes past the host that translated the packet.
    NotMasqueraded,
    /// No pod that the service selects is ready.
    NotReady,
    /// The service selects no pods.
    NoEndpoints,
    /// The service's target port is not one that the pod listens on.
    WrongTargetPort,
    /// The traffic policy is Local, and no endpoint is on this host.
    NoLocalEndpoint,
    /// The service has no such port, so no rule takes the packet.
    NoServicePort,
    /// The table of tracked connections is full.
    ConntrackFull,
    /// The cluster's DNS does not answer.
    DnsDead,
    /// The name does not exist.
    NoSuchName,
    /// The certificate is not the one that the name needs.
    WrongCertificate,
    /// The proxy has no rule or no endpoint for the request.
    ProxyRefused,
    /// Nothing listens on the port.
    NoListener,
    /// The program does not answer what came to its port: it does not read it, or says nothing to it.
    ProgramSilent,
    /// The time to live ran out: packets go in a circle.
    TtlExceeded,
    /// Something else took it.
    Other,
}

/// The end of the trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// In a sentence: delivered to whom, or dropped where, by what and why.
    pub says: String,
    /// Why the question was not answered; nothing where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}

/// Why a question was not answered, and what would mend it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    pub cause: Cause,
    /// Where the fault is.
    #[schemars(with = "String")]
    pub place: NsName,
    /// The device, rule, route, service or setting that is at fault.
    pub object: String,
    /// What the cause rests on, a sentence each: what was seen, counted and read.
    pub evidence: Vec<String>,
    /// What would mend it.
    pub remedy: Vec<Remedy>,
}

/// One thing that would mend a fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Remedy {
    /// What to do, in a sentence.
    pub says: String,
    /// The command that does it, where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}
