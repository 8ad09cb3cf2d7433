//! What a recording leaves alone, how it ends, and how many it can be.

use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use labctl::kernel::ns::NetNs;
use labctl::kernel::record::{Options, Recorder, Seen, Spot};
use labctl::kernel::rulewatch::RuleWatch;
use labctl::kernel::tables;
use nix::time::{ClockId, clock_gettime};

use crate::as_root_and_in_a_user_namespace;
use crate::ground::{fresh, out, sh};
use crate::line::{Line, RIGHT, host, way};

as_root_and_in_a_user_namespace!(
    rules_and_what_they_count_are_the_same_with_a_recording,
    nothing_is_left_when_a_recording_ends,
    a_recording_is_no_change_of_rules_and_no_foreign_table,
    two_recordings_of_one_namespace_both_see,
    two_hundred_namespaces_are_recorded_soon,
    what_is_lost_is_counted,
    whoever_asks_when_something_came_last_is_told_once_all_is_read,
);

const RULES: &str = "iptables-nft -A FORWARD -p icmp -j ACCEPT
iptables-nft -t nat -A POSTROUTING -o east -j MASQUERADE
iptables-nft -t raw -A PREROUTING -p tcp -j DROP
nft add table ip other
nft add chain ip other c { type filter hook prerouting priority -400 \\; }
nft add rule ip other c counter";

fn one(netns: &NetNs) -> Vec<Spot> {
    vec![Spot { place: host("one"), netns: netns.clone() }]
}

fn rules_and_what_they_count_are_the_same_with_a_recording() {
    let line = Line::new();
    sh(&line.middle, RULES);
    let state = || out(&line.middle, "iptables-nft-save -c | grep -v '^#'") + &out(&line.middle, "nft list ruleset");
    let zero = || {
        sh(&line.middle, "for t in raw nat filter; do iptables-nft -t $t -Z; done\nnft flush chain ip other c");
        sh(&line.middle, "nft add rule ip other c counter");
    };
    zero();
    line.ping(RIGHT);
    let without = state();
    zero();
    let seen = line.record(&Options::default(), || line.ping(RIGHT));
    assert!(!seen.events.is_empty());
    assert_eq!(state(), without);
    assert!(without.contains("counter packets 2"), "{without}");
}

fn nothing_is_left_when_a_recording_ends() {
    let ns = fresh();
    let recorder = Recorder::open(&one(&ns), &Options::default()).expect("a recording");
    assert!(out(&ns, "nft list tables").contains("labctl-trace-0"));
    recorder.finish();
    assert_eq!(out(&ns, "nft list tables"), "");
    drop(Recorder::open(&one(&ns), &Options::default()).expect("a recording"));
    assert_eq!(out(&ns, "nft list tables"), "");
}

fn a_recording_is_no_change_of_rules_and_no_foreign_table() {
    let ns = fresh();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut watch = RuleWatch::open(&ns).expect("a watch");
        let recorder = Recorder::open(&one(&ns), &Options::default()).expect("a recording");
        assert_eq!(ns.run(tables::read).expect("the namespace").expect("tables").nft, []);
        recorder.finish();
        assert_eq!(watch.drain().expect("changes"), []);
        sh(&ns, "nft add table ip other");
        assert_eq!(watch.drain().expect("changes").len(), 1);
    });
}

fn two_recordings_of_one_namespace_both_see() {
    let line = Line::new();
    sh(&line.middle, "iptables-nft -A FORWARD -p icmp -j DROP");
    let mut first = None;
    let second = line.record(&Options::default(), || {
        first = Some(line.record(&Options::default(), || line.ping(RIGHT)));
    });
    let first = first.expect("a recording");
    assert_eq!(way(&first.events), way(&second.events));
    for seen in [&first, &second] {
        assert_eq!(crate::line::rules(&seen.events).len(), 1, "{:?}", seen.events);
    }
}

fn two_hundred_namespaces_are_recorded_soon() {
    let all: Vec<Spot> = (0..200).map(|i| Spot { place: host(&format!("n{i}")), netns: fresh() }).collect();
    let (started, busy) = (Instant::now(), busy());
    let recorder = Recorder::open(&all, &Options::default()).expect("a recording");
    let opened = started.elapsed();
    assert!(recorder.missing().iter().all(|m| m.places.is_empty()), "{:?}", recorder.missing());
    let recording = recorder.finish();
    let closed = started.elapsed() - opened;
    eprintln!("opened in {opened:?}, closed in {closed:?}; of the CPUs both took {:?}", self::busy() - busy);
    assert_eq!(recording.lost, 0);
    // Far more than it takes, for machines with other work: one after the other would be seconds.
    assert!(opened.as_secs_f64() < 2.0 && closed.as_secs_f64() < 2.0, "opened {opened:?}, closed {closed:?}");
}

/// What this process has taken of the CPUs.
fn busy() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).expect("a clock").into()
}

fn what_is_lost_is_counted() {
    const SENT: u64 = 3_000;
    let ns = fresh();
    let options = Options { snap: 0xffff, rules: false, conntrack: false, drops: false, ..Options::default() };
    let recorder = Recorder::open(&one(&ns), &options).expect("a recording");
    let socket = ns.run(|| UdpSocket::bind("127.0.0.1:4000")).expect("the namespace").expect("a socket");
    for _ in 0..SENT {
        socket.send_to(&[0; 60_000], "127.0.0.1:4000").expect("a packet");
    }
    let seen = recorder.finish();
    // Each leaves by the loopback device and comes in by it.
    assert_eq!(seen.events.len() as u64 + seen.lost, 2 * SENT);
    assert!(seen.lost > 0, "{} events of 60 KB were kept", seen.events.len());
}

fn whoever_asks_when_something_came_last_is_told_once_all_is_read() {
    const SENT: usize = 300;
    let ns = fresh();
    let recorder = Recorder::open(&one(&ns), &Options::default()).expect("a recording");
    let socket = ns.run(|| UdpSocket::bind("127.0.0.1:4000")).expect("the namespace").expect("a socket");
    for _ in 0..20 {
        for _ in 0..SENT {
            socket.send_to(&[0; 60], "127.0.0.1:4000").expect("a packet");
        }
        assert!(recorder.last_event().is_some());
        let frames = recorder.drain().iter().filter(|event| matches!(event.seen, Seen::Frame(_))).count();
        assert_eq!(frames, 2 * SENT);
    }
}

/// Set for the process that records and is killed.
const VICTIM: &str = "LABCTL_TEST_RECORDS";

#[test]
fn nothing_is_left_when_the_process_is_killed() {
    if std::env::var_os(VICTIM).is_some() {
        let here = NetNs::current().expect("a namespace");
        let _recorder = Recorder::open(&one(&here), &Options::default()).expect("a recording");
        println!("recording");
        // Until it is killed, or whoever started it has ended.
        let _ = std::io::stdin().read(&mut [0]);
        return;
    }
    crate::ground::as_root(|| {
        let ns = fresh();
        let mut command = Command::new(std::env::current_exe().expect("the test's own path"));
        command.args(["record_life::nothing_is_left_when_the_process_is_killed", "--exact", "--nocapture"]);
        command.env(VICTIM, "1").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = ns.run(|| command.spawn()).expect("the namespace").expect("the test itself");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let began = lines.any(|line| line.is_ok_and(|line| line.contains("recording")));
        assert!(began, "it never recorded");
        assert!(out(&ns, "nft list tables").contains("labctl-trace-0"));
        child.kill().expect("a process");
        child.wait().expect("its end");
        assert_eq!(out(&ns, "nft list ruleset"), "");
    });
}
