//! Pods that have been told to end and serve on for a while: they are used where no other endpoint is
//! there, and nowhere else.

use crate::as_root_and_ordinary_user;
use crate::ask::{answerers, refused, source, who};
use crate::harness::{Background, Bench, until};

as_root_and_ordinary_user![terminating_endpoints_serve_where_no_ready_one_does];

/// A pod whose second container takes its time to end.
fn slow(name: &str, app: &str) -> String {
    let ends_late = "trap '' TERM; while :; do sleep 0.1; done";
    format!(
        "  {name}: {{ host: node2, labels: {{ app: {app} }}, containers: [{{ name: echo, ports: [8080] }}, \
         {{ name: late, command: [sh, -c, \"{ends_late}\"] }}] }}\n"
    )
}

fn service(name: &str, app: &str, more: &str) -> String {
    format!("  {name}: {{ selector: {{ app: {app} }}, {more} }}\n")
}

fn lab() -> String {
    let port = "ports: [{ port: 80, targetPort: 8080 }]";
    let on_node =
        |number: u16| format!("type: NodePort, ports: [{{ port: 80, targetPort: 8080, nodePort: {number} }}]");
    let services = [
        service("all", "tea", &on_node(30080)),
        service("inner", "tea", &format!("internalTrafficPolicy: Local, {port}")),
        service("outer", "tea", &format!("externalTrafficPolicy: Local, {}", on_node(30081))),
        service("early", "tea", &format!("publishNotReadyAddresses: true, {port}")),
        service("both", "duo", port),
        service(
            "cloud",
            "tea",
            &format!("type: LoadBalancer, externalTrafficPolicy: Local, healthCheckNodePort: 31000, {port}"),
        ),
    ]
    .concat();
    format!(
        "hosts: {{ node1: {{}}, node2: {{}} }}\nclients: {{ laptop: {{}} }}\npods:\n  ask: {{ host: node1 }}\n  \
         near: {{ host: node2 }}\n  ready: {{ host: node1, labels: {{ app: duo }} }}\n{}{}services:\n{services}",
        slow("old", "tea"),
        slow("old-too", "duo")
    )
}

/// What the health check port of `host` answers.
fn health(bench: &Bench, host: &str) -> String {
    bench.sh("laptop", &format!("curl -s -o /dev/null -w '%{{http_code}}' --max-time 2 http://{host}:31000/"))
}

fn terminating_endpoints_serve_where_no_ready_one_does(bench: &Bench) {
    bench.up(&bench.write(&lab()));
    assert_eq!(health(bench, "192.168.1.12"), "200");
    assert_eq!(answerers(bench, "ask", "http://both", 20), ["old-too", "ready"]);
    let _deleting = Background::start(bench.labctl(&["delete", "pod", "old", "old-too", "--grace-period", "60"]));
    until("both pods are ending", || ["old", "old-too"].iter().all(|pod| bench.row(pod).contains("Terminating")));
    until("the health check says so", || health(bench, "192.168.1.12") == "503");
    assert_eq!(who(bench, "ask", "http://all"), "old", "internalTrafficPolicy Cluster");
    assert_eq!(who(bench, "laptop", "http://192.168.1.11:30080"), "old", "externalTrafficPolicy Cluster");
    assert_eq!(who(bench, "near", "http://inner"), "old", "internalTrafficPolicy Local");
    let seen = source(bench, "laptop", "http://192.168.1.12:30081");
    assert_eq!(seen, bench.sh("laptop", "hostname -I").trim(), "externalTrafficPolicy Local");
    assert_eq!(who(bench, "ask", "http://early"), "old", "publishNotReadyAddresses");
    assert_eq!(answerers(bench, "ask", "http://both", 20), ["ready"], "a ready one is there");
    // Between pods nothing has changed, in either direction.
    assert_eq!(who(bench, "ask", &format!("http://{}:8080", bench.ip("old"))), "old");
    assert_eq!(who(bench, "old", &format!("http://{}:8080", bench.ip("ready"))), "ready");
    bench.ok(&["delete", "pod", "old", "--now"]);
    refused(bench, "ask", "http://all");
}
