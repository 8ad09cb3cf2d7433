//! Rules for many namespaces at once. How one of them gets its rules is `kernel::iptables`'.
//!
//! Rules name devices by their names, which need not be there yet. So they are written beside the
//! netlink work, as soon as the namespaces exist.

use crate::plan::diff::{Op, Step};

use super::iptables::{self, Iptables};
use super::ns::NetNs;
use super::world::Failed;

/// An `iptables-restore` over nf_tables mostly sleeps: for tens of milliseconds it waits until no
/// packet can be looking at the old rules (`synchronize_rcu`). So there may be many more of them
/// at once than processors.
const AT_ONCE: usize = 16;

/// A step that sets rules, and the namespace that gets them.
pub struct Wanted<'s> {
    pub step: &'s Step,
    pub netns: NetNs,
}

/// Write all these rules with the iptables that is known to work here, or else with the first one
/// that does. Returns that one. The first refusal, in the order of the steps, is returned.
pub fn write_all(known: Option<Iptables>, wanted: &[Wanted]) -> Result<Option<Iptables>, Failed> {
    let Some((first, others)) = wanted.split_first() else { return Ok(known) };
    let (iptables, rest) = match known {
        Some(known) => (known, wanted),
        None => (choose(first)?, others),
    };
    std::thread::scope(|scope| {
        let one = |part: &[Wanted]| part.iter().try_for_each(|w| write(&iptables, w));
        let parts = rest.chunks(rest.len().div_ceil(AT_ONCE).max(1));
        let threads: Vec<_> = parts.map(|part| scope.spawn(move || one(part))).collect();
        threads.into_iter().try_for_each(|t| t.join().unwrap_or_else(|_| Err(Failed::panicked("rules"))))
    })?;
    Ok(Some(iptables))
}

/// Do the first step with each iptables of the machine until one can. Its refusal is told where
/// none can.
fn choose(first: &Wanted) -> Result<Iptables, Failed> {
    let mut refused = None;
    for candidate in Iptables::candidates() {
        match write(&candidate, first) {
            Ok(()) => return Ok(candidate),
            Err(failed) => refused = refused.or(Some(failed)),
        }
    }
    Err(refused.unwrap_or_else(|| Failed::new(first.step, iptables::Fault::Missing)))
}

fn write(iptables: &Iptables, wanted: &Wanted) -> Result<(), Failed> {
    let Op::SetRules { from, to } = &wanted.step.op else { return Ok(()) };
    // A restore that empties the tables first is the fastest by far, and where there are rules already
    // one that leaves alone what is right keeps counters and the lists of `recent`.
    let written = match from.is_empty() {
        true => iptables.restore(&wanted.netns, to),
        false => from.changes_to(to).map_or(Ok(()), |text| iptables.restore_more(&wanted.netns, &text)),
    };
    written.map_err(|e| Failed::new(wanted.step, e))
}
