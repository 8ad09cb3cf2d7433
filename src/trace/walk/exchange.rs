//! There and back: a packet, the answer to it, and what the one who asked sees of both.

use crate::lab::names::NsName;
use crate::trace::model::{Cause, Fate, Rewrite, Step, Translation, What};

use super::choices::{Choices, Chooser};
use super::conntrack::Tracking;
use super::packet::{Kind, Packet, Probe, Trouble, Tuple};
use super::state::{BRIDGE_NETFILTER, State};
use super::walker::Told;
use super::{Blame, Path, go};

/// More ways than this are not gone through.
const MOST_WAYS: usize = 4_096;

/// What the one who asked sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    Answer,
    /// A closed port: RST, or an ICMP error that says so.
    Refused,
    Unreachable,
    TooBig,
    TtlExceeded,
    /// An error of the sender's own kernel: its rules drop the packet (`EPERM`).
    NotPermitted,
    /// Nothing.
    Timeout,
}

/// A question and its answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Exchange {
    pub there: Path,
    /// The answer, or the error in its place; nothing where none was sent.
    pub back: Option<Path>,
    pub seen: Seen,
    pub translations: Vec<Translation>,
    /// Why there was no answer; nothing where there was one.
    pub fault: Option<Blame>,
    pub probability: f64,
}

/// Walk there, and the answer back, by what connection tracking remembers. Nothing where the lab has no
/// namespace `from`.
pub fn exchange(state: &State, from: &NsName, probe: &Probe, choices: &Choices) -> Option<Exchange> {
    decided(state, from, probe, choices).map(|(exchange, _)| exchange)
}

/// Every way that chance allows, each with its probability; at most 4,096.
pub fn every(state: &State, from: &NsName, probe: &Probe) -> Vec<Exchange> {
    let mut all = Vec::new();
    let mut choices = Some(Choices::Given(Vec::new()));
    while let Some(given) = choices.filter(|_| all.len() < MOST_WAYS) {
        let Some((exchange, next)) = decided(state, from, probe, &given) else { break };
        all.push(exchange);
        choices = next;
    }
    all
}

/// An exchange, and the choices of the next one.
fn decided(state: &State, from: &NsName, probe: &Probe, choices: &Choices) -> Option<(Exchange, Option<Choices>)> {
    let mut tracking = Tracking::default();
    let mut chooser = Chooser::new(choices);
    let (there, told) = go(state, from, Packet::of(probe), (&mut chooser, &mut tracking, false))?;
    let sent = there.steps.iter().filter(|s| s.layer == 0).find_map(|s| s.header.clone());
    let sent = Tuple::of(&sent.unwrap_or_else(|| probe.header.clone()));
    let probability = chooser.probability;
    let next = chooser.next();
    let (back, seen) = match told {
        Some(Told::AtOnce(trouble)) => (None, seen_as(trouble)),
        Some(Told::NotPermitted) => (None, Seen::NotPermitted),
        None => (None, Seen::Timeout),
        Some(Told::Packet(packet)) => {
            let kind = packet.kind.clone();
            let back = answer(state, &there.end, packet, &mut tracking)?;
            let known = arrived_as_expected(&back, from, sent);
            (Some(back), if known { seen_of(&kind) } else { Seen::Timeout })
        }
    };
    let back = back.map(|back| match seen {
        Seen::Timeout if matches!(back.fate, Fate::Delivered { .. }) => unknown_to_socket(state, back, &tracking),
        _ => back,
    });
    let fault = match seen {
        Seen::Answer => None,
        _ => there.fault.clone().or_else(|| {
            let lost = back.as_ref().and_then(|back| back.fault.clone());
            lost.map(|lost| not_masqueraded(state, &there, (probe, choices)).unwrap_or(lost))
        }),
    };
    let translations = tracking.translations(state);
    Some((Exchange { there, back, seen, translations, fault, probability }, next))
}

/// The way back. Chance has no say in it but where a route has several next hops.
fn answer(state: &State, from: &NsName, packet: Packet, tracking: &mut Tracking) -> Option<Path> {
    let mut chooser = Chooser::new(&Choices::First);
    go(state, from, packet, (&mut chooser, tracking, true)).map(|(path, _)| path)
}

/// An answer that is lost on its way back may go to an address that nobody knows there: a host was to
/// give the packet its own, and has not.
fn not_masqueraded(state: &State, there: &Path, (probe, choices): (&Probe, &Choices)) -> Option<Blame> {
    let planned = super::walk(&State::planned(state.planned?), &there.from, probe, &choices.as_planned())?;
    let source = |s: &&Step| matches!(s.what, What::Rewritten { how: Rewrite::Source, .. }) && s.layer == 0;
    let hidden = |s: &&Step| there.steps.iter().filter(source).any(|other| other.place == s.place);
    let at = planned.steps.iter().position(|s| source(&s) && !hidden(&s))?;
    let rule = planned.steps[..at].iter().rev().find_map(|s| match &s.what {
        What::Rule(met) => Some(format!("-t {} {}", met.table, met.rule)),
        _ => None,
    });
    let place = planned.steps[at].place.clone();
    let What::Rewritten { before, .. } = &planned.steps[at].what else { return None };
    let says = format!("it leaves with the source {}, to which the answer finds no way back", before.source);
    Some(Blame { cause: Cause::NotMasqueraded, place, object: rule.unwrap_or_else(|| "MASQUERADE".into()), says })
}

fn seen_of(kind: &Kind) -> Seen {
    match kind {
        Kind::Reset => Seen::Refused,
        Kind::Error(trouble) => seen_as(*trouble),
        _ => Seen::Answer,
    }
}

fn seen_as(trouble: Trouble) -> Seen {
    match trouble {
        Trouble::Port => Seen::Refused,
        Trouble::TooBig { .. } => Seen::TooBig,
        Trouble::Ttl => Seen::TtlExceeded,
        Trouble::Host | Trouble::Net | Trouble::Forbidden => Seen::Unreachable,
    }
}

/// Whether an answer came to the one who asked, from the one whom it asked.
fn arrived_as_expected(back: &Path, from: &NsName, sent: Tuple) -> bool {
    let here = matches!(&back.fate, Fate::Delivered { to } if to == from);
    // Errors are matched by what they quote, which connection tracking has translated by then.
    let is_error = back.kind.starts_with("destination unreachable") || back.kind.starts_with("time exceeded");
    here && (is_error || Tuple::of(&back.header) == sent.turned())
}

/// The answer reached a machine whose socket expects another one: whoever translated the way there
/// was passed by.
fn unknown_to_socket(state: &State, mut back: Path, tracking: &Tracking) -> Path {
    let passed = tracking.rewritten().map(|(ns, _)| ns).find(|ns| {
        let undone = |s: &&Step| s.place == **ns && matches!(s.what, What::Rewritten { .. });
        !back.steps.iter().any(|s| undone(&s))
    });
    let header = &back.header;
    let end = back.end.clone();
    let says = format!("{end} asked another address and knows nothing of an answer from {}", header.source);
    let Some(place) = passed.cloned() else {
        back.fate = Fate::Refused;
        return back;
    };
    let bridged = back.steps.iter().any(|s| s.place == place && matches!(s.what, What::Bridged { port: Some(_), .. }));
    let off = state.place(&place).is_some_and(|p| !p.filters_bridges());
    let blame = if bridged && off {
        let says = format!("the answer is bridged past the rules of {place}, which must translate it back: {says}");
        Blame { cause: Cause::BridgeNetfilterOff, place, object: BRIDGE_NETFILTER.replace('/', "."), says }
    } else {
        let says = format!("the answer goes past {place}, which must translate it back: {says}");
        Blame { cause: Cause::NotMasqueraded, place, object: "MASQUERADE".to_owned(), says }
    };
    if let Some(last) = back.steps.last_mut() {
        last.says = says.clone();
        last.what = What::Refused { with: "RST".to_owned() };
    }
    back.fate = Fate::Refused;
    back.fault = Some(blame);
    back
}
