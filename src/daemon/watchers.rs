//! Listening for changes of rules by others, and putting them right: kube-proxy's rules on the hosts and
//! the load balancers' at the router. What somebody added of his own, or took from others, stays.
//!
//! What is to be there is `plan::proxy`'s and `plan::balancers`', and writing it as it changes
//! [`super::services`]' and [`super::balancers`]'.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::kernel::ns::NetNs;
use crate::kernel::rulewatch::RuleWatch;
use crate::lab::names::NsName;
use crate::plan::balancers;
use crate::plan::proxy::mend::{IsOwn, is_kube_proxys};
use crate::plan::rules::Rules;
use crate::plan::services::Proxies;

use super::proxies::{self, Written};
use super::state::Daemon;

/// kube-proxy's --iptables-sync-period, for changes that cannot be heard.
const SYNC_PERIOD: Duration = Duration::from_secs(30);
/// A person who removes rules removes several; one look is enough for them.
const SETTLING: Duration = Duration::from_millis(100);

/// Those who listen, by the namespace that they listen in.
#[derive(Default)]
pub struct Watchers(RefCell<BTreeMap<NsName, JoinHandle<()>>>);

impl Watchers {
    /// Watch exactly the hosts that have these rules, and the router where there are any.
    pub fn follow(&self, daemon: &Rc<Daemon>, proxies: &Proxies) {
        let router = (!proxies.is_empty()).then_some(NsName::Router);
        let wanted: Vec<NsName> = proxies.keys().cloned().map(NsName::Host).chain(router).collect();
        let mut all = self.0.borrow_mut();
        all.retain(|ns, task| {
            let stays = wanted.contains(ns) && !task.is_finished();
            if !stays {
                task.abort();
            }
            stays
        });
        for ns in wanted {
            if !all.contains_key(&ns)
                && let Some(netns) = daemon.netns(&ns)
            {
                let task = tokio::task::spawn_local(watch(Rc::clone(daemon), ns.clone(), netns));
                all.insert(ns, task);
            }
        }
    }
}

/// Put rules right whenever somebody else changes them, until the namespace is no more.
async fn watch(daemon: Rc<Daemon>, ns: NsName, netns: NetNs) {
    // Where nothing can be heard, the period remains.
    let mut watch = RuleWatch::open(&netns).ok();
    let mut sure = true;
    loop {
        let mut ours = false;
        let by_others = async {
            match &mut watch {
                Some(watch) => heard(&daemon, watch, &mut ours).await,
                None => std::future::pending().await,
            }
        };
        match tokio::time::timeout(SYNC_PERIOD, by_others).await {
            Ok(Ok(())) => {
                tokio::time::sleep(SETTLING).await;
                let _ = watch.as_mut().map(RuleWatch::drain);
            }
            Ok(Err(_)) => watch = None,
            // A stranger's change may have been taken for one of ours; if there was none, there is
            // nothing to look for, unless nothing can be heard.
            Err(_) if sure && !ours && watch.is_some() && !daemon.rules_are_silent() => continue,
            Err(_) => {}
        }
        sure = daemon.put_rules_right(&ns, &netns).await;
    }
}

/// Returns when somebody else changes rules; notes changes of ours meanwhile.
async fn heard(daemon: &Daemon, watch: &mut RuleWatch, ours: &mut bool) -> std::io::Result<()> {
    loop {
        let change = watch.changed().await?;
        if !daemon.iptables().is_some_and(|iptables| iptables.is_own(&change)) {
            return Ok(());
        }
        *ours = true;
    }
}

impl Daemon {
    /// Whether changes of rules cannot be heard here: those of xtables.
    fn rules_are_silent(&self) -> bool {
        self.iptables().is_some_and(|iptables| iptables.is_legacy().unwrap_or(false))
    }

    /// Returns whether the rules are known to be right.
    async fn put_rules_right(&self, ns: &NsName, netns: &NetNs) -> bool {
        let _turn = self.turn().await;
        let (Some(iptables), Some((planned, is_own))) = (self.iptables(), self.rules_of(ns)) else { return true };
        let netns = netns.clone();
        let put = tokio::task::spawn_blocking(move || proxies::put_right(&iptables, &netns, &planned(), is_own));
        let rules = put.await.map_err(|e| e.to_string()).and_then(|outcome| outcome);
        let sure = rules.is_ok();
        match ns {
            NsName::Host(host) => self.services.note(host, Written::of(rules)),
            _ => self.services.balancers.note_mended(rules),
        }
        sure
    }

    /// The rules that a namespace is to hold, to be made where there is time, and whose of them are put right.
    fn rules_of(&self, ns: &NsName) -> Option<(Box<dyn FnOnce() -> Rules + Send>, IsOwn)> {
        let bare = self.plan().get(ns)?.rules.clone();
        let NsName::Host(host) = ns else {
            let balancers = self.services.balancers.applied();
            return Some((Box::new(move || balancers::planned(&bare, &balancers)), balancers::is_own));
        };
        let (proxies, host) = (self.services.proxies(), host.clone());
        proxies.contains_key(&host).then(|| -> (Box<dyn FnOnce() -> Rules + Send>, IsOwn) {
            let all = move || proxies.get(&host).map(|own| proxies::planned(&bare, own)).unwrap_or(bare);
            (Box::new(all), is_kube_proxys)
        })
    }
}
