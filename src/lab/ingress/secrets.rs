//! The secrets that ingresses name: which of them the lab makes, because the lab file asks for them and
//! nobody brings them, and what is wrong with those that somebody brings.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use crate::diag::{Place, Problem, Problems, codes};
use crate::objects::{Ingress, IngressTLS, ObjectKey};
use crate::spec::LabFile;
use crate::spec::manifest::Written;

use super::certificate::{self, Age, Certificate, Unfit};
use super::resolve::Checked;
use super::shown::Fault;
use super::{IngressLayer, namespace_of, near};

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
    let asked = file.objects.generate.iter().map(|key| &key.value).chain(&layer.default_certificate);
    let mut all: BTreeMap<ObjectKey, BTreeSet<String>> = BTreeMap::new();
    for ingress in served.iter().filter(|i| i.written.is_of_lab_file()) {
        let missing = entries(&ingress.object).filter(|(_, _, key)| !layer.secrets.contains_key(key));
        all.extend(missing.map(|(_, _, key)| (key, BTreeSet::new())));
    }
    let brought = |key: &ObjectKey| layer.secrets.contains_key(key);
    all.extend(asked.filter(|key| !brought(key)).map(|key| (key.clone(), BTreeSet::new())));
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
    // No certificate is for nobody; one that no ingress names has its secret's own name.
    let named = |(key, hosts): (ObjectKey, BTreeSet<String>)| {
        let hosts: Vec<String> = if hosts.is_empty() { vec![key.name.clone()] } else { hosts.into_iter().collect() };
        (key, hosts)
    };
    all.into_iter().map(named).collect()
}

/// Tell what is wrong with the certificates that an ingress names.
pub(super) fn check(ingress: &Checked, layer: &IngressLayer, file: &LabFile, problems: &mut Problems) {
    for (n, entry, key) in entries(&ingress.object) {
        let place = ingress.written.place(&format!("spec.tls[{n}].secretName"));
        let Some(secret) = layer.secrets.get(&key) else {
            if !layer.generated.contains_key(&key) && !problems.is_full() {
                problems.push(missing(&ingress.key(), &key, place, layer));
            }
            continue;
        };
        // Reading certificates and looking for their places takes time, which nobody gets anything for.
        if problems.is_full() {
            return;
        }
        let brought = || file.objects.secrets.iter().find(|s| ObjectKey::of(&s.object.metadata) == key);
        let read = certificate::read(secret);
        let fine = |c: &Certificate| {
            c.age(SystemTime::now()) == Age::Valid && names(&ingress.object, entry).iter().all(|host| c.covers(host))
        };
        if read.as_ref().is_ok_and(fine) {
            continue;
        }
        let secret = brought().map(Written::name_place);
        let about = About { ingress: ingress.key(), key, place, secret };
        match read {
            Err(why) => problems.push(about.unfit(why)),
            Ok(certificate) => {
                problems.extend(certificate.fault_of_age(SystemTime::now()).map(|fault| about.refused(&fault)));
                let hosts = names(&ingress.object, entry).into_iter().enumerate();
                for (m, fault) in hosts.filter_map(|(m, host)| Some((m, certificate.fault_for(host)?))) {
                    let place = ingress.written.place(&format!("spec.tls[{n}].hosts[{m}]"));
                    problems.push(About { place, ..about.clone() }.refused(&fault));
                }
            }
        }
    }
}

fn missing(ingress: &ObjectKey, key: &ObjectKey, place: Place, layer: &IngressLayer) -> Problem {
    let in_namespace = layer.secrets.keys().filter(|k| k.namespace == key.namespace).map(|k| k.name.as_str());
    let meant = near(&key.name, in_namespace);
    let elsewhere = layer.secrets.keys().find(|k| k.name == key.name);
    let namespace = namespace_of(key);
    let bring = format!(
        "bring it as a Secret of the type kubernetes.io/tls, or write `secrets: {{ {}: {{ {namespace}generate: true }} }}` \
         into the lab file and the lab makes one",
        key.name
    );
    let help = match (meant, elsewhere) {
        (Some(near), _) => format!("did you mean `{near}`? Otherwise {bring}"),
        (None, Some(other)) => {
            format!("there is {other}, but an ingress has only secrets of its own namespace; {bring}")
        }
        (None, None) => bring,
    };
    Problem::warning(codes::INGRESS_SECRET, format!("ingress {ingress}: there is no secret {key}"))
        .at(place, "the controller shows a certificate that nobody trusts")
        .help(help)
}

/// An ingress and a secret that it names.
#[derive(Clone)]
struct About {
    ingress: ObjectKey,
    key: ObjectKey,
    place: Place,
    /// Where the secret's name is written.
    secret: Option<Place>,
}

impl About {
    fn problem(&self, code: codes::Code, fault: &Fault, words: &str) -> Problem {
        let problem = Problem::warning(code, format!("ingress {}: secret {} {fault}", self.ingress, self.key));
        let problem = problem.at(self.place, words);
        match self.secret {
            Some(place) => problem.at(place, "this secret"),
            None => problem,
        }
    }

    fn unfit(&self, why: Unfit) -> Problem {
        let help = match &why {
            Unfit::Type(_) | Unfit::Missing(_) => {
                "give it the type kubernetes.io/tls with the certificate as tls.crt and its key as tls.key, both in PEM"
            }
            Unfit::NoCertificate(_) => {
                "tls.crt holds `-----BEGIN CERTIFICATE-----` and so on, under `data` once more in base64"
            }
            Unfit::NoKey(_) => "tls.key holds a key without password, RSA or ECDSA, as `openssl req -nodes` makes it",
            Unfit::OtherKey => {
                "give it the key that the certificate was made with; `openssl x509 -noout -pubkey` and \
                                `openssl pkey -pubout` print the same of both"
            }
        };
        let problem =
            self.problem(codes::INGRESS_SECRET, &Fault::Unfit(why), "the controller shows another certificate");
        problem.help(help)
    }

    /// A certificate that is shown, and that clients refuse.
    fn refused(&self, fault: &Fault) -> Problem {
        let help = match fault {
            Fault::CommonName(host) => {
                format!("make it with the name as subjectAltName: `-addext subjectAltName=DNS:{host}`")
            }
            Fault::OtherName { host, .. } => format!("take a certificate for {host}; a wildcard stands for one label"),
            _ => "renew it, or take the secret out of the lab file, and the lab makes one".to_owned(),
        };
        self.problem(codes::INGRESS_CERTIFICATE, fault, "clients refuse it").help(help)
    }
}
