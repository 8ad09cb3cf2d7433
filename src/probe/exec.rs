//! Programs run in a namespace: their output, bounded, and how they ended. A program that is
//! still there at the time limit is killed with everything it started.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::libc;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe::Receiver;

use super::Asking;
use super::outcome::{Answer, Details, Failure};
use crate::spec::probe::FailureName;

/// The most bytes of output that are kept; the rest is read and forgotten, so that the program
/// is not held up by it.
const MOST_OUTPUT: usize = 64 << 10;

pub async fn ask(asking: &Asking<'_>, words: &[String]) -> Result<Answer, Failure> {
    let program = words.first().map_or("", String::as_str);
    let fault = |e: io::Error| Failure::unasked(format!("`{program}` on {}: {e}", asking.from));
    let mut running = Running::start((asking.field.enter)(asking.from, words)).map_err(fault)?;
    let mut output = Vec::new();
    let ended = asking.within(running.until_the_end(&mut output)).await;
    let status = match ended {
        Some(status) => status.map_err(fault)?,
        None => {
            let said = super::outcome::excerpt(&String::from_utf8_lossy(&output));
            let said = if said.is_empty() { String::new() } else { format!("; it said: {said}") };
            let text = format!("`{program}` on {} did not end", asking.from);
            let silence = asking.silence(FailureName::Timeout, text);
            return Err(Failure { text: format!("{} and was killed{said}", silence.text), ..silence });
        }
    };
    let details = Details { exit_code: Some(exit_code(status)), ..Details::default() };
    let refusal = (!status.success())
        .then(|| Failure::answer(FailureName::Any, format!("`{program}` ended with {}", end(status))));
    Ok(Answer { details, text: Some(String::from_utf8_lossy(&output).into_owned()), refusal })
}

/// A shell's way to put both ends into one number.
fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

fn end(status: ExitStatus) -> String {
    match status.signal().map(Signal::try_from) {
        Some(Ok(signal)) => format!("{signal}"),
        _ => format!("exit code {}", exit_code(status)),
    }
}

/// A program with its group; dropping it kills them all.
struct Running {
    /// `None` when its end has been taken.
    child: Option<Child>,
    /// Becomes readable when the program has ended (pidfd_open(2)).
    over: AsyncFd<OwnedFd>,
    output: Receiver,
}

impl Running {
    /// Start `command` as the leader of a group of its own, with both outputs in one pipe so
    /// that their order stays.
    fn start(mut command: Command) -> io::Result<Running> {
        let (reading, writing) = io::pipe()?;
        let output = Receiver::from_owned_fd(reading.into())?;
        command.stdin(Stdio::null()).stdout(writing.try_clone()?).stderr(writing).process_group(0);
        let mut child = command.spawn()?;
        // SAFETY: the descriptor is owned, and closed only when the AsyncFd drops it.
        match pidfd(&child).and_then(|fd| Ok(unsafe { AsyncFd::register(fd) }?)) {
            Ok(over) => Ok(Running { child: Some(child), over, output }),
            Err(e) => {
                end_group(&mut child);
                Err(e)
            }
        }
    }

    /// Read what the program says until it has ended, and end what it left behind.
    async fn until_the_end(&mut self, output: &mut Vec<u8>) -> io::Result<ExitStatus> {
        let mut chunk = [0_u8; 16_384];
        let mut open = true;
        loop {
            tokio::select! {
                length = self.output.read(&mut chunk), if open => match length? {
                    0 => open = false,
                    length => keep(output, &chunk[..length]),
                },
                ended = self.over.readable() => {
                    drop(ended?);
                    break;
                }
            }
        }
        let status = self.child.take().and_then(|mut child| end_group(&mut child));
        // The last words may still be in the pipe.
        while output.len() < MOST_OUTPUT
            && let Ok(length @ 1..) = self.output.try_read(&mut chunk)
        {
            keep(output, &chunk[..length]);
        }
        status.ok_or_else(|| io::Error::other("someone else has taken its exit status"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            end_group(child);
        }
    }
}

fn keep(output: &mut Vec<u8>, read: &[u8]) {
    let room = MOST_OUTPUT.saturating_sub(output.len());
    output.extend_from_slice(&read[..read.len().min(room)]);
}

/// Kill what is left of a group and take its leader's end. The leader is waited for last: until
/// then its number cannot become another's.
fn end_group(child: &mut Child) -> Option<ExitStatus> {
    let group = i32::try_from(child.id()).ok()?;
    let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    child.wait().ok()
}

fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two numbers; what it returns is checked before it is owned.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test(flavor = "current_thread")]
    async fn output_is_bounded_and_does_not_hold_the_program_up() {
        let mut running = Running::start(sh("head -c 1000000 /dev/zero; exit 3")).expect("sh");
        let mut output = Vec::new();
        let status = running.until_the_end(&mut output).await.expect("an end");
        assert_eq!((status.code(), output.len()), (Some(3), MOST_OUTPUT));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_a_program_leaves_behind_is_ended() {
        let mut running = Running::start(sh("sleep 1000 & echo $!")).expect("sh");
        let mut output = Vec::new();
        running.until_the_end(&mut output).await.expect("an end");
        let left: i32 = String::from_utf8_lossy(&output).trim().parse().expect("a number");
        // The signal is there when the program's end is told; the child takes a moment to die.
        let alive = || {
            let stat = std::fs::read_to_string(format!("/proc/{left}/stat"));
            stat.is_ok_and(|s| !s.contains(" Z ") && !s.contains(" X "))
        };
        let begin = std::time::Instant::now();
        while alive() {
            assert!(begin.elapsed().as_secs() < 10, "{left} is still there");
            std::thread::yield_now();
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_signal_is_named() {
        let mut running = Running::start(sh("kill -TERM $$")).expect("sh");
        let status = running.until_the_end(&mut Vec::new()).await.expect("an end");
        assert_eq!((end(status).as_str(), exit_code(status)), ("SIGTERM", 143));
    }
}
