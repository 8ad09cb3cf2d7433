//! Virtual addresses and NodePorts: who has which, as the API server's allocators decide it
//! (`pkg/registry/core/service`).
//!
//! What a service had before is claimed first, so that nobody takes it from a service that stays; then
//! what is written, then free ones are found.
//! Kubernetes takes free ones at random, out of the upper band of the range, so that the lower one is left
//! to those who write their own; here it is the first free one of that band, so that a lab is the
//! same every time.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::field::FieldError;
use super::{ObjectKey, Service, ServiceSpec, headless, service_type};

/// The ranges of a cluster.
#[derive(Debug, Clone)]
pub struct Ranges {
    /// `--service-cluster-ip-range`.
    pub addresses: IpNet,
    /// `--service-node-port-range`.
    pub node_ports: RangeInclusive<u16>,
}

/// Why a service did not get what it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its place among the services.
    pub service: usize,
    pub fault: FieldError,
    /// Whether it is about a NodePort, not about an address.
    pub port: bool,
}

/// Give every service its virtual address and NodePorts. `before` are the services as they are
/// now, which keep what they have. Fields must have their defaults.
pub fn allocate(services: &mut [Service], before: &HashMap<ObjectKey, &Service>, ranges: &Ranges) -> Vec<Refused> {
    let mut refused = immutable(services, before);
    addresses(services, before, ranges, &mut refused);
    ports(services, before, ranges, &mut refused);
    refused
}

/// A virtual address stays the same as long as the service lives (ValidateServiceUpdate).
fn immutable(services: &[Service], before: &HashMap<ObjectKey, &Service>) -> Vec<Refused> {
    let mut refused = Vec::new();
    for (n, service) in services.iter().enumerate() {
        let old = before.get(&ObjectKey::of(&service.metadata)).and_then(|s| s.spec.as_ref());
        let (Some(old), Some(new)) = (old, &service.spec) else { continue };
        if service_type(old) == "ExternalName" || service_type(new) == "ExternalName" {
            continue;
        }
        let (was, is) = (written(&old.cluster_ip), written(&new.cluster_ip));
        if let (Some(was), Some(is)) = (was, is)
            && was != is
        {
            let detail = format!("may not change once set; it is {was}");
            refused.push(Refused { service: n, fault: FieldError::invalid("spec.clusterIP", is, detail), port: false });
        }
        if service_type(old) == "LoadBalancer" && old.load_balancer_class != new.load_balancer_class {
            let value = new.load_balancer_class.as_deref().unwrap_or_default();
            let fault = FieldError::invalid("spec.loadBalancerClass", value, "may not change once set");
            refused.push(Refused { service: n, fault, port: false });
        }
    }
    refused
}

fn written(field: &Option<String>) -> Option<&str> {
    field.as_deref().filter(|f| !f.is_empty())
}

fn wants_address(spec: &ServiceSpec) -> bool {
    service_type(spec) != "ExternalName" && !headless(spec)
}

fn addresses(
    services: &mut [Service],
    before: &HashMap<ObjectKey, &Service>,
    ranges: &Ranges,
    refused: &mut Vec<Refused>,
) {
    let range = ranges.addresses;
    let mut taken: HashMap<IpAddr, usize> = HashMap::new();
    for (n, service) in services.iter_mut().enumerate() {
        let old = before.get(&ObjectKey::of(&service.metadata)).and_then(|s| s.spec.as_ref());
        if let (Some(old), Some(spec)) = (old, &mut service.spec)
            && let Err(fault) = stay(spec, old, range, |ip| taken.entry(ip).or_insert(n) == &n)
        {
            refused.push(Refused { service: n, fault, port: false });
        }
    }
    for (n, spec) in specs(services) {
        let Some(ip) = written(&spec.cluster_ip).and_then(|ip| ip.parse::<IpAddr>().ok()) else { continue };
        let detail = if !range.contains(&ip) || ip == range.network() {
            format!(
                "failed to allocate IP {ip}: the provided IP is not in the valid range. The range of valid IPs is {range}"
            )
        } else if *taken.entry(ip).or_insert(n) != n {
            format!("failed to allocate IP {ip}: provided IP is already allocated")
        } else {
            continue;
        };
        refused.push(Refused { service: n, fault: FieldError::invalid("spec.clusterIP", ip, detail), port: false });
    }
    let mut free = free_addresses(range);
    for (n, service) in services.iter_mut().enumerate() {
        let Some(spec) = service.spec.as_mut().filter(|s| wants_address(s)) else { continue };
        if written(&spec.cluster_ip).is_none() {
            match free.find(|ip| !taken.contains_key(ip)) {
                Some(ip) => spec.cluster_ip = Some(ip.to_string()),
                None => {
                    let detail = format!("failed to allocate IP: range {range} is full");
                    let fault = FieldError::invalid("spec.clusterIP", "\"\"", detail);
                    refused.push(Refused { service: n, fault, port: false });
                }
            }
        }
        spec.cluster_ips = spec.cluster_ip.clone().map(|ip| vec![ip]);
    }
}

/// Give a service the address that it had, where it writes none or the same; no address is one, too
/// (`patchAllocatedValues`). `claim` says whether nobody else has it.
fn stay(
    spec: &mut ServiceSpec,
    old: &ServiceSpec,
    range: IpNet,
    mut claim: impl FnMut(IpAddr) -> bool,
) -> Result<(), FieldError> {
    let kind = service_type(spec).to_owned();
    if kind == "ExternalName" || service_type(old) == "ExternalName" {
        return Ok(());
    }
    let (Some(had), is) = (written(&old.cluster_ip), written(&spec.cluster_ip)) else { return Ok(()) };
    if is.is_some_and(|is| is != had) {
        return Ok(());
    }
    if had == "None" {
        if kind != "ClusterIP" {
            let detail = format!("may not change once set; it is None, which a {kind} service cannot have");
            return Err(FieldError::invalid("spec.clusterIP", "\"\"", detail));
        }
        spec.cluster_ip = Some(had.to_owned());
        spec.cluster_ips = Some(vec![had.to_owned()]);
    } else if had.parse().is_ok_and(|ip| range.contains(&ip) && claim(ip)) {
        spec.cluster_ip = Some(had.to_owned());
    }
    Ok(())
}

/// The upper band first, then the lower one. The lower band has a sixteenth of the range, at least
/// 16 and at most 256 addresses (`ipallocator.calculateRangeOffset`).
fn free_addresses(range: IpNet) -> Box<dyn Iterator<Item = IpAddr>> {
    let bits = (range.max_prefix_len() - range.prefix_len()).min(31);
    let size = 1usize << bits;
    let band = if size <= 16 { 0 } else { (size / 16).clamp(16, 256) };
    // `hosts` begins with the range's first address that is not its own.
    Box::new(range.hosts().skip(band).chain(range.hosts().take(band)))
}

fn specs(services: &[Service]) -> impl Iterator<Item = (usize, &ServiceSpec)> {
    services.iter().enumerate().filter_map(|(n, s)| Some((n, s.spec.as_ref()?)))
}

/// Whether a service has NodePorts.
fn wants_ports(spec: &ServiceSpec) -> bool {
    match service_type(spec) {
        "NodePort" => true,
        "LoadBalancer" => spec.allocate_load_balancer_node_ports != Some(false),
        _ => false,
    }
}

/// Whether it has a port for the load balancer's health check (`NeedsHealthCheck`).
fn wants_health_check(spec: &ServiceSpec) -> bool {
    service_type(spec) == "LoadBalancer" && spec.external_traffic_policy.as_deref() == Some("Local")
}

/// NodePorts given out, each to one service: its protocols share the number.
struct NodePorts {
    range: RangeInclusive<u16>,
    taken: HashMap<u16, usize>,
}

impl NodePorts {
    fn claim(&mut self, port: i32, service: usize) -> Result<(), String> {
        let range = &self.range;
        let Some(port) = u16::try_from(port).ok().filter(|p| range.contains(p)) else {
            let (first, last) = (range.start(), range.end());
            return Err(format!("provided port is not in the valid range. The range of valid ports is {first}-{last}"));
        };
        match self.taken.insert(port, service) {
            Some(other) if other != service => {
                self.taken.insert(port, other);
                Err("provided port is already allocated".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// The first free port of the upper band, then of the lower one, which has a thirty-second of
    /// the range, at least 16 and at most 128 ports (`portallocator.calculateRangeOffset`).
    fn find(&mut self, service: usize) -> Option<u16> {
        let (first, last) = (*self.range.start(), *self.range.end());
        let size = usize::from(last - first) + 1;
        let band = if size <= 16 { 0 } else { (size / 32).clamp(16, 128) };
        let band = first.saturating_add(u16::try_from(band).unwrap_or(0));
        let port = (band..=last).chain(first..band).find(|p| !self.taken.contains_key(p))?;
        self.taken.insert(port, service);
        Some(port)
    }
}

fn ports(services: &mut [Service], before: &HashMap<ObjectKey, &Service>, ranges: &Ranges, refused: &mut Vec<Refused>) {
    let mut given = NodePorts { range: ranges.node_ports.clone(), taken: HashMap::new() };
    for (n, service) in services.iter_mut().enumerate() {
        let old = before.get(&ObjectKey::of(&service.metadata)).and_then(|s| s.spec.as_ref());
        if let (Some(old), Some(spec)) = (old, &mut service.spec) {
            keep(spec, old, n, &mut given);
        }
    }
    for (n, spec) in specs(services) {
        let written =
            spec.ports.iter().flatten().enumerate().map(|(i, p)| (format!("spec.ports[{i}].nodePort"), p.node_port));
        let check = [("spec.healthCheckNodePort".to_owned(), spec.health_check_node_port)];
        for (path, port) in written.chain(check) {
            let Some(port) = port.filter(|p| *p != 0) else { continue };
            if let Err(detail) = given.claim(port, n) {
                refused.push(Refused { service: n, fault: FieldError::invalid(path, port, detail), port: true });
            }
        }
    }
    for (n, service) in services.iter_mut().enumerate() {
        if let Some(spec) = &mut service.spec
            && let Err(fault) = fill(spec, n, &mut given)
        {
            refused.push(Refused { service: n, fault, port: true });
        }
    }
}

/// Claim the ports that a service had and writes again, and take those that it leaves out.
fn keep(spec: &mut ServiceSpec, old: &ServiceSpec, n: usize, given: &mut NodePorts) {
    let own = |port: &super::ServicePort| port.node_port.filter(|p| *p != 0);
    let olds: Vec<i32> = old.ports.iter().flatten().filter_map(own).chain(old.health_check_node_port).collect();
    let written: Vec<i32> =
        spec.ports.iter().flatten().filter_map(own).chain(spec.health_check_node_port.filter(|p| *p != 0)).collect();
    for port in written.iter().filter(|p| olds.contains(p)) {
        // One outside the range is refused with what is written.
        let _ = given.claim(*port, n);
    }
    if wants_ports(spec) {
        for port in spec.ports.iter_mut().flatten().filter(|p| own(p).is_none()) {
            let same = |o: &&super::ServicePort| (o.port, &o.protocol) == (port.port, &port.protocol);
            let had = old.ports.iter().flatten().find(same).and_then(own).filter(|p| !written.contains(p));
            port.node_port = had.filter(|p| given.claim(*p, n).is_ok());
        }
    }
    if wants_health_check(spec) && spec.health_check_node_port.unwrap_or(0) == 0 {
        let had = old.health_check_node_port.filter(|p| *p != 0 && !written.contains(p));
        spec.health_check_node_port = had.filter(|p| given.claim(*p, n).is_ok());
    }
}

/// Find the ports that are still missing.
fn fill(spec: &mut ServiceSpec, n: usize, given: &mut NodePorts) -> Result<(), FieldError> {
    let full = |path: String| FieldError::invalid(path, 0, "failed to allocate a nodePort: range is full");
    if wants_ports(spec) {
        // DNS and others have TCP and UDP on one number: its protocols share the NodePort, too.
        let mut of_number: HashMap<i32, i32> = HashMap::new();
        let ports = spec.ports.as_deref_mut().unwrap_or_default();
        of_number.extend(ports.iter().filter_map(|p| Some((p.port, p.node_port.filter(|n| *n != 0)?))));
        let mut used: HashSet<(i32, Option<String>)> =
            ports.iter().filter_map(|p| Some((p.node_port.filter(|n| *n != 0)?, p.protocol.clone()))).collect();
        for (i, port) in ports.iter_mut().enumerate().filter(|(_, p)| p.node_port.unwrap_or(0) == 0) {
            let shared = of_number.get(&port.port).copied().filter(|s| !used.contains(&(*s, port.protocol.clone())));
            let found = match shared {
                Some(shared) => shared,
                None => given.find(n).map(i32::from).ok_or_else(|| full(format!("spec.ports[{i}].nodePort")))?,
            };
            of_number.insert(port.port, found);
            used.insert((found, port.protocol.clone()));
            port.node_port = Some(found);
        }
    }
    if wants_health_check(spec) && spec.health_check_node_port.unwrap_or(0) == 0 {
        let found = given.find(n).ok_or_else(|| full("spec.healthCheckNodePort".to_owned()))?;
        spec.health_check_node_port = Some(i32::from(found));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
