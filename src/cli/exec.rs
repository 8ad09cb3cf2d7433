//! `exec` and `shell`: a program on a pod, host or client, at the caller's own terminal.
//!
//! The program is the caller's child and a process of the machine: it joins those that a
//! container's program has started, and sees and can signal nobody else. Where no program runs,
//! the daemon opens a room for as long as somebody is in it. Either ends with the machine.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigHandler, Signal, signal};

use crate::daemon::api::Door;
use crate::diag::{Problem, codes};
use crate::kernel::process::exit_code;

use super::args::{ExecArgs, ShellArgs};
use super::{Done, Failure, find_lab, kube, point_to_explain, show};

/// The exit code where a program cannot be started, as shells have it.
const NOT_STARTED: u8 = 127;

pub fn exec(args: &ExecArgs) -> Done {
    run(args.lab.as_deref(), (&args.target, args.namespace.as_deref()), &args.command)
}

/// The caller's own shell, or the system's.
pub fn shell(args: &ShellArgs) -> Done {
    let shell = std::env::var_os("SHELL").filter(|s| std::path::Path::new(s).exists());
    let target = (args.target.as_str(), args.namespace.as_deref());
    run(args.lab.as_deref(), target, &[shell.unwrap_or_else(|| OsString::from("/bin/sh"))])
}

/// Run a program on what has this name in this namespace.
fn run(lab: Option<&str>, (target, namespace): (&str, Option<&str>), command: &[OsString]) -> Done {
    let client = find_lab(lab)?;
    let target = &kube::target(&client, target, namespace)?;
    let pid = client.pid()?;
    // The machine is open to us as long as the connection is.
    let (door, _connection): (Door, _) = client.get_and_hold(&format!("/labctl/v1/door?target={target}"))?;
    let failed = |what: &str, e: &dyn std::fmt::Display| {
        let message = format!("{what}: {e}");
        Box::new(
            Problem::error(codes::COMMAND_FAILED, message)
                .help("is the program installed on this machine, and does the lab still run (`labctl list`)?"),
        )
    };
    let ways = Ways::open(pid, &door).map_err(|e| failed("the lab cannot be entered", &e))?;
    ways.enter().map_err(|e| failed("the lab cannot be entered", &e))?;
    let (program, rest) = command.split_first().ok_or_else(|| failed("no program", &"nothing to run"))?;
    // Found by the PATH that the program will have, not by ours.
    let mut child = Command::new(found(program));
    child.arg0(program);
    child.args(rest).env("HOSTNAME", &door.hostname).env("PATH", path());
    let netns = ways.net;
    // SAFETY: between fork and exec of a process with one thread; nothing else can hold a lock.
    unsafe {
        child.pre_exec(move || {
            // What we ignore while we wait, the program must not.
            restore_signals()?;
            Ok(setns(&netns, CloneFlags::CLONE_NEWNET)?)
        });
    }
    // Ctrl-C is for the program, which is in the same group at the same terminal.
    ignore_signals().map_err(|e| failed("signals", &e))?;
    let started = child.spawn();
    // With it goes our descriptor of the machine's network, which would outlive the machine.
    drop(child);
    let status = match started.and_then(|mut program| program.wait()) {
        Ok(status) => status,
        Err(e) => {
            let failure = Failure::from(failed(&format!("{} on {target}", program.to_string_lossy()), &e));
            show(&failure.problems, &failure.sources);
            point_to_explain(failure.problems.iter());
            return Ok(ExitCode::from(NOT_STARTED));
        }
    };
    Ok(ExitCode::from(u8::try_from(exit_code(status)).unwrap_or(u8::MAX)))
}

/// The caller's PATH, with the directories of system programs behind it: in the lab everyone is
/// root, and `iptables` and `bridge` are not on every user's PATH.
fn path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin");
    path
}

/// The program's file, where its name alone was given and the PATH leads to one.
fn found(program: &OsString) -> OsString {
    if std::path::Path::new(program).components().count() > 1 {
        return program.clone();
    }
    let path = path();
    let file = std::env::split_paths(&path).map(|dir| dir.join(program)).find(|f| f.is_file());
    file.map_or_else(|| program.clone(), std::path::PathBuf::into_os_string)
}

/// The namespaces to enter: the daemon's own, and the machine's, which the daemon holds.
struct Ways {
    user: Option<File>,
    ipc: File,
    pids: File,
    mounts: File,
    uts: File,
    net: File,
}

impl Ways {
    fn open(daemon: i32, door: &Door) -> io::Result<Ways> {
        let of_daemon = |name: &str| File::open(format!("/proc/{daemon}/ns/{name}"));
        let held = |fd: i32| File::open(format!("/proc/{daemon}/fd/{fd}"));
        let own = std::fs::read_link("/proc/self/ns/user")?;
        let same = std::fs::read_link(format!("/proc/{daemon}/ns/user"))? == own;
        Ok(Ways {
            // Entering one's own user namespace is refused (setns(2)).
            user: if same { None } else { Some(of_daemon("user")?) },
            ipc: of_daemon("ipc")?,
            pids: held(door.pids)?,
            mounts: held(door.mounts)?,
            uts: held(door.uts)?,
            net: held(door.netns)?,
        })
    }

    /// Enter all but the network: that is for the program alone, so that our own process keeps no
    /// machine's namespace alive. Children are born among the machine's processes.
    fn enter(&self) -> io::Result<()> {
        if let Some(user) = &self.user {
            setns(user, CloneFlags::CLONE_NEWUSER)?;
        }
        setns(&self.ipc, CloneFlags::CLONE_NEWIPC)?;
        setns(&self.pids, CloneFlags::CLONE_NEWPID)?;
        setns(&self.uts, CloneFlags::CLONE_NEWUTS)?;
        let here = std::env::current_dir();
        setns(&self.mounts, CloneFlags::CLONE_NEWNS)?;
        // Entering a mount namespace leads to its root; go back to where the caller stood.
        if let Ok(here) = here {
            let _ = std::env::set_current_dir(here);
        }
        Ok(())
    }
}

const TERMINAL: [Signal; 2] = [Signal::SIGINT, Signal::SIGQUIT];

fn ignore_signals() -> io::Result<()> {
    for which in TERMINAL {
        // SAFETY: ignoring a signal runs no code.
        unsafe { signal(which, SigHandler::SigIgn) }?;
    }
    Ok(())
}

fn restore_signals() -> io::Result<()> {
    for which in TERMINAL {
        // SAFETY: the default action runs no code of ours.
        unsafe { signal(which, SigHandler::SigDfl) }?;
    }
    Ok(())
}
