use super::*;
use crate::lab::names::IfName;
use crate::trace::sample::{host, packet, recording, tapped, walked};

/// When the trace begins, and when a tap saw the packet after that.
const BEGIN: u64 = 1_000_000_000;
const SEEN: u64 = 5_000_000;

/// A SYN of a1 that a tap saw leave by eth0.
fn sent_by(by: &str) -> Packet {
    let sent = walked("a1", None, What::Sent { by: by.to_owned() });
    packet(vec![sent, tapped(SEEN, "a1", "eth0", What::Out)])
}

fn process(name: &str, at: &str) -> Sender {
    Sender::Process { name: name.to_owned(), place: host(at) }
}

/// A sending that is the packet's, by its time, device and length.
fn sent(by: Sender) -> Sending {
    let at = BEGIN + SEEN;
    Sending { between: (at - 3_000, at + 1_000), dev: IfName::new("eth0"), length: 74, by }
}

/// What is said of who sent it.
fn said(by: &str, told: Vec<Sending>) -> String {
    let event = |(n, sending): (u64, Sending)| Event {
        at: sending.between.1,
        sequence: n,
        place: None,
        seen: Seen::Sending(sending),
    };
    let recording = recording((0..).zip(told).map(event).collect());
    let mut packets = [sent_by(by)];
    mark(&mut packets, &recording, BEGIN);
    let first = &packets[0].steps[0];
    assert_eq!(first.known_by.contains(&Means::Process), !first.says.is_empty(), "{first:#?}");
    first.says.clone()
}

#[test]
fn a_packet_is_its_processs_and_labctls_own_is_sent_for_another() {
    assert_eq!(said(A_PROGRAM, vec![sent(process("curl", "a1"))]), "curl (of a1) sends it: SYN");
    assert_eq!(said(ANSWERER, vec![sent(process("coredns", "a1"))]), "coredns (of a1) answers: SYN");
    assert_eq!(said(A_PROGRAM, vec![sent(Sender::Daemon)]), "labctl sends it for a1: SYN");
}

#[test]
fn what_another_sent_at_about_that_time_is_not_it() {
    let curl = || sent(process("curl", "a1"));
    let at = BEGIN + SEEN;
    let early = Sending { between: (at - 90_000, at - 50_000), ..curl() };
    let late = Sending { between: (at + 50_000, at + 90_000), ..curl() };
    let longer = Sending { length: 75, ..curl() };
    let device = Sending { dev: IfName::new("eth1"), ..curl() };
    for other in [early, late, longer, device, sent(process("curl", "b1"))] {
        assert_eq!(said(A_PROGRAM, vec![other.clone()]), "", "{other:?}");
    }
    assert_eq!(said("the kernel", vec![curl()]), "", "what no program sends");
}

#[test]
fn where_two_fit_nobody_is_named() {
    let both = vec![sent(process("curl", "a1")), sent(process("wget", "a1"))];
    assert_eq!(said(A_PROGRAM, both), "");
    let twice = vec![sent(process("curl", "a1")), sent(process("curl", "a1"))];
    assert_eq!(said(A_PROGRAM, twice), "curl (of a1) sends it: SYN");
}
