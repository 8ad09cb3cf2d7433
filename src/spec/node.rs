//! A YAML document as a tree in which every key and value knows its place.
//!
//! This is YAML only: what the values mean is decided by the types in [`super::types`] and the
//! deserializer in `super::de`. Reading the text is in [`super::yaml`].

use crate::diag::Place;

/// One value of a document. `id` is unique within the document, so that a part that was found
/// to be wrong can be taken out and the rest looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub id: u32,
    pub place: Place,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub key: Key,
    pub value: Node,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    pub id: u32,
    pub place: Place,
    pub text: String,
}

impl Node {
    /// What a person would call this kind of value.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Int(_) => "a number",
            Value::Float(_) => "a fraction",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// How many values it consists of, itself included.
    pub fn count(&self) -> usize {
        1 + match &self.value {
            Value::List(items) => items.iter().map(Node::count).sum(),
            Value::Map(entries) => entries.iter().map(|e| e.value.count()).sum(),
            _ => 0,
        }
    }

    /// How many lists and maps stand within each other, itself included.
    pub fn depth(&self) -> usize {
        match &self.value {
            Value::List(items) => 1 + items.iter().map(Node::depth).max().unwrap_or(0),
            Value::Map(entries) => 1 + entries.iter().map(|e| e.value.depth()).max().unwrap_or(0),
            _ => 0,
        }
    }

    /// The value under `key`, where this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|e| e.key.text == key).map(|e| &e.value),
            _ => None,
        }
    }

    /// The entry with `key`, where this is a map that has it.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|e| e.key.text == key),
            _ => None,
        }
    }

    /// The text, where this is one.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The items, where this is a list.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// Where a field path such as `spec.ports[0].nodePort` leads to, as Kubernetes writes paths: the
    /// value's place, or that of the nearest part around it that is written.
    pub fn place_of(&self, path: &str) -> Place {
        let mut node = self;
        for step in path.split(['.', '[']) {
            let next = match step.strip_suffix(']').and_then(|n| n.parse::<usize>().ok()) {
                Some(index) => node.items().get(index),
                None => node.get(step.trim_end_matches(']')),
            };
            match next {
                Some(next) if next.value != Value::Null => node = next,
                _ => break,
            }
        }
        node.place
    }

    /// Take out the node or map entry with this id. Returns the id of the list or map that lost it.
    pub fn prune(&mut self, id: u32) -> Option<u32> {
        match &mut self.value {
            Value::List(items) => {
                let before = items.len();
                items.retain(|n| n.id != id);
                if items.len() != before { Some(self.id) } else { items.iter_mut().find_map(|n| n.prune(id)) }
            }
            Value::Map(entries) => {
                let before = entries.len();
                entries.retain(|e| e.key.id != id && e.value.id != id);
                if entries.len() != before { Some(self.id) } else { entries.iter_mut().find_map(|e| e.value.prune(id)) }
            }
            _ => None,
        }
    }

    /// Give the key with this id another text, where its map has no such key yet.
    pub fn rename(&mut self, id: u32, text: &str) -> bool {
        match &mut self.value {
            Value::List(items) => items.iter_mut().any(|n| n.rename(id, text)),
            Value::Map(entries) => match entries.iter().position(|e| e.key.id == id) {
                Some(_) if entries.iter().any(|e| e.key.text == text) => false,
                Some(at) => {
                    entries[at].key.text = text.to_owned();
                    true
                }
                None => entries.iter_mut().any(|e| e.value.rename(id, text)),
            },
            _ => false,
        }
    }
}
