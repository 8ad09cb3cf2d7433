//! The words that a plan is written in. Reading the kernel back (`kernel::read`) uses the same
//! ones, so that what is and what should be can be compared as values.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use crate::lab::ingress::Driver;
use crate::lab::names::{HostName, IfName, NsName};
use crate::spec::types::{EnvVar, RestartPolicy};
use crate::spec::value::Protocol;

use super::deviation::Deviation;
use super::rules::Rules;

/// Everything that a lab consists of, in build order.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Plan {
    pub namespaces: Vec<NsPlan>,
}

impl Plan {
    pub fn get(&self, ns: &NsName) -> Option<&NsPlan> {
        self.namespaces.iter().find(|n| n.ns == *ns)
    }
}

/// What one network namespace must hold.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NsPlan {
    pub ns: NsName,
    /// Devices, in the order in which they are made. The loopback device is always there.
    pub links: Vec<Link>,
    pub addresses: Vec<Address>,
    /// Routes of the main table, without those that the kernel adds for an address.
    pub routes: Vec<Route>,
    /// Permanent neighbour entries.
    pub neighbours: Vec<Neighbour>,
    /// Permanent forwarding entries of VXLAN devices.
    pub fdb: Vec<FdbEntry>,
    pub sysctls: Vec<Sysctl>,
    pub rules: Rules,
    pub files: Vec<File>,
    pub flanneld: Option<Flanneld>,
    pub listeners: Vec<Listener>,
    pub dns: Option<DnsServer>,
    pub programs: Vec<Program>,
    /// None in a plan.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deviations: Vec<Deviation>,
}

impl NsPlan {
    pub fn new(ns: NsName) -> NsPlan {
        NsPlan {
            ns,
            links: Vec::new(),
            addresses: Vec::new(),
            routes: Vec::new(),
            neighbours: Vec::new(),
            fdb: Vec::new(),
            sysctls: Vec::new(),
            rules: Rules::default(),
            files: Vec::new(),
            flanneld: None,
            listeners: Vec::new(),
            dns: None,
            programs: Vec::new(),
            deviations: Vec::new(),
        }
    }

    pub fn link(&self, name: &IfName) -> Option<&Link> {
        self.links.iter().find(|l| l.name == *name)
    }
}

/// A MAC address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        f.pad(&format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}"))
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Mac {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A device.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Link {
    pub name: IfName,
    /// Its index in its namespace, as `ip link` counts. Both ends of a veth pair have different
    /// ones: with equal ones the kernel takes up to a second to see the carrier (`linkwatch`).
    pub index: u32,
    /// `None` where the kind has no link-layer address (TUN).
    pub mac: Option<Mac>,
    /// Bytes of the largest IP packet.
    pub mtu: u32,
    /// The bridge that it is a port of.
    pub master: Option<IfName>,
    /// Whether the bridge may send a frame back out of this port (CNI's hairpinMode).
    pub hairpin: bool,
    /// Always true in a plan; what is read back may be down.
    pub up: bool,
    pub kind: LinkKind,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum LinkKind {
    Bridge,
    /// One end of a pair. The end that is a bridge's port makes the pair.
    Veth {
        peer_ns: NsName,
        peer: IfName,
    },
    /// A VXLAN tunnel end point that learns nothing and knows its peers from the FDB (RFC 7348).
    Vxlan {
        vni: u32,
        port: u16,
        local: IpAddr,
        dev: IfName,
    },
    /// A TUN device (IP packets, no Ethernet header) whose other end is flanneld.
    Tun,
    /// Something that labctl did not make; only ever read back.
    Other {
        what: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Address {
    pub dev: IfName,
    pub net: IpNet,
    /// Whether a broadcast address is set, as the bridge plug-in does.
    pub broadcast: bool,
    /// Whether the routes are there that the kernel makes with an address: to itself, and with less
    /// than a full prefix to its network. Always true in a plan; what is read back may have lost
    /// them, and a secondary address, which goes with the first one of its network, has no route of
    /// its own to that.
    pub connected: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Route {
    /// 0.0.0.0/0 is the default route.
    pub dst: IpNet,
    pub via: Option<IpAddr>,
    pub dev: IfName,
    /// Take `via` for a neighbour although no address of ours says so.
    pub onlink: bool,
    /// Further next hops; each connection takes one of all, by the hash of its addresses and ports, or
    /// of its addresses alone (`fib_multipath_hash_policy`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<NextHop>,
}

/// One of several next hops of a route.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct NextHop {
    pub via: IpAddr,
    pub dev: IfName,
}

impl Route {
    /// Every device that it needs.
    pub fn devices(&self) -> impl Iterator<Item = &IfName> {
        std::iter::once(&self.dev).chain(self.also.iter().map(|hop| &hop.dev))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Neighbour {
    pub dev: IfName,
    pub ip: IpAddr,
    pub mac: Mac,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct FdbEntry {
    pub dev: IfName,
    pub mac: Mac,
    /// The host that the frame is sent to.
    pub dst: IpAddr,
}

/// A value under /proc/sys of the namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Sysctl {
    /// The path below /proc/sys, such as `net/ipv4/ip_forward`.
    pub key: String,
    pub value: String,
    /// Whether a kernel without it will do.
    pub optional: bool,
}

impl Sysctl {
    /// The key as `sysctl` prints it, which has a slash for a dot in a device's name.
    pub fn dotted(&self) -> String {
        let turned = |c: char| match c {
            '/' => '.',
            '.' => '/',
            c => c,
        };
        self.key.chars().map(turned).collect()
    }

    /// The device that it is a setting of, where it is one's.
    pub fn device(&self) -> Option<&str> {
        let (dev, _) = self.key.strip_prefix("net/ipv4/conf/")?.split_once('/')?;
        (!matches!(dev, "all" | "default")).then_some(dev)
    }
}

/// A file that processes of the namespace see.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct File {
    pub path: String,
    pub content: String,
}

/// The user-space daemon of flannel's udp back end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Flanneld {
    pub tun: IfName,
    /// The host's own address and UDP port.
    pub listen: IpAddr,
    pub port: u16,
    /// The address of flannel0, from which its ICMP errors come.
    pub tun_address: IpAddr,
    pub mtu: u32,
    pub peers: Vec<PeerLease>,
}

/// Where packets for a subnet must be sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, serde::Deserialize)]
pub struct PeerLease {
    pub subnet: IpNet,
    pub public_ip: IpAddr,
}

/// A port on which the built-in echo server answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Listener {
    pub protocol: Protocol,
    pub port: u16,
    /// The host that it is on, for its answers.
    pub host: Option<HostName>,
    /// The namespace's address, for its answers.
    pub ip: IpAddr,
}

/// A process that answers DNS, as CoreDNS does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DnsServer {
    /// The pod's own address.
    pub ip: IpAddr,
    pub domain: String,
    pub pods: crate::spec::types::PodRecords,
    pub records: std::collections::BTreeMap<String, crate::lab::dns::Record>,
}

/// A container's program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Program {
    /// The container's name.
    pub name: String,
    pub command: Vec<String>,
    pub env: Vec<EnvVar>,
    pub restart_policy: RestartPolicy,
    /// What the program is, where it is one of labctl's own; then it has no command here.
    pub role: Option<Role>,
}

/// What a program of labctl's own is for. What it needs to know changes more often than a plan and
/// is told while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// The ingress controller.
    Ingress(Driver),
}
