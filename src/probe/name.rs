//! From a probe's target to the address that is tried: machines by the lab's books, other names
//! by asking the cluster's DNS as the asker's resolver would.

use std::net::{IpAddr, SocketAddr};

use super::Asking;
use super::dns::{self, Question};
use super::outcome::Failure;
use crate::lab::Lab;
use crate::lab::names::NsName;
use crate::lab::probe::Target;
use crate::lab::resolver::loopback;
use crate::objects::Service;
use crate::spec::probe::FailureName;

/// The address of `target` for the asker, or a failure of the kind `name`.
pub async fn resolve(asking: &Asking<'_>, target: &Target) -> Result<IpAddr, Failure> {
    match target {
        Target::Address(ip) => Ok(*ip),
        Target::Machine(ns) => {
            let known = asking.field.lab.address_of(ns);
            known.ok_or_else(|| Failure::new(FailureName::Name, format!("nothing in the lab is called {ns}")))
        }
        Target::Service(key) => {
            let from_outside = matches!(asking.from, NsName::Client(_));
            let known = asking.field.lab.service(key).and_then(|s| by_books(s, from_outside));
            known.ok_or_else(|| Failure::new(FailureName::Name, format!("the service {key} has no address")))
        }
        Target::Name(name) => match by_hosts_file(&asking.field.lab, asking.from, name) {
            Some(ip) => Ok(ip),
            None => by_dns(asking, name).await,
        },
    }
}

/// Every machine is in its own /etc/hosts as `localhost`, hosts and clients are in those of all, and the hosts of ingresses
/// in those of clients.
pub fn by_hosts_file(lab: &Lab, from: &NsName, name: &str) -> Option<IpAddr> {
    let name = name.trim_end_matches('.');
    let host = lab.hosts.iter().find(|h| h.name.as_str() == name).map(|h| h.ip());
    let client = || lab.clients.iter().find(|c| c.name.as_str() == name).map(|c| c.ip());
    let ingress = || match from {
        NsName::Client(_) if lab.ingress_hosts().contains(name) => lab.ingress_address().map(|at| at.ip),
        _ => None,
    };
    loopback(name).or(host).or_else(client).or_else(ingress)
}

/// A service's address for a machine without DNS: outside the cluster its load balancer's, where it
/// has one, or else the virtual one.
pub fn by_books(service: &Service, from_outside: bool) -> Option<IpAddr> {
    let balancer = service.status.as_ref().and_then(|s| s.load_balancer.as_ref()?.ingress.as_ref()?.first());
    let public = balancer.and_then(|i| i.ip.as_ref()?.parse().ok()).filter(|_| from_outside);
    public.or_else(|| service.spec.as_ref()?.cluster_ip.as_ref()?.parse().ok())
}

async fn by_dns(asking: &Asking<'_>, name: &str) -> Result<IpAddr, Failure> {
    let from = asking.from;
    let does_not = |why: &str| Failure::new(FailureName::Name, format!("`{name}` does not resolve: {why}"));
    let resolver = asking.field.lab.resolver_of(from);
    let Some(server) = resolver.servers.first().map(|ip| SocketAddr::new(*ip, 53)) else {
        return Err(does_not(&format!("it is not in the /etc/hosts of {from}, which knows no DNS server")));
    };
    let mut refused: Vec<(String, String)> = Vec::new();
    for candidate in resolver.candidates(name) {
        let question = Question { name: &candidate, record: "A", tcp: false };
        match dns::lookup(asking, server, &question).await {
            Ok(reply) => match reply.address() {
                Some(ip) => return Ok(ip),
                None => refused.push((reply.rcode, candidate)),
            },
            Err(failure) if failure.kind.is_none() => return Err(failure),
            Err(failure) => return Err(does_not(&failure.text)),
        }
    }
    Err(does_not(&format!("{server} answers {}", words(&refused))))
}

/// `NXDOMAIN for a.b, a.c and a`.
pub fn words(refused: &[(String, String)]) -> String {
    let of = |answers: &[(String, String)]| match answers {
        [rest @ .., (rcode, last)] => {
            let names: Vec<&str> = rest.iter().map(|(_, name)| name.as_str()).collect();
            let names = if names.is_empty() { last.clone() } else { format!("{} and {last}", names.join(", ")) };
            format!("{rcode} for {names}")
        }
        [] => String::new(),
    };
    let same: Vec<String> = refused.chunk_by(|a, b| a.0 == b.0).map(of).collect();
    same.join(", and ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Problems;
    use crate::spec::load::{Text, decode_text};

    fn lab() -> Lab {
        let text = "hosts: { node1: {} }\npods: { a: { host: node1 } }\n".to_owned();
        let loaded = decode_text(&Text { name: "test".into(), text, default_name: "test".into(), ..Text::default() });
        crate::lab::resolve(&loaded, None, &mut Problems::default()).expect("a lab")
    }

    #[test]
    fn all_names_that_were_asked_for_are_told_once() {
        let answer = |rcode: &str, name: &str| (rcode.to_owned(), name.to_owned());
        let no = |name| answer("NXDOMAIN", name);
        assert_eq!(words(&[no("a")]), "NXDOMAIN for a");
        assert_eq!(words(&[no("a.b"), no("a.c"), no("a")]), "NXDOMAIN for a.b, a.c and a");
        assert_eq!(words(&[answer("NOERROR", "a.b"), no("a")]), "NOERROR for a.b, and NXDOMAIN for a");
    }

    #[test]
    fn a_host_is_known_without_dns() {
        let lab = lab();
        let host = lab.find("node1").expect("the host");
        assert_eq!(by_hosts_file(&lab, &host, "node1."), lab.address_of(&host));
        assert_eq!(by_hosts_file(&lab, &host, "node2"), None);
    }
    #[test]
    fn clients_know_the_names_of_ingresses_without_dns() {
        let text = "hosts: { node1: {} }\nclients: { laptop: {} }\n\
                    ingresses: { cafe: { rules: [{ host: cafe.example.com }] } }\n";
        let text = Text { name: "lab".into(), text: text.into(), default_name: "lab".into(), ..Text::default() };
        let lab = crate::lab::resolve(&decode_text(&text), None, &mut Problems::default()).expect("a lab");
        let ask = |from: &str, name: &str| by_hosts_file(&lab, &lab.find(from).expect("a machine"), name);
        let public = lab.ingress_address().map(|address| address.ip);
        assert!(public.is_some());
        assert_eq!(ask("laptop", "cafe.example.com"), public);
        assert_eq!(ask("laptop", "tea.example.com"), None);
        assert_eq!(ask("node1", "cafe.example.com"), None);
    }
}
