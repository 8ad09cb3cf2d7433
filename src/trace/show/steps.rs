//! The way of a packet: a heading for each namespace, below it the steps in their order.

use std::collections::BTreeMap;

use textwrap::core::display_width;

use crate::trace::model::{Direction, Fate, Header, Packet, RuleMet, Step, What};

use super::page::{BAD, CHANGED, DIM, Lead, PLAIN, Page, WHERE, wrap};
use super::row::{Below, Row, whole};
use super::{place, rules};

/// From here on headers have a column of their own.
const ROOMY: usize = 130;

/// The columns of a header beside a step.
const HEADER: usize = 58;

/// Columns of the time with the mark of what is inferred behind it.
const TIME: usize = 12;

/// What the rows of a packet have in common.
struct Setting {
    /// Columns of the device.
    column: usize,
    /// The header that was told last, for each layer.
    told: BTreeMap<u8, Header>,
}

/// Write a packet's steps from `from` on, and what became of it where no step says it.
pub fn write(page: &mut Page, packet: &Packet, from: usize) {
    let steps = packet.steps.get(from..).unwrap_or_default();
    let short: Vec<Step> = match is_short(page, packet) {
        true => steps.iter().filter(|step| moves(step)).cloned().collect(),
        false => Vec::new(),
    };
    let steps = if short.is_empty() { steps } else { &short };
    page.has_short |= !short.is_empty();
    let mut setting = Setting {
        column: steps.iter().map(|s| display_width(&Row::of(s).column)).max().unwrap_or(0).clamp(9, 15),
        told: BTreeMap::new(),
    };
    let mut at = None;
    for group in groups(steps, page.style.wide) {
        let Some(first) = group.first().copied() else { continue };
        if at != Some((&first.place, &first.host)) {
            at = Some((&first.place, &first.host));
            page.line(&place(&first.place, first.host.as_ref()), WHERE);
        }
        let met: Vec<&RuleMet> = group.iter().filter_map(|s| rule(s)).collect();
        let row = if group.len() > 1 || passes(first, page.style.wide) { Row::passed(&group, &met) } else { None };
        write_row(page, &row.unwrap_or_else(|| Row::of(first)), &mut setting);
    }
    fate(page, packet);
}

/// Whether of a packet's way only the devices are told, and what changed it: that of an answer which came.
fn is_short(page: &Page, packet: &Packet) -> bool {
    let came = matches!(packet.fate, Fate::Delivered { .. });
    packet.direction == Direction::Back && came && !page.style.reply && !page.style.wide
}

fn moves(step: &Step) -> bool {
    match step.what {
        What::Rule(_) | What::Routed(_) | What::Neighbour { .. } | What::Sent { .. } => false,
        What::Bridged { .. } => !step.is_inferred(),
        _ => true,
    }
}

fn rule(step: &Step) -> Option<&RuleMet> {
    match &step.what {
        What::Rule(rule) => Some(rule),
        _ => None,
    }
}

/// Whether a step is a rule that needs no more than its name.
fn passes(step: &Step, wide: bool) -> bool {
    !wide && rule(step).is_some_and(|rule| !rules::decides(rule))
}

/// Steps one by one; rules of a table that were only passed through together.
fn groups(steps: &[Step], wide: bool) -> Vec<Vec<&Step>> {
    let mut groups: Vec<Vec<&Step>> = Vec::new();
    for step in steps {
        let together = |other: &Step| {
            (passes(other, wide) && passes(step, wide) && other.place == step.place && other.layer == step.layer)
                && rule(other).map(RuleMet::in_table) == rule(step).map(RuleMet::in_table)
        };
        match groups.last_mut() {
            Some(group) if group.last().is_some_and(|other| together(other)) => group.push(step),
            _ => groups.push(vec![step]),
        }
    }
    groups
}

fn write_row(page: &mut Page, row: &Row, setting: &mut Setting) {
    let marked = page.marks && row.is_inferred;
    page.has_mark |= marked;
    let bars = "│ ".repeat(usize::from(row.layer.min(3)));
    let column: String = wrap(&row.column, setting.column).into_iter().next().unwrap_or_default();
    let column = format!("{column}{}", " ".repeat(setting.column.saturating_sub(display_width(&column))));
    let mark = if marked { " ~ " } else { "   " };
    let time = page.paint(&time(row.at), DIM);
    let start = TIME + setting.column + 2;
    let lead = Lead {
        first: format!("{time}{mark}{}{}  ", page.paint(&bars, DIM), page.paint(&column, PLAIN)),
        rest: format!("{}{}{}", " ".repeat(TIME), page.paint(&bars, DIM), " ".repeat(setting.column + 2)),
    };
    match row.header.and_then(|h| news(page, h, row, setting)) {
        Some(News::Header(header)) if fits_beside(page, row, &header, start + display_width(&bars)) => {
            beside(page, &lead, row, &header);
        }
        Some(News::Header(header)) => {
            page.hang(&lead, &row.text, row.ink);
            below(page, &bars, setting, &Below::Says("", header));
        }
        Some(News::Ttl(ttl)) => page.hang(&lead, &format!("{}, TTL {ttl}", row.text), row.ink),
        None => page.hang(&lead, &row.text, row.ink),
    }
    for line in &row.below {
        below(page, &bars, setting, line);
    }
    match row.below.first() {
        Some(Below::Changed(_, after)) => setting.told.insert(row.layer, (*after).clone()),
        Some(Below::Outer(outer)) => setting.told.insert(row.layer.saturating_add(1), (*outer).clone()),
        _ => None,
    };
}

fn header_text(header: &Header, page: &Page) -> String {
    if page.style.wide { whole(header) } else { header.to_string() }
}

/// What is new in a header.
enum News {
    Header(String),
    /// Nothing but the time to live.
    Ttl(u8),
}

/// What a header has that the one told last has not.
fn news(page: &Page, header: &Header, row: &Row, setting: &mut Setting) -> Option<News> {
    let last = setting.told.insert(row.layer, header.clone());
    let text = header_text(header, page);
    match last {
        Some(ref last) if header_text(last, page) == text => None,
        Some(ref last) if page.style.width < ROOMY && header_text(&with_ttl(last, header.ttl), page) == text => {
            Some(News::Ttl(header.ttl))
        }
        _ => Some(News::Header(text)),
    }
}

fn with_ttl(header: &Header, ttl: u8) -> Header {
    Header { ttl, ..header.clone() }
}

fn fits_beside(page: &Page, row: &Row, header: &str, start: usize) -> bool {
    let room = page.style.width.saturating_sub(start + HEADER + 2);
    page.style.width >= ROOMY && display_width(header) <= HEADER && display_width(&row.text) <= room
}

/// A row with its header in a column of its own.
fn beside(page: &mut Page, lead: &Lead, row: &Row, header: &str) {
    let left = format!("{}{}", lead.first, page.paint(&row.text, row.ink));
    let gap = page.style.width.saturating_sub(HEADER + display_width(&left));
    let line = format!("{left}{}{}", " ".repeat(gap), page.paint(header, DIM));
    page.raw(&line);
}

/// A line below a step: under its text where there is room, else under its device.
fn below(page: &mut Page, bars: &str, setting: &Setting, line: &Below) {
    let indent = if page.style.width >= 100 { setting.column + 4 } else { 2 };
    let margin = format!("{}{}{}", " ".repeat(TIME), page.paint(bars, DIM), " ".repeat(indent));
    let lead = Lead { first: margin.clone(), rest: format!("{margin}  ") };
    match line {
        Below::Says("", text) => page.hang(&lead, text, DIM),
        Below::Says(label, text) => page.hang(&lead, &format!("{label}: {text}"), DIM),
        Below::Outer(header) => page.hang(&lead, &format!("outer: {}", header_text(header, page)), DIM),
        Below::Rule(rule) => page.rule(&lead, rule, DIM),
        Below::Changed(before, after) => {
            changed(page, &lead, [header_text(before, page), header_text(after, page)]);
        }
    }
}

/// Both headers with what is different marked.
fn changed(page: &mut Page, lead: &Lead, [before, after]: [String; 2]) {
    let (was, is): (Vec<&str>, Vec<&str>) = (before.split(' ').collect(), after.split(' ').collect());
    let room = page.style.width.saturating_sub(display_width(&lead.first) + "before  ".len());
    if before.len() > room || after.len() > room {
        page.hang(lead, &format!("before  {before}"), PLAIN);
        return page.hang(lead, &format!("after   {after}"), CHANGED);
    }
    let words = |page: &Page, words: &[&str], others: &[&str]| -> String {
        let ink =
            |(n, word): (usize, &&str)| page.paint(word, if others.get(n) == Some(word) { PLAIN } else { CHANGED });
        words.iter().enumerate().map(ink).collect::<Vec<_>>().join(" ")
    };
    page.raw(&format!("{}before  {}", lead.first, words(page, &was, &is)));
    page.raw(&format!("{}after   {}", lead.first, words(page, &is, &was)));
    let under = |(n, word): (usize, &&str)| {
        let (word, same) = (word.trim_end_matches(','), was.get(n) == Some(word));
        (if same { " " } else { "^" }).repeat(word.len()) + " "
    };
    let marks: String = is.iter().enumerate().map(under).collect();
    page.raw(&format!("{}        {}", lead.first, page.paint(marks.trim_end(), CHANGED)));
}

/// What became of a packet, where its last step does not say it.
fn fate(page: &mut Page, packet: &Packet) {
    let last = packet.steps.last().map(|s| &s.what);
    let lead = Lead::label(&" ".repeat(TIME));
    let text = match (&packet.fate, last) {
        (Fate::Delivered { .. }, Some(What::Delivered { .. } | What::Proxied { .. } | What::Asked { .. })) => return,
        (Fate::Delivered { to }, _) => return page.hang(&lead, &format!("It arrived at {to}."), PLAIN),
        (Fate::Dropped, Some(What::Dropped(_))) | (Fate::Refused, Some(What::Refused { .. })) => return,
        (Fate::Dropped, _) => format!("It was dropped{}.", end(packet)),
        (Fate::Refused, _) => format!("It was refused{}.", end(packet)),
        (Fate::Lost, _) => format!("It was seen last{}, and nothing tells of its end.", end(packet)),
    };
    page.hang(&lead, &text, BAD);
}

/// Where the last step was: ` on node1 at eth0`.
fn end(packet: &Packet) -> String {
    let Some(last) = packet.steps.last() else { return String::new() };
    let dev = last.dev.as_ref().map(|d| format!(" at {d}")).unwrap_or_default();
    format!(" on {}{dev}", last.place)
}

/// Nanoseconds as a column of nine letters: `    12 µs`, ` 1.024 s`.
fn time(at: Option<u64>) -> String {
    match at {
        None => " ".repeat(9),
        Some(at) if at < 999_999_500 => format!("{:>6} µs", at.saturating_add(500) / 1000),
        Some(at) if at < 9_999_000_000_000 => format!("{:>7.3} s", at as f64 / 1e9),
        Some(at) => format!("{:>7} s", (at / 1_000_000_000).min(9_999_999)),
    }
}

/// A duration in a sentence: `12 µs`, `1.024 s`.
pub fn duration(nanoseconds: u64) -> String {
    time(Some(nanoseconds)).trim().to_owned()
}
