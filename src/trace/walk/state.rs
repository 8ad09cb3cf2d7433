//! What a walk goes through, indexed once: the namespaces of a plan, planned or read back, and what
//! only an observer can know beside it.

use std::cell::OnceCell;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use crate::kernel::learnt::PathMtu;
use crate::lab::names::{HostName, IfName, NsName};
use crate::plan::deviation::Deviation;
use crate::plan::proxy::explain::Rule;
use crate::plan::rules::{Chain, Rules};
use crate::plan::{Link, LinkKind, Mac, Neighbour, NsPlan, Plan, Sysctl};
use crate::trace::model::{Means, Ruleset};

use super::netfilter::Parts;
use super::routing::Tables;

/// What an observer knows beside what a plan says.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Neighbours that the kernel has learnt, with the namespace that has.
    pub neighbours: Vec<(NsName, Neighbour)>,
    /// How large packets may be on their way, as the kernel was told, with the namespace that was.
    pub path_mtus: Vec<(NsName, PathMtu)>,
    /// Settings that no plan has, such as `net/ipv4/conf/eth0/rp_filter`.
    pub sysctls: Vec<(NsName, Sysctl)>,
    /// Namespaces whose table of tracked connections is full.
    pub conntrack_full: BTreeSet<NsName>,
}

impl Known {
    /// What a namespace remembers of the way to an address.
    pub fn path_mtu(&self, place: &NsName, to: IpAddr) -> Option<&PathMtu> {
        self.path_mtus.iter().find(|(ns, learnt)| ns == place && learnt.to == to).map(|(_, learnt)| learnt)
    }
}

/// A lab as it is walked through.
pub struct State<'a> {
    places: Vec<Place<'a>>,
    by_name: HashMap<&'a NsName, usize>,
    owners: HashMap<IpAddr, Vec<usize>>,
    known: Option<&'a Known>,
    pub(super) means: Means,
    /// What should be, where what is was read back. It only helps to say which of two ends is wrong.
    pub(super) planned: Option<&'a Plan>,
}

/// A namespace.
pub(super) struct Place<'a> {
    pub plan: &'a NsPlan,
    /// The host that it is or is on.
    pub host: Option<HostName>,
    pub tables: Tables<'a>,
    chains: HashMap<Ruleset, Chains<'a>>,
    links: HashMap<&'a IfName, &'a Link>,
    sysctls: HashMap<&'a str, &'a str>,
    /// Whether any rule needs connection tracking, which sleeps otherwise.
    pub tracks: bool,
}

/// By table and name.
type Chains<'a> = HashMap<&'a str, HashMap<&'a str, Parsed<'a>>>;

/// A chain, its rules taken apart when they are first looked at.
struct Parsed<'a> {
    chain: &'a Chain,
    rules: OnceCell<Vec<Rule>>,
    parts: OnceCell<Vec<Parts>>,
}

impl<'a> State<'a> {
    /// What is planned. Services' rules are in `plan` where they were added to it
    /// ([`crate::plan::services::add`], [`crate::plan::balancers::add`]).
    pub fn planned(plan: &'a Plan) -> State<'a> {
        State::new(plan, None, Means::Plan)
    }

    /// What was read back from a running lab, and what was planned.
    pub fn observed(there: &'a Plan, known: &'a Known, planned: &'a Plan) -> State<'a> {
        State { planned: Some(planned), ..State::new(there, Some(known), Means::State) }
    }

    fn new(plan: &'a Plan, known: Option<&'a Known>, means: Means) -> State<'a> {
        let places: Vec<Place> = plan.namespaces.iter().map(|ns| Place::new(ns, plan, known)).collect();
        let by_name = plan.namespaces.iter().enumerate().map(|(n, ns)| (&ns.ns, n)).collect();
        let mut owners: HashMap<IpAddr, Vec<usize>> = HashMap::new();
        for (n, place) in places.iter().enumerate() {
            for ip in place.plan.addresses.iter().map(|a| a.net.addr()) {
                let all = owners.entry(ip).or_default();
                if !all.contains(&n) {
                    all.push(n);
                }
            }
        }
        State { places, by_name, owners, known, means, planned: None }
    }

    pub(super) fn place(&self, ns: &NsName) -> Option<&Place<'a>> {
        self.by_name.get(ns).map(|n| &self.places[*n])
    }

    pub(super) fn places(&self) -> impl Iterator<Item = &Place<'a>> {
        self.places.iter()
    }

    /// How many bytes a namespace sends at most to an address without cutting them, as it remembers.
    pub(super) fn path_mtu(&self, ns: &NsName, to: IpAddr) -> Option<u32> {
        self.known.and_then(|known| known.path_mtu(ns, to)).map(|learnt| learnt.mtu)
    }

    /// Every namespace that has an address, in the plan's order.
    pub(super) fn owners(&self, ip: IpAddr) -> impl Iterator<Item = &Place<'a>> {
        self.owners.get(&ip).into_iter().flatten().map(|n| &self.places[*n])
    }

    /// The short name of whoever has an address.
    pub(super) fn who(&self, ip: IpAddr) -> Option<String> {
        self.owners(ip).next().map(|place| place.plan.ns.to_string())
    }

    /// `tea-1 (10.244.1.2)`, or the address alone.
    pub(super) fn called(&self, ip: IpAddr) -> String {
        self.who(ip).map_or_else(|| ip.to_string(), |who| format!("{who} ({ip})"))
    }

    /// The namespace and device at the other end of a cable; nothing where it is not there.
    pub(super) fn far_end(&self, link: &Link) -> Option<(&Place<'a>, &'a Link)> {
        let LinkKind::Veth { peer_ns, peer } = &link.kind else { return None };
        let place = self.place(peer_ns)?;
        place.link(peer).map(|link| (place, link))
    }

    pub(super) fn learned(&self, ns: &NsName, dev: &IfName, ip: IpAddr) -> Option<Mac> {
        let here = |(at, n): &&(NsName, Neighbour)| at == ns && n.dev == *dev && n.ip == ip;
        self.known?.neighbours.iter().find(here).map(|(_, n)| n.mac)
    }

    pub(super) fn is_full(&self, ns: &NsName) -> bool {
        self.known.is_some_and(|known| known.conntrack_full.contains(ns))
    }

    /// The same namespace as it was planned.
    pub(super) fn wanted(&self, ns: &NsName) -> Option<&'a NsPlan> {
        self.planned?.get(ns)
    }
}

impl<'a> Place<'a> {
    fn new(ns: &'a NsPlan, plan: &'a Plan, known: Option<&'a Known>) -> Place<'a> {
        let told = known.into_iter().flat_map(|k| &k.sysctls).filter(|(at, _)| *at == ns.ns).map(|(_, s)| s);
        let sysctls = ns.sysctls.iter().chain(told).map(|s| (s.key.as_str(), s.value.as_str())).collect();
        let legacy =
            ns.deviations.iter().filter_map(|d| if let Deviation::LegacyRules(r) = d { Some(r) } else { None });
        let mut chains: HashMap<Ruleset, Chains> = HashMap::new();
        let all = legacy.map(|rules| (Ruleset::IptablesLegacy, rules)).chain([(Ruleset::Iptables, &ns.rules)]);
        for (of, table) in all.flat_map(|(of, rules): (_, &Rules)| rules.tables.iter().map(move |table| (of, table))) {
            for chain in &table.chains {
                let parsed = Parsed { chain, rules: OnceCell::new(), parts: OnceCell::new() };
                chains.entry(of).or_default().entry(&table.name).or_default().insert(&chain.name, parsed);
            }
        }
        let needs =
            |chain: &Chain| chain.rules.iter().any(|rule| rule.contains("-m conntrack") || rule.contains("-m state"));
        let tables = || chains.values().flatten();
        let tracks = tables().any(|(table, of)| *table == "nat" || of.values().any(|p| needs(p.chain)));
        Place {
            plan: ns,
            host: host_of(ns, plan),
            tables: Tables::new(ns),
            chains,
            links: ns.links.iter().map(|l| (&l.name, l)).collect(),
            sysctls,
            tracks,
        }
    }

    pub fn name(&self) -> &'a NsName {
        &self.plan.ns
    }

    pub fn link(&self, name: &IfName) -> Option<&'a Link> {
        self.links.get(name).copied()
    }

    pub fn has(&self, ip: IpAddr) -> bool {
        self.tables.is_local(ip)
    }

    fn parsed(&self, of: Ruleset, table: &str, chain: &str) -> Option<&Parsed<'a>> {
        self.chains.get(&of)?.get(table)?.get(chain)
    }

    /// The policy and the rules of a chain.
    pub fn chain(&self, of: Ruleset, table: &str, chain: &str) -> Option<(Option<&'a str>, &[Rule])> {
        let parsed = self.parsed(of, table, chain)?;
        let rules = parsed.rules.get_or_init(|| parsed.chain.rules.iter().map(|r| Rule::parse(r)).collect());
        Some((parsed.chain.policy.as_deref(), rules))
    }

    /// What the rules of a chain match and do, in the same order.
    pub fn parts(&self, of: Ruleset, table: &str, chain: &str) -> &[Parts] {
        let (Some(parsed), Some((_, rules))) = (self.parsed(of, table, chain), self.chain(of, table, chain)) else {
            return &[];
        };
        parsed.parts.get_or_init(|| rules.iter().map(Parts::of).collect())
    }

    pub fn sysctl(&self, key: &str) -> Option<&'a str> {
        self.sysctls.get(key).copied()
    }

    pub fn is_on(&self, key: &str) -> bool {
        self.sysctl(key).is_some_and(|value| value.trim() != "0")
    }

    /// The larger of a setting for all devices and that of one, as the kernel takes them
    /// (`IN_DEV_MAXCONF`).
    pub fn conf(&self, dev: &IfName, setting: &str) -> u8 {
        let of = |dev: &str| {
            let value = self.sysctl(&format!("net/ipv4/conf/{dev}/{setting}"));
            value.and_then(|v| v.trim().parse().ok()).unwrap_or(0)
        };
        of("all").max(of(dev.as_str()))
    }

    /// Whether frames that a bridge passes on meet iptables here.
    pub fn filters_bridges(&self) -> bool {
        self.is_on(BRIDGE_NETFILTER)
    }
}

pub(super) const BRIDGE_NETFILTER: &str = "net/bridge/bridge-nf-call-iptables";

/// A pod's host is where the other end of its cable is.
fn host_of(ns: &NsPlan, plan: &Plan) -> Option<HostName> {
    let host = |ns: &NsName| if let NsName::Host(name) = ns { Some(name.clone()) } else { None };
    let to_pod = |l: &Link| matches!(&l.kind, LinkKind::Veth { peer_ns, .. } if *peer_ns == ns.ns);
    match &ns.ns {
        NsName::Host(name) => Some(name.clone()),
        NsName::Pod(_) => {
            let own = ns.links.iter().find_map(|l| match &l.kind {
                LinkKind::Veth { peer_ns, .. } => host(peer_ns),
                _ => None,
            });
            own.or_else(|| plan.namespaces.iter().find(|n| n.links.iter().any(to_pod)).and_then(|n| host(&n.ns)))
        }
        _ => None,
    }
}
