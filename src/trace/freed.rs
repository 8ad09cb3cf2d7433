//! Packets that the kernel says it dropped, joined with those that taps have seen.
//!
//! The kernel tells of every packet of the machine, with the device at which it was and when; a tap saw
//! the same packet there at about that time.

use crate::kernel::record::{Event, Freed, Recording, Seen};

use super::grounds::last_seen;
use super::model::{Cause, Drop, Fate, Flow, Means, Packet, Step, What};
use super::tell::Evidence;

/// How far apart the two may have looked at their clocks, in nanoseconds: whoever looks can be made to wait.
const APART: u64 = 10_000_000;
/// Bytes of an Ethernet header.
const ETHERNET: u32 = 14;
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
    let at = last.at? + begin;
    let freed = recording.events.iter().filter_map(freed);
    let fits = |(when, freed): &(u64, &Freed)| {
        distance(at, *when, freed) < APART && is_there(freed, last) && !NO_DROP.contains(&freed.reason.as_str())
    };
    let nearest = freed.filter(fits).min_by_key(|(when, freed)| distance(at, *when, freed));
    nearest.map(|(_, freed)| (last.place.to_string(), freed))
}

/// Between a packet's last sight and when the kernel had it that was freed.
fn distance(at: u64, when: u64, freed: &Freed) -> u64 {
    freed.there.unwrap_or(when).abs_diff(at)
}

/// Whether a freed packet may be the one that was seen: at the same device and of the same length.
fn is_there(freed: &Freed, seen: &Step) -> bool {
    let length = seen.header.as_ref().map(|header| header.length);
    // Outgoing frames are told with their Ethernet header.
    let same_length = |l: u32| length.is_none_or(|length| l == length || l == length + ETHERNET);
    freed.dev.as_ref().is_none_or(|dev| Some(dev) == seen.dev.as_ref()) && freed.length.is_none_or(same_length)
}

fn freed(event: &Event) -> Option<(u64, &Freed)> {
    match &event.seen {
        Seen::Freed(freed) => Some((event.at, freed)),
        _ => None,
    }
}
