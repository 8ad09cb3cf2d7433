//! What `nft` prints of a table that iptables has no words for: the kernel gives rules as expressions, which
//! that program alone makes a text of. Where it is not installed rules keep their handles.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::kernel::iptables::program;
use crate::lab::names::NsName;
use crate::plan::deviation::NftTable;

use super::event::{ChainName, RuleBook};

/// Of one table it is waited so long for its text, and no more than so many bytes of it are read.
const PATIENCE: Duration = Duration::from_secs(2);
const MOST: usize = 4 * 1024 * 1024;
/// Behind a rule, its chain or its table, where they are asked for (`nft -a`).
const HANDLE: &str = "# handle ";

/// Add the texts of a table of the calling thread's namespace to its rules.
pub(super) fn add(place: &NsName, table: &NftTable, book: &mut RuleBook) {
    let Some(nft) = program("nft") else { return };
    let mut command = Command::new(nft);
    // Without counters and what is in sets.
    command.args(["-s", "-t", "-a", "list", "table", table.family_name(), &table.name]);
    let Ok(said) = said(command, PATIENCE) else { return };
    for line in lines(&said) {
        let (place, name) = (place.clone(), table.name.clone());
        let key = ChainName { place, family: table.family, table: name, chain: line.chain };
        let listing = book.0.entry(key).or_default();
        match line.handle {
            None => listing.head = Some(line.text),
            Some(handle) => {
                let rule = listing.rules.iter_mut().find(|(h, _)| *h == handle);
                rule.into_iter().for_each(|(_, text)| *text = Some(line.text.clone()));
            }
        }
    }
}

/// What a program writes until it ends, or until one of the bounds, where it is ended.
fn said(mut command: Command, patience: Duration) -> io::Result<String> {
    let end = Instant::now() + patience;
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut all = Vec::new();
    let read = child.stdout.take().map_or(Ok(()), |out| read_until(out, end, &mut all));
    // One that has ended by itself is not hurt.
    let _ = child.kill();
    child.wait()?;
    read.map(|()| String::from_utf8_lossy(&all).into_owned())
}

fn read_until(mut out: impl Read + AsFd, end: Instant, all: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    while all.len() < MOST {
        let left = PollTimeout::try_from(end.saturating_duration_since(Instant::now())).unwrap_or(PollTimeout::ZERO);
        match poll(&mut [PollFd::new(out.as_fd(), PollFlags::POLLIN)], left) {
            Ok(0) => return Ok(()),
            Err(nix::errno::Errno::EINTR) => continue,
            other => other?,
        };
        match out.read(&mut buffer)? {
            0 => return Ok(()),
            count => all.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(())
}

/// A rule of a chain; that of its hook and policy has no handle.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    chain: String,
    handle: Option<u64>,
    text: String,
}

/// The lines of chains. A rule with a map in it takes several.
fn lines(listing: &str) -> Vec<Line> {
    let (mut all, mut chain, mut begun) = (Vec::new(), None::<String>, String::new());
    for line in listing.lines() {
        let Some(name) = &chain else {
            chain = line.trim().strip_prefix("chain ").and_then(|rest| rest.split(' ').next()).map(str::to_owned);
            continue;
        };
        let text = line.trim();
        if text == "}" && begun.is_empty() {
            chain = None;
            continue;
        }
        // A chain's own comment, which has no handle as a rule has.
        if begun.is_empty() && text.starts_with("comment \"") && text.ends_with('"') {
            continue;
        }
        if !begun.is_empty() {
            begun.push(' ');
        }
        begun.push_str(text);
        let (whole, handle) = match begun.rsplit_once(HANDLE) {
            Some((whole, number)) => (whole.trim().to_owned(), number.trim().parse().ok()),
            None if begun.starts_with("type ") => (begun.clone(), None),
            None => continue,
        };
        all.push(Line { chain: name.clone(), handle, text: whole });
        begun.clear();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_does_not_end_or_says_too_much_is_ended() {
        let shell = |script: &str, patience| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            said(command, Duration::from_secs(patience)).expect("what it said")
        };
        let begin = Instant::now();
        assert_eq!(shell("echo begun; exec sleep 600", 1), "begun\n");
        let much = shell("exec yes", 300);
        assert!((MOST..MOST + 64 * 1024).contains(&much.len()), "{}", much.len());
        assert_eq!(shell("echo all", 300), "all\n");
        assert!(begin.elapsed() < Duration::from_secs(300));
    }

    #[test]
    fn a_chains_comment_is_no_part_of_its_rules() {
        let listing = "table inet t {
\tchain c { # handle 1
\t\tcomment \"mine # handle 9\"
\t\ttype filter hook forward priority filter; policy accept;
\t\tdrop comment \"x\" # handle 2
\t}
}
";
        let all: Vec<_> = lines(listing).into_iter().map(|line| (line.handle, line.text)).collect();
        let head = "type filter hook forward priority filter; policy accept;".to_owned();
        assert_eq!(all, [(None, head), (Some(2), "drop comment \"x\"".to_owned())]);
    }

    #[test]
    fn a_listing_gives_each_chains_head_and_rules_with_their_handles() {
        let listing = "table inet t { # handle 1
\tset s { # handle 2
\t\ttype ipv4_addr
\t\telements = { 10.0.0.1 }
\t}

\tchain c { # handle 3
\t\ttype filter hook forward priority filter; policy accept;
\t\ttcp dport 8080 counter packets 0 bytes 0 drop # handle 4
\t\ttcp dport vmap { 22 : accept,
\t\t\t\t 80 : drop } # handle 5
\t}

\tchain other { # handle 6
\t\tip saddr @s drop comment \"# handle 9\" # handle 7
\t}
}
";
        let line = |chain: &str, handle, text: &str| Line { chain: chain.to_owned(), handle, text: text.to_owned() };
        let expected = [
            line("c", None, "type filter hook forward priority filter; policy accept;"),
            line("c", Some(4), "tcp dport 8080 counter packets 0 bytes 0 drop"),
            line("c", Some(5), "tcp dport vmap { 22 : accept, 80 : drop }"),
            line("other", Some(7), "ip saddr @s drop comment \"# handle 9\""),
        ];
        assert_eq!(lines(listing), expected);
    }
}
