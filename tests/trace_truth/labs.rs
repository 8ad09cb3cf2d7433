//! Random labs: any back end, one or two networks, up to three hosts, pods, a client, and services of
//! every type.

use std::fmt::Write;

use labctl::diag::Problems;
use labctl::lab::Lab;
use labctl::plan::Plan;
use labctl::spec::load::{Text, decode_text};
use labctl::trace::walk::prediction;

use crate::harness::dice::Dice;

/// A lab as it was written, as it is meant, and as it should be built.
pub struct Written {
    pub text: String,
    pub lab: Lab,
    pub plan: Plan,
}

impl Written {
    pub fn new(name: &str, text: String) -> Written {
        let whole = Text { name: name.into(), text: text.clone(), default_name: name.into(), ..Text::default() };
        let mut problems = Problems::default();
        let lab = labctl::lab::resolve(&decode_text(&whole), None, &mut problems);
        let lab = lab.unwrap_or_else(|| panic!("{problems:?} in\n{text}"));
        let plan = prediction(&lab);
        Written { text, lab, plan }
    }
}

const BACKENDS: [&str; 7] = [
    "{ backend: vxlan }",
    "{ backend: vxlan, directRouting: true }",
    "{ backend: vxlan, vni: 9, port: 4789 }",
    "{ backend: vxlan, ipMasq: false }",
    "{ backend: udp }",
    "{ backend: udp, port: 9000 }",
    "{ backend: host-gw }",
];

/// What a service may be beside its selector and ports. `#` becomes a number of its own.
const KINDS: [&str; 9] = [
    "",
    "sessionAffinity: ClientIP, ",
    "clusterIP: None, ",
    "externalIPs: [198.51.100.2#], ",
    "internalTrafficPolicy: Local, ",
    "type: NodePort, ",
    "type: NodePort, externalTrafficPolicy: Local, ",
    "type: LoadBalancer, loadBalancerIP: 198.51.100.1#, ",
    "type: LoadBalancer, loadBalancerIP: 198.51.100.1#, externalTrafficPolicy: Local, healthCheckNodePort: 3109#, ",
];

/// Whether packets between these ports are what load balancers ask hosts, and kubelet the cluster's DNS, by
/// themselves. No question is about these ports.
pub fn is_of_a_health_check((source, destination): (u16, u16)) -> bool {
    [source, destination].iter().any(|port| (31_090..31_100).contains(port) || *port == 8181)
}

/// A lab, always the same for the same numbers.
pub fn lab(dice: &mut Dice) -> String {
    let networks = 1 + dice.below(2);
    // Across networks host-gw's machines do not reach each other, and flannel says so.
    let backends = if networks == 1 { &BACKENDS[..] } else { &BACKENDS[..6] };
    let mut text = format!("cluster: {{ flannel: {} }}\nnetworks:\n", dice.one(backends));
    for n in 1..=networks {
        let _ = writeln!(text, "  net{n}: {{ cidr: 192.168.{n}.0/24, mtu: {} }}", dice.one(&[1500, 1500, 1400]));
    }
    let hosts = 1 + dice.below(3);
    text += "hosts:\n";
    for h in 1..=hosts {
        let network = 1 + dice.below(networks);
        let ports = dice.one(&["", ", ports: [9100]"]);
        let place = format!("network: net{network}, address: 192.168.{network}.{}", 10 + h);
        let _ = writeln!(text, "  node{h}: {{ {place}, podCIDR: 10.244.{h}.0/24{ports} }}");
    }
    let _ = writeln!(text, "clients:\n  laptop: {{ network: net{networks}, address: 192.168.{networks}.101 }}");
    pods(dice, &mut text, hosts);
    services(dice, &mut text);
    text
}

fn pods(dice: &mut Dice, text: &mut String, hosts: u64) {
    *text += "pods:\n";
    for n in 1..=2 + dice.below(3) {
        let app = dice.one(&["a", "b", "none"]);
        let _ = writeln!(
            text,
            "  pod{n}: {{ host: node{}, labels: {{ app: {app} }}, ports: {PORTS} }}",
            1 + dice.below(hosts)
        );
    }
    let _ = writeln!(
        text,
        "deployments:\n  dep: {{ replicas: {}, labels: {{ app: a }}, ports: {PORTS} }}",
        1 + dice.below(3)
    );
}

const PORTS: &str = "[8080, { containerPort: 8080, protocol: UDP }]";

fn services(dice: &mut Dice, text: &mut String) {
    *text += "services:\n";
    for n in 1..=2 + dice.below(4) {
        let kind = dice.one(&KINDS);
        let app = dice.one(&["a", "a", "b", "nobody"]);
        let node_port =
            |number: u64| if kind.contains("type:") { format!(", nodePort: {number}") } else { String::new() };
        let (tcp, udp) = (node_port(30_000 + n), node_port(30_100 + n));
        let port = if kind.contains("None") { 8080 } else { 80 };
        let _ = writeln!(
            text,
            "  svc{n}: {{ {}selector: {{ app: {app} }}, ports: [{{ name: t, port: {port}, targetPort: 8080{tcp} }}, \
             {{ name: u, port: {port}, protocol: UDP, targetPort: 8080{udp} }}] }}",
            kind.replace('#', &n.to_string())
        );
    }
}
