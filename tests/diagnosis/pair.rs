//! A lab of two hosts with two pods each, and what is done to its machines by hand.

use labctl::fault::Question;
use labctl::lab::names::NsName;

use crate::broken::Broken;
use crate::harness::Bench;

pub const LAB: &str = "
hosts: { node1: {}, node2: {} }
pods:
  a1: { host: node1, address: 10.244.1.20 }
  a2: { host: node1, address: 10.244.1.21, ports: [8080] }
  b1: { host: node2, address: 10.244.2.20, ports: [8080] }
  c1: { host: node2, address: 10.244.2.21, ports: [8080] }
";
/// With this every host has kube-proxy's rules.
const SERVICES: &str = "
services:
  b-svc: { clusterIP: 10.96.0.100, selector: { app: b }, ports: [{ port: 80, targetPort: 8080 }] }
";

/// The lab with kube-proxy's rules.
pub fn with_services(bench: &Bench) -> Broken<'_> {
    Broken::of_text(bench, &format!("{LAB}{SERVICES}"))
}

pub fn at(path: &str) -> NsName {
    serde_json::from_value(path.into()).expect("a machine")
}

/// Whether a pod's port 8080 answers a1.
pub fn question(to: &str) -> Question {
    Question::tcp(at("pod/default/a1"), to, 8080)
}

/// Run a line in a machine, where the tools are that change it.
pub fn tool(bench: &Bench, target: &str, line: &str) -> String {
    bench.sh(target, &format!("export PATH=$PATH:/usr/sbin:/sbin; {line}"))
}

/// A table `t` with a chain `c`: its type, its hook and priority, and its rules.
pub fn nft(bench: &Bench, target: &str, family: &str, (kind, hook, rules): (&str, &str, &str)) {
    let text = format!("table {family} t {{\nchain c {{\ntype {kind} hook {hook};\n{rules}\n}}\n}}");
    tool(bench, target, &format!("nft -f - <<'END'\n{text}\nEND"));
}
