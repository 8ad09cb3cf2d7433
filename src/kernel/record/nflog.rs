//! What xtables (iptables-legacy) tells of the rules that packets meet. For a packet that is to be traced it
//! writes a line into netfilter's log (`nf_log_trace`), whatever marked it, so the table of
//! [`super::marking`] serves for both. The log of a namespace goes to who is bound there
//! (`net.netfilter.nf_log.2`): to a socket of ours as long as a recording lasts, and then as before.

use std::fs;
use std::io;

use netlink_sys::Socket;

use crate::kernel::nfnl::{self, IPV4, LENGTH, Part, attribute, attributes, big, word};
use crate::kernel::sysctl;
use crate::lab::names::IfName;
use crate::plan::Sysctl;

use super::event::{RuleKind, RuleSeen, Verdict};
use super::is_own_port;

/// Messages of `NFNL_SUBSYS_ULOG` (linux/netfilter/nfnetlink_log.h): a packet, and a setting.
pub(super) const PACKET: u16 = 4 << 8;
const CONFIGURE: u16 = PACKET | 1;
/// `NFULNL_CFG_CMD_BIND`.
const BIND: u8 = 1;
/// `NFULNL_COPY_PACKET`.
const COPY: u8 = 2;
/// Headers are enough.
const KEPT: u32 = 128;
/// As much as nf_tables tells of a header.
const HEADER: usize = 20;

const SETTING: &str = "net/netfilter/nf_log/2";
const OURS: &str = "nfnetlink_log";
/// What a traced packet's lines begin with.
const PREFIX: &str = "TRACE: ";

/// Where the log of a namespace went before.
pub(super) struct Before(String);

/// Who is bound to which group, one a line: the group and the netlink port come first.
const BOUND: &str = "/proc/thread-self/net/netfilter/nfnetlink_log";

/// Let the log of the calling thread's namespace come by `socket`. Refused where somebody else listens to it.
pub(super) fn hear(socket: &Socket) -> io::Result<Before> {
    // The group 0, in which traces are. Each packet is told at once: it would be once in a second.
    let mode = [&KEPT.to_be_bytes()[..], &[COPY, 0]].concat();
    let attributes = [attribute(1, &[BIND]), attribute(2, &mode), attribute(5, &1u32.to_be_bytes())].concat();
    let bound = nfnl::request(socket, &Part { kind: CONFIGURE, flags: 0, family: IPV4, attributes });
    bound.map_err(|e| match e.raw_os_error() {
        Some(libc::EPERM | libc::EBUSY) => io::Error::new(e.kind(), format!("{} reads what is logged there", reader())),
        _ => e,
    })?;
    let before = sysctl::read(SETTING)?;
    set(OURS)?;
    Ok(Before(before))
}

/// Who has the log of the calling thread's namespace, in words.
fn reader() -> &'static str {
    let bound = fs::read_to_string(BOUND).unwrap_or_default();
    if port(&bound).is_some_and(is_own_port) { "another trace of labctl's" } else { "somebody else" }
}

/// The netlink port that is bound to group 0.
fn port(bound: &str) -> Option<u32> {
    let mut lines = bound.lines().map(str::split_whitespace);
    lines.find_map(|mut words| (words.next()? == "0").then(|| words.next()?.parse().ok()).flatten())
}

/// Let it go again where it went before; in the same namespace.
pub(super) fn give_back(before: &Before) -> io::Result<()> {
    set(&before.0)
}

fn set(value: &str) -> io::Result<()> {
    sysctl::write(&Sysctl { key: SETTING.to_owned(), value: value.to_owned(), optional: false })
}

/// Read what is told of a packet; nothing of what rules of others log.
pub(super) fn seen(message: &[u8], mut device: impl FnMut(u32) -> IfName) -> Option<RuleSeen> {
    let (mut line, mut packet) = (String::new(), &[][..]);
    let (mut iif, mut oif, mut mark) = (None, None, None);
    for (kind, value) in attributes(message.get(LENGTH..)?) {
        match kind {
            2 => mark = big(value),
            4 => iif = big(value).map(&mut device),
            5 => oif = big(value).map(&mut device),
            9 => packet = value,
            10 => line = word(value),
            _ => {}
        }
    }
    let (table, chain, kind, number) = place(&line)?;
    // The IP header's length counts in four bytes.
    let (network, transport) = packet.split_at_checked(usize::from(packet.first()? & 0xf) * 4)?;
    let cut = |bytes: &[u8]| bytes[..bytes.len().min(HEADER)].to_vec();
    Some(RuleSeen {
        table: table.to_owned(),
        family: IPV4,
        chain: chain.to_owned(),
        legacy: Some(number),
        kind,
        verdict: Verdict::Untold,
        network: cut(network),
        transport: cut(transport),
        iif,
        oif,
        mark,
        nfproto: Some(IPV4.into()),
        ..RuleSeen::default()
    })
}

/// `TRACE: filter:FORWARD:rule:2 `. Names of chains may have colons in them.
fn place(line: &str) -> Option<(&str, &str, RuleKind, u32)> {
    let (table, rest) = line.strip_prefix(PREFIX)?.split_once(':')?;
    let (rest, number) = rest.trim_end().rsplit_once(':')?;
    let (chain, kind) = rest.rsplit_once(':')?;
    let kind = match kind {
        "rule" => RuleKind::Rule,
        "policy" => RuleKind::Policy,
        "return" => RuleKind::Return,
        _ => return None,
    };
    Some((table, chain, kind, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_who_is_bound_to_the_first_group_is_known_by_his_port() {
        let bound = "    7   4242     0 2 65535    100  1\n    0 1279345155     0 2    128      1  1\n";
        assert_eq!(port(bound), Some(1_279_345_155));
        assert_eq!((port("    7   4242     0 2 65535    100  1\n"), port("")), (None, None));
    }

    #[test]
    fn a_line_of_a_trace_names_the_place_of_a_rule_and_other_lines_do_not() {
        assert_eq!(place("TRACE: filter:FORWARD:rule:2 "), Some(("filter", "FORWARD", RuleKind::Rule, 2)));
        assert_eq!(place("TRACE: raw:a:b:return:1 "), Some(("raw", "a:b", RuleKind::Return, 1)));
        assert_eq!(place("TRACE: nat:OUTPUT:policy:1 "), Some(("nat", "OUTPUT", RuleKind::Policy, 1)));
        assert_eq!(place("my own prefix: "), None);
    }
}
