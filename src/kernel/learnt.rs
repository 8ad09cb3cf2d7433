//! What a namespace has learnt and counts beside what it was told: neighbours, how large packets may be on the way to
//! an address, settings of single devices, whether its table of tracked connections is full. No plan has any of it, and
//! it decides about packets.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};

use crate::plan::{Neighbour, Sysctl};

use super::ns::NetNs;
use super::rtnl::{Fault, Rtnl};
use super::{read, sysctl};

/// Settings that a device has for itself beside those for all (Documentation/networking/ip-sysctl.rst).
const OF_DEVICES: [&str; 2] = ["rp_filter", "forwarding"];
const SETTINGS: &str = "/proc/sys/net/ipv4/conf";
const COUNT: &str = "net/netfilter/nf_conntrack_count";
const MOST: &str = "net/netfilter/nf_conntrack_max";

/// The kernel tells times in hundredths of a second (`USER_HZ`).
const TICKS: u32 = 100;

/// How large a packet may be on the way to an address, as an ICMP error told it (RFC 1191).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathMtu {
    pub to: IpAddr,
    /// Bytes.
    pub mtu: u32,
    /// Seconds until it is forgotten.
    pub expires: u32,
}

/// What one namespace has learnt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Learnt {
    /// Neighbours whose MAC address it found out.
    pub neighbours: Vec<Neighbour>,
    /// Of each address the smallest.
    pub path_mtus: Vec<PathMtu>,
    /// Settings of devices.
    pub settings: Vec<Sysctl>,
    /// Whether no further connection can be tracked.
    pub conntrack_full: bool,
}

/// Read what `netns` has learnt, also of the way to `asked` where that is not used yet. Blocks.
pub fn read(netns: &NetNs, asked: Option<Ipv4Addr>) -> io::Result<Learnt> {
    let (rtnl, settings, conntrack_full) = netns.run(|| (Rtnl::open(), settings(), is_full()))?;
    let mut rtnl = rtnl?;
    let neighbours = read::learnt(&mut rtnl).map_err(io::Error::other)?;
    if let Some(to) = asked {
        // Where there is no route nothing is remembered of it either.
        let _ = look_up(&mut rtnl, to);
    }
    let path_mtus = path_mtus(&mut rtnl).map_err(io::Error::other)?;
    Ok(Learnt { neighbours, path_mtus, settings, conntrack_full })
}

/// Look a route up. The kernel tells of an exception only when a look-up has met it (`fnhe_dump_bucket`).
fn look_up(rtnl: &mut Rtnl, to: Ipv4Addr) -> Result<(), Fault> {
    let mut ask = RouteMessage::default();
    ask.header.address_family = AddressFamily::Inet;
    ask.header.destination_prefix_length = 32;
    ask.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(to)));
    rtnl.ask(Message::GetRoute(ask)).map(drop)
}

/// The exceptions from routes that tell an MTU (`ip route show cache`).
fn path_mtus(rtnl: &mut Rtnl) -> Result<Vec<PathMtu>, Fault> {
    let mut ask = RouteMessage::default();
    ask.header.address_family = AddressFamily::Inet;
    ask.header.flags = RouteFlags::Cloned;
    let answers = rtnl.dump(Message::GetRoute(ask))?.into_iter();
    let mut all: Vec<PathMtu> =
        answers.filter_map(|m| if let Message::NewRoute(route) = m { path_mtu(&route) } else { None }).collect();
    // Routes over the same next hop share what was learnt there, and each tells it.
    all.sort_by_key(|learnt| (learnt.to, learnt.mtu));
    all.dedup_by_key(|learnt| learnt.to);
    Ok(all)
}

fn path_mtu(route: &RouteMessage) -> Option<PathMtu> {
    // A kernel that does not know the question tells all routes.
    let cloned = route.header.flags.contains(RouteFlags::Cloned);
    let (mut to, mut mtu, mut expires) = (None, None, 0);
    for attribute in route.attributes.iter().filter(|_| cloned) {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => to = Some(IpAddr::from(*ip)),
            RouteAttribute::Metrics(all) => {
                mtu = all.iter().find_map(|m| if let RouteMetric::Mtu(mtu) = m { Some(*mtu) } else { None });
            }
            RouteAttribute::CacheInfo(info) => expires = info.expires / TICKS,
            _ => {}
        }
    }
    Some(PathMtu { to: to?, mtu: mtu?, expires })
}

fn settings() -> Vec<Sysctl> {
    let devices = fs::read_dir(SETTINGS).into_iter().flatten().flatten();
    let names = devices.filter_map(|entry| entry.file_name().into_string().ok());
    let keys = names.flat_map(|dev| OF_DEVICES.map(|setting| format!("net/ipv4/conf/{dev}/{setting}")));
    keys.filter_map(|key| Some(Sysctl { value: sysctl::read(&key).ok()?, key, optional: true })).collect()
}

fn is_full() -> bool {
    let number = |key| sysctl::read(key).ok().and_then(|text| text.parse::<u64>().ok());
    matches!((number(COUNT), number(MOST)), (Some(count), Some(most)) if most > 0 && count >= most)
}
