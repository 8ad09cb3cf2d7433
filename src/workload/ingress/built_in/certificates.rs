//! TLS towards clients: the certificate for each name, and the one for all others.

use std::collections::HashMap;
use std::fmt::{self, Debug};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::super::log;
use crate::daemon::authority::Authority;
use crate::lab::ingress::certificate::pair;
use crate::plan::ingress::{Certificate, HostPattern, Routing};

/// Which certificate is shown; a name is compared as virtual hosts are.
struct Certificates {
    names: HashMap<String, Arc<CertifiedKey>>,
    wildcards: HashMap<String, Arc<CertifiedKey>>,
    default: Arc<CertifiedKey>,
}

/// What clients that begin now are shown. `fake` is for names without a certificate.
///
/// # Errors
/// TLS that this program's library cannot do.
pub fn config(routing: &Routing, fake: &Arc<CertifiedKey>) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(Certificates::new(routing, fake)));
    let protocols: &[&[u8]] = if routing.settings.http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

/// The one for a routing that brings none.
///
/// # Errors
/// No random numbers.
pub fn fake() -> Result<Arc<CertifiedKey>, String> {
    let fake = Authority::default().fake().map_err(|e| e.to_string())?;
    read(&fake).map(Arc::new)
}

fn read(certificate: &Certificate) -> Result<CertifiedKey, String> {
    pair(certificate.chain.as_bytes(), certificate.key.as_bytes()).map_err(|e| e.to_string())
}

impl Certificates {
    fn new(routing: &Routing, fake: &Arc<CertifiedKey>) -> Certificates {
        let load = |name: &str, certificate: &Certificate| match read(certificate) {
            Ok(key) => Some(Arc::new(key)),
            Err(why) => {
                log(format_args!("the certificate of {name} is not used: it {why}"));
                None
            }
        };
        let default = routing.default_certificate.as_ref().and_then(|c| load("the controller itself", c));
        let default = default.unwrap_or_else(|| Arc::clone(fake));
        let secrets = routing.certificates.iter();
        let loaded: HashMap<&String, Arc<CertifiedKey>> =
            secrets.filter_map(|(secret, c)| Some((secret, load(secret, c)?))).collect();
        let mut all = Certificates { names: HashMap::new(), wildcards: HashMap::new(), default: Arc::clone(&default) };
        for server in &routing.servers {
            // A name without a certificate must not get that of a wildcard.
            let own = routing.secret_of(server).and_then(|secret| loaded.get(secret));
            let key = Arc::clone(own.unwrap_or(&default));
            match &server.host {
                HostPattern::Name(name) => drop(all.names.insert(name.clone(), key)),
                HostPattern::Wildcard(parent) => drop(all.wildcards.insert(parent.clone(), key)),
                HostPattern::Any => all.default = key,
            }
        }
        all
    }

    fn of(&self, name: &str) -> &Arc<CertifiedKey> {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let wildcard = || name.split_once('.').and_then(|(_, parent)| self.wildcards.get(parent));
        self.names.get(&name).or_else(wildcard).unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(hello.server_name().map_or(&self.default, |name| self.of(name))))
    }
}

impl Debug for Certificates {
    /// Names alone: keys have no business in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names.keys()).entries(self.wildcards.keys()).finish()
    }
}
