//! What a controller must do, as plain data: it crosses the control channel to the controller's
//! process as JSON and is compared to find out whether a reload is due.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::objects::ObjectKey;
pub use crate::objects::ingress::annotations::{Affinity, BackendProtocol};
pub use crate::objects::ingress::settings::Settings;
use crate::objects::ingress::settings::seconds;

/// Everything that a controller must do, but for endpoints.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Routing {
    /// Virtual hosts: exact names first, then wildcards, then the one for every other name, each kind by name.
    /// A request belongs to the first that fits and to no other, also where that has no location for it.
    pub servers: Vec<Server>,
    pub backends: BTreeMap<BackendName, Backend>,
    /// Who answers what no location takes; the controller itself, with 404, where nobody is named.
    pub default_backend: Option<BackendName>,
    /// What holds where no location does: the ConfigMap's limits, and nothing else of it.
    #[serde(default)]
    pub default_options: Options,
    /// By secret.
    pub certificates: BTreeMap<SecretName, Certificate>,
    /// What is shown to those who ask for a name without a certificate of its own: that of
    /// `defaultSSLCertificate`, or else one signed by nobody ("Kubernetes Ingress Controller Fake Certificate").
    pub default_certificate: Option<Certificate>,
    pub settings: Settings,
}

impl Routing {
    /// A short word that is another one for another routing, by which both ends of the control channel
    /// know which one is meant.
    pub fn mark(&self) -> String {
        // What is plain data can be written.
        let digest = Sha256::digest(serde_json::to_vec(self).unwrap_or_default());
        digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// `NAMESPACE-SERVICE-PORT`, as ingress-nginx calls its upstreams; unique, of letters, digits, `-` and `.`.
pub type BackendName = String;

/// `NAMESPACE/NAME` of a Secret.
pub type SecretName = String;

/// A virtual host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Server {
    pub host: HostPattern,
    /// Set where the host is named under `tls` of an ingress; a name whose secret is missing or broken
    /// has TLS with the default certificate.
    pub tls: Option<Tls>,
    /// In the order in which they are tried: the first that fits takes the request.
    pub locations: Vec<Location>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// Key into [`Routing::certificates`]; nothing: the default certificate.
    pub certificate: Option<SecretName>,
    pub source: Source,
}

/// Which names a virtual host answers to; in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HostPattern {
    Name(String),
    /// `*.foo.com` as `foo.com`: exactly one label before it.
    Wildcard(String),
    Any,
}

/// What happens to requests for some paths of a virtual host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Location {
    pub path: PathPattern,
    pub backend: BackendName,
    pub options: Options,
    pub source: Source,
}

/// Which paths a location takes. Paths are compared byte by byte, case-sensitively, without the query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PathPattern {
    Exact(String),
    /// Element by element: `/foo` takes `/foo`, `/foo/` and `/foo/bar`, not `/foobar`. As it was written;
    /// a `/` at its end means nothing.
    Prefix(String),
    /// Letter by letter, which is what ingress-nginx does with ImplementationSpecific.
    Begin(String),
    /// A regular expression that the path must begin with, without regard to case: paths of a host for
    /// which an ingress asks for `use-regex` or a rewrite, as ingress-nginx documents it.
    Regex(String),
}

/// Where a part of the configuration comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Source {
    pub ingress: ObjectKey,
    /// The field, such as `spec.rules[0].http.paths[1]`.
    pub field: String,
}

/// What an ingress' annotations ask for, with the ConfigMap's settings where they are silent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// What the whole path becomes; `$1` to `$9` stand for the groups of [`PathPattern::Regex`].
    pub rewrite: Option<String>,
    /// Where a request for `/` is sent, with 302.
    pub app_root: Option<String>,
    /// Whether plain http is answered with 308 to https.
    pub ssl_redirect: bool,
    /// Who may come: all where it is empty, else others get 403.
    pub allow: Vec<IpNet>,
    /// The largest body in bytes, beyond which the answer is 413; 0: any.
    pub body_size: u64,
    #[serde(with = "seconds")]
    pub connect_timeout: Duration,
    /// How long an endpoint may be silent.
    #[serde(with = "seconds")]
    pub read_timeout: Duration,
    /// How long an endpoint may take nothing.
    #[serde(with = "seconds")]
    pub send_timeout: Duration,
}

/// The pods of a service's port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Backend {
    pub service: ObjectKey,
    /// The service's port as the ingress has it: a number or a name.
    pub port: String,
    pub protocol: BackendProtocol,
    pub affinity: Option<Affinity>,
}

/// A certificate chain and its key, both in PEM.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    pub chain: String,
    pub key: String,
}

impl std::fmt::Debug for Certificate {
    /// Without the key, which has no business in logs and reports.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").field("chain", &self.chain).finish_non_exhaustive()
    }
}

/// Who serves each backend now: only endpoints that are ready. Of a backend that is missing there is no
/// service, or its service has no such port.
pub type Endpoints = BTreeMap<BackendName, Vec<Endpoint>>;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Endpoint {
    pub address: SocketAddr,
    /// `NAMESPACE/NAME` of the pod, for the log; empty where no pod is named.
    pub pod: String,
}

/// What a controller's process is told, a line of JSON each, on its standard input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Update {
    Routing(Box<Routing>),
    Endpoints(Endpoints),
}

impl Default for Options {
    /// As ingress-nginx has them for a host without TLS.
    fn default() -> Self {
        Options {
            rewrite: None,
            app_root: None,
            ssl_redirect: false,
            allow: Vec::new(),
            body_size: 1 << 20,
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(60),
            send_timeout: Duration::from_secs(60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_routing_has_the_same_mark_behind_the_control_channel_and_another_has_another() {
        let mut routing = Routing::default();
        let there: Routing = serde_json::from_str(&serde_json::to_string(&routing).unwrap()).unwrap();
        assert_eq!(there.mark(), routing.mark());
        let before = routing.mark();
        routing.settings.keep_alive = Duration::from_secs(7);
        assert_ne!(routing.mark(), before);
    }
}
