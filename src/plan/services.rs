//! A lab's service layer: the slices behind its services, and what kube-proxy makes of both on each
//! host. The rules themselves are [`super::proxy`]'s, the slices [`crate::objects::slices`]'.
//!
//! Which pods are ready changes while a lab runs, so it is an argument here and no part of the
//! [`Lab`]. Everything is pure: when something changes it is computed anew and compared with what
//! is there.

use std::collections::BTreeMap;

use crate::lab::names::{HostName, PodId};
use crate::lab::{Host, Lab, Pod};
use crate::objects::slices::{self, PodFacts, PodIndex};
use crate::objects::{EndpointSlice, ObjectKey, Service};

use super::proxy::config::ZONE_LABEL;
use super::proxy::{LocalTraffic, ProxyConfig, ProxyRules, sysctl};
use super::types::{NsPlan, Plan, Sysctl};

/// What a pod is up to, as its endpoints need to know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PodState {
    /// It has not ended for good: its phase is Pending or Running.
    pub alive: bool,
    pub ready: bool,
    pub terminating: bool,
}

/// The rules of every host.
pub type Proxies = BTreeMap<HostName, ProxyRules>;

/// Every slice of the lab: those of services with a selector, and those that were given.
pub fn slices(lab: &Lab, state: impl Fn(&PodId) -> PodState) -> Vec<EndpointSlice> {
    let facts: Vec<PodFacts> = lab.pods.iter().filter_map(|pod| facts(lab, pod, state(&pod.id))).collect();
    let index = PodIndex::new(&facts);
    let mut all: Vec<EndpointSlice> = lab.services.iter().flat_map(|s| slices::of_service(s, &index)).collect();
    all.extend(lab.slices.iter().cloned());
    all
}

/// Every slice of the lab while all its pods are ready.
pub fn slices_of_ready(lab: &Lab) -> Vec<EndpointSlice> {
    slices(lab, |_| PodState { alive: true, ready: true, terminating: false })
}

fn facts<'l>(lab: &'l Lab, pod: &'l Pod, state: PodState) -> Option<PodFacts<'l>> {
    let zone = lab.host(&pod.host).and_then(|h| h.labels.get(ZONE_LABEL)).map(String::as_str);
    state.alive.then(|| PodFacts {
        namespace: pod.id.namespace.as_str(),
        name: pod.id.name.as_str(),
        ip: pod.ip(),
        node: pod.host.as_str(),
        zone,
        labels: &pod.labels,
        // Only what is written: a pod's name is no hostname of its endpoint.
        hostname: pod.hostname.as_deref(),
        subdomain: pod.subdomain.as_deref(),
        ports: pod.ports().map(|p| (p.name.as_deref(), p.number, p.protocol.to_string())).collect(),
        ready: state.ready,
        terminating: state.terminating,
    })
}

/// Slices by the service that they belong to.
pub fn slices_of<'s>(slices: &'s [EndpointSlice], key: &ObjectKey) -> Vec<&'s EndpointSlice> {
    let belongs = |slice: &&EndpointSlice| {
        let name = slice.metadata.labels.as_ref().and_then(|l| l.get(slices::SERVICE_NAME));
        name == Some(&key.name) && slice.metadata.namespace.as_deref() == Some(&key.namespace)
    };
    slices.iter().filter(belongs).collect()
}

/// kube-proxy's rules on every host; none where the lab has no service layer.
pub fn proxies(lab: &Lab, services: &[Service], slices: &[EndpointSlice]) -> Proxies {
    if services.is_empty() {
        return Proxies::new();
    }
    let rules = |host: &Host| super::proxy::plan(services, slices, &proxy_config(lab, host));
    lab.hosts.iter().map(|host| (host.name.clone(), rules(host))).collect()
}

/// kube-proxy's configuration on one host.
pub fn proxy_config(lab: &Lab, host: &Host) -> ProxyConfig {
    let settings = &lab.cluster.proxy;
    let mut config = ProxyConfig::new(host.name.as_str(), host.ip());
    // Of the host's addresses these are the ones on which a NodePort makes sense.
    config.addresses = vec![std::net::Ipv4Addr::LOCALHOST.into(), host.ip(), super::bridge::gateway(host).addr()];
    config.labels = host.labels.clone();
    config.local = LocalTraffic::by_cidr(&[lab.cluster.pod_cidr], config.family);
    config.masquerade_all = settings.masquerade_all;
    config.localhost_nodeports = settings.localhost_node_ports;
    config.nodeport_addresses = settings.node_port_addresses.clone();
    config.random_fully = true;
    config
}

/// The kernel's own values of what kube-proxy sets, for hosts without it: a lab may lose its
/// services while it runs.
const WITHOUT_PROXY: &[(&str, &str)] = &[
    ("net/ipv4/conf/all/route_localnet", "0"),
    ("net/netfilter/nf_conntrack_tcp_timeout_established", "432000"),
    ("net/netfilter/nf_conntrack_tcp_timeout_close_wait", "60"),
];

/// The sysctls that kube-proxy sets on a host.
pub fn sysctls(lab: &Lab, host: &Host) -> Vec<Sysctl> {
    // The number of connections is the machine's own affair; a lab has nothing to say about it.
    let mut all = match lab.services.is_empty() {
        true => Vec::new(),
        false => sysctl::sysctls(&proxy_config(lab, host), 1),
    };
    all.retain(|s| !s.optional);
    for (key, value) in WITHOUT_PROXY {
        if !all.iter().any(|s| s.key == *key) {
            all.push(Sysctl { key: (*key).to_owned(), value: (*value).to_owned(), optional: true });
        }
    }
    // In one order, whoever sets them.
    all.sort();
    all.iter_mut().for_each(|s| s.optional = true);
    all
}

/// Put the rules into a plan.
pub fn add(plan: &mut Plan, proxies: &Proxies) {
    let hosts = plan.namespaces.iter_mut().filter_map(|ns| {
        let crate::lab::names::NsName::Host(name) = &ns.ns else { return None };
        proxies.get(name).map(|rules| (rules, ns))
    });
    hosts.for_each(|(rules, ns): (&ProxyRules, &mut NsPlan)| rules.add_to(&mut ns.rules));
}
