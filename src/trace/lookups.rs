//! What the kernel's routing tables answered, laid beside the routes that steps have from the state that was read back.
//!
//! A look-up is told with the addresses of the packet and the number of the device it came in by, and not with the
//! namespace. It is a step's where it fits in these and falls between the sights of the packet around the step; of
//! several the last one is. What a program sends goes by the route that its socket has kept, where nothing was looked
//! up since. Where both agree the step was seen; where not, the kernel's answer counts, and what the walk has behind
//! it up to the next thing that was seen is left.

use std::net::IpAddr;

use crate::kernel::record::{Event, Lookup, Recording, Seen};
use crate::lab::names::{IfName, NsName};
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
    let sights = sights(packets);
    let mut differences = Vec::new();
    for packet in packets.iter_mut().filter(|_| !all.is_empty()) {
        let mut n = 0;
        while n < packet.steps.len() {
            let asked = Asked::at(&packet.steps, n, (there, &sights));
            let answer = asked.as_ref().and_then(|asked| asked.answered(&all, begin));
            if let (Some(asked), Some(answer)) = (asked, answer) {
                // Of several next hops the table names the first, and another one may be taken. For ICMP the kernel asks
                // more than once, errors with other questions (`icmp_route_lookup`), and no port tells them apart.
                let is_open = asked.routed.route.contains("nexthop") || !asked.has_ports();
                match asked.agrees(answer) {
                    true => packet.steps[n].known_by.insert(0, Means::Lookup),
                    false if is_open => {}
                    false => {
                        let answer = asked.answer(answer);
                        differences.push(correct(&mut packet.steps, n, answer));
                    }
                }
            }
            n += 1;
        }
    }
    differences.dedup();
    differences
}

/// When packets were seen, and where.
fn sights(packets: &[Packet]) -> Vec<(u64, NsName)> {
    let steps = packets.iter().flat_map(|packet| &packet.steps).filter(seen);
    steps.filter_map(|step| Some((step.at?, step.place.clone()))).collect()
}

fn seen(step: &&Step) -> bool {
    step.known_by.contains(&Means::Tap) && step.at.is_some()
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
    /// The sights around it: when it came, or another packet of its flow was here before it was sent, and when it
    /// was seen next.
    from: Option<u64>,
    next: Option<u64>,
    /// Until when it may have asked.
    until: u64,
}

impl<'s> Asked<'s> {
    fn has_ports(&self) -> bool {
        self.step.header.as_ref().is_some_and(|h| matches!(h.protocol, Protocol::Tcp | Protocol::Udp))
    }

    fn at(steps: &'s [Step], n: usize, (there, sights): (&'s Plan, &[(u64, NsName)])) -> Option<Asked<'s>> {
        let step = &steps[n];
        let What::Routed(routed) = &step.what else { return None };
        let there = there.get(&step.place)?;
        let here = |s: &&Step| s.place == step.place && s.layer == step.layer;
        // A bridge that gives frames to iptables asks before it passes them up.
        let came = steps[..n].iter().rev().take_while(here).filter(seen).filter(|s| is_out(s) == Some(false));
        let came: Vec<&Step> = came.collect();
        let index = |s: &&Step| there.links.iter().find(|l| Some(&l.name) == s.dev.as_ref()).map(|l| l.index);
        let inputs = if came.is_empty() { vec![BORN] } else { came.iter().filter_map(index).collect() };
        let last = steps[..n].iter().rfind(seen).and_then(|s| s.at);
        let next = steps[n..].iter().find(seen).and_then(|s| s.at);
        let before = |(at, place): &&(u64, NsName)| *place == step.place && next.is_some_and(|next| *at < next);
        let sent = || sights.iter().filter(before).map(|(at, _)| *at).max();
        let from = came.last().map_or(last, |s| s.at).or_else(sent);
        // The look-ups of the next packet here are not this one's.
        let behind = last.unwrap_or(0);
        let others = sights.iter().filter(|(at, place)| *place == step.place && *at > behind).map(|(at, _)| *at);
        let until = next.unwrap_or_else(|| others.min().map_or(behind + BEHIND, |at| at.min(behind + BEHIND)));
        Some(Asked { routed, there, step, inputs, from, next, until })
    }

    /// What it was answered, of all look-ups in the order of time.
    fn answered<'l>(&self, all: &[(u64, &'l Lookup)], begin: u64) -> Option<&'l Lookup> {
        let fitting = all.iter().filter(|(_, lookup)| self.fits(lookup));
        let fitting: Vec<_> = fitting.map(|(at, lookup)| (at.saturating_sub(begin), *lookup)).collect();
        let among = |from: u64, until: u64| fitting.iter().filter(move |(at, _)| (from..=until).contains(at));
        let from = self.from.unwrap_or(0);
        let last = |with_ports: bool| among(from, self.until).rfind(|(_, l)| has_ports(l) || !with_ports);
        // Nobody looks up anything between for what a socket has kept the route of.
        let kept = || among(0, from).rfind(|(_, l)| self.inputs == [BORN] && has_ports(l));
        // Where clocks differ that of the next machine may be among them, which says nothing.
        let about = || {
            let next = self.next.map_or(self.until, |next| next + APART);
            let earlier = if self.inputs == [BORN] { 0 } else { APART };
            among(from.saturating_sub(earlier), next).rfind(|(_, l)| self.agrees(l))
        };
        last(true).or_else(|| last(false)).or_else(kept).or_else(about).map(|(_, lookup)| *lookup)
    }

    fn fits(&self, lookup: &Lookup) -> bool {
        let Some(header) = &self.step.header else { return false };
        let (source, destination) = (lookup.source, lookup.destination);
        let unbound = source.ip().is_unspecified() && self.inputs == [BORN];
        // An echo's identifier is no port.
        let ports = (source.port(), destination.port());
        let ported = ports == (0, 0)
            || header.protocol == Protocol::Icmp
            || ports == (header.source_port, header.destination_port)
            || (unbound && ports == (0, header.destination_port));
        // Of a lab beside this one that has the same addresses devices may have other names.
        let is_here = |dev: &IfName| dev.as_str() == "lo" || self.there.links.iter().any(|link| link.name == *dev);
        lookup.dev.as_ref().is_some_and(is_here)
            && self.inputs.contains(&lookup.iif)
            && IpAddr::V4(*destination.ip()) == header.destination
            && (unbound || IpAddr::V4(*source.ip()) == header.source)
            && ported
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

fn has_ports(lookup: &Lookup) -> bool {
    lookup.source.port() != 0 && lookup.destination.port() != 0
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
