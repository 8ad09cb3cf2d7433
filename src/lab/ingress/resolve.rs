//! From a file's objects to the layer: each is checked as the API server does it, and put where it
//! belongs.

use std::collections::{BTreeMap, HashMap};

use crate::diag::{Place, Problem, Problems, codes};
use crate::objects::field::FieldError;
use crate::objects::{ConfigMap, Ingress, IngressClass, ObjectKey, ObjectMeta, Secret, Service, defaults, validate};
use crate::spec::LabFile;
use crate::spec::at::At;
use crate::spec::manifest::Written;

use super::super::services::told;
use super::{Controller, IngressLayer, SecretData, Unserved, classes, secrets};

/// What an ingress may refer to.
pub struct Scene<'a> {
    pub file: &'a LabFile,
    pub services: &'a [Service],
    pub secrets: &'a [Secret],
    pub config_maps: &'a [ConfigMap],
    /// Whether no error was found, so that what is missing is missing for the user, too.
    pub sound: bool,
}

/// An ingress with its defaults, and where it was written.
pub(super) struct Checked<'a> {
    pub object: Ingress,
    pub written: &'a Written<Ingress>,
}

impl Checked<'_> {
    pub fn key(&self) -> ObjectKey {
        ObjectKey::of(&self.object.metadata)
    }
}

/// What the controller serves, and what is likely a mistake in it.
pub fn resolve(controller: Controller, scene: &Scene, problems: &mut Problems) -> IngressLayer {
    let classes = classes::of(&controller, scene.file, problems);
    let all = ingresses(scene.file, classes.default_name(), problems);
    let settings = scene.file.cluster.ingress.as_ref().map(|s| &s.value);
    let default_backend = settings.and_then(|s| key(s.default_backend_service.as_ref(), problems));
    let default_certificate = settings.and_then(|s| key(s.default_ssl_certificate.as_ref(), problems));
    let (served, unserved): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|ingress| classes.serves(&controller, &ingress.object));
    let mut layer = IngressLayer {
        controller,
        ingresses: Vec::new(),
        unserved: Vec::new(),
        classes: classes.all,
        secrets: data(scene.secrets),
        generated: BTreeMap::new(),
        config: BTreeMap::new(),
        default_backend,
        default_certificate,
    };
    layer.generated = secrets::generated(&served, &layer, scene.file);
    layer.config = config(scene, problems);
    layer.ingresses = served.into_iter().map(|i| i.object).collect();
    let unserved = unserved.into_iter().map(|i| i.object);
    layer.unserved = unserved
        .map(|ingress| Unserved { class: super::class_of(&ingress).unwrap_or_default().to_owned(), ingress })
        .collect();
    layer
}

fn ingresses<'a>(file: &'a LabFile, default_class: Option<&str>, problems: &mut Problems) -> Vec<Checked<'a>> {
    let sound =
        sound(&file.objects.ingresses, "ingresses.networking.k8s.io", validate::ingress, |i| &i.metadata, problems);
    let complete = |written: &'a Written<Ingress>| {
        let mut object = written.object.clone();
        object.status = None;
        defaults::ingress(&mut object, default_class);
        Checked { object, written }
    };
    sound.into_iter().map(complete).collect()
}

/// The lab's secrets, `stringData` worked in.
pub fn checked_secrets(file: &LabFile, problems: &mut Problems) -> Vec<Secret> {
    let all = sound(&file.objects.secrets, "secrets", validate::secret, |s| &s.metadata, problems);
    let mut keys: HashMap<&ObjectKey, Place> = HashMap::new();
    for written in &file.objects.generate {
        let first = all.iter().find(|s| ObjectKey::of(&s.object.metadata) == written.value).map(|s| s.name_place());
        if let Some(first) = first.or_else(|| keys.insert(&written.value, written.place)) {
            problems.push(taken("secrets", &written.value, written.place, first));
        }
    }
    let complete = |written: &Written<Secret>| {
        let mut secret = written.object.clone();
        defaults::secret(&mut secret);
        secret
    };
    all.into_iter().map(complete).collect()
}

/// The lab's ConfigMaps.
pub fn checked_config_maps(file: &LabFile, problems: &mut Problems) -> Vec<ConfigMap> {
    let all = sound(&file.objects.config_maps, "configmaps", validate::config_map, |m| &m.metadata, problems);
    let complete = |written: &Written<ConfigMap>| {
        let mut map = written.object.clone();
        map.metadata.namespace = Some(ObjectKey::of(&map.metadata).namespace);
        map
    };
    all.into_iter().map(complete).collect()
}

/// The classes of the file.
pub(super) fn written_classes(file: &LabFile, problems: &mut Problems) -> Vec<IngressClass> {
    let validate = validate::ingress_class;
    let all =
        sound(&file.objects.ingress_classes, "ingressclasses.networking.k8s.io", validate, |c| &c.metadata, problems);
    all.into_iter().map(|class| class.object.clone()).collect()
}

/// Those of `all` that the API server would take. What it refuses is told.
fn sound<'a, T>(
    all: &'a [Written<T>],
    plural: &str,
    validate: fn(&T) -> Vec<FieldError>,
    meta: fn(&T) -> &ObjectMeta,
    problems: &mut Problems,
) -> Vec<&'a Written<T>> {
    let mut keys: HashMap<ObjectKey, Place> = HashMap::new();
    let mut sound = Vec::new();
    for written in all {
        let faults = validate(&written.object);
        problems.extend(faults.iter().map(|fault| told(codes::OBJECT_INVALID, fault, written)));
        let key = ObjectKey::of(meta(&written.object));
        match keys.get(&key) {
            Some(first) => problems.push(taken(plural, &key, written.name_place(), *first)),
            None => {
                keys.insert(key, written.name_place());
                sound.extend(faults.is_empty().then_some(written));
            }
        }
    }
    sound
}

fn taken(plural: &str, key: &ObjectKey, place: Place, first: Place) -> Problem {
    Problem::error(codes::OBJECT_TAKEN, format!("{plural} \"{key}\" already exists"))
        .at(place, "this one")
        .at(first, "and this one")
        .help("give one of them another name, or another namespace")
}

fn data(secrets: &[Secret]) -> BTreeMap<ObjectKey, SecretData> {
    let of = |secret: &Secret| {
        let fields = secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone()));
        SecretData { kind: secret.type_.clone().unwrap_or_default(), data: fields.collect() }
    };
    secrets.iter().map(|secret| (ObjectKey::of(&secret.metadata), of(secret))).collect()
}

/// What `NAMESPACE/NAME` names.
fn key(written: Option<&At<String>>, problems: &mut Problems) -> Option<ObjectKey> {
    let written = written?;
    let parts = written.split_once('/').filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty());
    if parts.is_none_or(|(_, name)| name.contains('/')) {
        problems.push(
            Problem::error(codes::SPEC_BAD_VALUE, format!("`{}` is no name with its namespace", written.value))
                .at(written.place, "this name")
                .help(format!("write it as NAMESPACE/NAME, such as default/{}", written.trim_matches('/'))),
        );
        return None;
    }
    parts.map(|(namespace, name)| ObjectKey::new(namespace, name))
}

/// The controller's settings: those in the file, or those of the ConfigMap that it names.
fn config(scene: &Scene, problems: &mut Problems) -> BTreeMap<String, String> {
    let Some(settings) = scene.file.cluster.ingress.as_ref().map(|s| &s.value) else { return BTreeMap::new() };
    let own = settings.config.iter().map(|(name, value)| (name.value.clone(), value.0.clone()));
    let Some(key) = key(settings.config_map.as_ref(), problems) else { return own.collect() };
    let map = scene.config_maps.iter().find(|m| ObjectKey::of(&m.metadata) == key);
    let fields = map.and_then(|m| m.data.clone()).unwrap_or_default();
    fields.into_iter().chain(own).collect()
}
