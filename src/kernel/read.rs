//! Reading a namespace back in the words of the plan, so that what is there can be compared with
//! what should be.
//!
//! Left out is what the kernel adds by itself: the loopback device, IPv6 link-local addresses,
//! connected routes, learnt neighbours. What a plan has no words for is `kernel::deviations`', rules
//! are `kernel::observe`'s. Processes are not the kernel's table but the daemon's.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::RawFd;

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop, RouteProtocol, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};

use crate::lab::names::{IfName, NsName};
use crate::plan::deviation::Deviation;
use crate::plan::{Address, FdbEntry, Link, LinkKind, Mac, Neighbour, NextHop, NsPlan, Plan, Route};

use super::deviations;
use super::message::LOOPBACK;
use super::ns::NetNs;
use super::rtnl::{Fault, Rtnl};
use super::sysctl;
use super::tables::{self, Tables};

/// The devices of a namespace by index.
pub type Names = HashMap<u32, IfName>;

/// What was read of a namespace.
pub struct Read {
    /// Links, addresses, routes, entries, sysctls, and what deviates of them; no rules.
    pub plan: NsPlan,
    pub tables: Tables,
}

/// The descriptor of a namespace of the lab.
pub type Place<'a> = dyn Fn(&NsName) -> Option<RawFd> + 'a;

/// What `netns` holds. `plan` is what the lab should be; it tells where the far ends of veth pairs
/// are to be, which the kernel only tells by numbers, and `place` finds the namespaces.
pub fn namespace(ns: &NsName, netns: &NetNs, plan: &Plan, place: &Place) -> Result<Read, Fault> {
    let mut observed = NsPlan::new(ns.clone());
    let wanted = plan.get(ns);
    let keys: Vec<_> = wanted.iter().flat_map(|w| &w.sysctls).cloned().collect();
    let (rtnl, (sysctls, settings), tables) = netns.run(|| {
        let values = keys.into_iter().map(read_sysctl).collect::<Vec<_>>();
        (Rtnl::open(), (values, deviations::settings::of_namespace()), tables::read())
    })?;
    let (mut rtnl, tables) = (rtnl?, tables?);
    observed.sysctls = sysctls.into_iter().flatten().collect();
    let messages = links(&mut rtnl)?;
    let names: Names = messages.iter().filter_map(|m| Some((m.header.index, link_name(m)?))).collect();
    for message in messages.iter().filter(|m| m.header.index != LOOPBACK) {
        let mut far = Far { rtnl: &mut rtnl, wanted, plan, place };
        observed.links.extend(link(message, &names, &mut far));
    }
    observed.links.sort_by_key(|l| l.index);
    addresses_and_routes(&mut observed, &mut rtnl, &names)?;
    let up = messages.iter().any(|m| m.header.index == LOOPBACK && m.header.flags.contains(LinkFlags::Up));
    let own = deviations::loopback_address();
    let addressed = observed.addresses.contains(&own);
    observed.addresses.retain(|a| *a != own);
    observed.deviations.extend(deviations::loopback(up, addressed));
    observed.deviations.extend(deviations::policy(&mut rtnl)?);
    observed.deviations.extend(deviations::qdiscs(&mut rtnl, &names)?);
    observed.deviations.extend(deviations::bridges::ports(&messages, &names));
    if observed.links.iter().any(|link| link.kind == LinkKind::Bridge) {
        observed.deviations.extend(deviations::bridges::entries(&mut rtnl, &names, &observed.links)?);
    }
    observed.deviations.extend(settings);
    let of_devices = deviations::settings::of_devices(&messages, &names, &observed);
    observed.deviations.extend(of_devices);
    (observed.neighbours, observed.fdb) = entries(&mut rtnl, &names)?;
    if let Some(wanted) = wanted {
        in_planned_order(&mut observed, wanted);
    }
    Ok(Read { plan: observed, tables })
}

/// Addresses with the routes that the kernel made for them, and routes that somebody made.
fn addresses_and_routes(observed: &mut NsPlan, rtnl: &mut Rtnl, names: &Names) -> Result<(), Fault> {
    let routes = routes(rtnl, names)?;
    observed.routes = routes.made;
    observed.deviations = routes.unusual;
    for (mut address, secondary) in addresses(rtnl, names)? {
        let full = address.net.prefix_len() == address.net.max_prefix_len();
        let has_route = |r: &Route| r.dst == address.net.trunc() && r.dev == address.dev;
        let network = full || (!secondary && routes.connected.iter().any(has_route));
        let itself = (address.dev.clone(), address.net.addr());
        address.connected = address.dev.as_str() == "lo" || (network && routes.local.contains(&itself));
        observed.addresses.push(address);
    }
    Ok(())
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

/// What it takes to tell where the other end of a cable is.
struct Far<'a> {
    rtnl: &'a mut Rtnl,
    wanted: Option<&'a NsPlan>,
    plan: &'a Plan,
    place: &'a Place<'a>,
}

impl Far<'_> {
    /// The planned other end of the planned device `name`, where it is the one that the kernel tells
    /// of: by its index, and by the number that this namespace has for the one that it is in.
    fn end(&mut self, name: &IfName, index: u32, number: Option<i32>) -> Option<LinkKind> {
        let kind = &self.wanted?.link(name)?.kind;
        let LinkKind::Veth { peer_ns, peer } = kind else { return None };
        let planned = self.plan.get(peer_ns)?.link(peer)?;
        (planned.index == index && self.number_of(peer_ns) == number).then(|| kind.clone())
    }

    fn number_of(&mut self, ns: &NsName) -> Option<i32> {
        let fd = u32::try_from((self.place)(ns)?).ok()?;
        let mut ask = NsidMessage::default();
        ask.attributes.push(NsidAttribute::Fd(fd));
        let Ok(Message::NewNsId(answer)) = self.rtnl.ask(Message::GetNsId(ask)) else { return None };
        answer.attributes.iter().find_map(|a| if let NsidAttribute::Id(id) = a { Some(*id) } else { None })
    }
}

fn link(message: &LinkMessage, names: &Names, far: &mut Far) -> Option<Link> {
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
    let (mut far_index, mut far_ns) = (0, None);
    let mut info: &[LinkInfo] = &[];
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(bytes) => link.mac = bytes.as_slice().try_into().ok().map(Mac),
            LinkAttribute::Controller(index) => link.master = names.get(index).cloned(),
            LinkAttribute::Link(index) => far_index = *index,
            LinkAttribute::LinkNetNsId(number) => far_ns = Some(*number),
            LinkAttribute::LinkInfo(infos) => info = infos,
            _ => {}
        }
    }
    link.hairpin = info.iter().any(|i| match i {
        LinkInfo::PortData(InfoPortData::BridgePort(port)) => port.contains(&InfoBridgePort::HairpinMode(true)),
        _ => false,
    });
    link.kind = kind(info, names);
    if info.contains(&LinkInfo::Kind(InfoKind::Veth)) {
        let other = || LinkKind::Other { what: format!("veth to index {far_index}") };
        link.kind = far.end(&link.name, far_index, far_ns).unwrap_or_else(other);
    }
    if link.kind == LinkKind::Tun {
        // It belongs to whoever holds it, so it is not ours to make anew for its index alone.
        link.index = far.wanted.and_then(|w| w.link(&link.name)).map_or(link.index, |w| w.index);
    }
    Some(link)
}

fn kind(info: &[LinkInfo], names: &Names) -> LinkKind {
    let Some(kind) = info.iter().find_map(|i| if let LinkInfo::Kind(k) = i { Some(k) } else { None }) else {
        return LinkKind::Other { what: "device".to_owned() };
    };
    let data = info.iter().find_map(|i| if let LinkInfo::Data(d) = i { Some(d) } else { None });
    match (kind, data) {
        (InfoKind::Bridge, _) => LinkKind::Bridge,
        (InfoKind::Tun, _) => LinkKind::Tun,
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

/// Addresses, and whether each is a secondary one.
fn addresses(rtnl: &mut Rtnl, names: &Names) -> Result<Vec<(Address, bool)>, Fault> {
    let mut ask = AddressMessage::default();
    ask.header.family = AddressFamily::Inet;
    let mut all = Vec::new();
    for answer in rtnl.dump(Message::GetAddress(ask))? {
        let Message::NewAddress(message) = answer else { continue };
        let Some(dev) = names.get(&message.header.index) else { continue };
        let local = message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Local(ip) => Some(*ip),
            _ => None,
        });
        let broadcast = message.attributes.iter().any(|a| matches!(a, AddressAttribute::Broadcast(_)));
        let net = local.and_then(|ip| IpNet::new(ip, message.header.prefix_len).ok());
        let secondary = message.header.flags.contains(AddressHeaderFlags::Secondary);
        all.extend(net.map(|net| (Address { dev: dev.clone(), net, broadcast, connected: true }, secondary)));
    }
    Ok(all)
}

#[derive(Default)]
struct Routes {
    /// The main table's, made by somebody.
    made: Vec<Route>,
    /// The main table's, made by the kernel for the networks of addresses.
    connected: Vec<Route>,
    /// By which the kernel knows addresses for its own, in the table `local`.
    local: HashSet<(IfName, IpAddr)>,
    /// Made by somebody, and more than a plan can say.
    unusual: Vec<Deviation>,
}

/// The routes of all tables.
fn routes(rtnl: &mut Rtnl, names: &Names) -> Result<Routes, Fault> {
    let mut ask = RouteMessage::default();
    ask.header.address_family = AddressFamily::Inet;
    let mut routes = Routes::default();
    for answer in rtnl.dump(Message::GetRoute(ask))? {
        let Message::NewRoute(message) = answer else { continue };
        let kernels = message.header.protocol == RouteProtocol::Kernel;
        let plain = kernels || deviations::is_plain(&message);
        match route(&message, names).filter(|_| plain) {
            Some(route) if kernels => routes.connected.push(route),
            Some(route) => routes.made.push(route),
            None if kernels => routes.local.extend(local(&message, names)),
            None => routes.unusual.push(deviations::route(&message, names)),
        }
    }
    Ok(routes)
}

/// The device and address of a route by which the kernel takes packets for its own.
fn local(message: &RouteMessage, names: &Names) -> Option<(IfName, IpAddr)> {
    let said = words(message, names)?;
    (message.header.kind == RouteType::Local).then_some((said.dev, said.dst.addr()))
}

fn route(message: &RouteMessage, names: &Names) -> Option<Route> {
    let header = &message.header;
    let ours = header.table == RouteHeader::RT_TABLE_MAIN && header.kind == RouteType::Unicast;
    words(message, names).filter(|_| ours)
}

/// What a route says in a plan's words, whatever its table and kind.
fn words(message: &RouteMessage, names: &Names) -> Option<Route> {
    let header = &message.header;
    let (mut dst, mut via, mut dev) = (IpAddr::from([0, 0, 0, 0]), None, None);
    let mut also = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::MultiPath(all) => {
                also = all.iter().map(|hop| next_hop(hop, names)).collect::<Option<_>>()?;
                let first: NextHop = if also.is_empty() { return None } else { also.remove(0) };
                (via, dev) = (Some(first.via), Some(first.dev));
            }
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => dst = (*ip).into(),
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => via = Some((*ip).into()),
            RouteAttribute::Oif(index) => dev = names.get(index).cloned(),
            _ => {}
        }
    }
    let dst = IpNet::new(dst, header.destination_prefix_length).ok()?;
    Some(Route { dst, via, dev: dev?, onlink: header.flags.contains(RouteFlags::Onlink), also })
}

fn next_hop(hop: &RouteNextHop, names: &Names) -> Option<NextHop> {
    let gateway = hop.attributes.iter().find_map(|a| match a {
        RouteAttribute::Gateway(RouteAddress::Inet(ip)) => Some((*ip).into()),
        _ => None,
    });
    Some(NextHop { via: gateway?, dev: names.get(&hop.interface_index)?.clone() })
}

/// Permanent neighbours, and forwarding entries with a destination (those of VXLAN devices).
fn entries(rtnl: &mut Rtnl, names: &Names) -> Result<(Vec<Neighbour>, Vec<FdbEntry>), Fault> {
    let is_permanent = |state| state == NeighbourState::Permanent;
    let neighbours = table(rtnl, names, AddressFamily::Inet, is_permanent)?;
    // `bridge fdb` adds NUD_NOARP to what it makes permanent.
    let stays = |state| u16::from(state) & u16::from(NeighbourState::Permanent) != 0;
    let fdb = table(rtnl, names, AddressFamily::Bridge, stays)?;
    let neighbours = neighbours.into_iter().map(|(dev, ip, mac)| Neighbour { dev, ip, mac }).collect();
    Ok((neighbours, fdb.into_iter().map(|(dev, dst, mac)| FdbEntry { dev, mac, dst }).collect()))
}

/// Neighbours that the namespace has learnt.
pub(super) fn learnt(rtnl: &mut Rtnl) -> Result<Vec<Neighbour>, Fault> {
    let messages = links(rtnl)?;
    let names: Names = messages.iter().filter_map(|m| Some((m.header.index, link_name(m)?))).collect();
    let lost = [NeighbourState::Permanent, NeighbourState::Failed, NeighbourState::Incomplete, NeighbourState::Noarp];
    let known = table(rtnl, &names, AddressFamily::Inet, |state| !lost.contains(&state))?;
    Ok(known.into_iter().map(|(dev, ip, mac)| Neighbour { dev, ip, mac }).collect())
}

fn table(
    rtnl: &mut Rtnl,
    names: &Names,
    family: AddressFamily,
    wanted: impl Fn(NeighbourState) -> bool,
) -> Result<Vec<(IfName, IpAddr, Mac)>, Fault> {
    let mut ask = NeighbourMessage::default();
    ask.header.family = family;
    let answers = rtnl.dump(Message::GetNeighbour(ask))?.into_iter();
    let messages = answers.filter_map(|m| if let Message::NewNeighbour(n) = m { Some(n) } else { None });
    Ok(messages.filter(|m| wanted(m.header.state)).filter_map(|m| entry(&m, names)).collect())
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
