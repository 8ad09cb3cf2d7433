//! `man`: manual pages, the main one to standard output or all into a directory.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;

use crate::diag::{Problem, codes};

use super::Done;
use super::args::{Cli, ManArgs};
use super::output;

pub fn run(args: &ManArgs) -> Done {
    let written = match &args.dir {
        Some(dir) => all(dir).map_err(|e| format!("{} cannot be written: {e}", dir.display())),
        None => main_page().map_err(|e| e.to_string()),
    };
    written.map_err(|why| {
        Box::new(Problem::error(codes::FILE_UNREADABLE, why).help("check the path and its permissions"))
    })?;
    Ok(ExitCode::SUCCESS)
}

fn main_page() -> io::Result<()> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page)?;
    output::write(format_args!("{}", String::from_utf8_lossy(&page)));
    Ok(())
}

/// `labctl.1`, and one page for each verb, such as `labctl-up.1`.
fn all(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    clap_mangen::generate_to(Cli::command(), dir)
}
