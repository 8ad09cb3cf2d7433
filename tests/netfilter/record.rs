//! What each means of a recording sees.

use std::net::{Ipv4Addr, UdpSocket};

use labctl::kernel::ns::NetNs;
use labctl::kernel::record::{
    EntryChange, Event, Filter, Freed, Options, Recorder, RuleKind, Seen, Spot, Tunnel, Verdict,
};
use labctl::kernel::tun;
use labctl::lab::names::IfName;
use labctl::plan::{Link, LinkKind};
use labctl::trace::model::Means;

use crate::as_root_and_in_a_user_namespace;
use crate::ground::{fresh, sh};
use crate::line::{LEFT, Line, RIGHT, destination, frames, host, rules, way};

as_root_and_in_a_user_namespace!(
    a_ping_is_seen_at_every_device_in_its_order,
    frames_are_cut_and_their_length_is_told,
    a_rule_that_drops_is_told_with_its_place_in_the_chain,
    a_policy_that_drops_is_told,
    a_translation_is_told_by_both_of_its_tuples,
    counters_tell_of_a_packet_without_a_route,
    only_addresses_that_the_filter_names_are_recorded,
    only_ports_that_the_filter_names_are_recorded_at_either_end_and_fragments,
    of_what_tunnels_carry_only_that_is_recorded_which_the_filter_names,
    what_came_is_given_out_once,
);

/// Frames alone.
fn plain() -> Options {
    Options { rules: false, conntrack: false, drops: false, ..Options::default() }
}

fn a_ping_is_seen_at_every_device_in_its_order() {
    let line = Line::new();
    let seen = line.record(&plain(), || line.ping(RIGHT));
    let there = ["left eth0 out", "middle west in", "middle east out", "right eth0 in"];
    let back = ["right eth0 out", "middle east in", "middle west out", "left eth0 in"];
    assert_eq!(way(&seen.events), [there, back].concat());
    assert!(seen.events.is_sorted_by_key(|event| event.at), "{:?}", seen.events);
    assert!(seen.events.windows(2).all(|two| two[0].at < two[1].at), "{:?}", seen.events);
    assert_eq!(seen.lost, 0);
}

fn frames_are_cut_and_their_length_is_told() {
    let line = Line::new();
    let seen = line.record(&Options { snap: 64, ..plain() }, || line.ping(RIGHT));
    for (_, frame) in frames(&seen.events) {
        // 14 bytes of Ethernet, 20 of IP, 8 of ICMP, 56 that ping sends.
        assert_eq!((frame.bytes.len(), frame.length, frame.ethernet), (64, 98, true), "{frame:?}");
    }
}

fn a_rule_that_drops_is_told_with_its_place_in_the_chain() {
    let line = Line::new();
    sh(&line.middle, "iptables-nft -A FORWARD -p tcp -j ACCEPT\niptables-nft -A FORWARD -p icmp -j DROP");
    let seen = line.record(&Options { drops: false, ..Options::default() }, || line.ping(RIGHT));
    let met = rules(&seen.events);
    let [rule] = &met[..] else { panic!("{met:?}") };
    assert_eq!((rule.table.as_str(), rule.chain.as_str()), ("filter", "FORWARD"));
    assert_eq!((rule.kind, &rule.verdict), (RuleKind::Rule, &Verdict::Drop));
    assert_eq!(seen.chains.number(&host("middle"), rule), Some(2));
    let devices = [&rule.iif, &rule.oif].map(|dev| dev.as_ref().map(ToString::to_string));
    assert_eq!(devices, [Some("west".to_owned()), Some("east".to_owned())]);
    assert_eq!(destination(&rule.network, 0), RIGHT);
    assert_eq!(rule.transport[0], 8, "an echo request: {rule:?}");
    assert_eq!(way(&seen.events), ["left eth0 out", "middle west in"]);
}

fn a_policy_that_drops_is_told() {
    let line = Line::new();
    sh(&line.middle, "iptables-nft -N MINE\niptables-nft -A FORWARD -j MINE\niptables-nft -P FORWARD DROP");
    let seen = line.record(&Options { drops: false, ..Options::default() }, || line.ping(RIGHT));
    let met: Vec<_> = rules(&seen.events).into_iter().map(|r| (r.kind, r.chain.as_str(), r.verdict.clone())).collect();
    let jump = (RuleKind::Rule, "FORWARD", Verdict::Jump("MINE".to_owned()));
    let back = (RuleKind::Return, "MINE", Verdict::Continue);
    let policy = (RuleKind::Policy, "FORWARD", Verdict::Drop);
    // Older kernels do not tell of a built-in chain's end.
    let told = met.into_iter().filter(|(kind, chain, _)| *kind != RuleKind::Return || *chain != "FORWARD");
    assert_eq!(told.collect::<Vec<_>>(), [jump, back, policy]);
}

/// A socket in a namespace.
fn udp(ns: &NetNs, address: (Ipv4Addr, u16)) -> UdpSocket {
    ns.run(|| UdpSocket::bind(address)).expect("the namespace").expect("a socket")
}

fn a_translation_is_told_by_both_of_its_tuples() {
    let line = Line::new();
    sh(&line.middle, "iptables-nft -t nat -A PREROUTING -d 10.9.9.9 -p udp -j DNAT --to-destination 10.0.1.2:53");
    let (client, server) = (udp(&line.left, (LEFT, 4000)), udp(&line.right, (RIGHT, 53)));
    let seen = line.record(&Options { drops: false, ..Options::default() }, || {
        client.send_to(b"who", "10.9.9.9:80").expect("a packet");
        let (_, from) = server.recv_from(&mut [0; 8]).expect("a packet");
        server.send_to(b"me", from).expect("a packet");
        client.recv(&mut [0; 8]).expect("an answer");
    });
    let entries: Vec<_> = seen
        .events
        .iter()
        .filter_map(|e| if let Seen::Conntrack(entry) = &e.seen { Some(entry) } else { None })
        .collect();
    let new = entries.iter().find(|e| e.change == EntryChange::New).unwrap_or_else(|| panic!("{entries:?}"));
    assert_eq!(new.entry.protocol, 17);
    assert_eq!(new.entry.original.destination.to_string(), "10.9.9.9:80");
    assert_eq!(new.entry.reply.source.to_string(), "10.0.1.2:53");
    assert!(rules(&seen.events).iter().any(|r| r.table == "nat" && r.chain == "PREROUTING"), "{:?}", seen.events);
    let there: Vec<_> = frames(&seen.events)[..4].iter().map(|(_, f)| destination(&f.bytes, 14)).collect();
    assert_eq!(there, [Ipv4Addr::new(10, 9, 9, 9), Ipv4Addr::new(10, 9, 9, 9), RIGHT, RIGHT]);
}

fn counters_tell_of_a_packet_without_a_route() {
    let line = Line::new();
    let seen = line.record(&plain(), || line.ping(Ipv4Addr::new(10, 7, 7, 7)));
    let counted =
        |name: &str, place: &str| seen.counters.iter().find(|c| c.name == name && c.place == host(place)).map(|c| c.by);
    assert_eq!(counted("IpExt.InNoRoutes", "middle"), Some(1), "{:?}", seen.counters);
    assert_eq!(counted("IpExt.InNoRoutes", "right"), None);
    assert_eq!(counted("dev west rx_packets", "middle"), Some(1), "{:?}", seen.counters);
    assert!(seen.counters.iter().all(|c| c.by > 0));
}

/// What left `left`, and what `middle` passed on, of a recording with a filter.
fn filtered(line: &Line, filter: Filter, work: impl FnOnce()) -> (Vec<Packet>, Vec<Packet>) {
    sh(&line.middle, "iptables-nft -A FORWARD -j ACCEPT");
    sh(&line.middle, "ip neighbour add 10.0.1.9 lladdr 02:00:00:00:01:02 dev east");
    let seen = line.record(&Options { filter, drops: false, conntrack: false, ..Options::default() }, work);
    let packet = |at: usize, bytes: &[u8]| {
        let port = u16::from_be_bytes([bytes[at + 22], bytes[at + 23]]);
        (bytes[at + 9], destination(bytes, at), port)
    };
    let sent = frames(&seen.events).into_iter().filter(|(place, frame)| **place == host("left") && frame.outgoing);
    let sent = sent.map(|(_, frame)| packet(14, &frame.bytes)).collect();
    let forwarded = rules(&seen.events).into_iter().filter(|r| r.chain == "FORWARD");
    (sent, forwarded.map(|r| packet(0, &[&r.network[..], &r.transport].concat())).collect())
}

/// Protocol, destination and its port.
type Packet = (u8, Ipv4Addr, u16);

const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 9);

/// A packet that a tunnel carries, behind so many bytes: UDP from the left to a port elsewhere.
fn carried(head: usize, to: Ipv4Addr, port: u16) -> Vec<u8> {
    let mut bytes = vec![0; head];
    bytes.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
    bytes.extend(LEFT.octets());
    bytes.extend(to.octets());
    bytes.extend([4000u16.to_be_bytes(), port.to_be_bytes(), [0, 8], [0, 0]].concat());
    bytes
}

fn only_addresses_that_the_filter_names_are_recorded() {
    let line = Line::new();
    let client = udp(&line.left, (LEFT, 4000));
    let filter = Filter { addresses: vec![RIGHT], ..Filter::default() };
    let (sent, forwarded) = filtered(&line, filter, || {
        // Nobody has that port; the error comes before the next one goes.
        client.connect((RIGHT, 7)).expect("an address");
        client.send(b"named").expect("a packet");
        client.recv(&mut [0; 8]).expect_err("an error");
        client.send_to(b"another address", (ELSEWHERE, 7)).expect("a packet");
    });
    assert_eq!(sent, [(17, RIGHT, 7)]);
    let forwarded: Vec<_> = forwarded.into_iter().map(|(protocol, to, _)| (protocol, to)).collect();
    assert_eq!(forwarded, [(17, RIGHT), (1, LEFT)], "ICMP has no port");
}

fn only_ports_that_the_filter_names_are_recorded_at_either_end_and_fragments() {
    let line = Line::new();
    let (client, server) = (udp(&line.left, (LEFT, 4000)), udp(&line.right, (RIGHT, 53)));
    let filter = Filter { ports: vec![4000], ..Filter::default() };
    let other = udp(&line.left, (LEFT, 4001));
    let (sent, forwarded) = filtered(&line, filter, || {
        other.send_to(b"another", (RIGHT, 53)).expect("a packet");
        server.recv(&mut [0; 8]).expect("a packet");
        client.send_to(b"named", (RIGHT, 53)).expect("a packet");
        let (_, from) = server.recv_from(&mut [0; 8]).expect("a packet");
        server.send_to(b"back", from).expect("a packet");
        client.recv(&mut [0; 8]).expect("an answer");
        other.send_to(&[0; 2000], (ELSEWHERE, 53)).expect("a packet");
    });
    let (first, others) = sent.split_first().expect("a packet");
    assert_eq!((*first, others.len()), ((17, RIGHT, 53), 1), "the second fragment has no port: {others:?}");
    assert_eq!(forwarded[..2], [(17, RIGHT, 53), (17, LEFT, 4000)]);
}

fn of_what_tunnels_carry_only_that_is_recorded_which_the_filter_names() {
    for tunnel in [Tunnel::vxlan(8472), Tunnel::flannel_udp(8285)] {
        let line = Line::new();
        let client = udp(&line.left, (LEFT, 4000));
        let inner = Ipv4Addr::new(10, 244, 1, 2);
        let other = Ipv4Addr::new(10, 244, 1, 3);
        let filter = Filter { addresses: vec![inner, ELSEWHERE], ports: vec![80], tunnel: Some(tunnel) };
        let (sent, forwarded) = filtered(&line, filter, || {
            for bytes in [(inner, 80), (other, 80), (inner, 81)].map(|(to, port)| carried(tunnel.head.into(), to, port))
            {
                client.send_to(&bytes, (ELSEWHERE, tunnel.port)).expect("a packet");
            }
            client.send_to(&carried(tunnel.head.into(), inner, 80), (ELSEWHERE, 7)).expect("a packet");
            // A frame of ARP, or what it is.
            client.send_to(&[1; 60], (ELSEWHERE, tunnel.port)).expect("a packet");
        });
        let wanted = [(17, ELSEWHERE, tunnel.port); 2];
        assert_eq!((&sent[..], &forwarded[..]), (&wanted[..], &wanted[..]), "{tunnel:?}");
    }
}

fn what_came_is_given_out_once() {
    let line = Line::new();
    let recorder = Recorder::open(&line.spots(), &plain()).expect("a recording");
    assert_eq!(recorder.last_event(), None);
    line.ping(RIGHT);
    let mut first = Vec::new();
    crate::ground::until("eight frames have come", || {
        first.extend(recorder.drain());
        first.len() == 8
    });
    assert!(recorder.last_event().is_some());
    line.ping(RIGHT);
    assert_eq!(recorder.finish().events.len(), 8);
}

/// Dropped packets of this length, which no other test's have.
fn freed(events: &[Event], length: u32) -> Vec<(u64, &Freed)> {
    let of_length = |event| match event {
        &Event { at, seen: Seen::Freed(ref freed), .. } if freed.trail.last().is_some_and(|p| p.length == length) => {
            Some((at, freed))
        }
        _ => None,
    };
    events.iter().filter_map(of_length).collect()
}

/// A recording of drop reasons.
fn with_reasons(line: &Line, work: impl FnOnce()) -> Vec<Event> {
    let seen = line.record(&Options { rules: false, conntrack: false, ..Options::default() }, work);
    assert_eq!(seen.lost, 0);
    seen.events
}

#[test]
fn a_drop_reason_is_told_with_the_place_in_the_kernel_and_the_device() {
    crate::ground::as_root(|| {
        let line = Line::new();
        sh(&line.middle, "iptables-nft -A FORWARD -p icmp -j DROP");
        let events = with_reasons(&line, || sh(&line.left, "ping -c 1 -W 1 -s 729 10.0.1.2 || true"));
        let all = freed(&events, 757);
        let [(at, freed)] = &all[..] else { panic!("{all:?}") };
        assert_eq!((freed.reason.as_str(), freed.protocol), ("NETFILTER_DROP", 0x800));
        let trail: Vec<_> = freed.trail.iter().map(|p| (p.dev.as_str(), p.outgoing, p.length)).collect();
        // Before these may be points of a packet of somebody else's that had its place in memory before.
        let own = [("eth0", true, 771), ("west", false, 757)];
        assert!(trail.ends_with(&own), "{trail:?}");
        assert!(freed.location.contains('+') && !freed.location.starts_with("0x"), "{freed:?}");
        // Its times are one with the frames'.
        let of_ip = |e: &&Event| matches!(&e.seen, Seen::Frame(frame) if frame.protocol == 0x800);
        let seen: Vec<u64> = events.iter().filter(of_ip).map(|e| e.at).collect();
        assert_eq!(seen.len(), 2, "{events:?}");
        let apart =
            seen.iter().zip(&freed.trail[trail.len() - own.len()..]).map(|(at, point)| at.abs_diff(point.at)).min();
        assert!(seen[1] <= *at && apart.is_some_and(|apart| apart < 10_000_000), "{events:?}");
    });
}

#[test]
fn packets_that_arrive_are_no_drops() {
    crate::ground::as_root(|| {
        let line = Line::new();
        let (client, server) = (udp(&line.left, (LEFT, 4000)), udp(&line.right, (RIGHT, 53)));
        let events = with_reasons(&line, || {
            client.send_to(&[0; 731], (RIGHT, 53)).expect("a packet");
            server.recv(&mut [0; 731]).expect("a packet");
            client.send_to(&[0; 731], "10.7.7.7:53").expect("a packet");
        });
        let reasons: Vec<_> = freed(&events, 759).into_iter().map(|(_, freed)| freed.reason.as_str()).collect();
        assert_eq!(reasons, ["IP_INNOROUTES"], "{events:?}");
    });
}

#[test]
fn frames_of_a_tun_device_begin_with_the_ip_header() {
    crate::ground::as_root(|| {
        let ns = fresh();
        let link = Link {
            name: IfName::new("tun0"),
            index: 7,
            mtu: 1500,
            mac: None,
            master: None,
            hairpin: false,
            up: true,
            kind: LinkKind::Tun,
        };
        let made = ns.run(|| tun::create(&link)).expect("the namespace").expect("a device");
        sh(&ns, "ip address add 10.2.0.1/24 dev tun0\nip link set tun0 up");
        let spot = Spot { place: host("one"), netns: ns.clone() };
        let recorder = Recorder::open(&[spot], &plain()).expect("a recording");
        udp(&ns, (Ipv4Addr::new(10, 2, 0, 1), 4000)).send_to(b"who", "10.2.0.2:53").expect("a packet");
        let events = recorder.finish().events;
        drop(made);
        let all = frames(&events);
        let [(_, frame)] = &all[..] else { panic!("{all:?}") };
        assert_eq!((frame.ethernet, frame.dev.as_str(), frame.index, frame.length), (false, "tun0", 7, 31));
        assert_eq!(destination(&frame.bytes, 0), Ipv4Addr::new(10, 2, 0, 2));
    });
}

#[test]
fn root_misses_nothing() {
    crate::ground::as_root(|| {
        let recorder = Recorder::open(&Line::new().spots(), &Options::default()).expect("a recording");
        assert_eq!(recorder.missing(), []);
    });
}

#[test]
fn in_a_user_namespace_only_drop_reasons_are_missing() {
    let path = concat!(module_path!(), "::in_a_user_namespace_only_drop_reasons_are_missing");
    crate::ground::in_a_user_namespace(path, || {
        let recorder = Recorder::open(&Line::new().spots(), &Options::default()).expect("a recording");
        let missing = recorder.missing();
        let [one] = missing else { panic!("{missing:?}") };
        assert_eq!((one.means, one.places.len()), (Means::DropReason, 0));
        assert!(one.why.contains("root alone"), "{}", one.why);
    });
}
