//! Which packets of a flow went the same way, and where the others part from it.

use crate::lab::names::{IfName, NsName};
use crate::trace::model::{Flow, Means, Packet, Step, What};

/// A packet whose way is told.
#[derive(Debug, PartialEq)]
pub struct Told<'a> {
    pub packet: &'a Packet,
    /// The packet that it went along with, and the first step that was different; nothing where it
    /// is told from its beginning.
    pub parts: Option<Parts>,
}

/// Where a packet parts from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// The other packet's number.
    pub from: u32,
    /// The index of the first step that is to be told.
    pub at: usize,
}

/// Packets that went the way of one that is told.
#[derive(Debug, PartialEq)]
pub struct Same<'a> {
    pub as_packet: &'a Packet,
    pub packets: Vec<&'a Packet>,
}

/// The packets of a flow by their ways.
#[derive(Debug, Default, PartialEq)]
pub struct Ways<'a> {
    /// In the order of the trace.
    pub told: Vec<Told<'a>>,
    pub same: Vec<Same<'a>>,
}

impl<'a> Ways<'a> {
    pub fn of(flow: &'a Flow) -> Ways<'a> {
        let mut ways = Ways::default();
        for packet in &flow.packets {
            ways.add(packet);
        }
        ways
    }

    fn add(&mut self, packet: &'a Packet) {
        let way = way(packet);
        let alike = self.told.iter().filter(|t| t.packet.direction == packet.direction);
        // The one that it went along with the farthest; of several the first.
        let mut nearest: Option<(&'a Packet, usize)> = None;
        for told in alike {
            let other = self::way(told.packet);
            let common = way.iter().zip(&other).take_while(|(a, b)| a.1 == b.1).count();
            if common == way.len() && common == other.len() && told.packet.fate == packet.fate {
                return self.join(told.packet, packet);
            }
            if nearest.is_none_or(|(_, best)| common > best) {
                nearest = Some((told.packet, common));
            }
        }
        let parts = nearest.filter(|(_, common)| *common > 0).map(|(other, common)| Parts {
            from: other.number,
            at: way.get(common - 1).map_or(0, |(index, _)| index + 1),
        });
        self.told.push(Told { packet, parts });
    }

    fn join(&mut self, as_packet: &'a Packet, packet: &'a Packet) {
        match self.same.iter_mut().find(|s| s.as_packet.number == as_packet.number) {
            Some(same) => same.packets.push(packet),
            None => self.same.push(Same { as_packet, packets: vec![packet] }),
        }
    }
}

/// A turn of a way: namespace, device, layer, what happened, and the port of a bridge.
type Turn<'a> = (&'a NsName, Option<&'a IfName>, u8, u8, Option<&'a str>);

/// What makes a way, each turn with the index of its step. Rules are no part of it, nor what follows
/// from them: a flow's first packet alone meets those of the nat table. Of a packet that was seen it is
/// what was seen, as only the first ones are told with what lies between.
fn way(packet: &Packet) -> Vec<(usize, Turn<'_>)> {
    let is_seen = |step: &Step| step.dev.is_some() && step.known_by.contains(&Means::Tap);
    let any_seen = packet.steps.iter().any(is_seen);
    let turns = packet.steps.iter().enumerate().filter_map(|(index, step)| {
        let (what, port) = match any_seen {
            true if is_seen(step) => (if step.what == What::Out { 2 } else { 1 }, None),
            // What a program did with a packet is worth telling; what it sent begins with its own step.
            true if index > 0 && matches!(step.what, What::Proxied { .. } | What::Asked { .. }) => turn(&step.what)?,
            true => return None,
            false => turn(&step.what)?,
        };
        Some((index, (&step.place, step.dev.as_ref(), step.layer, what, port)))
    });
    turns.collect()
}

fn turn(what: &What) -> Option<(u8, Option<&str>)> {
    Some(match what {
        What::Sent { .. } => (0, None),
        What::In => (1, None),
        What::Out => (2, None),
        What::Bridged { port, .. } => (3, port.as_deref()),
        What::Encapsulated { .. } => (4, None),
        What::Decapsulated { .. } => (5, None),
        What::UserSpace { .. } => (6, None),
        What::Delivered { .. } => (7, None),
        What::Refused { .. } => (8, None),
        What::Dropped(_) => (9, None),
        What::Proxied { .. } => (10, None),
        What::Asked { .. } => (11, None),
        What::Rule(_) | What::Rewritten { .. } | What::Routed(_) | What::Neighbour { .. } => return None,
    })
}
