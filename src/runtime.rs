//! Where running labs are found: a directory of the user's with a socket and a lock for each.
//!
//! The lock is the truth. The lab's daemon holds it as long as it lives, however it ends; a
//! socket whose lock is free is a leftover and is swept away by whoever sees it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;

use crate::diag::{Problem, codes, shown};
use crate::lab::names::LabName;

/// The variable that names another directory, for tests and for machines without a usual one.
pub const VARIABLE: &str = "LABCTL_RUNTIME_DIR";

/// The user's directory of running labs.
#[derive(Debug, Clone)]
pub struct RuntimeDir(PathBuf);

impl RuntimeDir {
    /// `$LABCTL_RUNTIME_DIR`, `/run/labctl` for root, `$XDG_RUNTIME_DIR/labctl`, or a directory of
    /// the user's own in /tmp. It is made where it is not there, and refused where others could
    /// write to it.
    pub fn open() -> Result<RuntimeDir, Box<Problem>> {
        Self::at(Self::path())
    }

    /// The directory at `path`, made and checked in the same way.
    pub fn at(path: PathBuf) -> Result<RuntimeDir, Box<Problem>> {
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&path);
        let checked = made.and_then(|()| std::fs::metadata(&path)).map_err(|e| unusable(&path, &e.to_string()))?;
        if checked.uid() != geteuid().as_raw() {
            return Err(unusable(&path, "it belongs to another user"));
        }
        if checked.mode() & 0o022 != 0 {
            return Err(unusable(&path, "others can write to it"));
        }
        Ok(RuntimeDir(path))
    }

    /// Where the directory is, or would be.
    pub fn path() -> PathBuf {
        if let Some(path) = std::env::var_os(VARIABLE).filter(|p| !p.is_empty()) {
            return PathBuf::from(path);
        }
        if geteuid().is_root() {
            return PathBuf::from("/run/labctl");
        }
        match std::env::var_os("XDG_RUNTIME_DIR").filter(|p| Path::new(p).is_dir()) {
            Some(path) => PathBuf::from(path).join("labctl"),
            None => PathBuf::from(format!("/tmp/labctl-{}", geteuid())),
        }
    }

    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// Whether a file can be made here, as a lab does it; it is removed at once.
    pub fn try_room(&self) -> Result<(), Box<Problem>> {
        let path = self.0.join(format!(".try-{}", std::process::id()));
        let made = std::fs::write(&path, "room").map_err(|e| unusable(&self.0, &e.to_string()));
        let _ = std::fs::remove_file(&path);
        made
    }

    pub fn socket(&self, lab: &LabName) -> PathBuf {
        self.0.join(format!("{lab}.sock"))
    }

    fn lock_file(&self, lab: &LabName) -> PathBuf {
        self.0.join(format!("{lab}.lock"))
    }

    /// Take the lab's lock, or nothing where its daemon lives.
    pub fn lock(&self, lab: &LabName) -> Result<Option<Flock<File>>, Box<Problem>> {
        let path = self.lock_file(lab);
        let open = || OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        loop {
            let file = open().map_err(|e| unusable(&path, &e.to_string()))?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => {
                    // Another process may have swept the file away between open and lock.
                    let held = std::fs::metadata(&path).map(|m| m.ino()).ok();
                    if held == lock.metadata().map(|m| m.ino()).ok() {
                        return Ok(Some(lock));
                    }
                }
                Err((_, nix::errno::Errno::EWOULDBLOCK)) => return Ok(None),
                Err((_, errno)) => return Err(unusable(&path, errno.desc())),
            }
        }
    }

    /// Remove what a lab left here. Only who holds the lock may do so.
    pub fn sweep(&self, lab: &LabName, _lock: &Flock<File>) {
        // Nothing is lost where these are not there.
        let _ = std::fs::remove_file(self.socket(lab));
        let _ = std::fs::remove_file(self.lock_file(lab));
    }

    /// The labs that run now, by name. Leftovers of others are swept away.
    pub fn labs(&self) -> Result<Vec<LabName>, Box<Problem>> {
        let entries = std::fs::read_dir(&self.0).map_err(|e| unusable(&self.0, &e.to_string()))?;
        let names = entries.filter_map(|e| e.ok()?.file_name().into_string().ok());
        let mut names: Vec<LabName> =
            names.filter_map(|n| LabName::try_from(n.strip_suffix(".lock")?.to_owned()).ok()).collect();
        names.sort();
        let mut running = Vec::new();
        for name in names {
            match self.lock(&name)? {
                None => running.push(name),
                Some(lock) => self.sweep(&name, &lock),
            }
        }
        Ok(running)
    }
}

/// The runtime directory by descriptor: the lab mounts its own /run, and must still find its files.
pub struct Held {
    dir: OwnedFd,
    socket: String,
    lock_file: String,
    /// Held for as long as the daemon lives.
    _lock: Flock<File>,
}

impl Held {
    pub fn new(dir: &RuntimeDir, lab: &LabName, lock: Flock<File>) -> io::Result<Held> {
        let fd = OwnedFd::from(File::open(dir.as_path())?);
        Ok(Held { dir: fd, socket: format!("{lab}.sock"), lock_file: format!("{lab}.lock"), _lock: lock })
    }

    /// A path to the socket that is short enough for any directory and does not go through /run.
    pub fn socket(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{}", self.dir.as_raw_fd(), self.socket))
    }

    /// Remove socket and lock file.
    pub fn sweep(&self) {
        for name in [&self.socket, &self.lock_file] {
            let _ = nix::unistd::unlinkat(&self.dir, name.as_str(), nix::unistd::UnlinkatFlags::NoRemoveDir);
        }
    }
}

fn unusable(path: &Path, why: &str) -> Box<Problem> {
    Box::new(Problem::error(codes::RUNTIME_DIR, format!("{} cannot be used: {why}", shown(path))).help(format!(
        "make it a directory of your own with mode 0700 and room in it, or name another one in {VARIABLE}"
    )))
}
