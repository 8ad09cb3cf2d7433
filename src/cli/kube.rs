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
    items(client, &path(kind, namespace))
}

/// The items of the list at a path.
pub fn items(client: &Client, path: &str) -> Result<Vec<Value>, Box<Problem>> {
    let mut list: Value = client.get(path)?;
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
    if !kind.is_namespaced() {
        return Err(not_found(&kind.to_string(), &key.name, None, all.iter().map(|item| text(item, "/metadata/name"))));
    }
    check_namespace(client, &key.namespace)?;
    let elsewhere = all.iter().find(|item| text(item, "/metadata/name") == key.name);
    let names = all.iter().map(|item| text(item, "/metadata/name"));
    let problem = not_found(&kind.to_string(), &key.name, Some(&key.namespace), names);
    Err(match elsewhere {
        Some(item) => {
            let namespace = text(item, "/metadata/namespace");
            Box::new(problem.help(format!("there is one in another namespace: `-n {namespace}`")))
        }
        None => problem,
    })
}

/// The one wording of what is not there: its kind, its name, where it was looked for, and one of `known`
/// that may have been meant.
pub fn not_found<'k>(
    kind: &str,
    name: &str,
    namespace: Option<&str>,
    known: impl IntoIterator<Item = &'k str>,
) -> Box<Problem> {
    let place = namespace.map(|n| format!(" in the namespace {n}")).unwrap_or_default();
    let help = match did_you_mean(name, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None if namespace.is_some() => "`labctl get` with the kind and -A shows what there is".to_owned(),
        None => "`labctl get` with the kind alone shows what there is".to_owned(),
    };
    Box::new(Problem::error(codes::TARGET_UNKNOWN, format!("{kind} \"{name}\" not found{place}")).help(help))
}

/// Refuse a namespace that is not there, which is most likely misspelt.
pub fn check_namespace(client: &Client, namespace: &str) -> Result<(), Box<Problem>> {
    let mut all: Vec<String> = vec!["default".to_owned()];
    let named = list(client, ObjectKind::Namespace, None)?;
    all.extend(named.iter().map(|n| text(n, "/metadata/name").to_owned()));
    if all.iter().any(|n| n == namespace) {
        return Ok(());
    }
    // A lab without services has no Namespace objects, and pods in namespaces all the same.
    let pods = list(client, ObjectKind::Pod, None)?;
    all.extend(pods.iter().map(|p| text(p, "/metadata/namespace").to_owned()));
    if all.iter().any(|n| n == namespace) {
        return Ok(());
    }
    Err(not_found("namespace", namespace, None, all.iter().map(String::as_str)))
}

/// What a daemon calls the pod of this name in this namespace; other machines are in none.
pub fn target(client: &Client, name: &str, namespace: Option<&str>) -> Result<String, Box<Problem>> {
    let Some(namespace) = namespace.filter(|n| *n != "default") else { return Ok(name.to_owned()) };
    check_namespace(client, namespace)?;
    let bare = name.strip_prefix("pod/").or_else(|| name.strip_prefix("po/")).unwrap_or(name);
    Ok(if bare.contains('/') { name.to_owned() } else { format!("{namespace}/{bare}") })
}
