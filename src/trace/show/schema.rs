//! The JSON Schema of a trace, made from the very types that are printed.

use crate::spec::schema;
use crate::trace::follow::told::Told;
use crate::trace::model::Trace;

/// The schema as it is committed in `schemas/trace.schema.json`, with a line end behind it.
pub fn text() -> String {
    schema::of::<Trace>()
}

/// That of a line of what is followed, as it is committed in `schemas/follow.schema.json`.
pub fn followed() -> String {
    schema::of::<Told>()
}
