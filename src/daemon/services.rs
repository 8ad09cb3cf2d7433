//! The lab's service layer while it runs: which pods stand behind each service now, and making
//! kube-proxy's rules and the DNS follow.
//!
//! It stands beside [`super::state`]: a change of the lab ends with the rules that fit it, and what
//! happens between changes (a pod that becomes ready, dies or is told to end) is followed here.
//! What follows from the pods' states is pure and is [`crate::plan::services`]'.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

use crate::kernel::iptables::{Fault, Iptables};
use crate::kernel::ns::NetNs;
use crate::lab::names::{HostName, NsName, PodId};
use crate::lab::{Lab, Run};
use crate::objects::EndpointSlice;
use crate::plan::proxy::{self, ProxyRules};
use crate::plan::services::{self, PodState, Proxies};
use crate::workload::dns::{Objects, PodFact};

use super::balancers::BalancerLayer;
use super::dns::DnsServers;
use super::health::HealthServers;
use super::objects;
use super::state::Daemon;

/// What is known of the services of a running lab.
#[derive(Default)]
pub struct ServiceLayer {
    slices: RefCell<Arc<Vec<EndpointSlice>>>,
    /// kube-proxy's rules as the hosts hold them.
    proxies: RefCell<Arc<Proxies>>,
    /// Pods that have been told to end.
    terminating: RefCell<HashSet<PodId>>,
    pub dns: DnsServers,
    pub health: HealthServers,
    pub balancers: BalancerLayer,
    /// What went wrong when rules were last written, for `status`.
    trouble: RefCell<Vec<String>>,
}

impl ServiceLayer {
    pub fn slices(&self) -> Arc<Vec<EndpointSlice>> {
        Arc::clone(&self.slices.borrow())
    }

    pub fn proxies(&self) -> Arc<Proxies> {
        Arc::clone(&self.proxies.borrow())
    }

    pub fn trouble(&self) -> Vec<String> {
        let own = self.trouble.borrow().clone();
        own.into_iter().chain(self.health.trouble()).chain(self.balancers.trouble()).collect()
    }

    pub fn is_terminating(&self, pod: &PodId) -> bool {
        self.terminating.borrow().contains(pod)
    }

    /// Note that a pod has been told to end, or that it is no more.
    pub fn set_terminating(&self, pod: &PodId, is: bool) {
        let mut all = self.terminating.borrow_mut();
        if is {
            all.insert(pod.clone());
        } else {
            all.remove(pod);
        }
    }

    /// The hosts hold these rules now.
    pub fn set(&self, slices: Vec<EndpointSlice>, proxies: Proxies) {
        *self.slices.borrow_mut() = Arc::new(slices);
        *self.proxies.borrow_mut() = Arc::new(proxies);
    }
}

impl Daemon {
    /// The slices and rules that `lab` has with its pods as they are now. Pods that are still to be
    /// started count as what they will be at once: the echo server answers before `up` returns.
    pub fn services_of(&self, lab: &Lab) -> (Vec<EndpointSlice>, Proxies) {
        let slices = services::slices(lab, |id| self.pod_state(lab, id));
        let proxies = services::proxies(lab, &lab.services, &slices);
        (slices, proxies)
    }

    fn pod_state(&self, lab: &Lab, id: &PodId) -> PodState {
        let Some(pod) = lab.pod(id) else { return PodState::default() };
        let terminating = self.services.is_terminating(id);
        let there = self.lab().pod(id).is_some_and(|p| p.containers == pod.containers) && self.is_built();
        if there {
            let alive = !matches!(objects::pod_phase(self, pod), "Failed" | "Succeeded");
            return PodState { alive, ready: objects::is_ready(self, pod), terminating };
        }
        let ready = pod.containers.iter().all(|c| c.run == Run::Echo && c.readiness.is_none());
        PodState { alive: true, ready, terminating }
    }

    /// Follow the pods' states for as long as the lab runs.
    pub async fn follow_endpoints(self: Rc<Self>) {
        loop {
            let changed = self.workloads.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed, also not one that happens while rules are written.
            changed.as_mut().enable();
            self.sync_services().await;
            changed.await;
        }
    }

    /// Make rules and names follow the pods as they are now. Does nothing where they do already.
    pub async fn sync_services(self: &Rc<Self>) {
        let _turn = self.turn().await;
        let lab = self.lab();
        if lab.services.is_empty() {
            return;
        }
        let slices = services::slices(&lab, |id| self.pod_state(&lab, id));
        if slices == **self.services.slices.borrow() {
            return;
        }
        let old = self.services.proxies();
        let work = Sync {
            lab: Arc::clone(&lab),
            slices: Arc::new(slices),
            old,
            hosts: self.hosts(&lab),
            iptables: self.iptables(),
        };
        // DNS needs no rules; its change is on its way while they are written.
        self.tell_dns(&lab, &work.slices);
        let slices = Arc::clone(&work.slices);
        match tokio::task::spawn_blocking(move || work.run()).await {
            Ok((proxies, trouble)) => {
                *self.services.slices.borrow_mut() = slices;
                *self.services.proxies.borrow_mut() = Arc::new(proxies);
                *self.services.trouble.borrow_mut() = trouble;
            }
            Err(e) => *self.services.trouble.borrow_mut() = vec![format!("services: {e}")],
        }
        self.services.health.follow(&lab, &self.services.proxies(), |ns| self.netns(ns));
        self.services.balancers.ring();
    }

    /// Tell the DNS servers what there is.
    pub fn tell_dns(&self, lab: &Lab, slices: &[EndpointSlice]) {
        if lab.dns.is_none() {
            return;
        }
        let fact = |p: &crate::lab::Pod| PodFact {
            namespace: p.id.namespace.to_string(),
            name: p.id.name.to_string(),
            ip: p.ip(),
        };
        self.services.dns.tell(Objects {
            services: lab.services.clone(),
            slices: slices.to_vec(),
            pods: lab.pods.iter().map(fact).collect(),
            namespaces: lab.namespaces.iter().cloned().collect(),
        });
    }

    fn hosts(&self, lab: &Lab) -> Vec<(HostName, NetNs)> {
        lab.hosts.iter().filter_map(|h| Some((h.name.clone(), self.netns(&NsName::Host(h.name.clone()))?))).collect()
    }
}

/// What it takes to bring the hosts' rules up to date, on a thread of its own.
struct Sync {
    lab: Arc<Lab>,
    slices: Arc<Vec<EndpointSlice>>,
    old: Arc<Proxies>,
    hosts: Vec<(HostName, NetNs)>,
    iptables: Option<Iptables>,
}

impl Sync {
    /// Returns the rules that the hosts hold now, and what went wrong.
    fn run(self) -> (Proxies, Vec<String>) {
        let new = services::proxies(&self.lab, &self.lab.services, &self.slices);
        let Some(iptables) = &self.iptables else { return (Proxies::clone(&self.old), vec!["no iptables".to_owned()]) };
        let outcomes: Vec<(HostName, Result<(), String>)> = std::thread::scope(|scope| {
            let threads: Vec<_> = self
                .hosts
                .iter()
                .filter_map(|(name, netns)| Some((name, netns, self.old.get(name)?, new.get(name)?)))
                .map(|(name, netns, old, new)| (name, scope.spawn(move || one(iptables, netns, old, new))))
                .collect();
            let ended = |t: std::thread::ScopedJoinHandle<'_, Result<(), String>>| {
                t.join().unwrap_or_else(|_| Err("its thread panicked".to_owned()))
            };
            threads.into_iter().map(|(name, thread)| (name.clone(), ended(thread))).collect()
        });
        let mut holds = new;
        let mut trouble = Vec::new();
        for (name, outcome) in outcomes {
            if let Err(why) = outcome {
                trouble.push(format!("host {name}: services' rules are not as they should be: {why}"));
                if let Some(old) = self.old.get(&name) {
                    holds.insert(name, old.clone());
                }
            }
        }
        (holds, trouble)
    }
}

/// Bring one host up to date.
fn one(iptables: &Iptables, netns: &NetNs, old: &ProxyRules, new: &ProxyRules) -> Result<(), String> {
    let Some(text) = proxy::sync(old, new) else { return Ok(()) };
    let written = match iptables.restore_more(netns, &text) {
        // Somebody has changed rules that this was to be put beside: write everything.
        Err(Fault::Refused { .. }) => iptables.restore_more(netns, &new.restore_input()),
        written => written,
    };
    written.map_err(|e| e.to_string())?;
    Ok(())
}
