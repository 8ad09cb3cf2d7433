//! What the recorded cases do not show: other families, policies in other combinations, objects that
//! are left out, and what a sync writes.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::conntrack::UdpFlow;
use super::*;

/// A service in `ns1`, with `spec` over a plain cluster IP and port 80.
fn service(name: &str, spec: &Value) -> Service {
    let mut whole = json!({ "clusterIP": "172.30.0.41", "ports": [{ "port": 80, "protocol": "TCP" }] });
    for (key, value) in spec.as_object().into_iter().flatten() {
        whole[key] = value.clone();
    }
    let ingress = whole["ingress"].take();
    read(json!({ "metadata": { "name": name, "namespace": "ns1" }, "spec": whole,
        "status": { "loadBalancer": { "ingress": ingress } } }))
}

/// A slice of the service, with endpoints of port 8080 in their own form.
fn slice(service: &str, endpoints: Value) -> EndpointSlice {
    read(json!({ "metadata": { "name": format!("{service}-1"), "namespace": "ns1",
            "labels": { "kubernetes.io/service-name": service } },
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{ "name": "", "port": 8080, "protocol": "TCP" }] }))
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object")
}

fn at(addresses: &[&str]) -> Value {
    addresses.iter().map(|a| json!({ "addresses": [a], "nodeName": "node2" })).collect()
}

fn config() -> ProxyConfig {
    let mut config = ProxyConfig::new("node1", "192.168.0.2".parse().expect("an address"));
    config.local = Some(LocalTraffic::Cidr("10.0.0.0/8".parse().expect("a range")));
    config
}

fn planned(services: &[Service], slices: &[EndpointSlice], config: &ProxyConfig) -> String {
    plan(services, slices, config).restore_input()
}

/// The rules of one service with these endpoints.
fn text(spec: Value, endpoints: Value) -> String {
    planned(&[service("svc1", &spec)], &[slice("svc1", endpoints)], &config())
}

/// The lines of a chain, without the chain.
fn chain<'t>(text: &'t str, chain: &str) -> Vec<&'t str> {
    text.lines().filter(|l| chain::of_line(l) == chain).filter_map(|l| l.splitn(3, ' ').nth(2)).collect()
}

#[track_caller]
fn has(text: &str, line: &str) {
    assert!(text.lines().any(|l| l == line), "there is no {line}\nin\n{text}");
}

const H: &str = "AQI2S6QIMU7PVVRP";

#[test]
fn headless_external_name_and_other_proxies_services_have_no_rules() {
    let none = planned(&[], &[], &config());
    for spec in [
        json!({ "clusterIP": "None" }),
        json!({ "clusterIP": "" }),
        json!({ "type": "ExternalName", "externalName": "example.com" }),
        json!({ "clusterIP": "no address" }),
        json!({ "clusterIP": "fd00::1" }),
        json!({ "ipFamilies": ["IPv6"], "clusterIPs": ["fd00::1"] }),
    ] {
        assert_eq!(text(spec.clone(), at(&["10.1.0.1"])), none, "{spec}");
    }
    for label in ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"] {
        let mut labelled = service("svc1", &json!({}));
        labelled.metadata.labels = Some([(label.to_owned(), "x".to_owned())].into());
        assert_eq!(planned(&[labelled], &[], &config()), none, "{label}");
    }
}

#[test]
fn a_name_that_could_write_rules_of_its_own_has_none() {
    let names = ["a b", "a\"b", "a\n-A INPUT -j DROP", ""];
    for name in names {
        let named = service(name, &json!({}));
        assert_eq!(planned(&[named], &[], &config()), planned(&[], &[], &config()), "{name:?}");
    }
}

#[test]
fn a_dual_stack_service_has_rules_in_each_family() {
    let spec = json!({ "ipFamilies": ["IPv4", "IPv6"], "clusterIPs": ["172.30.0.41", "fd00:172::41"],
        "externalIPs": ["192.0.2.1", "2001:db8::1"], "loadBalancerSourceRanges": ["10.0.0.0/8", " 2001:db8::/64 "],
        "type": "LoadBalancer", "ingress": [{ "ip": "1.2.3.4" }, { "ip": "2001:db8::4" }] });
    let services = [service("svc1", &spec)];
    let mut slice = slice("svc1", at(&["fd00:10::1", "fd00:10::2"]));
    slice.address_type = "IPv6".to_owned();
    let mut config = ProxyConfig::new("node1", "2001:db8::2".parse().expect("an address"));
    config.local = LocalTraffic::by_cidr(&["fd00:10::/64".parse().expect("a range")], Family::V6);
    config.nfacct = true;
    let text = planned(&services, &[slice], &config);
    assert!(!text.contains("172.30.0.41") && !text.contains("192.0.2.1") && !text.contains("10.0.0.0/8"), "{text}");
    has(
        &text,
        &format!(
            "-A KUBE-SERVICES -m comment --comment \"ns1/svc1 cluster IP\" -m tcp -p tcp -d fd00:172::41 --dport 80 -j KUBE-SVC-{H}"
        ),
    );
    has(
        &text,
        &format!("-A KUBE-FW-{H} -m comment --comment \"ns1/svc1 loadbalancer IP\" -s 2001:db8::/64 -j KUBE-EXT-{H}"),
    );
    // The range holds the node, so packets from the load balancer's address are let in, too.
    has(
        &text,
        &format!("-A KUBE-FW-{H} -m comment --comment \"ns1/svc1 loadbalancer IP\" -s 2001:db8::4 -j KUBE-EXT-{H}"),
    );
    assert!(text.contains("-j DNAT --to-destination [fd00:10::2]:8080\n"));
    assert!(text.contains("-m addrtype --dst-type LOCAL ! -d ::1/128 -j KUBE-NODEPORTS\n"));
    assert!(!text.contains("KUBE-FIREWALL") && !text.contains("127.0.0.0"), "{text}");
}

#[test]
fn masquerade_all_needs_no_range_and_no_range_masquerades_nothing() {
    let services = [service("svc1", &json!({}))];
    let slices = [slice("svc1", at(&["10.1.0.1"]))];
    let mut config = ProxyConfig { masquerade_all: true, ..config() };
    let start = "-m comment --comment \"ns1/svc1 cluster IP\" -m tcp -p tcp -d 172.30.0.41 --dport 80";
    let svc = format!("KUBE-SVC-{H}");
    let text = planned(&services, &slices, &config);
    assert_eq!(chain(&text, &svc)[0], format!("{start} -j KUBE-MARK-MASQ"));
    config = ProxyConfig { masquerade_all: false, local: None, ..config };
    assert_eq!(chain(&planned(&services, &slices, &config), &svc).len(), 1);
    config.local = Some(LocalTraffic::Interface("cali+".to_owned()));
    let text = planned(&services, &slices, &config);
    assert_eq!(chain(&text, &svc)[0], format!("{start} ! -i cali+ -j KUBE-MARK-MASQ"));
}

#[test]
fn the_mark_is_the_bits() {
    let config = ProxyConfig { masquerade_bit: 4, random_fully: true, conntrack_tcp_liberal: true, ..config() };
    let text = planned(&[], &[], &config);
    has(&text, "-A KUBE-MARK-MASQ -j MARK --or-mark 0x10");
    has(&text, "-A KUBE-POSTROUTING -m mark ! --mark 0x10/0x10 -j RETURN");
    assert!(text.contains("-j MASQUERADE --random-fully\n") && !text.contains("INVALID"));
}

#[test]
fn chances_are_even_and_affinity_comes_first() {
    let affinity =
        json!({ "sessionAffinity": "ClientIP", "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 7 } } });
    let text = text(affinity, at(&["10.1.0.3", "10.1.0.20", "10.1.0.1"]));
    let rules = chain(&text, &format!("KUBE-SVC-{H}")).split_off(1);
    let order: Vec<&str> = rules.iter().filter_map(|r| r.split('"').nth(1)?.split("-> ").nth(1)).collect();
    // As strings: 20 comes before 3.
    let once = ["10.1.0.1:8080", "10.1.0.20:8080", "10.1.0.3:8080"];
    assert_eq!(order, [once, once].concat());
    assert!(rules[..3].iter().all(|r| r.contains("--rcheck --seconds 7 --reap")), "{rules:#?}");
    assert!(rules[3].contains("--probability 0.3333333333 ") && rules[4].contains("--probability 0.5000000000 "));
    assert!(!rules[5].contains("statistic"));
    assert_eq!(text.matches(" --set -m tcp -p tcp -j DNAT").count(), 3);
}

#[test]
fn balancers_that_proxy_are_left_out() {
    let ingress =
        json!([{ "ip": "1.2.3.4", "ipMode": "Proxy" }, { "ip": "1.2.3.5", "ipMode": "VIP" }, { "hostname": "x" }]);
    let text = text(json!({ "type": "LoadBalancer", "ingress": ingress }), at(&["10.1.0.1"]));
    assert!(!text.contains("1.2.3.4") && text.contains("-d 1.2.3.5 --dport 80"), "{text}");
}

#[test]
fn both_policies_local_without_a_local_endpoint_drop_but_let_pods_through() {
    let spec = json!({ "type": "NodePort", "ports": [{ "port": 80, "nodePort": 30080 }],
        "internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local" });
    let text = text(spec, at(&["10.1.0.1"]));
    has(
        &text,
        "-A KUBE-SERVICES -m comment --comment \"ns1/svc1 has no local endpoints\" -m tcp -p tcp -d 172.30.0.41 --dport 80 -j DROP",
    );
    has(
        &text,
        "-A KUBE-EXTERNAL-SERVICES -m comment --comment \"ns1/svc1 has no local endpoints\" -m addrtype --dst-type LOCAL -m tcp -p tcp --dport 30080 -j DROP",
    );
    assert_eq!(chain(&text, &format!("KUBE-EXT-{H}")).len(), 3, "the short cuts, and no way on:\n{text}");
    assert_eq!(chain(&text, &format!("KUBE-SVC-{H}")).len(), 1);
    assert!(!text.contains("KUBE-SVL"));
}

#[test]
fn beyond_a_thousand_endpoints_their_rules_have_no_comments() {
    let addresses: Vec<String> = (0..1001).map(|i| format!("10.1.{}.{}", i / 250, i % 250)).collect();
    let count = |n: usize| {
        let addresses: Vec<&str> = addresses[..n].iter().map(String::as_str).collect();
        let text = text(json!({}), at(&addresses));
        (text.matches(" -> ").count(), text.matches("--comment ns1/svc1 ").count())
    };
    assert_eq!(count(1000), (1000, 2000));
    assert_eq!(count(1001), (0, 0));
}

#[test]
fn slices_that_are_of_no_use_are_passed_over() {
    let services = [service("svc1", &json!({}))];
    let good = || slice("svc1", at(&["10.1.0.1"]));
    let rejects = |slice: EndpointSlice| planned(&services, &[slice], &config()).contains("has no endpoints");
    assert!(!rejects(good()));
    assert!(rejects(EndpointSlice { address_type: "IPv6".to_owned(), ..good() }));
    assert!(rejects(EndpointSlice { address_type: "FQDN".to_owned(), ..good() }));
    let mut other = good();
    other.metadata.labels = None;
    assert!(rejects(other));
    let mut other = good();
    other.metadata.namespace = Some("ns2".to_owned());
    assert!(rejects(other));
    assert!(rejects(slice("svc1", json!([{ "addresses": ["nowhere"] }, { "addresses": [] }]))));
    assert!(rejects(slice("svc1", json!([{ "addresses": ["10.1.0.1"], "conditions": { "ready": false } }]))));
}

#[test]
fn an_endpoint_in_two_slices_counts_once_and_the_living_one_is_believed() {
    let dying =
        json!([{ "addresses": ["10.1.0.1"], "conditions": { "ready": false, "serving": true, "terminating": true } }]);
    let mut second = slice("svc1", dying);
    second.metadata.name = Some("svc1-2".to_owned());
    let first = slice("svc1", at(&["10.1.0.1"]));
    let services = [service("svc1", &json!({}))];
    let one = planned(&services, std::slice::from_ref(&first), &config());
    assert_eq!(planned(&services, &[first.clone(), second.clone()], &config()), one);
    assert_eq!(planned(&services, &[second, first], &config()), one);
}

#[test]
fn health_checks_count_ready_local_addresses_once() {
    let spec = json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30123,
        "ports": [{ "name": "a", "port": 80 }, { "name": "b", "port": 81 }] });
    let local = |address: &str, conditions: Value| json!({ "addresses": [address], "nodeName": "node1", "conditions": conditions });
    let dying = json!({ "ready": false, "serving": true, "terminating": true });
    let mut slice = slice("svc1", json!([local("10.1.0.1", json!({})), local("10.1.0.2", dying)]));
    slice.ports = read(json!([{ "name": "a", "port": 8080 }, { "name": "b", "port": 8081 }]));
    let rules = plan(&[service("svc1", &spec)], &[slice], &config());
    let check = &rules.health[0];
    assert_eq!((rules.health.len(), check.port, check.local_endpoints, check.status()), (1, 30123, 1, 200));
    let answer = serde_json::to_string(&check.answer()).expect("JSON");
    assert_eq!(
        answer,
        r#"{"service":{"namespace":"ns1","name":"svc1"},"localEndpoints":1,"serviceProxyHealthy":true}"#
    );
}

#[test]
fn udp_flows_that_lead_to_no_endpoint_are_stale() {
    let spec = json!({ "type": "NodePort", "ports": [{ "port": 53, "protocol": "UDP", "nodePort": 30053 }] });
    let mut slice = slice("svc1", at(&["10.1.0.1"]));
    slice.ports = read(json!([{ "name": "", "port": 53, "protocol": "UDP" }]));
    let services = [service("svc1", &spec)];
    let some = plan(&services, &[slice], &config()).udp;
    let none = plan(&services, &[], &config()).udp;
    let flow = |to: &str, from: &str| UdpFlow {
        destination: to.parse::<SocketAddr>().expect("an address"),
        answers_from: from.parse().expect("an address"),
    };
    let alive = flow("172.30.0.41:53", "10.1.0.1:53");
    assert!(!some.is_stale(&alive) && none.is_stale(&alive));
    assert!(some.is_stale(&flow("172.30.0.41:53", "10.1.0.2:53")), "another endpoint");
    assert!(some.is_stale(&flow("192.168.0.2:30053", "192.168.0.2:30053")), "from before there was an endpoint");
    assert!(!some.is_stale(&flow("172.30.0.41:54", "10.1.0.2:53")), "none of the service's ports");
    assert!(some.needs_cleaning(&none) && !some.needs_cleaning(&some));
}

#[test]
fn nothing_changed_is_nothing_to_write() {
    let rules = plan(&[service("svc1", &json!({}))], &[slice("svc1", at(&["10.1.0.1"]))], &config());
    assert_eq!(sync(&rules, &rules.clone()), None);
}

#[test]
fn another_endpoint_leaves_the_shared_chains_alone() {
    let services = [service("svc1", &json!({})), service("svc2", &json!({ "clusterIP": "172.30.0.42" }))];
    let other = slice("svc2", at(&["10.1.0.9"]));
    let old = plan(&services, &[slice("svc1", at(&["10.1.0.1"])), other.clone()], &config());
    let new = plan(&services, &[slice("svc1", at(&["10.1.0.2"])), other], &config());
    let text = sync(&old, &new).expect("a change");
    assert!(text.starts_with("*nat\n") && !text.contains("-A KUBE-SERVICES") && !text.contains("svc2"), "{text}");
    assert_eq!(text.matches("\n-X KUBE-SEP-").count(), 1);
    assert!(text.ends_with("COMMIT\n"));
}

#[test]
fn a_new_service_is_put_into_its_place_and_an_old_one_taken_out() {
    let all: Vec<Service> =
        (1..=3).map(|i| service(&format!("svc{i}"), &json!({ "clusterIP": format!("172.30.0.{i}") }))).collect();
    let slices: Vec<EndpointSlice> =
        (1..=3).map(|i| slice(&format!("svc{i}"), at(&[&format!("10.1.0.{i}")]))).collect();
    let (one_two, one_three) = (plan(&all[..2], &slices, &config()), plan([&all[0], &all[2]], &slices, &config()));
    let text = sync(&one_two, &one_three).expect("a change");
    assert!(text.contains("-D KUBE-SERVICES -m comment --comment \"ns1/svc2 cluster IP\""), "{text}");
    assert!(text.contains("-I KUBE-SERVICES 2 -m comment --comment \"ns1/svc3 cluster IP\""), "{text}");
    assert_eq!(text.matches("\n-X ").count(), 2, "{text}");
}
