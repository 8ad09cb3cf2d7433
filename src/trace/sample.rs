//! Steps, packets and sights for the tests of this folder. All are of one TCP connection, in which 10.0.0.1:4000 asks
//! 10.0.0.2:80; what a test is about it changes in them. Walks through whole labs are in the walk's own tests.

use super::model::{Direction, End, Fate, Flow, Header, Means, Packet, Protocol, Role, Step, What};
use super::packet::Essence;
use super::sight::Sight;
use crate::kernel::record::{Event, Recording};
use crate::lab::names::{HostName, IfName, NsName};
use crate::lab::{self, Lab};
use crate::spec::load::{Text, decode_text};

pub fn host(name: &str) -> NsName {
    NsName::Host(HostName::try_from(name.to_owned()).expect("a name"))
}

pub fn header() -> Header {
    Header {
        source: [10, 0, 0, 1].into(),
        destination: [10, 0, 0, 2].into(),
        protocol: Protocol::Tcp,
        source_port: 4000,
        destination_port: 80,
        ttl: 64,
        length: 60,
        dont_fragment: true,
        macs: None,
    }
}

/// A step that the state has and nobody saw.
pub fn walked(place: &str, dev: Option<&str>, what: What) -> Step {
    Step {
        at: None,
        place: host(place),
        host: None,
        dev: dev.map(IfName::new),
        layer: 0,
        what,
        header: None,
        known_by: vec![Means::State],
        says: String::new(),
    }
}

/// A step at a device that a tap saw, in nanoseconds since the trace began.
pub fn tapped(at: u64, place: &str, dev: &str, what: What) -> Step {
    Step { at: Some(at), header: Some(header()), known_by: vec![Means::Tap], ..walked(place, Some(dev), what) }
}

/// The first packet, of which nobody knows the end.
pub fn packet(steps: Vec<Step>) -> Packet {
    let (number, direction, kind) = (1, Direction::There, "SYN".to_owned());
    Packet { number, direction, kind, again: None, about: None, steps, fate: Fate::Lost }
}

pub fn flow(role: Role, packets: Vec<Packet>) -> Flow {
    let end = |ip, port| End { ip, port, name: None };
    let Header { source, source_port, destination, destination_port, .. } = header();
    let (source, destination) = (end(source, source_port), end(destination, destination_port));
    Flow { role, protocol: Protocol::Tcp, source, destination, packets, translations: Vec::new() }
}

/// A SYN at a device, in nanoseconds since the epoch.
pub fn sight(at: u64, place: &str, dev: &str, outgoing: bool) -> Sight {
    Sight {
        at,
        place: host(place),
        dev: IfName::new(dev),
        outgoing,
        layer: 0,
        seen: header(),
        header: header(),
        identification: 0,
        vni: None,
        essence: Essence::Tcp { sequence: 1, acknowledged: 0, flags: 2, data: 0 },
        kind: "SYN".into(),
        about: None,
        marked: false,
        said: None,
        piece_of: None,
        stray: false,
    }
}

pub fn recording(events: Vec<Event>) -> Recording {
    Recording { events, ..Recording::default() }
}

/// The lab of a text without errors.
pub fn lab(text: &str) -> Lab {
    let text = Text { name: "lab.yaml".into(), text: text.into(), default_name: "lab".into(), ..Text::default() };
    let mut loaded = decode_text(&text);
    let mut problems = std::mem::take(&mut loaded.problems);
    let lab = lab::resolve(&loaded, None, &mut problems);
    lab.unwrap_or_else(|| panic!("{problems:#?}"))
}
