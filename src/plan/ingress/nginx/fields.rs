//! The controller's ConfigMap in nginx.conf: fields of ingress-nginx' documentation ("ConfigMap")
//! that are directives of nginx. Those which mean the same for every controller come as settings and
//! options and are not here.
//!
//! `FIELDS` is the table, which [`fields`] reads. A value is checked by its kind before it is written, so that none can be
//! more than the directive's argument; one that does not fit is told, and the default holds.

use super::super::fields::{self, Dialect, Field, field, is_number};
use super::quote;

/// Where a directive stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Context {
    Main,
    Events,
    Http,
    Upstream,
    /// Read where it is needed, by its name.
    Elsewhere,
}

#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// `true` and `false`, which nginx calls `on` and `off`.
    Truth,
    Number,
    /// A number or `auto`.
    NumberOrAuto,
    /// Such as `8k`.
    Size,
    /// Two of them, the first a plain number.
    Sizes,
    /// Such as `60`, `60s`, `500ms`.
    Time,
    /// Words of this list.
    Words(&'static [&'static str]),
    /// Letters, digits and `:_+!@.-=/*`, and spaces where words are meant.
    Plain,
    /// Any text, in quotes; variables of nginx are what it is for.
    Text,
    /// Ranges or addresses, with commas.
    Ranges,
}

/// nginx.conf's way to write fields.
pub struct Nginx;

/// The ConfigMap's fields in nginx.conf.
pub type Fields = fields::Fields<Nginx>;

use Context::{Elsewhere, Events, Http, Main, Upstream};
use Kind::{Number, NumberOrAuto, Plain, Ranges, Size, Sizes, Text, Time, Truth, Words};

const LEVELS: &[&str] = &["debug", "info", "notice", "warn", "error", "crit", "alert", "emerg"];
const PROTOCOLS: &[&str] = &["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"];
const FAULTS: &[&str] = &[
    "error",
    "timeout",
    "invalid_header",
    "http_500",
    "http_502",
    "http_503",
    "http_504",
    "http_403",
    "http_404",
    "http_429",
    "non_idempotent",
    "off",
];
const CODES: &[&str] = &["301", "302", "307", "308"];
const LOG: &str = "$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \
                   \"$http_referer\" \"$http_user_agent\" $request_length $request_time \
                   [$proxy_upstream_name] $upstream_addr $upstream_response_length $upstream_response_time \
                   $upstream_status $req_id";

/// Every field, in the order in which directives are written.
#[rustfmt::skip]
const FIELDS: &[Field<Nginx>] = &[
    // One worker, where ingress-nginx has one a core: a lab has many pods on few cores.
    field("worker-processes", Main, "worker_processes", NumberOrAuto, "1"),
    field("worker-shutdown-timeout", Main, "worker_shutdown_timeout", Time, "240s"),
    field("error-log-level", Main, "error_log stderr", Words(LEVELS), "notice"),
    field("max-worker-connections", Events, "worker_connections", Number, "16384"),
    field("enable-multi-accept", Events, "multi_accept", Truth, "true"),
    field("disable-access-log", Elsewhere, "", Truth, "false"),
    field("log-format-upstream", Elsewhere, "log_format", Text, LOG),
    field("server-tokens", Http, "server_tokens", Truth, "false"),
    field("client-header-buffer-size", Http, "client_header_buffer_size", Size, "1k"),
    field("large-client-header-buffers", Http, "large_client_header_buffers", Sizes, "4 8k"),
    field("client-body-buffer-size", Http, "client_body_buffer_size", Size, "8k"),
    field("enable-underscores-in-headers", Http, "underscores_in_headers", Truth, "false"),
    field("ignore-invalid-headers", Http, "ignore_invalid_headers", Truth, "true"),
    field("http2-max-concurrent-streams", Http, "http2_max_concurrent_streams", Number, "128"),
    field("limit-rate", Http, "limit_rate", Size, "0"),
    field("limit-rate-after", Http, "limit_rate_after", Size, "0"),
    field("use-gzip", Http, "gzip", Truth, "false"),
    field("gzip-level", Http, "gzip_comp_level", Number, "1"),
    field("gzip-min-length", Http, "gzip_min_length", Number, "256"),
    field("gzip-types", Http, "gzip_types", Plain, "application/javascript application/json application/xml \
        image/svg+xml text/css text/javascript text/plain"),
    field("ssl-protocols", Http, "ssl_protocols", Words(PROTOCOLS), "TLSv1.2 TLSv1.3"),
    field("ssl-ciphers", Http, "ssl_ciphers", Plain, "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:\
        ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:\
        ECDHE-RSA-CHACHA20-POLY1305:DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384"),
    field("ssl-ecdh-curve", Http, "ssl_ecdh_curve", Plain, "auto"),
    field("ssl-session-tickets", Http, "ssl_session_tickets", Truth, "false"),
    field("ssl-session-timeout", Http, "ssl_session_timeout", Time, "10m"),
    field("ssl-session-cache-size", Http, "ssl_session_cache shared:SSL", Size, "10m"),
    field("ssl-buffer-size", Http, "ssl_buffer_size", Size, "4k"),
    field("proxy-buffering", Http, "proxy_buffering", Truth, "false"),
    // Where ingress-nginx first writes a body to a file: a pod's files here are in memory.
    field("proxy-request-buffering", Http, "proxy_request_buffering", Truth, "false"),
    field("proxy-buffer-size", Http, "proxy_buffer_size", Size, "4k"),
    field("proxy-buffers-number", Elsewhere, "proxy_buffers", Number, "4"),
    // And an answer, where it is to be buffered.
    field("proxy-max-temp-file-size", Http, "proxy_max_temp_file_size", Size, "0"),
    field("proxy-next-upstream", Http, "proxy_next_upstream", Words(FAULTS), "error timeout"),
    field("proxy-next-upstream-timeout", Http, "proxy_next_upstream_timeout", Time, "0"),
    field("allow-backend-server-header", Elsewhere, "", Truth, "false"),
    field("hide-headers", Elsewhere, "proxy_hide_header", Plain, ""),
    field("http-redirect-code", Elsewhere, "", Words(CODES), "308"),
    field("compute-full-forwarded-for", Elsewhere, "", Truth, "false"),
    field("proxy-real-ip-cidr", Elsewhere, "set_real_ip_from", Ranges, "0.0.0.0/0"),
    field("upstream-keepalive-connections", Upstream, "keepalive", Number, "320"),
    field("upstream-keepalive-timeout", Upstream, "keepalive_timeout", Time, "60"),
    field("upstream-keepalive-requests", Upstream, "keepalive_requests", Number, "10000"),
];

impl Dialect for Nginx {
    type Context = Context;
    type Kind = Kind;
    const FIELDS: &'static [Field<Nginx>] = FIELDS;

    fn argument(kind: Kind, value: &str) -> Option<String> {
        let value = value.trim();
        let same = |fits: bool| fits.then(|| value.to_owned());
        match kind {
            Truth => match value {
                "true" | "on" => Some("on".to_owned()),
                "false" | "off" => Some("off".to_owned()),
                _ => None,
            },
            Number => same(is_number(value)),
            NumberOrAuto => same(value == "auto" || is_number(value)),
            Size => same(is_number(value.strip_suffix(['k', 'K', 'm', 'M', 'g', 'G']).unwrap_or(value))),
            Sizes => {
                let (count, size) = value.split_once(' ')?;
                let size = Self::argument(Size, size)?;
                is_number(count).then(|| format!("{count} {size}"))
            }
            Time => {
                let number =
                    ["ms", "s", "m", "h", "d"].iter().find_map(|unit| value.strip_suffix(unit)).unwrap_or(value);
                same(is_number(number))
            }
            Words(list) => {
                let words: Vec<&str> = value.split_whitespace().collect();
                (!words.is_empty() && words.iter().all(|w| list.contains(w))).then(|| words.join(" "))
            }
            Plain => {
                let fits = |b: u8| b.is_ascii_alphanumeric() || b" ,:_+!@.-=/*".contains(&b);
                same((1..2000).contains(&value.len()) && value.bytes().all(fits))
            }
            Text => quote::quote(value),
            Ranges => {
                let each = value.split(',').map(str::trim);
                let range = |r: &str| {
                    r.parse::<ipnet::IpNet>()
                        .map(|n| n.to_string())
                        .or_else(|_| r.parse::<std::net::IpAddr>().map(|a| a.to_string()))
                };
                each.map(|r| range(r).ok()).collect::<Option<Vec<_>>>().map(|all| all.join(" "))
            }
        }
    }

    fn line(field: &Field<Nginx>, argument: &str) -> String {
        // `ssl_session_cache shared:SSL` takes its size behind a colon.
        let between = if field.directive.ends_with("shared:SSL") { ":" } else { " " };
        format!("{}{between}{argument};", field.directive)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::ingress::settings;

    #[test]
    fn the_table_holds() {
        fields::tests::holds::<Nginx>(settings::NGINX);
    }

    #[test]
    fn a_value_is_one_argument_or_none() {
        for kind in [Truth, Number, NumberOrAuto, Size, Sizes, Time, Words(LEVELS), Plain, Ranges] {
            for evil in ["1; }", "on; include /etc/passwd", "4 8k; x", "a\nb", "", "$host", "\"", "#"] {
                assert_eq!(Nginx::argument(kind, evil), None, "{kind:?} {evil:?}");
            }
        }
        assert_eq!(Nginx::argument(Text, "a\";}").as_deref(), Some("\"a\\\";}\""));
    }
}
