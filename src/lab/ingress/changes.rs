//! What a change of a lab does to what its ingress controller reads, in words for people.

use std::collections::BTreeMap;

use crate::lab::Lab;
use crate::objects::{Ingress, IngressClass, ObjectKey, Secret, changes};

use super::{INGRESS_NAME, INGRESS_NAMESPACE, IngressLayer};

/// What of a secret is worth a word: as it was brought, or the names that the lab signs it for.
#[derive(PartialEq)]
enum Held<'l> {
    Brought(&'l Secret),
    Signed(&'l [String]),
}

/// A line for each ingress, class, secret and controller that differs, such as `ingress default/cafe: changed`.
pub fn changes(old: &Lab, new: &Lab) -> Vec<String> {
    let mut all = changes::of_kind("ingress", &ingresses(old), &ingresses(new));
    all.extend(changes::of_kind("ingressclass", &classes(old), &classes(new)));
    all.extend(changes::of_kind("secret", &secrets(old), &secrets(new)));
    all.extend(changes::of_kind("settings of", &of_controller(old, |l| &l.config), &of_controller(new, |l| &l.config)));
    let controllers = [old, new].map(|lab| of_controller(lab, |layer| &layer.controller));
    all.extend(changes::of_kind("controller", &controllers[0], &controllers[1]));
    all
}

/// Ingresses, and whether somebody serves them.
fn ingresses(lab: &Lab) -> BTreeMap<ObjectKey, (&Ingress, bool)> {
    let served = lab.ingress.iter().flat_map(|layer| layer.ingresses.iter().map(|i| (i, true)));
    let others = lab.ingress.iter().flat_map(|layer| layer.unserved.iter().map(|u| (&u.ingress, false)));
    served.chain(others).map(|(i, is_served)| (ObjectKey::of(&i.metadata), (i, is_served))).collect()
}

/// They are in no namespace.
fn classes(lab: &Lab) -> BTreeMap<&str, &IngressClass> {
    let all = lab.ingress.iter().flat_map(|layer| &layer.classes);
    all.filter_map(|class| Some((class.metadata.name.as_deref()?, class))).collect()
}

fn secrets(lab: &Lab) -> BTreeMap<ObjectKey, Held<'_>> {
    let signed = lab.ingress.iter().flat_map(|layer| &layer.generated);
    let signed = signed.map(|(key, names)| (key.clone(), Held::Signed(names)));
    let brought = lab.secrets.iter().map(|secret| (ObjectKey::of(&secret.metadata), Held::Brought(secret)));
    signed.chain(brought).collect()
}

/// Something of the lab's only controller.
fn of_controller<'l, T>(lab: &'l Lab, what: impl Fn(&'l IngressLayer) -> &'l T) -> BTreeMap<ObjectKey, &'l T> {
    let key = ObjectKey::new(INGRESS_NAMESPACE, INGRESS_NAME);
    lab.ingress.iter().map(|layer| (key.clone(), what(layer))).collect()
}
