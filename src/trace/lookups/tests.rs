use std::net::{Ipv4Addr, SocketAddrV4};

use super::*;
use crate::lab::names::IfName;
use crate::plan::{Address, Link, LinkKind};
use crate::trace::model::Header;
use crate::trace::sample::{header, host, packet, recording, walked};

/// The beginning of the trace, in nanoseconds since the epoch, and a millisecond.
const BEGIN: u64 = 1_000_000_000_000;
const MS: u64 = 1_000_000;

/// A host with two devices, 2 and 3, and an address at the second.
fn there() -> Plan {
    let mut ns = NsPlan::new(host("node1"));
    for (name, index) in [("eth0", 2), ("flannel.1", 3)] {
        let (name, mac, mtu, master, hairpin, up) = (IfName::new(name), None, 1500, None, false, true);
        ns.links.push(Link { name, index, mac, mtu, master, hairpin, up, kind: LinkKind::Tun });
    }
    let net = "10.0.0.9/24".parse().expect("an address");
    ns.addresses.push(Address { dev: IfName::new("flannel.1"), net, broadcast: false, connected: true });
    Plan { namespaces: vec![ns] }
}

fn step(at: Option<u64>, dev: Option<&str>, what: What) -> Step {
    let header = Header { destination: [10, 0, 0, 9].into(), ..header() };
    let known_by = vec![if at.is_some() { Means::Tap } else { Means::State }];
    Step { at, header: Some(header), known_by, ..walked("node1", dev, what) }
}

fn routed(route: &str, via: Option<&str>, dev: &str) -> Step {
    let via = via.map(|ip| ip.parse().expect("an address"));
    step(None, None, What::Routed(Routed { route: route.to_owned(), via, dev: Some(dev.to_owned()) }))
}

/// It came in by eth0, was routed, had its next hop's address looked up and left.
fn passed_on(routed: Step) -> Packet {
    let neighbour =
        What::Neighbour { ip: "10.0.0.9".parse().expect("an address"), mac: None, state: "permanent".to_owned() };
    let steps = vec![
        step(Some(5 * MS), Some("eth0"), What::In),
        routed,
        step(None, None, neighbour),
        step(Some(7 * MS), Some("flannel.1"), What::Out),
    ];
    packet(steps)
}

/// A look-up that led by `dev`, for a packet that came in by the device of this number.
fn found(at: u64, iif: u32, (via, dev): (&str, &str)) -> (u64, Lookup) {
    let end = |ip: &str| SocketAddrV4::new(ip.parse().expect("an address"), 0);
    let (source, destination, via) = (end("10.0.0.1"), end("10.0.0.9"), via.parse().expect("an address"));
    (at, Lookup { table: 254, source, destination, iif, dev: Some(IfName::new(dev)), via })
}

fn marked(packet: &mut Packet, told: Vec<(u64, Lookup)>) -> Vec<String> {
    marked_all(std::slice::from_mut(packet), told)
}

fn marked_all(packets: &mut [Packet], told: Vec<(u64, Lookup)>) -> Vec<String> {
    let event = |(at, lookup)| Event { at: BEGIN + at, sequence: 0, place: None, seen: Seen::Lookup(lookup) };
    let events = told.into_iter().map(event).collect();
    mark(packets, &recording(events), (&there(), BEGIN))
}

#[test]
fn a_route_that_a_look_up_confirms_is_not_inferred() {
    let mut packet = passed_on(routed("10.0.0.0/24 dev flannel.1", None, "flannel.1"));
    // Where there is no next hop, that of the look-up says nothing.
    assert_eq!(marked(&mut packet, vec![found(6 * MS, 2, ("42.0.0.0", "flannel.1"))]), Vec::<String>::new());
    assert_eq!((packet.steps[1].known_by.as_slice(), packet.steps.len()), (&[Means::Lookup, Means::State][..], 4));
    assert!(!packet.steps[1].is_inferred());
}

#[test]
fn a_look_up_that_led_elsewhere_counts_and_is_told() {
    let mut packet = passed_on(routed("10.0.0.0/24 via 10.0.0.2 dev eth0", Some("10.0.0.2"), "eth0"));
    let told = marked(&mut packet, vec![found(6 * MS, 2, ("42.0.0.0", "flannel.1"))]);
    let expected =
        "node1: the kernel's look-up led dev flannel.1, where the state that was read back has via 10.0.0.2 dev eth0";
    assert_eq!(told, [expected]);
    let What::Routed(routed) = &packet.steps[1].what else { panic!("{:?}", packet.steps) };
    assert_eq!((routed.dev.as_deref(), routed.via), (Some("flannel.1"), None));
    assert_eq!(packet.steps.len(), 3, "what followed from the other route is left: {:?}", packet.steps);
}

#[test]
fn look_ups_of_others_say_nothing() {
    let own = routed("10.0.0.0/24 dev flannel.1", None, "flannel.1");
    let by = ("10.0.0.2", "eth0");
    let (mut source, mut destination, mut failed) = (found(6 * MS, 2, by), found(6 * MS, 2, by), found(6 * MS, 2, by));
    source.1.source = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
    destination.1.destination = SocketAddrV4::new([10, 0, 0, 8].into(), 0);
    failed.1.dev = None;
    let others = [
        found(2 * MS, 2, by),
        found(20 * MS, 2, by),
        found(6 * MS, 3, by),
        found(6 * MS, 2, ("10.0.0.2", "flannel0")),
        source,
        destination,
        failed,
    ];
    let mut packet = passed_on(own);
    assert_eq!(marked(&mut packet, others.into()), Vec::<String>::new());
    assert!(packet.steps[1].is_inferred());
}

#[test]
fn of_several_next_hops_another_one_may_be_taken() {
    let route = "default nexthop via 10.0.0.2 dev eth0 nexthop via 10.0.0.3 dev flannel.1";
    let mut packet = passed_on(routed(route, Some("10.0.0.3"), "flannel.1"));
    assert_eq!(marked(&mut packet, vec![found(6 * MS, 2, ("10.0.0.2", "eth0"))]), Vec::<String>::new());
    assert!(packet.steps[1].is_inferred());
}

#[test]
fn what_a_machine_sends_was_looked_up_before_it_was_seen_by_ports_that_may_be_open() {
    let sent = step(None, None, What::Sent { by: "a program".to_owned() });
    let out = step(Some(0), Some("flannel.1"), What::Out);
    let own = || packet(vec![sent.clone(), routed("10.0.0.0/24 dev flannel.1", None, "flannel.1"), out.clone()]);
    let mut early = found(0, BORN, ("0.0.0.0", "flannel.1"));
    early.1.source = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
    early.1.destination.set_port(80);
    let mut packet = own();
    marked(&mut packet, vec![early.clone()]);
    assert!(!packet.steps[1].is_inferred());
    early.1.destination.set_port(81);
    let mut packet = own();
    marked(&mut packet, vec![early]);
    assert!(packet.steps[1].is_inferred(), "another port");
}

#[test]
fn an_address_of_the_machine_itself_is_found_at_its_device() {
    let local = || step(None, None, What::Routed(Routed { route: "local".to_owned(), via: None, dev: None }));
    let taken = || packet(vec![step(Some(5 * MS), Some("eth0"), What::In), local()]);
    let mut packet = taken();
    marked(&mut packet, vec![found(6 * MS, 2, ("0.0.0.0", "flannel.1"))]);
    assert!(!packet.steps[1].is_inferred());
    let mut packet = taken();
    assert_eq!(marked(&mut packet, vec![found(6 * MS, 2, ("0.0.0.0", "eth0"))]).len(), 1);
}

/// Sent at a time, by the route over flannel.1.
fn sent(at: u64) -> Packet {
    let sent = step(None, None, What::Sent { by: "a program".to_owned() });
    packet(vec![
        sent,
        routed("10.0.0.0/24 dev flannel.1", None, "flannel.1"),
        step(Some(at), Some("flannel.1"), What::Out),
    ])
}

/// A look-up for a packet that was born here, with its ports.
fn born(at: u64, hop: (&str, &str)) -> (u64, Lookup) {
    let mut born = found(at, BORN, hop);
    born.1.source.set_port(4000);
    born.1.destination.set_port(80);
    born
}

#[test]
fn of_a_packet_that_is_sent_again_the_last_look_up_counts() {
    let mut packets = [sent(MS), sent(1000 * MS)];
    let told = [born(0, ("0.0.0.0", "flannel.1")), born(999 * MS, ("0.0.0.0", "eth0"))];
    let differences = marked_all(&mut packets, told.into());
    assert_eq!(differences.len(), 1, "{differences:?}");
    let by = packets.map(|packet| match &packet.steps[1].what {
        What::Routed(routed) => routed.dev.clone(),
        other => panic!("{other:?}"),
    });
    assert_eq!(by.each_ref().map(Option::as_deref), [Some("flannel.1"), Some("eth0")]);
}

#[test]
fn what_is_sent_without_a_look_up_goes_by_the_route_that_the_socket_has_kept() {
    let mut packets = [sent(MS), sent(20 * MS)];
    marked_all(&mut packets, vec![born(0, ("0.0.0.0", "flannel.1"))]);
    assert!(packets.iter().all(|packet| !packet.steps[1].is_inferred()), "{packets:#?}");
    let mut packets = [sent(MS), sent(20 * MS)];
    marked_all(&mut packets, vec![found(0, BORN, ("0.0.0.0", "flannel.1"))]);
    let inferred = packets.map(|packet| packet.steps[1].is_inferred());
    assert_eq!(inferred, [false, true], "without ports it is no socket's");
}

#[test]
fn a_look_up_with_ports_counts_before_one_without_and_one_of_another_socket_not_at_all() {
    let mut one = sent(4 * MS);
    let reverse = found(3 * MS, BORN, ("0.0.0.0", "eth0"));
    let mut strange = born(3 * MS, ("0.0.0.0", "eth0"));
    strange.1.source.set_port(0);
    let told = vec![born(2 * MS, ("0.0.0.0", "flannel.1")), reverse, strange];
    assert_eq!(marked(&mut one, told), Vec::<String>::new());
    assert!(!one.steps[1].is_inferred());
}

#[test]
fn what_the_next_machine_looks_up_at_once_does_not_outvote_a_step() {
    let mut packet = passed_on(routed("10.0.0.0/24 dev flannel.1", None, "flannel.1"));
    let next = found(7 * MS + 10, 2, ("0.0.0.0", "eth0"));
    assert_eq!(
        marked(&mut packet, vec![found(6 * MS, 2, ("0.0.0.0", "flannel.1")), next.clone()]),
        Vec::<String>::new()
    );
    assert!(!packet.steps[1].is_inferred());
    let mut packet = passed_on(routed("10.0.0.0/24 dev flannel.1", None, "flannel.1"));
    assert_eq!(marked(&mut packet, vec![next]), Vec::<String>::new());
    assert!(packet.steps[1].is_inferred());
    let mut packet = passed_on(routed("10.0.0.0/24 dev flannel.1", None, "flannel.1"));
    marked(&mut packet, vec![found(7 * MS + 10, 2, ("0.0.0.0", "flannel.1"))]);
    assert!(!packet.steps[1].is_inferred(), "told a little late");
}

#[test]
fn what_has_no_ports_is_confirmed_and_not_corrected() {
    let icmp = || {
        let mut packet = passed_on(routed("10.0.0.0/24 dev flannel.1", None, "flannel.1"));
        packet.steps.iter_mut().flat_map(|s| &mut s.header).for_each(|h| h.protocol = Protocol::Icmp);
        packet
    };
    let mut other = icmp();
    assert!(marked(&mut other, vec![found(6 * MS, 2, ("10.0.0.254", "eth0"))]).is_empty());
    assert!(other.steps[1].is_inferred(), "{:?}", other.steps[1]);
    let mut same = icmp();
    marked(&mut same, vec![found(6 * MS, 2, ("0.0.0.0", "flannel.1"))]);
    assert_eq!(same.steps[1].known_by[0], Means::Lookup);
}
