//! Copies that a bridge makes of a packet when it knows no port for its MAC address: each goes to a machine that
//! does not want it, and ends there.

use crate::lab::names::NsName;
use crate::plan::{LinkKind, Plan};

use super::flow::{Found, FoundPacket};
use super::model::{Cause, Drop, Fate, Means, Step, What};
use super::sight::Sight;

/// The flow with each copy as a packet of its own, behind the others. `there` tells which devices are two ends
/// of one cable.
pub fn apart(mut found: Found, sights: &[Sight], there: &Plan) -> Found {
    for place in 0..found.packets.len() {
        let packet = &found.packets[place];
        let strays: Vec<usize> = packet.sights.iter().copied().filter(|n| is_end(*n, &packet.sights, sights)).collect();
        // The packet itself may have gone to a machine that does not want it.
        if strays.len() == packet.sights.iter().filter(|n| is_last(**n, &packet.sights, sights)).count() {
            continue;
        }
        let (direction, essence) = (packet.direction, packet.essence);
        for end in strays {
            let mut own = vec![end];
            own.extend(sent(&sights[end], &found.packets[place].sights, sights, there));
            own.sort_unstable_by_key(|n| (sights[*n].at, *n));
            found.packets[place].sights.retain(|n| !own.contains(n));
            found.packets.push(FoundPacket { direction, essence, sights: own, copy: true });
        }
    }
    found
}

/// Whether a sight is the last of its packet in its place.
fn is_last(n: usize, all: &[usize], sights: &[Sight]) -> bool {
    let later = |m: &&usize| sights[**m].place == sights[n].place && sights[**m].at >= sights[n].at && **m != n;
    !sights[n].outgoing && !all.iter().any(|m| later(&m))
}

/// Whether a frame came to a machine that is not meant, and goes no further.
fn is_end(n: usize, all: &[usize], sights: &[Sight]) -> bool {
    sights[n].stray && is_last(n, all, sights)
}

/// The sight of the same frame at the other end of the cable.
fn sent(end: &Sight, all: &[usize], sights: &[Sight], there: &Plan) -> Option<usize> {
    let link = there.get(&end.place)?.links.iter().find(|l| l.name == end.dev)?;
    let LinkKind::Veth { peer_ns, peer } = &link.kind else { return None };
    let is = |s: &Sight| s.outgoing && s.place == *peer_ns && s.dev == *peer && s.at <= end.at;
    all.iter().copied().rfind(|n| is(&sights[*n]))
}

/// Say where a copy ended.
pub fn end(steps: &mut Vec<Step>) -> Fate {
    let Some(last) = steps.last() else { return Fate::Lost };
    let (place, dev): (&NsName, _) = (&last.place, last.dev.clone());
    let by = dev.as_ref().map(ToString::to_string).unwrap_or_default();
    let says = format!("a bridge did not know where it goes and sent it everywhere; {place} is not meant and drops it");
    let what = What::Dropped(Drop { cause: Cause::Other, by, reason: None });
    let step = Step { at: None, what, header: None, known_by: vec![Means::State], says, ..last.clone() };
    steps.push(step);
    Fate::Dropped
}

#[cfg(test)]
mod tests;
