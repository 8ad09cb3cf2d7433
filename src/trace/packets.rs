//! Each packet of a flow with its steps: what was seen of it, laid beside the walk through the lab's state.
//!
//! Only the first packet there and the first one back are walked, as rules decide about those; the others
//! of a flow follow them, and where one does not, what was seen of it says so.

use crate::lab::names::NsName;

use super::align::{self, Aligned, Way};
use super::copies;
use super::flow::{Found, FoundPacket};
use super::model::{Direction, Fate, Flow, Header, Means, Packet, Parting, Protocol, Step, What};
use super::sight::Sight;
use super::tell::{Evidence, Material};
use super::translation;
use super::walk::{self, Choices, Exchange, Path, Probe, State};

/// Tells flows, one after the other.
pub struct Teller<'a> {
    evidence: &'a Evidence<'a>,
    /// Who asked.
    from: &'a NsName,
    state: State<'a>,
    planned: State<'a>,
    /// The last number that a packet was given.
    number: u32,
    parting: Option<Parting>,
    /// What the state says of each flow, and what the plan does.
    pub walked: Vec<(Option<Exchange>, Option<Exchange>)>,
}

impl<'a> Teller<'a> {
    pub fn new(material: &Material<'a>, evidence: &'a Evidence<'a>, from: &'a NsName) -> Teller<'a> {
        Teller {
            evidence,
            from,
            state: State::observed(material.there, material.known, material.planned),
            planned: State::planned(material.planned),
            number: 0,
            parting: None,
            walked: Vec::new(),
        }
    }

    /// Where the first packet that did so left the planned way.
    pub fn parting(&self) -> Option<Parting> {
        self.parting.clone()
    }

    pub fn flow(&mut self, found: &Found) -> Flow {
        let first = self.number + 1;
        let (exchange, planned) = self.walk(found, first);
        let mut packets: Vec<Packet> = Vec::new();
        for packet in &found.packets {
            self.number += 1;
            let told = self.packet((found, packet), exchange.as_ref(), &packets);
            packets.push(told);
        }
        self.walked.push((exchange, planned));
        let who = &self.evidence.who;
        Flow {
            role: found.role,
            protocol: found.tuple.protocol,
            source: who.end(found.tuple.source),
            destination: who.end(found.tuple.destination),
            packets,
            translations: translation::of_flow(&self.evidence.entries, found, who),
        }
    }

    /// What the state, and the plan, say of a flow whose first packet was seen.
    fn walk(&mut self, found: &Found, number: u32) -> (Option<Exchange>, Option<Exchange>) {
        let Some(first) = found.packets.first() else { return (None, None) };
        let sight = first.sights.first().map(|n| &self.evidence.sights[*n]);
        let (place, header) = match sight {
            Some(sight) => (&sight.place, Header { macs: None, ..sight.header.clone() }),
            None => (self.from, Probe::to(found.tuple.protocol, found.tuple.destination.0, 0).header),
        };
        // A machine's own rules may have translated it before any tap saw it.
        let probe = Probe { header: found.tuple.put_into(header), first: true };
        let entries = &self.evidence.entries;
        let mine = entries.iter().filter(|e| e.is_translated() && found.tuples.contains_key(&e.original));
        let choices = Choices::Following { targets: mine.map(|e| e.answers_from()).collect(), hops: Vec::new() };
        let exchange = walk::exchange(&self.state, place, &probe, &choices);
        let planned = walk::exchange(&self.planned, place, &probe, &choices);
        if let (None, Some(there), Some(planned)) = (&self.parting, &exchange, &planned) {
            self.parting = walk::compare(&planned.there, &there.there).map(|p| Parting { packet: number, ..p });
        }
        (exchange, planned)
    }

    /// What the state says of a question of which nothing was seen.
    pub fn unseen(&self, from: &NsName, header: Header) -> Option<Exchange> {
        walk::exchange(&self.state, from, &Probe { header, first: true }, &Choices::First)
    }

    fn packet(
        &self,
        (found, packet): (&Found, &FoundPacket),
        exchange: Option<&Exchange>,
        before: &[Packet],
    ) -> Packet {
        let sights: Vec<&Sight> = packet.sights.iter().map(|n| &self.evidence.sights[*n]).collect();
        let same = |p: &&FoundPacket| p.essence == packet.essence && p.direction == packet.direction && !p.copy;
        let place = before.len();
        let pass = found.packets[..place].iter().filter(same).count();
        let hits = self.evidence.hits.of(packet.essence, &sights, pass);
        let path = self.path(found, place, exchange).filter(|path| fits(path, packet, &sights));
        let host_of = |ns: &NsName| self.evidence.who.host_of(ns);
        let way = Way {
            walked: path.map_or(&[], |path| &path.steps),
            sights: &sights,
            hits: &hits,
            begin: self.evidence.begin,
            host_of: &host_of,
        };
        let mut aligned = align::align(&way);
        self.confirm(&mut aligned.steps, found);
        let fate = match packet.copy {
            true => copies::end(&mut aligned.steps),
            false => self.fate(path, &aligned, &sights, before),
        };
        let kind = sights.first().map(|s| &s.kind).or(path.map(|p| &p.kind)).cloned().unwrap_or_default();
        let number_of = |place: usize| before.get(place).map(|p| p.number);
        Packet {
            number: self.number,
            direction: packet.direction,
            kind: if packet.copy { format!("{kind}, a copy") } else { kind },
            again: packet.again.and_then(number_of),
            about: packet.about.and_then(number_of),
            steps: aligned.steps,
            fate,
        }
    }

    /// Translations that connection tracking told of were seen.
    fn confirm(&self, steps: &mut [Step], found: &Found) {
        let entries =
            self.evidence.entries.iter().filter(|e| e.is_translated() && found.tuples.contains_key(&e.original));
        let places: Vec<&NsName> = entries.map(|e| &e.place).collect();
        let rewritten = |s: &&mut Step| matches!(s.what, What::Rewritten { .. }) && places.contains(&&s.place);
        steps.iter_mut().filter(rewritten).for_each(|s| s.known_by.insert(0, Means::Conntrack));
    }

    /// The walk that a packet should have taken, where it is the first in its direction or that one again.
    fn path<'e>(&self, found: &Found, place: usize, exchange: Option<&'e Exchange>) -> Option<&'e Path> {
        let packet = &found.packets[place];
        let first = found.packets.iter().position(|p| p.direction == packet.direction);
        let is_first = first == Some(place) || (packet.again.is_some() && packet.again == first);
        let exchange = exchange.filter(|_| is_first)?;
        match packet.direction {
            Direction::There => Some(&exchange.there),
            Direction::Back => exchange.back.as_ref(),
        }
    }

    fn fate(&self, path: Option<&Path>, aligned: &Aligned, sights: &[&Sight], before: &[Packet]) -> Fate {
        if let Some(path) = path.filter(|path| aligned.held == path.steps.len() && aligned.unforeseen == 0) {
            return path.fate.clone();
        }
        if aligned.steps.iter().any(|s| matches!(s.what, What::Dropped(_)) && !s.is_inferred()) {
            return Fate::Dropped;
        }
        match sights.last() {
            Some(last) if self.is_at_its_end(last) => Fate::Delivered { to: last.place.clone() },
            _ => same_end(&aligned.steps, before).unwrap_or(Fate::Lost),
        }
    }

    /// Whether a packet was seen where it was going to.
    fn is_at_its_end(&self, sight: &Sight) -> bool {
        !sight.outgoing && sight.layer == 0 && self.evidence.who.machine(sight.header.destination) == Some(&sight.place)
    }
}

/// A packet that was seen last where an earlier one was that was delivered has gone on as that did.
fn same_end(steps: &[Step], before: &[Packet]) -> Option<Fate> {
    let last = |steps: &[Step]| {
        let seen = steps.iter().rev().find(|s| matches!(s.what, What::In | What::Out) && !s.is_inferred());
        seen.map(|s| (s.place.clone(), s.dev.clone(), s.what.clone(), s.layer))
    };
    let end = last(steps)?;
    let same =
        before.iter().find(|p| matches!(p.fate, Fate::Delivered { .. }) && last(&p.steps).as_ref() == Some(&end));
    same.map(|p| p.fate.clone())
}

/// Whether a walked path is one of a packet of this kind: the state may expect an answer where an error
/// came.
fn fits(path: &Path, packet: &FoundPacket, sights: &[&Sight]) -> bool {
    if packet.direction == Direction::There {
        return true;
    }
    let Some(sight) = sights.first() else { return false };
    let class = |kind: &str| {
        let of = ["SYN-ACK", "RST", "echo reply", "destination unreachable", "time exceeded"];
        of.iter().position(|word| kind.starts_with(word))
    };
    class(&path.kind) == class(&sight.kind) || (sight.header.protocol == Protocol::Udp && class(&path.kind).is_none())
}
