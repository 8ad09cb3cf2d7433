//! The namespaces of one lab and the steps that change them.
//!
//! A [`World`] owns every namespace of its lab by descriptor. [`World::apply`] takes steps in the
//! order in which `plan::diff` gives them and sends what belongs together in one go. It must be
//! called on a thread of its own, because that thread walks through the namespaces.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::lab::names::NsName;
use crate::plan::deviation::Deviation;
use crate::plan::diff::{Op, Stage, Step};
use crate::plan::rules::Rules;
use crate::plan::{Link, LinkKind, Sysctl};

use super::iptables::{self, Iptables};
use super::message::{self, Far};
use super::ns::NetNs;
use super::restore::{self, Wanted};
use super::rtnl::{self, Request, Rtnl};
use super::{deviations, sysctl, tables, tun};

/// A step that could not be done, and why.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {why}")]
pub struct Failed {
    /// The step in words.
    pub step: String,
    pub why: Why,
}

#[derive(Debug, thiserror::Error)]
pub enum Why {
    #[error("{0}")]
    Netlink(#[from] rtnl::Fault),
    #[error("netlink: {0}")]
    Socket(#[from] io::Error),
    #[error("{0}")]
    Iptables(#[from] iptables::Fault),
    #[error("{key}: {error}")]
    Sysctl { key: String, error: io::Error },
    #[error("{file} cannot be opened: {0}", file = tun::DEVICE_FILE)]
    Tun(io::Error),
    #[error("a namespace cannot be made: {0}")]
    Namespace(io::Error),
    #[error("there is no namespace `{0}`")]
    Unknown(NsName),
}

impl Failed {
    pub fn new(step: &Step, why: impl Into<Why>) -> Failed {
        Failed { step: step.to_string(), why: why.into() }
    }

    /// What a thread was doing when it ended without an answer.
    pub fn panicked(doing: &str) -> Failed {
        Failed { step: doing.to_owned(), why: Why::Socket(io::Error::other("its thread panicked")) }
    }
}

/// One namespace of the lab.
struct Space {
    netns: NetNs,
    /// Opened when first needed. Pods' sockets are closed after each change: a thousand would be
    /// many descriptors for nothing.
    rtnl: Option<Rtnl>,
    /// Device indices by name, as the plan gives them.
    indices: HashMap<String, u32>,
    /// Far ends of new veth pairs, which are still to be brought up.
    down: Vec<u32>,
}

/// The namespaces of one lab.
pub struct World {
    spaces: BTreeMap<NsName, Space>,
    iptables: Option<Iptables>,
    /// TUN devices whose flanneld has not been started yet.
    tuns: HashMap<NsName, OwnedFd>,
    /// Sysctls as a new namespace has them; what already fits need not be written.
    fresh: HashMap<String, String>,
}

impl World {
    /// A world with nothing but the router, which is the calling process' own namespace.
    pub fn new(router: NetNs) -> World {
        let mut spaces = BTreeMap::new();
        spaces.insert(NsName::Router, Space::new(router));
        World { spaces, iptables: None, tuns: HashMap::new(), fresh: HashMap::new() }
    }

    pub fn namespaces(&self) -> impl Iterator<Item = (&NsName, &NetNs)> {
        self.spaces.iter().map(|(name, space)| (name, &space.netns))
    }

    pub fn netns(&self, ns: &NsName) -> Option<&NetNs> {
        self.spaces.get(ns).map(|space| &space.netns)
    }

    /// The descriptor of a TUN device that [`World::apply`] made, for its flanneld.
    pub fn take_tun(&mut self, ns: &NsName) -> Option<OwnedFd> {
        self.tuns.remove(ns)
    }

    /// The iptables that was chosen when the first rules were written.
    pub fn iptables(&self) -> Option<&Iptables> {
        self.iptables.as_ref()
    }

    /// Do the steps that concern the kernel. Steps of [`Stage::Stop`] and [`Stage::Workloads`] are
    /// not this module's and are passed over. The first step that fails ends the work.
    pub fn apply(&mut self, steps: &[Step]) -> Result<(), Failed> {
        let (namespaces, contents) = steps.split_at(steps.partition_point(|s| s.stage() <= Stage::AddNs));
        self.stages(namespaces)?;
        let rules = contents.iter().filter(|s| s.stage() == Stage::Rules);
        let wanted: Vec<_> = rules.map(|s| self.wanted(s)).collect::<Result<_, _>>()?;
        let known = self.iptables.clone();
        let (netlink, written) = std::thread::scope(|scope| {
            let writing = scope.spawn(|| restore::write_all(known, &wanted));
            (self.stages(contents), writing.join())
        });
        netlink?;
        self.iptables = written.unwrap_or_else(|_| Err(Failed::panicked("rules")))?;
        self.spaces.iter_mut().try_for_each(|(ns, space)| space.settle(ns))
    }

    /// Do all steps but those that set rules, stage by stage.
    fn stages(&mut self, steps: &[Step]) -> Result<(), Failed> {
        let mut rest = steps;
        while let Some(first) = rest.first() {
            let stage = first.stage();
            let length = rest.iter().take_while(|s| s.stage() == stage).count();
            let (now, later) = rest.split_at(length);
            match stage {
                Stage::Stop | Stage::Rules | Stage::Workloads => {}
                Stage::RemoveNs => now.iter().for_each(|s| {
                    self.spaces.remove(&s.ns);
                    self.tuns.remove(&s.ns);
                }),
                Stage::AddNs => self.add_namespaces(now)?,
                Stage::Remove | Stage::Links | Stage::Configure => self.by_namespace(now)?,
            }
            rest = later;
        }
        Ok(())
    }

    fn wanted<'s>(&self, step: &'s Step) -> Result<Wanted<'s>, Failed> {
        let space = self.spaces.get(&step.ns).ok_or_else(|| Failed::new(step, Why::Unknown(step.ns.clone())))?;
        Ok(Wanted { step, netns: space.netns.clone() })
    }

    fn space(&mut self, step: &Step) -> Result<&mut Space, Failed> {
        let unknown = || Failed::new(step, Why::Unknown(step.ns.clone()));
        self.spaces.get_mut(&step.ns).ok_or_else(unknown)
    }

    fn add_namespaces(&mut self, steps: &[Step]) -> Result<(), Failed> {
        for group in steps.chunk_by(|a, b| a.ns == b.ns) {
            let new = group.iter().any(|s| s.op == Op::AddNs) && !self.spaces.contains_key(&group[0].ns);
            let netns = if new {
                let netns = NetNs::create_and_enter().map_err(|e| Failed::new(&group[0], Why::Namespace(e)))?;
                let mut space = Space::new(netns.clone());
                // We are inside, so the socket can be opened without another walk.
                space.rtnl = Some(Rtnl::open().map_err(|e| Failed::new(&group[0], Why::from(e)))?);
                self.spaces.insert(group[0].ns.clone(), space);
                netns
            } else {
                let netns = self.space(&group[0])?.netns.clone();
                netns.enter().map_err(|e| Failed::new(&group[0], Why::Namespace(e)))?;
                netns
            };
            self.sysctls(group, new)?;
            drop(netns);
            if group.iter().any(|s| s.op == Op::AddNs) {
                let rtnl = self.space(&group[0])?.rtnl().map_err(|e| Failed::new(&group[0], Why::from(e)))?;
                let loopback = vec![message::link_up(message::LOOPBACK)];
                rtnl.batch(loopback).map_err(|e| Failed::new(&group[0], Why::from(e)))?;
            }
        }
        Ok(())
    }

    /// Write sysctls in the namespace that the calling thread is in.
    fn sysctls(&mut self, steps: &[Step], new: bool) -> Result<(), Failed> {
        for step in steps {
            let Op::SetSysctl(sysctl) = &step.op else { continue };
            if new && self.is_so_already(sysctl) {
                continue;
            }
            sysctl::write(sysctl).map_err(|error| Failed::new(step, Why::Sysctl { key: sysctl.key.clone(), error }))?;
        }
        Ok(())
    }

    /// Every new namespace begins with the same values, so the first one's are remembered.
    fn is_so_already(&mut self, wanted: &Sysctl) -> bool {
        if let Some(value) = self.fresh.get(&wanted.key) {
            return *value == wanted.value;
        }
        let value = sysctl::read(&wanted.key).unwrap_or_default();
        let same = value == wanted.value;
        self.fresh.insert(wanted.key.clone(), value);
        same
    }

    /// Netlink steps, in one batch for each namespace.
    fn by_namespace(&mut self, steps: &[Step]) -> Result<(), Failed> {
        for group in steps.chunk_by(|a, b| a.ns == b.ns) {
            let mut requests = self.space(&group[0])?.raise();
            // Which step each request belongs to, for the kernel's refusals.
            let mut of_step = vec![0; requests.len()];
            for (i, step) in group.iter().enumerate() {
                if self.make_tun(step)? || self.drop_tun(step)? || self.mend_others(step)? || is_sysctl(step) {
                    continue;
                }
                for request in self.requests(step)? {
                    requests.push(request);
                    of_step.push(i);
                }
            }
            let first = &group[0];
            let rtnl = self.space(first)?.rtnl().map_err(|e| Failed::new(first, e))?;
            if let Err(fault) = rtnl.batch(requests) {
                let step = match &fault {
                    rtnl::Fault::Refused { index, .. } => of_step.get(*index).map_or(first, |i| &group[*i]),
                    rtnl::Fault::Io(_) => first,
                };
                return Err(Failed::new(step, fault));
            }
            self.device_sysctls(group)?;
        }
        Ok(())
    }

    /// Settings of devices, which are there by now.
    fn device_sysctls(&mut self, group: &[Step]) -> Result<(), Failed> {
        let Some(first) = group.iter().find(|s| is_sysctl(s)) else { return Ok(()) };
        let netns = self.space(first)?.netns.clone();
        netns.run(|| self.sysctls(group, false)).map_err(|e| Failed::new(first, Why::Namespace(e)))?
    }

    /// A TUN device goes with the flanneld that holds it, or with our own descriptor where none was
    /// started yet; only one that somebody else holds is still there to be removed. Returns whether
    /// the step was about one.
    fn drop_tun(&mut self, step: &Step) -> Result<bool, Failed> {
        let Op::RemoveLink(link) = &step.op else { return Ok(false) };
        if link.kind != LinkKind::Tun {
            return Ok(false);
        }
        self.tuns.remove(&step.ns);
        let space = self.space(step)?;
        space.indices.remove(link.name.as_str());
        let index = space.netns.run(|| nix::net::if_::if_nametoindex(link.name.as_str()));
        if let Ok(index) = index.map_err(|e| Failed::new(step, e))? {
            let rtnl = space.rtnl().map_err(|e| Failed::new(step, e))?;
            rtnl.batch(vec![message::remove_link(index)]).map_err(|e| Failed::new(step, e))?;
        }
        Ok(true)
    }

    /// A TUN device is made by opening a file, not by a message. Returns whether it was one.
    fn make_tun(&mut self, step: &Step) -> Result<bool, Failed> {
        let Op::AddLink { link, .. } = &step.op else { return Ok(false) };
        if link.kind != LinkKind::Tun {
            return Ok(false);
        }
        let space = self.space(step)?;
        let made = space.netns.run(|| tun::create(link));
        let fd = made.and_then(|r| r).map_err(|e| Failed::new(step, Why::Tun(e)))?;
        space.indices.insert(link.name.to_string(), link.index);
        let was = Link { mtu: 0, ..(**link).clone() };
        let rtnl = space.rtnl().map_err(|e| Failed::new(step, e))?;
        rtnl.batch(message::change_link(&was, link, &|_| 0)).map_err(|e| Failed::new(step, e))?;
        self.tuns.insert(step.ns.clone(), fd);
        Ok(true)
    }

    /// Tables that somebody else made for packets, and settings, are no matter of rtnetlink. Returns whether the
    /// step was about such.
    fn mend_others(&mut self, step: &Step) -> Result<bool, Failed> {
        let netns = self.space(step)?.netns.clone();
        match &step.op {
            Op::Mend(Deviation::NftTable(table)) => {
                let deleted = netns.run(|| tables::delete(table)).and_then(|r| r);
                deleted.map(|()| true).map_err(|e| Failed::new(step, e))
            }
            Op::Mend(Deviation::Setting(setting)) => {
                let written = netns.run(|| sysctl::write(&setting.wanted)).and_then(|r| r);
                written.map(|()| true).map_err(|e| Failed::new(step, e))
            }
            Op::Mend(Deviation::LegacyRules(rules)) => {
                let legacy = Iptables::legacy().ok_or(iptables::Fault::Missing);
                let empty = iptables::replacing(rules, &Rules::default());
                let emptied = legacy.and_then(|legacy| legacy.restore(&netns, &empty));
                emptied.map(|()| true).map_err(|e| Failed::new(step, e))
            }
            _ => Ok(false),
        }
    }

    fn requests(&mut self, step: &Step) -> Result<Vec<Request>, Failed> {
        if let Op::AddLink { link, peer } = &step.op {
            return self.add_link(step, link, peer.as_deref());
        }
        let space = self.space(step)?;
        let index = |dev: &str| space.index(dev);
        Ok(match &step.op {
            Op::ChangeLink { from, to } => {
                let master = to.master.as_ref().map_or(0, |m| index(m.as_str()));
                let to = Link { index: index(to.name.as_str()), ..(**to).clone() };
                message::change_link(from, &to, &|_| master)
            }
            Op::Mend(deviation) => deviations::mend(deviation),
            Op::RemoveLink(link) => {
                // Its own index as it was read: one that is not ours has none in our book.
                space.indices.remove(link.name.as_str());
                vec![message::remove_link(link.index)]
            }
            Op::AddAddress(a) => vec![message::add_address(a, index(a.dev.as_str()))],
            Op::RemoveAddress(a) => vec![message::remove_address(a, index(a.dev.as_str()))],
            Op::AddRoute(r) => vec![message::add_route(r, &index)],
            Op::RemoveRoute(r) => vec![message::remove_route(r, &index)],
            Op::AddNeighbour(n) => vec![message::add_neighbour(n, index(n.dev.as_str()))],
            Op::RemoveNeighbour(n) => vec![message::remove_neighbour(n, index(n.dev.as_str()))],
            Op::AddFdb(e) => vec![message::add_fdb(e, index(e.dev.as_str()))],
            Op::RemoveFdb(e) => vec![message::remove_fdb(e, index(e.dev.as_str()))],
            _ => Vec::new(),
        })
    }

    fn add_link(&mut self, step: &Step, link: &Link, peer: Option<&Link>) -> Result<Vec<Request>, Failed> {
        let mut far_netns = None;
        if let (LinkKind::Veth { peer_ns, .. }, Some(peer)) = (&link.kind, peer) {
            let unknown = || Failed::new(step, Why::Unknown(peer_ns.clone()));
            let far = self.spaces.get_mut(peer_ns).ok_or_else(unknown)?;
            far.indices.insert(peer.name.to_string(), peer.index);
            far.down.push(peer.index);
            far_netns = Some(far.netns.as_raw_fd());
        }
        let space = self.space(step)?;
        space.indices.insert(link.name.to_string(), link.index);
        let far = peer.zip(far_netns).map(|(link, netns)| Far { link, netns });
        let indices = &space.indices;
        Ok(message::add_link(link, far.as_ref(), &|dev| indices.get(dev).copied().unwrap_or_default()))
    }
}

fn is_sysctl(step: &Step) -> bool {
    matches!(step.op, Op::SetSysctl(_))
}

impl Space {
    fn new(netns: NetNs) -> Space {
        let indices = HashMap::from([("lo".to_owned(), message::LOOPBACK)]);
        Space { netns, rtnl: None, indices, down: Vec::new() }
    }

    /// Requests that bring up the far ends of new pairs. A pair's far end cannot be born up: the
    /// kernel opens it before it knows its peer, and refuses (`veth_open`).
    fn raise(&mut self) -> Vec<Request> {
        self.down.drain(..).map(message::link_up).collect()
    }

    /// After a change: nothing is left down, and a pod's socket is not kept.
    fn settle(&mut self, ns: &NsName) -> Result<(), Failed> {
        let failed = |why: Why| Failed { step: format!("{ns}: link set up"), why };
        if !self.down.is_empty() {
            let requests = self.raise();
            let rtnl = self.rtnl().map_err(|e| failed(e.into()))?;
            rtnl.batch(requests).map_err(|e| failed(e.into()))?;
        }
        if matches!(ns, NsName::Pod(_)) {
            self.rtnl = None;
        }
        Ok(())
    }

    fn rtnl(&mut self) -> io::Result<&mut Rtnl> {
        if self.rtnl.is_none() {
            self.rtnl = Some(self.netns.run(Rtnl::open)??);
        }
        self.rtnl.as_mut().ok_or_else(|| io::Error::other("no netlink socket"))
    }

    fn index(&self, dev: &str) -> u32 {
        self.indices.get(dev).copied().unwrap_or_default()
    }
}
