//! Traces beside other traffic: of others over the same bridge and through the same tunnel, of the same pair to
//! another port, and of other traces. Each must be as whole as without.

use labctl::trace::model::{Fate, Role, Trace};

use crate::as_root_and_ordinary_user;
use crate::harness::{Background, Bench, until};
use crate::labs::Written;
use crate::{sound, walked};

as_root_and_ordinary_user![
    a_trace_beside_a_stream_of_others_over_the_same_bridge_is_whole,
    a_trace_beside_a_stream_of_the_same_pair_through_the_tunnel_is_whole,
    two_traces_at_once_of_the_same_pair_do_not_mix,
];

const LAB: &str = "hosts:\n  node1: { address: 192.168.1.11, podCIDR: 10.244.1.0/24 }\n  \
    node2: { address: 192.168.1.12, podCIDR: 10.244.2.0/24 }\n\
    pods:\n  ask: { host: node1, ports: [8080, 9000] }\n  near: { host: node1, ports: [8080, 9000] }\n  \
    third: { host: node1 }\n  far: { host: node2, labels: { app: far }, ports: [8080, 9000] }\n\
    services:\n  far: { clusterIP: 10.96.0.100, selector: { app: far }, ports: [{ port: 80, targetPort: 8080 }] }\n";
/// So many traces are made while a stream flows.
const TRACES: usize = 4;

fn up(bench: &Bench) -> Written {
    let written = Written::new(&bench.lab, LAB.to_owned());
    bench.up(&bench.write(&written.text));
    written
}

/// A stream from port 9000 of a pod, as fast as it goes, for at most 20 s. It flows when this returns.
fn stream(bench: &Bench, to: &str, from: &str) -> Background {
    let url = format!("http://{}:9000/bytes/1073741824", bench.ip(from));
    let line = format!("exec timeout 20 sh -c 'while curl -s {url} > /dev/null; do :; done'");
    let stream = Background::start(bench.labctl(&["exec", to, "--", "sh", "-c", &line]));
    let taken = || bench.sh(to, "cat /sys/class/net/eth0/statistics/rx_bytes").trim().parse::<u64>().expect("a number");
    until("the stream flows", || taken() > 10_000_000);
    stream
}

/// The traces of one question, made one after the other; each must be whole.
#[track_caller]
fn are_whole(bench: &Bench, written: &Written, words: &[&str]) {
    for _ in 0..TRACES {
        let ran = bench.run(&[&["trace"], words, &["-o", "json"]].concat());
        let trace: Trace = serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran}"));
        let mut wrong = walked::differences(&trace, written);
        wrong.extend(sound::contradictions(&trace, &[]));
        wrong.extend(trace.notes.iter().filter(|note| note.contains("too fast")).cloned());
        if !trace.asked.answered {
            wrong.push(format!("it was not answered: {}", trace.asked.seen));
        }
        assert!(wrong.is_empty(), "{}\n{trace:#?}", wrong.join("\n"));
    }
}

fn a_trace_beside_a_stream_of_others_over_the_same_bridge_is_whole(bench: &Bench) {
    let written = up(bench);
    let _stream = stream(bench, "third", "near");
    are_whole(bench, &written, &["ask", "near", "--tcp", "--port", "8080"]);
    are_whole(bench, &written, &["ask", "10.96.0.100", "--http", "--port", "80"]);
}

fn a_trace_beside_a_stream_of_the_same_pair_through_the_tunnel_is_whole(bench: &Bench) {
    let written = up(bench);
    let _stream = stream(bench, "ask", "far");
    are_whole(bench, &written, &["ask", "10.96.0.100", "--http", "--port", "80"]);
    are_whole(bench, &written, &["ask", "far", "--icmp"]);
}

fn two_traces_at_once_of_the_same_pair_do_not_mix(bench: &Bench) {
    let written = up(bench);
    let words = ["trace", "ask", "10.96.0.100", "--tcp", "--port", "80", "-o", "json"];
    let both = [(); 2].map(|()| bench.labctl(&words));
    let both = both.map(|mut command| std::thread::spawn(move || command.output().expect("labctl")));
    let both =
        both.map(|ran| serde_json::from_slice::<Trace>(&ran.join().expect("an output").stdout).expect("a trace"));
    for trace in &both {
        let requests: Vec<_> = trace.flows.iter().filter(|f| f.role == Role::Request).collect();
        let [request] = &requests[..] else { panic!("{trace:#?}") };
        assert!(request.packets.iter().all(|p| matches!(p.fate, Fate::Delivered { .. })), "{trace:#?}");
        assert!(request.packets.iter().all(|p| p.again.is_none()), "the other's are no second tries: {trace:#?}");
        let wrong = walked::differences(trace, &written);
        assert!(wrong.is_empty(), "{}\n{trace:#?}", wrong.join("\n"));
    }
    let port = |trace: &Trace| trace.flows.iter().find(|f| f.role == Role::Request).map(|f| f.source.port);
    assert_ne!(port(&both[0]), port(&both[1]), "each has its own");
}
