//! Rules that are in no plan: somebody wrote them with `nft`, `iptables-legacy` or `iptables` into a namespace of the lab.
//! Which of them has rewritten a question's packets, so that another one answered or nobody, and what takes one away.

use crate::lab::names::NsName;
use crate::plan::Plan;
use crate::plan::deviation::Deviation;

use super::align::{Hit, who_rewrote};
use super::hits::PacketHit;
use super::model::{
    Cause, Direction, Fate, Flow, Header, Means, Packet, Remedy, Rewrite, RuleMet, Ruleset, Step, What,
};
use super::shell;
use super::verdict::{Case, is_answered};
use super::walk::{Blame, Exchange, Probe, Seen};

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

    fn how(&self) -> Option<Rewrite> {
        match self.step.map(|step| &step.what) {
            Some(What::Rewritten { how, .. }) => Some(*how),
            _ => self.met.and_then(RuleMet::rewrites),
        }
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
fn rewriting<'a>(flow: &'a Flow, plans: (&Plan, &Plan)) -> Option<Rewriting<'a>> {
    let all = flow.packets.iter().flat_map(|packet| (0..packet.steps.len()).map(move |at| (packet, at)));
    all.filter_map(|(packet, at)| {
        let step = &packet.steps[at];
        let place = &step.place;
        match &step.what {
            What::Rewritten { how: Rewrite::Source | Rewrite::Destination, .. } => {
                let met = who_rewrote(&packet.steps, at);
                let is_strange = met.map_or(step.known_by == [Means::Conntrack], |met| !is_planned(place, met, plans));
                is_strange.then_some(Rewriting { packet, place, step: Some(step), met })
            }
            What::Rule(met) if met.rewrites().is_some() && step.known_by.contains(&Means::Rules) => {
                let rewritten = packet.steps[at..].iter().take_while(|s| s.place == *place);
                let is_told = rewritten.into_iter().any(|s| matches!(s.what, What::Rewritten { .. }));
                let is_strange = !is_told && !is_planned(place, met, plans);
                is_strange.then_some(Rewriting { packet, place, step: None, met: Some(met) })
            }
            _ => None,
        }
    })
    .next()
}

/// Whether a rule is in the plan of its namespace. What stands in a planned chain that is no built-in one is held to
/// be so: such chains are written as a whole, and follow the lab's objects.
///
/// Rules of iptables-legacy are the lab's where it speaks to xtables, and then it has no others beside them (`there`).
fn is_planned(place: &NsName, met: &RuleMet, (there, planned): (&Plan, &Plan)) -> bool {
    let is_beside = |d: &Deviation| matches!(d, Deviation::LegacyRules(_));
    let is_strange = match met.of {
        Ruleset::Iptables => false,
        Ruleset::IptablesLegacy => there.get(place).is_some_and(|ns| ns.deviations.iter().any(is_beside)),
        Ruleset::Nftables => true,
    };
    let Some(ns) = planned.get(place).filter(|_| !is_strange) else { return false };
    let chains = ns.rules.tables.iter().filter(|t| t.name == met.table).flat_map(|t| &t.chains);
    let start = format!("-A {} ", met.chain);
    let text = met.rule.strip_prefix(&start);
    chains.into_iter().filter(|c| c.name == met.chain).any(|chain| match met.number {
        0 => met.rule == format!("-P {} {}", chain.name, chain.policy.as_deref().unwrap_or_default()),
        _ => chain.policy.is_none() || chain.rules.iter().any(|rule| Some(rule.as_str()) == text),
    })
}

/// What the lab's kernel held, and what it should hold.
fn plans<'a>(case: &Case<'a>) -> (&'a Plan, &'a Plan) {
    (case.material.there, case.material.planned)
}

/// Who answered in place of the one who was asked, and by which rule; nothing where that was foreseen.
pub fn answered_elsewhere(case: &Case) -> Option<String> {
    let (flow, planned) = asked(case).find(|(flow, planned)| is_elsewhere(flow, planned))?;
    let rewriting = rewriting(flow, plans(case)).filter(|r| r.packet.direction == Direction::There)?;
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
    let is_to_blame = |flow: &Flow, rewriting: &Rewriting| match rewriting.how() {
        Some(Rewrite::Source) => was_answered_in_vain(flow) && !fails_anyway(case, flow),
        _ => true,
    };
    let rewriting = all(case).filter(failed).find_map(|(flow, _)| {
        let rewriting = rewriting(flow, plans(case))?;
        is_to_blame(flow, &rewriting).then_some(rewriting)
    })?;
    let Rewriting { packet, place, met, .. } = &rewriting;
    let to = rewriting.to().map(|to| format!(": {to}")).unwrap_or_default();
    let says = format!("the {} is rewritten by {}, which is in no plan{to}", packet.kind, rewriting.by());
    let object = met.map_or_else(|| "connection tracking".to_owned(), RuleMet::named);
    Some(Blame { cause: Cause::Rewritten, place: (*place).clone(), object, says })
}

/// Whether somebody answered, and the asker did not get it: another source leads answers elsewhere, and does no more.
fn was_answered_in_vain(flow: &Flow) -> bool {
    let mut back = flow.packets.iter().filter(|p| p.direction == Direction::Back && p.about.is_none());
    back.any(|p| !matches!(p.fate, Fate::Delivered { .. }))
}

/// Whether it would have had no answer either, had nobody rewritten it.
fn fails_anyway(case: &Case, flow: &Flow) -> bool {
    let first = flow.packets.iter().find(|p| p.direction == Direction::There).and_then(|p| p.steps.first());
    let Some(Step { place, .. }) = first else { return false };
    let (source, destination) = (&flow.source, &flow.destination);
    let header = Header {
        source: source.ip,
        source_port: source.port,
        destination_port: destination.port,
        ..Probe::to(flow.protocol, destination.ip, destination.port).header
    };
    case.teller.unseen(place, header).is_some_and(|exchange| exchange.fault.is_some())
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

/// What the rule of a fault did, where the kernel told that a packet met it.
pub fn what_was_met(case: &Case, blame: &Blame) -> Option<&'static str> {
    hit(case, blame)?;
    match blame.cause {
        Cause::Rewritten => Some("rewrote"),
        Cause::RuleDrop | Cause::PolicyDrop => Some("dropped"),
        Cause::RuleReject => Some("refused"),
        _ => None,
    }
}

/// The rule that a fault is of, as it was met.
fn hit<'a>(case: &'a Case, blame: &Blame) -> Option<&'a PacketHit> {
    let is_it = |hit: &Hit| hit.place == blame.place && hit.met.named() == blame.object;
    case.evidence.hits.all().find(|met| is_it(&met.hit))
}

/// What takes away just the rule that a fault is of, where that is in no plan and iptables does not show it.
pub fn taken_away(case: &Case, blame: &Blame) -> Option<Remedy> {
    let met = hit(case, blame)?;
    if met.hit.met.of == Ruleset::Iptables || is_planned(&blame.place, &met.hit.met, plans(case)) {
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
        // nft takes its words apart itself, so that no quoting makes one of a name that is none.
        (Ruleset::Nftables, _) if !shell::is_named(table) || !shell::is_named(chain) => None,
        (Ruleset::Nftables, 0) => Some(format!("nft 'chain {table} {chain} {{ policy accept; }}'")),
        (Ruleset::Nftables, _) => Some(format!("nft delete rule {table} {chain} handle {}", met.handle?)),
        (Ruleset::IptablesLegacy, 0) => Some(format!("iptables-legacy -t {table} -P {chain} ACCEPT")),
        (Ruleset::IptablesLegacy, _) => {
            rule.strip_prefix("-A ").and_then(|rule| shell::typed(&format!("iptables-legacy -t {table} -D {rule}")))
        }
        (Ruleset::Iptables, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::names::HostName;
    use crate::plan::NsPlan;
    use crate::plan::rules::Rules;
    use crate::trace::model::Protocol;
    use crate::trace::sight::Tuple;

    fn place() -> NsName {
        NsName::Host(HostName::try_from("node1".to_owned()).expect("a name"))
    }

    fn met(of: Ruleset, (table, chain): (&str, &str), (number, rule): (u32, &str)) -> RuleMet {
        let (table, chain, rule) = (table.to_owned(), chain.to_owned(), rule.to_owned());
        RuleMet { of, table, chain, number, rule, verdict: "DROP".to_owned(), meaning: None }
    }

    fn removed(met: RuleMet) -> Option<String> {
        let end = ([10, 0, 0, 1].into(), 80);
        let ends = Tuple { protocol: Protocol::Tcp, source: end, destination: end };
        let hit = Hit { place: place(), layer: 0, leaves: false, ends, met };
        removal(&PacketHit { hit, handle: Some(4), sequence: 0, pass: 0, own: false })
    }

    #[test]
    fn each_rule_is_taken_away_by_its_own_tool() {
        let nft = |number, rule| met(Ruleset::Nftables, ("inet t", "c"), (number, rule));
        let legacy = |number, rule| met(Ruleset::IptablesLegacy, ("raw", "OUTPUT"), (number, rule));
        let all = [
            removed(nft(1, "drop")),
            removed(nft(0, "type filter hook input priority filter; policy drop;")),
            removed(legacy(2, "-A OUTPUT -p tcp -j DROP")),
            removed(legacy(0, "-P OUTPUT DROP")),
            // Its text was not to be had.
            removed(legacy(2, "")),
            removed(legacy(2, "-A OUTPUT -m comment --comment \"costs $5\" -j DROP")),
            removed(met(Ruleset::Nftables, ("ip x;flush", "c"), (1, "drop"))),
        ];
        let expected = [
            Some("nft delete rule inet t c handle 4"),
            Some("nft 'chain inet t c { policy accept; }'"),
            Some("iptables-legacy -t raw -D OUTPUT -p tcp -j DROP"),
            Some("iptables-legacy -t raw -P OUTPUT ACCEPT"),
            None,
            Some("iptables-legacy -t raw -D OUTPUT -m comment --comment 'costs $5' -j DROP"),
            // A name that nobody should type.
            None,
        ];
        assert_eq!(all.each_ref().map(Option::as_deref), expected);
    }

    #[test]
    fn a_rule_is_planned_where_its_chain_has_it_or_is_written_as_a_whole() {
        let mut ns = NsPlan::new(place());
        let text = ":PREROUTING ACCEPT [0:0]\n:MINE - [0:0]\n-A PREROUTING -p tcp -j MINE\n";
        ns.rules = Rules::parse(&format!("*nat\n{text}COMMIT\n"));
        let mut beside = ns.clone();
        beside.deviations.push(Deviation::LegacyRules(Rules::default()));
        let (there, mixed) = (Plan { namespaces: vec![ns] }, Plan { namespaces: vec![beside] });
        let is_in = |there: &Plan, of, chain: &str, rule: &str| {
            is_planned(&place(), &met(of, ("nat", chain), (1, rule)), (there, &mixed))
        };
        let is = |of, chain: &str, rule: &str| is_in(&there, of, chain, rule);
        assert!(is(Ruleset::Iptables, "PREROUTING", "-A PREROUTING -p tcp -j MINE"));
        assert!(is(Ruleset::Iptables, "MINE", "-A MINE -j DNAT --to-destination 10.0.0.1"));
        assert!(!is(Ruleset::Iptables, "PREROUTING", "-A PREROUTING -j DNAT --to-destination 10.0.0.1"));
        assert!(!is(Ruleset::Iptables, "OTHER", "-A OTHER -j DNAT --to-destination 10.0.0.1"));
        assert!(!is(Ruleset::Nftables, "PREROUTING", "-A PREROUTING -p tcp -j MINE"));
        // Where the lab speaks to xtables these are its own.
        let rule = "-A PREROUTING -p tcp -j MINE";
        assert!(is(Ruleset::IptablesLegacy, "PREROUTING", rule));
        assert!(!is_in(&mixed, Ruleset::IptablesLegacy, "PREROUTING", rule));
    }
}
