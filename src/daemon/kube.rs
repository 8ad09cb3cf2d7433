//! Kubernetes' objects under Kubernetes' own paths: `/api/v1/…`, `/apis/apps/v1/…`,
//! `/apis/networking.k8s.io/v1/…` and `/apis/discovery.k8s.io/v1/…`, of all namespaces or of one, as lists or one by one.
//!
//! Reading only. What a pod or node looks like is in [`super::objects`]; the others are here.

mod ingress;

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use hyper::StatusCode;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::lab::ingress::IngressLayer;
use crate::lab::{Deployment, Lab};
use crate::objects::slices::SERVICE_NAME;
use crate::objects::{Endpoint, EndpointSlice, ObjectKey, Service, headless};
use crate::plan::services::slices_of;

use super::objects;
use super::server::{Answer, answer_with};
use super::state::Daemon;

/// This moment, in whole seconds as Kubernetes writes times.
pub fn now() -> Timestamp {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
    Timestamp::from_second(since.try_into().unwrap_or_default()).unwrap_or_default()
}

/// When objects came into the lab, by kind and key, and when pods that were told to end are to be gone.
#[derive(Default)]
pub struct Births {
    born: RefCell<HashMap<(&'static str, ObjectKey), Timestamp>>,
    leaving: RefCell<HashMap<ObjectKey, Leaving>>,
}

/// A pod's last moments, as its deletion was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaving {
    /// When its time is over: deletionTimestamp.
    pub until: Timestamp,
    /// How long it was given, in seconds: deletionGracePeriodSeconds.
    pub grace: u64,
}

impl Births {
    /// Note who is there now.
    pub fn note(&self, lab: &Lab) {
        let namespaces = lab.namespaces.iter().map(|n| ("Namespace", ObjectKey::new("", n)));
        let services = lab.services.iter().map(|s| ("Service", ObjectKey::of(&s.metadata)));
        let pods = lab.pods.iter().map(|p| ("Pod", key(p.id.namespace.as_str(), p.id.name.as_str())));
        let deployments = lab.deployments.iter().map(|d| ("Deployment", d.key.clone()));
        let ingresses = lab.ingress.iter().flat_map(IngressLayer::all);
        let ingresses = ingresses.map(|i| ("Ingress", ObjectKey::of(&i.metadata)));
        let nodes = lab.hosts.iter().map(|h| ("Node", key("", h.name.as_str())));
        let (mut births, now) = (self.born.borrow_mut(), now());
        let all = namespaces.chain(services).chain(pods).chain(deployments).chain(ingresses).chain(nodes);
        *births = all.map(|who| (births.get(&who).copied().unwrap_or(now), who)).map(|(at, who)| (who, at)).collect();
    }

    /// As Kubernetes writes it.
    pub fn of(&self, kind: &'static str, key: ObjectKey) -> Option<String> {
        self.born.borrow().get(&(kind, key)).map(ToString::to_string)
    }

    /// Note that a pod was told at `now` to end within `grace`. Who tells it again can only shorten that, as
    /// with the API server (`BeforeDelete`).
    pub fn note_leaving(&self, pod: ObjectKey, now: Timestamp, grace: Duration) {
        let grace = grace.as_secs();
        let until = now.as_second().saturating_add(i64::try_from(grace).unwrap_or(i64::MAX));
        let told = Leaving { until: Timestamp::from_second(until).unwrap_or(Timestamp::MAX), grace };
        let mut all = self.leaving.borrow_mut();
        let kept = all.entry(pod).or_insert(told);
        if told.until < kept.until {
            *kept = told;
        }
    }

    /// A pod's last moments, where it was told to end.
    pub fn leaving(&self, pod: &ObjectKey) -> Option<Leaving> {
        self.leaving.borrow().get(pod).copied()
    }

    /// Forget that a pod was told to end: it is gone, or it stays.
    pub fn forget_leaving(&self, pod: &ObjectKey) {
        self.leaving.borrow_mut().remove(pod);
    }
}

fn key(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::new(namespace, name)
}

/// What is asked for.
struct Asked<'p> {
    /// The part of the path that names the kind.
    kind: &'p str,
    namespace: Option<&'p str>,
    name: Option<&'p str>,
}

impl<'p> Asked<'p> {
    fn parse(path: &'p str) -> Option<(&'p str, Asked<'p>)> {
        let (group, rest) = match path.strip_prefix("/api/") {
            Some(rest) => rest.split_once('/')?,
            None => {
                let rest = path.strip_prefix("/apis/")?;
                let end = rest.match_indices('/').nth(1)?.0;
                (&rest[..end], &rest[end + 1..])
            }
        };
        let parts: Vec<&str> = rest.split('/').collect();
        let (namespace, kind, name) = match *parts.as_slice() {
            ["namespaces", namespace, kind] => (Some(namespace), kind, None),
            ["namespaces", namespace, kind, name] => (Some(namespace), kind, Some(name)),
            [kind] => (None, kind, None),
            [kind, name] => (None, kind, Some(name)),
            _ => return None,
        };
        Some((group, Asked { kind, namespace, name }))
    }
}

/// The answer to a path that is Kubernetes'; nothing where it is not.
pub fn answer(daemon: &Daemon, path: &str) -> Option<Answer> {
    let (group, asked) = Asked::parse(path)?;
    let (kind, mut items) = items(daemon, group, asked.kind)?;
    items.retain(|item| asked.namespace.is_none_or(|ns| item["metadata"]["namespace"] == ns));
    let Some(name) = asked.name else {
        let metadata = json!({ "resourceVersion": "" });
        let list = json!({ "apiVersion": group, "kind": format!("{kind}List"), "metadata": metadata, "items": items });
        return Some(answer_with(StatusCode::OK, &list));
    };
    Some(match items.into_iter().find(|item| item["metadata"]["name"] == name) {
        Some(item) => answer_with(StatusCode::OK, &item),
        None => answer_with(StatusCode::NOT_FOUND, &not_found(asked.kind, name)),
    })
}

fn not_found(kind: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404,
        "message": format!("{kind} \"{name}\" not found"),
    })
}

/// All objects of a kind, with the kind's name.
fn items(daemon: &Daemon, group: &str, kind: &str) -> Option<(&'static str, Vec<Value>)> {
    let lab = daemon.lab();
    let slices = daemon.services.slices();
    Some(match (group, kind) {
        ("v1", "pods") => ("Pod", lab.pods.iter().map(|p| objects::pod(daemon, &lab, p)).collect()),
        ("v1", "nodes") => {
            let node = |h| born(daemon, objects::node(h), "Node", None);
            ("Node", lab.hosts.iter().map(node).collect())
        }
        ("v1", "services") => ("Service", lab.services.iter().map(|s| service(daemon, s)).collect()),
        ("v1", "endpoints") => {
            let of = |s: &Service| endpoints(daemon, s, &slices_of(&slices, &ObjectKey::of(&s.metadata)));
            ("Endpoints", lab.services.iter().filter_map(of).collect())
        }
        ("v1", "namespaces") => ("Namespace", lab.namespaces.iter().map(|n| namespace(daemon, n)).collect()),
        ("apps/v1", "deployments") => {
            ("Deployment", lab.deployments.iter().map(|d| deployment(daemon, &lab, d)).collect())
        }
        ("v1", "secrets") => ("Secret", ingress::secrets(daemon, &lab)),
        ("v1", "configmaps") => ("ConfigMap", ingress::config_maps(&lab)),
        (ingress::GROUP, "ingresses") => ("Ingress", ingress::ingresses(daemon, &lab)),
        (ingress::GROUP, "ingressclasses") => ("IngressClass", ingress::classes(&lab)),
        ("discovery.k8s.io/v1", "endpointslices") => {
            ("EndpointSlice", slices.iter().map(|s| slice(daemon, s)).collect())
        }
        _ => return None,
    })
}

/// The object with the time since when it is there: its own, or that of the service it belongs to.
fn born(daemon: &Daemon, mut object: Value, kind: &'static str, of: Option<ObjectKey>) -> Value {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    let key = of.unwrap_or_else(|| ObjectKey::new(&text("namespace"), &text("name")));
    if let Some(at) = daemon.births.of(kind, key) {
        object["metadata"]["creationTimestamp"] = at.into();
    }
    object
}

fn service(daemon: &Daemon, service: &Service) -> Value {
    let mut object = json!(service);
    if object["status"].is_null() {
        object["status"] = json!({ "loadBalancer": {} });
    }
    born(daemon, object, "Service", None)
}

fn slice(daemon: &Daemon, slice: &EndpointSlice) -> Value {
    let service = slice.metadata.labels.as_ref().and_then(|l| l.get(SERVICE_NAME));
    let namespace = slice.metadata.namespace.as_deref().unwrap_or("default");
    born(daemon, json!(slice), "Service", service.map(|name| ObjectKey::new(namespace, name)))
}

fn namespace(daemon: &Daemon, name: &str) -> Value {
    let labels = json!({ "kubernetes.io/metadata.name": name });
    let object = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": { "name": name, "labels": labels },
        "status": { "phase": "Active" },
    });
    born(daemon, object, "Namespace", None)
}

/// A service's endpoints in their older form, which has no word for those that end.
fn endpoints(daemon: &Daemon, service: &Service, slices: &[&EndpointSlice]) -> Option<Value> {
    let key = ObjectKey::of(&service.metadata);
    let spec = service.spec.as_ref()?;
    let has_own = spec.selector.as_ref().is_some_and(|s| !s.is_empty()) || !slices.is_empty();
    if !has_own {
        return None;
    }
    // A port by a name that a pod does not have is left out, and with its last port the pod (the endpoints
    // controller's `addEndpointSubset`).
    let has_ports = spec.ports.as_ref().is_some_and(|p| !p.is_empty());
    let is_reached = |s: &&&EndpointSlice| !has_ports || s.ports.as_ref().is_none_or(|p| !p.is_empty());
    let subsets: Vec<Value> = slices.iter().filter(is_reached).filter_map(|s| subset(s)).collect();
    let mut labels = json!(service.metadata.labels.clone().unwrap_or_default());
    if headless(spec) {
        labels["service.kubernetes.io/headless"] = "".into();
    }
    let mut object = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": { "name": key.name, "namespace": key.namespace, "labels": labels },
    });
    if !subsets.is_empty() {
        object["subsets"] = subsets.into();
    }
    Some(born(daemon, object, "Service", None))
}

fn subset(slice: &EndpointSlice) -> Option<Value> {
    let ready = |e: &&Endpoint| e.conditions.as_ref().is_none_or(|c| c.ready != Some(false));
    let ends = |e: &&Endpoint| e.conditions.as_ref().is_some_and(|c| c.terminating == Some(true)) && !ready(e);
    let all: Vec<&Endpoint> = slice.endpoints.iter().flatten().filter(|e| !ends(e)).collect();
    let address = |e: &&Endpoint| {
        let mut address = json!({ "ip": e.addresses.first() });
        for (field, value) in
            [("hostname", json!(e.hostname)), ("nodeName", json!(e.node_name)), ("targetRef", json!(e.target_ref))]
        {
            if !value.is_null() {
                address[field] = value;
            }
        }
        address
    };
    let (up, down): (Vec<&Endpoint>, Vec<&Endpoint>) = all.into_iter().partition(|e| ready(e));
    let mut subset = json!({});
    for (field, endpoints) in [("addresses", up), ("notReadyAddresses", down)] {
        if !endpoints.is_empty() {
            subset[field] = endpoints.iter().map(address).collect();
        }
    }
    let empty = subset.as_object().is_none_or(serde_json::Map::is_empty);
    let port = |p: &crate::objects::EndpointPort| {
        let mut port = json!({ "port": p.port, "protocol": p.protocol });
        if let Some(name) = p.name.as_ref().filter(|n| !n.is_empty()) {
            port["name"] = json!(name);
        }
        port
    };
    let ports: Vec<Value> = slice.ports.iter().flatten().map(port).collect();
    if !ports.is_empty() {
        subset["ports"] = ports.into();
    }
    (!empty).then_some(subset)
}

fn deployment(daemon: &Daemon, lab: &Lab, deployment: &Deployment) -> Value {
    let Deployment { key, replicas, labels } = deployment;
    let mine = |p: &&crate::lab::Pod| {
        p.owner.as_deref() == Some(key.name.as_str()) && p.id.namespace.as_str() == key.namespace
    };
    // Pods on their way out are no replicas any more.
    let pods: Vec<_> = lab.pods.iter().filter(mine).filter(|p| !daemon.services.is_terminating(&p.id)).collect();
    let ready = pods.iter().filter(|p| objects::is_ready(daemon, p)).count();
    let containers = pods.first().map(|p| objects::pod(daemon, lab, p)["spec"]["containers"].take());
    let object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": key.name, "namespace": key.namespace },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": { "containers": containers } },
        },
        "status": {
            "replicas": pods.len(),
            "updatedReplicas": pods.len(),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "unavailableReplicas": (*replicas as usize).saturating_sub(ready),
        },
    });
    born(daemon, object, "Deployment", None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_kubernetes_own() {
        let parse = |path| Asked::parse(path).map(|(group, a)| (group, a.kind, a.namespace, a.name));
        assert_eq!(parse("/api/v1/services"), Some(("v1", "services", None, None)));
        assert_eq!(parse("/api/v1/nodes/node1"), Some(("v1", "nodes", None, Some("node1"))));
        assert_eq!(parse("/api/v1/namespaces"), Some(("v1", "namespaces", None, None)));
        assert_eq!(parse("/api/v1/namespaces/shop"), Some(("v1", "namespaces", None, Some("shop"))));
        assert_eq!(parse("/api/v1/namespaces/shop/pods/a"), Some(("v1", "pods", Some("shop"), Some("a"))));
        let slices = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices";
        assert_eq!(parse(slices), Some(("discovery.k8s.io/v1", "endpointslices", Some("shop"), None)));
        assert_eq!(parse("/labctl/v1/status"), None);
        assert_eq!(parse("/apis/apps"), None);
    }

    #[test]
    fn when_a_pod_is_to_be_gone_is_fixed_when_it_is_told_and_can_only_come_sooner() {
        let births = Births::default();
        let pod = || ObjectKey::new("default", "a");
        let tell =
            |at, grace| births.note_leaving(pod(), Timestamp::from_second(at).unwrap(), Duration::from_secs(grace));
        let found = || births.leaving(&pod()).map(|l| (l.until.to_string(), l.grace));
        assert_eq!(found(), None);
        tell(100, 30);
        assert_eq!(found(), Some(("1970-01-01T00:02:10Z".to_owned(), 30)));
        tell(110, 60);
        assert_eq!(found(), Some(("1970-01-01T00:02:10Z".to_owned(), 30)));
        tell(110, 5);
        assert_eq!(found(), Some(("1970-01-01T00:01:55Z".to_owned(), 5)));
        births.forget_leaving(&pod());
        assert_eq!(found(), None);
        tell(0, u64::MAX);
        assert_eq!(found().map(|f| f.1), Some(u64::MAX));
    }
}
