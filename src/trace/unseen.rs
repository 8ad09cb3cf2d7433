//! Packets that no tap sees: what a machine sends passes its own rules before it comes to a device, and
//! may end there. What the kernel told of the rules they met is all that there is.

use crate::lab::names::NsName;

use super::align::Hit;
use super::flow::{Found, FoundPacket};
use super::hits::PacketHit;
use super::model::{Direction, Fate, Packet, Ruleset};
use super::packet::Essence;
use super::sight::Tuple;
use super::tell::Evidence;

/// What a machine sent and its rules met first.
pub fn sent<'e>(evidence: &'e Evidence, from: &'e NsName) -> impl Iterator<Item = &'e PacketHit> {
    packets(evidence, from).map(|(_, met)| met)
}

fn packets<'e>(evidence: &'e Evidence, from: &'e NsName) -> impl Iterator<Item = (Essence, &'e PacketHit)> {
    // A chain of nf_tables' own may have any name.
    let is_output = |met: &PacketHit| met.hit.met.of == Ruleset::Nftables || met.hit.met.chain == "OUTPUT";
    let own = move |(_, met): &(Essence, &PacketHit)| met.hit.place == *from && met.own && is_output(met);
    evidence.hits.packets().filter(own)
}

/// The rule that dropped an answer before any tap saw it, in the machine that the packet `reached`.
pub fn dropped_answer<'e>(evidence: &'e Evidence, reached: &Packet) -> Option<&'e Hit> {
    let Fate::Delivered { to } = &reached.fate else { return None };
    let header = reached.steps.iter().rev().filter(|s| s.layer == 0).find_map(|s| s.header.as_ref())?;
    let back = Tuple::of(header).reversed();
    let is_it =
        |met: &&PacketHit| met.own && met.hit.place == *to && met.hit.ends == back && met.hit.met.verdict == "DROP";
    evidence.hits.all().find(is_it).map(|met| &met.hit)
}

/// The flow with its first packet, where that was dropped or refused before any tap saw it.
pub fn with_first(mut found: Found, evidence: &Evidence, from: &NsName) -> Found {
    if found.packets.iter().any(|p| p.direction == Direction::There) {
        return found;
    }
    let mut met: Vec<(Essence, &PacketHit)> =
        packets(evidence, from).filter(|(_, met)| met.hit.ends == found.tuple).collect();
    met.sort_by_key(|(_, met)| met.sequence);
    for (n, (essence, _)) in met.into_iter().enumerate() {
        found.packets.insert(n, FoundPacket { direction: Direction::There, essence, sights: Vec::new(), copy: false });
    }
    found
}
