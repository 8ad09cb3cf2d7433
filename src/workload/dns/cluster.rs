//! Which endpoints, addresses or alias a name of the cluster stands for: the schema of Kubernetes'
//! DNS specification 1.1.0 as CoreDNS reads it (plugin/kubernetes: `parseRequest`, `findServices`,
//! `findPods`, `Reverse`). Nothing is known of record types' encoding.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::config::Pods;
use super::digest::{Entry, Kind, Port, Slice};
use super::name::Name;
use super::records::Records;

/// What is found under a name.
#[derive(Debug)]
pub enum Found<'a> {
    /// No such name.
    Nothing,
    /// The name is there and has nothing of its own. `is_zonal` where it is a zone-scoped one.
    Empty {
        is_zonal: bool,
    },
    Hosts(Hosts<'a>),
    /// An ExternalName's target, in wire form.
    Alias(&'a [u8]),
    /// The server's own name, `ns.dns`.
    Own,
}

/// Addresses, each with the name and port that an SRV record gives it.
#[derive(Debug)]
pub struct Hosts<'a> {
    /// The labels, before the zone, that all targets have in common.
    pub head: &'a [u8],
    pub hosts: Vec<Host<'a>>,
}

#[derive(Debug, Clone, Copy)]
pub struct Host<'a> {
    pub ip: IpAddr,
    /// The target's first label in wire form, where it is an endpoint's.
    pub label: &'a [u8],
    /// `None`: no SRV record, as there are no ports; it has its share of the weight all the same.
    pub port: Option<u16>,
}

const EMPTY: Found<'_> = Found::Empty { is_zonal: false };

/// What stands left of the service's name.
#[derive(Default)]
struct Left<'a> {
    port: &'a [u8],
    protocol: &'a [u8],
    /// In wire form.
    endpoint: &'a [u8],
    /// A topology zone, and whether all endpoints will do where it has none.
    zone: Option<(String, bool)>,
}

impl Records {
    /// Look up `name`, of which the labels from `zone` on are the zone's.
    pub(super) fn find<'a>(&'a self, name: &'a Name, zone: usize, is_reverse: bool) -> Found<'a> {
        let Some(last) = zone.checked_sub(1) else { return EMPTY };
        let kind = name.label(last);
        let is_pod = kind == b"pod";
        if !is_pod && kind != b"svc" {
            let is_own = zone == 2 && kind == b"dns" && name.label(0) == b"ns";
            return if is_own { Found::Own } else { Found::Nothing };
        }
        let Some(namespace) = last.checked_sub(1) else { return EMPTY };
        let Some(left) = self.left_of(name, namespace, is_pod) else { return Found::Nothing };
        if is_reverse || !self.is_exposed(name.label(namespace)) {
            return Found::Nothing;
        }
        let Some(service) = namespace.checked_sub(1) else { return EMPTY };
        if is_pod { self.pod(name, service, zone) } else { self.service(name.span(service, last), &left) }
    }

    fn is_exposed(&self, namespace: &[u8]) -> bool {
        let only = &self.settings.namespaces;
        (only.is_empty() || only.iter().any(|n| n == namespace)) && self.namespaces.contains(namespace)
    }

    /// Understand the labels left of the service's, which is left of the namespace's. `None` where
    /// they make no sense there.
    fn left_of<'a>(&self, name: &'a Name, namespace: usize, is_pod: bool) -> Option<Left<'a>> {
        let bare = |label: &'a [u8]| label.strip_prefix(b"_").unwrap_or(label);
        match namespace {
            0 | 1 => Some(Left::default()),
            2 => Some(Left { endpoint: name.span(0, 1), ..Left::default() }),
            3 => Some(Left { port: bare(name.label(0)), protocol: bare(name.label(1)), ..Left::default() }),
            n => {
                let is_zonal = self.settings.config.zonal && !is_pod && name.label(n - 2) == b"_zone";
                let prefers = match name.label(n - 3) {
                    b"pin" => false,
                    b"prefer" => true,
                    _ => return None,
                };
                // A topology zone may have dots in it.
                let labels: Vec<_> = (0..n - 3).map(|i| String::from_utf8_lossy(name.label(i))).collect();
                (is_zonal && n > 3).then(|| Left { zone: Some((labels.join("."), prefers)), ..Left::default() })
            }
        }
    }

    fn service<'a>(&'a self, key: &[u8], left: &Left<'_>) -> Found<'a> {
        let Some(entry) = self.entries.get(key) else { return Found::Nothing };
        match &entry.service {
            None => Found::Nothing,
            Some(Kind::External(Some(target))) if left.is_plain() => Found::Alias(target),
            Some(Kind::External(_)) => Found::Nothing,
            Some(Kind::Headless) => endpoints(entry, left),
            Some(Kind::Cluster { .. }) if left.zone.is_some() || self.is_ignored(entry) => Found::Nothing,
            Some(Kind::Cluster { .. }) if !left.endpoint.is_empty() => endpoints(entry, left),
            Some(Kind::Cluster { ips, ports }) => virtual_ips(entry, ips, ports, left),
        }
    }

    fn is_ignored(&self, entry: &Entry) -> bool {
        self.settings.config.ignore_empty_service && entry.slices.iter().all(|s| s.addresses.is_empty())
    }

    /// A pod's label is its address with dashes.
    fn pod<'a>(&'a self, name: &'a Name, pod: usize, zone: usize) -> Found<'a> {
        let mode = self.settings.config.pods;
        let ip = undashed(name.label(pod)).filter(|_| mode != Pods::Disabled);
        let Some(ip) = ip else { return Found::Nothing };
        if mode == Pods::Verified && !self.pod_ips.contains_key(&(ip, name.label(pod + 1).to_vec())) {
            return Found::Nothing;
        }
        let hosts = vec![Host { ip: ip.to_canonical(), label: &[], port: Some(0) }];
        Found::Hosts(Hosts { head: name.span(pod, zone), hosts })
    }

    /// Who has an address, for PTR records: names without the zone. A service, or else all
    /// endpoints.
    pub(super) fn owners(&self, ip: IpAddr) -> Vec<Vec<u8>> {
        let shown = |key: &[u8]| self.settings.namespaces.is_empty() || self.is_exposed(namespace_of(key));
        let service = self.virtual_ips.get(&ip).into_iter().flatten().find(|key| shown(key));
        if let Some(entry) = service.and_then(|key| self.entries.get(key)) {
            return vec![entry.head.to_vec()];
        }
        let mut all = Vec::new();
        for key in self.endpoint_ips.get(&ip).into_iter().flat_map(|keys| keys.keys()).filter(|key| shown(key)) {
            let Some(entry) = self.entries.get(key) else { continue };
            let addresses = entry.slices.iter().flat_map(|s| &s.addresses).filter(|a| a.ip == ip);
            all.extend(addresses.map(|a| [&a.label[..], &entry.head[..]].concat()));
        }
        all.sort();
        all.dedup();
        all
    }
}

impl Left<'_> {
    fn is_plain(&self) -> bool {
        self.port.is_empty() && self.protocol.is_empty() && self.endpoint.is_empty() && self.zone.is_none()
    }

    /// A name without port or protocol stands for all of them.
    fn takes(&self, port: &Port) -> bool {
        (self.port.is_empty() || self.port == port.name) && (self.protocol.is_empty() || self.protocol == port.protocol)
    }
}

fn namespace_of(key: &[u8]) -> &[u8] {
    let behind = key.first().map_or(0, |length| usize::from(*length) + 2);
    key.get(behind..).unwrap_or_default()
}

fn virtual_ips<'a>(entry: &'a Entry, ips: &'a [IpAddr], ports: &'a [Port], left: &Left<'_>) -> Found<'a> {
    let taken = ports.iter().filter(|p| left.takes(p));
    let mut is_there = false;
    let hosts = taken.inspect(|_| is_there = true);
    let hosts = hosts.flat_map(|p| ips.iter().map(|ip| Host { ip: *ip, label: &[], port: p.number })).collect();
    if is_there { Found::Hosts(Hosts { head: &entry.head, hosts }) } else { Found::Nothing }
}

fn endpoints<'a>(entry: &'a Entry, left: &Left<'_>) -> Found<'a> {
    let mut hosts = Vec::new();
    let in_zone = left.zone.as_ref().map(|(zone, _)| zone.as_str());
    entry.slices.iter().for_each(|s| add(&mut hosts, s, left, in_zone));
    if hosts.is_empty() && left.zone.as_ref().is_some_and(|(_, prefers)| *prefers) {
        entry.slices.iter().for_each(|s| add(&mut hosts, s, left, None));
    }
    match hosts.is_empty() {
        false => Found::Hosts(Hosts { head: &entry.head, hosts }),
        // A drained topology zone is none that does not exist.
        true if left.zone.is_some() => Found::Empty { is_zonal: true },
        true => Found::Nothing,
    }
}

fn add<'a>(hosts: &mut Vec<Host<'a>>, slice: &'a Slice, left: &Left<'_>, zone: Option<&str>) {
    let addresses = if left.endpoint.is_empty() { &slice.addresses } else { slice.labelled(left.endpoint) };
    for address in addresses.iter().filter(|a| zone.is_none() || a.zone.as_deref() == zone) {
        let ports = slice.ports.iter().filter(|p| left.takes(p));
        hosts.extend(ports.map(|p| Host { ip: address.ip, label: &address.label, port: p.number }));
    }
}

/// `10-244-1-2` or `fd00--1`, as an address.
fn undashed(label: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(label).ok().filter(|t| !t.contains(['.', ':', '%']))?;
    if text.matches('-').count() == 3 && !text.contains("--") {
        return text.replace('-', ".").parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    }
    text.replace('-', ":").parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

/// The address whose reverse name this is (RFC 1035, 3.5; RFC 3596, 2.5).
pub fn reverse(name: &Name) -> Option<IpAddr> {
    let arpa = name.labels().checked_sub(2)?;
    match (name.from(arpa), arpa) {
        (b"\x07in-addr\x04arpa\0", 4) => {
            let text = |n| std::str::from_utf8(name.label(n)).ok();
            format!("{}.{}.{}.{}", text(3)?, text(2)?, text(1)?, text(0)?).parse().ok().map(IpAddr::V4)
        }
        (b"\x03ip6\x04arpa\0", 32) => {
            let mut bits = 0u128;
            for n in (0..32).rev() {
                let [digit] = name.label(n) else { return None };
                bits = bits << 4 | u128::from(char::from(*digit).to_digit(16)?);
            }
            Some(IpAddr::V6(Ipv6Addr::from_bits(bits)))
        }
        _ => None,
    }
}
