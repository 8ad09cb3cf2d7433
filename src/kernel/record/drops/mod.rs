//! Packets that the kernel drops, and why: the tracepoint `skb:kfree_skb`, and those by which it is known
//! at which device a packet was at last. perf_event_open(2) gives them, of all namespaces of the machine,
//! to root in the first user namespace alone; what is opened goes with its descriptors.

mod perf;
mod symbols;
mod tracefs;

use std::collections::HashMap;
use std::io;

use nix::time::{ClockId, clock_gettime};

use crate::lab::names::IfName;

use super::event::{Freed, Seen};
use super::place::Read;
use super::tap::nanoseconds;
use perf::Wanted;
use tracefs::{Format, Tracefs};

pub(super) use perf::Ring;
pub(super) use symbols::{load as load_symbols, name as symbol};

/// Packets of which it is remembered where they were.
const MOST: usize = 64 * 1024;
/// A packet that waits longer than this for its next hop's address is one that was forgotten.
const LONGEST: u64 = 10_000_000_000;

/// What the kernel's descriptions say of each tracepoint.
struct Tracepoints {
    freed: Format,
    consumed: Format,
    received: Format,
    queued: Format,
}

pub(super) struct Drops {
    /// One for each CPU.
    pub rings: Vec<Ring>,
    tracepoints: Tracepoints,
    seen: HashMap<u64, There>,
}

/// Where a packet was.
#[derive(Clone)]
struct There {
    at: u64,
    dev: IfName,
    length: u32,
}

impl Drops {
    /// Listen from now on, in the whole machine.
    pub fn open() -> io::Result<Drops> {
        let tracefs = Tracefs::open()?;
        let tracepoints = Tracepoints {
            freed: tracefs.format("skb/kfree_skb")?,
            consumed: tracefs.format("skb/consume_skb")?,
            received: tracefs.format("net/netif_receive_skb")?,
            queued: tracefs.format("net/net_dev_queue")?,
        };
        let only = Some("protocol == 0x0800 || protocol == 0x0806");
        let wanted = [
            Wanted { id: tracepoints.freed.id, filter: only, wakes: true },
            Wanted { id: tracepoints.consumed.id, filter: None, wakes: false },
            Wanted { id: tracepoints.received.id, filter: None, wakes: false },
            Wanted { id: tracepoints.queued.id, filter: None, wakes: false },
        ];
        Ok(Drops { rings: Ring::of_each_cpu(&wanted)?, tracepoints, seen: HashMap::new() })
    }

    /// What has been told since.
    pub fn read(&mut self) -> Read {
        let mut read = Read::default();
        let mut told: Vec<(u64, Vec<u8>)> = Vec::new();
        for ring in &mut self.rings {
            read.lost += ring.read(|at, bytes| told.push((at, bytes.to_vec())));
        }
        // A packet may be received by one CPU and freed by another.
        told.sort_by_key(|(at, _)| *at);
        let shift = since_1970();
        for (at, bytes) in told {
            let at = at.saturating_add_signed(shift);
            read.events.extend(self.take_in(at, &bytes).map(|freed| (at, Seen::Freed(freed))));
        }
        if self.seen.len() > MOST {
            self.seen.clear();
        }
        read
    }

    fn take_in(&mut self, at: u64, bytes: &[u8]) -> Option<Freed> {
        let Tracepoints { freed, consumed, received, queued } = &self.tracepoints;
        let id = u64::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        if id == freed.id {
            let skb = freed.number(bytes, "skbaddr")?;
            let there = self.seen.remove(&skb).filter(|there| at.saturating_sub(there.at) < LONGEST);
            return Some(Freed {
                reason: freed.reason(freed.number(bytes, "reason")),
                location: format!("{:#x}", freed.number(bytes, "location")?),
                protocol: u16::try_from(freed.number(bytes, "protocol")?).ok()?,
                dev: there.as_ref().map(|there| there.dev.clone()),
                length: there.as_ref().map(|there| there.length),
                there: there.as_ref().map(|there| there.at),
                skb,
            });
        }
        if id == consumed.id {
            self.seen.remove(&consumed.number(bytes, "skbaddr")?);
            return None;
        }
        let format = [received, queued].into_iter().find(|format| format.id == id)?;
        let dev = IfName::new(&format.text(bytes, "name")?);
        let length = u32::try_from(format.number(bytes, "len")?).ok()?;
        self.seen.insert(format.number(bytes, "skbaddr")?, There { at, dev, length });
        None
    }
}

/// What is to be added to `CLOCK_MONOTONIC`, which tracepoints have, for the time that frames have.
fn since_1970() -> i64 {
    let now = |clock| clock_gettime(clock).map_or(0, |time| nanoseconds(time.as_ref()).cast_signed());
    now(ClockId::CLOCK_REALTIME) - now(ClockId::CLOCK_MONOTONIC)
}
