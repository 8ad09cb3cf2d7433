//! A trace for people and for other programs: text for a terminal, a sequence diagram in Mermaid, the
//! JSON Schema of what `-o json` prints, and captures for Wireshark. All of it is a function of what it
//! is given; nothing here looks at a lab or at a terminal.

mod flow;
mod follow;
mod mermaid;
mod page;
pub mod pcapng;
mod row;
mod rules;
pub mod schema;
mod steps;
mod text;
mod ways;

pub use follow::Follow;
pub use mermaid::mermaid;
pub use text::text;

use crate::lab::names::{HostName, NsName};

use super::model::Trace;

/// The numbers of the packets that are told in full: the others went the way of one of them.
pub fn told(trace: &Trace) -> Vec<u32> {
    let ways = trace.flows.iter().map(ways::Ways::of);
    ways.flat_map(|ways| ways.told.into_iter().map(|told| told.packet.number)).collect()
}

/// How the text looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Columns of a line; taken as [`NARROWEST`] where it is less.
    pub width: usize,
    pub colour: bool,
    /// Whether a fault is told with its evidence and its remedies.
    pub why: bool,
    /// Whether everything is told: each rule that was met, each header, each packet.
    pub wide: bool,
    /// Whether the way back is told with its rules, routes and neighbours, as the way there is.
    pub reply: bool,
}

/// What is narrower than this is not to be read by anybody.
pub const NARROWEST: usize = 60;

/// A namespace as headings have it: `node1, host`, `tea-1, pod on node1`, `router`.
fn place(name: &NsName, host: Option<&HostName>) -> String {
    match (name, host) {
        (NsName::Router, _) => "router".to_owned(),
        (NsName::Pod(_), Some(host)) => format!("{name}, pod on {host}"),
        _ => format!("{name}, {}", name.kind()),
    }
}
