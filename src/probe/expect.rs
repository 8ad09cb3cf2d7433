//! Expectation against observation. Pure: what was seen comes in as a value, a verdict and its
//! words go out.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::outcome::{Details, Kind, Observation, failure_name};
use crate::lab::names::{NsName, named};
use crate::lab::probe::{Expect, SourceExpect};
use crate::spec::probe::FailureName;

/// The addresses that a namespace has.
pub type Addresses<'a> = &'a dyn Fn(&NsName) -> Vec<IpAddr>;

/// The tries of a probe, added up as they come in, so that a hundred thousand of them take no
/// more memory than one.
pub struct Tally<'a> {
    expect: &'a Expect,
    tries: u64,
    differing: u64,
    answers: u64,
    by: BTreeMap<String, u64>,
    /// The first try that differed, else the last one.
    seen: Observation,
}

impl<'a> Tally<'a> {
    pub fn new(expect: &'a Expect) -> Tally<'a> {
        let seen = Observation::default();
        Tally { expect, tries: 0, differing: 0, answers: 0, by: BTreeMap::new(), seen }
    }

    pub fn add(&mut self, seen: Observation, addresses: Addresses) {
        self.tries += 1;
        if seen.failure.is_none() {
            self.answers += 1;
        }
        if let Some(name) = &seen.details.answered_by {
            *self.by.entry(name.clone()).or_default() += 1;
        }
        let differs = !as_expected(self.expect, &seen, addresses);
        if self.differing == 0 {
            self.seen = seen;
        }
        self.differing += u64::from(differs);
    }

    pub fn passed(&self) -> bool {
        self.tries > 0 && self.differing == 0 && self.wrong_shares().is_empty()
    }

    /// Tries that were added.
    pub fn tries(&self) -> u64 {
        self.tries
    }

    /// Those of them that are not what was expected.
    pub fn differing(&self) -> u64 {
        self.differing
    }

    /// Whether a failure had to come and a success came.
    pub fn succeeded_against_expectation(&self) -> bool {
        self.expect.fail.is_some() && self.answers > 0
    }

    /// The patterns whose share of the answers is off, with that share.
    fn wrong_shares(&self) -> Vec<(&str, f64)> {
        let Some(wanted) = &self.expect.distribution else { return Vec::new() };
        let total = self.by.values().sum::<u64>().max(1) as f64;
        let share = |pattern: &str| {
            let given: u64 = self.by.iter().filter(|(name, _)| named(pattern, name)).map(|(_, n)| n).sum();
            given as f64 / total
        };
        let all = wanted.iter().map(|(pattern, wanted)| (pattern.as_str(), *wanted, share(pattern)));
        // A share that is exactly at the tolerance is within it, whatever the rounding.
        all.filter(|(_, wanted, got)| (wanted - got).abs() > self.expect.tolerance + 1e-9)
            .map(|(pattern, _, got)| (pattern, got))
            .collect()
    }

    /// What was seen, in a short text.
    pub fn observed(&self) -> String {
        if self.tries <= 1 {
            return observed(self.expect, &self.seen);
        }
        let counts: Vec<String> = self.by.iter().map(|(name, n)| format!("{name} {n}")).collect();
        let counts = if counts.is_empty() { String::new() } else { format!(": {}", counts.join(", ")) };
        if self.differing > 0 {
            let first = observed(self.expect, &self.seen);
            return format!("{} of {} tries differed, the first: {first}", self.differing, self.tries);
        }
        let wrong: Vec<String> =
            self.wrong_shares().iter().map(|(pattern, got)| format!("{pattern} gave {got:.2}")).collect();
        let wrong = if wrong.is_empty() { String::new() } else { format!("; {}", wrong.join(", ")) };
        format!("{} answers to {} tries{counts}{wrong}", self.answers, self.tries)
    }

    /// The address that was tried and the details of the deciding try.
    pub fn into_seen(self) -> (Option<String>, Details) {
        let distribution = if self.tries > 1 { self.by } else { BTreeMap::new() };
        let expected_shares = self.expect.distribution.clone().unwrap_or_default();
        let tolerance = (!expected_shares.is_empty()).then_some(self.expect.tolerance);
        (self.seen.tried, Details { distribution, expected_shares, tolerance, ..self.seen.details })
    }
}

/// Whether one try is what was expected; the distribution is looked at over all of them.
pub fn as_expected(expect: &Expect, seen: &Observation, addresses: Addresses) -> bool {
    if !failure_fits(expect, seen) {
        return false;
    }
    let details = &seen.details;
    let by = details.answered_by.as_deref();
    is(&expect.status, &details.status)
        && is(&expect.ttl, &details.ttl)
        && is(&expect.mtu, &details.mtu)
        && is(&expect.exit_code, &details.exit_code)
        && is(&expect.rcode, &details.rcode)
        && expect.pod.as_ref().is_none_or(|pattern| by.is_some_and(|name| named(pattern, name)))
        && (expect.distribution.is_none() || by.is_some())
        && expect.body.as_ref().is_none_or(|part| seen.text.as_ref().is_some_and(|text| text.contains(part.as_str())))
        && expect.source.as_ref().is_none_or(|source| source_fits(source, details, addresses))
        && expect.answers.as_ref().is_none_or(|wanted| details.answers.as_ref().is_some_and(|got| same(wanted, got)))
}

fn is<T: PartialEq>(wanted: &Option<T>, got: &Option<T>) -> bool {
    wanted.is_none() || wanted == got
}

/// Whether the try failed or not as it had to.
fn failure_fits(expect: &Expect, seen: &Observation) -> bool {
    match (expect.fail, &seen.failure) {
        (None, None) => true,
        (Some(_), None) => false,
        (Some(FailureName::Any), Some(failure)) => failure.kind.is_some(),
        (Some(wanted), Some(failure)) => failure.kind == Some(wanted),
        // An answer that says no will do where what it says is what was asked about.
        (None, Some(failure)) => failure.answered && looks_at_the_no(expect, &seen.details),
    }
}

/// Whether the expectation itself is about what a refusing answer says: a status, a response
/// code, an exit code. An empty list of records may be expected too, but not of a name that does
/// not exist.
fn looks_at_the_no(expect: &Expect, details: &Details) -> bool {
    let exists = details.rcode.as_deref() == Some("NOERROR");
    expect.status.is_some() && details.status.is_some()
        || expect.exit_code.is_some() && details.exit_code.is_some()
        || expect.rcode.is_some() && details.rcode.is_some()
        || expect.answers.is_some() && exists
}

fn source_fits(source: &SourceExpect, details: &Details, addresses: Addresses) -> bool {
    let Some(got) = details.source.map(|s| s.ip().to_canonical()) else { return false };
    match source {
        SourceExpect::Range(range) => range.contains(&got),
        SourceExpect::Machine(ns) => addresses(ns).contains(&got),
    }
}

/// The same records in any order; case, the dot at a name's end and blanks do not count.
fn same(wanted: &[String], got: &[String]) -> bool {
    let plain = |records: &[String]| {
        let record = |text: &String| {
            let words = text.split_whitespace().map(|word| word.trim_end_matches('.').to_lowercase());
            words.collect::<Vec<_>>().join(" ")
        };
        let mut all: Vec<String> = records.iter().map(record).collect();
        all.sort();
        all
    };
    plain(wanted) == plain(got)
}

/// What must come of a probe, in a short text.
pub fn expected(expect: &Expect, kind: Kind, count: u32) -> String {
    let mut words: Vec<String> = Vec::new();
    match expect.fail {
        Some(FailureName::Any) => words.push("a failure of any kind".to_owned()),
        Some(kind) => words.push(format!("the failure `{}`", failure_name(kind))),
        None => words.push(success(expect, kind).to_owned()),
    }
    let mut add = |label: &str, value: Option<String>| words.extend(value.map(|v| format!("{label} {v}")));
    add("from", expect.pod.clone());
    add("status", expect.status.map(|s| s.to_string()));
    add("seen as coming from", expect.source.as_ref().map(source_words));
    add("with the text", expect.body.as_ref().map(|b| format!("{b:?}")));
    add("with TTL", expect.ttl.map(|t| t.to_string()));
    add("MTU", expect.mtu.map(|m| format!("{m} bytes")));
    add("", expect.rcode.clone());
    add("records", expect.answers.as_ref().map(|a| list(a)));
    add("exit code", expect.exit_code.map(|c| c.to_string()));
    let shares = expect.distribution.as_ref().map(|shares| {
        let each: Vec<String> = shares.iter().map(|(pattern, share)| format!("{pattern} {share}")).collect();
        format!("{} (each ± {}) over {count} tries", each.join(", "), expect.tolerance)
    });
    add("shares", shares);
    words.join(", ").replace(",  ", ", ")
}

fn success(expect: &Expect, kind: Kind) -> &'static str {
    match kind {
        Kind::Tcp if expect.body.is_none() && expect.pod.is_none() && expect.source.is_none() => "a connection",
        Kind::Exec if expect.exit_code.is_none() => "exit code 0",
        Kind::Exec => "an end",
        _ => "an answer",
    }
}

fn source_words(source: &SourceExpect) -> String {
    match source {
        SourceExpect::Range(range) if range.prefix_len() == range.max_prefix_len() => range.addr().to_string(),
        SourceExpect::Range(range) => range.to_string(),
        SourceExpect::Machine(ns) => ns.to_string(),
    }
}

fn list(records: &[String]) -> String {
    if records.is_empty() { "none".to_owned() } else { records.join(", ") }
}

/// What one try saw, in a short text; the answer's own text only where the probe looks at it.
fn observed(expect: &Expect, seen: &Observation) -> String {
    let details = &seen.details;
    let mut words: Vec<String> = Vec::new();
    if let Some(failure) = &seen.failure {
        words.push(failure.says());
    } else {
        let by = details.answered_by.as_ref();
        words.push(match (by, &seen.tried) {
            (Some(name), _) => format!("an answer from {name}"),
            (None, Some(tried)) => format!("an answer from {tried}"),
            (None, None) => "an end".to_owned(),
        });
    }
    let mut add = |label: &str, value: Option<String>| words.extend(value.map(|v| format!("{label} {v}")));
    let answered = seen.failure.is_none();
    add("status", details.status.filter(|_| answered).map(|s| s.to_string()));
    add("seen as coming from", details.source.map(|s| s.ip().to_canonical().to_string()));
    add("TTL", details.ttl.map(|t| t.to_string()));
    add("MTU", details.mtu.map(|m| format!("{m} bytes")));
    add("in", details.rtt_ms.filter(|_| answered).map(|ms| format!("{ms:.2} ms")));
    add("records", details.answers.as_ref().filter(|_| answered).map(|a| list(a)));
    add("exit code", details.exit_code.filter(|_| answered).map(|c| c.to_string()));
    if expect.pod.is_some() || expect.distribution.is_some() {
        let unnamed = answered && details.answered_by.is_none();
        add("which does not say", unnamed.then(|| "who it is".to_owned()));
    }
    if expect.body.is_some() || details.exit_code.is_some_and(|c| c != 0) {
        add("with the text", details.excerpt.as_ref().map(|t| format!("{t:?}")));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests;
