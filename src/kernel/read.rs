//! Reading a namespace back in the words of the plan, so that what is there can be compared with
//! what should be.
//!
//! Left out is what the kernel adds by itself: the loopback device, IPv6 link-local addresses,
//! connected routes, learnt neighbours. Processes are not the kernel's table but the daemon's.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};

use crate::lab::names::{IfName, NsName};
use crate::plan::{Address, FdbEntry, Link, LinkKind, Mac, Neighbour, NsPlan, Plan, Route};

use super::message::LOOPBACK;
use super::ns::NetNs;
use super::rtnl::{Fault, Rtnl};
use super::sysctl;

/// The devices of a namespace by index.
type Names = HashMap<u32, IfName>;

/// What `netns` holds of links, addresses, routes and entries. `plan` is what the lab should be;
/// it tells where the far ends of veth pairs are to be, which the kernel only tells by index.
pub fn namespace(ns: &NsName, netns: &NetNs, plan: &Plan) -> Result<NsPlan, Fault> {
    let mut observed = NsPlan::new(ns.clone());
    let wanted = plan.get(ns);
    let keys: Vec<_> = wanted.iter().flat_map(|w| &w.sysctls).cloned().collect();
    let (rtnl, sysctls) = netns.run(|| {
        let values = keys.into_iter().map(read_sysctl).collect::<Vec<_>>();
        (Rtnl::open(), values)
    })?;
    let mut rtnl = rtnl?;
    observed.sysctls = sysctls.into_iter().flatten().collect();
    let messages = links(&mut rtnl)?;
    let names: Names = messages.iter().filter_map(|m| Some((m.header.index, link_name(m)?))).collect();
    for message in messages.iter().filter(|m| m.header.index != LOOPBACK) {
        observed.links.extend(link(message, &names, wanted, plan));
    }
    observed.links.sort_by_key(|l| l.index);
    let (routes, connected) = routes(&mut rtnl, &names)?;
    observed.routes = routes;
    observed.addresses = addresses(&mut rtnl, &names)?;
    for address in &mut observed.addresses {
        let full = address.net.prefix_len() == address.net.max_prefix_len();
        address.connected = full || connected.iter().any(|r| r.dst == address.net.trunc() && r.dev == address.dev);
    }
    (observed.neighbours, observed.fdb) = entries(&mut rtnl, &names)?;
    if let Some(wanted) = wanted {
        in_planned_order(&mut observed, wanted);
    }
    Ok(observed)
}

fn read_sysctl(mut wanted: crate::plan::Sysctl) -> Option<crate::plan::Sysctl> {
    match sysctl::read(&wanted.key) {
        Ok(value) => wanted.value = value,
        // What may be missing and is missing is as it should be.
        Err(e) if wanted.optional && e.kind() == io::ErrorKind::NotFound => {}
        Err(_) => return None,
    }
    Some(wanted)
}

/// The kernel lists things in an order of its own; where the same things are planned, theirs.
fn in_planned_order(observed: &mut NsPlan, wanted: &NsPlan) {
    fn sort<T: PartialEq>(there: &mut [T], planned: &[T]) {
        there.sort_by_key(|t| planned.iter().position(|p| p == t).unwrap_or(usize::MAX));
    }
    observed.links.sort_by_key(|l| wanted.links.iter().position(|w| w.name == l.name).unwrap_or(usize::MAX));
    sort(&mut observed.addresses, &wanted.addresses);
    sort(&mut observed.routes, &wanted.routes);
    sort(&mut observed.neighbours, &wanted.neighbours);
    sort(&mut observed.fdb, &wanted.fdb);
}

fn links(rtnl: &mut Rtnl) -> Result<Vec<LinkMessage>, Fault> {
    let answers = rtnl.dump(Message::GetLink(LinkMessage::default()))?;
    Ok(answers.into_iter().filter_map(|m| if let Message::NewLink(l) = m { Some(l) } else { None }).collect())
}

fn link_name(message: &LinkMessage) -> Option<IfName> {
    message.attributes.iter().find_map(|a| match a {
        LinkAttribute::IfName(name) => Some(IfName::new(name)),
        _ => None,
    })
}

fn link(message: &LinkMessage, names: &Names, wanted: Option<&NsPlan>, plan: &Plan) -> Option<Link> {
    let name = link_name(message)?;
    let mut link = Link {
        name,
        index: message.header.index,
        mac: None,
        mtu: 0,
        master: None,
        hairpin: false,
        up: message.header.flags.contains(LinkFlags::Up),
        kind: LinkKind::Other { what: "device".to_owned() },
    };
    let mut far = 0;
    let mut info: &[LinkInfo] = &[];
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(bytes) => link.mac = bytes.as_slice().try_into().ok().map(Mac),
            LinkAttribute::Controller(index) => link.master = names.get(index).cloned(),
            LinkAttribute::Link(index) => far = *index,
            LinkAttribute::LinkInfo(infos) => info = infos,
            _ => {}
        }
    }
    link.hairpin = info.iter().any(|i| match i {
        LinkInfo::PortData(InfoPortData::BridgePort(port)) => port.contains(&InfoBridgePort::HairpinMode(true)),
        _ => false,
    });
    link.kind = kind(info, names, far, wanted.and_then(|w| w.link(&link.name)), plan);
    if link.kind == LinkKind::Tun {
        // It belongs to whoever holds it, so it is not ours to make anew for its index alone.
        link.index = wanted.and_then(|w| w.link(&link.name)).map_or(link.index, |w| w.index);
    }
    Some(link)
}

fn kind(info: &[LinkInfo], names: &Names, far: u32, planned: Option<&Link>, plan: &Plan) -> LinkKind {
    let Some(kind) = info.iter().find_map(|i| if let LinkInfo::Kind(k) = i { Some(k) } else { None }) else {
        return LinkKind::Other { what: "device".to_owned() };
    };
    let data = info.iter().find_map(|i| if let LinkInfo::Data(d) = i { Some(d) } else { None });
    match (kind, data) {
        (InfoKind::Bridge, _) => LinkKind::Bridge,
        (InfoKind::Tun, _) => LinkKind::Tun,
        (InfoKind::Veth, _) => match planned.map(|p| &p.kind) {
            Some(LinkKind::Veth { peer_ns, peer })
                if plan.get(peer_ns).and_then(|n| n.link(peer)).is_some_and(|l| l.index == far) =>
            {
                LinkKind::Veth { peer_ns: peer_ns.clone(), peer: peer.clone() }
            }
            _ => LinkKind::Other { what: format!("veth to index {far}") },
        },
        (InfoKind::Vxlan, Some(InfoData::Vxlan(data))) => vxlan(data, names),
        (other, _) => LinkKind::Other { what: other.to_string() },
    }
}

fn vxlan(data: &[InfoVxlan], names: &Names) -> LinkKind {
    let (mut vni, mut port, mut dev) = (0, 0, IfName::new(""));
    let mut local = IpAddr::from([0, 0, 0, 0]);
    for value in data {
        match value {
            InfoVxlan::Id(id) => vni = *id,
            InfoVxlan::Port(p) => port = *p,
            InfoVxlan::Local(ip) => local = (*ip).into(),
            InfoVxlan::Local6(ip) => local = (*ip).into(),
            InfoVxlan::Link(index) => dev = names.get(index).cloned().unwrap_or(dev),
            InfoVxlan::Learning(true) => return LinkKind::Other { what: "vxlan that learns".to_owned() },
            _ => {}
        }
    }
    LinkKind::Vxlan { vni, port, local, dev }
}

fn addresses(rtnl: &mut Rtnl, names: &Names) -> Result<Vec<Address>, Fault> {
    let mut ask = AddressMessage::default();
    ask.header.family = AddressFamily::Inet;
    let mut all = Vec::new();
    for answer in rtnl.dump(Message::GetAddress(ask))? {
        let Message::NewAddress(message) = answer else { continue };
        let Some(dev) = names.get(&message.header.index).filter(|_| message.header.index != LOOPBACK) else { continue };
        let local = message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Local(ip) => Some(*ip),
            _ => None,
        });
        let broadcast = message.attributes.iter().any(|a| matches!(a, AddressAttribute::Broadcast(_)));
        let net = local.and_then(|ip| IpNet::new(ip, message.header.prefix_len).ok());
        all.extend(net.map(|net| Address { dev: dev.clone(), net, broadcast, connected: true }));
    }
    Ok(all)
}

/// The main table's routes: those that somebody made, and those that the kernel made for addresses.
fn routes(rtnl: &mut Rtnl, names: &Names) -> Result<(Vec<Route>, Vec<Route>), Fault> {
    let mut ask = RouteMessage::default();
    ask.header.address_family = AddressFamily::Inet;
    let (mut made, mut connected) = (Vec::new(), Vec::new());
    for answer in rtnl.dump(Message::GetRoute(ask))? {
        let Message::NewRoute(message) = answer else { continue };
        let Some(route) = route(&message, names) else { continue };
        match message.header.protocol {
            RouteProtocol::Kernel => connected.push(route),
            _ => made.push(route),
        }
    }
    Ok((made, connected))
}

fn route(message: &RouteMessage, names: &Names) -> Option<Route> {
    let header = &message.header;
    if header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast {
        return None;
    }
    let (mut dst, mut via, mut dev) = (IpAddr::from([0, 0, 0, 0]), None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => dst = (*ip).into(),
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => via = Some((*ip).into()),
            RouteAttribute::Oif(index) => dev = names.get(index).cloned(),
            _ => {}
        }
    }
    let dst = IpNet::new(dst, header.destination_prefix_length).ok()?;
    Some(Route { dst, via, dev: dev?, onlink: header.flags.contains(RouteFlags::Onlink) })
}

/// Permanent neighbours, and forwarding entries with a destination (those of VXLAN devices).
fn entries(rtnl: &mut Rtnl, names: &Names) -> Result<(Vec<Neighbour>, Vec<FdbEntry>), Fault> {
    let (mut neighbours, mut fdb) = (Vec::new(), Vec::new());
    for family in [AddressFamily::Inet, AddressFamily::Bridge] {
        let mut ask = NeighbourMessage::default();
        ask.header.family = family;
        for answer in rtnl.dump(Message::GetNeighbour(ask))? {
            let Message::NewNeighbour(message) = answer else { continue };
            if message.header.state != NeighbourState::Permanent {
                continue;
            }
            let Some((dev, ip, mac)) = entry(&message, names) else { continue };
            match family {
                AddressFamily::Bridge => fdb.push(FdbEntry { dev, mac, dst: ip }),
                _ => neighbours.push(Neighbour { dev, ip, mac }),
            }
        }
    }
    Ok((neighbours, fdb))
}

fn entry(message: &NeighbourMessage, names: &Names) -> Option<(IfName, IpAddr, Mac)> {
    let dev = names.get(&message.header.ifindex)?.clone();
    let (mut ip, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => ip = Some(IpAddr::from(*a)),
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
                ip = <[u8; 4]>::try_from(bytes.as_slice()).ok().map(IpAddr::from);
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok().map(Mac),
            _ => {}
        }
    }
    Some((dev, ip?, mac?))
}
