//! Why nothing stands behind a service of a running lab, asked of its objects.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::daemon::client::Client;
use crate::diag::Problem;
use crate::objects::hints::{self, Behind};
use crate::objects::slices::SERVICE_NAME;
use crate::objects::{ObjectKey, Service, service_type};
use crate::spec::edit::ObjectKind;

use super::kube;
use super::output::text;

/// What keeps connections to a service from reaching a pod, a sentence each; nothing where they do.
pub fn notes(client: &Client, service: &Value) -> Result<Vec<String>, Box<Problem>> {
    let Ok(typed) = serde_json::from_value::<Service>(service.clone()) else { return Ok(Vec::new()) };
    let key = ObjectKey::of(&typed.metadata);
    let slices = slices(client, &key)?;
    let has_selector = typed.spec.as_ref().and_then(|s| s.selector.as_ref()).is_some_and(|s| !s.is_empty());
    if typed.spec.as_ref().is_some_and(|s| service_type(s) == "ExternalName") {
        let alias = text(service, "/spec/externalName");
        return Ok(vec![format!("it is another name of {alias}, and DNS is all that it has")]);
    }
    if !has_selector && slices.is_empty() {
        return Ok(vec!["it has no selector, and nobody has written endpoints for it".to_owned()]);
    }
    let pods: Vec<Facts> = kube::list(client, ObjectKind::Pod, None)?.into_iter().map(Facts::of).collect();
    let behind: Vec<Behind> = pods.iter().map(Facts::behind).collect();
    let found = hints::of_service(&typed, behind.iter());
    if !found.is_empty() {
        return Ok(found.into_iter().map(|h| format!("{}; {}", h.what, h.help)).collect());
    }
    let waiting: Vec<&str> = slices.iter().flat_map(not_ready).collect();
    let any = slices.iter().any(|s| endpoints(s).any(|e| e["conditions"]["ready"] != false));
    Ok(match (any, waiting.is_empty()) {
        (false, false) => vec![format!("its pods are not ready: {}", waiting.join(", "))],
        (false, true) => vec!["its endpoint slices have no endpoints".to_owned()],
        (true, _) => Vec::new(),
    })
}

/// The slices of a service.
pub fn slices(client: &Client, key: &ObjectKey) -> Result<Vec<Value>, Box<Problem>> {
    let all = kube::list(client, ObjectKind::EndpointSlice, Some(&key.namespace))?;
    Ok(all.into_iter().filter(|s| s["metadata"]["labels"][SERVICE_NAME] == key.name.as_str()).collect())
}

/// Whether an Endpoints object has an address that connections go to.
pub fn has_ready(object: &Value) -> bool {
    let subsets = object["subsets"].as_array().into_iter().flatten();
    subsets.flat_map(|s| s["addresses"].as_array()).any(|all| !all.is_empty())
}

fn endpoints(slice: &Value) -> impl Iterator<Item = &Value> {
    slice["endpoints"].as_array().into_iter().flatten()
}

fn not_ready(slice: &Value) -> impl Iterator<Item = &str> {
    endpoints(slice).filter(|e| e["conditions"]["ready"] == false).map(|e| match text(e, "/targetRef/name") {
        "" => text(e, "/addresses/0"),
        name => name,
    })
}

/// A pod, with its labels as a map.
struct Facts {
    pod: Value,
    labels: BTreeMap<String, String>,
}

impl Facts {
    fn of(mut pod: Value) -> Facts {
        let labels = serde_json::from_value(pod["metadata"]["labels"].take()).unwrap_or_default();
        Facts { pod, labels }
    }

    fn behind(&self) -> Behind<'_> {
        let containers = || self.pod["spec"]["containers"].as_array().into_iter().flatten();
        let ports = containers().flat_map(|c| c["ports"].as_array().into_iter().flatten());
        let port = |p: &'_ Value| {
            let number = p["containerPort"].as_u64().and_then(|n| n.try_into().ok());
            number.map(|number: u16| (number, text(p, "/protocol").to_owned()))
        };
        Behind {
            namespace: text(&self.pod, "/metadata/namespace"),
            name: text(&self.pod, "/metadata/name"),
            labels: &self.labels,
            ports: ports
                .filter_map(|p| port(p).map(|(number, protocol)| (p["name"].as_str(), number, protocol)))
                .collect(),
            only_these: containers().all(|c| c["image"] == "labctl/echo"),
        }
    }
}
