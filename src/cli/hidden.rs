//! Verbs that only labctl itself uses: the lab's own processes are this same program.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::process::{Command, ExitCode};

use crate::daemon::{flannelds, launch};
use crate::doctor::tryout;
use crate::kernel::birth;
use crate::kernel::process::{ENTER_VERB, Errand, PLACE_FD, STARTED_FD};
use crate::kernel::room::{self, Keeper};
use crate::workload::{dns, flanneld, ingress};

/// The exit code where a program cannot be started, as shells have it.
const NOT_STARTED: u8 = 127;

/// Do a hidden verb, where one was given.
pub fn run() -> Option<ExitCode> {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    match args.first()?.to_str()? {
        launch::VERB => Some(crate::daemon::main::run()),
        tryout::VERB => Some(tryout::run()),
        ENTER_VERB => Some(enter(&args[1..])),
        flannelds::VERB => Some(flanneld(&args[1..])),
        dns::VERB => Some(coredns(&args[1..])),
        ingress::VERB => Some(ingress_controller(&args[1..])),
        _ => None,
    }
}

fn complain(what: &str, error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("labctl: {what}: {error}");
    ExitCode::from(NOT_STARTED)
}

/// `lab-enter ERRAND -- COMMAND…`: run COMMAND as a process of a machine and end with its exit
/// code. Without COMMAND, hold a room open.
fn enter(args: &[OsString]) -> ExitCode {
    birth::name_process("pause");
    let errand = args.first().and_then(|e| serde_json::from_str::<Errand>(e.to_str()?).ok());
    let Some(errand) = errand else { return complain("lab-enter", &"this verb is labctl's own") };
    // SAFETY: whoever starts this verb hands the descriptors over; nothing else uses their numbers.
    let (place, started) = unsafe { (OwnedFd::from_raw_fd(PLACE_FD), OwnedFd::from_raw_fd(STARTED_FD)) };
    // A copy in the program would hide that it was started.
    // SAFETY: plain system call on a descriptor of ours.
    unsafe { libc::fcntl(STARTED_FD, libc::F_SETFD, libc::FD_CLOEXEC) };
    let entered = match errand.join {
        true => room::join(place.as_fd()),
        false => errand.entry.enter(place.as_fd()),
    };
    // The machine must not be kept open beyond our own life in it.
    drop(place);
    let mut report = Some(File::from(started));
    let outcome = match entered {
        Ok(()) => attend(args.get(2..).unwrap_or_default(), errand.join, &mut report),
        Err(e) => Err((format!("{} cannot be entered", errand.entry.hostname), e)),
    };
    outcome.unwrap_or_else(|(what, e)| {
        let code = complain(&what, &e);
        // Whoever does not ask has closed the other end.
        let _ = report.map(|mut report| report.write_all(b"!"));
        code
    })
}

/// Be there for a program, or for whoever comes, until the end.
fn attend(words: &[OsString], join: bool, report: &mut Option<File>) -> Result<ExitCode, (String, io::Error)> {
    let Some((program, rest)) = words.split_first() else {
        let held = room::hold(|| settle_in(report));
        return held.map(|never| match never {}).map_err(|e| ("lab-enter".to_owned(), e));
    };
    let mut command = Command::new(program);
    command.args(rest);
    let keeper = if join { Keeper::Guest } else { Keeper::First };
    let ended = room::keep(command, keeper, || settle_in(report));
    let code = ended.map_err(|e| (program.to_string_lossy().into_owned(), e))?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

/// The program runs: say so, and leave the outputs to it. A second holder would hide their end.
fn settle_in(report: &mut Option<File>) {
    drop(report.take());
    let _ = birth::let_go_of_caller();
}

fn flanneld(args: &[OsString]) -> ExitCode {
    birth::name_process("flanneld");
    let config = args.first().and_then(|c| serde_json::from_str::<flanneld::Config>(c.to_str()?).ok());
    let Some(config) = config else { return complain("lab-flanneld", &"this verb is labctl's own") };
    // SAFETY: the daemon hands the descriptor over; nothing else uses its number.
    let tun = unsafe { OwnedFd::from_raw_fd(PLACE_FD) };
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

fn ingress_controller(args: &[OsString]) -> ExitCode {
    birth::name_process("ingress");
    let config = args.first().and_then(|c| serde_json::from_str::<ingress::Config>(c.to_str()?).ok());
    let Some(config) = config else { return complain(ingress::VERB, &"this verb is labctl's own") };
    match ingress::run(&config, io::stdin()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => complain("ingress", &e),
    }
}
