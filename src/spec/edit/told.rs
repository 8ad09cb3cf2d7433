//! What edits are, and what they would do, in words: for whoever makes them or loses them.

use std::fmt;

use super::{Edit, ObjectKind, ObjectRef, bare_key, deployment_key, pod_key};
use crate::diag::Problems;
use crate::objects::ObjectKey;
use crate::spec::LabFile;
use crate::spec::load::Manifest;
use crate::spec::manifest::{self, Objects};

/// What applying an object did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    Created,
    Configured,
    Unchanged,
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Applied::Created => "created",
            Applied::Configured => "configured",
            Applied::Unchanged => "unchanged",
        })
    }
}

/// Edits in words, such as `service/tea-svc applied`.
pub fn told(edits: &[Edit]) -> Vec<String> {
    let one = |object: &ObjectRef, what: &str| match object.key.namespace.as_str() {
        "default" => format!("{object} {what}"),
        namespace => format!("{object} in {namespace} {what}"),
    };
    let key = |kind, key: &ObjectKey| ObjectRef { kind, key: key.clone() };
    let words = |edit: &Edit| match edit {
        Edit::Apply(manifest) => names(manifest).iter().map(|object| one(object, "applied")).collect(),
        Edit::Delete(object) => vec![one(object, "deleted")],
        Edit::Replace(pod) => vec![one(&key(ObjectKind::Pod, pod), "deleted")],
        Edit::Gone { deployment, numbers } => {
            let pod = |number: u32| ObjectKey::new(&deployment.namespace, &format!("{}-{number}", deployment.name));
            let all = numbers.iter().flat_map(|(first, last)| *first..=*last);
            all.map(|number| one(&key(ObjectKind::Pod, &pod(number)), "deleted")).collect()
        }
        Edit::Scale { deployment, replicas } => {
            vec![one(&key(ObjectKind::Deployment, deployment), &format!("scaled to {replicas}"))]
        }
    };
    edits.iter().flat_map(words).collect()
}

/// The objects of a manifest, in the order of their kinds, with what applying them to `file` does.
pub fn applied(file: &LabFile, manifest: &Manifest) -> Vec<(ObjectRef, Applied)> {
    let new = objects(manifest);
    let mut all = Vec::new();
    compare(&mut all, ObjectKind::Namespace, (&file.objects.namespaces, &new.namespaces), |n| {
        (bare_key(&n.object.metadata), &n.object)
    });
    compare(&mut all, ObjectKind::Service, (&file.objects.services, &new.services), |s| {
        (ObjectKey::of(&s.object.metadata), &s.object)
    });
    compare(&mut all, ObjectKind::EndpointSlice, (&file.objects.slices, &new.slices), |s| {
        (ObjectKey::of(&s.object.metadata), &s.object)
    });
    compare(&mut all, ObjectKind::Endpoints, (&file.objects.endpoints, &new.endpoints), |s| {
        (ObjectKey::of(&s.object.metadata), &s.object)
    });
    compare(&mut all, ObjectKind::ConfigMap, (&file.objects.config_maps, &new.config_maps), |s| {
        (ObjectKey::of(&s.object.metadata), &s.object)
    });
    compare(&mut all, ObjectKind::Secret, (&file.objects.secrets, &new.secrets), |s| {
        (ObjectKey::of(&s.object.metadata), &s.object)
    });
    compare(&mut all, ObjectKind::IngressClass, (&file.objects.ingress_classes, &new.ingress_classes), |s| {
        (bare_key(&s.object.metadata), &s.object)
    });
    compare(&mut all, ObjectKind::Ingress, (&file.objects.ingresses, &new.ingresses), |s| {
        (ObjectKey::of(&s.object.metadata), &s.object)
    });
    compare(&mut all, ObjectKind::Pod, (&file.pods.0, &new.pods), |p| (pod_key(p), &p.1));
    compare(&mut all, ObjectKind::Deployment, (&file.deployments.0, &new.deployments), |d| (deployment_key(d), &d.1));
    all
}

/// The objects of a manifest alone. What is wrong with it is told when it is decoded with its lab.
fn objects(manifest: &Manifest) -> Objects {
    let mut found = Objects::default();
    let text = manifest.text.as_deref().unwrap_or_default();
    manifest::read(text, 0, &mut found, &mut Problems::default());
    if let Some(namespace) = &manifest.namespace {
        found.put_into(namespace, &mut Problems::default());
    }
    found
}

/// What a manifest's objects are called.
pub fn names(manifest: &Manifest) -> Vec<ObjectRef> {
    applied(&LabFile::default(), manifest).into_iter().map(|(object, _)| object).collect()
}

fn compare<T, O: PartialEq>(
    out: &mut Vec<(ObjectRef, Applied)>,
    kind: ObjectKind,
    (before, new): (&[T], &[T]),
    parts: impl Fn(&T) -> (ObjectKey, &O),
) {
    for object in new {
        let (key, now) = parts(object);
        let was = before.iter().map(&parts).find(|(k, _)| *k == key);
        let applied = match was {
            None => Applied::Created,
            Some((_, was)) if was == now => Applied::Unchanged,
            Some(_) => Applied::Configured,
        };
        out.push((ObjectRef { kind, key }, applied));
    }
}
