//! What to write when the rules change: an input of `iptables-restore --noflush` with only what is
//! different, and stale chains deleted, as kube-proxy's partial sync does.
//!
//! One thing is done in another way. kube-proxy writes the shared chains anew every time, and with
//! 10,000 services KUBE-SERVICES alone keeps `iptables-nft-restore` busy for most of a second. Here
//! single rules are inserted and deleted, so that a service that only has other endpoints leaves
//! KUBE-SERVICES untouched, and the program need not even read it.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt::Write;

use super::chain::{declare, of_line};
use super::fixed::Table;
use super::{ProxyRules, ServiceRules};

/// With more changed rules than this a shared chain is written anew: `iptables-restore` looks for a
/// rule to delete from the chain's beginning.
const SINGLE_RULES: usize = 64;

/// The input that turns `old` into `new` in a kernel that holds `old`, or nothing where they are
/// equal. Where the kernel does not hold it, the restore fails as a whole or changes other rules,
/// so whoever is unsure writes everything.
pub fn sync(old: &ProxyRules, new: &ProxyRules) -> Option<String> {
    let pairs = pairs(&old.services, &new.services);
    let mut out = String::new();
    table(&mut out, "filter", |edit| {
        shared(edit, Side::filter(old), Side::filter(new), &pairs);
    });
    table(&mut out, "nat", |edit| {
        shared(edit, Side::nat(old), Side::nat(new), &pairs);
        own(edit, &pairs);
    });
    (!out.is_empty()).then_some(out)
}

/// A service port before and after.
type Pair<'r> = (Option<&'r ServiceRules>, Option<&'r ServiceRules>);

/// Both lists are sorted by name.
fn pairs<'r>(old: &'r [ServiceRules], new: &'r [ServiceRules]) -> Vec<Pair<'r>> {
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    let mut pairs = Vec::new();
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return pairs,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(o), Some(n)) => o.name.cmp(&n.name),
        };
        let one = if order == Ordering::Greater { None } else { old.next() };
        let other = if order == Ordering::Less { None } else { new.next() };
        if one != other {
            pairs.push((one, other));
        }
    }
}

/// The parts of one table's input, in their order.
#[derive(Default)]
struct Edit {
    chains: String,
    rules: String,
    /// At the end, when nothing leads to these chains any more.
    deleted: String,
}

fn table(out: &mut String, name: &str, fill: impl FnOnce(&mut Edit)) {
    let mut edit = Edit::default();
    fill(&mut edit);
    if !(edit.chains.is_empty() && edit.rules.is_empty()) {
        // Writing to a String cannot fail, here and below.
        let _ = write!(out, "*{name}\n{}{}{}COMMIT\n", edit.chains, edit.rules, edit.deleted);
    }
}

/// One table's shared lines in one state.
struct Side<'r> {
    table: &'r Table,
    services: &'r [ServiceRules],
    lines: fn(&ServiceRules) -> &str,
}

impl<'r> Side<'r> {
    fn filter(rules: &'r ProxyRules) -> Side<'r> {
        Side { table: &rules.filter, services: &rules.services, lines: |s| &s.filter }
    }

    fn nat(rules: &'r ProxyRules) -> Side<'r> {
        Side { table: &rules.nat, services: &rules.services, lines: |s| &s.shared }
    }

    /// The lines of one chain, in their order, each with its end.
    fn chain(&self, chain: &str) -> Vec<&'r str> {
        let lines = self.lines;
        std::iter::once(self.table.head.as_str())
            .chain(self.services.iter().map(lines))
            .chain(std::iter::once(self.table.tail.as_str()))
            .flat_map(|text| text.split_inclusive('\n'))
            .filter(|line| of_line(line) == chain)
            .collect()
    }
}

fn shared(edit: &mut Edit, old: Side, new: Side, pairs: &[Pair]) {
    for chain in changed_chains(&old, &new, pairs).into_iter().filter(|c| new.table.chains.contains(c)) {
        let (before, after) = (old.chain(chain), new.chain(chain));
        let known = old.table.chains.contains(&chain);
        match single_rules(&before, &after).filter(|_| known) {
            Some(rules) => edit.rules.push_str(&rules),
            None => {
                declare(&mut edit.chains, chain);
                edit.rules.extend(after);
            }
        }
    }
    for chain in old.table.chains.iter().filter(|c| !new.table.chains.contains(c)) {
        // A jump leads to it, so it stays, empty.
        declare(&mut edit.chains, chain);
    }
}

/// The shared chains in which something changed, by name.
fn changed_chains<'r>(old: &Side<'r>, new: &Side<'r>, pairs: &[Pair<'r>]) -> BTreeSet<&'r str> {
    let fixed = [(&old.table.head, &new.table.head), (&old.table.tail, &new.table.tail)];
    let mut texts: Vec<(&str, &str)> = fixed.map(|(one, other)| (one.as_str(), other.as_str())).to_vec();
    texts.extend(pairs.iter().map(|(one, other)| (one.map_or("", old.lines), other.map_or("", new.lines))));
    let mut changed: BTreeSet<&str> =
        new.table.chains.iter().filter(|c| !old.table.chains.contains(c)).copied().collect();
    for (one, other) in texts.into_iter().filter(|(one, other)| one != other) {
        let lines = one.split_inclusive('\n').chain(other.split_inclusive('\n'));
        let differs = |line: &&str| !(one.contains(line) && other.contains(line));
        changed.extend(lines.filter(differs).map(of_line));
    }
    changed
}

/// Deletions and insertions that make `after` of `before`. Nothing where there would be too many,
/// or where what stays changes its order.
fn single_rules(before: &[&str], after: &[&str]) -> Option<String> {
    let stays = |lines: &[&str], others: &[&str]| -> (Vec<bool>, usize) {
        let mut counts: HashMap<&str, usize> = HashMap::with_capacity(others.len());
        others.iter().for_each(|line| *counts.entry(line).or_default() += 1);
        let kept: Vec<bool> =
            lines.iter().map(|line| counts.get_mut(line).filter(|n| **n > 0).map(|n| *n -= 1).is_some()).collect();
        let gone = kept.iter().filter(|k| !**k).count();
        (kept, gone)
    };
    let (kept, deleted) = stays(before, after);
    let (known, added) = stays(after, before);
    let common = |lines: &[&str], flags: &[bool]| -> Vec<String> {
        lines.iter().zip(flags).filter(|(_, stays)| **stays).map(|(line, _)| (*line).to_owned()).collect()
    };
    // An identical rule that is there twice would be deleted at its first place.
    let twice = before.iter().collect::<HashSet<_>>().len() < before.len();
    if deleted + added > SINGLE_RULES || twice || common(before, &kept) != common(after, &known) {
        return None;
    }
    let mut out = String::new();
    for line in before.iter().zip(&kept).filter(|(_, stays)| !**stays).map(|(line, _)| line) {
        let _ = write!(out, "-D{}", line.strip_prefix("-A")?);
    }
    // From the front to the back, so each finds everything before it in its place.
    for (number, line) in (1..).zip(after).zip(&known).filter(|(_, stays)| !**stays).map(|(numbered, _)| numbered) {
        let (chain, rule) = line.strip_prefix("-A ")?.split_once(' ')?;
        let _ = write!(out, "-I {chain} {number} {rule}");
    }
    Some(out)
}

/// Services' own chains: those of changed services are written anew, those that are stale deleted.
fn own(edit: &mut Edit, pairs: &[Pair]) {
    for (old, new) in pairs {
        let kept = new.map_or(&[][..], |n| &n.chains);
        if old.is_none_or(|o| new.is_some_and(|n| o.own != n.own)) {
            kept.iter().for_each(|chain| declare(&mut edit.chains, chain));
            edit.rules.push_str(new.map_or("", |n| &n.own));
        }
        for stale in old.iter().flat_map(|o| &o.chains).filter(|c| !kept.contains(c)) {
            // The chain line empties it; a chain with rules cannot be deleted.
            declare(&mut edit.chains, stale);
            let _ = writeln!(edit.deleted, "-X {stale}");
        }
    }
}
