//! What was seen of a packet, laid beside what the lab's state says of its way.
//!
//! Taps see devices and nothing between them. What lies between (which route, which rule, which neighbour)
//! is known from walking the same packet through the state that was read back. The walk's device steps
//! are matched with sights in their order: a step that was seen gets its time and its header, one that was
//! not and has seen ones behind it was passed unseen, and where no later step was seen the walk is left:
//! from there on only what was seen counts. So a wrong walk can make a trace poor in words, never wrong.

use std::collections::{HashMap, HashSet};

use super::model::{Cause, Drop, Header, Means, Packet, RuleMet, Ruleset, Step, What};
use super::settle::settle;
use super::sight::{Sight, Tuple};
use crate::lab::names::{HostName, NsName};

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
    meet(&mut steps, way);
    leave_out_unmet(&mut steps);
    way.hits.iter().filter(|hit| hit.met.rewrites()).for_each(|hit| leave(&mut steps, hit));
    name_who_rewrote(&mut steps);
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

/// Mark the rules that the kernel told of, and put in those that the walk did not have. A policy that lets
/// through is nothing that happened, and what the walk has behind a drop that it did not foresee did not happen.
fn meet(steps: &mut Vec<Step>, way: &Way) {
    // For each place, behind which step its next rule comes.
    let mut after: HashMap<&NsName, usize> = HashMap::new();
    for hit in way.hits.iter().filter(|hit| hit.met.number > 0 || hit.met.verdict == "DROP") {
        let from = after.get(&hit.place).copied().unwrap_or(0);
        let find = |fits: fn(&Step, &Hit) -> bool| (from..steps.len()).find(|n| fits(&steps[*n], hit));
        let at = match (find(is_met), find(leads_the_same_way)) {
            (Some(at), _) => {
                confirm(&mut steps[at], hit);
                at
            }
            (None, Some(at)) => {
                steps[at] = met(hit, way);
                at
            }
            (None, None) => {
                let at = place_for(steps, hit, from);
                steps.insert(at, met(hit, way));
                if matches!(steps[at].what, What::Dropped(_)) {
                    let mut n = 0;
                    steps.retain(|step| {
                        n += 1;
                        n <= at + 1 || !step.is_inferred()
                    });
                }
                // What comes behind has moved by one.
                after.values_mut().filter(|n| **n >= at).for_each(|n| *n += 1);
                at
            }
        };
        after.insert(&hit.place, at + 1);
    }
}

/// Of a packet that it traces in a namespace the kernel tells each rule that was met there. So one that it did not tell
/// of was not met, whatever the walk says: it does not know which connections there were before.
fn leave_out_unmet(steps: &mut Vec<Step>) {
    let is_told = |s: &Step| s.known_by.contains(&Means::Rules);
    // Those that are not iptables' say nothing of iptables', which may be told by other means.
    let is_walks = |s: &Step| matches!(&s.what, What::Rule(met) if met.of != Ruleset::Nftables);
    let told = steps.iter().filter(|s| is_told(s) && is_walks(s)).map(|s| (s.place.clone(), s.layer));
    let told: HashSet<(NsName, u8)> = told.collect();
    let is_unmet =
        |s: &Step| matches!(s.what, What::Rule(_)) && !is_told(s) && told.contains(&(s.place.clone(), s.layer));
    steps.retain(|s| !is_unmet(s));
}

fn is_met(step: &Step, hit: &Hit) -> bool {
    // The walk does not tell iptables' rules from those of iptables-legacy, which may have the same place.
    let same = |met: &RuleMet| {
        let place = |met: &RuleMet| (met.table.clone(), met.chain.clone(), met.number);
        let texts = [&met.rule, &hit.met.rule];
        place(met) == place(&hit.met) && (texts[0] == texts[1] || texts.iter().any(|text| text.is_empty()))
    };
    step.place == hit.place
        && step.layer == hit.layer
        && match &step.what {
            What::Rule(met) => same(met) && !step.known_by.contains(&Means::Rules),
            _ => false,
        }
}

/// Whether the walk has chosen another rule of the chain that leads to the same chain: which of them is met may hang on
/// what the kernel remembers of a client, as with session affinity.
fn leads_the_same_way(step: &Step, hit: &Hit) -> bool {
    let same = |met: &RuleMet| {
        (&met.table, &met.chain, &met.verdict) == (&hit.met.table, &hit.met.chain, &hit.met.verdict)
            && met.verdict.starts_with("jump ")
    };
    step.place == hit.place
        && step.layer == hit.layer
        && !step.known_by.contains(&Means::Rules)
        && matches!(&step.what, What::Rule(met) if same(met))
}

fn confirm(step: &mut Step, hit: &Hit) {
    step.known_by.insert(0, Means::Rules);
    if let What::Rule(met) = &mut step.what {
        met.of = hit.met.of;
        met.verdict.clone_from(&hit.met.verdict);
    }
}

/// Where a rule goes that the walk did not have: behind the rules of its place before it and behind the first
/// step of its place, unless that is the device by which the packet left, and before the packet gets other ends than
/// it met the rule with. Behind the routing of what came in there is more of that: a bridge takes a frame in after its
/// port has.
fn place_for(steps: &[Step], hit: &Hit, from: usize) -> usize {
    let here = |s: &Step| s.place == hit.place && s.layer == hit.layer;
    let first = steps.iter().position(here).map(|n| if is_out(&steps[n]) == Some(true) { n } else { n + 1 });
    let begin = match (first, from) {
        (Some(first), from) => first.max(from),
        (None, 0) => steps.len(),
        (None, from) => from,
    };
    let begin = begin.min(steps.len());
    if !hit.leaves && !matches!(hit.met.chain.as_str(), "FORWARD" | "INPUT" | "POSTROUTING") {
        return begin;
    }
    let loses_ends = |s: &Step| matches!(&s.what, What::Rewritten { before, .. } if Tuple::of(before) == hit.ends);
    let goes_on = |s: &&Step| here(s) && is_out(s) != Some(true) && !loses_ends(s);
    let inside = steps[begin..].iter().take_while(goes_on).count();
    let is_before = |s: &Step| is_out(s) == Some(false) || hit.leaves && matches!(s.what, What::Routed(_));
    let before = steps[begin..begin + inside].iter().rposition(is_before);
    before.map_or(begin, |n| begin + n + 1)
}

/// Leave the walk where it does not know that a rule has rewritten the packet: what it has from there on up to what was
/// seen is of a packet with other ends.
fn leave(steps: &mut Vec<Step>, hit: &Hit) {
    let here = |s: &&Step| s.place == hit.place && s.layer == hit.layer;
    let is_hit = |s: &Step| s.known_by == [Means::Rules] && matches!(&s.what, What::Rule(met) if *met == hit.met);
    let Some(at) = steps.iter().position(|s| here(&s) && is_hit(s)) else { return };
    let behind = &steps[at + 1..];
    let is_known = behind.iter().take_while(here).any(|s| matches!(s.what, What::Rewritten { .. }));
    let next = behind.iter().find(|s| s.layer == hit.layer && s.known_by.contains(&Means::Tap));
    let is_same = next.and_then(|s| s.header.as_ref()).is_some_and(|header| Tuple::of(header) == hit.ends);
    if is_known || is_same {
        return;
    }
    let end = behind.iter().position(|s| s.known_by.contains(&Means::Tap)).map_or(steps.len(), |n| at + 1 + n);
    let mut n = 0;
    steps.retain(|step| {
        n += 1;
        n <= at + 1 || n > end || !step.is_inferred()
    });
}

/// Say which rule has rewritten a packet where the walk has none that did.
fn name_who_rewrote(steps: &mut [Step]) {
    for at in 0..steps.len() {
        if !matches!(steps[at].what, What::Rewritten { .. }) || steps[at].known_by != [Means::Conntrack] {
            continue;
        }
        let by = who_rewrote(steps, at).map(RuleMet::placed);
        steps[at].says += &format!(", by {}", by.as_deref().unwrap_or("a rule that was not told of"));
    }
}

/// The rule that has made a step of rewriting: the last one before it that does such a thing, or else the last one that
/// took the packet and of which only its handle is known.
pub fn who_rewrote(steps: &[Step], at: usize) -> Option<&RuleMet> {
    let Step { place, layer, .. } = steps.get(at)?;
    let before = || {
        let here = steps[..at].iter().rev().take_while(move |s| s.place == *place && s.layer == *layer);
        here.filter_map(|s| if let What::Rule(met) = &s.what { Some(met) } else { None })
    };
    let is_bare = |met: &&RuleMet| met.rule.starts_with("handle ") && met.verdict == "ACCEPT";
    before().find(|met| met.rewrites()).or_else(|| before().find(is_bare))
}

fn met(hit: &Hit, way: &Way) -> Step {
    let RuleMet { number, verdict, .. } = &hit.met;
    let dropped = verdict == "DROP";
    let cause = match (*number, hit.met.refuses()) {
        (0, _) => Cause::PolicyDrop,
        (_, true) => Cause::RuleReject,
        _ => Cause::RuleDrop,
    };
    let says = format!("{}: {verdict}", hit.met.placed());
    let what = match dropped {
        true => What::Dropped(Drop { cause, by: hit.met.named(), reason: None }),
        false => What::Rule(hit.met.clone()),
    };
    Step {
        at: None,
        place: hit.place.clone(),
        host: (way.host_of)(&hit.place),
        dev: None,
        layer: hit.layer,
        what,
        header: None,
        known_by: vec![Means::Rules],
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
