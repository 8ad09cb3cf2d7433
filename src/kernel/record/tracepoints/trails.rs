//! Packets that the kernel drops, with the devices that they were at: each has its place in the kernel's memory
//! from one to the next.

use std::collections::HashMap;
use std::io;

use crate::kernel::record::event::{Freed, Point};
use crate::lab::names::IfName;

use super::perf::Wanted;
use super::tracefs::{Format, Tracefs};

/// Packets of which it is remembered where they were.
const MOST: usize = 64 * 1024;
/// As many devices as a packet comes by, and some more.
const LONGEST: usize = 16;
/// A packet that waits longer than this for its next hop's address is one that was forgotten.
const OLDEST: u64 = 10_000_000_000;

pub(super) struct Trails {
    freed: Format,
    consumed: Format,
    /// It comes in by a device, and waits to be taken in, which is when taps give it its time.
    arrived: Format,
    /// It is taken in.
    received: Format,
    sent: Format,
    seen: HashMap<u64, Vec<Passed>>,
}

struct Passed {
    point: Point,
    /// Whether it is still to be taken in.
    waits: bool,
}

impl Trails {
    pub fn new(tracefs: &Tracefs) -> io::Result<Trails> {
        Ok(Trails {
            freed: tracefs.format("skb/kfree_skb")?,
            consumed: tracefs.format("skb/consume_skb")?,
            arrived: tracefs.format("net/netif_rx")?,
            received: tracefs.format("net/netif_receive_skb")?,
            sent: tracefs.format("net/net_dev_start_xmit")?,
            seen: HashMap::new(),
        })
    }

    pub fn wanted(&self) -> Vec<Wanted<'static>> {
        let freed = Wanted { id: self.freed.id, filter: Some("protocol == 0x0800 || protocol == 0x0806"), wakes: true };
        let others = [&self.consumed, &self.arrived, &self.received, &self.sent];
        let others = others.map(|format| Wanted { id: format.id, filter: None, wakes: false });
        [freed].into_iter().chain(others).collect()
    }

    /// Of packets that nobody heard the end of there may be many.
    pub fn forget(&mut self) {
        if self.seen.len() > MOST {
            self.seen.clear();
        }
    }

    /// Read a record; what was dropped, where it tells of that.
    pub fn take_in(&mut self, at: u64, bytes: &[u8]) -> Option<Freed> {
        let Trails { freed, consumed, arrived, received, sent, seen } = self;
        let id = u64::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        if id == freed.id {
            let skb = freed.number(bytes, "skbaddr")?;
            let trail = seen.remove(&skb).unwrap_or_default().into_iter().map(|passed| passed.point);
            return Some(Freed {
                reason: freed.reason(freed.number(bytes, "reason")),
                location: format!("{:#x}", freed.number(bytes, "location")?),
                protocol: u16::try_from(freed.number(bytes, "protocol")?).ok()?,
                trail: trail.filter(|point| at.saturating_sub(point.at) < OLDEST).collect(),
                skb,
            });
        }
        if id == consumed.id {
            seen.remove(&consumed.number(bytes, "skbaddr")?);
            return None;
        }
        let format = [&*arrived, &*received, &*sent].into_iter().find(|format| format.id == id)?;
        let point = Point {
            at,
            dev: IfName::new(&format.text(bytes, "name")?),
            outgoing: id == sent.id,
            length: u32::try_from(format.number(bytes, "len")?).ok()?,
        };
        let waits = id == arrived.id;
        let is_taken_in = id == received.id;
        let trail = seen.entry(format.number(bytes, "skbaddr")?).or_default();
        match trail.last_mut() {
            Some(last) if last.waits && is_taken_in && last.point.dev == point.dev => last.waits = false,
            _ => {
                if trail.len() == LONGEST {
                    trail.remove(0);
                }
                trail.push(Passed { point, waits });
            }
        }
        None
    }
}
