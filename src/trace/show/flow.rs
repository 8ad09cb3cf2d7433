//! A flow: what it is, the way there, the way back, and what the rest of its packets did.

use crate::trace::model::{Direction, End, Flow, Packet, Protocol, Role};

use super::page::{BOLD, DIM, GLUE, Lead, PLAIN, Page};
use super::steps;
use super::ways::{Parts, Same, Told, Ways};

pub fn write(page: &mut Page, flow: &Flow) {
    page.blank();
    page.ruled('━', &title(flow), BOLD);
    if flow.packets.is_empty() {
        page.line("No packet of it was seen.", PLAIN);
    }
    let ways = Ways::of(flow);
    let mut remembered = false;
    for told in &ways.told {
        // The entries are there once the first packet has passed.
        if told.packet.direction == Direction::Back && !std::mem::replace(&mut remembered, true) {
            translations(page, flow);
        }
        write_told(page, flow, told);
        for same in ways.same.iter().filter(|s| s.as_packet.number == told.packet.number) {
            write_same(page, same);
        }
    }
    if !remembered {
        translations(page, flow);
    }
}

/// `Request over tcp: tea-1 (10.244.1.21:41234) to service default/tea-svc (10.96.0.100:80)`.
pub fn title(flow: &Flow) -> String {
    let role = match flow.role {
        Role::Request => "Request",
        Role::NameLookup => "Name lookup",
        Role::Proxied => "What the proxy asked",
        Role::Other => "Flow",
    };
    let over = if flow.protocol == Protocol::Other { String::new() } else { format!(" over {}", flow.protocol) };
    format!("{role}{over}: {} to {}", end(&flow.source, flow.protocol), end(&flow.destination, flow.protocol))
}

fn end(end: &End, protocol: Protocol) -> String {
    match &end.name {
        Some(name) => format!("{name} ({})", address(end, protocol)),
        None => address(end, protocol),
    }
}

/// With its port where the protocol has some: what stands there for ICMP is an identifier.
pub fn address(end: &End, protocol: Protocol) -> String {
    match end.port {
        0 => end.ip.to_string(),
        _ if protocol == Protocol::Icmp => end.ip.to_string(),
        port => std::net::SocketAddr::new(end.ip, port).to_string(),
    }
}

fn write_told(page: &mut Page, flow: &Flow, told: &Told) {
    page.blank();
    page.ruled('─', &heading(flow, told.packet), BOLD);
    match told.parts {
        None => steps::write(page, told.packet, 0),
        Some(Parts { from, at }) => {
            page.line(&format!("As packet {from} at first. Then:"), DIM);
            steps::write(page, told.packet, at);
        }
    }
}

/// `There: packet 1, SYN`; an error names the packet that it tells of.
pub fn heading(flow: &Flow, packet: &Packet) -> String {
    let direction = way(packet.direction);
    let number = packet.number;
    let mut text = format!("{direction}: packet {number}, {}", packet.kind);
    if let Some(about) = packet.about {
        let other = flow.packets.iter().find(|p| p.number == about);
        let other = other.map(|o| format!("packet {about}, {}", o.kind)).unwrap_or(format!("packet {about}"));
        let relation = match packet.direction {
            _ if is_error(packet) => "tells of",
            _ if packet.kind.starts_with("fragment") => "a part of",
            Direction::Back => "answers",
            Direction::There => "a copy of",
        };
        text += &format!(" ({relation} {other})");
    }
    if let Some(again) = packet.again {
        text += &format!(" (packet {again} again)");
    }
    text
}

/// Whether the packet is one of ICMP's errors, by the words that model gives to them.
fn is_error(packet: &Packet) -> bool {
    ["unreachable", "exceeded", "redirect", "problem", "too big"].iter().any(|word| packet.kind.contains(word))
}

pub fn way(direction: Direction) -> &'static str {
    match direction {
        Direction::There => "There",
        Direction::Back => "Back",
    }
}

/// Packets that took the way of one that was told; tries again apart from the rest.
fn write_same(page: &mut Page, same: &Same) {
    page.blank();
    let number = same.as_packet.number;
    if page.style.wide {
        for packet in &same.packets {
            let again = packet.again.map(|a| format!(" (packet {a} again)")).unwrap_or_default();
            let text = format!("{}{again}, as packet {number}", packet.kind);
            say(page, &format!("packet {}, {}: {text}", packet.number, times(packet)));
        }
        return;
    }
    let (again, others): (Vec<&Packet>, Vec<&Packet>) = same.packets.iter().partition(|p| p.again.is_some());
    if !others.is_empty() {
        let kinds: Vec<_> = others.iter().map(|p| format!("{} {}", p.number, p.kind)).collect();
        let more = if others.len() == 1 { "1 more packet" } else { &format!("{} more packets", others.len()) };
        say(page, &format!("{more} took the way of packet {number}: {}", some(&kinds)));
    }
    if !again.is_empty() {
        let first = start(same.as_packet).unwrap_or(0);
        let tries = again.iter().map(|p| {
            let after = start(p).map(|at| format!(" after {}", steps::duration(at.saturating_sub(first))));
            format!("packet {}{}", p.number, after.unwrap_or_default())
        });
        let tries: Vec<_> = tries.collect();
        let word = if tries.len() == 1 { "1 more try" } else { &format!("{} more tries", tries.len()) };
        say(page, &format!("{word} took the way of packet {number}, to the same end: {}", some(&tries)));
    }
}

fn say(page: &mut Page, text: &str) {
    page.hang(&Lead { first: "+ ".to_owned(), rest: "  ".to_owned() }, text, PLAIN);
}

/// The first of many, and how many there are beside.
fn some(texts: &[String]) -> String {
    const MOST: usize = 12;
    match texts.len() {
        n if n > MOST => format!("{}; and {} more", texts[..MOST].join("; "), n - MOST),
        _ => texts.join("; "),
    }
}

fn start(packet: &Packet) -> Option<u64> {
    packet.steps.iter().find_map(|s| s.at)
}

/// When a packet was on its way.
fn times(packet: &Packet) -> String {
    let end = packet.steps.iter().rev().find_map(|s| s.at);
    match (start(packet), end) {
        (Some(start), Some(end)) => format!("{} to {}", steps::duration(start), steps::duration(end)),
        _ => "without times".to_owned(),
    }
}

fn translations(page: &mut Page, flow: &Flow) {
    if flow.translations.is_empty() {
        return;
    }
    page.blank();
    page.line("The way back, as connection tracking remembers it", BOLD);
    for t in &flow.translations {
        let lead = Lead { first: format!("  {}: ", t.place), rest: "    ".to_owned() };
        let answer = tuple(&t.reply.0, &t.reply.1, flow.protocol);
        let becomes = tuple(&t.original.1, &t.original.0, flow.protocol);
        let text = if answer == becomes {
            format!("an answer {answer} stays as it is")
        } else {
            format!("an answer {answer} goes on as {becomes}")
        };
        page.hang(&lead, &text, PLAIN);
    }
}

/// What connection tracking knows a packet by, `192.168.1.101 > 10.244.1.2 identifier 7` for a ping.
fn tuple(from: &End, to: &End, protocol: Protocol) -> String {
    let addresses = format!("{}{GLUE}>{GLUE}{}", address(from, protocol), address(to, protocol));
    match (protocol, from.port) {
        (Protocol::Icmp, id) if id != 0 => format!("{addresses} identifier {id}"),
        _ => addresses,
    }
}
