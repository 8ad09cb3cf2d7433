//! Which endpoints a service port may use on this node (kube-proxy's `CategorizeEndpoints`): ready
//! ones, by the hints for zones and nodes where all have them, and where no ready one is left those
//! that still serve while they terminate.

use super::config::ProxyConfig;
use super::endpoint::Endpoint;
use super::service::Policy;

/// The usable endpoints, each list sorted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Usable<'e> {
    /// For traffic policy Cluster; empty where the service port never uses it.
    pub cluster: Vec<&'e Endpoint<'e>>,
    /// For traffic policy Local; empty where the service port never uses it.
    pub local: Vec<&'e Endpoint<'e>>,
    /// All that can be reached from this node: the two together.
    pub reachable: Vec<&'e Endpoint<'e>>,
    /// Whether there is one anywhere in the cluster, in reach or not.
    pub any: bool,
}

/// Which hints are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Topology {
    None,
    SameNode,
    SameZone,
}

pub fn categorize<'e>(endpoints: &'e [Endpoint<'e>], policy: Policy, config: &ProxyConfig) -> Usable<'e> {
    let mut usable = Usable::default();
    if policy.uses_cluster() {
        usable.cluster = cluster(endpoints, config);
        usable.any = !usable.cluster.is_empty();
    }
    if policy.uses_local() {
        usable.local = ready_or_terminating(endpoints, |e| e.local);
        usable.any |= endpoints.iter().any(|e| e.ready || serves_to_the_end(e));
    }
    usable.reachable = union(&usable.cluster, &usable.local);
    usable
}

fn cluster<'e>(endpoints: &'e [Endpoint<'e>], config: &ProxyConfig) -> Vec<&'e Endpoint<'e>> {
    let topology = topology(endpoints, config);
    let near = |e: &&Endpoint| match topology {
        Topology::None => true,
        Topology::SameNode => e.nodes.contains(&config.node_name.as_str()),
        Topology::SameZone => e.zones.contains(&config.zone()),
    };
    // Hints that leave no ready endpoint are not followed, so if this is empty none is ready.
    let ready: Vec<_> = endpoints.iter().filter(|e| e.ready).filter(near).collect();
    if ready.is_empty() { endpoints.iter().filter(|e| serves_to_the_end(e)).collect() } else { ready }
}

fn serves_to_the_end(endpoint: &Endpoint) -> bool {
    endpoint.serving && endpoint.terminating
}

fn ready_or_terminating<'e>(
    endpoints: &'e [Endpoint<'e>],
    wanted: impl Fn(&Endpoint) -> bool,
) -> Vec<&'e Endpoint<'e>> {
    let ready: Vec<_> = endpoints.iter().filter(|e| wanted(e) && e.ready).collect();
    if !ready.is_empty() {
        return ready;
    }
    endpoints.iter().filter(|e| wanted(e) && serves_to_the_end(e)).collect()
}

/// Hints are followed where every ready endpoint has them and one is meant for this node or zone.
fn topology(endpoints: &[Endpoint], config: &ProxyConfig) -> Topology {
    let ready = || endpoints.iter().filter(|e| e.ready);
    let (node, zone) = (config.node_name.as_str(), config.zone());
    if ready().next().is_none() {
        return Topology::None;
    }
    if config.node_hints && ready().all(|e| !e.nodes.is_empty()) && ready().any(|e| e.nodes.contains(&node)) {
        return Topology::SameNode;
    }
    if ready().all(|e| !e.zones.is_empty()) && ready().any(|e| e.zones.contains(&zone)) {
        return Topology::SameZone;
    }
    Topology::None
}

/// Both lists as one. Both are parts of one sorted list, so they merge by text.
fn union<'e>(one: &[&'e Endpoint<'e>], other: &[&'e Endpoint<'e>]) -> Vec<&'e Endpoint<'e>> {
    let mut all: Vec<_> = one.iter().chain(other).copied().collect();
    if !one.is_empty() && !other.is_empty() {
        all.sort_by(|a, b| a.text.cmp(&b.text));
        all.dedup_by(|a, b| a.text == b.text);
    }
    all
}
