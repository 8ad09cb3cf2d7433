//! What kube-proxy puts right when somebody has changed rules by hand: its own chains and the jumps
//! to them. Rules of others, also in the built-in chains, are not its business and stay. The cloud's
//! load balancers at the router are put right in the same way.

use std::collections::HashSet;

use crate::plan::portmap;
use crate::plan::rules::{Chain, Rules};

/// Whether a chain is its owner's, by its name.
pub type IsOwn = fn(&str) -> bool;

/// Whether a chain is kube-proxy's by its name.
pub fn is_kube_proxys(chain: &str) -> bool {
    chain.starts_with("KUBE-")
}

/// Whether a rule of another chain leads to one of the owner's.
fn is_jump(rule: &str, is_own: IsOwn) -> bool {
    rule.split_once("-j ").is_some_and(|(_, target)| is_own(target))
}

/// The rules `there` with one owner's part as it is in `planned`. Jumps that are missing come to the
/// top of their chain, where kube-proxy puts them; portmap's stays above, as a lab begins with it.
pub fn mended(there: &Rules, planned: &Rules, is_own: IsOwn) -> Rules {
    let mut rules = there.clone();
    for wanted in &planned.tables {
        let table = rules.table(&wanted.name);
        table.chains.retain(|c| !is_own(&c.name));
        table.chains.extend(wanted.chains.iter().filter(|c| is_own(&c.name)).cloned());
        for chain in wanted.chains.iter().filter(|c| !is_own(&c.name)) {
            jumps(table.chain(&chain.name), chain, is_own);
        }
    }
    rules.sort();
    rules
}

fn jumps(chain: &mut Chain, wanted: &Chain, is_own: IsOwn) {
    let planned: Vec<&String> = wanted.rules.iter().filter(|r| is_jump(r, is_own)).collect();
    let there: HashSet<&String> = chain.rules.iter().filter(|r| is_jump(r, is_own)).collect();
    if planned.iter().all(|jump| there.contains(*jump)) && there.len() == planned.len() {
        return;
    }
    let mut rules: Vec<String> = chain.rules.drain(..).filter(|r| !is_jump(r, is_own)).collect();
    let top = portmap::top(&rules);
    rules.splice(top..top, planned.into_iter().cloned());
    chain.rules = rules;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned() -> Rules {
        let mut rules = Rules::default();
        let nat = rules.table("nat");
        nat.chain("PREROUTING").add("-m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES");
        nat.chain("KUBE-SERVICES").add("-d 10.96.0.1/32 -j KUBE-SVC-A");
        nat.chain("KUBE-SVC-A").add("-j KUBE-SEP-A");
        rules.sort();
        rules
    }

    #[test]
    fn what_is_right_stays_as_it_is() {
        let mut there = planned();
        there.table("nat").chain("PREROUTING").rules.insert(0, "-j ACCEPT".to_owned());
        assert_eq!(mended(&there, &planned(), is_kube_proxys), there);
    }

    #[test]
    fn own_chains_and_jumps_come_back_and_strangers_stay() {
        let mut there = planned();
        let nat = there.table("nat");
        nat.chain("PREROUTING").rules = vec!["-j MINE".to_owned()];
        nat.chain("MINE").add("-j RETURN");
        nat.chains.retain(|c| c.name != "KUBE-SVC-A");
        nat.chain("KUBE-SVC-OLD").add("-j DROP");
        let mended = mended(&there, &planned(), is_kube_proxys);
        let nat = &mended.tables[0];
        let rules = |name: &str| nat.chains.iter().find(|c| c.name == name).map(|c| c.rules.clone());
        let jump = "-m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES";
        assert_eq!(rules("PREROUTING"), Some(vec![jump.to_owned(), "-j MINE".to_owned()]));
        assert_eq!(rules("MINE"), Some(vec!["-j RETURN".to_owned()]));
        assert_eq!(rules("KUBE-SVC-A"), Some(vec!["-j KUBE-SEP-A".to_owned()]));
        assert_eq!(rules("KUBE-SVC-OLD"), None);
    }
}
