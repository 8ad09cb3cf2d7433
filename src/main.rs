//! The front door: what was typed goes to its verb, what comes back becomes the exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    labctl::cli::main()
}
