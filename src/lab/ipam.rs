//! Address pools: give out what is free, refuse what is taken, in an order that does not change.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::diag::Place;

/// An address as a number, so that it can be counted.
fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

fn address(like: IpAddr, n: u128) -> IpAddr {
    match like {
        // A pool's numbers come from addresses of its own family, so they fit.
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(n).unwrap_or(u32::MAX))),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(n)),
    }
}

/// The addresses of one range. The network's own and its broadcast address are never given.
#[derive(Debug, Clone)]
pub struct Pool {
    range: IpNet,
    taken: BTreeMap<u128, Option<Place>>,
    /// Where the search for a free address goes on, as a distance from the range's first address.
    cursor: u128,
}

impl Pool {
    /// A pool of `range` whose search begins `from` addresses behind the range's first one, or at
    /// its first usable one where the range is too small for that.
    pub fn new(range: IpNet, from: u128) -> Pool {
        let cursor = if from >= size(range).saturating_sub(1) { 1 } else { from };
        Pool { range, taken: BTreeMap::new(), cursor }
    }

    pub fn range(&self) -> IpNet {
        self.range
    }

    /// Whether `ip` can be a machine's address here.
    pub fn usable(&self, ip: IpAddr) -> bool {
        let offset = number(ip).wrapping_sub(number(self.range.network()));
        self.range.contains(&ip) && offset >= 1 && offset < size(self.range).saturating_sub(1)
    }

    pub fn is_free(&self, ip: IpAddr) -> bool {
        !self.taken.contains_key(&number(ip))
    }

    /// Claim `ip`; the answer is the place that claimed it before, where one did.
    pub fn claim(&mut self, ip: IpAddr, place: Option<Place>) -> Result<(), Option<Place>> {
        match self.taken.get(&number(ip)) {
            Some(before) => Err(*before),
            None => {
                self.taken.insert(number(ip), place);
                Ok(())
            }
        }
    }

    /// The next free address, or nothing where the pool is used up.
    pub fn next(&mut self) -> Option<IpAddr> {
        let first = number(self.range.network());
        let usable = size(self.range).saturating_sub(2);
        for _ in 0..=usable.min(self.taken.len() as u128 + 1) {
            let n = first + self.cursor;
            self.cursor = if self.cursor >= usable { 1 } else { self.cursor + 1 };
            if self.usable(address(self.range.network(), n)) && !self.taken.contains_key(&n) {
                self.taken.insert(n, None);
                return Some(address(self.range.network(), n));
            }
        }
        None
    }
}

/// How many addresses a range has, its own and its broadcast address counted.
pub fn size(range: IpNet) -> u128 {
    let bits = range.max_prefix_len() - range.prefix_len();
    1u128.checked_shl(u32::from(bits)).unwrap_or(u128::MAX)
}

/// Ranges that must not overlap, each with who has it.
#[derive(Debug, Default)]
pub struct Ranges(Vec<(IpNet, String, Option<Place>)>);

impl Ranges {
    /// Who has a range that shares addresses with this one?
    pub fn overlapping(&self, range: IpNet) -> Option<&(IpNet, String, Option<Place>)> {
        self.0.iter().find(|(other, ..)| overlap(*other, range))
    }

    pub fn add(&mut self, range: IpNet, owner: impl Into<String>, place: Option<Place>) {
        self.0.push((range, owner.into(), place));
    }
}

pub fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a range")
    }

    #[test]
    fn a_pool_gives_each_usable_address_once_and_then_none() {
        let mut pool = Pool::new(net("10.0.0.0/29"), 3);
        let mut given: Vec<String> = std::iter::from_fn(|| pool.next()).map(|ip| ip.to_string()).collect();
        assert_eq!(given[0], "10.0.0.3");
        given.sort();
        assert_eq!(given, ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
        assert_eq!(pool.next(), None);
    }

    #[test]
    fn a_claimed_address_is_not_given_and_names_who_has_it() {
        let mut pool = Pool::new(net("10.0.0.0/24"), 2);
        let place = Place { source: 0, start: 5, end: 9 };
        let ip = "10.0.0.2".parse().expect("an address");
        assert_eq!(pool.claim(ip, Some(place)), Ok(()));
        assert_eq!(pool.claim(ip, None), Err(Some(place)));
        assert_eq!(pool.next().map(|ip| ip.to_string()).as_deref(), Some("10.0.0.3"));
    }

    #[test]
    fn small_ranges_and_strange_ones_do_not_panic() {
        for range in ["10.0.0.0/32", "10.0.0.0/31", "10.0.0.0/30", "0.0.0.0/0", "::/0", "fd00::/64"] {
            let mut pool = Pool::new(net(range), 10);
            let _ = pool.next();
            let _ = pool.next();
        }
    }
}
