//! Working edits into a lab file, in their order, and telling which of them are still needed. What
//! an edit is, and what a new one makes of older ones, is [`super`]'s.

use super::{
    At, DNS, Edit, INGRESS, LabFile, Loaded, Manifest, ObjectKey, ObjectKind, ObjectMeta, ObjectRef, Objects, bare_key,
    deployment_key, manifest, owner, pod_key,
};

/// Work edits into what was loaded, in their order. Returns edits that would do the same: those that
/// found something to change, with the deletions of each deployment's pods as one.
pub(in crate::spec) fn make_all(edits: &[Edit], loaded: &mut Loaded) -> Vec<Edit> {
    let mut needed: Vec<Edit> = Vec::new();
    for edit in edits {
        match make(edit, loaded) {
            Did::Nothing => {}
            Did::Something => needed.push(edit.clone()),
            Did::Remember(all) => {
                needed.retain(|old| !matches!(old, Edit::Gone { deployment, .. } if *deployment == all));
                needed.push(Edit::Gone { numbers: loaded.file.replaced.rows(&all), deployment: all });
            }
        }
    }
    // One that is no more begins anew when it comes back.
    needed.retain(|edit| match edit {
        Edit::Gone { deployment, .. } => has_deployment(&loaded.file, deployment),
        Edit::Replace(pod) => owner(pod).is_some_and(|(deployment, _)| has_deployment(&loaded.file, &deployment)),
        _ => true,
    });
    needed
}

fn has_deployment(file: &LabFile, key: &ObjectKey) -> bool {
    is(key, DNS) || is(key, INGRESS) || file.deployments.0.iter().any(|d| deployment_key(d) == *key)
}

fn is(deployment: &ObjectKey, own: (&str, &str)) -> bool {
    (deployment.namespace.as_str(), deployment.name.as_str()) == own
}

/// What came of an edit.
enum Did {
    Nothing,
    Something,
    /// Numbers of this deployment's pods are no more to be given.
    Remember(ObjectKey),
}

impl Did {
    fn when(changed: bool) -> Did {
        if changed { Did::Something } else { Did::Nothing }
    }
}

fn make(edit: &Edit, loaded: &mut Loaded) -> Did {
    let file = &mut loaded.file;
    match edit {
        Edit::Apply(manifest) => {
            let objects = read(manifest, loaded);
            put_all(&mut loaded.file, objects);
            Did::Something
        }
        Edit::Delete(object) => delete(file, object),
        Edit::Scale { deployment, replicas } => Did::when(scale(file, deployment, *replicas)),
        Edit::Replace(pod) => {
            file.replaced.note(pod, true);
            Did::Something
        }
        Edit::Gone { deployment, numbers } => {
            let all = file.replaced.0.entry(deployment.clone()).or_default();
            all.extend(numbers.iter().flat_map(|(first, last)| *first..=*last).map(|number| (number, false)));
            Did::Remember(deployment.clone())
        }
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

/// Keep those of `all` that `keep` says; whether that are fewer than before.
fn thin<T>(all: &mut Vec<T>, keep: impl Fn(&T) -> bool) -> bool {
    let before = all.len();
    all.retain(keep);
    all.len() < before
}

fn delete(file: &mut LabFile, object: &ObjectRef) -> Did {
    let key = &object.key;
    let other = |meta: &ObjectMeta| ObjectKey::of(meta) != *key;
    Did::when(match object.kind {
        ObjectKind::Service => thin(&mut file.objects.services, |s| other(&s.object.metadata)),
        ObjectKind::EndpointSlice => thin(&mut file.objects.slices, |s| other(&s.object.metadata)),
        ObjectKind::Endpoints => thin(&mut file.objects.endpoints, |s| other(&s.object.metadata)),
        ObjectKind::Ingress => thin(&mut file.objects.ingresses, |s| other(&s.object.metadata)),
        ObjectKind::IngressClass => thin(&mut file.objects.ingress_classes, |s| bare_key(&s.object.metadata) != *key),
        ObjectKind::Secret => {
            let brought = thin(&mut file.objects.secrets, |s| other(&s.object.metadata));
            thin(&mut file.objects.generate, |s| s.value != *key) || brought
        }
        ObjectKind::ConfigMap => thin(&mut file.objects.config_maps, |s| other(&s.object.metadata)),
        ObjectKind::Namespace => delete_namespace(file, &key.name),
        ObjectKind::Deployment => {
            file.replaced.0.remove(key);
            thin(&mut file.deployments.0, |d| deployment_key(d) != *key)
        }
        ObjectKind::Pod => {
            let deleted = thin(&mut file.pods.0, |p| pod_key(p) != *key);
            match owner(key).filter(|_| !deleted) {
                Some((deployment, _)) => {
                    file.replaced.note(key, false);
                    return Did::Remember(deployment);
                }
                None => deleted,
            }
        }
    })
}

/// A namespace goes with all that is in it.
fn delete_namespace(file: &mut LabFile, name: &str) -> bool {
    let other = |meta: &ObjectMeta| ObjectKey::of(meta).namespace != name;
    file.replaced.0.retain(|deployment, _| deployment.namespace != name);
    let deleted = [
        thin(&mut file.objects.namespaces, |n| n.object.metadata.name.as_deref() != Some(name)),
        thin(&mut file.objects.services, |s| other(&s.object.metadata)),
        thin(&mut file.objects.slices, |s| other(&s.object.metadata)),
        thin(&mut file.objects.endpoints, |s| other(&s.object.metadata)),
        thin(&mut file.objects.ingresses, |s| other(&s.object.metadata)),
        thin(&mut file.objects.secrets, |s| other(&s.object.metadata)),
        thin(&mut file.objects.generate, |s| s.value.namespace != name),
        thin(&mut file.objects.config_maps, |s| other(&s.object.metadata)),
        thin(&mut file.pods.0, |p| pod_key(p).namespace != name),
        thin(&mut file.deployments.0, |d| deployment_key(d).namespace != name),
    ];
    deleted.contains(&true)
}

/// Whether there is such a deployment.
fn scale(file: &mut LabFile, deployment: &ObjectKey, replicas: u32) -> bool {
    let replicas = Some(At::new(replicas, Default::default()));
    if let Some((_, spec)) = file.deployments.0.iter_mut().find(|d| deployment_key(d) == *deployment) {
        spec.replicas = replicas;
    } else if is(deployment, DNS) {
        file.dns.get_or_insert_default().replicas = replicas;
    } else if is(deployment, INGRESS) {
        file.cluster.ingress.get_or_insert_default().value.replicas = replicas;
    } else {
        return false;
    }
    true
}
