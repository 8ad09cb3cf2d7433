//! Rules that are not labctl's own and not iptables-nft's: somebody wrote them with `iptables-legacy` or `nft`. A trace
//! shows them where packets meet them, and names the one that drops with what it says.

use labctl::fault::Question;
use labctl::trace::model::{Cause, Direction, Fate, Fault, Means, Ruleset, Step, Trace, What};

use crate::as_root_and_ordinary_user;
use crate::broken::Broken;
use crate::harness::Bench;
use crate::pair::{LAB, at, nft, question, tool, with_services};

as_root_and_ordinary_user![
    a_rule_of_iptables_legacy_that_drops_is_named,
    rules_of_iptables_legacy_are_shown_where_a_packet_met_them,
    a_policy_of_iptables_legacy_in_a_pod_is_named,
    a_trace_leaves_iptables_legacy_and_its_log_as_they_were,
    a_rule_of_a_table_of_nft_that_drops_is_named,
    a_rule_of_nft_that_drops_what_a_pod_sends_is_named,
    a_rule_of_nft_that_drops_what_comes_to_a_pod_is_named,
    a_rule_of_whoever_was_asked_that_drops_the_answer_is_named,
    a_rule_of_nft_that_rejects_is_named,
    a_rule_of_nft_at_a_device_is_named,
    a_rule_of_nft_on_a_bridge_is_named,
];

/// Rules of xtables. Its lock is where root alone may write.
fn legacy(bench: &Bench, target: &str, line: &str) -> String {
    let lock = bench.path("xtables.lock");
    tool(bench, target, &format!("export XTABLES_LOCKFILE={}; {line}", lock.display()))
}

/// A table `t` with a chain `c` that filters.
fn filter(bench: &Bench, target: &str, family: &str, (hook, rule): (&str, &str)) {
    nft(bench, target, family, ("filter", hook, rule));
}

/// The steps of the first packet.
fn first(trace: &Trace) -> &[Step] {
    let first = trace.flows.first().and_then(|f| f.packets.first());
    &first.unwrap_or_else(|| panic!("no packet: {trace:#?}")).steps
}

/// That a trace names what drops a packet: the cause, the place and the object, in the verdict and as the packet's
/// last step, which was seen; and that `labctl trace --why` says so.
fn is_named(broken: &Broken, question: &Question, (cause, place, object): (Cause, &str, &str)) {
    let trace = broken.trace(question);
    let fault = trace.verdict.fault.as_ref().unwrap_or_else(|| panic!("no fault: {:#?}", trace.verdict));
    assert_eq!((fault.cause, &fault.place, fault.object.as_str()), (cause, &at(place), object), "{trace:#?}");
    assert!(trace.verdict.says.contains(object), "{}", trace.verdict.says);
    assert!(fault.evidence.iter().any(|line| line.contains(object)), "{fault:#?}");
    let packet = &trace.flows[0].packets[0];
    let last = packet.steps.last().expect("a step");
    let What::Dropped(drop) = &last.what else { panic!("{last:#?}") };
    assert_eq!((packet.direction, &packet.fate, drop.by.as_str()), (Direction::There, &Fate::Dropped, object));
    assert!(last.known_by.contains(&Means::Rules) && last.place == at(place), "{last:#?}");
    let words = question.typed();
    let mut args = vec!["trace", "--why", "--timeout", "1"];
    args.extend(words.iter().map(String::as_str));
    let told = broken.bench.run(&args).stdout;
    // Lines are folded.
    let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains(object), "{told}");
    is_mended(broken, question, fault);
}

/// That what is named first takes away the rule alone, and that this suffices.
fn is_mended(broken: &Broken, question: &Question, fault: &Fault) {
    let commands: Vec<&str> = fault.remedy.iter().filter_map(|r| r.command.as_deref()).collect();
    assert!(commands.len() == 2 && commands[1].starts_with("labctl up "), "{commands:?}");
    let tool = ["nft delete rule ", "nft 'chain ", "iptables-legacy -t "].iter().any(|t| commands[0].contains(t));
    assert!(tool, "{commands:?}");
    broken.mend(fault).unwrap_or_else(|e| panic!("{e}"));
    broken.is_answered(question);
}

fn a_rule_of_iptables_legacy_that_drops_is_named(bench: &Bench) {
    let broken = with_services(bench);
    legacy(
        bench,
        "node2",
        "iptables-legacy -A FORWARD -p udp -j ACCEPT; iptables-legacy -A FORWARD -p tcp --dport 8080 -j DROP",
    );
    let object = "iptables-legacy -t filter -A FORWARD -p tcp -m tcp --dport 8080 -j DROP";
    is_named(&broken, &question("b1"), (Cause::RuleDrop, "host/node2", object));
}

fn rules_of_iptables_legacy_are_shown_where_a_packet_met_them(bench: &Bench) {
    let broken = with_services(bench);
    legacy(
        bench,
        "node1",
        "iptables-legacy -N MINE; iptables-legacy -A FORWARD -p tcp -j MINE
         iptables-legacy -A MINE -p tcp --dport 8080 -j ACCEPT; iptables-legacy -t raw -A PREROUTING -s 10.244.1.20",
    );
    let trace = broken.is_answered(&question("b1"));
    let steps = first(&trace);
    let met = |s: &Step| match &s.what {
        What::Rule(met) if met.of == Ruleset::IptablesLegacy => {
            Some(format!("{} {} {} {}", met.table, met.number, met.rule, met.verdict))
        }
        _ => None,
    };
    let expected = [
        "raw 1 -A PREROUTING -s 10.244.1.20/32 continue",
        "filter 1 -A FORWARD -p tcp -j MINE jump MINE",
        "filter 1 -A MINE -p tcp -m tcp --dport 8080 -j ACCEPT ACCEPT",
    ];
    assert_eq!(steps.iter().filter_map(met).collect::<Vec<_>>(), expected, "{steps:#?}");
    assert!(steps.iter().filter(|s| met(s).is_some()).all(|s| s.place == at("host/node1") && !s.is_inferred()));
    // Those of the chain FORWARD come behind the route.
    let routed = steps.iter().position(|s| s.place == at("host/node1") && matches!(s.what, What::Routed(_)));
    let forward = steps.iter().position(|s| met(s).is_some_and(|m| m.contains("FORWARD")));
    assert!(routed.is_some() && routed < forward, "{steps:#?}");
    assert!(trace.verdict.fault.is_none() && trace.notes.iter().all(|n| !n.contains("legacy")), "{:?}", trace.notes);
}

fn a_policy_of_iptables_legacy_in_a_pod_is_named(bench: &Bench) {
    let broken = with_services(bench);
    legacy(bench, "b1", "iptables-legacy -P INPUT DROP");
    let trace = broken.trace(&question("b1"));
    let fault = trace.verdict.fault.unwrap_or_else(|| panic!("no fault: {}", trace.verdict.says));
    let object = "iptables-legacy -t filter -P INPUT DROP";
    let found = (fault.cause, &fault.place, fault.object.as_str());
    assert_eq!(found, (Cause::PolicyDrop, &at("pod/default/b1"), object), "{fault:#?}");
    is_mended(&broken, &question("b1"), &fault);
}

fn a_trace_leaves_iptables_legacy_and_its_log_as_they_were(bench: &Bench) {
    let probes = "probes: [{ name: over, from: a1, ping: b1 }]\n";
    let broken = Broken::of_text(bench, &format!("{LAB}{probes}"));
    let ping = Question::ping(at("pod/default/a1"), "b1");
    broken.is_answered(&ping);
    legacy(bench, "node1", "iptables-legacy -A FORWARD -p icmp -j ACCEPT; iptables-legacy -A OUTPUT -p icmp -j ACCEPT");
    let state = || {
        let kept = "iptables-legacy-save | grep -v '^[#:]'; nft list tables; cat /proc/sys/net/netfilter/nf_log/2";
        legacy(bench, "node1", kept)
    };
    // Packets alone: a trace and a probe may send of different lengths.
    let count = || {
        let counted = legacy(bench, "node1", "iptables-legacy-save -c | grep 'A FORWARD'; iptables-legacy -Z");
        counted.split([':', '[']).nth(1).and_then(|n| n.parse::<u32>().ok()).unwrap_or_else(|| panic!("{counted}"))
    };
    let before = state();
    count();
    bench.ok(&["probe", "over"]);
    let asked = count();
    assert!(broken.trace(&ping).asked.answered);
    let traced = count();
    assert_eq!((traced, state()), (asked, before));
    assert_eq!(traced, 2, "there and back");
}

fn a_rule_of_a_table_of_nft_that_drops_is_named(bench: &Bench) {
    let broken = with_services(bench);
    filter(bench, "node1", "inet", ("forward priority 0", "tcp dport 8080 drop"));
    let object = "table inet t, chain c: tcp dport 8080 drop";
    is_named(&broken, &question("b1"), (Cause::RuleDrop, "host/node1", object));
}

fn a_rule_of_nft_that_drops_what_a_pod_sends_is_named(bench: &Bench) {
    let broken = with_services(bench);
    filter(bench, "a1", "ip", ("output priority 0", "ip daddr 10.244.2.20 drop"));
    let object = "table ip t, chain c: ip daddr 10.244.2.20 drop";
    is_named(&broken, &question("b1"), (Cause::RuleDrop, "pod/default/a1", object));
}

fn a_rule_of_nft_that_drops_what_comes_to_a_pod_is_named(bench: &Bench) {
    let broken = with_services(bench);
    filter(bench, "b1", "inet", ("input priority 0; policy drop", "ct state established accept"));
    let object = "table inet t, chain c: type filter hook input priority filter; policy drop;";
    is_named(&broken, &question("b1"), (Cause::PolicyDrop, "pod/default/b1", object));
}

fn a_rule_of_whoever_was_asked_that_drops_the_answer_is_named(bench: &Bench) {
    let broken = with_services(bench);
    let named = |object: &str| {
        let trace = broken.trace(&question("b1"));
        let fault = trace.verdict.fault.as_ref().unwrap_or_else(|| panic!("no fault: {:#?}", trace.verdict));
        let found = (fault.cause, &fault.place, fault.object.as_str());
        assert_eq!(found, (Cause::RuleDrop, &at("pod/default/b1"), object), "{trace:#?}");
        assert!(fault.evidence.iter().any(|line| line.ends_with(&format!("`{object}` dropped it"))), "{fault:#?}");
        assert_eq!(trace.flows[0].packets[0].fate, Fate::Delivered { to: at("pod/default/b1") });
        broken.mend(fault).unwrap_or_else(|e| panic!("{e}"));
        broken.is_answered(&question("b1"));
    };
    let rule = "OUTPUT -p tcp -m tcp --sport 8080 --tcp-flags SYN,ACK SYN,ACK -j DROP";
    tool(bench, "b1", &format!("iptables -A {rule}"));
    named(&format!("-t filter -A {rule}"));
    filter(bench, "b1", "inet", ("output priority 0", "tcp sport 8080 drop"));
    named("table inet t, chain c: tcp sport 8080 drop");
}

fn a_rule_of_nft_that_rejects_is_named(bench: &Bench) {
    let broken = with_services(bench);
    filter(bench, "node2", "inet", ("forward priority 0", "tcp dport 8080 reject with icmp port-unreachable"));
    let object = "table inet t, chain c: tcp dport 8080 reject with icmp port-unreachable";
    is_named(&broken, &question("b1"), (Cause::RuleReject, "host/node2", object));
}

fn a_rule_of_nft_at_a_device_is_named(bench: &Bench) {
    let broken = with_services(bench);
    filter(bench, "node2", "netdev", ("ingress device eth0 priority 0", "udp dport 8472 drop"));
    let object = "table netdev t, chain c: udp dport 8472 drop";
    is_named(&broken, &question("b1"), (Cause::RuleDrop, "host/node2", object));
}

fn a_rule_of_nft_on_a_bridge_is_named(bench: &Bench) {
    let broken = with_services(bench);
    filter(bench, "node1", "bridge", ("forward priority 0", "tcp dport 8080 drop"));
    let object = "table bridge t, chain c: tcp dport 8080 drop";
    is_named(&broken, &question("a2"), (Cause::RuleDrop, "host/node1", object));
}
