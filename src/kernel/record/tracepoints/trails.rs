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

    /// Of packets that nobody heard the end of there may be many: those that were last seen longest ago go. Returns
    /// how many went that may still be dropped, and so lose their devices.
    pub fn forget(&mut self, now: u64) -> u64 {
        forget(&mut self.seen, now, MOST)
    }

    /// Forget what may have changed unheard.
    pub fn begin_anew(&mut self) {
        self.seen.clear();
        self.senders.iter_mut().for_each(Senders::begin_anew);
    }

    /// Let go of all that was heard.
    pub fn forget_all(&mut self) {
        (self.seen, self.senders) = (HashMap::new(), None);
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

/// Forget, where there are more than `most`, packets that are too old, and where that is not enough the older half.
/// Returns how many of those went.
fn forget(seen: &mut HashMap<u64, Vec<Point>>, now: u64, most: usize) -> u64 {
    if seen.len() <= most {
        return 0;
    }
    let last = |trail: &Vec<Point>| trail.last().map_or(0, |point| point.at);
    seen.retain(|_, trail| now.saturating_sub(last(trail)) < OLDEST);
    let young = seen.len();
    if young > most {
        let mut times: Vec<u64> = seen.values().map(last).collect();
        let (_, middle, _) = times.select_nth_unstable(young / 2);
        let middle = *middle;
        seen.retain(|_, trail| last(trail) > middle);
    }
    (young - seen.len()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(times: impl Iterator<Item = u64>) -> HashMap<u64, Vec<Point>> {
        let point = |at| Point { at, dev: IfName::new("eth0"), outgoing: true, length: 60 };
        times.map(|at| (at, vec![point(at)])).collect()
    }

    #[test]
    fn where_too_many_packets_are_remembered_old_ones_go_and_then_the_older_half_which_is_counted() {
        let now = 2 * OLDEST;
        let mut few = packets(0..10);
        assert_eq!((forget(&mut few, now, 10), few.len()), (0, 10));
        let mut old = packets((0..10).chain([now - 1, now]));
        assert_eq!((forget(&mut old, now, 10), old.len()), (0, 2));
        let mut many = packets(now - 19..=now);
        assert_eq!(forget(&mut many, now, 10), 11);
        assert!(many.len() == 9 && many.keys().all(|at| *at > now - 9), "{many:?}");
    }
}
