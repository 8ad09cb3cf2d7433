//! What was seen of a packet, laid beside what the lab's state says of its way.
//!
//! Taps see devices and nothing between them. What lies between (which route, which rule, which neighbour)
//! is known from walking the same packet through the state that was read back. The walk's device steps
//! are matched with sights in their order: a step that was seen gets its time and its header, one that was
//! not and has seen ones behind it was passed unseen, and where no later step was seen the walk is left:
//! from there on only what was seen counts. So a wrong walk can make a trace poor in words, never wrong.

mod rules;

use super::model::{Header, Means, Packet, RuleMet, Step, What};
use super::settle::settle;
use super::sight::{Sight, Tuple};
use crate::lab::names::{HostName, NsName};

pub use rules::who_rewrote;

/// A rule that the kernel told of, with its place in its chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    pub place: NsName,
    /// 1 where a tunnel's packet met it.
    pub layer: u8,
    /// Whether it was known by then by which device the packet would leave.
    pub leaves: bool,
    /// The ends that the packet had at this hook.
    pub ends: Tuple,
    pub met: RuleMet,
}

/// What one packet's way is made of.
pub struct Way<'a> {
    /// The steps that the state (or the plan) has for it.
    pub walked: &'a [Step],
    /// Its sights, in the order of time.
    pub sights: &'a [&'a Sight],
    /// The rules that it met.
    pub hits: &'a [Hit],
    /// The time that steps are counted from, in nanoseconds since the epoch.
    pub begin: u64,
    /// The host that a namespace is on.
    pub host_of: &'a dyn Fn(&NsName) -> Option<HostName>,
}

/// What was laid together.
#[derive(Debug, Clone, PartialEq)]
pub struct Aligned {
    pub steps: Vec<Step>,
    /// How many of the walked steps hold; all of them where nothing spoke against one.
    pub held: usize,
    /// Sights that no walked step had.
    pub unforeseen: usize,
}

/// Lay both beside each other.
pub fn align(way: &Way) -> Aligned {
    let matches = matches(way);
    let seen_last = matches.iter().rposition(Option::is_some);
    // Steps behind the last one that was seen hold up to the next device, where it would have been seen.
    let first_unseen = |from: usize| (from..way.walked.len()).find(|n| is_device(&way.walked[*n]));
    let held = match seen_last {
        None if way.sights.is_empty() => first_unseen(0).unwrap_or(way.walked.len()),
        None => 0,
        Some(last) => {
            let end = first_unseen(last + 1).unwrap_or(way.walked.len());
            let elsewhere = matches[last].and_then(|n| way.sights.get(n + 1));
            // What was seen behind it speaks against the decision where it goes, whatever that says.
            let decided = |sight: &Sight| (last + 1..end).find(|n| is_refuted(&way.walked[*n], sight));
            elsewhere.and_then(|sight| decided(sight)).unwrap_or(end)
        }
    };
    let mut told = Told { way, steps: Vec::new(), next: 0, unforeseen: 0 };
    for (step, found) in way.walked[..held].iter().zip(&matches) {
        match found {
            Some(n) => {
                told.raw_until(*n);
                told.next = n + 1;
            }
            None => told.raw_before(step),
        }
        told.walked(step, found.map(|n| way.sights[n]));
    }
    told.raw_until(way.sights.len());
    let Told { mut steps, unforeseen, .. } = told;
    rules::tell(&mut steps, way);
    let seen = matches[..held].iter().enumerate().filter_map(|(n, found)| Some((n, &way.sights[(*found)?].seen)));
    settle(&mut steps, way.walked, &seen.collect::<Vec<_>>());
    Aligned { steps, held, unforeseen }
}

/// The sight of each walked step, where it has one.
fn matches(way: &Way) -> Vec<Option<usize>> {
    let mut next = 0;
    let find = |step: &Step, from: usize| (from..way.sights.len()).find(|n| fits(step, way.sights[*n]));
    way.walked
        .iter()
        .map(|step| {
            let found = find(step, next)?;
            next = found + 1;
            Some(found)
        })
        .collect()
}

/// Whether a sight that no step foresaw speaks against one before it: it decides where a packet goes, or gives it other
/// addresses than were seen.
fn is_refuted(step: &Step, sight: &Sight) -> bool {
    match &step.what {
        What::Routed(_) | What::Neighbour { .. } | What::Bridged { .. } => true,
        What::Rewritten { after, .. } => step.layer == sight.layer && !has_addresses(after, sight),
        _ => false,
    }
}

/// Whether a tap sees a step.
pub fn is_device(step: &Step) -> bool {
    is_out(step).is_some()
}

/// Whether a step that a tap sees leads out of its device. A bridge that takes a frame for itself, and a
/// VXLAN device that has unwrapped one, hand it up as if it had come in by them.
pub(super) fn is_out(step: &Step) -> Option<bool> {
    match &step.what {
        What::Out => Some(true),
        What::In | What::Bridged { port: None, flooded: false, .. } => Some(false),
        What::Decapsulated { .. } if step.dev.is_some() => Some(false),
        _ => None,
    }
}

fn fits(step: &Step, sight: &Sight) -> bool {
    is_out(step) == Some(sight.outgoing)
        && step.place == sight.place
        && step.dev.as_ref() == Some(&sight.dev)
        && step.layer == sight.layer
        && step.header.as_ref().is_none_or(|header| has_addresses(header, sight))
}

/// Whether a packet was seen with the addresses of a header. Which of its addresses a machine puts into an error, the
/// walk only supposes; and ports may be chosen by chance.
fn has_addresses(header: &Header, sight: &Sight) -> bool {
    let Header { source, destination, .. } = &sight.seen;
    header.destination == *destination && (header.source == *source || sight.about.is_some())
}

struct Told<'a, 'w> {
    way: &'a Way<'w>,
    steps: Vec<Step>,
    /// The next sight that was not told of.
    next: usize,
    unforeseen: usize,
}

impl Told<'_, '_> {
    /// Tell of sights that nothing foresaw.
    fn raw_until(&mut self, end: usize) {
        for sight in &self.way.sights[self.next.min(end)..end] {
            self.unforeseen += 1;
            let step = seen(sight, self.way);
            self.steps.push(step);
        }
        self.next = self.next.max(end);
    }

    /// Tell of sights that come before a rewriting, as they have the header before it.
    fn raw_before(&mut self, step: &Step) {
        let What::Rewritten { before, .. } = &step.what else { return };
        let is_before =
            |s: &Sight| s.place == step.place && s.layer == step.layer && Tuple::of(&s.seen) == Tuple::of(before);
        let end = self.way.sights[self.next..].iter().position(|s| !is_before(s));
        self.raw_until(end.map_or(self.way.sights.len(), |n| self.next + n));
    }

    fn walked(&mut self, step: &Step, sight: Option<&Sight>) {
        let mut step = step.clone();
        if let Some(sight) = sight {
            step.at = Some(sight.at.saturating_sub(self.way.begin));
            step.header = Some(sight.seen.clone());
            step.known_by.insert(0, Means::Tap);
        }
        self.steps.push(step);
    }
}

/// The step of a sight alone.
fn seen(sight: &Sight, way: &Way) -> Step {
    let says = if sight.outgoing { format!("leaves by {}", sight.dev) } else { format!("comes in by {}", sight.dev) };
    Step {
        at: Some(sight.at.saturating_sub(way.begin)),
        place: sight.place.clone(),
        host: (way.host_of)(&sight.place),
        dev: Some(sight.dev.clone()),
        layer: sight.layer,
        what: if sight.outgoing { What::Out } else { What::In },
        header: Some(sight.seen.clone()),
        known_by: vec![Means::Tap],
        says,
    }
}

/// Whether two packets took the same steps, but for times and headers.
pub fn same_way(a: &Packet, b: &Packet) -> bool {
    let devices = |p: &Packet| -> Vec<_> {
        let steps = p.steps.iter().filter(|s| is_device(s) && s.known_by.contains(&Means::Tap));
        steps.map(|s| (s.place.clone(), s.dev.clone(), s.layer, s.what == What::Out)).collect()
    };
    devices(a) == devices(b)
}

#[cfg(test)]
mod tests;
