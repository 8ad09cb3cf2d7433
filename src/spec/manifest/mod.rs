//! Kubernetes manifests: objects as people write them for kubectl, one or several to a file.
//!
//! A document becomes a tree as a lab file does, so that every value knows its place, and the tree
//! becomes one of Kubernetes' own types. Pods and deployments are rewritten into the lab file's
//! shape ([`workload`]), and objects of a lab file's sections into a manifest's (`section`), so that
//! behind this module there is one form of each. [`given`] takes objects as they are. What the objects mean is not asked here.

pub mod given;
pub mod ingress;
pub mod kinds;
pub mod secret;
mod section;
pub mod service;
mod tree;
pub mod workload;

use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;

use super::at::At;
use super::de::decode_whole;
use super::node::{Entry, Node, Value};
use super::types::{DeploymentSpec, PodSpec};
use super::yaml;
use crate::diag::{Place, Problem, Problems, codes};
use crate::objects::ObjectKey;

/// An object, and the tree that it was read from.
#[derive(Debug, Clone, PartialEq)]
pub struct Written<T> {
    pub object: T,
    node: Node,
}

impl<T> Written<T> {
    /// Where a field such as `spec.ports[0].port` is written, or the nearest part around it.
    pub fn place(&self, path: &str) -> Place {
        // As the API server writes the path to an annotation, whose own name has dots.
        if let Some(key) = path.strip_prefix("annotations.") {
            return self.value_place("metadata.annotations", key);
        }
        let place = self.node.place_of(path);
        // Drawing a whole object helps nobody.
        if place == self.node.place { self.node.place_of("metadata.name") } else { place }
    }

    /// Where the key of an entry of the map at `path` is written, such as that of an annotation.
    pub fn key_place(&self, path: &str, key: &str) -> Place {
        self.entry(path, key).map_or_else(|| self.place(path), |entry| entry.key.place)
    }

    /// The same of the entry's value.
    pub fn value_place(&self, path: &str, key: &str) -> Place {
        let place = self.entry(path, key).map_or_else(|| self.place(path), |entry| entry.value.place);
        Place { end: place.end.min(place.start + 60), ..place }
    }

    fn entry(&self, path: &str, key: &str) -> Option<&Entry> {
        path.split('.').try_fold(&self.node, |node, part| node.get(part))?.entry(key)
    }

    /// Whether it stands in the lab file itself and not in a manifest. A text's own source is the first.
    pub fn is_of_lab_file(&self) -> bool {
        self.name_place().source == 0
    }

    /// Where its name is written.
    pub fn name_place(&self) -> Place {
        self.node.place_of("metadata.name")
    }
}

/// The objects of a lab, in the order they were written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Objects {
    pub services: Vec<Written<Service>>,
    pub slices: Vec<Written<EndpointSlice>>,
    pub endpoints: Vec<Written<Endpoints>>,
    pub namespaces: Vec<Written<Namespace>>,
    pub ingresses: Vec<Written<Ingress>>,
    pub ingress_classes: Vec<Written<IngressClass>>,
    pub secrets: Vec<Written<Secret>>,
    /// Secrets that the lab file wants to be made, at the place of their names.
    pub generate: Vec<At<ObjectKey>>,
    pub config_maps: Vec<Written<ConfigMap>>,
    /// Pods in the lab file's shape.
    pub pods: Vec<(At<String>, PodSpec)>,
    /// Deployments in the lab file's shape.
    pub deployments: Vec<(At<String>, DeploymentSpec)>,
}

impl Objects {
    pub fn is_empty(&self) -> bool {
        *self == Objects::default()
    }

    /// Put those that name no namespace into this one, as kubectl's `-n` does. One that names another
    /// is told.
    pub fn put_into(&mut self, namespace: &str, problems: &mut Problems) {
        let mut put = |meta: &mut ObjectMeta, place: Place| match meta.namespace.as_deref() {
            None | Some("") => meta.namespace = Some(namespace.to_owned()),
            Some(other) => problems.extend(in_another(other, namespace, place)),
        };
        for service in &mut self.services {
            let place = service.place("metadata.namespace");
            put(&mut service.object.metadata, place);
        }
        for slice in &mut self.slices {
            let place = slice.place("metadata.namespace");
            put(&mut slice.object.metadata, place);
        }
        for endpoints in &mut self.endpoints {
            let place = endpoints.place("metadata.namespace");
            put(&mut endpoints.object.metadata, place);
        }
        for ingress in &mut self.ingresses {
            let place = ingress.place("metadata.namespace");
            put(&mut ingress.object.metadata, place);
        }
        for secret in &mut self.secrets {
            let place = secret.place("metadata.namespace");
            put(&mut secret.object.metadata, place);
        }
        for map in &mut self.config_maps {
            let place = map.place("metadata.namespace");
            put(&mut map.object.metadata, place);
        }
        let pods = self.pods.iter_mut().map(|(name, pod)| (name.place, &mut pod.namespace));
        let deployments = self.deployments.iter_mut().map(|(name, spec)| (name.place, &mut spec.namespace));
        for (place, written) in pods.chain(deployments) {
            match written {
                None => *written = Some(At::new(namespace.to_owned(), place)),
                Some(other) => problems.extend(in_another(other, namespace, other.place)),
            }
        }
    }

    /// Those of a lab file's sections.
    pub(super) fn of_sections(document: &Node, problems: &mut Problems) -> Objects {
        let mut all = Objects::default();
        let section = |name: &str| document.get(name).cloned();
        if let Some(services) = section("services") {
            all.services = service::of_section(services, problems);
        }
        if let Some(ingresses) = section("ingresses") {
            all.ingresses = ingress::of_section(ingresses, problems);
        }
        if let Some(classes) = section("ingressClasses") {
            all.ingress_classes = ingress::classes_of_section(classes, problems);
        }
        if let Some(secrets) = section("secrets") {
            secret::of_section(secrets, &mut all, problems);
        }
        if let Some(maps) = section("configMaps") {
            all.config_maps = secret::config_maps_of_section(maps, problems);
        }
        all
    }
}

/// As kubectl refuses it.
fn in_another(written: &str, namespace: &str, place: Place) -> Option<Problem> {
    (written != namespace).then(|| {
        let message = format!("the object is of the namespace `{written}`, and `-n {namespace}` was said");
        let help = "leave one of them out, or make them the same";
        Problem::error(codes::OBJECT_INVALID, message).at(place, "this namespace").help(help)
    })
}

/// Read the objects of one text, which is source number `source`.
pub fn read(text: &str, source: u16, objects: &mut Objects, problems: &mut Problems) {
    for document in yaml::read(text, source, problems) {
        take(document, objects, problems);
    }
}

/// Take one object, or each item of a list of them.
fn take(document: Node, objects: &mut Objects, problems: &mut Problems) {
    if document.value == Value::Null {
        return;
    }
    let Some(kind) = kinds::of(&document, problems) else { return };
    match kind {
        kinds::Kind::List => {
            if let Value::Map(entries) = document.value {
                let items = entries.into_iter().find(|e| e.key.text == "items");
                if let Some(Value::List(items)) = items.map(|e| e.value.value) {
                    items.into_iter().for_each(|item| take(item, objects, problems));
                }
            }
        }
        kinds::Kind::Service => objects.services.extend(service::service(document, problems)),
        kinds::Kind::EndpointSlice => objects.slices.extend(object(document, problems)),
        kinds::Kind::Endpoints => objects.endpoints.extend(object(document, problems)),
        kinds::Kind::Namespace => objects.namespaces.extend(object(document, problems)),
        kinds::Kind::Ingress => objects.ingresses.extend(ingress::ingress(document, problems)),
        kinds::Kind::IngressClass => objects.ingress_classes.extend(ingress::class(document, problems)),
        kinds::Kind::Secret => objects.secrets.extend(secret::secret(document, problems)),
        kinds::Kind::ConfigMap => objects.config_maps.extend(secret::config_map(document, problems)),
        kinds::Kind::Pod => objects.pods.extend(workload::pod(document, problems)),
        kinds::Kind::Deployment => objects.deployments.extend(workload::deployment(document, problems)),
        kinds::Kind::PassedOver => {}
    }
}

/// Decode a tree as one of Kubernetes' types. What has an error is told and left out.
pub(super) fn object<T: DeserializeOwned + Default>(node: Node, problems: &mut Problems) -> Option<Written<T>> {
    if node.get("metadata").and_then(|m| m.get("name")).is_none() {
        problems.push(
            Problem::error(codes::OBJECT_INVALID, "metadata.name: Required value: an object needs a name")
                .at(node.place_of("metadata"), "in this one")
                .help("add `metadata: { name: … }`"),
        );
        return None;
    }
    let mut found = Problems::default();
    let object = decode_whole::<T>(node.clone(), &mut found);
    let sound = !found.has_errors();
    problems.extend(found);
    sound.then_some(Written { object, node })
}
