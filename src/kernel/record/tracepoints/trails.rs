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
    /// It is taken in, which may be some time after it came, and with that after its tap's time.
    received: Format,
    /// It leaves by a device, and a tap sees it just before.
    sent: Format,
    seen: HashMap<u64, Vec<Point>>,
}

impl Trails {
    pub fn new(tracefs: &Tracefs) -> io::Result<Trails> {
        Ok(Trails {
            freed: tracefs.format("skb/kfree_skb")?,
            consumed: tracefs.format("skb/consume_skb")?,
            received: tracefs.format("net/netif_receive_skb")?,
            sent: tracefs.format("net/net_dev_start_xmit")?,
            seen: HashMap::new(),
        })
    }

    pub fn wanted(&self) -> Vec<Wanted<'static>> {
        let freed = Wanted { id: self.freed.id, filter: Some("protocol == 0x0800 || protocol == 0x0806"), wakes: true };
        let others = [&self.consumed, &self.received, &self.sent];
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
        let Trails { freed, consumed, received, sent, seen } = self;
        let id = u64::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        if id == freed.id {
            let skb = freed.number(bytes, "skbaddr")?;
            let trail = seen.remove(&skb).unwrap_or_default().into_iter();
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
        let format = [&*received, &*sent].into_iter().find(|format| format.id == id)?;
        let (dev, length) = (format.text(bytes, "name")?, format.number(bytes, "len")?);
        let (dev, outgoing) = (IfName::new(&dev), id == sent.id);
        let trail = seen.entry(format.number(bytes, "skbaddr")?).or_default();
        if trail.len() == LONGEST {
            trail.remove(0);
        }
        trail.push(Point { at, dev, outgoing, length: u32::try_from(length).ok()? });
        None
    }
}
