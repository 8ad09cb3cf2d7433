//! Each thing once.

use std::collections::HashSet;
use std::hash::Hash;

/// Up to this many, comparing all with all is faster than hashing.
const FEW: usize = 16;

/// Keep the first of each, in their order.
pub fn unique<T: Copy + Eq + Hash>(all: &mut Vec<T>) {
    if all.len() <= FEW {
        let mut kept = 0;
        for n in 0..all.len() {
            let (before, rest) = all.split_at(kept);
            let Some(one) = rest.get(n - kept).copied().filter(|one| !before.contains(one)) else { continue };
            all.swap(kept, n);
            debug_assert!(all.get(kept) == Some(&one));
            kept += 1;
        }
        all.truncate(kept);
        return;
    }
    let mut seen = HashSet::with_capacity(all.len());
    all.retain(|one| seen.insert(*one));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_each_stays_in_its_place() {
        for times in [1, 10] {
            let mut all = [3, 1, 3, 2, 1].repeat(times);
            unique(&mut all);
            assert_eq!(all, [3, 1, 2]);
        }
    }
}
