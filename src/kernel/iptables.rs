//! Rules into the kernel and out of it, by iptables' own programs: one `iptables-restore` per
//! namespace and change, one `iptables-save` to read back.
//!
//! There are two kernel interfaces behind the same language, nf_tables and the older xtables,
//! and each is missing somewhere. The first pair of programs that works here is taken, once.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::plan::rules::{Rules, Table};

use super::ns::NetNs;
use super::rulewatch::Change;
use super::sections;

/// Directories that hold iptables and are not on every user's PATH.
const PLACES: &[&str] = &["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin"];
/// In the order in which they are tried; the plain names are what the system prefers.
const FLAVOURS: &[(&str, &str)] =
    &[("iptables-restore", "iptables-save"), ("iptables-nft-restore", "iptables-nft-save"), LEGACY];
const LEGACY: (&str, &str) = ("iptables-legacy-restore", "iptables-legacy-save");

/// Inputs of fewer lines fit into one message anywhere.
const LARGE: usize = 300;
/// So many processes of ours are remembered.
const MOST_OWN: usize = 1024;
/// A change has been heard of so long after the process that made it has ended.
const ECHO: Duration = Duration::from_millis(500);

/// A pair of programs that works on this machine.
#[derive(Debug, Clone)]
pub struct Iptables {
    restore: PathBuf,
    save: PathBuf,
    /// Whether it speaks to xtables; asked once.
    legacy: Arc<OnceLock<bool>>,
    own: Arc<Own>,
}

/// What `iptables-save` told of a namespace.
#[derive(Debug, Clone, Default)]
pub struct Saved {
    pub rules: Rules,
    /// Tables with something in them that iptables has no words for.
    pub unreadable: Vec<String>,
}

/// Why rules could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("no iptables-restore was found in PATH or /usr/sbin")]
    Missing,
    #[error("{program} refused the rules: {said}")]
    Refused { program: String, said: String },
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// The processes that wrote rules for us last, so that their changes are told from others'.
///
/// A program that somebody runs in a PID namespace of its own may have the same number. So one of ours
/// counts only while it runs and shortly afterwards, until its changes have been heard of.
#[derive(Debug, Default)]
struct Own(Mutex<VecDeque<(u32, Option<Instant>)>>);

impl Own {
    fn note(&self, pid: u32) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() == MOST_OWN {
            last.pop_front();
        }
        last.push_back((pid, None));
    }

    fn ended(&self, pid: u32) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = last.iter_mut().rev().find(|(own, ended)| *own == pid && ended.is_none());
        if let Some((_, ended)) = entry {
            *ended = Some(Instant::now());
        }
    }
}

impl Iptables {
    /// Whether one of our own processes made this change. Those of long ago are forgotten, and then
    /// rules are looked at once for nothing.
    pub fn is_own(&self, change: &Change) -> bool {
        let last = self.own.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = |ended: &Option<Instant>| ended.is_none_or(|ended| ended.elapsed() < ECHO);
        last.iter().any(|(pid, ended)| change.is_by(*pid) && counts(ended))
    }

    /// The programs that are installed, in the order in which they are to be tried.
    pub fn candidates() -> impl Iterator<Item = Iptables> {
        FLAVOURS.iter().filter_map(|names| Iptables::find(*names))
    }

    /// The programs for xtables, where they are installed.
    pub fn legacy() -> Option<Iptables> {
        Iptables::find(LEGACY)
    }

    fn find((restore, save): (&str, &str)) -> Option<Iptables> {
        Some(Iptables { restore: program(restore)?, save: program(save)?, legacy: Arc::default(), own: Arc::default() })
    }

    /// Whether its rules are xtables' and not nf_tables'. The program tells (since 1.8; before,
    /// there was nothing else), and the answer is kept.
    pub fn is_legacy(&self) -> io::Result<bool> {
        if let Some(known) = self.legacy.get() {
            return Ok(*known);
        }
        let legacy = !self.version()?.contains("nf_tables");
        Ok(*self.legacy.get_or_init(|| legacy))
    }

    /// What the program says of itself, such as `iptables-restore v1.8.9 (nf_tables)`.
    pub fn version(&self) -> io::Result<String> {
        let said = Command::new(&self.restore).arg("--version").stdin(Stdio::null()).output()?;
        Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
    }

    /// Make `netns` hold exactly these rules, in the tables that are named.
    pub fn restore(&self, netns: &NetNs, rules: &Rules) -> Result<(), Fault> {
        let text = rules.restore_text();
        if !sections::needed() || text.lines().count() < LARGE {
            return self.run_restore(netns, &[], &text);
        }
        let bare: Vec<Table> = rules.tables.iter().map(empty).collect();
        self.run_restore(netns, &[], &Rules { tables: bare }.restore_text())?;
        self.restore_more(netns, &text)
    }

    /// Give `text` to `iptables-restore --noflush`, which leaves alone what it does not name.
    pub fn restore_more(&self, netns: &NetNs, text: &str) -> Result<(), Fault> {
        match sections::needed() {
            true => self.run_restore(netns, &["--noflush"], &sections::cut(text)),
            false => self.run_restore(netns, &["--noflush"], text),
        }
    }

    fn run_restore(&self, netns: &NetNs, args: &[&str], text: &str) -> Result<(), Fault> {
        let mut command = Command::new(&self.restore);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        // A child is born into the namespace of the thread that starts it.
        let mut child = netns.run(|| command.spawn())??;
        let pid = child.id();
        self.own.note(pid);
        let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(text.as_bytes()));
        let output = child.wait_with_output();
        self.own.ended(pid);
        let output = output?;
        if !output.status.success() {
            let said = explain(&String::from_utf8_lossy(&output.stderr), text);
            return Err(Fault::Refused { program: self.restore.display().to_string(), said });
        }
        Ok(written?)
    }

    /// The rules that `netns` holds.
    pub fn save(&self, netns: &NetNs) -> Result<Rules, Fault> {
        Ok(self.save_all(netns)?.rules)
    }

    /// The text of the rules that `netns` holds, with the packets and bytes that each has seen.
    pub fn save_counted(&self, netns: &NetNs) -> Result<String, Fault> {
        self.run_save(netns, &["-c"])
    }

    /// The same, with what the program could not read.
    pub fn save_all(&self, netns: &NetNs) -> Result<Saved, Fault> {
        let text = self.run_save(netns, &[])?;
        Ok(Saved { rules: Rules::parse(&text), unreadable: unreadable(&text) })
    }

    fn run_save(&self, netns: &NetNs, args: &[&str]) -> Result<String, Fault> {
        let mut command = Command::new(&self.save);
        command.args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = netns.run(|| command.spawn())??.wait_with_output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Fault::Refused { program: self.save.display().to_string(), said });
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// What to restore so that `to` holds where `from` did: tables that are wanted no more are emptied.
pub fn replacing(from: &Rules, to: &Rules) -> Rules {
    let mut rules = to.clone();
    let gone = from.tables.iter().filter(|t| !to.tables.iter().any(|n| n.name == t.name));
    rules.tables.extend(gone.map(empty));
    rules
}

fn empty(table: &Table) -> Table {
    let mut rules = Rules::default();
    rules.table(&table.name).clone()
}

/// iptables-nft says it in a comment: "# Table `filter' is incompatible, use 'nft' tool."
fn unreadable(text: &str) -> Vec<String> {
    let comments = text.lines().filter(|l| l.starts_with("# Table") && l.contains("incompatible"));
    comments.filter_map(|l| l.split(['`', '\'']).nth(1)).map(str::to_owned).collect()
}

/// Where a program of the packet filters' is.
pub(super) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(PLACES.iter().map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok() && file.is_file()
}

/// iptables-restore names a line by its number; show the line, too.
fn explain(said: &str, text: &str) -> String {
    let said = said.trim();
    let number = said.split_once("line ").or_else(|| said.split_once("line: ")).and_then(|(_, rest)| {
        rest.trim_start_matches([' ', ':']).split(|c: char| !c.is_ascii_digit()).next()?.parse::<usize>().ok()
    });
    match number.and_then(|n| text.lines().nth(n.checked_sub(1)?)) {
        Some(line) => match service_of(line) {
            Some(service) => format!("{said} (the line is `{line}`, of the service {service})"),
            None => format!("{said} (the line is `{line}`)"),
        },
        None => said.to_owned(),
    }
}

/// The service that a rule of kube-proxy's is for: its comment begins with `namespace/name`.
fn service_of(line: &str) -> Option<&str> {
    let (_, comment) = line.split_once("--comment ")?;
    let word = comment.trim_start_matches('"').split([' ', '"', ':']).next()?;
    word.contains('/').then_some(word)
}
