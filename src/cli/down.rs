//! `down`: a lab ends, and with it everything that it was.

use std::process::ExitCode;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use crate::daemon::client::Client;
use crate::diag::{Problem, codes};
use crate::runtime::RuntimeDir;

use super::args::DownArgs;
use super::output;
use super::{Done, Failure, find_lab};

/// How long a daemon may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(5);

pub fn run(args: &DownArgs) -> Done {
    let labs = if args.all {
        let dir = RuntimeDir::open()?;
        dir.labs()?.into_iter().map(|name| Client::new(&dir, name)).collect()
    } else {
        vec![find_lab(args.lab())?]
    };
    if labs.is_empty() {
        output::line(format_args!("no lab runs"));
    }
    // One that does not end must not keep the others from it.
    let mut failure = Failure::default();
    for client in labs {
        match end(&client) {
            Ok(()) => output::line(format_args!("lab {} is down", client.lab())),
            Err(problem) => failure.problems.push(*problem),
        }
    }
    if failure.problems.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(failure) }
}

/// Ask the daemon to end and wait until its process has. One that does not answer is killed; the
/// kernel then takes the lab down all the same.
pub fn end(client: &Client) -> Result<(), Box<Problem>> {
    let pid = client.pid()?;
    let process = pidfd(pid);
    let asked = client.post_within::<()>("/labctl/v1/down", PATIENCE);
    let Some(process) = process else { return Ok(()) };
    if asked.is_ok() && has_ended(&process, PATIENCE) {
        return Ok(());
    }
    // By descriptor, so that a process of the same number cannot be meant.
    // SAFETY: plain system call on a descriptor of ours.
    unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, std::os::fd::AsRawFd::as_raw_fd(&process), libc::SIGKILL, 0, 0)
    };
    if has_ended(&process, PATIENCE) {
        return Ok(());
    }
    let message = format!("the lab {} (process {pid}) does not end", client.lab());
    Err(Box::new(Problem::error(codes::LAB_GONE, message).help("is it stopped by a debugger?")))
}

/// pidfd_open(2); nothing where the process is gone.
fn pidfd(pid: i32) -> Option<OwnedFd> {
    // SAFETY: plain system call; a descriptor that it gives is ours alone.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: as above.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A pidfd becomes readable when its process ends.
fn has_ended(process: &OwnedFd, patience: Duration) -> bool {
    let limit = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
    let mut fds = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut fds, limit), Ok(n) if n > 0)
}
