//! `schema`: the JSON Schema of lab files, of traces and of what is followed.

use std::process::ExitCode;

use super::Done;
use super::args::{SchemaArgs, SchemaOf};
use super::output;

pub fn run(args: &SchemaArgs) -> Done {
    let text = match args.of {
        SchemaOf::Lab => crate::spec::schema::text(),
        SchemaOf::Trace => crate::trace::show::schema::text(),
        SchemaOf::Follow => crate::trace::show::schema::followed(),
    };
    output::write(format_args!("{text}"));
    Ok(ExitCode::SUCCESS)
}
