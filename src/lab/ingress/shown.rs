//! Which certificates clients really get: what is wrong with those that ingresses name, for as long as
//! it is so. When a lab is read, the same is told with its place by [`super::secrets`].

use std::fmt;
use std::time::SystemTime;

use crate::objects::{Ingress, ObjectKey};

use super::certificate::{self, Age, Certificate, Unfit};
use super::{IngressLayer, secrets};

/// What is wrong with a secret for those who ask for a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// It holds nothing that a server can show.
    Unfit(Unfit),
    NotYet(String),
    Expired(String),
    /// The certificate names the host only as its common name.
    CommonName(String),
    OtherName {
        host: String,
        names: Vec<String>,
    },
}

impl fmt::Display for Fault {
    /// Behind the secret's name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Unfit(why) => why.fmt(f),
            Fault::NotYet(begin) => write!(f, "has a certificate that is not valid before {begin}"),
            Fault::Expired(end) => write!(f, "has a certificate that expired on {end}"),
            Fault::CommonName(host) => {
                write!(f, "has `{host}` as common name only, which clients no longer look at")
            }
            Fault::OtherName { host, names } if names.is_empty() => {
                write!(f, "is no certificate for `{host}`: it is one for no name")
            }
            Fault::OtherName { host, names } => {
                write!(f, "is no certificate for `{host}`: it is one for {}", names.join(", "))
            }
        }
    }
}

impl Certificate {
    /// What is wrong with its time.
    pub(super) fn fault_of_age(&self, now: SystemTime) -> Option<Fault> {
        match self.age(now) {
            Age::Valid => None,
            Age::NotYet => Some(Fault::NotYet(self.days.0.clone())),
            Age::Expired => Some(Fault::Expired(self.days.1.clone())),
        }
    }

    /// What is wrong with it for a host.
    pub(super) fn fault_for(&self, host: &str) -> Option<Fault> {
        let host = || host.to_owned();
        match (self.covers(&host()), self.has_it_as_common_name(&host())) {
            (true, _) => None,
            (false, true) => Some(Fault::CommonName(host())),
            (false, false) => Some(Fault::OtherName { host: host(), names: self.names.clone() }),
        }
    }
}

impl IngressLayer {
    /// Which hosts of an ingress have a certificate at `now` that clients refuse, and why; a line each.
    pub fn bad_certificates(&self, ingress: &Ingress, now: SystemTime) -> Vec<String> {
        let mut all = Vec::new();
        for (_, entry, key) in secrets::entries(ingress) {
            let hosts = secrets::names(ingress, entry);
            let Some(secret) = self.secrets.get(&key) else {
                if !self.generated.contains_key(&key) {
                    all.push(self.default_instead(&hosts, &format!("there is no secret {key}")));
                }
                continue;
            };
            match certificate::read(secret) {
                Err(why) => all.push(self.default_instead(&hosts, &format!("secret {key} {why}"))),
                Ok(certificate) => {
                    let refused = |names: &str, fault: &Fault| {
                        format!("{names}: the certificate that clients get is refused by them: secret {key} {fault}")
                    };
                    all.extend(certificate.fault_of_age(now).map(|fault| refused(&listed(&hosts), &fault)));
                    let faults = hosts.iter().filter_map(|host| Some((host, certificate.fault_for(host)?)));
                    all.extend(faults.map(|(host, fault)| refused(host, &fault)));
                }
            }
        }
        all
    }

    fn default_instead(&self, hosts: &[&str], why: &str) -> String {
        let fit = |key: &&ObjectKey| {
            self.generated.contains_key(key) || self.secrets.get(key).is_some_and(|s| certificate::read(s).is_ok())
        };
        let shown = match self.default_certificate.as_ref().filter(fit) {
            Some(key) => format!("that of secret {key}"),
            None => "one that nobody trusts".to_owned(),
        };
        format!("{}: clients get the default certificate, {shown}: {why}", listed(hosts))
    }
}

fn listed(hosts: &[&str]) -> String {
    if hosts.is_empty() { "every name".to_owned() } else { hosts.join(", ") }
}
