//! The lab's load balancers while it runs: asking the hosts' health check ports as a cloud does, and
//! making the router's rules and routes follow. What the router must hold is pure and is
//! [`crate::plan::balancers`]'; the ports that are asked are [`super::health`]'s.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::sync::{MutexGuard, Notify};

use crate::kernel::conntrack::{self, Flow};
use crate::kernel::ns::NetNs;
use crate::lab::Lab;
use crate::lab::names::{HostName, NsName};
use crate::objects::ObjectKey;
use crate::plan::balancers::{self, Balancers, Check};
use crate::plan::diff::{Op, Step, diff};
use crate::plan::{NsPlan, Plan};

use super::state::Daemon;

/// The pause between two rounds of questions.
const PERIOD: Duration = Duration::from_secs(1);
/// How long a host may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is known of the load balancers of a running lab.
#[derive(Default)]
pub struct BalancerLayer {
    /// What the router holds.
    applied: RefCell<Arc<Balancers>>,
    /// Which host has answered for which service in the last round.
    healthy: RefCell<BTreeSet<(ObjectKey, HostName)>>,
    /// Counts the rounds that were asked in somebody's turn, whose answers are newer than others'.
    rounds: Cell<u64>,
    /// Rung when answers may have changed, so that nobody waits for the next round.
    bell: Notify,
    trouble: RefCell<Option<String>>,
}

impl BalancerLayer {
    pub fn applied(&self) -> Arc<Balancers> {
        Arc::clone(&self.applied.borrow())
    }

    /// The router holds this now.
    pub fn set(&self, balancers: Balancers) {
        *self.applied.borrow_mut() = Arc::new(balancers);
    }

    /// Ask the hosts again, soon.
    pub fn ring(&self) {
        self.bell.notify_one();
    }

    pub fn trouble(&self) -> Option<String> {
        self.trouble.borrow().clone()
    }
}

impl Daemon {
    /// What the router must hold for `lab`, as the hosts have answered so far.
    pub fn balancers_of(&self, lab: &Lab) -> Balancers {
        let healthy = self.services.balancers.healthy.borrow();
        balancers::plan(lab, |service, host| healthy.contains(&(service.clone(), host.clone())))
    }

    /// Ask the hosts for as long as the lab runs.
    pub async fn follow_balancers(self: Rc<Self>) {
        loop {
            let _ = tokio::time::timeout(PERIOD, self.services.balancers.bell.notified()).await;
            let checks = balancers::checks(&self.lab());
            if checks.is_empty() && self.services.balancers.healthy.borrow().is_empty() {
                continue;
            }
            // Not in one's turn: a host that does not answer holds nobody else up.
            let round = self.services.balancers.rounds.get();
            let healthy = self.ask(checks).await;
            let same = *self.services.balancers.healthy.borrow() == healthy;
            if !same || self.services.balancers.trouble().is_some() {
                let turn = self.turn().await;
                if self.services.balancers.rounds.get() != round {
                    continue;
                }
                *self.services.balancers.healthy.borrow_mut() = healthy;
                self.apply_balancers(&turn).await;
            }
        }
    }

    /// Serve health checks as the rules have them now, ask them, and make the router follow.
    pub async fn sync_balancers(&self, turn: &MutexGuard<'_, ()>) {
        let lab = self.lab();
        self.services.health.follow(&lab, &self.services.proxies(), |ns| self.netns(ns));
        let healthy = self.ask(balancers::checks(&lab)).await;
        self.services.balancers.rounds.update(|n| n + 1);
        *self.services.balancers.healthy.borrow_mut() = healthy;
        self.apply_balancers(turn).await;
    }

    /// Bring the router from what it holds to what it must hold.
    async fn apply_balancers(&self, _turn: &MutexGuard<'_, ()>) {
        let layer = &self.services.balancers;
        let (old, new) = (layer.applied(), self.balancers_of(&self.lab()));
        if *old == new && layer.trouble().is_none() {
            return;
        }
        // Where it fails `status` says so, and the next round tries again.
        let done = self.run(&changes(&self.router_with(&old), &self.router_with(&new))).await.is_ok();
        *layer.trouble.borrow_mut() =
            (!done).then(|| "the router's rules for load balancers are not as they should be".to_owned());
        if done {
            self.forget_flows(old, new.clone()).await;
            layer.set(new);
        }
    }

    /// Forget UDP flows that lead where none should any more.
    pub async fn forget_flows(&self, old: Arc<Balancers>, new: Balancers) {
        let Some(router) = self.netns(&NsName::Router).filter(|_| old.udp != new.udp) else { return };
        let stale = move |flow: &Flow| new.is_stale(&old, flow.destination(), flow.answers_from());
        // Where that fails flows end by their own time; the rules are right.
        let _ = tokio::task::spawn_blocking(move || conntrack::forget_udp(&router, stale)).await;
    }

    /// The router's plan with these load balancers.
    fn router_with(&self, balancers: &Balancers) -> NsPlan {
        let plan = self.plan();
        let router = plan.get(&NsName::Router).cloned().unwrap_or_else(|| NsPlan::new(NsName::Router));
        let mut alone = Plan { namespaces: vec![router] };
        balancers::add(&mut alone, balancers);
        alone.namespaces.pop().unwrap_or_else(|| NsPlan::new(NsName::Router))
    }

    /// Which of these answer 200. All are asked at once, from the router.
    async fn ask(&self, checks: Vec<Check>) -> BTreeSet<(ObjectKey, HostName)> {
        let Some(router) = self.netns(&NsName::Router).filter(|_| !checks.is_empty()) else { return BTreeSet::new() };
        let count = checks.len();
        let made = tokio::task::spawn_blocking(move || sockets(&router, count)).await;
        let sockets = made.ok().and_then(Result::ok).unwrap_or_default();
        let mut asking = tokio::task::JoinSet::new();
        for (check, socket) in checks.into_iter().zip(sockets) {
            asking.spawn_local(async move {
                let answer = tokio::time::timeout(PATIENCE, is_healthy(socket, check.at)).await;
                matches!(answer, Ok(Ok(true))).then_some((check.service, check.host))
            });
        }
        asking.join_all().await.into_iter().flatten().collect()
    }
}

/// The router's own part of the way. The kernel puts a new route in an old one's place, and between
/// the two a packet would find none; so the old one is not taken out first.
fn changes(old: &NsPlan, new: &NsPlan) -> Vec<Step> {
    // Cables are seen only with both of their ends.
    let plan = |ns: &NsPlan| Plan { namespaces: vec![NsPlan { links: Vec::new(), ..ns.clone() }] };
    let mut steps = diff(&plan(old), &plan(new));
    let added: Vec<_> =
        steps.iter().filter_map(|s| if let Op::AddRoute(r) = &s.op { Some(r.dst) } else { None }).collect();
    steps.retain(|s| !matches!(&s.op, Op::RemoveRoute(r) if added.contains(&r.dst)));
    steps
}

/// Sockets that belong to the router.
fn sockets(router: &NetNs, count: usize) -> io::Result<Vec<std::net::TcpStream>> {
    use socket2::{Domain, Socket, Type};
    router.run(|| {
        let socket = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            Ok(socket.into())
        };
        (0..count).map(|_| socket()).collect()
    })?
}

/// One question, as a cloud's load balancer puts it.
async fn is_healthy(socket: std::net::TcpStream, at: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpSocket::from_std_stream(socket).connect(at).await?;
    let head = format!("GET /healthz HTTP/1.1\r\nHost: {at}\r\nUser-Agent: labctl-lb\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut start = [0u8; 64];
    let mut have = 0;
    while have < start.len() && !start[..have].contains(&b'\n') {
        match stream.read(&mut start[have..]).await? {
            0 => break,
            n => have += n,
        }
    }
    Ok(String::from_utf8_lossy(&start[..have]).split_whitespace().nth(1) == Some("200"))
}
