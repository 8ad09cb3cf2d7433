//! Which program sent a packet, where the kernel told of its process.
//!
//! The kernel tells of a packet at a device of some namespace, with the process. It is the one that a tap saw leave its
//! sender where that was at the same device and of the same length in the short time between the two points at which the
//! kernel told, and the process is in the sender's namespace. Where two processes fit nobody is named.

use crate::kernel::record::{Event, Recording, Seen, Sender, Sending};

use super::align::is_out;
use super::freed::ETHERNET;
use super::model::{Means, Packet, Step, What};
use super::walk::{A_PROGRAM, ANSWERER};

/// How far apart the clocks of tracepoints and of taps may be, in nanoseconds.
const APART: u64 = 20_000;

/// Say at the steps at which packets were sent by which program; `begin` is the time that steps are counted from.
pub fn mark(packets: &mut [Packet], recording: &Recording, begin: u64) {
    let told: Vec<&Sending> = recording.events.iter().filter_map(sending).collect();
    for packet in packets.iter_mut().filter(|_| !told.is_empty()) {
        if let Some(by) = sender(packet, &told, begin).cloned() {
            name(packet, &by);
        }
    }
}

fn sending(event: &Event) -> Option<&Sending> {
    match &event.seen {
        Seen::Sending(sending) => Some(sending),
        _ => None,
    }
}

/// Who sent a packet; nothing where that is not certain.
fn sender<'t>(packet: &Packet, told: &[&'t Sending], begin: u64) -> Option<&'t Sender> {
    let sent = packet.steps.first().filter(|step| step.layer == 0 && is_a_programs(step))?;
    let left = packet.steps.iter().find(|step| step.known_by.contains(&Means::Tap))?;
    if (&left.place, left.layer, is_out(left)) != (&sent.place, 0, Some(true)) {
        return None;
    }
    let mut fitting = told.iter().filter(|sending| is_it(sending, left, begin)).map(|sending| &sending.by);
    let first = fitting.next()?;
    fitting.all(|other| other == first).then_some(first)
}

/// Whether the walk says that it is a program who sent it, and not which.
fn is_a_programs(step: &Step) -> bool {
    matches!(&step.what, What::Sent { by } if [A_PROGRAM, ANSWERER].contains(&by.as_str()))
}

/// Whether it was told of what a tap saw leave.
fn is_it(sending: &Sending, left: &Step, begin: u64) -> bool {
    let (Some(at), Some(header)) = (left.at, &left.header) else { return false };
    let (from, until) = sending.between;
    let in_time = (from.saturating_sub(APART)..=until + APART).contains(&(begin + at));
    let is_here = match &sending.by {
        Sender::Process { place, .. } => *place == left.place,
        Sender::Daemon => true,
    };
    let same_length = sending.length == header.length || sending.length == header.length + ETHERNET;
    in_time && is_here && Some(&sending.dev) == left.dev.as_ref() && same_length
}

fn name(packet: &mut Packet, sender: &Sender) {
    let Packet { steps, kind, .. } = packet;
    let Some(step) = steps.first_mut() else { return };
    let What::Sent { by } = &mut step.what else { return };
    let (place, answers) = (&step.place, by == ANSWERER);
    step.says = match (sender, answers) {
        (Sender::Process { name, .. }, false) => format!("{name} (of {place}) sends it: {kind}"),
        (Sender::Process { name, .. }, true) => format!("{name} (of {place}) answers: {kind}"),
        (Sender::Daemon, false) => format!("labctl sends it for {place}: {kind}"),
        (Sender::Daemon, true) => format!("labctl answers for {place}: {kind}"),
    };
    *by = match sender {
        Sender::Process { name, .. } => name.clone(),
        Sender::Daemon => "labctl".to_owned(),
    };
    step.known_by.insert(0, Means::Process);
}

#[cfg(test)]
mod tests;
