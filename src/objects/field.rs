//! A field that cannot be, in the API server's words: its path, what kind of fault it is, and why
//! (apimachinery's `field.Error`).

use std::fmt;

/// One faulty field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Such as `spec.ports[0].nodePort`.
    pub path: String,
    pub fault: Fault,
    /// Why, in a few words; empty where the fault says it all.
    pub detail: String,
}

/// The kinds of faults that the API server tells apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    Required,
    /// The value that is written.
    Invalid(String),
    /// The value that is written, where only certain ones are known.
    NotSupported(String),
    Duplicate(String),
    Forbidden,
}

impl FieldError {
    pub fn required(path: impl Into<String>, detail: impl Into<String>) -> Self {
        FieldError { path: path.into(), fault: Fault::Required, detail: detail.into() }
    }

    pub fn invalid(path: impl Into<String>, value: impl fmt::Display, detail: impl Into<String>) -> Self {
        FieldError { path: path.into(), fault: Fault::Invalid(value.to_string()), detail: detail.into() }
    }

    pub fn not_supported(path: impl Into<String>, value: &str, possible: &[&str]) -> Self {
        let words: Vec<String> = possible.iter().map(|w| format!("\"{w}\"")).collect();
        let detail = format!("supported values: {}", words.join(", "));
        FieldError { path: path.into(), fault: Fault::NotSupported(value.to_owned()), detail }
    }

    pub fn duplicate(path: impl Into<String>, value: impl fmt::Display) -> Self {
        FieldError { path: path.into(), fault: Fault::Duplicate(value.to_string()), detail: String::new() }
    }

    pub fn forbidden(path: impl Into<String>, detail: impl Into<String>) -> Self {
        FieldError { path: path.into(), fault: Fault::Forbidden, detail: detail.into() }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path)?;
        match &self.fault {
            Fault::Required => f.write_str("Required value")?,
            Fault::Invalid(value) => write!(f, "Invalid value: {value}")?,
            Fault::NotSupported(value) => write!(f, "Unsupported value: \"{value}\"")?,
            Fault::Duplicate(value) => write!(f, "Duplicate value: {value}")?,
            Fault::Forbidden => f.write_str("Forbidden")?,
        }
        match self.detail.as_str() {
            "" => Ok(()),
            detail => write!(f, ": {detail}"),
        }
    }
}
