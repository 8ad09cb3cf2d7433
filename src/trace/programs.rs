//! What labctl's own programs told of what they did, joined to what was seen: a request by the client's end of its
//! connection, a name by the query's number, a packet in flanneld by its header. What a program told is observed,
//! as what a tap saw is; what it does not tell is inferred elsewhere.

use std::net::{IpAddr, SocketAddr};

use crate::lab::names::{IfName, NsName};
use crate::workload::events::{Carried, Did, Event, Lookup, Request, Way};

use super::flow::{Found, FoundPacket};
use super::model::{Direction, Means, Protocol, Step, What};
use super::packet::Essence;
use super::sight::{Sight, Tuple};
use super::tell::Evidence;

/// A request that a controller told of.
pub struct Taken<'e> {
    pub place: &'e NsName,
    pub at: u64,
    pub request: &'e Request,
    /// When it was sent on, from its own end where that was known, and to whom.
    pub passed: Vec<(u64, Option<SocketAddr>, SocketAddr)>,
    /// Status, and the controller's own reason.
    pub answered: Option<(u16, Option<&'e str>)>,
}

impl Taken<'_> {
    /// As a flow of HTTP is called: `GET https://cafe.example.com/tea`.
    pub fn words(&self) -> String {
        let Request { method, scheme, host, path, .. } = self.request;
        format!("{method} {scheme}://{host}{path}")
    }
}

/// The requests of a flow that controllers told of, in the order in which they came.
pub fn taken<'e>(evidence: &Evidence<'e>, flow: &Found) -> Vec<Taken<'e>> {
    let came = |place: &NsName, client: SocketAddr| {
        let here = |t: &Tuple| {
            t.source == (client.ip(), client.port()) && evidence.who.machine(t.destination.0) == Some(place)
        };
        flow.tuples.iter().any(|(tuple, direction)| *direction == Direction::There && here(tuple))
    };
    let mut all: Vec<Taken> = Vec::new();
    for (place, Event { at, did }) in evidence.told {
        let of = |number: u64, all: &[Taken]| {
            all.iter().position(|taken| taken.place == place && taken.request.request == number)
        };
        match did {
            Did::Took(request) if came(place, request.client) => {
                all.push(Taken { place, at: *at, request, passed: Vec::new(), answered: None });
            }
            Did::Passed { request, from, to } => {
                if let Some(n) = of(*request, &all) {
                    all[n].passed.push((*at, *from, *to));
                }
            }
            Did::Answered { request, status, why } => {
                if let Some(n) = of(*request, &all) {
                    all[n].answered = Some((*status, why.as_deref()));
                }
            }
            _ => {}
        }
    }
    all
}

/// The ends of the connections by which a flow's requests were sent on.
pub fn passed(evidence: &Evidence, flow: &Found) -> Vec<Tuple> {
    let mut all = Vec::new();
    for Taken { place, passed, .. } in taken(evidence, flow) {
        for (at, from, to) in &passed {
            let is_known = || passed.iter().any(|(_, from, other)| from.is_some() && other == to);
            match from {
                Some(from) => all.push(tuple(*from, *to)),
                None if is_known() => {}
                // No connection came of it, so only its first packet can say from where.
                None => all.extend(begun(evidence, place, (*at, *to))),
            }
        }
    }
    all
}

fn tuple(from: SocketAddr, to: SocketAddr) -> Tuple {
    Tuple { protocol: Protocol::Tcp, source: (from.ip(), from.port()), destination: (to.ip(), to.port()) }
}

fn begun(evidence: &Evidence, place: &NsName, (at, to): (u64, SocketAddr)) -> Option<Tuple> {
    let is_it = |s: &&Sight| {
        let to_it = s.tuple().protocol == Protocol::Tcp && s.tuple().destination == (to.ip(), to.port());
        s.place == *place && s.outgoing && s.at >= at && s.kind == "SYN" && to_it
    };
    evidence.sights.iter().find(is_it).map(Sight::tuple)
}

/// Join what was told of a packet to its steps.
pub fn join(steps: &mut Vec<Step>, packet: &FoundPacket, evidence: &Evidence) {
    if evidence.told.is_empty() {
        return;
    }
    for sight in packet.sights.iter().map(|n| &evidence.sights[*n]) {
        carried(steps, sight, evidence);
    }
    let last = packet.sights.last().map(|n| &evidence.sights[*n]);
    let taken = last.filter(|s| packet.direction == Direction::There && !s.outgoing && s.layer == 0);
    if let Some(answered) = taken.and_then(|sight| resolved(sight, evidence)) {
        let delivered = steps.iter_mut().filter(|s| matches!(s.what, What::Delivered { .. }));
        delivered.for_each(|s| s.known_by.insert(0, Means::Program));
        steps.push(answered);
    }
}

/// What a DNS server answered to a query that was seen to come in.
fn resolved(sight: &Sight, evidence: &Evidence) -> Option<Step> {
    let client = SocketAddr::new(sight.header.source, sight.header.source_port);
    let is_it = |lookup: &Lookup| {
        lookup.client == client
            && match sight.essence {
                Essence::Udp { begin, .. } => begin[..2] == lookup.id.to_be_bytes(),
                Essence::Tcp { data: 1.., .. } => true,
                _ => false,
            }
    };
    let mut told = evidence.told.iter().filter(|(place, event)| *place == sight.place && event.at >= sight.at);
    let (at, Lookup { name, kind, answer, source, .. }) = told.find_map(|(_, event)| match &event.did {
        Did::Resolved(lookup) if is_it(lookup) => Some((event.at, lookup)),
        _ => None,
    })?;
    let name = format!("{kind} {name}");
    let says = format!("coredns is asked for {name} and answers {answer}; the name is of {source}");
    let what = What::Asked { name, answer: answer.clone() };
    Some(step(evidence, &sight.place, (at, what, says)))
}

/// What flanneld did with a packet that was seen at its TUN device.
fn carried(steps: &mut Vec<Step>, sight: &Sight, evidence: &Evidence) {
    let flanneld = evidence.there.get(&sight.place).and_then(|ns| ns.flanneld.as_ref());
    if sight.layer > 0 || flanneld.is_none_or(|f| f.tun != sight.dev) {
        return;
    }
    let is_it = |(place, event): &&(NsName, Event)| {
        let Did::Carried(told) = &event.did else { return false };
        let in_time = if sight.outgoing { event.at >= sight.at } else { event.at <= sight.at };
        *place == sight.place && in_time && (told.way == Way::Out) == sight.outgoing && is_of(told, sight)
    };
    let mut all = evidence.told.iter().filter(is_it);
    let found = if sight.outgoing { all.next() } else { all.next_back() };
    if let Some((_, Event { at, did: Did::Carried(told) })) = found {
        user_space(steps, (sight, evidence), (*at, told));
    }
}

/// Behind the device the time to live is one less; all else of the header is the same.
fn is_of(told: &Carried, sight: &Sight) -> bool {
    let header = &sight.seen;
    (told.source, told.destination, told.length) == (header.source, header.destination, header.length)
        && told.identification == sight.identification
}

/// Confirm the step in flanneld, and what it did, or put it in where the walk has none.
fn user_space(steps: &mut Vec<Step>, (sight, evidence): (&Sight, &Evidence), (at, told): (u64, &Carried)) {
    let seen_at = Some(sight.at.saturating_sub(evidence.begin));
    let at_device = |s: &Step| s.place == sight.place && s.dev.as_ref() == Some(&sight.dev) && s.at == seen_at;
    let Some(device) = steps.iter().position(at_device) else { return };
    // Between this device and the next one that was seen.
    let is_near = |s: &Step| s.place == sight.place && !s.known_by.contains(&Means::Tap);
    let near: Vec<usize> = match sight.outgoing {
        true => (device + 1..steps.len()).take_while(|n| is_near(&steps[*n])).collect(),
        false => (0..device).rev().take_while(|n| is_near(&steps[*n])).collect(),
    };
    let mut is_there = false;
    for n in near {
        let step = &mut steps[n];
        let is_told = match &step.what {
            What::UserSpace { .. } => {
                step.at = Some(at.saturating_sub(evidence.begin));
                is_there = true;
                true
            }
            What::Encapsulated { outer, .. } => Some(outer.destination) == told.peer && told.dropped.is_none(),
            What::Decapsulated { .. } => true,
            What::Dropped(_) => told.dropped.is_some(),
            _ => false,
        };
        if is_told {
            step.known_by.insert(0, Means::Program);
        }
    }
    if !is_there {
        let step = taken_by_flanneld(evidence, (&sight.place, &sight.dev), (at, told));
        steps.insert(if sight.outgoing { device + 1 } else { device }, step);
    }
}

fn taken_by_flanneld(evidence: &Evidence, (place, dev): (&NsName, &IfName), (at, told): (u64, &Carried)) -> Step {
    let peer = |ip: IpAddr| evidence.who.name(ip).map_or_else(|| ip.to_string(), |name| format!("{name} ({ip})"));
    let peer = told.peer.map_or_else(|| "nobody".to_owned(), peer);
    let says = match (told.way, &told.dropped) {
        (_, Some(why)) => format!("flanneld takes it and drops it: {why}"),
        (Way::Out, None) => format!("flanneld takes it and sends it to {peer}"),
        (Way::In, None) => format!("flanneld has it from {peer} and writes it to {dev}"),
    };
    let what = What::UserSpace { program: "flanneld".into() };
    Step { dev: Some(dev.clone()), ..step(evidence, place, (at, what, says)) }
}

/// A step that a program told of.
pub fn step(evidence: &Evidence, place: &NsName, (at, what, says): (u64, What, String)) -> Step {
    Step {
        at: Some(at.saturating_sub(evidence.begin)),
        place: place.clone(),
        host: evidence.who.host_of(place),
        dev: None,
        layer: 0,
        what,
        header: None,
        known_by: vec![Means::Program],
        says,
    }
}

#[cfg(test)]
mod tests;
