//! Names, labels and annotations.

use crate::lab::names::check_label;
use crate::objects::ObjectMeta;
use crate::objects::field::FieldError;

/// A DNS subdomain as RFC 1123 has it: labels with dots between them, 253 letters at most.
pub fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(|label| check_label(label).is_ok())
}

/// The name part of a label's key, and a label's value: letters, digits, `-`, `_` and `.`, with a
/// letter or digit at both ends.
fn is_word(text: &str) -> bool {
    let end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && end(text.chars().next())
        && end(text.chars().last())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

/// A label's key: a word, with a domain and `/` before it where it belongs to somebody.
pub fn is_label_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_dns_subdomain(prefix) && is_word(name),
        None => is_word(key),
    }
}

pub fn is_label_value(value: &str) -> bool {
    value.is_empty() || is_word(value)
}

/// Checks that hold for every object.
pub(super) fn check(meta: &ObjectMeta, name: fn(&str) -> bool, found: &mut Vec<FieldError>) {
    let written = meta.name.as_deref().unwrap_or_default();
    if written.is_empty() {
        found.push(FieldError::required("metadata.name", "name or generateName is required"));
    } else if !name(written) {
        let detail =
            "must consist of lower case alphanumeric characters or '-', and begin and end with one of the former";
        found.push(FieldError::invalid("metadata.name", quoted(written), detail));
    }
    if let Some(namespace) = meta.namespace.as_deref().filter(|n| !n.is_empty() && check_label(n).is_err()) {
        let detail = "a namespace is a label as RFC 1123 has it";
        found.push(FieldError::invalid("metadata.namespace", quoted(namespace), detail));
    }
    labels("metadata.labels", meta.labels.iter().flatten(), found);
    for key in meta.annotations.iter().flat_map(|a| a.keys()).filter(|k| !is_label_key(&k.to_ascii_lowercase())) {
        found.push(FieldError::invalid("metadata.annotations", quoted(key), "it is no qualified name"));
    }
}

/// Keys and values of labels or of a selector at `path`.
pub(super) fn labels<'a>(path: &str, all: impl Iterator<Item = (&'a String, &'a String)>, found: &mut Vec<FieldError>) {
    for (key, value) in all {
        if !is_label_key(key) {
            let detail =
                "a label's key is a word of letters, digits, '-', '_' and '.', with a domain and '/' before it at will";
            found.push(FieldError::invalid(path, quoted(key), detail));
        }
        if !is_label_value(value) {
            let detail = "a label's value has at most 63 letters, digits, '-', '_' and '.', and begins and ends with a letter or digit";
            found.push(FieldError::invalid(path, quoted(value), detail));
        }
    }
}

pub(super) fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_keys_may_have_a_domain_and_values_may_be_empty() {
        assert!(is_label_key("app") && is_label_key("kubernetes.io/service-name") && is_label_key("A_b.c"));
        assert!(!is_label_key("") && !is_label_key("a b") && !is_label_key("-a") && !is_label_key("a/b/c"));
        assert!(is_label_value("") && is_label_value("v1.2") && !is_label_value("v 1"));
    }
}
