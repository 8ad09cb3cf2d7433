//! Session affinity: a client stays with its pod, until the time is over or the service says
//! otherwise; for virtual addresses and NodePorts, TCP and UDP.

use crate::ask::{address, get_many, text, udp_who};
use crate::harness::{Bench, until};
use crate::{as_root, as_root_and_ordinary_user};

as_root_and_ordinary_user![
    a_client_stays_with_its_pod_behind_a_virtual_address,
    a_client_stays_with_its_pod_behind_a_node_port,
];
as_root![a_client_is_free_after_the_time_is_over];

const STICKY: &str = "sessionAffinity: ClientIP";

fn lab(affinity: &str) -> String {
    format!(
        "hosts: {{ node1: {{}}, node2: {{}} }}\nclients: {{ laptop: {{}}, phone: {{}} }}\n\
         pods: {{ ask: {{ host: node1 }}, also: {{ host: node1 }} }}\n\
         deployments: {{ tea: {{ replicas: 3, labels: {{ app: tea }} }} }}\nservices:\n  \
         tea: {{ type: NodePort, selector: {{ app: tea }}, {affinity}, ports: [\
         {{ name: t, port: 80, targetPort: 8080, nodePort: 30080 }}, \
         {{ name: u, port: 80, protocol: UDP, targetPort: 8080, nodePort: 30080 }}] }}\n"
    )
}

/// How many pods answer a client within so many connections. By chance one of three would answer
/// all of 16 once in ten million times.
#[track_caller]
fn pods(bench: &Bench, from: &str, url: &str) -> usize {
    let mut names: Vec<String> =
        get_many(bench, from, url, 16).expect("answers").iter().map(|a| text(a, "name")).collect();
    names.sort();
    names.dedup();
    names.len()
}

#[track_caller]
fn stays_and_is_set_free(bench: &Bench, from: [&str; 2], to: &str) {
    let url = format!("http://{to}");
    let up = |affinity: &str| bench.up(&bench.write(&lab(affinity)));
    up(STICKY);
    for client in from {
        assert_eq!(pods(bench, client, &url), 1, "{client} stays");
        let first = udp_who(bench, client, to);
        assert!((0..6).all(|_| udp_who(bench, client, to) == first), "{client} stays over UDP");
    }
    up("sessionAffinity: None");
    assert_eq!(pods(bench, from[0], &url), 3, "every pod answers");
    let first = udp_who(bench, from[0], to);
    until("another pod answers over UDP", || udp_who(bench, from[0], to) != first);
    up(STICKY);
    assert_eq!(pods(bench, from[0], &url), 1, "it stays again");
}

fn a_client_stays_with_its_pod_behind_a_virtual_address(bench: &Bench) {
    stays_and_is_set_free(bench, ["ask", "also"], "tea:80");
}

fn a_client_stays_with_its_pod_behind_a_node_port(bench: &Bench) {
    stays_and_is_set_free(bench, ["laptop", "phone"], "192.168.1.12:30080");
}

/// The shortest time that Kubernetes allows is a second.
fn a_client_is_free_after_the_time_is_over(bench: &Bench) {
    let brief = "sessionAffinity: ClientIP, sessionAffinityConfig: { clientIP: { timeoutSeconds: 1 } }";
    bench.up(&bench.write(&lab(brief)));
    let name = format!("http://{}", address(bench, "ask", "tea"));
    let clients = [("ask", name.as_str()), ("laptop", "http://192.168.1.12:30080")];
    for (from, url) in clients {
        assert_eq!(pods(bench, from, url), 1, "{from} stays while it goes on");
    }
    let mut seen = [(); 2].map(|()| std::collections::BTreeSet::new());
    until("another pod answers each after a pause", || {
        for ((from, url), seen) in clients.iter().zip(&mut seen) {
            let answers = get_many(bench, from, url, 1).expect("an answer");
            seen.insert(text(&answers[0], "name"));
        }
        let done = seen.iter().all(|names| names.len() > 1);
        if !done {
            // What is tested is that time passes without a connection.
            std::thread::sleep(std::time::Duration::from_millis(2100));
        }
        done
    });
}
