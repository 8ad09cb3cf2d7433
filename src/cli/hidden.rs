//! Verbs that only labctl itself uses: the lab's own processes are this same program.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use crate::daemon::launch;
use crate::daemon::programs::{ENTER_VERB, NETNS_FD, STARTED_FD};
use crate::daemon::workloads::FLANNELD_VERB;
use crate::doctor::tryout;
use crate::kernel::birth;
use crate::kernel::enter::Entry;
use crate::workload::{dns, flanneld};

/// The exit code where a program cannot be started, as shells have it.
const NOT_STARTED: u8 = 127;

/// Do a hidden verb, where one was given.
pub fn run() -> Option<ExitCode> {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    match args.first()?.to_str()? {
        launch::VERB => Some(crate::daemon::main::run()),
        tryout::VERB => Some(tryout::run()),
        ENTER_VERB => Some(enter(&args[1..])),
        FLANNELD_VERB => Some(flanneld(&args[1..])),
        dns::VERB => Some(coredns(&args[1..])),
        _ => None,
    }
}

fn complain(what: &str, error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("labctl: {what}: {error}");
    ExitCode::from(NOT_STARTED)
}

/// `lab-enter ENTRY -- COMMAND…`: become COMMAND as a process of a machine.
fn enter(args: &[OsString]) -> ExitCode {
    let entry = args.first().and_then(|e| serde_json::from_str::<Entry>(e.to_str()?).ok());
    let (Some(entry), Some((program, rest))) = (entry, args.get(2..).and_then(<[OsString]>::split_first)) else {
        return complain("lab-enter", &"this verb is labctl's own");
    };
    // SAFETY: whoever starts this verb hands the descriptor over; nothing else uses its number.
    let netns = unsafe { BorrowedFd::borrow_raw(NETNS_FD) };
    if let Err(e) = entry.enter(netns) {
        return complain(&format!("{} cannot be entered", entry.hostname), &e);
    }
    // The program must not keep the namespace open beyond its own life in it.
    let _ = nix::unistd::close(NETNS_FD);
    // Closed by a successful start; whoever does not ask about it has not opened it.
    // SAFETY: plain system call on a number; nothing happens where it is no descriptor.
    unsafe { libc::fcntl(STARTED_FD, libc::F_SETFD, libc::FD_CLOEXEC) };
    let error = Command::new(program).args(rest).exec();
    // SAFETY: one byte of a constant, as above.
    unsafe { libc::write(STARTED_FD, b"!".as_ptr().cast(), 1) };
    complain(&program.to_string_lossy(), &error)
}

fn flanneld(args: &[OsString]) -> ExitCode {
    birth::name_process("flanneld");
    let config = args.first().and_then(|c| serde_json::from_str::<flanneld::Config>(c.to_str()?).ok());
    let Some(config) = config else { return complain("lab-flanneld", &"this verb is labctl's own") };
    // SAFETY: the daemon hands the descriptor over; nothing else uses its number.
    let tun = unsafe { OwnedFd::from_raw_fd(NETNS_FD) };
    // By descriptor: a buffer would hide from poll(2) what is already read.
    let run = || flanneld::run(tun, &config, File::from(io::stdin().as_fd().try_clone_to_owned()?));
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => complain("flanneld", &e),
    }
}

fn coredns(args: &[OsString]) -> ExitCode {
    birth::name_process("coredns");
    let config = args.first().and_then(|c| serde_json::from_str::<dns::Config>(c.to_str()?).ok());
    let Some(config) = config else { return complain(dns::VERB, &"this verb is labctl's own") };
    match dns::run(&config, io::stdin()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => complain("coredns", &e),
    }
}
