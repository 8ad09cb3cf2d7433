//! Ingresses and their classes (`pkg/apis/networking/validation`).

use std::net::IpAddr;

use super::meta::{self, quoted};
use super::{is_dns_subdomain, ports};
use crate::lab::names::check_label;
use crate::objects::field::FieldError;
use crate::objects::ingress::annotations::CLASS as CLASS_ANNOTATION;
use crate::objects::{HTTPIngressPath, Ingress, IngressBackend, IngressClass, IngressRule, IngressSpec, IngressTLS};

const PATH_TYPES: &[&str] = &["Exact", "ImplementationSpecific", "Prefix"];
/// What a path of the types Exact and Prefix cannot contain, and cannot end with.
const NOT_WITHIN: &[&str] = &["//", "/./", "/../", "%2f", "%2F"];
const NOT_AT_THE_END: &[&str] = &["/..", "/."];
const LONGEST_CONTROLLER: usize = 250;

/// Every field of `ingress` that the API server would refuse.
pub fn ingress(ingress: &Ingress) -> Vec<FieldError> {
    let mut found = Vec::new();
    meta::check(&ingress.metadata, is_dns_subdomain, &mut found);
    let empty = IngressSpec::default();
    let spec = ingress.spec.as_ref().unwrap_or(&empty);
    let rules = spec.rules.as_deref().unwrap_or_default();
    if rules.is_empty() && spec.default_backend.is_none() {
        let detail = "either `defaultBackend` or `rules` must be specified; add one of them";
        found.push(FieldError::invalid("spec", "{}", detail));
    }
    if let Some(default) = &spec.default_backend {
        backend(default, "spec.defaultBackend", &mut found);
    }
    rules.iter().enumerate().for_each(|(n, r)| rule(r, &format!("spec.rules[{n}]"), &mut found));
    for (n, entry) in spec.tls.iter().flatten().enumerate() {
        tls(entry, &format!("spec.tls[{n}]"), &mut found);
    }
    class_name(ingress, spec, &mut found);
    found
}

fn class_name(ingress: &Ingress, spec: &IngressSpec, found: &mut Vec<FieldError>) {
    let Some(field) = &spec.ingress_class_name else { return };
    if !is_dns_subdomain(field) {
        found.push(FieldError::invalid("spec.ingressClassName", quoted(field), NOT_A_SUBDOMAIN));
    }
    let annotation = ingress.metadata.annotations.as_ref().and_then(|a| a.get(CLASS_ANNOTATION));
    if let Some(other) = annotation.filter(|other| *other != field) {
        let path = format!("annotations.{CLASS_ANNOTATION}");
        let detail = "must match `ingressClassName` when both are specified; take the annotation out";
        found.push(FieldError::invalid(path, quoted(other), detail));
    }
}

const NOT_A_SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' \
                               or '.', and must start and end with an alphanumeric character; such as cafe.example.com";
const NOT_A_WILDCARD: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain; \
                              such as *.example.com";

fn host(host: &str, path: String, found: &mut Vec<FieldError>) {
    if host.contains('*') {
        if !host.strip_prefix("*.").is_some_and(is_dns_subdomain) {
            found.push(FieldError::invalid(path, quoted(host), NOT_A_WILDCARD));
        }
    } else if !is_dns_subdomain(host) {
        let with_port =
            host.rsplit_once(':').filter(|(name, port)| is_dns_subdomain(name) && port.parse::<u16>().is_ok());
        let detail = match with_port {
            Some((name, _)) => format!("a host has no port, the controller listens on 80 and 443; write {name}"),
            None if is_dns_subdomain(&host.to_lowercase()) => {
                format!("{}; write {}", NOT_A_SUBDOMAIN.split("; ").next().unwrap_or_default(), host.to_lowercase())
            }
            None => NOT_A_SUBDOMAIN.to_owned(),
        };
        found.push(FieldError::invalid(path, quoted(host), detail));
    }
}

fn rule(rule: &IngressRule, path: &str, found: &mut Vec<FieldError>) {
    if let Some(name) = rule.host.as_deref().filter(|h| !h.is_empty()) {
        let at = format!("{path}.host");
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        if bare.parse::<IpAddr>().is_ok() {
            let detail = "must be a DNS name, not an IP address; leave `host` out and the rule holds for every name, \
                          or take a name and let it resolve to the address";
            found.push(FieldError::invalid(at, quoted(name), detail));
        } else {
            host(name, at, found);
        }
    }
    let Some(http) = &rule.http else { return };
    if http.paths.is_empty() {
        found.push(FieldError::required(format!("{path}.http.paths"), ""));
    }
    for (n, entry) in http.paths.iter().enumerate() {
        http_path(entry, &format!("{path}.http.paths[{n}]"), found);
    }
}

fn http_path(entry: &HTTPIngressPath, at: &str, found: &mut Vec<FieldError>) {
    let kind = entry.path_type.as_str();
    if kind.is_empty() {
        found.push(FieldError::required(
            format!("{at}.pathType"),
            "pathType must be specified; add `pathType: Prefix`, or Exact",
        ));
        return;
    }
    let path = entry.path.as_deref().unwrap_or_default();
    let at_path = format!("{at}.path");
    let strict = kind != "ImplementationSpecific";
    if !PATH_TYPES.contains(&kind) {
        found.push(FieldError::not_supported(format!("{at}.pathType"), kind, PATH_TYPES));
    } else if !path.starts_with('/') && (strict || !path.is_empty()) {
        let detail = format!("must be an absolute path; write /{path}");
        found.push(FieldError::invalid(at_path, quoted(path), detail));
    } else if strict {
        let within = NOT_WITHIN.iter().find(|part| path.contains(**part)).map(|part| (part, "must not contain"));
        let end = NOT_AT_THE_END.iter().find(|end| path.ends_with(**end)).map(|part| (part, "cannot end with"));
        if let Some((part, what)) = within.or(end) {
            let detail = format!("{what} '{part}'; write the path as it is after browsers have tidied it");
            found.push(FieldError::invalid(at_path, quoted(path), detail));
        }
    }
    backend(&entry.backend, &format!("{at}.backend"), found);
}

fn backend(backend: &IngressBackend, at: &str, found: &mut Vec<FieldError>) {
    let service = match (&backend.resource, &backend.service) {
        (Some(_), Some(_)) => {
            let detail = "cannot set both resource and service backends; take one of them out";
            return found.push(FieldError::invalid(at, "\"\"", detail));
        }
        (None, None) => {
            let detail = "resource or service backend is required; add `service: { name: …, port: { number: 80 } }`";
            return found.push(FieldError::invalid(at, "\"\"", detail));
        }
        (Some(resource), None) => {
            for (field, value) in [("kind", &resource.kind), ("name", &resource.name)] {
                if value.is_empty() {
                    found.push(FieldError::required(format!("{at}.resource.{field}"), ""));
                }
            }
            return;
        }
        (None, Some(service)) => service,
    };
    if service.name.is_empty() {
        found.push(FieldError::required(format!("{at}.service.name"), ""));
    } else if check_label(&service.name).is_err() {
        let detail =
            "a service's name is a label as RFC 1123 has it; services of other namespaces cannot be named here";
        found.push(FieldError::invalid(format!("{at}.service.name"), quoted(&service.name), detail));
    }
    let port = service.port.as_ref();
    let name = port.and_then(|p| p.name.as_deref()).filter(|n| !n.is_empty());
    let number = port.and_then(|p| p.number).filter(|n| *n != 0);
    let at_port = format!("{at}.service.port");
    match (name, number) {
        (Some(_), Some(_)) => {
            found.push(FieldError::invalid(
                at,
                "\"\"",
                "cannot set both port name & port number; take one of them out",
            ));
        }
        (None, None) => {
            found.push(FieldError::required(at_port, "port name or number is required; add `port: { number: 80 }`"))
        }
        (Some(name), None) if !ports::is_port_name(name) => {
            let detail = "a port's name has at most 15 small letters, digits and dashes, and at least one letter";
            found.push(FieldError::invalid(format!("{at_port}.name"), quoted(name), detail));
        }
        (None, Some(number)) if !(1..=65535).contains(&number) => {
            let detail = "must be between 1 and 65535, inclusive";
            found.push(FieldError::invalid(format!("{at_port}.number"), number, detail));
        }
        _ => {}
    }
}

fn tls(entry: &IngressTLS, at: &str, found: &mut Vec<FieldError>) {
    for (n, name) in entry.hosts.iter().flatten().enumerate() {
        host(name, format!("{at}.hosts[{n}]"), found);
    }
    if let Some(name) = entry.secret_name.as_deref().filter(|n| !n.is_empty() && !is_dns_subdomain(n)) {
        let detail = "a secret's name has small letters, digits, '-' and '.'; such as cafe-secret, of the ingress' own namespace";
        found.push(FieldError::invalid(format!("{at}.secretName"), quoted(name), detail));
    }
}

/// Every field of `class` that the API server would refuse.
pub fn ingress_class(class: &IngressClass) -> Vec<FieldError> {
    let mut found = Vec::new();
    meta::check(&class.metadata, is_dns_subdomain, &mut found);
    let controller = class.spec.as_ref().and_then(|s| s.controller.as_deref()).unwrap_or_default();
    let is_path = controller.split_once('/').is_some_and(|(domain, path)| {
        is_dns_subdomain(domain) && !path.is_empty() && !path.contains(char::is_whitespace)
    });
    if controller.is_empty() {
        found.push(FieldError::required("spec.controller", ""));
    } else if controller.len() > LONGEST_CONTROLLER || !is_path {
        let detail = "must be a domain-prefixed path of at most 250 letters; such as k8s.io/ingress-nginx";
        found.push(FieldError::invalid("spec.controller", quoted(controller), detail));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ingress with these fields of its spec, and what is refused of it.
    fn faults(spec: &str) -> Vec<String> {
        let object = serde_json::json!({ "metadata": { "name": "cafe" }, "spec": serde_json::from_str::<serde_json::Value>(spec).expect("JSON") });
        let object: Ingress = serde_json::from_value(object).expect("an ingress");
        ingress(&object).iter().map(|f| f.to_string().split("; ").next().unwrap_or_default().to_owned()).collect()
    }

    fn of_host(host: &str) -> Vec<String> {
        faults(&format!(r#"{{ "rules": [{{ "host": "{host}" }}] }}"#))
    }

    fn of_path(kind: &str, path: &str) -> Vec<String> {
        let backend = r#"{ "service": { "name": "tea", "port": { "number": 80 } } }"#;
        faults(&format!(
            r#"{{ "rules": [{{ "http": {{ "paths": [{{ "path": "{path}", "pathType": "{kind}", "backend": {backend} }}] }} }}] }}"#
        ))
    }

    fn of_backend(backend: &str) -> Vec<String> {
        faults(&format!(r#"{{ "defaultBackend": {backend} }}"#))
    }

    #[test]
    fn a_host_is_a_name_and_no_address() {
        for good in ["cafe.example.com", "cafe", "*.example.com", "*.com", ""] {
            assert_eq!(of_host(good), [""; 0], "{good}");
        }
        let told = of_host("192.168.1.11");
        assert_eq!(
            told,
            [r#"spec.rules[0].host: Invalid value: "192.168.1.11": must be a DNS name, not an IP address"#]
        );
        assert_eq!(of_host("fd00::1").len(), 1);
        assert_eq!(of_host("[fd00::1]").len(), 1);
        for bad in
            ["*", "*.*.com", "a.*.com", "foo*.com", "Cafe.example.com", "cafe_1.com", "cafe.example.com:80", "a..b"]
        {
            assert_eq!(of_host(bad).len(), 1, "{bad}");
        }
    }

    #[test]
    fn a_path_is_absolute_and_tidy_unless_it_is_the_controllers_own() {
        for good in ["/", "/tea", "/tea/", "/tea.html", "/a%20b", "/..tea"] {
            assert_eq!(of_path("Prefix", good), [""; 0], "{good}");
            assert_eq!(of_path("Exact", good), [""; 0], "{good}");
        }
        for bad in ["", "tea", "/a//b", "/a/./b", "/a/../b", "/a%2fb", "/a%2Fb", "/a/..", "/a/."] {
            assert_eq!(of_path("Prefix", bad).len(), 1, "{bad}");
            assert_eq!(of_path("Exact", bad).len(), 1, "{bad}");
        }
        for good in ["", "/a//b", "/tea(/|$)(.*)"] {
            assert_eq!(of_path("ImplementationSpecific", good), [""; 0], "{good}");
        }
        assert_eq!(of_path("ImplementationSpecific", "tea").len(), 1);
        let required = "spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified";
        assert_eq!(of_path("", "/"), [required]);
        assert_eq!(
            of_path("prefix", "/"),
            [
                r#"spec.rules[0].http.paths[0].pathType: Unsupported value: "prefix": supported values: "Exact", "ImplementationSpecific", "Prefix""#
            ]
        );
    }

    #[test]
    fn a_backend_is_one_service_with_one_port_or_a_resource() {
        for good in [
            r#"{ "service": { "name": "tea", "port": { "number": 80 } } }"#,
            r#"{ "service": { "name": "tea", "port": { "name": "http" } } }"#,
            r#"{ "resource": { "kind": "Bucket", "name": "icons" } }"#,
        ] {
            assert_eq!(of_backend(good), [""; 0], "{good}");
        }
        for bad in [
            "{}",
            r#"{ "service": { "name": "tea", "port": { "number": 80 } }, "resource": { "kind": "B", "name": "i" } }"#,
            r#"{ "service": { "name": "", "port": { "number": 80 } } }"#,
            r#"{ "service": { "name": "shop.tea", "port": { "number": 80 } } }"#,
            r#"{ "service": { "name": "tea" } }"#,
            r#"{ "service": { "name": "tea", "port": { "number": 80, "name": "http" } } }"#,
            r#"{ "service": { "name": "tea", "port": { "number": 70000 } } }"#,
            r#"{ "service": { "name": "tea", "port": { "name": "HTTP" } } }"#,
            r#"{ "resource": { "kind": "Bucket", "name": "" } }"#,
        ] {
            assert_eq!(of_backend(bad).len(), 1, "{bad}");
        }
    }

    #[test]
    fn an_ingress_needs_rules_or_a_backend_and_names_one_class() {
        assert_eq!(faults("{}").len(), 1);
        assert_eq!(faults(r#"{ "rules": [] }"#).len(), 1);
        assert_eq!(faults(r#"{ "rules": [{ "http": { "paths": [] } }] }"#).len(), 1);
        assert_eq!(faults(r#"{ "rules": [{}], "ingressClassName": "Nginx" }"#).len(), 1);
        assert_eq!(faults(r#"{ "rules": [{}], "tls": [{ "hosts": ["*"], "secretName": "a/b" }] }"#).len(), 2);
        let with = |annotation: &str| {
            let object = serde_json::json!({
                "metadata": { "name": "cafe", "annotations": { CLASS_ANNOTATION: annotation } },
                "spec": { "rules": [{}], "ingressClassName": "nginx" },
            });
            ingress(&serde_json::from_value(object).expect("an ingress")).len()
        };
        assert_eq!((with("nginx"), with("traefik")), (0, 1));
    }

    #[test]
    fn a_class_names_its_controller_with_a_domain() {
        let faults = |controller: serde_json::Value| {
            let object = serde_json::json!({ "metadata": { "name": "nginx" }, "spec": { "controller": controller } });
            ingress_class(&serde_json::from_value(object).expect("a class")).len()
        };
        assert_eq!(faults("k8s.io/ingress-nginx".into()), 0);
        for bad in ["nginx", "/nginx", "k8s.io/", "a b/c", ""] {
            assert_eq!(faults(bad.into()), 1, "{bad}");
        }
        assert_eq!(faults(serde_json::Value::Null), 1);
        assert_eq!(faults(format!("k8s.io/{}", "x".repeat(250)).into()), 1);
    }
}
