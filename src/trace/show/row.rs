//! What is told of one step: a row with its time, its device and a sentence, and what stands below it.

use anstyle::Style as Ink;

use crate::trace::model::{Drop, Header, Protocol, Rewrite, RuleMet, Step, What};

use super::page::{BAD, BOLD, DIM, GOOD, PLAIN};
use super::rules;

/// A step, ready to be set.
#[derive(Debug)]
pub struct Row<'a> {
    pub at: Option<u64>,
    pub is_inferred: bool,
    /// How deep it stands: that of the packet inside an outer one.
    pub layer: u8,
    /// The device, the table of a rule, or what decided.
    pub column: String,
    pub text: String,
    pub ink: Ink,
    pub header: Option<&'a Header>,
    pub below: Vec<Below<'a>>,
}

/// A line below a step.
#[derive(Debug)]
pub enum Below<'a> {
    /// A label and a text.
    Says(&'static str, String),
    /// A rule's text.
    Rule(&'a str),
    /// The header of an outer packet.
    Outer(&'a Header),
    /// A header that was rewritten.
    Changed(&'a Header, &'a Header),
}

impl<'a> Row<'a> {
    pub fn of(step: &'a Step) -> Row<'a> {
        let mut row = Row {
            at: step.at,
            is_inferred: step.is_inferred(),
            layer: step.layer,
            column: column(step),
            text: step.says.clone(),
            ink: ink(&step.what),
            header: step.header.as_ref(),
            below: Vec::new(),
        };
        match &step.what {
            What::Rule(rule) => row.rule(rule),
            What::Rewritten { how, before, after } => {
                row.header = None;
                if row.text.is_empty() {
                    row.text = rewrite(*how).to_owned();
                }
                row.below.push(Below::Changed(before, after));
            }
            other => row.describe(other),
        }
        row
    }

    /// Rules in a row that the packet only passed through.
    pub fn passed(steps: &[&'a Step], met: &[&RuleMet]) -> Option<Row<'a>> {
        let first = *steps.first()?;
        let is_inferred = steps.iter().all(|s| s.is_inferred());
        let text = rules::passed(met);
        Some(Row { is_inferred, text, ink: DIM, header: None, below: Vec::new(), ..Row::of(first) })
    }

    fn rule(&mut self, rule: &'a RuleMet) {
        let number = if rule.number > 0 { format!(" {}", rule.number) } else { String::new() };
        // The verdict of a policy stands nowhere else; that of a rule stands in its text.
        self.text = match &rule.meaning {
            None => rules::passed(&[rule]),
            Some(meaning) if rule.number == 0 => format!("{}: {meaning} ({})", rule.chain, rule.verdict),
            Some(meaning) => format!("{}{number}: {meaning}", rule.chain),
        };
        if !rule.rule.is_empty() {
            self.below.push(Below::Rule(&rule.rule));
        }
    }

    /// What the sentence does not say already.
    fn describe(&mut self, what: &'a What) {
        let mut say = |label, text: &str| {
            if !text.is_empty() && !self.text.contains(text) {
                self.below.push(Below::Says(label, text.to_owned()));
            }
        };
        match what {
            // That an address is the machine's own is said by the sentence.
            What::Routed(routed) if routed.route == "local" => {}
            What::Routed(routed) => say("", &routed.route),
            What::Neighbour { ip, mac, state } => match mac {
                Some(mac) if !self.text.contains(mac.as_str()) => say("", &format!("{ip} lladdr {mac} {state}")),
                Some(_) => {}
                None => say("", &format!("{ip} {state}")),
            },
            What::Encapsulated { outer, entry, .. } => {
                say("because of", entry.as_deref().unwrap_or_default());
                self.below.insert(0, Below::Outer(outer));
                // It is said here, and need not be said again beside.
                self.header = None;
            }
            What::Proxied { request, because, backend, .. } => {
                say("request", request);
                say("because of", because.as_deref().unwrap_or_default());
                say("backend", backend);
            }
            What::Asked { name, answer } => {
                say("name", name);
                say("answer", answer);
            }
            What::Refused { with } => say("with", with),
            What::Dropped(Drop { by, reason, .. }) => {
                // A route that is missing is no thing, and the sentence says whose.
                let missing = by.strip_prefix("no route to ").is_some_and(|to| self.text.contains(to));
                say("by", if missing { "" } else { by });
                say("kernel's reason", reason.as_deref().unwrap_or_default());
            }
            _ => {}
        }
    }
}

fn column(step: &Step) -> String {
    let dev = || step.dev.as_ref().map(|d| d.as_str().to_owned()).unwrap_or_default();
    match &step.what {
        What::Rule(rule) => rule.in_table(),
        What::Rewritten { how: Rewrite::Remembered, .. } => "conntrack".to_owned(),
        What::Rewritten { .. } => "nat".to_owned(),
        What::Routed(_) => "route".to_owned(),
        What::Neighbour { .. } => "neighbour".to_owned(),
        What::Bridged { bridge, .. } => bridge.clone(),
        What::UserSpace { program } => program.clone(),
        What::Proxied { .. } => "proxy".to_owned(),
        What::Asked { .. } => "dns".to_owned(),
        _ => dev(),
    }
}

fn ink(what: &What) -> Ink {
    match what {
        What::Delivered { .. } => GOOD,
        What::Dropped(_) | What::Refused { .. } => BAD,
        What::Rule(rule) if matches!(rule.verdict.as_str(), "DROP" | "REJECT") => BAD,
        What::Rewritten { .. } | What::Encapsulated { .. } | What::Decapsulated { .. } | What::Proxied { .. } => BOLD,
        _ => PLAIN,
    }
}

pub fn rewrite(how: Rewrite) -> &'static str {
    match how {
        Rewrite::Destination => "the destination is rewritten",
        Rewrite::Source => "the source is rewritten",
        Rewrite::Remembered => "rewritten as connection tracking remembers",
    }
}

/// A header with all that is known of it.
pub fn whole(header: &Header) -> String {
    let mut text = format!("{header}, {} bytes", header.length);
    if header.protocol == Protocol::Icmp && header.source_port != 0 {
        text += &format!(", identifier {}", header.source_port);
    }
    if header.dont_fragment {
        text += ", DF";
    }
    if let Some((source, destination)) = &header.macs {
        text += &format!(", {source} > {destination}");
    }
    text
}
