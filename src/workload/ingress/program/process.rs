//! The real program as a process: its limits, its words, its end.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::Instant;

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe::Receiver;

use super::log;
use crate::kernel::process::{Launch, Running};

/// How many of its last lines are told when it ends.
const LAST_WORDS: usize = 12;
/// Where programs are that PATH may leave out.
const PLACES: [&str; 4] = ["/usr/sbin", "/usr/local/sbin", "/sbin", "/usr/bin"];

/// A program that runs. Dropping it ends it, with every process that it started.
pub struct Process {
    name: &'static str,
    running: Running,
    words: Rc<RefCell<VecDeque<String>>>,
    pub since: Instant,
}

impl Process {
    /// Start it. Its standard output is our standard error, which takes the access log without
    /// anybody carrying it; what it writes to its own standard error goes to our log line by line.
    pub fn start(name: &'static str, mut command: Command) -> io::Result<Process> {
        // SAFETY: prctl is async-signal-safe, and nothing else is called. Killed ourselves, we could
        // not end it any more.
        unsafe {
            command.pre_exec(|| Ok(prctl::set_pdeathsig(Signal::SIGTERM)?));
        }
        let mut launch = Launch::from(command);
        launch.stdout(io::stderr().as_fd().try_clone_to_owned()?);
        let mut running = Running::start(launch)?;
        let words = Rc::new(RefCell::new(VecDeque::new()));
        if let Some(output) = running.output.take() {
            tokio::task::spawn_local(listen(name, output, Rc::clone(&words)));
        }
        Ok(Process { name, running, words, since: Instant::now() })
    }

    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    pub fn signal(&self, what: Signal) -> io::Result<()> {
        self.running.signal(what)
    }

    /// Let it end by itself: another process has taken its place.
    pub fn let_go(mut self) {
        tokio::task::spawn_local(async move {
            // However it ends, nobody waits for it.
            let _ = self.running.ended().await;
        });
    }

    /// Wait for its end. Returns how it ended, and its last words.
    pub async fn ended(&mut self) -> io::Result<String> {
        let status = self.running.ended().await?;
        // Whoever listens to it may not have had its turn yet.
        tokio::task::yield_now().await;
        let words: Vec<String> = self.words.borrow().iter().cloned().collect();
        Ok(format!("{} has ended ({status}): {}", self.name, words.join("\n")))
    }
}

async fn listen(name: &str, output: Receiver, words: Rc<RefCell<VecDeque<String>>>) {
    let mut lines = BufReader::new(output).split(b'\n');
    // An error of a pipe is its end.
    while let Ok(Some(line)) = lines.next_segment().await {
        let line = String::from_utf8_lossy(&line).into_owned();
        // In a user namespace of one user nobody may set groups, and nothing is lost by it.
        if line.contains("initgroups(root") {
            continue;
        }
        log(format_args!("{name}: {line}"));
        let mut words = words.borrow_mut();
        words.push_back(line);
        if words.len() > LAST_WORDS {
            words.pop_front();
        }
    }
}

/// Let programs open as many files as whoever started us allows.
pub fn many_files() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // It stays as it is where it cannot be raised, and programs say what is too few for them.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

/// Where a program is; nothing where it is nowhere.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(PLACES.map(PathBuf::from));
    places.map(|place| place.join(name)).find(|program| is_program(program))
}

/// That something is missing, and how it comes.
pub fn not_installed(what: &str, package: &str) -> io::Error {
    let what = format!("{what} is not installed; it is in Debian's package {package}: apt-get install {package}");
    io::Error::new(io::ErrorKind::NotFound, what)
}

fn is_program(path: &Path) -> bool {
    path.is_file() && nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok()
}
