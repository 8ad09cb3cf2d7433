//! What labctl's own programs tell while a trace is on: the ingress controller which rule took a request and over
//! which connection it went on, the DNS server what it answered, flanneld what it carried. It is known by the
//! program, and not only inferred.

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::process::{Tree, signal};
use crate::harness::{Bench, until};
use crate::trace_proxied::{proxied, traced, up};
use crate::{as_ordinary_user_with_tun, as_root, as_root_and_ordinary_user};

as_root_and_ordinary_user![
    the_controller_tells_which_rule_took_the_request,
    what_cannot_be_read_is_known_all_the_same,
    an_answer_of_the_controllers_own_is_told_with_its_reason,
    an_endpoint_that_does_not_answer_is_known_to_have_been_asked,
    what_refused_the_controllers_first_try_is_not_the_cause,
    the_dns_server_tells_what_it_answered,
    a_program_that_is_stopped_is_said_not_to_tell,
];
as_root![flanneld_tells_what_it_carried];
as_ordinary_user_with_tun![flanneld_tells_what_it_carried];

fn knows(step: &Value, means: &str) -> bool {
    step["knownBy"].as_array().is_some_and(|all| all.contains(&means.into()))
}

fn says(step: &Value) -> &str {
    step["says"].as_str().unwrap_or_default()
}

/// Every step of a trace, with the flow's role.
fn steps(trace: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let flows = trace["flows"].as_array().into_iter().flatten();
    let packets = flows.flat_map(|f| {
        let role = f["role"].as_str().unwrap_or_default();
        f["packets"].as_array().into_iter().flatten().map(move |p| (role, p))
    });
    packets.flat_map(|(role, p)| p["steps"].as_array().into_iter().flatten().map(move |s| (role, s)))
}

/// Three ingresses share a host; the last one takes what the others leave.
const SHARED: &str = "hosts: { node1: {}, node2: {} }\nclients: { laptop: {} }
deployments:
  tea: { replicas: 2, labels: { app: tea }, ports: [8080] }
  coffee: { replicas: 1, labels: { app: coffee }, ports: [8080] }
services:
  tea: { selector: { app: tea }, ports: [{ port: 80, targetPort: 8080 }] }
  coffee: { selector: { app: coffee }, ports: [{ port: 80, targetPort: 8080 }] }
ingresses:
  a-tea:
    rules: [{ host: cafe.example.com, http: { paths: [{ path: /tea, pathType: Prefix, backend: { service: { name: tea, port: { number: 80 } } } }] } }]
  b-green:
    rules: [{ host: cafe.example.com, http: { paths: [{ path: /tea/green, pathType: Exact, backend: { service: { name: coffee, port: { number: 80 } } } }] } }]
  c-rest:
    rules: [{ host: cafe.example.com, http: { paths: [{ path: /menu, pathType: Prefix, backend: { service: { name: coffee, port: { number: 80 } } } }] } }]
";

fn the_controller_tells_which_rule_took_the_request(bench: &Bench) {
    bench.ok(&["up", "--no-probes", &bench.write(SHARED)]);
    for (path, rule, service) in [
        ("/tea/black", "ingress default/a-tea, spec.rules[0].http.paths[0] (Prefix /tea)", "tea"),
        ("/tea/green", "ingress default/b-green, spec.rules[0].http.paths[0] (Exact /tea/green)", "coffee"),
        ("/menu", "ingress default/c-rest, spec.rules[0].http.paths[0] (Prefix /menu)", "coffee"),
    ] {
        let trace = traced(bench, &["laptop", &format!("http://cafe.example.com{path}")]);
        let (flow, step) = proxied(&trace);
        let name = flow["destination"]["name"].as_str().unwrap_or_default();
        assert!(knows(&step, "program") && name.starts_with(service), "{flow:#}");
        assert_eq!(step["what"]["because"], format!("{rule}, service default/{service} port 80"), "{step:#}");
        // In the order in which it happened: taken in before it was sent on.
        let at = |step: &Value| step["at"].as_u64().unwrap_or_else(|| panic!("no time: {step:#}"));
        let sent = steps(&trace).find(|(role, s)| *role == "proxied" && knows(s, "tap")).expect("a packet sent on").1;
        assert!(at(&step) <= at(sent), "{step:#}, {sent:#}");
    }
}

fn what_cannot_be_read_is_known_all_the_same(bench: &Bench) {
    up(bench, "layers");
    let (flow, step) = proxied(&traced(bench, &["laptop", "https://vault.example.com/x", "-k"]));
    assert_eq!(flow["destination"]["name"], "vault");
    assert_eq!(step["knownBy"], serde_json::json!(["program"]), "{step:#}");
    assert!(!says(&step).contains("inferred"), "{step:#}");
}

fn an_answer_of_the_controllers_own_is_told_with_its_reason(bench: &Bench) {
    bench.ok(&["up", "--no-probes", &bench.write(SHARED)]);
    let trace = traced(bench, &["laptop", "http://cafe.example.com/cake"]);
    let told = steps(&trace).find(|(_, s)| s["what"]["kind"] == "proxied");
    let (role, step) = told.unwrap_or_else(|| panic!("{trace:#}"));
    let reason = "and answers 404 itself: no rule for the host cafe.example.com takes this path";
    assert!(role == "request" && knows(step, "program") && says(step).contains(reason), "{step:#}");
    let evidence = trace["verdict"]["fault"]["evidence"].to_string();
    assert!(evidence.contains(reason), "{evidence}");
}

fn an_endpoint_that_does_not_answer_is_known_to_have_been_asked(bench: &Bench) {
    bench.ok(&["up", "--no-probes", &bench.write(SHARED)]);
    bench.ok(&["exec", "coffee-1", "iptables", "-A", "INPUT", "-p", "tcp", "--dport", "8080", "-j", "DROP"]);
    let trace = traced(bench, &["laptop", "http://cafe.example.com/menu"]);
    let (flow, step) = proxied(&trace);
    assert!(knows(&step, "program") && flow["destination"]["name"] == "coffee-1", "{flow:#}");
    let fault = &trace["verdict"]["fault"];
    assert_eq!((&fault["cause"], &fault["place"]), (&"rule-drop".into(), &"pod/default/coffee-1".into()), "{fault:#}");
}

fn what_refused_the_controllers_first_try_is_not_the_cause(bench: &Bench) {
    let lab =
        SHARED.replace("coffee: { replicas: 1,", "coffee: { replicas: 2,").replace("path: /menu", "path: /status");
    bench.ok(&["up", "--no-probes", &bench.write(&lab)]);
    bench.ok(&["exec", "coffee-1", "iptables", "-A", "INPUT", "-p", "tcp", "--dport", "8080", "-j", "REJECT"]);
    // Endpoints have their turns, so one of two requests comes to the one that refuses first.
    let mut tried_both = 0;
    for _ in 0..4 {
        let trace = traced(bench, &["laptop", "http://cafe.example.com/status/404"]);
        tried_both += i32::from(trace["flows"].as_array().is_some_and(|f| f.len() == 3));
        let fault = &trace["verdict"]["fault"];
        assert_eq!((&fault["cause"], &fault["place"]), (&"other".into(), &"pod/default/coffee-2".into()), "{trace:#}");
    }
    assert!(tried_both > 0);
}

fn the_dns_server_tells_what_it_answered(bench: &Bench) {
    up(bench, "cafe");
    for (words, answer, source) in [
        (["tea-1", "coffee-svc", "--dns"].as_slice(), "10.96.0.101", "service default/coffee-svc"),
        (&["tea-1", "nope.default.svc.cluster.local", "--dns"], "NXDOMAIN", "nobody: the cluster has no such name"),
    ] {
        let trace = traced(bench, words);
        let asked: Vec<&Value> = steps(&trace).map(|(_, s)| s).filter(|s| s["what"]["kind"] == "asked").collect();
        // Names are completed along the search list; the last one that was asked for decides.
        let Some(step) = asked.last() else { panic!("no answer: {trace:#}") };
        assert!(knows(step, "program") && says(step).ends_with(&format!("the name is of {source}")), "{step:#}");
        assert_eq!(step["what"]["answer"], answer, "{step:#}");
    }
}

fn flanneld_tells_what_it_carried(bench: &Bench) {
    up(bench, "flannel-udp");
    let pods = bench.json(&["get", "pods"]);
    let of = |host: &str| {
        let all = pods["items"].as_array().into_iter().flatten();
        let name = all.filter(|p| p["spec"]["nodeName"] == host).find_map(|p| p["metadata"]["name"].as_str());
        name.unwrap_or_else(|| panic!("{pods:#}")).to_owned()
    };
    let trace = traced(bench, &[&of("node1"), &of("node2"), "--icmp"]);
    let both: Vec<&Value> = steps(&trace).map(|(_, s)| s).filter(|s| s["what"]["kind"] == "user-space").collect();
    assert_eq!(both.len(), 4, "two flannelds there and two back: {both:#?}");
    assert!(both.iter().all(|s| knows(s, "program") && s["at"].is_u64()), "{both:#?}");
    let wrapped: Vec<&Value> = steps(&trace).map(|(_, s)| s).filter(|s| s["what"]["kind"] == "encapsulated").collect();
    assert!(wrapped.len() == 2 && wrapped.iter().all(|s| knows(s, "program")), "{wrapped:#?}");
}

fn a_program_that_is_stopped_is_said_not_to_tell(bench: &Bench) {
    bench.ok(&["up", "--no-probes", &bench.write(SHARED)]);
    let trace = || traced(bench, &["laptop", "http://cafe.example.com/menu"]);
    let servers: Vec<i32> = Tree::of(bench.daemon()).named("coredns");
    assert!(!servers.is_empty());
    servers.iter().for_each(|pid| signal(*pid, Signal::SIGSTOP));
    let notes = trace()["notes"].to_string();
    assert!(notes.contains("the program of kube-system/coredns-1 does not tell what it does"), "{notes}");
    servers.iter().for_each(|pid| signal(*pid, Signal::SIGCONT));
    // It takes its time to come back to what it was about.
    until("the DNS servers tell again", || !trace()["notes"].to_string().contains("does not tell"));
}
