//! A trace laid beside the recording: every packet at every device is told once and with its time, and
//! nothing else is told as seen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use labctl::trace::model::{Header as Told, Means, Protocol, Step, Trace, What};

use crate::frames::{Header, ICMP, Sighting, TCP, UDP};

/// Something at a device: where, by what, outwards or not, and the header.
type Point = (String, String, bool, Header);

/// So many nanoseconds may lie between the stamps that two sockets give the same frame. One that comes in and was
/// sent by TCP still has the time at which it was to be sent, and each packet socket stamps its own copy in place of
/// that (`skb_clear_delivery_time`): one after the other, which takes some microseconds, and more only where the
/// CPU is taken away between them.
const APART: u64 = 1_000_000;

/// A trace ends when nothing has come for so many nanoseconds; what comes later is none of its matter.
const QUIET: u64 = 40_000_000;

/// The packets' steps that are told as seen by a tap, with the number of the packet.
pub fn told(trace: &Trace) -> Vec<(u32, &Step)> {
    let packets = trace.flows.iter().flat_map(|f| &f.packets);
    let steps = packets.flat_map(|p| p.steps.iter().map(|s| (p.number, s)));
    // What a proxy did is told by the mark in what it sent on, and stands at no device.
    let at_devices = steps.filter(|(_, s)| !matches!(s.what, What::Proxied { .. }));
    at_devices.filter(|(_, s)| s.known_by.contains(&Means::Tap)).collect()
}

/// Which way a step leads through its device.
pub fn is_outgoing(step: &Step) -> bool {
    step.what == What::Out
}

/// A header of a trace's in the form of the recording's.
pub fn header(told: &Told) -> Header {
    let address = |ip: std::net::IpAddr| match ip {
        std::net::IpAddr::V4(ip) => ip,
        std::net::IpAddr::V6(ip) => panic!("{ip} in a lab of IPv4"),
    };
    let (protocol, ports) = match told.protocol {
        Protocol::Tcp => (TCP, (told.source_port, told.destination_port)),
        Protocol::Udp => (UDP, (told.source_port, told.destination_port)),
        Protocol::Icmp => (ICMP, (0, 0)),
        other => panic!("a packet of {other}"),
    };
    Header {
        source: address(told.source),
        destination: address(told.destination),
        protocol,
        ports,
        ttl: told.ttl,
        length: u16::try_from(told.length).expect("a packet's length"),
    }
}

/// Say where both differ.
pub fn differences(trace: &Trace, sightings: &[Sighting]) -> Vec<String> {
    let (mut wrong, matched) = matched(trace, sightings);
    let told: BTreeSet<usize> = matched.iter().map(|(_, at)| *at).collect();
    let last = told.iter().map(|n| sightings[*n].at).max().unwrap_or(u64::MAX - QUIET);
    let missed = sightings.iter().enumerate().filter(|(n, s)| !told.contains(n) && s.at < last + QUIET);
    wrong.extend(missed.map(|(_, s)| format!("not told: {} {}", s.at, words(&point(s)))));
    // Sightings are in the order of time.
    for pair in matched.windows(2) {
        let ((number, before), (other, after)) = (pair[0], pair[1]);
        if number == other && before >= after {
            let [before, after] = [before, after].map(|n| words(&point(&sightings[n])));
            wrong.push(format!("packet {number}: {after} came before {before}"));
        }
    }
    wrong
}

fn is_fragment(trace: &Trace, number: u32) -> bool {
    let mut packets = trace.flows.iter().flat_map(|f| &f.packets);
    packets.any(|p| p.number == number && p.kind.starts_with("fragment"))
}

/// The same point with the TTL one lower or higher. Of a packet that was put together and is cut again, the kernel
/// writes the pieces' headers where a packet socket has them as well (`ip_do_fragment`), so that each reader may
/// find the TTL of before or behind.
fn beside((place, dev, outgoing, header): &Point) -> [Point; 2] {
    [header.ttl.wrapping_sub(1), header.ttl.wrapping_add(1)]
        .map(|ttl| (place.clone(), dev.clone(), *outgoing, Header { ttl, ..header.clone() }))
}

/// The sighting of each step that is told as seen, in the trace's order; and what was never there.
pub fn matched(trace: &Trace, sightings: &[Sighting]) -> (Vec<String>, Vec<(u32, usize)>) {
    let mut open: BTreeMap<Point, VecDeque<usize>> = BTreeMap::new();
    for (n, sighting) in sightings.iter().enumerate() {
        open.entry(point(sighting)).or_default().push_back(n);
    }
    let (mut wrong, mut matched) = (Vec::new(), Vec::new());
    let mut steps = told(trace);
    // Of those that look the same the earlier one is the earlier.
    steps.sort_by_key(|(_, s)| s.at);
    let mut of_step = BTreeMap::new();
    for (number, step) in steps {
        let (Some(at), Some(dev), Some(header)) = (step.at, &step.dev, &step.header) else {
            wrong.push(format!("packet {number}: seen, and without time, device or header: {step:?}"));
            continue;
        };
        let point = (step.place.to_string(), dev.to_string(), is_outgoing(step), self::header(header));
        let mut found = open.get_mut(&point).and_then(VecDeque::pop_front);
        if found.is_none() && is_fragment(trace, number) {
            found = beside(&point).iter().find_map(|point| open.get_mut(point).and_then(VecDeque::pop_front));
        }
        match found {
            Some(n) if sightings[n].at.abs_diff(trace.began + at) > APART => {
                let there = sightings[n].at.saturating_sub(trace.began);
                wrong.push(format!("packet {number}: at {at} in place of {there}: {}", words(&point)));
            }
            Some(n) => {
                of_step.insert(std::ptr::from_ref(step), n);
            }
            None => wrong.push(format!("packet {number}: not there: {at} {}", words(&point))),
        }
    }
    for (number, step) in told(trace) {
        matched.extend(of_step.get(&std::ptr::from_ref(step)).map(|n| (number, *n)));
    }
    (wrong, matched)
}

fn point(sighting: &Sighting) -> Point {
    (sighting.place.to_string(), sighting.dev.clone(), sighting.outgoing, sighting.outer.clone())
}

fn words((place, dev, outgoing, header): &Point) -> String {
    let way = if *outgoing { "out" } else { "in" };
    let Header { source, destination, protocol, ports, ttl, length } = header;
    let ends = format!("{source}:{} > {destination}:{}", ports.0, ports.1);
    format!("{place} {dev} {way}: {ends} protocol {protocol}, TTL {ttl}, {length} bytes")
}
