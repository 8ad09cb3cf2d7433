//! From a query to its answer: which zone it is in, what a record type asks of what was found there
//! (CoreDNS: `ServeDNS` of plugin/kubernetes and plugin/backend_lookup.go), and names outside.
//!
//! Where CoreDNS is odd, this is as odd, so that a lab shows what a cluster would: the SOA of a
//! name that does not exist is an empty answer, and TXT at a name that has no addresses, a
//! namespace's say, is NXDOMAIN. One thing is not copied: the NS records of a zone are found in
//! any spelling of its name, as RFC 4343 wants it.

use std::cell::Cell;
use std::net::IpAddr;

use super::cluster::{Found, Hosts, reverse};
use super::config::Data;
use super::name::Name;
use super::query::{Asked, CLASS_IN, Query, Rcode, kind, read};
use super::records::Records;
use super::reply::{At, QUESTION, Reply, Section, Target, refuse};
use super::unique::unique;

/// What the schema's version is, and for how long that may be remembered (specification, 2.2).
const SCHEMA: &[u8] = b"1.1.0";
const SCHEMA_TTL: u32 = 28800;
/// An absence is remembered for no longer than this.
const MAX_NEGATIVE: u32 = 300;
/// Bytes of a UDP answer for an asker without EDNS (RFC 1035, 4.2.1), and of the largest payload.
const PLAIN_UDP: usize = 512;
const MAX_UDP: usize = 65507;
const MAX_TCP: usize = 65535;

/// How a query came, which decides how long its answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// Answer the message `query` into `buffer`, from what `records` say. Returns the response code;
/// `None` where nothing is to be sent: the message is no query, or not even a header.
///
/// # Panics
/// Never, whatever the bytes are.
pub fn answer(records: &Records, query: &[u8], transport: Transport, buffer: &mut Vec<u8>) -> Option<Rcode> {
    let query = match read(query) {
        Asked::Nothing => return None,
        Asked::Wrong(head, code) => {
            refuse(buffer, head, code);
            return Some(code);
        }
        Asked::Query(query) => query,
    };
    let limit = match (transport, query.edns) {
        (Transport::Tcp, _) => MAX_TCP,
        (Transport::Udp, None) => PLAIN_UDP,
        (Transport::Udp, Some(edns)) => usize::from(edns.size).clamp(PLAIN_UDP, MAX_UDP),
    };
    let mut reply = Reply::to(&query, limit, buffer);
    let code = if query.edns.is_some_and(|e| e.version > 0) {
        Rcode::BadVers
    } else if query.class != CLASS_IN || matches!(query.kind, kind::AXFR | kind::IXFR) {
        Rcode::Refused
    } else {
        records.serve(&query, &mut reply)
    };
    reply.finish(code);
    Some(code)
}

/// A question's zone.
#[derive(Clone, Copy)]
struct Zone<'a> {
    /// Which of the name's labels is the zone's first.
    from: usize,
    is_reverse: bool,
    wire: &'a [u8],
    /// Where its name stands in the answer.
    at: usize,
}

impl<'a> Zone<'a> {
    /// A name in the zone, spelled as the question has the zone.
    fn target(&self, head: &'a [u8]) -> Target<'a> {
        Target { head, tail: self.wire, tail_at: Some(self.at) }
    }
}

impl Records {
    fn serve(&self, query: &Query<'_>, reply: &mut Reply<'_>) -> Rcode {
        let Some((from, is_reverse)) = self.zone_of(&query.name) else { return self.outside(query, reply) };
        let at = QUESTION + query.name.start(from);
        let wire = query.question.get(query.name.start(from)..query.name.wire().len()).unwrap_or_default();
        let zone = Zone { from, is_reverse, wire, at };
        let is_there = self.in_zone(query, zone, reply);
        if !is_there && self.settings.falls_through(&query.name) && self.settings.outside(&query.name).is_some() {
            return self.outside(query, reply);
        }
        reply.authoritative();
        if reply.has_answers() {
            return Rcode::NoError;
        }
        let ttl = self.settings.config.ttl;
        let at = At { section: Section::Authority, ttl: ttl.min(MAX_NEGATIVE) };
        reply.soa(at, zone.at, self.serial, ttl);
        match (is_there, self.synced) {
            (true, _) => Rcode::NoError,
            (false, true) => Rcode::NxDomain,
            (false, false) => Rcode::ServFail,
        }
    }

    /// The longest zone that `name` is in: where it begins, and whether it is a reverse one.
    pub(super) fn zone_of(&self, name: &Name) -> Option<(usize, bool)> {
        (0..=name.labels()).find_map(|from| {
            let zone = self.settings.zones.iter().find(|z| &z.wire[..] == name.from(from))?;
            Some((from, zone.reverse))
        })
    }

    /// Add what there is; returns whether the name exists.
    fn in_zone(&self, query: &Query<'_>, zone: Zone<'_>, reply: &mut Reply<'_>) -> bool {
        if let Some(is_there) = self.apart(query, zone, reply) {
            return is_there;
        }
        match (self.find(&query.name, zone.from, zone.is_reverse), query.kind) {
            (Found::Nothing, _) | (Found::Own, kind::TXT) => return false,
            (Found::Empty { is_zonal }, kind::TXT) => return is_zonal,
            (Found::Own, kind::A | kind::AAAA) => {
                self.addresses(self.own.iter().map(|own| own.1), query.kind, QUESTION, reply);
            }
            (Found::Hosts(found), kind::A | kind::AAAA) => {
                self.addresses(found.hosts.iter().map(|h| h.ip), query.kind, QUESTION, reply);
            }
            (Found::Hosts(found), kind::SRV) => self.srv(&found, zone, reply),
            (Found::Alias(target), kind::CNAME) => {
                reply.pointing(self.here(), QUESTION, kind::CNAME, Target::whole(target));
            }
            (Found::Alias(_), kind::A | kind::AAAA) => self.follow(query, zone.wire, reply),
            _ => {}
        }
        true
    }

    /// The zone's own records and PTR, which do not go by services' names; `None` where the
    /// question is for none of these.
    fn apart(&self, query: &Query<'_>, zone: Zone<'_>, reply: &mut Reply<'_>) -> Option<bool> {
        let is_apex = zone.from == 0;
        match query.kind {
            kind::SOA => {
                let ttl = self.settings.config.ttl;
                if is_apex {
                    reply.soa(At { ttl: ttl.min(MAX_NEGATIVE), ..self.here() }, zone.at, self.serial, ttl);
                }
            }
            kind::NS if is_apex => self.name_servers(zone, reply),
            kind::TXT if zone.from == 1 && query.name.label(0) == b"dns-version" => {
                reply.txt(At { ttl: SCHEMA_TTL, ..self.here() }, QUESTION, SCHEMA);
            }
            kind::PTR => return reverse(&query.name).map(|ip| self.pointers(ip, reply)),
            _ => return None,
        }
        Some(true)
    }

    /// In the answer section, for as long as everything.
    pub(super) fn here(&self) -> At {
        At { section: Section::Answer, ttl: self.settings.config.ttl }
    }

    fn more(&self) -> At {
        At { section: Section::Additional, ..self.here() }
    }

    /// Addresses of the asked family, each once, in a new order each time, so that clients which
    /// take the first one spread (plugin/loadbalance).
    pub(super) fn addresses(&self, ips: impl Iterator<Item = IpAddr>, kind: u16, owner: usize, reply: &mut Reply<'_>) {
        let mut ips: Vec<IpAddr> = ips.filter(|ip| ip.is_ipv4() == (kind == kind::A)).collect();
        unique(&mut ips);
        self.shuffle(&mut ips);
        ips.into_iter().for_each(|ip| reply.address(self.here(), owner, ip));
    }

    fn shuffle<T>(&self, all: &mut [T]) {
        if self.settings.config.loadbalance {
            for n in 1..all.len() {
                all.swap(n, random(n + 1));
            }
        }
    }

    /// One SRV record for each name and port, and the names' addresses beside them. The weight is
    /// a hundredth part of what all of them have together; the addresses of one name count apart.
    fn srv(&self, found: &Hosts<'_>, zone: Zone<'_>, reply: &mut Reply<'_>) {
        let weight = u16::try_from(100 / found.hosts.len().max(1)).unwrap_or(0).max(1);
        let with_port = found.hosts.iter().filter(|h| h.port.is_some());
        let mut names: Vec<(&[u8], u16)> = with_port.clone().map(|h| (h.label, h.port.unwrap_or(0))).collect();
        unique(&mut names);
        let mut written: Vec<(&[u8], usize)> = Vec::with_capacity(names.len());
        for (label, port) in names {
            let head = [label, found.head].concat();
            let target = reply.srv(self.here(), QUESTION, [0, weight, port], zone.target(&head));
            written.extend(target.map(|at| (label, at)));
        }
        written.sort_unstable();
        let mut addresses: Vec<(&[u8], IpAddr)> = with_port.map(|h| (h.label, h.ip)).collect();
        unique(&mut addresses);
        self.shuffle(&mut addresses);
        for (label, ip) in addresses {
            let at = written.partition_point(|(l, _)| *l < label);
            // Where its own record did not fit, neither do addresses.
            let Some((_, at)) = written.get(at).filter(|(l, _)| *l == label) else { break };
            reply.address(self.more(), *at, ip);
        }
    }

    fn pointers(&self, ip: IpAddr, reply: &mut Reply<'_>) -> bool {
        let owners = self.owners(ip);
        for head in &owners {
            let target = Target { head, tail: &self.settings.primary, tail_at: None };
            reply.pointing(self.here(), QUESTION, kind::PTR, target);
        }
        !owners.is_empty()
    }

    fn name_servers(&self, zone: Zone<'_>, reply: &mut Reply<'_>) {
        let mut written: Vec<(&[u8], usize)> = Vec::new();
        for (head, _) in &self.own {
            if !written.iter().any(|(h, _)| *h == &head[..]) {
                let at = reply.pointing(self.here(), QUESTION, kind::NS, zone.target(head));
                written.extend(at.map(|at| (&head[..], at)));
            }
        }
        for (head, ip) in &self.own {
            if let Some((_, at)) = written.iter().find(|(h, _)| *h == &head[..]) {
                reply.address(self.more(), *at, *ip);
            }
        }
    }

    /// The answer for a name outside the cluster. Nobody is asked, so what is not written down is
    /// not there, at once.
    fn outside(&self, query: &Query<'_>, reply: &mut Reply<'_>) -> Rcode {
        reply.recursive();
        let Some(data) = self.settings.outside(&query.name) else { return Rcode::NxDomain };
        let has = |kind| move |d: &&Data| d.kind() == kind;
        if query.kind == kind::CNAME || !data.iter().any(|d| matches!(d, Data::Cname(_))) {
            let ips = data.iter().filter_map(Data::ip);
            if matches!(query.kind, kind::A | kind::AAAA) {
                self.addresses(ips, query.kind, QUESTION, reply);
            }
            data.iter().filter(has(query.kind)).for_each(|d| d.write(self.here(), QUESTION, reply));
        } else {
            self.follow(query, &[], reply);
        }
        Rcode::NoError
    }
}

/// Whether a name in lower case is `zone` or in it.
pub(super) fn is_under(name: &[u8], zone: &[u8]) -> bool {
    let Some(name) = Name::read(name).filter(|_| !zone.is_empty()) else { return false };
    (0..=name.labels()).any(|from| name.from(from).eq_ignore_ascii_case(zone))
}

impl super::config::Settings {
    fn falls_through(&self, name: &Name) -> bool {
        self.fallthrough.iter().any(|zone| is_under(name.wire(), zone))
    }
}

/// A number below `bound`, at random enough for spreading load (xorshift64).
fn random(bound: usize) -> usize {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(seed());
    }
    let next = STATE.with(|state| {
        let mut x = state.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        state.set(x);
        x
    });
    // Scaled rather than divided: the upper bits are the better ones.
    ((u128::from(next) * bound as u128) >> 64) as usize
}

/// The standard library's hash keys are random for each process, and that is what is wanted here.
fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0).max(1)
}
