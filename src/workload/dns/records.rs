//! What is in the cluster, in the form in which it is asked for: services and their endpoints by
//! name and by address, namespaces, pods. Made from Kubernetes' objects, wholly or change by change.
//! Which of it answers a question is `cluster`'s.
//!
//! Only what the slices say of an endpoint counts. Whether one that is not ready is published is
//! decided by who writes the slices, as in Kubernetes: CoreDNS does not look at
//! `publishNotReadyAddresses` either.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::objects::{EndpointSlice, ObjectKey, Service};

use super::config::{DnsConfig, Settings};
use super::digest::{self, Entry, Kind};

/// What a server is told of the cluster, again and again.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Update {
    /// All there is; what was before is forgotten.
    Set(Objects),
    /// What differs. What is taken away goes first, so that a name can change its owner.
    Change { gone: Gone, put: Objects },
    /// Names outside the cluster that have addresses now, besides those of the configuration, which
    /// win; those of before are forgotten.
    Outside(BTreeMap<String, Vec<IpAddr>>),
}

/// Kubernetes' objects, as far as DNS knows them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Objects {
    pub services: Vec<Service>,
    pub slices: Vec<EndpointSlice>,
    pub pods: Vec<PodFact>,
    /// A name is in a namespace that exists, or is not there.
    pub namespaces: Vec<String>,
}

impl Update {
    /// The update that makes `now` of `before`, or all of `now` where nothing was before; nothing where
    /// both are the same. Of objects with one name the last one counts, as it does for a server.
    pub fn between(before: Option<&Objects>, now: Objects) -> Option<Update> {
        let Some(before) = before else { return Some(Update::Set(now)) };
        let service = |s: &Service| ObjectKey::of(&s.metadata).to_string();
        let slice = |s: &EndpointSlice| ObjectKey::of(&s.metadata).to_string();
        let (mut gone, mut put) = (Gone::default(), Objects::default());
        (gone.services, put.services) = difference(&before.services, now.services, service);
        (gone.slices, put.slices) = difference(&before.slices, now.slices, slice);
        (gone.pods, put.pods) = difference(&before.pods, now.pods, PodFact::id);
        (gone.namespaces, put.namespaces) = difference(&before.namespaces, now.namespaces, String::clone);
        let same = gone == Gone::default() && put == Objects::default();
        (!same).then_some(Update::Change { gone, put })
    }
}

/// The names of those that are no more, and those that are new or other than before.
fn difference<T: PartialEq>(before: &[T], now: Vec<T>, name: impl Fn(&T) -> String) -> (Vec<String>, Vec<T>) {
    let mut old: HashMap<String, &T> = before.iter().map(|object| (name(object), object)).collect();
    let put = now.into_iter().filter(|object| old.remove(&name(object)).is_none_or(|old| old != object)).collect();
    let mut gone: Vec<String> = old.into_keys().collect();
    gone.sort_unstable();
    (gone, put)
}

/// A pod, for `pods: verified`; not needed otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodFact {
    pub namespace: String,
    pub name: String,
    pub ip: IpAddr,
}

impl PodFact {
    /// `namespace/name`.
    fn id(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// Objects that are no more, by `namespace/name`; namespaces by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Gone {
    pub services: Vec<String>,
    pub slices: Vec<String>,
    pub pods: Vec<String>,
    pub namespaces: Vec<String>,
}

/// A service's key: the wire form of `name.namespace`, in lower case.
pub(super) type Key = Box<[u8]>;

/// All that is known, ready to be asked.
#[derive(Debug)]
pub struct Records {
    pub(super) settings: Settings,
    pub(super) entries: HashMap<Key, Entry>,
    /// Services by virtual address.
    pub(super) virtual_ips: HashMap<IpAddr, BTreeSet<Key>>,
    /// Services by an endpoint's address, and how many slices of each have it.
    pub(super) endpoint_ips: HashMap<IpAddr, BTreeMap<Key, usize>>,
    pub(super) namespaces: HashSet<Vec<u8>>,
    /// Addresses of pods with their namespaces, and how many pods have both.
    pub(super) pod_ips: HashMap<(IpAddr, Vec<u8>), usize>,
    /// To which service each slice, and which address each pod has, by `namespace/name`.
    slices: HashMap<String, Key>,
    pods: HashMap<String, (IpAddr, Vec<u8>)>,
    /// Names and addresses of the server's own service (labels without a zone).
    pub(super) own: Vec<(Box<[u8]>, IpAddr)>,
    /// The SOA's serial: seconds since 1970 of the last change, as in CoreDNS.
    pub(super) serial: u32,
    /// Whether the cluster has been heard of at all.
    pub(super) synced: bool,
}

impl Records {
    /// Nothing yet: names of the cluster are answered with SERVFAIL until the first update, as
    /// they may well exist.
    ///
    /// # Errors
    /// A zone or a name in `config.records` that is none.
    pub fn new(config: &DnsConfig) -> io::Result<Records> {
        Ok(Records::of(Settings::new(config)?))
    }

    fn of(settings: Settings) -> Records {
        Records {
            settings,
            entries: HashMap::new(),
            virtual_ips: HashMap::new(),
            endpoint_ips: HashMap::new(),
            namespaces: HashSet::new(),
            pod_ips: HashMap::new(),
            slices: HashMap::new(),
            pods: HashMap::new(),
            own: Vec::new(),
            serial: 0,
            synced: false,
        }
    }

    /// Whether an update has come.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// How many services are known.
    pub fn services(&self) -> usize {
        self.entries.values().filter(|e| e.service.is_some()).count()
    }

    /// Act on an update; what an object has that DNS cannot say (a label of 64 bytes, an address
    /// that is none) is left out.
    pub fn apply(&mut self, update: &Update) {
        match update {
            Update::Set(objects) => {
                self.forget();
                self.put(objects);
            }
            Update::Change { gone, put } => {
                self.take(gone);
                self.put(put);
            }
            // Nothing of the cluster has changed.
            Update::Outside(names) => return self.settings.set_outside(names),
        }
        self.own = self.own_names();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        // Serials wrap around (RFC 1982), and so may this.
        self.serial = now.map_or(0, |t| t.as_secs() as u32);
        self.synced = true;
    }

    fn forget(&mut self) {
        self.entries.clear();
        self.virtual_ips.clear();
        self.endpoint_ips.clear();
        self.namespaces.clear();
        self.pod_ips.clear();
        self.slices.clear();
        self.pods.clear();
    }

    fn put(&mut self, objects: &Objects) {
        self.namespaces.extend(objects.namespaces.iter().map(|n| folded(n)));
        objects.services.iter().for_each(|s| self.put_service(s));
        objects.slices.iter().for_each(|s| self.put_slice(s));
        objects.pods.iter().for_each(|p| self.put_pod(p));
    }

    fn take(&mut self, gone: &Gone) {
        for name in &gone.namespaces {
            self.namespaces.remove(&folded(name));
        }
        for service in gone.services.iter().filter_map(|text| text.split_once('/')) {
            if let Some(key) = digest::key(service.0, service.1) {
                self.take_service(&key);
            }
        }
        gone.slices.iter().for_each(|slice| self.take_slice(slice));
        gone.pods.iter().for_each(|pod| self.take_pod(pod));
    }

    fn put_service(&mut self, service: &Service) {
        let id = ObjectKey::of(&service.metadata);
        let Some(key) = digest::key(&id.namespace, &id.name) else { return };
        self.take_service(&key);
        let facts = digest::service(service);
        if let Kind::Cluster { ips, .. } = &facts {
            for ip in ips {
                self.virtual_ips.entry(*ip).or_default().insert(key.clone());
            }
        }
        if let Some(entry) = self.entry(key, &id.namespace, &id.name) {
            entry.service = Some(facts);
        }
    }

    fn take_service(&mut self, key: &[u8]) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if let Some(Kind::Cluster { ips, .. }) = entry.service.take() {
            for ip in ips {
                if self.virtual_ips.get_mut(&ip).is_some_and(|all| all.remove(key) && all.is_empty()) {
                    self.virtual_ips.remove(&ip);
                }
            }
        }
        self.drop_empty(key);
    }

    /// A slice may come before its service, so either makes the entry.
    fn entry(&mut self, key: Key, namespace: &str, name: &str) -> Option<&mut Entry> {
        let head = super::name::labels(&format!("{name}.{namespace}.svc"))?.into_boxed_slice();
        Some(self.entries.entry(key).or_insert_with(|| Entry { head, service: None, slices: Vec::new() }))
    }

    fn drop_empty(&mut self, key: &[u8]) {
        if self.entries.get(key).is_some_and(|e| e.service.is_none() && e.slices.is_empty()) {
            self.entries.remove(key);
        }
    }

    fn put_slice(&mut self, slice: &EndpointSlice) {
        let id = ObjectKey::of(&slice.metadata);
        let text = id.to_string();
        self.take_slice(&text);
        let Some(service) = digest::service_of(slice) else { return };
        let Some(key) = digest::key(&id.namespace, service) else { return };
        let digested = digest::slice(slice, &self.settings.config);
        for address in &digested.addresses {
            *self.endpoint_ips.entry(address.ip).or_default().entry(key.clone()).or_default() += 1;
        }
        if let Some(entry) = self.entry(key.clone(), &id.namespace, service) {
            entry.slices.push(digested);
            self.slices.insert(text, key);
        }
    }

    fn take_slice(&mut self, text: &str) {
        let Some(key) = self.slices.remove(text) else { return };
        let name = text.split_once('/').map_or(text, |(_, name)| name);
        let Some(entry) = self.entries.get_mut(&key) else { return };
        for slice in entry.slices.extract_if(.., |s| s.name == name) {
            for address in slice.addresses {
                let Some(services) = self.endpoint_ips.get_mut(&address.ip) else { continue };
                if let Some(count) = services.get_mut(&key) {
                    *count = count.saturating_sub(1);
                }
                services.retain(|_, count| *count > 0);
                if services.is_empty() {
                    self.endpoint_ips.remove(&address.ip);
                }
            }
        }
        self.drop_empty(&key);
    }

    fn put_pod(&mut self, pod: &PodFact) {
        let text = pod.id();
        self.take_pod(&text);
        let place = (pod.ip, folded(&pod.namespace));
        *self.pod_ips.entry(place.clone()).or_default() += 1;
        self.pods.insert(text, place);
    }

    fn take_pod(&mut self, text: &str) {
        let Some(place) = self.pods.remove(text) else { return };
        if let Some(count) = self.pod_ips.get_mut(&place) {
            *count -= 1;
            if *count == 0 {
                self.pod_ips.remove(&place);
            }
        }
    }

    /// The names under which the server is known: those of the services that have one of its own
    /// addresses among their endpoints; where there is none, `ns.dns` with its own addresses.
    fn own_names(&self) -> Vec<(Box<[u8]>, IpAddr)> {
        let local = &self.settings.config.local_ips;
        let keys: BTreeSet<&Key> =
            local.iter().filter_map(|ip| self.endpoint_ips.get(ip)).flat_map(BTreeMap::keys).collect();
        if keys.is_empty() {
            return local.iter().map(|ip| (Box::from(&b"\x02ns\x03dns"[..]), *ip)).collect();
        }
        keys.into_iter().filter_map(|key| self.entries.get(key)).flat_map(|e| e.names_of(local)).collect()
    }
}

fn folded(text: &str) -> Vec<u8> {
    text.to_ascii_lowercase().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(value: serde_json::Value) -> Objects {
        serde_json::from_value(value).expect("objects")
    }

    fn service(name: &str, ip: &str) -> serde_json::Value {
        serde_json::json!({ "metadata": { "name": name, "namespace": "shop" }, "spec": { "clusterIP": ip } })
    }

    #[test]
    fn an_update_has_what_differs_and_nothing_else() {
        let services = [service("a", "10.96.0.1"), service("b", "10.96.0.2"), service("c", "10.96.0.3")];
        let before = objects(serde_json::json!({ "services": services, "namespaces": ["shop", "default"] }));
        let services = [service("c", "10.96.0.3"), service("b", "10.96.0.9"), service("d", "10.96.0.4")];
        let now = objects(serde_json::json!({ "services": services, "namespaces": ["shop"] }));
        let update = Update::between(Some(&before), now.clone()).expect("a difference");
        let Update::Change { gone, put } = &update else { panic!("{update:?}") };
        assert_eq!(
            (&gone.services[..], &gone.namespaces[..]),
            (&["shop/a".to_owned()][..], &["default".to_owned()][..])
        );
        assert_eq!(put.services, now.services[1..]);
        assert_eq!((gone.slices.len(), gone.pods.len(), put.namespaces.len()), (0, 0, 0));
        assert!(Update::between(Some(&now), now.clone()).is_none());
        assert!(matches!(Update::between(None, now.clone()), Some(Update::Set(all)) if all == now));
    }
}
