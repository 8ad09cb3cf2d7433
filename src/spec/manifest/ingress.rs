//! Ingresses and their classes. Manifests of the versions before networking.k8s.io/v1 are rewritten into
//! that one; the controller's service is made here, out of what is written under `cluster.ingress`.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass, IngressClassSpec, IngressSpec};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::section::{self, Section};
use super::tree::Maker;
use super::{Written, object};
use crate::diag::{Place, Problem, Problems, codes};
use crate::spec::at::At;
use crate::spec::node::{Entry, Node, Value};
use crate::spec::types::{ControllerServiceType, IngressSettings, TrafficPolicy};

const INGRESSES: Section = Section {
    name: "ingresses",
    example: "ingresses: { cafe: { defaultBackend: { service: { name: tea-svc, port: { number: 80 } } } } }",
    spec: true,
};
const CLASSES: Section = Section {
    name: "ingressClasses",
    example: "ingressClasses: { nginx: { controller: k8s.io/ingress-nginx } }",
    spec: true,
};
/// Since 1.22 the only version that is served.
const VERSION: &str = "networking.k8s.io/v1";

/// The ingresses of the section `ingresses`.
pub fn of_section(section: Node, problems: &mut Problems) -> Vec<Written<Ingress>> {
    let all = INGRESSES.entries(section, problems).into_iter();
    all.filter_map(|entry| read(INGRESSES.manifest(entry), problems)).collect()
}

/// The classes of the section `ingressClasses`.
pub fn classes_of_section(section: Node, problems: &mut Problems) -> Vec<Written<IngressClass>> {
    CLASSES.read(section, problems)
}

/// A manifest's ingress, of whichever version; nothing where it has an error, which is reported.
pub fn ingress(document: Node, problems: &mut Problems) -> Option<Written<Ingress>> {
    read(document, problems)
}

/// A manifest's class; nothing where it has an error, which is reported.
pub fn class(mut document: Node, problems: &mut Problems) -> Option<Written<IngressClass>> {
    set_version(&mut document);
    object(document, problems)
}

pub fn schema(generator: &mut SchemaGenerator) -> Schema {
    let spec = IngressSpec::json_schema(generator);
    // The only field that Kubernetes' own description leaves without one.
    let rule = generator.definitions_mut().get_mut("io.k8s.api.networking.v1.IngressRule");
    if let Some(http) = rule.and_then(|rule| rule.pointer_mut("/properties/http")).and_then(|http| http.as_object_mut())
    {
        http.insert("description".to_owned(), "Paths and where they lead.".into());
    }
    section::schema(spec, "ingress", true)
}

pub fn class_schema(generator: &mut SchemaGenerator) -> Schema {
    section::schema(IngressClassSpec::json_schema(generator), "class", false)
}

fn set_version(document: &mut Node) {
    if let Value::Map(entries) = &mut document.value {
        for entry in entries.iter_mut().filter(|e| e.key.text == "apiVersion") {
            entry.value.value = Value::Text(VERSION.to_owned());
        }
    }
}

/// Rewrite what an older version has otherwise, say so, and read it.
fn read(mut document: Node, problems: &mut Problems) -> Option<Written<Ingress>> {
    let written = document.get("apiVersion").and_then(Node::text).unwrap_or(VERSION).to_owned();
    let mut rewriter = Rewriter { make: Maker::new(), old: written != VERSION, found: Vec::new(), path_types: 0 };
    rewriter.ingress(&mut document);
    if rewriter.old {
        problems.push(rewriter.note(&written, document.place_of("apiVersion")));
    } else {
        problems.extend(rewriter.found.iter().map(Found::fault));
    }
    set_version(&mut document);
    object(document, problems)
}

/// Where something of an older version was found, and how it reads today.
struct Found {
    field: String,
    place: Place,
    now: String,
}

impl Found {
    /// What is wrong where the document says that it is of today's version.
    fn fault(&self) -> Problem {
        let message = format!("there is no field `{}` in {VERSION}; older versions had it", self.field);
        let place = self.place;
        Problem::error(codes::SPEC_UNKNOWN_FIELD, message).at(place, "not known").help(format!("write `{}`", self.now))
    }
}

struct Rewriter {
    make: Maker,
    /// Whether the document is of an older version, which may leave `pathType` out.
    old: bool,
    found: Vec<Found>,
    /// How many paths had no type.
    path_types: usize,
}

impl Rewriter {
    fn ingress(&mut self, document: &mut Node) {
        let Some(spec) = value_mut(document, "spec") else { return };
        if let Value::Map(fields) = &mut spec.value
            && let Some(entry) = fields.iter().position(|e| e.key.text == "backend")
        {
            let before = self.found.len();
            self.backend(&mut fields[entry].value);
            // What is within is shown with the whole.
            self.found.truncate(before);
            let now = format!("defaultBackend: {}", shown(&fields[entry].value));
            self.found.push(Found { field: "backend".to_owned(), place: fields[entry].key.place, now });
            fields[entry].key.text = "defaultBackend".to_owned();
        } else if let Some(backend) = value_mut(spec, "defaultBackend") {
            self.backend(backend);
        }
        let Some(rules) = value_mut(spec, "rules") else { return };
        for rule in items_mut(rules) {
            let paths = value_mut(rule, "http").and_then(|http| value_mut(http, "paths"));
            paths.into_iter().flat_map(items_mut).for_each(|path| self.path(path));
        }
    }

    fn path(&mut self, path: &mut Node) {
        if let Some(backend) = value_mut(path, "backend") {
            self.backend(backend);
        }
        if self.old
            && path.get("pathType").is_none_or(|t| t.value == Value::Null)
            && let Value::Map(fields) = &mut path.value
        {
            self.path_types += 1;
            fields.retain(|e| e.key.text != "pathType");
            let kind = self.make.text("ImplementationSpecific", path.place);
            fields.push(self.make.entry("pathType", kind));
        }
    }

    /// `serviceName` and `servicePort` become `service: { name, port: { number or name } }`.
    fn backend(&mut self, backend: &mut Node) {
        let place = backend.place;
        let Value::Map(fields) = &mut backend.value else { return };
        let mut take = |key: &str| fields.iter().position(|e| e.key.text == key).map(|at| fields.remove(at));
        let (name, port) = (take("serviceName"), take("servicePort"));
        let Some(first) = name.as_ref().or(port.as_ref()).map(|e| (e.key.text.clone(), e.key.place)) else { return };
        let mut service = Vec::new();
        service.extend(name.map(|e| self.make.entry("name", e.value)));
        if let Some(Entry { value, .. }) = port {
            let place = value.place;
            // In the older versions a number may also be written as a text.
            let (key, value) = match number(&value) {
                Some(number) => ("number", Node { value: Value::Int(number), ..value }),
                None => ("name", value),
            };
            let port = vec![self.make.entry(key, value)];
            let port = self.make.map(port, place);
            service.push(self.make.entry("port", port));
        }
        let service = self.make.map(service, place);
        let entry = self.make.entry("service", service);
        let now = format!("service: {}", shown(&entry.value));
        fields.push(entry);
        self.found.push(Found { field: first.0, place: first.1, now });
    }

    /// That the version is gone, with how the same is written now.
    fn note(&self, version: &str, place: Place) -> Problem {
        let mut now = vec![format!("`apiVersion: {VERSION}`")];
        let sample = |field: &str| self.found.iter().find(|f| (f.field == "backend") == (field == "backend"));
        if let Some(found) = sample("serviceName") {
            now.push(format!("each backend as `{}`", found.now));
        }
        if let Some(found) = sample("backend") {
            now.push(format!("`{}` in place of `backend`", found.now));
        }
        if self.path_types > 0 {
            now.push("`pathType: ImplementationSpecific` beside each path".to_owned());
        }
        let message = format!("Ingress is no longer served as {version}: since Kubernetes 1.22 it is of {VERSION}");
        Problem::warning(codes::OBJECT_VERSION, message)
            .at(place, "read all the same")
            .help(format!("write {}", now.join(", ")))
    }
}

fn number(value: &Node) -> Option<i64> {
    match &value.value {
        Value::Int(number) => Some(*number),
        Value::Text(text) => text.parse().ok(),
        _ => None,
    }
}

fn value_mut<'n>(node: &'n mut Node, key: &str) -> Option<&'n mut Node> {
    match &mut node.value {
        Value::Map(entries) => entries.iter_mut().find(|e| e.key.text == key).map(|e| &mut e.value),
        _ => None,
    }
}

fn items_mut(node: &mut Node) -> &mut [Node] {
    match &mut node.value {
        Value::List(items) => items,
        _ => &mut [],
    }
}

/// A small part of a tree as it is written on one line.
fn shown(node: &Node) -> String {
    match &node.value {
        Value::Map(entries) => {
            let all: Vec<String> = entries.iter().map(|e| format!("{}: {}", e.key.text, shown(&e.value))).collect();
            format!("{{ {} }}", all.join(", "))
        }
        Value::List(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", ")),
        Value::Text(text) => text.clone(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::Null => String::new(),
    }
}

/// What the controller's service is called.
pub struct ControllerNames {
    pub namespace: &'static str,
    pub name: &'static str,
    /// The label of its pods, and its own.
    pub label: (&'static str, &'static str),
    /// Names and numbers of its ports, that of http first.
    pub ports: [(&'static str, i64); 2],
}

/// The service in front of the ingress controller's pods, each field at the place where it was
/// asked for, or at that of `cluster.ingress`.
pub fn controller_service(
    settings: Option<&At<IngressSettings>>,
    names: &ControllerNames,
    problems: &mut Problems,
) -> Option<Written<Service>> {
    let unwritten = At::default();
    let settings = settings.unwrap_or(&unwritten);
    let place = Place { end: settings.place.end.min(settings.place.start + 40), ..settings.place };
    let mut b = Builder { make: Maker::new(), place };
    let service = &settings.service;
    let mut ports = Vec::new();
    for ((name, number), wanted) in names.ports.iter().zip([&service.node_ports.http, &service.node_ports.https]) {
        let node_port = wanted.as_ref().map(|p| (i64::from(p.value.0), p.place));
        ports.push(b.port(name, *number, node_port));
    }
    let kind = service.kind.unwrap_or(At::new(ControllerServiceType::default(), place));
    let kind_text = match kind.value {
        ControllerServiceType::LoadBalancer => "LoadBalancer",
        ControllerServiceType::NodePort => "NodePort",
    };
    let label = |b: &mut Builder| {
        let value = b.text(names.label.1);
        let entry = b.make.entry(names.label.0, value);
        b.make.map(vec![entry], place)
    };
    let (labels, selector) = (label(&mut b), label(&mut b));
    let ports = b.make.list(ports, place);
    let kind = b.make.text(kind_text, kind.place);
    let mut spec = vec![b.make.entry("type", kind), b.make.entry("selector", selector), b.make.entry("ports", ports)];
    if let Some(policy) = &service.external_traffic_policy {
        let word = if policy.value == TrafficPolicy::Local { "Local" } else { "Cluster" };
        let word = b.make.text(word, policy.place);
        spec.push(b.make.entry("externalTrafficPolicy", word));
    }
    let (name, namespace) = (b.text(names.name), b.text(names.namespace));
    let metadata =
        vec![b.make.entry("name", name), b.make.entry("namespace", namespace), b.make.entry("labels", labels)];
    let metadata = b.make.map(metadata, place);
    let spec = b.make.map(spec, place);
    let all = vec![b.make.entry("metadata", metadata), b.make.entry("spec", spec)];
    object(b.make.map(all, place), problems)
}

/// Makes parts of a tree that stand at one place.
struct Builder {
    make: Maker,
    place: Place,
}

impl Builder {
    fn text(&mut self, text: &str) -> Node {
        self.make.text(text, self.place)
    }

    fn port(&mut self, name: &str, number: i64, node_port: Option<(i64, Place)>) -> Node {
        let name_node = self.text(name);
        let target = self.text(name);
        let port = self.make.number(number, self.place);
        let mut fields = vec![
            self.make.entry("name", name_node),
            self.make.entry("port", port),
            self.make.entry("targetPort", target),
        ];
        if let Some((number, place)) = node_port {
            let node = self.make.number(number, place);
            fields.push(self.make.entry("nodePort", node));
        }
        self.make.map(fields, self.place)
    }
}
