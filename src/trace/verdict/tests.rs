use super::*;
use crate::trace::sample::{flow, host, packet, walked};

fn step(place: &str, what: What, means: Means) -> Step {
    Step { known_by: vec![means], ..walked(place, None, what) }
}

fn sent(number: u32, direction: Direction, kind: &str) -> Packet {
    let (from, to) = if direction == Direction::There { ("asker", "asked") } else { ("asked", "asker") };
    let steps = vec![step(from, What::Out, Means::Tap), step(to, What::In, Means::Tap)];
    Packet { number, direction, kind: kind.into(), fate: Fate::Delivered { to: host(to) }, ..packet(steps) }
}

fn there(number: u32, kind: &str) -> Packet {
    sent(number, Direction::There, kind)
}

fn back(number: u32, kind: &str) -> Packet {
    sent(number, Direction::Back, kind)
}

fn lost(packet: Packet, by: &str) -> Packet {
    let what = What::Dropped(Drop { cause: Cause::RuleDrop, by: by.into(), reason: None });
    let mut packet = Packet { fate: Fate::Dropped, ..packet };
    packet.steps[1] = step("asked", what, Means::Rules);
    packet
}

fn again(packet: Packet, of: u32) -> Packet {
    Packet { again: Some(of), ..packet }
}

/// The rule that is held to be the cause.
fn blamed(flows: &[Flow], failure: FailureName) -> Option<String> {
    dropped(&decisive(flows, Some(failure))).map(|blame| blame.object)
}

fn of_request(packets: Vec<Packet>) -> Option<String> {
    blamed(&[flow(Role::Request, packets)], FailureName::Timeout)
}

#[test]
fn a_rule_that_dropped_what_was_never_answered_is_the_cause() {
    let tries = vec![lost(there(1, "SYN"), "rule"), again(lost(there(2, "SYN"), "rule"), 1)];
    assert_eq!(of_request(tries).as_deref(), Some("rule"));
    let answer = vec![there(1, "SYN"), lost(back(2, "SYN-ACK"), "rule")];
    assert_eq!(of_request(answer).as_deref(), Some("rule"));
}

#[test]
fn a_connection_that_was_made_does_not_acquit_the_rule_that_dropped_the_data() {
    let made = || vec![there(1, "SYN"), back(2, "SYN-ACK"), there(3, "ACK")];
    let asked = [made(), vec![lost(there(4, "data, 78 bytes"), "rule"), back(5, "ACK")]].concat();
    assert_eq!(of_request(asked).as_deref(), Some("rule"));
    let answered =
        [made(), vec![there(4, "data, 78 bytes"), lost(back(5, "data, 9 bytes"), "rule"), back(6, "FIN")]].concat();
    assert_eq!(of_request(answered).as_deref(), Some("rule"));
}

#[test]
fn what_came_through_at_last_or_was_not_needed_is_no_cause() {
    let tried = vec![lost(there(1, "SYN"), "rule"), again(there(2, "SYN"), 1)];
    assert_eq!(of_request(tried), None);
    let closed = vec![
        there(1, "SYN"),
        back(2, "SYN-ACK"),
        there(3, "data, 78 bytes"),
        back(4, "data, 9 bytes"),
        lost(there(5, "FIN"), "rule"),
    ];
    assert_eq!(of_request(closed), None);
    let answered = vec![there(1, "SYN"), lost(there(2, "data, 78 bytes"), "rule"), back(3, "data, 9 bytes")];
    assert_eq!(of_request(answered), None);
    let copy = lost(there(2, &Packet::copy_of("SYN")), "rule");
    assert_eq!(of_request(vec![there(1, "SYN"), Packet { about: Some(1), ..copy }]), None);
}

#[test]
fn only_the_endpoint_that_a_proxy_asked_last_counts() {
    let request = || flow(Role::Request, vec![there(1, "SYN"), back(2, "SYN-ACK")]);
    let refused = || flow(Role::Proxied, vec![lost(there(3, "SYN"), "rule")]);
    let answers = || flow(Role::Proxied, vec![there(4, "SYN"), back(5, "SYN-ACK")]);
    assert_eq!(blamed(&[request(), refused(), answers()], FailureName::Protocol), None);
    assert_eq!(blamed(&[request(), answers(), refused()], FailureName::Protocol).as_deref(), Some("rule"));
}

#[test]
fn a_lookup_counts_where_the_name_was_not_to_be_had() {
    let lookup = || flow(Role::NameLookup, vec![lost(there(1, "query A a"), "rule")]);
    assert_eq!(blamed(&[lookup()], FailureName::Name).as_deref(), Some("rule"));
    assert_eq!(blamed(&[lookup(), flow(Role::Request, vec![there(2, "SYN")])], FailureName::Timeout), None);
}
