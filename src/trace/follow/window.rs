//! What was seen and not told yet, and which of it is of the machine that is followed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;

use crate::kernel::record::{Event, Recording, RuleBook, Seen};
use crate::lab::names::NsName;
use crate::trace::flow::{self, Found};
use crate::trace::model::Role;
use crate::trace::packet::Essence;
use crate::trace::sight::{self, Sight, Tunnels};
use crate::trace::tell::tapped;
use crate::trace::translation::{self, Entry};

use super::SETTLED;

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

    /// The part of a known flow that is in it.
    pub fn more(&self, known: &Found, pairs: &[(sight::Tuple, sight::Tuple)]) -> Option<Found> {
        let has = |s: &Sight| {
            known.tuples.contains_key(&s.tuple()) || s.about.as_ref().is_some_and(|(t, _)| known.tuples.contains_key(t))
        };
        self.sights.iter().any(has).then(|| flow::more(known, &self.sights, pairs))
    }

    /// Flows of the machine that begin among the sights that are not in `known`. Those that are nobody's
    /// business are added to `passed`.
    pub fn begun(
        &self,
        (whose, now): (&Whose, u64),
        pairs: &[(sight::Tuple, sight::Tuple)],
        (known, passed): (&mut HashSet<usize>, &mut HashSet<usize>),
    ) -> Vec<Found> {
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
            if self.concerns(whose, same, now) {
                let first = &self.sights[same[0]];
                let begin = first.about.as_ref().map_or_else(|| first.tuple(), |(tuple, _)| *tuple);
                let found = flow::flow(Role::Other, begin, &self.sights, pairs);
                known.extend(found.packets.iter().flat_map(|p| p.sights.iter().copied()));
                all.push(found);
                // Whatever was made of it, it is looked at once.
                known.insert(n);
            } else if now.saturating_sub(sight.at) > SETTLED {
                passed.insert(n);
            }
        }
        all
    }

    /// Whether a packet with these sights begins or ends at the machine.
    fn concerns(&self, whose: &Whose, same: &[usize], now: u64) -> bool {
        let (Some(first), Some(last)) = (same.first(), same.last()) else { return false };
        let (first, last) = (&self.sights[*first], &self.sights[*last]);
        let own = |ip: IpAddr| whose.addresses.contains(&ip);
        if first.place == *whose.machine && first.outgoing {
            // What a tunnel carries began elsewhere.
            return first.layer == 0 && own(first.header.source);
        }
        if last.place == *whose.machine && !last.outgoing && last.layer == 0 {
            return own(last.header.destination);
        }
        // One that was to go there and did not come.
        let came = same.iter().any(|n| self.sights[*n].place == *whose.machine);
        !came && own(last.header.destination) && now.saturating_sub(last.at) > SETTLED
    }
}
