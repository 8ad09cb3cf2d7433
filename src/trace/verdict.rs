//! The end of a trace: who answered, or why nobody did, on what that rests and what would mend it.
//!
//! The walk through the state that was read back names a cause and its place. Here the one that matters
//! is chosen and made more exact by what the lab's objects say ([`super::objects`]); what speaks for it is
//! gathered by [`super::grounds`].

use crate::lab::names::NsName;
use crate::lab::probe::{Ask, HttpAsk, Probe};
use crate::plan::diff::{self, Step as Difference};
use crate::probe::Outcome;
use crate::spec::probe::FailureName;

use super::model::{Cause, Direction, Drop, Fate, Fault, Flow, Means, Packet, Role, Step, Verdict, What};
use super::origin::Origin;
use super::packets::Teller;
use super::predict;
use super::tell::{Evidence, Material, target};
use super::walk::{Blame, Exchange, State};
use super::{listeners, objects, remedy, unplanned, unseen};

/// All that is looked at.
pub struct Case<'a> {
    pub material: &'a Material<'a>,
    pub evidence: &'a Evidence<'a>,
    pub teller: &'a Teller<'a>,
    pub asked: &'a Probe,
    pub outcome: &'a Outcome,
    pub flows: &'a [Flow],
}

/// Say how it ended.
pub fn judge(case: &Case) -> Verdict {
    if case.outcome.passed() {
        return Verdict { says: answered(case), fault: None };
    }
    let unseen = case.unseen();
    let Some(blame) = case.blame(unseen.as_ref()) else {
        let says = format!("not answered: {}; no fault was found on the way", case.outcome.observed);
        return Verdict { says, fault: None };
    };
    let blame = objects::refined(case, blame);
    let drift = diff::diff(case.material.there, case.material.planned);
    let fault = Fault {
        cause: blame.cause,
        place: blame.place.clone(),
        object: blame.object.clone(),
        evidence: case.grounds(&blame, &drift),
        remedy: remedies(case, &blame, &drift),
    };
    Verdict { says: placed(&blame), fault: Some(fault) }
}

/// The sentence, which begins with the place.
fn placed(Blame { place, says, .. }: &Blame) -> String {
    let place = place.to_string();
    let begins = says.strip_prefix(&place).is_some_and(|rest| rest.starts_with(' '));
    if begins { says.clone() } else { format!("{place}: {says}") }
}

fn answered(case: &Case) -> String {
    if let Some(elsewhere) = unplanned::answered_elsewhere(case) {
        return format!("{elsewhere}; {} got {}", case.asked.from, case.outcome.observed);
    }
    let by = case.flows.iter().rfind(|f| f.role != Role::NameLookup).and_then(Flow::taken_by);
    match by {
        Some(by) => format!("delivered to {by}; {} got {}", case.asked.from, case.outcome.observed),
        None => case.outcome.observed.clone(),
    }
}

impl<'a> Case<'a> {
    /// The request that was sent over HTTP.
    pub fn asked_http(&self) -> Option<&'a HttpAsk> {
        match &self.asked.ask {
            Ask::Http(http) => Some(http),
            _ => None,
        }
    }

    /// What the state says of a request of which nothing was seen.
    fn unseen(&self) -> Option<Exchange> {
        if self.flows.iter().any(|f| f.role == Role::Request) {
            return None;
        }
        let (destination, port, protocol) = target(self.asked, self.outcome)?;
        let probe = super::walk::Probe::of(&self.asked.ask, protocol, destination, port);
        self.teller.unseen(&self.asked.from, probe.header)
    }

    /// The fault that kept the answer away.
    fn blame(&self, unseen: Option<&Exchange>) -> Option<Blame> {
        let walked = |role: Role| {
            let both = self.flows.iter().zip(&self.teller.walked);
            both.filter(move |(flow, _)| flow.role == role).filter_map(|(flow, (e, _))| Some((flow, e.as_ref()?)))
        };
        let fault = |(flow, exchange): (&Flow, &Exchange)| {
            // A question that failed was not answered, whatever came back; the others may have been.
            let counts = flow.role == Role::Request || !is_answered(flow);
            exchange.fault.clone().filter(|_| counts)
        };
        let decisive = decisive(self.flows, self.outcome.details.failure);
        let dropped = dropped(&decisive).or_else(|| self.dropped_answer(&decisive));
        if let Some(blame) = dropped.or_else(|| unplanned::blame(self, &decisive)) {
            return Some(blame);
        }
        if self.outcome.details.failure == Some(FailureName::Name) {
            let lookup = walked(Role::NameLookup).find_map(fault).or_else(|| listeners::blame(self));
            return lookup.or_else(|| objects::no_name(self));
        }
        let on_the_way = || {
            let proxied = walked(Role::Proxied).next_back().and_then(fault);
            walked(Role::Request).filter_map(fault).next_back().or(proxied)
        };
        let beyond = || objects::beyond_the_network(self);
        let told = || self.refused().or_else(|| self.lost());
        let silent = || self.queued().or_else(|| listeners::blame(self));
        on_the_way().or_else(|| unseen.and_then(|e| e.fault.clone())).or_else(silent).or_else(beyond).or_else(told)
    }

    /// A rule of whoever was reached that drops what it answers.
    fn dropped_answer(&self, flows: &[&Flow]) -> Option<Blame> {
        let unanswered = flows.iter().filter(|flow| !is_answered(flow)).flat_map(|flow| &flow.packets);
        let mut there = unanswered.filter(|p| p.direction == Direction::There);
        let hit = there.find_map(|packet| unseen::dropped_answer(self.evidence, packet))?;
        let (place, object) = (hit.place.clone(), hit.met.named());
        let says = format!("{place} answers, and its own rule drops that: {object}");
        Some(Blame { cause: hit.met.as_cause(), place, object, says })
    }

    /// Who sent an error in place of an answer, when the state knows no reason: it may have been another moment ago.
    fn refused(&self) -> Option<Blame> {
        let mut packets = self.flows.iter().filter(|f| f.role == Role::Request).flat_map(|f| &f.packets);
        let error = packets.find(|p| p.direction == Direction::Back && p.about.is_some())?;
        let cause = match error.kind.as_str() {
            "destination unreachable: host" => Cause::NoNeighbour,
            "destination unreachable: network" => Cause::NoRoute,
            "destination unreachable: fragmentation needed" => Cause::TooBig,
            kind if kind.starts_with("time exceeded") => Cause::TtlExceeded,
            _ => Cause::Other,
        };
        let place = error.steps.first()?.place.clone();
        let says = format!("{place} answers: {}", error.kind);
        Some(Blame { cause, place, object: error.kind.clone(), says })
    }

    /// A queueing discipline that dropped something where a packet was seen last, or where the question was asked and
    /// nothing was seen.
    fn queued(&self) -> Option<Blame> {
        let packets = self.flows.iter().flat_map(|f| &f.packets);
        let lost = packets.filter(|p| !matches!(p.fate, Fate::Delivered { .. })).filter_map(|p| p.steps.last());
        let mut places: Vec<&NsName> = lost.map(|step| &step.place).collect();
        if !self.flows.iter().any(|f| f.role == Role::Request) {
            places.push(&self.asked.from);
        }
        let counted = self.material.recording.counters.iter().filter(|c| places.contains(&&c.place));
        let queue = |name: &str| Some(name.strip_prefix("qdisc ")?.strip_suffix(" dropped")?.to_owned());
        let (place, object) = counted.filter_map(|c| Some((c.place.clone(), queue(&c.name)?))).next()?;
        let says = format!("the queueing discipline `{object}` of {place} drops it");
        Some(Blame { cause: Cause::Qdisc, place, object, says })
    }

    /// A packet that left by a cable and is larger than the device at its other end takes. The walks are those of first
    /// packets, which are smaller.
    fn beyond_the_cable(&self, packet: &Packet, last: &Step) -> Option<Blame> {
        let (What::Out, Some(dev), Some(header)) = (&last.what, &last.dev, &last.header) else { return None };
        let state = State::observed(self.material.there, self.material.known, self.material.planned);
        let (place, far) = state.too_small_behind((&last.place, dev), header.length)?;
        let says = format!(
            "the {} has {} bytes, and {} of {place} takes {}; nobody is told",
            packet.kind, header.length, far.name, far.mtu
        );
        let object = format!("{} mtu {}", far.name, far.mtu);
        Some(Blame { cause: Cause::TooBig, place: place.clone(), object, says })
    }

    /// Where a packet was seen last, when the state knows no reason.
    fn lost(&self) -> Option<Blame> {
        let packets = self.flows.iter().filter(|f| f.role != Role::NameLookup).flat_map(|f| &f.packets);
        let packet = packets.into_iter().rfind(|p| !matches!(p.fate, Fate::Delivered { .. }))?;
        let last = packet.steps.iter().rfind(|s| !s.is_inferred())?;
        if let Some(blame) = self.beyond_the_cable(packet, last) {
            return Some(blame);
        }
        let (cause, by) = match &last.what {
            What::Dropped(drop) => (drop.cause, drop.by.clone()),
            _ => (Cause::Other, last.dev.as_ref().map_or_else(|| last.says.clone(), ToString::to_string)),
        };
        let says = format!("the {} was seen here last: {}", packet.kind, last.says);
        Some(Blame { cause, place: last.place.clone(), object: by, says })
    }
}

/// The flows on which the end hangs. A proxy whose endpoint failed went on to another one, and a resolver to the
/// next server: what the last one did is what the asker got.
fn decisive(flows: &[Flow], failure: Option<FailureName>) -> Vec<&Flow> {
    let last = |role: Role| flows.iter().rfind(|f| f.role == role);
    match last(Role::NameLookup).filter(|_| failure == Some(FailureName::Name)) {
        Some(lookup) => vec![lookup],
        None => flows.iter().filter(|f| f.role == Role::Request).chain(last(Role::Proxied)).collect(),
    }
}

/// A rule that was seen to drop a packet for which no answer came, and that the state's walk does not have.
fn dropped(flows: &[&Flow]) -> Option<Blame> {
    let told = |s: &&Step| {
        let knows = |means| s.known_by.contains(means);
        matches!(s.what, What::Dropped(_)) && knows(&Means::Rules) && !knows(&Means::State)
    };
    let missed = flows.iter().flat_map(|flow| flow.packets.iter().filter(|p| is_missed(flow, p)));
    let (packet, step) = missed.into_iter().find_map(|p| Some((p, p.steps.iter().find(told)?)))?;
    let What::Dropped(Drop { cause, by, .. }) = &step.what else { return None };
    let (cause, object) = (*cause, by.clone());
    let did = if cause == Cause::RuleReject { "refused" } else { "dropped" };
    let says = format!("the {} is {did} by {by}", packet.kind);
    Some(Blame { cause, place: step.place.clone(), object, says })
}

/// Whether a packet was missed where it did not come through: it is no copy that a bridge made, no other try of it
/// came through, and what it was sent for was not answered.
fn is_missed(flow: &Flow, packet: &Packet) -> bool {
    let first = |p: &Packet| p.again.unwrap_or(p.number);
    let came_through = |p: &Packet| first(p) == first(packet) && matches!(p.fate, Fate::Delivered { .. });
    if packet.is_copy() || flow.packets.iter().any(came_through) {
        return false;
    }
    let has_data = |p: &Packet| p.kind.ends_with(" bytes");
    match (has_data(packet), packet.direction) {
        (true, Direction::Back) => true,
        // That a connection was made answers no request.
        (true, Direction::There) => !answers(flow).any(|answer| has_data(answer) && answer.number > packet.number),
        (false, _) => !is_answered(flow),
    }
}

/// Whether an answer came back to where the flow began.
pub fn is_answered(flow: &Flow) -> bool {
    answers(flow).next().is_some()
}

/// What came back to where the flow began and is no refusal.
fn answers(flow: &Flow) -> impl Iterator<Item = &Packet> {
    let took = |p: &&Packet| p.direction == Direction::There && p.again.is_none();
    let from = flow.packets.iter().find(took).and_then(|p| p.steps.first()).map(|s| &s.place);
    let is_answer = move |p: &&Packet| {
        p.direction == Direction::Back
            && !p.kind.starts_with("RST")
            && p.about.is_none()
            && matches!(&p.fate, Fate::Delivered { to } if Some(to) == from)
    };
    flow.packets.iter().filter(is_answer)
}

fn remedies(case: &Case, blame: &Blame, drift: &[Difference]) -> Vec<super::model::Remedy> {
    let origin = case.material.origin;
    let mut all = objects::remedies(case, blame);
    match unplanned::taken_away(case, blame) {
        Some(own) => all.push(own),
        None => all.extend(remedy::of_machine(&blame.place, drift)),
    }
    if !drift.is_empty() || (origin.is_edited() && is_answered_as_written(case)) {
        all.push(origin.up());
    }
    all
}

/// Whether the lab's own text, without what was done to the lab since, has an answer: else it does not help to
/// go back to it.
fn is_answered_as_written(case: &Case) -> bool {
    let Material { lab, origin, .. } = case.material;
    let written = origin.written_lab(lab);
    written.is_some_and(|lab| predict::trace(&lab, case.asked, ("", &Origin::default())).asked.answered)
}

#[cfg(test)]
mod tests;
