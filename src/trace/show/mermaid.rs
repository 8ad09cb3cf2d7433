//! A trace as a sequence diagram in Mermaid: namespaces side by side, packets as arrows between them,
//! what decided and what changed as notes.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::lab::names::{HostName, NsName};
use crate::trace::model::{Direction, Fate, Flow, Packet, Step, Trace, What};

use super::ways::{Parts, Told, Ways};
use super::{flow, place, rules, text};

/// The diagram, as Mermaid reads it. No text in it, wherever it is from, can be taken for a statement.
pub fn mermaid(trace: &Trace) -> String {
    let mut diagram = Diagram::of(trace);
    diagram.note_over_all(&text::question(&trace.asked));
    for flow in &trace.flows {
        diagram.flow(flow);
    }
    diagram.note_over_all(&format!("verdict: {}", trace.verdict.says));
    diagram.text
}

struct Diagram<'a> {
    /// The participants' numbers.
    places: BTreeMap<&'a NsName, usize>,
    text: String,
}

impl<'a> Diagram<'a> {
    /// The participants, in the order in which they appear.
    fn of(trace: &'a Trace) -> Diagram<'a> {
        let mut diagram = Diagram { places: BTreeMap::new(), text: "sequenceDiagram\n".to_owned() };
        let steps = trace.flows.iter().flat_map(|f| &f.packets).flat_map(|p| &p.steps);
        for step in steps {
            diagram.participant(&step.place, step.host.as_ref());
        }
        // A diagram of nothing has the asker.
        if diagram.places.is_empty() {
            diagram.participant(&trace.asked.from, None);
        }
        diagram
    }

    fn participant(&mut self, name: &'a NsName, host: Option<&HostName>) {
        if !self.places.contains_key(name) {
            let number = self.places.len();
            self.places.insert(name, number);
            self.line(&format!("participant n{number} as {}", safe(&place(name, host))));
        }
    }

    fn line(&mut self, line: &str) {
        // Writing into a String does not fail.
        let _ = writeln!(self.text, "    {line}");
    }

    fn note_over_all(&mut self, text: &str) {
        let over = match self.places.len() {
            0 | 1 => "n0".to_owned(),
            n => format!("n0,n{}", n - 1),
        };
        self.line(&format!("Note over {over}: {}", safe(text)));
    }

    fn note(&mut self, at: &NsName, text: &str) {
        if let Some(number) = self.places.get(at) {
            self.line(&format!("Note over n{number}: {}", safe(text)));
        }
    }

    fn flow(&mut self, flow: &'a Flow) {
        self.note_over_all(&flow::title(flow));
        let ways = Ways::of(flow);
        for told in &ways.told {
            self.told(flow, told);
            let same = ways.same.iter().filter(|s| s.as_packet.number == told.packet.number);
            for packets in same.map(|s| s.packets.len()) {
                let more = if packets == 1 { "1 more packet".to_owned() } else { format!("{packets} more packets") };
                self.note_over_all(&format!("{more} took the way of packet {}", told.packet.number));
            }
        }
    }

    fn told(&mut self, flow: &'a Flow, told: &Told<'a>) {
        let packet = told.packet;
        let from = match told.parts {
            None => 0,
            Some(Parts { from, at }) => {
                self.note_over_all(&format!("packet {}, as packet {from} at first", packet.number));
                at
            }
        };
        let steps = packet.steps.get(from..).unwrap_or_default();
        if let Some(first) = steps.first() {
            self.note(&first.place, &flow::heading(flow, packet));
        }
        // The step before leads to the first one that is told.
        let mut last = from.checked_sub(1).and_then(|before| packet.steps.get(before));
        for step in steps {
            if let Some(last) = last.filter(|last| last.place != step.place) {
                self.arrow(packet, last, step);
            }
            self.step(step);
            last = Some(step);
        }
        if let (Some(last), Fate::Lost) = (last, &packet.fate) {
            self.note(&last.place, "seen last here");
        }
    }

    fn arrow(&mut self, packet: &Packet, from: &Step, to: &Step) {
        let (Some(a), Some(b)) = (self.places.get(&from.place), self.places.get(&to.place)) else { return };
        let arrow = match packet.direction {
            Direction::There => "->>",
            Direction::Back => "-->>",
        };
        let header = to.header.as_ref().or(from.header.as_ref()).map(|h| format!(", {h}")).unwrap_or_default();
        let outer = if to.layer > 0 { ", in an outer packet" } else { "" };
        self.line(&format!("n{a}{arrow}n{b}: {}{outer}{}", safe(&packet.kind), safe(&header)));
    }

    fn step(&mut self, step: &Step) {
        let says = &step.says;
        let text = match &step.what {
            What::Rule(rule) if rules::decides(rule) => {
                let meaning = rule.meaning.as_ref().unwrap_or(says);
                format!("{} {} {}: {meaning}", rule.table, rule.chain, rule.number)
            }
            What::Rewritten { before, after, .. } => format!("rewritten: {before}, now {after}"),
            What::Encapsulated { outer, .. } => format!("{says}, outer {outer}"),
            What::Proxied { request, backend, .. } => format!("{says}: {request}, {backend}"),
            What::Asked { name, answer } => format!("{name}: {answer}"),
            What::Routed(_) | What::Decapsulated { .. } | What::UserSpace { .. } => says.clone(),
            What::Delivered { .. } | What::Refused { .. } | What::Dropped(_) => says.clone(),
            What::Sent { .. } | What::In | What::Out | What::Bridged { .. } => return,
            What::Rule(_) | What::Neighbour { .. } => return,
        };
        self.note(&step.place, &text);
        if let (What::Dropped(_) | What::Refused { .. }, Some(number)) = (&step.what, self.places.get(&step.place)) {
            let word = if matches!(step.what, What::Dropped(_)) { "dropped" } else { "refused" };
            self.line(&format!("n{number}-xn{number}: {word}"));
        }
    }
}

/// A text without anything that means something to Mermaid or to the page that shows it: what is
/// neither letter, digit nor plain punctuation is written as an entity. One that is empty would end
/// a statement too early.
fn safe(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let trimmed = super::page::one_line(text);
    let trimmed = trimmed.trim();
    // `wrap:` and `nowrap:` in front of a text are orders.
    let order = ["wrap:", "nowrap:"].iter().any(|o| trimmed.get(..o.len()).is_some_and(|t| t.eq_ignore_ascii_case(o)));
    if order || trimmed.is_empty() {
        safe.push_str("#8203;");
    }
    for c in trimmed.chars() {
        match c {
            c if c.is_alphanumeric() => safe.push(c),
            ' ' | '.' | ',' | ':' | '/' | '(' | ')' | '_' | '-' | '!' | '?' | '\'' | '=' | '+' | '→' => safe.push(c),
            c => {
                let _ = write!(safe, "#{};", u32::from(c));
            }
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::safe;

    #[test]
    fn nothing_in_a_text_ends_its_statement_or_begins_another() {
        assert_eq!(
            safe("a;b\nn0->>n1: #x %%{init} <b>"),
            "a#59;b n0-#62;#62;n1: #35;x #37;#37;#123;init#125; #60;b#62;"
        );
    }

    #[test]
    fn an_order_to_mermaid_is_text() {
        assert_eq!(safe(" wrap: x"), "#8203;wrap: x");
        assert_eq!(safe(""), "#8203;");
    }
}
