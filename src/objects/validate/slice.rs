//! Endpoint slices, and the older Endpoints.

use std::net::IpAddr;

use super::meta::{self, quoted};
use super::{is_dns_subdomain, ports};
use crate::lab::names::check_label;
use crate::objects::field::FieldError;
use crate::objects::{EndpointSlice, Endpoints};

const ADDRESS_TYPES: &[&str] = &["FQDN", "IPv4", "IPv6"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
/// As discovery/validation has it.
const MOST_ENDPOINTS: usize = 1000;
const MOST_ADDRESSES: usize = 100;

/// Every field of `slice` that the API server would refuse.
pub fn slice(slice: &EndpointSlice) -> Vec<FieldError> {
    let mut found = Vec::new();
    meta::check(&slice.metadata, is_dns_subdomain, &mut found);
    match slice.address_type.as_str() {
        "" => found.push(FieldError::required("addressType", "")),
        kind if !ADDRESS_TYPES.contains(&kind) => {
            found.push(FieldError::not_supported("addressType", kind, ADDRESS_TYPES));
        }
        _ => {}
    }
    let all = slice.endpoints.as_deref().unwrap_or_default();
    if all.len() > MOST_ENDPOINTS {
        found.push(FieldError::invalid("endpoints", all.len(), format!("must have at most {MOST_ENDPOINTS} items")));
    }
    for (n, endpoint) in all.iter().enumerate() {
        if endpoint.addresses.is_empty() || endpoint.addresses.len() > MOST_ADDRESSES {
            let detail = format!("must have 1 to {MOST_ADDRESSES} addresses");
            found.push(FieldError::required(format!("endpoints[{n}].addresses"), detail));
        }
        for (m, address) in endpoint.addresses.iter().enumerate() {
            let path = format!("endpoints[{n}].addresses[{m}]");
            found.extend(address_fault(&slice.address_type, address, path));
        }
        if let Some(name) = endpoint.hostname.as_deref().filter(|h| check_label(h).is_err()) {
            let detail = "it is no label as RFC 1123 has it";
            found.push(FieldError::invalid(format!("endpoints[{n}].hostname"), quoted(name), detail));
        }
    }
    slice_ports(slice, &mut found);
    found
}

fn address_fault(kind: &str, address: &str, path: String) -> Option<FieldError> {
    let parsed = address.parse::<IpAddr>();
    let detail = match (kind, parsed) {
        ("IPv4", Ok(IpAddr::V4(ip))) => forbidden_address(ip.into())?,
        ("IPv6", Ok(IpAddr::V6(ip))) => forbidden_address(ip.into())?,
        ("IPv4", _) => "must be a valid IPv4 address",
        ("IPv6", _) => "must be a valid IPv6 address",
        ("FQDN", _) if !is_dns_subdomain(address) => "must be a name as RFC 1123 has it",
        _ => return None,
    };
    Some(FieldError::invalid(path, quoted(address), detail))
}

/// Addresses that lead nowhere from another machine.
fn forbidden_address(ip: IpAddr) -> Option<&'static str> {
    (ip.is_unspecified() || ip.is_loopback() || ip.is_multicast())
        .then_some("may not be unspecified, loopback or multicast")
}

fn slice_ports(slice: &EndpointSlice, found: &mut Vec<FieldError>) {
    let mut names = std::collections::HashSet::new();
    for (n, port) in slice.ports.iter().flatten().enumerate() {
        let name = port.name.as_deref().unwrap_or_default();
        if !names.insert(name) {
            found.push(FieldError::duplicate(format!("ports[{n}].name"), quoted(name)));
        }
        if !name.is_empty() && check_label(name).is_err() {
            let detail = "it is no label as RFC 1123 has it";
            found.push(FieldError::invalid(format!("ports[{n}].name"), quoted(name), detail));
        }
        if let Some(written) = port.protocol.as_deref().filter(|p| !p.is_empty() && !PROTOCOLS.contains(p)) {
            found.push(FieldError::not_supported(format!("ports[{n}].protocol"), written, PROTOCOLS));
        }
        if let Some(number) = port.port.filter(|p| !(1..=65535).contains(p)) {
            found.push(FieldError::invalid(
                format!("ports[{n}].port"),
                number,
                "must be between 1 and 65535, inclusive",
            ));
        }
    }
}

/// Every field of `endpoints` that the API server would refuse.
pub fn endpoints(endpoints: &Endpoints) -> Vec<FieldError> {
    let mut found = Vec::new();
    meta::check(&endpoints.metadata, is_dns_subdomain, &mut found);
    for (n, subset) in endpoints.subsets.iter().flatten().enumerate() {
        let addresses = subset.addresses.iter().flatten().chain(subset.not_ready_addresses.iter().flatten());
        for (m, address) in addresses.enumerate() {
            let path = format!("subsets[{n}].addresses[{m}].ip");
            found.extend(address_fault("IPv4", &address.ip, path));
        }
        for (m, port) in subset.ports.iter().flatten().enumerate() {
            if !(1..=65535).contains(&port.port) {
                let path = format!("subsets[{n}].ports[{m}].port");
                found.push(FieldError::invalid(path, port.port, "must be between 1 and 65535, inclusive"));
            }
            if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty() && !ports::is_port_name(name)) {
                let path = format!("subsets[{n}].ports[{m}].name");
                found.push(FieldError::invalid(path, quoted(name), "it is no port's name"));
            }
        }
    }
    found
}
