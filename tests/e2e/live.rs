//! A running lab is changed to what its file says now. What is in both stays untouched.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::connection::Connection;
use crate::harness::process::{Tree, signal};
use crate::harness::{Background, Bench, until};
use crate::sample::{FOUR_PODS, two_networks};
use crate::{as_root, as_root_and_ordinary_user};

as_root_and_ordinary_user![
    a_connection_between_untouched_pods_survives_changes,
    pods_come_and_go_and_the_others_keep_their_addresses,
    hosts_and_clients_come_and_go,
    a_pod_moves_to_another_host,
    a_network_keeps_its_mtu_when_its_last_machine_goes,
    labels_ports_and_replicas_change,
    another_back_end_rebuilds_the_network_between_the_hosts,
    a_file_with_faults_leaves_the_lab_as_it_was,
    a_change_that_the_kernel_refuses_leaves_the_lab_as_it_was,
    the_same_file_again_changes_nothing,
    a_caller_killed_in_the_middle_of_a_change_leaves_a_whole_lab,
];
as_root![
    the_udp_back_end_can_be_changed_to_and_from,
    a_failed_change_leaves_no_listener_and_no_tun_device,
    a_stopped_flanneld_holds_nobody_up,
];

/// Change the lab to `text`. What `plan` says beforehand must be what `up` does, and the kernel
/// must then hold what the plan says.
#[track_caller]
fn change(bench: &Bench, text: &str) -> Value {
    let file = bench.write(text);
    let planned = bench.json(&["plan", &file]);
    let done = bench.json(&["up", &file, "--no-probes"]);
    let words = |step: &Value| {
        let part = |name: &str| step[name].as_str().unwrap_or_default().to_owned();
        format!("{}: {}", part("namespace"), part("step"))
    };
    let planned: Vec<String> = planned["steps"].as_array().expect("steps").iter().map(words).collect();
    let changes = done["changes"].as_array().expect("changes").iter();
    let changes: Vec<&str> = changes.map(|c| c.as_str().expect("words")).collect();
    assert_eq!(planned, changes, "`plan` and `up` differ");
    bench.is_as_planned();
    assert_eq!(bench.json(&["plan", &file])["steps"], serde_json::json!([]), "a second `up` would do something");
    done
}

fn a_connection_between_untouched_pods_survives_changes(bench: &Bench) {
    change_first(bench, FOUR_PODS);
    let mut held = Connection::open(bench, "a1", &bench.ip("b1"), 8080);
    held.ask("before");
    change(bench, &FOUR_PODS.replace("  b2: { host: node2 }\n", "").replace("from: b2", "from: b1"));
    held.ask("a-pod-went");
    change(bench, &FOUR_PODS.replace("node2: {} }", "node2: {}, node3: {} }"));
    held.ask("a-pod-and-a-host-came");
    change(bench, &FOUR_PODS.replace("pods:\n", "clients: { laptop: {} }\npods:\n  c1: { host: node1 }\n"));
    held.ask("a-host-went-and-a-client-came");
}

/// The first build, whose plan is a whole lab.
#[track_caller]
fn change_first(bench: &Bench, text: &str) {
    let file = bench.write(text);
    bench.up(&file);
    bench.is_as_planned();
}

fn pods_come_and_go_and_the_others_keep_their_addresses(bench: &Bench) {
    change_first(bench, FOUR_PODS);
    let before = bench.ip("a2");
    let without = FOUR_PODS.replace("  a1: { host: node1 }\n", "");
    change(bench, &without.replace("from: a1", "from: a2").replace("source: a1", "source: a2"));
    assert_eq!(bench.ip("a2"), before);
    let back = FOUR_PODS.replace("pods:\n", "pods:\n  first: { host: node1 }\n  second: { host: node1 }\n");
    change(bench, &back);
    assert_eq!(bench.ip("a2"), before);
    bench.probes_pass();
    let gone = "hosts: { node1: {}, node2: {} }\nprobes: [{ name: hosts, from: node1, ping: node2 }]\n";
    change(bench, gone);
    assert!(!bench.sh("node1", "ip -br link").contains("veth"), "no pod's cable is left");
    bench.probes_pass();
}

fn hosts_and_clients_come_and_go(bench: &Bench) {
    change_first(bench, FOUR_PODS);
    let more = FOUR_PODS
        .replace("node2: {} }", "node2: {}, node3: {} }\nclients: { laptop: {} }")
        .replace("probes:\n", "  c1: { host: node3 }\nprobes:\n  - { name: new host, from: c1, ping: a1 }\n")
        .replace("probes:\n", "probes:\n  - { name: new client, from: laptop, ping: node3 }\n");
    change(bench, &more);
    bench.probes_pass();
    change(bench, FOUR_PODS);
    bench.probes_pass();
    assert!(!bench.sh("node1", "ip route; bridge fdb; ip neigh").contains("10.244.3."), "the host's routes are gone");
    bench.exec("node3", &["true"]).ends_with(2).says("target-unknown");
}

fn a_pod_moves_to_another_host(bench: &Bench) {
    change_first(bench, FOUR_PODS);
    change(bench, &FOUR_PODS.replace("a2: { host: node1 }", "a2: { host: node2 }"));
    assert!(bench.ip("a2").starts_with("10.244.2."), "it has an address of its new host");
    bench.probes_pass();
}

fn a_network_keeps_its_mtu_when_its_last_machine_goes(bench: &Bench) {
    let text = |clients: &str| {
        format!(
            "networks: {{ near: {{}}, far: {{ mtu: 1400 }} }}\nhosts: {{ node1: {{ network: near }} }}\n\
             clients: {{ {clients} }}\n"
        )
    };
    change_first(bench, &text("laptop: { network: far }"));
    change(bench, &text(""));
    assert!(bench.sh("router", "ip link show dev br-far").contains("mtu 1400"));
}

fn labels_ports_and_replicas_change(bench: &Bench) {
    let text = |labels: &str, ports: &str, replicas: u8| {
        format!(
            "hosts: {{ node1: {{}}, node2: {{}} }}\ndeployments:\n  \
             tea: {{ replicas: {replicas}, labels: {{ {labels} }}, ports: [{ports}] }}\n"
        )
    };
    let names = |bench: &Bench| -> Vec<String> {
        let rows = bench.ok(&["get", "pods"]);
        rows.lines().skip(1).filter_map(|l| Some(l.split_whitespace().next()?.to_owned())).collect()
    };
    change_first(bench, &text("app: tea", "80", 2));
    let one = bench.ip("tea-1");
    change(bench, &text("app: tea, leaf: green", "81", 2));
    assert_eq!(bench.pod("tea-1")["metadata"]["labels"]["leaf"], "green");
    let reaches = |port: u16| bench.exec("node1", &["bash", "-c", &format!("exec 3<>/dev/tcp/{one}/{port}")]).code == 0;
    assert!(reaches(81) && !reaches(80), "the new port is open and the old one is closed");
    change(bench, &text("app: tea", "80", 5));
    assert_eq!(names(bench), ["tea-1", "tea-2", "tea-3", "tea-4", "tea-5"]);
    change(bench, &text("app: tea", "80", 1));
    assert_eq!(names(bench), ["tea-1"]);
    assert_eq!(bench.ip("tea-1"), one);
}

fn another_back_end_rebuilds_the_network_between_the_hosts(bench: &Bench) {
    let with = |flannel: &str| format!("cluster: {{ flannel: {flannel} }}\n{FOUR_PODS}");
    change_first(bench, &with("{ backend: vxlan }"));
    let before = bench.ip("b2");
    for flannel in ["{ backend: host-gw }", "{ backend: vxlan, vni: 7 }", "{ backend: vxlan, directRouting: true }"] {
        change(bench, &with(flannel));
        bench.probes_pass();
        assert_eq!(bench.ip("b2"), before);
    }
    let devices = bench.sh("node1", "ip -br link");
    assert!(devices.contains("flannel.1") && !devices.contains("flannel.7"), "{devices}");
}

fn the_udp_back_end_can_be_changed_to_and_from(bench: &Bench) {
    let with = |ttl, mtu, flannel: &str| two_networks(flannel, ttl, mtu);
    change_first(bench, &with(62, 1450, "{ backend: vxlan }"));
    change(bench, &with(60, 1472, "{ backend: udp }"));
    bench.probes_pass();
    change(bench, &with(60, 1472, "{ backend: udp, port: 9999 }"));
    bench.probes_pass();
    change(bench, &with(62, 1450, "{ backend: vxlan }"));
    bench.probes_pass();
    let tree = crate::harness::process::Tree::of(bench.daemon());
    assert!(tree.named("flanneld").is_empty(), "no flanneld is left");
}

fn a_file_with_faults_leaves_the_lab_as_it_was(bench: &Bench) {
    change_first(bench, FOUR_PODS);
    let before = bench.json(&["get", "pods"]);
    let file =
        bench.write(&FOUR_PODS.replace("a2: { host: node1 }", "a2: { host: nodeX }").replace("ping: a2", "pong: a2"));
    bench.run(&["up", &file]).ends_with(2).says("host-unknown").says("spec-unknown-field");
    assert_eq!(bench.json(&["get", "pods"]), before);
    bench.is_as_planned();
    bench.probes_pass();
}

/// Listen on port 90 of a pod: it cannot be opened by others then.
fn occupy(bench: &Bench, pod: &str) -> Background {
    let occupy = "my $s = IO::Socket::INET->new(LocalPort => 90, Listen => 1) or die; \
        $| = 1; print qq(here\\n); sleep 1000";
    let mut occupant =
        Background::start(bench.labctl(&["exec", pod, "--", "perl", "-MIO::Socket::INET", "-e", occupy]));
    let mut said = String::new();
    BufReader::new(occupant.0.stdout.as_mut().expect("a pipe")).read_line(&mut said).expect("text");
    assert_eq!(said, "here\n", "the port is taken");
    occupant
}

fn a_change_that_the_kernel_refuses_leaves_the_lab_as_it_was(bench: &Bench) {
    change_first(bench, FOUR_PODS);
    // The table has their ages.
    let before = bench.json(&["get", "pods"]);
    let occupant = occupy(bench, "a1");
    let more = FOUR_PODS
        .replace("a1: { host: node1 }", "a1: { host: node1, ports: [90] }")
        .replace("pods:\n", "pods:\n  new: { host: node2 }\n");
    let file = bench.write(&more);
    bench.run(&["up", &file]).ends_with(3).says("workload-failed").says("90").says("as it was before");
    assert_eq!(bench.json(&["get", "pods"]), before);
    bench.is_as_planned();
    bench.probes_pass();
    drop(occupant);
}

fn the_same_file_again_changes_nothing(bench: &Bench) {
    change_first(bench, FOUR_PODS);
    let done = change(bench, FOUR_PODS);
    assert_eq!(done["steps"], 0);
}

fn a_failed_change_leaves_no_listener_and_no_tun_device(bench: &Bench) {
    let with = |flannel: &str, text: &str| format!("cluster: {{ flannel: {{ backend: {flannel} }} }}\n{text}");
    change_first(bench, &with("vxlan", FOUR_PODS));
    let occupant = occupy(bench, "a1");
    // One that can be opened beside the one that cannot.
    let more = FOUR_PODS
        .replace("a1: { host: node1 }", "a1: { host: node1, ports: [90] }")
        .replace("a2: { host: node1 }", "a2: { host: node1, ports: [91] }");
    bench.run(&["up", &bench.write(&with("udp", &more))]).ends_with(3).says("as it was before");
    let ip = bench.ip("a2");
    assert_ne!(bench.exec("node1", &["bash", "-c", &format!("exec 3<>/dev/tcp/{ip}/91")]).code, 0, "91 is closed");
    let devices = bench.sh("node1", "ip -br link");
    assert!(devices.contains("flannel.1") && !devices.contains("flannel0"), "{devices}");
    assert!(Tree::of(bench.daemon()).named("flanneld").is_empty(), "no flanneld is left");
    bench.is_as_planned();
    bench.probes_pass();
    drop(occupant);
    bench.up(&bench.write(&with("udp", FOUR_PODS)));
    bench.probes_pass();
}

fn a_stopped_flanneld_holds_nobody_up(bench: &Bench) {
    let with = |port: u16| format!("cluster: {{ flannel: {{ backend: udp, port: {port} }} }}\n{FOUR_PODS}");
    change_first(bench, &with(8285));
    let tree = Tree::of(bench.daemon());
    tree.named("flanneld").into_iter().for_each(|pid| signal(pid, Signal::SIGSTOP));
    bench.ok(&["status"]);
    bench.ok(&["inspect", "flannel"]);
    // It gets a list of subnets that it does not take, and is then replaced.
    bench.up(&bench.write(&with(8285).replace("node2: {} }", "node2: {}, node3: {} }")));
    bench.up(&bench.write(&with(9999)));
    bench.is_as_planned();
    bench.probes_pass();
    assert_eq!(tree.named("flanneld").len(), 2);
}

fn a_caller_killed_in_the_middle_of_a_change_leaves_a_whole_lab(bench: &Bench) {
    change_first(bench, FOUR_PODS);
    let daemon = bench.daemon();
    // The daemon holds each namespace: the change is at work when it holds more.
    let held = || std::fs::read_dir(format!("/proc/{daemon}/fd")).map_or(0, Iterator::count);
    let before = held();
    let file = bench.write(&FOUR_PODS.replace("probes:\n", "deployments: { many: { replicas: 200 } }\nprobes:\n"));
    let mut up = Background::start(bench.labctl(&["up", &file, "--no-probes"]));
    until("the change is at work", || held() > before + 20);
    signal(up.pid(), Signal::SIGKILL);
    assert_eq!(up.end().signal(), Some(Signal::SIGKILL as i32), "it was still at work");
    assert_eq!(bench.daemon(), daemon, "the lab goes on");
    // The change is made to its end, and what the lab says of itself is true.
    until("all pods are there", || bench.json(&["status"])["pods"] == 204);
    bench.is_as_planned();
    bench.probes_pass();
    assert!(bench.sh("node1", "true").is_empty());
    assert_eq!(bench.json(&["plan", &file])["steps"], serde_json::json!([]));
    change(bench, FOUR_PODS);
    bench.probes_pass();
}
