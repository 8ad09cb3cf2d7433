//! The ConfigMap's fields that a real program's configuration has a place for: a table for each program
//! (`nginx/fields.rs`, `haproxy/fields.rs`), and one reader over all of them. What means the same for every
//! controller comes as settings and options and is in no table.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use super::rendered::{Lines, Rendered, strangers};
use crate::objects::ingress::settings::COMMON;

/// A program's own way to write fields.
pub trait Dialect: Sized + 'static {
    /// Where a directive stands.
    type Context: PartialEq + Copy;
    /// What its value may be.
    type Kind: Copy;
    /// Every field, in the order in which directives are written.
    const FIELDS: &'static [Field<Self>];

    /// `value` as an argument; nothing where it cannot be one, so that none is ever more than that.
    fn argument(kind: Self::Kind, value: &str) -> Option<String>;

    /// The directive with its argument.
    fn line(field: &Field<Self>, argument: &str) -> String;
}

/// A field, and the directive that it is.
pub struct Field<D: Dialect> {
    pub name: &'static str,
    pub context: D::Context,
    pub directive: &'static str,
    pub kind: D::Kind,
    /// What is written where the ConfigMap is silent; empty: nothing.
    pub default: &'static str,
}

/// A row of a table: the field's name, where its directive stands, that, the value's kind, and the default.
pub const fn field<D: Dialect>(
    name: &'static str,
    context: D::Context,
    directive: &'static str,
    kind: D::Kind,
    default: &'static str,
) -> Field<D> {
    Field { name, context, directive, kind, default }
}

/// A ConfigMap's fields, as far as they can be written.
pub struct Fields<D> {
    values: BTreeMap<&'static str, String>,
    written: Vec<&'static str>,
    dialect: PhantomData<D>,
}

impl<D: Dialect> Fields<D> {
    /// Read what is written. What is none of ours, and what cannot be, is told.
    pub fn read(written: &BTreeMap<String, String>, told: &mut Rendered) -> Fields<D> {
        told.unknown = strangers(written, |name| COMMON.contains(&name) || D::FIELDS.iter().any(|f| f.name == name));
        let mut fields = Fields { values: BTreeMap::new(), written: Vec::new(), dialect: PhantomData };
        for field in D::FIELDS {
            let asked = written.get(field.name);
            let argument = asked.and_then(|value| D::argument(field.kind, value));
            match (asked, &argument) {
                (_, Some(_)) => fields.written.push(field.name),
                (Some(value), None) => {
                    told.refused.push(format!("the ConfigMap's {} cannot be {value:?}: the default holds", field.name));
                }
                (None, None) => {}
            }
            let argument = argument.or_else(|| D::argument(field.kind, Some(field.default).filter(|d| !d.is_empty())?));
            fields.values.extend(argument.map(|a| (field.name, a)));
        }
        fields
    }

    /// The directive's argument; empty where there is none.
    pub fn get(&self, name: &str) -> &str {
        self.values.get(name).map_or("", String::as_str)
    }

    pub fn is(&self, name: &str) -> bool {
        matches!(self.get(name), "on" | "true")
    }

    pub fn number(&self, name: &str) -> usize {
        self.get(name).parse().unwrap_or_default()
    }

    /// Write the directives of a context.
    pub fn write(&self, context: D::Context, to: &mut Lines) {
        for field in D::FIELDS.iter().filter(|f| f.context == context) {
            self.write_one(field, "", to);
        }
    }

    /// Write a directive where it is asked for, and otherwise with `usual`.
    pub fn write_or(&self, name: &str, usual: &str, to: &mut Lines) {
        for field in D::FIELDS.iter().filter(|f| f.name == name) {
            self.write_one(field, usual, to);
        }
    }

    fn write_one(&self, field: &Field<D>, usual: &str, to: &mut Lines) {
        let argument = Some(self.get(field.name)).filter(|a| !a.is_empty()).unwrap_or(usual);
        if argument.is_empty() {
            return;
        }
        if self.written.contains(&field.name) {
            to.comment(format_args!("ConfigMap, {}", field.name));
        }
        to.line(format_args!("{}", D::line(field, argument)));
    }
}

/// As large as programs' own numbers can be, with a unit behind them.
pub fn is_number(word: &str) -> bool {
    (1..=9).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// What holds for every table: `listed` are the names that are known when a lab is read.
    pub fn holds<D: Dialect>(listed: &[&str]) {
        let mut names: Vec<&str> = D::FIELDS.iter().map(|f| f.name).collect();
        names.sort_unstable();
        assert_eq!(names, listed);
        for field in D::FIELDS {
            assert!(field.default.is_empty() || D::argument(field.kind, field.default).is_some(), "{}", field.name);
        }
    }
}
