//! Traces as text and as sequence diagrams, as they look; and what must be told whatever they look like.

use labctl::trace::model::{Fate, RuleMet, Step, Trace, Translation, What};
use labctl::trace::show::{Style, mermaid, text};

use super::{SAMPLES, sample};

const NARROW: Style = Style { width: 80, colour: false, why: false, wide: false, reply: true };

fn looks(how: &str, draw: impl Fn(&Trace) -> String) {
    for name in SAMPLES {
        insta::assert_snapshot!(format!("{name}_{how}"), draw(&sample(name)));
    }
}

#[test]
fn text_at_80_columns() {
    looks("80", |trace| text(trace, &NARROW));
}

#[test]
fn text_at_140_columns() {
    looks("140", |trace| text(trace, &Style { width: 140, ..NARROW }));
}

#[test]
fn wide_text_tells_everything() {
    looks("wide", |trace| text(trace, &Style { width: 140, wide: true, ..NARROW }));
}

#[test]
fn text_with_why() {
    looks("why", |trace| text(trace, &Style { why: true, ..NARROW }));
}

#[test]
fn sequence_diagrams() {
    looks("mermaid", mermaid);
}

/// Without blanks: however it was broken into lines.
fn pressed(text: &str) -> String {
    text.split_whitespace().collect()
}

fn steps(trace: &Trace) -> impl Iterator<Item = &Step> {
    trace.flows.iter().flat_map(|f| &f.packets).flat_map(|p| &p.steps)
}

fn rules(trace: &Trace) -> Vec<&RuleMet> {
    let rules = steps(trace).filter_map(|s| match &s.what {
        What::Rule(rule) => Some(rule),
        _ => None,
    });
    rules.collect()
}

#[test]
fn wide_text_has_each_rule_of_the_first_packet_complete() {
    let trace = sample("cluster-ip");
    let text = pressed(&text(&trace, &Style { wide: true, ..NARROW }));
    for rule in rules(&trace) {
        assert!(text.contains(&pressed(&rule.rule)), "{} is missing", rule.rule);
    }
}

#[test]
fn narrow_text_has_each_rule_that_rewrites_or_takes_complete() {
    let trace = sample("ingress");
    let text = pressed(&text(&trace, &NARROW));
    let deciding = rules(&trace).into_iter().filter(|r| ["ACCEPT", "DNAT", "MASQUERADE"].contains(&r.verdict.as_str()));
    for rule in deciding.filter(|r| r.number > 0) {
        assert!(text.contains(&pressed(&rule.rule)), "{} is missing", rule.rule);
    }
}

#[test]
fn colour_changes_nothing_but_colour() {
    for name in SAMPLES {
        let trace = sample(name);
        let plain = text(&trace, &NARROW);
        let painted = text(&trace, &Style { colour: true, ..NARROW });
        assert_ne!(painted, plain);
        assert_eq!(anstream::adapter::strip_str(&painted).to_string(), plain);
    }
}

#[test]
fn the_verdict_is_red_where_there_is_a_fault_and_green_where_there_is_none() {
    let verdict = |name| {
        let text = text(&sample(name), &Style { colour: true, width: 200, ..NARROW });
        text.lines().skip_while(|l| !l.contains("Verdict")).nth(1).expect("a verdict").to_owned()
    };
    assert!(verdict("missing-route").contains("\u{1b}[31m"), "{:?}", verdict("missing-route"));
    assert!(verdict("cluster-ip").contains("\u{1b}[32m"), "{:?}", verdict("cluster-ip"));
}

#[test]
fn a_packet_that_went_another_way_is_told_from_where_it_parts() {
    let mut trace = sample("cluster-ip");
    let packet = &mut trace.flows[0].packets[3];
    // It leaves node1 and is never seen again.
    let end = packet.steps.iter().position(|s| s.place.path() == "router").expect("the router");
    packet.steps.truncate(end);
    packet.fate = Fate::Lost;
    let text = text(&trace, &NARROW);
    let told = text.split("── There: packet 4").nth(1).expect("packet 4 is told");
    assert!(told.contains("As packet 1 at first. Then:\n"), "{text}");
    let end = "It was seen last on node1 at eth0, and nothing tells of its end.";
    assert!(pressed(told).contains(&pressed(end)), "{text}");
    let told = told.split("\n\n").next().unwrap_or_default();
    assert!(!told.contains("tea-1, pod on node1"), "{told}");
}

#[test]
fn tries_again_are_one_line() {
    let text = text(&sample("missing-route"), &NARROW);
    assert_eq!(text.matches("── There: packet").count(), 1, "{text}");
    let tries =
        "2 more tries took the way of packet 1, to the same end: packet 3 after 1.024 s; packet 4 after 3.073 s";
    assert!(pressed(&text).contains(&pressed(tries)), "{text}");
}

#[test]
fn an_icmp_error_names_the_packet_that_it_tells_of() {
    let text = text(&sample("too-big"), &Style { width: 140, ..NARROW });
    let heading = "packet 2, destination unreachable: fragmentation needed, MTU 1450 (tells of packet 1, echo request";
    assert!(text.contains(heading), "{text}");
}

#[test]
fn a_pings_identifier_is_no_port() {
    let mut trace = sample("flannel-udp");
    let flow = &mut trace.flows[0];
    (flow.source.port, flow.destination.port) = (3126, 3126);
    let tuple = (flow.source.clone(), flow.destination.clone());
    let place = flow.packets[0].steps[0].place.clone();
    flow.translations = vec![Translation { place, reply: (tuple.1.clone(), tuple.0.clone()), original: tuple }];
    let text = text(&trace, &Style { width: 140, ..NARROW });
    assert!(text.contains("Request over icmp: a1 (10.244.1.2) to b1 (10.244.2.2)"), "{text}");
    assert!(text.contains("an answer 10.244.2.2 > 10.244.1.2 identifier 3126 stays as it is"), "{text}");
    assert!(!text.contains(":3126"), "{text}");
}

#[test]
fn a_prediction_says_so_and_marks_no_step() {
    let mut trace = sample("flannel-udp");
    trace.means = vec![labctl::trace::model::Means::Plan];
    for step in trace.flows.iter_mut().flat_map(|f| &mut f.packets).flat_map(|p| &mut p.steps) {
        step.known_by = vec![labctl::trace::model::Means::Plan];
    }
    let text = text(&trace, &NARROW);
    assert!(text.contains("predicted, nothing was sent"), "{text}");
    assert!(text.contains("expected: ") && !text.contains("seen: "), "{text}");
    assert!(!text.contains('~'), "{text}");
}

#[test]
fn the_way_back_is_told_by_its_devices_unless_all_of_it_is_wanted() {
    let trace = sample("cluster-ip");
    let (short, whole) = (text(&trace, &Style { reply: false, ..NARROW }), text(&trace, &NARROW));
    let back = |text: &str| text[text.find("── Back").expect("a way back")..].to_owned();
    let (short, whole) = (back(&short), back(&whole));
    assert!(whole.contains("route") && whole.contains("FORWARD"), "{whole}");
    assert!(!short.contains("route ") && !short.contains("FORWARD"), "{short}");
    for device in ["flannel.1", "cni0", "eth0", "conntrack"] {
        assert!(short.contains(device), "no {device}: {short}");
    }
    assert!(short.contains("--reply"), "{short}");
}
