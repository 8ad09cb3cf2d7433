//! From probes as written to probes that can be run: names found, URLs taken apart. What must come of
//! them is looked at in [`super::expect`], whom they go to in [`target`].

mod target;

use std::collections::HashMap;
use std::time::Duration;

use crate::diag::{Place, Problem, Problems, codes, did_you_mean};
use crate::objects::ObjectKey;
use crate::spec::at::At;
use crate::spec::probe::{DnsSpec, ExecSpec, HttpSpec, PingSpec, ProbeSpec};
use crate::spec::types::LabFile;

use super::declared;
use super::model::{Lab, Pod};
use super::names::{NsName, PodId, path_of};
use super::probe::{Ask, Expect, HttpAsk, Probe, Target};

/// The most questions one probe may ask.
const MOST_TRIES: u32 = 100_000;

/// The probes of `file`. Those of a lab that was changed beside its file are never a reason to refuse the
/// change: `before` is the lab that was, where there is one, and a probe that has lost what it names stays as
/// it was there, to fail when it is asked.
pub(super) fn resolve(file: &LabFile, lab: &Lab, before: Option<&Lab>, problems: &mut Problems) -> Vec<Probe> {
    let names = Names::new(lab);
    let mut all: Vec<Probe> = Vec::new();
    let written = file.probes.iter().filter_map(|p| p.name.as_ref());
    let mut taken: HashMap<String, u32> = written.map(|name| (name.value.clone(), 1)).collect();
    for (n, spec) in file.probes.iter().enumerate() {
        let read = |problems: &mut Problems| {
            let place = head(spec.place);
            Resolver { file, lab, names: &names, problems, place, asker: None, is_typed: false }.probe(spec)
        };
        let Some(before) = before else {
            all.extend(read(problems).map(|probe| named(probe, spec, &mut taken)));
            continue;
        };
        let mut found = Problems::default();
        let probe = read(&mut found);
        all.extend(match found.iter().find(|p| p.is_error()) {
            None => probe.map(|probe| named(probe, spec, &mut taken)),
            Some(lost) => before.probes.get(n).map(|probe| kept(probe, &lost.message, problems)),
        });
    }
    all
}

/// A question that stands in no file, such as one that is asked once. What a file's probe names must be there; such
/// a question may ask for a name that nothing has, where whoever asks has a DNS server that says so.
pub fn question(spec: &ProbeSpec, lab: &Lab, problems: &mut Problems) -> Option<Probe> {
    let (file, names) = (LabFile::default(), Names::new(lab));
    let place = Place::default();
    Resolver { file: &file, lab, names: &names, problems, place, asker: None, is_typed: true }.probe(spec)
}

/// The probe with a name that it has alone, where it was given none.
fn named(probe: Probe, spec: &ProbeSpec, taken: &mut HashMap<String, u32>) -> Probe {
    match spec.name {
        Some(_) => probe,
        None => Probe { name: unique(probe.name, taken), ..probe },
    }
}

/// A probe as it was, though `why` says that it can no longer be what is expected of it. That is said once:
/// when it comes to be so.
fn kept(probe: &Probe, why: &str, problems: &mut Problems) -> Probe {
    if !probe.lost {
        let message = format!("the probe `{}` stays, but now {why}", probe.name);
        problems.push(Problem::warning(codes::PROBE_TARGET, message));
    }
    Probe { lost: true, ..probe.clone() }
}

/// A made-up name with a number behind it where another probe has that name already: by its name a
/// probe is chosen and found in a report. `taken` knows the last number that each name was given.
fn unique(name: String, taken: &mut HashMap<String, u32>) -> String {
    let mut free = name.clone();
    while let Some(last) = taken.get(&free).map(|_| taken.get(&name).copied().unwrap_or(1)) {
        taken.insert(name.clone(), last + 1);
        free = format!("{name} ({})", last + 1);
    }
    taken.insert(free.clone(), 1);
    free
}

/// Everything that a probe may name, as [`Lab::find`] finds it, for many look-ups.
pub(super) struct Names<'a> {
    known: HashMap<String, NsName>,
    pods: HashMap<&'a PodId, &'a Pod>,
}

impl<'a> Names<'a> {
    fn new(lab: &'a Lab) -> Self {
        let mut known = HashMap::new();
        for ns in lab.namespaces() {
            known.entry(ns.to_string()).or_insert_with(|| ns.clone());
            known.insert(ns.path(), ns);
        }
        Names { known, pods: lab.pods.iter().map(|p| (&p.id, p)).collect() }
    }

    pub fn find(&self, word: &str) -> Option<NsName> {
        let known = |word: &str| self.known.get(word).cloned();
        known(word).or_else(|| known(&path_of(word)?))
    }

    pub fn all(&self) -> impl Iterator<Item = &str> {
        self.known.keys().map(String::as_str)
    }
}

/// A probe may be long; its beginning is enough to find it.
pub(super) fn head(place: Place) -> Place {
    Place { end: place.end.min(place.start + 60), ..place }
}

pub(super) struct Resolver<'a> {
    pub(super) file: &'a LabFile,
    pub(super) lab: &'a Lab,
    pub(super) names: &'a Names<'a>,
    pub(super) problems: &'a mut Problems,
    /// The beginning of the probe.
    pub(super) place: Place,
    /// Who asks, as far as that is known.
    pub(super) asker: Option<NsName>,
    /// Whether it stands in no file.
    pub(super) is_typed: bool,
}

impl<'a> Resolver<'a> {
    pub(super) fn fault(
        &mut self,
        code: codes::Code,
        message: impl Into<String>,
        place: Place,
        help: impl Into<String>,
    ) {
        self.problems.push(Problem::error(code, message).at(place, "here").help(help));
    }

    fn probe(&mut self, spec: &ProbeSpec) -> Option<Probe> {
        let from = self.from(spec);
        self.asker.clone_from(&from);
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
            lost: false,
        })
    }

    fn from(&mut self, spec: &ProbeSpec) -> Option<NsName> {
        let Some(from) = &spec.from else {
            if self.lost_a_part() {
                return None;
            }
            let help = "add `from:` with a pod, a host or a client";
            self.fault(codes::SPEC_MISSING_FIELD, "the probe does not say who asks", self.place, help);
            return None;
        };
        let found = self.names.find(from);
        if found.is_none() {
            self.unknown(from, "nothing in the lab is called");
        }
        found
    }

    /// Whether what a probe lacks may have been written, if not so that it could be read.
    fn lost_a_part(&self) -> bool {
        self.file.damage.around(self.place)
    }

    fn pod_lost_a_part(&self, pod: &Pod) -> bool {
        let (name, owner) = (pod.id.name.as_str(), pod.owner.as_deref());
        let pods = self.file.pods.iter().filter(|(n, _)| owner.is_none() && n.value == name).map(|(n, _)| n.place);
        let sets = self.file.deployments.iter().filter(|(n, _)| owner == Some(n.value.as_str())).map(|(n, _)| n.place);
        pods.chain(sets).any(|place| self.file.damage.around(place))
    }

    pub(super) fn unknown(&mut self, word: &At<String>, what: &str) {
        // Of what is declared and not there the fault is told where it stands.
        let full = self.problems.is_full();
        if !full && declared::anything(self.file, word) {
            return;
        }
        let services = self.lab.services.iter().map(|s| {
            let key = ObjectKey::of(&s.metadata);
            if key.namespace == "default" { key.name } else { format!("{}.{}", key.name, key.namespace) }
        });
        let all = self.lab.namespaces().map(|n| n.to_string()).chain(services);
        let names: Vec<String> = if full { Vec::new() } else { all.collect() };
        let help = match did_you_mean(word, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "name a pod, a service, a host, a client or `router`".to_owned(),
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
        let asked = kinds.iter().filter(|k| **k).count();
        if asked == 0 && self.lost_a_part() {
            return None;
        }
        if asked != 1 {
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
            return Some(Ask::Tcp { to, port, send: tcp.0.send.clone(), ttl: None });
        }
        if let Some(udp) = &spec.udp {
            let (to, port) = self.host_and_port(udp)?;
            return Some(Ask::Udp { to, port, send: udp.0.send.clone(), ttl: None });
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
        if ping.ttl == Some(0) {
            let help = "take 1 to 255; 1 ends at the first router";
            self.fault(codes::PROBE_EXPECT, "a packet with a time to live of 0 is never sent", spec.place, help);
            return None;
        }
        let to = self.target(&ping.to, spec.place)?;
        Some(Ask::Ping { to, size, dont_fragment: ping.dont_fragment, ttl: ping.ttl.unwrap_or(64) })
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
        if url.port_u16().is_none_or(|port| port == 0) && has_port(&url) {
            let help = "a port is a number from 1 to 65535";
            self.fault(codes::PORT_UNKNOWN, format!("`{}` has no port that could be", http.url.value), place, help);
            return None;
        }
        let port = url.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let (to, to_port) = match &http.connect_to {
            Some(other) => self.connect_to(other, port, place)?,
            None => (self.target(&At::new(host.clone(), place), place)?, port),
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
            to_port,
            port,
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
        let name = dns.name.value.clone();
        Some(Ask::Dns { name, search: Vec::new(), record, server, port, tcp: dns.tcp })
    }

    fn exec(&mut self, spec: &At<ExecSpec>) -> Option<Ask> {
        if spec.value.0.command.is_empty() {
            self.fault(codes::PROBE_KIND, "there is no command", spec.place, "write it as a list of words");
            return None;
        }
        Some(Ask::Exec { command: spec.value.0.command.clone() })
    }
}

/// Whether a URL says anything behind a colon where its port stands.
fn has_port(url: &hyper::Uri) -> bool {
    let authority = url.authority().map(|a| a.as_str()).unwrap_or_default();
    let host = authority.rsplit_once(']').map_or(authority, |(_, rest)| rest);
    host.contains(':')
}

fn describe(ask: &Ask) -> String {
    let shown = |to: &Target| match to {
        Target::Address(ip) => ip.to_string(),
        Target::Machine(ns) => ns.to_string(),
        Target::Service(key) if key.namespace == "default" => key.name.clone(),
        Target::Service(key) => format!("{}.{}", key.name, key.namespace),
        Target::Name(name) => name.clone(),
    };
    match ask {
        Ask::Ping { to, .. } => format!("ping {}", shown(to)),
        Ask::Tcp { to, port, .. } => format!("tcp {}:{port}", shown(to)),
        Ask::Udp { to, port, .. } => format!("udp {}:{port}", shown(to)),
        Ask::Http(http) if http.port == if http.tls { 443 } else { 80 } => {
            format!("{} {}{}", http.method, http.host, http.path)
        }
        Ask::Http(http) => format!("{} {}:{}{}", http.method, http.host, http.port, http.path),
        Ask::Dns { name, record, .. } => format!("dns {name} {record}"),
        Ask::Exec { command } => format!("exec {}", command.join(" ")),
    }
}
