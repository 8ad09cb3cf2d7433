//! Whom a probe's question goes to: machines, services and names, with their ports.

use std::net::IpAddr;

use crate::diag::{Place, codes};
use crate::lab::model::Lab;
use crate::lab::names::NsName;
use crate::lab::probe::Target;
use crate::lab::resolver::loopback;
use crate::objects::{ObjectKey, Service};
use crate::spec::at::At;
use crate::spec::probe::ConnectSpec;

use super::Resolver;

/// What stands for the ingress controller where nothing in the lab is called so.
const INGRESS: &str = "ingress";

/// `NAME:PORT`, `ADDRESS:PORT` or `[ADDRESS]:PORT` as its parts; an address of IPv6 has colons of its own.
fn split_port(word: &str) -> (&str, Option<&str>) {
    match word.rsplit_once(':') {
        Some((host, port)) if word.parse::<IpAddr>().is_err() && !port.ends_with(']') => (host, Some(port)),
        _ => (word, None),
    }
}

/// Whether a word can be sent in a DNS query (RFC 1035, 2.3.4), underscores of services among it.
fn is_dns_name(word: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    word.len() <= 253 && word.split('.').all(is_label)
}

impl<'a> Resolver<'a> {
    /// A name of the lab, an address, or a dotted name for the asker's own resolver.
    pub(super) fn target(&mut self, word: &At<String>, around: Place) -> Option<Target> {
        let word = if word.place == Place::default() { At::new(word.value.clone(), around) } else { word.clone() };
        let bare = word.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Some(Target::Address(ip));
        }
        if let Some(ns) = self.names.find(bare) {
            return Some(Target::Machine(ns));
        }
        if let Some(service) = self.service(bare) {
            // A pod's resolver is asked, as the pod would; other machines know no cluster DNS.
            let has_dns = self.asker.as_ref().is_none_or(|ns| matches!(ns, NsName::Pod(_)));
            let key = ObjectKey::of(&service.metadata);
            return Some(if has_dns { Target::Name(bare.to_owned()) } else { Target::Service(key) });
        }
        if loopback(bare.trim_end_matches('.')).is_some() {
            return Some(Target::Name(bare.to_owned()));
        }
        if !bare.is_empty() && bare.chars().all(|c| c.is_ascii_digit() || c == '.') {
            let help = "an IPv4 address has four numbers from 0 to 255";
            self.fault(codes::PROBE_TARGET, format!("`{bare}` is no address"), word.place, help);
            return None;
        }
        if (bare.contains('.') && !bare.contains('/')) || (self.is_typed && self.can_be_asked_for(bare)) {
            return Some(Target::Name(bare.to_owned()));
        }
        self.unknown(&word, "nothing in the lab is called");
        None
    }

    /// Whether the asker's resolver asks a server for such a word, whoever may have it.
    fn can_be_asked_for(&self, word: &str) -> bool {
        let asks = |ns| !self.lab.resolver_of(ns).servers.is_empty();
        self.lab.dns.is_some() && self.asker.as_ref().is_some_and(asks) && is_dns_name(word)
    }

    /// The service that the asker means; one of the namespace `default` where nobody is known to ask.
    fn service(&self, word: &str) -> Option<&'a Service> {
        let lab: &'a Lab = self.lab;
        lab.service_called(self.asker.as_ref().unwrap_or(&NsName::Router), word)
    }

    /// Where `connectTo` sends a request for a URL with this port: to a name or an address, with a port
    /// behind it where it is not the URL's. `ingress` stands for the ingress controller as the lab's
    /// clients reach it.
    pub(super) fn connect_to(&mut self, word: &At<String>, url_port: u16, around: Place) -> Option<(Target, u16)> {
        let place = if word.place == Place::default() { around } else { word.place };
        let (host, port) = split_port(word);
        let is_ingress = host == INGRESS && self.names.find(host).is_none() && self.service(host).is_none();
        let (target, usual) = if is_ingress {
            let Some(public) = self.lab.ingress_address() else {
                if self.file.damage.is_empty() {
                    let help = "add an ingress under `ingresses:`, or `cluster: { ingress: {} }`";
                    self.fault(codes::PROBE_TARGET, "the lab has no ingress controller", place, help);
                }
                return None;
            };
            let usual = match url_port {
                80 => public.http,
                443 => public.https,
                other => other,
            };
            (Target::Address(public.ip), usual)
        } else {
            (self.target(&At::new(host.to_owned(), place), place)?, url_port)
        };
        let port = match port {
            Some(word) => self.port(word, &target, place)?,
            None => usual,
        };
        Some((target, port))
    }

    pub(super) fn host_and_port(&mut self, spec: &At<ConnectSpec>) -> Option<(Target, u16)> {
        let to = &spec.value.0.to;
        let place = if to.place == Place::default() { spec.place } else { to.place };
        let Some((host, port)) = to.rsplit_once(':') else {
            self.fault(codes::PROBE_TARGET, format!("`{}` has no port", to.value), place, "write `NAME:PORT`");
            return None;
        };
        let target = self.target(&At::new(host.to_owned(), place), place)?;
        let port = self.port(port, &target, place)?;
        Some((target, port))
    }

    /// A port's number, or the name that a container of the target gave it.
    pub(super) fn port(&mut self, word: &str, target: &Target, place: Place) -> Option<u16> {
        if let Ok(port) = word.parse::<u16>()
            && port > 0
        {
            return Some(port);
        }
        let pod = match target {
            Target::Machine(NsName::Pod(id)) => self.names.pods.get(id).copied(),
            _ => None,
        };
        let service = match target {
            Target::Service(key) => self.lab.service(key),
            Target::Name(name) => self.service(name),
            _ => None,
        };
        let ports = service.and_then(|s| s.spec.as_ref()).and_then(|s| s.ports.as_ref());
        let of_service = ports.into_iter().flatten().find(|p| p.name.as_deref() == Some(word));
        let found = pod
            .and_then(|p| p.ports().find(|p| p.name.as_deref() == Some(word)).map(|p| p.number))
            .or_else(|| of_service.and_then(|p| u16::try_from(p.port).ok()));
        if found.is_none() && !pod.is_some_and(|p| self.pod_lost_a_part(p)) {
            let help = "write a number from 1 to 65535, or the name of a port of that pod or service";
            self.fault(codes::PORT_UNKNOWN, format!("`{word}` is not a port there"), place, help);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_stands_behind_the_last_colon() {
        assert_eq!(split_port("web"), ("web", None));
        assert_eq!(split_port("web:8080"), ("web", Some("8080")));
        assert_eq!(split_port("10.0.0.1:80"), ("10.0.0.1", Some("80")));
        assert_eq!(split_port("fd00::1"), ("fd00::1", None));
        assert_eq!(split_port("[fd00::1]"), ("[fd00::1]", None));
        assert_eq!(split_port("[fd00::1]:80"), ("[fd00::1]", Some("80")));
    }
}
