//! Processes of a lab as the machine sees them: found by their PID namespace, the lab's own or one
//! inside it, so that none can hide behind another name or parent.

use std::fs;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::until;

mod ioctl {
    // ioctl_ns(2): the parent of a PID namespace.
    nix::ioctl_none!(parent, 0xb7, 2);
}

/// A lab's processes, by the PID namespace that all of them are in.
pub struct Tree(PathBuf);

impl Tree {
    /// The tree that `pid` belongs to.
    #[track_caller]
    pub fn of(pid: i32) -> Tree {
        Tree(fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap_or_else(|e| panic!("process {pid}: {e}")))
    }

    /// The processes of the tree that live.
    pub fn processes(&self) -> Vec<i32> {
        all().into_iter().filter(|pid| self.has(*pid).unwrap_or(false)).collect()
    }

    /// Whether a process is in the lab's PID namespace or in one inside it.
    fn has(&self, pid: i32) -> std::io::Result<bool> {
        let mut namespace = fs::File::open(format!("/proc/{pid}/ns/pid"))?;
        loop {
            let number = format!("pid:[{}]", namespace.metadata()?.ino());
            if Path::new(&number) == self.0 {
                return Ok(true);
            }
            // SAFETY: the descriptor is open; the kernel gives a new one, or refuses to look
            // beyond our own namespace.
            let parent = unsafe { ioctl::parent(namespace.as_raw_fd()) }?;
            // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
            namespace = unsafe { fs::File::from_raw_fd(parent) };
        }
    }

    /// The tree's first process.
    #[track_caller]
    pub fn init(&self) -> i32 {
        let own = |pid: &i32| fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|ns| ns == self.0);
        let is_first = |pid: &i32| own(pid) && inner_pid(*pid) == Some(1);
        self.processes().into_iter().find(is_first).expect("a first process")
    }

    /// A process of the tree by the name that `ps` shows.
    pub fn named(&self, name: &str) -> Vec<i32> {
        let is = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name);
        self.processes().into_iter().filter(is).collect()
    }

    /// Wait until no process of the tree lives.
    #[track_caller]
    pub fn must_end(&self) {
        until("no process of the lab lives", || self.processes().is_empty());
    }
}

fn all() -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("/proc");
    entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// The processes that were started with this variable. Those that have no more than their name left,
/// because nobody has waited for them yet, have no environment.
pub fn with_environment(variable: &str) -> Vec<i32> {
    let has = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|b| *b == 0).any(|v| v == variable.as_bytes())
    };
    all().into_iter().filter(has).collect()
}

/// A process' number in its own PID namespace.
fn inner_pid(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("NSpid:"))?;
    line.split_whitespace().last()?.parse().ok()
}

#[track_caller]
pub fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap_or_else(|e| panic!("{signal} to {pid}: {e}"));
}
