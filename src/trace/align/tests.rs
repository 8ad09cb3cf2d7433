use super::*;
use crate::lab::names::IfName;
use crate::trace::model::{Header, Protocol, Rewrite, Routed, Ruleset};
use crate::trace::packet::Essence;

fn host(name: &str) -> NsName {
    NsName::Host(HostName::try_from(name.to_owned()).expect("a name"))
}

fn header(source_port: u16) -> Header {
    Header {
        source: [10, 0, 0, 1].into(),
        destination: [10, 0, 0, 2].into(),
        protocol: Protocol::Tcp,
        source_port,
        destination_port: 80,
        ttl: 64,
        length: 60,
        dont_fragment: false,
        macs: None,
    }
}

fn step(place: &str, dev: Option<&str>, what: What) -> Step {
    Step {
        at: None,
        place: host(place),
        host: None,
        dev: dev.map(IfName::new),
        layer: 0,
        what,
        header: None,
        known_by: vec![Means::State],
        says: "walked".into(),
    }
}

fn rule(chain: &str, number: u32) -> RuleMet {
    RuleMet {
        of: Ruleset::Iptables,
        table: "filter".into(),
        chain: chain.into(),
        number,
        rule: "-j DROP".into(),
        verdict: "ACCEPT".into(),
        meaning: None,
    }
}

fn sight(at: u64, place: &str, dev: &str, outgoing: bool) -> Sight {
    Sight {
        at,
        place: host(place),
        dev: IfName::new(dev),
        outgoing,
        layer: 0,
        seen: header(4000),
        header: header(4000),
        identification: 0,
        vni: None,
        essence: Essence::Tcp { sequence: 1, acknowledged: 0, flags: 2, data: 0 },
        kind: "SYN".into(),
        about: None,
        marked: false,
        said: None,
        piece_of: None,
        stray: false,
    }
}

fn aligned(walked: &[Step], sights: &[Sight], hits: &[Hit]) -> (Aligned, Vec<String>) {
    let sights: Vec<&Sight> = sights.iter().collect();
    let way = Way { walked, sights: &sights, hits, begin: 10, host_of: &|_| None };
    let aligned = align(&way);
    let told = aligned.steps.iter().map(|s| {
        let what = match &s.what {
            What::In => "in".to_owned(),
            What::Out => "out".to_owned(),
            What::Rule(met) => format!("{} {}", met.chain, met.number),
            What::Dropped(drop) => format!("drop by {}", drop.by),
            other => format!("{other:?}"),
        };
        let dev = s.dev.as_ref().map(|d| format!(" {d}")).unwrap_or_default();
        format!("{}{dev} {what}{}", s.place, if s.is_inferred() { " ~" } else { "" })
    });
    let told = told.collect();
    (aligned, told)
}

fn walk() -> Vec<Step> {
    vec![
        step("a", Some("eth0"), What::Out),
        step("b", Some("veth"), What::In),
        step("b", None, What::Rule(rule("FORWARD", 1))),
        step("b", Some("eth0"), What::Out),
        step("c", Some("eth0"), What::In),
    ]
}

#[test]
fn what_was_seen_is_marked_and_what_lies_between_is_kept() {
    let sights = [sight(10, "a", "eth0", true), sight(12, "b", "veth", false), sight(15, "b", "eth0", true)];
    let (aligned, told) = aligned(&walk(), &sights, &[]);
    assert_eq!(told, ["a eth0 out", "b veth in", "b FORWARD 1 ~", "b eth0 out"]);
    assert_eq!((aligned.held, aligned.unforeseen, aligned.steps[1].at), (4, 0, Some(2)));
}

#[test]
fn a_device_that_was_passed_unseen_is_inferred() {
    let sights = [sight(10, "a", "eth0", true), sight(15, "b", "eth0", true), sight(16, "c", "eth0", false)];
    let (_, told) = aligned(&walk(), &sights, &[]);
    assert_eq!(told, ["a eth0 out", "b veth in ~", "b FORWARD 1 ~", "b eth0 out", "c eth0 in"]);
}

#[test]
fn where_the_walk_is_left_only_what_was_seen_counts() {
    let sights = [sight(10, "a", "eth0", true), sight(12, "b", "veth", false), sight(15, "b", "eth1", true)];
    let (aligned, told) = aligned(&walk(), &sights, &[]);
    assert_eq!(told, ["a eth0 out", "b veth in", "b FORWARD 1 ~", "b eth1 out"]);
    assert_eq!((aligned.held, aligned.unforeseen), (3, 1));
    let (aligned, told) = self::aligned(&walk(), &[sight(10, "x", "eth0", true)], &[]);
    assert_eq!((told, aligned.held), (vec!["x eth0 out".to_owned()], 0));
}

#[test]
fn a_route_that_what_was_seen_speaks_against_is_not_told() {
    let mut walked = walk();
    let route = Routed { route: "default".into(), via: None, dev: Some("eth0".into()) };
    walked.insert(2, step("b", None, What::Routed(route)));
    let mut sights = vec![sight(10, "a", "eth0", true), sight(12, "b", "veth", false), sight(15, "b", "eth1", true)];
    let (_, told) = aligned(&walked, &sights, &[]);
    assert_eq!(told, ["a eth0 out", "b veth in", "b eth1 out"]);
    sights.pop();
    assert_eq!(aligned(&walked, &sights, &[]).0.held, 4, "nothing speaks against it");
}

#[test]
fn rules_that_were_told_confirm_the_walk_or_add_to_it() {
    let sights = [sight(10, "a", "eth0", true), sight(12, "b", "veth", false)];
    let hit = |number, verdict: &str| Hit {
        place: host("b"),
        layer: 0,
        leaves: true,
        met: RuleMet { verdict: verdict.into(), ..rule("FORWARD", number) },
    };
    let (_, told) = aligned(&walk(), &sights, &[hit(1, "continue"), hit(7, "DROP")]);
    assert_eq!(told, ["a eth0 out", "b veth in", "b FORWARD 1", "b drop by -t filter -j DROP"]);
}

#[test]
fn behind_a_rule_that_lets_a_known_connection_through_the_walks_rules_were_not_met() {
    let mut walked = walk();
    walked.insert(3, step("b", None, What::Rule(rule("FLANNEL-FWD", 1))));
    walked.insert(5, step("c", None, What::Rule(rule("INPUT", 1))));
    let sights = [sight(10, "a", "eth0", true), sight(12, "b", "veth", false), sight(16, "c", "eth0", false)];
    let established = Hit { place: host("b"), layer: 0, leaves: true, met: rule("KUBE-FORWARD", 3) };
    let (_, told) = aligned(&walked, &sights, &[established]);
    let way = ["a eth0 out", "b veth in", "b KUBE-FORWARD 3", "b eth0 out ~"];
    assert_eq!(told[..4], way, "{told:?}");
    assert_eq!(told[4..], ["c INPUT 1 ~", "c eth0 in"], "there it told of none, and none is spoken against");
}

#[test]
fn a_rule_that_leads_the_same_way_stands_in_the_walks_place() {
    let jump = |number| RuleMet { verdict: "jump KUBE-SEP-A".into(), ..rule("KUBE-SVC-A", number) };
    let mut walked = walk();
    walked[2] = step("b", None, What::Rule(jump(5)));
    let sights = [sight(10, "a", "eth0", true), sight(12, "b", "veth", false), sight(15, "b", "eth0", true)];
    let (_, told) = aligned(&walked, &sights, &[Hit { place: host("b"), layer: 0, leaves: false, met: jump(2) }]);
    assert_eq!(told, ["a eth0 out", "b veth in", "b KUBE-SVC-A 2", "b eth0 out"]);
}

#[test]
fn a_rule_of_forwarding_comes_behind_all_that_took_the_packet_in() {
    let sights = [sight(12, "b", "veth", false), sight(13, "b", "cni0", false), sight(15, "b", "eth0", true)];
    let hit = |chain: &str| Hit { place: host("b"), layer: 0, leaves: chain == "POSTROUTING", met: rule(chain, 1) };
    let (_, told) = aligned(&[], &sights, &[hit("PREROUTING"), hit("FORWARD"), hit("POSTROUTING")]);
    assert_eq!(told, ["b veth in", "b PREROUTING 1", "b cni0 in", "b FORWARD 1", "b POSTROUTING 1", "b eth0 out"]);
    let (_, told) = aligned(&[], &[sight(12, "b", "eth0", true)], &[hit("OUTPUT")]);
    assert_eq!(told, ["b OUTPUT 1", "b eth0 out"]);
}

#[test]
fn a_rewrite_gets_the_port_that_was_really_chosen() {
    let rewritten =
        What::Rewritten { how: Rewrite::Source, before: Box::new(header(4000)), after: Box::new(header(1)) };
    let mut walked =
        [step("b", Some("veth"), What::In), step("b", None, rewritten), step("b", Some("eth0"), What::Out)];
    walked[0].header = Some(header(4000));
    walked[2].header = Some(header(1));
    walked[1].says = "becomes 10.0.0.1:1".into();
    let mut sights = [sight(10, "b", "veth", false), sight(12, "b", "eth0", true)];
    sights[1].seen = header(50_123);
    let (aligned, _) = aligned(&walked, &sights, &[]);
    let What::Rewritten { before, after, .. } = &aligned.steps[1].what else { panic!("no rewrite") };
    assert_eq!((before.source_port, after.source_port), (4000, 50_123));
    assert_eq!(aligned.steps[1].says, "becomes 10.0.0.1:50123");
}
