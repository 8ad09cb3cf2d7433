//! What was lost of a file because it could not be read.
//!
//! `lab` checks what is left of a faulty file, so that all its problems are found in one run. What
//! is missing there because it was taken out is not missing for the user, who wrote it, if wrongly.
//! So before `lab` complains that something is absent it asks here. What is lost is decided in
//! `super::de`.

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
    /// Entries of sections whose value was taken out as a whole.
    entries: HashSet<(String, String)>,
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

    /// Whether the whole value of this entry of a section was lost.
    pub fn entry(&self, section: &str, key: &str) -> bool {
        self.entries.contains(&(section.to_owned(), key.to_owned()))
    }

    /// Whether the thing that `place` is a part of lost some other part.
    pub fn around(&self, place: Place) -> bool {
        let within = |t: &Place| t.source == place.source && t.start <= place.start && place.start < t.end;
        self.things.iter().any(within)
    }

    /// Take the node or entry `id` out of `document` and note what that costs. A thing with a name
    /// keeps it: what is written behind the name becomes nothing. Returns the id of the list or map that
    /// lost it, where it was found.
    pub(super) fn take_out(&mut self, document: &mut Node, id: u32) -> Option<u32> {
        let Value::Map(sections) = &mut document.value else { return None };
        if let Some(at) = sections.iter().position(|e| is(e, id)) {
            let lost = sections.remove(at);
            self.names.extend(names(&lost.value));
            self.sections.insert(lost.key.text);
            return Some(document.id);
        }
        sections.iter_mut().find_map(|section| match &mut section.value.value {
            // A key that cannot be there would be as wrong without its value.
            Value::Map(entries) if entries.iter().any(|e| e.key.id == id) => {
                let at = entries.iter().position(|e| e.key.id == id)?;
                let lost = entries.remove(at);
                self.things.push(Place { end: lost.value.place.end.max(lost.key.place.end), ..lost.key.place });
                self.entries.insert((section.key.text.clone(), lost.key.text));
                Some(section.value.id)
            }
            Value::Map(entries) => entries.iter_mut().find_map(|e| self.take_from_thing(&section.key.text, e, id)),
            Value::List(items) => {
                let before = items.len();
                items.retain(|n| n.id != id);
                if items.len() != before { Some(section.value.id) } else { self.take_from_list(items, id) }
            }
            _ => None,
        })
    }

    fn take_from_thing(&mut self, section: &str, entry: &mut Entry, id: u32) -> Option<u32> {
        let place = Place { end: entry.value.place.end.max(entry.key.place.end), ..entry.key.place };
        let found = if is(entry, id) {
            entry.value.value = Value::Null;
            self.entries.insert((section.to_owned(), entry.key.text.clone()));
            Some(entry.value.id)
        } else {
            entry.value.prune(id)
        };
        if found.is_some() {
            self.things.push(place);
        }
        found
    }

    fn take_from_list(&mut self, items: &mut [Node], id: u32) -> Option<u32> {
        let (place, lost) = items.iter_mut().find_map(|n| n.prune(id).map(|lost| (n.place, lost)))?;
        self.things.push(place);
        Some(lost)
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
