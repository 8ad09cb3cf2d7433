//! kube-proxy's rules in the hosts' namespaces: written as they change, and flows of UDP forgotten that
//! lead to endpoints which are no more.
//!
//! What the rules are is `plan::proxy`'s, when they change `super::services`' business, and that they
//! are put right when somebody changes them by hand `super::watchers`'.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::kernel::conntrack;
use crate::kernel::iptables::{Fault, Iptables};
use crate::kernel::ns::NetNs;
use crate::lab::names::HostName;
use crate::plan::proxy::conntrack::{UdpFlow, UdpServices};
use crate::plan::proxy::mend::{IsOwn, is_kube_proxys, mended};
use crate::plan::proxy::{self, ProxyRules};
use crate::plan::rules::Rules;
/// So many programs that write rules run at once; most of their time they wait for the kernel.
const AT_ONCE: usize = 16;

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
    pub fn of(rules: Result<(), String>) -> Written {
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
    let all = || put_right(iptables, host.netns, &planned(host.bare, host.new), is_kube_proxys);
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
pub fn planned(bare: &Rules, proxy: &ProxyRules) -> Rules {
    let mut rules = bare.clone();
    proxy.add_to(&mut rules);
    rules
}

/// Read what a namespace holds and put the part of it right whose chains are the owner's.
pub fn put_right(iptables: &Iptables, netns: &NetNs, planned: &Rules, is_own: IsOwn) -> Result<(), String> {
    let there = iptables.save(netns).map_err(|e| e.to_string())?;
    match there.changes_to(&mended(&there, planned, is_own)) {
        Some(text) => iptables.restore_more(netns, &text).map_err(|e| e.to_string()),
        None => Ok(()),
    }
}
