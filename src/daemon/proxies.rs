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
/// So many programs that write rules run at once; most of their time they wait for the kernel.
const AT_ONCE: usize = 16;
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
    /// Whether it holds the old ones.
    pub sure: bool,
}

/// How writing a host's rules went.
#[derive(Debug, Default)]
pub struct Written {
    /// Whether the host holds the rules that it is to hold.
    pub sure: bool,
    /// What went wrong, in words.
    pub trouble: Option<String>,
}

impl Written {
    fn of(rules: Result<(), String>) -> Written {
        Written { sure: rules.is_ok(), trouble: rules.err() }
    }
}

/// Bring all these hosts up to date, side by side. Returns how it went, by host.
pub fn write_all(iptables: &Iptables, hosts: &[HostChange]) -> BTreeMap<HostName, Written> {
    let parts = hosts.chunks(hosts.len().div_ceil(AT_ONCE).max(1));
    std::thread::scope(|scope| {
        let threads: Vec<_> = parts
            .map(|part| (part, scope.spawn(move || part.iter().map(|host| write(iptables, host)).collect::<Vec<_>>())))
            .collect();
        let mut all = BTreeMap::new();
        for (part, thread) in threads {
            let panicked = |host: &HostChange| (host.name.clone(), Written::of(Err("its thread panicked".to_owned())));
            match thread.join() {
                Ok(outcomes) => all.extend(part.iter().map(|host| host.name.clone()).zip(outcomes)),
                Err(_) => all.extend(part.iter().map(panicked)),
            }
        }
        all
    })
}

fn write(iptables: &Iptables, host: &HostChange) -> Written {
    let mut written = Written::of(write_rules(iptables, host));
    if let Err(e) = forget_flows(host.netns, &host.old.udp, &host.new.udp) {
        // The rules are right all the same.
        written.trouble = written.trouble.or(Some(format!("flows of UDP could not be forgotten: {e}")));
    }
    written
}

fn write_rules(iptables: &Iptables, host: &HostChange) -> Result<(), String> {
    let all = || put_right(iptables, host.netns, &planned(host.bare, host.new));
    if !host.sure {
        return all();
    }
    match proxy::sync(host.old, host.new).map(|text| iptables.restore_more(host.netns, &text)) {
        None | Some(Ok(())) => Ok(()),
        // Somebody has changed the rules that this was to be put beside.
        Some(Err(Fault::Refused { .. })) => all(),
        Some(Err(e)) => Err(e.to_string()),
    }
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
    // Where nothing can be heard, the period remains.
    let mut watch = RuleWatch::open(&netns).ok();
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
            Err(_) if !ours && watch.is_some() && !daemon.rules_are_silent() => continue,
            Err(_) => {}
        }
        daemon.put_rules_right(&name, &netns).await;
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
        let rules = put.await.map_err(|e| e.to_string()).and_then(|outcome| outcome);
        self.services.note(name, Written::of(rules));
    }
}
