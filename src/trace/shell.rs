//! What of others' making is put into a command that somebody is told to type: quoted as a shell takes it, and left out where
//! no quoting helps.

/// A command whose words are quoted as iptables-save does it, so that a shell takes it as it is meant; nothing where it
/// has no such words.
pub fn typed(command: &str) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || " \"_@%+=:,./-".contains(c);
    if command.replace(" ! ", " ").chars().all(is_plain) {
        return Some(command.to_owned());
    }
    shlex::try_join(shlex::split(command)?.iter().map(String::as_str)).ok()
}

/// Whether each word is a name as nft's own language has it (nft(8), lexical conventions).
pub fn is_named(words: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_.-/\\".contains(c);
    words
        .split(' ')
        .all(|word| word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && word.chars().all(is_part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_would_take_otherwise_is_quoted() {
        let rule = |comment: &str| format!("iptables -A A ! -s 10.0.0.0/8 -m comment --comment \"{comment}\" -j DROP");
        assert_eq!(typed(&rule("a word")), Some(rule("a word")));
        let expected = "iptables -A A '!' -s 10.0.0.0/8 -m comment --comment 'costs $5 `id`' -j DROP";
        assert_eq!(typed(&rule("costs $5 `id`")).as_deref(), Some(expected));
        assert!(is_named("inet my-table.1") && !is_named("ip x;flush") && !is_named("ip a'b") && !is_named("ip "));
    }
}
