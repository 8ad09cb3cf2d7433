//! From a file's objects to the layer: each is checked as the API server does it, and put where it
//! belongs.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::diag::{Place, Problem, Problems, codes, did_you_mean};
use crate::objects::field::FieldError;
use crate::objects::{ConfigMap, Ingress, IngressClass, ObjectKey, ObjectMeta, Secret, Service, defaults, validate};
use crate::spec::LabFile;
use crate::spec::at::At;
use crate::spec::manifest::Written;

use super::super::model::Lab;
use super::super::services::told;
use super::{
    Controller, INGRESS_NAME, INGRESS_NAMESPACE, IngressLayer, SecretData, Unserved, annotations, backends, class_of,
    classes, hosts, namespace_of, patterns, secrets,
};

/// What an ingress may refer to.
pub struct Scene<'a> {
    pub file: &'a LabFile,
    pub services: &'a [Service],
    pub secrets: &'a [Secret],
    pub config_maps: &'a [ConfigMap],
    /// The lab as it runs now.
    pub before: Option<&'a Lab>,
    /// Whether no error was found, so that what is missing is missing for the user, too.
    pub sound: bool,
}

/// An ingress with its defaults, and where it was written.
pub(super) struct Checked<'a> {
    pub object: Ingress,
    pub written: &'a Written<Ingress>,
    /// Whether its class is the default one, which it was given.
    pub given: bool,
}

impl Checked<'_> {
    pub fn key(&self) -> ObjectKey {
        ObjectKey::of(&self.object.metadata)
    }
}

/// What the controller serves, and what is likely a mistake in it.
pub fn resolve(controller: Controller, scene: &Scene, problems: &mut Problems) -> IngressLayer {
    let classes = classes::of(&controller, scene.file, problems);
    let all = ingresses(scene, classes.default_name(), problems);
    let class = |i: &Checked| i.object.spec.as_ref()?.ingress_class_name.clone();
    let given = all.iter().filter(|i| i.given).filter_map(|i| Some((i.key(), class(i)?))).collect();
    let (served, unserved): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|ingress| classes.serves(&controller, &ingress.object));
    let references = References::read(scene, problems);
    // Words for problems that are only counted would be costly.
    let few = if problems.is_full() { 0 } else { Problems::MOST };
    problems.extend(unserved.iter().take(few).map(|ingress| classes.not_served(&controller, ingress)));
    let mut layer = IngressLayer {
        config: config(&references, scene),
        controller,
        ingresses: Vec::new(),
        unserved: Vec::new(),
        given,
        classes: classes.all,
        secrets: data(scene.secrets),
        generated: BTreeMap::new(),
        default_backend: references.default_backend.clone(),
        default_certificate: references.default_certificate.clone(),
    };
    layer.generated = secrets::generated(&served, &layer, scene.file);
    check(&served, &layer, scene, problems);
    annotations::check_config(
        &layer.config,
        &layer.controller.driver,
        (references.config_map.as_ref(), scene),
        problems,
    );
    layer.ingresses = served.into_iter().map(|i| i.object).collect();
    let unserved = unserved.into_iter().map(|i| i.object);
    let with_class = |ingress| Unserved { class: class_of(&ingress).unwrap_or_default().to_owned(), ingress };
    layer.unserved = unserved.map(with_class).collect();
    layer
}

fn check(served: &[Checked], layer: &IngressLayer, scene: &Scene, problems: &mut Problems) {
    let services = scene.services.iter().map(|s| (ObjectKey::of(&s.metadata), s)).collect();
    for ingress in served {
        annotations::check(ingress, problems);
        hosts::check(ingress, problems);
        if scene.sound {
            backends::check(ingress, &services, problems);
            secrets::check(ingress, layer, scene.file, problems);
        }
    }
    hosts::check_taken(served, problems);
    patterns::check(served, problems);
}

/// What `cluster.ingress` refers to.
struct References {
    default_backend: Option<ObjectKey>,
    default_certificate: Option<ObjectKey>,
    config_map: Option<ObjectKey>,
}

impl References {
    fn read(scene: &Scene, problems: &mut Problems) -> References {
        let settings = scene.file.cluster.ingress.as_ref().map(|s| &s.value);
        let backend = settings.and_then(|s| s.default_backend_service.as_ref());
        let map = settings.and_then(|s| s.config_map.as_ref());
        let own = ObjectKey::new(INGRESS_NAMESPACE, INGRESS_NAME);
        let has = |key: &ObjectKey| scene.config_maps.iter().any(|m| ObjectKey::of(&m.metadata) == *key);
        let found = References {
            default_backend: key(backend, problems),
            default_certificate: key(settings.and_then(|s| s.default_ssl_certificate.as_ref()), problems),
            // Without being named, as in an installation of ingress-nginx.
            config_map: key(map, problems).or_else(|| Some(own).filter(has).filter(|_| map.is_none())),
        };
        if let (true, Some(key), Some(written)) = (scene.sound, &found.default_backend, backend) {
            let services = scene.services.iter().map(|s| (ObjectKey::of(&s.metadata), s)).collect();
            backends::check_default(key, written, &services, problems);
        }
        if let (true, Some(key), Some(written)) = (scene.sound, &found.config_map, map)
            && !has(key)
        {
            problems.push(no_config_map(key, written, scene));
        }
        found
    }
}

fn no_config_map(key: &ObjectKey, written: &At<String>, scene: &Scene) -> Problem {
    let known: Vec<String> = scene.config_maps.iter().map(|m| ObjectKey::of(&m.metadata).to_string()).collect();
    Problem::error(codes::INGRESS_CONFIG, format!("there is no ConfigMap {key}"))
        .at(written.place, "not declared")
        .help(match did_you_mean(&key.to_string(), known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("declare it: `configMaps: {{ {}: {{ {}data: {{}} }} }}`", key.name, namespace_of(key)),
        })
}

/// The file's ingresses with their defaults. The default class is given to those that are created, as
/// the API server's admission does it: one that was there before keeps what it got then.
fn ingresses<'a>(scene: &Scene<'a>, default_class: Option<&str>, problems: &mut Problems) -> Vec<Checked<'a>> {
    let all = &scene.file.objects.ingresses;
    let sound = sound(all, "ingresses.networking.k8s.io", validate::ingress, |i| &i.metadata, problems);
    let before = scene.before.and_then(|lab| lab.ingress.as_ref());
    let there: HashSet<ObjectKey> =
        before.iter().flat_map(|layer| layer.all()).map(|i| ObjectKey::of(&i.metadata)).collect();
    let complete = |written: &'a Written<Ingress>| {
        let mut object = written.object.clone();
        object.status = None;
        let key = ObjectKey::of(&object.metadata);
        let class = match there.contains(&key) {
            true => before.and_then(|layer| layer.given.get(&key)).map(String::as_str),
            false => default_class,
        };
        let given = defaults::ingress(&mut object, class);
        Checked { object, written, given }
    };
    sound.into_iter().map(complete).collect()
}

/// The lab's secrets, `stringData` worked in.
pub fn checked_secrets(file: &LabFile, problems: &mut Problems) -> Vec<Secret> {
    let all = sound(&file.objects.secrets, "secrets", validate::secret, |s| &s.metadata, problems);
    let key = |secret: &&Written<Secret>| (ObjectKey::of(&secret.object.metadata), secret.name_place());
    let mut keys: HashMap<ObjectKey, Place> = all.iter().map(key).collect();
    for written in &file.objects.generate {
        if let Some(first) = keys.insert(written.value.clone(), written.place) {
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
        let name = written.rsplit('/').find(|part| !part.is_empty()).unwrap_or("settings");
        problems.push(
            Problem::error(codes::SPEC_BAD_VALUE, format!("`{}` is no name with its namespace", written.value))
                .at(written.place, "this name")
                .help(format!("write it as NAMESPACE/NAME, such as default/{name}")),
        );
        return None;
    }
    parts.map(|(namespace, name)| ObjectKey::new(namespace, name))
}

/// The controller's settings: those of the ConfigMap that the file names, and those of the file, which win.
fn config(references: &References, scene: &Scene) -> BTreeMap<String, String> {
    let map = scene.config_maps.iter().find(|m| Some(ObjectKey::of(&m.metadata)) == references.config_map);
    let fields = map.and_then(|m| m.data.clone()).unwrap_or_default();
    let settings = scene.file.cluster.ingress.iter().flat_map(|s| s.config.iter());
    fields.into_iter().chain(settings.map(|(name, value)| (name.value.clone(), value.0.clone()))).collect()
}
