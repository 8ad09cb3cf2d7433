//! A lab's ingresses as [`super::routing`] wants them.

use std::collections::BTreeMap;

use crate::lab::Lab;
use crate::lab::ingress::{SecretData, certificate};
use crate::objects::ObjectKey;
use crate::objects::validate::config::{TLS_CRT, TLS_KEY};

use super::routing::{Objects, routing};
use super::types::{Certificate, Routing, SecretName};

/// What the controllers of `lab` must do; nothing where it has none. `certificates` are those of its
/// secrets, also the signed ones, which no lab holds; `fake` is shown for names without one.
pub fn of_lab(lab: &Lab, certificates: &BTreeMap<SecretName, Certificate>, fake: Option<&Certificate>) -> Routing {
    let Some(layer) = &lab.ingress else { return Routing::default() };
    let named = layer.default_certificate.as_ref().and_then(|key| certificates.get(&key.to_string()));
    let port = layer.default_backend.as_ref().and_then(|key| first_port(lab, key));
    routing(&Objects {
        ingresses: &layer.ingresses,
        certificates,
        config: &layer.config,
        default_backend: layer.default_backend.as_ref().zip(port.as_deref()),
        default_certificate: named.or(fake),
    })
}

/// ingress-nginx' `--default-backend-service` takes a service's first port.
fn first_port(lab: &Lab, key: &ObjectKey) -> Option<String> {
    let ports = lab.service(key)?.spec.as_ref()?.ports.as_ref()?;
    ports.first().map(|port| port.port.to_string())
}

/// The certificates that a lab's secrets bring, as far as they are fit for use: chain and key can be
/// read, and belong together. What is wrong with the others was told when the lab was read.
pub fn brought(lab: &Lab) -> BTreeMap<SecretName, Certificate> {
    let Some(layer) = &lab.ingress else { return BTreeMap::new() };
    let fit = |(key, secret): (&ObjectKey, &SecretData)| Some((key.to_string(), certificate(secret)?));
    layer.secrets.iter().filter_map(fit).collect()
}

fn certificate(secret: &SecretData) -> Option<Certificate> {
    certificate::read(secret).ok()?;
    let text = |field: &str| Some(std::str::from_utf8(secret.data.get(field)?).ok()?.to_owned());
    Some(Certificate { chain: text(TLS_CRT)?, key: text(TLS_KEY)? })
}
