//! Rooms: the PID, mount and UTS namespaces that programs of a machine live in, and the process
//! that begins one. A room is made for each container that runs a program, as Kubernetes does
//! where a pod does not ask for one shared by all, because then a container's end is the end of
//! everything that it started, whatever that calls itself or detaches from. Its first process
//! only reaps: signals and orphans are an ordinary program's neither to know nor to handle.
//!
//! Here is what goes on inside. Starting such processes and watching them is `process`'s, the
//! machine's files `enter`'s, and who gets a room when the daemon's.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid};

/// A room, by its first process (a pidfd): when that ends, the kernel ends everyone inside.
#[derive(Debug, Clone)]
pub struct Room(Arc<OwnedFd>);

/// A room's namespaces by descriptor, for processes of other trees to enter. They keep nobody
/// alive: a PID namespace without its first process takes no new ones.
#[derive(Debug)]
pub struct Doors {
    pub pids: OwnedFd,
    pub mounts: OwnedFd,
    pub uts: OwnedFd,
}

impl Room {
    /// The room whose first process `pidfd` is.
    pub fn of(pidfd: BorrowedFd<'_>) -> io::Result<Room> {
        Ok(Room(Arc::new(pidfd.try_clone_to_owned()?)))
    }

    /// End everyone in it.
    pub fn end(&self) {
        // One that has ended already needs no signal.
        let _ = super::process::signal(self.as_fd(), Signal::SIGKILL);
    }

    /// Have children of the calling thread be born here.
    pub fn adopt_children(&self) -> io::Result<()> {
        Ok(setns(self.as_fd(), CloneFlags::CLONE_NEWPID)?)
    }

    /// Its namespaces. They are taken on a thread that enters it, because /proc need not show the
    /// process under the number that we know.
    pub fn doors(&self) -> io::Result<Doors> {
        let walk = || -> io::Result<Doors> {
            let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
            let here = open("/proc/thread-self/ns", flags | OFlag::O_DIRECTORY, Mode::empty())?;
            // setns(2): who changes the mount namespace must share no working directory.
            unshare(CloneFlags::CLONE_FS)?;
            setns(self.as_fd(), CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWNS)?;
            let door = |name: &str| openat(&here, name, flags, Mode::empty());
            Ok(Doors { pids: door("pid_for_children")?, mounts: door("mnt")?, uts: door("uts")? })
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().spawn_scoped(scope, walk)?;
            thread.join().map_err(|_| io::Error::other("the thread in the room panicked"))?
        })
    }
}

impl AsFd for Room {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Enter a room whose first process is `first`, as a process that was born there. The working
/// directory stays, where the room has it.
pub fn join(first: BorrowedFd<'_>) -> io::Result<()> {
    let here = std::env::current_dir();
    setns(first, CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWNS)?;
    if let Ok(here) = here {
        let _ = std::env::set_current_dir(here);
    }
    Ok(())
}

/// Whether a keeper began its room or came into another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeper {
    /// The room's first process: what it leaves behind, the kernel ends.
    First,
    /// A guest, which ends what it leaves behind itself.
    Guest,
}

/// Start `command` and reap whatever is orphaned until it has ended; `started` is called once it
/// runs. Returns its exit code, 128 and the signal's number for one that was killed. SIGTERM makes
/// a guest end its program. The calling process must have one thread.
pub fn keep(mut command: Command, keeper: Keeper, started: impl FnOnce()) -> io::Result<i32> {
    let signals = watched_signals()?;
    // SAFETY: sigprocmask(2) is async-signal-safe.
    unsafe {
        command.pre_exec(|| Ok(SigSet::empty().thread_set_mask()?));
    }
    if keeper == Keeper::Guest {
        nix::sys::prctl::set_child_subreaper(true)?;
        command.process_group(0);
    }
    let child = Pid::from_raw(i32::try_from(command.spawn()?.id()).map_err(io::Error::other)?);
    started();
    let code = loop {
        if let Some(code) = reap(Some(child)) {
            break code;
        }
        if signals.wait()? == Signal::SIGTERM && keeper == Keeper::Guest {
            break 128 + Signal::SIGTERM as i32;
        }
    };
    if keeper == Keeper::Guest {
        end_children(child);
    }
    Ok(code)
}

/// Hold a room open for others: reap until somebody ends us.
pub fn hold(started: impl FnOnce()) -> io::Result<std::convert::Infallible> {
    let signals = watched_signals()?;
    started();
    loop {
        reap(None);
        signals.wait()?;
    }
}

/// Block the signals that are waited for.
fn watched_signals() -> io::Result<SigSet> {
    let signals = SigSet::from_iter([Signal::SIGCHLD, Signal::SIGTERM]);
    signals.thread_block()?;
    Ok(signals)
}

/// Take the ends of all who have ended. Returns `child`'s exit code, where it is among them.
fn reap(child: Option<Pid>) -> Option<i32> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, exit)) if Some(pid) == child => code = Some(exit),
            Ok(WaitStatus::Signaled(pid, signal, _)) if Some(pid) == child => code = Some(128 + signal as i32),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return code,
            Ok(_) | Err(_) => {}
        }
    }
}

/// End whoever is still a child of ours; whom those leave behind becomes one, and is ended next.
fn end_children(program: Pid) {
    // What stayed in the program's group goes at once, and also where /proc is of no help.
    let _ = killpg(program, Signal::SIGKILL);
    while let Some(children) = children() {
        for child in children {
            let _ = kill(child, Signal::SIGKILL);
        }
        if waitpid(None, None) == Err(Errno::ECHILD) {
            return;
        }
    }
}

/// Our children (proc_pid_stat(5)), or nothing where the machine gave the room no /proc of its
/// own: numbers there mean other processes than kill(2) does.
fn children() -> Option<Vec<Pid>> {
    let own = getpid();
    let is_own = fs::read_link("/proc/self").is_ok_and(|name| name.to_str() == Some(own.to_string().as_str()));
    let entries = fs::read_dir("/proc").ok().filter(|_| is_own)?;
    let pids = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let is_child = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name before may have blanks and brackets in it.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        parent == Some(own.as_raw())
    };
    Some(pids.filter(is_child).map(Pid::from_raw).collect())
}
