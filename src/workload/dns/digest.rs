//! Services and endpoint slices, each reduced to what DNS says of it, as CoreDNS reduces them
//! (plugin/kubernetes/object). How they belong together is [`super::records`]'s.

use std::net::IpAddr;

use crate::objects::{EndpointSlice, Service, ServicePort};

use super::config::DnsConfig;
use super::name;

/// The label by which a slice says whose it is.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// All under one service's name.
#[derive(Debug)]
pub struct Entry {
    /// `name.namespace.svc` in wire form, as written, without a root.
    pub head: Box<[u8]>,
    /// Without one, nothing of this is served.
    pub service: Option<Kind>,
    pub slices: Vec<Slice>,
}

/// What a service is to DNS.
#[derive(Debug)]
pub enum Kind {
    Cluster {
        ips: Vec<IpAddr>,
        ports: Vec<Port>,
    },
    Headless,
    /// The name that it stands for; `None` where that is an address, or cannot be said in DNS.
    External(Option<Box<[u8]>>),
}

#[derive(Debug)]
pub struct Port {
    /// In lower case, as is the protocol.
    pub name: Vec<u8>,
    pub protocol: Vec<u8>,
    /// `None` where the object has no ports at all: it has addresses then, but no SRV records.
    pub number: Option<u16>,
}

/// One slice's ready endpoints. Every address has every port.
#[derive(Debug)]
pub struct Slice {
    pub name: String,
    /// In the order of their labels.
    pub addresses: Vec<Address>,
    pub ports: Vec<Port>,
}

#[derive(Debug)]
pub struct Address {
    pub ip: IpAddr,
    /// The endpoint's own label in wire form: its hostname, or else its address with dashes.
    pub label: Box<[u8]>,
    /// The topology zone, in lower case.
    pub zone: Option<String>,
}

impl Slice {
    /// The endpoints with this label, which is in wire form and in lower case.
    pub fn labelled(&self, label: &[u8]) -> &[Address] {
        let from = self.addresses.partition_point(|a| &a.label[..] < label);
        let rest = self.addresses.get(from..).unwrap_or_default();
        rest.get(..rest.partition_point(|a| &a.label[..] == label)).unwrap_or_default()
    }
}

impl Entry {
    /// The names and addresses of this service for a server that is one of its endpoints: its
    /// virtual addresses, or those of the slices that the server is in.
    pub fn names_of(&self, local: &[IpAddr]) -> Vec<(Box<[u8]>, IpAddr)> {
        match &self.service {
            Some(Kind::Cluster { ips, .. }) => ips.iter().map(|ip| (self.head.clone(), *ip)).collect(),
            Some(Kind::Headless) => {
                let slices = self.slices.iter().filter(|s| s.addresses.iter().any(|a| local.contains(&a.ip)));
                let full = |a: &Address| [&a.label[..], &self.head[..]].concat().into_boxed_slice();
                slices.flat_map(|s| &s.addresses).map(|a| (full(a), a.ip)).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// The key of a service; `None` where its names are no labels.
pub fn key(namespace: &str, name: &str) -> Option<Box<[u8]>> {
    let (name, namespace) = (label(name)?, label(namespace)?);
    let mut key = [name, namespace].concat();
    key.make_ascii_lowercase();
    Some(key.into_boxed_slice())
}

fn label(text: &str) -> Option<Vec<u8>> {
    name::labels(text).filter(|wire| !text.contains('.') && !wire.is_empty())
}

pub fn service(service: &Service) -> Kind {
    let spec = service.spec.clone().unwrap_or_default();
    if spec.type_.as_deref() == Some("ExternalName") {
        let target = spec.external_name.unwrap_or_default();
        let is_name = !target.is_empty() && target.parse::<IpAddr>().is_err();
        return Kind::External(name::parse(&target).filter(|_| is_name));
    }
    let ips = spec.cluster_ips.filter(|ips| !ips.is_empty()).unwrap_or_else(|| spec.cluster_ip.into_iter().collect());
    if ips.first().is_some_and(|ip| ip == "None") {
        return Kind::Headless;
    }
    let ports = spec.ports.unwrap_or_default();
    Kind::Cluster {
        ips: ips.iter().filter_map(|ip| ip.parse().ok()).collect(),
        ports: or_none(ports.iter().map(service_port).collect()),
    }
}

fn service_port(port: &ServicePort) -> Port {
    self::port(port.name.as_deref(), port.protocol.as_deref(), Some(port.port))
}

fn port(name: Option<&str>, protocol: Option<&str>, number: Option<i32>) -> Port {
    Port {
        name: name.unwrap_or_default().to_ascii_lowercase().into_bytes(),
        protocol: protocol.unwrap_or("TCP").to_ascii_lowercase().into_bytes(),
        number: number.and_then(|n| u16::try_from(n).ok()),
    }
}

fn or_none(ports: Vec<Port>) -> Vec<Port> {
    if ports.is_empty() { vec![Port { name: Vec::new(), protocol: Vec::new(), number: None }] } else { ports }
}

/// The service that a slice belongs to.
pub fn service_of(slice: &EndpointSlice) -> Option<&str> {
    slice.metadata.labels.as_ref()?.get(SERVICE_NAME).map(String::as_str)
}

pub fn slice(slice: &EndpointSlice, config: &DnsConfig) -> Slice {
    let mut addresses = Vec::new();
    for endpoint in slice.endpoints.iter().flatten() {
        // Unknown is to be taken as ready (EndpointConditions in the API).
        if endpoint.conditions.as_ref().and_then(|c| c.ready) == Some(false) {
            continue;
        }
        let pod = endpoint.target_ref.as_ref().and_then(|r| r.name.as_deref()).filter(|_| config.endpoint_pod_names);
        let given = endpoint.hostname.as_deref().filter(|h| !h.is_empty()).or(pod);
        for text in &endpoint.addresses {
            let Ok(ip) = text.parse() else { continue };
            let Some(mut label) = given.and_then(label).or_else(|| label(&dashed(text))) else { continue };
            label.make_ascii_lowercase();
            let zone = endpoint.zone.as_ref().map(|z| z.to_ascii_lowercase());
            addresses.push(Address { ip, label: label.into_boxed_slice(), zone });
        }
    }
    addresses.sort_by(|a, b| a.label.cmp(&b.label));
    let ports = slice.ports.iter().flatten();
    let ports = ports.map(|p| port(p.name.as_deref(), p.protocol.as_deref(), p.port)).collect();
    Slice { name: slice.metadata.name.clone().unwrap_or_default(), addresses, ports: or_none(ports) }
}

/// `10-244-1-12`, `5678-abcd--1`; a label must not end with a dash, so `fd00::` is `fd00--0`.
fn dashed(ip: &str) -> String {
    let dashed = ip.replace(['.', ':'], "-");
    if dashed.ends_with('-') { dashed + "0" } else { dashed }
}
