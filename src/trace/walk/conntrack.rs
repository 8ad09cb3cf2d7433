//! Connection tracking: what each namespace remembers of a flow, and how that rewrites later packets.

use std::collections::HashMap;

use crate::lab::names::NsName;
use crate::trace::model::{Cause, End, Header, Protocol, Rewrite, Translation, What};

use super::netfilter::Side;
use super::packet::{Kind, Packet, Tuple};
use super::state::State;
use super::walker::{At, Go, Walker, Why};

/// A flow as a namespace knows it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub original: Tuple,
    /// What an answer must be.
    pub reply: Tuple,
    /// Which rewriting has been decided; each is once for a flow.
    decided: (bool, bool),
}

impl Entry {
    pub fn dnat(&self) -> bool {
        (self.reply.source, self.reply.source_port) != (self.original.destination, self.original.destination_port)
    }

    pub fn snat(&self) -> bool {
        (self.reply.destination, self.reply.destination_port) != (self.original.source, self.original.source_port)
    }

    /// Whether it rewrites an end of the flow's first packet.
    pub fn rewrites(&self, side: Side) -> bool {
        match side {
            Side::Destination => self.dnat(),
            Side::Source => self.snat(),
        }
    }

    pub fn is_decided(&self, side: Side) -> bool {
        match side {
            Side::Destination => self.decided.0,
            Side::Source => self.decided.1,
        }
    }

    pub fn decide(&mut self, side: Side) {
        match side {
            Side::Destination => self.decided.0 = true,
            Side::Source => self.decided.1 = true,
        }
    }
}

/// What connection tracking says of the packet in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tracked {
    /// Not looked at yet in this namespace.
    Unseen,
    /// Nobody tracks here, or a rule says not to.
    Untracked,
    /// It belongs to no flow and cannot begin one.
    Invalid,
    Flow {
        entry: usize,
        reply: bool,
        state: Known,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    New,
    Established,
    Related,
}

/// All namespaces' entries that a walk has made, and the packet's own.
#[derive(Debug)]
pub struct Tracking {
    entries: HashMap<NsName, Vec<Entry>>,
    /// Namespaces in the order in which they made their first entry.
    order: Vec<NsName>,
    pub(super) now: Tracked,
}

impl Default for Tracking {
    fn default() -> Tracking {
        Tracking { entries: HashMap::new(), order: Vec::new(), now: Tracked::Unseen }
    }
}

impl Tracking {
    /// The packet goes to another namespace, or another one takes its place.
    pub(super) fn forget(&mut self, packet: &mut Packet) {
        self.now = Tracked::Unseen;
        packet.mark = if packet.load.is_some() { packet.mark } else { 0 };
    }

    pub(super) fn entry(&mut self, ns: &NsName, index: usize) -> Option<&mut Entry> {
        self.entries.get_mut(ns)?.get_mut(index)
    }

    /// The entry of the packet in hand.
    pub(super) fn current(&self, ns: &NsName) -> Option<(&Entry, bool)> {
        match self.now {
            Tracked::Flow { entry, reply, .. } => Some((self.entries.get(ns)?.get(entry)?, reply)),
            _ => None,
        }
    }

    fn find(&self, ns: &NsName, packet: &Packet) -> Option<(usize, bool)> {
        let all = self.entries.get(ns)?;
        let place = |fits: &dyn Fn(&Entry) -> bool| all.iter().position(fits);
        if let Some(about) = packet.about {
            // An error goes against the packet that it tells of, which is quoted as it was on either
            // side of the translation.
            let forth = place(&|e| about == e.original || about == e.reply.turned());
            let back = || place(&|e| about == e.reply || about == e.original.turned());
            return forth.map(|n| (n, true)).or_else(|| back().map(|n| (n, false)));
        }
        let tuple = Tuple::of(&packet.header);
        let forth = place(&|e| e.original == tuple);
        forth.map(|n| (n, false)).or_else(|| place(&|e| e.reply == tuple).map(|n| (n, true)))
    }

    fn begin(&mut self, ns: &NsName, tuple: Tuple) -> usize {
        if !self.entries.contains_key(ns) {
            self.order.push(ns.clone());
        }
        let all = self.entries.entry(ns.clone()).or_default();
        all.push(Entry { original: tuple, reply: tuple.turned(), decided: (false, false) });
        all.len() - 1
    }

    /// The namespaces that have rewritten something, and what they remember.
    pub(super) fn rewritten(&self) -> impl Iterator<Item = (&NsName, &Entry)> {
        let of = |ns| self.entries.get(ns).into_iter().flatten().map(move |e| (ns, e));
        self.order.iter().flat_map(of).filter(|(_, e)| e.dnat() || e.snat())
    }

    /// The same, in the words of the model.
    pub fn translations(&self, state: &State) -> Vec<Translation> {
        let end = |ip, port| End { ip, port, name: state.who(ip) };
        let ends = |t: Tuple| (end(t.source, t.source_port), end(t.destination, t.destination_port));
        let of = |(ns, e): (&NsName, &Entry)| Translation {
            place: ns.clone(),
            original: ends(e.original),
            reply: ends(e.reply),
        };
        self.rewritten().map(of).collect()
    }
}

/// Whether a packet may be a flow's first one (`tcp_new`, `icmp_new`).
fn begins(packet: &Packet) -> bool {
    match packet.kind {
        Kind::Syn | Kind::Datagram | Kind::EchoRequest | Kind::Segment => true,
        Kind::SynAck | Kind::Reset | Kind::EchoReply | Kind::Error(_) => false,
    }
}

impl<'s, 'a> Walker<'s, 'a, '_> {
    /// Look the packet up, or begin a flow with it.
    pub fn track(&mut self, at: At<'s, 'a>) -> Go<()> {
        if self.tracking.now != Tracked::Unseen {
            return Ok(());
        }
        if !at.tracks && !self.is_told_to_track(at) {
            self.tracking.now = Tracked::Untracked;
            return Ok(());
        }
        self.tracking.now = match self.tracking.find(at.name(), &self.packet) {
            Some((entry, reply)) => {
                let error = self.packet.about.is_some();
                Tracked::Flow { entry, reply, state: if error { Known::Related } else { Known::Established } }
            }
            None if !begins(&self.packet) => Tracked::Invalid,
            None if self.state.is_full(at.name()) => {
                let says = format!("the table of tracked connections of {} is full", at.name());
                return self.dropped(at, None, Why::new(Cause::ConntrackFull, "nf_conntrack_max", says));
            }
            None => {
                let entry = self.tracking.begin(at.name(), Tuple::of(&self.packet.header));
                let state = if self.packet.first { Known::New } else { Known::Established };
                Tracked::Flow { entry, reply: false, state }
            }
        };
        Ok(())
    }

    /// Whether connection tracking told of an entry where no rule that is walked needs it.
    fn is_told_to_track(&self, at: At<'s, 'a>) -> bool {
        self.tracking.entries.contains_key(at.name())
            || self.chooser.told(at.name(), Tuple::of(&self.packet.header)).is_some()
    }

    /// Make one side of a flow's entry what connection tracking told that it is; whether that is not what the rules
    /// make of it that are walked.
    pub fn follow_told(&mut self, at: At<'s, 'a>, entry: usize, side: Side) -> bool {
        let Some(entry) = self.tracking.entry(at.name(), entry) else { return false };
        let Some(told) = self.chooser.told(at.name(), entry.original) else { return false };
        let end = |t: &Tuple| match side {
            Side::Destination => (t.source, t.source_port),
            Side::Source => (t.destination, t.destination_port),
        };
        let (walked, mut told) = (end(&entry.reply), end(&told));
        if entry.original.protocol == Protocol::Icmp {
            // An echo's identifier stands in both ends, and is translated with the source alone.
            told.1 = walked.1;
        }
        match side {
            Side::Destination => (entry.reply.source, entry.reply.source_port) = told,
            Side::Source => (entry.reply.destination, entry.reply.destination_port) = told,
        }
        // Which port masquerading chooses no rule says, also where a host masquerades with the address that it has.
        let is_chosen = side == Side::Source && walked.0 == told.0;
        walked != told && !is_chosen
    }

    /// Rewrite one side of the packet to what its flow's entry says. `how` says who decided.
    pub fn rewrite(&mut self, at: At<'s, 'a>, side: Side, how: Rewrite) {
        let Some((entry, reply)) = self.tracking.current(at.name()) else { return };
        let other = if reply { entry.original } else { entry.reply };
        // An answer's source was the destination.
        if !entry.rewrites(if reply { side.other() } else { side }) {
            return;
        }
        let before = self.packet.header.clone();
        let is_error = self.packet.about.is_some();
        let header = &mut self.packet.header;
        match side {
            Side::Destination => {
                header.destination = other.source;
                if !is_error {
                    header.destination_port = other.source_port;
                }
            }
            Side::Source => {
                header.source = other.destination;
                if !is_error {
                    header.source_port = other.destination_port;
                }
            }
        }
        if let Some(about) = &mut self.packet.about {
            // What is quoted is translated the other way round.
            match side {
                Side::Destination => (about.source, about.source_port) = (other.source, other.source_port),
                Side::Source => {
                    (about.destination, about.destination_port) = (other.destination, other.destination_port)
                }
            }
        }
        if before == *header {
            return;
        }
        let after = header.clone();
        let says = self.rewritten(at, side, how, (&before, &after));
        self.step(at, None, What::Rewritten { how, before: Box::new(before), after: Box::new(after) }, says);
    }

    fn rewritten(&self, at: At, side: Side, how: Rewrite, (before, after): (&Header, &Header)) -> String {
        let end = |header: &Header| {
            let (ip, port) = match side {
                Side::Destination => (header.destination, header.destination_port),
                Side::Source => (header.source, header.source_port),
            };
            let who = self.state.who(ip).map(|who| format!("{who} ")).unwrap_or_default();
            match header.protocol {
                Protocol::Icmp | Protocol::Other => format!("{who}{ip}"),
                _ => format!("{who}{}", std::net::SocketAddr::new(ip, port)),
            }
        };
        let what = match side {
            Side::Destination => "destination",
            Side::Source => "source",
        };
        let by = match how {
            Rewrite::Remembered => format!(", as {} remembers of this connection", at.name()),
            _ => String::new(),
        };
        format!("the {what} {} becomes {}{by}", end(before), end(after))
    }
}
