//! What a cloud's load balancer controller does with the objects: which services get a load balancer,
//! and which public address each has. The load balancer itself is planned in `plan::balancers`.
//!
//! A service keeps the address that it had. One that asks for an address (`loadBalancerIP`) gets that
//! one or none; the others get the first free one. A service without one is pending, as kubectl shows
//! it, and a condition in its status says why.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, ServiceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use super::{ObjectKey, Service, service_type};

/// The condition's type: whether the service has its load balancer.
const CONDITION: &str = "LoadBalancerReady";
/// Its reason where no address was found.
const REASON: &str = "AllocationFailed";

/// A service that stays pending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Its place in the list.
    pub service: usize,
    pub reason: String,
    /// Whether it asks for an address of its own.
    pub asks: bool,
}

/// Whether a service is one that this cloud gives a load balancer to. Those with a class are some
/// other controller's.
pub fn is_balanced(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|s| service_type(s) == "LoadBalancer" && s.load_balancer_class.is_none())
}

/// The public address of a service's load balancer; nothing for one that is not ours or is pending.
pub fn address(service: &Service) -> Option<IpAddr> {
    if !is_balanced(service) {
        return None;
    }
    let balancer = service.status.as_ref()?.load_balancer.as_ref()?;
    balancer.ingress.iter().flatten().find_map(|i| i.ip.as_ref()?.parse().ok())
}

/// Why a service has no load balancer yet; nothing where it has one or wants none.
pub fn pending(service: &Service) -> Option<&str> {
    condition(service).map(|c| c.message.as_str())
}

fn condition(service: &Service) -> Option<&Condition> {
    let conditions = service.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| c.type_ == CONDITION && c.status == "False")
}

/// Give every service that is [balanced](is_balanced) a public address out of `pool` and write it into
/// its status. `before` are the services as they are now.
pub fn allocate(services: &mut [Service], before: &HashMap<ObjectKey, &Service>, pool: IpNet) -> Vec<Pending> {
    let mut found: Vec<Option<IpAddr>> = vec![None; services.len()];
    let mut refused: Vec<Option<String>> = vec![None; services.len()];
    let mut taken: BTreeSet<IpAddr> = BTreeSet::new();
    let ours: Vec<usize> = (0..services.len()).filter(|n| is_balanced(&services[*n])).collect();
    // Nobody takes the address of a service that stays and does not ask for another.
    for &n in &ours {
        let had = before.get(&ObjectKey::of(&services[n].metadata)).and_then(|old| address(old));
        let stays = |ip: &IpAddr| asked(&services[n]).is_none_or(|asked| asked.parse() == Ok(*ip));
        found[n] = had.filter(|ip| stays(ip) && is_usable(*ip, pool) && taken.insert(*ip));
    }
    // Somebody routes these elsewhere.
    taken.extend(services.iter().flat_map(external_ips));
    for n in ours.iter().copied().filter(|n| found[*n].is_none()).collect::<Vec<_>>() {
        match asked(&services[n]).map(|asked| usable(asked, pool, &mut taken)) {
            Some(Ok(ip)) => found[n] = Some(ip),
            Some(Err(why)) => refused[n] = Some(why),
            None => {}
        }
    }
    let open = |n: &usize, found: &[Option<IpAddr>]| found[*n].is_none() && asked(&services[*n]).is_none();
    let mut free = pool.hosts();
    for n in &ours {
        if open(n, &found) {
            found[*n] = free.find(|ip| taken.insert(*ip));
            if found[*n].is_none() {
                refused[*n] = Some(format!("no address is left in the load balancers' range {pool}"));
            }
        }
    }
    let mut all = Vec::new();
    for n in ours {
        let old = before.get(&ObjectKey::of(&services[n].metadata)).and_then(|old| condition(old)).cloned();
        services[n].status = Some(match (found[n], &refused[n]) {
            (Some(ip), _) => with_address(ip),
            (None, why) => without(why.clone().unwrap_or_default(), old),
        });
        let asks = asked(&services[n]).is_some();
        all.extend(refused[n].take().map(|reason| Pending { service: n, reason, asks }));
    }
    all
}

fn external_ips(service: &Service) -> impl Iterator<Item = IpAddr> {
    service.spec.iter().flat_map(|s| s.external_ips.iter().flatten()).filter_map(|ip| ip.parse().ok())
}

fn asked(service: &Service) -> Option<&str> {
    service.spec.as_ref()?.load_balancer_ip.as_deref().filter(|ip| !ip.is_empty())
}

fn usable(asked: &str, pool: IpNet, taken: &mut BTreeSet<IpAddr>) -> Result<IpAddr, String> {
    let ip: IpAddr = asked.parse().map_err(|_| format!("`{asked}` is not an address"))?;
    if !is_usable(ip, pool) {
        return Err(format!("{ip} is not an address of the load balancers' range {pool}"));
    }
    if taken.insert(ip) { Ok(ip) } else { Err(format!("the address {ip} is another service's")) }
}

/// Whether a machine of the range may have this address: none has IPv4's first and last one, unless
/// the range has no more than those (RFC 3021).
fn is_usable(ip: IpAddr, pool: IpNet) -> bool {
    let special = matches!(pool, IpNet::V4(v4) if v4.prefix_len() < 31);
    pool.contains(&ip) && !(special && (ip == pool.network() || ip == pool.broadcast()))
}

fn with_address(ip: IpAddr) -> ServiceStatus {
    // kube-proxy takes packets that still have this address in them (KEP-1860).
    let ingress = LoadBalancerIngress {
        ip: Some(ip.to_string()),
        ip_mode: Some("VIP".to_owned()),
        ..LoadBalancerIngress::default()
    };
    ServiceStatus { load_balancer: Some(LoadBalancerStatus { ingress: Some(vec![ingress]) }), conditions: None }
}

/// To the second, as the API server writes times.
fn now() -> Time {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seconds = since_1970.ok().and_then(|d| i64::try_from(d.as_secs()).ok()).unwrap_or_default();
    Time(Timestamp::from_second(seconds).unwrap_or_default())
}

fn without(message: String, old: Option<Condition>) -> ServiceStatus {
    let since = old.filter(|c| c.message == message).map(|c| c.last_transition_time);
    let condition = Condition {
        last_transition_time: since.unwrap_or_else(now),
        message,
        observed_generation: None,
        reason: REASON.to_owned(),
        status: "False".to_owned(),
        type_: CONDITION.to_owned(),
    };
    ServiceStatus { load_balancer: Some(LoadBalancerStatus::default()), conditions: Some(vec![condition]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, more: serde_json::Value) -> Service {
        let mut spec = serde_json::json!({ "type": "LoadBalancer", "ports": [{ "port": 80 }] });
        more.as_object().expect("fields").iter().for_each(|(k, v)| spec[k] = v.clone());
        serde_json::from_value(serde_json::json!({ "metadata": { "name": name }, "spec": spec })).expect("a service")
    }

    fn none() -> serde_json::Value {
        serde_json::json!({})
    }

    fn pool(text: &str) -> IpNet {
        text.parse().expect("a range")
    }

    fn ips(services: &[Service]) -> Vec<Option<String>> {
        services.iter().map(|s| address(s).map(|ip| ip.to_string())).collect()
    }

    #[test]
    fn each_gets_the_first_free_address_and_who_asks_gets_its_own() {
        let asks = serde_json::json!({ "loadBalancerIP": "198.51.100.1" });
        let outside = serde_json::json!({ "externalIPs": ["198.51.100.2"] });
        let mut all = vec![service("a", none()), service("b", asks), service("c", outside)];
        all.push(service("d", serde_json::json!({ "type": "NodePort" })));
        all.push(service("e", serde_json::json!({ "loadBalancerClass": "example.com/lb" })));
        assert_eq!(allocate(&mut all, &HashMap::new(), pool("198.51.100.0/24")), []);
        let wanted = [Some("198.51.100.3"), Some("198.51.100.1"), Some("198.51.100.4"), None, None];
        assert_eq!(ips(&all), wanted.map(|ip| ip.map(str::to_owned)));
        assert!(all[3].status.is_none() && all[4].status.is_none());
    }

    #[test]
    fn who_was_there_before_keeps_its_address() {
        let mut old = vec![service("a", none()), service("b", none())];
        allocate(&mut old, &HashMap::new(), pool("198.51.100.0/24"));
        let before: HashMap<ObjectKey, &Service> = old.iter().map(|s| (ObjectKey::of(&s.metadata), s)).collect();
        let mut new = vec![service("c", none()), service("b", none())];
        allocate(&mut new, &before, pool("198.51.100.0/24"));
        assert_eq!(ips(&new), [Some("198.51.100.1".to_owned()), Some("198.51.100.2".to_owned())]);
    }

    #[test]
    fn nobody_takes_the_address_of_one_that_was_there_before() {
        let mut old = vec![service("a", none())];
        allocate(&mut old, &HashMap::new(), pool("198.51.100.0/24"));
        let before: HashMap<ObjectKey, &Service> = old.iter().map(|s| (ObjectKey::of(&s.metadata), s)).collect();
        let asks = serde_json::json!({ "loadBalancerIP": "198.51.100.1" });
        let outside = serde_json::json!({ "externalIPs": ["198.51.100.1"] });
        let mut new = vec![service("b", asks.clone()), service("c", outside), service("a", none())];
        let left_out = allocate(&mut new, &before, pool("198.51.100.0/24"));
        let wanted = [None, Some("198.51.100.2"), Some("198.51.100.1")];
        assert_eq!(ips(&new), wanted.map(|ip| ip.map(str::to_owned)));
        assert_eq!((left_out.len(), left_out[0].service), (1, 0));
        // Who asks for another one gives up its own.
        let mut moved = vec![service("b", asks), service("a", serde_json::json!({ "loadBalancerIP": "198.51.100.7" }))];
        assert_eq!(allocate(&mut moved, &before, pool("198.51.100.0/24")), []);
        assert_eq!(ips(&moved), [Some("198.51.100.1".to_owned()), Some("198.51.100.7".to_owned())]);
    }

    #[test]
    fn which_addresses_of_a_range_can_be_asked_for() {
        let usable = |ip: &str, range: &str| is_usable(ip.parse().expect("an address"), pool(range));
        for (ip, range) in [("10.0.0.1", "10.0.0.0/30"), ("10.0.0.0", "10.0.0.0/31"), ("10.0.0.9", "10.0.0.9/32")] {
            assert!(usable(ip, range), "{ip} of {range}");
            assert_eq!(pool(range).hosts().next(), ip.parse().ok(), "the first one that is given out");
        }
        for (ip, range) in [("10.0.0.0", "10.0.0.0/30"), ("10.0.0.3", "10.0.0.0/30"), ("10.0.0.4", "10.0.0.0/30")] {
            assert!(!usable(ip, range), "{ip} of {range}");
        }
        // A range that nobody can walk through.
        let asks = serde_json::json!({ "loadBalancerIP": "fd00::ffff:ffff:ffff:ffff" });
        let mut all = vec![service("a", asks)];
        assert_eq!(allocate(&mut all, &HashMap::new(), pool("fd00::/64")), []);
    }

    #[test]
    fn without_an_address_a_service_is_pending_with_the_reason() {
        let asks = |ip: &str| serde_json::json!({ "loadBalancerIP": ip });
        let mut all = vec![
            service("a", none()),
            service("b", none()),
            service("c", none()),
            service("d", asks("192.0.2.1")),
            service("e", asks("198.51.100.0")),
        ];
        let left_out = allocate(&mut all, &HashMap::new(), pool("198.51.100.0/30"));
        let said: Vec<(usize, bool)> = left_out.iter().map(|p| (p.service, p.asks)).collect();
        assert_eq!(said, [(2, false), (3, true), (4, true)]);
        assert_eq!(pending(&all[0]), None);
        assert_eq!(pending(&all[2]), Some("no address is left in the load balancers' range 198.51.100.0/30"));
        assert!(pending(&all[3]).is_some_and(|why| why.starts_with("192.0.2.1 is not an address of")));
        let before: HashMap<ObjectKey, &Service> = all.iter().map(|s| (ObjectKey::of(&s.metadata), s)).collect();
        let mut again = vec![service("c", asks("192.0.2.1"))];
        let mut more = vec![service("a", none()), service("b", none()), service("c", none())];
        allocate(&mut again, &before, pool("198.51.100.0/30"));
        allocate(&mut more, &before, pool("198.51.100.0/30"));
        assert_eq!(more[2].status, all[2].status, "it has waited since then");
        assert_ne!(again[0].status, all[2].status);
    }

    #[test]
    fn of_two_that_ask_for_one_address_the_first_gets_it() {
        let asks = serde_json::json!({ "loadBalancerIP": "198.51.100.9" });
        let mut all = vec![service("a", asks.clone()), service("b", asks)];
        let left_out = allocate(&mut all, &HashMap::new(), pool("198.51.100.0/24"));
        assert_eq!(left_out[0].reason, "the address 198.51.100.9 is another service's");
        assert_eq!((left_out.len(), left_out[0].service), (1, 1));
    }
}
