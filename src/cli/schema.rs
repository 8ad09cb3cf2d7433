//! `schema`: the JSON Schema of lab files.

use std::process::ExitCode;

use super::Done;
use super::output;

pub fn run() -> Done {
    output::write(format_args!("{}", crate::spec::schema::text()));
    Ok(ExitCode::SUCCESS)
}
