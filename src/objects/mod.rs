//! The Kubernetes objects that a lab acts on: services, endpoint slices, ingresses, secrets,
//! pods, deployments and namespaces, as the API of Kubernetes 1.36 has them.
//!
//! The types are `k8s-openapi`'s, which are generated from Kubernetes' own description, so a
//! manifest, the control socket's answers and what kube-proxy and the DNS server read are one form.
//! Here lives what Kubernetes itself does with them, as pure functions. Reading text is in
//! [`crate::spec`], their effect on a kernel in [`crate::plan`].

pub mod allocate;
pub mod balancers;
pub mod changes;
pub mod defaults;
pub mod field;
pub mod hints;
pub mod ingress;
pub mod slices;
pub mod validate;

pub use k8s_openapi::ByteString;
pub use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Namespace, Pod, Secret, Service, ServicePort, ServiceSpec};
pub use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
pub use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, Ingress, IngressBackend, IngressClass, IngressClassSpec, IngressRule, IngressServiceBackend,
    IngressSpec, IngressTLS, ServiceBackendPort,
};
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// An object's name within its namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct ObjectKey {
    pub namespace: String,
    pub name: String,
}

impl ObjectKey {
    pub fn new(namespace: &str, name: &str) -> Self {
        ObjectKey { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// Of an object's metadata; the namespace is `default` where none is written.
    pub fn of(meta: &ObjectMeta) -> Self {
        let namespace = meta.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or("default");
        ObjectKey::new(namespace, meta.name.as_deref().unwrap_or_default())
    }
}

impl std::fmt::Display for ObjectKey {
    /// `namespace/name`, as Kubernetes writes it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A service's type; ClusterIP where none is written.
pub fn service_type(spec: &ServiceSpec) -> &str {
    spec.type_.as_deref().filter(|t| !t.is_empty()).unwrap_or("ClusterIP")
}

/// Whether a service has no virtual address on purpose.
pub fn headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref() == Some("None")
        || spec.cluster_ips.as_ref().and_then(|ips| ips.first()).is_some_and(|ip| ip == "None")
}

/// A port's protocol; TCP where none is written.
pub fn protocol(written: Option<&str>) -> &str {
    written.filter(|p| !p.is_empty()).unwrap_or("TCP")
}
