//! What a running lab tells of its ingresses: what a controller refuses, what a change would do, which
//! certificates clients get; and the names of ingresses inside pods.

use serde_json::Value;

use crate::as_root_and_ordinary_user;
use crate::harness::{Bench, until};

as_root_and_ordinary_user![
    what_nginx_refuses_is_told_until_it_is_mended,
    what_haproxy_refuses_is_told_until_it_is_mended,
    a_plan_tells_of_ingresses_as_the_change_does,
    the_controllers_config_map_is_read_when_it_is_applied,
    a_signed_secret_that_is_deleted_is_signed_anew,
    a_default_class_that_is_applied_later_takes_nothing_away,
    a_bad_secret_is_told_for_as_long_as_it_is_bad,
    pods_know_the_names_of_ingresses_and_trust_the_authority,
];

const POD: &str = "ingress/ingress-controller-1";

/// A lab with a client, tea, and an ingress for cafe.example.com with a certificate.
fn cafe(controller: &str) -> String {
    format!(
        "hosts: {{ node1: {{}}, node2: {{}} }}\nclients: {{ laptop: {{}} }}\n\
         cluster: {{ ingress: {{ controller: {controller} }} }}\n\
         pods: {{ tea: {{ labels: {{ app: tea }} }} }}\n\
         services: {{ tea-svc: {{ selector: {{ app: tea }}, ports: [{{ port: 80, targetPort: 8080 }}] }} }}\n\
         ingresses:\n  cafe:\n    tls: [{{ hosts: [cafe.example.com], secretName: cafe-secret }}]\n    rules:\n      {}\n",
        rule("cafe.example.com", "Prefix", "/")
    )
}

fn rule(host: &str, kind: &str, path: &str) -> String {
    format!(
        "- {{ host: {host}, http: {{ paths: [{{ path: '{path}', pathType: {kind}, \
         backend: {{ service: {{ name: tea-svc, port: {{ number: 80 }} }} }} }}] }} }}"
    )
}

/// Apply a manifest, which may warn.
fn apply(bench: &Bench, manifest: &str) -> String {
    let path = bench.path("applied.yaml");
    std::fs::write(&path, manifest).expect("a file");
    let ran = bench.run(&["apply", "-f", &path.to_string_lossy()]).ends_with(0);
    ran.stdout + &ran.stderr
}

fn ingress(name: &str, spec: &str) -> String {
    format!("apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{ name: {name} }}\nspec:\n  {spec}\n")
}

fn is_served(bench: &Bench, url: &str) -> bool {
    bench.exec("laptop", &["curl", "-sSf", "-o", "/dev/null", "--max-time", "5", url]).code == 0
}

fn what_nginx_refuses_is_told_until_it_is_mended(bench: &Bench) {
    what_is_refused_is_told_until_it_is_mended(bench, "nginx");
}

fn what_haproxy_refuses_is_told_until_it_is_mended(bench: &Bench) {
    what_is_refused_is_told_until_it_is_mended(bench, "haproxy");
}

fn what_is_refused_is_told_until_it_is_mended(bench: &Bench, controller: &str) {
    bench.up(&bench.write(&cafe(controller)));
    until("the controller serves", || is_served(bench, "https://cafe.example.com/"));
    // Only PCRE knows that this is no pattern.
    let bad = rule("bad.example.com", "ImplementationSpecific", "/x(?Z)");
    let with_regex = "{ name: bad, annotations: { nginx.ingress.kubernetes.io/use-regex: \"true\" } }";
    let manifest = ingress("bad", &format!("rules: [{}]", &bad[2..]));
    apply(bench, &manifest.replace("{ name: bad }", with_regex));
    let refused = "the new configuration is refused, the earlier one is still served: ";
    let tells = |words: &[&str], what: &str| bench.ok(words).contains(what);
    until("status tells of it", || tells(&["status"], &format!("pod {POD}: {refused}")));
    let status = bench.ok(&["status"]);
    assert!(status.contains("comes from ingress default/bad"), "the program's own words, by object: {status}");
    assert!(tells(&["describe", "pod", POD], refused) && tells(&["describe", "ingress", "bad"], refused));
    assert!(is_served(bench, "https://cafe.example.com/"), "the earlier configuration is still served");
    let config = bench.run(&["get", "config", POD]).ends_with(0).says("this is in force");
    assert!(config.stdout.contains("cafe.example.com") && !config.stdout.contains("bad.example.com"), "{config}");
    let wanted = bench.run(&["get", "config", POD, "--wanted"]).ends_with(0).says("this is refused");
    assert!(wanted.stdout.contains("bad.example.com"), "{wanted}");
    // A second one is refused, too; what the first configuration leads to is still known.
    apply(bench, &ingress("tea", &format!("rules: [{}]", &rule("tea.example.com", "Prefix", "/")[2..])));
    bench.ok(&["delete", "ingress", "cafe"]);
    bench.ok(&["delete", "pod", "tea"]);
    apply(
        bench,
        "apiVersion: v1\nkind: Pod\nmetadata: { name: mint, labels: { app: tea } }\nspec: { containers: [{ name: c }] }\n",
    );
    let to = format!("cafe.example.com:443:{}", public(bench));
    until("the new pod is found by the earlier configuration", || {
        let curl = ["curl", "-sSf", "-o", "/dev/null", "--resolve", &to, "https://cafe.example.com/"];
        bench.exec("laptop", &curl).code == 0
    });
    bench.ok(&["delete", "ingress", "bad"]);
    until("a good one is served", || is_served(bench, "http://tea.example.com/"));
    until("status tells no more of it", || !tells(&["status"], refused));
    assert!(!tells(&["describe", "pod", POD], refused) && !tells(&["describe", "ingress", "tea"], refused));
    let config = bench.run(&["get", "config", POD]).ends_with(0);
    assert!(config.stdout.contains("tea.example.com") && config.stderr.is_empty(), "{config}");
}

fn public(bench: &Bench) -> String {
    let service = bench.json(&["get", "service", "ingress-controller", "-n", "ingress"]);
    service.pointer("/status/loadBalancer/ingress/0/ip").and_then(Value::as_str).expect("an address").to_owned()
}

fn a_plan_tells_of_ingresses_as_the_change_does(bench: &Bench) {
    let first = cafe("built-in");
    bench.up(&bench.write(&first));
    let second = bench.write(&first.replace("hosts: [cafe.example.com]", "hosts: [cafe.example.com, bar.example.com]"));
    let told = ["ingress default/cafe: changed", "secret default/cafe-secret: changed"];
    let plan = bench.run(&["plan", &second]).ends_with(0).stdout;
    let up = bench.up(&second);
    for line in told {
        assert!(plan.contains(line) && up.contains(line), "{line}: {plan}\n{up}");
    }
    let plan = bench.run(&["plan", &second]).ends_with(0).stdout;
    assert!(plan.contains("is as the file says"), "{plan}");
    let third = bench.write(&cafe("built-in, config: { keep-alive: 7 }"));
    let plan = bench.run(&["plan", &third]).ends_with(0).stdout;
    assert!(plan.contains("settings of ingress/ingress-controller: changed"), "{plan}");
    let json = bench.json(&["plan", &third]);
    assert!(json["objects"].as_array().is_some_and(|all| all.len() == 3), "{}", json["objects"]);
}

fn the_controllers_config_map_is_read_when_it_is_applied(bench: &Bench) {
    bench.up(&bench.write(&cafe("built-in")));
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: ingress-controller, namespace: ingress }\n\
               data: { proxy-body-size: '7', keep-alvie: '5' }\n";
    let told = apply(bench, map);
    assert!(told.contains("keep-alvie"), "an unknown field is named: {told}");
    until("a body that is now too large is refused", || {
        let curl = "curl -sS -o /dev/null -w '%{http_code}' -d 12345678 https://cafe.example.com/";
        bench.sh("laptop", curl) == "413"
    });
    assert_eq!(
        bench.json(&["get", "configmap", "ingress-controller", "-n", "ingress"])["data"]["proxy-body-size"],
        "7"
    );
}

fn a_signed_secret_that_is_deleted_is_signed_anew(bench: &Bench) {
    bench.up(&bench.write(&cafe("built-in")));
    let chain = |bench: &Bench| bench.json(&["get", "secret", "cafe-secret"])["data"]["tls.crt"].to_string();
    let shown = |bench: &Bench| {
        let line = "curl -sSv https://cafe.example.com/ 2>&1 >/dev/null | grep -c 'SSL certificate verify ok'";
        bench.sh("laptop", line).trim() == "1"
    };
    let before = chain(bench);
    let told = bench.ok(&["delete", "secret", "cafe-secret"]);
    assert!(told.contains("the lab has signed another one"), "{told}");
    assert_ne!(chain(bench), before);
    assert!(shown(bench), "clients trust the new one");
    // One that a manifest alone asks for is gone when it is deleted.
    apply(bench, "apiVersion: v1\nkind: Secret\nmetadata: { name: own }\nstringData: { a: b }\n");
    let told = bench.ok(&["delete", "secret", "own"]);
    assert!(!told.contains("another one"), "{told}");
    bench.run(&["get", "secret", "own"]).ends_with(2);
}

fn a_default_class_that_is_applied_later_takes_nothing_away(bench: &Bench) {
    bench.up(&bench.write(&cafe("built-in")));
    apply(
        bench,
        "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: { name: other, annotations: \
         { ingressclass.kubernetes.io/is-default-class: 'true' } }\nspec: { controller: example.com/gateway }\n",
    );
    assert!(is_served(bench, "https://cafe.example.com/"), "it was created before");
    let told = apply(bench, &ingress("late", &format!("rules: [{}]", &rule("late.example.com", "Prefix", "/")[2..])));
    assert!(told.contains("is of the class `other`"), "{told}");
    let late = bench.ok(&["describe", "ingress", "late"]);
    assert!(late.contains("nobody serves it: it is of the class other"), "{late}");
    assert_eq!(bench.json(&["get", "ingress", "late"])["spec"]["ingressClassName"], "other");
    assert_eq!(bench.json(&["get", "ingress", "cafe"])["spec"]["ingressClassName"], Value::Null);
    // The same by the file: what is told is what the running lab makes of it.
    let class = "ingressClasses: { other: { controller: example.com/gateway, annotations: { \
                 ingressclass.kubernetes.io/is-default-class: 'true' } } }\n";
    let ran = bench.run(&["up", "--no-probes", &bench.write(&(cafe("built-in") + class))]).ends_with(0);
    assert!(!ran.stderr.contains("is of the class"), "{ran}");
    assert!(is_served(bench, "https://cafe.example.com/"));
}

fn a_bad_secret_is_told_for_as_long_as_it_is_bad(bench: &Bench) {
    bench.up(&bench.write(&cafe("built-in")));
    let rules = format!("tls: [{{ secretName: gone }}]\n  rules: [{}]", &rule("milk.example.com", "Prefix", "/")[2..]);
    apply(bench, &ingress("milk", &rules));
    let line = "milk.example.com: clients get the default certificate, one that nobody trusts: \
                there is no secret default/gone";
    let status = bench.ok(&["status"]);
    assert!(status.contains(&format!("ingress default/milk: {line}")), "{status}");
    let described = bench.ok(&["describe", "ingress", "milk"]);
    assert!(described.contains(line), "{described}");
    assert!(!bench.ok(&["describe", "ingress", "cafe"]).contains("Trouble"));
    bench.ok(&["delete", "ingress", "milk"]);
    assert!(!bench.ok(&["status"]).contains("milk"));
}

fn pods_know_the_names_of_ingresses_and_trust_the_authority(bench: &Bench) {
    bench.up(&bench.write(&cafe("built-in")));
    let asked = "curl -sS -o /dev/null -w '%{remote_ip} %header{x-labctl-pod}' https://cafe.example.com/";
    assert_eq!(bench.sh("tea", asked), format!("{} tea", public(bench)));
    // Names follow the ingresses, and the servers live on.
    let more = bench.write(&(cafe("built-in") + "      " + &rule("more.example.com", "Prefix", "/") + "\n"));
    let steps = bench.json(&["plan", &more])["steps"].to_string();
    assert!(steps.contains("laptop") && !steps.contains("coredns"), "{steps}");
    apply(bench, &ingress("late", &format!("rules: [{}]", &rule("late.example.com", "Prefix", "/")[2..])));
    let finds = |name: &str| bench.exec("tea", &["getent", "ahostsv4", name]).code == 0;
    until("a new name is known", || finds("late.example.com"));
    bench.ok(&["delete", "ingress", "late"]);
    until("a name that is no more is unknown", || !finds("late.example.com"));
    assert!(finds("cafe.example.com"));
}
