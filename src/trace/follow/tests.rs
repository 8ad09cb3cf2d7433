use super::*;
use crate::diag::Problems;
use crate::kernel::record::{Frame, Seen};
use crate::lab::names::IfName;
use crate::spec::load::{Text, decode_text};
use crate::trace::walk;
use etherparse::PacketBuilder;

const LAB: &str = "hosts: { node1: { podCIDR: 10.244.1.0/24 } }\n\
    pods:\n  a: { host: node1, address: 10.244.1.10 }\n  b: { host: node1, address: 10.244.1.11 }\n";
const A: [u8; 4] = [10, 244, 1, 10];
const B: [u8; 4] = [10, 244, 1, 11];
const MILLISECOND: u64 = 1_000_000;
/// When the follower begins, and the state is read.
const BEGIN: u64 = 1_000 * MILLISECOND;

fn world() -> World {
    let text = Text { name: "lab".into(), text: LAB.into(), default_name: "lab".into(), ..Text::default() };
    let lab = crate::lab::resolve(&decode_text(&text), None, &mut Problems::default()).expect("a lab");
    let plan = walk::prediction(&lab);
    World {
        lab: Arc::new(lab),
        planned: plan.clone(),
        there: plan,
        known: Known::default(),
        chains: RuleBook::default(),
        read_at: BEGIN,
    }
}

fn pod(world: &World, name: &str) -> NsName {
    world.lab.pods.iter().find(|pod| pod.id.to_string() == name).expect("a pod").ns()
}

fn follower(world: &World) -> Follower {
    Follower::new(pod(world, "a"), BEGIN)
}

/// An echo request from `a` to `b`, as one of both sees it.
fn ping(world: &World, name: &str, (sequence, at): (u16, u64)) -> Event {
    let mut bytes = Vec::new();
    let request = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(A, B, 64).icmpv4_echo_request(7, sequence);
    request.write(&mut bytes, b"a ping").expect("a packet");
    let seen = Seen::Frame(Frame {
        index: 2,
        dev: IfName::new("eth0"),
        outgoing: name == "a",
        packet_type: if name == "a" { 4 } else { 0 },
        ethernet: true,
        protocol: 0x800,
        length: 56,
        bytes,
        mark: None,
    });
    Event { at, sequence: at, place: Some(pod(world, name)), seen }
}

fn heard(events: Vec<Event>, now: u64) -> Heard {
    Heard { events, lost: 0, unseen: 0, now }
}

/// How each packet ended, and how many were not told; nothing where the state is to be read first.
fn told(round: Round) -> Option<(Vec<Fate>, u64)> {
    let Round::Told(told) = round else { return None };
    let mut untold = 0;
    let fates = told.into_iter().filter_map(|told| match told {
        Told::Packet(told) => Some(told.packet.fate),
        Told::Untold { packets } => {
            untold += packets;
            None
        }
        other => panic!("{other:?}"),
    });
    let fates = fates.collect();
    Some((fates, untold))
}

#[test]
fn a_packet_is_told_once_and_when_it_has_ended() {
    let world = world();
    let mut follower = follower(&world);
    let at = BEGIN + MILLISECOND;
    let sent = vec![ping(&world, "a", (1, at))];
    assert_eq!(told(follower.round(&world, heard(sent, at))), Some((vec![], 0)), "it may come yet");
    let came = at + MILLISECOND;
    let arrived = vec![ping(&world, "b", (1, came))];
    assert_eq!(told(follower.round(&world, heard(arrived, came))), Some((vec![], 0)), "more may be told of it");
    let delivered = Fate::Delivered { to: pod(&world, "b") };
    let ended = follower.round(&world, heard(vec![], came + DELIVERED));
    assert_eq!(told(ended), Some((vec![delivered], 0)));
    assert_eq!(told(follower.round(&world, heard(vec![], came + SETTLED))), Some((vec![], 0)), "once");
}

/// A frame that comes in to the host or leaves it, with an IP packet of `a`'s.
fn at_host(world: &World, (dev, outgoing): (&str, bool), (to, at): ([u8; 4], u64)) -> Event {
    let mut event = ping(world, "a", (1, at));
    event.place = world.lab.hosts.first().map(|host| host.ns());
    let Seen::Frame(frame) = &mut event.seen else { panic!("{event:?}") };
    (frame.dev, frame.outgoing, frame.packet_type) = (IfName::new(dev), outgoing, if outgoing { 4 } else { 0 });
    frame.bytes[30..34].copy_from_slice(&to);
    event
}

#[test]
fn what_passes_a_host_is_told_and_what_is_for_a_group_is_not_passed_on() {
    let at = BEGIN + MILLISECOND;
    let world = World { read_at: at + SETTLED, ..world() };
    let host = world.lab.hosts[0].ns();
    let way = |to| {
        let both = [(("vetha", false), at + 1), (("vethb", true), at + 2)];
        both.map(|(dev, at)| at_host(&world, dev, (to, at)))
    };
    let told_of = |to: [u8; 4]| {
        let mut follower = Follower::new(host.clone(), BEGIN);
        let mut events = vec![ping(&world, "a", (1, at))];
        events.extend(way(to));
        events.extend((to == B).then(|| ping(&world, "b", (1, at + 3))));
        follower.round(&world, heard(events, at + 3));
        let Round::Told(told) = follower.round(&world, heard(vec![], at + 3 + SETTLED)) else { panic!("stale") };
        let passing = |told| if let Told::Packet(told) = told { Some((told.passing, told.packet.fate)) } else { None };
        told.into_iter().filter_map(passing).collect::<Vec<_>>()
    };
    assert_eq!(told_of(B), [(true, Fate::Delivered { to: pod(&world, "b") })]);
    assert_eq!(told_of([224, 0, 0, 1]), []);
}

#[test]
fn of_a_packet_that_did_not_arrive_the_state_is_read_first() {
    let mut world = world();
    let mut follower = follower(&world);
    let at = BEGIN + FRESH;
    let late = at + SETTLED;
    let sent = vec![ping(&world, "a", (1, at))];
    assert_eq!(told(follower.round(&world, heard(sent, late))), None, "the state is of before");
    world.read_at = late;
    let (fates, untold) = told(follower.round(&world, heard(vec![], late))).expect("it is read now");
    assert_eq!((fates.len(), untold), (1, 0));
    assert!(!matches!(fates[0], Fate::Delivered { .. }), "{fates:?}");
}

#[test]
fn while_sights_are_lost_only_what_arrived_is_told() {
    let world = world();
    let mut follower = follower(&world);
    let at = BEGIN + MILLISECOND;
    let both = [ping(&world, "a", (1, at)), ping(&world, "b", (1, at + 1)), ping(&world, "a", (2, at + 2))];
    let lost = Heard { lost: 3, ..heard(both.into(), at + 3) };
    assert_eq!(told(follower.round(&world, lost)), Some((vec![], 0)));
    let ended = follower.round(&world, heard(vec![], at + 3 + SETTLED));
    assert_eq!(told(ended), Some((vec![Fate::Delivered { to: pod(&world, "b") }], 1)));
}

#[test]
fn what_comes_too_fast_is_left_out_and_counted() {
    let world = world();
    let mut follower = follower(&world);
    let many = u64::try_from(MOST_SIGHTS).expect("a number") + 1;
    let at = |n: u64| BEGIN + MILLISECOND + n;
    let all = (0..many).map(|n| ping(&world, "a", (u16::try_from(n).expect("a number"), at(n)))).collect();
    let round = follower.round(&world, Heard { unseen: 5, ..heard(all, at(many)) });
    assert_eq!(told(round), Some((vec![], many + 5)));
    // And what comes then is told again.
    let later = at(many) + 3 * SETTLED;
    let pings = vec![ping(&world, "a", (1, later)), ping(&world, "b", (1, later + 1))];
    follower.round(&world, heard(pings, later + 1));
    let ended = follower.round(&world, heard(vec![], later + 1 + DELIVERED));
    assert_eq!(told(ended).map(|(fates, untold)| (fates.len(), untold)), Some((1, 0)));
}

#[test]
fn over_tls_the_ingresses_of_the_host_are_told() {
    let more = "services: { tea: { selector: { app: tea }, ports: [{ port: 80 }] } }\ningresses:\n  cafe:\n    \
        rules:\n      - host: cafe.example.com\n        http:\n          paths:\n            \
        - { path: /tea, pathType: Prefix, backend: { service: { name: tea, port: { number: 80 } } } }\n";
    let text = format!("{LAB}{more}");
    let text = Text { name: "lab".into(), text, default_name: "lab".into(), ..Text::default() };
    let mut problems = Problems::default();
    let lab = crate::lab::resolve(&decode_text(&text), None, &mut problems).unwrap_or_else(|| panic!("{problems:?}"));
    assert_eq!(decides("TLS cafe.example.com", &lab).as_deref(), Some("ingress default/cafe"));
    assert_eq!(decides("TLS shop.example.com", &lab), None);
    let whole = decides("GET cafe.example.com/tea", &lab).expect("an ingress");
    assert!(whole.starts_with("ingress default/cafe, spec.rules[0].http.paths[0]"), "{whole}");
}
