//! Paths that are regular expressions. nginx and HAProxy read those of PCRE, the built-in controller
//! those of the regex crate, which has no look-around. Here is what is wrong for all of them.

use regex_syntax::ast::ErrorKind;
use regex_syntax::ast::parse::Parser;

/// Why `text` is no regular expression for anyone, in a few words. A controller that were given one
/// would refuse all rules, not only this one.
pub fn fault(text: &str) -> Option<String> {
    let error = Parser::new().parse(text).err()?;
    let everywhere = matches!(
        error.kind(),
        ErrorKind::ClassUnclosed
            | ErrorKind::ClassRangeInvalid
            | ErrorKind::EscapeUnexpectedEof
            | ErrorKind::GroupUnclosed
            | ErrorKind::GroupUnopened
            | ErrorKind::RepetitionCountInvalid
            | ErrorKind::RepetitionMissing
    );
    everywhere.then(|| error.kind().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_can_read_is_told_and_what_only_some_can_is_not() {
        for bad in ["/a(", "/a)", "/[a", "*", "/a\\", "/[z-a]"] {
            assert!(fault(bad).is_some(), "{bad}");
        }
        for good in ["/tea(/|$)(.*)", "/x(?=y)", "/(a)\\1", "/[^/]+", "/a++"] {
            assert_eq!(fault(good), None, "{good}");
        }
    }
}
