//! Ingresses, their classes, secrets and the controller's ConfigMap, as the API shows them.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::{Value, json};

use crate::daemon::state::Daemon;
use crate::lab::Lab;
use crate::lab::ingress::{INGRESS_NAME, INGRESS_NAMESPACE, IngressLayer};
use crate::objects::{Ingress, ObjectKey, ObjectMeta};

use super::born;

pub const GROUP: &str = "networking.k8s.io/v1";

/// All ingresses, those that nobody serves too. A served one has the controller's public address,
/// as controllers publish it.
pub fn ingresses(daemon: &Daemon, lab: &Lab) -> Vec<Value> {
    let Some(layer) = &lab.ingress else { return Vec::new() };
    let published = lab.ingress_address().map(|at| json!({ "ingress": [{ "ip": at.ip }] }));
    let served = layer.ingresses.iter().map(|i| (i, published.clone()));
    let others = layer.unserved.iter().map(|u| (&u.ingress, None));
    let object = |(ingress, balancer): (&Ingress, Option<Value>)| {
        let mut object = json!(ingress);
        object["status"] = json!({ "loadBalancer": balancer.unwrap_or(json!({})) });
        born(daemon, object, "Ingress", None)
    };
    served.chain(others).map(object).collect()
}

pub fn classes(lab: &Lab) -> Vec<Value> {
    lab.ingress.iter().flat_map(|layer| &layer.classes).map(|class| json!(class)).collect()
}

/// Secrets as they were brought, and those that the lab's authority has signed.
pub fn secrets(daemon: &Daemon, lab: &Lab) -> Vec<Value> {
    let brought = lab.secrets.iter().map(|secret| json!(secret));
    let generated = lab.ingress.iter().flat_map(|layer| &layer.generated);
    let signed = generated.filter_map(|(key, names)| {
        let certificate = daemon.services.ingress.authority.certificate(key, names).ok()?;
        let data = [("tls.crt", certificate.chain), ("tls.key", certificate.key)];
        Some(secret(key, "kubernetes.io/tls", data.map(|(k, v)| (k.to_owned(), v.into_bytes())).into()))
    });
    brought.chain(signed).collect()
}

fn secret(key: &ObjectKey, kind: &str, data: BTreeMap<String, Vec<u8>>) -> Value {
    json!(Secret {
        metadata: named(key),
        type_: Some(kind.to_owned()),
        data: Some(data.into_iter().map(|(field, bytes)| (field, ByteString(bytes))).collect()),
        ..Secret::default()
    })
}

/// ConfigMaps as they were brought, and the one that stands for the settings of `cluster.ingress`.
pub fn config_maps(lab: &Lab) -> Vec<Value> {
    let own = ObjectKey::new(INGRESS_NAMESPACE, INGRESS_NAME);
    let is_own = |map: &&ConfigMap| ObjectKey::of(&map.metadata) == own;
    let of = |layer: &IngressLayer| {
        let metadata = named(&own);
        json!(ConfigMap { metadata, data: Some(layer.config.clone()), ..ConfigMap::default() })
    };
    let settings = lab.ingress.iter().filter(|_| !lab.config_maps.iter().any(|map| is_own(&map))).map(of);
    lab.config_maps.iter().map(|map| json!(map)).chain(settings).collect()
}

fn named(key: &ObjectKey) -> ObjectMeta {
    ObjectMeta { name: Some(key.name.clone()), namespace: Some(key.namespace.clone()), ..ObjectMeta::default() }
}
