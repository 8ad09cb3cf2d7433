//! How problems look: `miette`'s drawing of the source line with the place marked, for people;
//! one JSON object each, for programs.

use std::fmt;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};

use super::{Place, Problem, Problems, Severity, Sources};

/// Lines longer than this are cut around the place, so that a file of one huge line stays readable.
const WIDEST_LINE: usize = 2_000;

struct Shown<'a> {
    problem: &'a Problem,
    source: Option<NamedSource<String>>,
    labels: Vec<LabeledSpan>,
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.problem, f)
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.message)
    }
}

impl std::error::Error for Shown<'_> {}

impl miette::Diagnostic for Shown<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.problem.code))
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.problem.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.problem.help.as_ref().map(|h| Box::new(h) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|s| s as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.labels.iter().cloned()))
    }
}

/// The part of a large source that a problem's labels need, and where it begins; nothing where
/// the source is small enough to be shown as it is.
fn excerpt(text: &str, places: &[(Place, String)]) -> Option<(String, usize)> {
    let first = places.iter().map(|(p, _)| p.start as usize).min()?;
    let last = places.iter().map(|(p, _)| p.end as usize).max()?;
    if text.lines().all(|l| l.len() <= WIDEST_LINE) {
        return None;
    }
    let mut start = first.saturating_sub(200).min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let mut end = last.min(first + WIDEST_LINE).saturating_add(200).min(text.len());
    while !text.is_char_boundary(end) {
        end += 1;
    }
    Some((text[start..end].to_owned(), start))
}

fn shown<'a>(problem: &'a Problem, sources: &Sources) -> Shown<'a> {
    let source = problem.labels.first().and_then(|(p, _)| sources.get(p.source));
    let Some(source) = source else { return Shown { problem, source: None, labels: Vec::new() } };
    let here = problem.labels[0].0.source;
    let places: Vec<_> = problem.labels.iter().filter(|(p, _)| p.source == here).cloned().collect();
    let (text, offset) = excerpt(&source.text, &places).unwrap_or((source.text.to_string(), 0));
    let labels = places
        .iter()
        .map(|(p, words)| {
            let start = (p.start as usize).saturating_sub(offset).min(text.len());
            let end = (p.end as usize).saturating_sub(offset).clamp(start, text.len());
            LabeledSpan::new(Some(words.clone()).filter(|w| !w.is_empty()), start, end - start)
        })
        .collect();
    Shown { problem, source: Some(NamedSource::new(&source.name, text)), labels }
}

/// Draw all problems, with colours where `colour` says so, one after the other.
pub fn to_text(problems: &Problems, sources: &Sources, colour: bool, width: usize) -> String {
    let theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme).with_width(width).with_links(false);
    let mut out = String::new();
    for problem in problems.iter() {
        // Writing to a String cannot fail, and a drawing that did would lose only itself.
        if handler.render_report(&mut out, &shown(problem, sources)).is_err() {
            out.push_str(&problem.to_string());
        }
        out.push('\n');
    }
    out
}

/// The same for programs: code, severity, message, help and places as file, line and column
/// (both counted from 1).
pub fn to_json(problems: &Problems, sources: &Sources) -> serde_json::Value {
    problems.iter().map(|p| one_json(p, sources)).collect()
}

fn one_json(problem: &Problem, sources: &Sources) -> serde_json::Value {
    let places: Vec<_> = problem
        .labels
        .iter()
        .filter_map(|(place, words)| {
            let source = sources.get(place.source)?;
            let (line, column) = line_and_column(&source.text, place.start as usize);
            Some(serde_json::json!({ "file": source.name, "line": line, "column": column, "label": words }))
        })
        .collect();
    serde_json::json!({
        "code": problem.code.as_str(),
        "severity": match problem.severity { Severity::Error => "error", Severity::Warning => "warning" },
        "message": problem.message,
        "help": problem.help,
        "places": places,
    })
}

/// Line and column of a byte offset, both from 1, the column in characters.
pub fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
    (line, column)
}
