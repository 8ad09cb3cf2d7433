//! The first place where the way that was observed leaves the predicted one.
//!
//! What was observed of a packet is its steps: those that something saw, and between two of them those that the
//! state has. The prediction is the walk through the plan. So what no state shows (a program that drops packets, a
//! setting that is not read back) is found, too. Only where no packet shows a difference the walk through the
//! state is compared in its place: what is wrong may not have been met yet.

use super::align::is_device;
use super::model::{Direction, Fate, Flow, Packet, Parting, Protocol, Step, What};
use super::packets::Walked;
use super::walk::{Exchange, Path, compare};

/// Where the first of `flows` parts from what the plan says of it.
pub fn first(flows: &[Flow], walked: &[Walked]) -> Option<Parting> {
    let both = || flows.iter().zip(walked).filter_map(|(flow, (_, planned))| Some((flow, planned.as_ref()?)));
    both().find_map(|(flow, planned)| observed(flow, planned)).or_else(|| {
        let all = flows.iter().zip(walked);
        let all = all.filter_map(|(flow, (state, planned))| Some((flow, state.as_ref()?, planned.as_ref()?)));
        all.filter_map(|(flow, state, planned)| {
            let (one, other) = compare(&planned.there.steps, &state.there.steps.iter().collect::<Vec<_>>())?;
            parting(first_of(flow, Direction::There)?, words(one, "nothing more"), words(other, "nothing more"))
        })
        .next()
    })
}

fn observed(flow: &Flow, planned: &Exchange) -> Option<Parting> {
    let there = first_of(flow, Direction::There)?;
    // The plan is of a connection's beginning, and a proxy may go on with one that stood before.
    if flow.protocol == Protocol::Tcp && there.kind != "SYN" {
        return None;
    }
    if let Some(parting) = packet(flow, there, &planned.there) {
        return Some(parting);
    }
    let back = first_of(flow, Direction::Back);
    match (&planned.back, back) {
        (Some(planned), Some(back)) => packet(flow, back, planned),
        (Some(path), None) if is_certain(planned, path) && there.fate != Fate::Lost => {
            parting(there, words(path.steps.first(), "an answer"), "no answer is seen".to_owned())
        }
        _ => None,
    }
}

/// Whether an answer must come, and can be seen. What a program does of which nobody knows where it listens is only
/// supposed, and the kernel sends so many ICMP errors and no more (icmp_ratelimit).
fn is_certain(planned: &Exchange, back: &Path) -> bool {
    let is_icmp = is_error(&back.kind) && !back.kind.starts_with("RST");
    planned.there.notes.is_empty() && !is_icmp && back.steps.iter().any(is_device)
}

/// The first packet in a direction, which rules decide about.
fn first_of(flow: &Flow, direction: Direction) -> Option<&Packet> {
    flow.packets.iter().find(|p| p.direction == direction)
}

fn packet(flow: &Flow, packet: &Packet, planned: &Path) -> Option<Parting> {
    if planned.kind != packet.kind && is_error(&planned.kind) != is_error(&packet.kind) {
        let observed = packet.steps.first().map(|s| format!("{}: {}", s.place, packet.kind))?;
        return parting(packet, words(planned.steps.first(), "nothing"), observed);
    }
    let is_answered = flow.packets.iter().any(|p| p.direction == Direction::Back && !is_error(&p.kind));
    // A program that answers listens, whether that was known or not.
    let refused = planned.steps.iter().position(|s| matches!(s.what, What::Refused { .. }));
    let planned = &planned.steps[..refused.filter(|_| is_answered).unwrap_or(planned.steps.len())];
    // What programs say that they did is no part of the way.
    let told = |s: &&Step| !matches!(s.what, What::Proxied { .. } | What::Asked { .. });
    let (one, other) = compare(planned, &packet.steps.iter().filter(told).collect::<Vec<_>>())?;
    parting(packet, words(one, "nothing more"), words(other, "nothing more is seen of it"))
}

fn is_error(kind: &str) -> bool {
    ["RST", "destination unreachable", "time exceeded"].iter().any(|word| kind.starts_with(word))
}

fn words(step: Option<&Step>, otherwise: &str) -> String {
    step.map_or_else(|| otherwise.to_owned(), |s| format!("{}: {}", s.place, s.says))
}

fn parting(packet: &Packet, predicted: String, observed: String) -> Option<Parting> {
    Some(Parting { packet: packet.number, predicted, observed })
}

#[cfg(test)]
mod tests;
