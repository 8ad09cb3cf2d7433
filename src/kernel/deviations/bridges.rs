//! What somebody did to the ports of a bridge and wrote into its forwarding table: ports that pass nothing on, and entries
//! that are not learnt.

use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::link::{
    BridgePortState, InfoBridgePort, InfoPortData, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};

use super::super::read::Names;
use super::super::rtnl::{Fault, Rtnl};
use super::body;
use crate::plan::deviation::{BridgeEntry, Deviation, Port, PortFault, Told};
use crate::plan::{Link, Mac};

/// The ports that do not forward, or not to all others.
pub fn ports(messages: &[LinkMessage], names: &Names) -> Vec<Deviation> {
    let is_up = |index: u32| messages.iter().any(|m| m.header.index == index && m.header.flags.contains(LinkFlags::Up));
    messages.iter().flat_map(|message| port(message, (names, &is_up))).collect()
}

fn port(message: &LinkMessage, (names, is_up): (&Names, &dyn Fn(u32) -> bool)) -> Vec<Deviation> {
    // Without a carrier a bridge takes a port out of service itself (`br_port_carrier_check`), and all of them where it is
    // down itself (`br_stp_disable_bridge`).
    let bridge =
        message.attributes.iter().find_map(|a| if let LinkAttribute::Controller(i) = a { Some(*i) } else { None });
    let flags = [LinkFlags::Up, LinkFlags::Running];
    let runs = bridge.is_some_and(is_up) && flags.iter().all(|flag| message.header.flags.contains(*flag));
    let infos = message.attributes.iter().find_map(|a| if let LinkAttribute::LinkInfo(i) = a { Some(i) } else { None });
    let values = infos.into_iter().flatten().find_map(|info| match info {
        LinkInfo::PortData(InfoPortData::BridgePort(values)) => Some(values),
        _ => None,
    });
    let Some(dev) = names.get(&message.header.index).filter(|_| runs) else { return Vec::new() };
    let fault = |value: &InfoBridgePort| match value {
        InfoBridgePort::State(BridgePortState::Forwarding) => None,
        InfoBridgePort::State(state) => Some(PortFault::State((*state).into())),
        InfoBridgePort::Isolated(true) => Some(PortFault::Isolated),
        _ => None,
    };
    let deviation = |fault| Deviation::Port(Port { dev: dev.clone(), index: message.header.index, fault });
    values.into_iter().flatten().filter_map(fault).map(deviation).collect()
}

/// The value of a port as every port of a lab has it.
pub fn usual(fault: PortFault) -> InfoBridgePort {
    match fault {
        PortFault::State(_) => InfoBridgePort::State(BridgePortState::Forwarding),
        PortFault::Isolated => InfoBridgePort::Isolated(false),
    }
}

/// Entries of bridges' tables that somebody wrote. What the kernel has there of its own are the addresses of the bridge and
/// of its ports.
pub fn entries(rtnl: &mut Rtnl, names: &Names, links: &[Link]) -> Result<Vec<Deviation>, Fault> {
    let mut ask = NeighbourMessage::default();
    ask.header.family = netlink_packet_route::AddressFamily::Bridge;
    let own: Vec<Mac> = links.iter().filter_map(|link| link.mac).collect();
    let answers = rtnl.dump(Message::GetNeighbour(ask))?.into_iter();
    let messages = answers.filter_map(|m| if let Message::NewNeighbour(n) = m { Some(n) } else { None });
    Ok(messages.filter_map(|message| entry(message, names, &own)).map(Deviation::BridgeEntry).collect())
}

fn entry(mut message: NeighbourMessage, names: &Names, own: &[Mac]) -> Option<BridgeEntry> {
    let has = |state: NeighbourState| u16::from(message.header.state) & u16::from(state) != 0;
    // `bridge fdb` adds NUD_NOARP to what it makes permanent.
    let local = has(NeighbourState::Permanent);
    if !local && !has(NeighbourState::Noarp) {
        return None;
    }
    let bridge = message.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::Controller(index) => names.get(index).cloned(),
        _ => None,
    })?;
    let mac = message.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok().map(Mac),
        _ => None,
    })?;
    let port = names.get(&message.header.ifindex)?.clone();
    if local && own.contains(&mac) {
        return None;
    }
    message.header.flags = NeighbourFlags::Controller;
    let what = format!("{mac} dev {port} master");
    Some(BridgeEntry { bridge, port, mac, local, told: Told { what, message: body(&message) } })
}
