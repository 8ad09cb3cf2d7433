//! Where a trace says that a packet leaves the predicted way: there where it was seen to, also where the state that
//! was read back shows nothing.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::as_root_and_ordinary_user;
use crate::harness::Bench;
use crate::trace_proxied::traced;

as_root_and_ordinary_user![
    a_packet_that_is_led_elsewhere_parts_where_it_was_seen_to,
    a_packet_that_vanishes_parts_where_it_was_seen_last,
    an_answer_that_takes_another_way_is_told,
    a_healthy_lab_has_no_parting,
    of_several_next_hops_the_one_that_was_taken_is_told_and_is_no_parting,
];

const TWO: &str = "hosts: { node1: {}, node2: {} }\n\
                   pods: { a: { host: node1 }, b: { host: node2, ports: [8080] } }\n";

/// The parting of a question of `a`'s to `b`.
fn parting(bench: &Bench) -> (String, String, Value) {
    let trace = traced(bench, &["a", "b", "--tcp", "--port", "8080"]);
    let word = |which: &str| trace["parting"][which].as_str().unwrap_or_default().to_owned();
    (word("predicted"), word("observed"), trace)
}

/// A rule of the routing policy that labctl does not understand.
const ELSEWHERE: &str =
    "ip route add default via $(ip route show default | cut -d ' ' -f 3) dev eth0 table 100 && ip rule add ipproto tcp";

fn a_packet_that_is_led_elsewhere_parts_where_it_was_seen_to(bench: &Bench) {
    bench.up(&bench.write(TWO));
    bench.sh("node1", &format!("{ELSEWHERE} dport 8080 lookup 100"));
    let (predicted, observed, trace) = parting(bench);
    assert_eq!((predicted.as_str(), observed.as_str()), ("node1: it leaves by flannel.1", "node1: leaves by eth0"));
    // What was seen speaks against that route.
    let steps = trace["flows"][0]["packets"][0]["steps"].to_string();
    assert!(!steps.contains("dev flannel.1 onlink"), "{steps}");
}

fn a_packet_that_vanishes_parts_where_it_was_seen_last(bench: &Bench) {
    bench.up(&bench.write(TWO));
    // So little may leave at once that nothing does.
    bench.sh("node1", "tc qdisc add dev flannel.1 root tbf rate 1kbit burst 10 limit 10");
    let (predicted, observed, trace) = parting(bench);
    assert_eq!(
        (predicted.as_str(), observed.as_str()),
        ("node1: it leaves by flannel.1", "nothing more is seen of it"),
        "{trace:#}"
    );
}

fn an_answer_that_takes_another_way_is_told(bench: &Bench) {
    bench.up(&bench.write(TWO));
    bench.sh("node2", &format!("{ELSEWHERE} sport 8080 lookup 100"));
    let (predicted, observed, trace) = parting(bench);
    assert_eq!((predicted.as_str(), observed.as_str()), ("node2: it leaves by flannel.1", "node2: leaves by eth0"));
    let back = trace["flows"][0]["packets"].as_array().into_iter().flatten().find(|p| p["direction"] == "back");
    assert_eq!(back.expect("an answer")["number"], trace["parting"]["packet"]);
}

/// Under this policy the router routes over both hosts.
const BALANCED: &str = "hosts: { node1: { address: 192.168.1.11 }, node2: { address: 192.168.1.12 } }\n\
    clients: { laptop: {} }\n\
    pods: { a: { host: node1, labels: { app: web }, ports: [8080] }, b: { host: node2, labels: { app: web }, ports: [8080] } }\n\
    services: { web: { type: LoadBalancer, externalTrafficPolicy: Local, selector: { app: web }, ports: [{ port: 80, targetPort: 8080 }] } }\n";

fn of_several_next_hops_the_one_that_was_taken_is_told_and_is_no_parting(bench: &Bench) {
    bench.up(&bench.write(BALANCED));
    let mut taken = BTreeSet::new();
    // Each connection has a port of its own, by which the router chooses, too.
    for _ in 0..20 {
        let trace = traced(bench, &["laptop", "web", "--tcp"]);
        assert!(trace["asked"]["answered"] == true && trace["parting"].is_null(), "{:#}", trace["parting"]);
        let first = &trace["flows"][0]["packets"][0];
        let host = if first["fate"]["to"] == "pod/default/a" { "192.168.1.11" } else { "192.168.1.12" };
        let led = format!("router passes it on to {host} ");
        let mut words = first["steps"].as_array().into_iter().flatten().filter_map(|s| s["says"].as_str());
        assert!(words.any(|says| says.starts_with(&led)), "{first:#}");
        taken.insert(host);
    }
    assert_eq!(taken.len(), 2, "both hosts are chosen");
}

fn a_healthy_lab_has_no_parting(bench: &Bench) {
    bench.up(&bench.write(TWO));
    let (.., trace) = parting(bench);
    assert!(trace["asked"]["answered"] == true && trace["parting"].is_null(), "{:#}", trace["parting"]);
}
