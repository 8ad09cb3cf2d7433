//! Walking a packet through a lab as plain data: which steps it takes, and where it ends.
//!
//! It is a pure function of a [`State`], which is a plan (what a lab will do, said without root and
//! without a running lab) or what was read back from a running one (what it does now, and which fault
//! stops it). One file a mechanism: `routing`, `netfilter`, `conntrack`, `bridge`, `neighbours`,
//! `link` (devices and cables), `forward`, `tunnel` (VXLAN and flanneld), `local` (who listens). `walker` leads
//! from one to the next in the kernel's order; `suspects` notes what is wrong on the way. Ingress is not here: a proxy begins a flow of its own.
//!
//! What is not known is said in [`Path::notes`] and never guessed.

mod bridge;
mod choices;
mod compare;
mod conntrack;
mod exchange;
mod forward;
mod link;
mod local;
mod neighbours;
mod netfilter;
mod packet;
mod predict;
mod routing;
mod state;
mod suspects;
mod tunnel;
mod walker;

use crate::lab::names::NsName;

use super::model::{Cause, Fate, Header, Step};

pub use choices::Choices;
pub use compare::compare;
pub use exchange::{Exchange, Seen, every, exchange};
pub use packet::Probe;
pub use predict::prediction;
pub use state::{Known, State};

use choices::Chooser;
use conntrack::Tracking;
use packet::Packet;
use walker::{End, Told, Walker};

/// What a walk says of who sent a packet and who answered it, as it does not know the program.
pub const A_PROGRAM: &str = "a program";
pub const ANSWERER: &str = "the answerer";

/// Where one packet went.
#[derive(Debug, Clone, PartialEq)]
pub struct Path {
    pub from: NsName,
    /// What it is, as in [`super::model::Packet::kind`].
    pub kind: String,
    pub steps: Vec<Step>,
    pub fate: Fate,
    /// The namespace in which it ended.
    pub end: NsName,
    /// Why it did not arrive; nothing where it did.
    pub fault: Option<Blame>,
    /// What was found wrong on the way, also where it arrived all the same.
    pub suspects: Vec<Blame>,
    /// Its header at the end.
    pub header: Header,
    /// How likely this way is, from 0 to 1, where chance decides.
    pub probability: f64,
    /// What is not known, and how it was taken.
    pub notes: Vec<String>,
}

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blame {
    pub cause: Cause,
    pub place: NsName,
    /// The device, rule, route, entry or setting, as its tool prints it.
    pub object: String,
    /// In a sentence.
    pub says: String,
}

/// Walk a packet of `from`'s through the lab. Nothing where the lab has no such namespace.
pub fn walk(state: &State, from: &NsName, probe: &Probe, choices: &Choices) -> Option<Path> {
    let mut chooser = Chooser::new(choices);
    let mut tracking = Tracking::default();
    go(state, from, Packet::of(probe), (&mut chooser, &mut tracking, false)).map(|(path, _)| path)
}

/// Walk, and say what is sent in answer or in place of the packet, if anything.
fn go<'w>(
    state: &State,
    from: &NsName,
    mut packet: Packet,
    (chooser, tracking, is_answer): (&'w mut Chooser, &'w mut Tracking, bool),
) -> Option<(Path, Option<Told>)> {
    let at = state.place(from)?;
    let kind = packet.words();
    tracking.forget(&mut packet);
    let mut walker = Walker {
        state,
        from: at,
        packet,
        is_answer,
        steps: Vec::new(),
        chooser,
        tracking,
        suspects: Vec::new(),
        notes: Vec::new(),
    };
    let End { fate, place, blame, told } = walker.run();
    let header = walker.packet.load.as_ref().map_or(&walker.packet, |load| load.packet()).header.clone();
    let Walker { steps, suspects, notes, chooser, .. } = walker;
    let arrived = matches!(fate, Fate::Delivered { .. });
    let fault = if arrived { None } else { suspects.first().cloned().or(blame) };
    let probability = chooser.probability;
    let path = Path { from: from.clone(), kind, steps, fate, end: place, fault, suspects, header, probability, notes };
    Some((path, told))
}

#[cfg(test)]
mod tests;
