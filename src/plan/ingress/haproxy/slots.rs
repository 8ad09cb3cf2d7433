//! Which endpoint has which of a backend's numbered servers. HAProxy keeps the number of servers that
//! its file has, so the file has some to spare, and one is given an address and taken out again over
//! the runtime API. A reload is due only where they do not suffice.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::super::types::{BackendName, Endpoints, Routing};

/// The servers of each backend, by number: what they are, or that they are free.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slots(BTreeMap<BackendName, Vec<Option<SocketAddr>>>);

/// A server that is given another address, or taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub backend: BackendName,
    /// From 1.
    pub server: usize,
    pub address: Option<SocketAddr>,
}

impl Slots {
    /// For each backend at least `least` servers, and twice as many as are needed.
    pub fn new(routing: &Routing, endpoints: &Endpoints, least: usize) -> Slots {
        let of = |name: &BackendName| {
            let mut servers: Vec<_> = addresses(endpoints, name).into_iter().map(Some).collect();
            servers.resize((servers.len() * 2).next_power_of_two().max(least).max(1), None);
            servers
        };
        Slots(routing.backends.keys().map(|name| (name.clone(), of(name))).collect())
    }

    pub fn servers(&self, backend: &str) -> &[Option<SocketAddr>] {
        self.0.get(backend).map_or(&[], Vec::as_slice)
    }

    /// Whether there are servers enough.
    pub fn suffice(&self, endpoints: &Endpoints) -> bool {
        self.0.iter().all(|(name, servers)| addresses(endpoints, name).len() <= servers.len())
    }

    /// Give servers to new endpoints, then take them from those that have gone. Endpoints that stay keep theirs.
    pub fn change(&mut self, endpoints: &Endpoints) -> Vec<Change> {
        let (mut given, mut taken) = (Vec::new(), Vec::new());
        for (name, servers) in &mut self.0 {
            let wanted = addresses(endpoints, name);
            let change = |server: usize, address| Change { backend: name.clone(), server: server + 1, address };
            // Servers that are free already come first, so that those which go still answer meanwhile.
            let gone = |s: &Option<SocketAddr>| s.is_some_and(|address| !wanted.contains(&address));
            let mut free: Vec<usize> = (0..servers.len()).filter(|n| servers[*n].is_none()).collect();
            free.extend((0..servers.len()).filter(|n| gone(&servers[*n])));
            let mut free = free.into_iter();
            let new: Vec<_> = wanted.iter().filter(|a| !servers.contains(&Some(**a))).copied().collect();
            for address in new {
                let Some(server) = free.next() else { break };
                servers[server] = Some(address);
                given.push(change(server, Some(address)));
            }
            for server in free.filter(|n| gone(&servers[*n])).collect::<Vec<_>>() {
                servers[server] = None;
                taken.push(change(server, None));
            }
        }
        given.append(&mut taken);
        given
    }
}

fn addresses(endpoints: &Endpoints, backend: &str) -> Vec<SocketAddr> {
    let mut all: Vec<_> = endpoints.get(backend).into_iter().flatten().map(|e| e.address).collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::ObjectKey;
    use crate::plan::ingress::{Backend, BackendProtocol, Endpoint};

    fn endpoints(ports: &[u16]) -> Endpoints {
        let one = |port: &u16| Endpoint { address: ([10, 0, 0, 1], *port).into(), pod: String::new() };
        BTreeMap::from([("a".to_owned(), ports.iter().map(one).collect())])
    }

    fn slots(ports: &[u16]) -> Slots {
        let service = ObjectKey::new("default", "a");
        let backend = Backend { service, port: String::new(), protocol: BackendProtocol::Http, affinity: None };
        let routing = Routing { backends: [("a".to_owned(), backend)].into(), ..Routing::default() };
        Slots::new(&routing, &endpoints(ports), 4)
    }

    fn told(changes: &[Change]) -> Vec<(usize, Option<u16>)> {
        changes.iter().map(|c| (c.server, c.address.map(|a| a.port()))).collect()
    }

    #[test]
    fn a_new_endpoint_takes_a_free_server_before_an_old_one_goes() {
        let mut slots = slots(&[1, 2]);
        assert_eq!(told(&slots.change(&endpoints(&[2, 3]))), [(3, Some(3)), (1, None)]);
        assert_eq!(told(&slots.change(&endpoints(&[2, 3]))), []);
        assert_eq!(told(&slots.change(&endpoints(&[]))), [(2, None), (3, None)]);
    }

    #[test]
    fn where_none_is_free_one_that_goes_is_given_away() {
        let mut slots = slots(&[1, 2]);
        assert_eq!(
            told(&slots.change(&endpoints(&[3, 4, 5, 6]))),
            [(3, Some(3)), (4, Some(4)), (1, Some(5)), (2, Some(6))]
        );
    }

    #[test]
    fn there_are_servers_to_spare() {
        let slots = slots(&[1, 2, 3, 4, 5]);
        assert_eq!(slots.servers("a").len(), 16);
        assert!(slots.suffice(&endpoints(&(1..=16).collect::<Vec<_>>())));
        assert!(!slots.suffice(&endpoints(&(1..=17).collect::<Vec<_>>())));
        assert_eq!(slots.servers("b"), []);
    }
}
