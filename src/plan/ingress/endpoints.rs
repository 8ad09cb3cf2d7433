//! Who serves each backend now: the ready endpoints of its service's slices.

use std::collections::HashMap;
use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::Endpoint as SliceEndpoint;

use crate::objects::slices::SERVICE_NAME;
use crate::objects::{EndpointSlice, ObjectKey, Service, ServicePort, protocol};

use super::types::{Backend, Endpoint, Endpoints, Routing};

/// The endpoints of each backend of `routing`, in the order of their addresses. One whose service or port
/// is not there is left out.
pub fn endpoints(routing: &Routing, services: &[Service], slices: &[EndpointSlice]) -> Endpoints {
    let services: HashMap<ObjectKey, &Service> = services.iter().map(|s| (ObjectKey::of(&s.metadata), s)).collect();
    let mut slices_of: HashMap<ObjectKey, Vec<&EndpointSlice>> = HashMap::new();
    for slice in slices {
        if let Some(name) = slice.metadata.labels.as_ref().and_then(|l| l.get(SERVICE_NAME)) {
            let key = ObjectKey::new(&ObjectKey::of(&slice.metadata).namespace, name);
            slices_of.entry(key).or_default().push(slice);
        }
    }
    let of = |backend: &Backend| {
        let port = port(services.get(&backend.service)?, &backend.port)?;
        let slices = slices_of.get(&backend.service).into_iter().flatten();
        let mut all: Vec<Endpoint> = slices.flat_map(|slice| ready(slice, port)).collect();
        all.sort();
        all.dedup();
        Some(all)
    };
    routing.backends.iter().filter_map(|(name, backend)| Some((name.clone(), of(backend)?))).collect()
}

/// A service's port by its number or name.
pub fn port<'s>(service: &'s Service, word: &str) -> Option<&'s ServicePort> {
    let mut ports = service.spec.as_ref()?.ports.iter().flatten();
    match word.parse::<i32>() {
        Ok(number) => ports.find(|p| p.port == number && protocol(p.protocol.as_deref()) == "TCP"),
        Err(_) => ports.find(|p| p.name.as_deref() == Some(word) && protocol(p.protocol.as_deref()) == "TCP"),
    }
}

fn ready(slice: &EndpointSlice, port: &ServicePort) -> Vec<Endpoint> {
    let name = port.name.as_deref().unwrap_or_default();
    let numbers = slice
        .ports
        .iter()
        .flatten()
        .filter(|p| p.name.as_deref().unwrap_or_default() == name && protocol(p.protocol.as_deref()) == "TCP");
    let number = numbers.filter_map(|p| p.port).find_map(|n| u16::try_from(n).ok());
    let Some(number) = number else { return Vec::new() };
    // What is not known counts as ready (discovery/v1, EndpointConditions).
    let is_ready = |e: &&SliceEndpoint| e.conditions.as_ref().and_then(|c| c.ready) != Some(false);
    let namespace = slice.metadata.namespace.as_deref().unwrap_or("default");
    let endpoint = |e: &SliceEndpoint| {
        let pod = e.target_ref.as_ref().and_then(|t| t.name.as_ref()).map(|name| format!("{namespace}/{name}"));
        // All addresses of an endpoint are one and the same; kube-proxy, too, takes the first.
        let ip: IpAddr = e.addresses.first()?.parse().ok()?;
        Some(Endpoint { address: (ip, number).into(), pod: pod.unwrap_or_default() })
    };
    slice.endpoints.iter().flatten().filter(is_ready).filter_map(endpoint).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn routing(port: &str) -> Routing {
        let backend = Backend {
            service: ObjectKey::new("default", "tea"),
            port: port.to_owned(),
            protocol: super::super::BackendProtocol::Http,
            affinity: None,
        };
        Routing { backends: BTreeMap::from([("b".to_owned(), backend)]), ..Routing::default() }
    }

    fn found(port: &str) -> Vec<String> {
        let service = serde_json::json!({
            "metadata": { "name": "tea", "namespace": "default" },
            "spec": { "ports": [{ "name": "web", "port": 80 }, { "name": "more", "port": 81 }] },
        });
        let endpoint = |ip: &str, ready: Option<bool>| {
            serde_json::json!({
                "addresses": [ip], "conditions": { "ready": ready }, "targetRef": { "kind": "Pod", "name": "tea-1" }
            })
        };
        let slice = |namespace: &str, of: &str| {
            serde_json::json!({
                "metadata": { "namespace": namespace, "labels": { SERVICE_NAME: of } }, "addressType": "IPv4",
                "ports": [{ "name": "web", "port": 8080 }, { "name": "more", "port": 8081 }],
                "endpoints": [
                    endpoint("10.0.0.2", Some(true)), endpoint("10.0.0.1", None), endpoint("10.0.0.3", Some(false))
                ],
            })
        };
        let slices =
            [slice("default", "tea"), slice("default", "tea"), slice("other", "tea"), slice("default", "milk")];
        let slices: Vec<EndpointSlice> = slices.into_iter().map(|s| serde_json::from_value(s).unwrap()).collect();
        let services = [serde_json::from_value(service).unwrap()];
        let all = endpoints(&routing(port), &services, &slices);
        all.get("b").into_iter().flatten().map(|e| format!("{} {}", e.address, e.pod)).collect()
    }

    #[test]
    fn the_ready_ones_of_the_port_are_found_by_number_and_by_name() {
        assert_eq!(found("80"), ["10.0.0.1:8080 default/tea-1", "10.0.0.2:8080 default/tea-1"]);
        assert_eq!(found("more"), ["10.0.0.1:8081 default/tea-1", "10.0.0.2:8081 default/tea-1"]);
        assert_eq!(found("8080"), [""; 0]);
    }

    #[test]
    fn a_port_for_udp_and_one_that_is_not_there_are_no_backends() {
        let service = serde_json::json!({
            "metadata": { "name": "tea", "namespace": "default" },
            "spec": { "ports": [{ "name": "dns", "port": 53, "protocol": "UDP" }, { "name": "web", "port": 80 }] },
        });
        let services = [serde_json::from_value(service).unwrap()];
        for (port, there) in [("80", true), ("web", true), ("81", false), ("53", false), ("dns", false)] {
            let all = endpoints(&routing(port), &services, &[]);
            assert_eq!(all.get("b").map(Vec::len), there.then_some(0), "{port}");
        }
    }
}
