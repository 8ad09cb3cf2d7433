//! Which pods stand behind a service: those that its selector matches and that are ready, on the
//! ports that it names, for as long as that is so.

use std::time::{Duration, Instant};

use crate::ask::{
    Datagram, Failure, address, answerers, endpoints, get, refused, text, udp, udp_who, until_answers, who,
};
use crate::harness::process::{Tree, signal};
use crate::harness::{Bench, until};
use crate::{as_root, as_root_and_ordinary_user};

as_root_and_ordinary_user![
    endpoints_follow_pods_that_come_and_go,
    each_port_of_a_service_is_served_by_the_pods_that_have_it,
    a_named_target_port_is_another_number_in_each_pod,
    what_has_no_endpoints_is_refused_at_once,
    unready_pods_are_published_only_where_the_service_says_so,
    endpoints_follow_readiness_over_http_and_udp,
    a_dead_endpoint_leaves_the_rules_within_a_second,
];
as_root![
    ports_are_added_and_removed,
    one_port_number_serves_tcp_and_udp_and_either_of_them,
    services_with_the_same_selector_have_the_same_endpoints,
    services_come_and_go_beside_others,
    a_service_works_again_after_it_was_taken_out,
    a_service_of_another_proxy_has_no_rules,
    a_service_that_is_labelled_headless_has_no_rules,
    a_new_pods_endpoint_is_there_within_a_second,
];

/// A lab with these pods and services, and one that asks.
fn lab(pods: &[&str], services: &[&str]) -> String {
    let lines = |all: &[&str]| -> String { all.iter().map(|line| format!("  {line}\n")).collect() };
    format!(
        "hosts: {{ node1: {{}}, node2: {{}} }}\npods:\n  ask: {{ host: node1 }}\n{}services:\n{}",
        lines(pods),
        lines(services)
    )
}

#[track_caller]
fn change(bench: &Bench, pods: &[&str], services: &[&str]) {
    bench.up(&bench.write(&lab(pods, services)));
}

const ONE: &str = "one: { host: node1, labels: { app: tea } }";
const TWO: &str = "two: { host: node2, labels: { app: tea } }";
const TEA: &str = "tea: { selector: { app: tea }, ports: [{ port: 80, targetPort: 8080 }] }";

fn endpoints_follow_pods_that_come_and_go(bench: &Bench) {
    change(bench, &[], &[TEA]);
    refused(bench, "ask", "http://tea");
    for (pods, names) in [(&[ONE][..], &["one"][..]), (&[ONE, TWO], &["one", "two"]), (&[TWO], &["two"])] {
        change(bench, pods, &[TEA]);
        let mut there: Vec<String> = names.iter().map(|pod| format!("{}:8080", bench.ip(pod))).collect();
        there.sort();
        for host in ["node1", "node2"] {
            assert_eq!(endpoints(bench, host, "default/tea"), there, "on {host}");
        }
        assert_eq!(answerers(bench, "ask", "http://tea", 20), names);
    }
    change(bench, &[], &[TEA]);
    assert_eq!(endpoints(bench, "node1", "default/tea"), Vec::<String>::new());
    refused(bench, "ask", "http://tea");
}

fn each_port_of_a_service_is_served_by_the_pods_that_have_it(bench: &Bench) {
    let first = "first: { host: node1, labels: { app: tea }, ports: [{ name: one, containerPort: 8001 }] }";
    let second = "second: { host: node2, labels: { app: tea }, ports: [{ name: two, containerPort: 8002 }] }";
    let service = "tea: { selector: { app: tea }, ports: [{ name: a, port: 80, targetPort: one }, \
                   { name: b, port: 81, targetPort: two }] }";
    change(bench, &[first], &[service]);
    assert_eq!(who(bench, "ask", "http://tea:80"), "first");
    refused(bench, "ask", "http://tea:81");
    change(bench, &[first, second], &[service]);
    assert_eq!(answerers(bench, "ask", "http://tea:80", 8), ["first"]);
    assert_eq!(answerers(bench, "ask", "http://tea:81", 8), ["second"]);
    change(bench, &[second], &[service]);
    refused(bench, "ask", "http://tea:80");
    assert_eq!(who(bench, "ask", "http://tea:81"), "second");
}

fn a_named_target_port_is_another_number_in_each_pod(bench: &Bench) {
    let pod = |name: &str, port: u16| {
        format!("{name}: {{ labels: {{ app: tea }}, ports: [{{ name: web, containerPort: {port} }}] }}")
    };
    let service = "tea: { selector: { app: tea }, ports: [{ port: 80, targetPort: web }] }";
    change(bench, &[&pod("low", 8001), &pod("high", 8002)], &[service]);
    assert_eq!(answerers(bench, "ask", "http://tea", 20), ["high", "low"]);
    let mut there = [format!("{}:8001", bench.ip("low")), format!("{}:8002", bench.ip("high"))];
    there.sort();
    assert_eq!(endpoints(bench, "node2", "default/tea"), there);
}

fn what_has_no_endpoints_is_refused_at_once(bench: &Bench) {
    let ended = "ended: { labels: { app: gone }, command: ['true'], restartPolicy: Never }";
    let failed = "failed: { labels: { app: gone }, command: ['false'], restartPolicy: Never }";
    let empty = "empty: { type: NodePort, selector: { app: none }, \
                 ports: [{ name: t, port: 80, nodePort: 30080 }, { name: u, port: 80, protocol: UDP, nodePort: 30080 }] }";
    let gone = "gone: { selector: { app: gone }, ports: [{ port: 80 }] }";
    let text = lab(&[ended, failed], &[empty, gone]).replace("pods:\n", "clients: { laptop: {} }\npods:\n");
    // A program that has failed does not become ready, so it is not waited for.
    let file = bench.write(&text);
    let _ = bench.run(&["up", &file, "--no-probes", "--timeout", "1"]);
    until("both programs have ended", || {
        ["ended", "failed"].iter().all(|pod| !bench.row(pod).contains("Running") && !bench.row(pod).contains("Pending"))
    });
    for name in ["empty", "gone"] {
        refused(bench, "ask", &format!("http://{name}"));
        refused(bench, "node2", &format!("http://{}", address(bench, "ask", name)));
    }
    for from in ["laptop", "ask", "node1"] {
        refused(bench, from, "http://192.168.1.12:30080");
        assert_eq!(udp(bench, from, "192.168.1.12:30080", Datagram::ANY), Err("refused".to_owned()), "from {from}");
    }
    assert_eq!(udp(bench, "ask", "empty:80", Datagram::ANY), Err("refused".to_owned()));
}

fn unready_pods_are_published_only_where_the_service_says_so(bench: &Bench) {
    let pod = "slow: { labels: { app: tea }, readinessProbe: { exec: { command: ['false'] }, periodSeconds: 1 } }";
    let published = TEA.replace("tea: {", "early: { publishNotReadyAddresses: true,");
    let file = bench.write(&lab(&[pod], &[TEA, &published]));
    bench.run(&["up", &file, "--timeout", "1"]).ends_with(1).says("lab-not-ready");
    assert_eq!(who(bench, "ask", "http://early"), "slow");
    refused(bench, "ask", "http://tea");
}

fn endpoints_follow_readiness_over_http_and_udp(bench: &Bench) {
    let pod = |name: &str| {
        let probe = "{ exec: { command: [test, '!', -e, /run/busy] }, periodSeconds: 1, failureThreshold: 1 }";
        format!("{name}: {{ labels: {{ app: tea }}, readinessProbe: {probe} }}")
    };
    let service = "tea: { selector: { app: tea }, ports: [{ name: t, port: 80, targetPort: 8080 }, \
                   { name: u, port: 80, protocol: UDP, targetPort: 8080 }] }";
    change(bench, &[&pod("one"), &pod("two")], &[service]);
    assert_eq!(answerers(bench, "ask", "http://tea", 20), ["one", "two"]);
    bench.sh("one", "touch /run/busy");
    until("the unready pod has left", || endpoints(bench, "node1", "default/tea:t").len() == 1);
    assert_eq!(answerers(bench, "ask", "http://tea", 8), ["two"]);
    assert!((0..4).all(|_| udp_who(bench, "ask", "tea:80") == "two"));
    bench.sh("one", "rm /run/busy");
    until("it is back", || endpoints(bench, "node1", "default/tea:u").len() == 2);
    assert_eq!(answerers(bench, "ask", "http://tea", 20), ["one", "two"]);
}

fn a_dead_endpoint_leaves_the_rules_within_a_second(bench: &Bench) {
    let pod = "mortal: { labels: { app: tea }, command: [sleep, '1000'], restartPolicy: Never }";
    change(bench, &[pod, TWO], &[TEA]);
    let mortal = format!("{}:8080", bench.ip("mortal"));
    assert!(endpoints(bench, "node1", "default/tea").contains(&mortal));
    let sleeping = Tree::of(bench.daemon()).named("sleep");
    assert_eq!(sleeping.len(), 1, "the pod's program");
    let killed = Instant::now();
    signal(sleeping[0], nix::sys::signal::Signal::SIGKILL);
    for host in ["node1", "node2"] {
        until("it has left the rules", || !endpoints(bench, host, "default/tea").contains(&mortal));
    }
    let took = killed.elapsed();
    println!("a dead endpoint had left the rules of two hosts after {took:?}");
    assert!(took < Duration::from_secs(1), "after {took:?}");
    assert_eq!(answerers(bench, "ask", "http://tea", 8), ["two"]);
}

fn a_new_pods_endpoint_is_there_within_a_second(bench: &Bench) {
    let pod = "slow: { labels: { app: tea }, command: [sleep, '1000'], \
               readinessProbe: { exec: { command: [test, -e, /run/ready] }, periodSeconds: 1 } }";
    let file = bench.write(&lab(&[pod], &[TEA]));
    bench.run(&["up", &file, "--timeout", "1"]).ends_with(1).says("lab-not-ready");
    bench.sh("slow", "touch /run/ready");
    until("the pod is ready", || bench.row("slow").contains("1/1"));
    let ready = Instant::now();
    until("the rules have it", || endpoints(bench, "node2", "default/tea").len() == 1);
    println!("a ready endpoint was in the rules after {:?}", ready.elapsed());
    assert!(ready.elapsed() < Duration::from_secs(1), "after {:?}", ready.elapsed());
}

fn ports_are_added_and_removed(bench: &Bench) {
    let pod = "one: { labels: { app: tea }, ports: [8080, 8081] }";
    let service = |ports: &str| format!("tea: {{ selector: {{ app: tea }}, ports: [{ports}] }}");
    let first = "{ name: a, port: 80, targetPort: 8080 }";
    let both = format!("{first}, {{ name: b, port: 81, targetPort: 8081 }}");
    change(bench, &[pod], &[&service(first)]);
    assert_eq!(who(bench, "ask", "http://tea:80"), "one");
    change(bench, &[pod], &[&service(&both)]);
    assert_eq!(who(bench, "ask", "http://tea:80"), "one");
    assert_eq!(who(bench, "ask", "http://tea:81"), "one");
    change(bench, &[pod], &[&service(first)]);
    assert_eq!(who(bench, "ask", "http://tea:80"), "one");
    assert!(get(bench, "ask", "http://tea:81").is_err(), "a port that is gone does not answer");
    assert_eq!(endpoints(bench, "node1", "default/tea:b"), Vec::<String>::new());
    // Another number for the same port: nothing of the old one stays.
    change(bench, &[pod], &[&service("{ name: a, port: 8000, targetPort: 8081 }")]);
    assert_eq!(who(bench, "ask", "http://tea:8000"), "one");
    assert!(get(bench, "ask", "http://tea:80").is_err(), "the old number does not answer");
}

fn one_port_number_serves_tcp_and_udp_and_either_of_them(bench: &Bench) {
    let tcp = "{ name: t, port: 80, targetPort: 8080 }";
    let with_udp = "{ name: u, port: 80, protocol: UDP, targetPort: 8080 }";
    let service = |ports: &[&str]| format!("tea: {{ selector: {{ app: tea }}, ports: [{}] }}", ports.join(", "));
    let over_udp = |bench: &Bench| udp(bench, "ask", "tea:80", Datagram::ANY).map(|(answer, _)| text(&answer, "name"));
    change(bench, &[ONE], &[&service(&[tcp, with_udp])]);
    assert_eq!(who(bench, "ask", "http://tea"), "one");
    assert_eq!(over_udp(bench), Ok("one".to_owned()));
    change(bench, &[ONE], &[&service(&[tcp])]);
    assert_eq!(who(bench, "ask", "http://tea"), "one");
    assert!(over_udp(bench).is_err(), "UDP is gone");
    change(bench, &[ONE], &[&service(&[with_udp])]);
    assert_eq!(over_udp(bench), Ok("one".to_owned()));
    assert!(get(bench, "ask", "http://tea").is_err(), "TCP is gone");
}

fn services_with_the_same_selector_have_the_same_endpoints(bench: &Bench) {
    let other = TEA.replace("tea: {", "chai: {").replace("port: 80,", "port: 90,");
    change(bench, &[ONE, TWO], &[TEA, &other]);
    assert_eq!(answerers(bench, "ask", "http://tea", 20), ["one", "two"]);
    assert_eq!(answerers(bench, "ask", "http://chai:90", 20), ["one", "two"]);
    change(bench, &[ONE, TWO], &[&other]);
    assert_eq!(answerers(bench, "ask", "http://chai:90", 20), ["one", "two"]);
    assert_eq!(get(bench, "ask", "http://tea"), Err(Failure::Name));
}

fn services_come_and_go_beside_others(bench: &Bench) {
    let numbered = |n: u8| TEA.replace("tea: {", &format!("tea{n}: {{"));
    change(bench, &[ONE, TWO], &[&numbered(1), &numbered(2)]);
    let first = address(bench, "ask", "tea1");
    assert_eq!(answerers(bench, "ask", "http://tea2", 20), ["one", "two"]);
    change(bench, &[ONE, TWO], &[&numbered(2)]);
    assert_eq!(answerers(bench, "ask", "http://tea2", 20), ["one", "two"]);
    assert!(get(bench, "ask", &format!("http://{first}")).is_err(), "the address of a service that went");
    assert_eq!(get(bench, "ask", "http://tea1"), Err(Failure::Name));
    change(bench, &[ONE, TWO], &[&numbered(2), &numbered(3)]);
    assert_eq!(answerers(bench, "ask", "http://tea2", 20), ["one", "two"]);
    assert_eq!(answerers(bench, "ask", "http://tea3", 20), ["one", "two"]);
}

fn a_service_works_again_after_it_was_taken_out(bench: &Bench) {
    change(bench, &[ONE, TWO], &[TEA]);
    change(bench, &[ONE, TWO], &[]);
    assert!(bench.exec("ask", &["getent", "ahostsv4", "tea"]).code != 0, "its name is gone");
    change(bench, &[ONE, TWO], &[TEA]);
    until_answers(bench, "ask", "http://tea", |got| got.is_ok());
    assert_eq!(answerers(bench, "ask", "http://tea", 20), ["one", "two"]);
}

fn a_service_of_another_proxy_has_no_rules(bench: &Bench) {
    not_ours(bench, "service.kubernetes.io/service-proxy-name: another");
}

fn a_service_that_is_labelled_headless_has_no_rules(bench: &Bench) {
    not_ours(bench, "service.kubernetes.io/headless: ''");
}

/// With this label kube-proxy leaves a service alone; without it the service works as any other.
#[track_caller]
fn not_ours(bench: &Bench, label: &str) {
    let other = TEA.replace("tea: {", &format!("left: {{ labels: {{ {label} }},"));
    let ours = TEA.replace("tea: {", "left: {");
    change(bench, &[ONE], &[TEA, &other]);
    let left = address(bench, "ask", "left");
    assert!(!bench.sh("node1", "iptables-save").contains("default/left"), "it has rules");
    assert!(get(bench, "ask", &format!("http://{left}")).is_err(), "its address answers");
    assert_eq!(who(bench, "ask", "http://tea"), "one");
    change(bench, &[ONE], &[TEA, &ours]);
    assert_eq!(who(bench, "ask", &format!("http://{left}")), "one");
    change(bench, &[ONE], &[TEA, &other]);
    assert!(get(bench, "ask", &format!("http://{left}")).is_err(), "its address answers still");
    assert_eq!(who(bench, "ask", "http://tea"), "one");
}
