//! What the asker's kernel remembers of how large packets may be on the way. It was told so by an ICMP error and keeps
//! to it for ten minutes, also when the way takes more by then. Pings of labctl's pass it over; other programs' do not.

use super::model::Protocol;
use super::tell::target;
use super::verdict::Case;
use super::walk::{Probe, Seen};

/// What is remembered of the way that was asked, in words; nothing where nothing is.
pub fn words(case: &Case) -> Option<String> {
    let (from, (to, ..)) = (&case.asked.from, target(case.asked, case.outcome)?);
    let learnt = case.material.known.path_mtu(from, to)?;
    let (mtu, expires) = (learnt.mtu, learnt.expires);
    Some(format!("{from} remembers that the way to {to} takes {mtu} bytes (learnt, forgotten in {expires} s)"))
}

/// That the way takes more than is remembered, and what makes the asker forget; nothing where it does not.
pub fn outlived(case: &Case) -> Option<String> {
    let (from, (to, ..)) = (&case.asked.from, target(case.asked, case.outcome)?);
    let learnt = case.material.known.path_mtu(from, to)?;
    let mut larger = Probe::to(Protocol::Icmp, to, 0).header;
    (larger.length, larger.dont_fragment) = (learnt.mtu + 1, true);
    let arrives = case.teller.unseen(from, larger).is_some_and(|exchange| exchange.seen == Seen::Answer);
    let says = words(case).filter(|_| arrives)?;
    Some(format!(
        "{says}, and it takes more now: until then programs send smaller packets, and larger ones that must not be cut \
         are refused; `labctl exec {from} -- ip route flush cache` makes it forget"
    ))
}
