//! The controller's ConfigMap, with the names and forms of ingress-nginx (its documentation,
//! "ConfigMap"): what means the same for every controller is read here, the rest is listed for the
//! controller that merges it into its file.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Misread, Why, words};

/// The fields that every controller follows.
pub const COMMON: &[&str] = &[
    "allowlist-source-range",
    "client-body-timeout",
    "client-header-timeout",
    "force-ssl-redirect",
    "hsts",
    "hsts-include-subdomains",
    "hsts-max-age",
    "hsts-preload",
    "keep-alive",
    "keep-alive-requests",
    "proxy-body-size",
    "proxy-connect-timeout",
    "proxy-next-upstream-tries",
    "proxy-read-timeout",
    "proxy-send-timeout",
    "ssl-redirect",
    "use-forwarded-headers",
    "use-http2",
    "whitelist-source-range",
];

/// Those that are merged into nginx.conf besides.
pub const NGINX: &[&str] = &[
    "allow-backend-server-header",
    "client-body-buffer-size",
    "client-header-buffer-size",
    "compute-full-forwarded-for",
    "disable-access-log",
    "enable-multi-accept",
    "enable-underscores-in-headers",
    "error-log-level",
    "gzip-level",
    "gzip-min-length",
    "gzip-types",
    "hide-headers",
    "http-redirect-code",
    "http2-max-concurrent-streams",
    "ignore-invalid-headers",
    "large-client-header-buffers",
    "limit-rate",
    "limit-rate-after",
    "log-format-upstream",
    "max-worker-connections",
    "proxy-buffer-size",
    "proxy-buffering",
    "proxy-buffers-number",
    "proxy-max-temp-file-size",
    "proxy-next-upstream",
    "proxy-next-upstream-timeout",
    "proxy-real-ip-cidr",
    "proxy-request-buffering",
    "server-tokens",
    "ssl-buffer-size",
    "ssl-ciphers",
    "ssl-ecdh-curve",
    "ssl-protocols",
    "ssl-session-cache-size",
    "ssl-session-tickets",
    "ssl-session-timeout",
    "upstream-keepalive-connections",
    "upstream-keepalive-requests",
    "upstream-keepalive-timeout",
    "use-gzip",
    "worker-processes",
    "worker-shutdown-timeout",
];

/// Those that are merged into haproxy.cfg besides.
pub const HAPROXY: &[&str] = &[
    "close-spread-time",
    "disable-access-log",
    "dontlognull",
    "hard-stop-after",
    "http-connection-mode",
    "load-balance",
    "log-format",
    "logasap",
    "maxconn",
    "nbthread",
    "scale-server-slots",
    "ssl-min-version",
    "timeout-client",
    "timeout-http-keep-alive",
    "timeout-http-request",
    "timeout-queue",
    "timeout-tunnel",
];

/// What holds for the whole controller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// How long a connection may be idle between requests (`keep-alive`).
    #[serde(with = "seconds")]
    pub keep_alive: Duration,
    /// How many requests a connection may bring (`keep-alive-requests`).
    pub keep_alive_requests: u32,
    /// How long a request's head (`client-header-timeout`) may take.
    #[serde(with = "seconds")]
    pub header_timeout: Duration,
    /// How long may pass between two reads of a body (`client-body-timeout`).
    #[serde(with = "seconds")]
    pub body_timeout: Duration,
    /// Whether X-Forwarded-* of a request are believed (`use-forwarded-headers`).
    pub use_forwarded_headers: bool,
    /// Whether HTTP/2 is spoken over TLS (`use-http2`).
    pub http2: bool,
    /// `proxy-next-upstream-tries`; 0: as many as there are endpoints.
    pub tries: u32,
    /// What `Strict-Transport-Security` says in answers over TLS of hosts with a certificate of their own
    /// (RFC 6797; `hsts`, `hsts-max-age`, `hsts-include-subdomains`, `hsts-preload`); nothing: no such header.
    pub hsts: Option<String>,
    /// All fields of the ConfigMap as written, for controllers that merge them into their files.
    pub fields: BTreeMap<String, String>,
}

/// Times as a number of seconds, as annotations and ConfigMaps have them.
pub mod seconds {
    use std::time::Duration;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        match time.subsec_nanos() {
            0 => time.as_secs().serialize(serializer),
            _ => time.as_secs_f64().serialize(serializer),
        }
    }

    /// # Errors
    /// What is no number of seconds.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl Default for Settings {
    /// As ingress-nginx has them.
    fn default() -> Self {
        Settings {
            keep_alive: Duration::from_secs(75),
            keep_alive_requests: 1000,
            header_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(60),
            use_forwarded_headers: false,
            http2: true,
            tries: 3,
            hsts: Some("max-age=31536000; includeSubDomains".to_owned()),
            fields: BTreeMap::new(),
        }
    }
}

/// What holds for every location whose ingress says nothing else; as ingress-nginx has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Defaults {
    pub ssl_redirect: bool,
    pub force_ssl_redirect: bool,
    pub allow: Vec<IpNet>,
    pub body_size: u64,
    pub connect_timeout: Duration,
    pub read_timeout: Duration,
    pub send_timeout: Duration,
}

impl Default for Defaults {
    fn default() -> Self {
        Defaults {
            ssl_redirect: true,
            force_ssl_redirect: false,
            allow: Vec::new(),
            body_size: 1 << 20,
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(60),
            send_timeout: Duration::from_secs(60),
        }
    }
}

/// Read the ConfigMap's `fields` for a controller that also knows `own`. What is not understood is
/// told, and the default holds.
pub fn read(fields: &BTreeMap<String, String>, own: &[&str]) -> (Settings, Defaults, Vec<Misread>) {
    let known = |name: &str| COMMON.contains(&name) || own.contains(&name);
    let unknown = fields.keys().filter(|name| !known(name));
    let misread = unknown.map(|name| Misread { name: name.clone(), why: Why::Unknown }).collect();
    let mut reader = Reader { fields, misread };
    let settings = reader.settings();
    let defaults = reader.defaults();
    (settings, defaults, reader.misread)
}

struct Reader<'a> {
    fields: &'a BTreeMap<String, String>,
    misread: Vec<Misread>,
}

const SECONDS: &str = "a number of seconds, such as \"60\"";
const TRUTH: &str = "\"true\" or \"false\"";
const NUMBER: &str = "a number";
const RANGES: &str = "ranges or addresses with commas between them";

impl Reader<'_> {
    fn settings(&mut self) -> Settings {
        let usual = Settings::default();
        let number = |word: &str| word.parse::<u32>().ok();
        Settings {
            keep_alive: self.one("keep-alive", SECONDS, words::seconds).unwrap_or(usual.keep_alive),
            keep_alive_requests: self.one("keep-alive-requests", NUMBER, number).unwrap_or(usual.keep_alive_requests),
            header_timeout: self.one("client-header-timeout", SECONDS, words::seconds).unwrap_or(usual.header_timeout),
            body_timeout: self.one("client-body-timeout", SECONDS, words::seconds).unwrap_or(usual.body_timeout),
            use_forwarded_headers: self.one("use-forwarded-headers", TRUTH, words::truth).unwrap_or_default(),
            http2: self.one("use-http2", TRUTH, words::truth).unwrap_or(usual.http2),
            tries: self.one("proxy-next-upstream-tries", NUMBER, number).unwrap_or(usual.tries),
            hsts: self.hsts(),
            fields: self.fields.clone(),
        }
    }

    fn hsts(&mut self) -> Option<String> {
        let wanted = self.one("hsts", TRUTH, words::truth).unwrap_or(true);
        let age = self.one("hsts-max-age", NUMBER, |word| word.parse::<u32>().ok()).unwrap_or(31_536_000);
        let within = self.one("hsts-include-subdomains", TRUTH, words::truth).unwrap_or(true);
        let preload = self.one("hsts-preload", TRUTH, words::truth).unwrap_or_default();
        let [within, preload] =
            [(within, "; includeSubDomains"), (preload, "; preload")].map(|(is, w)| if is { w } else { "" });
        wanted.then(|| format!("max-age={age}{within}{preload}"))
    }

    fn defaults(&mut self) -> Defaults {
        let usual = Defaults::default();
        let allow = self.one("allowlist-source-range", RANGES, words::ranges);
        let old_allow = self.one("whitelist-source-range", RANGES, words::ranges);
        Defaults {
            ssl_redirect: self.one("ssl-redirect", TRUTH, words::truth).unwrap_or(usual.ssl_redirect),
            force_ssl_redirect: self.one("force-ssl-redirect", TRUTH, words::truth).unwrap_or_default(),
            allow: allow.or(old_allow).unwrap_or_default(),
            body_size: self.one("proxy-body-size", "a size such as \"8m\"", words::size).unwrap_or(usual.body_size),
            connect_timeout: self.time("proxy-connect-timeout", usual.connect_timeout),
            read_timeout: self.time("proxy-read-timeout", usual.read_timeout),
            send_timeout: self.time("proxy-send-timeout", usual.send_timeout),
        }
    }

    fn time(&mut self, name: &str, usual: Duration) -> Duration {
        self.one(name, SECONDS, words::seconds).unwrap_or(usual)
    }

    fn one<T>(&mut self, name: &str, wanted: &'static str, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let value = read(self.fields.get(name)?.trim());
        if value.is_none() {
            self.misread.push(Misread::value(name, wanted));
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn fields_change_what_they_name() {
        let written = fields(&[("keep-alive", "10"), ("proxy-body-size", "0"), ("use-http2", "false"), ("gzip", "on")]);
        let (settings, defaults, misread) = read(&written, &["gzip"]);
        assert_eq!(misread, []);
        assert_eq!((settings.keep_alive.as_secs(), settings.http2, defaults.body_size), (10, false, 0));
        assert_eq!(settings.fields, written);
    }

    #[test]
    fn strict_transport_security_is_told_unless_it_is_not_wanted() {
        let told = |pairs: &[(&str, &str)]| read(&fields(pairs), &[]).0.hsts;
        assert_eq!(told(&[]), Settings::default().hsts);
        assert_eq!(told(&[("hsts", "false")]), None);
        let all = [("hsts-max-age", "60"), ("hsts-include-subdomains", "false"), ("hsts-preload", "true")];
        assert_eq!(told(&all).as_deref(), Some("max-age=60; preload"));
    }

    #[test]
    fn a_time_is_a_number_of_seconds() {
        for word in ["30s", "5m", "+5", "-1", "1.5", ""] {
            let (settings, _, misread) = read(&fields(&[("keep-alive", word)]), &[]);
            assert_eq!(
                (settings, misread.len()),
                (Settings { fields: fields(&[("keep-alive", word)]), ..Settings::default() }, 1)
            );
        }
    }

    #[test]
    fn every_common_field_is_read_and_told_where_its_value_is_none() {
        for name in COMMON {
            let (.., misread) = read(&fields(&[(name, "\u{7f}")]), &[]);
            assert!(matches!(misread.as_slice(), [one] if one.name == *name && one.why != Why::Unknown), "{name}");
        }
    }

    #[test]
    fn a_field_that_nobody_knows_is_told() {
        let (settings, _, misread) = read(&fields(&[("keepalive", "10")]), &[]);
        assert_eq!(settings.keep_alive, Settings::default().keep_alive);
        assert_eq!(misread, [Misread { name: "keepalive".to_owned(), why: Why::Unknown }]);
    }
}
