//! What a change does to services, in words for people: rules that come and go say it to nobody.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use super::slices::SERVICE_NAME;
use super::{EndpointSlice, ObjectKey, Service, protocol, service_type};

/// The services of a lab, with the slices that say where each leads.
#[derive(Debug, Clone, Copy)]
pub struct State<'a> {
    pub services: &'a [Service],
    pub slices: &'a [EndpointSlice],
}

/// A line for each service that differs, such as `default/tea-svc: endpoints 3 → 0`, in the order of
/// their names.
pub fn told(before: State, after: State) -> Vec<String> {
    let (old, new) = (faces(before), faces(after));
    let gone = old.iter().filter(|(key, _)| !new.contains_key(*key)).map(|(key, _)| (key, "gone".to_owned()));
    let changed = new.iter().filter_map(|(key, face)| match old.get(key) {
        None => Some((key, face.whole())),
        Some(was) if was == face => None,
        Some(was) => Some((key, was.differs_from(face))),
    });
    let all: BTreeMap<&ObjectKey, String> = gone.chain(changed).collect();
    all.into_iter().map(|(key, what)| format!("{key}: {what}")).collect()
}

/// A line for each object of a kind that is new, gone or differs, such as `ingress default/cafe: changed`,
/// in the order of their names.
pub fn of_kind<K: Ord + fmt::Display, T: PartialEq>(
    kind: &str,
    before: &BTreeMap<K, T>,
    after: &BTreeMap<K, T>,
) -> Vec<String> {
    let keys: BTreeSet<&K> = before.keys().chain(after.keys()).collect();
    let line = |key: &K| match (before.get(key), after.get(key)) {
        (None, _) => Some(format!("{kind} {key}: new")),
        (_, None) => Some(format!("{kind} {key}: gone")),
        (was, now) if was != now => Some(format!("{kind} {key}: changed")),
        _ => None,
    };
    keys.into_iter().filter_map(line).collect()
}

/// What of a service is worth a word.
#[derive(Debug, Clone, PartialEq)]
struct Face {
    /// What they are called, and what they are.
    parts: [(&'static str, String); 4],
    service: Service,
}

fn faces(state: State) -> HashMap<ObjectKey, Face> {
    let mut endpoints: HashMap<ObjectKey, usize> = HashMap::new();
    for slice in state.slices {
        let Some(name) = slice.metadata.labels.as_ref().and_then(|l| l.get(SERVICE_NAME)) else { continue };
        let ends = |e: &&super::Endpoint| e.conditions.as_ref().is_some_and(|c| c.terminating == Some(true));
        let count = slice.endpoints.iter().flatten().filter(|e| !ends(e)).count();
        let key = ObjectKey { name: name.clone(), ..ObjectKey::of(&slice.metadata) };
        *endpoints.entry(key).or_default() += count;
    }
    let face = |service: &Service| {
        let key = ObjectKey::of(&service.metadata);
        let count = endpoints.get(&key).copied().unwrap_or_default();
        (key, Face::of(service, count))
    };
    state.services.iter().map(face).collect()
}

impl Face {
    fn of(service: &Service, endpoints: usize) -> Face {
        let spec = service.spec.clone().unwrap_or_default();
        let ports: Vec<String> = spec.ports.iter().flatten().map(port).collect();
        let address = spec.cluster_ip.clone().or(spec.external_name.clone()).unwrap_or_default();
        let parts = [
            ("type", service_type(&spec).to_owned()),
            ("address", address),
            ("ports", ports.join(",")),
            ("endpoints", endpoints.to_string()),
        ];
        Face { parts, service: service.clone() }
    }

    fn whole(&self) -> String {
        let parts: Vec<String> = self.parts.iter().map(|(name, value)| format!("{name} {value}")).collect();
        format!("new, {}", parts.join(", "))
    }

    fn differs_from(&self, now: &Face) -> String {
        let pairs = self.parts.iter().zip(&now.parts).filter(|(was, now)| was != now);
        let parts: Vec<String> = pairs.map(|(was, now)| format!("{} {} → {}", was.0, was.1, now.1)).collect();
        if parts.is_empty() { "changed in its other fields".to_owned() } else { parts.join(", ") }
    }
}

fn port(port: &super::ServicePort) -> String {
    let node = port.node_port.filter(|n| *n > 0).map(|n| format!(":{n}")).unwrap_or_default();
    format!("{}{node}/{}", port.port, protocol(port.protocol.as_deref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(name: &str, port: u16) -> Service {
        let object =
            json!({ "metadata": { "name": name }, "spec": { "clusterIP": "10.96.1.1", "ports": [{ "port": port }] } });
        serde_json::from_value(object).expect("a service")
    }

    fn slice(name: &str, count: usize) -> EndpointSlice {
        let mut endpoints = vec![json!({ "addresses": ["10.244.1.2"] }); count];
        endpoints.push(json!({ "addresses": ["10.244.1.9"], "conditions": { "terminating": true } }));
        let labels = json!({ SERVICE_NAME: name });
        let object =
            json!({ "addressType": "IPv4", "metadata": { "name": "x", "labels": labels }, "endpoints": endpoints });
        serde_json::from_value(object).expect("a slice")
    }

    #[test]
    fn what_comes_goes_and_changes_is_said_of_each_service() {
        let (old, new) = ([service("a", 80), service("b", 80), service("c", 80)], [service("a", 81), service("b", 80)]);
        let (three, none) = ([slice("a", 3), slice("b", 1)], [slice("b", 1)]);
        let before = State { services: &old, slices: &three };
        let after = State { services: &new, slices: &none };
        assert_eq!(told(before, after), ["default/a: ports 80/TCP → 81/TCP, endpoints 3 → 0", "default/c: gone"]);
        assert_eq!(told(before, before), [""; 0]);
        let back = told(after, before);
        assert_eq!(back[1], "default/c: new, type ClusterIP, address 10.96.1.1, ports 80/TCP, endpoints 0");
        let mut other = new.clone();
        other[1].spec.as_mut().expect("a spec").session_affinity = Some("ClientIP".to_owned());
        assert_eq!(told(after, State { services: &other, slices: &none }), ["default/b: changed in its other fields"]);
    }
}
