//! What is left to chance: rules with odds, and routes over several next hops. And what rules decide that no walk
//! reads, where connection tracking told of it.

use std::net::{IpAddr, SocketAddr};

use crate::lab::names::NsName;
use crate::trace::translation::Entry;

use super::packet::Tuple;

/// How chance is decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Choices {
    /// The first of what may happen.
    #[default]
    First,
    /// What was observed: rules that lead to one of these targets are met, and of several next hops in a place
    /// one of these is taken. What they say nothing about is decided as by [`Choices::First`]. A flow of which there
    /// is an entry is rewritten as that says, whatever rules say.
    Following { targets: Vec<SocketAddr>, hops: Vec<(NsName, IpAddr)>, entries: Vec<Entry> },
    /// These, one after the other; what follows is decided as by [`Choices::First`].
    Given(Vec<usize>),
}

impl Choices {
    /// The same for a walk through a plan, which knows of no rules but its own.
    #[must_use]
    pub fn as_planned(&self) -> Choices {
        match self {
            Choices::Following { targets, hops, .. } => {
                Choices::Following { targets: targets.clone(), hops: hops.clone(), entries: Vec::new() }
            }
            other => other.clone(),
        }
    }
}

/// A decision that was made.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Made {
    taken: usize,
    of: usize,
}

/// Decides, and remembers what it decided.
pub(super) struct Chooser {
    choices: Choices,
    made: Vec<Made>,
    /// How likely all of it is.
    pub probability: f64,
}

impl Chooser {
    pub fn new(choices: &Choices) -> Chooser {
        Chooser { choices: choices.clone(), made: Vec::new(), probability: 1.0 }
    }

    /// One of the ways with these odds; `wanted` says whether one leads to a target or next hop.
    pub fn pick(&mut self, odds: &[f64], wanted: impl Fn(usize, &[SocketAddr], &[(NsName, IpAddr)]) -> bool) -> usize {
        let taken = match &self.choices {
            Choices::First => 0,
            Choices::Following { targets, hops, .. } => {
                (0..odds.len()).find(|n| wanted(*n, targets, hops)).unwrap_or(0)
            }
            Choices::Given(list) => list.get(self.made.len()).copied().unwrap_or(0).min(odds.len().saturating_sub(1)),
        };
        self.made.push(Made { taken, of: odds.len() });
        self.probability *= odds.get(taken).copied().unwrap_or(1.0);
        taken
    }

    /// What an answer must be to a flow whose first packet came to a namespace so, where connection tracking told of it.
    pub fn told(&self, place: &NsName, original: Tuple) -> Option<Tuple> {
        let Choices::Following { entries, .. } = &self.choices else { return None };
        let entry = entries.iter().find(|e| e.place == *place && Tuple::from(e.original).is_of(original));
        entry.map(|e| e.reply.into())
    }

    /// The choices of the next walk, where every way is to be gone once; nothing after the last one.
    pub fn next(mut self) -> Option<Choices> {
        while let Some(last) = self.made.pop() {
            if last.taken + 1 < last.of {
                let mut list: Vec<usize> = self.made.iter().map(|m| m.taken).collect();
                list.push(last.taken + 1);
                return Some(Choices::Given(list));
            }
        }
        None
    }
}
