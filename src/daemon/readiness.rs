//! kubelet's readiness probes: asked for real, from the pod's host, with their periods and
//! thresholds. A container without one is ready while it runs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::kernel::ns::NetNs;
use crate::kernel::process::{Place, Running};
use crate::lab::names::{HostName, NsName};
use crate::lab::{self, Lab, ReadinessCheck};

use super::rooms::{Key, Rooms};
use super::state::Daemon;

/// What is known of the containers that have a probe.
#[derive(Default)]
pub struct Readiness {
    probes: RefCell<BTreeMap<Key, Followed>>,
}

struct Followed {
    /// What is asked of whom, from where; where any of it changes, asking begins anew.
    question: Question,
    verdict: Rc<RefCell<Verdict>>,
    task: JoinHandle<()>,
}

type Question = (lab::Readiness, IpAddr, HostName);

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
        for pod in &lab.pods {
            for container in &pod.containers {
                let Some(spec) = &container.readiness else { continue };
                let key = (pod.ns(), container.name.clone());
                let question = (spec.clone(), pod.ip(), pod.host.clone());
                let same = before.remove(&key).filter(|f| f.question == question);
                let followed = same.or_else(|| start(daemon, lab, pod, (&key, spec)));
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

fn start(daemon: &Daemon, lab: &Lab, pod: &lab::Pod, (key, spec): (&Key, &lab::Readiness)) -> Option<Followed> {
    let host = lab.host(&pod.host)?;
    let verdict = Rc::new(RefCell::new(Verdict { ready: false, message: "not asked yet".to_owned() }));
    let asker = Asker {
        from: daemon.netns(&host.ns())?,
        place: daemon.place(&key.0).ok()?,
        key: key.clone(),
        rooms: daemon.workloads.rooms.clone(),
        pod: pod.ip(),
        spec: spec.clone(),
        verdict: Rc::clone(&verdict),
        changed: Rc::clone(&daemon.workloads.changed),
    };
    let question = (spec.clone(), pod.ip(), pod.host.clone());
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
            if was != now {
                self.changed.notify_waiters();
            }
            tokio::time::sleep(self.spec.period).await;
        }
    }

    async fn ask(&self) -> Result<(), String> {
        let limit = self.spec.timeout;
        match &self.spec.check {
            ReadinessCheck::TcpSocket { port } => {
                self.blocking(*port, move |at| connect(at, limit).map(drop).map_err(|e| e.to_string())).await
            }
            ReadinessCheck::HttpGet { path, port } => {
                let path = path.clone();
                self.blocking(*port, move |at| get(at, &path, limit)).await
            }
            ReadinessCheck::Exec { command } => self.exec(command).await,
        }
    }

    /// Ask from the host's namespace, on a thread that may wait.
    async fn blocking(
        &self,
        port: u16,
        ask: impl FnOnce(SocketAddr) -> Result<(), String> + Send + 'static,
    ) -> Result<(), String> {
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

fn connect(at: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&at, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    Ok(stream)
}

/// A GET as kubelet sends it; a status from 200 to 399 is success.
fn get(at: SocketAddr, path: &str, limit: Duration) -> Result<(), String> {
    let ask = || -> io::Result<String> {
        let mut stream = connect(at, limit)?;
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: {at}\r\nUser-Agent: kube-probe/1.36\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        let mut start = [0u8; 64];
        let mut have = 0;
        while have < start.len() && !start[..have].contains(&b'\n') {
            match stream.read(&mut start[have..])? {
                0 => break,
                n => have += n,
            }
        }
        Ok(String::from_utf8_lossy(&start[..have]).into_owned())
    };
    let answer = ask().map_err(|e| format!("GET http://{at}{path}: {e}"))?;
    let status = answer.split_whitespace().nth(1).and_then(|s| s.parse::<u16>().ok());
    match status {
        Some(200..=399) => Ok(()),
        Some(other) => Err(format!("GET http://{at}{path}: status {other}")),
        None => Err(format!("GET http://{at}{path}: not an HTTP answer")),
    }
}
