//! Whose schema is wanted.

use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// Of what
    #[arg(value_enum, default_value_t)]
    pub of: SchemaOf,
}

/// What has a JSON Schema.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum SchemaOf {
    /// Lab files
    #[default]
    Lab,
    /// What `trace -o json` prints
    Trace,
    /// A line of what `trace --follow -o json` prints
    Follow,
}
