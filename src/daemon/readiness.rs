//! kubelet's readiness probes: asked for real, from the pod's host, with their periods and
//! thresholds. A container without one is ready while it runs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::kernel::ns::NetNs;
use crate::kernel::process::{Place, Running};
use crate::lab::names::{HostName, NsName};
use crate::lab::{self, Lab, ReadinessCheck};
use crate::plan::Program;

use super::ask::{connect, grpc_health, http_get};
use super::rooms::{Key, Rooms};
use super::state::Daemon;

/// The pause behind the first try, which doubles until the container has been ready once.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// What is known of the containers that have a probe.
#[derive(Default)]
pub struct Readiness {
    probes: RefCell<BTreeMap<Key, Followed>>,
}

struct Followed {
    /// What is asked of whom, from where; where any of it changes, asking begins anew: another program in
    /// the old one's place has not been ready yet.
    question: Question,
    verdict: Rc<RefCell<Verdict>>,
    task: JoinHandle<()>,
}

type Question = (lab::Readiness, IpAddr, HostName, Option<Program>);

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Ready or not, and why not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    pub ready: bool,
    pub message: String,
}

impl Readiness {
    /// Ask every container of `lab` that has a probe; those that are asked already go on.
    pub fn follow(&self, lab: &Lab, daemon: &Daemon) {
        let mut probes = self.probes.borrow_mut();
        let mut before = std::mem::take(&mut *probes);
        let plan = daemon.plan();
        for pod in &lab.pods {
            for container in &pod.containers {
                let Some(spec) = &container.readiness else { continue };
                let key = (pod.ns(), container.name.clone());
                let mut programs = plan.get(&key.0).into_iter().flat_map(|n| &n.programs);
                let program = programs.find(|p| p.name == container.name).cloned();
                let question = (spec.clone(), pod.ip(), pod.host.clone(), program);
                let same = before.remove(&key).filter(|f| f.question == question);
                let followed = same.or_else(|| start(daemon, lab, (pod, &key), question));
                probes.extend(followed.map(|f| (key, f)));
            }
        }
    }

    /// Ask no more in a pod that goes.
    pub fn forget(&self, ns: &NsName) {
        self.probes.borrow_mut().retain(|(pod, _), _| pod != ns);
    }

    /// What a container's probe says; nothing where it has none.
    pub fn verdict(&self, ns: &NsName, container: &str) -> Option<Verdict> {
        let probes = self.probes.borrow();
        probes.get(&(ns.clone(), container.to_owned())).map(|f| f.verdict.borrow().clone())
    }
}

fn start(daemon: &Daemon, lab: &Lab, (pod, key): (&lab::Pod, &Key), question: Question) -> Option<Followed> {
    let host = lab.host(&pod.host)?;
    let verdict = Rc::new(RefCell::new(Verdict { ready: false, message: "not asked yet".to_owned() }));
    let asker = Asker {
        from: daemon.netns(&host.ns())?,
        place: daemon.place(&key.0).ok()?,
        key: key.clone(),
        rooms: daemon.workloads.rooms.clone(),
        pod: pod.ip(),
        spec: question.0.clone(),
        verdict: Rc::clone(&verdict),
        changed: Rc::clone(&daemon.workloads.changed),
    };
    Some(Followed { question, verdict, task: tokio::task::spawn_local(asker.run()) })
}

struct Asker {
    /// The host's namespace, where kubelet would be.
    from: NetNs,
    place: Place,
    key: Key,
    rooms: Rooms,
    pod: IpAddr,
    spec: lab::Readiness,
    verdict: Rc<RefCell<Verdict>>,
    changed: Rc<tokio::sync::Notify>,
}

impl Asker {
    async fn run(self) {
        tokio::time::sleep(self.spec.initial_delay).await;
        let (mut good, mut bad) = (0, 0);
        let (mut never, mut early) = (true, FIRST_PAUSE);
        loop {
            match self.ask().await {
                Ok(()) => (good, bad) = (good + 1, 0),
                Err(why) => {
                    (good, bad) = (0, bad + 1);
                    self.verdict.borrow_mut().message = why;
                }
            }
            let was = self.verdict.borrow().ready;
            let now = if was { bad < self.spec.failure_threshold } else { good >= self.spec.success_threshold };
            self.verdict.borrow_mut().ready = now;
            never &= !now;
            if was != now {
                self.changed.notify_waiters();
            }
            // kubelet would wait its whole period; what starts in milliseconds is asked again sooner,
            // as long as it has never been ready.
            let pause = if never { early.min(self.spec.period) } else { self.spec.period };
            early *= 2;
            tokio::time::sleep(pause).await;
        }
    }

    async fn ask(&self) -> Result<(), String> {
        let limit = self.spec.timeout;
        match &self.spec.check {
            ReadinessCheck::TcpSocket { port } => {
                self.blocking(*port, move |at| connect(at, limit).map(drop).map_err(|e| e.to_string())).await
            }
            ReadinessCheck::HttpGet(check) => {
                let check = check.clone();
                self.blocking(check.port, move |at| http_get(at, &check, limit)).await
            }
            ReadinessCheck::Grpc { port, service } => {
                let asked = async {
                    let connected = self.blocking(*port, move |at| connect(at, limit).map_err(|e| e.to_string()));
                    grpc_health(connected.await?, service).await
                };
                let asked = tokio::time::timeout(limit, asked).await;
                asked.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
            }
            ReadinessCheck::Exec { command } => self.exec(command).await,
        }
    }

    /// Ask from the host's namespace, on a thread that may wait.
    async fn blocking<T: Send + 'static>(
        &self,
        port: u16,
        ask: impl FnOnce(SocketAddr) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let (from, at) = (self.from.clone(), SocketAddr::new(self.pod, port));
        let asked = tokio::task::spawn_blocking(move || from.run(|| ask(at)));
        match asked.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(e)) => Err(e.to_string()),
            Err(e) => Err(e.to_string()),
        }
    }

    async fn exec(&self, words: &[String]) -> Result<(), String> {
        // In the container's own room, while its program runs.
        let place = Place { room: self.rooms.container(&self.key), ..self.place.clone() };
        let mut running = place.launch(words).and_then(Running::start).map_err(|e| e.to_string())?;
        let mut unread = Vec::new();
        let ended = running.until_the_end(&mut unread, 0);
        // Where it takes too long, dropping it ends it with all that it started.
        match tokio::time::timeout(self.spec.timeout, ended).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(format!("`{}` ended with {status}", words.join(" "))),
            Ok(Err(e)) => Err(e.to_string()),
            Err(_) => Err(format!("`{}` took longer than {:?}", words.join(" "), self.spec.timeout)),
        }
    }
}
