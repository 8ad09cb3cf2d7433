//! Objects as they are named on the command line: `pod tea-1 tea-2`, `svc/tea-svc`, `-n shop`.

use crate::diag::{Problem, codes, did_you_mean};
use crate::objects::ObjectKey;
use crate::spec::edit::{ObjectKind, ObjectRef};

/// The objects that words such as `pod tea-1 tea-2` or `svc/tea-svc` name.
pub fn objects(words: &[String], namespace: Option<&str>) -> Result<Vec<ObjectRef>, Box<Problem>> {
    let Some(first) = words.first() else { return Ok(Vec::new()) };
    let all: Vec<(&str, &str)> = match first.split_once('/') {
        Some(_) => words.iter().map(|w| w.split_once('/').unwrap_or((w, ""))).collect(),
        None => words[1..].iter().map(|name| (first.as_str(), name.as_str())).collect(),
    };
    if all.is_empty() {
        let problem = Problem::error(codes::TARGET_UNKNOWN, format!("`{first}` alone names nothing"));
        return Err(Box::new(problem.help("name a kind and a name, such as `service tea-svc` or `pod/tea-1`")));
    }
    all.into_iter().map(|(kind, name)| object(kind, name, namespace)).collect()
}

fn object(word: &str, name: &str, namespace: Option<&str>) -> Result<ObjectRef, Box<Problem>> {
    let Some(kind) = ObjectKind::of(word) else {
        let kinds = [
            "pod",
            "deployment",
            "service",
            "endpointslice",
            "endpoints",
            "ingress",
            "ingressclass",
            "secret",
            "configmap",
            "namespace",
        ];
        let help = match did_you_mean(word, kinds) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there are {}", kinds.join(", ")),
        };
        let problem = Problem::error(codes::TARGET_UNKNOWN, format!("`{word}` is no kind of object"));
        return Err(Box::new(problem.help(help)));
    };
    let namespace = namespace.filter(|_| kind.is_namespaced());
    Ok(ObjectRef { kind, key: key(name, namespace) })
}

/// An object's key. A name may have its namespace in front, as `labctl` shows it where that is not
/// `default`.
pub fn key(name: &str, namespace: Option<&str>) -> ObjectKey {
    match (namespace, name.split_once('/')) {
        (None | Some("default"), Some((namespace, name))) => ObjectKey::new(namespace, name),
        (namespace, _) => ObjectKey::new(namespace.unwrap_or("default"), name),
    }
}

/// A key as it is typed: with its namespace where that is not `default`.
pub fn typed(key: &ObjectKey) -> String {
    if key.namespace == "default" { key.name.clone() } else { key.to_string() }
}
