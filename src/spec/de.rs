//! From a [`Node`] tree to our types, by serde, keeping places and finding every problem.
//!
//! Serde stops at the first fault. So [`decode`] mends the tree where it can (a misspelt field gets
//! the name that was meant), or else takes the faulty part out and notes the loss, and tries again
//! with what is left, until the rest is sound. Only a field that is missing cannot be taken out:
//! there the map around it goes. The number of rounds is bounded by the number of problems that a
//! person can use. What a fault looks like in words is in [`super::fault`].

use std::collections::HashSet;

use serde::de::value::{BorrowedStrDeserializer, StrDeserializer};
use serde::de::{self, DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};

use super::at;
use super::damage::Damage;
use super::fault::{Fault, Kind};
use super::node::{Entry, Node, Value};
use crate::diag::{Place, Problems};

/// After so many problems of one document the rest is left for the next run.
const MOST_PROBLEMS: usize = 50;

/// Decode `node`, reporting everything that does not fit. Returns what is left when the faulty
/// parts are taken out, so that its meaning can be checked in the same run, and what was lost.
pub fn decode<T: DeserializeOwned + Default>(node: Node, problems: &mut Problems) -> (T, Damage) {
    let mut damage = Damage::default();
    let value = decode_by(node, problems, |node, id| damage.take_out(node, id));
    (value, damage)
}

/// The same of an object that is of no use without its faulty parts. They are taken out as they are, with
/// no name kept.
pub fn decode_whole<T: DeserializeOwned + Default>(node: Node, problems: &mut Problems) -> T {
    decode_by(node, problems, Node::prune)
}

fn decode_by<T: DeserializeOwned + Default>(
    mut node: Node,
    problems: &mut Problems,
    mut take_out: impl FnMut(&mut Node, u32) -> Option<u32>,
) -> T {
    let mut wounded = HashSet::new();
    for _ in 0..MOST_PROBLEMS {
        let fault = match T::deserialize(&node) {
            Ok(value) => return value,
            Err(fault) => fault,
        };
        let (id, meant) = (fault.node, fault.meant());
        // What is missing may be what was taken out.
        let follows = fault.is_missing() && id.is_some_and(|id| wounded.contains(&id));
        if !follows {
            problems.push(fault.into_problem());
        }
        let Some(id) = id else { break };
        if meant.is_some_and(|name| node.rename(id, name)) {
            continue;
        }
        match take_out(&mut node, id) {
            Some(loser) => wounded.insert(loser),
            None => break,
        };
    }
    T::default()
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(b) => visitor.visit_bool(*b),
            Value::Int(n) => visitor.visit_i64(*n),
            Value::Float(n) => visitor.visit_f64(*n),
            Value::Text(t) => visitor.visit_borrowed_str(t),
            Value::List(items) => visitor.visit_seq(List(items.iter())),
            Value::Map(entries) => visitor.visit_map(Map { entries: entries.iter(), value: None }),
        }
        .map_err(|fault| fault.within(self.id, self.place))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
        .map_err(|fault| fault.within(self.id, self.place))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if name == at::AT {
            return visitor.visit_map(Placed::new(self.place, self));
        }
        // Kubernetes' own types pass over fields that they do not know; a misspelt one must not be lost.
        if let Value::Map(entries) = &self.value
            && let Some(entry) = entries.iter().find(|e| !fields.contains(&e.key.text.as_str()))
        {
            let fault: Fault = de::Error::unknown_field(&entry.key.text, fields);
            return Err(fault.within(entry.key.id, entry.key.place));
        }
        // `node1:` with nothing behind it is a host with every default.
        if self.value == Value::Null {
            return visitor
                .visit_map(Map { entries: [].iter(), value: None })
                .map_err(|fault| fault.within(self.id, self.place));
        }
        // Serde would read a list as the fields in their order.
        if let Value::List(_) = self.value {
            let fault: Fault = de::Error::invalid_type(de::Unexpected::Seq, &visitor);
            return Err(fault.within(self.id, self.place));
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.value == Value::Null {
            return visitor.visit_map(Map { entries: [].iter(), value: None });
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self).map_err(|fault| fault.within(self.id, self.place))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.value {
            Value::Text(word) => visitor.visit_enum(StrDeserializer::new(word)),
            _ => Err(Fault::of(Kind::Type {
                found: self.kind().to_owned(),
                expected: "a word".to_owned(),
                instead: None,
            })),
        }
        .map_err(|fault: Fault| fault.within(self.id, self.place))
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct identifier ignored_any
    }
}

struct List<'de>(std::slice::Iter<'de, Node>);

impl<'de> SeqAccess<'de> for List<'de> {
    type Error = Fault;
    fn next_element_seed<S: de::DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        self.0.next().map(|node| seed.deserialize(node)).transpose()
    }
}

struct Map<'de> {
    entries: std::slice::Iter<'de, Entry>,
    value: Option<&'de Node>,
}

impl<'de> MapAccess<'de> for Map<'de> {
    type Error = Fault;

    fn next_key_seed<S: de::DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let Some(entry) = self.entries.next() else { return Ok(None) };
        self.value = Some(&entry.value);
        seed.deserialize(KeyDe(entry)).map(Some).map_err(|fault| fault.within(entry.key.id, entry.key.place))
    }

    fn next_value_seed<S: de::DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        match self.value.take() {
            Some(node) => seed.deserialize(node),
            None => Err(Fault::of(Kind::Value("a value was asked for before its key".to_owned()))),
        }
    }
}

/// A key: text, or text with its place where [`at::At`] asks for it.
struct KeyDe<'de>(&'de Entry);

impl<'de> Deserializer<'de> for KeyDe<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_borrowed_str(&self.0.key.text)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if name != at::AT {
            return self.deserialize_any(visitor);
        }
        let place = self.0.key.place;
        let text = StrDeserializer::<Fault>::new(&self.0.key.text);
        visitor.visit_map(Placed::new(place, text))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

fn place_part(place: Place, step: usize) -> u32 {
    match step {
        0 => u32::from(place.source),
        1 => place.start,
        _ => place.end,
    }
}

/// What [`at::At`] reads: three numbers, then the value itself.
struct Placed<D> {
    place: Place,
    value: Option<D>,
    step: usize,
}

impl<D> Placed<D> {
    fn new(place: Place, value: D) -> Self {
        Placed { place, value: Some(value), step: 0 }
    }
}

impl<'de, D: Deserializer<'de, Error = Fault>> MapAccess<'de> for Placed<D> {
    type Error = Fault;

    fn next_key_seed<S: de::DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let name = at::AT_FIELDS.get(self.step);
        name.map(|name| seed.deserialize(BorrowedStrDeserializer::new(name))).transpose()
    }

    fn next_value_seed<S: de::DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let step = self.step;
        self.step += 1;
        match self.value.take_if(|_| step >= 3) {
            Some(value) => seed.deserialize(value),
            None => seed.deserialize(de::value::U32Deserializer::new(place_part(self.place, step))),
        }
    }
}
