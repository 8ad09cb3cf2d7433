//! A trace that nobody sent: what the plan says of a question, with all pods ready. Without root and
//! without a running lab.
//!
//! The ways are walked through the plan, names are asked of the DNS server's own code and paths of the ingress
//! controller's. How it will end is then judged as any trace is, of one in which nothing was seen.

mod names;

use std::net::{IpAddr, SocketAddr};

use hyper::StatusCode;

use crate::kernel::record::Recording;
use crate::lab::Lab;
use crate::lab::dns::DNS_PORT;
use crate::lab::ingress::Driver;
use crate::lab::names::NsName;
use crate::lab::probe::{Ask, HttpAsk, Probe as Asked, Target};
use crate::objects::EndpointSlice;
use crate::plan::Plan;
use crate::plan::ingress::{self, Arrived};
use crate::plan::services;
use crate::probe::{self, Details, Kind, Outcome};
use crate::spec::probe::FailureName;

use super::model::{Asked as Question, Direction, Flow, Means, Packet, Protocol, Role, Trace, VERSION, Verdict};
use super::objects::{self, Speaks};
use super::origin::Origin;
use super::packets;
use super::proxied;
use super::tell::{self, Evidence, Material};
use super::verdict::{self, Case};
use super::walk::{self, Exchange, Known, Path, Probe, Seen, State};
use super::who::Who;

use names::{Dns, Unresolved};

/// More outcomes than these are not told one by one.
const MOST: usize = 8;

/// What the plan says of `asked`, which was typed as `to`, of a lab that comes from `origin`.
pub fn trace(lab: &Lab, asked: &Asked, (to, origin): (&str, &Origin)) -> Trace {
    let plan = walk::prediction(lab);
    let slices = services::slices_of_ready(lab);
    let dns = Dns::of(lab, &plan, &slices);
    let (state, who) = (State::planned(&plan), Who::new(lab, &plan));
    let teller = Teller { lab, plan: &plan, slices, dns, state, who, asked, told: Told::default() };
    teller.trace(to, origin)
}

struct Teller<'a> {
    lab: &'a Lab,
    plan: &'a Plan,
    slices: Vec<EndpointSlice>,
    dns: Option<Dns>,
    state: State<'a>,
    who: Who<'a>,
    asked: &'a Asked,
    told: Told,
}

/// What was predicted so far.
#[derive(Default)]
struct Told {
    flows: Vec<Flow>,
    /// The walk of each.
    walked: Vec<Exchange>,
    notes: Vec<String>,
}

/// What is walked: whom, over what.
type End = (IpAddr, u16, Protocol);
/// What the asker will see: words, and what went wrong where something does.
type Sees = (String, Option<Details>);

impl Teller<'_> {
    fn trace(mut self, to: &str, origin: &Origin) -> Trace {
        let (tried, (seen, details)) = match self.end() {
            Ok(Some(end)) => (Some(end), self.request(end)),
            Ok(None) => (None, ("nothing is known of its target".to_owned(), Some(Details::default()))),
            Err(unresolved) => (None, unresolved.seen()),
        };
        let tried = tried.map(|(ip, port, _)| match port {
            0 => ip.to_string(),
            port => SocketAddr::new(ip, port).to_string(),
        });
        let outcome = self.outcome(to, (tried, seen), details);
        let verdict = self.verdict(&outcome, origin);
        Trace {
            version: VERSION,
            lab: self.lab.name.to_string(),
            asked: Question {
                from: self.asked.from.clone(),
                to: to.to_owned(),
                kind: outcome.kind.to_string(),
                answered: outcome.passed(),
                tried: outcome.tried,
                seen: outcome.observed,
            },
            began: 0,
            verdict,
            flows: self.told.flows,
            means: vec![Means::Plan],
            parting: None,
            notes: self.told.notes,
        }
    }

    /// The request itself, and what becomes of it where it arrives.
    fn request(&mut self, (ip, port, protocol): End) -> Sees {
        let asked = self.asked;
        let probe = Probe::of(&asked.ask, protocol, ip, port);
        let Some(exchange) = self.flow(&asked.from, &probe, Role::Request) else {
            return ("nothing is known of its target".to_owned(), Some(Details::default()));
        };
        let others = self.others(&probe);
        self.told.notes.extend(others);
        match (&exchange.seen, &asked.ask) {
            (Seen::Answer, Ask::Http(http)) => self.answered(&exchange.there, (SocketAddr::new(ip, port), http)),
            (Seen::Answer, Ask::Dns { name, search, record, .. }) if self.is_dns(&exchange, port) => {
                let names = if search.is_empty() { std::slice::from_ref(name) } else { search };
                self.looked_up((ip, port), names, record)
            }
            (seen, _) => (words(*seen).to_owned(), failure(*seen).map(failed)),
        }
    }

    fn looked_up(&self, (ip, port): (IpAddr, u16), names: &[String], record: &str) -> Sees {
        let Some(dns) = &self.dns else { return (words(Seen::Answer).to_owned(), None) };
        match dns.ask(SocketAddr::new(ip, port), names, record) {
            Ok(reply) => (format!("an answer, records {}", reply.records.join(", ")), None),
            Err(unresolved) => unresolved.seen(),
        }
    }

    /// What the one who takes a request answers, if they speak the same.
    fn answered(&mut self, there: &Path, (to, http): (SocketAddr, &HttpAsk)) -> Sees {
        let arrived = there.steps.iter().rev().find_map(|s| s.header.as_ref()).map(|header| header.destination_port);
        let failure = match (http.tls, arrived.and_then(|port| objects::speaks(self.lab, &there.end, port))) {
            (true, Some(Speaks::PlainHttp)) => probe::tls::with_plain_http(to),
            (false, Some(Speaks::Tls)) => match self.lab.ingress.as_ref().map(|layer| &layer.controller.driver) {
                Some(Driver::Haproxy) => probe::hung_up(to),
                _ => probe::refused(to, StatusCode::BAD_REQUEST),
            },
            _ => return self.beyond(there, http),
        };
        let status = (failure.kind == Some(FailureName::Any)).then_some(StatusCode::BAD_REQUEST.as_u16());
        (failure.says(), Some(Details { failure: failure.kind, status, ..Details::default() }))
    }

    /// What an ingress controller does with a request that came to it; any other program answers.
    fn beyond(&mut self, there: &Path, http: &HttpAsk) -> Sees {
        let end = &there.end;
        let answer = (words(Seen::Answer).to_owned(), None);
        let router = proxied::router(self.lab).filter(|_| proxied::is_controller(self.lab, end));
        // By then its source may have been translated.
        let client = there.steps.iter().rev().find_map(|s| s.header.as_ref()).map(|header| header.source);
        let (Some(router), Some(client)) = (router, client) else { return answer };
        let choice = proxied::choice(&router, http);
        let Ok(path) = proxied::path_of(&http.path) else { return status(400) };
        let body = http.body.as_ref().map_or(0, |body| body.len() as u64);
        if let Some(own) = choice.own_answer(&Arrived { path: &path, https: http.tls, client, body }) {
            return status(own.status());
        }
        let Some(backend) = choice.backend() else { return status(404) };
        let mut all = ingress::endpoints(router.routing(), &self.lab.services, &self.slices);
        let endpoints: Vec<SocketAddr> = all.remove(backend).into_iter().flatten().map(|e| e.address).collect();
        let Some(first) = endpoints.first() else { return status(503) };
        if endpoints.len() > 1 {
            let says = format!(
                "the ingress controller takes each of {} endpoints in turn; told is the first",
                endpoints.len()
            );
            self.told.notes.push(says);
        }
        let probe = Probe::to(Protocol::Tcp, first.ip(), first.port());
        let Some(exchange) = self.flow(end, &probe, Role::Proxied) else { return answer };
        if let Some(flow) = self.told.flows.last_mut() {
            proxied::predicted(flow, self.lab, http);
        }
        match exchange.seen {
            Seen::Answer => answer,
            Seen::Timeout => status(504),
            _ => status(502),
        }
    }

    /// Both packets of a flow, and the exchange that they are.
    fn flow(&mut self, from: &NsName, probe: &Probe, role: Role) -> Option<Exchange> {
        let exchange = walk::exchange(&self.state, from, probe, &walk::Choices::First)?;
        let sent = exchange.there.steps.iter().find_map(|s| s.header.clone())?;
        let (source, destination) = self.who.ends(&sent);
        let first = self.told.flows.iter().map(|f| f.packets.len() as u32).sum::<u32>() + 1;
        let there = packet(&exchange.there, Direction::There, first);
        let back = exchange.back.as_ref().map(|path| packet(path, Direction::Back, first + 1));
        let packets = std::iter::once(there).chain(back).collect();
        let translations = exchange.translations.clone();
        let protocol = probe.header.protocol;
        self.told.flows.push(Flow { role, protocol, source, destination, packets, translations });
        self.told.walked.push(exchange.clone());
        Some(exchange)
    }

    /// The outcomes that chance allows, where there are several.
    fn others(&self, probe: &Probe) -> Vec<String> {
        let mut all: Vec<(String, f64)> = Vec::new();
        for way in walk::every(&self.state, &self.asked.from, probe) {
            let end = &way.there.end;
            let host = self.who.host_of(end).filter(|_| matches!(end, NsName::Pod(_)));
            let host = host.map(|h| format!(" on {h}")).unwrap_or_default();
            let says = format!("it ends at {end}{host}: {}", words(way.seen));
            match all.iter_mut().find(|(other, _)| *other == says) {
                Some((_, odds)) => *odds += way.probability,
                None => all.push((says, way.probability)),
            }
        }
        if all.len() < 2 {
            return Vec::new();
        }
        let left = all.len().saturating_sub(MOST);
        let told = all.iter().take(MOST).map(|(says, odds)| format!("with probability {odds:.2} {says}"));
        told.chain((left > 0).then(|| format!("and {left} more ways"))).collect()
    }

    /// What came of it, as if it had been asked.
    fn outcome(&self, to: &str, (tried, observed): (Option<String>, String), failed: Option<Details>) -> Outcome {
        let verdict = if failed.is_none() { probe::Verdict::Passed } else { probe::Verdict::Differed };
        Outcome {
            name: self.asked.name.clone(),
            from: self.asked.from.clone(),
            kind: Kind::of(&self.asked.ask),
            target: to.to_owned(),
            tried,
            verdict,
            expected: String::new(),
            observed,
            tries: 0,
            took_ms: 0.0,
            details: failed.unwrap_or_default(),
        }
    }

    fn verdict(&self, outcome: &Outcome, origin: &Origin) -> Verdict {
        if outcome.passed() {
            let end = self.told.walked.last().map(|e| e.there.end.to_string()).unwrap_or_default();
            return Verdict { says: format!("will be delivered to {end}: {}", outcome.observed), fault: None };
        }
        let is_unknown = self.told.flows.is_empty() || outcome.tried.is_none();
        if is_unknown && outcome.details.failure.is_none() {
            return Verdict { says: "the plan does not know where this goes".to_owned(), fault: None };
        }
        let (recording, known) = (Recording::default(), Known::default());
        let material = Material {
            lab: self.lab,
            planned: self.plan,
            there: self.plan,
            recording: &recording,
            known: &known,
            sockets: &[],
            told: &[],
            missing: &[],
            origin,
        };
        let evidence = Evidence::read(&material, &[]);
        let mut teller = packets::Teller::new(&material, &evidence, &self.asked.from);
        teller.walked = self.told.walked.iter().map(|e| (Some(e.clone()), None)).collect();
        let (asked, flows) = (self.asked, self.told.flows.as_slice());
        let case = Case { material: &material, evidence: &evidence, teller: &teller, asked, outcome, flows };
        let mut verdict = verdict::judge(&case);
        if let Some(fault) = &mut verdict.fault {
            fault.evidence = vec!["the lab's file says so; nothing was sent".to_owned()];
        }
        verdict
    }

    /// Where it goes; nothing where that is not known.
    ///
    /// # Errors
    /// A name that has no address.
    fn end(&mut self) -> Result<Option<End>, Unresolved> {
        let ask = &self.asked.ask;
        let (Some((target, port)), Some(protocol)) = (ask.target(), tell::protocol(ask)) else { return Ok(None) };
        let address = match target {
            Target::Address(ip) => Some(*ip),
            Target::Machine(ns) => self.lab.address_of(ns),
            Target::Service(key) => {
                let outside = matches!(self.asked.from, NsName::Client(_));
                self.lab.service(key).and_then(|service| probe::by_books(service, outside))
            }
            Target::Name(name) => match probe::by_hosts_file(self.lab, &self.asked.from, name) {
                Some(ip) => Some(ip),
                None => self.by_dns(name)?,
            },
        };
        Ok(address.map(|ip| (ip, port, protocol)))
    }

    /// Whether one of the cluster's DNS servers has taken a question.
    fn is_dns(&self, exchange: &Exchange, port: u16) -> bool {
        port == DNS_PORT && self.plan.get(&exchange.there.end).is_some_and(|ns| ns.dns.is_some())
    }

    /// The address that the asker's DNS server gives for a name, which is asked for first.
    fn by_dns(&mut self, name: &str) -> Result<Option<IpAddr>, Unresolved> {
        let resolver = self.lab.resolver_of(&self.asked.from);
        let says = |why: &str| format!("`{name}` does not resolve: {why}");
        let does_not = |why: &str| Unresolved { says: says(why), answers: Vec::new() };
        let Some(server) = resolver.servers.first().copied() else {
            let from = &self.asked.from;
            return Err(does_not(&format!("it is not in the /etc/hosts of {from}, which knows no DNS server")));
        };
        let asked = self.asked;
        let exchange = self.flow(&asked.from, &Probe::to(Protocol::Udp, server, DNS_PORT), Role::NameLookup);
        let Some(exchange) = exchange.filter(|e| e.seen == Seen::Answer) else {
            return Err(does_not(&format!("no answer from the DNS server {server}")));
        };
        let Some(dns) = self.dns.as_ref().filter(|_| self.is_dns(&exchange, DNS_PORT)) else {
            let end = &exchange.there.end;
            self.told
                .notes
                .push(format!("what {end} answers for `{name}` is not known: it is no DNS server of the lab's"));
            return Ok(None);
        };
        let reply = dns.ask(SocketAddr::new(server, DNS_PORT), &resolver.candidates(name), "A");
        let why = |unresolved: Unresolved| Unresolved { says: says(&unresolved.says), ..unresolved };
        reply.map(|reply| reply.address()).map_err(why)
    }
}

impl Unresolved {
    fn seen(self) -> Sees {
        (self.says, Some(Details { looked_up: self.answers, ..failed(FailureName::Name) }))
    }
}

fn failed(failure: FailureName) -> Details {
    Details { failure: Some(failure), ..Details::default() }
}

/// An answer of the ingress controller's own; from 400 on it is none that the asker wants.
fn status(status: u16) -> Sees {
    let name = StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or_default();
    let says = format!("the ingress controller answers {status} {name}");
    let details = Details { status: Some(status), ..failed(FailureName::Protocol) };
    (says, (status >= 400).then_some(details))
}

fn failure(seen: Seen) -> Option<FailureName> {
    Some(match seen {
        Seen::Answer => return None,
        Seen::Refused => FailureName::Refused,
        Seen::Unreachable | Seen::NotPermitted => FailureName::Unreachable,
        Seen::TooBig => FailureName::TooBig,
        Seen::TtlExceeded => FailureName::TtlExceeded,
        Seen::Timeout => FailureName::Timeout,
    })
}

fn packet(path: &Path, direction: Direction, number: u32) -> Packet {
    let (steps, fate, kind) = (path.steps.clone(), path.fate.clone(), path.kind.clone());
    Packet { number, direction, kind, again: None, about: None, steps, fate }
}

/// What the asker will see.
fn words(seen: Seen) -> &'static str {
    match seen {
        Seen::Answer => "an answer",
        Seen::Refused => "refused",
        Seen::Unreachable => "unreachable",
        Seen::NotPermitted => probe::NOT_PERMITTED,
        Seen::TooBig => "too big",
        Seen::TtlExceeded => "the TTL runs out",
        Seen::Timeout => "no answer",
    }
}

#[cfg(test)]
mod tests;
