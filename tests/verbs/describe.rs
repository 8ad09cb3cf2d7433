//! `describe` and `get` show what is true of the lab.

use crate::lab::{LOOK, Lab, assert_has, mac};

#[test]
fn describe_shows_what_is_true() {
    let lab = Lab::up(LOOK);
    let pod = lab.says(&["describe", "pod", "tea-1"]);
    assert_has(&pod, &mac(&lab, "tea-1"));
    let far = lab.on("node1", "ip -o link show master cni0");
    let veth = far.lines().next().and_then(|l| l.split([' ', '@']).nth(1)).expect("a port").trim_end_matches(':');
    assert_has(&pod, &format!("{veth} (index 5"));
    for words in ["app=tea", "10.244.1.2", "8080/TCP", "node1/192.168.1.11", "the built-in echo server"] {
        assert_has(&pod, words);
    }
    let talker = lab.json(&["describe", "pod", "talker"]);
    assert_eq!(talker["containers"][0]["log"][0], "hello from the talker");
    let pid = talker["containers"][0]["process"].as_i64().unwrap_or_else(|| panic!("no process in {talker}"));
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("a process of the caller's");
    assert_has(&command, "sleep");
    let host = lab.says(&["describe", "host", "node1"]);
    for words in ["10.244.1.0/24", "VtepMAC", "tea-1", "tea-2", "flannel.1", "rack1, router 192.168.1.254/24"] {
        assert_has(&host, words);
    }
    assert_has(&lab.says(&["describe", "client", "laptop"]), "rack1");
    let wrong = lab.run(&["describe", "host", "tea-1"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert_has(&String::from_utf8_lossy(&wrong.stderr), "not a host but a pod");
}

#[test]
fn describe_tells_why_a_pod_is_not_ready() {
    let dir = tempfile::tempdir().expect("a directory");
    let lab = Lab { dir };
    let text = "hosts: { node1: {} }\npods:\n  shy: { host: node1, ports: [8080], readinessProbe: { tcpSocket: { \
                port: 9 }, periodSeconds: 1 } }\n";
    std::fs::write(lab.file(), text).expect("the lab's file");
    let up = lab.run(&["up", "--timeout", "2", &lab.file().display().to_string()]);
    assert_eq!(up.status.code(), Some(1), "{}", String::from_utf8_lossy(&up.stderr));
    let pod = lab.says(&["describe", "pod", "shy"]);
    assert_has(&pod, "tcp-socket :9");
    assert_has(&pod, "Last failure:");
    assert_has(&pod, "refused");
}

#[test]
fn get_shows_clients_and_networks_and_keeps_kubernetes_shape() {
    let lab = Lab::up(LOOK);
    assert_has(&lab.says(&["get", "clients"]), "laptop");
    let networks = lab.says(&["get", "networks", "-o", "wide"]);
    assert_has(&networks, "node1,node2,laptop");
    assert_has(&networks, "br-rack1");
    assert_eq!(lab.json(&["get", "networks", "rack2"])["spec"]["cidr"], "192.168.2.0/24");
    let node = lab.json(&["get", "hosts", "node1"]);
    assert_eq!((&node["apiVersion"], &node["kind"]), (&"v1".into(), &"Node".into()));
}
