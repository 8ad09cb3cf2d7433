//! Small services for reading YAML: what a plain scalar means, where in the text, in bytes, the
//! parser's character indices are, and what its complaints mean to someone who wrote the text.

use super::node::Value;

/// The core schema of YAML 1.2.2, chapter 10.3.2.
pub(super) fn scalar(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let number = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
    if !number {
        return Value::Text(text.to_owned());
    }
    let radix = |prefix, base| text.strip_prefix(prefix).and_then(|d| i64::from_str_radix(d, base).ok());
    if let Some(n) = text.parse().ok().or_else(|| radix("0x", 16)).or_else(|| radix("0o", 8)) {
        return Value::Int(n);
    }
    match text.parse::<f64>() {
        Ok(n) if text.contains(|c: char| c.is_ascii_digit()) => Value::Float(n),
        _ => Value::Text(text.to_owned()),
    }
}

/// Turns the parser's character indices into byte offsets. Indices mostly grow, so each look-up
/// walks on from the last one; a text of ASCII needs no walk at all.
pub(super) struct Offsets {
    ascii: bool,
    character: usize,
    byte: usize,
}

impl Offsets {
    pub fn new(text: &str) -> Self {
        Offsets { ascii: text.is_ascii(), character: 0, byte: 0 }
    }

    pub fn byte(&mut self, text: &str, index: usize) -> u32 {
        if self.ascii {
            return u32::try_from(index.min(text.len())).unwrap_or(u32::MAX);
        }
        while self.character > index {
            self.byte -= 1;
            while !text.is_char_boundary(self.byte) {
                self.byte -= 1;
            }
            self.character -= 1;
        }
        while self.character < index
            && let Some(c) = text[self.byte..].chars().next()
        {
            self.byte += c.len_utf8();
            self.character += 1;
        }
        u32::try_from(self.byte).unwrap_or(u32::MAX)
    }
}

/// A fault of grammar and its remedy. The parser speaks of scalars and flow mappings; the frequent
/// cases are put into the words of a reader, the rest is passed on.
pub(super) fn in_plain_words(fault: &str) -> (String, &'static str) {
    let known = [
        ("',' or '}'", "a `{` is not closed, or a comma is missing", "close it with `}`, or put a `,` before this"),
        ("',' or ']'", "a `[` is not closed, or a comma is missing", "close it with `]`, or put a `,` before this"),
        (
            "unknown anchor",
            "`*name` repeats the value marked with `&name`, and there is none",
            "mark a value before it with `&name`, or put this text in quotes",
        ),
        ("quoted scalar", "a text in quotes does not end", "put the closing quote behind it"),
        (
            "expected key",
            "this line does not fit those above it",
            "indent what belongs together by the same number of spaces",
        ),
    ];
    match known.iter().find(|(part, ..)| fault.contains(part)) {
        Some((_, message, help)) => ((*message).to_owned(), help),
        None => (
            format!("this is not YAML: {fault}"),
            "look at the indentation, quotes and brackets on this line and the one before",
        ),
    }
}

/// A tab that the grammar forbids.
pub(super) struct Tab {
    /// Where it is, in bytes.
    pub at: usize,
    pub message: &'static str,
    pub help: &'static str,
}

/// The tab that a complaint about the text at byte `start` is really about.
pub(super) fn misplaced_tab(text: &str, start: usize, fault: &str) -> Option<Tab> {
    const INDENT: &str = "a tab is used to indent";
    let line = text[..start].rfind('\n').map_or(0, |i| i + 1);
    let indent = text[line..].split(|c| c != ' ' && c != '\t').next().unwrap_or_default();
    if let Some(tab) = indent.find('\t') {
        return Some(Tab { at: line + tab, message: INDENT, help: "YAML wants spaces: two for each level" });
    }
    if fault.contains("YAML whitespace") && text[..start].ends_with('\t') {
        let message = "a tab stands where YAML wants a space";
        return Some(Tab { at: start - 1, message, help: "put a space in its place" });
    }
    // The parser points at the beginning of a text whose next line begins with the tab.
    let at = start + text[start..].find('\t').filter(|_| fault.contains("found a tab"))?;
    let help = "indent this line with spaces, or put the text of several lines in quotes";
    Some(Tab { at, message: INDENT, help })
}
