//! Text of any origin as XML and HTML take it. What is drawn of it is others' business.

/// Text of at most `most` letters, safe between tags and between double quotes. XML has no control
/// characters at all.
pub fn text(raw: &str, most: usize) -> String {
    let mut letters = raw.chars();
    let mut safe = String::new();
    for c in letters.by_ref().take(most) {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => safe.push(' '),
            c => safe.push(c),
        }
    }
    if letters.next().is_some() {
        safe.push('…');
    }
    safe
}

/// The whole text, safe between tags and between double quotes.
pub fn whole(raw: &str) -> String {
    text(raw, usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_of_markup_are_written_as_entities_and_controls_as_blanks() {
        assert_eq!(whole("a<b> & \"c\"\u{1b}\u{ffff}"), "a&lt;b&gt; &amp; &quot;c&quot;  ");
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_and_says_so() {
        assert_eq!((text("tea-1", 5), text("tea-1", 4)), ("tea-1".to_owned(), "tea-…".to_owned()));
    }
}
