//! The MTU of a path, found with pings that must not be fragmented: what routers tell is tried
//! at once, and where they tell nothing the sizes are halved.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::time::Instant;

use super::Asking;
use super::outcome::{Answer, Failure};
use super::ping::{Lost, Pinger, Reply};

/// Every link carries packets of this many bytes (RFC 791).
const SMALLEST: u32 = 68;
const LARGEST: u32 = 65_535;
/// The least time that a packet which may have vanished is waited for.
const LEAST_WAIT: Duration = Duration::from_millis(200);
/// A packet without an answer is sent so often before its size counts as too large.
const SENDINGS: u32 = 2;

/// Find the largest packet that `to` answers, and put its size into the answer. The first, small
/// ping has the probe's time limit; the others have twenty times as long as it took.
pub async fn find(asking: &Asking<'_>, to: Ipv4Addr, ttl: u8) -> Result<Answer, Failure> {
    let mut pinger = Pinger::new(asking, to, ttl, true)?;
    let first = pinger.exchange(SMALLEST, asking.deadline).await.map_err(|lost| pinger.failure(lost))?;
    let wait = (first.rtt * 20).clamp(LEAST_WAIT, asking.limit.max(LEAST_WAIT));
    let mut range = Range { answered: SMALLEST, lost: LARGEST + 1, hint: Some(LARGEST) };
    let mut reply = first;
    while let Some(size) = range.next() {
        match sized(&mut pinger, size, wait).await {
            Ok(seen) => {
                range.answered(size);
                reply = seen;
            }
            Err(Lost::Silence) => range.lost(size, 0),
            Err(Lost::TooBig { mtu, .. }) => range.lost(size, mtu),
            Err(lost @ Lost::Failed(_)) => return Err(pinger.failure(lost)),
        }
    }
    let mut details = reply.details();
    details.mtu = Some(range.answered);
    Ok(Answer { details, ..Answer::default() })
}

async fn sized(pinger: &mut Pinger<'_>, size: u32, wait: Duration) -> Result<Reply, Lost> {
    let mut result = Err(Lost::Silence);
    for _ in 0..SENDINGS {
        result = pinger.exchange(size, Instant::now() + wait).await;
        if !matches!(result, Err(Lost::Silence)) {
            break;
        }
    }
    result
}

/// What is known: a packet of `answered` bytes comes through, one of `lost` does not.
struct Range {
    answered: u32,
    lost: u32,
    /// A size worth trying first.
    hint: Option<u32>,
}

impl Range {
    /// The size to try next; `None` when nothing is left between.
    fn next(&mut self) -> Option<u32> {
        if self.lost - self.answered <= 1 {
            return None;
        }
        let hint = self.hint.take().filter(|h| (self.answered + 1..self.lost).contains(h));
        Some(hint.unwrap_or(self.answered + (self.lost - self.answered) / 2))
    }

    fn answered(&mut self, size: u32) {
        self.answered = self.answered.max(size);
    }

    /// A packet of `size` bytes was lost on a link that takes `mtu` (0: nobody said).
    fn lost(&mut self, size: u32, mtu: u32) {
        self.lost = self.lost.min(size);
        if mtu > 0 {
            // Once that very size has come through, one byte more is what settles it.
            self.hint = Some(if mtu == self.answered { mtu + 1 } else { mtu });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Search where packets above `limit` are lost, with or without being told; the result and
    /// how many packets it took.
    fn search(limit: u32, told: bool) -> (u32, u32) {
        let mut range = Range { answered: SMALLEST, lost: LARGEST + 1, hint: Some(LARGEST) };
        let mut packets = 0;
        while let Some(size) = range.next() {
            packets += 1;
            if size <= limit { range.answered(size) } else { range.lost(size, if told { limit } else { 0 }) }
        }
        (range.answered, packets)
    }

    #[test]
    fn every_limit_is_found_without_being_told() {
        for limit in [68, 69, 576, 1400, 1450, 1472, 1500, 9000, 65_534, 65_535] {
            let (found, packets) = search(limit, false);
            assert_eq!(found, limit);
            assert!(packets <= 18, "{packets} packets for {limit}");
        }
    }

    #[test]
    fn being_told_saves_packets() {
        for limit in [68, 576, 1450, 1500, 65_535] {
            let (found, packets) = search(limit, true);
            assert_eq!(found, limit);
            assert!(packets <= 17, "{packets} packets for {limit}");
        }
    }

    #[test]
    fn a_router_that_lies_does_not_end_the_search() {
        let mut range = Range { answered: 68, lost: 65_536, hint: None };
        range.lost(2000, 5000);
        while let Some(size) = range.next() {
            if size <= 1000 { range.answered(size) } else { range.lost(size, 3000) }
        }
        assert_eq!(range.answered, 1000);
    }
}
