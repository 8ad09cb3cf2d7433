//! A rule that was met in the words of its own tool: what the kernel tells are numbers and names.

use crate::kernel::record::{Recording, RuleKind, RuleSeen, Verdict};
use crate::kernel::tables::is_of_iptables;
use crate::lab::names::NsName;
use crate::plan::Plan;
use crate::plan::deviation::{Deviation, NftTable};
use crate::plan::proxy::explain::Rule;
use crate::plan::rules::{Chain, Rules, Table};

use super::model::{RuleMet, Ruleset};

/// What a rule was, where it is a rule or a policy. Jumps to a chain and its end are left to the walk, which tells
/// them with what they are for. `there` has the texts of iptables' rules.
pub fn met(place: &NsName, seen: &RuleSeen, recording: &Recording, there: &Plan) -> Option<RuleMet> {
    if let Some(number) = seen.legacy {
        return of_legacy(seen, number, rules_of_legacy(place, seen, recording, there));
    }
    let number = match (seen.kind, seen.handle) {
        (RuleKind::Rule, Some(_)) => u32::try_from(recording.chains.number(place, seen)?).ok()?,
        (RuleKind::Policy, _) => 0,
        _ => return None,
    };
    let listed = recording.chains.text(place, seen).map(str::to_owned);
    let ns = there.get(place);
    // One of a name that iptables-nft gives is somebody else's where the lab speaks to xtables.
    let is_strange =
        |d: &Deviation| matches!(d, Deviation::NftTable(t) if (t.family, &t.name) == (seen.family, &seen.table));
    let is_strange = ns.is_some_and(|ns| ns.deviations.iter().any(is_strange));
    let (of, table, rule) = if is_of_iptables(seen.family, &seen.table) && !is_strange {
        let rules = ns.map(|ns| &ns.rules);
        let chain = rules.and_then(|rules| find(rules, &seen.table, &seen.chain)).map(|(_, chain)| chain);
        (Ruleset::Iptables, seen.table.clone(), chain.and_then(|chain| text(chain, number)).unwrap_or_default())
    } else {
        let table = NftTable { family: seen.family, name: seen.table.clone() };
        // Where `nft` is not installed.
        let unlisted = || seen.handle.map_or_else(|| "policy".to_owned(), |handle| format!("handle {handle}"));
        (Ruleset::Nftables, format!("{} {}", table.family_name(), table.name), listed.unwrap_or_else(unlisted))
    };
    let verdict = verdict(&seen.verdict);
    Some(RuleMet { of, table, chain: seen.chain.clone(), number, rule, verdict, meaning: None })
}

/// The rules of xtables in a place: beside those of nf_tables, or the lab's own where it speaks to xtables alone.
fn rules_of_legacy<'p>(place: &NsName, seen: &RuleSeen, recording: &Recording, there: &'p Plan) -> Option<&'p Rules> {
    let ns = there.get(place)?;
    let beside = ns.deviations.iter().find_map(|d| if let Deviation::LegacyRules(r) = d { Some(r) } else { None });
    beside.or_else(|| (!recording.chains.has(place, seen.family, &seen.table)).then_some(&ns.rules))
}

/// xtables counts a policy, or the end of a chain, as the rule behind the last one, and gives that name to a last
/// rule, too, that takes every packet.
fn of_legacy(seen: &RuleSeen, number: u32, rules: Option<&Rules>) -> Option<RuleMet> {
    let found = rules.and_then(|rules| find(rules, &seen.table, &seen.chain));
    let count = found.and_then(|(_, chain)| u32::try_from(chain.rules.len()).ok());
    let is_rule = count.map_or(seen.kind == RuleKind::Rule, |count| number <= count);
    let number = match (is_rule, seen.kind) {
        (true, _) => number,
        (false, RuleKind::Policy) => 0,
        (false, _) => return None,
    };
    let (table, chain) = (seen.table.clone(), seen.chain.clone());
    let rule = found.and_then(|(_, chain)| text(chain, number)).unwrap_or_default();
    let verdict = found.map_or_else(|| "not told".to_owned(), |(table, chain)| decided(table, chain, number));
    Some(RuleMet { of: Ruleset::IptablesLegacy, table, chain, number, rule, verdict, meaning: None })
}

/// What a rule decides, in the words in which nf_tables tells it.
fn decided(table: &Table, chain: &Chain, number: u32) -> String {
    let Some(rule) = nth(chain, number) else { return chain.policy.clone().unwrap_or_default() };
    let rule = Rule::parse(rule);
    let Some(target) = rule.target() else { return "continue".to_owned() };
    let verdict = match target {
        "ACCEPT" | "DNAT" | "SNAT" | "MASQUERADE" | "REDIRECT" | "NETMAP" => "ACCEPT",
        "DROP" | "REJECT" => "DROP",
        "RETURN" => "RETURN",
        target if table.chains.iter().any(|c| c.name == target) => {
            let goes = rule.has("-g");
            return format!("{} {target}", if goes { "goto" } else { "jump" });
        }
        _ => "continue",
    };
    verdict.to_owned()
}

fn find<'r>(rules: &'r Rules, table: &str, chain: &str) -> Option<(&'r Table, &'r Chain)> {
    let table = rules.tables.iter().find(|t| t.name == table)?;
    table.chains.iter().find(|c| c.name == chain).map(|chain| (table, chain))
}

/// A rule by its place from 1; there is none before the first.
fn nth(chain: &Chain, number: u32) -> Option<&str> {
    chain.rules.get(usize::try_from(number.checked_sub(1)?).ok()?).map(String::as_str)
}

fn text(chain: &Chain, number: u32) -> Option<String> {
    match number {
        0 => chain.policy.as_ref().map(|policy| format!("-P {} {policy}", chain.name)),
        _ => nth(chain, number).map(|rule| format!("-A {} {rule}", chain.name)),
    }
}

fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accept => "ACCEPT".to_owned(),
        Verdict::Drop => "DROP".to_owned(),
        Verdict::Continue => "continue".to_owned(),
        Verdict::Return => "RETURN".to_owned(),
        Verdict::Jump(chain) => format!("jump {chain}"),
        Verdict::Goto(chain) => format!("goto {chain}"),
        Verdict::Other(number) => format!("verdict {number}"),
        Verdict::Untold => "not told".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::record::{ChainName, Listing, RuleBook};
    use crate::lab::names::IfName;
    use crate::plan::NsPlan;

    const RULES: &str = "*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:MINE - [0:0]
-A FORWARD -p tcp -j MINE
-A FORWARD -g MINE
-A MINE -m comment --comment x
-A MINE -j REJECT --reject-with icmp-port-unreachable
-A MINE -j LOG
COMMIT
";

    fn seen(chain: &str, kind: RuleKind, number: u32) -> RuleSeen {
        RuleSeen {
            table: "filter".to_owned(),
            family: 2,
            chain: chain.to_owned(),
            legacy: Some(number),
            kind,
            verdict: Verdict::Untold,
            iif: Some(IfName::new("eth0")),
            nfproto: Some(2),
            ..RuleSeen::default()
        }
    }

    #[test]
    fn a_table_of_nft_with_a_name_of_iptables_is_told_as_nft_lists_it_where_the_lab_speaks_to_xtables() {
        let mut ns = NsPlan::new(NsName::Router);
        ns.rules = Rules::parse(RULES);
        let mut there = Plan { namespaces: vec![ns] };
        let met_rule = RuleSeen { handle: Some(4), legacy: None, ..seen("FORWARD", RuleKind::Rule, 0) };
        let chain = ChainName { place: NsName::Router, family: 2, table: "filter".into(), chain: "FORWARD".into() };
        let listing = Listing { head: None, rules: vec![(4, Some("tcp dport 80 drop".to_owned()))] };
        let recording = Recording { chains: RuleBook([(chain, listing)].into()), ..Recording::default() };
        let told = |there: &Plan| {
            let met = met(&NsName::Router, &met_rule, &recording, there).expect("a rule");
            (met.of, met.table, met.rule)
        };
        assert_eq!(told(&there), (Ruleset::Iptables, "filter".into(), "-A FORWARD -p tcp -j MINE".into()));
        let table = NftTable { family: 2, name: "filter".into() };
        there.namespaces[0].deviations.push(Deviation::NftTable(table));
        assert_eq!(told(&there), (Ruleset::Nftables, "ip filter".into(), "tcp dport 80 drop".into()));
    }

    #[test]
    fn rules_of_xtables_are_told_by_their_text_and_a_last_one_is_told_from_its_chains_end() {
        let rules = Rules::parse(RULES);
        let told = |chain: &str, kind, number| {
            let met = of_legacy(&seen(chain, kind, number), number, Some(&rules))?;
            Some(format!("{} {} {}", met.number, met.rule, met.verdict))
        };
        let all = [
            told("FORWARD", RuleKind::Rule, 1),
            told("FORWARD", RuleKind::Rule, 2),
            told("MINE", RuleKind::Rule, 1),
            told("MINE", RuleKind::Rule, 2),
            told("MINE", RuleKind::Return, 3),
            told("MINE", RuleKind::Return, 4),
            told("FORWARD", RuleKind::Policy, 3),
        ];
        let expected = [
            Some("1 -A FORWARD -p tcp -j MINE jump MINE"),
            Some("2 -A FORWARD -g MINE goto MINE"),
            Some("1 -A MINE -m comment --comment x continue"),
            Some("2 -A MINE -j REJECT --reject-with icmp-port-unreachable DROP"),
            Some("3 -A MINE -j LOG continue"),
            None,
            Some("0 -P FORWARD DROP DROP"),
        ];
        assert_eq!(all.each_ref().map(Option::as_deref), expected);
    }
}
