//! Pods and deployments of manifests, in the lab file's shape.
//!
//! A manifest is first read as Kubernetes' own type, so that what is wrong with it is found as
//! kubectl would find it. Then the fields that a lab acts on are put together as in a lab file.
//! There are no images here: the built-in echo server answers on a container's ports in place of
//! its image, also where the manifest names a command, because that is in the image.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;

use super::object;
use super::tree::{Maker, entries, only};
use crate::diag::{Place, Problem, Problems, codes};
use crate::spec::at::At;
use crate::spec::de::decode_whole;
use crate::spec::node::{Entry, Node, Value};
use crate::spec::types::{DeploymentSpec, PodSpec};

/// Fields of a pod's spec that a lab's pod has under the same name.
const POD_FIELDS: &[&str] =
    &["hostname", "subdomain", "restartPolicy", "terminationGracePeriodSeconds", "dnsPolicy", "dnsConfig"];
/// Fields of a container that a lab's container has, too.
const CONTAINER_FIELDS: &[&str] = &["name", "ports", "readinessProbe"];
/// What `get -o yaml` calls the servers that labctl has built in.
const OWN_IMAGES: &str = "labctl/";
const PORT_FIELDS: &[&str] = &["name", "containerPort", "protocol", "hostPort", "hostIP"];

/// Fields that change what a pod does in its network, and are not acted on.
const MISSED: &[(&str, &str)] = &[
    ("hostNetwork", "the pod gets a network namespace of its own all the same"),
    ("hostAliases", "the pod's /etc/hosts does not get these names"),
    ("setHostnameAsFQDN", "the pod's hostname is its name"),
    ("nodeSelector", "the pod is placed by number; name its host in `nodeName`"),
    ("affinity", "the pod is placed by number; name its host in `nodeName`"),
    ("topologySpreadConstraints", "the pod is placed by number; name its host in `nodeName`"),
    ("readinessGates", "the pod is ready when its containers are"),
    ("initContainers", "no image runs here, so nothing runs before the pod"),
];

/// A manifest's pod; nothing where it has an error, which is reported.
pub fn pod(document: Node, problems: &mut Problems) -> Option<(At<String>, PodSpec)> {
    let written = object::<Pod>(document, problems)?;
    let node = &written.node;
    let name = At::new(written.object.metadata.name.clone()?, written.name_place());
    let mut make = Maker::new();
    let mut fields = metadata_fields(node.get("metadata"), &["namespace", "labels"]);
    fields.extend(spec_fields(&mut make, node.get("spec")?, problems));
    decoded(make.map(fields, node.place), problems).map(|spec| (name, spec))
}

/// A manifest's deployment; nothing where it has an error, which is reported.
pub fn deployment(document: Node, problems: &mut Problems) -> Option<(At<String>, DeploymentSpec)> {
    // The older versions of the API have the same fields as far as a lab acts on them.
    let written = object::<Deployment>(at_todays_version(document), problems)?;
    let node = &written.node;
    let name = At::new(written.object.metadata.name.clone()?, written.name_place());
    check_selector(&written.object, node, problems);
    let template = node.get("spec")?.get("template")?;
    let mut make = Maker::new();
    let mut fields = metadata_fields(node.get("metadata"), &["namespace"]);
    fields.extend(metadata_fields(template.get("metadata"), &["labels"]));
    fields.extend(node.get("spec")?.entry("replicas").cloned());
    let pod = spec_fields(&mut make, template.get("spec")?, problems);
    fields.extend(pod.into_iter().filter(|e| !matches!(e.key.text.as_str(), "host" | "restartPolicy" | "hostname")));
    decoded(make.map(fields, node.place), problems).map(|spec| (name, spec))
}

fn at_todays_version(mut document: Node) -> Node {
    if let Value::Map(entries) = &mut document.value {
        for entry in entries.iter_mut().filter(|e| e.key.text == "apiVersion") {
            entry.value.value = Value::Text("apps/v1".to_owned());
        }
    }
    document
}

/// As the API server has it: a deployment must select its own pods.
fn check_selector(deployment: &Deployment, node: &Node, problems: &mut Problems) {
    let Some(spec) = &deployment.spec else { return };
    let wanted = spec.selector.match_labels.iter().flatten();
    let labels = spec.template.metadata.as_ref().and_then(|m| m.labels.as_ref());
    let has = |key: &String, value: &String| labels.is_some_and(|l| l.get(key) == Some(value));
    if let Some((key, value)) = wanted.into_iter().find(|(key, value)| !has(key, value)) {
        let message = format!(
            "spec.template.metadata.labels: Invalid value: the selector wants `{key}: {value}`, the pods do not have it"
        );
        problems.push(
            Problem::error(codes::OBJECT_INVALID, message)
                .at(node.place_of("spec.selector"), "this selector")
                .help("`selector` must match the template's labels"),
        );
    }
}

fn metadata_fields(metadata: Option<&Node>, keys: &[&str]) -> Vec<Entry> {
    metadata.map(|m| entries(only(m.clone(), keys))).unwrap_or_default()
}

/// The fields of a pod's spec, as a lab file has them.
fn spec_fields(make: &mut Maker, spec: &Node, problems: &mut Problems) -> Vec<Entry> {
    for (field, so) in MISSED {
        if let Some(entry) = spec.entry(field).filter(|e| changes_something(&e.value)) {
            problems.push(no_effect(field, so, entry.key.place));
        }
    }
    let mut fields = entries(only(spec.clone(), POD_FIELDS));
    fields.extend(spec.get("nodeName").cloned().map(|node| make.entry("host", node)));
    if let Some(containers) = spec.get("containers") {
        let all = containers.items().iter().map(|c| container(make, c.clone(), problems)).collect();
        let list = make.list(all, containers.place);
        fields.push(make.entry("containers", list));
    }
    fields
}

/// Values that say what is so anyway.
fn changes_something(value: &Node) -> bool {
    !matches!(value.value, Value::Bool(false) | Value::Null)
}

fn container(make: &mut Maker, container: Node, problems: &mut Problems) -> Node {
    for field in ["command", "args"] {
        if let Some(entry) = container.entry(field) {
            let so = "no images run here, the echo server answers on the container's ports";
            problems.push(no_effect(field, so, entry.key.place));
        }
    }
    if let Some(image) = container.entry("image") {
        note_image(image, problems);
    }
    let place = container.place;
    let mut fields = entries(only(container, CONTAINER_FIELDS));
    for entry in fields.iter_mut().filter(|e| e.key.text == "ports") {
        let ports = entry.value.items().iter().map(|p| without_zeros(only(p.clone(), PORT_FIELDS))).collect();
        entry.value.value = Value::List(ports);
    }
    make.map(fields, place)
}

/// A port without what the API takes for not written: a host's port of 0, an empty address.
fn without_zeros(mut port: Node) -> Node {
    if let Value::Map(entries) = &mut port.value {
        entries.retain(|e| match (e.key.text.as_str(), &e.value.value) {
            ("hostPort", value) => *value != Value::Int(0),
            ("hostIP", value) => *value != Value::Text(String::new()),
            _ => true,
        });
    }
    port
}

/// Whoever expects a web page gets the echo server's answer. Every manifest has images, so it is said once
/// of each text.
fn note_image(image: &Entry, problems: &mut Problems) {
    let place = image.value.place;
    let told = |p: &Problem| p.code == codes::IMAGE_NOT_RUN && p.labels.iter().any(|(at, _)| at.source == place.source);
    let Some(name) = image.value.text().filter(|name| !name.starts_with(OWN_IMAGES)) else { return };
    if problems.iter().any(told) {
        return;
    }
    problems.push(
        Problem::warning(codes::IMAGE_NOT_RUN, format!("the image `{name}` is not run, nor any other of this file"))
            .at(place, "the echo server answers on the container's ports")
            .help("a pod of the lab file can run a program of this machine: `command: [nginx, -g, daemon off;]`"),
    );
}

fn no_effect(field: &str, so: &str, place: Place) -> Problem {
    let help = match field {
        "hostNetwork" => "give the containers' ports a `hostPort`, and the pod's host answers on it",
        _ => "take it out where that is meant, or write the pod in the lab file",
    };
    Problem::warning(codes::OBJECT_FIELD, format!("labctl does not act on `{field}`: {so}"))
        .at(place, "has no effect")
        .help(help)
}

fn decoded<T: serde::de::DeserializeOwned + Default>(node: Node, problems: &mut Problems) -> Option<T> {
    let mut found = Problems::default();
    let value = decode_whole::<T>(node, &mut found);
    let sound = !found.has_errors();
    problems.extend(found);
    sound.then_some(value)
}
