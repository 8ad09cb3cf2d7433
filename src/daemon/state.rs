//! The lab as it runs: what it should be, the namespaces that hold it, and who lives in it.
//!
//! There is one way to change it, `Daemon::change_with`: plan, compare with what is there, do the
//! difference. The first build is the same from nothing. Where a change fails half-way, the way
//! back is again the difference, to the plan from before.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use crate::diag::{Problem, codes};
use crate::doctor::remedy;
use crate::kernel::iptables::Iptables;
use crate::kernel::ns::NetNs;
use crate::kernel::observe;
use crate::kernel::world::{Failed, Why, World};
use crate::lab::Lab;
use crate::lab::ingress;
use crate::lab::names::NsName;
use crate::objects::{EndpointSlice, changes};
use crate::plan::diff::{Stage, Step, diff};
use crate::plan::{self, Plan};
use crate::spec::load::Text;

use super::api::{Event, Summary};
use super::faults::{Faults, Keep};
use super::inhabit::Undone;
use super::kube::Births;
use super::readiness::Readiness;
use super::services::ServiceLayer;
use super::target::Resolved;
use super::watching::Watching;
use super::workloads::Workloads;

/// What a text would change.
pub struct Preview {
    pub steps: Vec<Step>,
    /// What becomes of services, a line each.
    pub services: Vec<String>,
    /// What becomes of what the ingress controller reads, a line each.
    pub objects: Vec<String>,
}

/// A lab's daemon.
pub struct Daemon {
    lab: RefCell<Arc<Lab>>,
    plan: RefCell<Arc<Plan>>,
    text: RefCell<Text>,
    world: Arc<Mutex<World>>,
    /// Every namespace by name; asked for while the world may be held by a thread at work.
    handles: RefCell<HashMap<NsName, NetNs>>,
    iptables: RefCell<Option<Iptables>>,
    pub workloads: Workloads,
    pub readiness: Readiness,
    pub services: ServiceLayer,
    pub births: Births,
    pub faults: Faults,
    pub(super) watching: Watching,
    started: Instant,
    built: Cell<bool>,
    built_bell: Notify,
    end: Notify,
    /// Changes are made one after the other.
    turn: tokio::sync::Mutex<()>,
}

impl Daemon {
    /// A daemon whose lab is still to be built, in the calling process' own namespaces.
    pub fn new(text: Text, lab: Lab) -> io::Result<Daemon> {
        let plan = plan::plan(&lab);
        Ok(Daemon {
            lab: RefCell::new(Arc::new(lab)),
            plan: RefCell::new(Arc::new(plan)),
            text: RefCell::new(text),
            world: Arc::new(Mutex::new(World::new(NetNs::current()?))),
            handles: RefCell::default(),
            iptables: RefCell::default(),
            workloads: Workloads::default(),
            readiness: Readiness::default(),
            services: ServiceLayer::default(),
            births: Births::default(),
            faults: Faults::default(),
            watching: Watching::default(),
            started: Instant::now(),
            built: Cell::new(false),
            built_bell: Notify::new(),
            end: Notify::new(),
            turn: tokio::sync::Mutex::new(()),
        })
    }

    pub fn lab(&self) -> Arc<Lab> {
        Arc::clone(&self.lab.borrow())
    }

    pub fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.plan.borrow())
    }

    pub fn text(&self) -> Text {
        self.text.borrow().clone()
    }

    pub fn age(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    pub fn is_built(&self) -> bool {
        self.built.get()
    }

    pub fn set_built(&self) {
        self.built.set(true);
        self.built_bell.notify_waiters();
    }

    /// Wait until the first build is done.
    pub async fn until_built(&self) {
        let bell = self.built_bell.notified();
        if !self.built.get() {
            bell.await;
        }
    }

    /// End the lab: [`Daemon::ended`] returns.
    pub fn end(&self) {
        self.end.notify_one();
    }

    pub async fn ended(&self) {
        self.end.notified().await;
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        // A panic inside one change must not take the lab's other doors with it.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A namespace of the lab, as of the last change. The world itself may be busy on another thread.
    pub fn netns(&self, ns: &NsName) -> Option<NetNs> {
        self.handles.borrow().get(ns).cloned()
    }

    /// The iptables that the lab's rules were written with.
    pub fn iptables(&self) -> Option<Iptables> {
        self.iptables.borrow().clone()
    }

    /// Wait for one's turn to change something.
    pub async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Build the lab from nothing.
    pub async fn build(&self, report: impl Fn(&Event)) -> Result<Summary, Vec<Problem>> {
        let lab = self.lab();
        let target = self.target(&lab).await?;
        let steps = diff(&Plan::default(), &target.plan);
        report(&Event::Progress(format!("building {} namespaces", target.plan.namespaces.len())));
        self.run(&steps).await.map_err(|f| vec![*f.problem()])?;
        let slices = Arc::new(target.slices);
        self.tell_dns(&lab, &slices);
        self.tell_ingress(&lab, &slices);
        self.services.set(slices, target.proxies);
        self.services.balancers.set(target.balancers);
        self.sync_balancers(&self.turn().await).await;
        self.births.note(&lab);
        self.readiness.follow(&lab, self);
        Ok(Summary { steps: steps.len(), ..Summary::default() })
    }

    /// Make the running lab what the text says that `edited` makes of the one that it has when its turn has
    /// come. What is in both stays untouched. Faults that it was given stay or go with the change.
    pub(super) async fn change_with(
        self: &Rc<Self>,
        faults: Keep,
        edited: impl FnOnce(Text) -> Text,
    ) -> Result<Summary, Vec<Problem>> {
        let turn = self.turn().await;
        let mut text = edited(self.text());
        let Resolved { lab, warnings, edits } = self.resolve(&text).await?;
        text.edits = edits;
        let target = self.target(&lab).await?;
        let there = self.observe().await.map_err(|p| vec![*p])?;
        let steps = self.faults.steps(faults, there, target.plan);
        let services = self.told(&lab, &target.slices);
        let objects = ingress::changes(&self.lab(), &lab);
        if let Err(failed) = self.run(&steps).await {
            self.restore_files(&steps);
            let back = self.way_back().await;
            let mut problem = *failed.problem();
            let so =
                if back { "the lab is as it was before" } else { "see `labctl diff` for what is left of the change" };
            problem.message = format!("{}; {so}", problem.message);
            return Err(vec![problem]);
        }
        let old = self.lab.replace(Arc::clone(&lab));
        *self.plan.borrow_mut() = Arc::new(target.bare);
        *self.text.borrow_mut() = text;
        let slices = Arc::new(target.slices);
        self.tell_dns(&lab, &slices);
        self.tell_ingress(&lab, &slices);
        let before = self.services.proxies();
        self.services.set(slices, target.proxies);
        self.services_changed(before).await;
        self.forget_host_ports(&old).await;
        self.forget_flows(self.services.balancers.applied(), target.balancers.clone()).await;
        self.services.balancers.set(target.balancers);
        self.sync_balancers(&turn).await;
        self.births.note(&lab);
        self.readiness.follow(&lab, self);
        if faults == Keep::None {
            self.faults_are_gone().await;
        }
        let changes = steps.iter().map(ToString::to_string).collect();
        Ok(Summary { steps: steps.len(), changes, warnings, services, objects, forgotten: Vec::new() })
    }

    /// What a change to `lab`, whose services lead where `slices` say, does to services.
    fn told(&self, lab: &Lab, slices: &[EndpointSlice]) -> Vec<String> {
        let (now, there) = (self.lab(), self.services.slices());
        let before = changes::State { services: &now.services, slices: &there };
        changes::told(before, changes::State { services: &lab.services, slices })
    }

    /// What `text` would change.
    pub async fn steps_to(&self, text: &Text) -> Result<Preview, Vec<Problem>> {
        let _turn = self.turn().await;
        let resolved = self.resolve(text).await?;
        let target = self.target(&resolved.lab).await?;
        let there = self.observe().await.map_err(|p| vec![*p])?;
        let Resolved { lab, .. } = resolved;
        let (services, objects) = (self.told(&lab, &target.slices), ingress::changes(&self.lab(), &lab));
        Ok(Preview { steps: diff(&there, &target.plan), services, objects })
    }

    /// The steps from what is there to what should be: the drift.
    pub async fn drift(&self) -> Result<Vec<Step>, Box<Problem>> {
        // Rules follow the pods by themselves; what is written at this moment is no drift.
        let _turn = self.turn().await;
        Ok(diff(&self.observe().await?, &self.planned()))
    }

    /// The plan with the rules that services have now.
    pub(super) fn planned(&self) -> Plan {
        let mut plan = Plan::clone(&self.plan());
        plan::services::add(&mut plan, &self.services.proxies());
        plan::balancers::add(&mut plan, &self.services.balancers.applied());
        plan
    }

    pub(super) async fn way_back(&self) -> bool {
        match self.observe().await {
            Ok(there) => self.run(&self.faults.steps(Keep::All, there, self.planned())).await.is_ok(),
            Err(_) => false,
        }
    }

    /// Read back what the lab holds.
    pub(super) async fn observe(&self) -> Result<Plan, Box<Problem>> {
        let plan = self.plan();
        let world = Arc::clone(&self.world);
        let planned = Arc::clone(&plan);
        let read = on_thread(move || {
            let world = world.lock().unwrap_or_else(PoisonError::into_inner);
            observe::lab(&world, &planned)
        });
        let mut there = read.await.map_err(|e| {
            Box::new(Problem::error(codes::KERNEL_REFUSED, format!("the lab cannot be read back: {e}")))
        })?;
        for observed in &mut there.namespaces {
            self.workloads.observe(observed);
            observed.dns = self.services.dns.config(&observed.ns);
            if let Some(wanted) = plan.get(&observed.ns) {
                // Files are written when something enters; until then they are as planned.
                observed.files.clone_from(&wanted.files);
            }
        }
        Ok(there)
    }

    /// Do steps: who lives there stops first, then the kernel's part, then who lives there starts.
    pub(super) async fn run(&self, steps: &[Step]) -> Result<(), Undone> {
        self.stop(steps).await;
        let kernel: Vec<Step> =
            steps.iter().filter(|s| !matches!(s.stage(), Stage::Stop | Stage::Workloads)).cloned().collect();
        let world = Arc::clone(&self.world);
        let applied: Result<(), Failed> =
            on_thread(move || apply(&mut world.lock().unwrap_or_else(PoisonError::into_inner), &kernel)).await;
        self.learn_handles();
        applied?;
        self.start(steps).await
    }

    /// Note which namespaces there are now, and which iptables wrote their rules. Nobody is at work on the
    /// world when this is called, so it does not wait for it.
    fn learn_handles(&self) {
        let handles = self.world().namespaces().map(|(ns, netns)| (ns.clone(), netns.clone())).collect();
        *self.handles.borrow_mut() = handles;
        *self.iptables.borrow_mut() = self.world().iptables().cloned();
    }
}

/// Do the kernel's steps, and ask which kind of iptables it was that wrote rules: the answer is kept, and
/// here is a thread that may wait for it.
fn apply(world: &mut World, steps: &[Step]) -> Result<(), Failed> {
    let applied = world.apply(steps);
    let _ = world.iptables().map(Iptables::is_legacy);
    applied
}

/// Run `work` on a thread of its own, which may walk through namespaces, and go on meanwhile.
pub(super) async fn on_thread<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<Lost> + Send + 'static,
{
    let (send, receive) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = send.send(work());
    });
    receive.await.unwrap_or_else(|_| Err(E::from(Lost)))
}

/// The thread ended without an answer, which only a panic does.
pub(super) struct Lost;

impl From<Lost> for Failed {
    fn from(_: Lost) -> Failed {
        Failed { step: "the change".to_owned(), why: Why::Socket(io::Error::other("its thread panicked")) }
    }
}

impl From<Lost> for String {
    fn from(_: Lost) -> String {
        "the thread that reads panicked".to_owned()
    }
}

/// A step that failed, as it is told to a person.
pub fn problem(failed: &Failed) -> Box<Problem> {
    let (code, help) = match &failed.why {
        Why::Iptables(_) => (codes::MACHINE_IPTABLES, remedy::IPTABLES.to_owned()),
        Why::Tun(_) => (codes::MACHINE_TUN, remedy::TUN.to_owned()),
        Why::Namespace(e) => (codes::MACHINE_NAMESPACES, remedy::namespaces(Some(e))),
        _ => (codes::KERNEL_REFUSED, remedy::DEVICES.to_owned()),
    };
    let help = format!("{help}; `labctl doctor` tries everything that a lab needs");
    Box::new(Problem::error(code, failed.to_string()).help(help))
}
