//! The map of endpoints by service port, made of all slices of the family (kube-proxy's
//! `endpointslicecache.go`). Only the slices' conditions count; who may be in a slice, such as pods
//! that are not ready, is decided by whoever writes it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use crate::objects::{self, EndpointSlice};

use super::address;
use super::config::ProxyConfig;
use super::service::{Protocol, ServicePortName, is_ours, name, namespace};

/// The label by which a slice belongs to a service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// One address and port behind a service port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint<'o> {
    pub address: SocketAddr,
    /// `10.0.0.1:80` or `[fd00::1]:80`, which sorts and is hashed.
    pub text: String,
    /// Whether it is on this node.
    pub local: bool,
    /// Ready and not terminating, or published all the same.
    pub ready: bool,
    /// Ready, terminating or not.
    pub serving: bool,
    pub terminating: bool,
    pub zones: Vec<&'o str>,
    pub nodes: Vec<&'o str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key<'o> {
    namespace: &'o str,
    service: &'o str,
    port: &'o str,
    protocol: Protocol,
}

/// All endpoints, by service port, each list sorted by text.
#[derive(Debug, Default)]
pub struct Endpoints<'o> {
    places: HashMap<Key<'o>, usize>,
    lists: Vec<Vec<Endpoint<'o>>>,
}

impl<'o> Endpoints<'o> {
    pub fn new(slices: impl IntoIterator<Item = &'o EndpointSlice>, config: &ProxyConfig) -> Endpoints<'o> {
        let mut all = Endpoints::default();
        for slice in last_of_each(slices) {
            let service = slice.metadata.labels.as_ref().and_then(|l| l.get(SERVICE_LABEL)).filter(|s| !s.is_empty());
            if let Some(service) = service
                && slice.address_type == config.family.name()
                && is_ours(&slice.metadata)
            {
                all.add(slice, service, config);
            }
        }
        for list in &mut all.lists {
            list.sort_by(|a, b| a.text.cmp(&b.text));
        }
        all
    }

    fn add(&mut self, slice: &'o EndpointSlice, service: &'o str, config: &ProxyConfig) {
        let namespace = namespace(&slice.metadata);
        for port in slice.ports.iter().flatten() {
            let number = port.port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0);
            let (Some(number), Some(protocol)) = (number, Protocol::read(port.protocol.as_deref())) else { continue };
            let key = Key { namespace, service, port: port.name.as_deref().unwrap_or_default(), protocol };
            let place = *self.places.entry(key).or_insert(self.lists.len());
            if place == self.lists.len() {
                self.lists.push(Vec::new());
            }
            let Some(list) = self.lists.get_mut(place) else { continue };
            for endpoint in slice.endpoints.iter().flatten() {
                if let Some(new) = read(endpoint, number, config) {
                    put(list, new);
                }
            }
        }
    }

    /// The endpoints of a service port, sorted.
    pub fn of(&self, name: &ServicePortName) -> &[Endpoint<'o>] {
        let key = Key { namespace: &name.namespace, service: &name.name, port: &name.port, protocol: name.protocol };
        let place = self.places.get(&key).copied();
        place.and_then(|p| self.lists.get(p)).map_or(&[], Vec::as_slice)
    }

    /// How many addresses on this node are ready for a service. Its ports do not count, and a
    /// terminating one does not: the health check is to fail before it is gone
    /// (`LocalReadyEndpoints`).
    pub fn local_ready(&self) -> HashMap<(&'o str, &'o str), Vec<IpAddr>> {
        let mut all: HashMap<(&str, &str), Vec<IpAddr>> = HashMap::new();
        for (key, place) in &self.places {
            for endpoint in self.lists.get(*place).into_iter().flatten().filter(|e| e.local && e.ready) {
                let ips = all.entry((key.namespace, key.service)).or_default();
                if !ips.contains(&endpoint.address.ip()) {
                    ips.push(endpoint.address.ip());
                }
            }
        }
        all
    }
}

/// Each slice as it came last, in the order in which they came first.
fn last_of_each<'o>(slices: impl IntoIterator<Item = &'o EndpointSlice>) -> Vec<&'o EndpointSlice> {
    let mut places: HashMap<(&str, &str), usize> = HashMap::new();
    let mut all: Vec<&EndpointSlice> = Vec::new();
    for slice in slices {
        let place = *places.entry((namespace(&slice.metadata), name(&slice.metadata))).or_insert(all.len());
        match all.get_mut(place) {
            Some(earlier) if slice.metadata.name.is_some() => *earlier = slice,
            _ => all.push(slice),
        }
    }
    all
}

/// The same endpoint in two slices counts once; one that is not terminating is believed.
fn put<'o>(list: &mut Vec<Endpoint<'o>>, new: Endpoint<'o>) {
    match list.iter_mut().find(|e| e.address == new.address) {
        Some(known) if !new.terminating => *known = new,
        Some(_) => {}
        None => list.push(new),
    }
}

fn read<'o>(endpoint: &'o objects::Endpoint, port: u16, config: &ProxyConfig) -> Option<Endpoint<'o>> {
    let ip = address::ip(endpoint.addresses.first()?).filter(|ip| config.family.has(ip))?;
    let address = SocketAddr::new(ip, port);
    let conditions = endpoint.conditions.as_ref();
    let hints = endpoint.hints.as_ref();
    let zones = hints.and_then(|h| h.for_zones.as_deref()).unwrap_or_default();
    let nodes = hints.and_then(|h| h.for_nodes.as_deref()).unwrap_or_default();
    Some(Endpoint {
        address,
        text: address.to_string(),
        local: endpoint.node_name.as_deref().is_some_and(|n| !n.is_empty() && n == config.node_name),
        ready: conditions.and_then(|c| c.ready).unwrap_or(true),
        serving: conditions.and_then(|c| c.serving).unwrap_or(true),
        terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
        zones: zones.iter().map(|z| z.name.as_str()).collect(),
        nodes: nodes.iter().map(|n| n.name.as_str()).collect(),
    })
}
