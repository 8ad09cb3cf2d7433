//! A reader of one page: someone at a shell in the project's root, with labs of their own.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::ROOT;

/// Seconds that a command of the book may take.
const LIMIT: &str = "120";

pub struct Reader {
    runtime: TempDir,
}

impl Reader {
    pub fn new() -> io::Result<Reader> {
        Ok(Reader { runtime: tempfile::Builder::new().prefix("labctl-book-").tempdir()? })
    }

    /// Run a line of shell, with `$?` being what the line before ended with. Gives back what it
    /// printed, errors included, and what it ended with.
    pub fn run(&self, line: &str, status: i32) -> io::Result<(Vec<String>, i32)> {
        self.shell(&format!("(exit {status})\n{line}"), "")
    }

    pub fn run_with_input(&self, line: &str, input: &str) -> io::Result<(Vec<String>, i32)> {
        self.shell(line, input)
    }

    /// The labs that run, as JSON.
    pub fn running(&self) -> io::Result<String> {
        Ok(self.shell("labctl list -o json", "")?.0.concat())
    }

    fn shell(&self, script: &str, input: &str) -> io::Result<(Vec<String>, i32)> {
        let labctl = Path::new(env!("CARGO_BIN_EXE_labctl"));
        let mut path = labctl.parent().expect("the binary has a directory").as_os_str().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        path.push(":/usr/sbin:/sbin");
        let mut shell = Command::new("timeout")
            .args([LIMIT, "bash", "-c", &format!("exec 2>&1\n{script}")])
            .current_dir(ROOT)
            .env("PATH", path)
            .env("LABCTL_RUNTIME_DIR", self.runtime.path())
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .env("NO_COLOR", "1")
            .env_remove("COLUMNS")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = shell.stdin.take() {
            // A command that does not read closes the pipe.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = shell.wait_with_output()?;
        let printed = String::from_utf8_lossy(&output.stdout);
        let mut lines: Vec<String> = printed.lines().map(|l| l.trim_end().to_owned()).collect();
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        Ok((lines, output.status.code().unwrap_or(-1)))
    }
}

/// Whatever became of the page, its labs end.
impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.shell("labctl down --all", "");
    }
}
