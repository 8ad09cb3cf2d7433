//! Packets of the same looks: something that was sent again, as what was lost is, and acknowledgments of
//! that. Several may be under way at once, where one has waited for a neighbour or for a program that forwards.
//!
//! At each point of the way each is seen once; one that goes in a circle comes by with another TTL. So of a
//! point's sights each is another packet's. Packets do not overtake each other: where as many are seen at a
//! point as had come so far, they come in the same order. Where fewer are, others were lost on the way, and
//! each is of the one that was seen last before it, as what is sent again is sent long after.

use std::collections::HashMap;

use super::Sight;

/// The sights of packets of the same looks, which must be in the order of time, packet by packet.
pub(super) fn apart(alike: &[usize], sights: &[Sight]) -> Vec<Vec<usize>> {
    let mut points: Vec<Vec<usize>> = Vec::new();
    let mut known = HashMap::new();
    for n in alike {
        let sight = &sights[*n];
        let at = *known.entry((sight.point(), sight.header.ttl)).or_insert(points.len());
        if at == points.len() {
            points.push(Vec::new());
        }
        points[at].push(*n);
    }
    let mut packets: Vec<Vec<usize>> = Vec::new();
    for point in points {
        for (n, packet) in whose(&point, &packets, sights) {
            match packet {
                Some(packet) => packets[packet].push(n),
                None => packets.push(vec![n]),
            }
        }
    }
    packets.iter_mut().for_each(|packet| packet.sort_unstable_by_key(|n| (sights[*n].at, *n)));
    packets
}

/// The packet of each of a point's sights; nothing where it is one's that was not seen before.
fn whose(point: &[usize], packets: &[Vec<usize>], sights: &[Sight]) -> Vec<(usize, Option<usize>)> {
    let at = |n: &usize| (sights[*n].at, *n);
    let first = |packet: &usize| packets[*packet].iter().map(at).min();
    let last = |packet: &usize| packets[*packet].iter().map(at).max();
    let mut coming: Vec<usize> = (0..packets.len()).collect();
    coming.sort_by_cached_key(last);
    let mut coming = coming.into_iter().peekable();
    // Those that were seen elsewhere and not here, the latest one on top.
    let mut waiting: Vec<usize> = Vec::new();
    let (mut seen, mut came, mut early) = (Vec::new(), Vec::new(), Vec::new());
    for n in point {
        while let Some(packet) = coming.next_if(|packet| last(packet) <= Some(at(n))) {
            waiting.push(packet);
        }
        match waiting.pop() {
            Some(packet) => {
                seen.push(*n);
                came.push(packet);
            }
            None => early.push(*n),
        }
    }
    came.sort_by_cached_key(last);
    let mut whose: Vec<_> = seen.into_iter().zip(came.into_iter().map(Some)).collect();
    // Stamps of two points may be in another order than the packet was there.
    waiting.extend(coming);
    for n in early {
        let begun = waiting.iter().position(|packet| first(packet) <= Some(at(&n)));
        whose.push((n, begun.map(|place| waiting.remove(place))));
    }
    whose
}
