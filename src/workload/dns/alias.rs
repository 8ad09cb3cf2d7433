//! Chains of aliases, through the cluster and the names outside it, and what they end in.

use std::net::IpAddr;

use super::answer::is_under;
use super::cluster::Found;
use super::config::Data;
use super::digest::Kind;
use super::name::Name;
use super::query::{Query, kind};
use super::records::Records;
use super::reply::{At, QUESTION, Reply, Target};

/// CoreDNS' bound on a chain of aliases.
const MAX_CHAIN: usize = 10;

impl Records {
    /// Write the chain of aliases that begins with the question's name, and what it ends in.
    ///
    /// As in CoreDNS, links that lead to nothing within the question's own zone are not shown at
    /// all; those that lead out of it are, as somebody else may know more.
    pub(super) fn follow(&self, query: &Query<'_>, zone: &[u8], reply: &mut Reply<'_>) {
        let mut chain: Vec<&[u8]> = Vec::new();
        let mut kept = 0;
        let mut name = query.name.clone();
        let mut ips: Vec<IpAddr> = Vec::new();
        let mut others: &[Data] = &[];
        loop {
            let step = self.step(&name);
            let (target, is_outside) = match step {
                Step::Alias(target, is_outside) => (target, is_outside),
                Step::Ips(found) => break ips = found,
                Step::Data(found) => break others = found,
            };
            let Some(next) = Name::read(target).filter(|_| chain.len() <= MAX_CHAIN) else { break };
            if next.wire() == name.wire() || chain.iter().any(|t| t.eq_ignore_ascii_case(target)) {
                break;
            }
            chain.push(target);
            let leads_out = !is_under(next.wire(), zone);
            if is_outside || leads_out {
                kept = chain.len();
            }
            name = next;
        }
        ips.retain(|ip| ip.is_ipv4() == (query.kind == kind::A) && matches!(query.kind, kind::A | kind::AAAA));
        let others: Vec<&Data> = others.iter().filter(|d| d.kind() == query.kind && d.ip().is_none()).collect();
        if ips.is_empty() && others.is_empty() {
            chain.truncate(kept);
        }
        let mut owner = QUESTION;
        for target in chain {
            let Some(at) = reply.pointing(self.here(), owner, kind::CNAME, Target::whole(target)) else { return };
            owner = at;
        }
        self.addresses(ips.into_iter(), query.kind, owner, reply);
        others.into_iter().for_each(|d| d.write(self.here(), owner, reply));
    }

    /// What the next name of a chain is.
    fn step<'a>(&'a self, name: &Name) -> Step<'a> {
        let Some((from, is_reverse)) = self.zone_of(name) else {
            let data = self.settings.outside(name).unwrap_or_default();
            let alias = data.iter().find_map(|d| if let Data::Cname(target) = d { Some(target) } else { None });
            return match alias {
                Some(target) => Step::Alias(target, true),
                None if data.iter().any(|d| d.ip().is_some()) => Step::Ips(data.iter().filter_map(Data::ip).collect()),
                None => Step::Data(data),
            };
        };
        self.step_inside(name, from, is_reverse)
    }

    fn step_inside(&self, name: &Name, from: usize, is_reverse: bool) -> Step<'_> {
        match self.find(name, from, is_reverse) {
            Found::Hosts(found) => Step::Ips(found.hosts.iter().map(|h| h.ip).collect()),
            Found::Own => Step::Ips(self.own.iter().map(|own| own.1).collect()),
            Found::Alias(_) => self.alias_of(name, from).map_or(Step::Data(&[]), |target| Step::Alias(target, false)),
            _ => Step::Data(&[]),
        }
    }

    /// An ExternalName's target again, for as long as the records live: what is found of pods
    /// lives only as long as the question.
    fn alias_of(&self, name: &Name, from: usize) -> Option<&[u8]> {
        let key = name.span(from.checked_sub(3)?, from.checked_sub(1)?);
        match self.entries.get(key)?.service.as_ref()? {
            Kind::External(target) => target.as_deref(),
            _ => None,
        }
    }
}

/// One link of a chain of aliases, or its end.
enum Step<'a> {
    /// A target, and whether it is one of the names outside that says so.
    Alias(&'a [u8], bool),
    Ips(Vec<IpAddr>),
    Data(&'a [Data]),
}

impl Data {
    pub(super) fn kind(&self) -> u16 {
        match self {
            Data::Address(IpAddr::V4(_)) => kind::A,
            Data::Address(IpAddr::V6(_)) => kind::AAAA,
            Data::Cname(_) => kind::CNAME,
            Data::Pointing(kind, _) => *kind,
            Data::Txt(_) => kind::TXT,
            Data::Mx(..) => kind::MX,
            Data::Srv(..) => kind::SRV,
        }
    }

    pub(super) fn ip(&self) -> Option<IpAddr> {
        if let Data::Address(ip) = self { Some(*ip) } else { None }
    }

    /// Add everything but addresses, whose order is another's to choose.
    pub(super) fn write(&self, at: At, owner: usize, reply: &mut Reply<'_>) {
        match self {
            Data::Address(_) => {}
            Data::Cname(target) => drop(reply.pointing(at, owner, kind::CNAME, Target::whole(target))),
            Data::Pointing(kind, target) => drop(reply.pointing(at, owner, *kind, Target::whole(target))),
            Data::Txt(text) => reply.txt(at, owner, text),
            Data::Mx(preference, exchange) => reply.mx(at, owner, *preference, Target::whole(exchange)),
            Data::Srv(numbers, target) => drop(reply.srv(at, owner, *numbers, Target::whole(target))),
        }
    }
}
