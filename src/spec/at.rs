//! [`At`]: a value together with the place where it was written.

use std::ops::Deref;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

use crate::diag::Place;

/// The name by which our deserializer knows that a place is wanted; see `spec::de`.
pub(super) const AT: &str = "$labctl::At";
pub(super) const AT_FIELDS: &[&str] = &["source", "start", "end", "value"];

/// A value and its place. It reads like the value alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct At<T> {
    pub value: T,
    pub place: Place,
}

impl<T> At<T> {
    pub fn new(value: T, place: Place) -> Self {
        At { value, place }
    }

    /// The same place with another value.
    pub fn with<U>(&self, value: U) -> At<U> {
        At { value, place: self.place }
    }

    pub fn as_ref(&self) -> At<&T> {
        At { value: &self.value, place: self.place }
    }
}

/// Two values are equal wherever they were written.
impl<T: PartialEq> PartialEq for At<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T> Deref for At<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for V<T> {
            type Value = At<T>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a value with its place")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<At<T>, A::Error> {
                let mut next = || -> Result<u32, A::Error> {
                    map.next_entry::<&str, u32>()?.map(|e| e.1).ok_or_else(|| de::Error::custom("a place is cut short"))
                };
                let (source, start, end) = (next()?, next()?, next()?);
                let Some((_, value)) = map.next_entry::<&str, T>()? else {
                    return Err(de::Error::custom("a place without a value"));
                };
                let source = u16::try_from(source).map_err(de::Error::custom)?;
                Ok(At { value, place: Place { source, start, end } })
            }
        }
        deserializer.deserialize_struct(AT, AT_FIELDS, V(std::marker::PhantomData))
    }
}

impl<T: serde::Serialize> serde::Serialize for At<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }
    fn schema_id() -> std::borrow::Cow<'static, str> {
        T::schema_id()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}
