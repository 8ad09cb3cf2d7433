//! `describe deployment`: a deployment with its pods, in the way of kubectl.

use serde_json::{Value, json};

use crate::daemon::client::Client;
use crate::diag::Problem;
use crate::objects::ObjectKey;
use crate::spec::edit::ObjectKind;

use super::describe::Lines;
use super::output::text;
use super::{kube, tables};

/// All that is known of a deployment: the object and its pods.
pub fn ask(client: &Client, key: &ObjectKey) -> Result<Value, Box<Problem>> {
    let object = kube::one(client, ObjectKind::Deployment, key)?;
    let mut pods = kube::list(client, ObjectKind::Pod, Some(&key.namespace))?;
    pods.retain(|pod| text(pod, "/metadata/ownerReferences/0/name") == key.name);
    Ok(json!({ "kind": "deployment", "object": object, "pods": pods }))
}

pub fn draw(all: &Value) -> String {
    let object = &all["object"];
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
    let mut out = Lines::default();
    out.line("Name", text(object, "/metadata/name"));
    out.line("Namespace", text(object, "/metadata/namespace"));
    out.line("Selector", tables::pairs(object.pointer("/spec/selector/matchLabels")));
    out.line(
        "Replicas",
        format!(
            "{} desired | {} updated | {} total | {} available | {} unavailable",
            number("/spec/replicas"),
            number("/status/updatedReplicas"),
            number("/status/replicas"),
            number("/status/availableReplicas"),
            number("/status/unavailableReplicas"),
        ),
    );
    out.line("Age", tables::since(object));
    out.block("Pods", &tables::pods(all["pods"].as_array().map(Vec::as_slice).unwrap_or_default()));
    out.take()
}
