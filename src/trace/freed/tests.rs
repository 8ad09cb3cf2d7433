use super::*;
use crate::kernel::record::Event;
use crate::lab::names::IfName;
use crate::trace::sample::{header, host, packet, recording, tapped};

/// A moment of the recording, in nanoseconds since the epoch, and a millisecond.
const BEGIN: u64 = 1_000_000_000_000;
const MS: u64 = 1_000_000;

fn step(at: u64, dev: &str, outgoing: bool, length: u32) -> Step {
    let what = if outgoing { What::Out } else { What::In };
    Step { header: Some(Header { length, ..header() }), ..tapped(at, "node1", dev, what) }
}

/// A dropped packet: when it was where, and its bytes there.
fn freed(reason: &str, trail: &[(u64, &str, bool, u32)]) -> Event {
    let point = |(at, dev, outgoing, length): &(u64, &str, bool, u32)| Point {
        at: BEGIN + at,
        dev: IfName::new(dev),
        outgoing: *outgoing,
        length: *length,
    };
    let trail = trail.iter().map(point).collect();
    let (reason, location) = (reason.to_owned(), "nf_hook_slow+0x1".to_owned());
    let seen = Seen::Freed(Freed { reason, location, protocol: 0x800, trail, skb: 1 });
    Event { at: BEGIN, sequence: 1, place: None, seen }
}

fn reason(events: Vec<Event>, packet: &Packet) -> Option<String> {
    of_packet(packet, &recording(events), BEGIN).map(|(_, freed)| freed.reason.clone())
}

/// A packet that left a pod and came to its host.
fn seen() -> Packet {
    packet(vec![step(0, "eth0", true, 60), step(MS, "veth1", false, 60)])
}

#[test]
fn a_drop_is_given_to_the_packet_that_was_at_the_same_devices() {
    let mine = freed("NETFILTER_DROP", &[(0, "eth0", true, 74), (MS, "veth1", false, 60)]);
    let other_device = freed("OTHER", &[(0, "eth0", true, 74), (MS, "veth2", false, 60)]);
    let other_way = freed("OTHER", &[(0, "eth1", true, 74), (MS, "veth1", false, 60)]);
    let other_length = freed("OTHER", &[(0, "eth0", true, 75), (MS, "veth1", false, 61)]);
    let later = freed("OTHER", &[(0, "eth0", true, 74), (MS, "veth1", false, 60), (MS, "cni0", false, 60)]);
    let earlier = freed("OTHER", &[(0, "eth0", true, 74)]);
    let without = freed("OTHER", &[]);
    let others = vec![other_device, other_way, other_length, later, earlier, without];
    assert_eq!(reason(others.clone(), &seen()), None);
    assert_eq!(reason([others, vec![mine]].concat(), &seen()).as_deref(), Some("NETFILTER_DROP"));
}

#[test]
fn who_looked_late_at_one_device_looked_in_time_at_another() {
    let late = freed("NETFILTER_DROP", &[(0, "eth0", true, 74), (300 * MS, "veth1", false, 60)]);
    assert_eq!(reason(vec![late], &seen()).as_deref(), Some("NETFILTER_DROP"));
    let another = freed("NETFILTER_DROP", &[(200 * MS, "eth0", true, 74), (200 * MS, "veth1", false, 60)]);
    assert_eq!(reason(vec![another], &seen()), None, "the same once more, 200 ms later");
}

#[test]
fn what_had_the_same_place_in_memory_before_does_not_count() {
    let mut again = seen();
    again.steps.iter_mut().for_each(|step| step.at = step.at.map(|at| at + 1_000 * MS));
    let trail = [(0, "tun0", false, 99), (1_000 * MS, "eth0", true, 74), (1_001 * MS, "veth1", false, 60)];
    assert_eq!(reason(vec![freed("NETFILTER_DROP", &trail)], &again).as_deref(), Some("NETFILTER_DROP"));
    let trail = [(999 * MS, "tun0", false, 99), (1_000 * MS, "eth0", true, 74), (1_001 * MS, "veth1", false, 60)];
    assert_eq!(reason(vec![freed("NETFILTER_DROP", &trail)], &again).as_deref(), Some("NETFILTER_DROP"), "just before");
}

#[test]
fn the_nearest_of_several_that_look_the_same_is_taken() {
    let at = |reason: &str, at: u64| freed(reason, &[(at, "eth0", true, 74), (at + MS, "veth1", false, 60)]);
    let two = vec![at("OTHER", 4 * MS), at("NETFILTER_DROP", 0), at("OTHER", 5 * MS)];
    assert_eq!(reason(two, &seen()).as_deref(), Some("NETFILTER_DROP"));
}

#[test]
fn what_was_taken_or_arrived_was_not_dropped() {
    let trail = [(0, "eth0", true, 74), (MS, "veth1", false, 60)];
    for reason in NO_DROP {
        assert_eq!(self::reason(vec![freed(reason, &trail)], &seen()), None);
    }
    let arrived = Packet { fate: Fate::Delivered { to: host("node1") }, ..seen() };
    assert_eq!(reason(vec![freed("NO_SOCKET", &trail)], &arrived), None);
}
