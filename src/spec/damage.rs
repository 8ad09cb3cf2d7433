//! What was lost of a file because it could not be read.
//!
//! `lab` checks what is left of a faulty file, so that all its problems are found in one run. What
//! is missing there because it was taken out is not missing for the user, who wrote it, if wrongly.
//! So before `lab` complains that something is absent it asks here. What is lost is decided in
//! [`super::de`].

use std::collections::HashSet;

use super::node::{Entry, Node, Value};
use crate::diag::Place;

/// The parts that were taken out of one document.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Damage {
    /// Top-level fields that were taken out as a whole.
    sections: HashSet<String>,
    /// Names that were written in them, as far as they can be made out.
    names: HashSet<String>,
    /// From beginning to end the hosts, pods, probes and so on that lost a part.
    things: Vec<Place>,
}

impl Damage {
    pub fn is_empty(&self) -> bool {
        self.sections.is_empty() && self.things.is_empty()
    }

    /// Whether `name` may have been declared in the lost section `section`, or in one whose name
    /// was not understood.
    pub fn may_have_held(&self, section: &str, name: &str) -> bool {
        self.sections.contains(section) || self.names.contains(name)
    }

    /// Whether the whole section was lost.
    pub fn section(&self, section: &str) -> bool {
        self.sections.contains(section)
    }

    /// Whether the thing that `place` is a part of lost some other part.
    pub fn around(&self, place: Place) -> bool {
        let within = |t: &Place| t.source == place.source && t.start <= place.start && place.start < t.end;
        self.things.iter().any(within)
    }

    /// Take the node or entry `id` out of `document` and note what that costs. A thing with a name
    /// keeps it: what is written behind the name becomes nothing. Returns whether it was there.
    pub(super) fn take_out(&mut self, document: &mut Node, id: u32) -> bool {
        let Value::Map(sections) = &mut document.value else { return false };
        if let Some(at) = sections.iter().position(|e| is(e, id)) {
            let lost = sections.remove(at);
            self.names.extend(names(&lost.value));
            self.sections.insert(lost.key.text);
            return true;
        }
        sections.iter_mut().any(|section| match &mut section.value.value {
            Value::Map(entries) => entries.iter_mut().any(|e| self.take_from_thing(e, id)),
            Value::List(items) => self.take_from_list(items, id),
            _ => false,
        })
    }

    fn take_from_thing(&mut self, entry: &mut Entry, id: u32) -> bool {
        let place = Place { end: entry.value.place.end.max(entry.key.place.end), ..entry.key.place };
        let found = if is(entry, id) {
            entry.value.value = Value::Null;
            true
        } else {
            entry.value.prune(id)
        };
        if found {
            self.things.push(place);
        }
        found
    }

    fn take_from_list(&mut self, items: &mut Vec<Node>, id: u32) -> bool {
        if let Some(at) = items.iter().position(|n| n.id == id) {
            items.remove(at);
            return true;
        }
        let Some(item) = items.iter_mut().find_map(|n| n.prune(id).then_some(n.place)) else { return false };
        self.things.push(item);
        true
    }
}

fn is(entry: &Entry, id: u32) -> bool {
    entry.key.id == id || entry.value.id == id
}

/// The names in a section that is not of the right shape: keys, words of a list, or `name` fields.
fn names(section: &Node) -> Vec<String> {
    let text = |node: &Node| match &node.value {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    };
    match &section.value {
        Value::Map(entries) => entries.iter().map(|e| e.key.text.clone()).collect(),
        Value::List(items) => items.iter().filter_map(|n| text(n).or_else(|| n.get("name").and_then(text))).collect(),
        _ => Vec::new(),
    }
}
