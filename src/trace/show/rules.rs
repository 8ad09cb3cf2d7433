//! Which rules decided something, and how those are told that a packet only passed through.

use crate::trace::model::RuleMet;

use super::page::{GLUE, words};

/// The target of a jump, where the rule's verdict is one.
pub fn target(rule: &RuleMet) -> Option<&str> {
    let (word, target) = rule.verdict.split_once(' ')?;
    matches!(word, "jump" | "goto").then_some(target)
}

/// Whether the rule decided something about this packet: it took it or dropped it, rewrote or
/// marked it, or chose a chain for a reason of its own. What every packet runs through did not.
pub fn decides(rule: &RuleMet) -> bool {
    if let Some(target) = target(rule) {
        return target.starts_with("KUBE-SEP-") || has_matches(&rule.rule);
    }
    let verdict = rule.verdict.split(' ').next().unwrap_or_default();
    match verdict {
        "continue" => rule.rule.contains("-j MARK"),
        "RETURN" => false,
        // The policy of a chain that lets everything through, or its end.
        "ACCEPT" => rule.number > 0,
        _ => true,
    }
}

/// Whether a rule, as `iptables -S` prints it, looks at more than whether a connection is new.
fn has_matches(rule: &str) -> bool {
    let mut words = words(rule).into_iter();
    while let Some(word) = words.next() {
        match word {
            "-A" | "--comment" | "-j" | "-g" | "--ctstate" => {
                words.next();
            }
            "-m" if matches!(words.next(), Some("comment" | "conntrack")) => {}
            _ => return true,
        }
    }
    false
}

/// What a rule did. nf_tables tells of a REJECT as of a DROP.
fn verdict(rule: &RuleMet) -> &str {
    if rule.verdict == "DROP" && rule.rule.contains("-j REJECT") { "REJECT" } else { &rule.verdict }
}

/// Rules that a packet passed through, in a text that is broken between them: `PREROUTING 1 → KUBE-SERVICES 9 → KUBE-NODEPORTS`.
pub fn passed(rules: &[&RuleMet]) -> String {
    let mut text = String::new();
    let mut into = None;
    for rule in rules {
        let goes_on = into == Some(rule.chain.as_str());
        if !goes_on {
            if !text.is_empty() {
                text.push_str("; ");
            }
            text.push_str(&rule.chain);
        }
        into = target(rule);
        let place = if rule.number > 0 { format!("{GLUE}{}", rule.number) } else { String::new() };
        // A chain and where it leads stay together, and of a longer way each turn.
        let before = if goes_on { ' ' } else { GLUE };
        text.push_str(&match (into, rule.number) {
            (Some(target), _) => format!("{place}{before}→{GLUE}{target}"),
            (None, 0) if rule.verdict == "RETURN" || rule.verdict == "continue" => format!("{GLUE}end"),
            (None, 0) => format!("{GLUE}policy{GLUE}{}", rule.verdict),
            (None, _) => format!("{place}{GLUE}{}", verdict(rule)),
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::model::Ruleset;

    fn rule(chain: &str, number: u32, rule: &str, verdict: &str) -> RuleMet {
        RuleMet {
            of: Ruleset::Iptables,
            table: "nat".to_owned(),
            chain: chain.to_owned(),
            number,
            rule: rule.to_owned(),
            verdict: verdict.to_owned(),
            meaning: None,
        }
    }

    #[test]
    fn a_jump_that_every_packet_takes_decides_nothing() {
        let all = r#"-A PREROUTING -m comment --comment "kubernetes -d service portals" -j KUBE-SERVICES"#;
        assert!(!decides(&rule("PREROUTING", 1, all, "jump KUBE-SERVICES")));
        let new = "-A FORWARD -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL";
        assert!(!decides(&rule("FORWARD", 1, new, "jump KUBE-PROXY-FIREWALL")));
    }

    #[test]
    fn the_choice_of_a_service_and_of_an_endpoint_decides() {
        let service = "-A KUBE-SERVICES -d 10.96.0.100/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-GHD7NYAWOCDVRYLZ";
        assert!(decides(&rule("KUBE-SERVICES", 2, service, "jump KUBE-SVC-GHD7NYAWOCDVRYLZ")));
        let last = r#"-A KUBE-SVC-X -m comment --comment "default/tea-svc -> 10.244.2.23:8080" -j KUBE-SEP-Z"#;
        assert!(decides(&rule("KUBE-SVC-X", 4, last, "jump KUBE-SEP-Z")));
    }

    #[test]
    fn a_policy_decides_where_it_drops() {
        assert!(decides(&rule("FORWARD", 0, "-P FORWARD DROP", "DROP")));
        assert!(!decides(&rule("FORWARD", 0, "-P FORWARD ACCEPT", "ACCEPT")));
    }

    #[test]
    fn a_rule_that_refuses_is_told_as_such() {
        let refuses = rule("FORWARD", 1, "-A FORWARD -j REJECT --reject-with icmp-port-unreachable", "DROP");
        assert_eq!(passed(&[&refuses]).replace(GLUE, " "), "FORWARD 1 REJECT");
    }

    #[test]
    fn jumps_that_follow_on_each_other_are_one_chain() {
        let way = [
            rule("PREROUTING", 1, "", "jump KUBE-SERVICES"),
            rule("KUBE-SERVICES", 9, "", "jump KUBE-NODEPORTS"),
            rule("KUBE-NODEPORTS", 0, "", "RETURN"),
            rule("PREROUTING", 0, "", "ACCEPT"),
        ];
        let way: Vec<_> = way.iter().collect();
        let text = "PREROUTING 1 → KUBE-SERVICES 9 → KUBE-NODEPORTS end; PREROUTING policy ACCEPT";
        assert_eq!(passed(&way).replace(GLUE, " "), text);
        // No line ends between a chain and the number of its rule, or with the arrow, as long as there is room.
        let lines = |width| super::super::page::wrap(&passed(&way), width);
        assert_eq!(lines(30), ["PREROUTING 1 → KUBE-SERVICES 9", "→ KUBE-NODEPORTS end;", "PREROUTING policy ACCEPT"]);
        assert_eq!(lines(20)[..2], ["PREROUTING 1 →", "KUBE-SERVICES 9 →"]);
    }
}
