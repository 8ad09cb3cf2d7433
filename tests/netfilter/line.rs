//! Three machines in a line, a recording of them, and what it saw: `left` and `right` with an `eth0` each,
//! and `middle`, which forwards between its devices `west` and `east`.

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

use labctl::kernel::ns::NetNs;
use labctl::kernel::record::{Event, Frame, Options, Recorder, Recording, RuleSeen, Seen, Spot};
use labctl::lab::names::{HostName, NsName};

use crate::ground::{fresh, sh};

pub const LEFT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub const RIGHT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);

pub struct Line {
    pub left: NetNs,
    pub middle: NetNs,
    pub right: NetNs,
}

pub fn host(name: &str) -> NsName {
    NsName::Host(HostName::try_from(name.to_owned()).expect("a name"))
}

impl Line {
    pub fn new() -> Line {
        let line = Line { left: fresh(), middle: fresh(), right: fresh() };
        // Nothing but the test's own packets: IPv6 is off, and neighbours are known.
        let quiet = "for c in all default; do echo 1 > /proc/sys/net/ipv6/conf/$c/disable_ipv6; done";
        [&line.left, &line.middle, &line.right].into_iter().for_each(|ns| sh(ns, quiet));
        let end = |ns: &NetNs, port: &str, net: u8| {
            let there = format!("/proc/{}/fd/{}", std::process::id(), ns.as_raw_fd());
            let (ours, theirs) = (format!("02:00:00:00:0{net}:01"), format!("02:00:00:00:0{net}:02"));
            sh(
                &line.middle,
                &format!(
                    "ip link add {port} address {ours} type veth peer name eth0 address {theirs} netns {there}\n\
                     ip address add 10.0.{net}.1/24 dev {port}\nip link set {port} up\n\
                     ip neighbour add 10.0.{net}.2 lladdr {theirs} dev {port}"
                ),
            );
            sh(
                ns,
                &format!(
                    "ip address add 10.0.{net}.2/24 dev eth0\nip link set eth0 up\n\
                     ip neighbour add 10.0.{net}.1 lladdr {ours} dev eth0\nip route add default via 10.0.{net}.1"
                ),
            );
        };
        end(&line.left, "west", 0);
        end(&line.right, "east", 1);
        sh(&line.middle, "echo 1 > /proc/sys/net/ipv4/ip_forward");
        line
    }

    pub fn spots(&self) -> Vec<Spot> {
        [("left", &self.left), ("middle", &self.middle), ("right", &self.right)]
            .map(|(name, netns)| Spot { place: host(name), netns: netns.clone() })
            .into()
    }

    /// Record all three while `work` is done.
    pub fn record(&self, options: &Options, work: impl FnOnce()) -> Recording {
        let recorder = Recorder::open(&self.spots(), options).expect("a recording");
        work();
        recorder.finish()
    }

    /// One ping from the left, which may get no answer.
    pub fn ping(&self, to: Ipv4Addr) {
        sh(&self.left, &format!("ping -c 1 -W 1 {to} || true"));
    }
}

/// The frames of IPv4 packets, with where they were.
pub fn frames(events: &[Event]) -> Vec<(&NsName, &Frame)> {
    let of_ip = |event| match event {
        &Event { place: Some(ref place), seen: Seen::Frame(ref frame), .. } if frame.protocol == 0x800 => {
            Some((place, frame))
        }
        _ => None,
    };
    events.iter().filter_map(of_ip).collect()
}

/// Where frames went: `left eth0 out`.
pub fn way(events: &[Event]) -> Vec<String> {
    let words = |(place, frame): (&NsName, &Frame)| {
        format!("{place} {} {}", frame.dev, if frame.outgoing { "out" } else { "in" })
    };
    frames(events).into_iter().map(words).collect()
}

pub fn rules(events: &[Event]) -> Vec<&RuleSeen> {
    events.iter().filter_map(|event| if let Seen::Rule(rule) = &event.seen { Some(rule) } else { None }).collect()
}

/// A destination address of a packet whose IP header begins at `at`.
pub fn destination(bytes: &[u8], at: usize) -> Ipv4Addr {
    let octets: [u8; 4] = bytes[at + 16..at + 20].try_into().expect("four bytes");
    octets.into()
}
