//! Packets that the kernel says it dropped, joined with those that taps have seen.
//!
//! The kernel tells of every packet of the machine, with the devices at which it was and when. It is the one
//! that was seen where both were at the same devices in the same order, the last one included, and at one
//! of them at the same time. One that was dropped before it came to any is not given to any packet.

use crate::kernel::record::{Freed, Point, Recording, Seen};

use super::align::is_out;
use super::grounds::last_seen;
use super::model::{Cause, Drop, Fate, Flow, Header, Means, Packet, Step, What};
use super::tell::Evidence;

/// How far apart the two may have looked at their clocks, in nanoseconds: whoever looks can be made to wait, but not
/// at each device.
const APART: u64 = 10_000_000;
/// Bytes of an Ethernet header.
pub(super) const ETHERNET: u32 = 14;
/// Not drops: a packet that was taken, or one of a queue that was thrown away with its owner.
const NO_DROP: [&str; 3] = ["NOT_SPECIFIED", "SOCKET_RCVBUFF", "PACKET_SOCK_ERROR"];

/// The packets that were dropped, in a sentence each.
pub fn reasons(evidence: &Evidence, recording: &Recording, flows: &[Flow]) -> Vec<String> {
    let mut all = Vec::new();
    for packet in flows.iter().flat_map(|f| &f.packets) {
        let Some((place, freed)) = of_packet(packet, recording, evidence.begin) else { continue };
        let line = format!("{place}: the kernel dropped the {} in {}: {}", packet.kind, freed.location, freed.reason);
        if !all.contains(&line) {
            all.push(line);
        }
    }
    all
}

/// End a packet that nobody knows more of with what the kernel says of it, where it does.
pub fn end(packet: &mut Packet, recording: &Recording, begin: u64) {
    let found = of_packet(packet, recording, begin).map(|(_, freed)| (freed.reason.clone(), freed.location.clone()));
    let (Some((reason, by)), Some(last)) = (found, packet.steps.last()) else { return };
    if packet.fate != Fate::Lost {
        return;
    }
    packet.fate = Fate::Dropped;
    packet.steps.push(Step {
        at: None,
        place: last.place.clone(),
        host: last.host.clone(),
        dev: None,
        layer: last.layer,
        says: format!("the kernel drops it in {by}: {reason}"),
        what: What::Dropped(Drop { cause: Cause::Other, by, reason: Some(reason) }),
        header: None,
        known_by: Vec::new(),
    });
}

/// Give the steps that drop packets the kernel's reason.
pub fn mark(packets: &mut [Packet], recording: &Recording, begin: u64) {
    for packet in packets {
        let Some(reason) = of_packet(packet, recording, begin).map(|(_, freed)| freed.reason.clone()) else { continue };
        for step in &mut packet.steps {
            if let What::Dropped(drop) = &mut step.what {
                drop.reason = Some(reason.clone());
                step.known_by.insert(0, Means::DropReason);
            }
        }
    }
}

/// Why the kernel freed a packet, where it did so behind the packet's last sight. Of one that arrived it is no
/// loss, whatever the kernel calls it: it frees answers of ping's sockets as `NO_SOCKET`.
fn of_packet<'r>(packet: &Packet, recording: &'r Recording, begin: u64) -> Option<(String, &'r Freed)> {
    if matches!(packet.fate, Fate::Delivered { .. }) {
        return None;
    }
    let last = last_seen(packet)?;
    let end = packet.steps.iter().position(|step| std::ptr::eq(step, last))?;
    let seen: Vec<(u64, &Step)> = sights(&packet.steps[..=end], begin).collect();
    let all = recording.events.iter().filter_map(|event| if let Seen::Freed(f) = &event.seen { Some(f) } else { None });
    let real = all.filter(|freed| !NO_DROP.contains(&freed.reason.as_str()));
    let apart = real.filter_map(|freed| Some((apart(&freed.trail, &seen)?, freed)));
    let nearest = apart.filter(|(apart, _)| *apart < APART).min_by_key(|(apart, _)| *apart);
    nearest.map(|(_, freed)| (last.place.to_string(), freed))
}

/// What taps saw of a packet, with the time since the epoch.
fn sights(steps: &[Step], begin: u64) -> impl Iterator<Item = (u64, &Step)> {
    let seen = steps.iter().filter(|step| step.known_by.contains(&Means::Tap));
    seen.filter_map(move |step| Some((step.at? + begin, step)))
}

/// How far apart in time both were where they were nearest; nothing where a packet was not where taps saw one.
fn apart(trail: &[Point], seen: &[(u64, &Step)]) -> Option<u64> {
    let (mut left, mut nearest) = (seen, None::<u64>);
    for point in trail.iter().rev() {
        // What comes before was another packet's.
        if left.first().is_none_or(|(first, _)| point.at + APART < *first) {
            break;
        }
        let found = left.iter().rposition(|(_, step)| is_there(point, step))?;
        // The last one must be where it was seen last.
        if nearest.is_none() && found + 1 < left.len() {
            return None;
        }
        let apart = point.at.abs_diff(left[found].0);
        nearest = Some(nearest.map_or(apart, |n| n.min(apart)));
        left = &left[..found];
    }
    nearest
}

/// Whether a tap saw it so: at the same device in the same direction, and of the same length.
fn is_there(point: &Point, seen: &Step) -> bool {
    let same_length = |header: &Header| {
        // Outgoing frames are told with their Ethernet header.
        point.length == header.length || point.length == header.length + ETHERNET
    };
    Some(&point.dev) == seen.dev.as_ref()
        && is_out(seen) == Some(point.outgoing)
        && seen.header.as_ref().is_none_or(same_length)
}

#[cfg(test)]
mod tests;
