//! The thread that reads all sockets of a recording as soon as something comes, because the kernel keeps
//! little; and what it has read, which others take.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::lab::names::NsName;

use super::Pace;
use super::event::{Event, Seen};
use super::place::{Place, Read};
use super::tap::Tap;
use super::tracepoints::{Tracepoints, symbol};

/// So many bytes of events are kept until somebody takes them; what comes then is lost.
const MOST: usize = 128 * 1024 * 1024;
/// Of the whole machine's dropped packets, and of look-ups, so many bytes each: others' must not take the room of
/// what is asked for.
const MOST_OF_OTHERS: usize = 16 * 1024 * 1024;
/// What an event takes beside what it points to.
const EACH: usize = size_of::<Event>() + 128;
/// The largest thing that any of the sockets gives.
const LARGEST: usize = 64 * 1024;
/// What of the number of a source says which of a place's sockets it is.
const TIDINGS: u64 = 1;
/// A paced recording's budget is given in parts, one for each of these.
const SPAN: Duration = Duration::from_millis(100);
/// Milliseconds until records that were too new are looked at again.
const SOON: u8 = 5;
const STOP: u64 = u64::MAX;
const TRACEPOINTS: u64 = u64::MAX - 1;

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
    stop: EventFd,
}

impl Shared {
    pub fn new() -> io::Result<Shared> {
        let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Shared { kept: Mutex::default(), stop })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Make the thread that reads end, once it has read what is there.
    pub fn stop(&self) {
        // A counter that is full has been set, too.
        let _ = self.stop.write(1);
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

    fn lose(&self, place: &NsName, lost: u64) {
        if lost > 0 {
            let mut kept = self.kept();
            kept.lost += lost;
            *kept.lost_at.entry(place.clone()).or_default() += lost;
        }
    }

    fn keep(&self, place: Option<&NsName>, read: Read) {
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

/// All that is read.
pub(super) struct Reader {
    pub places: Vec<Place>,
    tracepoints: Option<Tracepoints>,
    shared: Arc<Shared>,
    epoll: Epoll,
    buffer: Vec<u8>,
    budget: Option<Budget>,
}

/// How many events may still be read, and until when no more than that.
struct Budget {
    each: usize,
    left: usize,
    until: Instant,
}

impl Budget {
    /// How long nothing must be read any more; a new part where its time has come.
    fn over(&mut self) -> Option<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            (self.left, self.until) = (self.each, Instant::now() + SPAN);
        }
        (self.left == 0).then_some(left)
    }
}

impl Reader {
    pub fn new(places: Vec<Place>, mut tracepoints: Option<Tracepoints>, shared: Arc<Shared>) -> io::Result<Reader> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let wait_for = |fd: &dyn AsFd, number| epoll.add(fd.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, number));
        wait_for(&shared.stop, STOP)?;
        for (i, place) in (0u64..).zip(&places) {
            if let Some(tap) = &place.tap {
                wait_for(tap, i << 1)?;
            }
            if let Some(told) = &place.told {
                wait_for(told, i << 1 | TIDINGS)?;
            }
        }
        if let Some(tracepoints) = &mut tracepoints {
            tracepoints
                .know(&places.iter().filter_map(|place| Some((place.identity()?, place.name.clone()))).collect());
        }
        for ring in tracepoints.iter().flat_map(Tracepoints::rings) {
            wait_for(ring, TRACEPOINTS)?;
        }
        Ok(Reader { places, tracepoints, shared, epoll, buffer: vec![0; LARGEST], budget: None })
    }

    #[must_use]
    pub fn paced(mut self, pace: Option<Pace>) -> Reader {
        let spans = 1000 / SPAN.as_millis() as usize;
        self.budget = pace.map(|pace| {
            let each = (pace.events as usize / spans).max(1);
            Budget { each, left: each, until: Instant::now() + SPAN }
        });
        self
    }

    /// Wait while the budget is used up; whether the end was asked for meanwhile.
    fn rested(&mut self) -> bool {
        let Some(pause) = self.budget.as_mut().and_then(Budget::over) else { return false };
        for place in &self.places {
            self.shared.lose(&place.name, place.tap.as_ref().map_or(0, Tap::lost));
        }
        let timeout = PollTimeout::try_from(pause).unwrap_or(PollTimeout::ZERO);
        let mut stop = [PollFd::new(self.shared.stop.as_fd(), PollFlags::POLLIN)];
        poll(&mut stop, timeout).is_ok_and(|ready| ready > 0)
    }

    /// Read until [`Shared::stop`], and then what is still there.
    pub fn run(mut self) -> Reader {
        let mut ready = [EpollEvent::empty(); 64];
        loop {
            if self.rested() {
                return self;
            }
            let holding = self.tracepoints.as_ref().is_some_and(Tracepoints::is_holding);
            let timeout = if holding { SOON.into() } else { EpollTimeout::NONE };
            let count = match self.epoll.wait(&mut ready, timeout) {
                Ok(0) => {
                    self.read(TRACEPOINTS);
                    continue;
                }
                Ok(count) => count,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(_) => return self,
            };
            let mut framed = false;
            for source in ready[..count].iter().map(EpollEvent::data) {
                if source == STOP {
                    self.rest();
                    return self;
                }
                self.read(source);
                framed |= source & TIDINGS == 0;
                if self.budget.as_ref().is_some_and(|budget| budget.left == 0) {
                    break;
                }
            }
            if framed {
                // Whoever sent them may end at once.
                self.read(TRACEPOINTS);
            }
        }
    }

    /// Returns whether there may be more.
    fn read(&mut self, source: u64) -> bool {
        if let (TRACEPOINTS, Some(tracepoints)) = (source, &mut self.tracepoints) {
            self.shared.keep(None, tracepoints.read(false));
            return false;
        }
        let at = usize::try_from(source >> 1).unwrap_or(usize::MAX);
        let Some(place) = self.places.get_mut(at) else { return false };
        let tidings = source & TIDINGS != 0;
        let read = if tidings { place.tidings(&mut self.buffer) } else { place.frames(&mut self.buffer) };
        let more = read.more;
        if let Some(budget) = &mut self.budget {
            budget.left = budget.left.saturating_sub(read.events.len());
        }
        self.shared.keep(Some(&place.name), read);
        more
    }

    /// What was there when the end was asked for. Where packets come faster than they are read, no more
    /// than the sockets could hold then.
    fn rest(&mut self) {
        for source in 0..2 * self.places.len() as u64 {
            let mut turns = 0..256;
            while turns.next().is_some() && self.read(source) {}
        }
        if let Some(tracepoints) = &mut self.tracepoints {
            self.shared.keep(None, tracepoints.read(true));
        }
    }

    /// All that is to be closed, one by one. The tracepoints' descriptors go meanwhile: nobody sees those,
    /// and the kernel takes 200 ms for them.
    pub fn sockets(mut self) -> Vec<Box<dyn Send>> {
        let mut tracepoints = self.tracepoints.take();
        // Memory that is free by the end of this can be given back.
        tracepoints.iter_mut().for_each(Tracepoints::forget);
        // Where no thread can be started the closure is dropped, and so they are closed here.
        let _ = std::thread::Builder::new().spawn(move || drop(tracepoints));
        let mut all: Vec<Box<dyn Send>> = Vec::new();
        for place in &mut self.places {
            place.give_back();
            all.extend(place.tap.take().map(|tap| Box::new(tap) as Box<dyn Send>));
            all.extend(place.told.take().map(|told| Box::new(told) as Box<dyn Send>));
        }
        all.push(Box::new(self.places));
        all
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
