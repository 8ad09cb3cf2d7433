//! `completions`: what a shell needs to complete labctl's verbs and options.

use std::process::ExitCode;

use clap::CommandFactory;

use super::Done;
use super::args::{Cli, CompletionsArgs};
use super::output;

pub fn run(args: &CompletionsArgs) -> Done {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "labctl", &mut script);
    output::write(format_args!("{}", String::from_utf8_lossy(&script)));
    Ok(ExitCode::SUCCESS)
}
