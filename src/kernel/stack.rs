//! A namespace's network stack as a person looks at it: every interface with all its addresses,
//! the loopback device too, the main routing table with what the kernel added to it, neighbours
//! and forwarding entries in any state.
//!
//! `kernel::read` reads the same tables in the words of the plan and leaves out what a plan does
//! not say; here nothing is left out and nothing is compared. iptables' rules are
//! `kernel::iptables`'s.

use std::collections::HashMap;
use std::net::IpAddr;

use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoBridge, InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use serde::{Deserialize, Serialize};

use crate::plan::Mac;

use super::ns::NetNs;
use super::rtnl::{Fault, Rtnl};

/// What a namespace holds, but for its rules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stack {
    pub interfaces: Vec<Interface>,
    pub routes: Vec<StackRoute>,
    pub neighbours: Vec<StackNeighbour>,
    pub fdb: Vec<FdbRow>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Interface {
    pub index: u32,
    pub name: String,
    /// `up`, `down`, or `no carrier` where it is up and its other end is not.
    pub state: String,
    pub mac: Option<String>,
    /// Bytes.
    pub mtu: u32,
    /// `loopback`, or the kernel's word for the kind: `veth`, `bridge`, `vxlan`, `tun`.
    pub kind: String,
    /// What its kind adds, such as a VXLAN device's number and port.
    pub detail: Option<String>,
    /// The bridge that it is a port of.
    pub master: Option<String>,
    /// A veth's other end, as that end's namespace counts.
    pub far_index: Option<u32>,
    /// After how many milliseconds a bridge forgets what it learnt.
    pub ageing: Option<u64>,
    pub addresses: Vec<InterfaceAddress>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceAddress {
    /// Address and prefix length.
    pub address: String,
    /// `global`, `link`, `host` or `site`.
    pub scope: String,
}

/// A route of the main table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackRoute {
    /// `default`, or a range.
    pub dst: String,
    pub via: Option<IpAddr>,
    pub dev: Option<String>,
    /// Who made it: `kernel` for a connected route.
    pub protocol: String,
    pub scope: String,
    /// The source address that it prefers.
    pub src: Option<IpAddr>,
    pub onlink: bool,
    /// `blackhole`, `unreachable` and the like; nothing for an ordinary route.
    pub refuses: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackNeighbour {
    pub dev: String,
    pub ip: IpAddr,
    pub mac: Option<String>,
    /// `permanent`, `reachable`, `stale`, `failed` and so on.
    pub state: String,
}

/// How a forwarding entry came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The bridge's own address, or that of one of its ports: for the machine itself.
    Local,
    /// Written by hand or by a program; it does not age.
    Permanent,
    /// Seen as the source of a frame; it ages.
    Learnt,
}

/// A forwarding entry: of a bridge where `bridge` is there, otherwise of the device itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbRow {
    pub mac: String,
    /// The port that it is behind, or the VXLAN device.
    pub dev: String,
    /// Index of the bridge.
    pub bridge: Option<u32>,
    /// The address that a VXLAN device sends to.
    pub dst: Option<IpAddr>,
    pub origin: Origin,
    /// Milliseconds since it was last confirmed by a frame.
    pub age: u64,
}

/// Devices by index.
pub type DeviceNames = HashMap<u32, String>;

/// Read what `netns` holds.
pub fn read(netns: &NetNs) -> Result<Stack, Fault> {
    let mut rtnl = netns.run(Rtnl::open)??;
    let (mut interfaces, names) = interfaces(&mut rtnl)?;
    addresses(&mut rtnl, &mut interfaces)?;
    let routes = routes(&mut rtnl, &names)?;
    let neighbours = neighbours(&mut rtnl, &names)?;
    let fdb = fdb(&mut rtnl, &names)?;
    Ok(Stack { interfaces, routes, neighbours, fdb })
}

fn interfaces(rtnl: &mut Rtnl) -> Result<(Vec<Interface>, DeviceNames), Fault> {
    let answers = rtnl.dump(Message::GetLink(LinkMessage::default()))?;
    let links: Vec<LinkMessage> =
        answers.into_iter().filter_map(|m| if let Message::NewLink(l) = m { Some(l) } else { None }).collect();
    let names: DeviceNames = links.iter().filter_map(|l| Some((l.header.index, name(l)?))).collect();
    let mut all: Vec<Interface> = links.iter().filter_map(|l| interface(l, &names)).collect();
    all.sort_by_key(|i| i.index);
    Ok((all, names))
}

/// A device's name in a netlink message.
pub fn name(message: &LinkMessage) -> Option<String> {
    message.attributes.iter().find_map(|a| if let LinkAttribute::IfName(name) = a { Some(name.clone()) } else { None })
}

fn interface(message: &LinkMessage, names: &DeviceNames) -> Option<Interface> {
    let mut interface = Interface {
        index: message.header.index,
        name: name(message)?,
        state: state(message.header.flags).to_owned(),
        mac: None,
        mtu: 0,
        kind: "device".to_owned(),
        detail: None,
        master: None,
        far_index: None,
        ageing: None,
        addresses: Vec::new(),
    };
    let mut far = None;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
            LinkAttribute::Address(bytes) => interface.mac = mac(bytes),
            LinkAttribute::Controller(index) => interface.master = names.get(index).cloned(),
            LinkAttribute::Link(index) => far = Some(*index),
            LinkAttribute::LinkInfo(infos) => describe(&mut interface, infos, names),
            _ => {}
        }
    }
    if message.header.flags.contains(LinkFlags::Loopback) {
        interface.kind = "loopback".to_owned();
    }
    interface.far_index = far.filter(|_| interface.kind == "veth");
    Some(interface)
}

fn state(flags: LinkFlags) -> &'static str {
    match (flags.contains(LinkFlags::Up), flags.contains(LinkFlags::Running)) {
        (false, _) => "down",
        (true, false) => "no carrier",
        (true, true) => "up",
    }
}

fn mac(bytes: &[u8]) -> Option<String> {
    Some(Mac(bytes.try_into().ok()?).to_string())
}

fn describe(interface: &mut Interface, infos: &[LinkInfo], names: &DeviceNames) {
    for info in infos {
        match info {
            LinkInfo::Kind(InfoKind::Tun) => interface.kind = "tun".to_owned(),
            LinkInfo::Kind(kind) => interface.kind = kind.to_string(),
            LinkInfo::Data(InfoData::Bridge(data)) => {
                interface.ageing = data.iter().find_map(|d| match d {
                    InfoBridge::AgeingTime(ticks) => Some(milliseconds(*ticks)),
                    _ => None,
                });
            }
            LinkInfo::Data(InfoData::Vxlan(data)) => interface.detail = Some(vxlan(data, names)),
            _ => {}
        }
    }
}

/// The kernel counts such times in USER_HZ, which is 100 in a second everywhere (time(7)).
fn milliseconds(ticks: u32) -> u64 {
    u64::from(ticks) * 10
}

fn vxlan(data: &[InfoVxlan], names: &DeviceNames) -> String {
    let mut words = Vec::new();
    for value in data {
        match value {
            InfoVxlan::Id(vni) => words.push(format!("VNI {vni}")),
            InfoVxlan::Port(port) => words.push(format!("UDP port {port}")),
            InfoVxlan::Local(ip) => words.push(format!("from {ip}")),
            InfoVxlan::Local6(ip) => words.push(format!("from {ip}")),
            InfoVxlan::Link(index) => words.push(format!("over {}", names.get(index).map_or("?", String::as_str))),
            InfoVxlan::Learning(learns) => words.push(if *learns { "learns" } else { "learns nothing" }.to_owned()),
            _ => {}
        }
    }
    words.join(", ")
}

fn addresses(rtnl: &mut Rtnl, interfaces: &mut [Interface]) -> Result<(), Fault> {
    for answer in rtnl.dump(Message::GetAddress(AddressMessage::default()))? {
        let Message::NewAddress(message) = answer else { continue };
        let Some(interface) = interfaces.iter_mut().find(|i| i.index == message.header.index) else { continue };
        let find = |local: bool| {
            message.attributes.iter().find_map(|a| match a {
                AddressAttribute::Local(ip) if local => Some(*ip),
                AddressAttribute::Address(ip) if !local => Some(*ip),
                _ => None,
            })
        };
        // IPv6 tells no local address unless it differs from the peer's.
        if let Some(ip) = find(true).or_else(|| find(false)) {
            let scope = RouteScope::from(u8::from(message.header.scope)).to_string();
            let address = format!("{ip}/{}", message.header.prefix_len);
            interface.addresses.push(InterfaceAddress { address, scope: global(scope) });
        }
    }
    Ok(())
}

/// The kernel's `universe` is what everyone calls `global`.
fn global(scope: String) -> String {
    if scope == "universe" { "global".to_owned() } else { scope }
}

fn routes(rtnl: &mut Rtnl, names: &DeviceNames) -> Result<Vec<StackRoute>, Fault> {
    let mut all = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut ask = RouteMessage::default();
        ask.header.address_family = family;
        for answer in rtnl.dump(Message::GetRoute(ask))? {
            if let Message::NewRoute(message) = answer
                && message.header.table == RouteHeader::RT_TABLE_MAIN
            {
                all.push(route(&message, names));
            }
        }
    }
    Ok(all)
}

fn route(message: &RouteMessage, names: &DeviceNames) -> StackRoute {
    let header = &message.header;
    let mut route = StackRoute {
        dst: "default".to_owned(),
        via: None,
        dev: None,
        protocol: header.protocol.to_string(),
        scope: global(header.scope.to_string()),
        src: None,
        onlink: header.flags.contains(RouteFlags::Onlink),
        refuses: (header.kind != RouteType::Unicast).then(|| format!("{:?}", header.kind).to_lowercase()),
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(ip) => {
                route.dst = address(ip).map_or(route.dst, |ip| format!("{ip}/{}", header.destination_prefix_length));
            }
            RouteAttribute::Gateway(ip) => route.via = address(ip),
            RouteAttribute::PrefSource(ip) => route.src = address(ip),
            RouteAttribute::Oif(index) => route.dev = names.get(index).cloned(),
            _ => {}
        }
    }
    route
}

fn address(ip: &RouteAddress) -> Option<IpAddr> {
    match ip {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

fn dump_neighbours(rtnl: &mut Rtnl, family: AddressFamily) -> Result<Vec<NeighbourMessage>, Fault> {
    let mut ask = NeighbourMessage::default();
    ask.header.family = family;
    let answers = rtnl.dump(Message::GetNeighbour(ask))?;
    Ok(answers.into_iter().filter_map(|m| if let Message::NewNeighbour(n) = m { Some(n) } else { None }).collect())
}

fn neighbours(rtnl: &mut Rtnl, names: &DeviceNames) -> Result<Vec<StackNeighbour>, Fault> {
    let mut all = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        all.extend(dump_neighbours(rtnl, family)?.iter().filter_map(|m| neighbour(m, names)));
    }
    Ok(all)
}

fn neighbour(message: &NeighbourMessage, names: &DeviceNames) -> Option<StackNeighbour> {
    let dev = names.get(&message.header.ifindex)?.clone();
    let state = format!("{:?}", message.header.state).to_lowercase();
    Some(StackNeighbour { dev, ip: destination(message)?, mac: link_layer(message), state })
}

fn link_layer(message: &NeighbourMessage) -> Option<String> {
    message.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::LinkLayerAddress(bytes) => mac(bytes),
        _ => None,
    })
}

fn destination(message: &NeighbourMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(IpAddr::from(*ip)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some(IpAddr::from(*ip)),
        // A forwarding entry's family says nothing of its address; the length does.
        NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => match bytes.len() {
            4 => <[u8; 4]>::try_from(bytes.as_slice()).ok().map(IpAddr::from),
            _ => <[u8; 16]>::try_from(bytes.as_slice()).ok().map(IpAddr::from),
        },
        _ => None,
    })
}

fn fdb(rtnl: &mut Rtnl, names: &DeviceNames) -> Result<Vec<FdbRow>, Fault> {
    Ok(dump_neighbours(rtnl, AddressFamily::Bridge)?.iter().filter_map(|m| fdb_row(m, names)).collect())
}

/// A forwarding entry from a netlink message. What a bridge that filters VLANs repeats for each
/// of them is passed over.
pub fn fdb_row(message: &NeighbourMessage, names: &DeviceNames) -> Option<FdbRow> {
    let (mut bridge, mut age) = (None, 0);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Controller(index) => bridge = Some(*index),
            NeighbourAttribute::CacheInfo(times) => age = milliseconds(times.updated),
            NeighbourAttribute::Vlan(_) if message.header.state == NeighbourState::Permanent => return None,
            _ => {}
        }
    }
    let origin = match message.header.state {
        NeighbourState::Permanent if bridge.is_some() => Origin::Local,
        NeighbourState::Permanent | NeighbourState::Noarp => Origin::Permanent,
        _ => Origin::Learnt,
    };
    let dev = names.get(&message.header.ifindex)?.clone();
    Some(FdbRow { mac: link_layer(message)?, dev, bridge, dst: destination(message), origin, age })
}
