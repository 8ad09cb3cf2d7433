//! The services that ingresses lead to: whether they are there and have the ports. A mistake is a
//! warning, because the service may come later; until then the controller answers 503.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::diag::{Problem, Problems, codes};
use crate::objects::{IngressBackend, ObjectKey, Service, ServicePort, protocol, service_type};
use crate::spec::at::At;

use super::near;
use super::resolve::Checked;

/// The lab's services by their keys.
pub(super) type Services<'a> = BTreeMap<ObjectKey, &'a Service>;

/// Tell of backends that lead nowhere.
pub(super) fn check(ingress: &Checked, services: &Services, problems: &mut Problems) {
    let Some(spec) = &ingress.object.spec else { return };
    if let Some(default) = &spec.default_backend {
        Check { ingress, services, path: "spec.defaultBackend".to_owned() }.backend(default, problems);
    }
    for (r, rule) in spec.rules.iter().flatten().enumerate() {
        for (p, path) in rule.http.iter().flat_map(|http| &http.paths).enumerate() {
            let at = format!("spec.rules[{r}].http.paths[{p}].backend");
            Check { ingress, services, path: at }.backend(&path.backend, problems);
        }
    }
}

/// Tell of a default backend for the whole controller that is not there. The lab file says who it is,
/// so this is an error, as are its other references to nothing.
pub(super) fn check_default(key: &ObjectKey, written: &At<String>, services: &Services, problems: &mut Problems) {
    match services.get(key) {
        None => problems.push(
            Problem::error(codes::INGRESS_BACKEND, format!("there is no service {key} to be the default backend"))
                .at(written.place, "not declared")
                .help(other_service(services, key)),
        ),
        Some(service) if is_alias(service) => problems.push(
            Problem::error(codes::INGRESS_BACKEND, format!("service {key} is an alias and has no pods"))
                .at(written.place, "cannot be the default backend")
                .help("name a service with pods"),
        ),
        Some(_) => {}
    }
}

struct Check<'a> {
    ingress: &'a Checked<'a>,
    services: &'a Services<'a>,
    /// Where the backend is.
    path: String,
}

impl Check<'_> {
    fn warn(&self, field: &str, message: &str, words: &str) -> Problem {
        let place = self.ingress.written.place(&format!("{}.{field}", self.path));
        Problem::warning(codes::INGRESS_BACKEND, format!("ingress {}: {message}", self.ingress.key())).at(place, words)
    }

    fn backend(&self, backend: &IngressBackend, problems: &mut Problems) {
        if let Some(resource) = &backend.resource {
            let message = format!("labctl does not act on the backend {} `{}`", resource.kind, resource.name);
            let problem = self.warn("resource", &message, "answered with 503");
            problems.push(problem.help("name a service: `service: { name: …, port: { number: 80 } }`"));
        }
        let Some(named) = &backend.service else { return };
        let key = ObjectKey::new(&self.ingress.key().namespace, &named.name);
        let Some(service) = self.services.get(&key) else {
            let problem = self.warn("service.name", &format!("there is no service {key}"), "answered with 503");
            return problems.push(problem.help(match problems.is_full() {
                true => String::new(),
                false => other_service(self.services, &key),
            }));
        };
        if is_alias(service) {
            let message = format!("service {key} is an alias (ExternalName) and has no pods");
            let problem = self.warn("service.name", &message, "answered with 503");
            return problems.push(problem.help("name a service with pods, or one without selector and its endpoints"));
        }
        let port = named.port.as_ref();
        let name = port.and_then(|p| p.name.as_deref()).filter(|n| !n.is_empty());
        let number = port.and_then(|p| p.number);
        let ports = ports(service);
        let has = |port: &&ServicePort| match name {
            Some(name) => port.name.as_deref() == Some(name),
            None => number == Some(port.port),
        };
        let is_tcp = |port: &&ServicePort| protocol(port.protocol.as_deref()) == "TCP";
        if !ports.iter().filter(has).any(|port| is_tcp(&port)) {
            let (field, word) = match name {
                Some(name) => ("service.port.name", format!("`{name}`")),
                None => ("service.port.number", number.unwrap_or_default().to_string()),
            };
            if let Some(other) = ports.iter().find(has) {
                let protocol = protocol(other.protocol.as_deref());
                let message = format!("port {word} of service {key} is for {protocol}, and HTTP needs TCP");
                let problem = self.warn(field, &message, "answered with 503");
                let tcp: Vec<ServicePort> = ports.iter().filter(is_tcp).cloned().collect();
                return problems.push(problem.help(other_port(&tcp, None, None)));
            }
            let problem = self.warn(field, &format!("service {key} has no port {word}"), "answered with 503");
            problems.push(problem.help(other_port(ports, name, number)));
        }
    }
}

fn is_alias(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| service_type(spec) == "ExternalName")
}

fn ports(service: &Service) -> &[ServicePort] {
    service.spec.as_ref().and_then(|s| s.ports.as_deref()).unwrap_or_default()
}

fn other_service(services: &Services, key: &ObjectKey) -> String {
    let beside = services.keys().filter(|k| k.namespace == key.namespace).map(|k| k.name.as_str());
    let elsewhere = services.keys().find(|k| k.name == key.name);
    match (near(&key.name, beside), elsewhere) {
        (Some(near), _) => format!("did you mean `{near}`?"),
        (None, Some(other)) => format!("there is {other}, but an ingress leads to services of its own namespace only"),
        (None, None) => format!("declare it: `services: {{ {}: {{ ports: [{{ port: 80 }}] }} }}`", key.name),
    }
}

fn other_port(ports: &[ServicePort], name: Option<&str>, number: Option<i32>) -> String {
    let shown = |port: &ServicePort| match port.name.as_deref().filter(|n| !n.is_empty()) {
        Some(name) => format!("{} (`{name}`)", port.port),
        None => port.port.to_string(),
    };
    let all: Vec<String> = ports.iter().map(shown).collect();
    let names = ports.iter().filter_map(|p| p.name.as_deref());
    let targeted = ports.iter().find(|p| match &p.target_port {
        Some(IntOrString::Int(target)) => number == Some(*target),
        _ => false,
    });
    match (name.and_then(|name| near(name, names)), targeted) {
        (Some(near), _) => format!("did you mean `{near}`? It has {}", all.join(", ")),
        (None, Some(port)) => format!("that is its pods' port; an ingress names the service's: {}", shown(port)),
        (None, None) if all.is_empty() => "it has none; give it `ports: [{ port: 80 }]`".to_owned(),
        (None, None) => format!("it has {}", all.join(", ")),
    }
}
