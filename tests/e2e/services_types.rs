//! Services of every type, from one to another, and what is refused: the running lab stays as it was.

use std::fmt::Write;

use crate::ask::{Datagram, Failure, address, answerers, get, refused, text, udp, udp_who, until_answers, who};
use crate::harness::Bench;
use crate::{as_root, as_root_and_ordinary_user};

as_root_and_ordinary_user![
    an_alias_becomes_a_service_and_an_alias_again,
    node_ports_do_not_collide_are_in_range_and_are_given_back,
];
as_root![
    a_thousand_services_of_which_one_is_wrong_leave_the_lab_as_it_was,
    an_alias_becomes_a_node_port_and_an_alias_again,
    a_service_becomes_a_node_port_of_one_number_for_tcp_and_udp,
    type_and_ports_change_over_tcp_and_udp,
    a_load_balancer_serves_tcp_and_udp_on_one_port_number,
];

/// A lab with one service, `tea`, with what stands in `service`.
fn lab(service: &str) -> String {
    format!(
        "hosts: {{ node1: {{}}, node2: {{}} }}\nclients: {{ laptop: {{}} }}\npods:\n  ask: {{ host: node1 }}\n  \
         one: {{ host: node2, labels: {{ app: tea }} }}\nservices:\n  tea: {{ {service} }}\n\
         dns: {{ records: {{ tea.example.com: 192.0.2.7 }} }}\n"
    )
}

#[track_caller]
fn change(bench: &Bench, service: &str) {
    bench.up(&bench.write(&lab(service)));
}

const ALIAS: &str = "type: ExternalName, externalName: tea.example.com";
const CLUSTER_IP: &str = "selector: { app: tea }, ports: [{ port: 80, targetPort: 8080 }]";
const NODE_PORT: &str =
    "type: NodePort, selector: { app: tea }, ports: [{ port: 80, targetPort: 8080, nodePort: 30080 }]";
const ON_NODE: &str = "http://192.168.1.11:30080";

fn an_alias_becomes_a_service_and_an_alias_again(bench: &Bench) {
    change(bench, ALIAS);
    assert_eq!(address(bench, "ask", "tea"), "192.0.2.7");
    assert!(!bench.sh("node1", "iptables-save").contains("default/tea"), "an alias has no rules");
    change(bench, CLUSTER_IP);
    let given = address(bench, "ask", "tea");
    assert!(given.starts_with("10.9") || given.starts_with("10.1"), "{given} is of the service range");
    assert_eq!(who(bench, "ask", "http://tea"), "one");
    change(bench, ALIAS);
    assert_eq!(address(bench, "ask", "tea"), "192.0.2.7");
    assert!(get(bench, "ask", &format!("http://{given}")).is_err(), "the address was given back");
}

fn an_alias_becomes_a_node_port_and_an_alias_again(bench: &Bench) {
    change(bench, ALIAS);
    assert!(get(bench, "laptop", ON_NODE).is_err());
    change(bench, NODE_PORT);
    assert_eq!(who(bench, "ask", "http://tea"), "one");
    assert_eq!(who(bench, "laptop", ON_NODE), "one");
    change(bench, ALIAS);
    assert_eq!(address(bench, "ask", "tea"), "192.0.2.7");
    assert_eq!(get(bench, "laptop", ON_NODE), Err(Failure::Connect), "the NodePort was given back");
}

fn a_service_becomes_a_node_port_of_one_number_for_tcp_and_udp(bench: &Bench) {
    let ports = "selector: { app: tea }, ports: [{ name: t, port: 80, targetPort: 8080 }, \
                 { name: u, port: 80, protocol: UDP, targetPort: 8080 }]";
    change(bench, ports);
    assert_eq!(who(bench, "ask", "http://tea"), "one");
    let with_number = ports.replace("targetPort: 8080", "targetPort: 8080, nodePort: 30080");
    change(bench, &format!("type: NodePort, {with_number}"));
    assert_eq!(who(bench, "laptop", ON_NODE), "one");
    let over_udp = udp(bench, "laptop", "192.168.1.11:30080", Datagram::ANY);
    assert_eq!(over_udp.map(|(answer, _)| text(&answer, "name")), Ok("one".to_owned()));
}

fn type_and_ports_change_over_tcp_and_udp(bench: &Bench) {
    for protocol in ["TCP", "UDP"] {
        let at = |to: &str| match protocol {
            "TCP" => get(bench, "laptop", &format!("http://{to}")).map(|a| text(&a, "name")).ok(),
            _ => udp(bench, "laptop", to, Datagram::ANY).map(|(a, _)| text(&a, "name")).ok(),
        };
        let asked = |port: &str| at(&format!("192.168.1.12:{port}"));
        let service = |head: &str, port: u16, node_port: &str| {
            format!(
                "{head} selector: {{ app: tea }}, ports: [{{ port: {port}, targetPort: 8080, protocol: {protocol}{node_port} }}]"
            )
        };
        change(bench, &service("", 80, ""));
        let given = address(bench, "ask", "tea");
        change(bench, &service("type: NodePort,", 80, ", nodePort: 30081"));
        assert_eq!(asked("30081").as_deref(), Some("one"), "{protocol}");
        change(bench, &service("type: NodePort,", 80, ", nodePort: 30082"));
        assert_eq!(asked("30082").as_deref(), Some("one"), "{protocol}: another NodePort");
        assert_eq!(asked("30081"), None, "{protocol}: the old NodePort");
        change(bench, &service("type: NodePort,", 81, ", nodePort: 30082"));
        assert_eq!(asked("30082").as_deref(), Some("one"), "{protocol}: another port");
        change(bench, &service("type: LoadBalancer,", 81, ", nodePort: 30082"));
        assert_eq!(at("198.51.100.1:81").as_deref(), Some("one"), "{protocol}: a load balancer");
        change(bench, &service("", 81, ""));
        assert_eq!(at("198.51.100.1:81"), None, "{protocol}: no load balancer any more");
        assert_eq!(asked("30082"), None, "{protocol}: no NodePort any more");
        assert_eq!(address(bench, "ask", "tea"), given, "{protocol}: it keeps its address");
    }
}

fn node_ports_do_not_collide_are_in_range_and_are_given_back(bench: &Bench) {
    change(bench, NODE_PORT);
    let before = bench.sh("node1", "iptables-save -t nat | grep -v '^#\\|^:'");
    let with = |port: u16| {
        let other = NODE_PORT.replace("30080", &port.to_string());
        lab(NODE_PORT).replace("\ndns:", &format!("\n  chai: {{ {other} }}\ndns:"))
    };
    for wrong in [30080, 29999, 32768] {
        bench.run(&["up", &bench.write(&with(wrong))]).ends_with(2).says("node-port").says(&wrong.to_string());
    }
    assert_eq!(bench.sh("node1", "iptables-save -t nat | grep -v '^#\\|^:'"), before, "the lab is as it was");
    bench.up(&bench.write(&with(30081)));
    assert_eq!(who(bench, "laptop", "http://192.168.1.11:30081"), "one");
    // The number is free as soon as its service is gone, for another one in the same change.
    change(bench, &NODE_PORT.replace("30080", "30081"));
    assert_eq!(who(bench, "laptop", "http://192.168.1.11:30081"), "one");
    refused(bench, "laptop", ON_NODE);
}

fn a_thousand_services_of_which_one_is_wrong_leave_the_lab_as_it_was(bench: &Bench) {
    change(bench, CLUSTER_IP);
    let before = bench.sh("node1", "iptables-save -t nat | grep -v '^#\\|^:'");
    let mut text = lab(CLUSTER_IP).split_once("dns:").expect("the end").0.to_owned();
    for n in 0..1000 {
        let port = if n == 617 { 70_000 } else { 80 };
        let _ =
            writeln!(text, "  many{n}: {{ selector: {{ app: tea }}, ports: [{{ port: {port}, targetPort: 8080 }}] }}");
    }
    let ran = bench.run(&["up", &bench.write(&text)]).ends_with(2).says("object-invalid").says("70000").says("many617");
    assert_eq!(ran.stderr.matches("object-invalid\n").count(), 1, "one is wrong, and one is told of: {ran}");
    assert_eq!(bench.sh("node1", "iptables-save -t nat | grep -v '^#\\|^:'"), before, "the lab is as it was");
    assert_eq!(who(bench, "ask", "http://tea"), "one");
    bench.up(&bench.write(&text.replace("port: 70000", "port: 80")));
    until_answers(bench, "ask", "http://many617", |got| got.is_ok());
    assert_eq!(answerers(bench, "ask", "http://many999", 2), ["one"]);
}

fn a_load_balancer_serves_tcp_and_udp_on_one_port_number(bench: &Bench) {
    let ports =
        "ports: [{ name: t, port: 80, targetPort: 8080 }, { name: u, port: 80, protocol: UDP, targetPort: 8080 }]";
    change(bench, &format!("type: LoadBalancer, selector: {{ app: tea }}, {ports}"));
    // From inside, too: to its address, and to its name.
    for (from, to) in [("laptop", "198.51.100.1"), ("ask", "198.51.100.1"), ("ask", "tea")] {
        assert_eq!(who(bench, from, &format!("http://{to}")), "one", "{from} asks {to}");
        assert_eq!(udp_who(bench, from, &format!("{to}:80")), "one", "{from} asks {to}");
    }
}
