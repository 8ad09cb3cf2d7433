//! Certificates that the lab makes: for secrets that the lab file asks for and nobody brings.

use std::collections::{BTreeMap, BTreeSet};

use crate::objects::{Ingress, IngressTLS, ObjectKey};
use crate::spec::LabFile;

use super::IngressLayer;
use super::resolve::Checked;

/// The names that an entry of `tls` is for: its hosts, or those of the rules where it has none.
pub(super) fn names<'i>(ingress: &'i Ingress, entry: &'i IngressTLS) -> Vec<&'i str> {
    let own: Vec<&str> = entry.hosts.iter().flatten().map(String::as_str).collect();
    if own.is_empty() { rule_hosts(ingress).collect() } else { own }
}

/// The hosts of an ingress' rules.
pub(super) fn rule_hosts(ingress: &Ingress) -> impl Iterator<Item = &str> {
    let rules = ingress.spec.iter().flat_map(|s| s.rules.iter().flatten());
    rules.filter_map(|r| r.host.as_deref()).filter(|h| !h.is_empty())
}

/// The entries of `tls` that name a secret, each with the secret.
pub(super) fn entries(ingress: &Ingress) -> impl Iterator<Item = (usize, &IngressTLS, ObjectKey)> {
    let namespace = ObjectKey::of(&ingress.metadata).namespace;
    let all = ingress.spec.iter().flat_map(|s| s.tls.iter().flatten()).enumerate();
    all.filter_map(move |(n, entry)| {
        let name = entry.secret_name.as_deref().filter(|name| !name.is_empty())?;
        Some((n, entry, ObjectKey::new(&namespace, name)))
    })
}

/// The secrets that are to be made, with the names of each certificate: those that the lab file says
/// so of, and those that ingresses of the lab file name and nobody brings. A manifest's ingress gets
/// what its writer brings, as in a cluster.
pub(super) fn generated(served: &[Checked], layer: &IngressLayer, file: &LabFile) -> BTreeMap<ObjectKey, Vec<String>> {
    let asked: BTreeSet<&ObjectKey> = file.objects.generate.iter().map(|key| &key.value).collect();
    let mut all: BTreeMap<ObjectKey, BTreeSet<String>> = BTreeMap::new();
    for ingress in served.iter().filter(|i| i.written.is_of_lab_file()) {
        let missing = entries(&ingress.object).filter(|(_, _, key)| !layer.secrets.contains_key(key));
        all.extend(missing.map(|(_, _, key)| (key, BTreeSet::new())));
    }
    let brought = |key: &ObjectKey| layer.secrets.contains_key(key);
    all.extend(asked.into_iter().filter(|key| !brought(key)).map(|key| (key.clone(), BTreeSet::new())));
    for ingress in served {
        for (_, entry, key) in entries(&ingress.object) {
            if let Some(hosts) = all.get_mut(&key) {
                hosts.extend(names(&ingress.object, entry).into_iter().map(str::to_owned));
            }
        }
    }
    // The default certificate is shown to those who ask for any of the names.
    if let Some(hosts) = layer.default_certificate.as_ref().and_then(|key| all.get_mut(key)) {
        hosts.extend(served.iter().flat_map(|i| rule_hosts(&i.object)).map(str::to_owned));
    }
    // A certificate for no name is of no use to anybody; authorities of their own have one for theirs.
    let named = |(key, hosts): (ObjectKey, BTreeSet<String>)| {
        let hosts: Vec<String> = if hosts.is_empty() { vec![key.name.clone()] } else { hosts.into_iter().collect() };
        (key, hosts)
    };
    all.into_iter().map(named).collect()
}
