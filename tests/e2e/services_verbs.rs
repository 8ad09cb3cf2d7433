//! `apply`, `delete`, `scale` and what `get` and `describe` say of services.

use serde_json::Value;

use crate::as_root_and_ordinary_user;
use crate::harness::{Background, Bench, Ran, until};

as_root_and_ordinary_user![
    objects_are_applied_changed_and_deleted,
    a_manifest_with_a_fault_leaves_the_lab_as_it_was,
    a_deleted_pod_is_terminating_until_its_program_has_ended,
    a_pod_whose_deletion_fails_stays_and_its_program_begins_anew,
    a_program_that_does_not_end_is_ended_when_its_time_is_over,
    a_deployments_pod_is_followed_by_another_one,
    a_deployment_is_scaled,
    up_makes_the_lab_what_its_file_says,
    manifests_stand_beside_a_lab_or_alone,
    objects_are_listed_by_namespace,
    a_service_is_described_with_its_endpoints,
    rules_are_a_tree_down_to_the_pod,
    probes_name_services,
    readiness_is_asked_by_grpc_and_with_headers,
];

const TEA: &str = "
hosts: { node1: {}, node2: {} }
clients: { laptop: {} }
pods: { a: { host: node1 } }
deployments: { tea: { replicas: 2, labels: { app: tea } } }
services: { tea-svc: { selector: { app: tea }, ports: [{ name: web, port: 80, targetPort: 8080 }] } }
";

const MORE: &str = "
apiVersion: v1
kind: Service
metadata: { name: other }
spec: { selector: { app: tea }, ports: [{ port: 81, targetPort: 8080 }] }
---
apiVersion: v1
kind: Pod
metadata: { name: c, namespace: shop, labels: { app: c } }
spec: { containers: [{ name: c }] }
";

fn file(bench: &Bench, name: &str, text: &str) -> String {
    let path = bench.path(name);
    std::fs::write(&path, text).expect("a file");
    path.to_string_lossy().into_owned()
}

#[track_caller]
fn names(bench: &Bench, args: &[&str]) -> Vec<String> {
    let list = bench.json(args);
    let items = list["items"].as_array().expect("items");
    items.iter().map(|i| i["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect()
}

/// The only endpoint of a service with one pod.
fn endpoint(bench: &Bench, service: &str) -> Value {
    let slices = bench.json(&["get", "endpointslices"]);
    let mine = |s: &&Value| s["metadata"]["labels"]["kubernetes.io/service-name"] == service;
    let slice = slices["items"].as_array().expect("items").iter().find(mine).cloned();
    slice.map(|s| s["endpoints"][0].clone()).unwrap_or_default()
}

fn objects_are_applied_changed_and_deleted(bench: &Bench) {
    bench.up(&bench.write(TEA));
    let more = file(bench, "more.yaml", MORE);
    assert_eq!(bench.ok(&["apply", "-f", &more]), "service/other created\npod/c created\n");
    assert_eq!(bench.ok(&["apply", "-f", &more]), "service/other unchanged\npod/c unchanged\n");
    assert!(bench.sh("a", "curl -s http://other:81/").contains("\"tea-"));
    assert!(bench.sh("shop/c", "curl -s http://other.default:81/").contains("\"tea-"));
    let before = bench.json(&["get", "svc", "other"])["spec"]["clusterIP"].clone();
    let changed = file(bench, "changed.yaml", &MORE.replace("port: 81", "port: 82"));
    assert_eq!(bench.ok(&["apply", "-f", &changed]), "service/other configured\npod/c unchanged\n");
    assert!(bench.sh("a", "curl -s http://other:82/").contains("\"tea-"));
    assert_eq!(bench.json(&["get", "svc", "other"])["spec"]["clusterIP"], before, "it keeps its address");
    assert_ne!(bench.exec("a", &["curl", "-sm", "5", "http://other:81/"]).code, 0, "the old port is gone");
    let said = bench.ok(&["delete", "-f", &changed]);
    assert_eq!(said, "service \"other\" deleted from default namespace\npod \"c\" deleted from shop namespace\n");
    assert_eq!(names(bench, &["get", "svc"]), ["kubernetes", "tea-svc"]);
    until("the name is gone, too", || bench.exec("a", &["getent", "hosts", "other"]).code != 0);
    let again = bench.run(&["delete", "svc", "other"]);
    assert_eq!(again.code, 2, "{again}");
    assert!(bench.run(&["delete", "service", "tea-scv"]).stderr.contains("did you mean `tea-svc`?"));
    assert!(bench.run(&["delete", "svc/kubernetes"]).stderr.contains("belongs to every lab"));
    bench.is_as_planned();
}

fn a_manifest_with_a_fault_leaves_the_lab_as_it_was(bench: &Bench) {
    bench.up(&bench.write(TEA));
    let taken = MORE.replace("spec: { selector", "spec: { clusterIP: 10.96.0.1, selector");
    let wrong = bench.run(&["apply", "-f", &file(bench, "taken.yaml", &taken)]);
    assert_eq!(wrong.code, 2, "{wrong}");
    assert!(wrong.stderr.contains("taken.yaml:5:"), "the place is in the manifest: {wrong}");
    let wrong = bench.run(&["apply", "-f", &file(bench, "typo.yaml", &MORE.replace("selector", "selektor"))]);
    assert!(wrong.stderr.contains("typo.yaml:5:") && wrong.stderr.contains("selector"), "{wrong}");
    assert!(!names(bench, &["get", "pods", "-A"]).contains(&"c".to_owned()));
    assert_eq!(names(bench, &["get", "svc"]), ["kubernetes", "tea-svc"]);
    // What comes later is not held up by it.
    bench.ok(&["apply", "-f", &file(bench, "more.yaml", MORE)]);
}

/// A lab with a pod whose program does `on_term` when it is told to end.
fn program(on_term: &str) -> String {
    let script = format!("trap '{on_term}' TERM; echo begun; while true; do sleep 0.05; done");
    let script = serde_json::to_string(&script).expect("text");
    format!(
        "hosts: {{ node1: {{}} }}\n\
         pods: {{ p: {{ command: [bash, -c, {script}], labels: {{ app: p }} }} }}\n\
         services: {{ svc: {{ selector: {{ app: p }}, ports: [{{ port: 80 }}] }} }}\n"
    )
}

/// The same, up.
fn with_program(bench: &Bench, on_term: &str) {
    bench.up(&bench.write(&program(on_term)));
    until("the program listens for its end", || bench.ok(&["logs", "p"]).contains("begun"));
}

fn a_deleted_pod_is_terminating_until_its_program_has_ended(bench: &Bench) {
    let go = bench.path("go");
    with_program(bench, &format!("while [ ! -e {} ]; do sleep 0.05; done; exit 0", go.display()));
    assert_eq!(endpoint(bench, "svc")["conditions"]["ready"], true);
    let deleting = Background::start(bench.labctl(&["delete", "pod", "p"]));
    until("the pod counts as terminating", || endpoint(bench, "svc")["conditions"]["terminating"] == true);
    let conditions = &endpoint(bench, "svc")["conditions"];
    assert_eq!((&conditions["ready"], &conditions["serving"]), (&false.into(), &true.into()), "{conditions}");
    assert!(bench.row("p").contains("Terminating"), "{}", bench.row("p"));
    let pod = bench.pod("p")["metadata"].clone();
    let second = |field: &str| {
        let written = pod[field].as_str().unwrap_or_default();
        written.parse::<k8s_openapi::jiff::Timestamp>().unwrap_or_else(|e| panic!("{e}: {pod}")).as_second()
    };
    let lives = second("deletionTimestamp") - second("creationTimestamp");
    assert!(lives >= 30, "it may end for 30 s from when it was asked to: {pod}");
    let rules = bench.sh("node1", "iptables-save -t nat 2>/dev/null || iptables-nft-save -t nat");
    assert!(rules.contains("default/svc ->"), "the only endpoint is used while it ends:\n{rules}");
    std::fs::write(&go, "").expect("a file");
    until("the pod is gone", || names(bench, &["get", "pods"]).is_empty());
    drop(deleting);
    bench.is_as_planned();
}

fn a_pod_whose_deletion_fails_stays_and_its_program_begins_anew(bench: &Bench) {
    use std::process::Stdio;
    let go = bench.path("go");
    let on_term = format!("while [ ! -e {} ]; do sleep 0.05; done; echo over; exit 0", go.display());
    let before = program(&on_term).replace("pods: { p:", "deployments: { p:");
    bench.up(&bench.write(&before));
    until("the program listens for its end", || bench.ok(&["logs", "p-1"]).contains("begun"));
    // A change that takes the pod out, and takes an address besides.
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: { name: p }\n\
        spec: { replicas: 0, selector: { matchLabels: { app: p } }, template: { metadata: { labels: { app: p } }, \
        spec: { containers: [{ name: p }] } } }\n---\n";
    let service = "apiVersion: v1\nkind: Service\nmetadata: { name: late }\n\
        spec: { clusterIP: 10.96.77.77, ports: [{ port: 80 }] }\n";
    let both = file(bench, "both.yaml", &format!("{deployment}{service}"));
    let mut change = bench.labctl(&["apply", "-f", &both]);
    let change = change.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("labctl apply");
    until("the pod counts as terminating", || endpoint(bench, "svc")["conditions"]["terminating"] == true);
    // Somebody takes the address meanwhile.
    let taken = before
        .replace("pods: { p:", "deployments: { p:")
        .replace("services: { ", "services: { early: { clusterIP: 10.96.77.77, ports: [{ port: 80 }] }, ");
    bench.ok(&["up", &bench.write(&taken), "--no-probes"]);
    std::fs::write(&go, "").expect("a file");
    let said = Ran::from_output(&change.wait_with_output().expect("its end"), "labctl apply");
    assert_ne!(said.code, 0, "{said}");
    assert!(said.stderr.contains("(p-1)") && said.stderr.contains("started anew"), "{said}");
    until("the program runs again", || {
        let written = bench.ok(&["logs", "p-1"]);
        written.contains("begun") && !written.contains("over")
    });
    until("it is an endpoint again", || endpoint(bench, "svc")["conditions"]["ready"] == true);
    assert_eq!(bench.pod("p-1")["metadata"]["deletionTimestamp"], Value::Null);
    bench.is_as_planned();
}

fn a_program_that_does_not_end_is_ended_when_its_time_is_over(bench: &Bench) {
    with_program(bench, "echo not me");
    let begun = std::time::Instant::now();
    bench.ok(&["delete", "pod", "p", "--grace-period", "1"]);
    let took = begun.elapsed().as_secs_f64();
    assert!((1.0..15.0).contains(&took), "it took {took} s");
    assert_eq!(names(bench, &["get", "pods"]), [""; 0]);
}

fn a_deployments_pod_is_followed_by_another_one(bench: &Bench) {
    bench.up(&bench.write(TEA));
    assert_eq!(bench.ok(&["delete", "pod/tea-1"]), "pod \"tea-1\" deleted from default namespace\n");
    assert_eq!(names(bench, &["get", "pods"]), ["a", "tea-2", "tea-3"]);
    assert_eq!(bench.json(&["get", "deploy", "tea"])["status"]["readyReplicas"], 2);
    let addresses = bench.ok(&["get", "endpoints", "tea-svc"]);
    assert!(addresses.contains(&bench.ip("tea-3")) && addresses.matches(":8080").count() == 2, "{addresses}");
    bench.ok(&["delete", "pod", "coredns-1", "-n", "kube-system"]);
    assert_eq!(names(bench, &["get", "pods", "-n", "kube-system"]), ["coredns-2", "coredns-3"]);
    until("the new DNS server answers", || bench.exec("a", &["getent", "hosts", "tea-svc"]).code == 0);
    bench.is_as_planned();
}

fn a_deployment_is_scaled(bench: &Bench) {
    bench.up(&bench.write(TEA));
    let before = bench.ip("tea-1");
    assert_eq!(bench.ok(&["scale", "deployment", "tea", "--replicas", "4"]), "deployment.apps/tea scaled\n");
    assert_eq!(names(bench, &["get", "pods"]), ["a", "tea-1", "tea-2", "tea-3", "tea-4"]);
    bench.ok(&["scale", "deploy/tea", "--replicas", "1"]);
    assert_eq!(names(bench, &["get", "pods"]), ["a", "tea-1"]);
    assert_eq!(bench.ip("tea-1"), before, "who stays is not touched");
    bench.ok(&["scale", "deploy/tea", "--replicas", "0"]);
    assert!(bench.ok(&["get", "deploy", "tea"]).contains("0/0"));
    assert!(bench.exec("a", &["curl", "-sm", "5", "http://tea-svc/"]).code == 7, "connections are refused at once");
    let wrong = bench.run(&["scale", "deployment", "coffee", "--replicas", "1"]);
    assert!(wrong.code == 2 && wrong.stderr.contains("not found"), "{wrong}");
    bench.is_as_planned();
}

fn up_makes_the_lab_what_its_file_says(bench: &Bench) {
    let lab = bench.write(TEA);
    bench.up(&lab);
    bench.ok(&["apply", "-f", &file(bench, "more.yaml", MORE)]);
    bench.ok(&["scale", "deploy/tea", "--replicas", "3"]);
    bench.up(&lab);
    assert_eq!(names(bench, &["get", "svc"]), ["kubernetes", "tea-svc"]);
    assert_eq!(names(bench, &["get", "pods"]), ["a", "tea-1", "tea-2"]);
    assert!(bench.up(&lab).contains("up to date"));
}

fn manifests_stand_beside_a_lab_or_alone(bench: &Bench) {
    let (lab, more) = (bench.write(TEA), file(bench, "more.yaml", MORE));
    bench.ok(&["validate", &lab, "-f", &more]);
    bench.ok(&["up", &lab, "-f", &more, "--no-probes"]);
    assert_eq!(names(bench, &["get", "svc"]), ["kubernetes", "tea-svc", "other"]);
    bench.ok(&["down"]);
    let alone = file(bench, &format!("{}-alone.yaml", bench.lab), MORE);
    bench.ok(&["up", "-f", &alone, "--no-probes"]);
    assert_eq!(bench.labs(), [format!("{}-alone", bench.lab)]);
    assert_eq!(names(bench, &["get", "hosts"]), ["node1", "node2"]);
    assert_eq!(names(bench, &["get", "pods", "-n", "shop"]), ["c"]);
    let both = bench.run(&["up", &lab, "-f", &lab]);
    assert!(both.code == 2 && both.stderr.contains("are two labs"), "{both}");
}

fn objects_are_listed_by_namespace(bench: &Bench) {
    bench.ok(&["up", &bench.write(TEA), "-f", &file(bench, "more.yaml", MORE), "--no-probes"]);
    assert_eq!(names(bench, &["get", "pods"]), ["a", "tea-1", "tea-2"]);
    assert_eq!(names(bench, &["get", "po", "-n", "shop"]), ["c"]);
    assert_eq!(names(bench, &["get", "pods", "-A"]).len(), 6);
    let services = bench.ok(&["get", "services", "-A", "-o", "wide"]);
    let heads: Vec<&str> = services.lines().next().unwrap_or_default().split_whitespace().collect();
    let wanted = ["NAMESPACE", "NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE", "SELECTOR"];
    assert_eq!(heads, wanted);
    assert!(services.contains("k8s-app=kube-dns"), "{services}");
    let ip = bench.json(&["get", "svc", "tea-svc"])["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned();
    let row = bench.ok(&["get", "svc", "tea-svc"]);
    let words: Vec<&str> = row.lines().nth(1).unwrap_or_default().split_whitespace().collect();
    assert_eq!(words[..5], ["tea-svc", "ClusterIP", &ip, "<none>", "80/TCP"]);
    assert_eq!(bench.ok(&["get", "svc", "-n", "shop"]), "No resources found in shop namespace.\n");
    assert!(names(bench, &["get", "ns"]).contains(&"shop".to_owned()));
    assert!(bench.ok(&["get", "deploy"]).contains("2/2"));
    let endpoints = bench.json(&["get", "ep", "tea-svc"]);
    let addresses = endpoints["subsets"][0]["addresses"].as_array().map(Vec::len);
    assert_eq!((addresses, &endpoints["subsets"][0]["ports"][0]["port"]), (Some(2), &8080.into()), "{endpoints}");
    for (kind, version) in [("svc", "v1"), ("deploy", "apps/v1"), ("endpointslices", "discovery.k8s.io/v1")] {
        let first = bench.json(&["get", kind])["items"][0].clone();
        assert_eq!(first["apiVersion"], version, "{first}");
        assert!(first["metadata"]["creationTimestamp"].is_string(), "{first}");
    }
    let wrong = bench.run(&["get", "svc", "tea-svk"]);
    assert!(wrong.code == 2 && wrong.stderr.contains("did you mean `tea-svc`?"), "{wrong}");
}

fn a_service_is_described_with_its_endpoints(bench: &Bench) {
    bench.up(&bench.write(TEA));
    let said = bench.ok(&["describe", "service", "tea-svc"]);
    for words in
        ["Selector:      app=tea", "Port:          web 80/TCP", "Target port:   8080", "tea-1 on node", ", ready"]
    {
        assert!(said.contains(words), "{words:?} is missing:\n{said}");
    }
    assert_eq!(said, bench.ok(&["describe", "svc/tea-svc"]));
    assert!(bench.ok(&["describe", "svc", "kube-dns", "-n", "kube-system"]).contains("coredns-2 on"));
}

fn rules_are_a_tree_down_to_the_pod(bench: &Bench) {
    bench.up(&bench.write(TEA));
    let node = bench.pod("a")["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();
    let seen = || bench.json(&["get", "rules", &node, "tea-svc"])[0]["rules"][0].clone();
    assert_eq!(seen()["packets"], 0);
    bench.sh("a", "curl -s http://tea-svc/");
    let rule = seen();
    assert_eq!(rule["packets"], 1, "{rule}");
    let tree = bench.ok(&["get", "rules", &node, "tea-svc"]);
    for words in [
        "default/tea-svc:web: to its cluster IP",
        "endpoint 1 of 2: tea-",
        "probability 1/2",
        "goes to tea-1 ",
        "goes to tea-2 ",
    ] {
        assert!(tree.contains(words), "{words:?} is missing:\n{tree}");
    }
    assert!(!tree.contains("kube-dns"), "{tree}");
    assert!(bench.ok(&["get", "rules", &node]).contains("kube-system/kube-dns:dns: to its cluster IP"));
    let mut narrow = bench.labctl(&["get", "rules", &node]);
    let narrow = narrow.env("COLUMNS", "80").output().expect("labctl runs");
    let narrow = String::from_utf8_lossy(&narrow.stdout).into_owned();
    assert!(narrow.lines().all(|l| l.chars().count() <= 80), "{narrow}");
    assert_eq!(bench.run(&["get", "rules", "a"]).code, 2, "a pod has no kube-proxy");
}

fn probes_name_services(bench: &Bench) {
    let probes = "
probes:
  - { name: by name, from: a, http: 'http://tea-svc/', expect: { status: 200, pod: tea-* } }
  - { name: with its namespace, from: a, tcp: 'tea-svc.default:80', expect: { pod: tea-* } }
  - { name: by the port's name, from: a, tcp: 'tea-svc:web', expect: { pod: tea-* } }
  - { name: from a host, from: node1, http: 'http://tea-svc/', expect: { pod: tea-* } }
  - { name: from a host with the namespace, from: node2, tcp: 'tea-svc.default:web', expect: { pod: tea-* } }
  - { name: a virtual address answers no ping, from: a, ping: tea-svc, expect: fail }
  - { name: nobody leads a client to a virtual address, from: laptop, http: 'http://tea-svc/', expect: fail }
";
    bench.up(&bench.write(&(TEA.to_owned() + probes)));
    bench.probes_pass();
    let wrong = TEA.to_owned() + "probes: [{ from: a, tcp: 'tea-svk:80' }]\n";
    let wrong = bench.run(&["validate", &bench.write(&wrong)]);
    assert!(wrong.code == 2 && wrong.stderr.contains("did you mean `tea-svc`?"), "{wrong}");
}

fn readiness_is_asked_by_grpc_and_with_headers(bench: &Bench) {
    let text = "
hosts: { node1: {} }
pods:
  healthy: { ports: [8080], readinessProbe: { grpc: { port: 8080, service: tea }, periodSeconds: 1 } }
  closed: { ports: [8080], readinessProbe: { grpc: { port: 9090 }, periodSeconds: 1 } }
  host: { readinessProbe: { httpGet: { path: /, port: 8080, httpHeaders: [{ name: Host, value: tea.test }] } } }
  secret: { readinessProbe: { httpGet: { path: /, port: 8080, scheme: HTTPS }, periodSeconds: 1 } }
";
    let up = bench.run(&["up", &bench.write(text), "--no-probes", "--timeout", "3"]);
    assert_eq!(up.code, 1, "two are never ready: {up}");
    let ready = |pod: &str| bench.pod(pod)["status"]["conditions"][0].clone();
    for pod in ["healthy", "host"] {
        assert_eq!(ready(pod)["status"], "True", "{pod}: {}", ready(pod));
    }
    for (pod, why) in [("closed", "refused"), ("secret", "GET https://")] {
        let condition = ready(pod);
        assert_eq!(condition["status"], "False", "{pod}");
        assert!(condition["message"].as_str().is_some_and(|m| m.contains(why)), "{pod}: {condition}");
    }
    assert!(bench.ok(&["describe", "healthy"]).contains("grpc <pod>:8080 tea"));
}
