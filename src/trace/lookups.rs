//! What the kernel's routing tables answered, laid beside the routes that steps have from the state that was read back.
//!
//! A look-up is told with the addresses of the packet and the number of the device it came in by, and not with the
//! namespace. It is a step's where it fits in these and falls between the sights of the packet around the step. Where
//! both agree the step was seen; where not, the kernel's answer counts, and what the walk has behind it up to the next
//! thing that was seen is left.

use std::net::{IpAddr, Ipv4Addr};

use crate::kernel::record::{Event, Lookup, Recording, Seen};
use crate::plan::deviation::Deviation;
use crate::plan::{NsPlan, Plan};

use super::align::is_out;
use super::model::{Means, Packet, Protocol, Routed, Step, What};

/// How far apart the clocks of look-ups and of taps may be, in nanoseconds.
const APART: u64 = 1_000_000;
/// For so long after the last sight a look-up may still be the packet's.
const BEHIND: u64 = 100_000_000;
/// The device that a packet came in by where it was born here (`LOOPBACK_IFINDEX`).
const BORN: u32 = 1;

/// Confirm or correct the steps at which a routing table decided; `begin` is the time that steps are counted from.
/// Returns where the kernel decided otherwise, in words.
pub fn mark(packets: &mut [Packet], recording: &Recording, (there, begin): (&Plan, u64)) -> Vec<String> {
    let all: Vec<(u64, &Lookup)> = recording.events.iter().filter_map(lookup).collect();
    let mut differences = Vec::new();
    for packet in packets.iter_mut().filter(|_| !all.is_empty()) {
        let mut n = 0;
        while n < packet.steps.len() {
            let asked = Asked::at(&packet.steps, n, there);
            let fits = |asked: &Asked| all.iter().filter(|l| asked.fits(l, begin)).map(|(_, l)| *l).collect();
            let fitting: Vec<&Lookup> = asked.as_ref().map(fits).unwrap_or_default();
            if let (Some(asked), Some(last)) = (asked, fitting.last()) {
                let differs = (!fitting.iter().any(|l| asked.agrees(l))).then(|| asked.answer(last));
                // Of several next hops the table names the first, and another one may be taken.
                let is_open = asked.routed.route.contains("nexthop");
                match differs {
                    None => packet.steps[n].known_by.insert(0, Means::Lookup),
                    Some(_) if is_open => {}
                    Some(answer) => differences.push(correct(&mut packet.steps, n, answer)),
                }
            }
            n += 1;
        }
    }
    differences.dedup();
    differences
}

fn lookup(event: &Event) -> Option<(u64, &Lookup)> {
    match &event.seen {
        Seen::Lookup(lookup) => Some((event.at, lookup)),
        _ => None,
    }
}

/// What a step asked a routing table.
struct Asked<'s> {
    routed: &'s Routed,
    there: &'s NsPlan,
    step: &'s Step,
    /// Numbers of the devices that the packet may have come in by.
    inputs: Vec<u32>,
    /// From when to when it may have asked.
    between: (u64, u64),
}

impl<'s> Asked<'s> {
    fn at(steps: &'s [Step], n: usize, there: &'s Plan) -> Option<Asked<'s>> {
        let step = &steps[n];
        let What::Routed(routed) = &step.what else { return None };
        let there = there.get(&step.place)?;
        let seen = |s: &&Step| s.known_by.contains(&Means::Tap) && s.at.is_some();
        let here = |s: &&Step| s.place == step.place && s.layer == step.layer;
        // A bridge that gives frames to iptables asks before it passes them up.
        let came = steps[..n].iter().rev().take_while(here).filter(seen).filter(|s| is_out(s) == Some(false));
        let came: Vec<&Step> = came.collect();
        let index = |s: &&Step| there.links.iter().find(|l| Some(&l.name) == s.dev.as_ref()).map(|l| l.index);
        let inputs = if came.is_empty() { vec![BORN] } else { came.iter().filter_map(index).collect() };
        let from = came.last().copied().or_else(|| steps[..n].iter().rfind(seen)).and_then(|s| s.at);
        let last = steps[..n].iter().rfind(seen).and_then(|s| s.at).unwrap_or(0);
        let next = steps[n..].iter().find(seen).and_then(|s| s.at);
        let until = next.map_or(last + BEHIND, |next| next + APART);
        Some(Asked { routed, there, step, inputs, between: (from.unwrap_or(0), until) })
    }

    fn fits(&self, (at, lookup): &(u64, &Lookup), begin: u64) -> bool {
        let Some(header) = &self.step.header else { return false };
        let (from, until) = self.between;
        // What the machine itself sent first it asked for before anybody saw it.
        let in_time = (from == 0 || at + APART >= begin + from) && *at <= begin + until;
        let is = |ip: Ipv4Addr, port: u16, (wanted, port_wanted): (IpAddr, u16)| {
            // An echo's identifier is no port.
            let port = port == 0 || header.protocol == Protocol::Icmp || port == port_wanted;
            IpAddr::V4(ip) == wanted && port
        };
        let (source, destination) = (lookup.source, lookup.destination);
        let unbound = source.ip().is_unspecified() && self.inputs == [BORN];
        in_time
            && lookup.dev.is_some()
            && self.inputs.contains(&lookup.iif)
            && is(*destination.ip(), destination.port(), (header.destination, header.destination_port))
            && (unbound || is(*source.ip(), source.port(), (header.source, header.source_port)))
    }

    fn agrees(&self, lookup: &Lookup) -> bool {
        let Some(dev) = &lookup.dev else { return false };
        if self.routed.route == "local" {
            let ip = IpAddr::V4(*lookup.destination.ip());
            return dev.as_str() == "lo" || self.there.addresses.iter().any(|a| a.net.addr() == ip && a.dev == *dev);
        }
        self.routed.dev.as_deref() == Some(dev.as_str()) && self.routed.via.is_none_or(|via| via == lookup.via)
    }

    /// Where it led. A next hop that no route has is none.
    fn answer(&self, lookup: &Lookup) -> Routed {
        let is_there = |text: String| text.contains(&format!("via {} ", lookup.via));
        let strange = self.there.deviations.iter().filter(|d| matches!(d, Deviation::Route(_)));
        let mut all = self.there.routes.iter().map(ToString::to_string).chain(strange.map(ToString::to_string));
        let via = all.any(is_there).then_some(IpAddr::V4(lookup.via));
        let dev = lookup.dev.as_ref().map(ToString::to_string);
        let mut routed = Routed { route: String::new(), via, dev };
        routed.route = format!("{} {}", lookup.destination.ip(), hop(&routed));
        routed
    }
}

fn hop(routed: &Routed) -> String {
    let part = |name: &str, value: Option<String>| value.map(|value| format!("{name} {value}"));
    let parts = [part("via", routed.via.map(|ip| ip.to_string())), part("dev", routed.dev.clone())];
    let words: Vec<String> = parts.into_iter().flatten().collect();
    if words.is_empty() { routed.route.clone() } else { words.join(" ") }
}

/// Put the kernel's answer into a step, and say how it differs.
fn correct(steps: &mut Vec<Step>, n: usize, answer: Routed) -> String {
    let step = &mut steps[n];
    let What::Routed(routed) = &mut step.what else { return String::new() };
    let (place, led, foreseen) = (step.place.clone(), hop(&answer), hop(routed));
    *routed = answer;
    step.known_by = vec![Means::Lookup];
    step.says = format!("the routing table of {place} leads it {led}");
    let supposed = |s: &&Step| s.place == place && s.is_inferred();
    let behind = steps[n + 1..].iter().take_while(supposed).count();
    steps.drain(n + 1..n + 1 + behind);
    format!("{place}: the kernel's look-up led {led}, where the state that was read back has {foreseen}")
}

#[cfg(test)]
mod tests;
