//! A trace changes nothing: a healthy lab gets no fault, rules and what they count are the same as when the
//! question is asked without it, and whoever is killed in the middle leaves nothing.

use std::collections::BTreeMap;

use labctl::fault::Question;
use nix::sys::signal::Signal;

use crate::as_root_and_ordinary_user;
use crate::broken::Broken;
use crate::harness::process::{Tree, signal};
use crate::harness::{Background, Bench, until};

as_root_and_ordinary_user![
    a_healthy_lab_has_no_fault_whatever_is_asked,
    rules_count_the_same_with_a_trace_as_without,
    a_trace_that_is_killed_leaves_nothing,
    a_lab_that_is_killed_while_it_traces_leaves_nothing,
];

/// Services without the lab's own DNS pods, whose readiness is asked for all the time.
const LAB: &str = "
hosts: { node1: {}, node2: {} }
clients: { laptop: {} }
pods:
  a1: { host: node1, address: 10.244.1.20 }
  b1: { host: node2, address: 10.244.2.20, labels: { app: b }, ports: [8080] }
services:
  b-svc: { type: NodePort, clusterIP: 10.96.0.100, selector: { app: b }, ports: [{ port: 80, targetPort: 8080, nodePort: 30080 }] }
probes:
  - { name: ping, from: a1, ping: b1 }
  - { name: service, from: a1, tcp: '10.96.0.100:80' }
  - { name: node port, from: laptop, tcp: 'node1:30080' }
";
const HOSTS: [&str; 2] = ["node1", "node2"];

/// What traces of recordings are called in nf_tables.
const OURS: &str = "labctl-trace";

fn a_healthy_lab_has_no_fault_whatever_is_asked(bench: &Bench) {
    let broken = Broken::up(bench, "vxlan");
    let mut asked: Vec<Question> = broken.fitting().into_iter().map(|f| f.question).collect();
    asked.sort_by_key(Question::words);
    asked.dedup();
    assert!(asked.len() > 5);
    for question in asked {
        let trace = broken.is_answered(&question);
        assert!(trace.verdict.fault.is_none(), "{}: {:#?}", question.words(), trace.verdict);
        assert!(trace.parting.is_none(), "{}: {:#?}", question.words(), trace.parting);
    }
    bench.is_as_planned();
}

/// How many packets each rule of each host has counted.
type Counts = BTreeMap<(&'static str, String), u64>;

fn counted(bench: &Bench) -> Counts {
    let mut all = BTreeMap::new();
    for host in HOSTS {
        let mut table = String::new();
        for line in bench.sh(host, "iptables-save -c").lines() {
            if let Some(name) = line.strip_prefix('*') {
                name.clone_into(&mut table);
            }
            // `[packets:bytes] -A …`, and `:CHAIN POLICY [packets:bytes]`.
            let Some((before, rest)) = line.split_once('[') else { continue };
            let Some((count, after)) = rest.split_once(']') else { continue };
            let packets: u64 = count.split(':').next().and_then(|n| n.parse().ok()).expect("a count");
            *all.entry((host, format!("{table} {before}{after}"))).or_default() += packets;
        }
    }
    all
}

/// How much each rule counted while `work` was done.
fn counts_of(bench: &Bench, work: impl FnOnce()) -> Counts {
    let before = counted(bench);
    work();
    let after = counted(bench);
    assert!(before.keys().eq(after.keys()), "the rules are others: {before:#?}\n{after:#?}");
    after.into_iter().map(|(rule, n)| (rule.clone(), n - before[&rule])).collect()
}

fn rules_count_the_same_with_a_trace_as_without(bench: &Bench) {
    bench.up(&bench.write(LAB));
    let questions = [
        ("ping", vec!["trace", "a1", "b1", "--icmp"]),
        ("service", vec!["trace", "a1", "10.96.0.100:80", "--tcp"]),
        ("node port", vec!["trace", "laptop", "node1:30080", "--tcp"]),
    ];
    // Neighbours are learnt, and everything is loaded.
    bench.probes_pass();
    for (probe, trace) in questions {
        // How many packets acknowledge others is chance; which rules are met, and how often by a new connection, is not.
        let met = |counts: Counts| -> Counts {
            let exact = |rule: &str| rule.starts_with("nat ") || probe == "ping";
            counts
                .into_iter()
                .map(|((host, rule), n)| {
                    let n = if exact(&rule) { n } else { n.min(1) };
                    ((host, rule), n)
                })
                .collect()
        };
        // Hosts tell of their groups (IGMP) when they have just come up, and that is counted, too.
        until(&format!("{probe} is counted with a trace as without"), || {
            let without = met(counts_of(bench, || drop(bench.ok(&["probe", probe]))));
            let with = met(counts_of(bench, || drop(bench.ok(&trace))));
            assert!(without.values().any(|n| *n > 0), "{probe}: nothing was counted");
            let differ: Vec<_> = with.iter().filter(|(rule, n)| without[*rule] != **n).collect();
            if !differ.is_empty() {
                eprintln!("{probe}, with a trace: {differ:#?}");
            }
            differ.is_empty()
        });
    }
    bench.is_as_planned();
}

/// A trace of a question that nobody answers, in the middle of it.
fn in_the_middle(bench: &Bench) -> Background {
    let started = Background::start(bench.labctl(&["trace", "a1", "10.244.2.99", "--icmp", "--timeout", "25"]));
    until("the trace watches rules", || tables(bench).contains(OURS));
    started
}

fn tables(bench: &Bench) -> String {
    HOSTS.map(|host| bench.sh(host, "nft list tables")).concat()
}

fn rules(bench: &Bench) -> String {
    HOSTS.map(|host| bench.sh(host, "iptables-save | grep -v '^#'; nft -s list ruleset")).concat()
}

fn a_trace_that_is_killed_leaves_nothing(bench: &Bench) {
    bench.up(&bench.write(LAB));
    let before = rules(bench);
    let mut trace = in_the_middle(bench);
    // What watches is none of anybody's changes.
    bench.is_as_planned();
    signal(trace.pid(), Signal::SIGKILL);
    trace.end();
    until("nothing watches", || !tables(bench).contains(OURS));
    bench.is_as_planned();
    let without_counts = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split(" [").next().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(without_counts(&rules(bench)), without_counts(&before));
    bench.ok(&["trace", "a1", "b1", "--icmp"]);
}

fn a_lab_that_is_killed_while_it_traces_leaves_nothing(bench: &Bench) {
    let file = bench.write(LAB);
    bench.up(&file);
    let tree = Tree::of(bench.daemon());
    let mut trace = in_the_middle(bench);
    signal(bench.daemon(), Signal::SIGKILL);
    tree.must_end();
    assert!(!trace.end().success());
    bench.nothing_lives();
    // And the next lab finds nothing of it.
    bench.up(&file);
    assert!(!tables(bench).contains(OURS));
    bench.is_as_planned();
}
