//! Two small services for reading YAML: what a plain scalar means, and where in the text, in bytes,
//! the parser's character indices are.

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
