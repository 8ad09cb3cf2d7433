//! The controller's ConfigMap in haproxy.cfg: fields with the names that HAProxy's own ingress
//! controllers have for directives of HAProxy. Those which mean the same for every controller come as
//! settings and options and are not here. A value is checked by its kind before it is written.

use super::super::fields::{self, Dialect, Field, field, is_number};
use super::quote;

/// Which section a directive stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Context {
    Global,
    Defaults,
    /// Read where it is needed, by its name.
    Elsewhere,
}

#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// `true`: the directive stands there.
    Truth,
    Number,
    /// Such as `300ms`, `10s`; milliseconds without a unit.
    Time,
    /// One word of this list.
    Word(&'static [&'static str]),
    /// Any text, in quotes.
    Text,
}

/// haproxy.cfg's way to write fields.
pub struct Haproxy;

/// The ConfigMap's fields in haproxy.cfg.
pub type Fields = fields::Fields<Haproxy>;

use Context::{Defaults, Elsewhere, Global};
use Kind::{Number, Text, Time, Truth, Word};

const BALANCE: &[&str] = &["roundrobin", "static-rr", "leastconn", "first", "source", "random"];
const MODES: &[&str] = &["http-keep-alive", "http-server-close", "httpclose"];
const VERSIONS: &[&str] = &["TLSv1.0", "TLSv1.1", "TLSv1.2", "TLSv1.3"];

/// Every field, in the order in which directives are written.
#[rustfmt::skip]
const FIELDS: &[Field<Haproxy>] = &[
    field("nbthread", Global, "nbthread", Number, "1"),
    field("maxconn", Global, "maxconn", Number, ""),
    field("hard-stop-after", Global, "hard-stop-after", Time, "240s"),
    // Idle connections are not closed all at once when another process takes over.
    field("close-spread-time", Global, "close-spread-time", Time, "500ms"),
    field("ssl-min-version", Global, "ssl-default-bind-options ssl-min-ver", Word(VERSIONS), "TLSv1.2"),
    field("load-balance", Defaults, "balance", Word(BALANCE), "roundrobin"),
    field("http-connection-mode", Defaults, "option", Word(MODES), "http-keep-alive"),
    field("timeout-client", Elsewhere, "timeout client", Time, ""),
    field("timeout-http-request", Elsewhere, "timeout http-request", Time, ""),
    field("timeout-http-keep-alive", Elsewhere, "timeout http-keep-alive", Time, ""),
    field("timeout-queue", Defaults, "timeout queue", Time, "5s"),
    field("timeout-tunnel", Defaults, "timeout tunnel", Time, "1h"),
    field("dontlognull", Defaults, "option dontlognull", Truth, "true"),
    field("logasap", Defaults, "option logasap", Truth, "false"),
    field("log-format", Elsewhere, "log-format", Text, ""),
    field("disable-access-log", Elsewhere, "", Truth, "false"),
    field("scale-server-slots", Elsewhere, "", Number, "32"),
];

impl Dialect for Haproxy {
    type Context = Context;
    type Kind = Kind;
    const FIELDS: &'static [Field<Haproxy>] = FIELDS;

    fn argument(kind: Kind, value: &str) -> Option<String> {
        let value = value.trim();
        let fits = match kind {
            Truth => ["true", "false"].contains(&value),
            Number => is_number(value),
            Time => {
                let units = ["us", "ms", "s", "m", "h", "d"];
                is_number(units.iter().find_map(|unit| value.strip_suffix(unit)).unwrap_or(value))
            }
            Word(list) => list.contains(&value),
            Text => return quote::quote(value).filter(|_| !value.is_empty()),
        };
        fits.then(|| value.to_owned())
    }

    fn line(field: &Field<Haproxy>, argument: &str) -> String {
        match (field.kind, argument) {
            (Truth, "true") => field.directive.to_owned(),
            (Truth, _) => format!("no {}", field.directive),
            _ => format!("{} {argument}", field.directive),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::ingress::settings;

    #[test]
    fn the_table_holds() {
        fields::tests::holds::<Haproxy>(settings::HAPROXY);
    }

    #[test]
    fn a_value_is_one_argument_or_none() {
        for kind in [Truth, Number, Time, Word(BALANCE)] {
            for evil in ["1 if TRUE", "10s\nbackend x", "", "'", "$HOME", "#"] {
                assert_eq!(Haproxy::argument(kind, evil), None, "{kind:?} {evil:?}");
            }
        }
        assert_eq!(Haproxy::argument(Text, "a'b").as_deref(), Some("'a'\\''b'"));
    }
}
