//! Becoming a process of a pod, host or client: in its network namespace, under its hostname, with
//! its own /run, /etc/hosts, /etc/hostname and /etc/resolv.conf.
//!
//! The network namespace is the machine's; mount and UTS namespaces are made by the first process
//! of a room, so that a thousand pods that run nothing cost nothing. The files are the machine's
//! as long as it is there: what a program writes into them, the next one reads.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};

use crate::plan::File;

use super::birth;

/// Below /run of the lab: a directory for each machine that something was started in.
const FILES: &str = "/run/labctl";

/// What a program needs to know to become a process of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub hostname: String,
    /// The machine's directory, as the lab's mount namespace sees it.
    pub dir: PathBuf,
    /// Files of its own outside /run, as absolute paths; each lies below `dir` under the same path.
    pub files: Vec<String>,
}

impl Entry {
    /// A machine's files as they are, written first where nobody has entered yet. `path` is the
    /// machine's (`NsName::path`). To be called in the lab's mount namespace.
    pub fn prepare(path: &str, hostname: &str, files: &[File]) -> io::Result<Entry> {
        let dir = Path::new(FILES).join(path);
        if !dir.is_dir() {
            // All or nothing: half of it would be taken for all of it the next time.
            Entry::write(path, files).inspect_err(|_| Entry::forget(path))?;
        }
        let files = files.iter().map(|f| f.path.clone()).filter(|p| !p.starts_with("/run/")).collect();
        Ok(Entry { hostname: hostname.to_owned(), dir, files })
    }

    /// Write a machine's files where [`Entry::enter`] finds them.
    pub fn write(path: &str, files: &[File]) -> io::Result<()> {
        let dir = Path::new(FILES).join(path);
        fs::create_dir_all(dir.join("run"))?;
        for file in files {
            let target = dir.join(file.path.trim_start_matches('/'));
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent)?;
            }
            // Written in place, so that programs that run already see the change.
            fs::write(&target, &file.content)?;
        }
        Ok(())
    }

    /// Forget a machine's files, and what its programs left in /run.
    pub fn forget(path: &str) {
        // Most machines have none: they are written when something enters.
        let _ = fs::remove_dir_all(Path::new(FILES).join(path));
    }

    /// Whether a machine's files have been written before.
    pub fn exists(path: &str) -> bool {
        Path::new(FILES).join(path).is_dir()
    }

    /// Become a process of the machine, the first of a room. The calling process must have one
    /// thread, and be in the lab's mount namespace.
    pub fn enter(&self, netns: BorrowedFd<'_>) -> io::Result<()> {
        setns(netns, CloneFlags::CLONE_NEWNET)?;
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)?;
        nix::unistd::sethostname(&self.hostname)?;
        birth::sysfs();
        // By descriptor: /run is about to be another one.
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir: OwnedFd = nix::fcntl::open(&self.dir, flags, Mode::empty())?;
        let own = |path: &str| PathBuf::from(format!("/proc/self/fd/{}{path}", dir.as_raw_fd()));
        birth::bind(&own("/run"), Path::new("/run"))?;
        for file in &self.files {
            let target = real_target(Path::new(file));
            if let Some(target) = target {
                birth::bind(&own(file), &target)?;
            }
        }
        // Last, because the way to the files is through the old one. Where the kernel gives none
        // (see `birth::mounts`), the old one stays and shows more than the room.
        let _ = birth::proc();
        Ok(())
    }
}

/// Where a bind mount over `path` must go. A link into /run (systemd-resolved's resolv.conf) leads
/// nowhere now that /run is empty; the file that it means is made there. A file that the machine
/// does not have at all is left out: there is no place to put it.
fn real_target(path: &Path) -> Option<PathBuf> {
    if path.exists() {
        return Some(path.to_owned());
    }
    let link = fs::read_link(path).ok()?;
    let target = path.parent()?.join(link);
    let parent = target.parent()?;
    fs::create_dir_all(parent).and_then(|()| fs::write(&target, "")).ok()?;
    Some(target)
}
