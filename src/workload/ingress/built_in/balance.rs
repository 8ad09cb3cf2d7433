//! Which endpoint is asked: in turn, or the one that a client's cookie names.
//!
//! As ingress-nginx' `round_robin` and `sticky_balanced`: the turn begins anywhere, and goes on where it
//! was when endpoints change. A cookie holds a digest of the endpoint's address instead of a hash's key:
//! it names one endpoint, and says nothing about the network.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::rc::Rc;

use sha2::{Digest, Sha256};

use crate::plan::ingress::{BackendName, Endpoint, Endpoints};

/// The endpoints of all backends.
pub type Balancers = HashMap<BackendName, Rc<Balancer>>;

/// The endpoints of one backend.
#[derive(Debug)]
pub struct Balancer {
    endpoints: Vec<Endpoint>,
    next: Cell<usize>,
}

/// From what was told, with turns going on.
pub fn renew(told: &Endpoints, before: &Balancers) -> Balancers {
    let renewed = |(name, endpoints): (&BackendName, &Vec<Endpoint>)| {
        let balancer = match before.get(name) {
            Some(same) if same.endpoints == *endpoints => Rc::clone(same),
            other => Rc::new(Balancer::new(endpoints, other.map(|b| b.next.get()))),
        };
        (name.clone(), balancer)
    };
    told.iter().map(renewed).collect()
}

impl Balancer {
    fn new(endpoints: &[Endpoint], next: Option<usize>) -> Balancer {
        let next = next.unwrap_or_else(|| RandomState::new().hash_one(0) as usize % endpoints.len().max(1));
        Balancer { endpoints: endpoints.to_vec(), next: Cell::new(next) }
    }

    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// The next one, but none of `tried`.
    pub fn next(&self, tried: &[SocketAddr]) -> Option<SocketAddr> {
        let count = self.endpoints.len();
        let start = self.next.get();
        let turns = (0..count).map(|step| (start + step) % count);
        let fresh = |&at: &usize| self.endpoints.get(at).is_some_and(|e| !tried.contains(&e.address));
        let at = { turns }.find(fresh)?;
        self.next.set((at + 1) % count);
        self.endpoints.get(at).map(|endpoint| endpoint.address)
    }

    /// The one that `cookie` names.
    pub fn named(&self, cookie: &str) -> Option<SocketAddr> {
        self.endpoints.iter().map(|endpoint| endpoint.address).find(|&address| name(address) == cookie)
    }
}

/// What a cookie calls an endpoint.
pub fn name(address: SocketAddr) -> String {
    let digest = Sha256::digest(address.to_string());
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(ports: &[u16]) -> Endpoints {
        let endpoint = |&port: &u16| Endpoint { address: ([10, 0, 0, 1], port).into(), pod: String::new() };
        [("a".to_owned(), ports.iter().map(endpoint).collect())].into()
    }

    fn port(balancers: &Balancers, tried: &[SocketAddr]) -> Option<u16> {
        balancers["a"].next(tried).map(|address| address.port())
    }

    #[test]
    fn each_endpoint_has_its_turn_and_turns_go_on_when_endpoints_change() {
        let three = renew(&endpoints(&[1, 2, 3]), &Balancers::new());
        let first = port(&three, &[]).unwrap();
        let rest: Vec<u16> = (0..5).filter_map(|_| port(&three, &[])).collect();
        let expected: Vec<u16> = (0..5).map(|step| (first + step) % 3 + 1).collect();
        assert_eq!(rest, expected);
        let same = renew(&endpoints(&[1, 2, 3]), &three);
        assert_eq!(port(&same, &[]), port(&same, &[]).map(|p| (p + 1) % 3 + 1));
    }

    #[test]
    fn an_endpoint_that_failed_is_passed_over_and_none_is_left_in_the_end() {
        let two = renew(&endpoints(&[1, 2]), &Balancers::new());
        let first = two["a"].next(&[]).unwrap();
        let second = two["a"].next(&[first]).unwrap();
        assert_ne!(first, second);
        assert_eq!(two["a"].next(&[first, second]), None);
        assert_eq!(port(&renew(&endpoints(&[]), &two), &[]), None);
    }

    #[test]
    fn a_cookie_names_an_endpoint_as_long_as_it_is_there() {
        let two = renew(&endpoints(&[1, 2]), &Balancers::new());
        let second: SocketAddr = ([10, 0, 0, 1], 2).into();
        assert_eq!(two["a"].named(&name(second)), Some(second));
        assert_eq!(renew(&endpoints(&[1]), &two)["a"].named(&name(second)), None);
        assert_eq!(two["a"].named("rubbish"), None);
    }
}
