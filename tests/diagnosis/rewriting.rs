//! Rules of nobody's plan that translate: a trace goes on with the ends that a packet really has, says which rule gave
//! it those, who answered in place of whom, and what takes away a rule that keeps the answer away.

use labctl::fault::Question;
use labctl::trace::model::{Cause, Direction, Fate, Fault, Header, Means, Packet, Rewrite, Step, Trace, What};

use crate::as_root_and_ordinary_user;
use crate::broken::Broken;
use crate::harness::Bench;
use crate::pair::{at, nft, question, tool, with_services};

as_root_and_ordinary_user![
    behind_a_rule_of_nft_that_gives_another_destination_the_way_is_that_of_the_new_one,
    a_destination_that_is_rewritten_on_a_bridge_leads_into_the_tunnel,
    what_a_pods_own_rule_rewrites_is_told_before_it_leaves,
    a_source_that_a_rule_of_nft_gives_is_known_there_and_back,
    a_port_that_a_rule_of_nft_gives_is_known_in_the_pod_itself,
    a_rule_of_iptables_legacy_that_translates_is_named_beside_iptables_own,
    a_rule_that_leads_to_nobody_is_the_cause_and_is_taken_away,
    a_rule_that_gives_a_source_without_a_way_back_is_the_cause_and_is_taken_away,
    a_source_that_leads_answers_back_is_not_blamed_for_a_fault_elsewhere,
    a_rule_of_iptables_that_leads_to_nobody_is_the_cause_and_is_taken_away,
    nothing_is_inferred_behind_a_rule_that_translates_to_what_nobody_told,
];

const BEFORE_ROUTING: &str = "prerouting priority dstnat";
const BEHIND_ROUTING: &str = "postrouting priority srcnat";

fn first(trace: &Trace, direction: Direction) -> &Packet {
    let packets = trace.flows.first().map(|f| f.packets.as_slice()).unwrap_or_default();
    packets.iter().find(|p| p.direction == direction).unwrap_or_else(|| panic!("no packet: {trace:#?}"))
}

fn goes_to(header: &Header, ip: &str) -> bool {
    header.destination == ip.parse::<std::net::IpAddr>().expect("an address")
}

/// The step at which a packet was rewritten: told by connection tracking alone, in a machine and behind the rule that
/// did it.
fn rewritten<'t>(packet: &'t Packet, place: &str, rule: &str) -> (usize, &'t Header, &'t Header) {
    let found = packet.steps.iter().enumerate().find_map(|(n, step)| match &step.what {
        What::Rewritten { before, after, .. } => Some((n, step, before, after)),
        _ => None,
    });
    let (n, step, before, after) = found.unwrap_or_else(|| panic!("no rewriting: {packet:#?}"));
    assert_eq!((&step.place, step.known_by.as_slice()), (&at(place), &[Means::Conntrack][..]), "{packet:#?}");
    assert!(step.says.ends_with(", by rule 1 of c in ip t"), "{}", step.says);
    let What::Rule(met) = &packet.steps[n - 1].what else { panic!("{packet:#?}") };
    assert_eq!((met.rule.as_str(), &packet.steps[n - 1].place), (rule, &at(place)));
    (n, before, after)
}

/// Every device was foreseen: a tap saw it where the state has it.
fn is_foreseen(packet: &Packet) {
    let is_device = |s: &&Step| matches!(s.what, What::In | What::Out);
    let both = |s: &Step| [Means::Tap, Means::State].iter().all(|means| s.known_by.contains(means));
    let strange: Vec<&Step> = packet.steps.iter().filter(is_device).filter(|s| !both(s)).collect();
    assert!(strange.is_empty(), "{strange:#?}");
}

fn neighbours(steps: &[Step]) -> Vec<String> {
    let of = |s: &Step| if let What::Neighbour { ip, .. } = &s.what { Some(ip.to_string()) } else { None };
    steps.iter().filter_map(of).collect()
}

fn is_answered_by_another(trace: &Trace, (by, asked, rule, place): (&str, &str, &str, &str)) {
    let begin = format!("answered by {by}, not by {asked}, who was asked: `{rule}` in {place} rewrites the SYN");
    assert!(trace.verdict.says.starts_with(&begin), "{}", trace.verdict.says);
    assert!(trace.verdict.fault.is_none());
    let (there, back) = (first(trace, Direction::There), first(trace, Direction::Back));
    assert_eq!(there.fate, Fate::Delivered { to: at(&format!("pod/default/{by}")) });
    assert_eq!(back.steps.first().map(|s| s.place.to_string()).as_deref(), Some(by), "{back:#?}");
    assert_eq!(back.fate, Fate::Delivered { to: at("pod/default/a1") });
}

fn behind_a_rule_of_nft_that_gives_another_destination_the_way_is_that_of_the_new_one(bench: &Bench) {
    let broken = with_services(bench);
    broken.is_answered(&question("c1"));
    let rule = "ip daddr 10.244.2.20 tcp dport 8080 dnat to 10.244.2.21:8080";
    nft(bench, "node2", "ip", ("nat", BEFORE_ROUTING, rule));
    let trace = broken.is_answered(&question("b1"));
    let (there, back) = (first(&trace, Direction::There), first(&trace, Direction::Back));
    let (n, before, after) = rewritten(there, "host/node2", rule);
    assert!(goes_to(before, "10.244.2.20") && goes_to(after, "10.244.2.21"), "{there:#?}");
    // The rule comes behind the tunnel's end.
    let end = there.steps.iter().position(|s| matches!(s.what, What::Decapsulated { .. }));
    assert!(end.is_some_and(|end| end < n), "{there:#?}");
    assert_eq!(neighbours(&there.steps[n..]), ["10.244.2.21"]);
    // Rules of nat that come behind the one that decided were not asked.
    let is_nat = |s: &&Step| matches!(&s.what, What::Rule(met) if met.table == "nat" && met.chain == "PREROUTING");
    let behind_tunnel = there.steps.iter().filter(|s| s.place == at("host/node2") && s.layer == 0);
    assert_eq!(behind_tunnel.filter(is_nat).count(), 0, "{there:#?}");
    is_foreseen(there);
    is_foreseen(back);
    let remembered = |s: &&Step| matches!(s.what, What::Rewritten { how: Rewrite::Remembered, .. });
    assert_eq!(back.steps.iter().filter(remembered).map(|s| &s.place).collect::<Vec<_>>(), [&at("host/node2")]);
    let named = format!("table ip t, chain c: {rule}");
    is_answered_by_another(&trace, ("c1", "b1", &named, "node2"));
}

fn a_destination_that_is_rewritten_on_a_bridge_leads_into_the_tunnel(bench: &Bench) {
    let broken = with_services(bench);
    broken.is_answered(&question("a2"));
    let rule = "ip daddr 10.244.1.21 dnat to 10.244.2.20";
    nft(bench, "node1", "ip", ("nat", BEFORE_ROUTING, rule));
    let trace = broken.is_answered(&question("a2"));
    let there = first(&trace, Direction::There);
    let (n, ..) = rewritten(there, "host/node1", rule);
    let wrapped = there.steps[n..].iter().find_map(|s| match &s.what {
        What::Encapsulated { outer, entry: Some(entry), .. } => Some((outer.destination.to_string(), entry)),
        _ => None,
    });
    let (outer, entry) = wrapped.unwrap_or_else(|| panic!("no tunnel: {there:#?}"));
    assert_eq!(outer, "192.168.1.12");
    assert!(entry.contains("dst 192.168.1.12"), "{entry}");
    is_foreseen(there);
    is_answered_by_another(&trace, ("b1", "a2", &format!("table ip t, chain c: {rule}"), "node1"));
}

fn what_a_pods_own_rule_rewrites_is_told_before_it_leaves(bench: &Bench) {
    let broken = with_services(bench);
    let rule = "tcp dport 8080 dnat to 10.244.2.21";
    nft(bench, "a1", "ip", ("nat", "output priority -100", rule));
    let trace = broken.is_answered(&question("a2"));
    let there = first(&trace, Direction::There);
    let (n, ..) = rewritten(there, "pod/default/a1", rule);
    // It is routed anew with its new destination.
    let routed = |steps: &[Step]| steps.iter().filter(|s| matches!(s.what, What::Routed(_))).count();
    let out = there.steps.iter().position(|s| s.what == What::Out).expect("a device");
    assert_eq!((routed(&there.steps[..n]), routed(&there.steps[n..out])), (1, 1), "{there:#?}");
    is_foreseen(there);
    is_answered_by_another(&trace, ("c1", "a2", &format!("table ip t, chain c: {rule}"), "a1"));
}

fn a_source_that_a_rule_of_nft_gives_is_known_there_and_back(bench: &Bench) {
    let broken = with_services(bench);
    nft(bench, "node1", "ip", ("nat", BEHIND_ROUTING, "ip daddr 10.244.2.20 masquerade"));
    let trace = broken.is_answered(&question("b1"));
    let (there, back) = (first(&trace, Direction::There), first(&trace, Direction::Back));
    let (n, before, after) = rewritten(there, "host/node1", "ip daddr 10.244.2.20 masquerade");
    assert_ne!(before.source, after.source);
    let entry = &trace.flows[0].translations[0];
    assert_eq!((after.source, after.source_port), (entry.reply.1.ip, entry.reply.1.port), "{entry:#?}");
    // Behind forwarding, as chains there are.
    let is_forward = |s: &Step| matches!(&s.what, What::Rule(met) if met.chain == "FORWARD");
    assert!(
        there.steps[..n].iter().any(is_forward)
            && !there.steps[n..].iter().any(|s| s.place == at("host/node1") && is_forward(s))
    );
    is_foreseen(there);
    is_foreseen(back);
    assert!(trace.verdict.says.starts_with("delivered to b1"), "{}", trace.verdict.says);
}

fn a_port_that_a_rule_of_nft_gives_is_known_in_the_pod_itself(bench: &Bench) {
    let broken = with_services(bench);
    nft(bench, "b1", "ip", ("nat", BEFORE_ROUTING, "tcp dport 81 redirect to :8080"));
    let asked = Question::tcp(at("pod/default/a1"), "b1", 81);
    let trace = broken.is_answered(&asked);
    let (there, back) = (first(&trace, Direction::There), first(&trace, Direction::Back));
    let (_, before, after) = rewritten(there, "pod/default/b1", "tcp dport 81 redirect to :8080");
    assert_eq!((before.destination_port, after.destination_port), (81, 8080));
    let remembered = |s: &&Step| matches!(s.what, What::Rewritten { how: Rewrite::Remembered, .. });
    assert_eq!(back.steps.iter().filter(remembered).map(|s| &s.place).collect::<Vec<_>>(), [&at("pod/default/b1")]);
    is_foreseen(back);
}

fn a_rule_of_iptables_legacy_that_translates_is_named_beside_iptables_own(bench: &Bench) {
    let broken = with_services(bench);
    let rule = "PREROUTING -d 10.244.2.20/32 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.244.2.21";
    tool(bench, "node1", &format!("iptables-legacy -t nat -A {rule}"));
    let trace = broken.is_answered(&question("b1"));
    let there = first(&trace, Direction::There);
    let told = |s: &&Step| matches!(&s.what, What::Rewritten { .. }) && s.known_by.contains(&Means::Conntrack);
    assert_eq!(there.steps.iter().filter(told).map(|s| &s.place).collect::<Vec<_>>(), [&at("host/node1")]);
    is_foreseen(there);
    is_answered_by_another(&trace, ("c1", "b1", &format!("iptables-legacy -t nat -A {rule}"), "node1"));
}

/// That a rule is the cause, and that what is named first takes away it alone.
fn is_blamed(broken: &Broken, (question, place, object): (&Question, &str, &str)) -> Fault {
    let trace = broken.trace(question);
    let fault = trace.verdict.fault.as_ref().unwrap_or_else(|| panic!("no fault: {:#?}", trace.verdict));
    assert_eq!(
        (fault.cause, &fault.place, fault.object.as_str()),
        (Cause::Rewritten, &at(place), object),
        "{fault:#?}"
    );
    assert!(trace.verdict.says.contains(&format!("is rewritten by `{object}`")), "{}", trace.verdict.says);
    let told = format!("the kernel told that `{object}` rewrote it");
    assert!(fault.evidence.iter().any(|line| line.ends_with(&told)), "{fault:#?}");
    fault.clone()
}

fn a_rule_that_leads_to_nobody_is_the_cause_and_is_taken_away(bench: &Bench) {
    let broken = with_services(bench);
    let rule = "tcp dport 8080 dnat to 10.244.2.99";
    nft(bench, "node2", "ip", ("nat", BEFORE_ROUTING, &format!("tcp dport 9 accept\n{rule}")));
    let fault = is_blamed(&broken, (&question("b1"), "host/node2", &format!("table ip t, chain c: {rule}")));
    let commands: Vec<&str> = fault.remedy.iter().filter_map(|r| r.command.as_deref()).collect();
    assert_eq!(commands[0], "labctl exec node2 -- nft delete rule ip t c handle 3");
    assert!(commands[1].starts_with("labctl up ") && commands.len() == 2, "{commands:?}");
    broken.mend(&fault).unwrap_or_else(|e| panic!("{e}"));
    broken.is_answered(&question("b1"));
    assert!(tool(bench, "node2", "nft list table ip t").contains("tcp dport 9 accept"));
}

fn a_rule_that_gives_a_source_without_a_way_back_is_the_cause_and_is_taken_away(bench: &Bench) {
    let broken = with_services(bench);
    nft(bench, "node1", "ip", ("nat", BEHIND_ROUTING, "tcp dport 8080 snat to 198.51.100.9"));
    let object = "table ip t, chain c: tcp dport 8080 snat to 198.51.100.9";
    let fault = is_blamed(&broken, (&question("b1"), "host/node1", object));
    broken.mend(&fault).unwrap_or_else(|e| panic!("{e}"));
    broken.is_answered(&question("b1"));
}

fn a_source_that_leads_answers_back_is_not_blamed_for_a_fault_elsewhere(bench: &Bench) {
    let broken = with_services(bench);
    nft(bench, "node1", "ip", ("nat", BEHIND_ROUTING, "ip saddr 10.244.1.0/24 masquerade"));
    broken.is_answered(&question("b1"));
    tool(bench, "node2", "sysctl -w net.ipv4.ip_forward=0");
    let trace = broken.trace(&question("b1"));
    let fault = trace.verdict.fault.as_ref().unwrap_or_else(|| panic!("no fault: {}", trace.verdict.says));
    assert_eq!((fault.cause, &fault.place), (Cause::ForwardingOff, &at("host/node2")), "{fault:#?}");
}

fn a_rule_of_iptables_that_leads_to_nobody_is_the_cause_and_is_taken_away(bench: &Bench) {
    let broken = with_services(bench);
    let rule = "PREROUTING -d 10.244.2.20/32 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.244.2.99";
    tool(bench, "node2", &format!("iptables -t nat -A {rule}"));
    let fault = is_blamed(&broken, (&question("b1"), "host/node2", &format!("-t nat -A {rule}")));
    broken.mend(&fault).unwrap_or_else(|e| panic!("{e}"));
    broken.is_answered(&question("b1"));
}

fn nothing_is_inferred_behind_a_rule_that_translates_to_what_nobody_told(bench: &Bench) {
    let broken = with_services(bench);
    // Of a packet that is dropped where it is routed connection tracking tells nothing.
    tool(bench, "node2", "ip route add blackhole 198.51.100.7");
    nft(bench, "node2", "ip", ("nat", BEFORE_ROUTING, "tcp dport 8080 dnat to 198.51.100.7"));
    let object = "table ip t, chain c: tcp dport 8080 dnat to 198.51.100.7";
    let trace = broken.trace(&question("b1"));
    let there = first(&trace, Direction::There);
    let rule = there.steps.iter().position(|s| matches!(&s.what, What::Rule(met) if met.table == "ip t"));
    let rule = rule.unwrap_or_else(|| panic!("no rule: {there:#?}"));
    assert!(there.steps[rule..].iter().all(|s| !s.is_inferred()), "{:#?}", &there.steps[rule..]);
    let fault = is_blamed(&broken, (&question("b1"), "host/node2", object));
    broken.mend(&fault).unwrap_or_else(|e| panic!("{e}"));
    broken.is_answered(&question("b1"));
}
