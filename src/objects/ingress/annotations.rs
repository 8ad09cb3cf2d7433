//! An ingress' annotations, under the prefix of ingress-nginx, with its names and forms
//! (its documentation, "Annotations").

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Misread, Why, words};

/// What stands before each name.
pub const PREFIX: &str = "nginx.ingress.kubernetes.io/";

/// Before ingresses had a field for it, this annotation named their class.
pub const CLASS: &str = "kubernetes.io/ingress.class";
/// All that are understood, without the prefix.
pub const KNOWN: &[&str] = &[
    "affinity",
    "affinity-mode",
    "allowlist-source-range",
    "app-root",
    "backend-protocol",
    "force-ssl-redirect",
    "proxy-body-size",
    "proxy-connect-timeout",
    "proxy-read-timeout",
    "proxy-send-timeout",
    "rewrite-target",
    "session-cookie-change-on-failure",
    "session-cookie-expires",
    "session-cookie-max-age",
    "session-cookie-name",
    "session-cookie-path",
    "session-cookie-samesite",
    "session-cookie-secure",
    "ssl-redirect",
    "use-regex",
    "whitelist-source-range",
];

/// What an ingress' annotations say; nothing where they are silent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Annotations {
    /// What the whole path becomes; `$1` to `$9` stand for groups of the path.
    pub rewrite: Option<String>,
    pub use_regex: bool,
    pub app_root: Option<String>,
    pub ssl_redirect: Option<bool>,
    pub force_ssl_redirect: Option<bool>,
    pub protocol: BackendProtocol,
    pub allow: Option<Vec<IpNet>>,
    pub affinity: Option<Affinity>,
    pub connect_timeout: Option<Duration>,
    pub read_timeout: Option<Duration>,
    pub send_timeout: Option<Duration>,
    /// In bytes; 0: any.
    pub body_size: Option<u64>,
}

/// How endpoints are spoken to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum BackendProtocol {
    #[default]
    Http,
    Https,
    /// HTTP/2 in the clear.
    Grpc,
    Grpcs,
}

/// Affinity by cookie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Affinity {
    /// The cookie's name; ingress-nginx' `INGRESSCOOKIE` where none is written.
    pub cookie: String,
    pub path: String,
    /// In seconds.
    pub max_age: Option<u64>,
    pub same_site: Option<String>,
    pub secure: bool,
    /// Whether a client whose endpoint failed gets a cookie for the one that answered.
    pub change_on_failure: bool,
}

impl Default for Affinity {
    fn default() -> Self {
        Affinity {
            cookie: "INGRESSCOOKIE".to_owned(),
            path: "/".to_owned(),
            max_age: None,
            same_site: None,
            secure: false,
            change_on_failure: false,
        }
    }
}

/// Read `written`, all annotations of an ingress. What is not understood is told and left out.
pub fn read(written: &BTreeMap<String, String>) -> (Annotations, Vec<Misread>) {
    let mut reader = Reader { written, misread: Vec::new() };
    let unknown = written.keys().filter_map(|key| key.strip_prefix(PREFIX)).filter(|name| !KNOWN.contains(name));
    let unknown = unknown.map(|name| Misread { name: name.to_owned(), why: Why::Unknown });
    reader.misread.extend(unknown);
    (reader.all(), reader.misread)
}

/// Prefixes of annotations that other controllers read.
const OF_OTHERS: &[&str] = &[
    "appgw.ingress.kubernetes.io/",
    "haproxy-ingress.github.io/",
    "haproxy.com/",
    "haproxy.org/",
    "ingress.appscode.com/",
    "ingress.citrix.com/",
    "ingress.kubernetes.io/",
    "konghq.com/",
    "kubernetes.io/ingress.",
    "networking.gke.io/",
    "nginx.com/",
    "nginx.org/",
    "projectcontour.io/",
];

/// The family of an annotation that another controller reads, such as `traefik.ingress.kubernetes.io/`;
/// nothing for ours, and for what no controller reads.
pub fn family_of_others(key: &str) -> Option<&str> {
    if key.starts_with(PREFIX) || key == CLASS {
        return None;
    }
    if let Some(known) = OF_OTHERS.iter().find(|prefix| key.starts_with(**prefix)) {
        return key.get(..known.len());
    }
    // As alb, traefik, appgw and many others have it.
    let (domain, _) = key.split_once('/')?;
    domain.ends_with(".ingress.kubernetes.io").then(|| &key[..=domain.len()])
}

struct Reader<'a> {
    written: &'a BTreeMap<String, String>,
    misread: Vec<Misread>,
}

const PATH: &str = "a path that begins with `/`, without spaces, quotes, `;` and `\\`";
const SECONDS: &str = "a number of seconds, such as \"60\"";
const TRUTH: &str = "\"true\" or \"false\"";
const RANGES: &str = "ranges or addresses with commas between them, such as \"10.0.0.0/8,192.168.1.7\"";

impl<'a> Reader<'a> {
    fn all(&mut self) -> Annotations {
        let allow = self.one("allowlist-source-range", RANGES, words::ranges);
        let old_allow = self.one("whitelist-source-range", RANGES, words::ranges);
        Annotations {
            rewrite: self.one("rewrite-target", PATH, path),
            use_regex: self.one("use-regex", TRUTH, words::truth).unwrap_or_default(),
            app_root: self.one("app-root", PATH, path),
            ssl_redirect: self.one("ssl-redirect", TRUTH, words::truth),
            force_ssl_redirect: self.one("force-ssl-redirect", TRUTH, words::truth),
            protocol: self.one("backend-protocol", "HTTP, HTTPS, GRPC or GRPCS", protocol).unwrap_or_default(),
            allow: allow.or(old_allow),
            affinity: self.affinity(),
            connect_timeout: self.one("proxy-connect-timeout", SECONDS, words::seconds),
            read_timeout: self.one("proxy-read-timeout", SECONDS, words::seconds),
            send_timeout: self.one("proxy-send-timeout", SECONDS, words::seconds),
            body_size: self.one("proxy-body-size", "a size such as \"8m\"; \"0\" for any", words::size),
        }
    }

    fn affinity(&mut self) -> Option<Affinity> {
        let usual = Affinity::default();
        let token = |word: &str| words::is_token(word).then(|| word.to_owned());
        let affinity = Affinity {
            cookie: self.one("session-cookie-name", "a cookie's name", token).unwrap_or(usual.cookie),
            path: self.one("session-cookie-path", PATH, path).unwrap_or(usual.path),
            max_age: self.max_age(),
            same_site: self.one("session-cookie-samesite", "None, Lax or Strict", same_site),
            secure: self.one("session-cookie-secure", TRUTH, words::truth).unwrap_or_default(),
            change_on_failure: self.one("session-cookie-change-on-failure", TRUTH, words::truth).unwrap_or_default(),
        };
        // The other mode changes only when sessions move, which is the same while endpoints stay.
        self.one("affinity-mode", "\"balanced\" or \"persistent\"", |w| {
            ["balanced", "persistent"].contains(&w).then_some(())
        });
        self.one("affinity", "\"cookie\"", |word| (word == "cookie").then_some(affinity))
    }

    /// `Max-Age` wins over `Expires`, as RFC 6265 has it.
    fn max_age(&mut self) -> Option<u64> {
        let seconds = |word: &str| words::seconds(word).map(|s| s.as_secs());
        let expires = self.one("session-cookie-expires", SECONDS, seconds);
        self.one("session-cookie-max-age", SECONDS, seconds).or(expires)
    }

    fn one<T>(&mut self, name: &str, wanted: &'static str, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let written = self.written.get(&format!("{PREFIX}{name}"))?;
        let value = read(written.trim());
        if value.is_none() {
            self.misread.push(Misread::value(name, wanted));
        }
        value
    }
}

fn path(word: &str) -> Option<String> {
    words::is_path(word).then(|| word.to_owned())
}

fn protocol(word: &str) -> Option<BackendProtocol> {
    Some(match word.to_ascii_uppercase().as_str() {
        "HTTP" => BackendProtocol::Http,
        "HTTPS" => BackendProtocol::Https,
        "GRPC" => BackendProtocol::Grpc,
        "GRPCS" => BackendProtocol::Grpcs,
        _ => return None,
    })
}

fn same_site(word: &str) -> Option<String> {
    ["None", "Lax", "Strict"].iter().find(|known| known.eq_ignore_ascii_case(word)).map(|known| (*known).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(pairs: &[(&str, &str)]) -> (Annotations, Vec<Misread>) {
        read(&pairs.iter().map(|(k, v)| (format!("{PREFIX}{k}"), (*v).to_owned())).collect())
    }

    #[test]
    fn what_is_known_is_read() {
        let (read, misread) = read_all(&[
            ("rewrite-target", "/$2"),
            ("ssl-redirect", "false"),
            ("backend-protocol", "grpc"),
            ("whitelist-source-range", "10.0.0.0/8, 192.168.1.7"),
            ("proxy-body-size", "8m"),
            ("proxy-read-timeout", "120"),
        ]);
        assert_eq!(misread, []);
        assert_eq!(read.rewrite.as_deref(), Some("/$2"));
        assert_eq!(read.ssl_redirect, Some(false));
        assert_eq!(read.protocol, BackendProtocol::Grpc);
        assert_eq!(read.allow.unwrap(), ["10.0.0.0/8".parse().unwrap(), "192.168.1.7/32".parse().unwrap()]);
        assert_eq!(read.body_size, Some(8 << 20));
        assert_eq!(read.read_timeout, Some(Duration::from_secs(120)));
    }

    #[test]
    fn every_known_name_is_read_and_told_where_its_value_is_none() {
        for name in KNOWN {
            let (_, misread) = read_all(&[(name, "\u{7f}")]);
            assert!(matches!(misread.as_slice(), [one] if one.name == *name && one.why != Why::Unknown), "{name}");
        }
    }

    #[test]
    fn an_unknown_name_is_told_and_those_of_others_are_not_ours() {
        let all = BTreeMap::from([
            (format!("{PREFIX}rewrite-targt"), "/".to_owned()),
            ("kubernetes.io/ingress.class".to_owned(), "nginx".to_owned()),
        ]);
        let (read, misread) = read(&all);
        assert_eq!(read, Annotations::default());
        assert_eq!(misread, [Misread { name: "rewrite-targt".to_owned(), why: Why::Unknown }]);
    }

    #[test]
    fn what_other_controllers_read_is_known_as_theirs() {
        for (key, family) in [
            ("traefik.ingress.kubernetes.io/router.tls", Some("traefik.ingress.kubernetes.io/")),
            ("alb.ingress.kubernetes.io/scheme", Some("alb.ingress.kubernetes.io/")),
            ("haproxy.org/path-rewrite", Some("haproxy.org/")),
            ("nginx.org/rewrites", Some("nginx.org/")),
            ("kubernetes.io/ingress.allow-http", Some("kubernetes.io/ingress.")),
            ("ingress.kubernetes.io/rewrite-target", Some("ingress.kubernetes.io/")),
            ("nginx.ingress.kubernetes.io/rewrite-target", None),
            ("kubernetes.io/ingress.class", None),
            ("kubernetes.io/description", None),
            ("example.com/owner", None),
            ("plain", None),
        ] {
            assert_eq!(family_of_others(key), family, "{key}");
        }
    }

    #[test]
    fn affinity_is_by_cookie_and_its_name_is_no_way_into_a_header() {
        let (read, misread) = read_all(&[("affinity", "cookie"), ("session-cookie-name", "a; Domain=evil")]);
        assert_eq!(read.affinity, Some(Affinity::default()));
        assert_eq!(misread.len(), 1);
        let (read, _) = read_all(&[("session-cookie-name", "route")]);
        assert_eq!(read.affinity, None);
    }

    #[test]
    fn the_new_name_of_the_list_of_sources_wins() {
        let (read, _) = read_all(&[("whitelist-source-range", "10.0.0.0/8"), ("allowlist-source-range", "11.0.0.0/8")]);
        assert_eq!(read.allow.unwrap(), ["11.0.0.0/8".parse().unwrap()]);
    }
}
