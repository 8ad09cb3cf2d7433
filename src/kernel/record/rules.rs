//! What nf_tables tells of the rules that packets meet (`nftrace`), and where each rule stands.

use std::io;

use crate::kernel::nfnl::{self, BRIDGE, INET, IPV4, LENGTH, NETDEV, NFTABLES, attributes, big, number, short, word};
use crate::kernel::tables::{self, Tables};
use crate::lab::names::{IfName, NsName};
use crate::plan::deviation::NftTable;

use super::event::{ChainName, RuleBook, RuleKind, RuleSeen, Verdict};
use super::listing;
use super::marking::is_own_table;

/// linux/netfilter/nf_tables.h.
const NEW_RULE: u16 = NFTABLES | 6;
const GET_RULES: u16 = NFTABLES | 7;
pub(super) const TRACE: u16 = NFTABLES | 17;

/// Families whose rules packets of IPv4 meet.
const OF_IPV4: [u8; 4] = [INET, IPV4, NETDEV, BRIDGE];

/// Read what is told of a packet; nothing of our own table. `device` gives devices' names.
pub(super) fn seen(message: &[u8], mut device: impl FnMut(u32) -> IfName) -> Option<RuleSeen> {
    let mut seen = RuleSeen { family: *message.get(16)?, ..RuleSeen::default() };
    let mut policy = None;
    for (kind, value) in attributes(message.get(LENGTH..)?) {
        match kind {
            1 => seen.table = word(value),
            2 => seen.chain = word(value),
            3 => seen.handle = value.try_into().ok().map(u64::from_be_bytes),
            4 => seen.kind = rule_kind(big(value)?)?,
            5 => seen.verdict = verdict(value)?,
            6 => seen.id = number(value, 0),
            7 => seen.link = value.to_vec(),
            8 => seen.network = value.to_vec(),
            9 => seen.transport = value.to_vec(),
            10 => seen.iif = big(value).map(&mut device),
            12 => seen.oif = big(value).map(&mut device),
            14 => seen.mark = big(value),
            15 => seen.nfproto = big(value),
            16 => policy = big(value).map(u32::cast_signed),
            18 => seen.connection = big(value),
            _ => {}
        }
    }
    match (seen.kind, policy) {
        (RuleKind::Policy, Some(code)) => seen.verdict = of_code(code, String::new()),
        // Newer kernels call a chain's end a rule, too; it has no number.
        (RuleKind::Rule, _) if seen.handle.is_none() => seen.kind = RuleKind::Return,
        _ => {}
    }
    (!is_own_table(&seen.table)).then_some(seen)
}

/// `enum nft_trace_types`.
fn rule_kind(number: u32) -> Option<RuleKind> {
    match number {
        1 => Some(RuleKind::Policy),
        2 => Some(RuleKind::Return),
        3 => Some(RuleKind::Rule),
        _ => None,
    }
}

fn verdict(nested: &[u8]) -> Option<Verdict> {
    let (mut code, mut chain) = (None, String::new());
    for (kind, value) in attributes(nested) {
        match kind {
            1 => code = big(value).map(u32::cast_signed),
            2 => chain = word(value),
            _ => {}
        }
    }
    Some(of_code(code?, chain))
}

/// `enum nft_verdicts`, and netfilter's own below it (linux/netfilter.h).
fn of_code(code: i32, chain: String) -> Verdict {
    match code {
        0 => Verdict::Drop,
        1 => Verdict::Accept,
        -1 => Verdict::Continue,
        -3 => Verdict::Jump(chain),
        -4 => Verdict::Goto(chain),
        -5 => Verdict::Return,
        other => Verdict::Other(other),
    }
}

/// Add the rules of the calling thread's namespace, as they are now, with what `nft` prints of those that are
/// not iptables'.
pub(super) fn book(place: &NsName, book: &mut RuleBook) -> io::Result<()> {
    nfnl::dump(GET_RULES, 0, |message| {
        let Some(family) = message.get(16).copied().filter(|_| short(message, 4) == NEW_RULE) else { return };
        let (mut table, mut chain, mut handle) = (String::new(), String::new(), None);
        // The rest of a rule is behind these.
        for (kind, value) in attributes(message.get(LENGTH..).unwrap_or_default()).take_while(|(kind, _)| *kind != 4) {
            match kind {
                1 => table = word(value),
                2 => chain = word(value),
                3 => handle = value.try_into().ok().map(u64::from_be_bytes),
                _ => {}
            }
        }
        let Some(handle) = handle.filter(|_| !is_own_table(&table)) else { return };
        let chain = ChainName { place: place.clone(), family, table, chain };
        book.0.entry(chain).or_default().rules.push((handle, None));
    })?;
    let Tables { legacy, nft } = tables::read()?;
    // Beside iptables-legacy one with such a name may be anybody's.
    let is_own = |t: &NftTable| !legacy && tables::is_of_iptables(t.family, &t.name);
    let strange = nft.iter().filter(|t| OF_IPV4.contains(&t.family) && !is_own(t));
    strange.for_each(|table| listing::add(place, table, book));
    Ok(())
}
