//! Where two ways part: the planned and the actual one.

use crate::trace::model::{Parting, Step, What};

use super::Path;

/// The first step in which the actual way differs from the planned one; nothing where both are the same.
pub fn compare(planned: &Path, actual: &Path) -> Option<Parting> {
    let longest = planned.steps.len().max(actual.steps.len());
    let (one, other) = (0..longest)
        .map(|n| (planned.steps.get(n), actual.steps.get(n)))
        .find(|(one, other)| !matches!((one, other), (Some(one), Some(other)) if is_same(one, other)))?;
    let words = |step: Option<&Step>| step.map_or("nothing more".to_owned(), |s| format!("{}: {}", s.place, s.says));
    Some(Parting { packet: 1, predicted: words(one), observed: words(other) })
}

/// Steps are the same where place, device and what happened are; numbers of rules move when others come.
fn is_same(one: &Step, other: &Step) -> bool {
    let what = match (&one.what, &other.what) {
        (What::Rule(one), What::Rule(other)) => {
            (&one.table, &one.chain, &one.rule, &one.verdict)
                == (&other.table, &other.chain, &other.rule, &other.verdict)
        }
        (What::Neighbour { ip, mac, .. }, What::Neighbour { ip: other_ip, mac: other_mac, .. }) => {
            (ip, mac) == (other_ip, other_mac)
        }
        (one, other) => one == other,
    };
    what && (&one.place, &one.dev, one.layer) == (&other.place, &other.dev, other.layer)
}
