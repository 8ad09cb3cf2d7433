//! `labctl trace` through the ingress controllers: the request that each sends on is found by its mark, also
//! over a connection that stood already, and where it cannot be read it is said to be inferred. And names that
//! are looked up.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::as_root_and_ordinary_user;
use crate::harness::Bench;

as_root_and_ordinary_user![
    the_built_in_controllers_request_is_found_by_its_mark,
    nginx_sends_on_over_a_connection_that_stood,
    haproxys_request_is_found_by_its_mark,
    what_cannot_be_read_is_inferred,
    a_name_is_looked_up_as_the_askers_resolver_does,
];

/// One of the project's labs.
pub fn up(bench: &Bench, lab: &str) {
    up_with(bench, lab, |text| text);
}

fn up_with(bench: &Bench, lab: &str, change: impl Fn(String) -> String) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("labs/{lab}.yaml"));
    let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    // The bench gives it a name.
    let text: String =
        text.lines().filter(|line| !line.starts_with("name: ")).map(|line| format!("{line}\n")).collect();
    bench.ok(&["up", "--no-probes", &bench.write(&change(text))]);
}

pub fn traced(bench: &Bench, words: &[&str]) -> Value {
    // Whether it was answered, which the exit code says, is the trace's to say.
    bench.run(&[&["trace"], words, &["-o", "json"]].concat()).json()
}

/// The one flow of a proxy, and its step in the proxy.
#[track_caller]
pub fn proxied(trace: &Value) -> (Value, Value) {
    let flows = trace["flows"].as_array().expect("flows");
    let all: Vec<&Value> = flows.iter().filter(|f| f["role"] == "proxied").collect();
    assert_eq!(all.len(), 1, "{trace:#}");
    (all[0].clone(), all[0]["packets"][0]["steps"][0].clone())
}

/// Ask twice, so that what the controller keeps is used, and look at both.
#[track_caller]
fn is_marked(bench: &Bench, lab: &str, url: &str, driver: &str) -> [String; 2] {
    up(bench, lab);
    [(); 2].map(|()| {
        let trace = traced(bench, &["laptop", url]);
        let (flow, step) = proxied(&trace);
        let says = step["says"].as_str().unwrap_or_default();
        assert!(says.starts_with(&format!("the ingress controller ({driver}) has taken GET {url}")), "{says}");
        assert!(step["knownBy"].as_array().is_some_and(|all| all.contains(&"tap".into())), "{step:#}");
        // It is the pod that answered.
        let name = flow["destination"]["name"].as_str().unwrap_or_default();
        let seen = trace["asked"]["seen"].as_str().unwrap_or_default();
        assert!(seen.starts_with(&format!("an answer from {name},")), "{seen}, and {flow:#}");
        assert!(says.contains(&format!("to {name} 10.244.")), "{says}");
        let packets = flow["packets"].as_array().expect("packets");
        assert!(packets.iter().all(|p| p["fate"]["how"] == "delivered"), "{flow:#}");
        says.to_owned()
    })
}

fn the_built_in_controllers_request_is_found_by_its_mark(bench: &Bench) {
    is_marked(bench, "cafe", "https://cafe.example.com/tea", "built-in");
}

fn nginx_sends_on_over_a_connection_that_stood(bench: &Bench) {
    let url = "https://cafe.example.com/coffee";
    let [_, second] = is_marked(bench, "ingress-nginx", url, "nginx");
    assert!(second.ends_with(", over a connection that stood already"), "{second}");
}

fn haproxys_request_is_found_by_its_mark(bench: &Bench) {
    is_marked(bench, "ingress-haproxy", "https://cafe.example.com/tea", "haproxy");
}

fn what_cannot_be_read_is_inferred(bench: &Bench) {
    // nginx tells nothing of what it does.
    up_with(bench, "layers", |text| format!("cluster: {{ ingress: {{ controller: nginx }} }}\n{text}"));
    let (flow, step) = proxied(&traced(bench, &["laptop", "https://vault.example.com/x", "-k"]));
    assert_eq!(flow["destination"]["name"], "vault");
    let says = step["says"].as_str().unwrap_or_default();
    assert!(says.contains("(inferred: ") && step["knownBy"] == serde_json::json!(["state"]), "{step:#}");
}

fn a_name_is_looked_up_as_the_askers_resolver_does(bench: &Bench) {
    up(bench, "cafe");
    let trace = traced(bench, &["tea-1", "coffee-svc", "--dns"]);
    assert_eq!((&trace["asked"]["kind"], &trace["asked"]["answered"]), (&"dns".into(), &true.into()), "{trace:#}");
    let kinds: Vec<&str> =
        trace["flows"][0]["packets"].as_array().expect("packets").iter().filter_map(|p| p["kind"].as_str()).collect();
    let name = "A coffee-svc.default.svc.cluster.local";
    assert_eq!(kinds, [format!("query {name}"), format!("answer {name}: 10.96.0.101")]);
}
