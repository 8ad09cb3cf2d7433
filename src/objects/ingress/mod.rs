//! What an ingress controller reads in ingresses and ConfigMaps beyond the API's own fields: the
//! annotations and settings of ingress-nginx, which all controllers of a lab follow alike. Pure
//! readers, which tell what they do not understand. What becomes of it is [`crate::plan::ingress`]'s.

pub mod annotations;
pub mod pattern;
pub mod settings;
mod words;

/// A word that is not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misread {
    /// The annotation, without its prefix, or the ConfigMap's field.
    pub name: String,
    pub why: Why,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// Nobody here knows it; it is passed over.
    Unknown,
    /// It is known, but not with this value: what it may be, in a few words. The default holds.
    Value(&'static str),
}

impl Misread {
    fn value(name: &str, wanted: &'static str) -> Misread {
        Misread { name: name.to_owned(), why: Why::Value(wanted) }
    }
}
