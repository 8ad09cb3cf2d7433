//! Connections through services live on while everything around them changes: pods that are beside
//! theirs, services, the deployment's size, the lab's file. And pods that go have their time to end.

use crate::as_root_and_ordinary_user;
use crate::connection::Connection;
use crate::harness::{Background, Bench, until};

as_root_and_ordinary_user![
    connections_to_untouched_pods_survive_all_changes,
    a_pod_that_up_takes_out_has_its_own_time_to_end,
];

const VIP: &str = "10.96.7.7";
const NODE_PORT: u16 = 30080;
/// The load balancers' addresses, in the order of their services' names.
const CLUSTER: &str = "198.51.100.1";
const LOCAL: &str = "198.51.100.2";

/// The pod `keep`, and a deployment beside it behind the same services.
fn lab(more: &str) -> String {
    let port = "ports: [{ port: 80, targetPort: 8080 }]";
    format!(
        "hosts: {{ node1: {{}}, node2: {{}} }}\nclients: {{ laptop: {{}} }}\npods:\n  ask: {{ host: node1 }}\n  \
         keep: {{ host: node2, labels: {{ app: tea }} }}\n{more}deployments:\n  \
         tea: {{ replicas: 0, hosts: [node2], labels: {{ app: tea }} }}\nservices:\n  \
         inner: {{ clusterIP: {VIP}, selector: {{ app: tea }}, {port} }}\n  \
         ports: {{ type: NodePort, selector: {{ app: tea }}, \
         ports: [{{ port: 80, targetPort: 8080, nodePort: {NODE_PORT} }}] }}\n  \
         cluster: {{ type: LoadBalancer, loadBalancerIP: {CLUSTER}, selector: {{ app: tea }}, {port} }}\n  \
         local: {{ type: LoadBalancer, loadBalancerIP: {LOCAL}, externalTrafficPolicy: Local, \
         selector: {{ app: tea }}, {port} }}\n"
    )
}

const MORE: &str = "
apiVersion: v1
kind: Pod
metadata: { name: more, labels: { app: tea } }
spec: { nodeName: node2, containers: [{ name: c }] }
---
apiVersion: v1
kind: Service
metadata: { name: other }
spec: { type: LoadBalancer, selector: { app: tea }, ports: [{ port: 81, targetPort: 8080 }] }
";

fn connections_to_untouched_pods_survive_all_changes(bench: &Bench) {
    bench.up(&bench.write(&lab("")));
    let node1 = "192.168.1.11";
    let ways = [("ask", VIP, 80), ("laptop", node1, NODE_PORT), ("laptop", CLUSTER, 80), ("laptop", LOCAL, 80)];
    let mut held = ways.map(|(from, to, port)| Connection::open(bench, from, to, port));
    for connection in &mut held {
        assert!(connection.ask("first").contains("\"keep\""), "it leads to the only pod");
    }
    let mut all_live = |when: &str| {
        for ((from, to, port), connection) in ways.iter().zip(&mut held) {
            println!("{when}: {from} to {to}:{port}");
            assert_eq!(connection.ask(when), "", "and nobody else answers");
        }
    };
    let more = bench.path("more.yaml");
    std::fs::write(&more, MORE).expect("a file");
    bench.ok(&["apply", "-f", &more.to_string_lossy()]);
    all_live("applied");
    bench.ok(&["scale", "deployment", "tea", "--replicas", "3"]);
    assert_eq!(crate::ask::endpoints(bench, "node1", "default/inner").len(), 5);
    all_live("scaled");
    bench.ok(&["delete", "pod", "more", "tea-2"]);
    all_live("deleted");
    bench.ok(&["scale", "deployment", "tea", "--replicas", "0"]);
    all_live("scaled-down");
    bench.up(&bench
        .write(&lab("  new: { host: node2, labels: { app: tea } }\n").replace("port: 80,", "name: http, port: 80,")));
    all_live("edited");
    bench.up(&bench.write(&lab("")));
    all_live("edited-back");
    bench.is_as_planned();
}

/// As with a scale-down in Kubernetes: it is ending, serves on as long as no other does, and goes when its
/// program has ended.
fn a_pod_that_up_takes_out_has_its_own_time_to_end(bench: &Bench) {
    let go = bench.path("go");
    let script = format!(
        "trap 'while [ ! -e {} ]; do sleep 0.05; done; exit 0' TERM; echo begun; while :; do sleep 0.05; done",
        go.display()
    );
    let script = serde_json::to_string(&script).expect("text");
    let text = |pods: &str| {
        format!(
            "hosts: {{ node1: {{}} }}\npods:\n  ask: {{}}\n{pods}services:\n  \
             tea: {{ clusterIP: {VIP}, selector: {{ app: tea }}, ports: [{{ port: 80, targetPort: 8080 }}] }}\n"
        )
    };
    let slow = format!(
        "  slow: {{ labels: {{ app: tea }}, terminationGracePeriodSeconds: 600, \
         containers: [{{ name: echo, ports: [8080] }}, {{ name: late, command: [bash, -c, {script}] }}] }}\n"
    );
    bench.up(&bench.write(&text(&slow)));
    until("the program listens for its end", || bench.ok(&["logs", "slow", "-c", "late"]).contains("begun"));
    let file = bench.write(&text(""));
    let planned = bench.json(&["plan", &file]);
    let mut up = Background::start(bench.labctl(&["up", &file, "--no-probes", "-o", "json"]));
    until("it is ending", || bench.row("slow").contains("Terminating"));
    assert_eq!(crate::ask::who(bench, "ask", &format!("http://{VIP}")), "slow", "it serves on");
    // Longer than a program of a pod that stays would have.
    std::thread::sleep(std::time::Duration::from_millis(2500));
    assert!(up.0.try_wait().expect("a child").is_none(), "`up` waits for its end");
    assert!(bench.row("slow").contains("Terminating"));
    std::fs::write(&go, "").expect("a file");
    let mut said = String::new();
    std::io::Read::read_to_string(up.0.stdout.as_mut().expect("a pipe"), &mut said).expect("text");
    assert!(up.end().success());
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(said["steps"].as_u64(), planned["steps"].as_array().map(|all| all.len() as u64), "{said}");
    bench.run(&["get", "pods", "slow"]).ends_with(2).says("target-unknown");
    crate::ask::refused(bench, "ask", &format!("http://{VIP}"));
    bench.is_as_planned();
}
