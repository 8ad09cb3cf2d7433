//! What was seen and not told yet, and which of it is of the machine that is followed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};

use crate::kernel::record::{Event, Recording, RuleBook, Seen};
use crate::lab::names::NsName;
use crate::trace::flow::{self, Found};
use crate::trace::model::Role;
use crate::trace::packet::Essence;
use crate::trace::sight::{self, Sight, Tunnels, Tuple};
use crate::trace::tell::tapped;
use crate::trace::translation::{self, Entry};

use super::{DELIVERED, SETTLED};

/// Translations that are remembered, and the things of other kinds that are kept.
const MOST_ENTRIES: usize = 1024;
const MOST_EVENTS: usize = 20_000;
/// Rules are told a moment before or after their packet is seen at the next device.
const AROUND: u64 = 50_000_000;

/// What was seen and not told.
#[derive(Default)]
pub struct Window {
    /// In the order of time.
    pub sights: Vec<Sight>,
    /// Rules that were met, and packets that the kernel dropped.
    events: Vec<Event>,
    pub entries: VecDeque<Entry>,
}

/// What a machine has to do with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// It has sent it, or is to get it.
    Own,
    /// Others do, and it passes it on.
    Passing,
}

/// Whose packets are wanted.
pub struct Whose<'a> {
    pub machine: &'a NsName,
    pub addresses: &'a HashSet<IpAddr>,
}

impl Window {
    pub fn take(&mut self, heard: Vec<Event>, tunnels: Tunnels) {
        let (frames, others): (Vec<Event>, Vec<Event>) =
            heard.into_iter().partition(|e| matches!(e.seen, Seen::Frame(_)));
        let (sights, _) = sight::read(frames.iter().filter_map(tapped), tunnels, &[]);
        // What a program says to itself goes nowhere.
        self.sights.extend(sights.into_iter().filter(|s| s.dev.as_str() != "lo"));
        self.sights.sort_by_key(|s| s.at);
        let (tracked, others): (Vec<Event>, Vec<Event>) =
            others.into_iter().partition(|e| matches!(e.seen, Seen::Conntrack(_)));
        for entry in translation::entries(&tracked).into_iter().filter(Entry::is_translated) {
            if !self.entries.contains(&entry) {
                self.entries.push_back(entry);
            }
        }
        self.entries.drain(..self.entries.len().saturating_sub(MOST_ENTRIES));
        self.events.extend(others);
        self.events.drain(..self.events.len().saturating_sub(MOST_EVENTS));
    }

    /// What the rest of the trace reads beside sights.
    pub fn recording(&mut self, chains: &RuleBook) -> Recording {
        let events = std::mem::take(&mut self.events);
        Recording { events, lost: 0, lost_reasons: 0, counters: Vec::new(), chains: chains.clone() }
    }

    pub fn give_back(&mut self, recording: Recording) {
        self.events = recording.events;
    }

    /// Forget the sights in `told`, and what nobody waits for any more.
    pub fn forget(&mut self, told: &HashSet<usize>, now: u64) {
        let mut at = 0..;
        self.sights.retain(|_| at.next().is_some_and(|n| !told.contains(&n)));
        let oldest = self.sights.iter().map(|s| s.at).min().unwrap_or(now);
        self.events.retain(|e| e.at + AROUND > oldest);
    }

    /// All ends that packets in it have, or that errors are about.
    pub fn ends(&self) -> HashSet<Tuple> {
        let about = |s: &Sight| s.about.as_ref().map(|(tuple, _)| *tuple);
        self.sights.iter().flat_map(|s| [Some(s.tuple()), about(s)]).flatten().collect()
    }

    /// The part of a known flow that is in it, which has such `ends`.
    pub fn more(&self, known: &Found, ends: &HashSet<Tuple>, pairs: &[(Tuple, Tuple)]) -> Option<Found> {
        let is_there = known.tuples.keys().any(|tuple| ends.contains(tuple));
        is_there.then(|| flow::more(known, &self.sights, pairs))
    }

    /// Flows of the machine that begin among the sights that are not in `known`, and those that pass it by. Sights that are
    /// nobody's business are added to `passed`.
    pub fn begun(
        &self,
        (whose, now): (&Whose, u64),
        pairs: &[(Tuple, Tuple)],
        (known, passed): (&mut HashSet<usize>, &mut HashSet<usize>),
    ) -> Vec<(Part, Found)> {
        let mut alike: HashMap<Essence, Vec<usize>> = HashMap::new();
        for (n, sight) in self.sights.iter().enumerate() {
            alike.entry(sight.essence).or_default().push(n);
        }
        let mut all = Vec::new();
        for (n, sight) in self.sights.iter().enumerate() {
            if known.contains(&n) {
                continue;
            }
            let same = &alike[&sight.essence];
            if let Some(part) = self.part(whose, same, now) {
                let first = &self.sights[same[0]];
                let begin = first.about.as_ref().map_or_else(|| first.tuple(), |(tuple, _)| *tuple);
                let found = flow::flow(Role::Other, begin, &self.sights, pairs);
                known.extend(found.packets.iter().flat_map(|p| p.sights.iter().copied()));
                all.push((part, found));
                // Whatever was made of it, it is looked at once.
                known.insert(n);
            } else if now.saturating_sub(sight.at) > SETTLED {
                passed.insert(n);
            }
        }
        all
    }

    /// What the machine has to do with a packet with these sights; nothing where that is not known yet.
    fn part(&self, whose: &Whose, same: &[usize], now: u64) -> Option<Part> {
        let (first, last) = (&self.sights[*same.first()?], &self.sights[*same.last()?]);
        // One that is on its way through a host was for the host itself before it was translated.
        if now.saturating_sub(first.at) < DELIVERED {
            return None;
        }
        let own = |ip: IpAddr| whose.addresses.contains(&ip);
        let here = |s: &Sight| s.place == *whose.machine && !s.stray;
        let came = same.iter().any(|n| here(&self.sights[*n]));
        let begins = first.place == *whose.machine && first.outgoing && first.layer == 0 && own(first.header.source);
        let ends = own(last.header.destination) && last.layer == 0 && !last.outgoing && last.place == *whose.machine;
        // It was to go there and did not come.
        let was_lost = || !came && own(last.header.destination) && now.saturating_sub(last.at) > SETTLED;
        if begins || ends || was_lost() {
            return Some(Part::Own);
        }
        let forwards = matches!(whose.machine, NsName::Host(_) | NsName::Router);
        (forwards && came && is_for_one(last.header.destination)).then_some(Part::Passing)
    }
}

/// Whether an address is one machine's: what is sent to a group comes to many, and is passed on by nobody.
fn is_for_one(ip: IpAddr) -> bool {
    !ip.is_multicast() && ip != IpAddr::V4(Ipv4Addr::BROADCAST)
}
