//! What is told while a machine is followed: a line a packet, or the whole packet as a trace shows it.

use crate::lab::names::{IfName, NsName};
use crate::trace::follow::told::{Following, PacketTold, Told};
use crate::trace::model::{Direction, End, Fate, Flow, Means, Packet, Protocol, Rewrite, Step, What};

use super::page::{BAD, BOLD, DIM, PLAIN, Page};
use super::{Style, flow, steps};

/// Shows what is told line by line; of a packet that only passes by it says by which of the machine's devices.
pub struct Follow {
    machine: Option<NsName>,
    style: Style,
}

impl Follow {
    pub fn new(style: Style) -> Follow {
        Follow { machine: None, style }
    }

    /// What is told, as lines with their ends.
    pub fn text(&mut self, told: &Told) -> String {
        let mut page = Page::new(&self.style);
        match told {
            Told::Following(begun) => {
                self.machine = Some(begun.machine.clone());
                begin(&mut page, begun);
            }
            Told::Packet(told) if self.style.wide => whole(&mut page, told),
            Told::Packet(told) => {
                let painted = page.paint(&line(told, self.machine.as_ref()), ink(told));
                page.raw(&painted);
            }
            Told::Untold { packets: 1 } => page.line("1 packet was not told: they come too fast", BAD),
            Told::Untold { packets } => page.line(&format!("{packets} packets were not told: they come too fast"), BAD),
            Told::Changed => page.line("the lab was changed; what has come is watched, too", DIM),
            Told::Ended { why } => page.line(why, DIM),
        }
        page.into_text()
    }
}

fn begin(page: &mut Page, begun: &Following) {
    page.line(&format!("following {} in lab {}; Ctrl-C ends it", begun.machine, begun.lab), BOLD);
    begun.notes.iter().for_each(|note| page.line(&format!("note: {note}"), DIM));
}

fn ink(told: &PacketTold) -> anstyle::Style {
    match told.packet.fate {
        Fate::Delivered { .. } if told.passing => DIM,
        Fate::Delivered { .. } => PLAIN,
        _ => BAD,
    }
}

/// `  12.041 ms  1 → SYN by curl  coffee-1 10.244.1.31:4000 to service default/tea-svc 10.96.0.100:80: coffee-1 eth0 → node1 …`.
fn line(told: &PacketTold, machine: Option<&NsName>) -> String {
    let packet = &told.packet;
    let at = packet.steps.iter().find_map(|s| s.at).map(steps::duration).unwrap_or_default();
    let arrow = if packet.direction == Direction::There { "→" } else { "←" };
    let mut parts = vec![format!("{at:>10}  {} {arrow} {}", told.flow, packet.kind)];
    if let Some(again) = packet.again {
        parts.push(format!(" (packet {again} again)"));
    }
    parts.extend(program(packet).map(|name| format!(" by {name}")));
    if let Some(said) = &told.said {
        parts.push(format!(" `{said}`"));
    }
    if told.first {
        parts.push(format!(
            "  {} to {} over {}",
            end(&told.source, told.protocol),
            end(&told.destination, told.protocol),
            told.protocol,
        ));
    }
    match machine.filter(|_| told.passing) {
        Some(machine) => parts.push(format!(", through {}", through(packet, machine))),
        None if told.first => parts.push(format!(": {}", way(packet))),
        None => {}
    }
    if told.first {
        parts.extend(rewrites(told).into_iter().map(|text| format!("; {text}")));
    }
    if let Some(because) = &told.because {
        parts.push(format!("; by {because}"));
    }
    parts.push(format!("; {}", fate(packet)));
    parts.concat()
}

/// The program that sent a packet, where the kernel told of it.
fn program(packet: &Packet) -> Option<&str> {
    let first = packet.steps.first().filter(|step| step.known_by.contains(&Means::Process))?;
    if let What::Sent { by } = &first.what { Some(by) } else { None }
}

/// `node1 veth54e8e8ba → flannel.1`: the devices of a machine at which a packet was seen first and last, by itself where
/// a tunnel's packet was there, too.
fn through(packet: &Packet, machine: &NsName) -> String {
    let here = || packet.steps.iter().filter(|s| is_seen(s) && s.place == *machine);
    let layer = here().map(|s| s.layer).min();
    let mut devices = here().filter(|s| Some(s.layer) == layer).filter_map(|s| s.dev.as_ref());
    let (first, last) = (devices.next(), devices.next_back());
    let devices: Vec<&str> = first.into_iter().chain(last).map(IfName::as_str).collect();
    format!("{machine} {}", devices.join(" → "))
}

fn end(end: &End, protocol: Protocol) -> String {
    let address = flow::address(end, protocol);
    end.name.as_ref().map_or(address.clone(), |name| format!("{name} {address}"))
}

/// `coffee-1 eth0 → node1 cni0, flannel.1 ⇒ node3 flannel.1, cni0 → tea-1 eth0`: machines in their order, with
/// the devices that are no cable to a pod; ⇒ is a tunnel.
fn way(packet: &Packet) -> String {
    let mut text = String::new();
    let mut here: Option<&NsName> = None;
    let mut tunnelled = false;
    let mut devices: Vec<&IfName> = Vec::new();
    for step in packet.steps.iter().filter(|s| is_seen(s)) {
        if step.layer > 0 {
            tunnelled = true;
            continue;
        }
        if here != Some(&step.place) {
            let arrow = match (here, tunnelled) {
                (None, _) => "",
                (_, true) => " ⇒ ",
                (_, false) => " → ",
            };
            text += &format!("{arrow}{}", step.place);
            (here, tunnelled) = (Some(&step.place), false);
            devices.clear();
        }
        let Some(dev) = step.dev.as_ref().filter(|d| !d.as_str().starts_with("veth") && !devices.contains(d)) else {
            continue;
        };
        text += if devices.is_empty() { " " } else { ", " };
        text += dev.as_str();
        devices.push(dev);
    }
    text
}

fn is_seen(step: &Step) -> bool {
    step.known_by.contains(&Means::Tap)
}

/// `node1 sends it on to tea-1 10.244.1.21:8080`.
fn rewrites(told: &PacketTold) -> Vec<String> {
    let name = |ip: std::net::IpAddr| {
        let ends = told.translations.iter().flat_map(|t| [&t.reply.0, &t.reply.1]);
        let known = ends.into_iter().find(|e| e.ip == ip).and_then(|e| e.name.as_ref());
        known.map(|name| format!("{name} ")).unwrap_or_default()
    };
    let tell = |step: &Step| match &step.what {
        What::Rewritten { how: Rewrite::Destination, after, .. } => {
            let to = std::net::SocketAddr::new(after.destination, after.destination_port);
            Some(format!("{} sends it on to {}{to}", step.place, name(to.ip())))
        }
        What::Rewritten { how: Rewrite::Source, after, .. } => {
            let from = std::net::SocketAddr::new(after.source, after.source_port);
            Some(format!("{} makes its source {}{from}", step.place, name(from.ip())))
        }
        _ => None,
    };
    told.packet.steps.iter().filter_map(tell).collect()
}

fn fate(packet: &Packet) -> String {
    let last = packet.steps.last();
    let says = last.map(|s| s.says.as_str()).unwrap_or_default();
    let place = last.map(|s| s.place.to_string()).unwrap_or_default();
    match &packet.fate {
        Fate::Delivered { to } => format!("delivered to {to}"),
        Fate::Dropped => format!("dropped at {place}: {says}{}", by(last)),
        Fate::Refused => format!("refused at {place}: {says}"),
        Fate::Lost => format!("lost; seen last at {place}: {says}"),
    }
}

/// What dropped it, where the sentence does not have it.
fn by(last: Option<&Step>) -> String {
    match last {
        Some(Step { what: What::Dropped(drop), says, .. }) if !drop.by.is_empty() && !says.contains(&drop.by) => {
            format!(" (`{}`)", drop.by)
        }
        _ => String::new(),
    }
}

/// The packet as a trace shows it.
fn whole(page: &mut Page, told: &PacketTold) {
    let flow = Flow {
        role: told.role,
        protocol: told.protocol,
        source: told.source.clone(),
        destination: told.destination.clone(),
        packets: vec![told.packet.clone()],
        translations: told.translations.clone(),
    };
    flow::write(page, &flow);
    let says = [told.said.as_ref().map(|said| format!("a program says `{said}`")), told.because.clone()];
    says.into_iter().flatten().for_each(|text| page.line(&text, PLAIN));
}
