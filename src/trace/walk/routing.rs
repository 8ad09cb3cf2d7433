//! Routing tables as data: what the kernel looks up for a packet, in the order of its routing policy.
//!
//! Routes that the kernel makes with an address follow from `Address::connected`. What a plan has no
//! words for was read back in the words of `ip` ([`Deviation`]) and is read here as far as those go.

mod words;

use std::collections::HashMap;
use std::fmt::Write;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::lab::names::IfName;
use crate::plan::deviation::Deviation;
use crate::plan::{Address, NsPlan, Route};

use words::{DEFAULT, LOCAL, MAIN, read_policy, read_route};

/// A route of a table.
#[derive(Debug, Clone)]
pub struct Entry {
    dst: IpNet,
    kind: Kind,
    /// At least one where the kind is unicast.
    pub hops: Vec<(Option<IpAddr>, IfName)>,
    source: Option<IpAddr>,
    metric: u32,
    /// As `ip route` prints it.
    pub text: String,
    /// Whether every device that it needs is there and up.
    alive: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unicast,
    Local,
    Refusing,
    Throw,
}

/// An entry of the routing policy.
#[derive(Debug, Clone)]
struct Policy {
    priority: u32,
    from: Option<IpNet>,
    to: Option<IpNet>,
    /// The mark, and the bits of it that are looked at.
    mark: Option<(u32, u32)>,
    input: Option<String>,
    table: u32,
}

/// The tables of a namespace.
#[derive(Debug, Clone, Default)]
pub struct Tables<'a> {
    tables: HashMap<u32, Vec<Entry>>,
    policy: Vec<Policy>,
    addresses: &'a [Address],
    /// Rules and routes that could not be read, in the words of `ip`.
    pub unread: Vec<String>,
}

/// What is looked up.
#[derive(Debug, Clone, Copy)]
pub struct Key<'k> {
    pub destination: IpAddr,
    /// Nothing where a sender has not chosen it yet.
    pub source: Option<IpAddr>,
    pub mark: u32,
    pub input: Option<&'k IfName>,
}

/// What a look-up finds.
#[derive(Debug, Clone)]
pub enum Found<'t> {
    /// The namespace itself has the address.
    Local,
    Route(&'t Entry),
    /// A route that refuses.
    Refused(&'t Entry),
    Nothing,
}

impl<'a> Tables<'a> {
    pub fn new(ns: &'a NsPlan) -> Tables<'a> {
        let mut all = Tables { addresses: &ns.addresses, ..Tables::default() };
        for (priority, table) in [(0, LOCAL), (32766, MAIN), (32767, DEFAULT)] {
            let gone = |d: &Deviation| matches!(d, Deviation::MissingPolicyRule { priority: p, table: t } if (*p, u32::from(*t)) == (priority, table));
            if !ns.deviations.iter().any(gone) {
                all.policy.push(Policy { priority, from: None, to: None, mark: None, input: None, table });
            }
        }
        all.add(LOCAL, local(loopback()));
        for address in &ns.addresses {
            all.addresses(address, ns);
        }
        for route in &ns.routes {
            all.add(MAIN, made(route));
        }
        for deviation in &ns.deviations {
            match deviation {
                Deviation::Route(told) => match read_route(&told.what) {
                    Some((table, entry)) => all.add(table, entry),
                    None => all.unread.push(format!("route {}", told.what)),
                },
                Deviation::PolicyRule(told) => match read_policy(&told.what) {
                    Some(policy) => all.policy.push(policy),
                    None => all.unread.push(format!("rule {}", told.what)),
                },
                _ => {}
            }
        }
        all.policy.sort_by_key(|p| p.priority);
        let up = |dev: &IfName| dev.as_str() == "lo" || ns.link(dev).is_some_and(|l| l.up);
        for entry in all.tables.values_mut().flatten() {
            entry.alive = entry.hops.iter().all(|(_, dev)| up(dev));
        }
        all
    }

    fn add(&mut self, table: u32, entry: Entry) {
        self.tables.entry(table).or_default().push(entry);
    }

    fn addresses(&mut self, address: &Address, ns: &NsPlan) {
        let whole = address.net.prefix_len() == address.net.max_prefix_len();
        // The kernel takes an address for its own also while its device is down. It does not while
        // the device is away.
        if ns.link(&address.dev).is_some() && (address.connected || !whole) {
            self.add(LOCAL, local(address.net.addr().into()));
        }
        if address.connected && !whole {
            let (dst, dev, ip) = (address.net.trunc(), address.dev.clone(), address.net.addr());
            let text = format!("{dst} dev {dev} proto kernel scope link src {ip}");
            let hops = vec![(None, dev)];
            let alive = true;
            self.add(MAIN, Entry { dst, kind: Kind::Unicast, hops, source: Some(ip), metric: 0, text, alive });
        }
    }

    /// Whether there is a route that `ip route` prints so.
    pub fn has_text(&self, text: &str) -> bool {
        self.tables.values().flatten().any(|e| e.text == text)
    }

    pub fn is_local(&self, ip: IpAddr) -> bool {
        self.tables.get(&LOCAL).into_iter().flatten().any(|e| e.kind == Kind::Local && e.dst.contains(&ip))
    }

    /// What the routing policy leads to.
    pub fn look_up(&self, key: Key) -> Found<'_> {
        self.search(key, |entry| entry.alive)
    }

    /// The route that would be taken if all devices were there and up.
    pub fn if_up(&self, key: Key) -> Option<&Entry> {
        match self.search(key, |_| true) {
            Found::Route(entry) => Some(entry),
            _ => None,
        }
    }

    fn search(&self, key: Key, counts: impl Fn(&Entry) -> bool) -> Found<'_> {
        for policy in self.policy.iter().filter(|p| p.fits(key)) {
            let all = self.tables.get(&policy.table).into_iter().flatten();
            let fits = all.filter(|e| e.dst.contains(&key.destination) && counts(e));
            // Of equal ones the first.
            let best = fits.min_by_key(|e| (std::cmp::Reverse(e.dst.prefix_len()), e.metric));
            match best.map(|e| (e.kind, e)) {
                Some((Kind::Local, _)) => return Found::Local,
                Some((Kind::Unicast, entry)) => return Found::Route(entry),
                Some((Kind::Refusing, entry)) => return Found::Refused(entry),
                Some((Kind::Throw, _)) | None => {}
            }
        }
        Found::Nothing
    }

    /// The source address of a packet that leaves by a route (`inet_select_addr`): the route's own,
    /// else the device's address on the next hop's network, else its first, else any.
    pub fn source(&self, entry: &Entry, hop: &(Option<IpAddr>, IfName)) -> Option<IpAddr> {
        entry.source.or_else(|| self.source_at(&hop.1, hop.0))
    }

    /// The same, for what leaves by a device.
    pub fn source_at(&self, dev: &IfName, towards: Option<IpAddr>) -> Option<IpAddr> {
        let here = || self.addresses.iter().filter(|a| a.dev == *dev);
        let near = towards.and_then(|ip| here().find(|a| a.net.contains(&ip)));
        near.or_else(|| here().next()).or_else(|| self.addresses.first()).map(|a| a.net.addr())
    }
}

impl Entry {
    pub fn prefix_len(&self) -> u8 {
        self.dst.prefix_len()
    }

    /// Whether the kernel made it with an address.
    pub fn is_connected(&self) -> bool {
        self.text.contains(" proto kernel ")
    }
}

impl Policy {
    fn fits(&self, key: Key) -> bool {
        let from = |net: IpNet| key.source.is_some_and(|ip| net.contains(&ip));
        self.from.is_none_or(from)
            && self.to.is_none_or(|net| net.contains(&key.destination))
            && self.mark.is_none_or(|(mark, mask)| (mark ^ key.mark) & mask == 0)
            && self.input.as_deref().is_none_or(|dev| key.input.is_some_and(|i| i.as_str() == dev))
    }
}

fn loopback() -> IpNet {
    ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(127, 0, 0, 0), 8).into()
}

fn local(dst: IpNet) -> Entry {
    let text = format!("local {dst}");
    Entry { dst, kind: Kind::Local, hops: Vec::new(), source: None, metric: 0, text, alive: true }
}

fn made(route: &Route) -> Entry {
    let mut hops = vec![(route.via, route.dev.clone())];
    hops.extend(route.also.iter().map(|hop| (Some(hop.via), hop.dev.clone())));
    Entry { dst: route.dst, kind: Kind::Unicast, hops, source: None, metric: 0, text: route.to_string(), alive: true }
}

/// A next hop in words: `to 10.244.1.1 by eth0`, or `by eth0`.
pub fn hop_words(hop: &(Option<IpAddr>, IfName)) -> String {
    let mut words = String::new();
    if let Some(via) = hop.0 {
        // Writing to a String cannot fail.
        let _ = write!(words, "to {via} ");
    }
    words + "by " + hop.1.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::names::NsName;
    use crate::plan::deviation::Told;
    use crate::plan::{Link, LinkKind};

    fn ns() -> NsPlan {
        let mut ns = NsPlan::new(NsName::Router);
        for name in ["eth0", "eth1"] {
            ns.links.push(Link {
                name: IfName::new(name),
                index: 2,
                mac: None,
                mtu: 1500,
                master: None,
                hairpin: false,
                up: true,
                kind: LinkKind::Tun,
            });
        }
        let net = "192.168.1.11/24".parse().expect("an address");
        ns.addresses.push(Address { dev: IfName::new("eth0"), net, broadcast: false, connected: true });
        let dst = "0.0.0.0/0".parse().expect("a range");
        let via = "192.168.1.1".parse().ok();
        ns.routes.push(Route { dst, via, dev: IfName::new("eth0"), onlink: false, also: Vec::new() });
        ns
    }

    fn to(ip: &str) -> Key<'static> {
        Key { destination: ip.parse().expect("an address"), source: None, mark: 0, input: None }
    }

    fn text(tables: &Tables, key: Key) -> String {
        match tables.look_up(key) {
            Found::Local => "local".to_owned(),
            Found::Route(entry) => entry.text.clone(),
            Found::Refused(entry) => format!("refused by {}", entry.text),
            Found::Nothing => "nothing".to_owned(),
        }
    }

    fn told(what: &str) -> Told {
        Told { what: what.to_owned(), message: Vec::new() }
    }

    #[test]
    fn the_longest_prefix_wins_and_own_addresses_come_first() {
        let ns = ns();
        let tables = Tables::new(&ns);
        assert_eq!(text(&tables, to("192.168.1.11")), "local");
        assert_eq!(text(&tables, to("127.3.4.5")), "local");
        assert_eq!(
            text(&tables, to("192.168.1.12")),
            "192.168.1.0/24 dev eth0 proto kernel scope link src 192.168.1.11"
        );
        assert_eq!(text(&tables, to("10.0.0.1")), "default via 192.168.1.1 dev eth0");
    }

    #[test]
    fn a_device_that_is_down_takes_its_routes_with_it_and_no_address() {
        let mut ns = ns();
        ns.links[0].up = false;
        let tables = Tables::new(&ns);
        assert_eq!(text(&tables, to("10.0.0.1")), "nothing");
        assert_eq!(text(&tables, to("192.168.1.11")), "local");
        assert!(tables.if_up(to("10.0.0.1")).is_some());
    }

    #[test]
    fn unusual_routes_and_policy_are_read_in_the_words_of_ip() {
        let mut ns = ns();
        ns.deviations.push(Deviation::Route(told("blackhole 10.1.0.0/16")));
        ns.deviations.push(Deviation::Route(told("10.2.0.0/16 dev eth1 metric 50")));
        ns.deviations.push(Deviation::Route(told("default via 192.168.1.9 dev eth0 table 100")));
        ns.deviations.push(Deviation::PolicyRule(told("50: from all to 10.3.0.0/16 lookup 100")));
        ns.deviations.push(Deviation::PolicyRule(told("60: from all ipproto tcp lookup 100")));
        let tables = Tables::new(&ns);
        assert_eq!(text(&tables, to("10.1.2.3")), "refused by blackhole 10.1.0.0/16");
        assert_eq!(text(&tables, to("10.2.2.3")), "10.2.0.0/16 dev eth1 metric 50");
        assert_eq!(text(&tables, to("10.3.2.3")), "default via 192.168.1.9 dev eth0 table 100");
        assert_eq!(tables.unread, ["rule 60: from all ipproto tcp lookup 100"]);
    }

    #[test]
    fn a_mark_of_the_policy_is_looked_at_through_its_mask() {
        let mut ns = ns();
        ns.deviations.push(Deviation::Route(told("default via 192.168.1.9 dev eth0 table 100")));
        for rule in ["50: from all fwmark 0x10/0xf0 lookup 100", "60: from all fwmark 16 lookup 100"] {
            ns.deviations.push(Deviation::PolicyRule(told(rule)));
        }
        let tables = Tables::new(&ns);
        let via = |mark| text(&tables, Key { mark, ..to("10.3.2.3") });
        let (marked, plain) = ("default via 192.168.1.9 dev eth0 table 100", "default via 192.168.1.1 dev eth0");
        assert_eq!([via(0x12), via(0x10), via(0x20), via(0)], [marked, marked, plain, plain]);
        assert_eq!(tables.unread, ["rule 60: from all fwmark 16 lookup 100"]);
        ns.deviations.push(Deviation::PolicyRule(told("70: from all fwmark 0/0xf0 lookup 100")));
        assert_eq!(text(&Tables::new(&ns), Key { mark: 0x2, ..to("10.3.2.3") }), marked);
    }

    #[test]
    fn without_the_policys_entry_for_main_nothing_is_found() {
        let mut ns = ns();
        ns.deviations.push(Deviation::MissingPolicyRule { priority: 32766, table: 254 });
        let tables = Tables::new(&ns);
        assert_eq!(text(&tables, to("10.0.0.1")), "nothing");
        assert_eq!(text(&tables, to("192.168.1.11")), "local");
    }
}
