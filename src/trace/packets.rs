//! Each packet of a flow with its steps: what was seen of it, laid beside the walk through the lab's state.
//!
//! Only the first packet there and the first one back are walked, as rules decide about those; the others
//! of a flow follow them, and where one does not, what was seen of it says so.

use std::net::SocketAddr;

use crate::lab::names::NsName;

use super::align::{self, Aligned, Way};
use super::copies;
use super::flow::{Found, FoundPacket};
use super::hops;
use super::model::{Direction, Fate, Flow, Header, Means, Packet, Protocol, Role, Step, What};
use super::packet::Essence;
use super::programs;
use super::sight::Sight;
use super::tell::{Evidence, Material};
use super::translation;
use super::walk::{self, Choices, Exchange, Path, Probe, State};
use super::who::Who;

/// What the state says of a flow, and what the plan does.
pub type Walked = (Option<Exchange>, Option<Exchange>);

/// What is remembered of a flow whose packets are told one after the other.
#[derive(Debug, Default)]
pub struct Memory {
    /// What the state says of its ways, and what the plan does; nothing before the first packet.
    walked: Option<Walked>,
    /// Packets that were told, by what they are known again.
    told: Vec<(Essence, Direction, Packet)>,
    /// So many of those were told before what is now looked at was recorded.
    earlier: usize,
    /// Whether each packet that does not arrive is walked by itself: the state may be another by then.
    each_is_walked: bool,
}

/// More packets of a flow than this are not remembered once what was recorded of them has gone.
const MOST_REMEMBERED: usize = 32;

impl Memory {
    /// Of a flow that goes on while the state may change.
    pub fn of_following() -> Memory {
        Memory { each_is_walked: true, ..Memory::default() }
    }

    /// Whether nothing was told yet.
    pub fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// What is now looked at was recorded behind all that was told.
    pub fn begin_anew(&mut self) {
        let (more, first) = (self.told.len().saturating_sub(MOST_REMEMBERED), 4);
        if more > 0 {
            // The first ones say how packets of the flow end.
            self.told.drain(first..first + more);
        }
        self.earlier = self.told.len();
    }

    fn same(&self, packet: &FoundPacket) -> impl Iterator<Item = &Packet> + use<'_> {
        let key = (packet.essence, packet.direction);
        self.told.iter().filter(move |(e, d, _)| (*e, *d) == key).map(|(.., told)| told)
    }

    /// The first packet that looked the same.
    fn first_of(&self, packet: &FoundPacket) -> Option<&Packet> {
        self.same(packet).next()
    }

    /// Whether sights are the rest of a packet that was told: it was seen at none of these points before.
    pub fn is_rest(&self, packet: &FoundPacket, sights: &[&Sight]) -> bool {
        let was_there = |told: &Packet| {
            let seen = told.steps.iter().filter(|s| s.known_by.contains(&Means::Tap));
            let at = |s: &Step| {
                sights.iter().any(|n| (&n.place, Some(&n.dev), n.layer) == (&s.place, s.dev.as_ref(), s.layer))
            };
            seen.into_iter().any(at)
        };
        self.same(packet).last().is_some_and(|told| !was_there(told))
    }

    fn last_of(&self, essence: Essence) -> Option<&Packet> {
        self.told.iter().rfind(|(e, ..)| *e == essence).map(|(.., told)| told)
    }

    /// How many that look the same were recorded before it.
    fn pass(&self, packet: &FoundPacket) -> usize {
        let recorded = &self.told[self.earlier.min(self.told.len())..];
        recorded.iter().filter(|(e, d, _)| (*e, *d) == (packet.essence, packet.direction)).count()
    }
}

/// Tells flows, one after the other.
pub struct Teller<'a> {
    evidence: &'a Evidence<'a>,
    /// Who asked.
    from: &'a NsName,
    state: State<'a>,
    planned: State<'a>,
    /// The last number that a packet was given.
    pub number: u32,
    /// What the state says of each flow, and what the plan does.
    pub walked: Vec<Walked>,
}

impl<'a> Teller<'a> {
    pub fn new(material: &Material<'a>, evidence: &'a Evidence<'a>, from: &'a NsName) -> Teller<'a> {
        Teller {
            evidence,
            from,
            state: State::observed(material.there, material.known, material.planned),
            planned: State::planned(material.planned),
            number: 0,
            walked: Vec::new(),
        }
    }

    pub fn flow(&mut self, found: &Found) -> Flow {
        let mut memory = Memory::default();
        let packets = found.packets.iter().map(|packet| self.next((found, packet), &mut memory)).collect();
        self.walked.push(memory.walked.unwrap_or_default());
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
    fn walk(&self, found: &Found) -> Walked {
        let Some(first) = found.packets.first() else { return (None, None) };
        let sight = first.sights.first().map(|n| &self.evidence.sights[*n]);
        let (place, header) = match sight {
            Some(sight) => {
                let length = whole(found, sight, &self.evidence.sights);
                (&sight.place, Header { macs: None, length, ..sight.header.clone() })
            }
            None => (self.sender(found), Probe::to(found.tuple.protocol, found.tuple.destination.0, 0).header),
        };
        // A machine's own rules may have translated it before any tap saw it.
        let first = sight.is_none_or(|sight| begins(found, sight));
        let probe = Probe { header: found.tuple.put_into(header), first };
        let choices = self.choices(found);
        let exchange = walk::exchange(&self.state, place, &probe, &choices);
        let planned = walk::exchange(&self.planned, place, &probe, &choices.as_planned());
        (exchange, planned)
    }

    /// Who sent a flow's first packet, which no tap saw: a proxy has what it asks for its own.
    fn sender(&self, found: &Found) -> &'a NsName {
        let proxy = self.evidence.who.machine(found.tuple.source.0).filter(|_| found.role == Role::Proxied);
        proxy.unwrap_or(self.from)
    }

    /// What chance is known to have chosen for a flow: connection tracking tells of it, and else the ends that
    /// its packets were seen with.
    fn choices(&self, found: &Found) -> Choices {
        let entries = self.evidence.entries.iter().filter(|e| found.tuples.contains_key(&e.original));
        let entries: Vec<translation::Entry> = entries.cloned().collect();
        let mine = entries.iter().filter(|e| e.is_translated());
        let there = found.tuples.iter().filter(|(_, direction)| **direction == Direction::There);
        let seen = there.map(|(tuple, _)| SocketAddr::from(tuple.destination));
        let targets = mine.map(|e| e.answers_from()).chain(seen).collect();
        let hops = hops::taken(found, &self.evidence.sights, self.evidence.there);
        Choices::Following { targets, hops, entries }
    }

    /// What the state says of a question of which nothing was seen.
    pub fn unseen(&self, from: &NsName, header: Header) -> Option<Exchange> {
        walk::exchange(&self.state, from, &Probe { header, first: true }, &Choices::First)
    }

    /// Tell a packet of a flow of which `memory` has what was told before.
    pub fn next(&mut self, told: (&Found, &FoundPacket), memory: &mut Memory) -> Packet {
        if memory.walked.is_none() {
            memory.walked = Some(self.walk(told.0));
        }
        self.number += 1;
        let exchange = memory.walked.as_ref().and_then(|(observed, _)| observed.as_ref());
        let path = path(told.1, exchange, memory).filter(|_| !told.1.copy);
        let mut packet = self.packet(told, path, memory);
        if told.1.copy {
            return packet;
        }
        if memory.each_is_walked && !matches!(packet.fate, Fate::Delivered { .. }) {
            packet = self.walk_one(told).map_or(packet, |own| self.packet(told, Some(&own), memory));
        }
        // A copy is told of as the packet that it is of, never the other way round.
        if !told.1.copy {
            memory.told.push((told.1.essence, told.1.direction, packet.clone()));
        }
        packet
    }

    /// What the state says of one packet by itself.
    fn walk_one(&self, (found, packet): (&Found, &FoundPacket)) -> Option<Path> {
        let sight = &self.evidence.sights[*packet.sights.first()?];
        let first = packet.direction == Direction::There && begins(found, sight);
        let probe = Probe { header: Header { macs: None, ..sight.header.clone() }, first };
        walk::walk(&self.state, &sight.place, &probe, &self.choices(found))
    }

    fn packet(&self, (found, packet): (&Found, &FoundPacket), path: Option<&Path>, memory: &Memory) -> Packet {
        let sights: Vec<&Sight> = packet.sights.iter().map(|n| &self.evidence.sights[*n]).collect();
        let hits = self.evidence.hits.of(packet.essence, &sights, memory.pass(packet));
        let path = path.filter(|path| fits(path, packet, &sights));
        // A port that nobody was known to listen on, and that answered.
        let answered = path.filter(|p| p.fate == Fate::Refused && is_answered(found, &self.evidence.sights)).map(taken);
        let path = answered.as_ref().or(path);
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
            false => self.fate(path, &aligned, &sights, memory),
        };
        programs::join(&mut aligned.steps, packet, self.evidence);
        // While a machine is followed, one ping after the other begins to count at 1.
        let is_echo = memory.each_is_walked && matches!(packet.essence, Essence::Echo { .. });
        let first = memory.first_of(packet).map(|p| p.number);
        let about = sights.first().and_then(|s| s.about.or(s.piece_of));
        let about = about.and_then(|(_, essence)| memory.last_of(essence)).map(|p| p.number);
        let kind = sights.first().map(|s| &s.kind).or(path.map(|p| &p.kind)).cloned().unwrap_or_default();
        Packet {
            number: self.number,
            direction: packet.direction,
            kind: if packet.copy { Packet::copy_of(&kind) } else { kind },
            again: first.filter(|_| !packet.copy && !is_echo),
            about: if packet.copy { first } else { about },
            steps: aligned.steps,
            fate,
        }
    }

    /// Translations that connection tracking told of were seen.
    fn confirm(&self, steps: &mut [Step], found: &Found) {
        let entries =
            self.evidence.entries.iter().filter(|e| e.is_translated() && found.tuples.contains_key(&e.original));
        let places: Vec<&NsName> = entries.map(|e| &e.place).collect();
        let is_new = |s: &Step| !s.known_by.contains(&Means::Conntrack) && places.contains(&&s.place);
        let rewritten = |s: &&mut Step| matches!(s.what, What::Rewritten { .. }) && is_new(s);
        steps.iter_mut().filter(rewritten).for_each(|s| s.known_by.insert(0, Means::Conntrack));
    }

    fn fate(&self, path: Option<&Path>, aligned: &Aligned, sights: &[&Sight], memory: &Memory) -> Fate {
        if aligned.steps.iter().any(|s| matches!(s.what, What::Dropped(_)) && !s.is_inferred()) {
            return Fate::Dropped;
        }
        if let Some(path) = path.filter(|path| aligned.held == path.steps.len() && aligned.unforeseen == 0) {
            return path.fate.clone();
        }
        match sights.last() {
            Some(last) if self.is_at_its_end(last) => Fate::Delivered { to: last.place.clone() },
            _ => same_end(&aligned.steps, memory).unwrap_or(Fate::Lost),
        }
    }

    fn is_at_its_end(&self, sight: &Sight) -> bool {
        is_at_its_end(sight, &self.evidence.who)
    }
}

/// Whether a packet was seen where it was going to.
pub fn is_at_its_end(sight: &Sight, who: &Who) -> bool {
    !sight.outgoing && sight.layer == 0 && who.machine(sight.header.destination) == Some(&sight.place)
}

/// Bytes of a packet of which `sight` may be the first fragment.
fn whole(found: &Found, sight: &Sight, sights: &[Sight]) -> u32 {
    let rest = found.packets.iter().flat_map(|p| &p.sights).map(|n| &sights[*n]);
    let end = |piece: &Sight| match (piece.essence, piece.piece_of) {
        (Essence::Fragment { offset, .. }, Some((_, of))) if of == sight.essence && piece.layer == sight.layer => {
            Some(u32::from(offset) * 8 + piece.header.length)
        }
        _ => None,
    };
    rest.filter_map(end).fold(sight.header.length, u32::max)
}

/// Whether a packet is to be walked as the first of its flow, which meets the rules that choose. One in the middle of a
/// connection does not; where it was translated it goes as the first one did.
fn begins(found: &Found, sight: &Sight) -> bool {
    let there = found.tuples.iter().filter(|(_, direction)| **direction == Direction::There).count();
    sight.header.protocol != Protocol::Tcp || sight.kind == "SYN" || there > 1
}

/// Whether something came back that is no refusal.
fn is_answered(found: &Found, sights: &[Sight]) -> bool {
    let mut back = found.packets.iter().filter(|p| p.direction == Direction::Back);
    back.any(|p| p.sights.first().is_some_and(|n| sights[*n].about.is_none() && !sights[*n].kind.starts_with("RST")))
}

/// A walk to a closed port as one to an open one.
fn taken(path: &Path) -> Path {
    let mut path = path.clone();
    let end = path.steps.iter().position(|s| matches!(s.what, What::Refused { .. } | What::Dropped(_)));
    path.steps.truncate(end.unwrap_or(path.steps.len()));
    path.fate = Fate::Delivered { to: path.end.clone() };
    path
}

/// The walk that a packet should have taken, where it is the first in its direction or that one again.
fn path<'e>(packet: &FoundPacket, exchange: Option<&'e Exchange>, memory: &Memory) -> Option<&'e Path> {
    let first = memory.told.iter().find(|(_, direction, _)| *direction == packet.direction);
    let exchange = exchange.filter(|_| first.is_none_or(|(essence, ..)| *essence == packet.essence))?;
    match packet.direction {
        Direction::There => Some(&exchange.there),
        Direction::Back => exchange.back.as_ref(),
    }
}

/// A packet that was seen last where an earlier one was that was delivered has gone on as that did.
fn same_end(steps: &[Step], memory: &Memory) -> Option<Fate> {
    let last = |steps: &[Step]| {
        let seen = steps.iter().rev().find(|s| matches!(s.what, What::In | What::Out) && !s.is_inferred());
        seen.map(|s| (s.place.clone(), s.dev.clone(), s.what.clone(), s.layer))
    };
    let end = last(steps)?;
    let mut delivered = memory.told.iter().filter(|(.., p)| matches!(p.fate, Fate::Delivered { .. }));
    delivered.find(|(.., p)| last(&p.steps).as_ref() == Some(&end)).map(|(.., p)| p.fate.clone())
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
