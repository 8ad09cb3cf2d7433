//! Why a service leads nowhere, in words: its selector finds no pod, or no pod has the port that it
//! names. Kubernetes says none of this; it shows `<none>`.
//!
//! Pure: from a service and what is known of pods. When a file is read it is told as warnings, of a
//! running lab by `describe service` and `get endpoints`.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{ObjectKey, Service, ServicePort, headless, protocol, service_type};
use crate::diag::did_you_mean;

/// What is asked about a pod.
#[derive(Debug, Clone)]
pub struct Behind<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub labels: &'a BTreeMap<String, String>,
    /// Name, number and protocol of each container port.
    pub ports: Vec<(Option<&'a str>, u16, String)>,
    /// Whether it answers on these ports and no others: a program may listen on more than it says.
    pub only_these: bool,
}

/// One thing because of which connections to a service lead nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// The field that it is about, such as `spec.ports[0].targetPort`.
    pub path: String,
    /// What is the case, such as `no pod has the labels app=teh`.
    pub what: String,
    /// What to do, or what follows.
    pub help: String,
}

/// What keeps connections to `service` from reaching a pod of these. Nothing of one that has no
/// selector, or is an alias.
pub fn of_service<'a>(service: &Service, pods: impl Iterator<Item = &'a Behind<'a>> + Clone) -> Vec<Hint> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let Some(selector) = spec.selector.as_ref().filter(|s| !s.is_empty()) else { return Vec::new() };
    if service_type(spec) == "ExternalName" {
        return Vec::new();
    }
    let key = ObjectKey::of(&service.metadata);
    let has_all = |pod: &&Behind| selector.iter().all(|(k, v)| pod.labels.get(k) == Some(v));
    let mine: Vec<&Behind> = pods.clone().filter(|p| p.namespace == key.namespace).filter(has_all).collect();
    if mine.is_empty() {
        let elsewhere = pods.clone().find(has_all);
        return vec![no_pods(selector, elsewhere, pods)];
    }
    let ports = spec.ports.iter().flatten().enumerate();
    ports.filter_map(|(n, port)| unreached(n, port, &mine, headless(spec))).collect()
}

fn no_pods<'a>(
    selector: &BTreeMap<String, String>,
    elsewhere: Option<&Behind>,
    pods: impl Iterator<Item = &'a Behind<'a>>,
) -> Hint {
    let wanted = shown(selector);
    let others: BTreeSet<String> = pods.map(|p| shown(p.labels)).filter(|l| !l.is_empty()).collect();
    let help = match (elsewhere, did_you_mean(&wanted, others.iter().map(String::as_str))) {
        (Some(pod), _) => {
            let name = if pod.namespace == "default" {
                pod.name.to_owned()
            } else {
                format!("{}/{}", pod.namespace, pod.name)
            };
            format!("pod {name} has these labels, but a service sees pods of its own namespace only")
        }
        (None, Some(near)) => format!("did you mean {near}? Until a pod matches, connections are refused"),
        (None, None) => "until a pod has these labels, connections to the service are refused".to_owned(),
    };
    Hint { path: "spec.selector".to_owned(), what: format!("no pod has the labels {wanted}"), help }
}

fn shown(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",")
}

/// Why the service's port number `n` reaches none of its pods.
fn unreached(n: usize, port: &ServicePort, pods: &[&Behind], headless: bool) -> Option<Hint> {
    let path = format!("spec.ports[{n}].targetPort");
    match &port.target_port {
        Some(IntOrString::String(name)) => unnamed(name, pods).map(|(what, help)| Hint { path, what, help }),
        // Clients of a headless service ask pods on whatever port they like.
        _ if headless => None,
        Some(IntOrString::Int(number)) if *number != 0 => silent(*number, port, pods, path),
        _ => silent(port.port, port, pods, path),
    }
}

fn unnamed(name: &str, pods: &[&Behind]) -> Option<(String, String)> {
    let known: BTreeSet<&str> = pods.iter().flat_map(|p| &p.ports).filter_map(|(name, ..)| *name).collect();
    if known.contains(name) {
        return None;
    }
    let help = match did_you_mean(name, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "give a port of the pods this name, or write its number".to_owned(),
    };
    Some((format!("no port of its pods is called `{name}`"), help))
}

fn silent(number: i32, port: &ServicePort, pods: &[&Behind], path: String) -> Option<Hint> {
    let wanted = protocol(port.protocol.as_deref());
    let open = |pod: &&Behind| pod.ports.iter().filter(|(_, _, p)| p == wanted).map(|(_, n, _)| *n).collect::<Vec<_>>();
    let is_open = |pod: &&Behind| !pod.only_these || open(pod).iter().any(|n| i32::from(*n) == number);
    if pods.iter().any(is_open) {
        return None;
    }
    let all: BTreeSet<u16> = pods.iter().flat_map(open).collect();
    let help = match all.iter().collect::<Vec<_>>().as_slice() {
        [] => format!("they listen on no {wanted} port at all; give them one in `ports`"),
        [only] => format!("did you mean `targetPort: {only}`?"),
        several => {
            let words: Vec<String> = several.iter().map(ToString::to_string).collect();
            format!("they listen on {}; name one as `targetPort`", words.join(", "))
        }
    };
    Some(Hint { path, what: format!("none of its pods listens on {number}/{wanted}"), help })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn labels(app: &str) -> BTreeMap<String, String> {
        [("app".to_owned(), app.to_owned())].into()
    }

    fn pod<'a>(name: &'a str, labels: &'a BTreeMap<String, String>) -> Behind<'a> {
        let ports = vec![(Some("web"), 8080, "TCP".to_owned()), (None, 5353, "UDP".to_owned())];
        Behind { namespace: "default", name, labels, ports, only_these: true }
    }

    fn hints(spec: serde_json::Value, pods: &[Behind]) -> Vec<(String, String)> {
        let object = json!({ "metadata": { "name": "svc" }, "spec": spec });
        let service = serde_json::from_value(object).expect("a service");
        of_service(&service, pods.iter()).into_iter().map(|h| (h.path, format!("{}; {}", h.what, h.help))).collect()
    }

    #[test]
    fn a_selector_that_finds_nobody_names_labels_that_are_near() {
        let tea = labels("tea");
        let pods = [pod("a", &tea), Behind { namespace: "shop", ..pod("b", &tea) }];
        let said =
            |spec| hints(spec, &pods).pop().map(|(path, text)| (path == "spec.selector", text)).unwrap_or_default();
        assert!(hints(json!({ "selector": { "app": "tea" }, "ports": [{ "port": 8080 }] }), &pods).is_empty());
        let (place, text) = said(json!({ "selector": { "app": "teh" } }));
        assert!(place && text.contains("app=teh; did you mean app=tea?"), "{text}");
        let (_, text) = said(json!({ "selector": { "app": "tea", "tier": "front" } }));
        assert!(text.contains("no pod has the labels app=tea,tier=front; until"), "{text}");
        let elsewhere = hints(json!({ "selector": { "app": "tea" } }), &pods[1..]);
        assert!(elsewhere[0].1.contains("pod shop/b has these labels"), "{elsewhere:?}");
        assert_eq!(hints(json!({ "selector": {}, "ports": [{ "port": 1 }] }), &pods), []);
        let alias = json!({ "type": "ExternalName", "externalName": "x.org", "selector": { "app": "teh" } });
        assert_eq!(hints(alias, &pods), []);
    }

    #[test]
    fn a_target_port_that_nobody_has_is_told_with_the_one_that_may_be_meant() {
        let tea = labels("tea");
        let pods = [pod("a", &tea)];
        let ports = |ports: serde_json::Value| hints(json!({ "selector": { "app": "tea" }, "ports": ports }), &pods);
        assert_eq!(ports(json!([{ "port": 80, "targetPort": 8080 }, { "port": 81, "targetPort": "web" }])), []);
        let two = ports(json!([{ "port": 80 }, { "port": 81, "targetPort": "wed" }]));
        assert_eq!(two[0].1, "none of its pods listens on 80/TCP; did you mean `targetPort: 8080`?");
        assert_eq!(two[1].0, "spec.ports[1].targetPort");
        assert_eq!(two[1].1, "no port of its pods is called `wed`; did you mean `web`?");
        let udp = ports(json!([{ "port": 8080, "protocol": "UDP" }]));
        assert!(udp[0].1.contains("8080/UDP; did you mean `targetPort: 5353`?"), "{udp:?}");
    }

    #[test]
    fn a_program_may_listen_on_any_port_and_a_headless_service_is_asked_on_any() {
        let tea = labels("tea");
        let program = [Behind { only_these: false, ..pod("a", &tea) }];
        let spec = json!({ "selector": { "app": "tea" }, "ports": [{ "port": 80 }] });
        assert_eq!(hints(spec.clone(), &program), []);
        let mut headless = spec.clone();
        headless["clusterIP"] = "None".into();
        assert_eq!(hints(headless, &[pod("a", &tea)]), []);
        assert_eq!(hints(spec, &[pod("a", &tea)]).len(), 1);
    }
}
