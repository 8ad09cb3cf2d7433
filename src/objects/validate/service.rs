//! A service, field by field.

use std::net::IpAddr;

use ipnet::IpNet;

use super::meta::{self, quoted};
use super::{is_dns_subdomain, ports};
use crate::lab::names::check_label;
use crate::objects::field::FieldError;
use crate::objects::{Service, ServiceSpec, headless, service_type};

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
/// sessionAffinityConfig.clientIP.timeoutSeconds: a day at most.
const LONGEST_AFFINITY: i32 = 86_400;

/// Every field of `service` that the API server would refuse.
pub fn service(service: &Service) -> Vec<FieldError> {
    let mut found = Vec::new();
    meta::check(&service.metadata, |name| check_label(name).is_ok(), &mut found);
    let empty = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&empty);
    if !TYPES.contains(&service_type(spec)) {
        found.push(FieldError::not_supported("spec.type", service_type(spec), TYPES));
        return found;
    }
    ports::check(spec, &mut found);
    meta::labels("spec.selector", spec.selector.iter().flatten(), &mut found);
    kind(spec, &mut found);
    addresses(spec, &mut found);
    affinity(spec, &mut found);
    policies(spec, &mut found);
    load_balancer(spec, &mut found);
    families(spec, &mut found);
    found
}

fn kind(spec: &ServiceSpec, found: &mut Vec<FieldError>) {
    let kind = service_type(spec);
    let external = spec.external_name.as_deref().unwrap_or_default().trim_end_matches('.');
    if kind == "ExternalName" {
        if external.is_empty() {
            found.push(FieldError::required("spec.externalName", ""));
        } else if external.parse::<IpAddr>().is_ok() {
            let detail = "it is the target of a DNS alias, which cannot be an address; give the address to a Service \
                          without selector by an EndpointSlice";
            found.push(FieldError::invalid("spec.externalName", quoted(external), detail));
        } else if !is_dns_subdomain(external) {
            let detail =
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.'";
            found.push(FieldError::invalid("spec.externalName", quoted(external), detail));
        }
        if spec.cluster_ip.as_deref().is_some_and(|ip| !ip.is_empty()) {
            found.push(FieldError::forbidden("spec.clusterIP", "may not be set when `type` is 'ExternalName'"));
        }
    }
    if headless(spec) && matches!(kind, "NodePort" | "LoadBalancer") {
        let detail = format!("may not be set to 'None' for {kind} services");
        found.push(FieldError::invalid("spec.clusterIP", quoted("None"), detail));
    }
}

fn addresses(spec: &ServiceSpec, found: &mut Vec<FieldError>) {
    let ip = spec.cluster_ip.as_deref().unwrap_or_default();
    if !ip.is_empty() && ip != "None" && ip.parse::<IpAddr>().is_err() {
        found.push(FieldError::invalid("spec.clusterIP", quoted(ip), "must be a valid IP address"));
    }
    if let Some(first) =
        spec.cluster_ips.as_ref().and_then(|ips| ips.first()).filter(|first| !ip.is_empty() && *first != ip)
    {
        let detail = "first value must match `clusterIP`";
        found.push(FieldError::invalid("spec.clusterIPs[0]", quoted(first), detail));
    }
    for (n, written) in spec.external_ips.iter().flatten().enumerate() {
        let path = format!("spec.externalIPs[{n}]");
        match written.parse::<IpAddr>() {
            Err(_) => found.push(FieldError::invalid(path, quoted(written), "must be a valid IP address")),
            Ok(ip) => {
                if let Some(detail) = special(ip) {
                    found.push(FieldError::invalid(path, quoted(written), detail));
                }
            }
        }
    }
}

/// Why an address cannot be an external one (ValidateNonSpecialIP).
fn special(ip: IpAddr) -> Option<&'static str> {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    match ip {
        _ if ip.is_unspecified() => Some("may not be unspecified (0.0.0.0 or ::)"),
        _ if ip.is_loopback() => Some("may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        _ if link_local => Some("may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        _ if ip.is_multicast() => Some("may not be in the multicast range (224.0.0.0/4, ff00::/8)"),
        _ => None,
    }
}

fn affinity(spec: &ServiceSpec, found: &mut Vec<FieldError>) {
    let affinity = spec.session_affinity.as_deref().filter(|a| !a.is_empty()).unwrap_or("None");
    if !["ClientIP", "None"].contains(&affinity) {
        found.push(FieldError::not_supported("spec.sessionAffinity", affinity, &["ClientIP", "None"]));
    }
    let Some(config) = &spec.session_affinity_config else { return };
    if affinity == "None" {
        let detail = "must not be set when session affinity is None";
        found.push(FieldError::forbidden("spec.sessionAffinityConfig", detail));
    }
    let seconds = config.client_ip.as_ref().and_then(|c| c.timeout_seconds);
    if let Some(seconds) = seconds.filter(|s| !(1..=LONGEST_AFFINITY).contains(s)) {
        let detail = format!("must be greater than 0 and less than {LONGEST_AFFINITY}");
        found.push(FieldError::invalid("spec.sessionAffinityConfig.clientIP.timeoutSeconds", seconds, detail));
    }
}

fn policies(spec: &ServiceSpec, found: &mut Vec<FieldError>) {
    const POLICIES: &[&str] = &["Cluster", "Local"];
    let written = |policy: &Option<String>| policy.as_deref().filter(|p| !p.is_empty()).map(str::to_owned);
    for (path, policy) in [
        ("spec.externalTrafficPolicy", written(&spec.external_traffic_policy)),
        ("spec.internalTrafficPolicy", written(&spec.internal_traffic_policy)),
    ] {
        if let Some(policy) = policy.filter(|p| !POLICIES.contains(&p.as_str())) {
            found.push(FieldError::not_supported(path, &policy, POLICIES));
        }
    }
    let external =
        matches!(service_type(spec), "NodePort" | "LoadBalancer") || spec.external_ips.iter().flatten().count() > 0;
    if let Some(policy) = written(&spec.external_traffic_policy).filter(|_| !external) {
        let detail = "may only be set for externally-accessible services";
        found.push(FieldError::invalid("spec.externalTrafficPolicy", quoted(&policy), detail));
    }
    const DISTRIBUTIONS: &[&str] = &["PreferClose", "PreferSameNode", "PreferSameZone"];
    if let Some(way) = written(&spec.traffic_distribution).filter(|d| !DISTRIBUTIONS.contains(&d.as_str())) {
        found.push(FieldError::not_supported("spec.trafficDistribution", &way, DISTRIBUTIONS));
    }
}

fn load_balancer(spec: &ServiceSpec, found: &mut Vec<FieldError>) {
    let balanced = service_type(spec) == "LoadBalancer";
    let only = "may only be used when `type` is 'LoadBalancer'";
    for (n, range) in spec.load_balancer_source_ranges.iter().flatten().enumerate() {
        let path = format!("spec.loadBalancerSourceRanges[{n}]");
        if !balanced {
            found.push(FieldError::forbidden("spec.loadBalancerSourceRanges", only));
            break;
        }
        if range.trim().parse::<IpNet>().is_err() {
            found.push(FieldError::invalid(path, quoted(range), "must be a valid CIDR value, such as 10.0.0.0/8"));
        }
    }
    if !balanced && spec.allocate_load_balancer_node_ports.is_some() {
        found.push(FieldError::forbidden("spec.allocateLoadBalancerNodePorts", only));
    }
    if !balanced && spec.load_balancer_class.is_some() {
        found.push(FieldError::forbidden("spec.loadBalancerClass", only));
    }
    let local = spec.external_traffic_policy.as_deref() == Some("Local");
    let port = spec.health_check_node_port.unwrap_or(0);
    if port != 0 && !(balanced && local) {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        found.push(FieldError::invalid("spec.healthCheckNodePort", port, detail));
    }
    if port != 0 && !(1..=65535).contains(&port) {
        found.push(FieldError::invalid("spec.healthCheckNodePort", port, "must be between 1 and 65535, inclusive"));
    }
}

/// Labs have IPv4 only as yet.
fn families(spec: &ServiceSpec, found: &mut Vec<FieldError>) {
    const POLICIES: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];
    match spec.ip_family_policy.as_deref() {
        Some("RequireDualStack") => {
            let detail = "this cluster is not configured for dual-stack services";
            found.push(FieldError::invalid("spec.ipFamilyPolicy", quoted("RequireDualStack"), detail));
        }
        Some(policy) if !policy.is_empty() && !POLICIES.contains(&policy) => {
            found.push(FieldError::not_supported("spec.ipFamilyPolicy", policy, POLICIES));
        }
        _ => {}
    }
    for (n, family) in spec.ip_families.iter().flatten().enumerate().filter(|(_, f)| *f != "IPv4") {
        let detail = "not configured on this cluster";
        found.push(FieldError::invalid(format!("spec.ipFamilies[{n}]"), family, detail));
    }
}
