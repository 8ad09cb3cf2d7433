//! A lab as a picture: its networks, machines, pods, devices and the links between them, and the way of
//! a trace along them.
//!
//! [`model`] says what there is to draw, of a lab and its plan; [`layout`] says where; [`mermaid`], [`dot`],
//! [`svg`] and [`page`] write it, one format each. All of it is pure: the same lab gives the same
//! picture. Where a picture is written to is the caller's business.

pub mod dot;
mod gather;
pub mod layout;
mod links;
pub mod mermaid;
pub mod model;
pub mod page;
pub mod svg;

use std::collections::BTreeSet;

use crate::lab::Lab;
use crate::lab::names::NsName;
use crate::plan::Plan;
use crate::trace::model::Trace;

use model::{Graph, Options};

/// One HTML page that draws the lab and plays `trace` along it. It needs nothing beside it.
pub fn html(lab: &Lab, plan: &Plan, trace: Option<&Trace>) -> String {
    page::write(&Graph::of(lab, plan, &options(trace, false)), trace)
}

/// How a lab is drawn: the pods that the trace comes by each for itself, and with `all` every one.
pub fn options(trace: Option<&Trace>, all: bool) -> Options {
    let steps = trace.into_iter().flat_map(|t| &t.flows).flat_map(|f| &f.packets).flat_map(|p| &p.steps);
    let passed: BTreeSet<NsName> = steps.map(|step| step.place.clone()).collect();
    Options { all, apart: passed }
}
