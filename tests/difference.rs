//! The steps from one plan to another, carried out on plans as the kernel carries them out on
//! namespaces: they lead to the new plan, and none is impossible when its turn comes. What the kernel
//! itself makes of them is shown by the tests that run labs.

use std::collections::BTreeSet;

use labctl::lab::names::{IfName, NsName};
use labctl::lab::{self, Lab};
use labctl::plan::diff::{Op, Step, diff};
use labctl::plan::{Link, LinkKind, NsPlan, Plan, plan};
use labctl::spec::load::{Text, decode_text};
use proptest::prelude::*;

/// What the namespaces hold while the steps are taken.
struct World(Vec<NsPlan>);

impl World {
    fn ns(&mut self, ns: &NsName) -> &mut NsPlan {
        self.0.iter_mut().find(|n| n.ns == *ns).unwrap_or_else(|| panic!("there is no namespace {ns}"))
    }

    /// A device goes with all that stands on it, and the other end of a veth pair with it.
    fn remove_device(&mut self, ns: &NsName, dev: &IfName) {
        let plan = self.ns(ns);
        let at = plan.links.iter().position(|l| l.name == *dev).unwrap_or_else(|| panic!("{ns} has no {dev}"));
        let link = plan.links.remove(at);
        plan.addresses.retain(|a| a.dev != *dev);
        plan.routes.retain(|r| r.dev != *dev);
        plan.neighbours.retain(|n| n.dev != *dev);
        plan.fdb.retain(|f| f.dev != *dev);
        let mut above = Vec::new();
        for other in &mut plan.links {
            if other.master.as_ref() == Some(dev) {
                other.master = None;
                other.hairpin = false;
            }
            if matches!(&other.kind, LinkKind::Vxlan { dev: below, .. } if below == dev) {
                above.push(other.name.clone());
            }
        }
        above.iter().for_each(|dev| self.remove_device(ns, dev));
        if let LinkKind::Veth { peer_ns, peer } = &link.kind
            && self.0.iter().any(|n| n.ns == *peer_ns && n.link(peer).is_some())
        {
            self.remove_device(peer_ns, peer);
        }
    }

    fn add_device(&mut self, ns: &NsName, link: &Link) {
        let plan = self.ns(ns);
        assert!(plan.link(&link.name).is_none(), "{ns}: {} is there already", link.name);
        assert!(
            plan.links.iter().all(|l| l.index != link.index),
            "{ns}: index {} of {} is taken",
            link.index,
            link.name
        );
        if let Some(master) = &link.master {
            assert!(plan.link(master).is_some(), "{ns}: no {master} for {}", link.name);
        }
        if let LinkKind::Vxlan { dev, .. } = &link.kind {
            assert!(plan.link(dev).is_some(), "{ns}: no {dev} below {}", link.name);
        }
        plan.links.push(link.clone());
    }

    fn take(&mut self, step: &Step) {
        let ns = &step.ns;
        match &step.op {
            Op::AddNs => {
                assert!(self.0.iter().all(|n| n.ns != *ns), "{ns} is there already");
                self.0.push(NsPlan::new(ns.clone()));
            }
            Op::RemoveNs => {
                for link in self.ns(ns).links.clone() {
                    if self.ns(ns).link(&link.name).is_some() {
                        self.remove_device(ns, &link.name);
                    }
                }
                self.0.retain(|n| n.ns != *ns);
            }
            Op::Mend(deviation) => {
                let all = &mut self.ns(ns).deviations;
                assert!(all.contains(deviation), "{ns}: {deviation} is not there to be mended");
                all.retain(|d| d != deviation);
            }
            Op::SetSysctl(sysctl) => {
                let all = &mut self.ns(ns).sysctls;
                all.retain(|s| s.key != sysctl.key);
                all.push(sysctl.clone());
            }
            Op::AddLink { link, peer } => {
                self.add_device(ns, link);
                if let (LinkKind::Veth { peer_ns, .. }, Some(peer)) = (&link.kind, peer) {
                    self.add_device(peer_ns, peer);
                }
            }
            Op::ChangeLink { from, to } => {
                let master = to.master.as_ref();
                assert!(master.is_none_or(|m| self.ns(ns).link(m).is_some()), "{ns}: no master for {}", to.name);
                let link = self.ns(ns).links.iter_mut().find(|l| l.name == to.name).expect("a link to change");
                assert_eq!(link, &**from, "{ns}: what is changed is what was there");
                *link = (**to).clone();
            }
            // A TUN device has gone with its flanneld already.
            Op::RemoveLink(link) if link.kind == LinkKind::Tun && self.ns(ns).link(&link.name).is_none() => {}
            Op::RemoveLink(link) => self.remove_device(ns, &link.name),
            Op::AddAddress(address) => {
                self.needs(ns, &address.dev);
                self.ns(ns).addresses.push(address.clone());
            }
            Op::RemoveAddress(address) => {
                let plan = self.ns(ns);
                plan.addresses.retain(|a| a != address);
                // With the last address of a device go its routes and neighbours.
                if plan.addresses.iter().all(|a| a.dev != address.dev) {
                    plan.routes.retain(|r| r.dev != address.dev);
                    plan.neighbours.retain(|n| n.dev != address.dev);
                }
            }
            Op::StartDns(dns) => self.ns(ns).dns = Some(dns.clone()),
            Op::StopDns => self.ns(ns).dns = None,
            Op::AddRoute(route) => {
                self.needs(ns, &route.dev);
                let plan = self.ns(ns);
                assert!(plan.routes.iter().all(|r| r.dst != route.dst), "{ns}: a route to {} is there", route.dst);
                let near = |ip| plan.addresses.iter().any(|a| a.dev == route.dev && a.net.contains(&ip));
                assert!(route.onlink || route.via.is_none_or(near), "{ns}: {route} has no neighbour to go by");
                plan.routes.push(route.clone());
            }
            Op::RemoveRoute(route) => self.ns(ns).routes.retain(|r| r != route),
            Op::AddNeighbour(neighbour) => {
                self.needs(ns, &neighbour.dev);
                self.ns(ns).neighbours.push(neighbour.clone());
            }
            Op::RemoveNeighbour(neighbour) => self.ns(ns).neighbours.retain(|n| n != neighbour),
            Op::AddFdb(entry) => {
                self.needs(ns, &entry.dev);
                self.ns(ns).fdb.push(entry.clone());
            }
            Op::RemoveFdb(entry) => self.ns(ns).fdb.retain(|f| f != entry),
            Op::SetRules { from, to } => {
                assert_eq!(&self.ns(ns).rules, from);
                self.ns(ns).rules = to.clone();
            }
            Op::SetFiles(files) => self.ns(ns).files = files.clone(),
            Op::StartFlanneld(flanneld) => {
                assert!(self.ns(ns).flanneld.is_none(), "{ns}: flanneld runs already");
                self.needs(ns, &flanneld.tun);
                self.ns(ns).flanneld = Some(flanneld.clone());
            }
            Op::StopFlanneld => {
                let flanneld = self.ns(ns).flanneld.take().expect("flanneld runs");
                self.remove_device(ns, &flanneld.tun);
            }
            Op::SetPeers(peers) => self.ns(ns).flanneld.as_mut().expect("flanneld runs").peers = peers.clone(),
            Op::StartListener(listener) => {
                let taken = |l: &labctl::plan::Listener| (l.protocol, l.port) == (listener.protocol, listener.port);
                assert!(!self.ns(ns).listeners.iter().any(taken), "{ns}: {listener} is taken");
                self.ns(ns).listeners.push(listener.clone());
            }
            Op::StopListener(listener) => self.ns(ns).listeners.retain(|l| l != listener),
            Op::StartProgram(program) => self.ns(ns).programs.push(program.clone()),
            Op::StopProgram(program) => self.ns(ns).programs.retain(|p| p != program),
        }
    }

    fn needs(&mut self, ns: &NsName, dev: &IfName) {
        assert!(self.ns(ns).link(dev).is_some(), "{ns} has no {dev}");
    }
}

/// What a namespace holds, whatever the order in which it came.
fn contents(ns: &NsPlan) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    all.extend(ns.links.iter().map(|x| format!("{x:?}")));
    all.extend(ns.addresses.iter().map(|x| format!("{x:?}")));
    all.extend(ns.routes.iter().map(|x| format!("{x:?}")));
    all.extend(ns.neighbours.iter().map(|x| format!("{x:?}")));
    all.extend(ns.fdb.iter().map(|x| format!("{x:?}")));
    all.extend(ns.sysctls.iter().map(|x| format!("{x:?}")));
    all.extend(ns.files.iter().map(|x| format!("{x:?}")));
    all.extend(ns.listeners.iter().map(|x| format!("{x:?}")));
    all.extend(ns.programs.iter().map(|x| format!("{x:?}")));
    all.extend(ns.deviations.iter().map(|x| format!("{x:?}")));
    all.insert(format!("{:?} {:?}", ns.rules, ns.flanneld));
    all
}

#[track_caller]
fn leads_there(old: &Plan, new: &Plan) {
    let mut world = World(old.namespaces.clone());
    for step in diff(old, new) {
        world.take(&step);
    }
    assert_eq!(world.0.len(), new.namespaces.len());
    for ns in &new.namespaces {
        let (is, should) = (contents(world.ns(&ns.ns)), contents(ns));
        let (missing, more): (Vec<_>, Vec<_>) = (should.difference(&is).collect(), is.difference(&should).collect());
        assert!(missing.is_empty() && more.is_empty(), "{}\nis missing {missing:#?}\nand has {more:#?}", ns.ns);
    }
}

fn lab(text: &str, before: Option<&Lab>) -> Lab {
    let loaded = decode_text(&Text {
        name: "lab.yaml".into(),
        text: text.into(),
        default_name: "lab".into(),
        ..Text::default()
    });
    let mut problems = loaded.problems.clone();
    lab::resolve(&loaded, before, &mut problems).unwrap_or_else(|| panic!("{text}\n{problems:?}"))
}

/// A lab out of a few choices, so that two of them have much in common.
fn text() -> impl Strategy<Value = String> {
    let backend = prop_oneof![
        Just("backend: vxlan"),
        Just("backend: vxlan, directRouting: true"),
        Just("backend: vxlan, vni: 7, port: 4789"),
        Just("backend: host-gw"),
        Just("backend: udp"),
        Just("backend: udp, port: 9999"),
        Just("backend: vxlan, ipMasq: false"),
    ];
    let network = (any::<bool>(), prop_oneof![Just(1500u16), Just(9000)]);
    let host = (0..2usize, any::<bool>(), any::<bool>());
    let pod = (0..4usize, 0..3usize);
    (
        backend,
        [network.clone(), network],
        prop::collection::vec(host, 1..4),
        prop::collection::vec(pod, 0..5),
        0..4u8,
        any::<bool>(),
    )
        .prop_map(|(backend, networks, hosts, pods, replicas, client)| {
            let mut text = format!("name: any\ncluster: {{ flannel: {{ {backend} }} }}\nnetworks:\n");
            for (n, (other, mtu)) in networks.iter().enumerate() {
                text.push_str(&format!(
                    "  net{n}: {{ cidr: 172.{}.{n}.0/24, mtu: {mtu} }}\n",
                    if *other { 20 } else { 21 }
                ));
            }
            text.push_str("hosts:\n");
            for (n, (network, address, ports)) in hosts.iter().enumerate() {
                let subnet = if *address { format!(", podCIDR: 10.244.{}.0/24", 100 + n) } else { String::new() };
                let ports = if *ports { ", ports: [9000]" } else { "" };
                text.push_str(&format!("  host{n}: {{ network: net{network}{subnet}{ports} }}\n"));
            }
            if client {
                text.push_str("clients: { laptop: { network: net1 } }\n");
            }
            text.push_str("pods:\n");
            for (n, (host, what)) in pods.iter().enumerate() {
                let host = if *host < hosts.len() { format!("host: host{host}, ") } else { String::new() };
                let what = ["", "ports: [80, 81]", "command: [sleep, '9'], env: [{ name: A, value: b }]"][*what];
                text.push_str(&format!("  pod{n}: {{ {host}{what} }}\n"));
            }
            text.push_str(&format!("deployments: {{ set: {{ replicas: {replicas} }} }}\n"));
            text
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 384, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_steps_between_two_labs_lead_from_one_to_the_other(old in text(), new in text()) {
        let before = lab(&old, None);
        leads_there(&plan(&before), &plan(&lab(&new, Some(&before))));
        // Also where nothing is kept, as when a lab is built anew in place of another.
        leads_there(&plan(&before), &plan(&lab(&new, None)));
        leads_there(&Plan::default(), &plan(&before));
        leads_there(&plan(&before), &Plan::default());
    }
}
