//! Words of haproxy.cfg. A word from an object is written in single quotes, in which nothing means
//! anything to HAProxy's reader (its manual, "Quoting and escaping"). A line ends a directive whatever
//! the quotes, so no word may have one.

/// A word as it is. Nothing where HAProxy cannot read it.
pub fn quote(word: &str) -> Option<String> {
    let fits = word.len() <= 4000 && !word.chars().any(char::is_control);
    fits.then(|| format!("'{}'", word.replace('\'', "'\\''")))
}

/// A word for a directive that reads it as a log format, without any of its variables.
pub fn quote_text(word: &str) -> Option<String> {
    quote(&word.replace('%', "%%"))
}

/// What a rewrite makes of the path: `$1` to `$9` as HAProxy writes groups, all else as it is.
pub fn quote_rewrite(target: &str) -> Option<String> {
    let mut text = String::new();
    let mut rest = target.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '$' if rest.peek().is_some_and(|next| ('1'..='9').contains(next)) => text.push('\\'),
            '\\' => text.push_str("\\\\"),
            '%' => text.push_str("%%"),
            c => text.push(c),
        }
    }
    quote(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_cannot_end_before_its_quote() {
        assert_eq!(quote("it's \"$HOME\" \\").unwrap(), "'it'\\''s \"$HOME\" \\'");
        assert_eq!(quote("a\nbackend evil"), None);
    }

    #[test]
    fn only_groups_mean_something_in_a_rewrite() {
        assert_eq!(quote_rewrite("/$1/%[env(HOME)]/\\1/$x").unwrap(), "'/\\1/%%[env(HOME)]/\\\\1/$x'");
    }
}
