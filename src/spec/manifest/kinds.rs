//! Which kinds of objects there are, and what labctl does with each.

use crate::diag::{Place, Problem, Problems, codes, did_you_mean};
use crate::spec::node::Node;

/// What is done with a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Service,
    EndpointSlice,
    Endpoints,
    Namespace,
    Ingress,
    IngressClass,
    Secret,
    ConfigMap,
    Pod,
    Deployment,
    /// `List`, or `ServiceList` and the like.
    List,
    /// Nothing: it has no part in a lab's network.
    PassedOver,
}

/// Kinds that are acted on, with the versions of their API. The first version is today's.
const ACTED_ON: &[(&str, Kind, &[&str])] = &[
    ("Service", Kind::Service, &["v1"]),
    ("EndpointSlice", Kind::EndpointSlice, &["discovery.k8s.io/v1"]),
    ("Endpoints", Kind::Endpoints, &["v1"]),
    ("Namespace", Kind::Namespace, &["v1"]),
    ("Ingress", Kind::Ingress, &["networking.k8s.io/v1", "networking.k8s.io/v1beta1", "extensions/v1beta1"]),
    ("IngressClass", Kind::IngressClass, &["networking.k8s.io/v1", "networking.k8s.io/v1beta1"]),
    ("Secret", Kind::Secret, &["v1"]),
    ("ConfigMap", Kind::ConfigMap, &["v1"]),
    ("Pod", Kind::Pod, &["v1"]),
    ("Deployment", Kind::Deployment, &["apps/v1", "apps/v1beta2", "apps/v1beta1", "extensions/v1beta1"]),
];

/// Kinds whose absence changes what a lab does, with what a user may want to know.
const MISSED: &[(&str, &str)] = &[
    ("ReplicaSet", "it makes pods, and labctl does not act on it; write a Deployment"),
    ("ReplicationController", "it makes pods, and labctl does not act on it; write a Deployment"),
    ("StatefulSet", "it makes pods, and labctl does not act on it; write Pods with `hostname` and `subdomain`"),
    ("DaemonSet", "it makes pods, and labctl does not act on it; write a Pod for each host"),
    ("Job", "it makes pods, and labctl does not act on it; write a Pod"),
    ("CronJob", "it makes pods, and labctl does not act on it; write a Pod"),
    ("HorizontalPodAutoscaler", "it changes a deployment's size, and labctl does not act on it"),
    ("NetworkPolicy", "it forbids traffic, and labctl does not act on it"),
];

/// Kinds that have no part in a lab's network.
const HARMLESS: &[&str] = &[
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "Event",
    "Lease",
    "LimitRange",
    "Node",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "PodDisruptionBudget",
    "PriorityClass",
    "ResourceQuota",
    "Role",
    "RoleBinding",
    "ServiceAccount",
    "StorageClass",
];

/// The kind of a document; nothing where it cannot be told, which is reported.
pub fn of(document: &Node, problems: &mut Problems) -> Option<Kind> {
    let word = |key: &str| document.get(key).and_then(Node::text);
    let (Some(kind), Some(version)) = (word("kind"), word("apiVersion")) else {
        problems.push(without_kind(document));
        return None;
    };
    let place = document.place_of("kind");
    if kind == "List" || (kind.ends_with("List") && document.get("items").is_some()) {
        return Some(Kind::List);
    }
    if let Some((_, acted, versions)) = ACTED_ON.iter().find(|(name, ..)| *name == kind) {
        return known(*acted, (kind, version, versions), document, problems);
    }
    if let Some((_, why)) = MISSED.iter().find(|(name, _)| *name == kind) {
        let (what, remedy) = why.split_once("; ").unwrap_or((why, "take it out where that is meant"));
        problems.push(
            Problem::warning(codes::OBJECT_PASSED_OVER, format!("{kind}: {what}"))
                .at(place, "passed over")
                .help(remedy),
        );
    } else if !HARMLESS.contains(&kind) {
        problems.push(unknown(kind, version, document));
    }
    Some(Kind::PassedOver)
}

fn known(
    kind: Kind,
    (name, version, versions): (&str, &str, &[&str]),
    document: &Node,
    problems: &mut Problems,
) -> Option<Kind> {
    let place = document.place_of("apiVersion");
    let newest = versions.first().copied().unwrap_or_default();
    match versions.iter().position(|v| *v == version) {
        Some(0) => Some(kind),
        // What has replaced its fields is told with them.
        Some(_) if kind == Kind::Ingress => Some(kind),
        Some(_) => {
            problems.push(
                Problem::warning(codes::OBJECT_VERSION, format!("{name} is no longer served as {version}"))
                    .at(place, "read all the same")
                    .help(format!("write `apiVersion: {newest}`")),
            );
            Some(kind)
        }
        None => {
            problems.push(
                Problem::error(codes::OBJECT_VERSION, format!("no matches for kind {name} in version {version}"))
                    .at(place, "no such version")
                    .help(format!("write `apiVersion: {newest}`")),
            );
            None
        }
    }
}

/// A kind that nobody knows is somebody's own and passed over, or a misspelt one of Kubernetes', which
/// no cluster would take.
fn unknown(kind: &str, version: &str, document: &Node) -> Problem {
    let place = document.place_of("kind");
    let names = ACTED_ON.iter().map(|(name, ..)| *name).chain(MISSED.iter().map(|(name, _)| *name));
    match did_you_mean(kind, names.chain(HARMLESS.iter().copied())).filter(|_| is_kubernetes_own(version)) {
        Some(near) => Problem::error(codes::OBJECT_VERSION, format!("no matches for kind {kind} in version {version}"))
            .at(place, "no such kind")
            .help(format!("did you mean `{near}`?")),
        None => Problem::warning(codes::OBJECT_PASSED_OVER, format!("labctl does not know the kind `{kind}`"))
            .at(place, "passed over")
            .help("it has no effect on the lab"),
    }
}

/// Whether a version is of one of the groups that Kubernetes keeps for itself: those without a dot, and
/// those of `k8s.io`.
fn is_kubernetes_own(version: &str) -> bool {
    version.split_once('/').is_none_or(|(group, _)| !group.contains('.') || group.ends_with(".k8s.io"))
}

fn without_kind(document: &Node) -> Problem {
    let place = Place { end: document.place.end.min(document.place.start + 40), ..document.place };
    let lab = ["hosts", "pods", "services", "probes"].iter().any(|key| document.get(key).is_some());
    Problem::error(codes::OBJECT_VERSION, "a manifest needs `apiVersion` and `kind`").at(place, "this document").help(
        if lab {
            "this looks like a lab file: give it to `labctl up` without -f"
        } else {
            "for example `apiVersion: v1` and `kind: Service`"
        },
    )
}
