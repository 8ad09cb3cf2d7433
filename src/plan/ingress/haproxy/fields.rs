//! The controller's ConfigMap in haproxy.cfg: fields with the names that HAProxy's own ingress
//! controllers have for directives of HAProxy. Those which mean the same for every controller come as
//! settings and options and are not here. A value is checked by its kind before it is written.

use std::collections::BTreeMap;

use super::super::rendered::{Lines, Rendered, strangers};
use super::quote;
use crate::objects::ingress::settings::COMMON;

/// Which section a directive stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Context {
    Global,
    Defaults,
    /// Read where it is needed, by its name.
    Elsewhere,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
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

pub struct Field {
    pub name: &'static str,
    context: Context,
    directive: &'static str,
    kind: Kind,
    default: &'static str,
}

const fn field(
    name: &'static str,
    context: Context,
    directive: &'static str,
    kind: Kind,
    default: &'static str,
) -> Field {
    Field { name, context, directive, kind, default }
}

use Context::{Defaults, Elsewhere, Global};
use Kind::{Number, Text, Time, Truth, Word};

const BALANCE: &[&str] = &["roundrobin", "static-rr", "leastconn", "first", "source", "random"];
const MODES: &[&str] = &["http-keep-alive", "http-server-close", "httpclose"];
const VERSIONS: &[&str] = &["TLSv1.0", "TLSv1.1", "TLSv1.2", "TLSv1.3"];

/// Every field, in the order in which directives are written.
#[rustfmt::skip]
pub const FIELDS: &[Field] = &[
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

/// A ConfigMap's fields, as far as they can be written.
pub struct Fields {
    values: BTreeMap<&'static str, String>,
    written: Vec<&'static str>,
}

impl Fields {
    /// Read what is written. What is none of ours, and what cannot be, is told.
    pub fn read(written: &BTreeMap<String, String>, told: &mut Rendered) -> Fields {
        told.unknown = strangers(written, |name| COMMON.contains(&name) || FIELDS.iter().any(|f| f.name == name));
        let mut fields = Fields { values: BTreeMap::new(), written: Vec::new() };
        for field in FIELDS {
            let asked = written.get(field.name);
            let argument = match asked.map(|value| (value, argument(field.kind, value))) {
                Some((_, Some(argument))) => {
                    fields.written.push(field.name);
                    Some(argument)
                }
                Some((value, None)) => {
                    told.refused.push(format!("the ConfigMap's {} cannot be {value:?}: the default holds", field.name));
                    argument(field.kind, field.default)
                }
                None => argument(field.kind, field.default),
            };
            fields.values.extend(argument.map(|a| (field.name, a)));
        }
        fields
    }

    /// The argument; nothing where there is none.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    pub fn is(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }

    pub fn number(&self, name: &str) -> usize {
        self.get(name).and_then(|n| n.parse().ok()).unwrap_or_default()
    }

    /// Write the directives of a section.
    pub fn write(&self, context: Context, to: &mut Lines) {
        for field in FIELDS.iter().filter(|f| f.context == context) {
            self.write_one(field, "", to);
        }
    }

    /// Write a directive where it is asked for, and otherwise with `usual`.
    pub fn write_or(&self, name: &str, usual: &str, to: &mut Lines) {
        for field in FIELDS.iter().filter(|f| f.name == name) {
            self.write_one(field, usual, to);
        }
    }

    fn write_one(&self, field: &Field, usual: &str, to: &mut Lines) {
        let value = self.get(field.name).unwrap_or(usual);
        if self.written.contains(&field.name) {
            to.comment(format_args!("ConfigMap, {}", field.name));
        }
        match (field.kind, value) {
            (_, "") => {}
            (Truth, "true") => to.line(format_args!("{}", field.directive)),
            (Truth, _) => to.line(format_args!("no {}", field.directive)),
            (_, value) => to.line(format_args!("{} {value}", field.directive)),
        }
    }
}

/// `value` as an argument of HAProxy; nothing where it cannot be one.
fn argument(kind: Kind, value: &str) -> Option<String> {
    let value = value.trim();
    let is_number = |word: &str| (1..=9).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_digit());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::ingress::settings;

    #[test]
    fn the_list_of_known_names_is_this_table() {
        let mut names: Vec<&str> = FIELDS.iter().map(|f| f.name).collect();
        names.sort_unstable();
        assert_eq!(names, settings::HAPROXY);
    }

    #[test]
    fn every_default_is_a_value() {
        for field in FIELDS {
            assert!(field.default.is_empty() || argument(field.kind, field.default).is_some(), "{}", field.name);
        }
    }

    #[test]
    fn a_value_is_one_argument_or_none() {
        for kind in [Truth, Number, Time, Word(BALANCE)] {
            for evil in ["1 if TRUE", "10s\nbackend x", "", "'", "$HOME", "#"] {
                assert_eq!(argument(kind, evil), None, "{kind:?} {evil:?}");
            }
        }
        assert_eq!(argument(Text, "a'b").as_deref(), Some("'a'\\''b'"));
    }
}
