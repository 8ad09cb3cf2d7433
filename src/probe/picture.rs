//! The answers of a probe that was asked several times, as a picture: one bar for each of those who
//! answered. Plain SVG that needs nothing beside it, so that it can stand in a book, a report or a
//! pull request. Where it is written to is the caller's business.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::outcome::Outcome;
use crate::lab::names::named;
use crate::xml::text;

const WIDTH: u64 = 720;
/// Where the bars begin, and the length of the longest.
const LEFT: u64 = 150;
const LONGEST: u64 = 400;
/// From one bar to the next, and a bar's height.
const STEP: u64 = 44;
const HEIGHT: u64 = 28;
/// Where the first bar is: under a title and a line that says what was asked.
const TOP: u64 = 72;

/// Letters of 14 pixels that fit into a line of the picture, and in front of a bar.
const WIDEST_LINE: usize = 84;
const WIDEST_NAME: usize = 16;

/// The picture of `outcome`, or nothing where it was asked only once or nobody answered.
///
/// Each bar bears the name of one who answered, how often, and the share of all answers in per cent.
/// Bars stand in the order of their names, and the most frequent one has the full length. Where the probe
/// expects a share of one, a line marks it, in a shade as wide as its tolerance; one of whom a share is
/// expected by name has a bar also where it never answered.
pub fn bars(outcome: &Outcome) -> Option<String> {
    outcome.details.distribution.values().max().filter(|most| **most > 0)?;
    let rows = rows(outcome);
    let expects = rows.iter().any(|row| row.expected.is_some());
    let ends = |row: &Row| row.share.max(row.expected.map_or(0.0, |[.., to]| to));
    let scale = Scale(rows.iter().map(ends).fold(0.0, f64::max));
    let height = TOP + STEP * rows.len() as u64 + if expects { STEP / 2 } else { 0 };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\"\n     font-family=\"sans-serif\" font-size=\"14\" fill=\"#222\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    let title = text(&outcome.name, WIDEST_LINE);
    let all: u64 = rows.iter().map(|row| row.count).sum();
    let asked = format!("{all} answers to {} {}, asked from {}", outcome.kind, outcome.target, outcome.from);
    let asked = text(&asked, WIDEST_LINE);
    // Writing into a string cannot fail.
    let _ = writeln!(svg, "<text x=\"20\" y=\"26\" font-weight=\"bold\">{title}</text>");
    let _ = writeln!(svg, "<text x=\"20\" y=\"48\">{asked}</text>");
    for (n, row) in rows.iter().enumerate() {
        row.draw(&mut svg, TOP + STEP * n as u64, &scale);
    }
    if expects {
        let line = height - 12;
        let what = "The line marks the share that is expected, the shade around it what passes.";
        let _ = writeln!(svg, "<text x=\"20\" y=\"{line}\">{what}</text>");
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

/// One who answered, or of whom answers were expected.
struct Row<'o> {
    name: &'o str,
    count: u64,
    share: f64,
    /// The share that is expected, and the smallest and the largest that pass.
    expected: Option<[f64; 3]>,
}

/// The largest share that is drawn, which has the full length.
struct Scale(f64);

impl Scale {
    /// A share's length in pixels.
    fn length(&self, share: f64) -> u64 {
        (share * LONGEST as f64 / self.0).round() as u64
    }
}

fn rows(outcome: &Outcome) -> Vec<Row<'_>> {
    let details = &outcome.details;
    let counts = &details.distribution;
    let all = counts.values().sum::<u64>().max(1) as f64;
    let tolerance = details.tolerance.unwrap_or_default();
    // A share of several together says nothing of each.
    let is_alone = |pattern: &str| counts.keys().filter(|name| named(pattern, name)).count() == 1;
    let expected = |name: &str| {
        let of = details
            .expected_shares
            .iter()
            .find(|(pattern, _)| pattern.as_str() == name || (named(pattern, name) && is_alone(pattern)));
        of.map(|(_, share)| [*share, (share - tolerance).max(0.0), (share + tolerance).min(1.0)])
    };
    let by_name = details.expected_shares.keys().filter(|pattern| !pattern.contains('*'));
    let names: BTreeSet<&String> = counts.keys().chain(by_name).collect();
    let row = |name: &'_ String| counts.get(name).copied().unwrap_or_default();
    names
        .into_iter()
        .map(|name| Row { name, count: row(name), share: row(name) as f64 / all, expected: expected(name) })
        .collect()
}

impl Row<'_> {
    fn draw(&self, svg: &mut String, top: u64, scale: &Scale) {
        let (line, end) = (top + 19, LEFT - 10);
        let length = scale.length(self.share).max(1);
        let name = text(self.name, WIDEST_NAME);
        let _ = writeln!(svg, "<text x=\"{end}\" y=\"{line}\" text-anchor=\"end\">{name}</text>");
        let _ =
            writeln!(svg, "<rect x=\"{LEFT}\" y=\"{top}\" width=\"{length}\" height=\"{HEIGHT}\" fill=\"#4a7ebb\"/>");
        let mut behind = LEFT + length + 8;
        if let Some(shares) = self.expected {
            let [share, from, to] = shares.map(|share| scale.length(share));
            let (x, y, width, height) = (LEFT + from, top - 4, to - from, HEIGHT + 8);
            let shade = "fill=\"#c4501b\" fill-opacity=\"0.2\"";
            let _ = writeln!(svg, "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" {shade}/>");
            let (at, bottom) = (LEFT + share, y + height);
            let stroke = "stroke=\"#c4501b\" stroke-width=\"2\"";
            let _ = writeln!(svg, "<line x1=\"{at}\" y1=\"{y}\" x2=\"{at}\" y2=\"{bottom}\" {stroke}/>");
            behind = behind.max(x + width + 8);
        }
        let (count, share) = (self.count, self.share * 100.0);
        let _ = writeln!(svg, "<text x=\"{behind}\" y=\"{line}\">{count} ({share:.1} %)</text>");
    }
}

/// A file name for the picture of a probe of a lab, such as `cafe-tea-over-https.svg`.
pub fn file_name(lab: &str, probe: &str) -> String {
    /// File systems take 255 bytes; the rest is left for a number behind it.
    const LONGEST_NAME: usize = 200;
    let plain = format!("{lab}-{probe}").to_lowercase();
    let words = plain.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty());
    let mut name = words.collect::<Vec<_>>().join("-");
    name.truncate(LONGEST_NAME);
    format!("{name}.svg")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::outcome::{Details, Kind, Verdict};
    use super::*;
    use crate::lab::names::NsName;

    fn outcome(name: &str, counts: &[(&str, u64)]) -> Outcome {
        let distribution: BTreeMap<String, u64> = counts.iter().map(|(n, c)| ((*n).to_owned(), *c)).collect();
        Outcome {
            name: name.to_owned(),
            from: NsName::try_from("pod/default/shell".to_owned()).expect("a name"),
            kind: Kind::Tcp,
            target: "tea-svc:80".to_owned(),
            tried: None,
            verdict: Verdict::Passed,
            expected: String::new(),
            observed: String::new(),
            tries: counts.iter().map(|(_, c)| c).sum(),
            took_ms: 1.0,
            details: Details { distribution, ..Details::default() },
        }
    }

    #[test]
    fn a_bar_is_as_long_as_its_share_of_the_most_frequent() {
        let svg = bars(&outcome("spread", &[("tea-1", 50), ("tea-2", 100), ("tea-3", 0)])).expect("a picture");
        let widths: Vec<&str> =
            svg.lines().filter(|l| l.contains("#4a7ebb")).filter_map(|l| l.split('"').nth(5)).collect();
        assert_eq!(widths, ["200", "400", "1"], "{svg}");
        assert!(
            svg.contains("50 (33.3 %)") && svg.contains("150 answers to tcp tea-svc:80, asked from shell"),
            "{svg}"
        );
    }

    #[test]
    fn an_expected_share_is_marked_with_its_tolerance() {
        let mut spread = outcome("spread", &[("tea-1", 50), ("tea-2", 150)]);
        let shares = [("tea-1", 0.5), ("tea-2", 0.5), ("tea-3", 0.0), ("coffee-*", 0.0)];
        spread.details.expected_shares = shares.map(|(name, share)| (name.to_owned(), share)).into();
        spread.details.tolerance = Some(0.1);
        let svg = bars(&spread).expect("a picture");
        let of = |what: &str, nth: usize| -> Vec<&str> {
            svg.lines().filter(|l| l.contains(what)).filter_map(|l| l.split('"').nth(nth)).collect()
        };
        // Three quarters have 400 pixels.
        assert_eq!(of("#4a7ebb", 5), ["133", "400", "1"], "{svg}");
        assert_eq!(of("<line", 1), ["417", "417", "150"], "{svg}");
        assert_eq!(
            (of("fill-opacity", 1), of("fill-opacity", 5)),
            (vec!["363", "363", "150"], vec!["107", "107", "53"])
        );
        assert!(svg.contains(">0 (0.0 %)</text>") && svg.contains("The line marks"), "{svg}");
        assert!(!svg.contains("coffee"), "a pattern that nobody fits has no name to be drawn");
    }

    #[test]
    fn there_is_no_picture_without_answers() {
        assert_eq!(bars(&outcome("once", &[])), None);
    }

    #[test]
    fn what_a_name_contains_does_not_break_the_picture() {
        let svg = bars(&outcome("a <b> & \u{1b}\"c\"", &[("<script>", 1)])).expect("a picture");
        assert!(svg.contains(">a &lt;b&gt; &amp;  &quot;c&quot;</text>"), "{svg}");
        assert!(svg.contains(">&lt;script&gt;</text>"), "{svg}");
        let long = bars(&outcome(&"x".repeat(300), &[("y", 1)])).expect("a picture");
        assert!(long.contains(&format!(">{}…</text>", "x".repeat(WIDEST_LINE))), "{long}");
    }

    #[test]
    fn a_file_is_named_after_lab_and_probe() {
        assert_eq!(file_name("cafe", "22: Tea, over https/2"), "cafe-22-tea-over-https-2.svg");
        assert_eq!(file_name("cafe", "../../é"), "cafe.svg");
        assert!(file_name("cafe", &"x".repeat(999)).len() < 255);
    }
}
