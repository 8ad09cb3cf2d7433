//! What a picture of a lab has in it: networks, machines on them, pods in them, devices, and links
//! between devices. They are taken from a lab and its plan by `gather` and `links`; where each is drawn is
//! `layout`'s.
//!
//! Devices are named by their namespace's path and their own name, `host/node1#eth0`, machines by their
//! namespace's path. That is how a step of a trace finds its place in the picture.

use std::collections::{BTreeMap, BTreeSet};

use crate::lab::Lab;
use crate::lab::names::NsName;
use crate::plan::Plan;

use super::{gather, links};

/// How a lab is drawn.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Draw each pod, however many there are.
    pub all: bool,
    /// Pods that are drawn each for itself in any case.
    pub apart: BTreeSet<NsName>,
}

/// Everything that is drawn of a lab.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    pub lab: String,
    pub description: Option<String>,
    pub networks: Vec<Network>,
    pub links: Vec<Link>,
    /// What encapsulates packets between hosts.
    pub tunnel: Option<Tunnel>,
    /// What is drawn as a part of something else: its name, and the other's.
    pub folded: BTreeMap<String, String>,
}

/// A switch, and the machines that are plugged into it.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    pub name: String,
    /// Range and MTU.
    pub says: String,
    /// The router's bridge.
    pub bridge: Option<Device>,
    /// Hosts, then clients.
    pub machines: Vec<Machine>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MachineKind {
    Host,
    Client,
}

/// A host or a client.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    pub id: String,
    pub kind: MachineKind,
    pub name: String,
    pub address: String,
    /// A host's range of pods.
    pub pods_range: Option<String>,
    /// The router's end of its cable.
    pub port: Option<Device>,
    /// Its own devices, without the bridge and what is plugged into that.
    pub devices: Vec<Device>,
    /// `cni0`.
    pub bridge: Option<Device>,
    pub pods: Vec<PodBox>,
}

/// A pod, or several of one deployment.
#[derive(Debug, Clone, PartialEq)]
pub struct PodBox {
    pub id: String,
    pub name: String,
    pub address: String,
    /// How many it stands for.
    pub count: usize,
    /// What it is in the cluster, such as `DNS`.
    pub role: Option<&'static str>,
    /// The host's end of its cable.
    pub port: Option<Device>,
    pub devices: Vec<Device>,
}

impl PodBox {
    /// Its address, with what it is in the cluster.
    pub fn says(&self) -> String {
        self.role.map_or_else(|| self.address.clone(), |role| format!("{} {role}", self.address))
    }
}

/// A device, or a program that packets go through.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    pub id: String,
    pub name: String,
    pub kind: DeviceKind,
    pub addresses: Vec<String>,
    /// What else there is to say of it, such as its MTU and MAC, a line each.
    pub facts: Vec<String>,
}

impl Device {
    /// Its name, and below that its address where it is a bridge; a machine's or pod's stands beside that.
    pub fn label(&self) -> String {
        let address = self.addresses.iter().find(|_| self.kind == DeviceKind::Bridge);
        std::iter::once(&self.name).chain(address).map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    /// All that there is to say of it.
    pub fn says(&self) -> Vec<String> {
        let first = format!("{} ({})", self.name, self.kind.word());
        std::iter::once(first).chain(self.addresses.iter().chain(&self.facts).cloned()).collect()
    }
}

impl Machine {
    /// Its address, with a host's range of pods.
    pub fn says(&self) -> String {
        let range = self.pods_range.as_ref().map(|range| format!("  pods {range}")).unwrap_or_default();
        format!("{}{range}", self.address)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// A machine's own end of a cable.
    Ethernet,
    /// The end of a cable that is plugged into a bridge.
    Port,
    Bridge,
    Vxlan,
    Tun,
    Program,
    Other,
}

impl DeviceKind {
    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            DeviceKind::Ethernet => "veth",
            DeviceKind::Port => "port",
            DeviceKind::Bridge => "bridge",
            DeviceKind::Vxlan => "vxlan",
            DeviceKind::Tun => "tun",
            DeviceKind::Program => "program",
            DeviceKind::Other => "device",
        }
    }
}

/// A link between two devices, by their names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    pub from: String,
    pub to: String,
    pub kind: LinkKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkKind {
    /// A veth pair.
    Cable,
    /// From a bridge to one of its ports.
    Plug,
    /// From a device to the one that its outer packets leave by.
    Carrier,
    /// Between two hosts' ends of a tunnel.
    Tunnel,
}

impl LinkKind {
    pub fn word(self) -> &'static str {
        match self {
            LinkKind::Cable => "cable",
            LinkKind::Plug => "plug",
            LinkKind::Carrier => "carrier",
            LinkKind::Tunnel => "tunnel",
        }
    }
}

/// The tunnels between hosts.
#[derive(Debug, Clone, PartialEq)]
pub struct Tunnel {
    /// Such as `VXLAN 1, UDP port 8472`.
    pub says: String,
    /// The hosts' ends.
    pub ends: Vec<String>,
    /// Whether there are too many pairs to draw each; then no link is a [`LinkKind::Tunnel`].
    pub is_mesh: bool,
}

impl Graph {
    pub fn of(lab: &Lab, plan: &Plan, options: &Options) -> Graph {
        let (networks, folded) = gather::networks(lab, plan, options);
        let mut graph = Graph {
            lab: lab.name.to_string(),
            description: lab.description.clone(),
            networks,
            links: Vec::new(),
            tunnel: None,
            folded,
        };
        links::add(lab, plan, &mut graph);
        graph
    }

    /// Every device that is drawn.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        let machines = || self.networks.iter().flat_map(|n| &n.machines);
        let pods = machines().flat_map(|m| &m.pods);
        let of_network = self.networks.iter().filter_map(|n| n.bridge.as_ref());
        let of_machines = machines().flat_map(|m| m.port.iter().chain(&m.devices).chain(&m.bridge));
        of_network.chain(of_machines).chain(pods.flat_map(|p| p.port.iter().chain(&p.devices)))
    }
}

/// A device's name in the picture.
pub fn device_id(ns: &NsName, dev: &str) -> String {
    format!("{}#{dev}", ns.path())
}
