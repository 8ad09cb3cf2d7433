//! Faults between an ingress controller that is a program of others, and tells nothing of what it does, and the pods
//! behind it: the client sees an error or nothing, and the fault is on the controller's own way.

use labctl::lab::names::NsName;
use labctl::trace::model::{Cause, Means, Role, Step, Trace, What};

use crate::broken::{Broken, traced};
use crate::harness::tests::Need;
use crate::harness::{Bench, Who};
use crate::tests;

tests![&[Need::Program("nginx")];
    nginx_cannot_reach_a_pod_as_an_ordinary_user,
    a_rule_of_nginxs_own_pod_as_an_ordinary_user,
    a_device_that_takes_no_large_answer_as_an_ordinary_user,
];
tests![&[Need::Program("nginx"), Need::Root];
    nginx_cannot_reach_a_pod_as_root,
    a_rule_of_nginxs_own_pod_as_root,
    a_device_that_takes_no_large_answer_as_root,
];
tests![&[Need::Program("haproxy")]; haproxy_cannot_reach_a_pod_as_an_ordinary_user];
tests![&[Need::Program("haproxy"), Need::Root]; haproxy_cannot_reach_a_pod_as_root];

fn nginx_cannot_reach_a_pod_as_an_ordinary_user() {
    faults_on_the_controllers_way_are_named(Who::Ordinary, "nginx");
}

fn nginx_cannot_reach_a_pod_as_root() {
    faults_on_the_controllers_way_are_named(Who::Root, "nginx");
}

fn haproxy_cannot_reach_a_pod_as_an_ordinary_user() {
    faults_on_the_controllers_way_are_named(Who::Ordinary, "haproxy");
}

fn haproxy_cannot_reach_a_pod_as_root() {
    faults_on_the_controllers_way_are_named(Who::Root, "haproxy");
}

fn a_rule_of_nginxs_own_pod_as_an_ordinary_user() {
    a_rule_of_the_controllers_own_pod(Who::Ordinary);
}

fn a_rule_of_nginxs_own_pod_as_root() {
    a_rule_of_the_controllers_own_pod(Who::Root);
}

fn a_device_that_takes_no_large_answer_as_an_ordinary_user() {
    a_device_that_takes_no_large_answer(Who::Ordinary);
}

fn a_device_that_takes_no_large_answer_as_root() {
    a_device_that_takes_no_large_answer(Who::Root);
}

/// The controller and the one who asks are on the same host, and the pod behind the ingress is not.
const LAB: &str = "
hosts: { node1: {}, node2: {} }
pods:
  asker: { host: node2, address: 10.244.2.20 }
  other: { host: node2, address: 10.244.2.21 }
  web:
    host: node1
    address: 10.244.1.20
    labels: { app: web }
    ports: [8080]
services:
  web-svc: { clusterIP: 10.96.0.100, selector: { app: web }, ports: [{ port: 80, targetPort: 8080 }] }
ingresses:
  web:
    rules:
      - host: web.example.com
        http: { paths: [{ path: /, pathType: Prefix, backend: { service: { name: web-svc, port: { number: 80 } } } }] }
";

fn up<'b>(bench: &'b Bench, controller: &str) -> Broken<'b> {
    let broken = Broken::of_text(bench, &format!("cluster: {{ ingress: {{ controller: {controller} }} }}\n{LAB}"));
    let controller = bench.ok(&["get", "pods", "-n", "ingress", "-o", "wide"]);
    assert!(controller.contains(" node2 "), "{controller}");
    broken
}

fn ask(bench: &Bench, timeout: &str) -> Trace {
    traced(bench, &["asker", "http://web.example.com/", "--connect-to", "ingress", "--timeout", timeout])
}

fn is_answered(bench: &Bench) {
    crate::harness::until("the request is answered", || ask(bench, "5").asked.answered);
}

/// The last request that the controller is told to have sent on.
fn begin(trace: &Trace) -> &Step {
    let flow = trace.flows.iter().rfind(|f| f.role == Role::Proxied).unwrap_or_else(|| panic!("{trace:#?}"));
    &flow.packets[0].steps[0]
}

/// Break the lab with a line on a machine, and see it named, mended and gone.
fn is_named_and_mended(broken: &Broken, (target, line): (&str, &str), (cause, place): (Cause, &str)) -> Trace {
    let bench = broken.bench;
    bench.sh(target, &format!("export PATH=$PATH:/usr/sbin:/sbin; {line}"));
    let trace = ask(bench, "1");
    assert!(!trace.asked.answered, "{target}: {line}");
    let fault = trace.verdict.fault.as_ref().unwrap_or_else(|| panic!("{line}: no fault: {trace:#?}"));
    let place: NsName = serde_json::from_value(place.into()).expect("a machine");
    assert_eq!((fault.cause, &fault.place), (cause, &place), "{line}: {fault:#?}");
    broken.mend(fault).unwrap_or_else(|why| panic!("{line}: {why}"));
    is_answered(bench);
    bench.is_as_planned();
    trace
}

fn faults_on_the_controllers_way_are_named(who: Who, controller: &str) {
    let bench = Bench::new(who);
    let broken = up(&bench, controller);
    // Nothing that stood before: a request over a connection that stands can be read.
    let far = "bridge fdb show dev flannel.1 | while read mac _; do bridge fdb del $mac dev flannel.1; done";
    let faults = [
        (("node2", far), (Cause::NoFdbEntry, "host/node2")),
        (("node1", "iptables -I FORWARD -p tcp --dport 8080 -j DROP"), (Cause::RuleDrop, "host/node1")),
        (("node1", "iptables -I FORWARD -p tcp --dport 8080 -j REJECT"), (Cause::RuleReject, "host/node1")),
    ];
    let [first, ..] = faults.map(|(broke, named)| is_named_and_mended(&broken, broke, named));
    // That it is the question's is concluded, and said to be.
    let step = begin(&first);
    assert!(step.says.contains("tries to send it on by ingress default/web"), "{}", step.says);
    let why = "(inferred: that is an endpoint of the service, and was asked for a connection while the request waited)";
    assert!(step.says.contains("to web 10.244.1.20:8080 ") && step.says.ends_with(why), "{}", step.says);
    assert_eq!((&step.known_by[..], matches!(step.what, What::Proxied { .. })), (&[Means::State][..], true));
    let evidence = first.verdict.fault.as_ref().map(|f| &f.evidence[..]).unwrap_or_default();
    assert!(evidence.iter().any(|line| line == &format!("concluded, not seen: {}", step.says)), "{evidence:#?}");
}

fn a_rule_of_the_controllers_own_pod(who: Who) {
    let bench = Bench::new(who);
    let broken = up(&bench, "nginx");
    let rule = "iptables -A OUTPUT -p tcp --dport 8080 -j DROP";
    let named = (Cause::RuleDrop, "pod/ingress/ingress-controller-1");
    let trace = is_named_and_mended(&broken, ("ingress/ingress-controller-1", rule), named);
    let step = begin(&trace);
    assert_eq!(step.place.path(), "pod/ingress/ingress-controller-1");
    assert!(step.says.starts_with("the ingress controller (nginx) has taken GET http://web.example.com/"), "{step:#?}");
}

/// The first packets of a connection are small, so the walk of those finds nothing.
fn a_device_that_takes_no_large_answer(who: Who) {
    let bench = Bench::new(who);
    let broken = up(&bench, "nginx");
    let smaller = ("node2", "ip link set eth0 mtu 700");
    let trace = is_named_and_mended(&broken, smaller, (Cause::TooBig, "host/node2"));
    let fault = trace.verdict.fault.expect("a fault");
    assert_eq!(fault.object, "eth0 mtu 700");
    assert!(
        trace.verdict.says.ends_with(" bytes, and eth0 of node2 takes 700; nobody is told"),
        "{}",
        trace.verdict.says
    );
}
