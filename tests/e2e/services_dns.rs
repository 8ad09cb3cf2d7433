//! Cluster DNS as a pod sees it: through its resolv.conf and the service in front of the DNS pods.

use crate::ask::{address, get, until_answers, who};
use crate::harness::{Bench, until};
use crate::{as_root, as_root_and_ordinary_user};

as_root_and_ordinary_user![
    the_cluster_and_its_services_have_their_records,
    partial_names_are_completed_by_the_search_list,
    pods_have_names_by_hostname_and_subdomain,
    a_pods_hosts_file_has_its_own_name,
    an_external_name_is_an_alias_that_changes,
    a_pods_resolver_is_set_by_its_dns_policy_and_dns_config,
    a_record_may_stand_for_all_names_below_another,
];
as_root![a_service_name_may_begin_with_a_digit, every_cluster_has_the_service_kubernetes];

/// The A records of a name, in order, as a program of the pod gets them.
fn resolve(bench: &Bench, from: &str, name: &str) -> Vec<String> {
    let said = bench.exec(from, &["getent", "ahostsv4", name]).stdout;
    let mut all: Vec<String> = said
        .lines()
        .filter(|l| l.contains("STREAM"))
        .filter_map(|l| Some(l.split_whitespace().next()?.to_owned()))
        .collect();
    all.sort();
    all
}

/// A probe that asks for one record; `expect` is what must come of it.
fn record(name: &str, kind: &str, tcp: bool, expect: &str) -> String {
    format!(
        "  - {{ name: '{kind} {name} tcp {tcp}', from: ask, dns: {{ name: {name}, type: {kind}, tcp: {tcp} }}, expect: {{ {expect} }} }}\n"
    )
}

fn the_cluster_and_its_services_have_their_records(bench: &Bench) {
    let mut lab = "hosts: { node1: {}, node2: {} }\npods:\n  ask: { host: node1 }\n  \
        one: { host: node2, address: 10.244.2.100, labels: { app: tea } }\nservices:\n  \
        plain: { clusterIP: 10.96.7.7, selector: { app: tea }, ports: [{ name: http, port: 80, targetPort: 8080 }] }\n  \
        bare: { clusterIP: None, selector: { app: tea }, ports: [{ name: http, port: 80, targetPort: 8080 }] }\nprobes:\n"
        .to_owned();
    let of = |service: &str| format!("{service}.default.svc.cluster.local");
    for tcp in [false, true] {
        lab += &record(&of("kubernetes"), "A", tcp, "answers: [10.96.0.1]");
        lab += &record(
            "_https._tcp.kubernetes.default.svc.cluster.local",
            "SRV",
            tcp,
            "answers: ['0 100 443 kubernetes.default.svc.cluster.local.']",
        );
        lab += &record(&of("plain"), "A", tcp, "answers: [10.96.7.7]");
        lab += &record(&of("_http._tcp.plain"), "SRV", tcp, "answers: ['0 100 80 plain.default.svc.cluster.local.']");
        lab += &record("7.7.96.10.in-addr.arpa", "PTR", tcp, "answers: [plain.default.svc.cluster.local.]");
        lab += &record(&of("bare"), "A", tcp, "answers: [10.244.2.100]");
        lab += &record(
            &of("_http._tcp.bare"),
            "SRV",
            tcp,
            "answers: ['0 100 8080 10-244-2-100.bare.default.svc.cluster.local.']",
        );
        lab += &record(
            "100.2.244.10.in-addr.arpa",
            "PTR",
            tcp,
            "answers: [10-244-2-100.bare.default.svc.cluster.local., 10-244-2-100.plain.default.svc.cluster.local.]",
        );
        lab += &record("10-244-2-100.default.pod.cluster.local", "A", tcp, "answers: [10.244.2.100]");
        lab += &record("dns-version.cluster.local", "TXT", tcp, "answers: [1.1.0]");
        lab += &record(&of("no-such"), "A", tcp, "rcode: NXDOMAIN");
        lab += &record(&of("plain"), "AAAA", tcp, "rcode: NOERROR, answers: []");
    }
    bench.ok(&["up", &bench.write(&lab)]);
}

fn partial_names_are_completed_by_the_search_list(bench: &Bench) {
    let lab = "hosts: { node1: {} }\npods:\n  ask: {}\n  other: { namespace: shop }\n  one: { labels: { app: tea } }\nservices:\n  \
        plain: { clusterIP: 10.96.7.7, selector: { app: tea }, ports: [{ port: 80, targetPort: 8080 }] }\n  \
        bare: { clusterIP: None, selector: { app: tea }, ports: [{ port: 80, targetPort: 8080 }] }\n";
    bench.up(&bench.write(lab));
    let pod = bench.ip("one");
    for (service, ip) in [("plain", "10.96.7.7"), ("bare", pod.as_str())] {
        for rest in ["", ".default", ".default.svc", ".default.svc.cluster.local", ".default.svc.cluster.local."] {
            assert_eq!(resolve(bench, "ask", &format!("{service}{rest}")), [ip], "{service}{rest}");
        }
        assert_eq!(resolve(bench, "shop/other", service), Vec::<String>::new(), "another namespace has no {service}");
        assert_eq!(resolve(bench, "shop/other", &format!("{service}.default")), [ip]);
    }
    assert_eq!(resolve(bench, "shop/other", "kubernetes.default"), ["10.96.0.1"]);
}

fn pods_have_names_by_hostname_and_subdomain(bench: &Bench) {
    let lab = "hosts: { node1: {}, node2: {} }\npods:\n  ask: { host: node1 }\n  \
        tea-1: { host: node1, labels: { app: tea }, hostname: green, subdomain: tea }\n  \
        tea-2: { host: node2, labels: { app: tea }, hostname: black, subdomain: tea }\n  \
        tea-3: { host: node2, labels: { app: tea }, hostname: white }\nservices:\n  \
        tea: { clusterIP: None, selector: { app: tea }, ports: [{ name: http, port: 80 }] }\n";
    bench.up(&bench.write(lab));
    let (green, black) = (bench.ip("tea-1"), bench.ip("tea-2"));
    assert_eq!(resolve(bench, "ask", "green.tea"), [green.as_str()]);
    assert_eq!(resolve(bench, "ask", "black.tea.default.svc.cluster.local"), [black.as_str()]);
    assert_eq!(resolve(bench, "ask", "white.tea"), Vec::<String>::new(), "it has no subdomain");
    let mut all = [green.as_str(), &black, &bench.ip("tea-3")].map(str::to_owned);
    all.sort();
    assert_eq!(resolve(bench, "ask", "tea"), all);
    assert_eq!(who(bench, "ask", "http://black.tea:8080"), "tea-2");
    // The pod itself knows by which name others find it.
    assert_eq!(bench.sh("tea-1", "hostname").trim(), "green");
    assert_eq!(bench.sh("tea-1", "hostname -f").trim(), "green.tea.default.svc.cluster.local");
    assert_eq!(bench.sh("tea-3", "hostname -f").trim(), "white");
    assert_eq!(bench.sh("ask", "hostname").trim(), "ask");
}

fn a_pods_hosts_file_has_its_own_name(bench: &Bench) {
    let lab = "hosts: { node1: {} }\npods:\n  one: {}\n  tea: { hostname: green, subdomain: leaves }\ndns: {}\n";
    bench.up(&bench.write(lab));
    for (pod, name) in [("one", "one"), ("tea", "green"), ("tea", "green.leaves.default.svc.cluster.local")] {
        let line = bench.sh(pod, &format!("getent -s files ahostsv4 {name}"));
        assert_eq!(line.split_whitespace().next(), Some(bench.ip(pod).as_str()), "{pod}: {line}");
    }
    assert_eq!(bench.sh("one", "getent -s files ahostsv4 localhost").split_whitespace().next(), Some("127.0.0.1"));
}

fn an_external_name_is_an_alias_that_changes(bench: &Bench) {
    let lab = |service: &str| {
        format!(
            "hosts: {{ node1: {{}} }}\npods: {{ ask: {{}}, one: {{ labels: {{ app: tea }} }} }}\n\
             services: {{ tea: {{ {service} }} }}\nclients: {{ shop: {{ address: 192.168.1.200, ports: [80] }} }}\n\
             dns: {{ records: {{ foo.example.com: 192.168.1.200, bar.example.com: [192.0.2.8, 192.0.2.9] }} }}\n"
        )
    };
    let change = |service: &str| bench.up(&bench.write(&lab(service)));
    change("type: ExternalName, externalName: foo.example.com");
    assert_eq!(resolve(bench, "ask", "tea"), ["192.168.1.200"]);
    assert_eq!(who(bench, "ask", "http://tea"), "shop");
    change("type: ExternalName, externalName: bar.example.com");
    until("the new name is served", || resolve(bench, "ask", "tea") == ["192.0.2.8", "192.0.2.9"]);
    change("selector: { app: tea }, clusterIP: 10.96.7.7, ports: [{ port: 80, targetPort: 8080 }]");
    until("the name is the service's address", || resolve(bench, "ask", "tea") == ["10.96.7.7"]);
    assert_eq!(who(bench, "ask", "http://tea"), "one");
}

fn a_service_name_may_begin_with_a_digit(bench: &Bench) {
    let lab = "hosts: { node1: {} }\npods: { ask: {}, one: { labels: { app: tea } } }\n\
        services: { 7tea: { selector: { app: tea }, ports: [{ port: 80, targetPort: 8080 }] } }\n";
    bench.up(&bench.write(lab));
    for name in ["7tea", "7tea.default", "7tea.default.svc.cluster.local"] {
        until_answers(bench, "ask", &format!("http://{name}"), |got| got.is_ok());
    }
}

fn every_cluster_has_the_service_kubernetes(bench: &Bench) {
    bench.up(&bench.write("hosts: { node1: {} }\npods: { ask: { host: node1 } }\ndns: {}\n"));
    assert_eq!(address(bench, "ask", "kubernetes"), "10.96.0.1");
    assert_eq!(address(bench, "ask", "kube-dns.kube-system"), "10.96.0.10");
    // Nobody stands behind it, and that is said at once.
    assert!(get(bench, "ask", "http://10.96.0.1:443").is_err());
}

fn a_pods_resolver_is_set_by_its_dns_policy_and_dns_config(bench: &Bench) {
    let letters = "abcdefgh";
    let long: Vec<String> = letters.chars().map(|c| format!("{}.example.com", c.to_string().repeat(50))).collect();
    let lab = format!(
        "hosts: {{ node1: {{}} }}\npods:\n  one: {{ labels: {{ app: tea }} }}\n  \
         own: {{ dnsPolicy: None, dnsConfig: {{ nameservers: [10.96.0.10], searches: [svc.cluster.local], \
         options: [{{ name: ndots, value: '2' }}] }} }}\n  \
         many: {{ dnsConfig: {{ searches: [{}, default.svc.cluster.local] }} }}\n  \
         odd: {{ dnsConfig: {{ searches: [., _under_score.default.svc.cluster.local] }} }}\n  \
         alone: {{ dnsPolicy: Default }}\nservices:\n  \
         tea: {{ clusterIP: 10.96.7.7, selector: {{ app: tea }}, ports: [{{ port: 80, targetPort: 8080 }}] }}\n",
        long.join(", ")
    );
    bench.up(&bench.write(&lab));
    let own = bench.sh("own", "cat /etc/resolv.conf");
    assert_eq!(own, "search svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:2\n");
    assert_eq!(resolve(bench, "own", "tea.default"), ["10.96.7.7"], "the only search path completes it");
    assert_eq!(resolve(bench, "own", "tea"), Vec::<String>::new(), "its own namespace is not searched");
    assert!(bench.sh("many", "cat /etc/resolv.conf").contains(&long.join(" ")), "more than 256 characters in the list");
    assert_eq!(resolve(bench, "many", "tea"), ["10.96.7.7"]);
    assert!(bench.sh("odd", "cat /etc/resolv.conf").contains(" . _under_score.default.svc.cluster.local\n"));
    assert_eq!(resolve(bench, "odd", "tea"), ["10.96.7.7"]);
    assert_eq!(bench.sh("alone", "cat /etc/resolv.conf"), "", "its host knows no server");
    let wrong = bench.write(&lab.replace("nameservers: [10.96.0.10], ", ""));
    bench.run(&["up", &wrong]).ends_with(2).says("object-invalid").says("dnsConfig.nameservers");
}

/// As in a zone file (RFC 4592): names that are there themselves are not covered, nor are those below them.
fn a_record_may_stand_for_all_names_below_another(bench: &Bench) {
    let mut lab = "hosts: { node1: {} }\npods: { ask: {} }\n\
        clients: { shop: { address: 192.168.1.200, ports: [80] } }\ndns:\n  records:\n    \
        '*.apps.example.com': 192.168.1.200\n    own.apps.example.com: 192.0.2.8\n    \
        '*.alias.example.com': own.apps.example.com\nprobes:\n"
        .to_owned();
    for tcp in [false, true] {
        lab += &record("any.apps.example.com", "A", tcp, "answers: [192.168.1.200]");
        lab += &record("two.steps.apps.example.com", "A", tcp, "answers: [192.168.1.200]");
        lab += &record("own.apps.example.com", "A", tcp, "answers: [192.0.2.8]");
        lab += &record("any.apps.example.com", "AAAA", tcp, "rcode: NOERROR, answers: []");
        lab += &record("below.own.apps.example.com", "A", tcp, "rcode: NXDOMAIN");
        lab += &record("apps.example.com", "A", tcp, "rcode: NOERROR, answers: []");
        lab += &record("example.com", "A", tcp, "rcode: NOERROR, answers: []");
        lab += &record("elsewhere.example.com", "A", tcp, "rcode: NXDOMAIN");
    }
    bench.ok(&["up", &bench.write(&lab)]);
    assert_eq!(resolve(bench, "ask", "any.apps.example.com"), ["192.168.1.200"]);
    assert_eq!(resolve(bench, "ask", "x.alias.example.com"), ["192.0.2.8"], "the alias of a name that exists");
    assert_eq!(who(bench, "ask", "http://any.apps.example.com"), "shop");
}
