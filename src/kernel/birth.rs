//! How a lab's process tree begins: namespaces of its own (a user namespace too, where the caller
//! is not root), a first process that only reaps, and the mounts that the tree sees.
//!
//! Everything here happens in a process with one thread, before anything else.

use std::fs;
use std::io;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getegid, geteuid};

/// Which step of the beginning failed.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {error}")]
pub struct Failed {
    pub step: &'static str,
    pub error: io::Error,
}

fn step<T, E: Into<io::Error>>(step: &'static str, result: Result<T, E>) -> Result<T, Failed> {
    result.map_err(|e| Failed { step, error: e.into() })
}

/// Leave the caller's namespaces for new ones. Processes that are forked from now on are in the
/// new PID namespace; the calling process itself is not.
pub fn unshare_all() -> Result<(), Failed> {
    let (uid, gid) = (geteuid(), getegid());
    let mut flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    // Root in a container may lack CAP_SYS_ADMIN; then a user namespace is the way, as for others.
    let privileged = uid.is_root() && unshare(flags).is_ok();
    if privileged {
        return Ok(());
    }
    flags |= CloneFlags::CLONE_NEWUSER;
    step("new namespaces (user, mount, PID, network)", unshare(flags))?;
    // user_namespaces(7): an ordinary user may map only himself, and must give setgroups up first.
    step("user namespace: setgroups", fs::write("/proc/self/setgroups", "deny"))?;
    step("user namespace: uid_map", fs::write("/proc/self/uid_map", format!("0 {uid} 1")))?;
    step("user namespace: gid_map", fs::write("/proc/self/gid_map", format!("0 {gid} 1")))
}

/// Fork the lab's first two processes. PID 1 stays here and reaps whatever is orphaned, until the
/// daemon ends; then it ends too, and the kernel ends everything else of the tree. Returns in the
/// daemon alone; the calling process and PID 1 exit inside.
pub fn fork_daemon() -> Result<(), Failed> {
    // SAFETY: this process has one thread, so nothing can be left half done by the fork.
    match step("fork", unsafe { fork() })? {
        ForkResult::Parent { .. } => std::process::exit(0),
        ForkResult::Child => {}
    }
    // SAFETY: as above.
    match step("fork", unsafe { fork() })? {
        ForkResult::Parent { child } => reap_until(child),
        ForkResult::Child => Ok(()),
    }
}

fn reap_until(daemon: Pid) -> ! {
    name_process("labctl-init");
    loop {
        match waitpid(Pid::from_raw(-1), None) {
            Ok(WaitStatus::Exited(pid, code)) if pid == daemon => std::process::exit(code),
            Ok(WaitStatus::Signaled(pid, ..)) if pid == daemon => std::process::exit(1),
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(_) => std::process::exit(1),
        }
    }
}

/// What `ps` and `pgrep` call the calling process (at most 15 bytes).
pub fn name_process(name: &str) {
    if let Ok(name) = std::ffi::CString::new(name) {
        // A name is for people; the kernel refuses none that is short enough.
        let _ = nix::sys::prctl::set_name(&name);
    }
}

/// The tree's own view of the file system: nothing that is mounted here is seen outside, /proc
/// shows the tree's processes, /sys its network, and /run is empty and its own.
pub fn mounts() -> Result<(), Failed> {
    let none: Option<&str> = None;
    step("mount: private tree", mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none))?;
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    step("mount: /run", mount(Some("tmpfs"), "/run", Some("tmpfs"), safe, Some("mode=755")))?;
    // In a container part of /proc or /sys may be covered, and then the kernel gives no new one
    // to a user namespace. The old ones still work: they only show more than the lab.
    let _ = mount(Some("proc"), "/proc", Some("proc"), safe | MsFlags::MS_NOEXEC, none);
    sysfs();
    Ok(())
}

/// /sys of the calling process' network namespace, where the kernel allows it.
pub fn sysfs() {
    let none: Option<&str> = None;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let _ = mount(Some("sysfs"), "/sys", Some("sysfs"), flags, none);
}

/// Put `source` in `target`'s place, for this mount namespace.
pub fn bind(source: &Path, target: &Path) -> io::Result<()> {
    let none: Option<&str> = None;
    Ok(mount(Some(source), target, none, MsFlags::MS_BIND, none)?)
}
