//! Who gets which address and NodePort, and who is refused.

use super::*;
use crate::objects::defaults;

fn service(yaml_like_json: serde_json::Value) -> Service {
    let mut service: Service = serde_json::from_value(yaml_like_json).unwrap();
    defaults::service(&mut service);
    service
}

fn named(name: &str, spec: serde_json::Value) -> Service {
    service(serde_json::json!({ "metadata": { "name": name }, "spec": spec }))
}

fn ranges() -> Ranges {
    Ranges { addresses: "10.96.0.0/12".parse().unwrap(), node_ports: 30000..=32767 }
}

fn ip(service: &Service) -> &str {
    service.spec.as_ref().unwrap().cluster_ip.as_deref().unwrap()
}

#[test]
fn written_addresses_are_kept_and_others_come_from_the_upper_band() {
    let ports = serde_json::json!([{ "port": 80 }]);
    let mut all = vec![
        named("a", serde_json::json!({ "ports": ports })),
        named("b", serde_json::json!({ "ports": ports, "clusterIP": "10.96.1.1" })),
        named("c", serde_json::json!({ "ports": ports, "clusterIP": "None" })),
        named("d", serde_json::json!({ "type": "ExternalName", "externalName": "example.com" })),
    ];
    assert!(allocate(&mut all, &HashMap::new(), &ranges()).is_empty());
    assert_eq!((ip(&all[0]), ip(&all[1]), ip(&all[2])), ("10.96.1.2", "10.96.1.1", "None"));
    assert_eq!(all[3].spec.as_ref().unwrap().cluster_ip, None);
}

#[test]
fn who_was_there_before_keeps_address_and_node_port() {
    let spec = serde_json::json!({ "type": "NodePort", "ports": [{ "port": 80 }] });
    let mut first = vec![named("a", spec.clone()), named("b", spec.clone())];
    allocate(&mut first, &HashMap::new(), &ranges());
    let before = HashMap::from([(ObjectKey::new("default", "b"), &first[1])]);
    let mut again = vec![named("b", spec)];
    assert!(allocate(&mut again, &before, &ranges()).is_empty());
    assert_eq!(again[0], first[1]);
}

fn of<'s>(services: &[&'s Service]) -> HashMap<ObjectKey, &'s Service> {
    services.iter().map(|s| (ObjectKey::of(&s.metadata), *s)).collect()
}

#[test]
fn nobody_takes_what_a_running_service_has() {
    let node_port = |port: i32| serde_json::json!({ "type": "NodePort", "ports": [{ "port": 80, "nodePort": port }] });
    let mut first = vec![named("old", node_port(0))];
    allocate(&mut first, &HashMap::new(), &ranges());
    let before = of(&[&first[0]]);
    let has = |s: &Service| s.spec.as_ref().unwrap().ports.as_ref().unwrap()[0].node_port.unwrap();
    // The new one comes first in the file, and writes what the old one was given.
    let mut spec = node_port(has(&first[0]));
    spec["clusterIP"] = ip(&first[0]).into();
    let mut all = vec![named("new", spec), named("old", node_port(0))];
    let refused = allocate(&mut all, &before, &ranges());
    let told: Vec<(usize, bool, &str)> = refused.iter().map(|r| (r.service, r.port, r.fault.detail.as_str())).collect();
    let address = format!("failed to allocate IP {}: provided IP is already allocated", ip(&first[0]));
    assert_eq!(told, [(0, false, address.as_str()), (0, true, "provided port is already allocated")]);
    assert_eq!(all[1], first[0]);
}

#[test]
fn what_a_service_gives_up_is_free_for_others() {
    let ports = serde_json::json!([{ "port": 80, "nodePort": 30080 }]);
    let old = named("a", serde_json::json!({ "type": "NodePort", "clusterIP": "10.96.3.3", "ports": ports }));
    let mut all = vec![
        named("b", serde_json::json!({ "type": "NodePort", "clusterIP": "10.96.3.3", "ports": ports })),
        named("a", serde_json::json!({ "type": "ExternalName", "externalName": "example.com" })),
    ];
    assert_eq!(allocate(&mut all, &of(&[&old]), &ranges()), []);
    // Its own port may go to another of its ports; the one that had it gets another.
    let moved = serde_json::json!([{ "name": "a", "port": 80 }, { "name": "b", "port": 81, "nodePort": 30080 }]);
    let mut all = vec![named("a", serde_json::json!({ "type": "NodePort", "ports": moved }))];
    assert_eq!(allocate(&mut all, &of(&[&old]), &ranges()), []);
    let ports = all[0].spec.as_ref().unwrap().ports.as_ref().unwrap();
    assert_eq!((ports[0].node_port, ports[1].node_port), (Some(30086), Some(30080)));
}

#[test]
fn a_headless_service_stays_headless_where_an_update_says_nothing() {
    let ports = serde_json::json!([{ "port": 80 }]);
    let old = named("a", serde_json::json!({ "clusterIP": "None", "ports": ports }));
    let mut all = vec![named("a", serde_json::json!({ "ports": ports }))];
    assert_eq!(allocate(&mut all, &of(&[&old]), &ranges()), []);
    let spec = all[0].spec.as_ref().unwrap();
    assert_eq!((ip(&all[0]), spec.cluster_ips.as_deref()), ("None", Some(&["None".to_owned()][..])));
    let mut all = vec![named("a", serde_json::json!({ "type": "NodePort", "ports": ports }))];
    let refused = allocate(&mut all, &of(&[&old]), &ranges());
    assert!(refused[0].fault.detail.starts_with("may not change once set; it is None"), "{refused:?}");
}

#[test]
fn what_another_has_or_lies_outside_is_refused_in_the_api_servers_words() {
    let mut all = vec![
        named("a", serde_json::json!({ "type": "NodePort", "ports": [{ "port": 80, "nodePort": 30080 }] })),
        named("b", serde_json::json!({ "type": "NodePort", "ports": [{ "port": 80, "nodePort": 30080 }] })),
        named("c", serde_json::json!({ "type": "NodePort", "ports": [{ "port": 80, "nodePort": 80 }] })),
        named("d", serde_json::json!({ "clusterIP": "10.0.0.1", "ports": [{ "port": 80 }] })),
        named("e", serde_json::json!({ "clusterIP": "10.96.0.9", "ports": [{ "port": 80 }] })),
        named("f", serde_json::json!({ "clusterIP": "10.96.0.9", "ports": [{ "port": 80 }] })),
    ];
    let refused = allocate(&mut all, &HashMap::new(), &ranges());
    let told: Vec<(usize, String)> = refused.iter().map(|r| (r.service, r.fault.to_string())).collect();
    assert_eq!(told.len(), 4, "{told:#?}");
    assert_eq!(told[0].0, 3);
    assert!(told[0].1.contains("The range of valid IPs is 10.96.0.0/12"));
    assert_eq!(told[1].0, 5);
    assert!(told[1].1.contains("provided IP is already allocated"));
    assert_eq!(told[2].1, "spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated");
    assert!(told[3].1.contains("The range of valid ports is 30000-32767"));
}

#[test]
fn protocols_of_one_port_share_a_node_port() {
    let ports = serde_json::json!([{ "name": "u", "port": 53, "protocol": "UDP" }, { "name": "t", "port": 53 }]);
    let mut all = vec![named("dns", serde_json::json!({ "type": "NodePort", "ports": ports }))];
    assert!(allocate(&mut all, &HashMap::new(), &ranges()).is_empty());
    let ports = all[0].spec.as_ref().unwrap().ports.as_ref().unwrap();
    assert_eq!((ports[0].node_port, ports[1].node_port), (Some(30086), Some(30086)));
}

#[test]
fn an_address_cannot_be_changed() {
    let old = named("a", serde_json::json!({ "clusterIP": "10.96.3.3", "ports": [{ "port": 80 }] }));
    let before = HashMap::from([(ObjectKey::new("default", "a"), &old)]);
    let mut new = vec![named("a", serde_json::json!({ "clusterIP": "10.96.3.4", "ports": [{ "port": 80 }] }))];
    let refused = allocate(&mut new, &before, &ranges());
    assert!(refused[0].fault.to_string().contains("may not change once set"));
}
