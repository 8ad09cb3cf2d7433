use super::*;
use crate::probe::{Kind, Verdict};
use crate::trace::model::Step;
use crate::trace::sample::{self, host, packet, sight};

#[test]
fn a_packet_is_the_questions_where_one_of_its_own_sockets_sent_it() {
    let tuple = sight(1, "a", "eth0", true).tuple();
    let port = tuple.source.1;
    assert!(is_own(&tuple, &[Used::Tcp(port + 1), Used::Tcp(port)]));
    assert!(!is_own(&tuple, &[Used::Tcp(port + 1)]));
    // Of its own protocol the question had no socket: the kernel refused at once.
    assert!(is_own(&tuple, &[]) && is_own(&tuple, &[Used::Udp(port + 1)]));
}

fn outcome(verdict: Verdict) -> Outcome {
    Outcome {
        name: String::new(),
        from: host("a"),
        kind: Kind::Tcp,
        target: String::new(),
        tried: Some("10.0.0.2:80".into()),
        verdict,
        expected: String::new(),
        observed: String::new(),
        tries: 1,
        took_ms: 0.0,
        details: crate::probe::Details::default(),
    }
}

/// What a reader is told of a recording that has lost reasons and could not ask for them.
fn told(fate: Fate, verdict: Verdict) -> Vec<String> {
    let lab = sample::lab("hosts: { a: {} }\n");
    let there = Plan { namespaces: Vec::new() };
    let recording = Recording { lost_reasons: 7, ..Recording::default() };
    let missing = [Missing { means: Means::DropReason, why: "no reasons".into(), places: Vec::new() }];
    let (origin, known) = (Origin::default(), Known::default());
    let material = Material {
        lab: &lab,
        planned: &there,
        there: &there,
        recording: &recording,
        known: &known,
        told: &[],
        sockets: &[],
        missing: &missing,
        origin: &origin,
    };
    let packet = super::super::model::Packet { fate, ..packet(Vec::<Step>::new()) };
    notes(&material, &[sample::flow(Role::Request, vec![packet])], &outcome(verdict))
}

#[test]
fn reasons_of_drops_are_missed_where_a_packet_was_dropped_and_nowhere_else() {
    let delivered = Fate::Delivered { to: host("b") };
    assert_eq!(told(delivered, Verdict::Passed), [""; 0]);
    let missed = told(Fate::Dropped, Verdict::Differed);
    assert!(missed.len() == 2 && missed[0].contains("may be missing") && missed[1] == "no reasons", "{missed:?}");
}
