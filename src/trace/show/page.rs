//! Lines of a page: wrapped to its width and painted where colour is wanted. What the lines say is
//! the business of others.

use anstyle::{AnsiColor, Style as Ink};
use textwrap::core::display_width;
use textwrap::{Options, WordSeparator, WordSplitter, WrapAlgorithm};

use super::{NARROWEST, Style};

pub const PLAIN: Ink = Ink::new();
pub const BOLD: Ink = Ink::new().bold();
pub const DIM: Ink = Ink::new().dimmed();
pub const GOOD: Ink = AnsiColor::Green.on_default();
pub const BAD: Ink = AnsiColor::Red.on_default().bold();
pub const CHANGED: Ink = AnsiColor::Yellow.on_default().bold();
pub const WHERE: Ink = AnsiColor::Cyan.on_default().bold();

/// A text that grows by lines.
pub struct Page {
    pub style: Style,
    text: String,
    /// Whether inferred steps are marked: not where all of them are.
    pub marks: bool,
    /// Whether a mark stands on it, which wants a legend.
    pub has_mark: bool,
    /// Whether a way back was told in short.
    pub has_short: bool,
}

/// What stands in front of a text: of its first line and of those that follow.
#[derive(Debug, Clone, Default)]
pub struct Lead {
    pub first: String,
    pub rest: String,
}

impl Lead {
    /// A label, and blanks below it.
    pub fn label(text: &str) -> Lead {
        Lead { first: text.to_owned(), rest: " ".repeat(display_width(text)) }
    }
}

impl Page {
    pub fn new(style: &Style) -> Page {
        let style = Style { width: style.width.max(NARROWEST), ..*style };
        Page { style, text: String::new(), marks: true, has_mark: false, has_short: false }
    }

    pub fn into_text(self) -> String {
        self.text
    }

    /// `text` as it looks, without anything that would break a line or steer a terminal.
    pub fn paint(&self, text: &str, ink: Ink) -> String {
        let text = one_line(text);
        if self.style.colour && !text.is_empty() && ink != PLAIN { format!("{ink}{text}{ink:#}") } else { text }
    }

    /// A line that is already painted, and known to fit.
    pub fn raw(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    pub fn blank(&mut self) {
        self.text.push('\n');
    }

    /// A text from the first column on.
    pub fn line(&mut self, text: &str, ink: Ink) {
        self.hang(&Lead::default(), text, ink);
    }

    /// A text behind `lead`, which may be painted.
    pub fn hang(&mut self, lead: &Lead, text: &str, ink: Ink) {
        let lead_width = display_width(&lead.first).max(display_width(&lead.rest));
        self.lines(lead, &wrap(text, self.style.width.saturating_sub(lead_width)), ink);
    }

    /// A rule, which is broken between its options, and within one only where that alone is too long.
    pub fn rule(&mut self, lead: &Lead, rule: &str, ink: Ink) {
        let width = self.style.width.saturating_sub(display_width(&lead.rest));
        self.lines(lead, &fill(pieces(&one_line(rule), width), width), ink);
    }

    /// A command, which a shell takes as it stands: a line that goes on ends with a backslash.
    pub fn command(&mut self, lead: &Lead, command: &str, ink: Ink) {
        let width = self.style.width.saturating_sub(display_width(&lead.rest) + 2);
        let command = one_line(command);
        let lines = fill(words(&command).into_iter().map(str::to_owned).collect(), width);
        let last = lines.len().saturating_sub(1);
        let lines = lines.into_iter().enumerate();
        let lines: Vec<_> = lines.map(|(n, line)| if n == last { line } else { format!("{line} \\") }).collect();
        self.lines(lead, &lines, ink);
    }

    fn lines(&mut self, lead: &Lead, lines: &[String], ink: Ink) {
        for (n, line) in lines.iter().enumerate() {
            let painted = self.paint(line, ink);
            let lead = if n == 0 { &lead.first } else { &lead.rest };
            self.raw(&format!("{lead}{painted}"));
        }
    }

    /// A heading with a line drawn to the end of the row.
    pub fn ruled(&mut self, stroke: char, text: &str, ink: Ink) {
        let lead = Lead { first: format!("{stroke}{stroke} "), rest: "   ".to_owned() };
        let room = self.style.width.saturating_sub(display_width(&lead.first) + display_width(&one_line(text)) + 1);
        if room < 2 {
            return self.hang(&lead, text, ink);
        }
        let stroke = stroke.to_string();
        let (two, text, fill) =
            (self.paint(&stroke.repeat(2), DIM), self.paint(text, ink), self.paint(&stroke.repeat(room.min(100)), DIM));
        self.raw(&format!("{two} {text} {fill}"));
    }
}

/// A blank at which no line is broken that has room for what it glues together.
pub const GLUE: char = '\u{a0}';

/// Lines of at most `width` columns, broken between words, and within those that are longer than that.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let options = Options::new(width.max(2))
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation)
        .wrap_algorithm(WrapAlgorithm::FirstFit);
    // What is glued together and does not fit is broken at its blanks after all.
    let loose = |word: &str| if display_width(word) > width { word.replace(GLUE, " ") } else { word.to_owned() };
    let text: Vec<String> = one_line(text).trim().split(' ').map(loose).collect();
    textwrap::wrap(&text.join(" "), options).into_iter().map(|line| line.replace(GLUE, " ")).collect()
}

/// What stays together in a rule's text: an option with its value. One that is wider than `most` falls
/// into its words.
fn pieces(text: &str, most: usize) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    for word in words(text) {
        let begins = word == "!" || (word.len() > 1 && word.starts_with('-'));
        match pieces.last_mut() {
            Some(last) if last == "!" || !begins => *last += &format!(" {word}"),
            _ => pieces.push(word.to_owned()),
        }
    }
    let split = |piece: String| match display_width(&piece) > most {
        true => piece.split(' ').map(str::to_owned).collect(),
        false => vec![piece],
    };
    pieces.into_iter().flat_map(split).collect()
}

/// As many pieces in a line as fit.
fn fill(pieces: Vec<String>, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for piece in pieces {
        match lines.last_mut() {
            Some(line) if display_width(line) + 1 + display_width(&piece) <= width => *line += &format!(" {piece}"),
            _ => lines.push(piece),
        }
    }
    lines
}

/// The words of a rule or command; a text in quotes is one.
pub fn words(text: &str) -> Vec<&str> {
    let (mut words, mut start, mut quote) = (Vec::new(), 0, None);
    for (at, c) in text.char_indices() {
        match (c, quote) {
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            (' ', None) => {
                words.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    words.push(&text[start..]);
    words.retain(|w| !w.is_empty());
    words
}

/// Text from rules, servers and programs without what would break a line or steer a terminal.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_invisible(c) { ' ' } else { c }).collect()
}

/// Line and paragraph separators, and what turns the direction of writing.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str =
        r#"-A KUBE-SERVICES ! -d 10.96.0.101/32 -p tcp -m comment --comment "it's -d for all" -j KUBE-SVC-Z"#;

    #[test]
    fn a_rule_is_broken_between_options_and_stays_complete() {
        let lines = fill(pieces(RULE, 36), 36);
        let broken = [
            "-A KUBE-SERVICES ! -d 10.96.0.101/32",
            "-p tcp -m comment",
            r#"--comment "it's -d for all""#,
            "-j KUBE-SVC-Z",
        ];
        assert_eq!(lines, broken);
        assert_eq!(lines.join(" "), RULE);
    }

    #[test]
    fn an_option_that_is_too_long_is_broken_within() {
        let lines = fill(pieces(RULE, 20), 20);
        assert_eq!(lines.join(" "), RULE);
        assert!(lines.contains(&r#"--comment "it's -d"#.to_owned()), "{lines:?}");
    }

    #[test]
    fn a_command_goes_on_behind_a_backslash() {
        let mut page = Page::new(&Style { width: 60, colour: false, why: true, wide: false, reply: false });
        let command = "labctl exec node1 -- sysctl -w net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0";
        page.command(&Lead::label("  "), command, PLAIN);
        let text = page.into_text();
        assert_eq!(text.replace(" \\\n  ", " "), format!("  {command}\n"), "{text}");
        assert!(text.lines().count() > 1, "{text}");
    }
}
