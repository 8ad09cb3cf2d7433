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

/// How many are asked at once.
const AT_ONCE: usize = 64;

/// Which host has answered for which service.
pub type Healthy = BTreeSet<(ObjectKey, HostName)>;

/// What is known of the load balancers of a running lab.
#[derive(Default)]
pub struct BalancerLayer {
    /// What the router holds.
    applied: RefCell<Arc<Balancers>>,
    /// Who has answered in the last round.
    healthy: RefCell<Healthy>,
    /// Counts the rounds that were asked in somebody's turn, whose answers are newer than others'.
    rounds: Cell<u64>,
    /// Rung when answers may have changed, so that nobody waits for the next round.
    bell: Notify,
    trouble: RefCell<Option<String>>,
    /// Why the hosts could not be asked in the last round.
    unasked: RefCell<Option<String>>,
    /// Why rules that somebody changed could not be put right.
    unmended: RefCell<Option<String>>,
}

impl BalancerLayer {
    pub fn applied(&self) -> Arc<Balancers> {
        Arc::clone(&self.applied.borrow())
    }

    /// The router holds this now.
    pub fn set(&self, balancers: Balancers) {
        *self.applied.borrow_mut() = Arc::new(balancers);
    }

    /// Who has answered so far.
    pub fn healthy(&self) -> Healthy {
        self.healthy.borrow().clone()
    }

    /// Ask the hosts again, soon.
    pub fn ring(&self) {
        self.bell.notify_one();
    }

    pub fn trouble(&self) -> Option<String> {
        let all = [&self.unasked, &self.trouble, &self.unmended];
        all.into_iter().find_map(|why| why.borrow().clone())
    }

    /// Note how putting the router's rules right went.
    pub fn note_mended(&self, outcome: Result<(), String>) {
        let why = |e| format!("the router's rules for load balancers were changed and cannot be put right: {e}");
        *self.unmended.borrow_mut() = outcome.err().map(why);
    }

    /// The healthy ones by these answers. Where nobody could be asked, what they said last counts.
    fn learn(&self, answers: io::Result<Healthy>) -> Healthy {
        let why = answers.as_ref().err().map(|e| format!("health checks of load balancers cannot be asked: {e}"));
        *self.unasked.borrow_mut() = why;
        answers.unwrap_or_else(|_| self.healthy.borrow().clone())
    }

    fn is_applied(&self) -> bool {
        self.trouble.borrow().is_none()
    }
}

/// What the router must hold for `lab`, as the hosts have answered.
pub fn planned(lab: &Lab, healthy: &Healthy) -> Balancers {
    balancers::plan(lab, |service, host| healthy.contains(&(service.clone(), host.clone())))
}

impl Daemon {
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
            let healthy = self.services.balancers.learn(self.ask(checks).await);
            let same = *self.services.balancers.healthy.borrow() == healthy;
            if !same || !self.services.balancers.is_applied() {
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
        let healthy = self.services.balancers.learn(self.ask(balancers::checks(&lab)).await);
        self.services.balancers.rounds.update(|n| n + 1);
        *self.services.balancers.healthy.borrow_mut() = healthy;
        self.apply_balancers(turn).await;
    }

    /// Bring the router from what it holds to what it must hold.
    async fn apply_balancers(&self, _turn: &MutexGuard<'_, ()>) {
        let layer = &self.services.balancers;
        let (old, new) = (layer.applied(), planned(&self.lab(), &layer.healthy.borrow()));
        if *old == new && layer.is_applied() {
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

    /// Which of these answer 200, asked from the router.
    async fn ask(&self, checks: Vec<Check>) -> io::Result<Healthy> {
        if checks.is_empty() {
            return Ok(Healthy::new());
        }
        let router = self.netns(&NsName::Router).ok_or_else(|| io::Error::other("the router is not there"))?;
        ask_all(checks, async |count| {
            let router = router.clone();
            tokio::task::spawn_blocking(move || sockets(&router, count)).await.map_err(io::Error::other)?
        })
        .await
    }
}

/// Ask so many at once that neither files nor the hosts run short; `sockets` makes as many as are wanted.
async fn ask_all(
    checks: Vec<Check>,
    sockets: impl AsyncFn(usize) -> io::Result<Vec<std::net::TcpStream>>,
) -> io::Result<Healthy> {
    let mut healthy = Healthy::new();
    for group in checks.chunks(AT_ONCE) {
        let mut asking = tokio::task::JoinSet::new();
        for (check, socket) in group.iter().cloned().zip(sockets(group.len()).await?) {
            asking.spawn_local(async move {
                let answer = tokio::time::timeout(PATIENCE, is_healthy(socket, check.at)).await;
                matches!(answer, Ok(Ok(true))).then_some((check.service, check.host))
            });
        }
        healthy.extend(asking.join_all().await.into_iter().flatten());
    }
    Ok(healthy)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn name(host: &str) -> HostName {
        HostName::try_from(host.to_owned()).unwrap()
    }

    fn check(host: &str, at: SocketAddr) -> Check {
        Check { service: ObjectKey::new("default", "tea"), host: name(host), at }
    }

    #[test]
    fn where_nobody_can_be_asked_the_last_answers_count_and_it_is_told() {
        let layer = BalancerLayer::default();
        let one = Healthy::from([(ObjectKey::new("default", "tea"), name("node1"))]);
        *layer.healthy.borrow_mut() = layer.learn(Ok(one.clone()));
        assert_eq!(layer.trouble(), None);
        assert_eq!(layer.learn(Err(io::Error::other("too many open files"))), one);
        assert!(layer.trouble().is_some_and(|why| why.ends_with("too many open files")));
        assert_eq!(layer.learn(Ok(Healthy::new())), Healthy::new());
        assert_eq!(layer.trouble(), None);
    }

    #[tokio::test]
    async fn at_most_so_many_are_asked_at_once_and_an_error_is_told() {
        let refused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let checks: Vec<Check> = (0..AT_ONCE * 2 + 2).map(|n| check(&format!("node{n}"), refused)).collect();
        let asked = RefCell::new(Vec::new());
        let limit = Cell::new(usize::MAX);
        let make = async |count| {
            asked.borrow_mut().push(count);
            if asked.borrow().len() > limit.get() {
                return Err(io::Error::other("no more"));
            }
            let socket = || {
                let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
                socket.set_nonblocking(true)?;
                Ok(socket.into())
            };
            (0..count).map(|_| socket()).collect()
        };
        let all = tokio::task::LocalSet::new();
        all.run_until(async {
            assert_eq!(ask_all(checks.clone(), make).await.unwrap(), Healthy::new());
            assert_eq!(*asked.borrow(), [AT_ONCE, AT_ONCE, 2]);
            limit.set(4);
            assert_eq!(ask_all(checks, make).await.unwrap_err().to_string(), "no more");
        })
        .await;
    }
}
