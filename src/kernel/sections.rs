//! Large inputs of `iptables-restore`, cut into parts that an ordinary user's kernel takes.
//!
//! `iptables-nft-restore` sends each `*TABLE … COMMIT` as one netlink message and raises its
//! socket's buffer for that (`SO_SNDBUFFORCE`), which only root of the machine may. In a user
//! namespace a part of more than some 200 KiB is refused ("Message too long"), which is about
//! forty services. Several parts for one table are taken, but each is a change of its own: for
//! moments a service's entrance may be there without its chains being filled.

use std::fmt::Write;

/// Lines of rules in one part; the longest rules take some 1,000 bytes of a message.
const MOST_RULES: usize = 150;
/// Lines of chains in one part.
const MOST_CHAINS: usize = 400;

/// Whether this process may raise socket buffers beyond the machine's limit: not in a user
/// namespace below the first one (user_namespaces(7): the first maps every id to itself).
pub fn needed() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    !map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// The same input for `iptables-restore --noflush` in parts that are small enough. Chains come
/// before the rules that lead to them, and are deleted last.
pub fn cut(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 4096);
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(table) = line.strip_prefix('*') else { continue };
        let (mut chains, mut rules, mut deleted) = (Vec::new(), Vec::new(), Vec::new());
        for line in lines.by_ref().take_while(|line| *line != "COMMIT") {
            match line {
                line if line.starts_with(':') => chains.push(line),
                line if line.starts_with("-X") => deleted.push(line),
                line => rules.push(line),
            }
        }
        let parts = chains.chunks(MOST_CHAINS).chain(rules.chunks(MOST_RULES)).chain(deleted.chunks(MOST_CHAINS));
        if chains.len() <= MOST_CHAINS && rules.len() <= MOST_RULES && deleted.len() <= MOST_CHAINS {
            part(&mut out, table, [&chains[..], &rules, &deleted].into_iter().flatten());
        } else {
            parts.for_each(|lines| part(&mut out, table, lines.iter()));
        }
    }
    out
}

fn part<'l>(out: &mut String, table: &str, lines: impl Iterator<Item = &'l &'l str>) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "*{table}");
    lines.for_each(|line| out.extend([line, "\n"]));
    out.push_str("COMMIT\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_small_stays_in_one_part() {
        let text = "*nat\n:A - [0:0]\n-A A -j ACCEPT\n-X B\nCOMMIT\n*filter\n-A A -j DROP\nCOMMIT\n";
        assert_eq!(cut(text), text);
    }

    #[test]
    fn chains_come_first_and_go_last_and_no_line_is_lost() {
        let chains: Vec<String> = (0..1000).map(|n| format!(":C{n} - [0:0]")).collect();
        let rules: Vec<String> = (0..1000).map(|n| format!("-A C{n} -j C{}", 999 - n)).collect();
        let text = format!("*nat\n{}\n{}\n-X OLD\nCOMMIT\n", chains.join("\n"), rules.join("\n"));
        let parts = cut(&text);
        assert_eq!(parts.matches("COMMIT\n").count(), 3 + 7 + 1);
        let order = |line: &str| match line.as_bytes().first() {
            Some(b':') => 0,
            _ if line.starts_with("-X") => 2,
            _ => 1,
        };
        let lines: Vec<&str> = parts.lines().filter(|l| !l.starts_with('*') && *l != "COMMIT").collect();
        assert_eq!(lines.len(), 2001);
        assert!(lines.is_sorted_by_key(|line| order(line)));
    }
}
