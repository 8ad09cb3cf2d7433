//! Why a part of a file does not fit its type, and how that is said to a person.
//!
//! Serde reports faults in the words of Rust ("invalid type: string, expected u32"). Here they are
//! kept apart by kind and put into the words of the file's writer.

use std::fmt;

use serde::de;

use super::shape;
use crate::diag::{Place, Problem, codes, did_you_mean};

/// Why a node does not fit the type, and which node it is.
#[derive(Debug)]
pub struct Fault {
    pub(super) node: Option<u32>,
    place: Option<Place>,
    kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Unknown {
        field: String,
        expected: &'static [&'static str],
    },
    Missing(&'static str),
    Type {
        found: String,
        expected: String,
        /// How the same value is written so that it fits, where that is clear.
        instead: Option<String>,
    },
    /// A message and, behind `; `, the remedy.
    Value(String),
}

impl Fault {
    pub(super) fn of(kind: Kind) -> Self {
        Fault { node: None, place: None, kind }
    }

    /// The innermost node that a fault passes on its way out is where it happened.
    pub(super) fn within(mut self, id: u32, place: Place) -> Self {
        if self.node.is_none() {
            self.node = Some(id);
            self.place = Some(place);
        }
        self
    }

    /// The field that an unknown one is close to.
    pub(super) fn meant(&self) -> Option<&'static str> {
        match &self.kind {
            Kind::Unknown { field, expected } => did_you_mean(field, fields(expected)),
            _ => None,
        }
    }

    pub(super) fn is_missing(&self) -> bool {
        matches!(self.kind, Kind::Missing(_))
    }

    pub(super) fn into_problem(self) -> Problem {
        let place = self.place.unwrap_or_default();
        let meant = self.meant();
        match self.kind {
            Kind::Unknown { field, expected } => {
                let problem = Problem::error(codes::SPEC_UNKNOWN_FIELD, format!("there is no field `{field}` here"))
                    .at(place, "not known");
                match meant {
                    Some(near) => problem.help(format!("did you mean `{near}`?")),
                    None => problem.help(format!("possible are: {}", fields(expected).collect::<Vec<_>>().join(", "))),
                }
            }
            Kind::Missing(field) => {
                Problem::error(codes::SPEC_MISSING_FIELD, format!("the field `{field}` is missing"))
                    .at(first_line(place), "in this one")
                    .help(format!("add it, such as `{field}: {}`", shape::of_field(field)))
            }
            Kind::Type { found, expected, instead } => {
                let help = instead.unwrap_or_else(|| format!("write {expected}"));
                Problem::error(codes::SPEC_WRONG_TYPE, format!("expected {expected}, found {found}"))
                    .at(first_line(place), format!("this is {found}"))
                    .help(help)
            }
            Kind::Value(message) => {
                let (message, help) = match message.split_once("; ") {
                    Some((message, help)) => (message.to_owned(), help.to_owned()),
                    None => (message, "see the field's description in the schema: `labctl schema`".to_owned()),
                };
                Problem::error(codes::SPEC_BAD_VALUE, message).at(first_line(place), "this value").help(help)
            }
        }
    }
}

/// Fields as the schema has them, in lower case; flannel's own spellings of some are read as well.
fn fields(expected: &'static [&'static str]) -> impl Iterator<Item = &'static str> {
    expected.iter().copied().filter(|f| !f.starts_with(|c: char| c.is_ascii_uppercase()))
}

/// A fault may concern a whole map; drawing thirty lines of it helps nobody.
fn first_line(place: Place) -> Place {
    Place { end: place.end.min(place.start + 40), ..place }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Fault::of(Kind::Value(message.to_string()))
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let wanted = expected.to_string();
        let expected = in_plain_words(&wanted);
        let instead = rewritten(&found, &expected).or_else(|| shape::of_type(&wanted, &expected));
        Fault::of(Kind::Type { instead, found: describe(found), expected })
    }

    fn invalid_value(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let expected = in_plain_words(&expected.to_string());
        Fault::of(Kind::Value(format!("{} does not fit here; write {expected}", describe(found))))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Fault::of(Kind::Unknown { field: field.to_owned(), expected })
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let near = did_you_mean(variant, expected.iter().copied());
        let help = near.map_or("possible".to_owned(), |n| format!("did you mean `{n}`? Possible"));
        let variant: String = variant.chars().take(60).collect();
        Fault::of(Kind::Value(format!("`{variant}` is not known here; {help} are: {}", expected.join(", "))))
    }

    fn missing_field(field: &'static str) -> Self {
        Fault::of(Kind::Missing(field))
    }
}

fn describe(found: de::Unexpected<'_>) -> String {
    match found {
        de::Unexpected::Unit | de::Unexpected::Option => "nothing".to_owned(),
        de::Unexpected::Bool(b) => format!("`{b}`"),
        de::Unexpected::Unsigned(n) => format!("the number {n}"),
        de::Unexpected::Signed(n) => format!("the number {n}"),
        de::Unexpected::Float(n) => format!("the fraction {n}"),
        de::Unexpected::Str(s) if s.chars().count() > 40 => "a long text".to_owned(),
        de::Unexpected::Str(s) => format!("the text `{}`", one_line(s)),
        de::Unexpected::Seq => "a list".to_owned(),
        de::Unexpected::Map => "a map".to_owned(),
        other => other.to_string(),
    }
}

/// Text with its line ends and the like spelt out.
fn one_line(text: &str) -> String {
    let letter = |c: char| if c.is_control() { c.escape_debug().to_string() } else { c.to_string() };
    text.chars().map(letter).collect()
}

/// Serde names what it wants as Rust does.
fn in_plain_words(expected: &str) -> String {
    match expected {
        "a string" | "string" | "str" | "a borrowed string" => "text".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "u8" => "a whole number from 0 to 255".to_owned(),
        "u16" => "a whole number from 0 to 65535".to_owned(),
        "u32" | "u64" | "usize" => "a whole number (0 or more)".to_owned(),
        "i8" | "i16" | "i32" | "i64" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        other if other.starts_with("struct ") => "a map".to_owned(),
        other => other.to_owned(),
    }
}

/// How a value is written so that it fits, where that is clear: `"80"` where a number belongs, `1`
/// where text does, one thing where a list does.
fn rewritten(found: &de::Unexpected<'_>, expected: &str) -> Option<String> {
    let listed = |value: &dyn fmt::Display| format!("write a list: [{value}]");
    let in_quotes = |value: &dyn fmt::Display| format!("put it in quotes: \"{value}\"");
    match found {
        de::Unexpected::Bool(value) if expected == "text" => Some(in_quotes(value)),
        de::Unexpected::Signed(value) if expected == "text" => Some(in_quotes(value)),
        de::Unexpected::Unsigned(value) if expected == "text" => Some(in_quotes(value)),
        de::Unexpected::Float(value) if expected == "text" => Some(in_quotes(value)),
        de::Unexpected::Str(text) if expected.contains("number") && text.parse::<f64>().is_ok() => {
            Some(format!("leave the quotes out: {text}"))
        }
        de::Unexpected::Signed(value) if expected == "a list" => Some(listed(value)),
        de::Unexpected::Str(text) if expected == "a list" || expected.starts_with("a command as a list") => {
            let words: Vec<String> = shape::words(text).iter().map(|word| format!("{word:?}")).collect();
            Some(listed(&words.join(", ")))
        }
        de::Unexpected::Map if expected == "a list" => Some("write a list: put `- ` before each entry".to_owned()),
        de::Unexpected::Str(text @ ("true" | "false")) if expected == "true or false" => {
            Some(format!("leave the quotes out: {text}"))
        }
        de::Unexpected::Float(n) if expected.contains("whole number") => {
            Some(format!("write it without a fraction, such as {:.0}", n.ceil().abs()))
        }
        de::Unexpected::Str(text) if expected == "true or false" => match text.to_lowercase().as_str() {
            "yes" | "on" | "y" => Some("write true".to_owned()),
            "no" | "off" | "n" => Some("write false".to_owned()),
            _ => None,
        },
        _ => None,
    }
}
