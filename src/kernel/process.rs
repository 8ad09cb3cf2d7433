//! Programs as processes of a machine: how they are started, watched and ended. Containers'
//! programs, readiness probes, exec probes and the rooms that `exec` enters all come this way.
//!
//! A machine's network namespace needs a process of its own to be entered, with one thread: the
//! program labctl itself, started with the hidden verb [`ENTER_VERB`]. What that does inside is
//! `room`'s. How often and for how long something runs is decided elsewhere.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe::{Receiver, Sender};

use super::enter::Entry;
use super::ns::NetNs;
use super::room::Room;

/// The hidden verb that enters a machine and runs a program there.
pub const ENTER_VERB: &str = "lab-enter";
/// The descriptor under which the network namespace, or the room, is handed over.
pub const PLACE_FD: RawFd = 3;
/// The descriptor on which it is told that a program runs: closed by that, written to where it
/// cannot be started.
pub const STARTED_FD: RawFd = 4;
/// Descriptors that are handed over lie above those that they are handed over as.
const ABOVE: RawFd = 10;
/// How long a process that is to end what it left in another's room may take for it.
const TIDYING: Duration = Duration::from_secs(2);

/// What [`ENTER_VERB`] is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Errand {
    pub entry: Entry,
    /// Whether the room is there already; otherwise this process is the first of a new one.
    pub join: bool,
}

/// Where a program runs.
#[derive(Debug, Clone)]
pub struct Place {
    pub netns: NetNs,
    pub entry: Entry,
    /// The room to run in; a new one is made where there is none.
    pub room: Option<Room>,
}

/// Which PID namespace a process is born into.
#[derive(Debug, Clone)]
enum Birth {
    /// Ours.
    Here,
    /// A new one, as its first process.
    First,
    In(Room),
}

/// A program about to be started.
#[derive(Debug)]
pub struct Launch {
    command: Command,
    birth: Birth,
    /// Ends when the program runs.
    started: Option<OwnedFd>,
    /// Where its standard output goes, where that is not the pipe.
    stdout: Option<OwnedFd>,
    /// Whether it is told something on its standard input.
    fed: bool,
}

impl From<Command> for Launch {
    /// A command as it is, in our own namespaces.
    fn from(command: Command) -> Launch {
        Launch { command, birth: Birth::Here, started: None, stdout: None, fed: false }
    }
}

impl Place {
    /// What runs `words` here, with an environment of its own. Without words it is a room that
    /// waits for others to come in.
    pub fn launch(&self, words: &[String]) -> io::Result<Launch> {
        let (birth, inside) = match &self.room {
            Some(room) => (Birth::In(room.clone()), above(room.as_fd())?),
            None => (Birth::First, above(self.netns.as_fd())?),
        };
        let (started, report) = io::pipe()?;
        let report = above(report.as_fd())?;
        let errand = Errand { entry: self.entry.clone(), join: self.room.is_some() };
        let mut command = Command::new("/proc/self/exe");
        command.arg0("pause").arg(ENTER_VERB).arg(serde_json::to_string(&errand).map_err(io::Error::other)?);
        command.arg("--").args(words).env_clear();
        command.env("PATH", super::path::PATH);
        command.env("HOME", "/root").env("HOSTNAME", &self.entry.hostname);
        // SAFETY: dup2 is async-signal-safe, and the descriptors live as long as the closure.
        unsafe {
            command.pre_exec(move || {
                hand_over(inside.as_raw_fd(), PLACE_FD)?;
                hand_over(report.as_raw_fd(), STARTED_FD)
            });
        }
        Ok(Launch { command, birth, started: Some(started.into()), stdout: None, fed: false })
    }
}

impl Launch {
    pub fn env<'a>(&mut self, variables: impl IntoIterator<Item = (&'a String, &'a String)>) {
        self.command.envs(variables);
    }

    /// Let the program write its standard output there, so that nobody need carry it.
    pub fn stdout(&mut self, to: OwnedFd) {
        self.stdout = Some(to);
    }

    /// Give the program a pipe as its standard input; see [`Running::input`].
    pub fn feed(&mut self) {
        self.fed = true;
    }

    /// A child's PID namespace is its parent thread's choice, so a thread of its own makes it.
    fn spawn(&mut self) -> io::Result<Child> {
        let Launch { command, birth, fed, .. } = self;
        command.stdin(if *fed { Stdio::piped() } else { Stdio::null() }).process_group(0);
        if matches!(birth, Birth::Here) {
            return command.spawn();
        }
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().spawn_scoped(scope, || {
                match birth {
                    Birth::Here => {}
                    Birth::First => unshare(CloneFlags::CLONE_NEWPID)?,
                    Birth::In(room) => room.adopt_children()?,
                }
                command.spawn()
            })?;
            thread.join().map_err(|_| io::Error::other("the thread that starts programs panicked"))?
        })
    }
}

/// A program that runs, as the leader of a process group. Dropping it ends it, with everything
/// that it started.
pub struct Running {
    /// `None` when its end has been taken.
    alive: Option<Alive>,
    /// Both outputs in one pipe, so that their order stays; taken by who wants to read it.
    pub output: Option<Receiver>,
    /// What leads to its standard input, where it is fed; taken by who feeds it.
    pub input: Option<Sender>,
    started: Option<OwnedFd>,
}

struct Alive {
    child: Child,
    /// Becomes readable when the process has ended (pidfd_open(2)).
    over: AsyncFd<OwnedFd>,
    birth: Birth,
}

impl Running {
    pub fn start(launch: impl Into<Launch>) -> io::Result<Running> {
        let mut launch = launch.into();
        let (reading, writing) = io::pipe()?;
        let output = Receiver::from_owned_fd(reading.into())?;
        match launch.stdout.take() {
            Some(stdout) => launch.command.stdout(stdout),
            None => launch.command.stdout(writing.try_clone()?),
        };
        launch.command.stderr(writing);
        let mut child = launch.spawn()?;
        let Launch { birth, started, .. } = launch;
        let input = child.stdin.take().map(|pipe| Sender::from_owned_fd(pipe.into())).transpose();
        // SAFETY: the descriptor is owned, and closed only when the AsyncFd drops it.
        match input.and_then(|input| Ok((input, unsafe { AsyncFd::register(pidfd(&child)?) }?))) {
            Ok((input, over)) => {
                Ok(Running { alive: Some(Alive { child, over, birth }), output: Some(output), input, started })
            }
            Err(e) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(e)
            }
        }
    }

    /// Wait until the program itself runs; false where it could not be started.
    pub async fn has_started(&mut self) -> io::Result<bool> {
        let Some(pipe) = self.started.take() else { return Ok(true) };
        let mut pipe = Receiver::from_owned_fd(pipe)?;
        Ok(pipe.read(&mut [0u8; 1]).await? == 0)
    }

    /// The process that was started, as we count.
    pub fn pid(&self) -> u32 {
        self.alive.as_ref().map_or(0, |a| a.child.id())
    }

    /// The room that it is the first process of.
    pub fn room(&self) -> io::Result<Room> {
        match &self.alive {
            Some(Alive { over, birth: Birth::First, .. }) => Room::of(over.get_ref().as_fd()),
            _ => Err(io::Error::other("the program has no room of its own")),
        }
    }

    /// Send a signal to the program alone.
    pub fn signal(&self, what: Signal) -> io::Result<()> {
        let ended = || io::Error::other("the program has ended");
        signal(self.alive.as_ref().ok_or_else(ended)?.over.get_ref().as_fd(), what)
    }

    /// Ask the program's group to end.
    pub fn ask_to_end(&self) {
        if let Some(alive) = &self.alive {
            alive.signal_group(Signal::SIGTERM);
        }
    }

    /// Wait until the program has ended, and end what it left behind.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        let taken = || io::Error::other("someone else has taken its exit status");
        drop(self.alive.as_ref().ok_or_else(taken)?.over.readable().await?);
        self.alive.take().ok_or_else(taken)?.bury()
    }

    /// End it, whatever it does, and wait until it has.
    pub async fn killed(&mut self) -> io::Result<ExitStatus> {
        if let Some(alive) = &self.alive {
            alive.strike();
        }
        self.ended().await
    }

    /// Read what the program says until it has ended; at most `most` bytes are kept, and the rest
    /// is read and forgotten, so that the program is not held up by it.
    pub async fn until_the_end(&mut self, kept: &mut Vec<u8>, most: usize) -> io::Result<ExitStatus> {
        let mut chunk = [0_u8; 16_384];
        let mut keep = |read: &[u8]| {
            let room = most.saturating_sub(kept.len());
            kept.extend_from_slice(&read[..read.len().min(room)]);
            room > read.len()
        };
        let mut open = true;
        let (Some(alive), Some(pipe)) = (&self.alive, &mut self.output) else { return self.ended().await };
        loop {
            tokio::select! {
                length = pipe.read(&mut chunk), if open => match length? {
                    0 => open = false,
                    length => { keep(&chunk[..length]); }
                },
                ended = alive.over.readable() => {
                    drop(ended?);
                    break;
                }
            }
        }
        let status = self.ended().await;
        // The last words may still be in the pipe.
        while let Some(Ok(length @ 1..)) = self.output.as_ref().map(|o| o.try_read(&mut chunk))
            && keep(&chunk[..length])
        {}
        status
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(mut alive) = self.alive.take() else { return };
        alive.strike();
        // Its end is awaited elsewhere: nobody is to be held up by it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(alive.awaited());
        } else {
            let _ = alive.child.wait();
        }
    }
}

impl Alive {
    fn signal_group(&self, signal: Signal) {
        if let Ok(group) = i32::try_from(self.child.id()) {
            // The leader has not been waited for, so the number is still its group's. A group
            // that is gone needs no signal.
            let _ = killpg(Pid::from_raw(group), signal);
        }
    }

    /// Begin its end.
    fn strike(&self) {
        let _ = match self.birth {
            Birth::Here => {
                self.signal_group(Signal::SIGKILL);
                Ok(())
            }
            // The kernel ends everyone in the room with it.
            Birth::First => signal(self.over.get_ref().as_fd(), Signal::SIGKILL),
            // It ends what it started in a room that is not its own.
            Birth::In(_) => signal(self.over.get_ref().as_fd(), Signal::SIGTERM),
        };
    }

    async fn awaited(self) {
        if tokio::time::timeout(TIDYING, self.over.readable()).await.is_err() {
            // Somebody has stopped it.
            self.signal_group(Signal::SIGKILL);
            let _ = self.over.readable().await;
        }
        let _ = self.bury();
    }

    /// Take the end of a process that has ended. The leader is waited for last: until then its
    /// number cannot become another's.
    fn bury(mut self) -> io::Result<ExitStatus> {
        self.signal_group(Signal::SIGKILL);
        self.child.wait()
    }
}

/// A shell's way to put both ends into one number.
pub fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Send a signal to a process by descriptor, so that no other of its number can be meant.
pub fn signal(process: BorrowedFd<'_>, signal: Signal) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: plain system call; the kernel fills in what a null pointer leaves out.
    match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal as i32, none, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two numbers; what it returns is checked before it is owned.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Another descriptor of the same, above those that are handed over.
fn above(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let new = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(ABOVE))?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(new) })
}

/// Make `from` known as `to` in the program that is about to be started. To be called between
/// fork and exec.
pub fn hand_over(from: RawFd, to: RawFd) -> io::Result<()> {
    if from == to {
        // dup2 would leave the close-on-exec flag as it is.
        // SAFETY: plain system call on a descriptor of ours.
        return match unsafe { libc::fcntl(from, libc::F_SETFD, 0) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        };
    }
    // SAFETY: plain system call; the target is overwritten on purpose.
    match unsafe { libc::dup2(from, to) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
