//! Which ingresses the controller serves: classes of the file, and the one that it brings.

use std::collections::HashMap;

use crate::diag::{Problem, Problems, codes};
use crate::objects::{Ingress, IngressClass};
use crate::spec::LabFile;

use super::resolve::{Checked, written_classes};
use super::{CLASS_ANNOTATION, Controller, Driver, class_of, near};

/// The controllers that bring a class.
const OWN: [Driver; 3] = [Driver::BuiltIn, Driver::Nginx, Driver::Haproxy];
/// With the value `true` it makes a class that of ingresses without one.
const IS_DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";

impl Driver {
    /// The class that the controller brings, and what it is called in classes' `controller`. A command
    /// of the user's has neither.
    pub fn class(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Driver::BuiltIn => Some(("built-in", "labctl/built-in")),
            Driver::Nginx => Some(("nginx", "k8s.io/ingress-nginx")),
            Driver::Haproxy => Some(("haproxy", "haproxy.org/ingress-controller/haproxy")),
            Driver::Command { .. } => None,
        }
    }

    /// Whether a class' `controller` means this one. A command of the user's is whoever the others are not.
    fn is_meant(&self, controller: &str) -> bool {
        match self {
            Driver::Command { .. } => !OWN.iter().any(|own| own.is_meant(controller)),
            // With and without the class' name behind it.
            Driver::Haproxy => controller.starts_with("haproxy.org/ingress-controller"),
            other => other.class().is_some_and(|(_, own)| own == controller),
        }
    }
}

/// The classes of a lab.
pub(super) struct Classes {
    pub all: Vec<IngressClass>,
    /// Who serves each.
    controllers: HashMap<String, String>,
}

/// The file's classes, and the controller's own where the file has none of that name.
pub(super) fn of(controller: &Controller, file: &LabFile, problems: &mut Problems) -> Classes {
    let mut all = written_classes(file, problems);
    if let Some((name, own)) = controller.driver.class()
        && !all.iter().any(|c| c.metadata.name.as_deref() == Some(name))
    {
        let class = serde_json::json!({ "metadata": { "name": name }, "spec": { "controller": own } });
        all.extend(serde_json::from_value::<IngressClass>(class).ok());
    }
    let controllers = all.iter().filter_map(|class| {
        let controller = class.spec.as_ref()?.controller.clone()?;
        Some((class.metadata.name.clone()?, controller))
    });
    Classes { controllers: controllers.collect(), all }
}

impl Classes {
    /// The class that ingresses get that are created without one. Of several default ones the API server takes the newest, and
    /// of equally old ones the first by name.
    pub fn default_name(&self) -> Option<&str> {
        let is_default = |class: &&IngressClass| {
            class.metadata.annotations.as_ref().and_then(|a| a.get(IS_DEFAULT)).is_some_and(|v| v == "true")
        };
        self.all.iter().filter(is_default).filter_map(|c| c.metadata.name.as_deref()).min()
    }

    /// Who serves a class, as its object says.
    pub fn controller_of(&self, class: &str) -> Option<&str> {
        self.controllers.get(class).map(String::as_str)
    }

    /// Whether the controller serves an ingress: one without class, or one of a class of its own. A class
    /// that no IngressClass describes is nobody's.
    pub fn serves(&self, controller: &Controller, ingress: &Ingress) -> bool {
        let Some(class) = class_of(ingress) else { return true };
        self.controller_of(class).is_some_and(|whose| controller.driver.is_meant(whose))
    }

    /// That the controller does not serve an ingress, which another one would.
    pub fn not_served(&self, controller: &Controller, ingress: &Checked) -> Problem {
        let class = class_of(&ingress.object).unwrap_or_default();
        let (driver, key, written) = (&controller.driver, ingress.key(), ingress.written);
        let place = match written.object.spec.as_ref().and_then(|s| s.ingress_class_name.as_ref()) {
            Some(_) => written.place("spec.ingressClassName"),
            None => written.value_place("metadata.annotations", CLASS_ANNOTATION),
        };
        let other = self.controller_of(class);
        let whose = match other {
            Some(other) => format!("which belongs to {other}"),
            None => "which no IngressClass describes".to_owned(),
        };
        let named = |d: &Driver| match other {
            Some(other) => d.is_meant(other),
            None => d.class().is_some_and(|(name, _)| name == class),
        };
        let names = self.all.iter().filter_map(|c| c.metadata.name.as_deref());
        let own = names.clone().find(|name| self.controller_of(name).is_some_and(|c| driver.is_meant(c)));
        let own = own.map_or("take the class out".to_owned(), |own| format!("take the class `{own}`, or none"));
        // One that is nobody's can be made this controller's.
        let mine = match (other, driver.class()) {
            (Some(_), _) => own,
            (None, Some((_, mine))) => {
                format!("make it a class of this controller: `ingressClasses: {{ {class}: {{ controller: {mine} }} }}`")
            }
            (None, None) => {
                format!("describe it: `ingressClasses: {{ {class}: {{ controller: example.com/{class} }} }}`")
            }
        };
        let help = match (OWN.iter().find(|d| named(d)), near(class, names.filter(|n| *n != class))) {
            (Some(other), _) => format!("write `cluster: {{ ingress: {{ controller: {other} }} }}`, or {mine}"),
            (None, Some(near)) => format!("did you mean `{near}`?"),
            (None, None) => mine,
        };
        let message =
            format!("ingress {key} is of the class `{class}`, {whose}; the controller {driver} does not serve it");
        Problem::warning(codes::INGRESS_CLASS, message).at(place, "nobody serves it").help(help)
    }
}
