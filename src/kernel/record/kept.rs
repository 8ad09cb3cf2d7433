//! What a recording has read and nobody has taken yet, within bounds; what finds no room is counted. Who reads it is
//! `reader`.

use std::collections::HashMap;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::lab::names::NsName;

use super::event::{Event, Seen};
use super::place::Read;
use super::tracepoints::symbol;

/// So many bytes of events are kept until somebody takes them; what comes then is lost.
const MOST: usize = 128 * 1024 * 1024;
/// Of the whole machine's dropped packets, and of look-ups, so many bytes each: others' must not take the room of
/// what is asked for.
const MOST_OF_OTHERS: usize = 16 * 1024 * 1024;
/// What an event takes beside what it points to.
const EACH: usize = size_of::<Event>() + 128;
/// What has been read and not been taken.
#[derive(Default)]
struct Kept {
    events: Vec<Event>,
    /// What the events take, by [`Share`].
    bytes: [usize; 3],
    lost: u64,
    /// Beside those, of the machine's dropped packets.
    lost_reasons: u64,
    sequence: u64,
    last: Option<Instant>,
    /// Frames that were lost, by place.
    lost_at: HashMap<NsName, u64>,
}

/// Whose room an event takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Share {
    Places,
    Drops,
    Lookups,
}

impl Share {
    fn of(seen: &Seen) -> Share {
        match seen {
            Seen::Frame(_) | Seen::Rule(_) | Seen::Conntrack(_) => Share::Places,
            Seen::Freed(_) => Share::Drops,
            Seen::Lookup(_) | Seen::Sending(_) => Share::Lookups,
        }
    }

    fn most(self) -> usize {
        if self == Share::Places { MOST } else { MOST_OF_OTHERS }
    }
}

impl Kept {
    /// Whether there is room for an event, which it then takes; what finds none is counted. A look-up or
    /// a sender without room is no packet, and only leaves a step inferred.
    fn has_room(&mut self, seen: &Seen) -> bool {
        let share = Share::of(seen);
        let bytes = self.bytes[share as usize] + EACH + seen.heap();
        let fits = bytes <= share.most();
        match share {
            _ if fits => self.bytes[share as usize] = bytes,
            Share::Places => self.lost += 1,
            Share::Drops => self.lost_reasons += 1,
            Share::Lookups => {}
        }
        fits
    }
}

/// Between the thread that reads and the others.
pub(super) struct Shared {
    kept: Mutex<Kept>,
    pub(super) stop: EventFd,
    pub(super) asked: EventFd,
    /// Who waits until everything is read that has come by now; nothing once nobody reads any more.
    waiting: Mutex<Option<Vec<Sender<()>>>>,
}

impl Shared {
    pub fn new() -> io::Result<Shared> {
        let bell = || EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        Ok(Shared { kept: Mutex::default(), stop: bell()?, asked: bell()?, waiting: Mutex::new(Some(Vec::new())) })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Make the thread that reads end, once it has read what is there.
    pub fn stop(&self) {
        // A counter that is full has been set, too.
        let _ = self.stop.write(1);
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Vec<Sender<()>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ask the thread that reads to read everything that has come by now. The channel closes once it has, or reads
    /// no more.
    pub fn ask(&self) -> Receiver<()> {
        let (asker, answered) = channel();
        self.waiting().as_mut().into_iter().for_each(|waiting| waiting.push(asker.clone()));
        // A counter that is full has been set, too.
        let _ = self.asked.write(1);
        answered
    }

    /// Those who have asked so far. They are answered when this is dropped.
    pub fn askers(&self) -> Vec<Sender<()>> {
        // That somebody has asked is known by now.
        let _ = self.asked.read();
        self.waiting().as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Nobody reads any more.
    pub fn end(&self) {
        *self.waiting() = None;
    }

    pub fn take(&self) -> Vec<Event> {
        let mut kept = self.kept();
        kept.bytes = Default::default();
        let mut events = std::mem::take(&mut kept.events);
        drop(kept);
        for event in &mut events {
            if let Seen::Freed(freed) = &mut event.seen {
                freed.location = symbol(&freed.location).unwrap_or_else(|| freed.location.clone());
            }
        }
        events.sort_by_key(|event| (event.at, event.sequence));
        events
    }

    pub fn last(&self) -> Option<Instant> {
        self.kept().last
    }

    pub fn lost(&self) -> u64 {
        self.kept().lost
    }

    pub fn lost_reasons(&self) -> u64 {
        self.kept().lost_reasons
    }

    pub fn lost_at(&self, place: &NsName) -> u64 {
        self.kept().lost_at.get(place).copied().unwrap_or(0)
    }

    pub fn lose(&self, place: &NsName, lost: u64) {
        if lost > 0 {
            let mut kept = self.kept();
            kept.lost += lost;
            *kept.lost_at.entry(place.clone()).or_default() += lost;
        }
    }

    pub fn keep(&self, place: Option<&NsName>, read: Read) {
        let mut kept = self.kept();
        match place {
            Some(_) => kept.lost += read.lost,
            None => kept.lost_reasons += read.lost,
        }
        if read.events.is_empty() {
            return;
        }
        // Connections and drops are everyone's.
        if read.events.iter().any(|(_, seen)| matches!(seen, Seen::Frame(_) | Seen::Rule(_))) {
            kept.last = Some(Instant::now());
        }
        for (at, seen) in read.events {
            if !kept.has_room(&seen) {
                continue;
            }
            kept.sequence += 1;
            let sequence = kept.sequence;
            kept.events.push(Event { at, sequence, place: place.cloned(), seen });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use super::*;
    use crate::kernel::record::event::{Frame, Freed, Lookup, Point};
    use crate::lab::names::IfName;

    fn frame(bytes: usize) -> Seen {
        let dev = IfName::new("eth0");
        let (index, outgoing, packet_type, ethernet, protocol, length, mark) = (2, true, 4, true, 0x800, 64, None);
        Seen::Frame(Frame {
            index,
            dev,
            outgoing,
            packet_type,
            ethernet,
            protocol,
            bytes: vec![0; bytes],
            length,
            mark,
        })
    }

    #[test]
    fn what_nobody_takes_is_kept_up_to_a_bound_and_counted_behind_it() {
        let shared = Shared::new().expect("an eventfd");
        let many = |count| Read { events: (0..count).map(|at| (at, frame(MOST / 4))).collect(), lost: 1, more: false };
        shared.keep(Some(&NsName::Router), many(5));
        assert_eq!((shared.take().len(), shared.lost()), (3, 3));
        shared.keep(Some(&NsName::Router), many(2));
        assert_eq!((shared.take().len(), shared.lost()), (2, 4), "there is room again");
    }

    #[test]
    fn lost_reasons_of_drops_are_counted_apart() {
        let shared = Shared::new().expect("an eventfd");
        shared.keep(None, Read { lost: 7, ..Read::default() });
        assert_eq!((shared.lost(), shared.lost_reasons()), (0, 7));
    }

    #[test]
    fn others_drops_and_look_ups_leave_the_room_of_frames() {
        let shared = Shared::new().expect("an eventfd");
        let end = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        let via = Ipv4Addr::UNSPECIFIED;
        let lookup = Lookup { table: 254, source: end, destination: end, iif: 1, dev: None, via };
        let point = Point { at: 0, dev: IfName::new("eth0"), outgoing: true, length: 0 };
        let freed = Freed { trail: vec![point; MOST_OF_OTHERS / 10_000 / size_of::<Point>()], ..Freed::default() };
        let none = MOST_OF_OTHERS / EACH + 10;
        let lookups = vec![(1, Seen::Lookup(lookup)); none];
        shared.keep(None, Read { events: lookups, ..Read::default() });
        shared.keep(None, Read { events: vec![(1, Seen::Freed(freed)); 10_000], ..Read::default() });
        shared.keep(Some(&NsName::Router), Read { events: vec![(2, frame(MOST / 2))], ..Read::default() });
        let events = shared.take();
        let count = |wanted| events.iter().filter(|event| Share::of(&event.seen) == wanted).count();
        let (lookups, drops) = (count(Share::Lookups), count(Share::Drops));
        assert!((1..none).contains(&lookups) && (1..10_000).contains(&drops), "{lookups} and {drops}");
        assert_eq!((count(Share::Places), shared.lost(), shared.lost_reasons()), (1, 0, 10_000 - drops as u64));
    }

    #[test]
    fn only_what_passes_the_filter_keeps_a_recording_from_being_quiet() {
        let shared = Shared::new().expect("an eventfd");
        let freed = Seen::Freed(Freed::default());
        shared.keep(None, Read { events: vec![(1, freed)], ..Read::default() });
        assert_eq!(shared.last(), None);
        shared.keep(None, Read { events: vec![(1, frame(0))], ..Read::default() });
        assert!(shared.last().is_some());
    }

    #[test]
    fn what_is_taken_is_sorted_by_time_and_then_by_the_order_of_reading() {
        let shared = Shared::new().expect("an eventfd");
        for times in [[5, 3], [4, 3]] {
            let events = times.map(|at| (at, frame(0))).into();
            shared.keep(None, Read { events, ..Read::default() });
        }
        let order: Vec<_> = shared.take().iter().map(|event| (event.at, event.sequence)).collect();
        assert_eq!(order, [(3, 2), (3, 4), (4, 3), (5, 1)]);
    }
}
