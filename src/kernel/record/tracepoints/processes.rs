//! Which processes there are in the lab: what the kernel tells of those that begin while it is listened to, and what /proc
//! has of those that were there before.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::kernel::record::event::Sender;
use crate::kernel::record::place::now;
use crate::lab::names::NsName;

use super::perf::{Record, What};

/// Nanoseconds after which a process is looked at again.
const FRESH: u64 = 20_000_000;
/// Processes that are remembered.
const MOST: usize = 4096;
/// How the kernel calls a program that labctl has started from its own file.
const OWN: &str = "exe";

/// Which namespaces processes may be in, by the device and the inode that stat(2) tells.
pub(in crate::kernel::record) type Places = HashMap<(u64, u64), NsName>;

#[derive(Default)]
pub(super) struct Processes {
    pub places: Places,
    /// As the kernel told of them.
    told: HashMap<u32, Process>,
    /// As they were in /proc, and when they were looked at.
    looked: HashMap<u32, (u64, Process)>,
}

/// What is known of a process.
#[derive(Debug, Clone, Default)]
struct Process {
    netns: Option<(u64, u64)>,
    name: Option<String>,
}

impl Processes {
    /// Forget what may have changed unheard: processes are looked for again.
    pub fn begin_anew(&mut self) {
        self.told.clear();
        self.looked.clear();
    }

    /// Look at a process, as long as it is there.
    pub fn look(&mut self, pid: u32) {
        let now = now();
        if self.looked.len() > MOST {
            self.looked.clear();
        }
        if self.looked.get(&pid).is_none_or(|(at, _)| now.saturating_sub(*at) > FRESH) {
            self.looked.insert(pid, (now, read(pid, &self.places)));
        }
    }

    /// Take in what the kernel tells of a process.
    pub fn learn(&mut self, record: &Record) {
        if self.told.len() > MOST {
            self.told.clear();
        }
        match &record.what {
            _ if record.pid == 0 => {}
            What::Point(_) => {}
            What::Named(name) => self.told.entry(record.pid).or_default().name = Some(name.clone()),
            // It may be a new process, with the number of one that was called something.
            What::In(device, inode) => {
                self.told.insert(record.pid, Process { netns: Some((*device, *inode)), name: None });
            }
        }
    }

    /// A process by what is known of it; nothing where it is in none of the places. Ours has sockets in all of them.
    pub fn who(&self, pid: u32) -> Option<Sender> {
        if pid == std::process::id() {
            return Some(Sender::Daemon);
        }
        let (told, looked) = (self.told.get(&pid), self.looked.get(&pid).map(|(_, looked)| looked));
        let all = || told.into_iter().chain(looked);
        let place = self.places.get(&all().find_map(|process| process.netns)?)?.clone();
        let is_told = |process: &Process| process.name.clone().filter(|name| name != OWN);
        let name = told.and_then(is_told).or_else(|| looked?.name.clone())?;
        Some(Sender::Process { name, place })
    }
}

/// What /proc has of a process; no name where it is in none of the places, and nothing where it has ended.
fn read(pid: u32, places: &Places) -> Process {
    let of = |what: &str| format!("/proc/{pid}/{what}");
    let netns = fs::metadata(of("ns/net")).map(|netns| (netns.dev(), netns.ino())).ok();
    let name = netns.filter(|netns| places.contains_key(netns)).and_then(|_| {
        let name = fs::read_to_string(of("comm")).ok()?.trim_end().to_owned();
        let is_ours = fs::read_link(of("exe")).ok()? == fs::read_link("/proc/self/exe").ok()?;
        if is_ours { Some(own_name(&fs::read(of("cmdline")).ok()?)) } else { Some(name) }
    });
    Process { netns, name: name.filter(|name| !name.is_empty()) }
}

/// What a program of labctl's is called, as all of them are started from one file: what it is told first.
fn own_name(line: &[u8]) -> String {
    let first = String::from_utf8_lossy(line.split(|b| *b == 0).next().unwrap_or_default());
    if first.is_empty() || first.contains('/') { "labctl".to_owned() } else { first.into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processes() -> Processes {
        Processes { places: [((4, 7), NsName::Router)].into(), ..Processes::default() }
    }

    fn named(name: &str) -> Option<Sender> {
        Some(Sender::Process { name: name.to_owned(), place: NsName::Router })
    }

    #[test]
    fn a_process_that_has_ended_is_what_the_kernel_told_of_it() {
        let mut all = processes();
        // It begins where its parent is, and enters the namespace before it becomes the program.
        for what in [What::In(4, 1), What::In(4, 7)] {
            all.learn(&Record { at: 1, pid: 4_000_000, what });
            assert_eq!(all.who(4_000_000), None, "{:?}", all.told);
        }
        all.learn(&Record { at: 2, pid: 4_000_000, what: What::Named("curl".to_owned()) });
        all.look(4_000_000);
        assert_eq!(all.who(4_000_000), named("curl"));
        all.learn(&Record { at: 3, pid: 4_000_000, what: What::In(4, 7) });
        assert_eq!(all.who(4_000_000), None, "another one has its number");
    }

    #[test]
    fn a_process_that_was_there_before_is_looked_for() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
        let netns = fs::metadata(format!("/proc/{}/ns/net", child.id())).expect("a namespace");
        let mut all = processes();
        all.look(child.id());
        let outside = all.who(child.id());
        let mut all = Processes { places: [((netns.dev(), netns.ino()), NsName::Router)].into(), ..processes() };
        all.look(child.id());
        let inside = all.who(child.id());
        child.kill().and_then(|()| child.wait()).expect("it ends");
        assert_eq!((outside, inside), (None, named("sleep")));
        assert_eq!(all.who(std::process::id()), Some(Sender::Daemon));
    }

    #[test]
    fn labctls_own_programs_are_called_by_what_they_are_started_as() {
        assert_eq!(own_name(b"coredns\0dns-server\0{}\0"), "coredns");
        assert_eq!(own_name(b"/proc/self/exe\0ingress\0"), "labctl");
        assert_eq!(own_name(b""), "labctl");
    }
}
