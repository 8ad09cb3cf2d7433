//! Rules as text: ours and the recorded ones, both through `iptables-restore` and `iptables-save`.

use std::collections::BTreeMap;

use labctl::plan::proxy;
use labctl::plan::rules::Rules;

use crate::case::Case;
use crate::nfacct;
use crate::space::run;

/// Chains that kube-proxy fills in the order of a Go map, so by chance.
const BY_CHANCE: [&str; 4] = ["KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-EXTERNAL-SERVICES", "KUBE-PROXY-FIREWALL"];
/// Words of the rule that is the last one of its chain all the same.
const LAST: &str = "NOTE: this must be the last rule in this chain";

pub fn compare(case: &Case) {
    let nfacct = nfacct::make() && case.config.nfacct;
    let (restore, save) = programs(case);
    let planned = case.plan(&case.config(nfacct));
    let recorded = if nfacct { case.canonical_save.clone() } else { without_counters(&case.canonical_save) };
    run(restore, &["--noflush"], &planned.restore_input());
    let ours = run(save, &[], "");
    run(restore, &[], &recorded);
    let theirs = run(save, &[], "");
    same(&chains(&theirs), &chains(&ours));
    // With the jumps, and in the words of iptables-save itself.
    let mut all = Rules::default();
    planned.add_to(&mut all);
    run(restore, &[], &all.restore_text());
    let held = Rules::parse(&run(save, &[], ""));
    assert_eq!(held.lines(), all.lines(), "the canonical form is not what iptables-save prints");
}

/// Going from another case's rules to this one's by a sync leaves what writing them anew does.
pub fn sync_from(other: &Case, case: &Case) {
    let (restore, save) = programs(case);
    let plan = |case: &Case| case.plan(&case.config(false));
    let (old, new) = (plan(other), plan(case));
    let whole = |rules: &proxy::ProxyRules| {
        let mut all = Rules::default();
        rules.add_to(&mut all);
        all
    };
    run(restore, &[], &whole(&old).restore_text());
    if let Some(text) = proxy::sync(&old, &new) {
        run(restore, &["--noflush"], &text);
    }
    let (held, fresh) = (Rules::parse(&run(save, &[], "")), whole(&new));
    assert_eq!(held.lines(), fresh.lines(), "{:#?}", proxy::sync(&old, &new));
    // Chains without a rule, too: what is stale must be gone.
    assert_eq!(held, fresh, "{:#?}", proxy::sync(&old, &new));
}

fn programs(case: &Case) -> (&'static str, &'static str) {
    match case.config(false).family {
        proxy::Family::V4 => ("iptables-restore", "iptables-save"),
        proxy::Family::V6 => ("ip6tables-restore", "ip6tables-save"),
    }
}

/// The recorded rules as kube-proxy writes them where it cannot have counters.
fn without_counters(text: &str) -> String {
    let lines = text.lines().filter(|l| !l.contains("localhost_nps_accepted_pkts"));
    lines.map(|l| l.replace("-m nfacct --nfacct-name  ct_state_invalid_dropped_pkts ", "") + "\n").collect()
}

/// Each chain with its rules, sorted where their order is by chance.
fn chains(saved: &str) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    for table in Rules::parse(saved).tables {
        for chain in table.chains {
            let mut rules = chain.rules;
            if BY_CHANCE.contains(&chain.name.as_str()) {
                let first_last = rules.iter().position(|r| r.contains(LAST)).unwrap_or(rules.len());
                assert!(rules[first_last..].iter().all(|r| r.contains(LAST)), "a rule after the last: {rules:#?}");
                rules.sort();
            }
            // Built-in chains are there with or without rules.
            if chain.policy.is_none() || !rules.is_empty() {
                all.insert(format!("{} {}", table.name, chain.name), rules);
            }
        }
    }
    all
}

#[track_caller]
fn same(theirs: &BTreeMap<String, Vec<String>>, ours: &BTreeMap<String, Vec<String>>) {
    let names = theirs.keys().chain(ours.keys());
    let differs: Vec<String> = names
        .filter(|name| theirs.get(*name) != ours.get(*name))
        .map(|name| format!("{name}\n kube-proxy: {:#?}\n ours: {:#?}", theirs.get(name), ours.get(name)))
        .collect();
    assert!(differs.is_empty(), "{}", differs.join("\n"));
}
