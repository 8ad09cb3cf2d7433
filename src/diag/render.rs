//! How problems look: `miette`'s drawing of the source line with the place marked, for people;
//! one JSON object each, for programs.
//!
//! Both take time in proportion to what they show, not to the size of the file: the lines of a
//! source are counted once, and of a line that is very long only the part around the place is drawn.

use std::fmt;

use miette::{
    GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents, SourceCode, SourceSpan,
    SpanContents,
};

use super::{Place, Problem, Problems, Severity, Source, Sources};

/// Of longer lines only so much is shown before and behind a place, in bytes.
const LONGEST_LINE: usize = 1_000;
const AROUND: usize = 60;

/// A source whose lines are known.
struct Indexed<'a> {
    source: &'a Source,
    /// Where each line begins, in bytes.
    lines: Vec<usize>,
}

impl<'a> Indexed<'a> {
    fn new(source: &'a Source) -> Self {
        let ends = source.text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Indexed { source, lines: std::iter::once(0).chain(ends).collect() }
    }

    fn line_of(&self, offset: usize) -> usize {
        self.lines.partition_point(|start| *start <= offset).saturating_sub(1)
    }

    fn start(&self, line: usize) -> usize {
        self.lines.get(line).copied().unwrap_or(self.source.text.len())
    }

    /// Behind the line's last letter.
    fn end(&self, line: usize) -> usize {
        let end = self.start(line + 1);
        if self.source.text[..end].ends_with('\n') { end - 1 } else { end }
    }

    fn boundary(&self, mut offset: usize) -> usize {
        while !self.source.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }

    /// The part of a place that is drawn: what is on its first line, of a long line the beginning.
    fn drawn(&self, place: Place) -> (usize, usize) {
        let start = self.boundary((place.start as usize).min(self.source.text.len()));
        let end = (place.end as usize).min(self.end(self.line_of(start))).min(start + LONGEST_LINE).max(start);
        (start, self.boundary(end))
    }
}

impl SourceCode for Indexed<'_> {
    fn read_span<'b>(
        &'b self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'b> + 'b>, MietteError> {
        let (first, last) = (span.offset(), span.offset() + span.len());
        if last > self.source.text.len() {
            return Err(MietteError::OutOfBounds);
        }
        let top = self.line_of(first).saturating_sub(before);
        let mut start = if before == 0 { first } else { self.start(top) };
        let mut end = self.start(self.line_of(last).saturating_add(after + 1));
        if end - start > LONGEST_LINE * (before + after + 1) {
            start = self.boundary(start.max(first.saturating_sub(AROUND)));
            end = self.boundary(end.min(last + AROUND));
        }
        let line = self.line_of(start);
        let column = self.source.text[self.start(line)..start].chars().count();
        let data = &self.source.text.as_bytes()[start..end];
        let lines = data.iter().filter(|b| **b == b'\n').count();
        let shown = SourceSpan::from((start, end - start));
        Ok(Box::new(MietteSpanContents::new_named(self.source.name.clone(), data, shown, line, column, lines)))
    }
}

struct Shown<'a> {
    problem: &'a Problem,
    source: Option<&'a Indexed<'a>>,
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
        self.source.map(|s| s as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.labels.iter().cloned()))
    }
}

fn shown<'a>(problem: &'a Problem, sources: &'a [Indexed<'a>]) -> Shown<'a> {
    let first = problem.labels.first().map(|(p, _)| *p);
    let source = first.and_then(|p| sources.get(usize::from(p.source)));
    let (Some(first), Some(source)) = (first, source) else {
        return Shown { problem, source: None, labels: Vec::new() };
    };
    let near = |p: &Place| p.start.abs_diff(first.start) as usize <= LONGEST_LINE;
    // Of two places far apart on one very long line only the first can be shown.
    let fits = |p: &Place| {
        p.source == first.source
            && (near(p) || source.line_of(p.start as usize) != source.line_of(first.start as usize))
    };
    let labels = problem.labels.iter().filter(|(p, _)| fits(p)).map(|(p, words)| {
        let (start, end) = source.drawn(*p);
        LabeledSpan::new(Some(words.clone()).filter(|w| !w.is_empty()), start, end - start)
    });
    Shown { problem, source: Some(source), labels: labels.collect() }
}

/// Draw all problems, with colours where `colour` says so, one after the other.
pub fn to_text(problems: &Problems, sources: &Sources, colour: bool, width: usize) -> String {
    let theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme).with_width(width).with_links(false);
    let sources: Vec<Indexed> = sources.iter().map(Indexed::new).collect();
    let mut out = String::new();
    for problem in problems.iter() {
        // Writing to a String cannot fail, and a drawing that did would lose only itself.
        if handler.render_report(&mut out, &shown(problem, &sources)).is_err() {
            out.push_str(&problem.to_string());
        }
        out.push('\n');
    }
    if problems.left_out() > 0 {
        out.push_str(&format!("… and {} more problems; mend these first\n", problems.left_out()));
    }
    out
}

/// The same for programs: code, severity, message, help and places as file, line and column
/// (both counted from 1).
pub fn to_json(problems: &Problems, sources: &Sources) -> serde_json::Value {
    let sources: Vec<Indexed> = sources.iter().map(Indexed::new).collect();
    problems.iter().map(|p| one_json(p, &sources)).collect()
}

fn one_json(problem: &Problem, sources: &[Indexed]) -> serde_json::Value {
    let places: Vec<_> = problem
        .labels
        .iter()
        .filter_map(|(place, words)| {
            let source = sources.get(usize::from(place.source))?;
            let (start, _) = source.drawn(*place);
            let line = source.line_of(start);
            let column = source.source.text[source.start(line)..start].chars().count();
            let file = &source.source.name;
            Some(serde_json::json!({ "file": file, "line": line + 1, "column": column + 1, "label": words }))
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
