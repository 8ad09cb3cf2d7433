//! Reading a whole lab back: each namespace's tables (`kernel::read`) and its packet filters.
//!
//! There may be rules in two places, nf_tables and the older xtables, and the kernel asks both. A
//! lab's own are in one of them; whatever the other holds is somebody else's.

use std::num::NonZero;
use std::os::fd::AsRawFd;

use crate::lab::names::NsName;
use crate::plan::deviation::{Deviation, NftTable};
use crate::plan::{NsPlan, Plan};

use super::iptables::{self, Iptables};
use super::ns::NetNs;
use super::read;
use super::tables::{self, Tables};
use super::world::World;

/// More threads than this do not read faster.
const READERS: usize = 4;

/// What the namespaces of `world` hold, in the order of the plan. Why it could not be read is said
/// with the namespace's name.
pub fn lab(world: &World, planned: &Plan) -> Result<Plan, String> {
    let all: Vec<(&NsName, &NetNs)> = world.namespaces().collect();
    // Those with rules take longest and stand together, so each thread has every nth.
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(READERS);
    let share =
        |nth: usize| all.iter().skip(nth).step_by(threads).map(|(ns, netns)| namespace(world, planned, ns, netns));
    let parts: Result<Vec<Vec<NsPlan>>, String> = std::thread::scope(|scope| {
        let reading: Vec<_> = (0..threads).map(|nth| scope.spawn(move || share(nth).collect())).collect();
        let joined =
            reading.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("a thread panicked".to_owned())));
        joined.collect()
    });
    let mut there = Plan { namespaces: parts?.into_iter().flatten().collect() };
    // Steps follow the order of the plan.
    there.namespaces.sort_by_key(|n| planned.namespaces.iter().position(|p| p.ns == n.ns));
    Ok(there)
}

/// What one namespace holds.
fn namespace(world: &World, planned: &Plan, ns: &NsName, netns: &NetNs) -> Result<NsPlan, String> {
    let place = |ns: &_| world.netns(ns).map(AsRawFd::as_raw_fd);
    let read = read::namespace(ns, netns, planned, &place).map_err(|e| format!("{ns}: {e}"))?;
    let mut observed = read.plan;
    filters(&mut observed, read.tables, netns, world.iptables()).map_err(|e| format!("{ns}: {e}"))?;
    Ok(observed)
}

/// The rules of a namespace, and what is there beside them. Pods have no rules of ours, but
/// somebody may have written some there.
fn filters(
    observed: &mut NsPlan,
    tables: Tables,
    netns: &NetNs,
    iptables: Option<&Iptables>,
) -> Result<(), iptables::Fault> {
    // Without rules of our own nothing says which of the two is ours.
    let Some(iptables) = iptables.filter(|_| tables.legacy || !tables.nft.is_empty()) else { return Ok(()) };
    let legacy = iptables.is_legacy()?;
    let (own, foreign): (Vec<NftTable>, Vec<NftTable>) =
        tables.nft.into_iter().partition(|t| !legacy && tables::is_of_iptables(t.family, &t.name));
    observed.deviations.extend(foreign.into_iter().map(Deviation::NftTable));
    if if legacy { tables.legacy } else { !own.is_empty() } {
        let saved = iptables.save_all(netns)?;
        observed.rules = saved.rules;
        // What iptables cannot read it cannot mend: such a table goes as a whole and is made anew.
        let strange = own.into_iter().filter(|t| saved.unreadable.contains(&t.name));
        for table in strange {
            observed.rules.tables.retain(|t| t.name != table.name);
            observed.deviations.push(Deviation::NftTable(table));
        }
    }
    if let (true, false, Some(other)) = (tables.legacy, legacy, Iptables::legacy()) {
        // A table that was only looked at stays for good, but is empty.
        let rules = other.save(netns)?;
        observed.deviations.extend((!rules.is_empty()).then_some(Deviation::LegacyRules(rules)));
    }
    Ok(())
}
