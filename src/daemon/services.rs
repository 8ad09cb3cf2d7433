//! The lab's service layer while it runs: which pods stand behind each service now, and making
//! kube-proxy's rules and the DNS follow.
//!
//! It stands beside [`super::state`]: a change of the lab ends with the rules that fit it, and what
//! happens between changes (a pod that becomes ready, dies or is told to end) is followed here.
//! What follows from the pods' states is pure and is [`crate::plan::services`]'.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::kernel::iptables::Iptables;
use crate::kernel::ns::NetNs;
use crate::lab::Lab;
use crate::lab::names::{HostName, NsName, PodId};
use crate::objects::EndpointSlice;
use crate::plan::Plan;
use crate::plan::services::{self, Proxies};

use super::balancers::BalancerLayer;
use super::dns::{Cluster, DnsServers};
use super::health::HealthServers;
use super::ingress::IngressLayer;
use super::proxies::{self, HostChange, Written};
use super::state::Daemon;
use super::watchers::Watchers;

/// The pause before rules that could not be written are tried again; it doubles.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// What is known of the services of a running lab.
#[derive(Default)]
pub struct ServiceLayer {
    slices: RefCell<Arc<Vec<EndpointSlice>>>,
    /// kube-proxy's rules as the hosts are to hold them.
    proxies: RefCell<Arc<Proxies>>,
    /// Hosts of which that is not sure, because writing failed.
    unsure: RefCell<BTreeSet<HostName>>,
    /// Pods that have been told to end.
    terminating: RefCell<HashSet<PodId>>,
    pub dns: DnsServers,
    pub health: HealthServers,
    pub balancers: BalancerLayer,
    pub ingress: IngressLayer,
    watchers: Watchers,
    /// What went wrong when a host's rules were last written, for `status`.
    trouble: RefCell<BTreeMap<HostName, String>>,
}

impl ServiceLayer {
    pub fn slices(&self) -> Arc<Vec<EndpointSlice>> {
        Arc::clone(&self.slices.borrow())
    }

    pub fn proxies(&self) -> Arc<Proxies> {
        Arc::clone(&self.proxies.borrow())
    }

    /// What is wrong with hosts' rules, in words.
    pub fn trouble(&self) -> Vec<String> {
        let told = |(host, why): (&HostName, &String)| format!("host {host}: rules of services: {why}");
        let own: Vec<String> = self.trouble.borrow().iter().map(told).collect();
        own.into_iter().chain(self.health.trouble()).chain(self.balancers.trouble()).collect()
    }

    /// Note how writing a host's rules went.
    pub fn note(&self, host: &HostName, outcome: Written) {
        let mut unsure = self.unsure.borrow_mut();
        match outcome.sure {
            true => drop(unsure.remove(host)),
            false => drop(unsure.insert(host.clone())),
        }
        let mut all = self.trouble.borrow_mut();
        all.remove(host);
        all.extend(outcome.trouble.map(|why| (host.clone(), why)));
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
    pub fn set(&self, slices: Arc<Vec<EndpointSlice>>, proxies: Proxies) {
        *self.slices.borrow_mut() = slices;
        *self.proxies.borrow_mut() = Arc::new(proxies);
    }
}

impl Daemon {
    /// Follow the pods' states for as long as the lab runs.
    pub async fn follow_endpoints(self: Rc<Self>) {
        let mut pause = FIRST_RETRY;
        loop {
            let changed = self.workloads.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed, also not one that happens while rules are written.
            changed.as_mut().enable();
            self.sync_services().await;
            if self.services.unsure.borrow().is_empty() {
                pause = FIRST_RETRY;
                changed.await;
            } else {
                // Rules that could not be written are written again, whether or not anything happens.
                let _ = tokio::time::timeout(pause, changed).await;
                pause = (pause * 2).min(LONGEST_RETRY);
            }
        }
    }

    /// Make rules and names follow the pods as they are now. Does nothing where they do already.
    pub async fn sync_services(self: &Rc<Self>) {
        let _turn = self.turn().await;
        let lab = self.lab();
        if lab.services.is_empty() {
            return;
        }
        let unsure = self.services.unsure.borrow().clone();
        let (states, there) = (self.pod_states(&lab), Arc::clone(&lab));
        let slices = tokio::task::spawn_blocking(move || {
            services::slices(&there, |id| states.get(id).copied().unwrap_or_default())
        });
        // A thread that panics leaves everything as it was, and the next change tries again.
        let Ok(slices) = slices.await else { return };
        if slices == **self.services.slices.borrow() && unsure.is_empty() {
            return;
        }
        let old = self.services.proxies();
        let work = Sync {
            lab: Arc::clone(&lab),
            plan: self.plan(),
            slices: Arc::new(slices),
            old,
            unsure,
            hosts: self.hosts(&lab),
            iptables: self.iptables(),
        };
        // DNS needs no rules; its change is on its way while they are written.
        self.tell_dns(&lab, &work.slices);
        self.tell_ingress(&lab, &work.slices);
        let slices = Arc::clone(&work.slices);
        if let Ok((proxies, outcomes)) = tokio::task::spawn_blocking(move || work.run()).await {
            *self.services.slices.borrow_mut() = slices;
            *self.services.proxies.borrow_mut() = Arc::new(proxies);
            for (host, outcome) in outcomes {
                self.services.note(&host, outcome);
            }
        }
        self.services.health.follow(&lab, &self.services.proxies(), |ns| self.netns(ns));
        self.services.balancers.ring();
    }

    /// What follows a change of the lab: its hosts are watched, and flows into services that changed
    /// with it are forgotten.
    pub async fn services_changed(self: &Rc<Self>, old: Arc<Proxies>) {
        let new = self.services.proxies();
        self.services.watchers.follow(self, &new);
        let hosts = self.hosts(&self.lab());
        // Where that fails flows end by their own time; the rules are right.
        let _ = tokio::task::spawn_blocking(move || {
            for (name, netns) in &hosts {
                if let (Some(old), Some(new)) = (old.get(name), new.get(name)) {
                    let _ = proxies::forget_flows(netns, &old.udp, &new.udp);
                }
            }
        })
        .await;
    }

    /// Tell the DNS servers what there is.
    pub fn tell_dns(&self, lab: &Arc<Lab>, slices: &Arc<Vec<EndpointSlice>>) {
        if lab.dns.is_some() {
            self.services.dns.tell(Cluster { lab: Arc::clone(lab), slices: Arc::clone(slices) });
        }
    }

    fn hosts(&self, lab: &Lab) -> Vec<(HostName, NetNs)> {
        lab.hosts.iter().filter_map(|h| Some((h.name.clone(), self.netns(&NsName::Host(h.name.clone()))?))).collect()
    }
}

/// What it takes to bring the hosts' rules up to date, on a thread of its own.
struct Sync {
    lab: Arc<Lab>,
    plan: Arc<Plan>,
    slices: Arc<Vec<EndpointSlice>>,
    old: Arc<Proxies>,
    unsure: BTreeSet<HostName>,
    hosts: Vec<(HostName, NetNs)>,
    iptables: Option<Iptables>,
}

impl Sync {
    /// Returns the rules that the hosts are to hold now, and how it went with each.
    fn run(self) -> (Proxies, BTreeMap<HostName, Written>) {
        let new = services::proxies(&self.lab, &self.lab.services, &self.slices);
        let Some(iptables) = &self.iptables else { return (Proxies::clone(&self.old), BTreeMap::new()) };
        let changes: Vec<HostChange> = self.hosts.iter().filter_map(|host| self.change(host, &new)).collect();
        let outcomes = proxies::write_all(iptables, &changes);
        drop(changes);
        (new, outcomes)
    }

    fn change<'c>(&'c self, (name, netns): &'c (HostName, NetNs), new: &'c Proxies) -> Option<HostChange<'c>> {
        let bare = &self.plan.get(&NsName::Host(name.clone()))?.rules;
        let sure = !self.unsure.contains(name);
        Some(HostChange { name, netns, old: self.old.get(name)?, new: new.get(name)?, bare, sure })
    }
}
