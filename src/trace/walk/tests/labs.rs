//! The probes of the labs that come along: what is predicted must be what they expect.

use std::collections::BTreeMap;
use std::path::Path as File;

use super::super::{Seen, every};
use super::*;
use crate::lab::names::named;
use crate::lab::probe::{Ask, Expect, Probe as Asked, SourceExpect, Target};
use crate::objects::{ObjectKey, Service};
use crate::spec::load::{Input, load};
use crate::spec::probe::FailureName;

/// Every lab file below `labs/`.
fn files() -> Vec<String> {
    let dir = File::new(env!("CARGO_MANIFEST_DIR")).join("labs");
    let entries = std::fs::read_dir(dir).expect("the labs").map(|e| e.expect("an entry").path());
    let file = |path: std::path::PathBuf| if path.is_dir() { path.join("lab.yaml") } else { path };
    let mut all: Vec<String> =
        entries.map(file).filter(|p| p.is_file()).map(|p| p.to_str().expect("a name").to_owned()).collect();
    all.sort();
    all
}

pub fn read(file: &str) -> Lab {
    let mut loaded = load(&Input::parse(file));
    let mut problems = std::mem::take(&mut loaded.problems);
    crate::lab::resolve(&loaded, None, &mut problems).unwrap_or_else(|| panic!("{file}: {problems:#?}"))
}

/// The service that `from` means by a name.
fn service<'l>(lab: &'l Lab, from: &NsName, name: &str) -> Option<&'l Service> {
    let own = if let NsName::Pod(id) = from { id.namespace.as_str() } else { "default" };
    let (name, namespace) = name.split_once('.').unwrap_or((name, own));
    lab.service(&ObjectKey::new(namespace.split('.').next().unwrap_or(own), name))
}

/// The address that a target stands for; nothing where a name server must be asked.
fn address(lab: &Lab, from: &NsName, to: &Target) -> Option<IpAddr> {
    let cluster = |service: &Service| service.spec.as_ref()?.cluster_ip.as_ref()?.parse().ok();
    match to {
        Target::Address(ip) => Some(*ip),
        Target::Machine(ns) => lab.address_of(ns),
        Target::Service(key) => lab.service(key).and_then(cluster),
        Target::Name(name) => match service(lab, from, name) {
            Some(service) => cluster(service),
            None if lab.ingress_hosts().contains(name.as_str()) => lab.ingress_address().map(|public| public.ip),
            None => None,
        },
    }
}

/// The packet that a probe begins with; nothing where it runs a program or needs a name server.
pub fn packet(lab: &Lab, asked: &Asked) -> Option<Probe> {
    let at = |to: &Target| address(lab, &asked.from, to);
    Some(match &asked.ask {
        Ask::Ping { to, size, dont_fragment, ttl } => {
            let mut probe = Probe::to(Protocol::Icmp, at(to)?, 7);
            (probe.header.length, probe.header.dont_fragment, probe.header.ttl) = (*size, *dont_fragment, *ttl);
            probe
        }
        Ask::Tcp { to, port, .. } => Probe::to(Protocol::Tcp, at(to)?, *port),
        Ask::Udp { to, port, .. } => Probe::to(Protocol::Udp, at(to)?, *port),
        Ask::Http(http) => Probe::to(Protocol::Tcp, at(&http.to)?, http.to_port),
        Ask::Dns { server, port, tcp, .. } => {
            Probe::to(if *tcp { Protocol::Tcp } else { Protocol::Udp }, at(server)?, *port)
        }
        Ask::Exec { .. } => return None,
    })
}

/// What must be seen of the first packet. What fails above it must be answered all the same.
fn fits(fail: Option<FailureName>, seen: Seen) -> bool {
    match fail {
        None | Some(FailureName::Tls | FailureName::Protocol | FailureName::Name | FailureName::Reset) => {
            seen == Seen::Answer
        }
        Some(FailureName::Any) => seen != Seen::Answer,
        Some(FailureName::Timeout) => seen == Seen::Timeout,
        Some(FailureName::Refused) => seen == Seen::Refused,
        Some(FailureName::Unreachable) => matches!(seen, Seen::Unreachable | Seen::NotPermitted),
        Some(FailureName::TooBig) => seen == Seen::TooBig,
        Some(FailureName::TtlExceeded) => seen == Seen::TtlExceeded,
    }
}

/// Whether the one who answers is a proxy, so that others answer the request in the end.
fn is_proxy(lab: &Lab, end: &NsName) -> bool {
    matches!(end, NsName::Pod(id) if lab.ingress.is_some() && id.namespace.as_str() == "ingress")
}

fn source_fits(lab: &Lab, expect: &SourceExpect, source: IpAddr) -> bool {
    match expect {
        SourceExpect::Range(net) => net.contains(&source),
        SourceExpect::Machine(ns) => lab.address_of(ns) == Some(source),
    }
}

/// How all ways together differ from what a probe expects.
fn differences(lab: &Lab, expect: &Expect, ways: &[Exchange]) -> Vec<String> {
    let mut found = Vec::new();
    let mut shares: BTreeMap<String, f64> = BTreeMap::new();
    for way in ways {
        if !fits(expect.fail, way.seen) {
            found.push(format!("{:?} is seen\n{}", way.seen, told(way)));
        }
        let end = way.there.end.to_string();
        *shares.entry(end.clone()).or_default() += way.probability;
        if is_proxy(lab, &way.there.end) {
            continue;
        }
        if expect.pod.as_ref().is_some_and(|pod| !named(pod, &end)) {
            found.push(format!("{end} answers\n{}", told(way)));
        }
        let source = way.there.header.source;
        if expect.source.as_ref().is_some_and(|wanted| !source_fits(lab, wanted, source)) {
            found.push(format!("the source is {source}\n{}", told(way)));
        }
        let ttl = way.back.as_ref().map(|back| back.header.ttl);
        if expect.ttl.is_some_and(|wanted| ttl != Some(wanted)) {
            found.push(format!("the answer's TTL is {ttl:?}\n{}", told(way)));
        }
    }
    let total: f64 = ways.iter().map(|w| w.probability).sum();
    if (total - 1.0).abs() > 1e-6 {
        found.push(format!("all ways together have the probability {total}"));
    }
    for (name, share) in expect.distribution.iter().flatten() {
        let has: f64 = shares.iter().filter(|(end, _)| named(name, end)).map(|(_, share)| share).sum();
        let proxied = ways.iter().any(|w| is_proxy(lab, &w.there.end));
        if (has - share).abs() > expect.tolerance && !proxied {
            found.push(format!("{name} has a share of {has}, not {share}"));
        }
    }
    found
}

/// The largest echo request that comes through uncut.
fn mtu_fits(state: &State, asked: &Asked, probe: &Probe, mtu: u32) -> bool {
    let seen = |length: u32| {
        let mut probe = probe.clone();
        (probe.header.length, probe.header.dont_fragment) = (length, true);
        exchange(state, &asked.from, &probe, &Choices::First).map(|e| e.seen)
    };
    (seen(mtu), seen(mtu + 1)) == (Some(Seen::Answer), Some(Seen::TooBig))
}

#[test]
fn what_is_predicted_is_what_the_labs_probes_expect() {
    let (mut walked, mut wrong) = (0, Vec::new());
    for file in files() {
        let lab = read(&file);
        let plan = prediction(&lab);
        let state = State::planned(&plan);
        for asked in &lab.probes {
            let Some(probe) = packet(&lab, asked) else { continue };
            walked += 1;
            let ways = every(&state, &asked.from, &probe);
            let mut found = differences(&lab, &asked.expect, &ways);
            if asked.expect.mtu.is_some_and(|mtu| !mtu_fits(&state, asked, &probe, mtu)) {
                found.push("the MTU differs".to_owned());
            }
            wrong.extend(found.into_iter().map(|what| format!("{file}: {}: {what}", asked.name)));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(walked > 150, "only {walked} probes were walked");
}
