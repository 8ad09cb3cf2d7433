//! From what was recorded to what is told: flows, their packets, each one's steps, and the end.
//!
//! Pure: everything that was seen and read back is in [`Material`]. The files beside this one do the
//! parts; here is their order.

use std::collections::HashSet;

use crate::kernel::record::{Event, Frame, Missing, Recording, Seen};
use crate::kernel::sockets::Socket;
use crate::lab::dns::DNS_PORT;
use crate::lab::names::NsName;
use crate::lab::probe::{Ask, Probe, Target};
use crate::lab::{Backend, Lab};
use crate::plan::Plan;
use crate::probe::{Outcome, Used};
use crate::workload::events as program;

use super::copies;
use super::flow::{self, Found};
use super::freed;
use super::hits::Hits;
use super::lookups;
use super::model::{Asked, Fate, Flow, Means, Protocol, Role, Trace, VERSION};
use super::origin::Origin;
use super::packets::Teller;
use super::parting;
use super::programs;
use super::proxied::{self, Waiting};
use super::remembered;
use super::senders;
use super::sight::{self, ArpSight, Sight, Tapped, Tunnels, Tuple};
use super::translation;
use super::unseen;
use super::verdict::{self, Case};
use super::walk::{self, Choices, Known, State};
use super::who::Who;

/// What a trace is made of.
pub struct Material<'a> {
    pub lab: &'a Lab,
    /// What the lab's kernel should hold, services' rules included.
    pub planned: &'a Plan,
    /// What it held before the question was sent.
    pub there: &'a Plan,
    pub recording: &'a Recording,
    /// What no plan has words for.
    pub known: &'a Known,
    /// What labctl's own programs told, and where they are.
    pub told: &'a [(NsName, program::Event)],
    /// The sockets of programs after a question that was not answered, and where they are.
    pub sockets: &'a [(NsName, Vec<Socket>)],
    /// What could not be watched.
    pub missing: &'a [Missing],
    /// Where the lab's text came from.
    pub origin: &'a Origin,
}

/// What was read in a recording.
pub struct Evidence<'a> {
    pub sights: Vec<Sight>,
    pub arps: Vec<ArpSight>,
    pub hits: Hits,
    pub entries: Vec<translation::Entry>,
    pub who: Who<'a>,
    /// What labctl's own programs told, and where they are.
    pub told: &'a [(NsName, program::Event)],
    /// What the lab's kernel held.
    pub there: &'a Plan,
    /// When the first packet of the trace was seen, in nanoseconds since the epoch.
    pub begin: u64,
}

/// Tell of one question. `to` is who was asked, as it was typed.
pub fn trace(material: &Material, (to, asked, outcome): (&str, &Probe, &Outcome), mark: &[u8]) -> Trace {
    let mut evidence = Evidence::read(material, mark);
    let found = flows(&evidence, asked, outcome);
    let marked: Vec<Tuple> = found.iter().filter(|f| is_marked(f, &evidence)).map(|f| f.tuple).collect();
    evidence.begin = found.iter().filter_map(|f| first_time(f, &evidence.sights)).min().unwrap_or(0);
    let mut teller = Teller::new(material, &evidence, &asked.from);
    let mut flows: Vec<Flow> = found.iter().map(|found| teller.flow(found)).collect();
    let mut differences = Vec::new();
    for flow in &mut flows {
        freed::mark(&mut flow.packets, material.recording, evidence.begin);
        senders::mark(&mut flow.packets, material.recording, evidence.begin);
        differences.extend(lookups::mark(&mut flow.packets, material.recording, (material.there, evidence.begin)));
    }
    proxied::tell(&mut flows, &evidence, (asked, &found, &marked));
    let case = Case { material, evidence: &evidence, teller: &teller, asked, outcome, flows: &flows };
    let verdict = verdict::judge(&case);
    let outlived = remembered::outlived(&case);
    let means = means(&flows, material);
    Trace {
        version: VERSION,
        lab: material.lab.name.to_string(),
        asked: Asked {
            from: asked.from.clone(),
            to: to.to_owned(),
            kind: outcome.kind.to_string(),
            tried: outcome.tried.clone(),
            seen: outcome.observed.clone(),
            answered: outcome.passed(),
        },
        parting: parting::first(&flows, &teller.walked),
        began: evidence.begin,
        notes: notes(material, &flows, outcome).into_iter().chain(outlived).chain(differences).collect(),
        flows,
        verdict,
        means,
    }
}

/// The namespaces through which the state and the plan lead a question, and the asker's. A name that must be
/// looked up first leads nowhere yet.
pub fn concerned(asked: &Probe, (there, known, planned): (&Plan, &Known, &Plan)) -> HashSet<NsName> {
    let mut all = HashSet::from([asked.from.clone()]);
    let (to, port, protocol) = match &asked.ask {
        Ask::Ping { to, .. } => (to, 0, Protocol::Icmp),
        Ask::Tcp { to, port, .. } => (to, *port, Protocol::Tcp),
        Ask::Udp { to, port, .. } => (to, *port, Protocol::Udp),
        Ask::Http(_) | Ask::Dns { .. } | Ask::Exec { .. } => return all,
    };
    let ip = match to {
        Target::Address(ip) => Some(*ip),
        Target::Machine(ns) => planned.get(ns).and_then(|p| p.addresses.first()).map(|a| a.net.addr()),
        Target::Service(_) | Target::Name(_) => None,
    };
    let Some(ip) = ip else { return all };
    let probe = walk::Probe::of(&asked.ask, protocol, ip, port);
    for state in [State::observed(there, known, planned), State::planned(planned)] {
        let Some(exchange) = walk::exchange(&state, &asked.from, &probe, &Choices::First) else { continue };
        let steps = exchange.there.steps.iter().chain(exchange.back.iter().flat_map(|back| &back.steps));
        all.extend(steps.map(|s| s.place.clone()));
    }
    all
}

impl<'a> Evidence<'a> {
    pub fn read(material: &Material<'a>, mark: &[u8]) -> Evidence<'a> {
        let recording = material.recording;
        let (sights, arps) = sight::read(recording.events.iter().filter_map(tapped), tunnels(material.lab), mark);
        Evidence {
            sights,
            arps,
            hits: Hits::read(recording, material.there, tunnels(material.lab)),
            entries: translation::entries(&recording.events),
            who: Who::new(material.lab, material.there),
            told: material.told,
            there: material.there,
            begin: 0,
        }
    }
}

pub fn tapped(event: &Event) -> Option<Tapped<'_>> {
    let (Seen::Frame(frame), Some(place)) = (&event.seen, &event.place) else { return None };
    let Frame { dev, outgoing, ethernet, bytes, .. } = frame;
    let stray = frame.packet_type == libc::PACKET_OTHERHOST;
    Some(Tapped { at: event.at, place, dev, outgoing: *outgoing, ethernet: *ethernet, stray, bytes })
}

/// By which ports the lab's tunnels are known.
pub fn tunnels(lab: &Lab) -> Tunnels {
    match lab.cluster.backend {
        Backend::Vxlan { port, .. } => Tunnels { vxlan: port, flannel_udp: 0 },
        Backend::Udp { port } => Tunnels { vxlan: 0, flannel_udp: port },
        Backend::HostGw => Tunnels::default(),
    }
}

/// The flows of a question: names that were looked up, the question itself, and what proxies asked.
fn flows(evidence: &Evidence, asked: &Probe, outcome: &Outcome) -> Vec<Found> {
    let translated = translation::pairs(&evidence.entries);
    let sent = |wanted: &dyn Fn(&Tuple) -> bool| {
        let mut all: Vec<Tuple> = Vec::new();
        for tuple in sent_by(evidence, &asked.from).filter(|t| wanted(t)) {
            if !all.contains(&tuple) && !all.contains(&tuple.reversed()) {
                all.push(tuple);
            }
        }
        all
    };
    let grown = |role: Role, from: &NsName, tuples: Vec<Tuple>| -> Vec<Found> {
        let mut all: Vec<Found> = Vec::new();
        for tuple in tuples {
            // A translation may leave it as wanted as it was before.
            if !all.iter().any(|f| f.tuples.contains_key(&tuple)) {
                let found = flow::flow(role, tuple, &evidence.sights, &translated);
                let found = copies::apart(found, &evidence.sights, evidence.there);
                all.push(unseen::with_first(found, evidence, from));
            }
        }
        all.retain(|f| !f.packets.is_empty());
        all
    };
    let wanted = target(asked, outcome);
    let is_request = |t: &Tuple| {
        wanted.is_some_and(|(ip, port, protocol)| {
            t.destination.0 == ip && t.protocol == protocol && (protocol == Protocol::Icmp || t.destination.1 == port)
        })
    };
    let wanted_by_it = |t: &Tuple| is_own(t, &outcome.details.used);
    let is_lookup = |t: &Tuple| t.destination.1 == DNS_PORT && t.protocol != Protocol::Icmp && !is_request(t);
    let from = &asked.from;
    let mut all = grown(Role::NameLookup, from, sent(&|t| is_lookup(t) && wanted_by_it(t)));
    all.extend(grown(Role::Request, from, sent(&|t| is_request(t) && wanted_by_it(t))));
    let (place, proxied) = sent_on(evidence, (asked, outcome), &all);
    all.extend(grown(Role::Proxied, place.unwrap_or(from), proxied));
    // What a proxy sent and nobody saw comes behind the request.
    let begins = |f: &Found| first_time(f, &evidence.sights);
    all.sort_by_key(|f| (f.role == Role::Proxied && begins(f).is_none(), begins(f)));
    all
}

/// What a proxy asked in its turn, by what it told, by the question's mark and, where neither tells of all, by what it
/// did while the request waited; and the proxy, where one that tells nothing has the request.
fn sent_on<'e>(
    evidence: &'e Evidence,
    (asked, outcome): (&Probe, &Outcome),
    known: &'e [Found],
) -> (Option<&'e NsName>, Vec<Tuple>) {
    let requests = || known.iter().filter(|f| f.role == Role::Request);
    let mut all: Vec<Tuple> = requests().flat_map(|request| programs::passed(evidence, request)).collect();
    all.extend(marked(evidence, known, &asked.from));
    let Ask::Http(http) = &asked.ask else { return (None, all) };
    if requests().any(|request| !programs::taken(evidence, request).is_empty()) {
        return (None, all);
    }
    let Some(waiting) = requests().next().and_then(|request| Waiting::of(request, evidence, outcome)) else {
        return (None, all);
    };
    if all.is_empty() {
        all.extend(waiting.unread());
    }
    all.extend(waiting.tried(http));
    (Some(waiting.place), all)
}

/// Whether a packet is one of the question's own sockets: its machine may ask others the same. Where the kernel
/// gave none, as it refused at once, nothing is known.
fn is_own(tuple: &Tuple, used: &[Used]) -> bool {
    let port = tuple.source.1;
    let own = |used: &Used| match (used, tuple.protocol) {
        (Used::Tcp(n), Protocol::Tcp) | (Used::Udp(n), Protocol::Udp) | (Used::Echo(n), Protocol::Icmp) => {
            Some(*n == port)
        }
        _ => None,
    };
    let mut known = used.iter().filter_map(own).peekable();
    known.peek().is_none() || known.any(|is| is)
}

/// The ends of what a machine sent: as its own connection tracking knew them before it translated them, as
/// they were seen, and as its rules met them.
fn sent_by<'e>(evidence: &'e Evidence, from: &'e NsName) -> impl Iterator<Item = Tuple> + 'e {
    let own = evidence.sights.iter().filter(move |s| s.place == *from && s.outgoing && s.layer == 0);
    let seen = own.filter(|s| s.about.is_none()).map(Sight::tuple);
    let tracked = evidence.entries.iter().filter(move |e| e.place == *from && e.is_translated()).map(|e| e.original);
    tracked.chain(seen).chain(unseen::sent(evidence, from).map(|met| met.hit.ends))
}

/// The address, port and protocol that the question went to.
pub fn target(asked: &Probe, outcome: &Outcome) -> Option<(std::net::IpAddr, u16, Protocol)> {
    let tried = outcome.tried.as_ref()?;
    let protocol = protocol(&asked.ask)?;
    match tried.parse::<std::net::SocketAddr>() {
        Ok(end) => Some((end.ip(), end.port(), protocol)),
        Err(_) => tried.parse().ok().map(|ip| (ip, 0, protocol)),
    }
}

/// The protocol that a question is asked by; nothing where a program asks it.
pub fn protocol(ask: &Ask) -> Option<Protocol> {
    Some(match ask {
        Ask::Ping { .. } => Protocol::Icmp,
        Ask::Udp { .. } | Ask::Dns { tcp: false, .. } => Protocol::Udp,
        Ask::Tcp { .. } | Ask::Http(_) | Ask::Dns { .. } => Protocol::Tcp,
        Ask::Exec { .. } => return None,
    })
}

/// Flows that carry the question's mark and are none of `known`: a proxy sent it on, which is not the asker.
fn marked(evidence: &Evidence, known: &[Found], from: &NsName) -> Vec<Tuple> {
    let mut all: Vec<Tuple> = Vec::new();
    let is_known = |t: &Tuple, all: &[Tuple]| {
        known.iter().any(|f| f.tuples.contains_key(t)) || all.contains(t) || all.contains(&t.reversed())
    };
    for sight in evidence.sights.iter().filter(|s| s.marked && s.outgoing && s.layer == 0 && s.place != *from) {
        let tuple = sight.tuple();
        // Where it is seen first is where it was sent; later sights may have other addresses.
        let same = |t: &Tuple| {
            let others = evidence.sights.iter().filter(|s| s.essence == sight.essence);
            others.map(Sight::tuple).any(|o| o == *t || o == t.reversed())
        };
        if !is_known(&tuple, &all) && !all.iter().any(same) {
            all.push(tuple);
        }
    }
    all
}

/// Whether a flow carries the question's mark, so that it is known to be a proxy's for the question.
fn is_marked(found: &Found, evidence: &Evidence) -> bool {
    found.packets.iter().flat_map(|p| &p.sights).any(|n| evidence.sights[*n].marked)
}

fn first_time(found: &Found, sights: &[Sight]) -> Option<u64> {
    found.packets.iter().flat_map(|p| &p.sights).map(|n| sights[*n].at).min()
}

/// Every means that some step is known by.
fn means(flows: &[Flow], material: &Material) -> Vec<Means> {
    let steps = flows.iter().flat_map(|f| &f.packets).flat_map(|p| &p.steps);
    let mut all: Vec<Means> = steps.flat_map(|s| s.known_by.iter().copied()).collect();
    if !material.recording.counters.is_empty() {
        all.push(Means::Counter);
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// What a reader should know. Why packets are dropped is missed only where one was.
fn notes(material: &Material, flows: &[Flow], outcome: &Outcome) -> Vec<String> {
    let lost = material.recording.lost;
    let lost = (lost > 0).then(|| format!("{lost} events came too fast to be read; steps may be missing"));
    // Whoever lost nothing needs no reason.
    let drops = flows.iter().flat_map(|f| &f.packets).any(|p| p.fate == Fate::Dropped);
    let reasons = (drops && material.recording.lost_reasons > 0)
        .then(|| "other packets were dropped so fast that the kernel's own reasons may be missing".to_owned());
    let nothing_lost = outcome.passed() || outcome.tried.is_none();
    let missed = material.missing.iter().filter(|m| !(nothing_lost && m.means == Means::DropReason));
    lost.into_iter().chain(reasons).chain(missed.map(|m| m.why.clone())).collect()
}

#[cfg(test)]
mod tests;
