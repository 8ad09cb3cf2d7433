//! UDP through services while their pods change: conntrack remembers where a client's datagrams go,
//! and must forget it in time, or a client that keeps its port talks to nobody.

use std::time::Duration;

use crate::ask::{Datagram, Stream, endpoints, udp};
use crate::harness::{Bench, until};
use crate::{as_root, as_root_and_ordinary_user};

as_root_and_ordinary_user![
    udp_goes_on_to_a_cluster_ip_when_the_server_pod_cycles,
    udp_goes_on_when_the_first_endpoints_were_unready,
    udp_flows_to_a_gone_endpoint_are_forgotten_and_others_are_kept,
];
as_root![
    udp_goes_on_to_a_node_port_when_the_server_pod_cycles,
    udp_goes_on_under_internal_traffic_policy_local_when_the_server_pod_cycles,
    udp_goes_on_from_a_host_when_the_server_pod_cycles,
    udp_to_a_node_port_follows_a_new_target_port,
];

/// The longest that a client may be without an answer once the new pod is there.
const SOON: Duration = Duration::from_secs(5);
const VIP: &str = "10.96.7.7";

fn lab(pods: &str, service: &str) -> String {
    format!(
        "hosts: {{ node1: {{}}, node2: {{}} }}\nclients: {{ laptop: {{}} }}\npods:\n  ask: {{ host: node1 }}\n{pods}\
         services:\n  tea: {{ clusterIP: {VIP}, selector: {{ app: tea }}, {service} }}\n"
    )
}

const PORTS: &str = "ports: [{ port: 80, protocol: UDP, targetPort: 8080 }]";
const NODE_PORT: &str = "type: NodePort, ports: [{ port: 80, protocol: UDP, targetPort: 8080, nodePort: 30080 }]";

fn pod(name: &str, host: &str) -> String {
    format!("  {name}: {{ host: {host}, labels: {{ app: tea }} }}\n")
}

/// A client that never stops asks a service whose pod goes and is followed by another one.
#[track_caller]
fn cycles(bench: &Bench, service: &str, from: &str, to: &str) {
    let up = |pods: &str| bench.up(&bench.write(&lab(pods, service)));
    up(&pod("first", "node1"));
    let mut stream = Stream::start(bench, from, to, 5555);
    stream.until_answered_by("first");
    up("");
    // Datagrams go on while nobody is there, and what conntrack remembers then is wrong, too.
    assert_eq!(udp(bench, from, to, Datagram::ANY).err().as_deref(), Some("refused"));
    up(&pod("second", "node1"));
    let took = stream.until_answered_by("second");
    println!("the new pod answered {took:?} after `up` had returned");
    assert!(took < SOON, "{took:?}");
    // And from one pod to the next without a pause.
    up(&(pod("second", "node1") + &pod("third", "node1")));
    up(&pod("third", "node1"));
    let took = stream.until_answered_by("third");
    assert!(took < SOON, "{took:?}");
}

fn udp_goes_on_to_a_cluster_ip_when_the_server_pod_cycles(bench: &Bench) {
    cycles(bench, PORTS, "ask", &format!("{VIP}:80"));
}

fn udp_goes_on_to_a_node_port_when_the_server_pod_cycles(bench: &Bench) {
    cycles(bench, NODE_PORT, "laptop", "192.168.1.12:30080");
}

fn udp_goes_on_under_internal_traffic_policy_local_when_the_server_pod_cycles(bench: &Bench) {
    cycles(bench, &format!("internalTrafficPolicy: Local, {PORTS}"), "ask", &format!("{VIP}:80"));
}

fn udp_goes_on_from_a_host_when_the_server_pod_cycles(bench: &Bench) {
    cycles(bench, PORTS, "node2", &format!("{VIP}:80"));
}

fn udp_goes_on_when_the_first_endpoints_were_unready(bench: &Bench) {
    let slow = "  slow: { host: node2, labels: { app: tea }, \
                readinessProbe: { exec: { command: [test, -e, /run/ready] }, periodSeconds: 1 } }\n";
    let file = bench.write(&lab(slow, NODE_PORT));
    bench.run(&["up", &file, "--timeout", "1"]).ends_with(1).says("lab-not-ready");
    // Their first datagrams find nobody.
    assert_eq!(udp(bench, "laptop", "192.168.1.12:30080", Datagram::ANY).err().as_deref(), Some("refused"));
    let mut inside = Stream::start(bench, "ask", &format!("{VIP}:80"), 5555);
    let mut outside = Stream::start(bench, "laptop", "192.168.1.12:30080", 5556);
    bench.sh("slow", "touch /run/ready");
    until("the pod is in the rules", || !endpoints(bench, "node2", "default/tea").is_empty());
    for stream in [&mut inside, &mut outside] {
        let took = stream.until_answered_by("slow");
        assert!(took < SOON, "{took:?}");
    }
}

fn udp_to_a_node_port_follows_a_new_target_port(bench: &Bench) {
    let pods = "  first: { host: node1, labels: { app: tea }, ports: [{ containerPort: 8080, protocol: UDP }] }\n";
    let moved = pods.replace("8080", "9090");
    bench.up(&bench.write(&lab(pods, NODE_PORT)));
    let mut stream = Stream::start(bench, "laptop", "192.168.1.12:30080", 5555);
    stream.until_answered_by("first");
    bench.up(&bench.write(&lab(&moved, &NODE_PORT.replace("targetPort: 8080", "targetPort: 9090"))));
    // What comes from now on was sent anew: the old port is closed.
    stream.forget();
    let took = stream.until_answered_by("first");
    assert!(took < SOON, "{took:?}");
}

/// The UDP flows that a host remembers from a source port.
fn flows(bench: &Bench, host: &str, port: u16) -> Vec<String> {
    let all = bench.sh(host, "cat /proc/net/nf_conntrack 2>/dev/null || conntrack -L -p udp 2>/dev/null");
    all.lines().filter(|l| l.contains(" udp ") || l.starts_with("udp ")).filter(|l| l.contains(&format!("sport={port} "))).map(str::to_owned).collect()
}

fn udp_flows_to_a_gone_endpoint_are_forgotten_and_others_are_kept(bench: &Bench) {
    let both = pod("first", "node1") + &pod("second", "node2");
    bench.up(&bench.write(&lab(&both, PORTS)));
    let (first, second) = (bench.ip("first"), bench.ip("second"));
    for port in 6000..6012 {
        let asked = udp(bench, "ask", &format!("{VIP}:80"), Datagram { source_port: port, size: 1 });
        asked.expect("an answer");
    }
    let to = |bench: &Bench, ip: &str| {
        (6000..6012).flat_map(|port| flows(bench, "node1", port)).filter(|f| f.contains(&format!("src={ip} "))).count()
    };
    assert!(to(bench, &first) > 0 && to(bench, &second) > 0, "both have flows");
    let kept = to(bench, &second);
    bench.up(&bench.write(&lab(&pod("second", "node2"), PORTS)));
    assert_eq!(to(bench, &first), 0, "flows to the pod that went are forgotten");
    assert_eq!(to(bench, &second), kept, "flows to the other one are not");
}
