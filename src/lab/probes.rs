//! From probes as written to probes that can be run: names found, URLs taken apart, expectations
//! checked against what the kind of probe can tell.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::diag::{Place, Problem, Problems, codes, did_you_mean};
use crate::spec::at::At;
use crate::spec::probe::{
    ConnectSpec, DnsSpec, ExecSpec, ExpectLong, ExpectSpec, FailureName, HttpSpec, PingSpec, ProbeSpec,
};
use crate::spec::types::LabFile;

use super::model::Lab;
use super::names::NsName;
use super::probe::{Ask, Expect, HttpAsk, Probe, SourceExpect, Target};

/// The most questions one probe may ask.
const MOST_TRIES: u32 = 100_000;

pub(super) fn resolve(file: &LabFile, lab: &Lab, problems: &mut Problems) -> Vec<Probe> {
    let mut all: Vec<Probe> = Vec::new();
    for spec in &file.probes {
        all.extend(Resolver { lab, problems, place: head(spec.place) }.probe(spec));
    }
    all
}

/// A probe may be long; its beginning is enough to find it.
fn head(place: Place) -> Place {
    Place { end: place.end.min(place.start + 60), ..place }
}

struct Resolver<'a> {
    lab: &'a Lab,
    problems: &'a mut Problems,
    place: Place,
}

impl Resolver<'_> {
    fn fault(&mut self, code: codes::Code, message: impl Into<String>, place: Place, help: impl Into<String>) {
        self.problems.push(Problem::error(code, message).at(place, "here").help(help));
    }

    fn probe(&mut self, spec: &ProbeSpec) -> Option<Probe> {
        let from = self.from(spec);
        let ask = self.ask(spec);
        let expect = spec.expect.as_ref().map_or_else(Expect::default, |e| self.expect(e, ask.as_ref()));
        let timeout = spec.timeout.as_ref().map_or(2.0, |t| t.value);
        if !(0.01..=600.0).contains(&timeout) {
            let place = spec.timeout.as_ref().map_or(self.place, |t| t.place);
            self.fault(codes::PROBE_EXPECT, "a time limit is 0.01 to 600 seconds", place, "leave it out for 2 seconds");
            return None;
        }
        if let Some(count) = spec.count.as_ref().filter(|c| c.value == 0 || c.value > MOST_TRIES) {
            let help = format!("take 1 to {MOST_TRIES}");
            self.fault(codes::PROBE_EXPECT, "this is no count of tries", count.place, help);
        }
        let (from, ask) = (from?, ask?);
        let name = spec.name.as_ref().map_or_else(|| format!("{from}: {}", describe(&ask)), |n| n.value.clone());
        Some(Probe {
            name,
            from,
            ask,
            expect,
            count: spec.count.as_ref().map_or(1, |c| c.value.clamp(1, MOST_TRIES)),
            retries: spec.retries.unwrap_or(2),
            timeout: Duration::from_secs_f64(timeout),
        })
    }

    fn from(&mut self, spec: &ProbeSpec) -> Option<NsName> {
        let Some(from) = &spec.from else {
            let help = "add `from:` with a pod, a host or a client";
            self.fault(codes::SPEC_MISSING_FIELD, "the probe does not say who asks", self.place, help);
            return None;
        };
        let found = self.lab.find(from);
        if found.is_none() {
            self.unknown(from, "nothing in the lab is called");
        }
        found
    }

    fn unknown(&mut self, word: &At<String>, what: &str) {
        let names: Vec<String> = self.lab.namespaces().map(|n| n.to_string()).collect();
        let help = match did_you_mean(word, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "name a pod, a host, a client or `router`".to_owned(),
        };
        let place = if word.place == Place::default() { self.place } else { word.place };
        self.fault(codes::PROBE_TARGET, format!("{what} `{}`", word.value), place, help);
    }

    fn ask(&mut self, spec: &ProbeSpec) -> Option<Ask> {
        let kinds = [
            spec.ping.is_some(),
            spec.tcp.is_some(),
            spec.udp.is_some(),
            spec.http.is_some(),
            spec.dns.is_some(),
            spec.exec.is_some(),
        ];
        if kinds.iter().filter(|k| **k).count() != 1 {
            let help = "write one of them; several questions are several probes";
            let message = "a probe asks exactly one of ping, tcp, udp, http, dns and exec";
            self.fault(codes::PROBE_KIND, message, self.place, help);
            return None;
        }
        if let Some(ping) = &spec.ping {
            return self.ping(ping);
        }
        if let Some(tcp) = &spec.tcp {
            let (to, port) = self.host_and_port(tcp)?;
            return Some(Ask::Tcp { to, port, send: tcp.0.send.clone() });
        }
        if let Some(udp) = &spec.udp {
            let (to, port) = self.host_and_port(udp)?;
            return Some(Ask::Udp { to, port, send: udp.0.send.clone() });
        }
        if let Some(http) = &spec.http {
            return self.http(http);
        }
        if let Some(dns) = &spec.dns {
            return self.dns(dns);
        }
        spec.exec.as_ref().and_then(|exec| self.exec(exec))
    }

    fn ping(&mut self, spec: &At<PingSpec>) -> Option<Ask> {
        let ping = &spec.value.0;
        let size = ping.size.as_ref().map_or(84, |s| s.value);
        if !(28..=65_535).contains(&size) {
            let place = ping.size.as_ref().map_or(spec.place, |s| s.place);
            self.fault(codes::PROBE_EXPECT, "a ping's packet has 28 to 65535 bytes", place, "leave it out for 84");
            return None;
        }
        let to = self.target(&ping.to, spec.place)?;
        Some(Ask::Ping { to, size, dont_fragment: ping.dont_fragment, ttl: ping.ttl.unwrap_or(64) })
    }

    /// A name of the lab, an address, or a dotted name for the asker's own resolver.
    fn target(&mut self, word: &At<String>, around: Place) -> Option<Target> {
        let word = if word.place == Place::default() { At::new(word.value.clone(), around) } else { word.clone() };
        let bare = word.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Some(Target::Address(ip));
        }
        if let Some(ns) = self.lab.find(bare) {
            return Some(Target::Machine(ns));
        }
        if bare.contains('.') && !bare.contains('/') {
            return Some(Target::Name(bare.to_owned()));
        }
        self.unknown(&word, "nothing in the lab is called");
        None
    }

    fn host_and_port(&mut self, spec: &At<ConnectSpec>) -> Option<(Target, u16)> {
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
    fn port(&mut self, word: &str, target: &Target, place: Place) -> Option<u16> {
        if let Ok(port) = word.parse::<u16>()
            && port > 0
        {
            return Some(port);
        }
        let pod = match target {
            Target::Machine(NsName::Pod(id)) => self.lab.pod(id),
            _ => None,
        };
        let found = pod.and_then(|p| p.ports().find(|p| p.name.as_deref() == Some(word)).map(|p| p.number));
        if found.is_none() {
            let help = "write a number from 1 to 65535, or the name of a port of that pod";
            self.fault(codes::PORT_UNKNOWN, format!("`{word}` is not a port there"), place, help);
        }
        found
    }

    fn http(&mut self, spec: &At<HttpSpec>) -> Option<Ask> {
        let http = &spec.value.0;
        let place = if http.url.place == Place::default() { spec.place } else { http.url.place };
        let Ok(url) = http.url.parse::<hyper::Uri>() else {
            let help = "write `http://NAME:PORT/PATH`";
            self.fault(codes::PROBE_TARGET, format!("`{}` is not a URL", http.url.value), place, help);
            return None;
        };
        let tls = match url.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => {
                let help = "write `http://…` or `https://…`";
                self.fault(codes::PROBE_TARGET, format!("`{}` is not a web address", http.url.value), place, help);
                return None;
            }
        };
        let host = url.host().unwrap_or_default().to_owned();
        let to = match &http.connect_to {
            Some(other) => self.target(other, place)?,
            None => self.target(&At::new(host.clone(), place), place)?,
        };
        let method = http.method.as_ref().map_or("GET", |m| &m.value).to_uppercase();
        if hyper::Method::from_bytes(method.as_bytes()).is_err() {
            self.fault(codes::PROBE_KIND, format!("`{method}` is not an HTTP method"), place, "such as GET or POST");
            return None;
        }
        Some(Ask::Http(Box::new(HttpAsk {
            tls,
            host,
            to,
            port: url.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            path: url.path_and_query().map_or("/", |p| p.as_str()).to_owned(),
            method,
            headers: http.headers.clone(),
            body: http.body.clone(),
            insecure: http.insecure,
        })))
    }

    fn dns(&mut self, spec: &At<DnsSpec>) -> Option<Ask> {
        let dns = &spec.value.0;
        let record = dns.record.as_ref().map_or("A", |r| &r.value).to_uppercase();
        if record.parse::<hickory_proto::rr::RecordType>().is_err() {
            let place = dns.record.as_ref().map_or(spec.place, |r| r.place);
            self.fault(codes::PROBE_KIND, format!("`{record}` is not a record type"), place, "such as A, SRV or PTR");
            return None;
        }
        let (server, port) = match &dns.server {
            None => (Target::Address(self.lab.dns_address()), 53),
            Some(written) => {
                let (host, port) = written.rsplit_once(':').unwrap_or((&written.value, "53"));
                let target = self.target(&At::new(host.to_owned(), written.place), spec.place)?;
                let port = self.port(port, &target, written.place)?;
                (target, port)
            }
        };
        Some(Ask::Dns { name: dns.name.value.clone(), record, server, port, tcp: dns.tcp })
    }

    fn exec(&mut self, spec: &At<ExecSpec>) -> Option<Ask> {
        if spec.value.0.command.is_empty() {
            self.fault(codes::PROBE_KIND, "there is no command", spec.place, "write it as a list of words");
            return None;
        }
        Some(Ask::Exec { command: spec.value.0.command.clone() })
    }

    fn expect(&mut self, spec: &At<ExpectSpec>, ask: Option<&Ask>) -> Expect {
        let details = match &spec.value {
            ExpectSpec::Success => return Expect { tolerance: 0.1, ..Expect::default() },
            ExpectSpec::Fail => {
                return Expect { fail: Some(FailureName::Any), tolerance: 0.1, ..Expect::default() };
            }
            ExpectSpec::Details(details) => details,
        };
        if let Some(ask) = ask {
            self.check_fits(details, ask, spec.place);
        }
        let source = details.source.as_ref().and_then(|s| self.source(s));
        Expect {
            fail: details.fail.as_ref().map(|f| f.value),
            status: details.status.as_ref().map(|s| s.value),
            body: details.body.clone(),
            pod: details.pod.as_ref().map(|p| p.value.clone()),
            source,
            distribution: details.distribution.as_ref().map(|d| d.value.clone()),
            tolerance: details.tolerance.unwrap_or(0.1),
            ttl: details.ttl.as_ref().map(|t| t.value),
            mtu: details.mtu.as_ref().map(|m| m.value),
            answers: details.answers.clone(),
            rcode: details.rcode.as_ref().map(|r| r.to_uppercase()),
            exit_code: details.exit_code,
        }
    }

    fn source(&mut self, written: &At<String>) -> Option<SourceExpect> {
        let range = written.parse::<IpNet>().ok().or_else(|| written.parse::<IpAddr>().ok().map(IpNet::from));
        if let Some(range) = range {
            return Some(SourceExpect::Range(range));
        }
        let found = self.lab.find(written).map(SourceExpect::Machine);
        if found.is_none() {
            self.unknown(written, "a source is an address, a range or a name of the lab, not");
        }
        found
    }

    /// A detail that a kind of probe cannot tell would never be compared, and so never fail.
    fn check_fits(&mut self, details: &ExpectLong, ask: &Ask, place: Place) {
        let (ping, http) = (matches!(ask, Ask::Ping { .. }), matches!(ask, Ask::Http(_)));
        let (dns, exec) = (matches!(ask, Ask::Dns { .. }), matches!(ask, Ask::Exec { .. }));
        let talks = http || matches!(ask, Ask::Tcp { .. } | Ask::Udp { .. });
        let wrong = [
            ("status", details.status.is_some(), http),
            ("body", details.body.is_some(), talks || exec),
            ("pod", details.pod.is_some(), talks),
            ("source", details.source.is_some(), talks),
            ("distribution", details.distribution.is_some(), talks),
            ("ttl", details.ttl.is_some(), ping),
            ("mtu", details.mtu.is_some(), ping),
            ("answers", details.answers.is_some(), dns),
            ("rcode", details.rcode.is_some(), dns),
            ("exitCode", details.exit_code.is_some(), exec),
        ];
        for (field, _, _) in wrong.iter().filter(|(_, written, fits)| *written && !fits) {
            let message = format!("this kind of probe cannot tell `{field}`");
            self.fault(codes::PROBE_EXPECT, message, head(place), "take it out, or ask with another kind of probe");
        }
        let others = wrong.iter().filter(|(name, written, _)| *written && !matches!(*name, "rcode" | "exitCode"));
        if details.fail.is_some() && others.count() > 0 {
            let message = "a probe that must fail has no answer to look at";
            self.fault(codes::PROBE_EXPECT, message, head(place), "leave `fail` or the other fields out");
        }
    }
}

fn describe(ask: &Ask) -> String {
    let shown = |to: &Target| match to {
        Target::Address(ip) => ip.to_string(),
        Target::Machine(ns) => ns.to_string(),
        Target::Name(name) => name.clone(),
    };
    match ask {
        Ask::Ping { to, .. } => format!("ping {}", shown(to)),
        Ask::Tcp { to, port, .. } => format!("tcp {}:{port}", shown(to)),
        Ask::Udp { to, port, .. } => format!("udp {}:{port}", shown(to)),
        Ask::Http(http) => format!("{} {}{}", http.method, http.host, http.path),
        Ask::Dns { name, record, .. } => format!("dns {name} {record}"),
        Ask::Exec { command } => format!("exec {}", command.join(" ")),
    }
}
