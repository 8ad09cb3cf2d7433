//! What bounds a trace: its lab's life, the daemon's memory, the length of a question.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use crate::harness::{Background, Bench, until};
use crate::{as_root, as_root_and_ordinary_user};

as_root_and_ordinary_user![
    a_trace_whose_lab_ends_says_so_and_so_does_who_follows,
    a_trace_ends_with_whoever_asked_for_it,
    the_daemon_is_small_again_after_a_trace_of_much,
];
as_root![a_question_for_a_trace_is_no_lab_file];

const LAB: &str = "hosts: { node1: {} }\npods:\n  a: { host: node1 }\n  b: { host: node1 }\n  \
                   c: { host: node1 }\n  d: { host: node1 }\n";

fn a_trace_whose_lab_ends_says_so_and_so_does_who_follows(bench: &Bench) {
    bench.up(&bench.write(LAB));
    bench.sh("node1", "iptables -I FORWARD -j DROP");
    let mut follows = Background::start(bench.labctl(&["trace", "--follow", "b"]));
    assert!(follows.line().contains("following b"));
    let asks = Background::start(bench.labctl(&["trace", "a", "b", "--icmp", "--timeout", "20"]));
    let dropped = || bench.sh("node1", "iptables -vnxL FORWARD 1");
    until("the question is dropped", || dropped().split_whitespace().next().is_some_and(|packets| packets != "0"));
    bench.ok(&["down"]);
    let said = |mut program: Background| {
        let code = program.end().code();
        let mut said = String::new();
        program.0.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
        (code, said)
    };
    let (code, error) = said(asks);
    assert!(code == Some(3) && error.contains("lab-gone") && error.contains(&bench.lab), "{code:?}: {error}");
    let (code, error) = said(follows);
    assert!(code == Some(0) && error.contains("has ended"), "{code:?}: {error}");
}

fn a_trace_ends_with_whoever_asked_for_it(bench: &Bench) {
    bench.up(&bench.write(LAB));
    bench.sh("node1", "iptables -I FORWARD -j DROP");
    let watches = || bench.sh("node1", "nft list tables").contains("labctl-trace-");
    // By itself it would last until every condition here has been given up.
    let mut asks = Background::start(bench.labctl(&["trace", "a", "b", "--icmp", "--timeout", "60"]));
    until("the rules' trace is on", watches);
    asks.0.kill().expect("a process");
    asks.0.wait().expect("an end");
    until("nobody watches any more", || !watches());
}

fn the_daemon_is_small_again_after_a_trace_of_much(bench: &Bench) {
    bench.up(&bench.write(LAB));
    // Nobody can say what this table makes of a packet, so everything is recorded.
    bench.sh("node1", "nft add table ip other");
    let memory = || bench.json(&["status"])["memory_kib"].as_u64().expect("a number");
    bench.run(&["trace", "a", "b"]).ends_with(0);
    let before = memory();
    let url = format!("http://{}:8080/bytes/100000000", bench.ip("d"));
    let line = format!("exec timeout 30 sh -c 'while curl -s {url} > /dev/null; do :; done'");
    let stream = Background::start(bench.labctl(&["exec", "c", "--", "sh", "-c", &line]));
    let received =
        || bench.sh("c", "cat /sys/class/net/eth0/statistics/rx_bytes").trim().parse::<u64>().expect("bytes");
    until("a stream flows", || received() > 10_000_000);
    // Each waits for its answer all the time.
    let words = ["trace", "a", "10.244.1.200", "--icmp", "--timeout", "8"];
    let all = [(); 3].map(|()| Background::start(bench.labctl(&words)));
    until("much is recorded", || memory() > before + 32 * 1024);
    let codes = all.map(|mut trace| trace.end().code());
    assert_eq!(codes, [Some(1); 3]);
    println!("{before} KiB before, {} KiB after", memory());
    drop(stream);
    until("what was needed is given back", || memory() < before + 20 * 1024);
}

fn a_question_for_a_trace_is_no_lab_file(bench: &Bench) {
    bench.up(&bench.write(LAB));
    let ask = |path: &str| {
        let socket = bench.runtime_dir().join(format!("{}.sock", bench.lab));
        let mut socket = UnixStream::connect(socket).expect("the control socket");
        let length = 3 << 20;
        let head = format!("POST /labctl/v1/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        write!(socket, "{head}Content-Length: {length}\r\n\r\n").expect("a reader");
        // It may answer and hang up before it has read all.
        let _ = socket.write_all(&vec![b' '; length]);
        let mut said = String::new();
        let _ = socket.read_to_string(&mut said);
        said
    };
    let said = ask("trace");
    assert!(said.contains("422") && said.contains("length limit exceeded"), "{said}");
    let said = ask("change");
    assert!(said.contains("422") && !said.contains("length limit exceeded"), "a lab's text may be that long: {said}");
}
