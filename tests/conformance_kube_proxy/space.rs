//! Namespaces of this process's own, and programs in them.

use std::io::Write;
use std::process::{Command, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

/// Who the rules are loaded by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Root,
    /// Root in a user namespace only.
    Unshared,
}

impl Who {
    /// What keeps these tests from being run.
    pub fn missing(self) -> Option<&'static str> {
        (self == Who::Root && !geteuid().is_root()).then_some("needs root")
    }

    pub fn name(self) -> &'static str {
        match self {
            Who::Root => "as_root",
            Who::Unshared => "unshared",
        }
    }

    pub fn named(name: &str) -> Who {
        if name == Who::Root.name() { Who::Root } else { Who::Unshared }
    }

    /// Leave the machine's namespaces for new ones. The process must not have other threads.
    pub fn leave(self) {
        let (uid, gid) = (geteuid(), getegid());
        let flags = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
        if self == Who::Root {
            unshare(flags).expect("namespaces");
        } else {
            unshare(flags | CloneFlags::CLONE_NEWUSER).expect("a user namespace");
            std::fs::write("/proc/self/setgroups", "deny").expect("setgroups");
            std::fs::write("/proc/self/uid_map", format!("0 {uid} 1")).expect("uid_map");
            std::fs::write("/proc/self/gid_map", format!("0 {gid} 1")).expect("gid_map");
        }
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
        // The older iptables keeps its lock there.
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).expect("a /run");
    }
}

/// Run a program in the calling thread's namespaces, with this input. It must succeed.
#[track_caller]
pub fn run(program: &str, args: &[&str], input: &str) -> String {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{program}: {e}"));
    let mut stdin = child.stdin.take().expect("a pipe");
    // It may refuse before it has read all.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("its output");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {said}\n{input}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Lines for `ip -batch`.
#[track_caller]
pub fn ip(lines: &str) {
    run("ip", &["-batch", "-"], lines);
}

pub fn sysctl(key: &str, value: &str) {
    std::fs::write(format!("/proc/sys/{key}"), value).unwrap_or_else(|e| panic!("{key}: {e}"));
}
