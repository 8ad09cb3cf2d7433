//! Which ingresses the controller serves: classes of the file, and the one that it brings.

use crate::diag::Problems;
use crate::objects::{Ingress, IngressClass};
use crate::spec::LabFile;

use super::resolve::written_classes;
use super::{Controller, Driver, class_of};

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

    /// Whether a class' `controller` means this one.
    fn is_meant(&self, controller: &str) -> bool {
        match self {
            // With and without the class' name behind it.
            Driver::Haproxy => controller.starts_with("haproxy.org/ingress-controller"),
            other => other.class().is_some_and(|(_, own)| own == controller),
        }
    }
}

/// The classes of a lab.
pub(super) struct Classes {
    pub all: Vec<IngressClass>,
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
    Classes { all }
}

impl Classes {
    /// The class of ingresses that name none. Of several default ones the API server takes the newest, and
    /// of equally old ones the first by name.
    pub fn default_name(&self) -> Option<&str> {
        let is_default = |class: &&IngressClass| {
            class.metadata.annotations.as_ref().and_then(|a| a.get(IS_DEFAULT)).is_some_and(|v| v == "true")
        };
        self.all.iter().filter(is_default).filter_map(|c| c.metadata.name.as_deref()).min()
    }

    /// Who serves a class, as its object says.
    pub fn controller_of(&self, class: &str) -> Option<&str> {
        let object = self.all.iter().find(|c| c.metadata.name.as_deref() == Some(class))?;
        object.spec.as_ref()?.controller.as_deref()
    }

    /// Whether the controller serves an ingress: one without class, one of a class of its own, and, unless it
    /// is nginx or HAProxy, also one of a class that is nobody's.
    pub fn serves(&self, controller: &Controller, ingress: &Ingress) -> bool {
        let Some(class) = class_of(ingress) else { return true };
        let driver = &controller.driver;
        let takes_strangers = matches!(driver, Driver::BuiltIn | Driver::Command { .. });
        match self.controller_of(class) {
            Some(other) => driver.is_meant(other),
            None => takes_strangers,
        }
    }
}
