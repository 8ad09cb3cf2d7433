//! Packets that the kernel drops, with the devices that they were at: each has its place in the kernel's memory
//! from one to the next.

use std::collections::HashMap;
use std::io;

use crate::kernel::record::event::{Freed, Point, Seen};
use crate::lab::names::IfName;

use super::perf::{Record, Wanted, What};
use super::senders::{FLAGS, Senders};
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
    /// Where the kernel tells of them.
    pub senders: Option<Senders>,
}

impl Trails {
    pub fn new(tracefs: &Tracefs, senders: Option<Senders>) -> io::Result<Trails> {
        Ok(Trails {
            freed: tracefs.format("skb/kfree_skb")?,
            consumed: tracefs.format("skb/consume_skb")?,
            received: tracefs.format("net/netif_receive_skb")?,
            sent: tracefs.format("net/net_dev_start_xmit")?,
            seen: HashMap::new(),
            senders,
        })
    }

    pub fn wanted(&self) -> Vec<Wanted<'static>> {
        let filter = Some("protocol == 0x0800 || protocol == 0x0806");
        let freed = Wanted { id: self.freed.id, filter, wakes: true, ..Wanted::default() };
        let others = [&self.consumed, &self.received, &self.sent];
        let others = others.map(|format| Wanted { id: format.id, ..Wanted::default() });
        let senders = self.senders.iter().flat_map(Senders::wanted);
        [freed].into_iter().chain(others).chain(senders).collect()
    }

    /// Of packets that nobody heard the end of there may be many.
    pub fn forget(&mut self) {
        if self.seen.len() > MOST {
            self.seen.clear();
        }
    }

    /// Read a record; what was dropped, or by whom something was sent, where it tells of that.
    pub fn take_in(&mut self, record: &Record) -> Option<Seen> {
        if let What::Point(bytes) = &record.what {
            return self.point(record, bytes);
        }
        self.senders.iter_mut().for_each(|senders| senders.learn(record));
        None
    }

    fn point(&mut self, record: &Record, bytes: &[u8]) -> Option<Seen> {
        let id = u64::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        if id == self.freed.id {
            return self.dropped(record.at, bytes).map(Seen::Freed);
        }
        if id == self.consumed.id {
            let skb = self.consumed.number(bytes, "skbaddr")?;
            self.seen.remove(&skb);
            self.senders.iter_mut().for_each(|senders| senders.ended(skb));
            return None;
        }
        let Some(format) = [&self.received, &self.sent].into_iter().find(|format| format.id == id) else {
            self.senders.iter_mut().for_each(|senders| senders.take_in(record, bytes));
            return None;
        };
        let (skb, outgoing) = (format.number(bytes, "skbaddr")?, id == self.sent.id);
        let length = u32::try_from(format.number(bytes, "len")?).ok()?;
        let (at, dev) = (record.at, IfName::new(&format.text(bytes, "name")?));
        let sending = self.senders.as_mut().and_then(|senders| match outgoing {
            true => senders.left(skb, (at, &dev, length)),
            false => {
                senders.carries(record, format.number(bytes, FLAGS));
                None
            }
        });
        let trail = self.seen.entry(skb).or_default();
        if trail.len() == LONGEST {
            trail.remove(0);
        }
        trail.push(Point { at, dev, outgoing, length });
        sending.map(Seen::Sending)
    }

    fn dropped(&mut self, at: u64, bytes: &[u8]) -> Option<Freed> {
        let freed = &self.freed;
        let skb = freed.number(bytes, "skbaddr")?;
        self.senders.iter_mut().for_each(|senders| senders.ended(skb));
        let trail = self.seen.remove(&skb).unwrap_or_default().into_iter();
        Some(Freed {
            reason: freed.reason(freed.number(bytes, "reason")),
            location: format!("{:#x}", freed.number(bytes, "location")?),
            protocol: u16::try_from(freed.number(bytes, "protocol")?).ok()?,
            trail: trail.filter(|point| at.saturating_sub(point.at) < OLDEST).collect(),
            skb,
        })
    }
}
