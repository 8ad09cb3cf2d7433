//! What a namespace has learnt and counts beside what it was told: neighbours, settings of single devices,
//! whether its table of tracked connections is full. No plan has any of it, and it decides about packets.

use std::fs;
use std::io;

use crate::plan::{Neighbour, Sysctl};

use super::ns::NetNs;
use super::rtnl::Rtnl;
use super::{read, sysctl};

/// Settings that a device has for itself beside those for all (Documentation/networking/ip-sysctl.rst).
const OF_DEVICES: [&str; 2] = ["rp_filter", "forwarding"];
const SETTINGS: &str = "/proc/sys/net/ipv4/conf";
const COUNT: &str = "net/netfilter/nf_conntrack_count";
const MOST: &str = "net/netfilter/nf_conntrack_max";

/// What one namespace has learnt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Learnt {
    /// Neighbours whose MAC address it found out.
    pub neighbours: Vec<Neighbour>,
    /// Settings of devices.
    pub settings: Vec<Sysctl>,
    /// Whether no further connection can be tracked.
    pub conntrack_full: bool,
}

/// Read what `netns` has learnt. Blocks.
pub fn read(netns: &NetNs) -> io::Result<Learnt> {
    let (rtnl, settings, conntrack_full) = netns.run(|| (Rtnl::open(), settings(), is_full()))?;
    let neighbours = read::learnt(&mut rtnl?).map_err(io::Error::other)?;
    Ok(Learnt { neighbours, settings, conntrack_full })
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
