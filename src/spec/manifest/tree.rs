//! Making trees out of parts of other trees, whose places stay what they were.

use crate::diag::Place;
use crate::spec::node::{Entry, Key, Node, Value};

/// Ids of made nodes begin here: a text within the bounds has fewer values.
const FIRST_ID: u32 = 1 << 30;

/// Hands out the ids of made nodes, which must differ within one tree.
pub struct Maker {
    next: u32,
}

impl Maker {
    pub fn new() -> Maker {
        Maker { next: FIRST_ID }
    }

    fn id(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    /// An entry whose key stands at the place of its value.
    pub fn entry(&mut self, key: &str, value: Node) -> Entry {
        let key = Key { id: self.id(), place: value.place, text: key.to_owned() };
        Entry { key, value }
    }

    pub fn text(&mut self, text: &str, place: Place) -> Node {
        Node { id: self.id(), place, value: Value::Text(text.to_owned()) }
    }

    pub fn number(&mut self, number: i64, place: Place) -> Node {
        Node { id: self.id(), place, value: Value::Int(number) }
    }

    pub fn map(&mut self, entries: Vec<Entry>, place: Place) -> Node {
        Node { id: self.id(), place, value: Value::Map(entries) }
    }

    pub fn list(&mut self, items: Vec<Node>, place: Place) -> Node {
        Node { id: self.id(), place, value: Value::List(items) }
    }
}

/// The entries of a map.
pub fn entries(node: Node) -> Vec<Entry> {
    match node.value {
        Value::Map(entries) => entries,
        _ => Vec::new(),
    }
}

/// The map with only those of its entries that have one of `keys`; anything else as it is.
pub fn only(mut node: Node, keys: &[&str]) -> Node {
    if let Value::Map(entries) = &mut node.value {
        entries.retain(|e| keys.contains(&e.key.text.as_str()));
    }
    node
}
