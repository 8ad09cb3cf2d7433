//! What holds in every trace: it does not contradict itself.

use std::collections::{BTreeMap, BTreeSet};

use labctl::trace::model::{Direction, Fate, Header, Packet, Rewrite, Step, Trace, What};

use crate::frames::Sighting;
use crate::seen;

/// Say what contradicts.
pub fn contradictions(trace: &Trace, sightings: &[Sighting]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut numbers = BTreeSet::new();
    for flow in &trace.flows {
        for packet in &flow.packets {
            let mut say = |what: String| wrong.push(format!("packet {}: {what}", packet.number));
            if !numbers.insert(packet.number) {
                say("its number is another's".into());
            }
            for earlier in packet.again.iter().chain(&packet.about) {
                if !flow.packets.iter().any(|p| p.number == *earlier && p.number < packet.number) {
                    say(format!("it refers to {earlier}, which is none before it"));
                }
            }
            of_packet(packet, trace).into_iter().for_each(&mut say);
        }
    }
    wrong.extend(cores(trace, sightings));
    wrong
}

fn of_packet(packet: &Packet, trace: &Trace) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut last = 0;
    for step in &packet.steps {
        let at = step.at.unwrap_or(last);
        if at < last {
            wrong.push(format!("time goes back at `{}`", step.says));
        }
        last = last.max(at);
    }
    let mut layer = 0;
    for step in &packet.steps {
        if step.layer.abs_diff(layer) > 1 {
            wrong.push(format!("layers do not nest at `{}`", step.says));
        }
        layer = step.layer;
    }
    let first = packet.steps.first();
    if packet.direction == Direction::There && packet.about.is_none() {
        let from = trace.flows.iter().find(|f| f.packets.iter().any(|p| p.number == packet.number));
        let asks = from.is_some_and(|f| matches!(f.role, labctl::trace::model::Role::Request));
        if asks && first.is_none_or(|s| s.place != trace.asked.from) {
            wrong.push(format!("it begins elsewhere than at {}", trace.asked.from));
        }
    }
    match (&packet.fate, packet.steps.last()) {
        (Fate::Delivered { to }, Some(last)) if last.place != *to => {
            wrong.push(format!("delivered to {to}, and its last step is at {}", last.place));
        }
        (_, None) => wrong.push("it has no step".into()),
        _ => {}
    }
    wrong.extend(headers(&packet.steps));
    wrong
}

/// TTLs go down by one where a packet is forwarded, and addresses change where it is said.
fn headers(steps: &[Step]) -> Vec<String> {
    let mut wrong = Vec::new();
    for layer in 0..=1 {
        let seen: Vec<(usize, &Step, &Header)> = steps
            .iter()
            .enumerate()
            .filter(|(_, s)| s.layer == layer && s.known_by.contains(&labctl::trace::model::Means::Tap))
            .filter_map(|(n, s)| Some((n, s, s.header.as_ref()?)))
            .collect();
        for pair in seen.windows(2) {
            let ((n, one, before), (m, other, after)) = (pair[0], pair[1]);
            let between = &steps[n..m];
            // Between two tunnels lies another outer packet.
            if layer == 1 && between.iter().any(|s| s.layer == 0) {
                continue;
            }
            let tunnel = between.iter().any(|s| s.layer != layer);
            let lost = before.ttl.checked_sub(after.ttl);
            let most = if tunnel { 2 } else { 1 };
            if lost.is_none_or(|lost| lost > most) {
                wrong.push(format!("TTL {} becomes {} from `{}` to `{}`", before.ttl, after.ttl, one.says, other.says));
            }
            if lost == Some(1) && !tunnel && one.place != other.place {
                wrong.push(format!("TTL goes down on a wire, from `{}` to `{}`", one.says, other.says));
            }
            wrong.extend(rewritten(between, (before, after)));
        }
    }
    wrong
}

/// Where addresses differ a rewriting stands between, and where one does they are as it says.
fn rewritten(between: &[Step], (before, after): (&Header, &Header)) -> Option<String> {
    let ends = |h: &Header| (h.source, h.source_port, h.destination, h.destination_port);
    let mut now = ends(before);
    for step in between {
        let What::Rewritten { how, before, after } = &step.what else { continue };
        if now != ends(before) {
            return Some(format!("`{}` ({}) is no rewriting of {now:?}", step.says, word(*how)));
        }
        now = ends(after);
    }
    let is_told = between.iter().any(|s| matches!(s.what, What::Rewritten { .. }));
    (is_told && now != ends(after)).then(|| format!("rewritten to {now:?}, and seen as {:?}", ends(after)))
}

fn word(how: Rewrite) -> &'static str {
    match how {
        Rewrite::Destination => "destination",
        Rewrite::Source => "source",
        Rewrite::Remembered => "remembered",
    }
}

/// All that is told of a packet has the same core.
fn cores(trace: &Trace, sightings: &[Sighting]) -> Vec<String> {
    let mut cores: BTreeMap<u32, BTreeSet<&[u8]>> = BTreeMap::new();
    for (number, n) in seen::matched(trace, sightings).1 {
        cores.entry(number).or_default().insert(&sightings[n].core);
    }
    let mixed = cores.into_iter().filter(|(_, cores)| cores.len() > 1);
    mixed
        .map(|(number, cores)| format!("packet {number}: its sights are of {} different packets", cores.len()))
        .collect()
}
