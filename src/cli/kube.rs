//! Asking a running lab for Kubernetes' objects, by kind, namespace and name.

use serde_json::Value;

use crate::daemon::client::Client;
use crate::diag::{Problem, codes, did_you_mean};
use crate::objects::ObjectKey;
use crate::spec::edit::ObjectKind;

use super::output::text;

/// Where the objects of a kind are, of one namespace or of all.
pub fn path(kind: ObjectKind, namespace: Option<&str>) -> String {
    let (group, word) = match kind {
        ObjectKind::Pod => ("/api/v1", "pods"),
        ObjectKind::Service => ("/api/v1", "services"),
        ObjectKind::Endpoints => ("/api/v1", "endpoints"),
        ObjectKind::Secret => ("/api/v1", "secrets"),
        ObjectKind::ConfigMap => ("/api/v1", "configmaps"),
        ObjectKind::Ingress => ("/apis/networking.k8s.io/v1", "ingresses"),
        ObjectKind::IngressClass => return "/apis/networking.k8s.io/v1/ingressclasses".to_owned(),
        ObjectKind::Namespace => return "/api/v1/namespaces".to_owned(),
        ObjectKind::Deployment => ("/apis/apps/v1", "deployments"),
        ObjectKind::EndpointSlice => ("/apis/discovery.k8s.io/v1", "endpointslices"),
    };
    match namespace {
        Some(namespace) => format!("{group}/namespaces/{namespace}/{word}"),
        None => format!("{group}/{word}"),
    }
}

/// The objects of a kind.
pub fn list(client: &Client, kind: ObjectKind, namespace: Option<&str>) -> Result<Vec<Value>, Box<Problem>> {
    let mut list: Value = client.get(&path(kind, namespace))?;
    Ok(match list["items"].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    })
}

/// One object. Where it is not there, one that may have been meant is named, of any namespace.
pub fn one(client: &Client, kind: ObjectKind, key: &ObjectKey) -> Result<Value, Box<Problem>> {
    let all = list(client, kind, None)?;
    let called = |item: &&Value| {
        let namespace = text(item, "/metadata/namespace");
        text(item, "/metadata/name") == key.name && (namespace.is_empty() || namespace == key.namespace)
    };
    if let Some(found) = all.iter().find(called) {
        return Ok(found.clone());
    }
    let message = format!("{kind} \"{}\" not found in the namespace {}", key.name, key.namespace);
    let elsewhere = all.iter().find(|item| text(item, "/metadata/name") == key.name);
    let help = match elsewhere {
        Some(item) => format!("there is one in another namespace: `-n {}`", text(item, "/metadata/namespace")),
        None => match did_you_mean(&key.name, all.iter().map(|item| text(item, "/metadata/name"))) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`labctl get` with the kind and -A shows what there is".to_owned(),
        },
    };
    Err(Box::new(Problem::error(codes::TARGET_UNKNOWN, message).help(help)))
}
