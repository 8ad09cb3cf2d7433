//! Edits: what was done to a running lab beside its file, by `apply`, `delete` and `scale`.
//!
//! A lab's text carries them in their order, and decoding works them into the file's own objects. So
//! a lab is always decoded from its text alone, and there stays one way to change it. Replaying an
//! edit must not fail: one that finds nothing to change does nothing, and whether there was something
//! is asked before, of the running lab.
//!
//! A lab may be changed every minute of its life, so its edits must not grow with every change: [`push`]
//! leaves out what a new edit makes superfluous, and replaying tells which ones did something at all.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::LabFile;
use super::at::At;
use super::load::{Loaded, Manifest};
use super::manifest::{self, Objects};
use super::types::{DeploymentSpec, PodSpec};
use crate::objects::{ObjectKey, ObjectMeta};

mod replay;
mod told;

pub(super) use self::replay::make_all;
pub use self::told::{Applied, applied, names, told};

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
    /// Numbers of a deployment's pods that were deleted, first and last of each row: what the deletions
    /// of its pods come to, however many they were.
    Gone {
        deployment: ObjectKey,
        numbers: Vec<(u32, u32)>,
    },
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
        if let Some((owner, number)) = owner(pod) {
            self.0.entry(owner).or_default().insert(number, there);
        }
    }

    /// The numbers of a deployment's pods that are gone for good, first and last of each row.
    fn rows(&self, deployment: &ObjectKey) -> Vec<(u32, u32)> {
        let mut rows: Vec<(u32, u32)> = Vec::new();
        let out = self.0.get(deployment).into_iter().flatten();
        for number in out.filter(|(_, there)| !**there).map(|(number, _)| *number) {
            match rows.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
                _ => rows.push((number, number)),
            }
        }
        rows
    }
}

/// The deployment that a pod is of, by its name, and its number there.
fn owner(pod: &ObjectKey) -> Option<(ObjectKey, u32)> {
    let (owner, number) = pod.name.rsplit_once('-')?;
    Some((ObjectKey::new(&pod.namespace, owner), number.parse().ok()?))
}

/// Add an edit to those of a text. What it makes superfluous goes.
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
            Edit::Scale { .. } | Edit::Replace(_) | Edit::Gone { .. } => {}
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

#[cfg(test)]
mod tests;
