//! kube-proxy's rules in the hosts' namespaces: written as they change, put right when somebody
//! changes them by hand, and flows of UDP forgotten that lead to endpoints which are no more.
//!
//! What the rules are is `plan::proxy`'s, when they change `super::services`' business.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::kernel::conntrack;
use crate::kernel::iptables::{Fault, Iptables};
use crate::kernel::ns::NetNs;
use crate::kernel::rulewatch::RuleWatch;
use crate::lab::names::{HostName, NsName};
use crate::plan::proxy::conntrack::{UdpFlow, UdpServices};
use crate::plan::proxy::mend::mended;
use crate::plan::proxy::{self, ProxyRules};
use crate::plan::rules::Rules;
use crate::plan::services::Proxies;

use super::state::Daemon;

/// kube-proxy's --iptables-sync-period, for changes that cannot be heard.
const SYNC_PERIOD: Duration = Duration::from_secs(30);
/// A person who removes rules removes several; one look is enough for them.
const SETTLING: Duration = Duration::from_millis(100);

/// A host whose rules are to change.
pub struct HostChange<'c> {
    pub name: &'c HostName,
    pub netns: &'c NetNs,
    pub old: &'c ProxyRules,
    pub new: &'c ProxyRules,
    /// The host's rules without kube-proxy's.
    pub bare: &'c Rules,
}

/// Bring all these hosts up to date, side by side. Returns what went wrong, by host.
pub fn write_all(iptables: &Iptables, hosts: &[HostChange]) -> BTreeMap<HostName, String> {
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            hosts.iter().map(|host| (host.name, scope.spawn(move || write(iptables, host)))).collect();
        let failed = threads.into_iter().filter_map(|(name, thread)| {
            let outcome = thread.join().unwrap_or_else(|_| Err("its thread panicked".to_owned()));
            outcome.err().map(|why| (name.clone(), why))
        });
        failed.collect()
    })
}

fn write(iptables: &Iptables, host: &HostChange) -> Result<(), String> {
    if let Some(text) = proxy::sync(host.old, host.new) {
        match iptables.restore_more(host.netns, &text) {
            // Somebody has changed the rules that this was to be put beside.
            Err(Fault::Refused { .. }) => put_right(iptables, host.netns, &planned(host.bare, host.new))?,
            written => written.map_err(|e| e.to_string())?,
        }
    }
    forget_flows(host.netns, &host.old.udp, &host.new.udp).map_err(|e| format!("conntrack: {e}"))
}

/// Forget UDP flows to endpoints that a service has no more.
pub fn forget_flows(netns: &NetNs, old: &UdpServices, new: &UdpServices) -> std::io::Result<()> {
    if !new.needs_cleaning(old) && !old.needs_cleaning(new) {
        return Ok(());
    }
    let forgotten = conntrack::forget_udp(netns, |flow| {
        let flow = UdpFlow { destination: flow.destination(), answers_from: flow.answers_from() };
        new.is_stale(&flow) || (leads_into(old, flow.destination) && !leads_into(new, flow.destination))
    });
    match forgotten {
        // A kernel without ctnetlink keeps stale flows until they time out.
        Err(e) if e.kind() == std::io::ErrorKind::Unsupported => Ok(()),
        outcome => outcome.map(drop),
    }
}

fn leads_into(services: &UdpServices, to: std::net::SocketAddr) -> bool {
    let (ip, port): (IpAddr, u16) = (to.ip(), to.port());
    services.has(ip, port)
}

/// All rules of a host: those without services, and kube-proxy's.
fn planned(bare: &Rules, proxy: &ProxyRules) -> Rules {
    let mut rules = bare.clone();
    proxy.add_to(&mut rules);
    rules
}

/// Read what a host holds and put kube-proxy's part of it right.
fn put_right(iptables: &Iptables, netns: &NetNs, planned: &Rules) -> Result<(), String> {
    let there = iptables.save(netns).map_err(|e| e.to_string())?;
    match there.changes_to(&mended(&there, planned)) {
        Some(text) => iptables.restore_more(netns, &text).map_err(|e| e.to_string()),
        None => Ok(()),
    }
}

/// Those who listen for changes of the hosts' rules.
#[derive(Default)]
pub struct Watchers(std::cell::RefCell<BTreeMap<HostName, JoinHandle<()>>>);

impl Watchers {
    /// Watch exactly these hosts.
    pub fn follow(&self, daemon: &Rc<Daemon>, proxies: &Proxies) {
        let mut all = self.0.borrow_mut();
        all.retain(|name, task| {
            let stays = proxies.contains_key(name) && !task.is_finished();
            if !stays {
                task.abort();
            }
            stays
        });
        for name in proxies.keys() {
            if !all.contains_key(name)
                && let Some(netns) = daemon.netns(&NsName::Host(name.clone()))
            {
                let task = tokio::task::spawn_local(watch(Rc::clone(daemon), name.clone(), netns));
                all.insert(name.clone(), task);
            }
        }
    }
}

/// Put a host's rules right whenever somebody else changes them, until the host is no more.
async fn watch(daemon: Rc<Daemon>, name: HostName, netns: NetNs) {
    let Ok(mut watch) = RuleWatch::open(&netns) else { return };
    loop {
        let by_others = async {
            while let Ok(change) = watch.changed().await {
                if !daemon.iptables().is_some_and(|iptables| iptables.is_own(&change)) {
                    return;
                }
            }
            // Deaf, as with xtables: the period remains.
            std::future::pending::<()>().await;
        };
        if tokio::time::timeout(SYNC_PERIOD, by_others).await.is_ok() {
            tokio::time::sleep(SETTLING).await;
            let _ = watch.drain();
        } else if !daemon.rules_are_silent() {
            continue;
        }
        daemon.put_rules_right(&name, &netns).await;
    }
}

impl Daemon {
    /// Whether changes of rules cannot be heard here: those of xtables.
    fn rules_are_silent(&self) -> bool {
        self.iptables().is_some_and(|iptables| iptables.is_legacy().unwrap_or(false))
    }

    async fn put_rules_right(self: &Rc<Self>, name: &HostName, netns: &NetNs) {
        let _turn = self.turn().await;
        let proxies = self.services.proxies();
        let ns = NsName::Host(name.clone());
        let bare = self.plan().get(&ns).map(|host| host.rules.clone());
        let (Some(iptables), Some(bare), true) = (self.iptables(), bare, proxies.contains_key(name)) else { return };
        let (netns, host) = (netns.clone(), name.clone());
        let put = tokio::task::spawn_blocking(move || match proxies.get(&host) {
            Some(rules) => put_right(&iptables, &netns, &planned(&bare, rules)),
            None => Ok(()),
        });
        let why = put.await.map_err(|e| e.to_string()).and_then(|outcome| outcome);
        self.services.note_trouble(name, why.err());
    }
}
