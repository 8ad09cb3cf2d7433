//! What the endpoint slice controller writes for a few pods and services.

use super::*;

fn labels(app: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("app".to_owned(), app.to_owned())])
}

fn pod<'a>(name: &'a str, ip: &str, labels: &'a BTreeMap<String, String>) -> PodFacts<'a> {
    PodFacts {
        namespace: "default",
        name,
        ip: ip.parse().unwrap(),
        node: "node1",
        zone: None,
        labels,
        hostname: None,
        subdomain: None,
        ports: vec![(Some("http"), 8080, "TCP".to_owned())],
        ready: true,
        terminating: false,
    }
}

fn service(spec: serde_json::Value) -> Service {
    let mut service: Service =
        serde_json::from_value(serde_json::json!({ "metadata": { "name": "tea-svc" }, "spec": spec })).unwrap();
    crate::objects::defaults::service(&mut service);
    service
}

fn only(slices: &[EndpointSlice]) -> (&EndpointSlice, &[Endpoint]) {
    assert_eq!(slices.len(), 1, "{slices:#?}");
    (&slices[0], slices[0].endpoints.as_deref().unwrap())
}

#[test]
fn a_selector_takes_pods_with_all_its_labels_in_its_own_namespace() {
    let (tea, coffee) = (labels("tea"), labels("coffee"));
    let other = PodFacts { namespace: "other", ..pod("tea-2", "10.244.1.4", &tea) };
    let pods = [pod("tea-1", "10.244.1.2", &tea), pod("coffee-1", "10.244.1.3", &coffee), other];
    let service =
        service(serde_json::json!({ "selector": { "app": "tea" }, "ports": [{ "port": 80, "targetPort": 8080 }] }));
    let slices = of_service(&service, &PodIndex::new(&pods));
    let (slice, endpoints) = only(&slices);
    assert_eq!(endpoints.len(), 1);
    assert_eq!(endpoints[0].addresses, ["10.244.1.2"]);
    assert_eq!(slice.metadata.labels.as_ref().unwrap()[SERVICE_NAME], "tea-svc");
    assert_eq!(slice.ports.as_ref().unwrap()[0].port, Some(8080));
}

#[test]
fn a_named_port_may_be_another_number_in_each_pod() {
    let tea = labels("tea");
    let nine = PodFacts { ports: vec![(Some("http"), 9090, "TCP".to_owned())], ..pod("tea-2", "10.244.1.3", &tea) };
    let pods = [pod("tea-1", "10.244.1.2", &tea), nine];
    let service =
        service(serde_json::json!({ "selector": { "app": "tea" }, "ports": [{ "port": 80, "targetPort": "http" }] }));
    let slices = of_service(&service, &PodIndex::new(&pods));
    let numbers: Vec<_> = slices.iter().map(|s| s.ports.as_ref().unwrap()[0].port.unwrap()).collect();
    assert_eq!(numbers, [8080, 9090]);
}

#[test]
fn ready_serving_and_terminating_are_three_things() {
    let tea = labels("tea");
    let state = |ready, terminating, publish: bool| {
        let pods = [PodFacts { ready, terminating, ..pod("tea-1", "10.244.1.2", &tea) }];
        let service = service(serde_json::json!({
            "selector": { "app": "tea" }, "ports": [{ "port": 80 }], "publishNotReadyAddresses": publish
        }));
        let slices = of_service(&service, &PodIndex::new(&pods));
        let conditions = only(&slices).1[0].conditions.clone().unwrap();
        (conditions.ready.unwrap(), conditions.serving.unwrap(), conditions.terminating.unwrap())
    };
    assert_eq!(state(true, false, false), (true, true, false));
    assert_eq!(state(false, false, false), (false, false, false));
    assert_eq!(state(true, true, false), (false, true, true));
    assert_eq!(state(false, true, true), (true, false, true));
}

#[test]
fn a_hostname_counts_behind_the_service_that_the_subdomain_names() {
    let tea = labels("tea");
    let named = |subdomain| PodFacts { hostname: Some("first"), subdomain, ..pod("tea-1", "10.244.1.2", &tea) };
    let service =
        service(serde_json::json!({ "selector": { "app": "tea" }, "clusterIP": "None", "ports": [{ "port": 80 }] }));
    for (subdomain, expected) in [(Some("tea-svc"), Some("first")), (Some("other"), None), (None, None)] {
        let pods = [named(subdomain)];
        let slices = of_service(&service, &PodIndex::new(&pods));
        assert_eq!(only(&slices).1[0].hostname.as_deref(), expected);
    }
}

#[test]
fn a_hundred_endpoints_fill_a_slice_and_none_leave_one_empty() {
    let tea = labels("tea");
    let names: Vec<String> = (0..250).map(|n| format!("tea-{n}")).collect();
    let pods: Vec<_> =
        names.iter().enumerate().map(|(n, name)| pod(name, &format!("10.244.1.{}", n % 250), &tea)).collect();
    let spec = serde_json::json!({ "selector": { "app": "tea" }, "ports": [{ "port": 80 }] });
    let service = service(spec);
    let sizes = |pods: &[PodFacts]| -> Vec<usize> {
        of_service(&service, &PodIndex::new(pods)).iter().map(|s| s.endpoints.as_ref().unwrap().len()).collect()
    };
    assert_eq!(sizes(&pods), [100, 100, 50]);
    assert_eq!(sizes(&[]), [0]);
}

#[test]
fn endpoints_of_the_older_kind_become_slices() {
    let endpoints: Endpoints = serde_json::from_value(serde_json::json!({
        "metadata": { "name": "db" },
        "subsets": [{ "addresses": [{ "ip": "10.1.1.1" }], "notReadyAddresses": [{ "ip": "10.1.1.2" }], "ports": [{ "port": 5432 }] }]
    }))
    .unwrap();
    let slices = mirror(&endpoints);
    let (slice, all) = only(&slices);
    assert_eq!(slice.ports.as_ref().unwrap()[0].port, Some(5432));
    let ready: Vec<_> = all.iter().map(|e| e.conditions.as_ref().unwrap().ready.unwrap()).collect();
    assert_eq!(ready, [true, false]);
}

#[test]
fn a_mirror_has_a_slice_for_each_family_and_another_name_than_the_controllers() {
    let endpoints: Endpoints = serde_json::from_value(serde_json::json!({
        "metadata": { "name": "tea-svc", "labels": { "team": "a" } },
        "subsets": [{ "addresses": [{ "ip": "10.1.1.1" }, { "ip": "fd00::1" }], "ports": [{ "port": 5432 }] }]
    }))
    .unwrap();
    let slices = mirror(&endpoints);
    let seen: Vec<_> =
        slices.iter().map(|s| (s.address_type.as_str(), &s.endpoints.as_ref().unwrap()[0].addresses[0])).collect();
    assert_eq!(seen, [("IPv4", &"10.1.1.1".to_owned()), ("IPv6", &"fd00::1".to_owned())]);
    assert_eq!(slices[0].metadata.labels.as_ref().unwrap()["team"], "a");
    let own = of_service(&service(serde_json::json!({ "selector": { "a": "b" } })), &PodIndex::new(&[]));
    let names: std::collections::HashSet<_> = slices.iter().chain(&own).map(|s| &s.metadata.name).collect();
    assert_eq!(names.len(), 3, "{names:?}");
}

#[test]
fn only_what_a_service_without_selector_lives_by_is_mirrored() {
    let endpoints = |labels| -> Endpoints {
        serde_json::from_value(serde_json::json!({ "metadata": { "name": "tea-svc", "labels": labels } })).unwrap()
    };
    let plain = endpoints(serde_json::json!({}));
    let without = service(serde_json::json!({ "ports": [{ "port": 80 }] }));
    let with = service(serde_json::json!({ "selector": { "app": "tea" }, "ports": [{ "port": 80 }] }));
    assert!(is_mirrored(&plain, Some(&without)));
    assert!(!is_mirrored(&plain, Some(&with)));
    assert!(!is_mirrored(&plain, None));
    let marked = |value: &str| endpoints(serde_json::json!({ (SKIP_MIRROR): value }));
    assert!(!is_mirrored(&marked("true"), Some(&without)));
    assert!(is_mirrored(&marked("false"), Some(&without)));
}

#[test]
fn hints_go_by_whether_the_endpoint_is_ready() {
    let tea = labels("tea");
    let has_hints = |ready, terminating, publish| {
        let pods = [PodFacts { ready, terminating, ..pod("tea-1", "10.244.1.2", &tea) }];
        let service = service(serde_json::json!({
            "selector": { "app": "tea" }, "ports": [{ "port": 80 }],
            "trafficDistribution": "PreferSameNode", "publishNotReadyAddresses": publish
        }));
        only(&of_service(&service, &PodIndex::new(&pods))).1[0].hints.is_some()
    };
    assert!(has_hints(true, false, false));
    assert!(!has_hints(false, false, false) && !has_hints(true, true, false));
    assert!(has_hints(false, false, true) && has_hints(true, true, true));
}
