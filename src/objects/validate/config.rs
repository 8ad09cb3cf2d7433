//! Secrets and ConfigMaps (`pkg/apis/core/validation`).

use super::is_dns_subdomain;
use super::meta::{self, quoted};
use crate::objects::field::FieldError;
use crate::objects::{ConfigMap, Secret};

/// The type of a secret with a certificate and its key.
pub const TLS: &str = "kubernetes.io/tls";
pub const TLS_CRT: &str = "tls.crt";
pub const TLS_KEY: &str = "tls.key";
/// The most that a secret or a ConfigMap may hold, in bytes.
const MOST: usize = 1 << 20;

/// Every field of `secret` that the API server would refuse.
pub fn secret(secret: &Secret) -> Vec<FieldError> {
    let mut found = Vec::new();
    meta::check(&secret.metadata, is_dns_subdomain, &mut found);
    let data = || secret.data.iter().flatten().map(|(key, value)| (key, value.0.len()));
    let texts = || secret.string_data.iter().flatten().map(|(key, value)| (key, value.len()));
    data().for_each(|(key, _)| check_key("data", key, &mut found));
    texts().for_each(|(key, _)| check_key("stringData", key, &mut found));
    check_size("data", data().chain(texts()).map(|(_, size)| size).sum(), &mut found);
    if secret.type_.as_deref() == Some(TLS) {
        for field in [TLS_CRT, TLS_KEY] {
            if !data().chain(texts()).any(|(key, _)| key == field) {
                found.push(FieldError::required(format!("data[{field}]"), ""));
            }
        }
    }
    found
}

/// Every field of `map` that the API server would refuse.
pub fn config_map(map: &ConfigMap) -> Vec<FieldError> {
    let mut found = Vec::new();
    meta::check(&map.metadata, is_dns_subdomain, &mut found);
    let (mut size, binary) = (0, map.binary_data.as_ref());
    for (key, value) in map.data.iter().flatten() {
        check_key("data", key, &mut found);
        size += value.len();
        if binary.is_some_and(|b| b.contains_key(key)) {
            let detail = "duplicate of key present in binaryData; take one of them out";
            found.push(FieldError::invalid("data", quoted(key), detail));
        }
    }
    for (key, value) in binary.into_iter().flatten() {
        check_key("binaryData", key, &mut found);
        size += value.0.len();
    }
    check_size("data", size, &mut found);
    found
}

fn check_size(path: &str, size: usize, found: &mut Vec<FieldError>) {
    if size > MOST {
        found.push(FieldError::invalid(path, format!("{size} bytes"), format!("must have at most {MOST} bytes")));
    }
}

/// IsConfigMapKey: such as a file's name.
fn check_key(path: &str, key: &str, found: &mut Vec<FieldError>) {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_name = !key.is_empty() && key.len() <= 253 && key.chars().all(good) && key != "." && !key.starts_with("..");
    if !is_name {
        let detail = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'; such as tls.crt";
        found.push(FieldError::invalid(path, quoted(key), detail));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_secret(fields: serde_json::Value) -> Vec<String> {
        let mut object = serde_json::json!({ "metadata": { "name": "s" } });
        object.as_object_mut().expect("a map").extend(fields.as_object().expect("a map").clone());
        secret(&serde_json::from_value(object).expect("a secret")).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_secret_for_tls_has_a_certificate_and_a_key() {
        let bare = of_secret(serde_json::json!({ "type": TLS }));
        assert_eq!(bare, ["data[tls.crt]: Required value", "data[tls.key]: Required value"]);
        let both = serde_json::json!({ "type": TLS, "data": { "tls.crt": "YQ==" }, "stringData": { "tls.key": "b" } });
        assert_eq!(of_secret(both), [""; 0]);
        assert_eq!(of_secret(serde_json::json!({ "type": "Opaque" })), [""; 0]);
    }

    #[test]
    fn keys_are_like_names_of_files() {
        for good in ["a", ".dockerconfigjson", "A_b-c.d"] {
            assert_eq!(of_secret(serde_json::json!({ "stringData": { good: "x" } })), [""; 0], "{good}");
        }
        for bad in ["", ".", "..", "../a", "a b", "a/b"] {
            assert_eq!(of_secret(serde_json::json!({ "stringData": { bad: "x" } })).len(), 1, "{bad}");
        }
        let large = of_secret(serde_json::json!({ "stringData": { "a": "x".repeat(MOST + 1) } }));
        assert_eq!(large.len(), 1);
    }

    #[test]
    fn a_config_map_has_each_key_once() {
        let object = |binary: &str| {
            let object = serde_json::json!({
                "metadata": { "name": "c" }, "data": { "a": "1" }, "binaryData": { binary: "YQ==" },
            });
            config_map(&serde_json::from_value(object).expect("a ConfigMap")).len()
        };
        assert_eq!((object("b"), object("a"), object("a b")), (0, 1, 1));
    }
}
