//! The caller's side of a lab's beginning: start the daemon, feed it, follow what it reports.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::diag::{Problem, codes};

use super::api::{Bundle, Event};

/// The hidden verb that starts a daemon.
pub const VERB: &str = "lab-daemon";

/// A daemon that has been started. Where the bundle says so, the lab lives as long as this.
pub struct Launched {
    reports: BufReader<std::process::ChildStdout>,
    lifeline: Option<ChildStdin>,
    child: Child,
}

/// Start a daemon and give it the bundle.
pub fn launch(bundle: &Bundle) -> Result<Launched, Box<Problem>> {
    start(bundle).map_err(|e| {
        Box::new(
            Problem::error(codes::MACHINE_NAMESPACES, format!("the lab's process could not be started: {e}"))
                .help("`labctl doctor` tells what the machine allows"),
        )
    })
}

fn start(bundle: &Bundle) -> io::Result<Launched> {
    let mut command = Command::new("/proc/self/exe");
    // A group of its own: Ctrl-C at the terminal is for the command line; the lab sees that its
    // caller is gone by its standard input.
    command.arg0("labctl").arg(VERB).arg(&bundle.text.default_name).process_group(0);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::Error::other("no pipes"));
    };
    let mut line = serde_json::to_vec(bundle).map_err(io::Error::other)?;
    line.push(b'\n');
    stdin.write_all(&line)?;
    Ok(Launched { reports: BufReader::new(stdout), lifeline: Some(stdin), child })
}

impl Launched {
    /// Whether a report, or the daemon's end, is there within `patience`.
    pub fn is_heard_within(&self, patience: std::time::Duration) -> bool {
        let limit = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.reports.get_ref().as_fd(), PollFlags::POLLIN)];
        !self.reports.buffer().is_empty() || matches!(poll(&mut fds, limit), Ok(n) if n > 0)
    }

    /// The next report, or nothing where the daemon is gone.
    pub fn report(&mut self) -> Option<Event> {
        let mut line = String::new();
        match self.reports.read_line(&mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => serde_json::from_str(&line).ok(),
        }
    }

    /// Let the daemon live on without us. The process that was started has forked it and ended.
    pub fn release(mut self) {
        self.lifeline = None;
        let _ = self.child.wait();
    }

    /// Wait until the lab has ended.
    pub fn wait(mut self) {
        while self.report().is_some() {}
        let _ = self.child.wait();
    }
}
