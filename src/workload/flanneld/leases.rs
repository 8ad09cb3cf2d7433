//! The map of leases: which host has which pod subnet. It answers two questions, both per packet:
//! where a destination lives, and whether a sender is a host of the cluster.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;

use crate::plan::PeerLease;

use super::ipv4;

/// Subnets of IPv4 and the hosts that have them.
#[derive(Debug, Default)]
pub struct Leases {
    /// One map per prefix length, the longest first: as all leases of a cluster are of one
    /// length, a look-up is one hash in practice.
    by_length: Vec<Prefixes>,
    peers: HashSet<Ipv4Addr>,
}

#[derive(Debug)]
struct Prefixes {
    mask: u32,
    hosts: HashMap<u32, Ipv4Addr>,
}

impl Leases {
    /// Of two leases of one subnet the later counts.
    ///
    /// # Errors
    /// A lease that is not of IPv4: this back end carries nothing else.
    pub fn new(list: &[PeerLease]) -> io::Result<Leases> {
        let mut leases = Leases::default();
        for lease in list {
            let host = ipv4(lease.public_ip, "the host")?;
            let network = u32::from(ipv4(lease.subnet.network(), "the subnet")?);
            let mask = u32::from(ipv4(lease.subnet.netmask(), "the mask")?);
            leases.peers.insert(host);
            leases.insert(mask, network, host);
        }
        leases.by_length.sort_by_key(|prefixes| std::cmp::Reverse(prefixes.mask));
        Ok(leases)
    }

    /// Every subnet with its host, in the order of their addresses.
    pub fn iter(&self) -> impl Iterator<Item = (Ipv4Net, Ipv4Addr)> {
        let of = |prefixes: &Prefixes| {
            let length = prefixes.mask.leading_ones();
            let net = |network: u32| Ipv4Net::new(network.into(), u8::try_from(length).unwrap_or(32));
            prefixes.hosts.iter().filter_map(|(network, host)| Some((net(*network).ok()?, *host))).collect::<Vec<_>>()
        };
        let mut all: Vec<_> = self.by_length.iter().flat_map(of).collect();
        all.sort();
        all.into_iter()
    }

    fn insert(&mut self, mask: u32, network: u32, host: Ipv4Addr) {
        match self.by_length.iter_mut().find(|prefixes| prefixes.mask == mask) {
            Some(prefixes) => {
                prefixes.hosts.insert(network, host);
            }
            None => self.by_length.push(Prefixes { mask, hosts: HashMap::from([(network, host)]) }),
        }
    }

    /// The host that has the longest prefix of `destination`.
    pub fn find(&self, destination: Ipv4Addr) -> Option<Ipv4Addr> {
        let destination = u32::from(destination);
        self.by_length.iter().find_map(|prefixes| prefixes.hosts.get(&(destination & prefixes.mask)).copied())
    }

    /// Whether `sender` is the address of a host with a lease.
    pub fn knows(&self, sender: IpAddr) -> bool {
        matches!(sender, IpAddr::V4(v4) if self.peers.contains(&v4))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipnet::IpNet;
    use proptest::prelude::*;

    fn lease(subnet: &str, host: &str) -> PeerLease {
        PeerLease { subnet: subnet.parse().unwrap(), public_ip: host.parse().unwrap() }
    }

    #[test]
    fn the_longest_prefix_wins() {
        let list = [lease("0.0.0.0/0", "1.0.0.1"), lease("10.1.2.0/24", "1.0.0.2"), lease("10.1.2.3/32", "1.0.0.3")];
        let leases = Leases::new(&list).unwrap();
        let find = |a: &str| leases.find(a.parse().unwrap()).unwrap().to_string();
        assert_eq!(find("10.1.2.3"), "1.0.0.3");
        assert_eq!(find("10.1.2.4"), "1.0.0.2");
        assert_eq!(find("10.1.3.4"), "1.0.0.1");
    }

    #[test]
    fn nothing_is_found_for_what_nobody_has() {
        let leases = Leases::new(&[lease("10.1.2.0/24", "1.0.0.2")]).unwrap();
        assert_eq!(leases.find(Ipv4Addr::new(10, 1, 3, 1)), None);
        assert!(leases.knows("1.0.0.2".parse().unwrap()));
        assert!(!leases.knows("10.1.2.1".parse().unwrap()));
    }

    #[test]
    fn ipv6_is_refused() {
        let host = Leases::new(&[lease("10.1.2.0/24", "fd00::1")]).unwrap_err();
        assert_eq!(host.to_string(), "the host fd00::1 is not an IPv4 address");
        let subnet = Leases::new(&[lease("fd00:1::/64", "1.0.0.1")]).unwrap_err();
        assert_eq!(subnet.to_string(), "the subnet fd00:1:: is not an IPv4 address");
    }

    proptest! {
        #[test]
        fn it_finds_what_a_search_of_the_whole_list_finds(
            list in proptest::collection::vec((any::<[u8; 4]>(), 0u8..=32, any::<u32>()), 0..20),
            wanted in any::<[u8; 4]>(),
            near in any::<prop::sample::Index>(),
        ) {
            let list: Vec<PeerLease> = list.into_iter().map(|(net, length, host)| PeerLease {
                subnet: IpNet::new(Ipv4Addr::from(net).into(), length).unwrap().trunc(),
                public_ip: Ipv4Addr::from(host).into(),
            }).collect();
            let leases = Leases::new(&list).unwrap();
            let mut candidates = vec![Ipv4Addr::from(wanted)];
            if !list.is_empty()
                && let IpAddr::V4(inside) = list[near.index(list.len())].subnet.addr() {
                candidates.push(inside);
            }
            for address in candidates {
                // max_by_key takes the last of equals, as the map does.
                let expected = list.iter().filter(|l| l.subnet.contains(&IpAddr::V4(address)))
                    .max_by_key(|l| l.subnet.prefix_len()).map(|l| l.public_ip);
                prop_assert_eq!(leases.find(address).map(IpAddr::V4), expected);
            }
        }
    }
}
