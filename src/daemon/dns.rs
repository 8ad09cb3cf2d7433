//! The cluster's DNS servers as processes of their pods: started, told of every change, started
//! again when they end, as kubelet does. What they answer is [`crate::workload::dns`]'s.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::kernel::ns::NetNs;
use crate::lab::Lab;
use crate::lab::names::NsName;
use crate::objects::EndpointSlice;
use crate::plan::DnsServer;
use crate::workload::dns::{self, Objects, Update};

use super::programs::{Log, State, keep};
use super::telling::{Telling, next_order};
use crate::workload::events::Order;

/// The first pause before a server is started again; it doubles up to [`LONGEST_PAUSE`], which is kubelet's.
/// kubelet begins with 10 s, for which a lab would be without names.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// A server that lived so long begins anew with the first pause.
const STEADY: Duration = Duration::from_secs(10);

/// What all servers are told of.
#[derive(Clone)]
pub struct Cluster {
    pub lab: Arc<Lab>,
    pub slices: Arc<Vec<EndpointSlice>>,
}

/// The DNS servers of a lab.
pub struct DnsServers {
    running: RefCell<BTreeMap<NsName, Server>>,
    cluster: watch::Sender<Option<Cluster>>,
}

impl Default for DnsServers {
    fn default() -> Self {
        DnsServers { running: RefCell::default(), cluster: watch::Sender::new(None) }
    }
}

struct Server {
    config: DnsServer,
    shared: Rc<Shared>,
    task: JoinHandle<()>,
}

/// What the task of a server tells about it.
struct Shared {
    state: RefCell<State>,
    restarts: Cell<u32>,
    log: Rc<Log>,
    changed: Rc<Notify>,
}

impl Shared {
    fn set(&self, state: State) {
        *self.state.borrow_mut() = state;
        self.changed.notify_waiters();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The process goes with its task.
        self.task.abort();
    }
}

impl DnsServers {
    /// Start a server in `netns`, the namespace of the pod `ns`.
    pub fn start(&self, ns: &NsName, config: &DnsServer, netns: NetNs, (telling, changed): (Rc<Telling>, Rc<Notify>)) {
        let waiting = State::Waiting { reason: "ContainerCreating".to_owned(), message: String::new() };
        let log = Rc::new(Log::default());
        let shared = Rc::new(Shared { state: RefCell::new(waiting), restarts: Cell::new(0), log, changed });
        let keeper = Keeper {
            ns: ns.clone(),
            config: config.clone(),
            netns,
            cluster: self.cluster.subscribe(),
            telling,
            shared: Rc::clone(&shared),
        };
        let server = Server { config: config.clone(), shared, task: tokio::task::spawn_local(keeper.run()) };
        self.running.borrow_mut().insert(ns.clone(), server);
    }

    pub fn stop(&self, ns: &NsName) {
        self.running.borrow_mut().remove(ns);
    }

    /// The server of a pod, as it was asked for; nothing where none was started.
    pub fn config(&self, ns: &NsName) -> Option<DnsServer> {
        self.running.borrow().get(ns).map(|s| s.config.clone())
    }

    /// What a pod's server is up to, and how often it was started again.
    pub fn state(&self, ns: &NsName) -> Option<(State, u32)> {
        self.running.borrow().get(ns).map(|s| (s.shared.state.borrow().clone(), s.shared.restarts.get()))
    }

    pub fn log(&self, ns: &NsName) -> Option<Rc<Log>> {
        self.running.borrow().get(ns).map(|s| Rc::clone(&s.shared.log))
    }

    /// Tell all servers, those that come later too, what is in the cluster.
    pub fn tell(&self, cluster: Cluster) {
        self.cluster.send_replace(Some(cluster));
    }
}

/// The life of one server.
struct Keeper {
    ns: NsName,
    config: DnsServer,
    netns: NetNs,
    cluster: watch::Receiver<Option<Cluster>>,
    telling: Rc<Telling>,
    shared: Rc<Shared>,
}

impl Keeper {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let begun = Instant::now();
            let ended = match self.spawn() {
                Ok(process) => self.attend(process).await,
                Err(e) => State::Waiting { reason: "CreateContainerError".to_owned(), message: e.to_string() },
            };
            self.shared.set(ended);
            if begun.elapsed() > STEADY {
                pause = FIRST_PAUSE;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            self.shared.restarts.set(self.shared.restarts.get() + 1);
        }
    }

    fn spawn(&self) -> io::Result<Process> {
        let config = serde_json::to_string(&dns::config_of(&self.config)).map_err(io::Error::other)?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("coredns").arg(dns::VERB).arg(config).env_clear().process_group(0);
        // Our standard error is the caller's until the lab is ready; the server must not hold it open.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A child is born into the namespace of the thread that starts it.
        let mut child = Ended(self.netns.run(|| command.spawn())??);
        let pipes = (child.0.stdin.take(), child.0.stdout.take(), child.0.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else { return Err(io::Error::other("no pipes")) };
        let mut errors = Receiver::from_owned_fd(OwnedFd::from(stderr))?;
        let log = Rc::clone(&self.shared.log);
        tokio::task::spawn_local(async move { keep(&mut errors, log).await });
        let (control, output) =
            (Sender::from_owned_fd(OwnedFd::from(stdin))?, Receiver::from_owned_fd(OwnedFd::from(stdout))?);
        Ok(Process { child, control, output })
    }

    /// Tell the server of every change until it ends. Returns how it ended.
    async fn attend(&mut self, mut process: Process) -> State {
        self.shared.set(State::Running { pid: process.child.0.id() });
        self.cluster.mark_changed();
        let present = self.telling.enter(&self.ns);
        let Process { control, output, .. } = &mut process;
        let telling = async {
            let (mut told, mut orders) = (None, present.orders());
            while tell((&mut self.cluster, &mut orders), &mut told, control).await.is_ok() {}
        };
        let hearing = present.hear_all(output, |_| {});
        // Its standard output ends when the process does.
        tokio::select! {
            () = telling => {}
            () = hearing => {}
        }
        process.child.end()
    }
}

/// A server's process with what leads to it.
struct Process {
    child: Ended,
    control: Sender,
    output: Receiver,
}

/// A child that ends with this value.
struct Ended(Child);

impl Ended {
    /// End it where it has not ended yet, and tell how it did.
    fn end(&mut self) -> State {
        let _ = self.0.kill();
        match self.0.wait() {
            Ok(status) => {
                let exit_code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
                let reason = if exit_code == 0 { "Completed" } else { "Error" };
                State::Terminated { exit_code, reason: reason.to_owned() }
            }
            Err(e) => State::Waiting { reason: "CreateContainerError".to_owned(), message: e.to_string() },
        }
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.end();
    }
}

/// Wait for the next state of the cluster and send what is different in it: all, where nothing was told
/// before. Who is slow is told of several changes at once. Or wait for the next order to tell of answers.
async fn tell(
    (cluster, orders): (&mut watch::Receiver<Option<Cluster>>, &mut watch::Receiver<Order>),
    told: &mut Option<Cluster>,
    control: &mut Sender,
) -> io::Result<()> {
    tokio::select! {
        changed = cluster.changed() => changed.map_err(io::Error::other)?,
        order = next_order(orders) => return control.write_all(order.as_bytes()).await,
    }
    let Some(now) = cluster.borrow_and_update().clone() else { return Ok(()) };
    let before = told.replace(now.clone());
    let line = tokio::task::spawn_blocking(move || line(before.as_ref(), &now)).await.map_err(io::Error::other)??;
    match line {
        Some(line) => control.write_all(&line).await,
        None => Ok(()),
    }
}

/// The lines of the control channel that make `now` of `before`; nothing where they are the same.
fn line(before: Option<&Cluster>, now: &Cluster) -> io::Result<Option<Vec<u8>>> {
    // Mostly endpoints change and nothing else, and ten thousand services need not be looked through.
    let same_lab = before.is_some_and(|before| Arc::ptr_eq(&before.lab, &now.lab));
    let objects = |cluster: &Cluster| match same_lab {
        true => Objects { slices: cluster.slices.to_vec(), ..Objects::default() },
        false => dns::objects(&cluster.lab, &cluster.slices),
    };
    let inside = Update::between(before.map(objects).as_ref(), objects(now));
    let names = |cluster: &Cluster| if same_lab { BTreeMap::new() } else { dns::names_outside(&cluster.lab) };
    let outside = Some(names(now)).filter(|now| before.map(names).unwrap_or_default() != *now).map(Update::Outside);
    let mut lines = Vec::new();
    for update in inside.into_iter().chain(outside) {
        lines.extend(serde_json::to_vec(&update).map_err(io::Error::other)?);
        lines.push(b'\n');
    }
    Ok(Some(lines).filter(|lines| !lines.is_empty()))
}
