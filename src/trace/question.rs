//! What is asked to be traced: from the words of the command line to a probe that sends it.
//!
//! Names and addresses are found by the code that finds those of a lab file's probes, so that a trace
//! asks exactly what a probe would ask. Here is only which kind of question is meant where none is named.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::diag::{Place, Problem, Problems, codes};
use crate::lab::names::NsName;
use crate::lab::probe::{Ask as Asked, Probe, Target};
use crate::lab::{Lab, question};
use crate::objects::Service;
use crate::spec::at::At;
use crate::spec::probe::{
    ConnectLong, ConnectSpec, DnsLong, DnsSpec, HttpLong, HttpSpec, PingLong, PingSpec, ProbeSpec,
};
use crate::spec::value::Protocol;

/// The header that carries a trace's mark through proxies.
pub const MARK_HEADER: &str = "labctl-trace";

/// A question as it was typed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Question {
    pub from: String,
    /// A machine, service, name, address or URL, with `:PORT` where it is wanted.
    pub to: String,
    pub kind: Option<Ask>,
    /// A number, or a port's name.
    pub port: Option<String>,
    /// Send an HTTP request to this address in place of the URL's.
    pub connect_to: Option<String>,
    /// Accept any certificate.
    pub insecure: bool,
    /// Bytes of a ping's packet, which then must not be fragmented, but for the next field.
    pub size: Option<u32>,
    /// Whether a ping's packet of a size of its own may be fragmented.
    pub fragment: bool,
    /// The time to live of a ping, datagram or connection.
    pub ttl: Option<u8>,
    /// Seconds to wait for the answer.
    pub timeout: Option<f64>,
}

/// With what is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ask {
    Tcp,
    Udp,
    Icmp,
    Http,
    Dns,
}

impl Question {
    /// The probe that asks it, once.
    ///
    /// # Errors
    /// What cannot be found, with what is near.
    pub fn probe(&self, lab: &Lab) -> Result<Probe, Vec<Problem>> {
        let probe = self.asked(lab)?;
        match address(&probe).filter(|ip| !can_be_told(*ip)) {
            Some(ip) => Err(vec![untold(ip)]),
            None => Ok(probe),
        }
    }

    fn asked(&self, lab: &Lab) -> Result<Probe, Vec<Problem>> {
        let spec = self.spec(lab).map_err(|problem| vec![*problem])?;
        let mut problems = Problems::default();
        let found = question(&spec, lab, &mut problems);
        match found {
            Some(mut probe) if !problems.has_errors() => {
                self.complete(lab, &mut probe);
                Ok(Probe { name: self.to.clone(), retries: 0, ..probe })
            }
            _ => Err(problems.into_iter().map(unplaced).collect()),
        }
    }

    /// What files' probes have no words for: a look-up asks whom the asker's resolver asks, for all that it completes
    /// the name to, and packets may have another time to live.
    fn complete(&self, lab: &Lab, probe: &mut Probe) {
        let resolver = lab.resolver_of(&probe.from);
        match (&mut probe.ask, resolver.servers.first()) {
            (Asked::Dns { name, search, server, .. }, Some(first)) => {
                *server = Target::Address(*first);
                *search = resolver.candidates(name);
            }
            (Asked::Tcp { ttl, .. } | Asked::Udp { ttl, .. }, _) => *ttl = self.ttl,
            _ => {}
        }
    }

    fn spec(&self, lab: &Lab) -> Result<ProbeSpec, Box<Problem>> {
        let kind = self.kind.unwrap_or_else(|| self.usual(lab));
        if self.ttl.is_some() && matches!(kind, Ask::Http | Ask::Dns) {
            let problem = Problem::error(codes::PROBE_KIND, "a time to live is for a ping, a datagram or a connection");
            return Err(Box::new(problem.help("take `--icmp`, `--udp` or `--tcp`")));
        }
        let mut spec = ProbeSpec { from: Some(at(self.from.clone())), ..ProbeSpec::default() };
        spec.timeout = self.timeout.map(at);
        match kind {
            Ask::Icmp => {
                let to = at(split(bare(&self.to)).0.to_owned());
                let ping = PingLong {
                    to,
                    size: self.size.map(at),
                    dont_fragment: self.size.is_some() && !self.fragment,
                    ttl: self.ttl,
                };
                spec.ping = Some(at(PingSpec(ping)));
            }
            Ask::Tcp => spec.tcp = Some(self.connect(lab, Protocol::Tcp)?),
            Ask::Udp => spec.udp = Some(self.connect(lab, Protocol::Udp)?),
            Ask::Http => {
                let connect_to = self.connect_to.clone().map(at);
                let url = at(self.url(lab)?);
                let http = HttpLong { url, connect_to, insecure: self.insecure, ..HttpLong::default() };
                spec.http = Some(at(HttpSpec(http)));
            }
            Ask::Dns => {
                let dns = DnsLong { name: at(self.to.clone()), ..DnsLong::default() };
                spec.dns = Some(at(DnsSpec(dns)));
            }
        }
        Ok(spec)
    }

    /// The kind that is meant where none is named: a URL is asked by HTTP, a port by TCP, a service by the
    /// protocol of its first port, and anything else is pinged.
    fn usual(&self, lab: &Lab) -> Ask {
        let (host, port) = split(&self.to);
        if is_url(&self.to) {
            return Ask::Http;
        }
        let first = self.service(lab, host).and_then(|s| s.spec.as_ref()?.ports.as_ref()?.first());
        match first.map(|p| crate::objects::protocol(p.protocol.as_deref())) {
            Some("UDP") => Ask::Udp,
            Some(_) => Ask::Tcp,
            None if port.or(self.port.as_deref()).is_some() => Ask::Tcp,
            None => Ask::Icmp,
        }
    }

    fn connect(&self, lab: &Lab, protocol: Protocol) -> Result<At<ConnectSpec>, Box<Problem>> {
        let (host, port) = split(bare(&self.to));
        let port = self.port.clone().or(port.map(str::to_owned)).or_else(|| self.first_port(lab, host, protocol));
        let Some(port) = port else {
            let message = format!("`{host}` has no {protocol} port of its own that could be meant");
            return Err(Box::new(Problem::error(codes::PORT_UNKNOWN, message).help("name one with `--port`")));
        };
        let to = at(format!("{host}:{port}"));
        Ok(at(ConnectSpec(ConnectLong { to, send: None })))
    }

    fn url(&self, lab: &Lab) -> Result<String, Box<Problem>> {
        if is_url(&self.to) {
            let twice = || {
                let message = format!("`{}` says itself which port it means", self.to);
                Box::new(Problem::error(codes::PORT_UNKNOWN, message).help("write the port behind the URL's host"))
            };
            return if self.port.is_some() { Err(twice()) } else { Ok(self.to.clone()) };
        }
        let (host, port) = split(&self.to);
        let port = self.port.clone().or(port.map(str::to_owned));
        // A pod's name with its namespace is no host of a URL.
        let pod = lab.find(host).filter(|_| host.contains('/'));
        let address =
            pod.and_then(
                |ns| if let NsName::Pod(id) = ns { Some(lab.pod(&id)?.address.addr().to_string()) } else { None },
            );
        let first = |host| self.first_port(lab, host, Protocol::Tcp);
        let (port, host) = (port.or_else(|| first(host)), address.as_deref().unwrap_or(host));
        Ok(match port {
            Some(port) => format!("http://{host}:{port}/"),
            None => format!("http://{host}/"),
        })
    }

    /// The first port of a service or machine.
    fn first_port(&self, lab: &Lab, host: &str, protocol: Protocol) -> Option<String> {
        let name = protocol.to_string();
        if let Some(service) = self.service(lab, host) {
            let ports = service.spec.as_ref()?.ports.as_ref()?;
            let fits = |p: &&crate::objects::ServicePort| crate::objects::protocol(p.protocol.as_deref()) == name;
            return ports.iter().find(fits).map(|p| p.port.to_string());
        }
        let ports: Vec<_> = match lab.find(host)? {
            NsName::Pod(id) => lab.pod(&id)?.ports().collect(),
            NsName::Host(name) => lab.host(&name)?.ports.iter().collect(),
            NsName::Client(name) => lab.clients.iter().find(|c| c.name == name)?.ports.iter().collect(),
            NsName::Router => Vec::new(),
        };
        ports.iter().find(|p| p.protocol == protocol).map(|p| p.number.to_string())
    }

    /// The service that `host` names, as the asker would mean it.
    fn service<'l>(&self, lab: &'l Lab, host: &str) -> Option<&'l Service> {
        if lab.find(host).is_some() {
            return None;
        }
        let by_address = |s: &&Service| s.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some(host);
        let from = lab.find(&self.from).unwrap_or(NsName::Router);
        lab.service_called(&from, host).or_else(|| lab.services.iter().find(by_address))
    }
}

/// The address that a question names.
fn address(probe: &Probe) -> Option<IpAddr> {
    match probe.ask.target()? {
        (Target::Address(ip), _) => Some(*ip),
        _ => None,
    }
}

/// Traces know the ways of IPv4 to one machine.
fn can_be_told(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if !ip.is_multicast() && !ip.is_broadcast() && !ip.is_unspecified())
}

fn untold(ip: IpAddr) -> Problem {
    let what = match ip {
        IpAddr::V6(_) => "is an IPv6 address, and labs are IPv4's",
        IpAddr::V4(ip) if ip.is_multicast() => "is a group of machines",
        IpAddr::V4(_) => "is no machine's",
    };
    let problem = Problem::error(codes::TARGET_UNKNOWN, format!("{ip} {what}: where it leads is not traced"));
    problem.help("name a pod, a service, a host, a client or an IPv4 address of one")
}

fn at<T>(value: T) -> At<T> {
    At::new(value, Place::default())
}

fn is_url(word: &str) -> bool {
    word.starts_with("http://") || word.starts_with("https://")
}

/// A URL's host and port; any other word as it is.
fn bare(word: &str) -> &str {
    let rest = word.split_once("://").map_or(word, |(_, rest)| rest);
    if rest.len() == word.len() { word } else { rest.split('/').next().unwrap_or(rest) }
}

/// `HOST:PORT` as its parts.
fn split(word: &str) -> (&str, Option<&str>) {
    match word.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && !host.contains(':') && !port.contains('/') => (host, Some(port)),
        _ => (word, None),
    }
}

/// A problem of words that stand in no file.
fn unplaced(mut problem: Problem) -> Problem {
    problem.labels.clear();
    problem
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::load::{Text, decode_text};

    fn lab() -> Lab {
        let text = "hosts: { node1: {} }\nclients: { laptop: {} }\n\
                    pods: { a: { host: node1, labels: { app: a }, ports: [8080, { containerPort: 53, protocol: UDP }] } }\n\
                    services: { web: { selector: { app: a }, ports: [{ port: 80, targetPort: 8080 }] } }\n";
        let text = Text { name: "lab".into(), text: text.into(), default_name: "lab".into(), ..Text::default() };
        let mut problems = Problems::default();
        let lab = crate::lab::resolve(&decode_text(&text), None, &mut problems);
        lab.unwrap_or_else(|| panic!("{problems:?}"))
    }

    fn asked(question: Question) -> Result<Asked, String> {
        let probe = question.probe(&lab());
        probe.map(|p| p.ask).map_err(|p| p.iter().map(ToString::to_string).collect())
    }

    fn of(from: &str, to: &str) -> Question {
        Question { from: from.into(), to: to.into(), ..Question::default() }
    }

    #[test]
    fn the_kind_follows_from_the_target() {
        assert!(matches!(asked(of("a", "node1")), Ok(Asked::Ping { .. })));
        assert!(matches!(asked(of("a", "laptop:22")), Ok(Asked::Tcp { port: 22, .. })));
        let Ok(Asked::Tcp { to, port: 80, .. }) = asked(of("a", "web")) else { panic!("no tcp") };
        assert_eq!(to, Target::Name("web".into()));
        assert!(matches!(asked(of("laptop", "web")), Ok(Asked::Tcp { to: Target::Service(_), port: 80, .. })));
        assert!(matches!(asked(of("a", "http://web/x")), Ok(Asked::Http(_))));
    }

    #[test]
    fn a_kind_that_is_named_finds_its_port() {
        let udp = Question { kind: Some(Ask::Udp), ..of("laptop", "a") };
        assert!(matches!(asked(udp), Ok(Asked::Udp { port: 53, .. })));
        let ping = Question { kind: Some(Ask::Icmp), ..of("laptop", "web") };
        assert!(matches!(asked(ping), Ok(Asked::Ping { .. })));
        let none = asked(Question { kind: Some(Ask::Tcp), ..of("a", "laptop") });
        assert!(none.is_err_and(|e| e.contains("--port")));
    }

    #[test]
    fn where_nobody_is_nothing_is_traced() {
        for to in ["::1", "224.0.0.1", "255.255.255.255", "http://[::1]:80/"] {
            assert!(asked(of("a", to)).is_err_and(|e| e.contains("is not traced")), "{to}");
        }
        assert!(asked(of("a", "http://web:99999/")).is_err_and(|e| e.contains("no port that could be")));
    }

    #[test]
    fn what_is_not_there_is_asked_for_by_who_has_a_dns_server_and_refused_otherwise() {
        let Ok(Asked::Ping { to, .. }) = asked(of("a", "laptob")) else { panic!("no ping") };
        assert_eq!(to, Target::Name("laptob".into()));
        for to in ["no such", "a/b", "no/such", &"x".repeat(64)] {
            assert!(asked(of("a", to)).is_err_and(|e| e.contains("nothing in the lab is called")), "{to}");
        }
        for from in ["laptop", "node1"] {
            assert!(asked(of(from, "laptob")).is_err_and(|e| e.contains("did you mean `laptop`")), "{from}");
        }
        assert!(asked(of("b", "laptop")).is_err());
    }

    #[test]
    fn a_look_up_is_completed_as_the_askers_resolver_does() {
        let dns = |from: &str, to: &str| asked(Question { kind: Some(Ask::Dns), ..of(from, to) });
        let Ok(Asked::Dns { name, search, .. }) = dns("a", "web") else { panic!("no look-up") };
        assert_eq!((name.as_str(), search.len(), search[0].as_str()), ("web", 4, "web.default.svc.cluster.local"));
        let Ok(Asked::Dns { search, .. }) = dns("laptop", "web.default.svc.cluster.local") else { panic!("none") };
        assert!(search.is_empty(), "{search:?}");
    }

    #[test]
    fn a_url_names_its_port_itself() {
        let twice = Question { port: Some("81".into()), ..of("a", "http://web/") };
        assert!(asked(twice).is_err_and(|e| e.contains("says itself which port it means")));
    }
}
