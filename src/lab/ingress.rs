//! The lab's ingress controller, and what it serves: ingresses with their classes, secrets and settings.
//!
//! A lab has one controller, when its file has an ingress or `cluster.ingress` is written. Here is
//! what was asked for, checked and complete; what the controller must do for it is decided in
//! [`crate::plan::ingress`], serving is `workload::ingress`'s. Which controller and how it is reached
//! is in `controller`, who is served in `classes`, certificates in `secrets` and `certificate`,
//! and what is likely a mistake in `backends` and `hosts`.

mod annotations;
mod backends;
pub mod certificate;
mod changes;
mod classes;
mod controller;
mod hosts;
mod patterns;
mod resolve;
mod secrets;
mod shown;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize, Serializer};

use crate::diag::did_you_mean;
pub use crate::objects::ingress::annotations::CLASS as CLASS_ANNOTATION;
use crate::objects::{Ingress, IngressClass, ObjectKey, Service, service_type};
use crate::spec::value::Labels;

use super::model::{Host, Lab};

pub use changes::changes;
pub(super) use controller::{container, controller, service, wanted};
pub(super) use resolve::{Scene, checked_config_maps, checked_secrets, resolve};

/// The namespace of the controller's objects.
pub const INGRESS_NAMESPACE: &str = "ingress";
/// The deployment's and the service's name.
pub const INGRESS_NAME: &str = "ingress-controller";
pub const INGRESS_LABEL: (&str, &str) = ("app.kubernetes.io/name", INGRESS_NAME);
/// The name of the container in the controller's pods.
pub const INGRESS_CONTAINER: &str = "controller";
/// Where the controller says whether it serves, as ingress-nginx does: `/healthz` on this port.
pub const INGRESS_HEALTH_PORT: u16 = 10254;
/// Names of the service's ports and of the container's.
pub const HTTP: &str = "http";
pub const HTTPS: &str = "https";

/// The ingress controller of a lab that has one, and what it serves.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IngressLayer {
    pub controller: Controller,
    /// Those that the controller serves, in the order in which they were written; defaults filled
    /// in, namespace and class set where there is one.
    pub ingresses: Vec<Ingress>,
    /// Those that it leaves to other controllers, which a lab does not have.
    pub unserved: Vec<Unserved>,
    /// The class that ingresses without one were given when they were created.
    #[serde(serialize_with = "by_name")]
    pub given: BTreeMap<ObjectKey, String>,
    /// Those of the file, and the one that the controller brings.
    pub classes: Vec<IngressClass>,
    /// What the file's secrets hold, decoded. Those that ingresses name and that are not here are
    /// in `generated`, or there is none.
    #[serde(serialize_with = "by_name")]
    pub secrets: BTreeMap<ObjectKey, SecretData>,
    /// Secrets that the lab's own authority must sign, with the names that each certificate is for
    /// (`cafe.example.com`, `*.example.com`), sorted, at least one.
    #[serde(serialize_with = "by_name")]
    pub generated: BTreeMap<ObjectKey, Vec<String>>,
    /// Fields of the controller's ConfigMap.
    pub config: BTreeMap<String, String>,
    /// The service that takes what no rule matches.
    pub default_backend: Option<ObjectKey>,
    /// The secret that is shown to those who ask for a name without a certificate of its own.
    pub default_certificate: Option<ObjectKey>,
}

/// Which controller there is, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Controller {
    pub driver: Driver,
    /// How many pods.
    pub replicas: u32,
    /// Whether its pods answer on the ports 80 and 443 of their hosts, too.
    pub host_port: bool,
    /// Its pods' labels.
    #[serde(skip)]
    pub labels: Labels,
}

/// The program that serves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Driver {
    #[default]
    BuiltIn,
    Nginx,
    Haproxy,
    /// One that the user brings.
    Command {
        /// It and its arguments, at least one word.
        command: Vec<String>,
        /// The text of the file that `template` names.
        template: String,
    },
}

impl std::fmt::Display for Driver {
    /// As it is written in `cluster.ingress.controller`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Driver::BuiltIn => "built-in",
            Driver::Nginx => "nginx",
            Driver::Haproxy => "haproxy",
            Driver::Command { .. } => "command",
        })
    }
}

/// An ingress that nobody serves.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Unserved {
    pub ingress: Ingress,
    /// Its class.
    pub class: String,
}

/// What a secret holds, with `stringData` worked in.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretData {
    /// Such as `kubernetes.io/tls`; `Opaque` where none is written.
    pub kind: String,
    pub data: BTreeMap<String, Vec<u8>>,
}

impl std::fmt::Debug for SecretData {
    /// Without what it holds, which has no business in logs and reports.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let fields: Vec<&String> = self.data.keys().collect();
        f.debug_struct("SecretData").field("kind", &self.kind).field("fields", &fields).finish()
    }
}

impl Serialize for SecretData {
    /// Its type and the names of its fields.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields: Vec<&String> = self.data.keys().collect();
        serde_json::json!({ "type": self.kind, "fields": fields }).serialize(serializer)
    }
}

/// Keys of JSON's maps are texts.
fn by_name<T: Serialize, S: Serializer>(all: &BTreeMap<ObjectKey, T>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(all.iter().map(|(key, value)| (key.to_string(), value)))
}

/// The name that a misspelt `word` is near to, among the first thousand: who has more looks himself.
fn near<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    did_you_mean(word, known.take(1000))
}

/// The field of an object in the lab file that says its namespace, where that is not the usual one.
fn namespace_of(key: &ObjectKey) -> String {
    match key.namespace.as_str() {
        "default" => String::new(),
        other => format!("namespace: {other}, "),
    }
}

/// Where clients reach the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicAddress {
    pub ip: IpAddr,
    pub http: u16,
    pub https: u16,
}

/// The class that an ingress names, in its field or in the old annotation.
pub fn class_of(ingress: &Ingress) -> Option<&str> {
    let field = ingress.spec.as_ref().and_then(|s| s.ingress_class_name.as_deref());
    let annotation = || ingress.metadata.annotations.as_ref()?.get(CLASS_ANNOTATION).map(String::as_str);
    field.or_else(annotation).filter(|class| !class.is_empty())
}

impl IngressLayer {
    /// All ingresses, served or not.
    pub fn all(&self) -> impl Iterator<Item = &Ingress> {
        self.ingresses.iter().chain(self.unserved.iter().map(|u| &u.ingress))
    }
}

impl Lab {
    /// The names that rules of served ingresses have, but for wildcards; sorted.
    pub fn ingress_hosts(&self) -> BTreeSet<&str> {
        let served = self.ingress.iter().flat_map(|layer| &layer.ingresses);
        served.flat_map(secrets::rule_hosts).filter(|host| !host.starts_with('*')).collect()
    }

    /// The service of the ingress controller.
    pub fn ingress_service(&self) -> Option<&Service> {
        self.ingress.as_ref()?;
        self.service(&ObjectKey::new(INGRESS_NAMESPACE, INGRESS_NAME))
    }

    /// Where clients reach the ingress controller: its load balancer's address, or that of a host, on
    /// the ports 80 and 443 with `hostPort`, and else on its NodePorts.
    pub fn ingress_address(&self) -> Option<PublicAddress> {
        let controller = &self.ingress.as_ref()?.controller;
        let service = self.ingress_service()?;
        let balancer = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
        let address = balancer.and_then(|b| b.ingress.as_ref()?.first()?.ip.as_ref()?.parse().ok());
        if let Some(ip) = address {
            return Some(PublicAddress { ip, http: 80, https: 443 });
        }
        let of_controller = |name: &&super::Pod| name.labels.get(INGRESS_LABEL.0).is_some_and(|v| v == INGRESS_LABEL.1);
        let pod = self.pods.iter().find(of_controller);
        let host = pod.and_then(|pod| self.host(&pod.host)).or(self.hosts.first()).map(Host::ip)?;
        if controller.host_port {
            return Some(PublicAddress { ip: host, http: 80, https: 443 });
        }
        let spec = service.spec.as_ref().filter(|spec| service_type(spec) != "ClusterIP")?;
        let port = |name: &str| {
            let port = spec.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name))?;
            u16::try_from(port.node_port?).ok().filter(|p| *p > 0)
        };
        Some(PublicAddress { ip: host, http: port(HTTP)?, https: port(HTTPS)? })
    }
}

#[cfg(test)]
mod tests;
