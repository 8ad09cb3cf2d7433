//! Which steps lead from one plan to another. The first build is the way from nothing; a live
//! change is the way from what the kernel holds now. There is no other way to change a lab.
//!
//! What hangs together goes together: a removed link takes its addresses, routes and entries
//! with it, the end of a veth pair its other end, a lower device the VXLAN device on top. So the
//! old plan is first reduced to what survives the removals, and everything that the survivors
//! lack is added.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use crate::lab::names::{IfName, NsName};

use super::deviation::Deviation;
use super::rules::Rules;
use super::types::{
    Address, DnsServer, FdbEntry, File, Flanneld, Link, LinkKind, Listener, Neighbour, NsPlan, PeerLease, Plan,
    Program, Route, Sysctl,
};

/// The device that every namespace has by itself.
const LOOPBACK: &str = "lo";

/// One change in one namespace.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    pub ns: NsName,
    #[serde(flatten)]
    pub op: Op,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "op", content = "what", rename_all = "kebab-case")]
pub enum Op {
    AddNs,
    RemoveNs,
    /// Undo what no plan has words for.
    Mend(Deviation),
    SetSysctl(Sysctl),
    /// Make a link; with a veth pair the other end comes with it, in its own namespace.
    AddLink {
        link: Box<Link>,
        peer: Option<Box<Link>>,
    },
    /// Give a link that is there its MTU, MAC address and bridge.
    ChangeLink {
        from: Box<Link>,
        to: Box<Link>,
    },
    RemoveLink(Box<Link>),
    AddAddress(Address),
    RemoveAddress(Address),
    AddRoute(Route),
    RemoveRoute(Route),
    AddNeighbour(Neighbour),
    RemoveNeighbour(Neighbour),
    AddFdb(FdbEntry),
    RemoveFdb(FdbEntry),
    SetRules {
        from: Rules,
        to: Rules,
    },
    SetFiles(Vec<File>),
    StartFlanneld(Flanneld),
    StopFlanneld,
    SetPeers(Vec<PeerLease>),
    StartDns(DnsServer),
    StopDns,
    StartListener(Listener),
    StopListener(Listener),
    StartProgram(Program),
    StopProgram(Program),
}

/// Steps of one stage do not depend on each other across namespaces, so that they can be sent to
/// the kernel in one go for each namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Stage {
    Stop,
    Remove,
    RemoveNs,
    AddNs,
    Links,
    Configure,
    Rules,
    Workloads,
}

impl Op {
    /// The stage, and the order within it.
    fn order(&self) -> (Stage, u8) {
        match self {
            Op::StopProgram(_) | Op::StopListener(_) | Op::StopFlanneld | Op::StopDns => (Stage::Stop, 0),
            // While the devices that they are about are still there.
            Op::Mend(_) | Op::RemoveRoute(_) => (Stage::Remove, 0),
            Op::RemoveNeighbour(_) | Op::RemoveFdb(_) => (Stage::Remove, 1),
            Op::RemoveAddress(_) => (Stage::Remove, 2),
            Op::RemoveLink(_) => (Stage::Remove, 3),
            Op::RemoveNs => (Stage::RemoveNs, 0),
            Op::AddNs => (Stage::AddNs, 0),
            Op::SetSysctl(s) if s.device().is_none() => (Stage::AddNs, 1),
            Op::AddLink { .. } | Op::ChangeLink { .. } => (Stage::Links, 0),
            Op::AddAddress(_) => (Stage::Configure, 0),
            Op::AddNeighbour(_) | Op::AddFdb(_) => (Stage::Configure, 1),
            Op::AddRoute(_) => (Stage::Configure, 2),
            // A device's own comes with it.
            Op::SetSysctl(_) => (Stage::Configure, 3),
            Op::SetRules { .. } => (Stage::Rules, 0),
            Op::SetFiles(_) => (Stage::Workloads, 0),
            Op::StartFlanneld(_) | Op::SetPeers(_) => (Stage::Workloads, 1),
            Op::StartListener(_) | Op::StartDns(_) | Op::StartProgram(_) => (Stage::Workloads, 2),
        }
    }
}

impl Step {
    pub fn stage(&self) -> Stage {
        self.op.order().0
    }
}

/// The steps from `old` to `new`, in an order in which each one is possible.
pub fn diff(old: &Plan, new: &Plan) -> Vec<Step> {
    let mut differ = Differ::new(old, new);
    differ.removals();
    for ns in &new.namespaces {
        differ.additions(ns);
    }
    let mut order: HashMap<&NsName, usize> = HashMap::new();
    for ns in new.namespaces.iter().chain(&old.namespaces) {
        let next = order.len();
        order.entry(&ns.ns).or_insert(next);
    }
    let mut steps = differ.steps;
    steps.sort_by_key(|s| {
        let (stage, within) = s.op.order();
        (stage, order.get(&s.ns).copied(), within)
    });
    steps
}

struct Differ<'a> {
    old: HashMap<&'a NsName, &'a NsPlan>,
    new: HashMap<&'a NsName, &'a NsPlan>,
    /// Old namespaces in their order, so that the same plans always give the same steps.
    old_order: Vec<&'a NsPlan>,
    /// Links that the removals take away, at both ends.
    gone: HashSet<(NsName, IfName)>,
    steps: Vec<Step>,
}

impl<'a> Differ<'a> {
    fn new(old: &'a Plan, new: &'a Plan) -> Self {
        Differ {
            old: old.namespaces.iter().map(|n| (&n.ns, n)).collect(),
            new: new.namespaces.iter().map(|n| (&n.ns, n)).collect(),
            old_order: old.namespaces.iter().collect(),
            gone: HashSet::new(),
            steps: Vec::new(),
        }
    }

    fn push(&mut self, ns: &NsName, op: Op) {
        self.steps.push(Step { ns: ns.clone(), op });
    }

    fn removals(&mut self) {
        for old in self.old_order.clone() {
            match self.new.get(&old.ns).copied() {
                None => self.remove_ns(old),
                Some(new) => {
                    for link in &old.links {
                        let stays = new.link(&link.name).is_some_and(|n| same_link(link, n))
                            && self.is_plugged_in(&old.ns, link)
                            && !restarts(old, new, link);
                        if !stays {
                            self.remove_link(old, link);
                        }
                    }
                }
            }
        }
        // A VXLAN device goes with the device below it.
        let over = |(ns, link): &(&NsName, &Link)| match &link.kind {
            LinkKind::Vxlan { dev, .. } => self.gone.contains(&((*ns).clone(), dev.clone())),
            _ => false,
        };
        let all = self.old_order.iter().flat_map(|n| n.links.iter().map(|l| (&n.ns, l)));
        let fallen: Vec<_> = all.filter(over).map(|(ns, l)| (ns.clone(), l.name.clone())).collect();
        self.gone.extend(fallen);
    }

    /// Whether a cable's other end is there under its own name. Where somebody renamed it, the whole
    /// pair is laid anew.
    fn is_plugged_in(&self, ns: &NsName, link: &Link) -> bool {
        let LinkKind::Veth { peer_ns, peer } = &link.kind else { return true };
        let back = LinkKind::Veth { peer_ns: ns.clone(), peer: link.name.clone() };
        self.old.get(peer_ns).and_then(|far| far.link(peer)).is_some_and(|far| far.kind == back)
    }

    fn remove_ns(&mut self, old: &NsPlan) {
        self.stop_workloads(old, None);
        // The kernel takes a namespace apart in its own time; the far ends of its cables must not
        // linger until then, or their names could not be used again at once.
        for link in &old.links {
            self.gone.insert((old.ns.clone(), link.name.clone()));
            if let LinkKind::Veth { peer_ns, peer } = &link.kind {
                let far = self.old.get(peer_ns).copied();
                let survives = self.new.contains_key(peer_ns);
                if let (Some(far), true) = (far, survives)
                    && let Some(peer) = far.link(peer)
                {
                    self.remove_link(far, peer);
                }
            }
        }
        self.push(&old.ns, Op::RemoveNs);
    }

    fn remove_link(&mut self, ns: &NsPlan, link: &Link) {
        if !self.gone.insert((ns.ns.clone(), link.name.clone())) {
            return;
        }
        if let LinkKind::Veth { peer_ns, peer } = &link.kind
            && self.is_plugged_in(&ns.ns, link)
        {
            self.gone.insert((peer_ns.clone(), peer.clone()));
        }
        self.push(&ns.ns, Op::RemoveLink(Box::new(link.clone())));
    }

    fn stop_workloads(&mut self, old: &NsPlan, new: Option<&NsPlan>) {
        for listener in &old.listeners {
            if !new.is_some_and(|n| n.listeners.contains(listener)) {
                self.push(&old.ns, Op::StopListener(listener.clone()));
            }
        }
        for program in &old.programs {
            if !new.is_some_and(|n| n.programs.contains(program)) {
                self.push(&old.ns, Op::StopProgram(program.clone()));
            }
        }
        if old.dns.is_some() && new.is_none_or(|n| n.dns != old.dns) {
            self.push(&old.ns, Op::StopDns);
        }
        let keeps = new.is_some_and(|n| flanneld_goes_on(old, n));
        if old.flanneld.is_some() && !keeps {
            self.push(&old.ns, Op::StopFlanneld);
        }
    }

    fn additions(&mut self, new: &NsPlan) {
        let empty = NsPlan::new(new.ns.clone());
        let old = match self.old.get(&new.ns).copied() {
            Some(old) => old,
            None => {
                self.push(&new.ns, Op::AddNs);
                &empty
            }
        };
        for sysctl in &new.sysctls {
            let falls = sysctl.device().is_some_and(|dev| self.is_gone(&new.ns, &IfName::new(dev)));
            if falls || !old.sysctls.contains(sysctl) {
                self.push(&new.ns, Op::SetSysctl(sysctl.clone()));
            }
        }
        for deviation in &old.deviations {
            let falls = deviation.device().is_some_and(|dev| self.is_gone(&new.ns, dev));
            if !falls {
                self.push(&new.ns, Op::Mend(deviation.clone()));
            }
        }
        self.links(old, new);
        self.configuration(old, new);
        if old.rules != new.rules {
            self.push(&new.ns, Op::SetRules { from: old.rules.clone(), to: new.rules.clone() });
        }
        self.workloads(old, new);
    }

    fn is_gone(&self, ns: &NsName, dev: &IfName) -> bool {
        self.gone.contains(&(ns.clone(), dev.clone()))
    }

    fn links(&mut self, old: &NsPlan, new: &NsPlan) {
        for link in &new.links {
            match old.link(&link.name).filter(|l| !self.is_gone(&new.ns, &l.name)) {
                Some(there) => {
                    let mut there = there.clone();
                    there.master = there.master.filter(|m| !self.is_gone(&new.ns, m));
                    there.hairpin &= there.master.is_some();
                    if there != *link {
                        let (from, to) = (Box::new(there), Box::new(link.clone()));
                        self.push(&new.ns, Op::ChangeLink { from, to });
                    }
                }
                None => self.add_link(new, link),
            }
        }
    }

    fn add_link(&mut self, new: &NsPlan, link: &Link) {
        let mut peer = None;
        if let LinkKind::Veth { peer_ns, peer: name } = &link.kind {
            if link.master.is_none() {
                return; // the other end makes the pair
            }
            let far = self.new.get(peer_ns).and_then(|n| n.link(name));
            peer = far.map(|l| Box::new(l.clone()));
        }
        self.push(&new.ns, Op::AddLink { link: Box::new(link.clone()), peer });
    }

    fn configuration(&mut self, old: &NsPlan, new: &NsPlan) {
        let there = |dev: &IfName| !self.is_gone(&new.ns, dev);
        let addresses: Vec<_> = old.addresses.iter().filter(|a| there(&a.dev)).collect();
        // With a device's last address the kernel drops all its routes and neighbour entries, the
        // permanent ones too (`fib_disable_ip`); they must be written again.
        let keeps = |dev: &IfName| addresses.iter().any(|a| a.dev == *dev && new.addresses.contains(a));
        // The loopback device keeps the address that no plan speaks of.
        let bare = addresses.iter().map(|a| &a.dev).filter(|dev| dev.as_str() != LOOPBACK && !keeps(dev));
        let bare: HashSet<&IfName> = bare.collect();
        let stays = |dev: &IfName| there(dev) && !bare.contains(dev);
        let routes: Vec<_> = old.routes.iter().filter(|r| r.devices().all(stays)).collect();
        // The kernel keeps a route of several next hops until the last of their devices is gone.
        let limping = old.routes.iter().filter(|r| r.devices().any(stays) && !r.devices().all(stays));
        let limping: Vec<_> = limping.map(|r| Op::RemoveRoute(r.clone())).collect();
        let neighbours: Vec<_> = old.neighbours.iter().filter(|n| stays(&n.dev)).collect();
        let fdb: Vec<_> = old.fdb.iter().filter(|f| there(&f.dev)).collect();
        let mut ops = limping;
        changes(&addresses, &new.addresses, Op::AddAddress, Op::RemoveAddress, &mut ops);
        changes(&neighbours, &new.neighbours, Op::AddNeighbour, Op::RemoveNeighbour, &mut ops);
        changes(&fdb, &new.fdb, Op::AddFdb, Op::RemoveFdb, &mut ops);
        changes(&routes, &new.routes, Op::AddRoute, Op::RemoveRoute, &mut ops);
        for op in ops {
            self.push(&new.ns, op);
        }
    }

    fn workloads(&mut self, old: &NsPlan, new: &NsPlan) {
        self.stop_workloads(old, Some(new));
        if !new.files.is_empty() && old.files != new.files {
            self.push(&new.ns, Op::SetFiles(new.files.clone()));
        }
        if let Some(flanneld) = &new.flanneld {
            match &old.flanneld {
                Some(was) if flanneld_goes_on(old, new) => {
                    if was.peers != flanneld.peers {
                        self.push(&new.ns, Op::SetPeers(flanneld.peers.clone()));
                    }
                }
                _ => self.push(&new.ns, Op::StartFlanneld(flanneld.clone())),
            }
        }
        if let Some(dns) = new.dns.as_ref().filter(|dns| old.dns.as_ref() != Some(dns)) {
            self.push(&new.ns, Op::StartDns(dns.clone()));
        }
        for listener in new.listeners.iter().filter(|l| !old.listeners.contains(l)) {
            self.push(&new.ns, Op::StartListener(listener.clone()));
        }
        for program in new.programs.iter().filter(|p| !old.programs.contains(p)) {
            self.push(&new.ns, Op::StartProgram(program.clone()));
        }
    }
}

/// Whether a link can stay as the device that it is, changed at most.
fn same_link(a: &Link, b: &Link) -> bool {
    a.kind == b.kind && a.index == b.index && a.mac.is_some() == b.mac.is_some()
}

/// Whether the flanneld behind a TUN device is started anew, and the device with it.
fn restarts(old: &NsPlan, new: &NsPlan, link: &Link) -> bool {
    link.kind == LinkKind::Tun && !flanneld_goes_on(old, new)
}

/// Whether the same process can go on; its peers can be told to it. Without its device it cannot.
fn flanneld_goes_on(old: &NsPlan, new: &NsPlan) -> bool {
    let strip = |f: &Flanneld| Flanneld { peers: Vec::new(), ..f.clone() };
    let device = |f: &Flanneld| old.link(&f.tun).is_some_and(|l| l.kind == LinkKind::Tun);
    old.flanneld.as_ref().map(strip) == new.flanneld.as_ref().map(strip) && old.flanneld.as_ref().is_none_or(device)
}

fn changes<T: Clone + PartialEq + Eq + std::hash::Hash>(
    old: &[&T],
    new: &[T],
    add: fn(T) -> Op,
    remove: fn(T) -> Op,
    ops: &mut Vec<Op>,
) {
    let wanted: HashSet<&T> = new.iter().collect();
    let there: HashSet<&T> = old.iter().copied().collect();
    ops.extend(old.iter().filter(|t| !wanted.contains(**t)).map(|t| remove((*t).clone())));
    ops.extend(new.iter().filter(|t| !there.contains(t)).map(|t| add(t.clone())));
}
