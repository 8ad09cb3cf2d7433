//! Rules that are in no plan: somebody wrote them with `nft`, `iptables-legacy` or `iptables` into a namespace of the lab.
//! Which of them has rewritten a question's packets, so that another one answered or nobody, and what takes one away.

use crate::lab::names::NsName;
use crate::plan::Plan;

use super::align::{Hit, who_rewrote};
use super::hits::PacketHit;
use super::model::{Cause, Direction, Flow, Means, Packet, Remedy, Rewrite, RuleMet, Ruleset, Step, What};
use super::verdict::{Case, is_answered};
use super::walk::{Blame, Exchange, Seen};

/// What a rule of nobody's plan made of a packet.
pub struct Rewriting<'a> {
    packet: &'a Packet,
    place: &'a NsName,
    /// The step of rewriting; nothing where nobody told what it was rewritten to.
    step: Option<&'a Step>,
    /// Nothing where the rule was not told of.
    met: Option<&'a RuleMet>,
}

impl Rewriting<'_> {
    fn by(&self) -> String {
        self.met.map_or_else(|| "a rule that was not told of".to_owned(), |met| format!("`{}`", met.named()))
    }

    /// To which ends, in words: `the destination becomes 10.244.2.21:8080`.
    fn to(&self) -> Option<String> {
        let What::Rewritten { how, after, .. } = &self.step?.what else { return None };
        let (end, ip, port) = match how {
            Rewrite::Source => ("source", after.source, after.source_port),
            Rewrite::Destination | Rewrite::Remembered => ("destination", after.destination, after.destination_port),
        };
        let has_ports = after.to_string().contains(&format!(":{port} "));
        let to = if has_ports { std::net::SocketAddr::new(ip, port).to_string() } else { ip.to_string() };
        Some(format!("the {end} becomes {to}"))
    }
}

/// The first rewriting of a flow by a rule that is in no plan.
fn rewriting<'a>(flow: &'a Flow, planned: &Plan) -> Option<Rewriting<'a>> {
    let all = flow.packets.iter().flat_map(|packet| (0..packet.steps.len()).map(move |at| (packet, at)));
    all.filter_map(|(packet, at)| {
        let step = &packet.steps[at];
        let place = &step.place;
        match &step.what {
            What::Rewritten { how: Rewrite::Source | Rewrite::Destination, .. } => {
                let met = who_rewrote(&packet.steps, at);
                let is_strange =
                    met.map_or(step.known_by == [Means::Conntrack], |met| !is_planned(place, met, planned));
                is_strange.then_some(Rewriting { packet, place, step: Some(step), met })
            }
            What::Rule(met) if met.rewrites() && step.known_by.contains(&Means::Rules) => {
                let rewritten = packet.steps[at..].iter().take_while(|s| s.place == *place);
                let is_told = rewritten.into_iter().any(|s| matches!(s.what, What::Rewritten { .. }));
                let is_strange = !is_told && !is_planned(place, met, planned);
                is_strange.then_some(Rewriting { packet, place, step: None, met: Some(met) })
            }
            _ => None,
        }
    })
    .next()
}

/// Whether a rule is in the plan of its namespace. What stands in a planned chain that is no built-in one is held to
/// be so: such chains are written as a whole, and follow the lab's objects.
fn is_planned(place: &NsName, met: &RuleMet, planned: &Plan) -> bool {
    let Some(ns) = planned.get(place).filter(|_| met.of != Ruleset::Nftables) else { return false };
    let chains = ns.rules.tables.iter().filter(|t| t.name == met.table).flat_map(|t| &t.chains);
    let start = format!("-A {} ", met.chain);
    let text = met.rule.strip_prefix(&start);
    chains.into_iter().filter(|c| c.name == met.chain).any(|chain| match met.number {
        0 => met.rule == format!("-P {} {}", chain.name, chain.policy.as_deref().unwrap_or_default()),
        _ => chain.policy.is_none() || chain.rules.iter().any(|rule| Some(rule.as_str()) == text),
    })
}

/// Who answered in place of the one who was asked, and by which rule; nothing where that was foreseen.
pub fn answered_elsewhere(case: &Case) -> Option<String> {
    let (flow, planned) = asked(case).find(|(flow, planned)| is_elsewhere(flow, planned))?;
    let rewriting = rewriting(flow, case.material.planned).filter(|r| r.packet.direction == Direction::There)?;
    let by = flow.taken_by()?;
    let asked = flow.destination.name.clone().unwrap_or_else(|| planned.there.end.to_string());
    let to = rewriting.to().map(|to| format!(": {to}")).unwrap_or_default();
    let (rule, place) = (rewriting.by(), rewriting.place);
    Some(format!(
        "answered by {by}, not by {asked}, who was asked: {rule} in {place} rewrites the {}{to}",
        rewriting.packet.kind
    ))
}

/// The rule that rewrote a question which the plan sees answered and which was not, or not by whom it was to be.
pub fn blame(case: &Case, flows: &[&Flow]) -> Option<Blame> {
    let failed = |(flow, planned): &(&Flow, &Exchange)| {
        let counts = flows.iter().any(|f| std::ptr::eq(*f, *flow));
        counts && planned.seen == Seen::Answer && (!is_answered(flow) || is_elsewhere(flow, planned))
    };
    let rewriting = all(case).filter(failed).find_map(|(flow, _)| rewriting(flow, case.material.planned))?;
    let Rewriting { packet, place, met, .. } = &rewriting;
    let to = rewriting.to().map(|to| format!(": {to}")).unwrap_or_default();
    let says = format!("the {} is rewritten by {}, which is in no plan{to}", packet.kind, rewriting.by());
    let object = met.map_or_else(|| "connection tracking".to_owned(), RuleMet::named);
    Some(Blame { cause: Cause::Rewritten, place: (*place).clone(), object, says })
}

/// The flows of the question, with what the plan says of each.
fn asked<'a>(case: &'a Case) -> impl Iterator<Item = (&'a Flow, &'a Exchange)> {
    all(case).filter(|(flow, _)| flow.role == super::model::Role::Request)
}

fn all<'a>(case: &'a Case) -> impl Iterator<Item = (&'a Flow, &'a Exchange)> {
    let walked = case.teller.walked.iter();
    case.flows.iter().zip(walked).filter_map(|(flow, (_, planned))| Some((flow, planned.as_ref()?)))
}

/// Whether another one took it than is planned.
fn is_elsewhere(flow: &Flow, planned: &Exchange) -> bool {
    flow.taken_by().is_some_and(|by| by != planned.there.end)
}

/// Whether the kernel told of the rule that has rewritten a packet.
pub fn was_met(case: &Case, blame: &Blame) -> bool {
    blame.cause == Cause::Rewritten && hit(case, blame).is_some()
}

/// The rule that a fault is of, as it was met.
fn hit<'a>(case: &'a Case, blame: &Blame) -> Option<&'a PacketHit> {
    let is_it = |hit: &Hit| hit.place == blame.place && hit.met.named() == blame.object;
    case.evidence.hits.all().find(|met| is_it(&met.hit))
}

/// What takes away just the rule that a fault is of, where that is in no plan and iptables does not show it.
pub fn remedy(case: &Case, blame: &Blame) -> Option<Remedy> {
    let met = hit(case, blame)?;
    if met.hit.met.of == Ruleset::Iptables || is_planned(&blame.place, &met.hit.met, case.material.planned) {
        return None;
    }
    let command = removal(met)?;
    let what = if met.hit.met.number == 0 { "let through what no rule drops" } else { "take away the rule" };
    let says = format!("on {}, {what}, which is in no plan", blame.place);
    Some(Remedy { says, command: Some(format!("labctl exec {} -- {command}", blame.place)) })
}

fn removal(met: &PacketHit) -> Option<String> {
    let RuleMet { of, table, chain, number, rule, .. } = &met.hit.met;
    match (of, number) {
        (Ruleset::Nftables, 0) => Some(format!("nft 'chain {table} {chain} {{ policy accept; }}'")),
        (Ruleset::Nftables, _) => Some(format!("nft delete rule {table} {chain} handle {}", met.handle?)),
        (Ruleset::IptablesLegacy, 0) => Some(format!("iptables-legacy -t {table} -P {chain} ACCEPT")),
        (Ruleset::IptablesLegacy, _) => {
            rule.strip_prefix("-A ").map(|rule| format!("iptables-legacy -t {table} -D {rule}"))
        }
        (Ruleset::Iptables, _) => None,
    }
}
