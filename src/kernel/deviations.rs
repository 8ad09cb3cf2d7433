//! What is read back of a namespace beyond the words of a plan (`plan::deviation`), and the
//! messages that mend it: routes of an unusual kind, routing policy, queueing disciplines, the
//! loopback device. Tables of nf_tables and xtables are `kernel::tables`' and `kernel::observe`'s.

use netlink_packet_core::{Emitable, NetlinkDeserializable, NetlinkHeader, Nla};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteNextHop, RouteNextHopFlags, RouteProtocol, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage, RulePortRange};
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};

use crate::lab::names::IfName;
use crate::plan::Address;
use crate::plan::deviation::{Deviation, Qdisc, Told, table_name};

use super::message::{self, CREATE, LOOPBACK, request};
use super::read::Names;
use super::rtnl::{Fault, Request, Rtnl};

/// The policy that the kernel begins with: priority and table (`fib_default_rules_init`).
const POLICY: [(u32, u8); 3] = [(0, 255), (32766, 254), (32767, 253)];
/// linux/rtnetlink.h, for the bodies that are sent back as removals.
const DEL_ROUTE: u16 = 25;
const DEL_RULE: u16 = 33;

/// The table that a route is in. The header has room for small numbers only.
pub fn route_table(message: &RouteMessage) -> u32 {
    let told = message.attributes.iter().find_map(|a| if let RouteAttribute::Table(t) = a { Some(*t) } else { None });
    told.unwrap_or_else(|| message.header.table.into())
}

/// Whether a plan has words for a route.
pub fn is_plain(message: &RouteMessage) -> bool {
    let header = &message.header;
    let said = |a: &RouteAttribute| {
        use RouteAttribute::{Destination, Gateway, MultiPath, Oif, Table};
        match a {
            MultiPath(hops) => hops.iter().all(is_plain_hop),
            other => matches!(other, Destination(_) | Gateway(RouteAddress::Inet(_)) | Oif(_) | Table(_)),
        }
    };
    header.kind == RouteType::Unicast
        && header.tos == 0
        && route_table(message) == u32::from(RouteHeader::RT_TABLE_MAIN)
        && message.attributes.iter().all(said)
        && message.attributes.iter().any(|a| matches!(a, RouteAttribute::Oif(_) | RouteAttribute::MultiPath(_)))
}

/// A next hop with an address, no more weight than the others, and a device that lives. Whether that has
/// a carrier just now is not the route's affair.
fn is_plain_hop(hop: &RouteNextHop) -> bool {
    let gateway = |a: &RouteAttribute| matches!(a, RouteAttribute::Gateway(RouteAddress::Inet(_)));
    hop.hops == 0
        && (hop.flags - RouteNextHopFlags::Linkdown).is_empty()
        && hop.attributes.len() == 1
        && hop.attributes.iter().all(gateway)
}

/// A route that no plan has words for.
pub fn route(message: &RouteMessage, names: &Names) -> Deviation {
    let mut known = message.clone();
    if message.attributes.iter().any(|a| matches!(a, RouteAttribute::NhId(_))) {
        // The kernel tells what the next hop's number stands for, and takes only one of the two.
        use RouteAttribute::{Gateway, MultiPath, Oif, Via};
        known.attributes.retain(|a| !matches!(a, Gateway(_) | MultiPath(_) | Oif(_) | Via(_)));
    }
    Deviation::Route(Told { what: route_words(message, names), message: body(&known) })
}

fn route_words(message: &RouteMessage, names: &Names) -> String {
    let header = &message.header;
    let mut dst = "default".to_owned();
    let mut words = Vec::new();
    let device = |index: &u32| names.get(index).map_or_else(|| index.to_string(), ToString::to_string);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(ip) => dst = format!("{}/{}", ip_words(ip), header.destination_prefix_length),
            RouteAttribute::Gateway(ip) => words.push(format!("via {}", ip_words(ip))),
            RouteAttribute::Oif(index) => words.push(format!("dev {}", device(index))),
            RouteAttribute::PrefSource(ip) => words.push(format!("src {}", ip_words(ip))),
            RouteAttribute::Priority(metric) => words.push(format!("metric {metric}")),
            RouteAttribute::MultiPath(hops) => {
                words.extend(hops.iter().map(|hop| format!("nexthop dev {}", device(&hop.interface_index))));
            }
            _ => {}
        }
    }
    if header.tos != 0 {
        words.push(format!("tos {:#x}", header.tos));
    }
    let table = route_table(message);
    if table != u32::from(RouteHeader::RT_TABLE_MAIN) {
        words.push(format!("table {}", table_name(table)));
    }
    if header.kind != RouteType::Unicast {
        dst = format!("{} {dst}", format!("{:?}", header.kind).to_lowercase());
    }
    words.insert(0, dst);
    words.join(" ")
}

fn ip_words(ip: &RouteAddress) -> String {
    match ip {
        RouteAddress::Inet(ip) => ip.to_string(),
        RouteAddress::Inet6(ip) => ip.to_string(),
        other => format!("{other:?}"),
    }
}

fn body(message: &impl Emitable) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}

/// How the routing policy differs from what the kernel begins with.
pub fn policy(rtnl: &mut Rtnl) -> Result<Vec<Deviation>, Fault> {
    let mut ask = RuleMessage::default();
    ask.header.family = AddressFamily::Inet;
    let mut missing = POLICY.to_vec();
    let mut found = Vec::new();
    for answer in rtnl.dump(Message::GetRule(ask))? {
        let Message::NewRule(rule) = answer else { continue };
        let own = plain_rule(&rule).and_then(|r| missing.iter().position(|m| *m == r));
        match own {
            Some(at) => {
                missing.remove(at);
            }
            None => found.push(Deviation::PolicyRule(Told { what: rule_words(&rule), message: body(&rule) })),
        }
    }
    found.extend(missing.into_iter().map(|(priority, table)| Deviation::MissingPolicyRule { priority, table }));
    Ok(found)
}

fn priority(rule: &RuleMessage) -> u32 {
    // The kernel does not tell a priority of 0.
    rule.attributes.iter().find_map(|a| if let RuleAttribute::Priority(p) = a { Some(*p) } else { None }).unwrap_or(0)
}

/// Priority and table of a rule that does nothing but send every packet to a table.
fn plain_rule(rule: &RuleMessage) -> Option<(u32, u8)> {
    let header = &rule.header;
    let every = header.dst_len == 0 && header.src_len == 0 && header.tos == 0;
    let says_nothing = |a: &RuleAttribute| {
        // A prefix length of -1 suppresses nothing.
        matches!(a, RuleAttribute::Table(_) | RuleAttribute::Priority(_) | RuleAttribute::Protocol(_))
            || *a == RuleAttribute::SuppressPrefixLen(u32::MAX)
    };
    let plain = every && header.flags.is_empty() && header.action == RuleAction::ToTable;
    (plain && rule.attributes.iter().all(says_nothing)).then(|| (priority(rule), header.table))
}

fn rule_words(rule: &RuleMessage) -> String {
    let header = &rule.header;
    let negated = if header.flags.contains(RuleFlags::Invert) { "not " } else { "" };
    let (mut from, mut to) = ("all".to_owned(), String::new());
    let (mut words, mut after) = (Vec::new(), Vec::new());
    let (mut mark, mut mask, mut l3mdev) = (None, None, false);
    let mut table = header.table.into();
    for attribute in &rule.attributes {
        match attribute {
            RuleAttribute::Source(ip) => from = format!("{ip}/{}", header.src_len),
            RuleAttribute::Destination(ip) => to = format!(" to {ip}/{}", header.dst_len),
            RuleAttribute::Iifname(dev) => words.push(format!("iif {dev}")),
            RuleAttribute::Oifname(dev) => words.push(format!("oif {dev}")),
            RuleAttribute::FwMark(m) => mark = Some(*m),
            RuleAttribute::FwMask(m) => mask = Some(*m),
            RuleAttribute::UidRange(uids) => words.push(format!("uidrange {}-{}", uids.start, uids.end)),
            RuleAttribute::TunId(id) => words.push(format!("tun_id {id}")),
            RuleAttribute::Realm(realm) => after.push(format!("realms {}/{}", realm.source, realm.destination)),
            // -1 suppresses nothing.
            RuleAttribute::SuppressPrefixLen(u32::MAX) | RuleAttribute::SuppressIfGroup(u32::MAX) => {}
            RuleAttribute::SuppressPrefixLen(length) => after.push(format!("suppress_prefixlength {length}")),
            RuleAttribute::SuppressIfGroup(group) => after.push(format!("suppress_ifgroup {group}")),
            RuleAttribute::L3MDev(true) => l3mdev = true,
            RuleAttribute::Table(t) => table = *t,
            RuleAttribute::Goto(target) => words.push(format!("goto {target}")),
            RuleAttribute::IpProtocol(protocol) => {
                words.push(format!("ipproto {}", protocol_words((*protocol).into())))
            }
            RuleAttribute::SourcePortRange(ports) => words.push(format!("sport {}", port_words(*ports))),
            RuleAttribute::DestinationPortRange(ports) => words.push(format!("dport {}", port_words(*ports))),
            RuleAttribute::Priority(_) | RuleAttribute::Protocol(_) | RuleAttribute::L3MDev(false) => {}
            // What a rule asks for besides must not be passed over: it would be taken for one that fits every packet.
            other => words.push(format!("(attribute {})", other.kind())),
        }
    }
    words.extend(mark_words(mark, mask));
    if header.tos != 0 {
        words.push(format!("tos {:#x}", header.tos));
    }
    match header.action {
        RuleAction::ToTable if l3mdev => words.push("lookup [l3mdev-table]".to_owned()),
        RuleAction::ToTable => words.push(format!("lookup {}", table_name(table))),
        RuleAction::Goto => {}
        other => words.push(action_words(other)),
    }
    words.append(&mut after);
    format!("{}: {negated}from {from}{to} {}", priority(rule), words.join(" "))
}

/// The mark that a packet must have, with the bits of it that are looked at where these are not all.
fn mark_words(mark: Option<u32>, mask: Option<u32>) -> Option<String> {
    // As C prints it.
    let hex = |number: u32| if number == 0 { "0".to_owned() } else { format!("{number:#x}") };
    match (mark, mask) {
        (None, None) => None,
        (Some(mark), None | Some(u32::MAX)) => Some(format!("fwmark {}", hex(mark))),
        (mark, Some(mask)) => Some(format!("fwmark {}/{}", hex(mark.unwrap_or(0)), hex(mask))),
    }
}

/// By name where every system has one, else by number, which `ip` takes as well.
fn protocol_words(protocol: i32) -> String {
    match protocol {
        libc::IPPROTO_TCP => "tcp".to_owned(),
        libc::IPPROTO_UDP => "udp".to_owned(),
        libc::IPPROTO_ICMP => "icmp".to_owned(),
        other => other.to_string(),
    }
}

fn action_words(action: RuleAction) -> String {
    match action {
        RuleAction::Blackhole => "blackhole".to_owned(),
        RuleAction::Unreachable => "unreachable".to_owned(),
        RuleAction::Prohibit => "prohibit".to_owned(),
        RuleAction::Nop => "nop".to_owned(),
        other => format!("(action {})", u8::from(other)),
    }
}

fn port_words(RulePortRange { start, end }: RulePortRange) -> String {
    if start == end { start.to_string() } else { format!("{start}-{end}") }
}

/// The queueing disciplines that somebody chose. What a device has by itself has no handle.
pub fn qdiscs(rtnl: &mut Rtnl, names: &Names) -> Result<Vec<Deviation>, Fault> {
    let mut found = Vec::new();
    for answer in rtnl.dump(Message::GetQueueDiscipline(TcMessage::default()))? {
        let Message::NewQueueDiscipline(message) = answer else { continue };
        let header = &message.header;
        let Ok(index) = u32::try_from(header.index) else { continue };
        // Those below another one go with it.
        let first = header.parent == TcHandle::ROOT || header.parent == TcHandle::INGRESS;
        let (true, Some(dev)) = (first && header.handle != TcHandle::UNSPEC, names.get(&index)) else { continue };
        let kind = message.attributes.iter().find_map(|a| if let TcAttribute::Kind(k) = a { Some(k) } else { None });
        found.push(Deviation::Qdisc(Qdisc {
            dev: dev.clone(),
            name: kind.cloned().unwrap_or_default(),
            index,
            handle: header.handle.into(),
            parent: header.parent.into(),
        }));
    }
    Ok(found)
}

/// The loopback device, which must be up and have its address.
pub fn loopback(up: bool, addressed: bool) -> Option<Deviation> {
    match (up, addressed) {
        (false, _) => Some(Deviation::LoopbackDown),
        (true, false) => Some(Deviation::LoopbackBare),
        (true, true) => None,
    }
}

/// 127.0.0.1 as every loopback device has it.
pub fn loopback_address() -> Address {
    let net = ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::LOCALHOST, 8);
    Address { dev: IfName::new("lo"), net: net.into(), broadcast: false, connected: true }
}

/// The messages that mend a deviation; none for what is not netlink's to mend.
pub fn mend(deviation: &Deviation) -> Vec<Request> {
    match deviation {
        // With the device the kernel brings its address up again (`inetdev_event`).
        Deviation::LoopbackDown => vec![message::link_up(LOOPBACK)],
        Deviation::LoopbackBare => vec![message::add_address(&loopback_address(), LOOPBACK)],
        Deviation::Route(told) => back(DEL_ROUTE, told),
        Deviation::PolicyRule(told) => back(DEL_RULE, told),
        Deviation::MissingPolicyRule { priority, table } => vec![add_rule(*priority, *table)],
        Deviation::Qdisc(qdisc) => vec![remove_qdisc(qdisc)],
        Deviation::NftTable(_) | Deviation::LegacyRules(_) => Vec::new(),
    }
}

/// What the kernel told of, to be removed.
fn back(kind: u16, told: &Told) -> Vec<Request> {
    let mut header = NetlinkHeader::default();
    header.message_type = kind;
    // It was read from a message of this library's and reads back.
    Message::deserialize(&header, &told.message).map(|m| request(m, 0)).into_iter().collect()
}

fn add_rule(priority: u32, table: u8) -> Request {
    let mut message = RuleMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.table = table;
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![RuleAttribute::Priority(priority), RuleAttribute::Protocol(RouteProtocol::Kernel)];
    request(Message::NewRule(message), CREATE)
}

fn remove_qdisc(qdisc: &Qdisc) -> Request {
    let mut message = TcMessage::with_index(qdisc.index.cast_signed());
    message.header.handle = qdisc.handle.into();
    message.header.parent = qdisc.parent.into();
    request(Message::DelQueueDiscipline(message), 0)
}

#[cfg(test)]
mod tests;
