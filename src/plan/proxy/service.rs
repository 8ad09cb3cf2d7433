//! The map of service ports: each port of each service that kube-proxy has a hand in, with what it
//! takes from the object (kube-proxy's `serviceport.go` and `servicechangetracker.go`).

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::objects::{ObjectKey, ObjectMeta, Service, ServiceSpec};

use super::address;
use super::config::Family;

/// Objects with this label are some other proxy's.
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";
/// Objects with this label belong to headless services, and kube-proxy does not even ask for them.
const HEADLESS: &str = "service.kubernetes.io/headless";
/// `DefaultClientIPServiceAffinitySeconds`, which the API server fills in.
const AFFINITY_SECONDS: i32 = 10800;

/// A transport protocol that services have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// As objects write it; TCP where they write none.
    pub fn read(text: Option<&str>) -> Option<Protocol> {
        match text.unwrap_or_default() {
            "" | "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            _ => None,
        }
    }

    /// As rules write it.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// Which port of which service. Sorts by namespace, name, port and protocol.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServicePortName {
    pub namespace: String,
    pub name: String,
    /// Empty where a service's only port has no name.
    pub port: String,
    pub protocol: Protocol,
}

impl fmt::Display for ServicePortName {
    /// `namespace/name:port`, which also goes into hashes and comments.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)?;
        if self.port.is_empty() { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

/// Which endpoints a service port asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    pub internal_local: bool,
    pub external_local: bool,
    /// Whether there is a way in other than the cluster IP.
    pub accessible: bool,
}

impl Policy {
    /// Even under an external policy Local: pods' own traffic goes to all endpoints.
    pub fn uses_cluster(self) -> bool {
        !self.internal_local || self.accessible
    }

    pub fn uses_local(self) -> bool {
        self.internal_local || (self.external_local && self.accessible)
    }
}

/// One port of one service, in one address family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    pub name: ServicePortName,
    pub cluster_ip: IpAddr,
    pub port: u16,
    pub node_port: Option<u16>,
    pub external_ips: Vec<IpAddr>,
    /// Addresses of load balancers that deliver packets with that address in them.
    pub balancer_ips: Vec<IpAddr>,
    pub source_ranges: Vec<IpNet>,
    /// Seconds for which a client stays with its endpoint.
    pub affinity: Option<i32>,
    pub health_check_port: Option<u16>,
    pub policy: Policy,
}

/// The service ports of this family, sorted by name.
pub fn map<'o>(services: impl IntoIterator<Item = &'o Service>, family: Family) -> Vec<ServicePort> {
    let last: BTreeMap<(&str, &str), &Service> =
        services.into_iter().map(|s| ((namespace(&s.metadata), name(&s.metadata)), s)).collect();
    let mut ports: Vec<ServicePort> = last.into_values().flat_map(|s| ports_of(s, family)).collect();
    // Stable, so of two ports with one name the last one comes last, and it counts.
    ports.sort_by(|a, b| a.name.cmp(&b.name));
    let mut kept: Vec<ServicePort> = Vec::with_capacity(ports.len());
    for port in ports {
        match kept.last_mut().filter(|l| l.name == port.name) {
            Some(same) => *same = port,
            None => kept.push(port),
        }
    }
    kept
}

/// Whether kube-proxy asks the API server for this object at all.
pub fn is_ours(meta: &ObjectMeta) -> bool {
    !meta.labels.iter().flatten().any(|(key, _)| key == OTHER_PROXY || key == HEADLESS)
}

pub fn namespace(meta: &ObjectMeta) -> &str {
    meta.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or("default")
}

pub fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

/// Whether a name can stand in a rule. Every name that an API server lets pass can.
fn is_plain(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

fn ports_of(service: &Service, family: Family) -> Vec<ServicePort> {
    let key = ObjectKey::of(&service.metadata);
    let Some(spec) = service.spec.as_ref().filter(|_| is_ours(&service.metadata)) else { return Vec::new() };
    let plain = !key.name.is_empty() && is_plain(&key.name) && is_plain(&key.namespace);
    let Some(cluster_ip) = cluster_ip(spec, family).filter(|_| plain) else { return Vec::new() };
    let shared = Shared::new(service, spec, family);
    let ports = spec.ports.iter().flatten().filter(|p| is_plain(p.name.as_deref().unwrap_or_default()));
    ports
        .filter_map(|port| {
            let protocol = Protocol::read(port.protocol.as_deref())?;
            let node_port = number(port.node_port);
            Some(ServicePort {
                name: ServicePortName {
                    namespace: key.namespace.clone(),
                    name: key.name.clone(),
                    port: port.name.clone().unwrap_or_default(),
                    protocol,
                },
                cluster_ip,
                port: number(Some(port.port))?,
                node_port,
                external_ips: shared.external_ips.clone(),
                balancer_ips: shared.balancer_ips.clone(),
                source_ranges: shared.source_ranges.clone(),
                affinity: shared.affinity,
                health_check_port: shared.health_check_port,
                policy: Policy { accessible: node_port.is_some() || shared.policy.accessible, ..shared.policy },
            })
        })
        .collect()
}

fn number(port: Option<i32>) -> Option<u16> {
    port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0)
}

/// The cluster IP of this family. Nothing for headless services, and for ExternalName even where an
/// address is written.
fn cluster_ip(spec: &ServiceSpec, family: Family) -> Option<IpAddr> {
    let first = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None")?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let families = spec.ip_families.as_deref().unwrap_or_default();
    let all = spec.cluster_ips.as_deref().unwrap_or_default();
    // Manifests leave out `clusterIPs`, which the API server would fill in.
    let text = match families.iter().position(|f| f == family.name()) {
        Some(index) if index < all.len() => all[index].as_str(),
        Some(0) => first,
        Some(_) => return None,
        None if families.is_empty() => first,
        None => return None,
    };
    address::ip(text).filter(|ip| family.has(ip))
}

/// What a service's ports have in common.
struct Shared {
    external_ips: Vec<IpAddr>,
    balancer_ips: Vec<IpAddr>,
    source_ranges: Vec<IpNet>,
    affinity: Option<i32>,
    health_check_port: Option<u16>,
    policy: Policy,
}

impl Shared {
    fn new(service: &Service, spec: &ServiceSpec, family: Family) -> Shared {
        let kind = spec.type_.as_deref().unwrap_or_default();
        let has_external = spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty());
        // `ExternallyAccessible` of the object counts addresses of any family.
        let from_outside = kind == "LoadBalancer" || kind == "NodePort" || has_external;
        let is_local = |policy: &Option<String>| policy.as_deref() == Some("Local");
        let external_local = from_outside && is_local(&spec.external_traffic_policy);
        let external_ips = address::ips_of(family, spec.external_ips.iter().flatten());
        let balancer_ips = balancer_ips(service, family);
        let ranges = spec.load_balancer_source_ranges.iter().flatten();
        let needs_check = kind == "LoadBalancer" && external_local;
        let policy = Policy {
            internal_local: is_local(&spec.internal_traffic_policy),
            external_local,
            accessible: !external_ips.is_empty() || !balancer_ips.is_empty(),
        };
        Shared {
            external_ips,
            balancer_ips,
            source_ranges: ranges.filter_map(|r| address::range(r)).filter(|r| family.has(&r.addr())).collect(),
            affinity: affinity(spec),
            health_check_port: number(spec.health_check_node_port).filter(|_| needs_check),
            policy,
        }
    }
}

/// Addresses of mode `Proxy` are the load balancer's own business.
fn balancer_ips(service: &Service, family: Family) -> Vec<IpAddr> {
    let balancer = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    let ingress = balancer.and_then(|b| b.ingress.as_deref()).unwrap_or_default();
    let vips = ingress.iter().filter(|i| i.ip_mode.as_deref().is_none_or(|mode| mode == "VIP"));
    address::ips_of(family, vips.filter_map(|i| i.ip.as_ref()))
}

fn affinity(spec: &ServiceSpec) -> Option<i32> {
    let client_ip = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
    let seconds = client_ip.and_then(|c| c.timeout_seconds).unwrap_or(AFFINITY_SECONDS);
    (spec.session_affinity.as_deref() == Some("ClientIP")).then_some(seconds)
}
