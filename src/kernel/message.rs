//! From a step of the plan to the netlink messages that make it so.

use std::net::IpAddr;
use std::os::fd::RawFd;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, InfoVxlan, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop, RouteProtocol, RouteScope,
    RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};

use crate::lab::names::IfName;
use crate::plan::{Address, FdbEntry, Link, LinkKind, Mac, Neighbour, Route};

use super::rtnl::Request;

/// The loopback device's index in every namespace.
pub const LOOPBACK: u32 = 1;

pub(super) const CREATE: u16 = NLM_F_CREATE | NLM_F_EXCL;
const REPLACE: u16 = NLM_F_CREATE | NLM_F_REPLACE;

fn family(ip: IpAddr) -> AddressFamily {
    match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

pub(super) fn request(message: Message, flags: u16) -> Request {
    Request { message, flags }
}

/// Bring a device up.
pub fn link_up(index: u32) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    request(Message::SetLink(message), 0)
}

/// What every new device is given: index, name, MTU and MAC address.
fn new_link(link: &Link) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = link.index;
    message.attributes.push(LinkAttribute::IfName(link.name.to_string()));
    message.attributes.push(LinkAttribute::Mtu(link.mtu));
    if let Some(mac) = link.mac {
        message.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
    }
    message
}

/// Where the other end of a new veth pair belongs.
pub struct Far<'a> {
    pub link: &'a Link,
    pub netns: RawFd,
}

/// Make a link that is up; the far end of a pair must be brought up afterwards. `index_of` finds devices of the same namespace by name, for masters and lower
/// devices. A pair needs its `far` end; a TUN device is made by `kernel::tun` instead.
pub fn add_link(link: &Link, far: Option<&Far>, index_of: &dyn Fn(&str) -> u32) -> Vec<Request> {
    let mut message = new_link(link);
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    let info = match &link.kind {
        LinkKind::Bridge => vec![LinkInfo::Kind(InfoKind::Bridge)],
        LinkKind::Veth { .. } => {
            let mut info = vec![LinkInfo::Kind(InfoKind::Veth)];
            if let Some(far) = far {
                let mut peer = new_link(far.link);
                peer.attributes.push(LinkAttribute::NetNsFd(far.netns));
                info.push(LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))));
            }
            info
        }
        LinkKind::Vxlan { vni, port, local, dev } => {
            // flanneld's Go library gives a queue length of 0 along.
            message.attributes.push(LinkAttribute::TxQueueLen(0));
            let local = match local {
                IpAddr::V4(ip) => InfoVxlan::Local(*ip),
                IpAddr::V6(ip) => InfoVxlan::Local6(*ip),
            };
            let data = vec![
                InfoVxlan::Id(*vni),
                InfoVxlan::Link(index_of(dev.as_str())),
                local,
                InfoVxlan::Port(*port),
                InfoVxlan::Learning(false),
            ];
            vec![LinkInfo::Kind(InfoKind::Vxlan), LinkInfo::Data(InfoData::Vxlan(data))]
        }
        LinkKind::Tun | LinkKind::Other { .. } => Vec::new(),
    };
    message.attributes.push(LinkAttribute::LinkInfo(info));
    if let Some(master) = &link.master {
        message.attributes.push(LinkAttribute::Controller(index_of(master.as_str())));
    }
    let bridge = link.kind == LinkKind::Bridge;
    message.attributes.retain(|a| !(bridge && matches!(a, LinkAttribute::Mtu(_))));
    let mut all = vec![request(Message::NewLink(message), CREATE)];
    if bridge {
        all.push(bridge_mtu(link));
    }
    if link.hairpin {
        all.push(hairpin(link.index, true));
    }
    all
}

/// Give a new bridge its MTU. One that it is born with follows its ports' and is lost with the last
/// of them; only one that is set later counts as the user's own (`br_change_mtu`).
fn bridge_mtu(link: &Link) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = link.index;
    message.attributes.push(LinkAttribute::Mtu(link.mtu));
    request(Message::SetLink(message), 0)
}

/// Let a bridge send frames back out of the port that they came in by, or not.
fn hairpin(index: u32, on: bool) -> Request {
    bridge_port(index, InfoBridgePort::HairpinMode(on))
}

/// Give a port of a bridge a value.
pub fn bridge_port(index: u32, value: InfoBridgePort) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    let port = InfoPortData::BridgePort(vec![value]);
    message
        .attributes
        .push(LinkAttribute::LinkInfo(vec![LinkInfo::PortKind(InfoPortKind::Bridge), LinkInfo::PortData(port)]));
    request(Message::NewLink(message), 0)
}

/// Give a link that is there another MTU, MAC address, master or hairpin mode, and bring it up, or down
/// where it is to be so.
pub fn change_link(from: &Link, to: &Link, index_of: &dyn Fn(&str) -> u32) -> Vec<Request> {
    let mut message = LinkMessage::default();
    message.header.index = to.index;
    message.header.flags = if to.up { LinkFlags::Up } else { LinkFlags::empty() };
    message.header.change_mask = LinkFlags::Up;
    if from.mtu != to.mtu {
        message.attributes.push(LinkAttribute::Mtu(to.mtu));
    }
    if let (true, Some(mac)) = (from.mac != to.mac, to.mac) {
        message.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
    }
    if from.master != to.master {
        let index = to.master.as_ref().map_or(0, |m| index_of(m.as_str()));
        message.attributes.push(LinkAttribute::Controller(index));
    }
    let mut all = vec![request(Message::SetLink(message), 0)];
    if to.master.is_some() && (from.hairpin != to.hairpin || from.master != to.master) {
        all.push(hairpin(to.index, to.hairpin));
    }
    all
}

pub fn remove_link(index: u32) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    request(Message::DelLink(message), 0)
}

fn address(address: &Address, index: u32) -> AddressMessage {
    let ip = address.net.addr();
    let mut message = AddressMessage::default();
    message.header.family = family(ip);
    message.header.prefix_len = address.net.prefix_len();
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    message.attributes.push(AddressAttribute::Address(ip));
    message.attributes.push(AddressAttribute::Local(ip));
    if let (true, IpNet::V4(net)) = (address.broadcast, address.net) {
        message.attributes.push(AddressAttribute::Broadcast(net.broadcast()));
    }
    message
}

pub fn add_address(what: &Address, index: u32) -> Request {
    request(Message::NewAddress(address(what, index)), REPLACE)
}

pub fn remove_address(what: &Address, index: u32) -> Request {
    request(Message::DelAddress(address(what, index)), 0)
}

fn route(route: &Route, index_of: &dyn Fn(&str) -> u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(route.dst.addr());
    message.header.destination_prefix_length = route.dst.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    if route.onlink {
        message.header.flags |= RouteFlags::Onlink;
    }
    if route.dst.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(RouteAddress::from(route.dst.addr())));
    }
    let gateway = |via: IpAddr| RouteAttribute::Gateway(RouteAddress::from(via));
    if route.also.is_empty() {
        message.attributes.extend(route.via.map(gateway));
        message.attributes.push(RouteAttribute::Oif(index_of(route.dev.as_str())));
        return message;
    }
    let hop = |via: Option<IpAddr>, dev: &IfName| {
        let mut hop = RouteNextHop::default();
        hop.interface_index = index_of(dev.as_str());
        hop.attributes.extend(via.map(gateway));
        hop
    };
    let mut hops = vec![hop(route.via, &route.dev)];
    hops.extend(route.also.iter().map(|h| hop(Some(h.via), &h.dev)));
    message.attributes.push(RouteAttribute::MultiPath(hops));
    message
}

/// `index_of` finds devices of the namespace by name.
pub fn add_route(what: &Route, index_of: &dyn Fn(&str) -> u32) -> Request {
    request(Message::NewRoute(route(what, index_of)), REPLACE)
}

/// Whoever made it: scope and protocol are left open, which are others than ours where somebody
/// else did (`fib_table_delete`).
pub fn remove_route(what: &Route, index_of: &dyn Fn(&str) -> u32) -> Request {
    let mut message = route(what, index_of);
    message.header.protocol = RouteProtocol::Unspec;
    message.header.scope = RouteScope::NoWhere;
    request(Message::DelRoute(message), 0)
}

fn neighbour(what: &Neighbour, index: u32) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(what.ip);
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.kind = RouteType::Unicast;
    message.attributes.push(NeighbourAttribute::Destination(near(what.ip)));
    message.attributes.push(link_layer(what.mac));
    message
}

pub fn add_neighbour(what: &Neighbour, index: u32) -> Request {
    request(Message::NewNeighbour(neighbour(what, index)), REPLACE)
}

pub fn remove_neighbour(what: &Neighbour, index: u32) -> Request {
    request(Message::DelNeighbour(neighbour(what, index)), 0)
}

fn fdb(what: &FdbEntry, index: u32) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Own;
    message.attributes.push(link_layer(what.mac));
    message.attributes.push(NeighbourAttribute::Destination(near(what.dst)));
    message
}

pub fn add_fdb(what: &FdbEntry, index: u32) -> Request {
    request(Message::NewNeighbour(fdb(what, index)), NLM_F_CREATE | NLM_F_APPEND)
}

pub fn remove_fdb(what: &FdbEntry, index: u32) -> Request {
    request(Message::DelNeighbour(fdb(what, index)), 0)
}

fn near(ip: IpAddr) -> NeighbourAddress {
    match ip {
        IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
        IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
    }
}

fn link_layer(mac: Mac) -> NeighbourAttribute {
    NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())
}
