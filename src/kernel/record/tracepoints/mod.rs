//! What the kernel's tracepoints tell: which packets it drops and why, at which devices those were, which process has
//! sent one, and what routing tables answered. perf_event_open(2) gives them, of all namespaces of the machine, to root in the
//! first user namespace alone; what is opened goes with its descriptors.

mod lookups;
mod perf;
mod processes;
mod senders;
mod symbols;
mod tracefs;
mod trails;

use std::collections::HashSet;
use std::io;
use std::net::Ipv4Addr;

use nix::time::{ClockId, clock_gettime};

use super::event::Seen;
use super::place::{Read, now};
use super::tap::nanoseconds;
use lookups::Lookups;
use perf::Record;
use senders::Senders;
use tracefs::Tracefs;
use trails::Trails;

pub(super) use perf::Ring;
pub(super) use processes::Places;
pub(super) use symbols::{load as load_symbols, name as symbol};

/// A record may come into its buffer so long after its time, in nanoseconds.
const LATE: u64 = 1_000_000;
/// Clocks are compared so often, and the comparison that took the least time counts.
const COMPARISONS: usize = 8;

pub(super) struct Tracepoints {
    drops: (Vec<Ring>, Trails),
    young: Young,
    /// With buffers of their own, which much traffic of others may fill.
    lookups: Option<(Vec<Ring>, Lookups)>,
    /// Records that were read since [`Tracepoints::count`].
    count: usize,
    /// Why look-ups are not told of, where they were asked for: drops still are.
    pub without: Option<io::Error>,
}

impl Tracepoints {
    /// Listen from now on, in the whole machine. Processes that send are told of where `senders` says so, and look-ups for
    /// packets with one of the addresses `of`.
    pub fn open(senders: bool, of: &HashSet<Ipv4Addr>) -> io::Result<Tracepoints> {
        let tracefs = Tracefs::open()?;
        let trails = |senders| {
            let trails = Trails::new(&tracefs, senders)?;
            Ok::<_, io::Error>((Ring::of_each_cpu(&trails.wanted())?, trails))
        };
        // Kernels before 5.2 do not tell of neighbours: there nobody is named, and all else is told.
        let named = || Senders::new(&tracefs).and_then(|senders| trails(Some(senders)));
        let drops = if senders { named().or_else(|_| trails(None))? } else { trails(None)? };
        let lookups = (!of.is_empty()).then(|| Lookups::open(&tracefs, of)).transpose();
        let (lookups, without) = lookups.map_or_else(|e| (None, Some(e)), |lookups| (lookups, None));
        Ok(Tracepoints { drops, young: Young::default(), lookups, count: 0, without })
    }

    /// Whose namespaces there are: processes in others are not told of.
    pub fn know(&mut self, places: &Places) {
        self.drops.1.senders.iter_mut().for_each(|senders| senders.processes.places.clone_from(places));
    }

    /// Forget all that has been told.
    pub fn forget(&mut self) {
        self.young = Young::default();
        self.drops.1.forget_all();
    }

    /// Hear nothing for a while, or go on. What was where before is not known any more then, and who is called how neither.
    pub fn listen(&mut self, listens: bool) {
        if listens {
            self.young = Young::default();
            self.drops.1.begin_anew();
        }
        self.rings().for_each(|ring| ring.listen(listens));
    }

    /// One for each CPU and kind.
    pub fn rings(&self) -> impl Iterator<Item = &Ring> {
        self.drops.0.iter().chain(self.lookups.iter().flat_map(|(rings, _)| rings))
    }

    /// How many records were read since the last call.
    pub fn count(&mut self) -> usize {
        std::mem::take(&mut self.count)
    }

    /// Whether there is something that is only to be told later.
    pub fn is_holding(&self) -> bool {
        !self.young.0.is_empty()
    }

    /// What has been told since. A packet may be received by one CPU and freed by another, and their buffers are read
    /// one after the other: records of just now are told the next time, but for the `last` one.
    pub fn read(&mut self, last: bool) -> Read {
        let mut read = Read::default();
        let shift = since_1970();
        let horizon = if last { u64::MAX } else { now().saturating_sub(LATE) };
        let (rings, trails) = &mut self.drops;
        let (told, lost) = records(rings, shift);
        read.lost += lost;
        self.count += told.len();
        if let Some(senders) = &mut trails.senders {
            // A process may end while its records are still too new.
            senders.meet(&told);
        }
        for record in self.young.with(told, horizon) {
            read.events.extend(trails.take_in(&record).map(|seen| (record.at, seen)));
        }
        read.lost += trails.forget(now());
        if let Some((rings, lookups)) = &mut self.lookups {
            // What is lost of these is nobody's packet, and only leaves a step inferred.
            let (told, _) = records(rings, shift);
            read.events
                .extend(told.iter().filter_map(|one| Some((one.at, Seen::Lookup(lookups.read(one.what.bytes()?)?)))));
        }
        read
    }
}

/// Records that are so new that others of before may not have been read yet.
#[derive(Default)]
struct Young(Vec<Record>);

impl Young {
    /// All up to `horizon` in the order of time; those behind it are kept.
    fn with(&mut self, mut told: Vec<Record>, horizon: u64) -> Vec<Record> {
        told.append(&mut self.0);
        told.sort_by_key(|record| record.at);
        self.0 = told.split_off(told.partition_point(|record| record.at <= horizon));
        told
    }
}

/// The records of all CPUs, with the time that frames have, and how many were lost.
fn records(rings: &mut [Ring], shift: i64) -> (Vec<Record>, u64) {
    let mut told: Vec<Record> = Vec::new();
    let mut lost = 0;
    for ring in rings {
        lost += ring.read(|record| told.push(Record { at: record.at.saturating_add_signed(shift), ..record }));
    }
    (told, lost)
}

/// What is to be added to `CLOCK_MONOTONIC`, which tracepoints have, for the time that frames have. Whoever
/// compares may be made to wait between the two, so it is done several times.
fn since_1970() -> i64 {
    let time = |clock| clock_gettime(clock).map_or(0, |time| nanoseconds(time.as_ref()).cast_signed());
    let compare = || {
        let before = time(ClockId::CLOCK_MONOTONIC);
        let real = time(ClockId::CLOCK_REALTIME);
        let took = time(ClockId::CLOCK_MONOTONIC) - before;
        (took, real - before - took / 2)
    };
    (0..COMPARISONS).map(|_| compare()).min().map_or(0, |(_, shift)| shift)
}

#[cfg(test)]
mod tests {
    use super::perf::What;
    use super::*;

    #[test]
    fn what_another_cpu_wrote_before_and_is_read_afterwards_keeps_its_place() {
        let mut young = Young::default();
        let times = |records: Vec<Record>| records.into_iter().map(|record| record.at).collect::<Vec<_>>();
        let of = |times: &[u64]| {
            times.iter().map(|at| Record { at: *at, pid: 0, what: What::Point(Vec::new()) }).collect::<Vec<_>>()
        };
        // The buffer of one CPU was read before its record of 5 came, that of the other with 6.
        assert_eq!(times(young.with(of(&[6, 1]), 4)), [1]);
        assert_eq!(times(young.with(of(&[5, 9]), 8)), [5, 6]);
        assert_eq!(times(young.with(Vec::new(), u64::MAX)), [9]);
    }
}
