//! The life of a container's program: started in its pod, watched, restarted as Kubernetes'
//! restartPolicy says, its output kept in a bounded ring.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ExitStatus, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Serialize;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::sync::watch;

use crate::kernel::enter::Entry;
use crate::kernel::ns::NetNs;
use crate::plan::Program;
use crate::spec::types::RestartPolicy;

/// The hidden verb that enters a machine and becomes its program.
pub const ENTER_VERB: &str = "lab-enter";
/// The descriptor under which the network namespace is handed over.
pub const NETNS_FD: RawFd = 3;
/// The descriptor on which a program that cannot be started is told; see [`ENTER_VERB`].
pub const STARTED_FD: RawFd = 4;
/// How much of a program's output is kept, in bytes.
const KEPT_OUTPUT: usize = 256 * 1024;
/// kubelet's back-off: at once, then 10 s, doubled up to 5 minutes; forgotten after 10 good ones.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);
/// How long a program has after SIGTERM.
const GRACE: Duration = Duration::from_secs(2);

/// What a container does now, in Kubernetes' words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    #[serde(rename_all = "camelCase")]
    Waiting {
        reason: String,
        message: String,
    },
    Running {
        pid: u32,
    },
    #[serde(rename_all = "camelCase")]
    Terminated {
        exit_code: i32,
        reason: String,
    },
}

/// The last of a program's output, and a bell for who follows it.
#[derive(Default)]
pub struct Log {
    ring: RefCell<VecDeque<u8>>,
    /// Bytes ever written, so that a follower knows what it has seen.
    written: RefCell<u64>,
    bell: watch::Sender<()>,
}

impl Log {
    fn add(&self, bytes: &[u8]) {
        let mut ring = self.ring.borrow_mut();
        ring.extend(bytes);
        let over = ring.len().saturating_sub(KEPT_OUTPUT);
        ring.drain(..over);
        *self.written.borrow_mut() += bytes.len() as u64;
        self.bell.send_replace(());
    }

    fn line(&self, text: &str) {
        self.add(format!("{text}\n").as_bytes());
    }

    /// What was written from byte `from` on, as far as it is kept, and the position behind it.
    pub fn since(&self, from: u64) -> (Vec<u8>, u64) {
        let (ring, written) = (self.ring.borrow(), *self.written.borrow());
        let kept = ring.len() as u64;
        // Who knows more than was written has read another program's log, before this one's.
        let from = if from > written { 0 } else { from };
        let skip = from.saturating_sub(written - kept).min(kept);
        (ring.iter().skip(usize::try_from(skip).unwrap_or(0)).copied().collect(), written)
    }

    pub fn bell(&self) -> watch::Receiver<()> {
        self.bell.subscribe()
    }
}

/// A program that is looked after.
pub struct Supervised {
    pub program: Program,
    pub state: Rc<RefCell<State>>,
    pub restarts: Rc<RefCell<u32>>,
    pub log: Rc<Log>,
    stop: watch::Sender<bool>,
    changed: Rc<tokio::sync::Notify>,
    task: tokio::task::JoinHandle<()>,
}

/// Where a program runs.
#[derive(Clone)]
pub struct Place {
    pub netns: NetNs,
    pub entry: Entry,
}

impl Supervised {
    /// Start looking after `program`. `changed` is rung at each change of state.
    pub fn start(program: Program, place: Place, changed: Rc<tokio::sync::Notify>) -> Supervised {
        let waiting = State::Waiting { reason: "ContainerCreating".to_owned(), message: String::new() };
        let (state, restarts) = (Rc::new(RefCell::new(waiting)), Rc::new(RefCell::new(0)));
        let (stop, stopped) = watch::channel(false);
        let log = Rc::new(Log::default());
        let keeper = Keeper {
            program: program.clone(),
            place,
            state: Rc::clone(&state),
            restarts: Rc::clone(&restarts),
            log: Rc::clone(&log),
            changed: Rc::clone(&changed),
            stopped,
        };
        let task = tokio::task::spawn_local(keeper.run());
        Supervised { program, state, restarts, log, stop, changed, task }
    }

    /// End the program: SIGTERM to its process group, SIGKILL where that does not help.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        let _ = self.task.await;
        self.changed.notify_waiters();
    }
}

struct Keeper {
    program: Program,
    place: Place,
    state: Rc<RefCell<State>>,
    restarts: Rc<RefCell<u32>>,
    log: Rc<Log>,
    changed: Rc<tokio::sync::Notify>,
    stopped: watch::Receiver<bool>,
}

impl Keeper {
    fn set(&self, state: State) {
        *self.state.borrow_mut() = state;
        self.changed.notify_waiters();
    }

    async fn run(mut self) {
        let mut pause = Duration::ZERO;
        loop {
            let started = Instant::now();
            let ended = self.once().await;
            if *self.stopped.borrow() {
                return;
            }
            let (exit_code, reason) = ended.unwrap_or_else(|e| {
                self.log.line(&format!("labctl: {} cannot be started: {e}", self.program.command.join(" ")));
                (128, "StartError".to_owned())
            });
            let again = match self.program.restart_policy {
                RestartPolicy::Always => true,
                RestartPolicy::OnFailure => exit_code != 0,
                RestartPolicy::Never => false,
            };
            self.set(State::Terminated { exit_code, reason });
            if !again {
                return;
            }
            pause = if started.elapsed() > FORGIVEN_AFTER { Duration::ZERO } else { pause };
            if !pause.is_zero() {
                let message = format!("ended with {exit_code}; started again after a pause of {} s", pause.as_secs());
                self.set(State::Waiting { reason: "CrashLoopBackOff".to_owned(), message });
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = self.stopped.wait_for(|s| *s) => return,
            }
            pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
            *self.restarts.borrow_mut() += 1;
        }
    }

    /// Run the program once. Returns its exit code and Kubernetes' reason.
    async fn once(&mut self) -> io::Result<(i32, String)> {
        let (started, report) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let mut child = self.command(report).spawn()?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        if is_started(started).await? {
            self.set(State::Running { pid: child.id().unwrap_or_default() });
        }
        let mut outputs = Vec::new();
        outputs.extend(child.stdout.take().map(|o| tokio::task::spawn_local(keep(o, Rc::clone(&self.log)))));
        outputs.extend(child.stderr.take().map(|o| tokio::task::spawn_local(keep(o, Rc::clone(&self.log)))));
        let status = tokio::select! {
            status = child.wait() => status,
            _ = self.stopped.wait_for(|s| *s) => {
                signal(group, Signal::SIGTERM);
                let gone = tokio::time::timeout(GRACE, child.wait()).await;
                signal(group, Signal::SIGKILL);
                match gone { Ok(status) => status, Err(_) => child.wait().await }
            }
        }?;
        // What the program's own children still hold open is not waited for.
        signal(group, Signal::SIGKILL);
        for output in outputs {
            let _ = tokio::time::timeout(Duration::from_millis(200), output).await;
        }
        Ok(outcome(status))
    }

    fn command(&self, report: OwnedFd) -> Command {
        let Place { netns, entry } = &self.place;
        let mut command = Command::from(enter_command(Some(entry), Some(netns), &self.program.command));
        command.envs(self.program.env.iter().map(|e| (&e.name, &e.value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true).process_group(0);
        // SAFETY: dup2 is async-signal-safe, and the descriptor lives as long as the closure.
        unsafe {
            command.pre_exec(move || hand_over(report.as_raw_fd(), STARTED_FD));
        }
        command
    }
}

/// The command that runs a program as a process of a machine, with an environment of its own.
/// Without an entry or a namespace it ends at once and says so.
pub fn enter_command(entry: Option<&Entry>, netns: Option<&NetNs>, words: &[String]) -> std::process::Command {
    let mut command = std::process::Command::new("/proc/self/exe");
    // An entry is plain data, so this cannot fail; the verb refuses an empty one.
    let text = entry.and_then(|e| serde_json::to_string(e).ok()).unwrap_or_default();
    command.arg(ENTER_VERB).arg(text).arg("--").args(words);
    command
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root");
    if let Some(entry) = entry {
        command.env("HOSTNAME", &entry.hostname);
    }
    if let Some(netns) = netns.cloned() {
        // SAFETY: dup2 is async-signal-safe, and the descriptor lives as long as the closure.
        unsafe {
            command.pre_exec(move || hand_over(netns.as_raw_fd(), NETNS_FD));
        }
    }
    command
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

/// Whether the program itself runs now: its end of the pipe closes with that, in silence; what
/// becomes it writes a byte where it fails.
async fn is_started(pipe: OwnedFd) -> io::Result<bool> {
    let mut pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(pipe)?;
    Ok(pipe.read(&mut [0u8; 1]).await? == 0)
}

fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        // A group that is gone needs no signal.
        let _ = killpg(group, signal);
    }
}

/// Take what a program writes until it writes no more.
pub async fn keep(mut output: impl tokio::io::AsyncRead + Unpin, log: Rc<Log>) {
    let mut buffer = [0u8; 8192];
    while let Ok(n) = output.read(&mut buffer).await {
        if n == 0 {
            return;
        }
        log.add(&buffer[..n]);
    }
}

/// Exit code (128 and the signal's number for a killed one, as shells count) and reason.
fn outcome(status: ExitStatus) -> (i32, String) {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    (code, if code == 0 { "Completed" } else { "Error" }.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_keeps_only_its_end_and_a_follower_misses_nothing_that_is_kept() {
        let log = Log::default();
        log.line("first");
        let (seen, position) = log.since(0);
        assert_eq!(seen, b"first\n");
        log.line("second");
        assert_eq!(log.since(position).0, b"second\n");
        for _ in 0..1_000 {
            log.add(&[b'x'; 1_000]);
        }
        let (kept, end) = log.since(0);
        assert_eq!(kept.len(), KEPT_OUTPUT);
        assert_eq!(end, 13 + 1_000_000);
        assert!(log.since(end).0.is_empty());
    }
}
