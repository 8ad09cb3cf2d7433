//! Single questions whose trace is known beforehand: packets that are tried again, cut, put together, sent to
//! oneself or to everyone, and errors. Each trace must also pass what every random one must.

use std::thread;

use labctl::trace::model::{Fate, Flow, Packet, Role, Step, Trace, What};
use nix::sys::signal::Signal;

use crate::as_root;
use crate::capture::Capture;
use crate::frames;
use crate::harness::process::{Tree, signal};
use crate::harness::{Bench, Ran, until};
use crate::labs::Written;
use crate::questions::Question;
use crate::random::{judge, traced};

as_root![
    a_connection_that_nobody_answers_is_tried_again,
    fragments_belong_to_their_packet,
    a_large_answer_is_one_flow_without_strangers,
    a_pod_that_asks_its_own_service_sees_itself_through_the_bridge,
    a_host_that_asks_its_own_node_port_is_followed_from_before_the_translation,
    a_refusal_by_the_askers_own_rules_is_told_with_the_error,
    what_a_bridge_floods_is_told_as_copies,
    tries_that_wait_for_the_same_program_are_told_apart,
    a_name_is_looked_up_along_the_search_list,
    a_trace_of_ten_hosts_and_two_hundred_pods_is_quick,
];

const HOSTS: &str = "hosts:\n  node1: { address: 192.168.1.11, podCIDR: 10.244.1.0/24 }\n  \
                     node2: { address: 192.168.1.12, podCIDR: 10.244.2.0/24 }\nclients: { laptop: {} }\n";
const PODS: &str = "pods:\n  ask: { host: node1 }\n  near: { host: node1 }\n  third: { host: node1 }\n  \
                    far: { host: node2, labels: { app: far } }\n  self: { host: node1, labels: { app: self } }\n";
const SERVICES: &str = "services:\n  own: { clusterIP: 10.96.0.100, selector: { app: self }, ports: [{ port: 80, targetPort: 8080 }] }\n  \
     local: { type: NodePort, clusterIP: 10.96.0.101, externalTrafficPolicy: Local, selector: { app: far }, \
     ports: [{ port: 80, targetPort: 8080, nodePort: 30081 }] }\n  \
     open: { type: NodePort, clusterIP: 10.96.0.102, selector: { app: far }, \
     ports: [{ port: 80, targetPort: 8080, nodePort: 30080 }] }\n  \
     nobody: { clusterIP: 10.96.0.103, selector: { app: nobody }, ports: [{ port: 80 }] }\n";

/// A lab that runs and is recorded.
struct Running<'b> {
    bench: &'b Bench,
    written: Written,
    capture: Capture,
}

impl<'b> Running<'b> {
    fn new(bench: &'b Bench) -> Running<'b> {
        let written = Written::new(&bench.lab, [HOSTS, PODS, SERVICES].concat());
        bench.up(&bench.write(&written.text));
        let capture = Capture::start(bench, written.lab.namespaces());
        Running { bench, written, capture }
    }

    /// Ask, and judge as a random trace; what it says against the plan may be known.
    #[track_caller]
    fn trace(&self, from: &str, to: &str, options: &[&str]) -> Trace {
        let (trace, sightings) = self.ask(from, to, options);
        let wrong = judge(&trace, &sightings, &self.written);
        assert!(wrong.is_empty(), "{}\n{trace:#?}", wrong.join("\n"));
        trace
    }

    #[track_caller]
    fn ask(&self, from: &str, to: &str, options: &[&str]) -> (Trace, Vec<frames::Sighting>) {
        let question = Question::new(from, to, options);
        let found = traced(self.bench, &self.capture, &self.written, &question);
        found.unwrap_or_else(|ran| panic!("no trace: {ran}"))
    }
}

#[track_caller]
fn request(trace: &Trace) -> &Flow {
    let requests: Vec<&Flow> = trace.flows.iter().filter(|f| f.role == Role::Request).collect();
    assert!(requests.len() == 1, "one request: {trace:#?}");
    requests[0]
}

fn is_at(step: &&Step, place: &str, dev: &str) -> bool {
    step.place.to_string() == place && step.dev.as_ref().is_some_and(|d| d.as_str() == dev)
}

fn a_connection_that_nobody_answers_is_tried_again(bench: &Bench) {
    let lab = Running::new(bench);
    let trace = lab.trace("laptop", "node1", &["--tcp", "--port", "30081", "--timeout", "1.5"]);
    let packets = &request(&trace).packets;
    let tries: Vec<_> = packets.iter().map(|p| (p.kind.as_str(), p.again)).collect();
    assert_eq!(tries, [("SYN", None), ("SYN", Some(packets[0].number))]);
    assert!(packets.iter().all(|p| p.fate == Fate::Dropped), "{packets:#?}");
}

fn fragments_belong_to_their_packet(bench: &Bench) {
    let lab = Running::new(bench);
    let trace = lab.trace("ask", "far", &["--icmp", "--size", "4000", "--fragment"]);
    let packets = &request(&trace).packets;
    assert!(trace.asked.answered, "{trace:#?}");
    let kinds: Vec<_> = packets.iter().filter(|p| p.about.is_none()).map(|p| p.kind.as_str()).collect();
    assert_eq!(kinds, ["echo request", "echo reply"]);
    let first = packets[0].number;
    let pieces = packets.iter().filter(|p| p.about == Some(first)).count();
    assert_eq!(pieces, 2, "4000 bytes are three pieces where 1450 fit: {packets:#?}");
}

fn a_large_answer_is_one_flow_without_strangers(bench: &Bench) {
    let lab = Running::new(bench);
    let trace = lab.trace("ask", "http://far:8080/bytes/65536", &[]);
    assert!(trace.asked.answered, "{trace:#?}");
    let bytes = |p: &Packet| p.kind.strip_prefix("data, ").and_then(|k| k.strip_suffix(" bytes")?.parse::<u64>().ok());
    let back = request(&trace).packets.iter().filter(|p| p.direction == labctl::trace::model::Direction::Back);
    let sum: u64 = back.filter_map(bytes).sum();
    assert!(sum > 65_536, "the answer with its head has more than {sum} bytes: {trace:#?}");
}

fn a_pod_that_asks_its_own_service_sees_itself_through_the_bridge(bench: &Bench) {
    let lab = Running::new(bench);
    let trace = lab.trace("self", "10.96.0.100", &["--tcp", "--port", "80"]);
    let first = &request(&trace).packets[0];
    assert_eq!(first.fate, Fate::Delivered { to: trace.asked.from.clone() });
    let rewritten = first.steps.iter().filter(|s| matches!(s.what, What::Rewritten { .. })).count();
    assert_eq!(rewritten, 2, "destination and source: {first:#?}");
    assert!(trace.asked.answered, "{trace:#?}");
}

fn a_host_that_asks_its_own_node_port_is_followed_from_before_the_translation(bench: &Bench) {
    let lab = Running::new(bench);
    let trace = lab.trace("node1", "node1", &["--http", "--port", "30080"]);
    let flow = request(&trace);
    assert_eq!((flow.destination.ip.to_string().as_str(), flow.destination.port), ("192.168.1.11", 30_080));
    assert!(flow.packets[0].steps.iter().any(|s| matches!(s.what, What::Rewritten { .. })), "{trace:#?}");
    assert_eq!(trace.flows.len(), 1, "nobody asked anything else: {trace:#?}");
    let to_itself = lab.trace("ask", "ask", &["--tcp", "--port", "8080"]);
    assert!(request(&to_itself).packets[0].steps.iter().filter(|s| is_at(s, "ask", "lo")).count() == 2);
}

fn a_refusal_by_the_askers_own_rules_is_told_with_the_error(bench: &Bench) {
    let lab = Running::new(bench);
    let trace = lab.trace("node1", "10.96.0.103", &["--tcp", "--port", "80"]);
    let packets = &request(&trace).packets;
    assert_eq!(packets[0].kind, "SYN");
    assert_eq!(packets[1].kind, "destination unreachable: port");
    assert_eq!(packets[1].about, Some(packets[0].number));
}

fn what_a_bridge_floods_is_told_as_copies(bench: &Bench) {
    let lab = Running::new(bench);
    // Both know each other's MAC address, and the bridge has forgotten both.
    lab.trace("ask", "near", &["--icmp"]);
    let forgetful = || {
        bench.sh("node1", "bridge -j link | grep -q veth; ip link set cni0 type bridge fdb_flush");
        lab.ask("ask", "near", &["--icmp"])
    };
    // Any frame of a pod's own, such as one of IPv6, teaches the bridge its address anew before the question is asked.
    let has_copies = |trace: &Trace| request(trace).packets.iter().any(|p| p.about.is_some());
    let (trace, sightings) = (0..9).map(|_| forgetful()).find(|(trace, _)| has_copies(trace)).expect("a flood");
    let wrong = crate::seen::differences(&trace, &sightings);
    assert!(wrong.is_empty(), "{}\n{trace:#?}", wrong.join("\n"));
    let packets = &request(&trace).packets;
    let (first, copies): (Vec<_>, Vec<_>) = packets.iter().partition(|p| p.about.is_none());
    let ends: Vec<_> = first.iter().map(|p| (p.kind.as_str(), &p.fate)).collect();
    assert!(ends.iter().all(|(_, fate)| matches!(fate, Fate::Delivered { .. })), "{ends:?}");
    assert!(!copies.is_empty() && copies.iter().all(|p| p.kind.contains("copy")), "{copies:#?}");
    assert!(copies.iter().all(|p| p.about == Some(packets[0].number)), "{copies:#?}");
}

fn tries_that_wait_for_the_same_program_are_told_apart(bench: &Bench) {
    const UDP: &str = "cluster: { flannel: { backend: udp } }\n";
    let written = Written::new(&bench.lab, [UDP, HOSTS, PODS].concat());
    bench.up(&bench.write(&written.text));
    let capture = Capture::start(bench, written.lab.namespaces());
    let flannelds = Tree::of(bench.daemon()).named("flanneld");
    flannelds.iter().for_each(|pid| signal(*pid, Signal::SIGSTOP));
    let asking = bench.labctl(&["trace", "ask", "far", "--tcp", "--port", "8080", "--timeout", "9", "-o", "json"]);
    let mut sightings = Vec::new();
    let ran = thread::scope(|scope| {
        let asked = scope.spawn(|| Ran::of(asking, &[]));
        until("a second try waits", || {
            sightings.extend(capture.take().iter().filter_map(|f| frames::read(f, &written.lab.cluster.backend)));
            sightings.iter().filter(|s| s.dev == "flannel0" && s.outgoing).count() > 1
        });
        flannelds.iter().for_each(|pid| signal(*pid, Signal::SIGCONT));
        asked.join().expect("an answer")
    });
    let trace: Trace = serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran}"));
    sightings.extend(capture.take().iter().filter_map(|f| frames::read(f, &written.lab.cluster.backend)));
    let wrong = judge(&trace, &sightings, &written);
    assert!(wrong.is_empty(), "{}\n{trace:#?}", wrong.join("\n"));
    let tries: Vec<_> = request(&trace).packets.iter().filter(|p| p.kind == "SYN").collect();
    assert_eq!(tries.len(), 2, "{trace:#?}");
    assert!(tries.iter().all(|p| matches!(p.fate, Fate::Delivered { .. })), "{tries:#?}");
}

fn a_name_is_looked_up_along_the_search_list(bench: &Bench) {
    let lab = Running::new(bench);
    let trace = lab.trace("ask", "far.nowhere", &["--tcp", "--port", "80"]);
    let lookups = trace.flows.iter().filter(|f| f.role == Role::NameLookup).flat_map(|f| &f.packets);
    let asked: Vec<&str> = lookups.filter_map(|p| p.kind.strip_prefix("query A ")).collect();
    assert!(asked.contains(&"far.nowhere.default.svc.cluster.local"), "{asked:?}");
    assert!(asked.contains(&"far.nowhere"), "{asked:?}");
}

fn a_trace_of_ten_hosts_and_two_hundred_pods_is_quick(bench: &Bench) {
    let hosts: String = (1..=10).map(|n| format!("  node{n}: {{}}\n")).collect();
    let text = format!(
        "hosts:\n{hosts}deployments: {{ p: {{ replicas: 200, labels: {{ app: p }}, ports: [8080] }} }}\n\
         services: {{ s: {{ clusterIP: 10.96.0.100, selector: {{ app: p }}, ports: [{{ port: 80, targetPort: 8080 }}] }} }}\n"
    );
    bench.up(&bench.write(&text));
    let ran = bench.ok(&["trace", "p-1", "http://10.96.0.100/", "-o", "json"]);
    let end = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time");
    let trace: Trace = serde_json::from_str(&ran).expect("a trace");
    let last = trace.flows.iter().flat_map(|f| &f.packets).flat_map(|p| &p.steps).filter_map(|s| s.at).max();
    let after = end.saturating_sub(std::time::Duration::from_nanos(trace.began + last.expect("a packet")));
    println!("{after:?} after its last packet");
    // Without optimisation and beside other tests; the benchmark measures what it really takes.
    assert!(after < std::time::Duration::from_secs(3), "{after:?} after its last packet");
}
