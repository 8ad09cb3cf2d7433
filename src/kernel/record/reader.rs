//! The thread that reads all sockets of a recording as soon as something comes, because the kernel keeps
//! little. What it has read is kept by `kept`.
//!
//! A recording at a pace reads so much of each tenth of a second. When that is used up nothing more is let in: socket
//! filters let nothing through, netfilter has no listener, tracepoints are off. So the rest costs the traffic little, and of
//! what was let in each packet was seen at all devices; sockets that overflow would keep some frames of many packets.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::SockFilter;

use super::Pace;
use super::kept::Shared;
use super::place::Place;
use super::tracepoints::Tracepoints;

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
const ASKED: u64 = u64::MAX - 2;

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
    /// The same of tracepoints' records.
    each_told: usize,
    left_told: usize,
    until: Instant,
    /// What taps let in, where they are not held back.
    program: Vec<SockFilter>,
    /// Whether nothing is let in until all has been read that was, and the next part has come.
    holds: bool,
    /// Whether tracepoints are not heard.
    deaf: bool,
    /// Whether something was read since it was last looked at what found no room.
    uncounted: bool,
}

impl Budget {
    /// How long nothing must be read any more; a new part where its time has come.
    fn over(&mut self) -> Option<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            (self.left, self.left_told, self.until) = (self.each, self.each_told, Instant::now() + SPAN);
        }
        (self.left == 0).then_some(left)
    }
}

/// Tells by its end that nobody reads any more.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Reader {
    pub fn new(places: Vec<Place>, mut tracepoints: Option<Tracepoints>, shared: Arc<Shared>) -> io::Result<Reader> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let wait_for = |fd: &dyn AsFd, number| epoll.add(fd.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, number));
        wait_for(&shared.stop, STOP)?;
        wait_for(&shared.asked, ASKED)?;
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
    pub fn paced(mut self, pace: Option<&Pace>, program: Vec<SockFilter>) -> Reader {
        let spans = 1000 / SPAN.as_millis() as usize;
        let part = |of: u32| (of as usize / spans).max(1);
        self.budget = pace.map(|pace| Budget {
            each: part(pace.events),
            left: part(pace.events),
            each_told: part(pace.told),
            left_told: part(pace.told),
            until: Instant::now() + SPAN,
            program,
            holds: false,
            deaf: false,
            uncounted: false,
        });
        self
    }

    /// Let nothing in where something came.
    fn hold(&mut self) {
        let Some(budget) = self.budget.as_mut().filter(|budget| !budget.holds) else { return };
        budget.holds = true;
        self.shared.miss();
        for place in self.places.iter_mut().filter(|place| place.busy) {
            let lost = place.hold();
            self.shared.lose(&place.name, lost);
        }
        self.hear(false);
    }

    /// Let in again what comes, once all has been read that was let in.
    fn let_in(&mut self) {
        let Some(budget) = self.budget.as_mut().filter(|budget| budget.holds) else { return };
        budget.holds = false;
        for place in self.places.iter_mut().filter(|place| place.held) {
            let lost = place.go_on(&budget.program);
            self.shared.lose(&place.name, lost);
        }
        self.hear(true);
    }

    /// Count what found no room.
    fn count(&mut self) {
        let Some(budget) = self.budget.as_mut().filter(|budget| budget.uncounted) else { return };
        budget.uncounted = false;
        for place in self.places.iter_mut().filter(|place| place.busy) {
            let lost = place.overflowed();
            self.shared.lose(&place.name, lost);
        }
    }

    /// Hear of tracepoints, or not.
    fn hear(&mut self, hears: bool) {
        if let (Some(budget), Some(tracepoints)) = (&mut self.budget, &mut self.tracepoints)
            && budget.deaf == hears
        {
            budget.deaf = !hears;
            tracepoints.listen(hears);
        }
    }

    /// Wait while the budget is used up; whether the end was asked for meanwhile.
    fn rested(&mut self) -> bool {
        let over = self.budget.as_mut().and_then(Budget::over);
        let is_spent = self.budget.as_ref().is_some_and(|budget| budget.left_told == 0);
        match (over, is_spent) {
            (Some(_), _) => self.hold(),
            (None, true) => self.hear(false),
            (None, false) if self.budget.as_ref().is_some_and(|budget| !budget.holds) => self.hear(true),
            (None, false) => {}
        }
        let Some(pause) = over else { return false };
        let timeout = PollTimeout::try_from(pause).unwrap_or(PollTimeout::ZERO);
        let mut stop = [PollFd::new(self.shared.stop.as_fd(), PollFlags::POLLIN)];
        poll(&mut stop, timeout).is_ok_and(|ready| ready > 0)
    }

    /// Read until [`Shared::stop`], and then what is still there. Whoever asks after that is answered at once.
    pub fn run(mut self) -> Reader {
        // Also where it breaks off.
        let end = Ended(Arc::clone(&self.shared));
        self.go_on();
        drop(end);
        self
    }

    fn go_on(&mut self) {
        let mut ready = [EpollEvent::empty(); 64];
        loop {
            if self.rested() {
                return;
            }
            let holding = self.tracepoints.as_ref().is_some_and(Tracepoints::is_holding);
            let holds = self.budget.as_ref().is_some_and(|budget| budget.holds);
            let deaf = self.budget.as_ref().is_some_and(|budget| budget.deaf);
            let uncounted = self.budget.as_ref().is_some_and(|budget| budget.uncounted);
            let timeout = match (holds, holding || deaf || uncounted) {
                (true, _) => EpollTimeout::ZERO,
                (false, true) => SOON.into(),
                (false, false) => EpollTimeout::NONE,
            };
            let count = match self.epoll.wait(&mut ready, timeout) {
                Ok(0) if holds => {
                    self.let_in();
                    continue;
                }
                Ok(0) => {
                    self.count();
                    self.read(TRACEPOINTS);
                    continue;
                }
                Ok(count) => count,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(_) => return,
            };
            let mut framed = false;
            for source in ready[..count].iter().map(EpollEvent::data) {
                if source == STOP {
                    self.rest();
                    return;
                }
                if source == ASKED {
                    let askers = self.shared.askers();
                    self.read_places();
                    drop(askers);
                    continue;
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
            let read = tracepoints.read(false);
            if let Some(budget) = &mut self.budget {
                budget.left_told = budget.left_told.saturating_sub(tracepoints.count());
            }
            self.shared.keep(None, read);
            return false;
        }
        let at = usize::try_from(source >> 1).unwrap_or(usize::MAX);
        let Some(place) = self.places.get_mut(at) else { return false };
        let tidings = source & TIDINGS != 0;
        let read = if tidings { place.tidings(&mut self.buffer) } else { place.frames(&mut self.buffer) };
        let more = read.more;
        if let Some(budget) = &mut self.budget {
            budget.left = budget.left.saturating_sub(read.events.len());
            place.busy |= !read.events.is_empty();
            budget.uncounted |= place.busy;
            if budget.holds && place.busy && !place.held {
                let lost = place.hold();
                self.shared.lose(&place.name, lost);
            }
        }
        self.shared.keep(Some(&place.name), read);
        more
    }

    /// What the places have by now. Where packets come faster than they are read, no more than the sockets can hold.
    fn read_places(&mut self) {
        for source in 0..2 * self.places.len() as u64 {
            let mut turns = 0..256;
            while turns.next().is_some() && self.read(source) {}
        }
    }

    /// What was there when the end was asked for.
    fn rest(&mut self) {
        self.read_places();
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
