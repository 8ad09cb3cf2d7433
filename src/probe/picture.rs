//! The answers of a probe that was asked several times, as a picture: one bar for each of those who
//! answered. Plain SVG that needs nothing beside it, so that it can stand in a book, a report or a
//! pull request. Where it is written to is the caller's business.

use std::fmt::Write;

use super::outcome::Outcome;

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
/// Bars stand in the order of their names, and the most frequent one has the full length.
pub fn bars(outcome: &Outcome) -> Option<String> {
    let counts = &outcome.details.distribution;
    let most = *counts.values().max()?;
    let all: u64 = counts.values().sum();
    let height = TOP + STEP * counts.len() as u64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\"\n     font-family=\"sans-serif\" font-size=\"14\" fill=\"#222\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    let title = text(&outcome.name, WIDEST_LINE);
    let asked = format!("{all} answers to {} {}, asked from {}", outcome.kind, outcome.target, outcome.from);
    let asked = text(&asked, WIDEST_LINE);
    // Writing into a string cannot fail.
    let _ = writeln!(svg, "<text x=\"20\" y=\"26\" font-weight=\"bold\">{title}</text>");
    let _ = writeln!(svg, "<text x=\"20\" y=\"48\">{asked}</text>");
    for (n, (name, count)) in counts.iter().enumerate() {
        let top = TOP + STEP * n as u64;
        let line = top + 19;
        let length = (count * LONGEST / most.max(1)).max(1);
        let (end, name) = (LEFT - 10, text(name, WIDEST_NAME));
        let share = *count as f64 * 100.0 / all.max(1) as f64;
        let _ = writeln!(svg, "<text x=\"{end}\" y=\"{line}\" text-anchor=\"end\">{name}</text>");
        let _ =
            writeln!(svg, "<rect x=\"{LEFT}\" y=\"{top}\" width=\"{length}\" height=\"{HEIGHT}\" fill=\"#4a7ebb\"/>");
        let behind = LEFT + length + 8;
        let _ = writeln!(svg, "<text x=\"{behind}\" y=\"{line}\">{count} ({share:.1} %)</text>");
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

/// Text of at most `most` letters as XML takes it. XML has no control characters at all.
fn text(raw: &str, most: usize) -> String {
    let mut letters = raw.chars();
    let mut safe = String::new();
    for c in letters.by_ref().take(most) {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => safe.push(' '),
            c => safe.push(c),
        }
    }
    if letters.next().is_some() {
        safe.push('…');
    }
    safe
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
    fn there_is_no_picture_without_answers() {
        assert_eq!(bars(&outcome("once", &[])), None);
    }

    #[test]
    fn what_a_name_contains_does_not_break_the_picture() {
        let svg = bars(&outcome("a <b> & \u{1b}\"c\"", &[("<script>", 1)])).expect("a picture");
        assert!(svg.contains(">a &lt;b&gt; &amp;  \"c\"</text>"), "{svg}");
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
