use netlink_packet_core::DefaultNla;
use netlink_packet_route::rule::RuleUidRange;

use super::*;

/// A rule of priority 100 that leads to table 7, in words behind that.
fn told(attributes: Vec<RuleAttribute>) -> String {
    let mut rule = RuleMessage::default();
    rule.header.action = RuleAction::ToTable;
    rule.header.table = 7;
    rule.attributes = [vec![RuleAttribute::Priority(100)], attributes].concat();
    let words = rule_words(&rule);
    words.strip_prefix("100: from all ").unwrap_or(&words).to_owned()
}

#[test]
fn a_rule_is_told_in_the_words_of_ip() {
    use RuleAttribute::{
        FwMark, FwMask, IpProtocol as Over, L3MDev, SuppressIfGroup, SuppressPrefixLen, TunId, UidRange,
    };
    let uids = RuleUidRange { start: 0, end: 99 };
    for (attributes, words) in [
        (vec![FwMark(1), FwMask(u32::MAX)], "fwmark 0x1 lookup 7"),
        (vec![FwMark(1), FwMask(0xff)], "fwmark 0x1/0xff lookup 7"),
        (vec![FwMask(0xff)], "fwmark 0/0xff lookup 7"),
        (vec![UidRange(uids)], "uidrange 0-99 lookup 7"),
        (vec![TunId(5)], "tun_id 5 lookup 7"),
        (vec![SuppressPrefixLen(0), SuppressIfGroup(u32::MAX)], "lookup 7 suppress_prefixlength 0"),
        (vec![SuppressPrefixLen(u32::MAX), SuppressIfGroup(3)], "lookup 7 suppress_ifgroup 3"),
        (vec![L3MDev(true)], "lookup [l3mdev-table]"),
        (vec![Over(libc::IPPROTO_TCP.into())], "ipproto tcp lookup 7"),
        (vec![Over(libc::IPPROTO_SCTP.into())], "ipproto 132 lookup 7"),
        (vec![RuleAttribute::Other(DefaultNla::new(25, vec![1]))], "(attribute 25) lookup 7"),
    ] {
        assert_eq!(told(attributes), words);
    }
}
