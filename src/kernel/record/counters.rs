//! What a namespace counts: the protocols' counters of /proc/net/snmp and netstat, connection tracking's,
//! and each device's own. Read before and after, they tell what was dropped even where nothing else does.

use std::collections::{BTreeMap, HashMap};
use std::fs;

use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, Stats64};
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcStats2};

use crate::kernel::rtnl::{Fault, Rtnl};
use crate::kernel::stack;
use crate::lab::names::IfName;

/// Numbers that are no counters: settings, and what there is just now.
const NO_COUNTERS: [&str; 7] =
    ["Ip.Forwarding", "Ip.DefaultTTL", "Tcp.RtoAlgorithm", "Tcp.RtoMin", "Tcp.RtoMax", "Tcp.MaxConn", "Tcp.CurrEstab"];

/// Values by name, such as `Ip.InReceives`.
type Counters = BTreeMap<String, u64>;
/// Devices by index.
pub(super) type Devices = HashMap<u32, IfName>;

/// What a namespace has counted so far. Texts are read when something has changed: most namespaces see
/// no packet of a recording.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Snapshot {
    /// /proc/net/snmp and netstat.
    tables: [String; 2],
    /// /proc/net/stat/nf_conntrack.
    tracking: String,
    devices: Vec<(String, Stats64)>,
    /// What queueing disciplines that somebody chose have dropped: `tbf dev eth0`.
    queues: Vec<(String, u32)>,
}

/// Read the calling thread's namespace.
pub(super) fn read() -> Result<(Snapshot, Devices), Fault> {
    // What a kernel does not have counts nothing.
    let text = |name: &str| fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
    let tables = ["snmp", "netstat"].map(text);
    let mut snapshot =
        Snapshot { tables, tracking: text("stat/nf_conntrack"), devices: Vec::new(), queues: Vec::new() };
    let mut devices = Devices::new();
    let mut rtnl = Rtnl::open()?;
    for answer in rtnl.dump(Message::GetLink(LinkMessage::default()))? {
        let Message::NewLink(link) = answer else { continue };
        let Some(name) = stack::name(&link) else { continue };
        devices.insert(link.header.index, IfName::new(&name));
        let stats =
            link.attributes.iter().find_map(|a| if let LinkAttribute::Stats64(s) = a { Some(*s) } else { None });
        snapshot.devices.extend(stats.map(|stats| (name, stats)));
    }
    let queues = rtnl.dump(Message::GetQueueDiscipline(TcMessage::default()))?.into_iter();
    snapshot.queues = queues.filter_map(|answer| queue(&answer, &devices)).collect();
    Ok((snapshot, devices))
}

impl Snapshot {
    fn counters(&self) -> Counters {
        let mut counters = Counters::new();
        self.tables.iter().for_each(|text| table(text, &mut counters));
        tracking(&self.tracking, &mut counters);
        for (name, stats) in &self.devices {
            counters.extend(of_device(stats).map(|(what, value)| (format!("dev {name} {what}"), value)));
        }
        counters.extend(self.queues.iter().map(|(queue, drops)| (format!("qdisc {queue} dropped"), u64::from(*drops))));
        counters
    }

    /// How much each went up since.
    pub fn since(&self, before: &Snapshot) -> Vec<(String, u64)> {
        if self == before {
            return Vec::new();
        }
        let before = before.counters();
        let up = self.counters().into_iter().filter_map(|(name, value)| {
            let by = value.saturating_sub(before.get(&name).copied().unwrap_or(0));
            (by > 0).then_some((name, by))
        });
        up.collect()
    }
}

/// What a device has by itself has no handle.
fn queue(answer: &Message, devices: &Devices) -> Option<(String, u32)> {
    let Message::NewQueueDiscipline(message) = answer else { return None };
    let dev = devices.get(&u32::try_from(message.header.index).ok()?)?;
    let (mut kind, mut drops) = (None, 0);
    for attribute in &message.attributes {
        match attribute {
            TcAttribute::Kind(name) => kind = Some(name),
            TcAttribute::Stats2(all) => {
                drops = all.iter().find_map(|s| if let TcStats2::Queue(q) = s { Some(q.drops) } else { None })?;
            }
            _ => {}
        }
    }
    (message.header.handle != TcHandle::UNSPEC).then_some((format!("{} dev {dev}", kind?), drops))
}

/// Two lines each: `Ip: Forwarding DefaultTTL …` and `Ip: 1 64 …`.
fn table(text: &str, counters: &mut Counters) {
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let (mut names, mut values) = (names.split_whitespace(), values.split_whitespace());
        let (Some(group), Some(_)) = (names.next(), values.next()) else { continue };
        for (name, value) in names.zip(values) {
            let name = format!("{}.{name}", group.trim_end_matches(':'));
            // Some are -1: no limit.
            if let (Ok(value), false) = (value.parse(), NO_COUNTERS.contains(&name.as_str())) {
                counters.insert(name, value);
            }
        }
    }
}

/// A line of names, then one for each CPU in hexadecimal numbers. The first column is how many entries
/// there are just now.
fn tracking(text: &str, counters: &mut Counters) {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    for line in lines {
        for (name, value) in names.iter().zip(line.split_whitespace()).skip(1) {
            *counters.entry(format!("nf_conntrack.{name}")).or_default() += u64::from_str_radix(value, 16).unwrap_or(0);
        }
    }
}

/// Those of packets, as /sys/class/net/…/statistics names them.
fn of_device(stats: &Stats64) -> [(&'static str, u64); 13] {
    [
        ("rx_packets", stats.rx_packets),
        ("tx_packets", stats.tx_packets),
        ("rx_errors", stats.rx_errors),
        ("tx_errors", stats.tx_errors),
        ("rx_dropped", stats.rx_dropped),
        ("tx_dropped", stats.tx_dropped),
        ("rx_length_errors", stats.rx_length_errors),
        ("rx_frame_errors", stats.rx_frame_errors),
        ("rx_missed_errors", stats.rx_missed_errors),
        ("tx_carrier_errors", stats.tx_carrier_errors),
        ("tx_aborted_errors", stats.tx_aborted_errors),
        ("rx_nohandler", stats.rx_nohandler),
        ("rx_otherhost_dropped", stats.rx_otherhost_dropped),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_counters_is_read_by_its_names_and_settings_are_left_out() {
        let mut counters = Counters::new();
        table("Ip: Forwarding InNoRoutes\nIp: 1 7\nTcp: MaxConn InErrs\nTcp: -1 2\n", &mut counters);
        assert_eq!(counters, Counters::from([("Ip.InNoRoutes".to_owned(), 7), ("Tcp.InErrs".to_owned(), 2)]));
    }

    #[test]
    fn connection_trackings_counters_are_summed_over_the_cpus() {
        let mut counters = Counters::new();
        tracking("entries found drop\n00000005 0000000a 00000001\n00000005 00000001 00000002\n", &mut counters);
        let expected = Counters::from([("nf_conntrack.found".to_owned(), 11), ("nf_conntrack.drop".to_owned(), 3)]);
        assert_eq!(counters, expected);
    }
}
