//! The rules in the form in which `iptables-save` prints them, so that they can be compared with
//! what a kernel holds, and put beside other rules of the same namespace.
//!
//! What `iptables-save` makes of a rule: addresses, devices and the protocol come first and have
//! their prefix lengths, marks are `--set-xmark`, chances are rounded to 31 bits, options have their
//! defaults beside them.

use std::collections::HashMap;
use std::fmt::Write;
use std::ops::ControlFlow;

use crate::plan::portmap;
use crate::plan::rules::{Chain, Rules};

use super::ProxyRules;
use super::chain::CANARY;
use super::config::Family;
use super::fixed::JUMPS;

impl ProxyRules {
    /// Put these rules beside others: kube-proxy's chains, its canaries, and the jumps to them at
    /// the top of the built-in chains, where kube-proxy puts them. Only portmap's is above them.
    pub fn add_to(&self, rules: &mut Rules) {
        for table in ["mangle", "nat", "filter"] {
            rules.table(table).chain(CANARY);
        }
        for jump in JUMPS {
            let table = rules.table(jump.table);
            table.chain(jump.to);
            let rules = &mut table.chain(jump.from).rules;
            rules.insert(portmap::top(rules), jump.rule());
        }
        let services = || self.services.iter();
        let filter = std::iter::once(self.filter.head.as_str())
            .chain(services().map(|s| s.filter.as_str()))
            .chain(std::iter::once(self.filter.tail.as_str()));
        fill(rules, "filter", self.filter.chains.iter().copied(), filter, self.family);
        let nat = std::iter::once(self.nat.head.as_str())
            .chain(services().flat_map(|s| [s.shared.as_str(), s.own.as_str()]))
            .chain(std::iter::once(self.nat.tail.as_str()));
        let chains = self.nat.chains.iter().copied().chain(services().flat_map(|s| &s.chains).map(String::as_str));
        fill(rules, "nat", chains, nat, self.family);
        rules.sort();
    }
}

fn fill<'r>(
    rules: &mut Rules,
    table: &str,
    chains: impl Iterator<Item = &'r str>,
    texts: impl Iterator<Item = &'r str>,
    family: Family,
) {
    let table = rules.table(table);
    let mut places: HashMap<String, usize> =
        table.chains.iter().enumerate().map(|(place, chain)| (chain.name.clone(), place)).collect();
    for name in chains {
        places.entry(name.to_owned()).or_insert_with(|| {
            table.chains.push(Chain { name: name.to_owned(), policy: None, rules: Vec::new() });
            table.chains.len() - 1
        });
    }
    for line in texts.flat_map(str::lines) {
        let Some((chain, rule)) = line.strip_prefix("-A ").and_then(|rest| rest.split_once(' ')) else { continue };
        if let Some(place) = places.get(chain) {
            table.chains[*place].add(canonical(rule, family));
        }
    }
}

/// One rule of kube-proxy's, without its `-A CHAIN`, as `iptables-save` prints it.
pub fn canonical(rule: &str, family: Family) -> String {
    let mut form = Form { family, ..Form::default() };
    let mut words = Words(rule);
    while let Some(word) = words.next() {
        if form.take(word, &mut words).is_break() {
            break;
        }
    }
    [form.source, form.destination, form.device, form.protocol, form.rest].concat().trim_end().to_owned()
}

/// The words of a rule; a quoted one is one word, with its quotes.
struct Words<'r>(&'r str);

impl<'r> Iterator for Words<'r> {
    type Item = &'r str;

    fn next(&mut self) -> Option<&'r str> {
        let text = self.0.trim_start();
        let end = match text.strip_prefix('"') {
            Some(quoted) => quoted.find('"').map_or(text.len(), |at| at + 2),
            None => text.find(' ').unwrap_or(text.len()),
        };
        let (word, rest) = text.split_at(end);
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }
}

#[derive(Default)]
struct Form<'r> {
    family: Family,
    source: String,
    destination: String,
    device: String,
    protocol: String,
    rest: String,
    /// Whether `!` came before.
    negated: bool,
    /// The list of the `recent` match, which is printed last of it.
    list: &'r str,
}

impl<'r> Form<'r> {
    /// Take in a word with its value. Ends where a word lacks its value.
    fn take(&mut self, word: &'r str, words: &mut Words<'r>) -> ControlFlow<()> {
        let mut value = || words.next().map_or(ControlFlow::Break(()), ControlFlow::Continue);
        let not = if self.negated && word != "!" { "! " } else { "" };
        match word {
            "!" => {
                self.negated = true;
                return ControlFlow::Continue(());
            }
            "-s" => self.source = self.range(not, "-s", value()?),
            "-d" => self.destination = self.range(not, "-d", value()?),
            "-i" => self.device = format!("{not}-i {} ", value()?),
            "-p" => self.protocol = format!("{not}-p {} ", value()?),
            "--comment" => self.add(format_args!("--comment {} ", quoted(value()?))),
            "--or-mark" => {
                let mark = value()?;
                self.add(format_args!("--set-xmark {mark}/{mark} "));
            }
            "--xor-mark" => self.add(format_args!("--set-xmark {}/0x0 ", value()?)),
            "--probability" => self.add(format_args!("--probability {} ", rounded(value()?))),
            "--nfacct-name" => self.add(format_args!("--nfacct-name  {} ", value()?)),
            "--name" => self.list = value()?,
            "--set" | "--reap" => {
                let mask = match self.family {
                    Family::V4 => "255.255.255.255",
                    Family::V6 => "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                };
                let list = self.list;
                self.add(format_args!("{word} --name {list} --mask {mask} --rsource "));
            }
            "REJECT" => {
                let kind = if self.family == Family::V4 { "icmp" } else { "icmp6" };
                self.add(format_args!("REJECT --reject-with {kind}-port-unreachable "));
            }
            other => self.add(format_args!("{not}{other} ")),
        }
        self.negated = false;
        ControlFlow::Continue(())
    }

    fn add(&mut self, text: std::fmt::Arguments) {
        // Writing to a String cannot fail.
        let _ = self.rest.write_fmt(text);
    }

    /// A range as it is printed; nothing for all addresses, which is as good as no range.
    fn range(&self, not: &str, option: &str, address: &str) -> String {
        if not.is_empty() && address.ends_with("/0") {
            return String::new();
        }
        format!("{not}{option} {} ", self.with_length(address))
    }

    fn with_length(&self, address: &str) -> String {
        match self.family {
            _ if address.contains('/') => address.to_owned(),
            Family::V4 => format!("{address}/32"),
            Family::V6 => format!("{address}/128"),
        }
    }
}

/// A comment has quotes where it is more than letters, digits, `_` and `-`.
fn quoted(comment: &str) -> String {
    let bare = comment.trim_matches('"');
    let plain = bare.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if plain { bare.to_owned() } else { format!("\"{bare}\"") }
}

/// The chance of one of `left` equal ones, as it reads back; nothing for the last one, which is certain.
pub fn odds(left: usize) -> Option<String> {
    let left = u32::try_from(left).ok().filter(|left| *left > 1)?;
    Some(rounded(&(1.0 / f64::from(left)).to_string()))
}

/// The kernel keeps a chance as a number out of 2³¹.
fn rounded(chance: &str) -> String {
    const WHOLE: f64 = 2_147_483_648.0;
    let kept = chance.parse::<f64>().map_or(0.0, |p| (p * WHOLE).round() / WHOLE);
    format!("{kept:.11}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_all_addresses_is_not_printed() {
        let v4 = |rule| canonical(rule, Family::V4);
        assert_eq!(v4("-s 0.0.0.0/0 -d 10.96.0.1 -j ACCEPT"), "-d 10.96.0.1/32 -j ACCEPT");
        assert_eq!(v4("-d 0.0.0.0/0 -s 10.0.0.0/8 -j ACCEPT"), "-s 10.0.0.0/8 -j ACCEPT");
        assert_eq!(v4("! -s 0.0.0.0/0 -j ACCEPT"), "! -s 0.0.0.0/0 -j ACCEPT");
        assert_eq!(v4("-s 10.0.0.0/10 -j ACCEPT"), "-s 10.0.0.0/10 -j ACCEPT");
        assert_eq!(canonical("-s ::/0 -j ACCEPT", Family::V6), "-j ACCEPT");
    }
}
