//! Endpoint slices: which pods stand behind a service, and in what state, as Kubernetes' endpoint
//! slice controller writes them down; and the mirror of older Endpoints objects.
//!
//! Pure: from services and facts about pods to slices. Which pods are ready is found out by the
//! daemon; what follows for rules and names is kube-proxy's and the DNS server's.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{EndpointAddress, ObjectReference};
use k8s_openapi::api::discovery::v1::{EndpointHints, ForNode, ForZone};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sha2::{Digest, Sha256};

use super::{
    Endpoint, EndpointConditions, EndpointPort, EndpointSlice, Endpoints, ObjectKey, ObjectMeta, Service, ServicePort,
    headless, protocol,
};

/// The label that ties a slice to its service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// The label by which an Endpoints object is kept out of the slices.
const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";
/// The controller's --max-endpoints-per-slice.
const MOST_ENDPOINTS: usize = 100;

/// What the controller knows about a pod.
#[derive(Debug, Clone)]
pub struct PodFacts<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub ip: IpAddr,
    pub node: &'a str,
    pub zone: Option<&'a str>,
    pub labels: &'a BTreeMap<String, String>,
    pub hostname: Option<&'a str>,
    pub subdomain: Option<&'a str>,
    /// Name, number and protocol of each container port.
    pub ports: Vec<(Option<&'a str>, u16, String)>,
    /// Whether it is Running and its readiness probes pass.
    pub ready: bool,
    /// Whether it has been told to end.
    pub terminating: bool,
}

/// Pods by one of their labels, so that a selector looks at few of them.
pub struct PodIndex<'a> {
    pods: &'a [PodFacts<'a>],
    by_label: HashMap<(&'a str, &'a str, &'a str), Vec<usize>>,
}

impl<'a> PodIndex<'a> {
    pub fn new(pods: &'a [PodFacts<'a>]) -> Self {
        let mut by_label: HashMap<_, Vec<usize>> = HashMap::new();
        for (n, pod) in pods.iter().enumerate() {
            for (key, value) in pod.labels {
                by_label.entry((pod.namespace, key.as_str(), value.as_str())).or_default().push(n);
            }
        }
        PodIndex { pods, by_label }
    }

    /// The pods of `namespace` that have all labels of `selector`; none where it is empty.
    pub fn select<'s>(
        &'s self,
        namespace: &'s str,
        selector: &'s BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'a PodFacts<'a>> + 's {
        let first = selector.iter().next();
        let candidates = first.and_then(|(key, value)| self.by_label.get(&(namespace, key.as_str(), value.as_str())));
        let has_all = |pod: &&PodFacts| selector.iter().all(|(k, v)| pod.labels.get(k) == Some(v));
        candidates.into_iter().flatten().map(|n| &self.pods[*n]).filter(has_all)
    }
}

/// The slices of one service: one for each set of port numbers that its pods have, of at most a
/// hundred endpoints. A service with nothing behind it has one empty slice; one without selector
/// has none of ours.
pub fn of_service(service: &Service, pods: &PodIndex<'_>) -> Vec<EndpointSlice> {
    let key = ObjectKey::of(&service.metadata);
    let Some(spec) = &service.spec else { return Vec::new() };
    let Some(selector) = spec.selector.as_ref().filter(|s| !s.is_empty()) else { return Vec::new() };
    if super::service_type(spec) == "ExternalName" {
        return Vec::new();
    }
    let mut groups: BTreeMap<Vec<(String, i32, String)>, Vec<Endpoint>> = BTreeMap::new();
    for pod in pods.select(&key.namespace, selector) {
        let ports = ports_of(spec.ports.as_deref().unwrap_or_default(), pod);
        groups.entry(ports).or_default().push(endpoint(service, &key, pod));
    }
    if groups.is_empty() {
        groups.insert(Vec::new(), Vec::new());
    }
    let mut slices = Vec::new();
    for (ports, endpoints) in groups {
        let chunks: Vec<&[Endpoint]> = match endpoints.as_slice() {
            [] => vec![&[]],
            all => all.chunks(MOST_ENDPOINTS).collect(),
        };
        for chunk in chunks {
            slices.push(slice(service, &key, slices.len(), (&ports, chunk)));
        }
    }
    slices
}

/// The number that each of a service's ports has in `pod`. A name that the pod does not have is
/// left out (`podutil.FindPort`).
fn ports_of(ports: &[ServicePort], pod: &PodFacts) -> Vec<(String, i32, String)> {
    let number = |port: &ServicePort| match &port.target_port {
        Some(IntOrString::String(name)) => pod
            .ports
            .iter()
            .find(|(n, _, p)| *n == Some(name.as_str()) && p == protocol(port.protocol.as_deref()))
            .map(|(_, number, _)| i32::from(*number)),
        Some(IntOrString::Int(number)) if *number != 0 => Some(*number),
        _ => Some(port.port),
    };
    let all = ports.iter().filter_map(|p| {
        let name = p.name.clone().unwrap_or_default();
        Some((name, number(p)?, protocol(p.protocol.as_deref()).to_owned()))
    });
    all.collect()
}

fn endpoint(service: &Service, key: &ObjectKey, pod: &PodFacts) -> Endpoint {
    let spec = service.spec.as_ref();
    let publish = spec.and_then(|s| s.publish_not_ready_addresses).unwrap_or(false);
    let ready = publish || (pod.ready && !pod.terminating);
    let own_name = pod.hostname.filter(|_| pod.subdomain == Some(key.name.as_str()));
    Endpoint {
        addresses: vec![pod.ip.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(pod.ready),
            terminating: Some(pod.terminating),
        }),
        hostname: own_name.map(str::to_owned),
        node_name: Some(pod.node.to_owned()),
        zone: pod.zone.map(str::to_owned),
        hints: spec.filter(|_| ready).and_then(|s| hints(s.traffic_distribution.as_deref(), pod)),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            name: Some(pod.name.to_owned()),
            namespace: Some(pod.namespace.to_owned()),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}

/// Which nodes or zones shall use an endpoint, by the service's trafficDistribution
/// (`endpointslice/trafficdist`). Endpoints that are not ready, by their condition, get none.
fn hints(distribution: Option<&str>, pod: &PodFacts) -> Option<EndpointHints> {
    let zones = pod.zone.map(|zone| vec![ForZone { name: zone.to_owned() }]);
    match distribution? {
        "PreferSameNode" => {
            Some(EndpointHints { for_nodes: Some(vec![ForNode { name: pod.node.to_owned() }]), for_zones: zones })
        }
        "PreferClose" | "PreferSameZone" => zones.map(|z| EndpointHints { for_zones: Some(z), for_nodes: None }),
        _ => None,
    }
}

fn slice(
    service: &Service,
    key: &ObjectKey,
    number: usize,
    (ports, endpoints): (&[(String, i32, String)], &[Endpoint]),
) -> EndpointSlice {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), key.name.clone());
    labels.insert(MANAGED_BY.to_owned(), "endpointslice-controller.k8s.io".to_owned());
    if service.spec.as_ref().is_some_and(headless) {
        labels.insert("service.kubernetes.io/headless".to_owned(), String::new());
    }
    let ports = ports.iter().map(|(name, number, protocol)| EndpointPort {
        name: Some(name.clone()),
        port: Some(*number),
        protocol: Some(protocol.clone()),
        app_protocol: None,
    });
    EndpointSlice {
        address_type: "IPv4".to_owned(),
        metadata: ObjectMeta {
            name: Some(format!("{}-{}", key.name, suffix(key, &number.to_string()))),
            namespace: Some(key.namespace.clone()),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        endpoints: Some(endpoints.to_vec()),
        ports: Some(ports.collect()),
    }
}

/// Five letters, random in Kubernetes; here they follow from the service, so that a lab is the same
/// every time. `which` tells one service's slices apart, also by who wrote them.
fn suffix(key: &ObjectKey, which: &str) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let digest = Sha256::digest(format!("{key}/{which}"));
    digest.iter().take(5).map(|b| char::from(LETTERS[usize::from(*b) % LETTERS.len()])).collect()
}

/// Whether an Endpoints object says where a service leads: one of its name is there and has no
/// selector, and nobody has said that it is not to be mirrored (`endpointslicemirroring`).
pub fn is_mirrored(endpoints: &Endpoints, service: Option<&Service>) -> bool {
    let chosen = |s: &Service| s.spec.as_ref().and_then(|s| s.selector.as_ref()).is_some_and(|s| !s.is_empty());
    !is_kept_apart(endpoints) && service.is_some_and(|s| !chosen(s))
}

/// Whether an Endpoints object is marked as one that is not mirrored.
pub fn is_kept_apart(endpoints: &Endpoints) -> bool {
    endpoints.metadata.labels.as_ref().and_then(|l| l.get(SKIP_MIRROR)).is_some_and(|v| v == "true")
}

/// The slices that say the same as an Endpoints object (Kubernetes' endpoint slice mirroring): one
/// for each of its subsets and families of addresses.
pub fn mirror(endpoints: &Endpoints) -> Vec<EndpointSlice> {
    let key = ObjectKey::of(&endpoints.metadata);
    let mut slices = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ready = subset.addresses.iter().flatten().map(|a| (a, true));
        let all: Vec<_> = ready.chain(subset.not_ready_addresses.iter().flatten().map(|a| (a, false))).collect();
        for (family, is_v4) in [("IPv4", true), ("IPv6", false)] {
            let of_family =
                |a: &&(&EndpointAddress, bool)| a.0.ip.parse().is_ok_and(|ip: IpAddr| ip.is_ipv4() == is_v4);
            let chosen: Vec<Endpoint> = all.iter().filter(of_family).map(|a| mirrored(*a)).collect();
            if chosen.is_empty() {
                continue;
            }
            let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
            labels.insert(SERVICE_NAME.to_owned(), key.name.clone());
            labels.insert(MANAGED_BY.to_owned(), "endpointslicemirroring-controller.k8s.io".to_owned());
            slices.push(EndpointSlice {
                address_type: family.to_owned(),
                metadata: ObjectMeta {
                    name: Some(format!("{}-{}", key.name, suffix(&key, &format!("mirror/{}", slices.len())))),
                    namespace: Some(key.namespace.clone()),
                    labels: Some(labels),
                    ..ObjectMeta::default()
                },
                endpoints: Some(chosen),
                ports: Some(subset.ports.iter().flatten().map(mirrored_port).collect()),
            });
        }
    }
    slices
}

fn mirrored((address, ready): (&EndpointAddress, bool)) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), serving: Some(ready), terminating: Some(false) }),
        hostname: address.hostname.clone().filter(|h| !h.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn mirrored_port(port: &k8s_openapi::api::core::v1::EndpointPort) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(protocol(port.protocol.as_deref()).to_owned()),
        app_protocol: port.app_protocol.clone(),
    }
}

#[cfg(test)]
mod tests;
