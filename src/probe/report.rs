//! Outcomes for people and programs: a table for terminals, JSON, and JUnit's XML. Where it is
//! written to is the caller's business.

use anstyle::{AnsiColor, Style};
use serde::Serialize;
use tabled::builder::Builder;
use tabled::settings::Style as Lines;

use super::outcome::{Outcome, Verdict};

/// How many probes passed and how many did not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    pub total: usize,
    pub passed: usize,
    pub differed: usize,
}

impl Summary {
    pub fn of(outcomes: &[Outcome]) -> Summary {
        let passed = outcomes.iter().filter(|o| o.passed()).count();
        Summary { total: outcomes.len(), passed, differed: outcomes.len() - passed }
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let probes = if self.total == 1 { "probe" } else { "probes" };
        write!(f, "{} {probes}: {} as expected", self.total, self.passed)?;
        match self.differed {
            0 => Ok(()),
            n => write!(f, ", {n} differed"),
        }
    }
}

/// The longest text of a cell on a terminal; what a differing probe saw stands on lines of its own,
/// uncut.
const WIDEST_CELL: usize = 64;

/// How a table is drawn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Look {
    pub colour: bool,
    /// Whether long texts are cut, so that lines fit on a screen.
    pub cut: bool,
    /// Whether there are more columns: what was asked, and how long it took.
    pub wide: bool,
}

/// A table with a line for each probe, for one that differed three more with what was asked, what
/// was expected and what was observed, and the summary.
pub fn table(outcomes: &[Outcome], look: Look) -> String {
    let paint = |text: &str, style: Style| {
        if look.colour { format!("{style}{text}{style:#}") } else { text.to_owned() }
    };
    let mut rows = Builder::with_capacity(outcomes.len() + 1, 6);
    let (asked, took) = if look.wide { (Some("ASKED"), Some("TOOK")) } else { (None, None) };
    let headings = ["RESULT", "PROBE", "FROM"].into_iter().chain(asked).chain(["SEEN"]).chain(took);
    rows.push_record(headings);
    for o in outcomes {
        let result = match o.verdict {
            Verdict::Passed => paint("passed", AnsiColor::Green.on_default()),
            Verdict::Differed => paint("differed", AnsiColor::Red.on_default().bold()),
        };
        let seen = if o.passed() { cell(&o.observed, look) } else { String::new() };
        let asked = asked.map(|_| cell(&what(o), look));
        let took = took.map(|_| format!("{:.1} ms", o.took_ms));
        let first = [result, cell(&o.name, look), o.from.to_string()];
        rows.push_record(first.into_iter().chain(asked).chain([seen]).chain(took));
    }
    let drawn = rows.build().with(Lines::blank()).to_string();
    let mut text = String::new();
    // The style pads every column on both sides; the first needs none.
    let mut lines = drawn.lines().map(|line| line.strip_prefix(' ').unwrap_or(line));
    let mut push = |line: &str| {
        text.push_str(line.trim_end());
        text.push('\n');
    };
    if !outcomes.is_empty() {
        push(lines.next().unwrap_or_default());
    }
    for (o, line) in outcomes.iter().zip(lines) {
        push(line);
        if !o.passed() {
            push(&format!("  {} {}", paint("asked:   ", Style::new().dimmed()), what(o)));
            push(&format!("  {} {}", paint("expected:", Style::new().dimmed()), one_line(&o.expected)));
            push(&format!("  {} {}", paint("observed:", Style::new().dimmed()), one_line(&o.observed)));
        }
    }
    push(&Summary::of(outcomes).to_string());
    text
}

/// What was asked, with the address that was tried where the target does not show it.
fn what(o: &Outcome) -> String {
    let target = one_line(&o.target);
    match &o.tried {
        Some(tried) if !o.target.contains(tried.as_str()) => format!("{} {target} ({tried})", o.kind),
        _ => format!("{} {target}", o.kind),
    }
}

/// Text from servers and programs without what would break a line or steer a terminal.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// One line, of at most [`WIDEST_CELL`] letters where it is to be cut.
fn cell(text: &str, look: Look) -> String {
    let text = one_line(text);
    match text.char_indices().nth(WIDEST_CELL).filter(|_| look.cut) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// `{"probes": [...], "summary": {...}}`.
pub fn json(outcomes: &[Outcome]) -> serde_json::Value {
    serde_json::json!({ "probes": outcomes, "summary": Summary::of(outcomes) })
}

/// What JUnit's XML tells of one lab.
#[derive(Debug, Clone, Copy)]
pub struct Suite<'a> {
    pub lab: &'a str,
    pub outcomes: &'a [Outcome],
    /// Where the packets of each outcome went, as text, in the same order; may be short.
    pub traces: &'a [Option<String>],
    /// Why the lab could not be tested, where it could not.
    pub failure: Option<&'a str>,
}

/// JUnit's XML, one suite for each lab. An error where the XML cannot be written, which memory
/// alone could cause.
pub fn junit(labs: &[Suite]) -> Result<String, quick_junit::SerializeError> {
    use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
    let mut report = Report::new("labctl");
    for Suite { lab, outcomes, traces, failure } in labs {
        let mut suite = TestSuite::new(*lab);
        let traces = traces.iter().map(Option::as_deref).chain(std::iter::repeat(None));
        for (o, trace) in outcomes.iter().zip(traces) {
            suite.add_test_case(case(lab, o, trace));
        }
        if let Some(why) = failure {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
            status.set_message(*why).set_type("lab");
            let mut case = TestCase::new("the lab can be tested", status);
            case.set_classname(*lab);
            suite.add_test_case(case);
        }
        suite.set_time(outcomes.iter().map(took).sum());
        report.add_test_suite(suite);
    }
    report.to_string()
}

fn case(lab: &str, o: &Outcome, trace: Option<&str>) -> quick_junit::TestCase {
    use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus};
    let status = match o.verdict {
        Verdict::Passed => TestCaseStatus::success(),
        Verdict::Differed => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(o.observed.as_str());
            status.set_type("differed");
            let asked = format!("from {}: {}", o.from, what(o));
            let trace = trace.map(|text| format!("\n\n{text}")).unwrap_or_default();
            status.set_description(format!("{asked}\nexpected: {}\nobserved: {}{trace}", o.expected, o.observed));
            status
        }
    };
    let mut case = TestCase::new(o.name.as_str(), status);
    case.set_classname(format!("{lab}.{}", o.from.path())).set_time(took(o));
    case
}

fn took(o: &Outcome) -> std::time::Duration {
    // A time that came from elsewhere as a negative number or none is no reason to fail.
    std::time::Duration::try_from_secs_f64(o.took_ms / 1e3).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::outcome::{Details, Kind};
    use super::*;
    use crate::lab::names::NsName;

    const PLAIN: Look = Look { colour: false, cut: false, wide: false };

    fn outcomes() -> Vec<Outcome> {
        let first = Outcome {
            name: "tea answers".into(),
            from: NsName::try_from("client/laptop".to_owned()).expect("a name"),
            kind: Kind::Http,
            target: "http://tea/".into(),
            tried: Some("10.244.1.2:80".into()),
            verdict: Verdict::Passed,
            expected: "an answer".into(),
            observed: "an answer from tea-1, status 200".into(),
            tries: 1,
            took_ms: 1.5,
            details: Details::default(),
        };
        let second = Outcome {
            name: "db is <closed>".into(),
            kind: Kind::Tcp,
            target: "10.244.1.3:5432".into(),
            tried: Some("10.244.1.3:5432".into()),
            verdict: Verdict::Differed,
            expected: "the failure `refused`".into(),
            observed: "an answer from db\u{1b}[2J\nyes".into(),
            ..first.clone()
        };
        vec![first, second]
    }

    #[test]
    fn a_table_shows_what_differed() {
        insta::assert_snapshot!(table(&outcomes(), PLAIN), @r"
        RESULT     PROBE            FROM     SEEN
        passed     tea answers      laptop   an answer from tea-1, status 200
        differed   db is <closed>   laptop
          asked:    tcp 10.244.1.3:5432
          expected: the failure `refused`
          observed: an answer from db [2J yes
        2 probes: 1 as expected, 1 differed
        ");
    }

    #[test]
    fn a_wide_table_shows_what_was_asked_and_how_long_it_took() {
        insta::assert_snapshot!(table(&outcomes()[..1], Look { wide: true, ..PLAIN }), @r"
        RESULT   PROBE         FROM     ASKED                              SEEN                               TOOK
        passed   tea answers   laptop   http http://tea/ (10.244.1.2:80)   an answer from tea-1, status 200   1.5 ms
        1 probe: 1 as expected
        ");
    }

    #[test]
    fn a_cell_is_cut_only_where_that_is_asked_for() {
        let long = "x".repeat(WIDEST_CELL + 1);
        let all = [Outcome { name: long.clone(), ..outcomes().remove(0) }];
        assert!(table(&all, PLAIN).contains(&long));
        let cut = table(&all, Look { cut: true, ..PLAIN });
        assert!(!cut.contains(&long) && cut.contains(&format!("{}…", "x".repeat(WIDEST_CELL))), "{cut}");
    }

    #[test]
    fn a_lab_that_could_not_be_tested_is_an_error_in_junit() {
        let xml =
            junit(&[Suite { lab: "cafe", outcomes: &[], traces: &[], failure: Some("no <iptables>") }]).expect("XML");
        assert!(xml.contains(r#"errors="1""#) && xml.contains("no &lt;iptables&gt;"), "{xml}");
    }

    #[test]
    fn colour_changes_no_letter() {
        let coloured = table(&outcomes(), Look { colour: true, ..PLAIN });
        assert!(coloured.contains("\u{1b}["));
        assert_eq!(anstream::adapter::strip_str(&coloured).to_string(), table(&outcomes(), PLAIN));
        assert!(!table(&outcomes(), PLAIN).contains('\u{1b}'), "what a server says cannot steer the terminal");
    }

    #[test]
    fn no_probes_are_said_so() {
        assert_eq!(table(&[], PLAIN), "0 probes: 0 as expected\n");
    }

    #[test]
    fn json_has_a_summary() {
        let json = json(&outcomes());
        assert_eq!(json["summary"], serde_json::json!({ "total": 2, "passed": 1, "differed": 1 }));
        assert_eq!(json["probes"][1]["verdict"], "differed");
    }

    #[test]
    fn junit_counts_what_differed_as_failures() {
        let all = outcomes();
        let traces = [None, Some("the <way> of it".to_owned())];
        let xml = junit(&[Suite { lab: "cafe", outcomes: &all, traces: &traces, failure: None }]).expect("XML");
        assert!(xml.contains("the &lt;way&gt; of it"), "{xml}");
        assert!(xml.contains(r#"<testsuites name="labctl" tests="2" skipped="0" failures="1""#), "{xml}");
        assert!(xml.contains("db is &lt;closed&gt;"), "{xml}");
        assert!(xml.contains(r#"classname="cafe.client/laptop""#), "{xml}");
    }
}
