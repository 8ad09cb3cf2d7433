//! What the API server writes into a service where nothing is written
//! (`pkg/apis/core/v1/defaults.go`), into a secret (`pkg/registry/core/secret`), and into an
//! ingress (`plugin/pkg/admission/network/defaultingressclass`).

use k8s_openapi::api::core::v1::{ClientIPConfig, SessionAffinityConfig};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::ingress::annotations::CLASS;
use super::{ByteString, Ingress, Secret, Service, ServiceSpec, headless};

/// Three hours: how long a client stays with its pod under sessionAffinity ClientIP.
const AFFINITY_SECONDS: i32 = 10_800;

/// Fill in what a service leaves out.
pub fn service(service: &mut Service) {
    let namespace = service.metadata.namespace.get_or_insert_default();
    if namespace.is_empty() {
        *namespace = "default".to_owned();
    }
    let spec = service.spec.get_or_insert_default();
    set(&mut spec.type_, "ClusterIP");
    set(&mut spec.session_affinity, "None");
    if spec.session_affinity.as_deref() == Some("ClientIP") {
        let config = spec.session_affinity_config.get_or_insert_with(SessionAffinityConfig::default);
        let client = config.client_ip.get_or_insert_with(ClientIPConfig::default);
        client.timeout_seconds.get_or_insert(AFFINITY_SECONDS);
    }
    let kind = spec.type_.clone().unwrap_or_default();
    ports(spec);
    if kind == "ExternalName" {
        return;
    }
    set(&mut spec.internal_traffic_policy, "Cluster");
    spec.ip_families.get_or_insert_with(|| vec!["IPv4".to_owned()]);
    set(&mut spec.ip_family_policy, "SingleStack");
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") || spec.external_ips.iter().flatten().count() > 0 {
        set(&mut spec.external_traffic_policy, "Cluster");
    }
    if kind == "LoadBalancer" {
        spec.allocate_load_balancer_node_ports.get_or_insert(true);
    }
    if spec.cluster_ip.as_deref().unwrap_or_default().is_empty() {
        spec.cluster_ip = spec.cluster_ips.as_ref().and_then(|ips| ips.first().cloned());
    }
    if headless(spec) {
        spec.cluster_ip = Some("None".to_owned());
        spec.cluster_ips = Some(vec!["None".to_owned()]);
    }
}

fn ports(spec: &mut ServiceSpec) {
    for port in spec.ports.iter_mut().flatten() {
        set(&mut port.protocol, "TCP");
        let unset = match &port.target_port {
            None | Some(IntOrString::Int(0)) => true,
            Some(IntOrString::String(name)) => name.is_empty(),
            Some(IntOrString::Int(_)) => false,
        };
        if unset {
            port.target_port = Some(IntOrString::Int(port.port));
        }
    }
}

/// Fill in what an ingress leaves out: its namespace, and the class that is the default one. Returns whether
/// it was given that.
pub fn ingress(ingress: &mut Ingress, default_class: Option<&str>) -> bool {
    let namespace = ingress.metadata.namespace.get_or_insert_default();
    if namespace.is_empty() {
        *namespace = "default".to_owned();
    }
    let annotated = ingress.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(CLASS));
    let class = &mut ingress.spec.get_or_insert_default().ingress_class_name;
    let given = class.is_none() && !annotated && default_class.is_some();
    if given {
        *class = default_class.map(str::to_owned);
    }
    given
}

/// Work `stringData` into `data`, where it wins, as the API server does it, and fill in the type.
pub fn secret(secret: &mut Secret) {
    let namespace = secret.metadata.namespace.get_or_insert_default();
    if namespace.is_empty() {
        *namespace = "default".to_owned();
    }
    let texts = secret.string_data.take().into_iter().flatten();
    let texts: Vec<_> = texts.map(|(key, text)| (key, ByteString(text.into_bytes()))).collect();
    if !texts.is_empty() {
        secret.data.get_or_insert_default().extend(texts);
    }
    set(&mut secret.type_, "Opaque");
}

fn set(field: &mut Option<String>, value: &str) {
    if field.as_deref().unwrap_or_default().is_empty() {
        *field = Some(value.to_owned());
    }
}
