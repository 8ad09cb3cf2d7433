//! The faults that a lab can be given on purpose: each one that is a change of machines is found by its
//! cause at its place, in every lab that it fits.

use std::path::Path as File;

use super::super::{Known, Seen};
use super::labs::{packet, read};
use super::*;
use crate::fault::site::Site;
use crate::fault::{Change, Chosen, Fault, apply, catalogue};
use crate::plan::services::{self, PodState};

/// A fault in a lab, where it fits and is one of the machines.
fn chosen(fault: &Fault, lab: &Lab, plan: &Plan) -> Option<Chosen> {
    let ready = PodState { alive: true, ready: true, terminating: false };
    let slices = services::slices(lab, |_| ready);
    let chosen = fault.at(&Site { lab, plan, slices: &slices, on: None }).ok()?;
    matches!(chosen.change, Change::Machines(_)).then_some(chosen)
}

/// How the diagnosis differs from the fault.
fn difference(fault: &Fault, chosen: &Chosen, lab: &Lab, plan: &Plan) -> Option<String> {
    let asked = chosen.question.probe(lab).expect("a question");
    let probe = packet(lab, &asked)?;
    let Change::Machines(twists) = &chosen.change else { return None };
    let mut broken = plan.clone();
    apply(twists, &mut broken);
    let known = Known::default();
    let state = State::observed(&broken, &known, plan);
    let way = exchange(&state, &asked.from, &probe, &Choices::First).expect("a namespace");
    let healthy = ask(plan, &asked.from.path(), &probe);
    if healthy.seen != Seen::Answer {
        return Some(format!("it is not answered before: {}", told(&healthy)));
    }
    match &way.fault {
        Some(found) if (found.cause, &found.place) == (fault.cause, &chosen.place) => None,
        Some(found) => Some(format!(
            "{:?} at {} ({}) is found, {:?} at {} ({}) is wanted\n{}",
            found.cause,
            found.place,
            found.object,
            fault.cause,
            chosen.place,
            chosen.object,
            told(&way)
        )),
        None => Some(format!("nothing is found, {:?} at {} is wanted\n{}", fault.cause, chosen.place, told(&way))),
    }
}

#[test]
fn every_fault_that_machines_are_given_is_found_where_it_is() {
    let (mut walked, mut wrong) = (0, Vec::new());
    for name in ["vxlan.yaml", "udp.yaml", "host-gw.yaml"] {
        let file = File::new(env!("CARGO_MANIFEST_DIR")).join("labs/broken").join(name);
        let lab = read(file.to_str().expect("a name"));
        let plan = prediction(&lab);
        for fault in catalogue() {
            let Some(chosen) = chosen(fault, &lab, &plan) else { continue };
            walked += 1;
            let found = difference(fault, &chosen, &lab, &plan);
            wrong.extend(found.map(|what| format!("{name}: {}: {what}", fault.name)));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(walked > 50, "only {walked} faults were walked");
}
