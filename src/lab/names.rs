//! Names that cannot be wrong: each type checks its rules when it is made.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NameError(String);

/// A DNS label as RFC 1123 has it: 1 to 63 lower-case letters, digits and dashes, with a letter
/// or digit at both ends.
pub fn check_label(text: &str) -> Result<(), NameError> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.is_empty() || text.len() > 63 {
        return Err(NameError(format!("it has {} letters; a name has 1 to 63", text.len())));
    }
    if let Some(bad) = text.chars().find(|c| !good(*c)) {
        let bad = if bad == ' ' { "a blank".to_owned() } else { format!("`{}`", bad.escape_debug()) };
        return Err(NameError(format!("a name has only lower-case letters, digits and dashes, not {bad}")));
    }
    if text.starts_with('-') || text.ends_with('-') {
        return Err(NameError("a name begins and ends with a letter or digit".to_owned()));
    }
    Ok(())
}

macro_rules! label_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                check_label(&text).map(|()| $name(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

label_type!(
    /// A lab's name.
    LabName
);
label_type!(
    /// The name of a host or client.
    HostName
);
label_type!(
    /// The name of a network.
    NetworkName
);
label_type!(
    /// The name of a pod, within its namespace.
    PodName
);
label_type!(
    /// The name of a Kubernetes namespace.
    Namespace
);

/// A pod's full name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodId {
    pub namespace: Namespace,
    pub name: PodName,
}

impl fmt::Display for PodId {
    /// `name` in the namespace `default`, `namespace/name` elsewhere.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.as_str() == "default" {
            return self.name.fmt(f);
        }
        f.pad(&format!("{}/{}", self.namespace, self.name))
    }
}

/// One network namespace of a lab, by what it stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum NsName {
    /// The lab's root namespace: the switches, and the router between them.
    Router,
    Host(HostName),
    Client(HostName),
    Pod(PodId),
}

impl NsName {
    /// What kind of thing it is, in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            NsName::Router => "router",
            NsName::Host(_) => "host",
            NsName::Client(_) => "client",
            NsName::Pod(_) => "pod",
        }
    }

    /// An unambiguous name: `router`, `host/node1`, `client/laptop`, `pod/default/tea-1`.
    pub fn path(&self) -> String {
        match self {
            NsName::Router => "router".to_owned(),
            NsName::Host(name) => format!("host/{name}"),
            NsName::Client(name) => format!("client/{name}"),
            NsName::Pod(id) => format!("pod/{}/{}", id.namespace, id.name),
        }
    }

    /// Whether `word` is its path or its short name.
    pub fn is_called(&self, word: &str) -> bool {
        let parts = |n: usize| word.splitn(n, '/');
        match self {
            NsName::Router => word == "router",
            NsName::Host(name) => word == name.as_str() || parts(2).eq(["host", name.as_str()]),
            NsName::Client(name) => word == name.as_str() || parts(2).eq(["client", name.as_str()]),
            NsName::Pod(PodId { namespace, name }) => {
                let (namespace, name) = (namespace.as_str(), name.as_str());
                (namespace == "default" && word == name)
                    || (namespace != "default" && parts(2).eq([namespace, name]))
                    || parts(3).eq(["pod", namespace, name])
            }
        }
    }

    /// The hostname of processes there.
    pub fn hostname(&self) -> &str {
        match self {
            NsName::Router => "router",
            NsName::Host(name) | NsName::Client(name) => name.as_str(),
            NsName::Pod(id) => id.name.as_str(),
        }
    }
}

impl From<NsName> for String {
    fn from(name: NsName) -> String {
        name.path()
    }
}

impl TryFrom<String> for NsName {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        let parts: Vec<&str> = text.split('/').collect();
        let label = |t: &str| HostName::try_from(t.to_owned());
        match parts.as_slice() {
            ["router"] => Ok(NsName::Router),
            ["host", name] => label(name).map(NsName::Host),
            ["client", name] => label(name).map(NsName::Client),
            ["pod", namespace, name] => Ok(NsName::Pod(PodId {
                namespace: Namespace::try_from((*namespace).to_owned())?,
                name: PodName::try_from((*name).to_owned())?,
            })),
            _ => Err(NameError(format!("`{text}` names no namespace of a lab"))),
        }
    }
}

impl fmt::Display for NsName {
    /// The short name that people type: `router`, `node1`, `tea-1`, `kube-system/coredns-1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NsName::Pod(id) => id.fmt(f),
            other => f.pad(other.hostname()),
        }
    }
}

/// The path that a word such as `pod/tea-1` or `node/node1` means: a kind as kubectl has it, in
/// front of a name.
pub fn path_of(word: &str) -> Option<String> {
    let (kind, name) = word.split_once('/')?;
    Some(match kind_of(kind)? {
        "pod" if !name.contains('/') => format!("pod/default/{name}"),
        kind => format!("{kind}/{name}"),
    })
}

/// The kind that a word means: its name, its plural or its short form.
pub fn kind_of(word: &str) -> Option<&'static str> {
    match word {
        "pod" | "pods" | "po" => Some("pod"),
        "host" | "hosts" | "node" | "nodes" | "no" => Some("host"),
        "client" | "clients" => Some("client"),
        _ => None,
    }
}

/// Whether a name is meant by a pattern in which `*` stands for any letters. A pod of the
/// namespace `default` may be written with it.
pub fn named(pattern: &str, name: &str) -> bool {
    glob(pattern, name) || pattern.strip_prefix("default/").is_some_and(|rest| glob(rest, name))
}

fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    // The earliest place for each part leaves the most room for those after it.
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// The name of a network device: at most 15 bytes, no slash, no blank (the kernel's
/// `dev_valid_name`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct IfName(String);

impl IfName {
    /// The longest device name in bytes (`IFNAMSIZ` without its end).
    pub const LONGEST: usize = 15;

    /// A name of our own making that is known to fit, or cut where it does not.
    pub fn new(text: &str) -> IfName {
        let mut end = text.len().min(Self::LONGEST);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        IfName(text[..end].to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_what_rfc_1123_says() {
        for good in ["a", "node1", "a-b", "1a", &"x".repeat(63)] {
            assert_eq!(check_label(good), Ok(()), "{good}");
        }
        for bad in ["", "-a", "a-", "Node1", "a_b", "a.b", "ü", &"x".repeat(64)] {
            assert!(check_label(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_star_stands_for_any_letters() {
        for (pattern, name) in [
            ("tea-1", "tea-1"),
            ("tea-*", "tea-12"),
            ("*", ""),
            ("*-1", "tea-1"),
            ("t*a*1", "tea-a1"),
            ("a*a", "aa"),
            ("default/tea-*", "tea-1"),
            ("shop/*", "shop/tea-1"),
        ] {
            assert!(named(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("tea", "tea-1"),
            ("tea-*", "coffee-1"),
            ("*a*a", "tea"),
            ("", "tea"),
            ("a*a", "a"),
            ("tea-*", "shop/tea-1"),
        ] {
            assert!(!named(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_namespace_path_reads_back_as_itself() {
        for path in ["router", "host/node1", "client/laptop", "pod/default/tea-1"] {
            let name = NsName::try_from(path.to_owned()).expect("a path");
            assert_eq!(name.path(), path);
        }
        assert!(NsName::try_from("pod/tea-1".to_owned()).is_err());
    }

    #[test]
    fn a_kind_in_front_of_a_name_makes_a_path() {
        for (word, path) in [
            ("pod/tea-1", "pod/default/tea-1"),
            ("po/kube-system/dns", "pod/kube-system/dns"),
            ("node/node1", "host/node1"),
            ("clients/laptop", "client/laptop"),
        ] {
            assert_eq!(path_of(word).as_deref(), Some(path));
        }
        assert_eq!(path_of("kube-system/dns"), None, "a namespace is no kind");
        assert_eq!(path_of("tea-1"), None);
    }

    #[test]
    fn a_namespace_is_called_by_its_path_and_its_short_name_and_nothing_else() {
        for path in ["router", "host/node1", "client/laptop", "pod/default/tea-1", "pod/kube-system/dns"] {
            let name = NsName::try_from(path.to_owned()).expect("a path");
            for word in [
                "router",
                "node1",
                "host/node1",
                "laptop",
                "client/laptop",
                "tea-1",
                "default/tea-1",
                "dns",
                "kube-system/dns",
                "pod/default/tea-1",
                "pod/kube-system/dns",
                "",
                "/",
                "pod/",
            ] {
                let is = word == name.path() || word == name.to_string();
                assert_eq!(name.is_called(word), is, "{path} by {word}");
            }
        }
    }
}
