//! Network namespaces, held by file descriptors alone: when the last one is closed and no process
//! is left inside, the kernel takes the namespace down with all that is in it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace that stays as long as someone holds this.
#[derive(Debug, Clone)]
pub struct NetNs(Arc<OwnedFd>);

impl NetNs {
    /// The namespace that the calling thread is in.
    pub fn current() -> io::Result<NetNs> {
        Ok(NetNs(Arc::new(OwnedFd::from(File::open("/proc/thread-self/ns/net")?))))
    }

    /// Make a new namespace and move the calling thread into it. For threads of one's own only: a
    /// thread of a pool would carry the namespace to the next task.
    pub fn create_and_enter() -> io::Result<NetNs> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        NetNs::current()
    }

    /// Move the calling thread into this namespace; the same warning.
    pub fn enter(&self) -> io::Result<()> {
        Ok(setns(self.as_fd(), CloneFlags::CLONE_NEWNET)?)
    }

    /// Run `work` in this namespace, on a thread of its own. A socket that it makes belongs to
    /// the namespace for good and can be used anywhere afterwards.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().spawn_scoped(scope, || {
                self.enter()?;
                Ok(work())
            })?;
            thread.join().map_err(|_| io::Error::other("the thread in the namespace panicked"))?
        })
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for NetNs {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
