//! Words of nginx.conf. A word from an object is written in double quotes, in which only `\` and `"`
//! mean something to nginx' reader (ngx_conf_read_token), and `$` to directives that know variables.

/// nginx reads a word into 4096 bytes, quotes and all.
const LONGEST: usize = 4000;

/// A word for a directive that takes it as it is, such as a location's path or a regular
/// expression. Nothing where nginx cannot read it.
pub fn quote(word: &str) -> Option<String> {
    let mut quoted = String::with_capacity(word.len() + 2);
    quoted.push('"');
    for c in word.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => return None,
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    (quoted.len() <= LONGEST).then_some(quoted)
}

/// A word for a directive that knows variables, of which it shall see none but, where `groups` is
/// set, `$1` to `$9`. nginx has no way to write a `$`, so there is a variable that is one.
pub fn quote_text(word: &str, groups: bool) -> Option<String> {
    let mut text = String::new();
    let mut rest = word.chars().peekable();
    while let Some(c) = rest.next() {
        let group = groups && rest.peek().is_some_and(|next| ('1'..='9').contains(next));
        match c {
            '$' if !group => text.push_str("${dollar}"),
            c => text.push(c),
        }
    }
    quote(&text)
}

/// A string of Lua, in which anything that is not plainly harmless is a number.
pub fn quote_lua(word: &str) -> String {
    let mut quoted = String::from("\"");
    for byte in word.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b' ' | b'.' | b',' | b'/' | b'_' | b'-' | b'=' | b';' => {
                quoted.push(char::from(byte));
            }
            other => quoted.push_str(&format!("\\{other:03}")),
        }
    }
    quoted + "\""
}

/// `path` as a regular expression that means just its letters.
pub fn escape_regex(path: &str) -> String {
    let mut escaped = String::new();
    for c in path.chars() {
        if c.is_ascii_punctuation() && !matches!(c, '/' | '_' | '-') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_cannot_end_before_its_quote() {
        assert_eq!(quote(r#"/a"; } b\"#).unwrap(), r#""/a\"; } b\\""#);
        assert_eq!(quote("a\nb").unwrap(), "\"a\\nb\"");
        assert_eq!(quote("a\0b"), None);
        assert_eq!(quote(&"a".repeat(4095)), None);
    }

    #[test]
    fn variables_are_none_but_groups() {
        assert_eq!(quote_text("/$1$host$", true).unwrap(), "\"/$1${dollar}host${dollar}\"");
        assert_eq!(quote_text("/$1", false).unwrap(), "\"/${dollar}1\"");
    }

    #[test]
    fn lua_sees_numbers_where_anything_could_mean_something() {
        assert_eq!(quote_lua("a\"b]]\n"), "\"a\\034b\\093\\093\\010\"");
    }
}
