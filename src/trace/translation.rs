//! What connection tracking told: which packet became which, and what an answer must look like.

use std::net::SocketAddr;

use crate::kernel::conntrack;
use crate::kernel::record::{EntryChange, Event, Seen};
use crate::lab::names::NsName;

use super::flow::Found;
use super::model::{Protocol, Translation};
use super::sight::Tuple;
use super::who::Who;

/// An entry of a namespace's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub at: u64,
    pub place: NsName,
    /// The packet as it came.
    pub original: Tuple,
    /// An answer as it comes, before it is translated back.
    pub reply: Tuple,
}

impl Entry {
    pub fn is_translated(&self) -> bool {
        self.original != self.reply.reversed()
    }

    /// Who answers: for a service, the endpoint that the flow was given.
    pub fn answers_from(&self) -> SocketAddr {
        SocketAddr::new(self.reply.source.0, self.reply.source.1)
    }
}

/// The entries that events tell of, each once.
pub fn entries(events: &[Event]) -> Vec<Entry> {
    let mut all: Vec<Entry> = Vec::new();
    for event in events {
        let (Seen::Conntrack(told), Some(place)) = (&event.seen, &event.place) else { continue };
        if told.change == EntryChange::Destroyed {
            continue;
        }
        let Some((original, reply)) = tuples(told) else { continue };
        let entry = Entry { at: event.at, place: place.clone(), original, reply };
        if !all.iter().any(|e| (&e.place, e.original, e.reply) == (&entry.place, original, reply)) {
            all.push(entry);
        }
    }
    all
}

fn tuples(told: &crate::kernel::record::Entry) -> Option<(Tuple, Tuple)> {
    let protocol = match told.entry.protocol {
        1 => Protocol::Icmp,
        6 => Protocol::Tcp,
        17 => Protocol::Udp,
        132 => Protocol::Sctp,
        _ => return None,
    };
    let end = |end: SocketAddr| (end.ip(), end.port());
    let of = |t: conntrack::Tuple| Tuple { protocol, source: end(t.source), destination: end(t.destination) };
    Some((of(told.entry.original), of(told.entry.reply)))
}

/// Pairs of ends of the same packet before and after a translation.
pub fn pairs(entries: &[Entry]) -> Vec<(Tuple, Tuple)> {
    entries.iter().filter(|e| e.is_translated()).map(|e| (e.original, e.reply.reversed())).collect()
}

/// The entries of a flow, in the order in which they came about.
pub fn of_flow(entries: &[Entry], found: &Found, who: &Who) -> Vec<Translation> {
    let mine = entries.iter().filter(|e| e.is_translated() && found.tuples.contains_key(&e.original));
    mine.map(|e| Translation {
        place: e.place.clone(),
        original: (who.end(e.original.source), who.end(e.original.destination)),
        reply: (who.end(e.reply.source), who.end(e.reply.destination)),
    })
    .collect()
}
