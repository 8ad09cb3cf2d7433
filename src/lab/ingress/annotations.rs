//! Annotations and settings that the controller does not understand.

use std::collections::BTreeMap;

use crate::diag::{Problem, Problems, codes, did_you_mean};
use crate::objects::ObjectKey;
use crate::objects::ingress::annotations::{KNOWN, PREFIX, family_of_others, read};
use crate::objects::ingress::settings::{self, COMMON, HAPROXY, NGINX};
use crate::objects::ingress::{Misread, Why};

use super::Driver;
use super::resolve::{Checked, Scene};

/// Tell of an ingress' annotations that are not known, or not with their values.
pub(super) fn check(ingress: &Checked, problems: &mut Problems) {
    let Some(written) = &ingress.object.metadata.annotations else { return };
    check_others(ingress, written, problems);
    for Misread { name, why } in read(written).1 {
        let key = format!("{PREFIX}{name}");
        let at = ingress.written;
        let (message, place, help) = match why {
            Why::Unknown => (
                format!("labctl does not act on the annotation `{key}`"),
                at.key_place("metadata.annotations", &key),
                match did_you_mean(&name, KNOWN.iter().copied()) {
                    Some(near) => format!("did you mean `{PREFIX}{near}`?"),
                    None => format!("those that count are: {}", KNOWN.join(", ")),
                },
            ),
            Why::Value(wanted) => (
                format!("the annotation `{key}` cannot be `{}`", written.get(&key).map_or("", String::as_str)),
                at.value_place("metadata.annotations", &key),
                format!("write {wanted}"),
            ),
        };
        let message = format!("ingress {}: {message}", ingress.key());
        problems.push(Problem::warning(codes::INGRESS_ANNOTATION, message).at(place, "has no effect").help(help));
    }
}

/// Tell of annotations that other controllers read, each family once.
fn check_others(ingress: &Checked, written: &BTreeMap<String, String>, problems: &mut Problems) {
    let mut families: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for key in written.keys() {
        if let Some(family) = family_of_others(key) {
            families.entry(family).or_default().push(key);
        }
    }
    for (family, keys) in families {
        let all: Vec<String> = keys.iter().map(|key| format!("`{}`", &key[family.len()..])).collect();
        let message = format!("ingress {}: {} of `{family}` are for another controller", ingress.key(), all.join(", "));
        let message = if all.len() == 1 { message.replace(" are for", " is for") } else { message };
        problems.push(
            Problem::warning(codes::INGRESS_ANNOTATION, message)
                .at(ingress.written.key_place("metadata.annotations", keys[0]), "has no effect")
                .help(format!("all controllers of a lab read `{PREFIX}…`; is there one that does the same?")),
        );
    }
}

/// The fields of the ConfigMap that a controller knows besides those that all know; nothing where any may
/// be written, as a template may use it.
fn own_fields(driver: &Driver) -> Option<&'static [&'static str]> {
    match driver {
        Driver::BuiltIn => Some(&[]),
        Driver::Nginx => Some(NGINX),
        Driver::Haproxy => Some(HAPROXY),
        Driver::Command { .. } => None,
    }
}

/// Tell of settings that the controller does not know, or not with their values. `map` is the ConfigMap
/// that holds those that are not in the lab file.
pub(super) fn check_config(
    config: &BTreeMap<String, String>,
    driver: &Driver,
    (map, scene): (Option<&ObjectKey>, &Scene),
    problems: &mut Problems,
) {
    let own = own_fields(driver);
    for Misread { name, why } in settings::read(config, own.unwrap_or_default()).2 {
        if own.is_none() && why == Why::Unknown {
            continue;
        }
        let (message, help) = match why {
            Why::Unknown => {
                let known = || COMMON.iter().chain(own.unwrap_or_default()).copied();
                let help = match did_you_mean(&name, known()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("it knows {}", known().collect::<Vec<_>>().join(", ")),
                };
                (format!("the controller {driver} does not know the setting `{name}`"), help)
            }
            Why::Value(wanted) => {
                let value = config.get(&name).map_or("", String::as_str);
                (format!("the setting `{name}` cannot be `{value}`"), format!("write {wanted}"))
            }
        };
        let problem = Problem::warning(codes::INGRESS_CONFIG, message).help(help);
        problems.push(match place(&name, map, scene) {
            Some(place) => problem.at(place, "has no effect"),
            None => problem,
        });
    }
}

/// Where a setting is written: those of the lab file go before those of the ConfigMap.
fn place(name: &str, map: Option<&ObjectKey>, scene: &Scene) -> Option<crate::diag::Place> {
    let settings = scene.file.cluster.ingress.as_ref()?;
    if let Some((written, _)) = settings.config.iter().find(|(n, _)| n.value == name) {
        return Some(written.place);
    }
    let written = scene.file.objects.config_maps.iter().find(|m| Some(&ObjectKey::of(&m.object.metadata)) == map)?;
    Some(written.key_place("data", name))
}
