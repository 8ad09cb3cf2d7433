use super::*;
use crate::trace::model::{Means, Role};
use crate::trace::sample::{self, flow, walked};
use crate::trace::walk::{self, Choices, Probe, State, prediction};

/// What the plan has of a TCP connection between two pods; the second one listens on 8080 alone.
fn planned(port: u16) -> Exchange {
    let lab = sample::lab(
        "hosts: { node1: { podCIDR: 10.244.1.0/24 } }\n\
         pods: { a: { host: node1, address: 10.244.1.2 }, b: { host: node1, address: 10.244.1.3 } }\n",
    );
    let (plan, a) = (prediction(&lab), lab.pods[0].ns());
    let b = "10.244.1.3".parse().expect("an address");
    let probe = Probe::to(Protocol::Tcp, b, port);
    walk::exchange(&State::planned(&plan), &a, &probe, &Choices::First).expect("a way")
}

/// A packet that was seen to go as a path has it.
fn seen(path: &Path, direction: Direction) -> Packet {
    let mut packet = sample::packet(path.steps.clone());
    packet.steps.iter_mut().for_each(|s| s.known_by = vec![Means::Tap]);
    Packet { direction, kind: path.kind.clone(), fate: path.fate.clone(), ..packet }
}

fn parted(planned: Exchange, packets: Vec<Packet>) -> Option<Parting> {
    first(&[flow(Role::Request, packets)], &[(None, Some(planned))])
}

fn both(planned: &Exchange) -> Vec<Packet> {
    let back = planned.back.as_ref().expect("an answer");
    vec![seen(&planned.there, Direction::There), seen(back, Direction::Back)]
}

#[test]
fn a_packet_that_went_elsewhere_parts_from_the_plan_there() {
    let planned = planned(8080);
    assert_eq!(parted(planned.clone(), both(&planned)), None);
    let mut elsewhere = both(&planned);
    let at = elsewhere[0].steps.iter().position(|s| s.what == What::In).expect("a device");
    elsewhere[0].steps.truncate(at);
    elsewhere[0].steps.push(sample::tapped(1, "node9", "eth9", What::In));
    let parting = parted(planned, elsewhere).expect("a difference");
    assert!(parting.observed.starts_with("node9: "), "{parting:?}");
}

#[test]
fn a_connection_that_stood_before_is_not_compared_with_a_new_ones_beginning() {
    let planned = planned(8080);
    let mut stood = both(&planned);
    stood[0].kind = "data, 9 bytes".into();
    stood[0].steps.push(walked("node9", Some("eth9"), What::In));
    assert_eq!(parted(planned, stood), None);
}

#[test]
fn a_program_that_answers_listens_though_the_plan_knows_of_none() {
    let planned = planned(9999);
    let Some(What::Refused { .. }) = planned.there.steps.last().map(|s| &s.what) else { panic!("{planned:#?}") };
    let (mut there, mut back) = (seen(&planned.there, Direction::There), Vec::new());
    there.steps.pop();
    assert!(parted(planned.clone(), vec![there.clone()]).is_some(), "it is neither refused nor answered");
    back.push(Packet { kind: "SYN-ACK".into(), ..seen(planned.back.as_ref().expect("a refusal"), Direction::Back) });
    let parting = parted(planned, [vec![there], back].concat()).expect("another answer");
    assert!(parting.observed.ends_with("SYN-ACK"), "{parting:?}");
}

#[test]
fn an_answer_that_is_doubtful_is_not_missed() {
    let mut planned = planned(8080);
    let alone = vec![seen(&planned.there, Direction::There)];
    let parting = parted(planned.clone(), alone.clone()).expect("a difference");
    assert_eq!(parting.observed, "no answer is seen");
    planned.there.notes.push("nobody knows whether it is answered".into());
    assert_eq!(parted(planned, alone), None);
}
