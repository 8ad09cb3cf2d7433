//! Observing packets in many namespaces at once, as plain events: frames at devices, rules that were met,
//! entries of connection tracking, packets that the kernel dropped and why, and counters.
//!
//! Nothing is decided about packets, and nothing of it stays: whatever is made in a namespace belongs to a
//! socket and goes with it, also when the process is killed. Only where rules of iptables-legacy are is a setting
//! changed (`nflog`), which is put back at the end, and goes with the lab's namespaces when they go. What events mean together is `trace`'s.

mod connections;
mod counters;
mod event;
mod filter;
mod kept;
mod listing;
mod marking;
mod nflog;
mod place;
mod reader;
mod rules;
mod stamps;
mod tap;
mod tracepoints;
mod words;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::Ipv4Addr;
use std::num::NonZero;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle, scope};
use std::time::Instant;

use crate::lab::names::NsName;
use crate::trace::model::Means;

use super::ns::NetNs;
use kept::Shared;
use place::{Failure, Place};
use reader::Reader;
use stamps::Stamps;
use tracepoints::Tracepoints;

pub use event::{
    ChainName, CounterDelta, Entry, EntryChange, Event, Frame, Freed, Listing, Lookup, Point, RuleBook, RuleKind,
    RuleSeen, Seen, Sender, Sending, Verdict,
};
pub use filter::{Filter, Tunnel};
pub use marking::is_own_table;

/// Netlink ports of recordings' sockets, by which their changes of rules are told from others'. They are
/// no process' number, of which there are at most 4,194,304, and none that the kernel chooses itself,
/// which are negative.
const PORTS: RangeInclusive<u32> = 0x4c41_4200..=0x4c41_42ff;

/// Sockets are closed by so many threads: for each the kernel waits until no CPU looks at it any more,
/// and it waits for many as long as for one.
const CLOSERS: usize = 512;
/// They call nothing deep.
const CLOSERS_STACK: usize = 64 * 1024;
/// More threads than this do not open places faster.
const OPENERS: usize = 4;

/// Whether a change of rules was made by a recording, by the netlink port that comes with it.
pub fn is_own_port(port: u32) -> bool {
    PORTS.contains(&port)
}

/// One namespace to observe. It stays for as long as it is recorded.
pub struct Spot {
    pub place: NsName,
    pub netns: NetNs,
}

/// What is recorded. Frames and counters always are.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes that are kept of a frame, at least 64.
    pub snap: usize,
    /// The rules that packets meet.
    pub rules: bool,
    /// New, changed and removed entries of connection tracking.
    pub conntrack: bool,
    /// Why the kernel drops packets. It tells root alone.
    pub drops: bool,
    /// The addresses of which it is told, beside drops, what routing tables answered for their packets; none of
    /// any where this is empty. It tells root alone, too.
    pub lookups: HashSet<Ipv4Addr>,
    pub filter: Filter,
    /// For a recording that goes on beside other traffic: no more than this of a second is read and, in each
    /// namespace, traced through its rules; the kernel throws away and counts what is too much.
    pub pace: Option<Pace>,
}

/// How much of a second is observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    pub events: u32,
    /// Packets whose rules are told.
    pub traced: u32,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            snap: 256,
            rules: true,
            conntrack: true,
            drops: true,
            lookups: HashSet::new(),
            filter: Filter::default(),
            pace: None,
        }
    }
}

/// Bytes that a socket may keep, which is asked for: without `CAP_NET_ADMIN` over the machine it is cut to
/// `net.core.rmem_max`. One that is read at a pace keeps little, so that what is read is not old.
const BUFFER: usize = 4 * 1024 * 1024;
const PACED_BUFFER: usize = 512 * 1024;

impl Options {
    fn buffer(&self) -> usize {
        if self.pace.is_some() { PACED_BUFFER } else { BUFFER }
    }

    fn snap(&self) -> u32 {
        u32::try_from(self.snap.clamp(64, 0xffff)).unwrap_or(0xffff)
    }
}

/// A means that is asked for and does not work here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    pub means: Means,
    /// In words.
    pub why: String,
    /// Where; none where it is the whole machine.
    pub places: Vec<NsName>,
}

/// A recording that goes on.
pub struct Recorder {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<Reader>>,
    missing: Vec<Missing>,
}

/// The end of a recording, which goes on beside what is done with it.
#[must_use]
pub struct Closing(Option<JoinHandle<()>>);

impl Closing {
    /// Everything temporary is gone when this returns.
    pub fn wait(self) {
        // It cannot panic but where the allocator does.
        let _ = self.0.map(JoinHandle::join);
    }
}

/// What a recording found.
#[derive(Debug, Default)]
pub struct Recording {
    /// Sorted by time; those that were taken before are not among them.
    pub events: Vec<Event>,
    /// So many events were lost, at least.
    pub lost: u64,
    /// So many of the machine's dropped packets were not told, with their reasons.
    pub lost_reasons: u64,
    pub counters: Vec<CounterDelta>,
    /// Of the namespaces in which a rule was met, as they are at the end.
    pub chains: RuleBook,
}

impl Recorder {
    /// Everything is recording when this returns. What this machine or user does not have is left out and
    /// told by [`Recorder::missing`]. Blocks; errors where a namespace cannot be entered or no thread be
    /// started.
    pub fn open(spots: &[Spot], options: &Options) -> io::Result<Recorder> {
        let shared = Arc::new(Shared::new()?);
        let ((places, mut missing), tracepoints) = scope(|scope| {
            let stamps = scope.spawn(Stamps::ask);
            let tracepoints = options.drops.then(|| scope.spawn(|| Tracepoints::open(&options.lookups)));
            let opened = open_places(spots, options)?;
            let tracepoints = tracepoints.map(|opening| opening.join().unwrap_or_else(|_| Err(panicked())));
            // Only now that the taps have asked for stamps, too, may this socket go.
            stamps.join().unwrap_or_else(|_| Err(panicked()))?.wait()?;
            Ok::<_, io::Error>((opened, tracepoints))
        })?;
        let tracepoints = tracepoints.and_then(|opened| {
            let why = |e: io::Error| match e.kind() {
                io::ErrorKind::PermissionDenied => "why the kernel drops packets it tells root alone".to_owned(),
                _ => format!("why the kernel drops packets it tells root alone, and not here: {e}"),
            };
            opened.map_err(|e| missing.push(Missing { means: Means::DropReason, why: why(e), places: Vec::new() })).ok()
        });
        if let Some(e) = tracepoints.as_ref().and_then(|opened| opened.without.as_ref()) {
            let why = format!("what routing tables answer is not told here: {e}");
            missing.push(Missing { means: Means::Lookup, why, places: Vec::new() });
        }
        if tracepoints.is_some() {
            // Meanwhile: nothing waits for it before a dropped packet is given out.
            Builder::new().name("symbols".to_owned()).spawn(tracepoints::load_symbols)?;
        }
        let reader = Reader::new(places, tracepoints, Arc::clone(&shared))?.paced(options.pace);
        let reader = Builder::new().name("record".to_owned()).spawn(|| reader.run())?;
        Ok(Recorder { shared, reader: Some(reader), missing })
    }

    /// Which means are missing, and why.
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// What came since the last call, sorted by time.
    pub fn drain(&self) -> Vec<Event> {
        self.shared.take()
    }

    /// How many events were lost so far, at least; of one without a [`Pace`] frames are counted at the end.
    pub fn lost(&self) -> u64 {
        self.shared.lost()
    }

    /// How many of those were frames at one place; of a recording with a [`Pace`] alone.
    pub fn lost_at(&self, place: &NsName) -> u64 {
        self.shared.lost_at(place)
    }

    /// When a frame or a rule that the filter lets through was read last, once all is read that has come by now.
    /// Blocks until then, which a busy machine may make longer than a moment.
    pub fn last_event(&self) -> Option<Instant> {
        // Nobody sends anything: it closes.
        let _ = self.shared.ask().recv();
        self.shared.last()
    }

    /// Stop. Everything temporary is gone when this returns. Blocks for some tens of milliseconds, and in a
    /// large lab for longer: the counters of all namespaces are read.
    pub fn finish(self) -> Recording {
        let (recording, closing) = self.hand_over(|_| true);
        closing.wait();
        recording
    }

    /// Stop, and give what was recorded as soon as it is there, with the counters of namespaces in which
    /// something was seen and of those that are `concerned` beside them.
    pub fn hand_over(mut self, concerned: impl Fn(&NsName) -> bool + Sync) -> (Recording, Closing) {
        let reader = self.stop();
        let events = self.shared.take();
        let (mut counters, mut chains, mut lost) = (Vec::new(), RuleBook::default(), self.shared.lost());
        let mut closing = None;
        if let Some(reader) = reader {
            lost += reader.places.iter().filter_map(|place| place.tap.as_ref()).map(tap::Tap::lost).sum::<u64>();
            let seen: HashSet<&NsName> = events.iter().filter_map(|event| event.place.as_ref()).collect();
            let wanted = |place: &&Place| seen.contains(&place.name) || concerned(&place.name);
            let places: Vec<&Place> = reader.places.iter().filter(wanted).collect();
            // A namespace that cannot be read any more tells nothing.
            let _ = scope(|scope| scope.spawn(|| look_back(&places, &mut counters, &mut chains)).join());
            // Where no thread can be started the closure is dropped, and so it is closed here.
            closing = Builder::new().name("close".to_owned()).spawn(move || close(reader)).ok();
        }
        let lost_reasons = self.shared.lost_reasons();
        (Recording { events, lost, lost_reasons, counters, chains }, Closing(closing))
    }

    fn stop(&mut self) -> Option<Reader> {
        let reader = self.reader.take()?;
        self.shared.stop();
        reader.join().ok()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if let Some(reader) = self.stop() {
            close(reader);
        }
    }
}

/// The rules of some namespaces as they are now, for a recording that goes on. One that cannot be read leaves
/// its rules without a place in their chain. Blocks.
pub fn book(spots: &[Spot]) -> RuleBook {
    let mut book = RuleBook::default();
    let _ = scope(|scope| {
        let walk = || {
            for spot in spots {
                let _ = spot.netns.enter().and_then(|()| rules::book(&spot.place, &mut book));
            }
        };
        scope.spawn(walk).join()
    });
    book
}

fn panicked() -> io::Error {
    io::Error::other("a thread of the recording panicked")
}

type Opened = (Vec<Place>, Vec<(NsName, Failure)>);

/// Open all places, on threads that walk through them.
fn open_places(spots: &[Spot], options: &Options) -> io::Result<(Vec<Place>, Vec<Missing>)> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(OPENERS);
    let parts = scope(|scope| {
        let some = spots.chunks(spots.len().div_ceil(threads).max(1));
        let opening: Vec<_> = some.map(|spots| scope.spawn(|| places(spots, options))).collect();
        let joined = opening.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(panicked())));
        joined.collect::<io::Result<Vec<Opened>>>()
    })?;
    let mut missing: BTreeMap<Failure, Vec<NsName>> = BTreeMap::new();
    let mut places = Vec::with_capacity(spots.len());
    for (opened, failed) in parts {
        places.extend(opened);
        failed.into_iter().for_each(|(place, failure)| missing.entry(failure).or_default().push(place));
    }
    let missing = missing.into_iter().map(|((means, why), places)| Missing { means, why, places });
    Ok((places, missing.collect()))
}

fn places(spots: &[Spot], options: &Options) -> io::Result<Opened> {
    let (mut places, mut all) = (Vec::with_capacity(spots.len()), Vec::new());
    for spot in spots {
        let mut failed = Vec::new();
        places.push(Place::open(spot, options, &mut failed)?);
        all.extend(failed.into_iter().map(|failure| (spot.place.clone(), failure)));
    }
    Ok((places, all))
}

/// Read what is only known afterwards, on a thread that walks through the places.
fn look_back(places: &[&Place], counters: &mut Vec<CounterDelta>, chains: &mut RuleBook) {
    for place in places {
        let counted = place.counted().unwrap_or_default();
        counters.extend(counted.into_iter().map(|(name, by)| CounterDelta { place: place.name.clone(), name, by }));
        if place.met {
            // Where they cannot be read, handles stay without a place in their chain.
            let _ = place.book(chains);
        }
    }
}

/// Close everything, on threads that wait together.
fn close(reader: Reader) {
    let mut all = reader.sockets();
    let each = all.len().div_ceil(CLOSERS).max(1);
    scope(|scope| {
        while !all.is_empty() {
            let some = all.split_off(all.len().saturating_sub(each));
            // Where no thread can be started the closure is dropped, and so they are closed here.
            let _ = Builder::new().stack_size(CLOSERS_STACK).spawn_scoped(scope, move || drop(some));
        }
    });
}
