//! iptables rules as values: tables, chains and rules in the form in which `iptables-save` prints
//! them, so that what is wanted and what is there can be compared line by line.

use std::collections::HashMap;
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
}
