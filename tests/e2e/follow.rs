//! `labctl trace --follow`: what a machine really sends and gets is told packet by packet, and nothing stays
//! behind, however it ends.

use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::as_root_and_ordinary_user;
use crate::harness::process::signal;
use crate::harness::{Background, Bench, Ran, until};
use crate::sample::FOUR_PODS;

as_root_and_ordinary_user![
    a_request_of_another_program_is_told_in_order_and_once,
    the_program_that_sent_a_packet_is_named_to_root,
    a_line_says_the_way_of_a_new_flow,
    a_line_names_the_program_to_root,
    a_line_says_by_which_devices_a_packet_passes_a_host,
    a_packet_that_is_dropped_is_told_with_its_reason,
    what_passes_through_a_host_is_told_apart_from_the_hosts_own,
    a_capture_has_the_frames_of_the_packets_that_are_told,
    no_capture_is_written_to_a_terminal,
    a_pod_that_comes_is_seen,
    what_comes_too_fast_is_counted,
    nothing_stays_when_the_client_is_killed,
    it_ends_with_its_time_and_with_the_lab,
    whom_nobody_knows_is_not_followed,
];

/// A machine that is followed, told as JSON.
struct Follow(Background);

impl Follow {
    fn start(bench: &Bench, machine: &str) -> Follow {
        let words = ["trace", "--follow", machine, "-o", "json", "--timeout", "60"];
        let mut follow = Follow(Background::start(bench.labctl(&words)));
        let first = follow.next();
        assert_eq!(first["event"], "following", "{first}");
        follow
    }

    /// The next line; null at the end.
    fn next(&mut self) -> Value {
        let line = self.0.line();
        if line.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"))
        }
    }

    /// The packets up to the one that is wanted, with it.
    #[track_caller]
    fn until(&mut self, mut wanted: impl FnMut(&Value) -> bool) -> Vec<Value> {
        let mut all = Vec::new();
        loop {
            let line = self.next();
            assert!(!line.is_null(), "it ended before what is waited for came: {all:#?}");
            let found = wanted(&line);
            all.push(line);
            if found {
                return all;
            }
        }
    }
}

fn kind(told: &Value) -> &str {
    told["packet"]["kind"].as_str().unwrap_or_default()
}

/// The machines at which a packet was seen, in their order.
fn places(told: &Value) -> Vec<&str> {
    let steps = told["packet"]["steps"].as_array().expect("steps");
    let seen = |s: &&Value| s["knownBy"].as_array().is_some_and(|all| all.iter().any(|m| m == "tap"));
    let mut all: Vec<&str> = steps.iter().filter(seen).filter_map(|s| s["place"].as_str()).collect();
    all.dedup();
    all
}

fn a_request_of_another_program_is_told_in_order_and_once(bench: &Bench) {
    bench.up(&bench.write(FOUR_PODS));
    let address = bench.ip("b1");
    let mut follow = Follow::start(bench, "a1");
    bench.sh("a1", &format!("curl -sS http://{address}:8080/tea"));
    let mut ends = 0;
    let mut told = Vec::new();
    while ends < 2 {
        told.extend(follow.until(|line| kind(line).starts_with("FIN")));
        ends += 1;
    }
    let way: Vec<(&str, &str)> =
        told.iter().map(|t| (t["packet"]["direction"].as_str().unwrap_or_default(), kind(t))).collect();
    assert_eq!(way[..3], [("there", "SYN"), ("back", "SYN-ACK"), ("there", "ACK")], "{way:?}");
    assert_eq!(way.iter().filter(|(_, kind)| kind.starts_with("SYN")).count(), 2, "{way:?}");
    let said: Vec<&str> = told.iter().filter_map(|t| t["said"].as_str()).collect();
    assert_eq!(said, [&format!("GET {address}:8080/tea"), "HTTP 200 OK"]);
    for (n, one) in (1..).zip(&told) {
        let packet = &one["packet"];
        assert_eq!((&one["flow"], &one["first"]), (&1.into(), &(n == 1).into()), "{one}");
        assert_eq!((&packet["number"], &packet["again"]), (&n.into(), &Value::Null), "{one}");
        assert_eq!(packet["fate"]["how"], "delivered", "{one:#}");
    }
    let times: Vec<u64> =
        told.iter().filter_map(|t| t["packet"]["steps"].as_array()?.iter().find_map(|s| s["at"].as_u64())).collect();
    assert!(times.len() == told.len() && times.is_sorted(), "{times:?}");
    let whole = ["pod/default/a1", "host/node1", "router", "host/node2", "pod/default/b1"];
    assert_eq!(places(&told[0]), whole);
}

/// By whom a packet was sent, in a word and in a sentence.
fn sender(told: &Value) -> (&str, &str) {
    let first = &told["packet"]["steps"][0];
    (first["what"]["by"].as_str().unwrap_or_default(), first["says"].as_str().unwrap_or_default())
}

fn the_program_that_sent_a_packet_is_named_to_root(bench: &Bench) {
    bench.up(&bench.write(FOUR_PODS));
    let address = bench.ip("b1");
    // What waits for its next hop's address is sent by an interrupt.
    bench.sh("a1", &format!("ping -c 1 {address}"));
    let mut follow = Follow::start(bench, "a1");
    let named = |name: &'static str, said: &'static str, plain: &'static str| match bench.is_root() {
        true => (name, said),
        false => ("a program", plain),
    };
    // Where the kernel's records come too late nobody is named, and never anybody else.
    let mut ask = |line: &str, wanted: (&str, &str)| {
        let nobody = |(by, _): (&str, &str)| by.is_empty() || by == "a program" && wanted.0 != by;
        for _ in 0..10 {
            bench.sh("a1", line);
            let told = follow.until(|line| ["SYN-ACK", "echo reply"].contains(&kind(line)));
            let request = told.iter().rfind(|line| ["SYN", "echo request"].contains(&kind(line))).expect("a request");
            let answer = sender(&told[told.len() - 1]);
            assert!(["", "the answerer"].contains(&answer.0), "an interrupt answers: {answer:?}");
            if !nobody(sender(request)) {
                return assert_eq!(sender(request), wanted);
            }
        }
        panic!("nobody was named: {wanted:?}");
    };
    let curl = format!("curl -sS http://{address}:8080/tea");
    ask(&curl, named("curl", "curl (of a1) sends it: SYN", "a program of a1 sends it: SYN"));
    let plain = "a program of a1 sends it: echo request";
    ask(&format!("ping -c 1 {address}"), named("ping", "ping (of a1) sends it: echo request", plain));
}

fn a_line_says_the_way_of_a_new_flow(bench: &Bench) {
    bench.up(&bench.write(FOUR_PODS));
    let address = bench.ip("b1");
    let mut follow = Background::start(bench.labctl(&["trace", "--follow", "a1", "--timeout", "60"]));
    assert!(follow.line().starts_with("following a1 in lab"));
    bench.sh("a1", &format!("ping -c 1 {address}"));
    let mut line = follow.line();
    while line.starts_with("note: ") {
        line = follow.line();
    }
    let way = "a1 eth0 → node1 cni0, flannel.1 ⇒ node2 flannel.1, cni0 → b1 eth0; delivered to b1\n";
    assert!(line.contains("1 → echo request  a1 ") && line.ends_with(way), "{line}");
    let line = follow.line();
    assert!(line.ends_with("1 ← echo reply; delivered to a1\n"), "{line}");
}

fn a_packet_that_is_dropped_is_told_with_its_reason(bench: &Bench) {
    bench.up(&bench.write(FOUR_PODS));
    let address = bench.ip("b1");
    let mut follow = Follow::start(bench, "a1");
    bench.sh("node2", "iptables -I FORWARD -p icmp -j DROP");
    bench.exec("a1", &["ping", "-c", "1", "-W", "1", &address]).ends_with(1);
    let told = follow.until(|_| true);
    let packet = &told[0]["packet"];
    assert_eq!((kind(&told[0]), &packet["fate"]["how"]), ("echo request", &"dropped".into()), "{packet:#}");
    let last = packet["steps"].as_array().and_then(|s| s.last()).expect("a step");
    assert_eq!((&last["place"], &last["what"]["cause"]), (&"host/node2".into(), &"rule-drop".into()), "{last:#}");
    assert!(last["what"]["by"].as_str().is_some_and(|by| by.contains("FORWARD -p icmp -j DROP")), "{last:#}");
    // And what the destination is asked next is delivered again, as a packet of its own.
    bench.sh("node2", "iptables -D FORWARD -p icmp -j DROP");
    bench.sh("a1", &format!("ping -c 1 {address}"));
    let told = follow.until(|line| kind(line) == "echo reply");
    assert!(told.iter().all(|t| t["packet"]["fate"]["how"] == "delivered"), "{told:#?}");
}

fn what_passes_through_a_host_is_told_apart_from_the_hosts_own(bench: &Bench) {
    bench.up(&bench.write(FOUR_PODS));
    let mut follow = Follow::start(bench, "node1");
    bench.sh("a1", &format!("ping -c 1 {}", bench.ip("b1")));
    bench.sh("node1", &format!("curl -sS http://{}:8080/mine", bench.ip("b2")));
    let told = follow.until(|line| line["said"].as_str().is_some_and(|said| said.ends_with("/mine")));
    let names = |one: &Value| [one["source"]["name"].clone(), one["destination"]["name"].clone()];
    let (passing, own): (Vec<&Value>, Vec<&Value>) = told.iter().partition(|one| one["passing"] == true);
    let ways: Vec<_> = passing.iter().map(|one| (kind(one), names(one), &one["packet"]["fate"]["to"])).collect();
    let ends: [Value; 2] = ["a1".into(), "b1".into()];
    let [to, back] = ["pod/default/b1", "pod/default/a1"].map(Value::from);
    assert_eq!(ways, [("echo request", ends.clone(), &to), ("echo reply", ends, &back)]);
    assert!(!own.is_empty() && own.iter().all(|one| names(one).contains(&"node1".into())), "{own:#?}");
}

/// Lines of a machine that is followed, behind the notes.
struct Lines(Background);

impl Lines {
    fn start(bench: &Bench, machine: &str) -> Lines {
        let mut follow = Background::start(bench.labctl(&["trace", "--follow", machine, "--timeout", "60"]));
        assert!(follow.line().starts_with(&format!("following {machine} in lab")));
        Lines(follow)
    }

    /// The next one with these words.
    #[track_caller]
    fn with(&mut self, words: &str) -> String {
        loop {
            let line = self.0.line();
            assert!(!line.is_empty(), "it ended before a line with {words:?} came");
            if line.contains(words) {
                return line;
            }
        }
    }
}

fn a_line_says_by_which_devices_a_packet_passes_a_host(bench: &Bench) {
    bench.up(&bench.write(FOUR_PODS));
    let mut follow = Lines::start(bench, "node1");
    let (a1, b1) = (bench.ip("a1"), bench.ip("b1"));
    bench.sh("a1", &format!("ping -c 1 {b1}"));
    let line = follow.with("echo request");
    let ends = format!("  a1 {a1} to b1 {b1} over icmp, through node1 veth");
    assert!(line.contains(&ends) && line.ends_with(" → flannel.1; delivered to b1\n"), "{line}");
    let line = follow.with("echo reply");
    assert!(line.contains(" ← echo reply, through node1 flannel.1 → veth"), "{line}");
}

fn a_line_names_the_program_to_root(bench: &Bench) {
    bench.up(&bench.write(FOUR_PODS));
    let address = bench.ip("b1");
    // What waits for its next hop's address is sent by an interrupt.
    bench.sh("a1", &format!("ping -c 1 {address}"));
    let mut follow = Lines::start(bench, "a1");
    // Where the kernel's records come too late nobody is named.
    let named = (0..10).any(|_| {
        bench.sh("a1", &format!("curl -sS http://{address}:8080/tea"));
        follow.with("→ SYN").contains(" → SYN by curl  a1 ")
    });
    assert_eq!(named, bench.is_root());
}

/// What tshark reads of a capture that may still be written.
fn fields(bench: &Bench, file: &str) -> Vec<String> {
    let fields = ["frame.interface_name", "icmp.type", "frame.comment"];
    let mut words = vec!["-r", file, "-T", "fields", "-E", "separator=|"];
    words.extend(fields.iter().flat_map(|field| ["-e", field]));
    let output = bench.command("tshark").args(&words).output().expect("tshark");
    let read = Ran::from_output(&output, "tshark");
    read.stdout.lines().map(str::to_owned).collect()
}

fn a_capture_has_the_frames_of_the_packets_that_are_told(bench: &Bench) {
    bench.up(&bench.write(FOUR_PODS));
    let [to_file, to_other] =
        ["one.pcapng", "other.pcapng"].map(|name| bench.path(name).to_string_lossy().into_owned());
    let words = ["trace", "--follow", "a1", "-o", "pcapng", "--timeout", "60"];
    let other = std::fs::File::create(&to_other).expect("a file");
    let mut writing = [
        Background::start(bench.labctl(&[&words[..], &["--out", &to_file]].concat())),
        Background(bench.labctl(&words).stdout(other).spawn().expect("labctl")),
    ];
    for file in [&to_file, &to_other] {
        until("the capture has begun", || std::fs::metadata(file).is_ok_and(|file| file.len() > 0));
    }
    bench.sh("a2", &format!("ping -c 1 {}", bench.ip("b2")));
    bench.sh("a1", &format!("ping -c 1 {}", bench.ip("b1")));
    for (file, writing) in [&to_file, &to_other].into_iter().zip(&mut writing) {
        let is_told = |line: &String| line.starts_with("a1/eth0|0|");
        until("the reply is in the capture", || fields(bench, file).iter().any(is_told));
        let all = fields(bench, file);
        let way: Vec<&str> = all.iter().filter_map(|line| line.split('|').next()).collect();
        let end = way.iter().position(|dev| *dev == "b1/eth0").expect("the end of the first packet's way");
        assert!(way[0] == "a1/eth0" && way[..end].iter().any(|dev| dev.starts_with("router/")), "{all:#?}");
        assert!(all.iter().all(|line| !line.starts_with("a2/") && !line.starts_with("b2/")), "{all:#?}");
        assert!(all[0].contains("|packet 1, echo request; "), "{all:#?}");
        // It ends with its reader, and the file stays one that can be read.
        signal(writing.pid(), Signal::SIGTERM);
        writing.end();
        assert_eq!(fields(bench, file).len(), all.len());
    }
}

fn no_capture_is_written_to_a_terminal(bench: &Bench) {
    bench.up(&bench.write(FOUR_PODS));
    for words in [&["a1", "b1"][..], &["--follow", "a1"]] {
        let terminal = nix::pty::openpty(None, None).expect("a terminal");
        let mut command = bench.labctl(&[&["trace", "-o", "pcapng"], words].concat());
        let child = command.stdout(terminal.slave).stderr(Stdio::piped()).spawn().expect("labctl");
        let output = child.wait_with_output().expect("its end");
        Ran::from_output(&output, "trace -o pcapng").ends_with(2).says("--out FILE").says("| tshark");
    }
}

fn a_pod_that_comes_is_seen(bench: &Bench) {
    bench.up(&bench.write(FOUR_PODS));
    let mut follow = Follow::start(bench, "a1");
    let more = FOUR_PODS.replace("  b2: {", "  b3: { host: node2 }\n  b2: {");
    bench.ok(&["up", "--no-probes", &bench.write(&more)]);
    follow.until(|line| line["event"] == "changed");
    bench.sh("a1", &format!("ping -c 1 {}", bench.ip("b3")));
    let told = follow.until(|line| kind(line) == "echo reply");
    assert!(places(&told[0]).contains(&"pod/default/b3"), "{:#}", told[0]);
}

fn what_comes_too_fast_is_counted(bench: &Bench) {
    bench.up(&bench.write(FOUR_PODS));
    let mut follow = Follow::start(bench, "a1");
    let address = bench.ip("b1");
    let flood = format!(
        "use IO::Socket::INET; my $s = IO::Socket::INET->new(Proto => 'udp', PeerAddr => '{address}:9'); \
         for (1..20000) {{ $s->send(\"x$_\") }}"
    );
    bench.exec("a1", &["perl", "-e", &flood]);
    let mut untold = 0;
    follow.until(|line| {
        untold += line["packets"].as_u64().unwrap_or(0);
        untold > 10_000
    });
    // It goes on behind it.
    let pings = ["exec", "a1", "--", "ping", "-i", "0.2", &bench.ip("a2")];
    let _pings = Background::start(bench.labctl(&pings));
    follow.until(|line| kind(line) == "echo reply" && line["packet"]["fate"]["how"] == "delivered");
}

/// What of a recording is in the lab: packet sockets of a pod, and the table of nftables on its host.
fn watched(bench: &Bench) -> [bool; 2] {
    let sockets = bench.sh("a1", "cat /proc/net/packet").lines().count() > 1;
    [sockets, bench.sh("node1", "nft list tables").contains("labctl-trace")]
}

fn nothing_stays_when_the_client_is_killed(bench: &Bench) {
    bench.up(&bench.write(FOUR_PODS));
    let mut follow = Follow::start(bench, "a1");
    assert_eq!(watched(bench), [true, true]);
    signal(follow.0.pid(), Signal::SIGKILL);
    follow.0.end();
    until("no socket and no table is left", || watched(bench) == [false, false]);
    bench.is_as_planned();
}

fn it_ends_with_its_time_and_with_the_lab(bench: &Bench) {
    bench.up(&bench.write(FOUR_PODS));
    let said = bench.ok(&["trace", "--follow", "a1", "--timeout", "0.2"]);
    assert!(said.ends_with("the time is up\n"), "{said}");
    until("nothing is watched", || watched(bench) == [false, false]);
    let mut follow = Follow::start(bench, "b1");
    bench.ok(&["down"]);
    assert!(follow.0.end().success());
    bench.nothing_lives();
}

fn whom_nobody_knows_is_not_followed(bench: &Bench) {
    bench.up(&bench.write(FOUR_PODS));
    bench.run(&["trace", "--follow", "a11"]).ends_with(2).says("did you mean");
    bench.run(&["trace", "--follow", "a1", "-o", "mermaid"]).ends_with(1).says("-o json");
}
