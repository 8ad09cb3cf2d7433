//! Problems that a person is told about: what is wrong, where, why, and what to do.
//!
//! A [`Problem`] carries a stable [`Code`] that the book explains, a severity, a message, places
//! in the sources and a remedy. How it looks on a terminal is [`render`]'s business and nobody
//! else's. Which problems exist is decided where they are found; the list of codes with their
//! explanations is in [`codes`].

pub mod codes;
pub mod render;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use codes::Code;

/// One text that places point into: a file of the user's, or standard input.
#[derive(Debug, Clone)]
pub struct Source {
    /// What to call it in messages: the path as it was typed, or `<stdin>`.
    pub name: String,
    pub text: Arc<str>,
}

/// All texts of one run, in the order they were read. A [`Place`] holds an index into it.
#[derive(Debug, Clone, Default)]
pub struct Sources(Vec<Source>);

impl Sources {
    /// Add a text and return the index that places of it carry.
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<Arc<str>>) -> u16 {
        self.0.push(Source { name: name.into(), text: text.into() });
        u16::try_from(self.0.len() - 1).unwrap_or(u16::MAX)
    }

    pub fn get(&self, index: u16) -> Option<&Source> {
        self.0.get(usize::from(index))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Source> {
        self.0.iter()
    }
}

/// A range of bytes in one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Place {
    pub source: u16,
    pub start: u32,
    pub end: u32,
}

/// How grave a problem is: an error stops the work, a warning does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    Error,
    Warning,
}

/// One thing that is wrong, with its place and remedy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    pub code: Code,
    pub severity: Severity,
    pub message: String,
    /// Where, most important first, each with a few words that stand under it.
    pub labels: Vec<(Place, String)>,
    /// What to do about it.
    pub help: Option<String>,
}

impl Problem {
    pub fn error(code: Code, message: impl Into<String>) -> Self {
        let message = shortened(message.into());
        Problem { code, severity: Severity::Error, message, labels: Vec::new(), help: None }
    }

    pub fn warning(code: Code, message: impl Into<String>) -> Self {
        Problem { severity: Severity::Warning, ..Problem::error(code, message) }
    }

    #[must_use]
    pub fn at(mut self, place: Place, words: impl Into<String>) -> Self {
        self.labels.push((place, words.into()));
        self
    }

    #[must_use]
    pub fn help(mut self, remedy: impl Into<String>) -> Self {
        self.help = Some(shortened(remedy.into()));
        self
    }

    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.message, self.code)?;
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

/// A text as long as a message may be. Words of the user's stand in messages, and a word may be
/// a megabyte.
fn shortened(text: String) -> String {
    const LONGEST: usize = 600;
    if text.len() <= LONGEST {
        return text;
    }
    let letters = text.chars().count();
    let beginning: String = text.chars().take(LONGEST / 2).collect();
    let end: String = text.chars().skip(letters.saturating_sub(LONGEST / 4).max(LONGEST / 2)).collect();
    format!("{beginning} … {end}")
}

/// The problems of one run, collected so that a person sees all of them at once. Beyond
/// [`Problems::MOST`] they are only counted: nobody reads them, and drawing them takes long.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems {
    all: Vec<Problem>,
    left_out: usize,
    errors: bool,
}

impl Problems {
    /// So many are kept.
    pub const MOST: usize = 100;

    pub fn push(&mut self, problem: Problem) {
        self.errors |= problem.is_error();
        if self.is_full() {
            self.left_out += 1;
        } else {
            self.all.push(problem);
        }
    }

    pub fn extend(&mut self, more: impl IntoIterator<Item = Problem>) {
        more.into_iter().for_each(|p| self.push(p));
    }

    /// Whether further problems are only counted, so that costly words for them can be spared.
    pub fn is_full(&self) -> bool {
        self.all.len() >= Self::MOST
    }

    /// How many were only counted.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    pub fn has_errors(&self) -> bool {
        self.errors
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.all.iter()
    }

    /// In reading order: by source and place, errors of one place before warnings.
    pub fn sort(&mut self) {
        self.all.sort_by_key(|p| (p.labels.first().map(|l| l.0), p.severity));
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;
    fn into_iter(self) -> Self::IntoIter {
        self.all.into_iter()
    }
}

/// The nearest of `known` to a misspelt `word`, where one is close enough to be meant.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    known
        .into_iter()
        .filter(|k| k.len().abs_diff(word.len()) <= 1 + k.len() / 4)
        .map(|k| (strsim::damerau_levenshtein(&lower, &k.to_lowercase()), k))
        .filter(|(distance, k)| *distance <= most_typos(k.len().min(word.len())))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}

/// How many letters of a word may be wrong: more in a longer one, but fewer than half.
fn most_typos(length: usize) -> usize {
    (1 + length / 4).min(length.saturating_sub(1) / 2).max(1)
}

/// A path as it is shown to a person.
pub fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_word_finds_its_neighbour_and_a_strange_one_none() {
        let known = ["backend", "hosts", "pods"];
        assert_eq!(did_you_mean("backnd", known), Some("backend"));
        assert_eq!(did_you_mean("host", known), Some("hosts"));
        assert_eq!(did_you_mean("Pods", known), Some("pods"));
        assert_eq!(did_you_mean("zebra", known), None);
        // Half of a short word is too much.
        assert_eq!(did_you_mean("nope", ["node1"]), None);
    }
}
