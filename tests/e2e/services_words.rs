//! What kubectl's users type of services and pods, and what they are told where something is missing.

use serde_json::Value;

use crate::as_root_and_ordinary_user;
use crate::harness::Bench;

as_root_and_ordinary_user![
    a_probe_never_stands_in_the_way_of_a_change,
    what_leads_nowhere_is_told_in_every_view,
    what_is_missing_does_not_keep_the_others,
    a_misspelt_kind_is_refused_and_nothing_is_applied_in_silence,
    objects_are_asked_for_as_with_kubectl,
    things_are_described_by_kind_and_by_name,
    rules_without_a_host_are_those_of_every_host,
    a_namespace_is_given_and_a_misspelt_one_is_told,
    a_change_is_told_by_service_and_what_is_forgotten_is_named,
    a_pending_balancer_and_a_missing_program_say_why,
];

const TEA: &str = "
hosts: { node1: {}, node2: {} }
clients: { laptop: {} }
pods: { a: { host: node1 }, b: { labels: { app: b, tier: front } } }
deployments: { tea: { replicas: 2, labels: { app: tea } } }
services: { tea-svc: { selector: { app: tea }, ports: [{ name: web, port: 80, targetPort: 8080 }] } }
";

fn file(bench: &Bench, name: &str, text: &str) -> String {
    let path = bench.path(name);
    std::fs::write(&path, text).expect("a file");
    path.to_string_lossy().into_owned()
}

#[track_caller]
fn names(bench: &Bench, args: &[&str]) -> Vec<String> {
    let list = bench.json(args);
    let items = list["items"].as_array().unwrap_or_else(|| panic!("{list}"));
    items.iter().map(|i| i["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect()
}

#[track_caller]
fn has(text: &str, words: &[&str]) {
    for words in words {
        assert!(text.contains(words), "{words:?} is missing:\n{text}");
    }
}

fn a_probe_never_stands_in_the_way_of_a_change(bench: &Bench) {
    let probes = "probes:\n\
        - { name: by name, from: a, http: { url: 'http://tea-svc/' }, expect: { pod: tea-* }, retries: 0 }\n\
        - { name: to its port, from: laptop, tcp: 'tea-svc:web', retries: 0 }\n\
        - { from: b, ping: tea-2, retries: 0 }\n\
        - { name: still fine, from: a, ping: node1 }\n";
    bench.up(&bench.write(&format!("{TEA}{probes}")));
    let deleted = bench.run(&["delete", "svc", "tea-svc"]);
    assert_eq!(deleted.code, 0, "{deleted}");
    let lost = ["the probe `by name` stays", "the probe `to its port` stays", "nothing in the lab is called `tea-svc`"];
    has(&deleted.stderr, &lost);
    let scaled = bench.run(&["scale", "deploy/tea", "--replicas", "0"]);
    assert_eq!(scaled.code, 0, "{scaled}");
    has(&scaled.stderr, &["the probe `b: ping tea-2` stays"]);
    assert!(!scaled.stderr.contains("to its port"), "what was told is not told again: {scaled}");
    let gone = bench.run(&["delete", "pod", "b"]);
    assert_eq!((gone.code, gone.stderr.as_str()), (0, ""), "{gone}");
    let ran = bench.run(&["probe", "-o", "json"]);
    assert_eq!(ran.code, 1, "{ran}");
    let verdict = |name: &str| {
        let all = ran.json();
        let outcome = all.as_array().or(all["probes"].as_array()).expect("outcomes").clone();
        let found = outcome.into_iter().find(|o| o["name"] == name);
        found.map(|o| o["verdict"].clone()).unwrap_or_default()
    };
    for lost in ["by name", "to its port", "b: ping tea-2"] {
        assert_eq!(verdict(lost), "differed", "{lost}: {ran}");
    }
    assert_eq!(verdict("still fine"), "passed", "{ran}");
    // What comes back is found again.
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: { name: b }\nspec: { containers: [{ name: b }] }\n";
    bench.ok(&["apply", "-f", &file(bench, "b.yaml", pod)]);
    bench.ok(&["scale", "deploy/tea", "--replicas", "2"]);
    bench.ok(&["probe", "b: ping tea-2"]);
}

const NOWHERE: &str = "
hosts: { node1: {} }
pods: { tea: { labels: { app: tea }, ports: [{ name: web, containerPort: 8080 }] } }
services:
  named: { selector: { app: tea }, ports: [{ port: 80, targetPort: http }] }
  number: { selector: { app: tea }, ports: [{ port: 80 }] }
  typo: { selector: { app: teh }, ports: [{ port: 80, targetPort: 8080 }] }
  nobody: { ports: [{ port: 80 }] }
  alias: { type: ExternalName, externalName: example.com }
  fine: { selector: { app: tea }, ports: [{ port: 80, targetPort: web }] }
";

fn what_leads_nowhere_is_told_in_every_view(bench: &Bench) {
    let lab = bench.write(NOWHERE);
    let checked = bench.run(&["validate", &lab]);
    assert_eq!(checked.code, 0, "{checked}");
    let number = "none of its pods listens on 80/TCP";
    has(&checked.stderr, &[number, "did you mean `targetPort: 8080`?", "is called `http`", "did you mean app=tea?"]);
    bench.up(&lab);
    let named = bench.run(&["get", "endpoints", "named"]);
    has(&named.stdout, &["named", "<none>"]);
    has(&named.stderr, &["service default/named has no endpoints: no port of its pods is called `http`"]);
    has(
        &bench.ok(&["describe", "svc", "named"]),
        &["Endpoints:     <none>", "Note:          no port of its pods is called"],
    );
    has(&bench.ok(&["get", "rules", "node1", "named"]), &["has no endpoints"]);
    assert_eq!(bench.json(&["get", "ep", "named"])["subsets"], Value::Null);
    has(&bench.ok(&["describe", "svc", "number"]), &[number, "did you mean `targetPort: 8080`?", ", ready"]);
    has(&bench.ok(&["describe", "svc", "typo"]), &["<none>", "no pod has the labels app=teh; did you mean app=tea?"]);
    has(&bench.run(&["get", "ep", "typo"]).stderr, &["did you mean app=tea?"]);
    let nobody = bench.run(&["get", "endpoints", "nobody"]);
    assert_eq!(nobody.code, 2, "{nobody}");
    has(&nobody.stderr, &["service default/nobody has no endpoints: it has no selector", "kubernetes.io/service-name"]);
    has(&bench.run(&["get", "endpoints", "alias"]).stderr, &["another name of example.com"]);
    let fine = bench.run(&["get", "endpoints", "fine"]);
    assert_eq!(fine.stderr, "", "{fine}");
    assert!(!bench.ok(&["describe", "svc", "fine"]).contains("Note:"));
    for args in
        [&["get", "svc", "fien"][..], &["describe", "svc", "fien"], &["delete", "svc", "fien"], &["get", "ep", "fien"]]
    {
        let said = bench.run(args);
        let kind = if args[1] == "ep" { "endpoints" } else { "service" };
        has(&said.stderr, &[&format!("{kind} \"fien\" not found in the namespace default"), "did you mean `fine`?"]);
        assert_eq!(said.code, 2, "{said}");
    }
}

const TWO: &str = "
apiVersion: v1
kind: Service
metadata: { name: one }
spec: { selector: { app: tea }, ports: [{ port: 81, targetPort: 8080 }] }
---
apiVersion: v1
kind: Service
metadata: { name: two }
spec: { selector: { app: tea }, ports: [{ port: 82, targetPort: 8080 }] }
";

fn what_is_missing_does_not_keep_the_others(bench: &Bench) {
    bench.up(&bench.write(TEA));
    let two = file(bench, "two.yaml", TWO);
    bench.ok(&["apply", "-f", &two]);
    let said = bench.run(&["delete", "svc", "one", "none", "tea-svc"]);
    assert_eq!(said.code, 1, "{said}");
    assert_eq!(said.stdout.lines().count(), 2, "{said}");
    has(&said.stderr, &["service \"none\" not found", "did you mean `one`?"]);
    assert_eq!(names(bench, &["get", "svc"]), ["kubernetes", "two"]);
    let said = bench.run(&["delete", "-f", &two]);
    assert_eq!((said.code, said.stdout.as_str()), (1, "service \"two\" deleted from default namespace\n"), "{said}");
    assert_eq!(bench.run(&["delete", "-f", &two]).code, 2, "none of them is there");
    let ignored = bench.run(&["delete", "-f", &two, "--ignore-not-found"]);
    assert_eq!((ignored.code, ignored.stderr.as_str()), (0, ""), "{ignored}");
}

fn a_misspelt_kind_is_refused_and_nothing_is_applied_in_silence(bench: &Bench) {
    bench.up(&bench.write(TEA));
    let misspelt = file(bench, "misspelt.yaml", &TWO.replacen("kind: Service", "kind: Servise", 1));
    for args in [&["apply", "-f", &misspelt][..], &["up", "-f", &misspelt], &["validate", "-f", &misspelt]] {
        let said = bench.run(args);
        assert_eq!(said.code, 2, "{said}");
        has(&said.stderr, &["no matches for kind Servise in version v1", "did you mean `Service`?"]);
    }
    assert_eq!(names(bench, &["get", "svc"]), ["kubernetes", "tea-svc"]);
    let foreign = "apiVersion: route.openshift.io/v1\nkind: Route\nmetadata: { name: r }\n";
    let said = bench.run(&["apply", "-f", &file(bench, "route.yaml", foreign)]);
    assert_eq!(said.code, 0, "somebody's own kind is passed over: {said}");
    has(&said.stderr, &["does not know the kind `Route`"]);
    has(&said.stdout, &["nothing was applied"]);
    let selector = TWO.replace("selector: { app: tea }", "selector: { matchLabels: { app: tea } }");
    let said = bench.run(&["apply", "-f", &file(bench, "selector.yaml", &selector)]);
    has(&said.stderr, &["selector has no `matchLabels`", "`selector: { app: tea }`"]);
    let none = TWO.replace("spec: {", "spec: { clusterIP: none,");
    let said = bench.run(&["apply", "-f", &file(bench, "none.yaml", &none)]);
    has(&said.stderr, &["write `None`, with a capital N"]);
    let image =
        "apiVersion: v1\nkind: Pod\nmetadata: { name: web }\nspec: { containers: [{ name: web, image: nginx }] }\n";
    let said = bench.run(&["apply", "-f", &file(bench, "image.yaml", image)]);
    assert_eq!((said.code, said.stdout.as_str()), (0, "pod/web created\n"), "{said}");
    has(&said.stderr, &["the image `nginx` is not run, nor any other"]);
}

fn objects_are_asked_for_as_with_kubectl(bench: &Bench) {
    bench.up(&bench.write(TEA));
    assert_eq!(names(bench, &["get", "pods", "-l", "app=tea"]), ["tea-1", "tea-2"]);
    assert_eq!(names(bench, &["get", "pods", "-l", "app=tea", "-l", &bench.lab]), ["tea-1", "tea-2"]);
    assert_eq!(names(bench, &["get", "pods", "--selector", "app in (b, c),tier!=back"]), ["b"]);
    assert_eq!(bench.ok(&["get", "pods", "-l", "app=milk"]), "No resources found in default namespace.\n");
    let lost = bench.run(&["status", "-l", "app=tea"]);
    has(&lost.stderr, &["label selectors are for `labctl get`"]);
    has(&bench.ok(&["get", "pods", "--show-labels"]), &["LABELS", "app=b,tier=front"]);
    let all = bench.ok(&["get", "all"]);
    has(&all, &["\npod/b ", "\nservice/tea-svc ", "\ndeployment.apps/tea ", "\n\nNAME"]);
    assert_eq!(names(bench, &["get", "svc,deploy"]), ["kubernetes", "tea-svc", "tea"]);
    assert_eq!(bench.json(&["get", "pod/b"]), bench.json(&["get", "pod", "b"]));
    assert_eq!(names(bench, &["get", "pods", "b", "a"]), ["b", "a"]);
    assert_eq!(names(bench, &["get", "pod/a", "svc/tea-svc"]), ["a", "tea-svc"]);
    let heads = bench.ok(&["get", "pods"]);
    let heads: Vec<&str> = heads.lines().next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(heads, ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "HOST"]);
    assert!(bench.row("a").split_whitespace().nth(4).is_some_and(|age| age.ends_with('s')), "{}", bench.row("a"));
    assert_eq!(bench.ok(&["exec", "-it", "a", "--", "hostname"]), "a\n");
    let wrong = bench.run(&["get", "pots"]);
    assert_eq!(wrong.code, 2, "{wrong}");
    has(&wrong.stderr, &["invalid value 'pots'", "'pods'"]);
    has(&bench.run(&["get", "pods", "-l", "app="]).stdout, &["No resources"]);
    assert_eq!(bench.run(&["get", "pods", "-l", "app in tea"]).code, 2);
}

fn things_are_described_by_kind_and_by_name(bench: &Bench) {
    let other = "services: { b: { selector: { app: b }, ports: [{ port: 8080 }] }, ";
    bench.up(&bench.write(&TEA.replace("services: { ", other)));
    let deployment = bench.ok(&["describe", "deployment", "tea"]);
    has(
        &deployment,
        &["Replicas:      2 desired | 2 updated | 2 total | 2 available | 0 unavailable", "tea-1 ", "app=tea"],
    );
    assert_eq!(bench.ok(&["describe", "tea-svc"]), bench.ok(&["describe", "svc/tea-svc"]));
    assert_eq!(bench.ok(&["describe", "tea"]).lines().next(), deployment.lines().next());
    let both = bench.run(&["describe", "b"]);
    assert_eq!(both.code, 2, "{both}");
    has(&both.stderr, &["`b` is a pod and a service", "`labctl describe pod b` or `labctl describe service b`"]);
    has(&bench.ok(&["describe", "pod", "b"]), &["veth pair"]);
    let all = bench.ok(&["describe", "svc"]);
    assert_eq!(all.lines().filter(|l| l.starts_with("Cluster IP:")).count(), 3, "{all}");
    assert_eq!(bench.json(&["describe", "pods", "a", "b"]).as_array().map(Vec::len), Some(2));
}

fn rules_without_a_host_are_those_of_every_host(bench: &Bench) {
    bench.up(&bench.write(TEA));
    let all = bench.ok(&["get", "rules", "tea-svc"]);
    has(&all, &["host node1\n", "host node2\n"]);
    assert_eq!(all.matches("default/tea-svc:web: to its cluster IP").count(), 2, "{all}");
    assert_eq!(bench.json(&["get", "rules", "tea-svc"])[1]["host"], "node2");
    let none = bench.run(&["get", "rules"]);
    has(&none.stderr, &["rules are those of a host", "node1, node2"]);
    assert_eq!(bench.run(&["get", "rules", "nodex"]).code, 2);
}

fn a_namespace_is_given_and_a_misspelt_one_is_told(bench: &Bench) {
    bench.up(&bench.write(TEA));
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: { name: c }\nspec: { containers: [{ name: c }] }\n";
    let space = "apiVersion: v1\nkind: Namespace\nmetadata: { name: shop }\n---\n";
    let refused = bench.run(&["apply", "-n", "shop", "-f", &file(bench, "pod.yaml", pod)]);
    has(&refused.stderr, &["namespace \"shop\" not found"]);
    bench.ok(&["apply", "-n", "shop", "-f", &file(bench, "both.yaml", &format!("{space}{pod}"))]);
    assert_eq!(names(bench, &["get", "pods", "-n", "shop"]), ["c"]);
    assert_eq!(bench.ok(&["exec", "-n", "shop", "c", "--", "hostname"]), "c\n");
    has(&bench.run(&["logs", "-n", "shop", "c"]).stderr, &["echo server"]);
    let other = file(bench, "other.yaml", &pod.replace("name: c }\nspec", "name: d, namespace: kitchen }\nspec"));
    let refused = bench.run(&["apply", "-n", "shop", "-f", &other]);
    assert_eq!(refused.code, 2, "{refused}");
    has(&refused.stderr, &["of the namespace `kitchen`, and `-n shop` was said"]);
    for args in [&["get", "pods"][..], &["describe", "pods"], &["exec", "c", "true"], &["delete", "pod", "c"]] {
        let said = bench.run(&[&args[..1], &["-n", "shpo"], &args[1..]].concat());
        assert_eq!(said.code, 2, "{said}");
        has(&said.stderr, &["namespace \"shpo\" not found", "did you mean `shop`?"]);
    }
    bench.ok(&["delete", "-n", "shop", "-f", &bench.path("pod.yaml").to_string_lossy()]);
    assert_eq!(names(bench, &["get", "pods", "-A", "-l", "k8s-app!=kube-dns"]), ["a", "b", "tea-1", "tea-2"]);
}

fn a_change_is_told_by_service_and_what_is_forgotten_is_named(bench: &Bench) {
    let lab = bench.write(TEA);
    bench.up(&lab);
    bench.ok(&["apply", "-f", &file(bench, "two.yaml", TWO)]);
    bench.ok(&["scale", "deploy/tea", "--replicas", "0"]);
    let planned = bench.ok(&["plan", &lab]);
    has(
        &planned,
        &["service default/tea-svc: endpoints 0 → 2\n", "service default/one: gone\n", "(-o wide shows them)"],
    );
    assert!(!planned.contains("-A KUBE-"), "raw rules are for the wide look:\n{planned}");
    has(&bench.ok(&["plan", &lab, "-o", "wide"]), &["    - -t filter -A KUBE-SERVICES"]);
    let told = bench.ok(&["up", &lab, "--no-probes"]);
    has(&told, &["  service default/tea-svc: endpoints 0 → 2\n", "  service default/two: gone\n"]);
    has(&told, &["forgotten", "service/one applied, service/two applied, deployment.apps/tea scaled to 0"]);
    assert!(!told.contains("-A KUBE-"), "{told}");
    let again = bench.ok(&["up", &lab, "--no-probes"]);
    assert!(again.contains("up to date") && !again.contains("forgotten"), "{again}");
    let other = bench.write(&TEA.replace("port: 80,", "port: 81,"));
    has(&bench.ok(&["up", &other, "--no-probes"]), &["  service default/tea-svc: ports 80/TCP → 81/TCP\n"]);
}

fn a_pending_balancer_and_a_missing_program_say_why(bench: &Bench) {
    let lab = "
hosts: { node1: {} }
pods:
  tea: { labels: { app: tea } }
  lost: { restartPolicy: Never, command: [no-such-program] }
services:
  asks: { type: LoadBalancer, loadBalancerIP: 10.1.2.3, selector: { app: tea }, ports: [{ port: 80, targetPort: 8080 }] }
  other: { type: LoadBalancer, loadBalancerClass: a.b/c, selector: { app: tea }, ports: [{ port: 80, targetPort: 8080 }] }
  has: { type: LoadBalancer, selector: { app: tea }, ports: [{ port: 80, targetPort: 8080 }] }
";
    let up = bench.run(&["up", &bench.write(lab), "--timeout", "1"]);
    has(&up.stderr, &["pod lost: lost: Error, exit code 127: this machine has no program `no-such-program`"]);
    has(&bench.ok(&["describe", "pod", "lost"]), &["Note:          this machine has no program `no-such-program`"]);
    has(&bench.ok(&["describe", "svc", "asks"]), &["Balancer:      <pending> (10.1.2.3 is not an address of"]);
    has(&bench.ok(&["describe", "svc", "other"]), &["Balancer:      <pending> (the class a.b/c is another"]);
    assert!(!bench.ok(&["describe", "svc", "has"]).contains("pending"));
    assert!(!bench.ok(&["describe", "pod", "tea"]).contains("Note:"));
}
