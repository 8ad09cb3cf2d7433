//! What a file declares, whether or not it could be built. A host whose own description is wrong is
//! told about once; a pod that names it must not be told that there is no such host.

use crate::objects::ObjectKey;
use crate::spec::LabFile;
use crate::spec::at::At;
use crate::spec::types::DeploymentSpec;

use super::ranges;

/// Whether `name` is a host of the file, or may be one that could not be read.
pub(super) fn host(file: &LabFile, name: &str) -> bool {
    file.hosts.names().any(|n| n == name) || file.damage.may_have_held("hosts", name)
}

/// The same of a network.
pub(super) fn network(file: &LabFile, name: &str) -> bool {
    file.networks.names().any(|n| n == name) || file.damage.may_have_held("networks", name)
}

/// The same of anything that a probe may name.
pub(super) fn anything(file: &LabFile, name: &str) -> bool {
    let bare = name.strip_prefix("pod/").map(|n| n.strip_prefix("default/").unwrap_or(n)).unwrap_or(name);
    let bare = bare.strip_prefix("host/").or_else(|| bare.strip_prefix("client/")).unwrap_or(bare);
    let lost = ["clients", "pods", "deployments"].iter().any(|s| file.damage.may_have_held(s, bare));
    lost || host(file, bare)
        || service(file, bare)
        || file.clients.names().any(|n| n == bare)
        || file.pods.iter().any(|(n, pod)| behind(n, pod.namespace.as_ref(), bare).is_some_and(str::is_empty))
        || file.deployments.iter().any(|(n, spec)| is_replica(file, n, spec, bare))
}

/// The same of a service, `NAME` or `NAMESPACE/NAME`.
fn service(file: &LabFile, word: &str) -> bool {
    let (namespace, name) = word.split_once('/').unwrap_or(("default", word));
    let wanted = ObjectKey::new(namespace, name);
    let written = file.objects.services.iter().any(|s| ObjectKey::of(&s.object.metadata) == wanted);
    written || file.damage.may_have_held("services", name)
}

fn is_replica(file: &LabFile, name: &At<String>, spec: &DeploymentSpec, word: &str) -> bool {
    let number = behind(name, spec.namespace.as_ref(), word).and_then(|rest| rest.strip_prefix('-'));
    let replicas = spec.replicas.as_ref().map_or(1, |r| r.value);
    // Where the number of replicas could not be read, any may be meant.
    number.and_then(|n| n.parse().ok()).is_some_and(|n| (1..=replicas).contains(&n) || file.damage.around(name.place))
}

/// What stands behind the name of a pod or deployment in `word`, which begins with it.
fn behind<'w>(name: &str, namespace: Option<&At<String>>, word: &'w str) -> Option<&'w str> {
    let word = match namespace.map(|n| n.value.as_str()) {
        None | Some("default") => word,
        Some(namespace) => word.strip_prefix(namespace)?.strip_prefix('/')?,
    };
    word.strip_prefix(name)
}

/// Whether the range of network `name` is only a guess, because what is written cannot be one.
pub(super) fn network_is_guessed(file: &LabFile, name: &str) -> bool {
    let Some((at, spec)) = file.networks.iter().find(|(n, _)| n.value == name) else { return false };
    file.damage.around(at.place) || spec.cidr.as_ref().is_some_and(|c| ranges::parse(c).is_err())
}

/// The same of the cluster's range for pods.
pub(super) fn pods_range_is_guessed(file: &LabFile) -> bool {
    file.damage.section("cluster")
        || file.damage.entry("cluster", "podCIDR")
        || file.cluster.pod_cidr.as_ref().is_some_and(|c| ranges::parse(c).is_err())
}
