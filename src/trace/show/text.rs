//! The page as a whole: the question, the flows, the verdict.

use crate::trace::model::{Asked, Cause, Fault, Means, Parting, Trace};

use super::page::{BAD, BOLD, DIM, GOOD, Lead, PLAIN, Page};
use super::{Style, flow, steps};

/// The trace as text, each line with its end.
pub fn text(trace: &Trace, style: &Style) -> String {
    let mut page = Page::new(style);
    page.marks = !is_predicted(trace);
    top(&mut page, trace);
    for flow in &trace.flows {
        flow::write(&mut page, flow);
    }
    if let Some(parting) = &trace.parting {
        differs(&mut page, parting);
    }
    verdict(&mut page, trace);
    foot(&mut page, trace);
    page.into_text()
}

fn top(page: &mut Page, trace: &Trace) {
    page.line(&question(&trace.asked), BOLD);
    let ink = if trace.asked.answered { GOOD } else { BAD };
    let label = if is_predicted(trace) { "expected: " } else { "seen: " };
    page.hang(&Lead::label(label), &trace.asked.seen, ink);
    let packets: usize = trace.flows.iter().map(|f| f.packets.len()).sum();
    let (flows, packets) = (count(trace.flows.len(), "flow"), count(packets, "packet"));
    let steps = trace.flows.iter().flat_map(|f| &f.packets).flat_map(|p| &p.steps);
    let took = match steps.filter_map(|s| s.at).max() {
        Some(last) if is_predicted(trace) || last == 0 => String::new(),
        Some(last) => format!(" within {}", steps::duration(last)),
        None => String::new(),
    };
    let known = means(trace).map(|known| format!("; {known}")).unwrap_or_default();
    page.line(&format!("lab {}: {flows}, {packets}{took}{known}", trace.lab), DIM);
}

fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// The question in a line.
pub fn question(asked: &Asked) -> String {
    let Asked { from, to, kind, tried, .. } = asked;
    let at = tried.as_ref().filter(|t| !to.contains(t.as_str())).map(|t| format!(" at {t}")).unwrap_or_default();
    match kind.as_str() {
        "follow" => format!("Following {to}{at}"),
        "ping" => format!("{from} pings {to}{at}"),
        "dns" => format!("{from} looks up {to}{at}"),
        kind => format!("{from} asks {to}{at} over {kind}"),
    }
}

fn is_predicted(trace: &Trace) -> bool {
    !trace.means.is_empty() && trace.means.iter().all(|m| matches!(m, Means::Plan | Means::State))
}

/// How it is known; nothing of a question of which no packet was seen.
fn means(trace: &Trace) -> Option<String> {
    if is_predicted(trace) {
        return Some("predicted, nothing was sent".to_owned());
    }
    if trace.flows.is_empty() {
        return None;
    }
    let names = trace.means.iter().map(|m| match m {
        Means::Tap => "taps",
        Means::Rules => "rules",
        Means::Conntrack => "connection tracking",
        Means::DropReason => "drop reasons",
        Means::Lookup => "look-ups",
        Means::Process => "processes",
        Means::Counter => "counters",
        Means::Program => "programs",
        Means::State => "kernel state",
        Means::Plan => "plan",
    });
    Some(format!("known by {}", names.collect::<Vec<_>>().join(", ")))
}

fn differs(page: &mut Page, parting: &Parting) {
    page.blank();
    page.line(&format!("Packet {} went another way than predicted", parting.packet), BOLD);
    page.hang(&Lead::label("  predicted: "), &parting.predicted, PLAIN);
    page.hang(&Lead::label("  observed:  "), &parting.observed, PLAIN);
}

fn verdict(page: &mut Page, trace: &Trace) {
    page.blank();
    let good = trace.verdict.fault.is_none() && trace.asked.answered;
    page.ruled('━', "Verdict", BOLD);
    page.line(&trace.verdict.says, if good { GOOD.bold() } else { BAD });
    if let Some(fault) = &trace.verdict.fault {
        write_fault(page, fault);
    }
}

fn write_fault(page: &mut Page, fault: &Fault) {
    let cause = format!("{} at {}: {}", cause(fault.cause), fault.place, fault.object);
    page.hang(&Lead::label("cause: "), &cause, PLAIN);
    if !page.style.why {
        if !(fault.evidence.is_empty() && fault.remedy.is_empty()) {
            page.line("(--why tells what this rests on, and what would mend it)", DIM);
        }
        return;
    }
    if !fault.evidence.is_empty() {
        page.line("why:", PLAIN);
    }
    for evidence in &fault.evidence {
        page.hang(&Lead { first: "  - ".to_owned(), rest: "    ".to_owned() }, evidence, PLAIN);
    }
    if !fault.remedy.is_empty() {
        page.line("what would mend it:", PLAIN);
    }
    for remedy in &fault.remedy {
        page.hang(&Lead { first: "  - ".to_owned(), rest: "    ".to_owned() }, &remedy.says, PLAIN);
        if let Some(command) = &remedy.command {
            let lead = Lead { first: " ".repeat(6), rest: " ".repeat(8) };
            page.command(&lead, command, BOLD);
        }
    }
}

/// A cause by its stable name.
fn cause(cause: Cause) -> String {
    serde_json::to_value(cause).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

fn foot(page: &mut Page, trace: &Trace) {
    for note in &trace.notes {
        page.hang(&Lead::label("note: "), note, PLAIN);
    }
    if page.has_short {
        page.line("The way back is told in short; --reply tells its rules, routes and neighbours, too.", DIM);
    }
    if page.has_mark {
        page.line("~ inferred: nothing was seen of this step, it follows from the others.", DIM);
    }
}
