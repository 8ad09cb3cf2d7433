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
    let flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    // Root in a container may lack CAP_SYS_ADMIN; then a user namespace is the way, as for others.
    let privileged = uid.is_root() && unshare(flags).is_ok();
    if privileged {
        return Ok(());
    }
    let asked = "new namespaces (user, mount, PID, network)";
    step(asked, unshare(CloneFlags::CLONE_NEWUSER))?;
    // user_namespaces(7): an ordinary user may map only himself, and must give setgroups up first.
    step("user namespace: setgroups", fs::write("/proc/self/setgroups", "deny"))?;
    step("user namespace: uid_map", fs::write("/proc/self/uid_map", format!("0 {uid} 1")))?;
    step("user namespace: gid_map", fs::write("/proc/self/gid_map", format!("0 {gid} 1")))?;
    // Only now that there is a root: a network namespace gives the files that are its root's, such as
    // /proc/net/ip_tables_names, to the one that it finds when it is made (`xt_proto_init`).
    step(asked, unshare(flags))
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

/// Descriptors that whoever started us left open, such as a pipe that somebody reads to its end:
/// the lab would keep it open for as long as it lives. To be called before anything is opened.
pub fn close_inherited() {
    // SAFETY: closes descriptors of ours that nothing uses yet. An old kernel refuses; then they stay.
    unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) };
}

/// The caller's pipes must not stay open once it has all it needs: whoever reads the other end
/// would wait for the lab to end.
pub fn let_go_of_caller() -> io::Result<()> {
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    Ok(nix::unistd::dup2_stderr(&null)?)
}

fn reap_until(daemon: Pid) -> ! {
    name_process("labctl-init");
    // Reports come from the daemon alone; a second holder would hide their end.
    if let_go_of_caller().is_err() {
        std::process::exit(1);
    }
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
    let _ = proc();
    sysfs();
    Ok(())
}

/// A /proc of the calling process' PID namespace, where the kernel allows it.
pub fn proc() -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let none: Option<&str> = None;
    Ok(mount(Some("proc"), "/proc", Some("proc"), flags, none)?)
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
