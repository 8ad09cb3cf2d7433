//! What a real program's configuration is made of: its files, and the lines they consist of. What
//! stands in them is each program's own ([`super::nginx`], [`super::haproxy`], [`super::template`]).

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::path::Path;

use super::types::{Certificate, HostPattern, PathPattern, Routing, Source};

/// Where a program serves, and where its files are.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    pub http: SocketAddr,
    pub https: SocketAddr,
    /// An absolute path of letters, digits and `/._-`, which no program takes for anything else.
    pub directory: &'a Path,
}

/// A program's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rendered {
    /// The one that the program is started with comes first.
    pub files: Vec<File>,
    /// What is asked for and could not be written, a sentence each, with the object that asks for it.
    pub refused: Vec<String>,
    /// Fields of the ConfigMap that the program has nothing for.
    pub unknown: Vec<String>,
}

/// A file of a configuration.
#[derive(Clone, PartialEq, Eq)]
pub struct File {
    /// Relative to the configuration's directory.
    pub name: String,
    pub text: String,
    /// Whether it holds a private key, and is nobody else's to read.
    pub secret: bool,
}

impl fmt::Debug for File {
    /// Without a private key, which has no business in logs and reports.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = if self.secret { "…" } else { &self.text };
        f.debug_struct("File").field("name", &self.name).field("text", &text).finish()
    }
}

/// Lines, indented by the blocks that they stand in.
#[derive(Debug, Default)]
pub(super) struct Lines {
    text: String,
    /// How far in the next line stands.
    pub depth: usize,
}

/// Longer comments are cut: nginx reads a line of at most 4096 bytes.
const LONGEST_COMMENT: usize = 400;

impl Lines {
    pub fn line(&mut self, line: fmt::Arguments<'_>) {
        let indent = if line.as_str() == Some("") { 0 } else { self.depth * 4 };
        // Writing into a string does not fail.
        let _ = writeln!(self.text, "{:indent$}{line}", "");
    }

    /// A remark. It cannot end before its line does, whatever is in it.
    pub fn comment(&mut self, what: fmt::Arguments<'_>) {
        let clean: String = what.to_string().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        let cut = clean.char_indices().nth(LONGEST_COMMENT).map_or(clean.len(), |(at, _)| at);
        self.line(format_args!("# {}", &clean[..cut]));
    }

    pub fn blank(&mut self) {
        self.line(format_args!(""));
    }

    pub fn finish(self) -> String {
        self.text
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ingress {}, {}", self.ingress, self.field)
    }
}

impl fmt::Display for PathPattern {
    /// As a rule has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            PathPattern::Exact(_) => "Exact",
            PathPattern::Prefix(_) => "Prefix",
            PathPattern::Begin(_) => "ImplementationSpecific",
            PathPattern::Regex(_) => "regular expression",
        };
        write!(f, "{kind} {}", self.text())
    }
}

/// A regular expression that begins where the path does, whatever alternatives it has.
pub(super) fn anchored(regex: &str) -> String {
    format!("^(?:{})", regex.strip_prefix('^').unwrap_or(regex))
}

/// The name of the file with a secret's certificate and key; that of the default one is
/// `certificates/default.pem`, which no secret's can be.
pub(super) fn certificate_file(secret: &str) -> String {
    let mut name = String::from("certificates/");
    for byte in secret.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' => name.push(char::from(byte)),
            b'/' => name.push('_'),
            // Writing into a string does not fail.
            other => drop(write!(name, "={other:02x}")),
        }
    }
    name + ".pem"
}

pub(super) const DEFAULT_CERTIFICATE: &str = "certificates/default.pem";

/// The certificates that a configuration needs, each as one file of chain and key.
pub(super) fn certificate_files(routing: &Routing) -> Vec<File> {
    let file = |name: String, certificate: &Certificate| File {
        name,
        text: format!("{}\n{}\n", certificate.chain.trim_end(), certificate.key.trim_end()),
        secret: true,
    };
    let default = routing.default_certificate.as_ref().map(|c| file(DEFAULT_CERTIFICATE.to_owned(), c));
    let others = routing.certificates.iter().map(|(secret, c)| file(certificate_file(secret), c));
    default.into_iter().chain(others).collect()
}

/// Whether it is a host's name as it can stand in a configuration: the API server lets no other through.
pub(super) fn is_host(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    (1..=253).contains(&name.len()) && name.bytes().all(fits) && !name.starts_with('.') && !name.contains("..")
}

pub(super) fn is_writable_host(host: &HostPattern) -> bool {
    match host {
        HostPattern::Name(name) | HostPattern::Wildcard(name) => is_host(name),
        HostPattern::Any => true,
    }
}

/// Whether it can name a section of a configuration, as the names of services can.
pub(super) fn is_section(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-');
    name.len() <= 200 && name.bytes().all(fits) && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// Whether it can be a cookie's name or a header's (a token of RFC 9110) without meaning anything to
/// a configuration.
pub(super) fn is_token(word: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=200).contains(&word.len()) && word.bytes().all(fits)
}

/// Whether it can be a cookie's attribute.
pub(super) fn is_attribute(word: &str) -> bool {
    word.len() <= 1000 && word.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b';' | b'"' | b'\'' | b'\\'))
}

/// Which fields of `fields` are not among `known`.
pub(super) fn strangers(fields: &BTreeMap<String, String>, known: impl Fn(&str) -> bool) -> Vec<String> {
    fields.keys().filter(|name| !known(name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_one_line_whatever_is_in_it() {
        let mut lines = Lines::default();
        lines.comment(format_args!("a\nb\r{}", "ü".repeat(5000)));
        let text = lines.finish();
        assert!(text.starts_with("# a?b?ü") && text.lines().count() == 1 && text.len() < 1000, "{text}");
    }

    #[test]
    fn secrets_of_different_names_have_different_files() {
        let names = ["a/b", "a_b", "a/B", "a/=42", "a//b", "default"].map(certificate_file);
        for (n, name) in names.iter().enumerate() {
            assert!(!names[..n].contains(name) && name != DEFAULT_CERTIFICATE || name == DEFAULT_CERTIFICATE && n == 5);
        }
        assert_eq!(names[2], "certificates/a_=42.pem");
    }

    #[test]
    fn a_private_key_is_not_shown() {
        let file = File { name: "k".to_owned(), text: "the key".to_owned(), secret: true };
        assert!(!format!("{file:?}").contains("the key"));
    }
}
