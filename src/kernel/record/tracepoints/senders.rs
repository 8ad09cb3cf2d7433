//! Which process a packet left its sender by. A process is known where the packet comes to the device while it runs, and
//! not an interrupt that came between: what is sent again, acknowledged or held back for a neighbour's address is sent by
//! those.

use std::collections::HashMap;
use std::io;

use crate::kernel::record::event::{Sender, Sending};
use crate::lab::names::IfName;

use super::perf::{Record, Wanted};
use super::processes::Processes;
use super::tracefs::{Format, Tracefs};

/// Of `common_flags` (linux/trace_events.h): `TRACE_FLAG_HARDIRQ`, `TRACE_FLAG_SOFTIRQ` (one is being served; that they are
/// held off is no matter) and `TRACE_FLAG_NMI`.
const INTERRUPTS: u64 = 0x08 | 0x10 | 0x40;
pub(super) const FLAGS: &str = "common_flags";
/// The same for the kernel, so that it tells of nothing else.
const NO_INTERRUPT: &str = "!(common_flags & 88)";
/// Nanoseconds in which a packet goes from its device's queue to where a tap sees it. In a queue that limits how
/// fast it goes it may stay longer, and then nothing is said.
const LONGEST: u64 = 10_000_000;
/// For so long a process that has made the kernel send packets of others is no sender.
const CARRIER: u64 = 1_000_000_000;
/// Packets and carriers that are remembered.
const MOST: usize = 4096;
/// So many sendings are told of in a second; who sends more is not named each time.
const EACH_SECOND: u32 = 2_000;
const SECOND: u64 = 1_000_000_000;

pub(super) struct Senders {
    queued: Format,
    /// A process changes a neighbour, and packets that waited for its address go.
    neighbours: Format,
    pub processes: Processes,
    /// Packets that came to a device and have not left by it.
    waiting: HashMap<u64, Waiting>,
    /// When a process last did what makes the kernel send packets of others.
    carriers: HashMap<u32, u64>,
    /// A second, and how many were told of in it.
    told: (u64, u32),
}

struct Waiting {
    since: u64,
    dev: IfName,
    by: Sender,
}

impl Senders {
    pub fn new(tracefs: &Tracefs) -> io::Result<Senders> {
        Ok(Senders {
            queued: tracefs.format("net/net_dev_queue")?,
            neighbours: tracefs.format("neigh/neigh_update")?,
            processes: Processes::default(),
            waiting: HashMap::new(),
            carriers: HashMap::new(),
            told: (0, 0),
        })
    }

    pub fn wanted(&self) -> [Wanted<'static>; 2] {
        let of = |format: &Format| Wanted { id: format.id, filter: Some(NO_INTERRUPT), ..Wanted::default() };
        [Wanted { processes: true, ..of(&self.queued) }, of(&self.neighbours)]
    }

    /// Look at the processes that have just sent something.
    pub fn meet(&mut self, told: &[Record]) {
        let of = |record: &Record| record.pid != 0 && record.what.bytes().is_some_and(|b| is_of(&self.queued, b));
        let pids: Vec<u32> = told.iter().filter(|record| of(record)).map(|record| record.pid).collect();
        pids.into_iter().for_each(|pid| self.processes.look(pid));
    }

    /// Forget what may have changed unheard.
    pub fn begin_anew(&mut self) {
        self.waiting.clear();
        self.processes.begin_anew();
    }

    /// Take in what the kernel tells of a process.
    pub fn learn(&mut self, record: &Record) {
        self.processes.learn(record);
    }

    /// Read a record of one of these tracepoints.
    pub fn take_in(&mut self, record: &Record, bytes: &[u8]) {
        if self.waiting.len() > MOST {
            self.waiting.clear();
        }
        if self.carriers.len() > MOST {
            self.carriers.retain(|_, at| record.at.saturating_sub(*at) < CARRIER);
        }
        if is_of(&self.neighbours, bytes) {
            self.carries(record, self.neighbours.number(bytes, FLAGS));
        } else if is_of(&self.queued, bytes)
            && let Some(skb) = self.queued.number(bytes, "skbaddr")
        {
            // Whatever had this place in the kernel's memory before has gone.
            self.waiting.remove(&skb);
            self.waiting.extend(self.waits(record, bytes).map(|waiting| (skb, waiting)));
        }
    }

    /// A process does what makes the kernel send packets of others, unless it was an interrupt.
    pub fn carries(&mut self, record: &Record, flags: Option<u64>) {
        if is_of_a_process(flags) {
            self.carriers.insert(record.pid, record.at);
        }
    }

    fn waits(&self, record: &Record, bytes: &[u8]) -> Option<Waiting> {
        let carried = self.carriers.get(&record.pid).is_some_and(|at| record.at.saturating_sub(*at) < CARRIER);
        if carried || !is_of_a_process(self.queued.number(bytes, FLAGS)) {
            return None;
        }
        let by = self.processes.who(record.pid)?;
        let dev = IfName::new(&self.queued.text(bytes, "name")?);
        Some(Waiting { since: record.at, dev, by })
    }

    /// Who sent a packet that leaves by a device, where it came there just before.
    pub fn left(&mut self, skb: u64, (at, dev, length): (u64, &IfName, u32)) -> Option<Sending> {
        let Waiting { since, dev: queue, by } = self.waiting.remove(&skb)?;
        let came = queue == *dev && at.saturating_sub(since) < LONGEST;
        if self.told.0 != at / SECOND {
            self.told = (at / SECOND, 0);
        }
        self.told.1 += u32::from(came);
        (came && self.told.1 <= EACH_SECOND).then_some(Sending { between: (since, at), dev: queue, length, by })
    }

    /// A packet's place in the kernel's memory is free again.
    pub fn ended(&mut self, skb: u64) {
        self.waiting.remove(&skb);
    }
}

fn is_of(format: &Format, bytes: &[u8]) -> bool {
    let id = bytes.get(..2).and_then(|b| b.try_into().ok()).map(u16::from_ne_bytes);
    id.map(u64::from) == Some(format.id)
}

/// Whether what a record is about was done by the process that the CPU was with.
fn is_of_a_process(flags: Option<u64>) -> bool {
    flags.is_some_and(|flags| flags & INTERRUPTS == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_interrupts_do_is_not_of_the_process_that_they_came_upon() {
        let (irqs_off, need_resched, hard, soft, nmi, bh_off) = (0x01, 0x04, 0x08, 0x10, 0x40, 0x80);
        for flags in [0, irqs_off, need_resched, bh_off, bh_off | irqs_off] {
            assert!(is_of_a_process(Some(flags)), "{flags:#x}");
        }
        for flags in [hard, soft, nmi, soft | bh_off, hard | irqs_off] {
            assert!(!is_of_a_process(Some(flags)), "{flags:#x}");
        }
        assert!(!is_of_a_process(None), "a record without flags");
        assert_eq!(NO_INTERRUPT, format!("!(common_flags & {INTERRUPTS})"), "the kernel is asked for the same");
    }
}
