//! The steps of a change that are not the kernel's: who lives in the lab is stopped before the
//! others are done and started after them.

use std::io;
use std::rc::Rc;

use crate::diag::{Problem, codes};
use crate::kernel::enter::Entry;
use crate::kernel::process::Place;
use crate::kernel::world::{Failed, Why};
use crate::lab::names::NsName;
use crate::plan;
use crate::plan::diff::{Op, Stage, Step};

use super::state::{self, Daemon};
use super::workloads::Wanted;

/// A step that could not be done.
#[derive(Debug)]
pub enum Undone {
    Kernel(Failed),
    /// Somebody who is to live in the lab could not be brought there.
    Workload {
        step: String,
        error: io::Error,
        help: String,
    },
}

impl From<Failed> for Undone {
    fn from(failed: Failed) -> Undone {
        Undone::Kernel(failed)
    }
}

impl Undone {
    fn workload(step: &impl ToString, error: io::Error, help: impl Into<String>) -> Undone {
        Undone::Workload { step: step.to_string(), error, help: help.into() }
    }

    /// As it is told to a person.
    pub fn problem(&self) -> Box<Problem> {
        match self {
            Undone::Kernel(failed) => state::problem(failed),
            Undone::Workload { step, error, help } => {
                Box::new(Problem::error(codes::WORKLOAD_FAILED, format!("{step}: {error}")).help(help))
            }
        }
    }
}

/// Why a port cannot be listened on.
fn port_help(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "a program that was started there listens on it: end that, or choose another port",
        _ => "is there a limit on open files (`ulimit -n`)? `labctl doctor` shows how many a lab may have",
    }
}

fn flanneld_help(host: &NsName) -> String {
    format!(
        "was flanneld of {host} stopped, or is the machine overloaded? It has been ended; `labctl up` with the lab's \
         file starts it again"
    )
}

const PLACE_HELP: &str = "is there room in the lab's /run, and for another process?";

impl Daemon {
    /// End who is to end. Programs have some time to do so, all of them at once. With a machine
    /// that is to go, go those who visit it.
    pub(super) async fn stop(&self, steps: &[Step]) {
        let mut ending = Vec::new();
        for step in steps.iter().filter(|s| s.stage() == Stage::Stop) {
            match &step.op {
                Op::StopListener(listener) => self.workloads.close(&step.ns, listener),
                Op::StopProgram(program) => ending.extend(self.workloads.take(&step.ns, program)),
                Op::StopFlanneld => self.workloads.flannelds.stop(&step.ns),
                Op::StopDns => self.services.dns.stop(&step.ns),
                _ => {}
            }
        }
        let ending: Vec<_> = ending.into_iter().map(|p| tokio::task::spawn_local(p.stop())).collect();
        for ended in ending {
            let _ = ended.await;
        }
        self.workloads.keep_logs(|(ns, name)| {
            let of = |program: &plan::Program, step: &Step| step.ns == *ns && program.name == *name;
            let has = |wanted: fn(&Op) -> Option<&plan::Program>| {
                steps.iter().any(|s| wanted(&s.op).is_some_and(|program| of(program, s)))
            };
            let stopped = has(|op| if let Op::StopProgram(program) = op { Some(program) } else { None });
            !stopped || has(|op| if let Op::StartProgram(program) = op { Some(program) } else { None })
        });
        for step in steps.iter().filter(|s| s.op == Op::RemoveNs) {
            self.readiness.forget(&step.ns);
            self.workloads.rooms.clear(&step.ns);
            self.services.ingress.controllers.leave(&step.ns);
            Entry::forget(&step.ns.path());
        }
    }

    /// Start who is to start.
    pub(super) async fn start(&self, steps: &[Step]) -> Result<(), Undone> {
        let mut wanted = Vec::new();
        for step in steps.iter().filter(|s| s.stage() == Stage::Workloads) {
            let unknown = || Failed { step: step.to_string(), why: Why::Unknown(step.ns.clone()) };
            let netns = self.netns(&step.ns).ok_or_else(unknown)?;
            match &step.op {
                Op::StartListener(listener) => {
                    wanted.push(Wanted { ns: step.ns.clone(), netns, listener: listener.clone() });
                }
                Op::StartDns(config) => {
                    let (telling, changed) = (&self.workloads.telling, &self.workloads.changed);
                    self.services.dns.start(&step.ns, config, netns, (Rc::clone(telling), Rc::clone(changed)));
                }
                Op::StartFlanneld(config) => {
                    let no_tun = || io::Error::other("its TUN device is missing");
                    let tun = self.world().take_tun(&step.ns).ok_or_else(no_tun);
                    let started = match tun {
                        Ok(tun) => {
                            let present = self.workloads.telling.enter(&step.ns);
                            self.workloads.flannelds.start((&step.ns, config), &netns, tun, present).await
                        }
                        Err(e) => Err(e),
                    };
                    started.map_err(|e| Undone::workload(step, e, flanneld_help(&step.ns)))?;
                }
                Op::SetPeers(peers) => {
                    let told = self.workloads.flannelds.set_peers(&step.ns, peers).await;
                    told.map_err(|e| Undone::workload(step, e, flanneld_help(&step.ns)))?;
                }
                Op::StartProgram(program) => {
                    let entry = self.entry_with(&step.ns, files_of(steps, &step.ns));
                    let entry = entry.map_err(|e| Undone::workload(step, e, PLACE_HELP))?;
                    let own = self.own(&step.ns, program).map_err(|e| Undone::workload(step, e, PLACE_HELP))?;
                    self.workloads.start(&step.ns, program, Place { netns, entry, room: None }, own);
                }
                Op::SetFiles(files) if Entry::exists(&step.ns.path()) => {
                    let written = Entry::write(&step.ns.path(), files);
                    written.map_err(|e| Undone::workload(step, e, PLACE_HELP))?;
                }
                _ => {}
            }
        }
        self.workloads.listen(wanted).map_err(|(step, e)| {
            let help = port_help(&e);
            Undone::workload(&step, e, help)
        })
    }

    /// Give machines back the files that a change which failed has replaced.
    pub(super) fn restore_files(&self, steps: &[Step]) {
        let plan = self.plan();
        for step in steps.iter().filter(|s| matches!(s.op, Op::SetFiles(_)) && Entry::exists(&s.ns.path())) {
            if let Some(planned) = plan.get(&step.ns) {
                // Where there is no room, the next file that changes is written again.
                let _ = Entry::write(&step.ns.path(), &planned.files);
            }
        }
    }

    /// What a process needs to enter a machine; its files are written where nobody has entered it.
    pub fn entry(&self, ns: &NsName) -> io::Result<Entry> {
        self.entry_with(ns, None)
    }

    /// The same, with files that are not in force yet.
    fn entry_with(&self, ns: &NsName, files: Option<&[plan::File]>) -> io::Result<Entry> {
        let plan = self.plan();
        let planned = plan.get(ns).map(|n| n.files.as_slice());
        let files = files.or(planned).unwrap_or_default();
        let entry = Entry::prepare(&ns.path(), plan::machine::hostname(files).unwrap_or(ns.hostname()), files)?;
        self.with_authority(entry)
    }
}

/// The files that a machine gets by these steps.
fn files_of<'s>(steps: &'s [Step], ns: &NsName) -> Option<&'s [plan::File]> {
    steps.iter().find_map(|s| match &s.op {
        Op::SetFiles(files) if s.ns == *ns => Some(files.as_slice()),
        _ => None,
    })
}
