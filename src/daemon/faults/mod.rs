//! Faults of the running lab: which it was given, doing what a fault says, and undoing it. What faults
//! there are and what each changes is `fault`'s; the words of the control socket are in [`api`].
//!
//! What machines hold is changed by the difference between what is there and the same with the fault's
//! twists, and put back by the way from what is there to the plan with the twists of the
//! faults that stay. Objects are changed by edits of the lab's text, and those are taken out of it again. So
//! `diff` shows a fault as it shows any drift, changes by `apply`, `delete` and `scale` leave it
//! in force, and `up` takes it away.

pub mod api;
mod quiz;

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;

use crate::diag::{Problem, codes};
use crate::fault::{self, Change, Chosen, Fault, Site, Twist};
use crate::kernel::crowd;
use crate::lab::names::NsName;
use crate::lab::probe::Probe;
use crate::plan::Plan;
use crate::plan::diff::{Step, diff};
use crate::probe;
use crate::spec::edit::{self, Edit, ObjectKind, ObjectRef};

use super::api::EditRequest;
use super::server;
use super::state::Daemon;

use api::{Broken, Healed, Seen};
pub use api::{PATH, answer};

/// How long it may take until a question fails, or is answered again: as long as readiness probes and
/// kernel's caches of neighbours.
const PATIENCE: Duration = Duration::from_secs(8);
/// Between two times that it is asked.
const PAUSE: Duration = Duration::from_millis(50);

/// Whether faults stay in force through a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    All,
    None,
}

/// The faults that a lab was given.
#[derive(Default)]
pub struct Faults {
    active: RefCell<Vec<Active>>,
    /// The fault that a quiz hides.
    hidden: RefCell<Option<&'static str>>,
}

/// A fault that is in force.
struct Active {
    /// Later ones have greater numbers.
    number: u64,
    fault: &'static Fault,
    chosen: Chosen,
    /// The edits of the lab's text before it and with it.
    before: Vec<Edit>,
    with: Vec<Edit>,
}

impl Active {
    fn twists(&self) -> &[Twist] {
        match &self.chosen.change {
            Change::Machines(twists) => twists,
            _ => &[],
        }
    }

    /// Namespaces that it touched.
    fn touched(&self) -> impl Iterator<Item = &NsName> {
        self.twists().iter().map(|t| &t.ns)
    }
}

impl Faults {
    /// What was broken on purpose, in words, but for what a quiz hides.
    pub fn told(&self) -> Vec<String> {
        let hidden = *self.hidden.borrow();
        let active = self.active.borrow();
        let shown = active.iter().filter(|a| hidden != Some(a.fault.name));
        shown.map(|a| format!("{} ({})", a.fault.name, a.chosen.on)).collect()
    }

    fn is_active(&self, fault: &Fault) -> bool {
        self.active.borrow().iter().any(|a| a.fault.name == fault.name)
    }

    /// The steps from what is there to a plan, with the faults or without them.
    pub fn steps(&self, keep: Keep, mut there: Plan, mut plan: Plan) -> Vec<Step> {
        if keep == Keep::All {
            for active in self.active.borrow().iter() {
                fault::apply(active.twists(), &mut plan);
            }
            fault::settle(&mut there, &plan);
        }
        diff(&there, &plan)
    }

    fn note(&self, fault: &'static Fault, chosen: Chosen, (before, with): (Vec<Edit>, Vec<Edit>)) {
        let mut all = self.active.borrow_mut();
        let number = all.iter().map(|a| a.number + 1).max().unwrap_or_default();
        all.push(Active { number, fault, chosen, before, with });
    }

    /// How long an answer is waited for. A fault that is in force may be why there is none.
    fn patience(&self) -> Duration {
        if self.active.borrow().is_empty() { PATIENCE } else { Duration::ZERO }
    }

    /// An object is applied as a whole, so that two faults of one could not be healed apart.
    fn refuse_twice(&self, chosen: &Chosen) -> Result<(), Box<Problem>> {
        let wanted = objects(chosen);
        let active = self.active.borrow();
        let shared = |a: &&Active| objects(&a.chosen).iter().any(|object| wanted.contains(object));
        let Some(other) = active.iter().find(shared) else { return Ok(()) };
        let message = format!("{} has a fault already", chosen.on);
        let help = match self.hidden.borrow().is_some_and(|hidden| hidden == other.fault.name) {
            true => "end the quiz first: `labctl heal`".to_owned(),
            false => format!("undo it first: `labctl heal {}`", other.fault.name),
        };
        Err(Box::new(Problem::error(codes::FAULT_UNFIT, message).help(help)))
    }

    /// Take out the faults of this name, or all.
    fn take(&self, name: Option<&str>) -> Vec<Active> {
        let mut all = self.active.borrow_mut();
        let (taken, left) = all.drain(..).partition(|a| name.is_none_or(|name| a.fault.name == name));
        *all = left;
        taken
    }
}

/// The objects that a fault changes.
fn objects(chosen: &Chosen) -> Vec<ObjectRef> {
    let Change::Objects(edits) = &chosen.change else { return Vec::new() };
    let of = |edit: &Edit| match edit {
        Edit::Apply(manifest) => edit::names(manifest),
        Edit::Delete(object) => vec![object.clone()],
        Edit::Scale { deployment, .. } => vec![ObjectRef { kind: ObjectKind::Deployment, key: deployment.clone() }],
        Edit::Replace(_) | Edit::Gone { .. } => Vec::new(),
    };
    edits.iter().flat_map(of).collect()
}

/// The edits that are left of `now` when those by which `with` differs from `before` are taken out.
fn without(now: Vec<Edit>, before: &[Edit], with: &[Edit]) -> Vec<Edit> {
    let since = now.into_iter().filter(|edit| !with.contains(edit));
    before.iter().cloned().chain(since).collect()
}

impl Daemon {
    /// Where a fault would be in this lab.
    fn choose(&self, fault: &Fault, on: Option<&str>) -> Result<Chosen, Box<Problem>> {
        let (lab, plan, slices) = (self.lab(), self.planned(), self.services.slices());
        let on = on.map(|word| api::on(&lab, word)).transpose()?;
        let site = Site { lab: &lab, plan: &plan, slices: &slices, on };
        fault.at(&site).map_err(|lacks| {
            let message = format!("{} makes no sense in the lab {}: {}", fault.name, lab.name, lacks.0);
            let backends = match fault.backends {
                [] => String::new(),
                some => format!(" with flannel's back end {}", some.join(" or ")),
            };
            let help =
                format!("it needs a lab{backends} that has {}; `labctl break --list` shows what fits", fault.needs);
            Box::new(Problem::error(codes::FAULT_UNFIT, message).help(help))
        })
    }

    /// Break the lab.
    async fn break_by(self: &Rc<Self>, fault: &'static Fault, on: Option<&str>) -> Result<Broken, Box<Problem>> {
        if self.faults.is_active(fault) {
            let problem = Problem::error(codes::FAULT_UNFIT, format!("the lab has {} already", fault.name));
            return Err(Box::new(problem.help(format!("undo it first: `labctl heal {}`", fault.name))));
        }
        let chosen = self.choose(fault, on)?;
        self.faults.refuse_twice(&chosen)?;
        // As it is named now: the fault may take the name away.
        let probe = chosen.question.probe(&self.lab());
        let healthy = self.ask_until(probe.as_ref(), true, self.faults.patience()).await;
        let before = self.text().edits;
        let steps = self.change_by_fault(&chosen).await?;
        let with = self.text().edits;
        self.faults.note(fault, chosen.clone(), (before, with));
        self.follow_fault().await;
        let seen = self.ask_until(probe.as_ref(), false, PATIENCE).await;
        Ok(Broken::new(fault, &chosen, healthy, seen, steps))
    }

    async fn change_by_fault(self: &Rc<Self>, chosen: &Chosen) -> Result<Vec<String>, Box<Problem>> {
        match &chosen.change {
            Change::Machines(twists) => self.twist(twists).await,
            Change::Objects(edits) => {
                let request = EditRequest { edits: edits.clone(), grace: Some(0) };
                let summary = self.edit(&request).await.map_err(first)?;
                Ok(summary.services.into_iter().chain(summary.objects).chain(summary.changes).collect())
            }
            Change::Connections(ns) => {
                let count = self.connections(ns, crowd::fill).await?;
                Ok(vec![format!("{ns}: fill the table of tracked connections with {count}")])
            }
        }
    }

    /// Twist what is there.
    async fn twist(&self, twists: &[Twist]) -> Result<Vec<String>, Box<Problem>> {
        let _turn = self.turn().await;
        let mut there = self.observe().await?;
        // What somebody put there that no plan has words for is not this change's.
        there.namespaces.iter_mut().for_each(|ns| ns.deviations.clear());
        let mut wanted = there.clone();
        fault::apply(twists, &mut wanted);
        let steps = diff(&there, &wanted);
        if steps.is_empty() {
            let problem = Problem::error(codes::FAULT_UNFIT, "the lab is as broken as that already");
            return Err(Box::new(
                problem.help("`labctl diff` shows where it is not as planned, and `labctl up` repairs it"),
            ));
        }
        if let Err(undone) = self.run(&steps).await {
            self.way_back().await;
            return Err(undone.problem());
        }
        Ok(steps.iter().map(ToString::to_string).collect())
    }

    async fn connections<T: Send + 'static>(
        &self,
        ns: &NsName,
        work: impl FnOnce(&crate::kernel::ns::NetNs) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, Box<Problem>> {
        let refused =
            |why: String| Box::new(Problem::error(codes::KERNEL_REFUSED, format!("{ns}: tracked connections: {why}")));
        let netns = self.netns(ns).ok_or_else(|| refused("there is no such machine".to_owned()))?;
        let done = tokio::task::spawn_blocking(move || work(&netns)).await.map_err(|e| refused(e.to_string()))?;
        done.map_err(|e| refused(e.to_string()))
    }

    /// Undo the fault of this name, or all.
    async fn heal(self: &Rc<Self>, name: Option<&str>) -> Result<Vec<Healed>, Box<Problem>> {
        let healed = self.faults.take(name);
        if let Some(name) = name.filter(|_| healed.is_empty()) {
            let problem = Problem::error(codes::TARGET_UNKNOWN, format!("the lab was not given the fault `{name}`"));
            return Err(Box::new(problem.help("`labctl status` shows what was broken on purpose")));
        }
        if self.faults.hidden.borrow().is_some_and(|hidden| healed.iter().any(|a| a.fault.name == hidden)) {
            *self.faults.hidden.borrow_mut() = None;
        }
        if let Err(problem) = self.undo(&healed).await {
            // What is left of them can be healed again.
            self.faults.active.borrow_mut().extend(healed);
            return Err(problem);
        }
        self.follow_fault().await;
        let mut all = Vec::new();
        for active in &healed {
            let probe = active.chosen.question.probe(&self.lab());
            let seen = self.ask_until(probe.as_ref(), true, self.faults.patience()).await;
            all.push(Healed::new(active.fault, &active.chosen, seen));
        }
        Ok(all)
    }

    async fn undo(self: &Rc<Self>, healed: &[Active]) -> Result<(), Box<Problem>> {
        self.straighten(healed).await?;
        for active in healed {
            if let Change::Connections(ns) = &active.chosen.change {
                self.connections(ns, crowd::forget).await?;
            }
        }
        // The last one first, so that each finds the edits that it left.
        for active in healed.iter().rev().filter(|a| a.before != a.with) {
            let (before, with) = (active.before.clone(), active.with.clone());
            let rid = |edits: Vec<Edit>| without(edits, &before, &with);
            for other in self.faults.active.borrow_mut().iter_mut().filter(|o| o.number > active.number) {
                other.before = rid(std::mem::take(&mut other.before));
                other.with = rid(std::mem::take(&mut other.with));
            }
            self.change_with(Keep::All, |mut text| {
                text.edits = rid(text.edits);
                text
            })
            .await
            .map_err(first)?;
        }
        Ok(())
    }

    /// Put the machines that these faults touched as they are planned, but for what others changed there.
    async fn straighten(&self, healed: &[Active]) -> Result<(), Box<Problem>> {
        let touched: HashSet<&NsName> = healed.iter().flat_map(Active::touched).collect();
        if touched.is_empty() {
            return Ok(());
        }
        let _turn = self.turn().await;
        let there = self.observe().await?;
        let mut steps = self.faults.steps(Keep::All, there, self.planned());
        steps.retain(|step| touched.contains(&step.ns));
        self.run(&steps).await.map_err(|undone| undone.problem())
    }

    /// What follows a fault or its end beside the steps: who is ready, and where services lead.
    async fn follow_fault(self: &Rc<Self>) {
        self.workloads.changed.notify_waiters();
        self.sync_services().await;
    }

    /// A change of the lab has put machines and objects as they are planned.
    pub(super) async fn faults_are_gone(&self) {
        let gone = self.faults.take(None);
        *self.faults.hidden.borrow_mut() = None;
        for active in gone {
            if let Change::Connections(ns) = &active.chosen.change {
                // Where that fails the entries end by their own time, and nobody waits for it.
                let _ = self.connections(ns, crowd::forget).await;
            }
        }
    }

    /// Ask a fault's question once.
    async fn ask_once(self: &Rc<Self>, probe: Option<&Probe>) -> Seen {
        let Some(probe) = probe.cloned() else {
            return Seen { answered: false, seen: "the lab has lost what the question names".to_owned() };
        };
        let outcomes = probe::run_all(&[probe], std::sync::Arc::new(server::field(self)), 1).await;
        let outcome = outcomes.into_iter().next();
        outcome.map_or(Seen { answered: false, seen: "it could not be asked".to_owned() }, |o| Seen {
            answered: o.passed(),
            seen: o.observed,
        })
    }

    /// Ask until it is answered or not as it is to be, but not for ever.
    async fn ask_until(self: &Rc<Self>, probe: Option<&Probe>, answered: bool, patience: Duration) -> Seen {
        let end = tokio::time::Instant::now() + patience;
        loop {
            let seen = self.ask_once(probe).await;
            if seen.answered == answered || tokio::time::Instant::now() > end {
                return seen;
            }
            // What is waited for is in the kernel and tells nobody.
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// The first error of several problems.
fn first(problems: Vec<Problem>) -> Box<Problem> {
    let found = problems.into_iter().find(Problem::is_error);
    Box::new(found.unwrap_or_else(|| Problem::error(codes::KERNEL_REFUSED, "the change was refused")))
}
