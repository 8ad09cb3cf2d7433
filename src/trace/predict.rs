//! A trace that nobody sent: what the plan says of a question, with all pods ready. Without root and
//! without a running lab.

use std::net::{IpAddr, SocketAddr};

use crate::lab::Lab;
use crate::lab::names::NsName;
use crate::lab::probe::{Ask, Probe as Asked, Target};
use crate::objects::{ObjectKey, Service, headless};
use crate::probe::{self, Kind};

use super::model::{Asked as Question, Direction, Fault, Flow, Means, Packet, Protocol, Role, Trace, VERSION, Verdict};
use super::walk::{self, Exchange, Path, Probe, Seen, State};
use super::who::{self, Who};

/// Cluster DNS' port.
const DNS: u16 = 53;
/// More outcomes than these are not told one by one.
const MOST: usize = 8;

/// What the plan says of `asked`, which was typed as `to`.
pub fn trace(lab: &Lab, asked: &Asked, to: &str) -> Trace {
    let plan = walk::prediction(lab);
    let teller = Teller { lab, state: State::planned(&plan), who: Who::new(lab, &plan) };
    teller.trace(asked, to)
}

struct Teller<'a> {
    lab: &'a Lab,
    state: State<'a>,
    who: Who<'a>,
}

/// What is walked: whom, over what.
type End = (IpAddr, u16, Protocol);

impl Teller<'_> {
    fn trace(&self, asked: &Asked, to: &str) -> Trace {
        let (mut flows, mut notes) = (Vec::new(), Vec::new());
        if self.looks_up(asked) {
            let query = Probe::to(Protocol::Udp, self.lab.dns_address(), DNS);
            flows.extend(self.flow(&asked.from, &query, Role::NameLookup, 1).map(|(flow, _)| flow));
        }
        let end = self.end(asked);
        let first = flows.iter().map(|f: &Flow| f.packets.len() as u32).sum::<u32>() + 1;
        let probe = end.map(|(ip, port, protocol)| Probe::of(&asked.ask, protocol, ip, port));
        let walked = probe.as_ref().and_then(|probe| self.flow(&asked.from, probe, Role::Request, first));
        let exchange = walked.map(|(flow, exchange)| {
            flows.push(flow);
            exchange
        });
        notes.extend(probe.as_ref().map(|probe| self.others(&asked.from, probe)).unwrap_or_default());
        if let Some(Ask::Http(_)) = exchange.as_ref().filter(|e| e.seen == Seen::Answer).map(|_| &asked.ask) {
            notes.push("what a proxy would ask in its turn is not predicted".to_owned());
        }
        let answered = exchange.as_ref().is_some_and(|e| e.seen == Seen::Answer);
        Trace {
            version: VERSION,
            lab: self.lab.name.to_string(),
            asked: Question {
                from: asked.from.clone(),
                to: to.to_owned(),
                kind: Kind::of(&asked.ask).to_string(),
                tried: end.map(
                    |(ip, port, _)| if port == 0 { ip.to_string() } else { SocketAddr::new(ip, port).to_string() },
                ),
                seen: exchange
                    .as_ref()
                    .map_or("nothing is known of its target".to_owned(), |e| words(e.seen).to_owned()),
                answered,
            },
            began: 0,
            verdict: self.verdict(exchange.as_ref()),
            flows,
            means: vec![Means::Plan],
            parting: None,
            notes,
        }
    }

    /// Both packets of a flow, and the exchange that they are.
    fn flow(&self, from: &NsName, probe: &Probe, role: Role, first: u32) -> Option<(Flow, Exchange)> {
        let exchange = walk::exchange(&self.state, from, probe, &walk::Choices::First)?;
        let sent = exchange.there.steps.iter().find_map(|s| s.header.clone())?;
        let (source, destination) = self.who.ends(&sent);
        let there = packet(&exchange.there, Direction::There, first);
        let back = exchange.back.as_ref().map(|path| packet(path, Direction::Back, first + 1));
        let packets = std::iter::once(there).chain(back).collect();
        let translations = exchange.translations.clone();
        let protocol = probe.header.protocol;
        Some((Flow { role, protocol, source, destination, packets, translations }, exchange))
    }

    /// The outcomes that chance allows, where there are several.
    fn others(&self, from: &NsName, probe: &Probe) -> Vec<String> {
        let all = walk::every(&self.state, from, probe);
        if all.len() < 2 {
            return Vec::new();
        }
        let told = all.iter().take(MOST).map(|e| {
            let end = &e.there.end;
            let host = self.who.host_of(end).filter(|_| matches!(end, NsName::Pod(_)));
            let host = host.map(|h| format!(" on {h}")).unwrap_or_default();
            format!("with probability {:.2} it ends at {end}{host}: {}", e.probability, words(e.seen))
        });
        let left = all.len().saturating_sub(MOST);
        told.chain((left > 0).then(|| format!("and {left} more ways"))).collect()
    }

    fn verdict(&self, exchange: Option<&Exchange>) -> Verdict {
        let Some(exchange) = exchange else {
            return Verdict { says: "the plan does not know where this goes".to_owned(), fault: None };
        };
        let blame = exchange.fault.as_ref().filter(|_| exchange.seen != Seen::Answer);
        match blame {
            None => Verdict {
                says: format!("will be delivered to {}: {}", exchange.there.end, words(exchange.seen)),
                fault: None,
            },
            Some(blame) => Verdict {
                says: format!("{}: {}", blame.place, blame.says),
                fault: Some(Fault {
                    cause: blame.cause,
                    place: blame.place.clone(),
                    object: blame.object.clone(),
                    evidence: vec!["the lab's file says so; nothing was sent".to_owned()],
                    remedy: Vec::new(),
                }),
            },
        }
    }

    /// Whether the asker has to ask the cluster's DNS first.
    fn looks_up(&self, asked: &Asked) -> bool {
        let named = |target: &Target| match target {
            Target::Name(name) => probe::known_without_dns(self.lab, &asked.from, name).is_none(),
            _ => false,
        };
        target(asked).is_some_and(named) && self.lab.dns.is_some()
    }

    fn end(&self, asked: &Asked) -> Option<End> {
        let (port, protocol) = match &asked.ask {
            Ask::Ping { .. } => (0, Protocol::Icmp),
            Ask::Tcp { port, .. } => (*port, Protocol::Tcp),
            Ask::Udp { port, .. } => (*port, Protocol::Udp),
            Ask::Http(http) => (http.to_port, Protocol::Tcp),
            Ask::Dns { port, tcp, .. } => (*port, if *tcp { Protocol::Tcp } else { Protocol::Udp }),
            Ask::Exec { .. } => return None,
        };
        Some((self.address(&asked.from, target(asked)?)?, port, protocol))
    }

    fn address(&self, from: &NsName, target: &Target) -> Option<IpAddr> {
        match target {
            Target::Address(ip) => Some(*ip),
            Target::Machine(ns) => self.lab.address_of(ns),
            Target::Service(key) => probe::by_books(self.lab.service(key)?, matches!(from, NsName::Client(_))),
            Target::Name(name) => {
                let known = probe::known_without_dns(self.lab, from, name);
                known.or_else(|| self.of_service(self.lab.service_called(from, name)?))
            }
        }
    }

    /// What DNS says of a service: its virtual address, or a pod's where it has none.
    fn of_service(&self, service: &Service) -> Option<IpAddr> {
        if !service.spec.as_ref().is_some_and(headless) {
            return who::addresses(service).next();
        }
        let selector = service.spec.as_ref()?.selector.as_ref()?;
        let namespace = ObjectKey::of(&service.metadata).namespace;
        let fits = |p: &&crate::lab::Pod| {
            p.id.namespace.as_str() == namespace && selector.iter().all(|(k, v)| p.labels.get(k) == Some(v))
        };
        self.lab.pods.iter().find(fits).map(crate::lab::Pod::ip)
    }
}

fn target(asked: &Asked) -> Option<&Target> {
    match &asked.ask {
        Ask::Ping { to, .. } | Ask::Tcp { to, .. } | Ask::Udp { to, .. } => Some(to),
        Ask::Http(http) => Some(&http.to),
        Ask::Dns { server, .. } => Some(server),
        Ask::Exec { .. } => None,
    }
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
        Seen::TooBig => "too big",
        Seen::TtlExceeded => "the TTL runs out",
        Seen::Timeout => "no answer",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Problems;
    use crate::spec::load::{Text, decode_text};
    use crate::trace::question;

    fn predicted(from: &str, to: &str) -> Trace {
        let text = "hosts: { node1: {}, node2: {} }\nclients: { laptop: {} }\n\
                    pods: { a: { host: node1 } }\n\
                    deployments: { web: { replicas: 2, labels: { app: web }, ports: [8080] } }\n\
                    services: { web: { selector: { app: web }, ports: [{ port: 80, targetPort: 8080 }] } }\n";
        let text = Text { name: "lab".into(), text: text.into(), default_name: "lab".into(), ..Text::default() };
        let mut problems = Problems::default();
        let lab = crate::lab::resolve(&decode_text(&text), None, &mut problems).expect("a lab");
        let asked = question::Question { from: from.into(), to: to.into(), ..Default::default() };
        trace(&lab, &asked.probe(&lab).expect("a probe"), to)
    }

    #[test]
    fn a_service_is_looked_up_and_every_endpoint_told_with_its_odds() {
        let trace = predicted("a", "web");
        let roles: Vec<Role> = trace.flows.iter().map(|f| f.role).collect();
        assert_eq!(roles, [Role::NameLookup, Role::Request]);
        let numbers: Vec<u32> = trace.flows.iter().flat_map(|f| &f.packets).map(|p| p.number).collect();
        assert_eq!(numbers, [1, 2, 3, 4]);
        assert!(trace.asked.answered && trace.verdict.fault.is_none(), "{:?}", trace.verdict);
        assert_eq!(trace.notes.len(), 2, "{:?}", trace.notes);
        assert!(trace.notes[0].starts_with("with probability 0.50 it ends at web-"), "{:?}", trace.notes);
    }

    #[test]
    fn what_will_not_be_answered_is_known_before() {
        let trace = predicted("laptop", "a:9999");
        assert!(!trace.asked.answered, "{:?}", trace.asked);
        assert!(trace.verdict.fault.is_some());
    }
}
