//! Ingress as the lab's clients see it, through each controller alike: the tables of hosts and paths,
//! TLS by the lab's authority, pods that come and go under load, rules that change.

use std::fmt::Write as _;
use std::io::Read as _;

use serde_json::Value;

use crate::harness::{Background, Bench, beside_the_project, until};

/// The tests of every controller, each under the controller's name.
macro_rules! through {
    ($($module:ident = $controller:literal),*) => { $(
        mod $module {
            use crate::harness::Bench;

            $crate::as_root_and_ordinary_user![
                requests_are_routed_by_host_and_path,
                clients_trust_what_the_lab_signs,
                pods_that_are_replaced_under_load_lose_no_request,
                a_rule_that_changes_under_load_loses_no_request,
                objects_change_while_the_lab_runs,
                a_controller_that_is_killed_comes_back,
                another_controller_serves_when_up_returns,
            ];
            $crate::as_root_and_ordinary_user![
                beside "shared/conformance/ingress"; every_recorded_case_holds
            ];

            const CONTROLLER: &str = $controller;

            fn requests_are_routed_by_host_and_path(bench: &Bench) {
                super::requests_are_routed_by_host_and_path(bench, CONTROLLER);
            }

            fn clients_trust_what_the_lab_signs(bench: &Bench) {
                super::clients_trust_what_the_lab_signs(bench, CONTROLLER);
            }

            fn pods_that_are_replaced_under_load_lose_no_request(bench: &Bench) {
                super::pods_that_are_replaced_under_load_lose_no_request(bench, CONTROLLER);
            }

            fn a_rule_that_changes_under_load_loses_no_request(bench: &Bench) {
                super::a_rule_that_changes_under_load_loses_no_request(bench, CONTROLLER);
            }

            fn objects_change_while_the_lab_runs(bench: &Bench) {
                super::objects_change_while_the_lab_runs(bench, CONTROLLER);
            }

            fn another_controller_serves_when_up_returns(bench: &Bench) {
                super::another_controller_serves_when_up_returns(bench, CONTROLLER);
            }

            fn a_controller_that_is_killed_comes_back(bench: &Bench) {
                super::a_controller_that_is_killed_comes_back(bench, CONTROLLER);
            }

            fn every_recorded_case_holds(bench: &Bench) {
                super::every_recorded_case_holds(bench, CONTROLLER);
            }
        }
    )* };
}

through![built_in = "built-in", nginx = "nginx", haproxy = "haproxy"];

/// The pod of the lab's controller.
const POD: &str = "ingress/ingress-controller-1";

/// A path of a rule: its host, type and path, and the service behind it.
type Path<'a> = (&'a str, &'a str, &'a str, &'a str);

/// A lab with a client, the controller, pods and services of the given names, and one ingress.
fn lab(controller: &str, services: &[&str], paths: &[Path], more: &str) -> String {
    let mut lab = format!(
        "hosts: {{ node1: {{}}, node2: {{}} }}\nclients: {{ laptop: {{}} }}\n\
         cluster: {{ ingress: {{ controller: {controller}, defaultBackendService: default/rest }} }}\npods:\n"
    );
    for name in services.iter().chain(&["rest"]) {
        let _ = writeln!(lab, "  {name}: {{ labels: {{ app: {name} }} }}");
    }
    lab += "services:\n";
    for name in services.iter().chain(&["rest"]) {
        let _ = writeln!(lab, "  {name}: {{ selector: {{ app: {name} }}, ports: [{{ port: 80, targetPort: 8080 }}] }}");
    }
    let _ = write!(lab, "ingresses:\n  all:\n    rules:\n{}", rules(paths));
    lab + more
}

fn rules(paths: &[Path]) -> String {
    let mut text = String::new();
    for (host, kind, path, service) in paths {
        let host = if host.is_empty() { String::new() } else { format!("host: '{host}', ") };
        let _ = writeln!(
            text,
            "      - {{ {host}http: {{ paths: [{{ path: '{path}', pathType: {kind}, \
             backend: {{ service: {{ name: {service}, port: {{ number: 80 }} }} }} }}] }} }}"
        );
    }
    text
}

/// Who answers the client's request, by the header that echo servers set; the status where nobody is named.
fn who(bench: &Bench, words: &[&str]) -> String {
    let mut all = vec!["curl", "-sS", "-o", "/dev/null", "--max-time", "10", "--path-as-is", "--noproxy", "*"];
    all.extend(["-w", "%header{x-labctl-pod} %{http_code}"]);
    all.extend(words);
    let said = bench.exec("laptop", &all).ends_with(0).stdout;
    let words: Vec<&str> = said.split_whitespace().collect();
    words.first().map(|w| (*w).to_owned()).unwrap_or_default()
}

fn address(bench: &Bench) -> String {
    let all = bench.json(&["get", "service", "ingress-controller", "-n", "ingress"]);
    let ip = all.pointer("/status/loadBalancer/ingress/0/ip").and_then(Value::as_str);
    ip.unwrap_or_else(|| panic!("the controller has no public address: {all}")).to_owned()
}

fn requests_are_routed_by_host_and_path(bench: &Bench, controller: &str) {
    let paths = [
        ("cafe.example.com", "Prefix", "/tea", "tea"),
        ("cafe.example.com", "Exact", "/tea/green", "green"),
        ("*.shop.example.com", "Prefix", "/", "shop"),
        ("", "Exact", "/anyone", "any"),
    ];
    bench.up(&bench.write(&lab(controller, &["tea", "green", "shop", "any"], &paths, "")));
    let ip = address(bench);
    let url = |path: &str| format!("http://{ip}{path}");
    let as_host = |host: &str, path: &str| who(bench, &["-H", &format!("Host: {host}"), &url(path)]);
    assert_eq!(who(bench, &["http://cafe.example.com/tea"]), "tea", "the client knows the name");
    assert_eq!(as_host("cafe.example.com", "/tea/black?x=1"), "tea");
    assert_eq!(as_host("CAFE.example.com:80", "/tea/green"), "green");
    assert_eq!(as_host("cafe.example.com", "/teapot"), "rest");
    assert_eq!(as_host("cafe.example.com", "/anyone"), "rest", "a name that has a host of its own has no other");
    assert_eq!(as_host("a.shop.example.com", "/x"), "shop");
    assert_eq!(as_host("a.b.shop.example.com", "/anyone"), "any");
    assert_eq!(as_host("shop.example.com", "/x"), "rest");
    let pod = bench.ok(&["describe", "pod", POD]);
    assert!(pod.contains("ingress-controller-1"), "its namespace is called like a kind: {pod}");
    assert_eq!(as_host("elsewhere.example.com", "/anyone"), "any");
}

/// The recorded tables: for each set of paths a host of its own, a pod for each path.
fn every_recorded_case_holds(bench: &Bench, controller: &str) {
    let folder = beside_the_project("shared/conformance/ingress").expect("the runner has looked");
    let text = std::fs::read_to_string(folder.join("path_cases.json")).expect("the cases");
    let cases: Value = serde_json::from_str(&text).expect("JSON");
    let list = |field: &str| cases[field].as_array().unwrap_or_else(|| panic!("no {field}")).clone();
    let (by_path, by_host) = (list("docPathTable"), list("docHostTable"));
    let names: Vec<String> = (0..by_path.len()).map(|n| format!("case{n}.example.com")).collect();
    let services = ["p0", "p1", "p2"];
    let mut paths: Vec<(String, String, String, &str)> = Vec::new();
    for (case, host) in by_path.iter().zip(&names) {
        for (written, service) in strings(&case["paths"]).iter().zip(services) {
            let (path, kind) = path_and_kind(written, case["kind"].as_str().unwrap_or_default());
            paths.push((host.clone(), kind, path, service));
        }
    }
    for rule in
        by_host.iter().map(|c| c["rule"].as_str().unwrap_or_default()).collect::<std::collections::BTreeSet<_>>()
    {
        paths.push((rule.to_owned(), "Prefix".to_owned(), "/".to_owned(), "p0"));
    }
    let paths: Vec<Path> = paths.iter().map(|(h, k, p, s)| (h.as_str(), k.as_str(), p.as_str(), *s)).collect();
    bench.up(&bench.write(&lab(controller, &services, &paths, "")));
    let ip = address(bench);
    let ask = |host: &str, path: &str| who(bench, &["-H", &format!("Host: {host}"), &format!("http://{ip}{path}")]);
    let mut asked = 0;
    for (case, host) in by_path.iter().zip(&names) {
        let winner = case["winner"].as_str().filter(|w| *w != "defaultBackend");
        let place = strings(&case["paths"]).iter().position(|p| Some(p.as_str()) == winner);
        let expected = place.map_or("rest", |n| services[n]);
        let requests = match case["request"].as_str().unwrap_or_default() {
            "(all paths)" => vec!["/", "/foo", "/a/b/"],
            one => vec![one],
        };
        for path in requests {
            assert_eq!(ask(host, path), expected, "{case}");
            asked += 1;
        }
    }
    for case in &by_host {
        let expected = if case["matches"] == true { "p0" } else { "rest" };
        assert_eq!(ask(case["hostHeader"].as_str().unwrap_or_default(), "/"), expected, "{case}");
        asked += 1;
    }
    assert!(asked >= 20, "the tables have more than {asked} requests");
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|s| s.as_str().map(str::to_owned)).collect()
}

/// `/foo (Exact)`, or a path of the table's own kind.
fn path_and_kind(written: &str, kind: &str) -> (String, String) {
    match written.split_once(" (") {
        Some((path, kind)) => (path.to_owned(), kind.trim_end_matches(')').to_owned()),
        None => (written.to_owned(), kind.to_owned()),
    }
}

const TLS: &str = "    tls: [{ hosts: [cafe.example.com], secretName: cafe-secret }]\n";

fn clients_trust_what_the_lab_signs(bench: &Bench, controller: &str) {
    let paths = [("cafe.example.com", "Prefix", "/", "tea"), ("plain.example.com", "Prefix", "/", "tea")];
    bench.up(&bench.write(&lab(controller, &["tea"], &paths, TLS)));
    assert_eq!(who(bench, &["https://cafe.example.com/"]), "tea");
    let redirected =
        bench.sh("laptop", "curl -sS -o /dev/null -w '%{http_code} %{redirect_url}' http://cafe.example.com/a?b=c");
    assert_eq!(redirected, "308 https://cafe.example.com/a?b=c");
    assert_eq!(who(bench, &["http://plain.example.com/"]), "tea", "without TLS nothing is redirected");
    // A name without a certificate gets one that nobody believes.
    bench.exec("laptop", &["curl", "-sS", "https://plain.example.com/"]).ends_with(60);
    assert_eq!(who(bench, &["-k", "https://plain.example.com/"]), "tea");
    // Who has the authority's certificate may trust it anywhere.
    let ca = bench.ok(&["ca"]);
    let script = format!(
        "cat > /run/ca.pem <<'PEM'\n{ca}PEM\ncurl -sS -o /dev/null --cacert /run/ca.pem https://cafe.example.com/"
    );
    bench.sh("tea", &script);
}

/// wrk at work on the client, until it is told to end.
fn load(bench: &Bench, url: &str) -> Background {
    let line = ["exec", "laptop", "--", "wrk", "-t1", "-c8", "-d", "60s", "--latency", url];
    Background::start(bench.labctl(&line))
}

/// No request may have failed; how many there were is printed.
fn nothing_was_lost(bench: &Bench, mut load: Background, what: &str) {
    // wrk reports what it has seen so far when it is interrupted.
    bench.sh("laptop", "pkill -INT -x wrk");
    let ended = load.end();
    let mut said = String::new();
    load.0.stdout.take().expect("a pipe").read_to_string(&mut said).expect("text");
    let line = |label: &str| said.lines().find(|l| l.contains(label)).unwrap_or_default().trim();
    println!("{what}: {}, {}", line("requests in"), line("99%"));
    assert!(ended.success() && !said.contains("Non-2xx") && !said.contains("Socket errors"), "{what}: {said}");
    assert!(line("Requests/sec").split_whitespace().last().is_some_and(|n| n != "0.00"), "{what}: {said}");
}

const TEA: &str = "deployments:\n  tea: { replicas: 3, labels: { app: tea } }\n";

/// A lab whose service `tea` has a deployment behind it.
fn tea(controller: &str, paths: &[Path]) -> String {
    lab(controller, &["tea"], paths, TEA).replace("  tea: { labels: { app: tea } }\n", "")
}

fn pods_that_are_replaced_under_load_lose_no_request(bench: &Bench, controller: &str) {
    bench.up(&bench.write(&tea(controller, &[("cafe.example.com", "Prefix", "/", "tea")])));
    let before = workers(bench);
    let load = load(bench, "http://cafe.example.com/");
    for old in 1..=3 {
        bench.ok(&["delete", "pod", &format!("tea-{old}")]);
        let new = format!("tea-{}", old + 3);
        until("the new pod answers", || who(bench, &["http://cafe.example.com/"]) == new);
    }
    nothing_was_lost(bench, load, &format!("{controller}: all pods replaced"));
    assert_eq!(workers(bench), before, "pods that come and go are no reason for new workers");
}

/// The processes of the controller's program, as its pod counts them; one that only serves has itself.
fn workers(bench: &Bench) -> String {
    let line = "for p in /proc/[0-9]*; do grep -lsE '^Name:\\s(nginx|haproxy|ingress)' $p/status; done | sort";
    let found = bench.sh(POD, line);
    assert!(!found.is_empty(), "no process of the controller was found");
    found
}

fn a_rule_that_changes_under_load_loses_no_request(bench: &Bench, controller: &str) {
    let first = [("cafe.example.com", "Prefix", "/", "tea")];
    bench.up(&bench.write(&tea(controller, &first)));
    let load = load(bench, "http://cafe.example.com/");
    for n in 0..3 {
        let path = format!("/new{n}");
        let second = [first[0], ("cafe.example.com", "Exact", path.as_str(), "rest")];
        let said = bench.up(&bench.write(&tea(controller, &second)));
        assert!(said.contains("ingress default/all: changed"), "{said}");
        until("the new rule is in force", || who(bench, &[&format!("http://cafe.example.com{path}")]) == "rest");
    }
    // The path that is asked for gets another service, which no rule had before, and the first one back.
    for (service, answers) in [("rest", "rest"), ("tea", "tea-")] {
        bench.up(&bench.write(&tea(controller, &[("cafe.example.com", "Prefix", "/", service)])));
        until("the other service answers", || who(bench, &["http://cafe.example.com/"]).starts_with(answers));
    }
    nothing_was_lost(bench, load, &format!("{controller}: three rules and a backend changed"));
}

const MILK: &str = "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: { name: milk }
spec:
  tls: [{ hosts: [milk.example.com], secretName: milk-secret }]
  rules:
    - host: milk.example.com
      http: { paths: [{ path: /, pathType: Prefix, backend: { service: { name: tea, port: { number: 80 } } } }] }
";

fn objects_change_while_the_lab_runs(bench: &Bench, controller: &str) {
    bench.up(&bench.write(&lab(controller, &["tea"], &[("cafe.example.com", "Prefix", "/", "tea")], "")));
    let milk = bench.path("milk.yaml");
    std::fs::write(&milk, MILK).expect("a file");
    let milk = milk.to_string_lossy();
    assert_eq!(who(bench, &["-H", "Host: milk.example.com", &format!("http://{}/", address(bench))]), "rest");
    // A manifest gets what its writer brings; the secret is missing, so it is the default certificate.
    bench.run(&["apply", "-f", &milk]).ends_with(0).says("milk-secret");
    until("the new ingress is served", || who(bench, &["-k", "https://milk.example.com/"]) == "tea");
    bench.exec("laptop", &["curl", "-sS", "https://milk.example.com/"]).ends_with(60);
    // The last endpoint goes: 503 from the controller. The service goes: 503 as well.
    bench.ok(&["delete", "pod", "tea"]);
    until("nobody is left", || who(bench, &["http://cafe.example.com/"]) == "503");
    bench.ok(&["delete", "ingress", "milk"]);
    until("the ingress is gone", || {
        who(bench, &["-H", "Host: milk.example.com", &format!("http://{}/", address(bench))]) == "rest"
    });
    bench.is_as_planned();
}

/// `up` returns when the new controller listens, so that nobody need wait.
fn another_controller_serves_when_up_returns(bench: &Bench, controller: &str) {
    let file = |controller: &str| lab(controller, &["tea"], &[("cafe.example.com", "Prefix", "/", "tea")], "");
    let other = if controller == "built-in" { "nginx" } else { "built-in" };
    bench.up(&bench.write(&file(other)));
    for controller in [controller, other, controller] {
        bench.up(&bench.write(&file(controller)));
        assert_eq!(who(bench, &["http://cafe.example.com/"]), "tea", "through {controller}");
    }
}

fn a_controller_that_is_killed_comes_back(bench: &Bench, controller: &str) {
    bench.up(&bench.write(&lab(controller, &["tea"], &[("cafe.example.com", "Prefix", "/", "tea")], TLS)));
    assert_eq!(who(bench, &["https://cafe.example.com/"]), "tea");
    let restarts = |bench: &Bench| {
        let pod = bench.json(&["get", "pod", "ingress-controller-1", "-n", "ingress"]);
        pod.pointer("/status/containerStatuses/0/restartCount").and_then(Value::as_u64).unwrap_or_default()
    };
    assert_eq!(restarts(bench), 0);
    // With it goes everyone in its room, the one who killed it too.
    let killed = bench.exec(POD, &["pkill", "-9", "-x", "ingress"]);
    assert!([0, 137].contains(&killed.code), "{killed}");
    until("it was started again", || restarts(bench) == 1);
    until("it serves again", || {
        bench.exec("laptop", &["curl", "-sS", "-o", "/dev/null", "--max-time", "2", "https://cafe.example.com/"]).code
            == 0
    });
}
