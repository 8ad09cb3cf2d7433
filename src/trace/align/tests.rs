use super::*;
use crate::trace::model::{Cause, Drop, Header, Rewrite, Routed, Ruleset};
use crate::trace::sample::{header, host, sight, walked};

fn sent_from(source_port: u16) -> Header {
    Header { source_port, ..header() }
}

fn step(place: &str, dev: Option<&str>, what: What) -> Step {
    Step { says: "walked".into(), ..walked(place, dev, what) }
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

/// A rule that the packet met in `b`, with the ends that it is seen with.
fn hit(leaves: bool, met: RuleMet) -> Hit {
    Hit { place: host("b"), layer: 0, leaves, ends: Tuple::of(&header()), met }
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
    let hit = |number, verdict: &str| hit(true, RuleMet { verdict: verdict.into(), ..rule("FORWARD", number) });
    let (_, told) = aligned(&walk(), &sights, &[hit(1, "continue"), hit(7, "DROP")]);
    assert_eq!(told, ["a eth0 out", "b veth in", "b FORWARD 1", "b drop by -t filter -j DROP"]);
}

#[test]
fn behind_a_rule_that_lets_a_known_connection_through_the_walks_rules_were_not_met() {
    let mut walked = walk();
    walked.insert(3, step("b", None, What::Rule(rule("FLANNEL-FWD", 1))));
    walked.insert(5, step("c", None, What::Rule(rule("INPUT", 1))));
    let sights = [sight(10, "a", "eth0", true), sight(12, "b", "veth", false), sight(16, "c", "eth0", false)];
    let established = hit(true, rule("KUBE-FORWARD", 3));
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
    let (_, told) = aligned(&walked, &sights, &[hit(false, jump(2))]);
    assert_eq!(told, ["a eth0 out", "b veth in", "b KUBE-SVC-A 2", "b eth0 out"]);
}

#[test]
fn a_rule_of_forwarding_comes_behind_all_that_took_the_packet_in() {
    let sights = [sight(12, "b", "veth", false), sight(13, "b", "cni0", false), sight(15, "b", "eth0", true)];
    let hit = |chain: &str| hit(chain == "POSTROUTING", rule(chain, 1));
    let (_, told) = aligned(&[], &sights, &[hit("PREROUTING"), hit("FORWARD"), hit("POSTROUTING")]);
    assert_eq!(told, ["b veth in", "b PREROUTING 1", "b cni0 in", "b FORWARD 1", "b POSTROUTING 1", "b eth0 out"]);
    let (_, told) = aligned(&[], &[sight(12, "b", "eth0", true)], &[hit("OUTPUT")]);
    assert_eq!(told, ["b OUTPUT 1", "b eth0 out"]);
}

#[test]
fn a_rewrite_gets_the_port_that_was_really_chosen() {
    let rewritten =
        What::Rewritten { how: Rewrite::Source, before: Box::new(sent_from(4000)), after: Box::new(sent_from(1)) };
    let mut walked =
        [step("b", Some("veth"), What::In), step("b", None, rewritten), step("b", Some("eth0"), What::Out)];
    walked[0].header = Some(sent_from(4000));
    walked[2].header = Some(sent_from(1));
    walked[1].says = "becomes 10.0.0.1:1".into();
    let mut sights = [sight(10, "b", "veth", false), sight(12, "b", "eth0", true)];
    sights[1].seen = sent_from(50_123);
    let (aligned, _) = aligned(&walked, &sights, &[]);
    let What::Rewritten { before, after, .. } = &aligned.steps[1].what else { panic!("no rewrite") };
    assert_eq!((before.source_port, after.source_port), (4000, 50_123));
    assert_eq!(aligned.steps[1].says, "becomes 10.0.0.1:50123");
}

/// A rule of nf_tables that translates, and the header that it gives the packet.
fn dnat() -> (RuleMet, Header) {
    let rule = RuleMet {
        of: Ruleset::Nftables,
        table: "ip mine".into(),
        rule: "tcp dport 80 dnat to 10.0.0.9".into(),
        ..rule("c", 1)
    };
    (rule, Header { destination: [10, 0, 0, 9].into(), ..header() })
}

#[test]
fn a_rewrite_that_connection_tracking_told_comes_behind_the_rule_that_did_it_and_names_it() {
    let (met, after) = dnat();
    let what =
        What::Rewritten { how: Rewrite::Destination, before: Box::new(header()), after: Box::new(after.clone()) };
    let mut rewritten = step("b", None, what);
    rewritten.known_by = vec![Means::Conntrack];
    let route = What::Routed(Routed { route: "default".into(), via: None, dev: Some("eth0".into()) });
    let mut walked =
        vec![step("b", Some("veth"), What::In), rewritten, step("b", None, route), step("b", Some("eth0"), What::Out)];
    walked[3].header = Some(after.clone());
    let mut sights = [sight(12, "b", "veth", false), sight(15, "b", "eth0", true)];
    sights[1].seen = after;
    let (of_output, _) = aligned(&walked, &sights, &[hit(true, met.clone())]);
    let (of_prerouting, _) = aligned(&walked, &sights, &[hit(false, met.clone())]);
    for aligned in [of_output, of_prerouting] {
        assert!(matches!(&aligned.steps[1].what, What::Rule(other) if *other == met), "{:#?}", aligned.steps);
        assert_eq!(aligned.steps[2].says, "walked, by rule 1 of c in ip mine");
        assert_eq!((aligned.held, aligned.unforeseen), (4, 0));
    }
    let (aligned, _) = aligned(&walked, &sights, &[]);
    assert_eq!(aligned.steps[1].says, "walked, by a rule that was not told of");
}

#[test]
fn a_device_where_the_packet_has_other_addresses_is_none_of_the_walks() {
    let mut walked = walk();
    let route = Routed { route: "default".into(), via: None, dev: Some("eth0".into()) };
    walked.insert(2, step("b", None, What::Routed(route)));
    walked.iter_mut().for_each(|s| s.header = Some(header()));
    let mut sights = [sight(10, "a", "eth0", true), sight(12, "b", "veth", false), sight(15, "b", "eth0", true)];
    assert_eq!(aligned(&walked, &sights, &[]).0.unforeseen, 0);
    sights[2].seen = dnat().1;
    let (aligned, told) = aligned(&walked, &sights, &[]);
    assert_eq!((told, aligned.unforeseen), (["a eth0 out", "b veth in", "b eth0 out"].map(str::to_owned).into(), 1));
}

#[test]
fn behind_a_rule_that_translates_nothing_is_inferred_for_the_ends_before() {
    let route = What::Routed(Routed { route: "default".into(), via: None, dev: Some("eth0".into()) });
    let walked = [step("b", Some("veth"), What::In), step("b", None, route)];
    let sights = [sight(12, "b", "veth", false)];
    let (_, told) = aligned(&walked, &sights, &[hit(false, dnat().0)]);
    assert_eq!(told, ["b veth in", "b c 1"]);
    // One that was seen with the same ends was not translated.
    let mut walked = walked.to_vec();
    walked.push(step("b", Some("eth0"), What::Out));
    let sights = [sight(12, "b", "veth", false), sight(15, "b", "eth0", true)];
    let (aligned, _) = aligned(&walked, &sights, &[hit(false, dnat().0)]);
    assert_eq!(aligned.steps.len(), 4);
}

#[test]
fn a_drop_of_the_walk_is_seen_where_the_rule_that_drops_was_told() {
    let drop = Drop { cause: Cause::RuleDrop, by: "-t filter -j DROP".into(), reason: None };
    let mut walked = walk();
    walked[3] = step("b", None, What::Dropped(drop));
    let sights = [sight(10, "a", "eth0", true), sight(12, "b", "veth", false)];
    let met = |verdict: &str| hit(true, RuleMet { verdict: verdict.into(), ..rule("FORWARD", 1) });
    let (_, told) = aligned(&walked, &sights, &[met("DROP")]);
    assert_eq!(told[2..], ["b FORWARD 1", "b drop by -t filter -j DROP"]);
    let (_, told) = aligned(&walked, &sights, &[met("continue")]);
    assert_eq!(told[2..], ["b FORWARD 1", "b drop by -t filter -j DROP ~"]);
}

#[test]
fn a_rule_of_which_only_the_handle_is_known_has_rewritten_where_it_took_the_packet() {
    let (met, after) = dnat();
    let bare = |number, verdict: &str| {
        let what = What::Rule(RuleMet { rule: "handle 4".into(), verdict: verdict.into(), number, ..met.clone() });
        Step { known_by: vec![Means::Rules], ..step("b", None, what) }
    };
    let (before, after) = (Box::new(header()), Box::new(after));
    let rewritten = step("b", None, What::Rewritten { how: Rewrite::Destination, before, after });
    let steps = [bare(1, "ACCEPT"), bare(2, "continue"), rewritten.clone()];
    assert_eq!(who_rewrote(&steps, 2).map(|met| met.number), Some(1));
    assert_eq!(who_rewrote(&[bare(2, "continue"), rewritten], 1), None);
}

#[test]
fn of_a_packet_that_comes_by_twice_no_rule_is_left_out() {
    let ways =
        [("b", "veth", false), ("b", "eth0", true), ("c", "eth0", false), ("c", "eth0", true), ("b", "eth0", false)];
    let mut walked: Vec<Step> =
        ways.iter().map(|(place, dev, out)| step(place, Some(dev), if *out { What::Out } else { What::In })).collect();
    walked.insert(1, step("b", None, What::Rule(rule("PREROUTING", 1))));
    walked.push(step("b", None, What::Rule(rule("FORWARD", 1))));
    let sights: Vec<Sight> = (10..).zip(ways).map(|(at, (place, dev, out))| sight(at, place, dev, out)).collect();
    let met = [hit(false, rule("FORWARD", 1))];
    let (_, told) = aligned(&walked, &sights, &met);
    assert_eq!((told[1].as_str(), told[6].as_str()), ("b PREROUTING 1 ~", "b FORWARD 1"));
    // Where it comes once, what was not told of was not met.
    let (_, told) = aligned(&[&walked[..2], &walked[6..]].concat(), &sights[..1], &met);
    assert_eq!(told, ["b veth in", "b FORWARD 1"]);
}
