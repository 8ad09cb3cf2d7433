//! `schema`: the JSON Schema of lab files.

use std::process::ExitCode;

use super::Done;

pub fn run() -> Done {
    anstream::print!("{}", crate::spec::schema::text());
    Ok(ExitCode::SUCCESS)
}
