//! Edits: what was done to a running lab beside its file, by `apply`, `delete` and `scale`.
//!
//! A lab's text carries them in their order, and decoding works them into the file's own objects. So
//! a lab is always decoded from its text alone, and there stays one way to change it. Replaying an
//! edit must not fail: one that finds nothing to change does nothing, and whether there was something
//! is asked before, of the running lab.

mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::LabFile;
use super::at::At;
use super::load::{Loaded, Manifest};
use super::manifest::{self, Objects};
use super::types::{DeploymentSpec, PodSpec};
use crate::objects::{ObjectKey, ObjectMeta};

pub use told::{Applied, applied, names, told};

/// The DNS server's deployment, which every lab with services has without writing it.
const DNS: (&str, &str) = ("kube-system", "coredns");
/// That of the ingress controller, which every lab with an ingress has.
const INGRESS: (&str, &str) = ("ingress", "ingress-controller");

/// One change to a lab's objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Edit {
    /// Objects that are added, or that replace those of the same kind, namespace and name.
    Apply(Manifest),
    Delete(ObjectRef),
    Scale {
        deployment: ObjectKey,
        replicas: u32,
    },
    /// A deployment's pod that has been told to end, and no longer counts as one of its replicas.
    Replace(ObjectKey),
}

/// A kind of object that can be applied and deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectKind {
    Pod,
    Deployment,
    Service,
    EndpointSlice,
    Endpoints,
    Ingress,
    IngressClass,
    Secret,
    ConfigMap,
    Namespace,
}

impl ObjectKind {
    /// The kind that a word means: its name, its plural or its short form, as kubectl has them.
    pub fn of(word: &str) -> Option<ObjectKind> {
        Some(match word.to_ascii_lowercase().as_str() {
            "pod" | "pods" | "po" => ObjectKind::Pod,
            "deployment" | "deployments" | "deploy" | "deployment.apps" | "deployments.apps" => ObjectKind::Deployment,
            "service" | "services" | "svc" => ObjectKind::Service,
            "endpointslice" | "endpointslices" | "endpointslice.discovery.k8s.io" => ObjectKind::EndpointSlice,
            "endpoints" | "endpoint" | "ep" => ObjectKind::Endpoints,
            "ingress" | "ingresses" | "ing" | "ingress.networking.k8s.io" | "ingresses.networking.k8s.io" => {
                ObjectKind::Ingress
            }
            "ingressclass" | "ingressclasses" | "ingressclass.networking.k8s.io" => ObjectKind::IngressClass,
            "secret" | "secrets" => ObjectKind::Secret,
            "configmap" | "configmaps" | "cm" => ObjectKind::ConfigMap,
            "namespace" | "namespaces" | "ns" => ObjectKind::Namespace,
            _ => return None,
        })
    }

    /// Whether its objects belong to a namespace.
    pub fn is_namespaced(self) -> bool {
        !matches!(self, ObjectKind::Namespace | ObjectKind::IngressClass)
    }
}

impl fmt::Display for ObjectKind {
    /// As kubectl writes it in front of a name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ObjectKind::Pod => "pod",
            ObjectKind::Deployment => "deployment.apps",
            ObjectKind::Service => "service",
            ObjectKind::EndpointSlice => "endpointslice.discovery.k8s.io",
            ObjectKind::Endpoints => "endpoints",
            ObjectKind::Ingress => "ingress.networking.k8s.io",
            ObjectKind::IngressClass => "ingressclass.networking.k8s.io",
            ObjectKind::Secret => "secret",
            ObjectKind::ConfigMap => "configmap",
            ObjectKind::Namespace => "namespace",
        })
    }
}

/// One object of a lab. The key of what belongs to no namespace, as a namespace itself, has the
/// namespace `default`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectRef {
    pub kind: ObjectKind,
    pub key: ObjectKey,
}

impl fmt::Display for ObjectRef {
    /// `service/tea-svc`, as kubectl names what it did.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.key.name)
    }
}

/// Numbers of deployments' pods that are not counted, by deployment. `true`: the pod is still there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replaced(BTreeMap<ObjectKey, BTreeMap<u32, bool>>);

impl Replaced {
    /// The numbers of a deployment's pods, ascending: the first `replicas` that no deleted pod had,
    /// and those of pods that are on their way out.
    pub fn numbers(&self, deployment: &ObjectKey, replicas: u32) -> Vec<u32> {
        let Some(out) = self.0.get(deployment) else { return (1..=replicas).collect() };
        let free = (1..).filter(|n| !out.contains_key(n)).take(replicas as usize);
        let mut all: Vec<u32> = free.collect();
        all.extend(out.iter().filter(|(_, there)| **there).map(|(n, _)| *n));
        all.sort_unstable();
        all
    }

    fn note(&mut self, pod: &ObjectKey, there: bool) {
        if let Some((owner, number)) = pod.name.rsplit_once('-')
            && let Ok(number) = number.parse()
        {
            self.0.entry(ObjectKey::new(&pod.namespace, owner)).or_default().insert(number, there);
        }
    }
}

/// Add an edit to those of a text. What it makes superfluous goes, so that a lab that is changed
/// every minute does not grow for ever.
pub fn push(edits: &mut Vec<Edit>, edit: Edit) {
    edits.retain(|old| match (old, &edit) {
        (Edit::Scale { deployment: old, .. }, Edit::Scale { deployment, .. }) => old != deployment,
        (Edit::Replace(old), Edit::Delete(gone)) => gone.kind != ObjectKind::Pod || *old != gone.key,
        (old, new) => old != new,
    });
    let hides = matches!(edit, Edit::Apply(_) | Edit::Delete(_));
    edits.push(edit);
    if hides {
        drop_hidden(edits);
    }
}

/// Drop manifests of which every object is put again or deleted by a later edit.
fn drop_hidden(edits: &mut Vec<Edit>) {
    let mut later: BTreeSet<ObjectRef> = BTreeSet::new();
    let mut gone: BTreeSet<String> = BTreeSet::new();
    let mut kept = Vec::new();
    for edit in edits.drain(..).rev() {
        match &edit {
            Edit::Apply(manifest) => {
                let objects = names(manifest);
                // One without objects is kept: what is wrong with it is to be told.
                if !objects.is_empty() && objects.iter().all(|o| is_hidden(o, &later, &gone)) {
                    continue;
                }
                later.extend(objects);
            }
            Edit::Delete(object) => {
                if object.kind == ObjectKind::Namespace {
                    gone.insert(object.key.name.clone());
                }
                later.insert(object.clone());
            }
            Edit::Scale { .. } | Edit::Replace(_) => {}
        }
        kept.push(edit);
    }
    kept.reverse();
    *edits = kept;
}

/// Whether an object is among these, or in a namespace that is deleted.
fn is_hidden(object: &ObjectRef, later: &BTreeSet<ObjectRef>, gone: &BTreeSet<String>) -> bool {
    later.contains(object) || (object.kind.is_namespaced() && gone.contains(&object.key.namespace))
}

/// Work an edit into what was loaded.
pub(super) fn make(edit: &Edit, loaded: &mut Loaded) {
    match edit {
        Edit::Apply(manifest) => {
            let objects = read(manifest, loaded);
            put_all(&mut loaded.file, objects);
        }
        Edit::Delete(object) => delete(&mut loaded.file, object),
        Edit::Scale { deployment, replicas } => scale(&mut loaded.file, deployment, *replicas),
        Edit::Replace(pod) => loaded.file.replaced.note(pod, true),
    }
}

/// The objects of one manifest. Its text becomes a source, also where it has none, so that sources
/// have the same numbers wherever the text is decoded.
fn read(manifest: &Manifest, loaded: &mut Loaded) -> Objects {
    let mut objects = Objects::default();
    let text = manifest.text.as_deref().unwrap_or_default();
    let source = loaded.sources.add(&manifest.name, text);
    manifest::read(text, source, &mut objects, &mut loaded.problems);
    if let Some(namespace) = &manifest.namespace {
        objects.put_into(namespace, &mut loaded.problems);
    }
    if let Err(problem) = &manifest.text {
        loaded.problems.push(problem.clone());
    }
    objects
}

fn put_all(file: &mut LabFile, new: Objects) {
    put(&mut file.objects.services, new.services, |s| ObjectKey::of(&s.object.metadata));
    put(&mut file.objects.slices, new.slices, |s| ObjectKey::of(&s.object.metadata));
    put(&mut file.objects.endpoints, new.endpoints, |s| ObjectKey::of(&s.object.metadata));
    put(&mut file.objects.ingresses, new.ingresses, |s| ObjectKey::of(&s.object.metadata));
    put(&mut file.objects.ingress_classes, new.ingress_classes, |s| bare_key(&s.object.metadata));
    // A secret that is brought need not be made.
    let brings = |key: &ObjectKey| new.secrets.iter().any(|s| ObjectKey::of(&s.object.metadata) == *key);
    file.objects.generate.retain(|key| !brings(&key.value));
    put(&mut file.objects.secrets, new.secrets, |s| ObjectKey::of(&s.object.metadata));
    put(&mut file.objects.config_maps, new.config_maps, |s| ObjectKey::of(&s.object.metadata));
    put(&mut file.objects.namespaces, new.namespaces, |s| bare_key(&s.object.metadata));
    put(&mut file.pods.0, new.pods, pod_key);
    put(&mut file.deployments.0, new.deployments, deployment_key);
}

/// Each of `new` in the place of its former self, or behind all others.
fn put<T>(all: &mut Vec<T>, new: Vec<T>, key: impl Fn(&T) -> ObjectKey) {
    for object in new {
        let wanted = key(&object);
        match all.iter().position(|old| key(old) == wanted) {
            Some(at) => all[at] = object,
            None => all.push(object),
        }
    }
}

/// The key of an object that belongs to no namespace.
fn bare_key(meta: &ObjectMeta) -> ObjectKey {
    ObjectKey::new("default", meta.name.as_deref().unwrap_or_default())
}

fn key_of(name: &At<String>, namespace: Option<&At<String>>) -> ObjectKey {
    ObjectKey::new(namespace.map_or("default", |n| n.value.as_str()), &name.value)
}

fn pod_key((name, spec): &(At<String>, PodSpec)) -> ObjectKey {
    key_of(name, spec.namespace.as_ref())
}

fn deployment_key((name, spec): &(At<String>, DeploymentSpec)) -> ObjectKey {
    key_of(name, spec.namespace.as_ref())
}

fn delete(file: &mut LabFile, object: &ObjectRef) {
    let key = &object.key;
    let other = |meta: &ObjectMeta| ObjectKey::of(meta) != *key;
    match object.kind {
        ObjectKind::Service => file.objects.services.retain(|s| other(&s.object.metadata)),
        ObjectKind::EndpointSlice => file.objects.slices.retain(|s| other(&s.object.metadata)),
        ObjectKind::Endpoints => file.objects.endpoints.retain(|s| other(&s.object.metadata)),
        ObjectKind::Ingress => file.objects.ingresses.retain(|s| other(&s.object.metadata)),
        ObjectKind::IngressClass => file.objects.ingress_classes.retain(|s| bare_key(&s.object.metadata) != *key),
        ObjectKind::Secret => {
            file.objects.secrets.retain(|s| other(&s.object.metadata));
            file.objects.generate.retain(|s| s.value != *key);
        }
        ObjectKind::ConfigMap => file.objects.config_maps.retain(|s| other(&s.object.metadata)),
        ObjectKind::Namespace => delete_namespace(file, &key.name),
        ObjectKind::Deployment => {
            file.deployments.0.retain(|d| deployment_key(d) != *key);
            file.replaced.0.remove(key);
        }
        ObjectKind::Pod => {
            let before = file.pods.len();
            file.pods.0.retain(|p| pod_key(p) != *key);
            if file.pods.len() == before {
                file.replaced.note(key, false);
            }
        }
    }
}

/// A namespace goes with all that is in it.
fn delete_namespace(file: &mut LabFile, name: &str) {
    let other = |meta: &ObjectMeta| ObjectKey::of(meta).namespace != name;
    file.objects.namespaces.retain(|n| n.object.metadata.name.as_deref() != Some(name));
    file.objects.services.retain(|s| other(&s.object.metadata));
    file.objects.slices.retain(|s| other(&s.object.metadata));
    file.objects.endpoints.retain(|s| other(&s.object.metadata));
    file.objects.ingresses.retain(|s| other(&s.object.metadata));
    file.objects.secrets.retain(|s| other(&s.object.metadata));
    file.objects.generate.retain(|s| s.namespace != name);
    file.objects.config_maps.retain(|s| other(&s.object.metadata));
    file.pods.0.retain(|p| pod_key(p).namespace != name);
    file.deployments.0.retain(|d| deployment_key(d).namespace != name);
    file.replaced.0.retain(|deployment, _| deployment.namespace != name);
}

fn scale(file: &mut LabFile, deployment: &ObjectKey, replicas: u32) {
    let replicas = Some(At::new(replicas, Default::default()));
    if let Some((_, spec)) = file.deployments.0.iter_mut().find(|d| deployment_key(d) == *deployment) {
        spec.replicas = replicas;
    } else if (deployment.namespace.as_str(), deployment.name.as_str()) == DNS {
        file.dns.get_or_insert_default().replicas = replicas;
    } else if (deployment.namespace.as_str(), deployment.name.as_str()) == INGRESS {
        file.cluster.ingress.get_or_insert_default().value.replicas = replicas;
    }
}

#[cfg(test)]
mod tests;
