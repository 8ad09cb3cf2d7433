//! iptables rules as values: tables, chains and rules in the form in which `iptables-save` prints
//! them, so that what is wanted and what is there can be compared line by line.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// The rules of one namespace and one address family.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    pub tables: Vec<Table>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// `filter`, `nat` or `mangle`.
    pub name: String,
    pub chains: Vec<Chain>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    pub name: String,
    /// `ACCEPT` or `DROP` for a built-in chain, nothing for one of ours.
    pub policy: Option<String>,
    /// Each rule without its `-A CHAIN`.
    pub rules: Vec<String>,
}

/// The built-in chains of a table, which the kernel always has.
fn builtin(table: &str) -> &'static [&'static str] {
    match table {
        "filter" | "security" => &["INPUT", "FORWARD", "OUTPUT"],
        "raw" => &["PREROUTING", "OUTPUT"],
        "nat" => &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"],
        _ => &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"],
    }
}

impl Rules {
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// The table of this name, made with its built-in chains where it is not there yet.
    pub fn table(&mut self, name: &str) -> &mut Table {
        let found = self.tables.iter().position(|t| t.name == name);
        let index = found.unwrap_or_else(|| {
            let chains = builtin(name).iter().map(|c| Chain::builtin(c)).collect();
            self.tables.push(Table { name: name.to_owned(), chains });
            self.tables.len() - 1
        });
        &mut self.tables[index]
    }

    /// The input of `iptables-restore` that makes the namespace hold these rules and no others in
    /// the tables that it names.
    pub fn restore_text(&self) -> String {
        let mut out = String::new();
        for table in &self.tables {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "*{}", table.name);
            for chain in &table.chains {
                let policy = chain.policy.as_deref().unwrap_or("-");
                let _ = writeln!(out, ":{} {policy} [0:0]", chain.name);
            }
            for chain in &table.chains {
                for rule in &chain.rules {
                    let _ = writeln!(out, "-A {} {rule}", chain.name);
                }
            }
            out.push_str("COMMIT\n");
        }
        out
    }

    /// The input of `iptables-restore --noflush` that makes `to` of rules that are these: chains that
    /// differ are written anew, those that nobody wants are deleted, all others stay as they are with
    /// their counters. Nothing where both are equal.
    pub fn changes_to(&self, to: &Rules) -> Option<String> {
        let mut out = String::new();
        let names: BTreeSet<&str> = self.tables.iter().chain(&to.tables).map(|t| t.name.as_str()).collect();
        for name in names {
            let find = |rules: &Rules| rules.tables.iter().find(|t| t.name == name).cloned();
            // A table without rules is as good as one that is not there.
            let bare =
                || Table { name: name.to_owned(), chains: builtin(name).iter().map(|c| Chain::builtin(c)).collect() };
            let (old, new) = (find(self).unwrap_or_else(bare), find(to).unwrap_or_else(bare));
            out.push_str(&old.changes_to(&new));
        }
        (!out.is_empty()).then_some(out)
    }

    /// Every rule as a line of its own, `-t TABLE -A CHAIN RULE`, and policies that are not ACCEPT.
    pub fn lines(&self) -> Vec<String> {
        let mut all = Vec::new();
        for table in &self.tables {
            for chain in &table.chains {
                let policy = chain.policy.as_deref().filter(|p| *p != "ACCEPT");
                all.extend(policy.map(|p| format!("-t {} -P {} {p}", table.name, chain.name)));
                all.extend(chain.rules.iter().map(|r| format!("-t {} -A {} {r}", table.name, chain.name)));
            }
        }
        all
    }

    /// Read what `iptables-save` printed. Lines that are none of its own are passed over, and
    /// tables that hold nothing but empty built-in chains are left out.
    pub fn parse(text: &str) -> Rules {
        let mut rules = Rules::default();
        let mut current: Option<Table> = None;
        // Tables of kube-proxy have tens of thousands of chains.
        let mut places = HashMap::new();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                current = Some(Table { name: name.trim().to_owned(), chains: Vec::new() });
                places.clear();
            } else if let (Some(rest), Some(table)) = (line.strip_prefix(':'), &mut current) {
                let mut words = rest.split_whitespace();
                if let (Some(name), Some(policy)) = (words.next(), words.next()) {
                    let policy = Some(policy.to_owned()).filter(|p| p != "-");
                    places.insert(name, table.chains.len());
                    table.chains.push(Chain { name: name.to_owned(), policy, rules: Vec::new() });
                }
            } else if let (Some(rest), Some(table)) = (line.strip_prefix("-A "), &mut current) {
                if let Some((chain, rule)) = rest.split_once(' ')
                    && let Some(place) = places.get(chain)
                {
                    table.chains[*place].rules.push(rule.trim_end().to_owned());
                }
            } else if line.trim() == "COMMIT" {
                rules.tables.extend(current.take().filter(|t| !t.is_bare()));
            }
        }
        rules.sort();
        rules
    }

    /// One order for tables and chains, so that equal rules are equal values. The order of the
    /// rules within a chain is theirs and stays.
    pub fn sort(&mut self) {
        self.tables.sort_by(|a, b| a.name.cmp(&b.name));
        for table in &mut self.tables {
            table.chains.sort_by(|a, b| (a.policy.is_none(), &a.name).cmp(&(b.policy.is_none(), &b.name)));
        }
    }
}

impl Table {
    /// The chain of this name, made where it is not there yet.
    pub fn chain(&mut self, name: &str) -> &mut Chain {
        let found = self.chains.iter().position(|c| c.name == name);
        let index = found.unwrap_or_else(|| {
            self.chains.push(Chain { name: name.to_owned(), policy: None, rules: Vec::new() });
            self.chains.len() - 1
        });
        &mut self.chains[index]
    }

    /// What [`Rules::changes_to`] says of one table; empty where nothing differs.
    fn changes_to(&self, new: &Table) -> String {
        let before: HashMap<&str, &Chain> = self.chains.iter().map(|c| (c.name.as_str(), c)).collect();
        let after: HashSet<&str> = new.chains.iter().map(|c| c.name.as_str()).collect();
        let (mut chains, mut rules, mut deleted) = (String::new(), String::new(), String::new());
        // Writing to a String cannot fail.
        for chain in new.chains.iter().filter(|c| before.get(c.name.as_str()) != Some(c)) {
            let policy = chain.policy.as_deref().unwrap_or("-");
            let _ = writeln!(chains, ":{} {policy} [0:0]", chain.name);
            if chain.policy.is_some() {
                // The line of a built-in chain sets its policy and leaves its rules.
                let _ = writeln!(rules, "-F {}", chain.name);
            }
            for rule in &chain.rules {
                let _ = writeln!(rules, "-A {} {rule}", chain.name);
            }
        }
        for stale in self.chains.iter().filter(|c| c.policy.is_none() && !after.contains(c.name.as_str())) {
            let _ = writeln!(chains, ":{} - [0:0]", stale.name);
            let _ = writeln!(deleted, "-X {}", stale.name);
        }
        if chains.is_empty() { String::new() } else { format!("*{}\n{chains}{rules}{deleted}COMMIT\n", self.name) }
    }

    fn is_bare(&self) -> bool {
        self.chains.iter().all(|c| c.policy.as_deref() == Some("ACCEPT") && c.rules.is_empty())
    }
}

impl Chain {
    fn builtin(name: &str) -> Chain {
        Chain { name: name.to_owned(), policy: Some("ACCEPT".to_owned()), rules: Vec::new() }
    }

    pub fn add(&mut self, rule: impl Into<String>) {
        self.rules.push(rule.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_as_itself() {
        let mut rules = Rules::default();
        let nat = rules.table("nat");
        nat.chain("POSTROUTING").add("-j FLANNEL-POSTRTG");
        nat.chain("FLANNEL-POSTRTG").add("-s 10.0.0.0/8 -j MASQUERADE --random-fully");
        rules.sort();
        assert_eq!(Rules::parse(&rules.restore_text()), rules);
    }

    #[test]
    fn tables_with_nothing_in_them_are_no_difference() {
        let text = "# a comment\n*filter\n:INPUT ACCEPT [3:4]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n";
        assert!(Rules::parse(text).is_empty());
        assert!(!Rules::parse(&text.replace(":FORWARD ACCEPT", ":FORWARD DROP")).is_empty());
    }

    #[test]
    fn a_change_touches_the_chains_that_differ_and_deletes_those_that_go() {
        let mut old = Rules::default();
        let nat = old.table("nat");
        nat.chain("A").add("-j ACCEPT");
        nat.chain("B").add("-j A");
        nat.chain("POSTROUTING").add("-j B");
        let mut new = old.clone();
        let nat = new.table("nat");
        nat.chains.retain(|c| c.name != "B");
        nat.chain("C").add("-j A");
        nat.chain("POSTROUTING").rules = vec!["-j C".to_owned()];
        let text = old.changes_to(&new).expect("they differ");
        let wanted = "*nat\n:POSTROUTING ACCEPT [0:0]\n:C - [0:0]\n:B - [0:0]\n-F POSTROUTING\n-A POSTROUTING -j C\n-A C -j A\n-X B\nCOMMIT\n";
        assert_eq!(text, wanted);
        assert_eq!(old.changes_to(&old), None);
        let empty = new.changes_to(&Rules::default()).expect("all goes");
        assert!(empty.contains("-F POSTROUTING") && empty.contains("-X A") && empty.contains("-X C"), "{empty}");
    }
}
