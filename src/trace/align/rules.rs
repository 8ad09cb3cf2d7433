//! The rules that the kernel told of, laid beside those that the walk has: where they stand among a packet's steps, which
//! the walk has and nobody met, and which of them has rewritten the packet.

use std::collections::{HashMap, HashSet};

use super::{Hit, Way, is_out};
use crate::lab::names::NsName;
use crate::trace::model::{Drop, Means, Rewrite, RuleMet, Ruleset, Step, What};
use crate::trace::sight::Tuple;

/// Put what the kernel told of rules into the steps that the walk and the taps have.
pub(super) fn tell(steps: &mut Vec<Step>, way: &Way) {
    meet(steps, way);
    leave_out_unmet(steps);
    way.hits.iter().filter(|hit| hit.met.rewrites().is_some()).for_each(|hit| leave(steps, hit));
    name_who_rewrote(steps);
}

/// Mark the rules that the kernel told of, and put in those that the walk did not have. A policy that lets
/// through is nothing that happened, and what the walk has behind a drop that it did not foresee did not happen.
fn meet(steps: &mut Vec<Step>, way: &Way) {
    // For each place, behind which step its next rule comes.
    let mut after: HashMap<&NsName, usize> = HashMap::new();
    for hit in way.hits.iter().filter(|hit| hit.met.number > 0 || hit.met.verdict == "DROP") {
        let from = after.get(&hit.place).copied().unwrap_or(0);
        let find = |fits: fn(&Step, &Hit) -> bool| (from..steps.len()).find(|n| fits(&steps[*n], hit));
        let at = match (find(is_met_in_its_set).or_else(|| find(is_met)), find(leads_the_same_way)) {
            (Some(at), _) => {
                confirm(&mut steps[at..], hit);
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
/// of was not met, whatever the walk says: it does not know which connections there were before. Of one that comes
/// by more than once what was told of each time cannot be told apart, and nothing is left out.
fn leave_out_unmet(steps: &mut Vec<Step>) {
    let is_told = |s: &Step| s.known_by.contains(&Means::Rules);
    // Those that are not iptables' say nothing of iptables', which may be told by other means.
    let is_walks = |s: &Step| matches!(&s.what, What::Rule(met) if met.of != Ruleset::Nftables);
    let visits =
        |place: &NsName| steps.chunk_by(|a, b| a.place == b.place).filter(|run| run[0].place == *place).count();
    let told = steps.iter().filter(|s| is_told(s) && is_walks(s)).filter(|s| visits(&s.place) == 1);
    let told: HashSet<(NsName, u8)> = told.map(|s| (s.place.clone(), s.layer)).collect();
    let is_unmet =
        |s: &Step| matches!(s.what, What::Rule(_)) && !is_told(s) && told.contains(&(s.place.clone(), s.layer));
    steps.retain(|s| !is_unmet(s));
}

/// Whether a step is the rule that was met, of the same set of rules.
fn is_met_in_its_set(step: &Step, hit: &Hit) -> bool {
    is_met(step, hit) && matches!(&step.what, What::Rule(met) if met.of == hit.met.of)
}

/// Whether a step is the rule that was met. What a plan has as iptables' own are rules of xtables where that is what
/// `iptables` speaks to.
fn is_met(step: &Step, hit: &Hit) -> bool {
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

/// The first step is the rule that was met, and what follows from it was seen as well.
fn confirm(steps: &mut [Step], hit: &Hit) {
    let [step, behind @ ..] = steps else { return };
    step.known_by.insert(0, Means::Rules);
    if let What::Rule(met) = &mut step.what {
        met.of = hit.met.of;
        met.verdict.clone_from(&hit.met.verdict);
    }
    let end = behind.first_mut().filter(|s| hit.met.verdict == "DROP" && matches!(s.what, What::Dropped(_)));
    end.into_iter().for_each(|s| s.known_by.insert(0, Means::Rules));
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
    let is_of_end = |met: &&RuleMet| match &steps[at].what {
        What::Rewritten { how: how @ (Rewrite::Source | Rewrite::Destination), .. } => met.rewrites() == Some(*how),
        _ => met.rewrites().is_some(),
    };
    before().find(is_of_end).or_else(|| before().find(is_bare))
}

fn met(hit: &Hit, way: &Way) -> Step {
    let verdict = &hit.met.verdict;
    let says = format!("{}: {verdict}", hit.met.placed());
    let what = match verdict == "DROP" {
        true => What::Dropped(Drop { cause: hit.met.as_cause(), by: hit.met.named(), reason: None }),
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
