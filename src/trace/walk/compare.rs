//! Where two ways part: the planned one, and the actual one, walked or observed.

use crate::trace::align::is_device;
use crate::trace::model::{Header, Means, Rewrite, RuleMet, Step, What};

/// The first steps in which the actual way differs from the planned one, nothing where one has ended before the
/// other; nothing at all where both are the same. Planned steps that nothing could have seen are passed over where
/// what was seen agrees behind them, and so is what no walk foresees where the planned way goes on behind it: a
/// bridge shows a frame once more that it has translated.
pub fn compare<'s>(planned: &'s [Step], actual: &[&'s Step]) -> Option<(Option<&'s Step>, Option<&'s Step>)> {
    let (mut planned, mut actual) = (planned, actual);
    loop {
        let (Some((one, planned_rest)), Some((other, rest))) = (planned.split_first(), actual.split_first()) else {
            let parted = !(planned.is_empty() && actual.is_empty());
            return parted.then(|| (planned.first(), actual.first().copied()));
        };
        if is_same(one, other) {
            (planned, actual) = (planned_rest, rest);
            continue;
        }
        if is_tunnels_rule(one) {
            planned = planned_rest;
            continue;
        }
        let unseen = planned.iter().take_while(|s| !is_device(s)).count();
        let next = planned.get(unseen);
        match planned.iter().take(unseen + 1).position(|s| is_same(s, other)) {
            Some(at) if !other.is_inferred() => (planned, actual) = (&planned[at + 1..], rest),
            _ if is_unforeseen(other) && next.is_some_and(|next| rest.iter().any(|s| is_same(next, s))) => {
                actual = rest
            }
            _ if is_other_port(other) && rest.iter().any(|s| is_same(one, s)) => actual = rest,
            _ => return Some((Some(counterpart(planned, other).unwrap_or(one)), Some(other))),
        }
    }
}

/// Whether only a tap knows of a step, or nobody can foresee it.
fn is_unforeseen(step: &Step) -> bool {
    step.known_by == [Means::Tap] || is_tunnels_rule(step)
}

/// Whether a rule was met by a tunnel's packet: whether its connection is new, which says what rules it meets, depends on
/// what the tunnel has carried before.
fn is_tunnels_rule(step: &Step) -> bool {
    step.layer > 0 && matches!(step.what, What::Rule(_))
}

/// Whether a source got another port alone, or got its own back: as where a host masquerades with the address that it
/// has. Which port that is, and whether it is another, is chosen anew each time.
fn is_other_port(step: &Step) -> bool {
    match &step.what {
        What::Rewritten { how: Rewrite::Source | Rewrite::Remembered, before, after } => ends(before) == ends(after),
        _ => false,
    }
}

/// What is said to be planned in place of a step that a device saw: the next one that a device sees, or the end.
fn counterpart<'s>(planned: &'s [Step], actual: &Step) -> Option<&'s Step> {
    let ends = |s: &&Step| is_device(s) || matches!(s.what, What::Dropped(_) | What::Refused { .. });
    planned.iter().find(ends).filter(|_| is_device(actual) && !actual.is_inferred())
}

/// Steps are the same where place, device and what happened are. Numbers of rules move when others come, and
/// what nf_tables calls their verdict is not always what they say; ports are chosen anew each time.
fn is_same(one: &Step, other: &Step) -> bool {
    let what = match (&one.what, &other.what) {
        (What::Rule(one), What::Rule(other)) => {
            (&one.table, &one.chain) == (&other.table, &other.chain)
                && (one.rule == other.rule || lead_the_same_way(one, other))
        }
        (What::Neighbour { ip, mac, .. }, What::Neighbour { ip: other_ip, mac: other_mac, .. }) => {
            (ip, mac) == (other_ip, other_mac)
        }
        (What::Rewritten { how, after, .. }, What::Rewritten { how: other_how, after: other_after, .. }) => {
            (how, ends(after)) == (other_how, ends(other_after))
        }
        (
            What::Encapsulated { how, outer, entry },
            What::Encapsulated { how: other_how, outer: other_outer, entry: other_entry },
        ) => (how, ends(outer), entry) == (other_how, ends(other_outer), other_entry),
        // Who it was no plan says.
        (What::Sent { .. }, What::Sent { .. }) => true,
        // The words are the kernel's where it has told of it.
        (What::Dropped(one), What::Dropped(other)) => one.cause == other.cause,
        (one, other) => one == other,
    };
    what && (&one.place, &one.dev, one.layer) == (&other.place, &other.dev, other.layer)
}

/// Whether two rules lead to the same chain, where chance or what the kernel remembers of a client says which is met.
fn lead_the_same_way(one: &RuleMet, other: &RuleMet) -> bool {
    let by_chance = |met: &RuleMet| ["-m statistic ", "-m recent "].iter().any(|word| met.rule.contains(word));
    one.verdict == other.verdict && one.verdict.starts_with("jump ") && (by_chance(one) || by_chance(other))
}

fn ends(header: &Header) -> (std::net::IpAddr, std::net::IpAddr) {
    (header.source, header.destination)
}
