//! What would mend a fault of the lab's objects: in words, with the line of the file where it is to be changed,
//! and by a command where there is one.

use std::net::IpAddr;

use crate::lab::Backend;
use crate::lab::names::NsName;
use crate::lab::probe::Ask;
use crate::objects::{ObjectKey, Service};
use crate::plan::Sysctl;
use crate::plan::flannel::overhead;

use super::{EXTERNAL_POLICY, asked_service, beyond, hints, names, scaled_to_nothing, speech};
use crate::trace::listeners;
use crate::trace::model::{Cause, Fate, Packet, Remedy};
use crate::trace::proxied;
use crate::trace::tell::target;
use crate::trace::verdict::Case;
use crate::trace::walk::Blame;

/// What would mend a fault of the lab's objects.
pub fn remedies(case: &Case, blame: &Blame) -> Vec<Remedy> {
    let lab = case.material.lab;
    let say = |says: String| vec![Remedy { says, command: None }];
    match blame.cause {
        Cause::NoEndpoints | Cause::WrongTargetPort => named_service(case, blame).map_or_else(Vec::new, |s| endpoints(case, s)),
        Cause::NotReady => not_ready(case, blame),
        Cause::NoLocalEndpoint => local(case, blame),
        Cause::NoServicePort => ports(case, blame),
        Cause::NoSuchName => match names::alias(lab, &case.asked.from, &blame.object) {
            Some((key, _)) => vec![at_service(
                case,
                &key,
                "spec.externalName",
                "set the service's externalName to a name that there is, or tell it with `dns: { records: { NAME: ADDRESS } }`",
            )],
            None => say(names::meant(case, &blame.object)),
        },
        Cause::NoRoute if is_service_address(case) => say(
            "a service's address leads somewhere only on the cluster's hosts, and only on the ports that the service has: \
             `labctl get services -A` shows them"
                .to_owned(),
        ),
        Cause::NoRoute => nobodys_address(case).map_or_else(Vec::new, |ip| say(nobody_has(&ip.to_string()))),
        Cause::TtlExceeded if has_ttl(case) => say(
            "each router on the way takes one from the time to live: leave `--ttl` out, or take a larger one".to_owned(),
        ),
        Cause::TooBig if matches!(case.asked.ask, Ask::Ping { .. }) => {
            let most = blame.object.rsplit(' ').next().and_then(|word| word.parse::<u32>().ok());
            let most = most.map(|most| most.saturating_sub(wrapping(case)));
            let smaller = most.map_or_else(|| "a smaller packet".to_owned(), |most| format!("at most {most} bytes"));
            say(format!("send {smaller}, or let the packet be cut in pieces with `--fragment`"))
        }
        Cause::NoNeighbour => {
            let named = blame.object.split(' ').next().and_then(|word| word.parse().ok());
            named.or_else(|| nobodys_address(case)).map_or_else(Vec::new, |ip: IpAddr| say(nobody_has(&ip.to_string())))
        }
        Cause::WrongCertificate => say(certificate(case, blame)),
        Cause::ProxyRefused => vec![refused(case, blame)],
        Cause::ReversePath => reverse_path(case, blame).into_iter().collect(),
        Cause::ProgramSilent => listeners::remedy(case, blame).into_iter().collect(),
        Cause::NoListener => match listeners::remedy(case, blame) {
            Some(own) => vec![own],
            None => say(format!("let a program on {} listen on that port, or ask another one", blame.place)),
        },
        Cause::NotOnLink if lab.cluster.backend == Backend::HostGw => say(
            "put the hosts on one network, or take `backend: vxlan` with `directRouting: true`, which tunnels only between networks"
                .to_owned(),
        ),
        Cause::ConntrackFull => vec![Remedy {
            says: format!("forget what {} tracks, with conntrack-tools; a larger net.netfilter.nf_conntrack_max on the machine lasts", blame.place),
            command: Some(format!("labctl exec {} -- conntrack -F", blame.place)),
        }],
        Cause::Other if [speech::PLAIN_HTTP, speech::TLS].contains(&blame.object.as_str()) => {
            speech::other_way(case).map_or_else(Vec::new, |url| say(format!("ask {url}")))
        }
        Cause::DnsDead => say("`labctl get pods -n kube-system` shows the DNS servers".to_owned()),
        _ => Vec::new(),
    }
}

/// A filter of one device, of which plans say nothing.
fn reverse_path(case: &Case, blame: &Blame) -> Option<Remedy> {
    let here = |(place, setting): &&(NsName, Sysctl)| *place == blame.place && setting.dotted() == blame.object;
    let (place, setting) = case.material.known.sysctls.iter().find(here)?;
    setting.device()?;
    let command = format!("labctl exec {place} -- sysctl -w {}=0", setting.dotted());
    Some(Remedy { says: format!("on {place}, let packets come in by any device"), command: Some(command) })
}

/// Bytes that the back end had put around a packet where it was lost.
fn wrapping(case: &Case) -> u32 {
    let is_lost_inside =
        |p: &Packet| !matches!(p.fate, Fate::Delivered { .. }) && p.steps.last().is_some_and(|step| step.layer > 0);
    let is_wrapped = case.flows.iter().flat_map(|f| &f.packets).any(is_lost_inside);
    if is_wrapped { overhead(case.material.lab) } else { 0 }
}

fn nobody_has(address: &str) -> String {
    format!("nobody has the address {address}: is it the right one?")
}

/// The address that was asked, where no machine is to have it.
fn nobodys_address(case: &Case) -> Option<IpAddr> {
    let (asked, ..) = target(case.asked, case.outcome)?;
    let mut planned = case.material.planned.namespaces.iter().flat_map(|ns| &ns.addresses);
    (!planned.any(|address| address.net.addr() == asked)).then_some(asked)
}

/// Whether the question says itself how far it goes.
fn has_ttl(case: &Case) -> bool {
    matches!(
        &case.asked.ask,
        Ask::Ping { ttl: ..64, .. } | Ask::Tcp { ttl: Some(_), .. } | Ask::Udp { ttl: Some(_), .. }
    )
}

/// The service that a fault is about.
fn named_service<'l>(case: &Case<'l>, blame: &Blame) -> Option<&'l Service> {
    let lab = case.material.lab;
    asked_service(case).filter(|_| case.outcome.tried.is_some()).or_else(|| {
        // A headless service was asked for by its name alone.
        lab.services.iter().find(|s| blame.object.ends_with(&format!("service {}", ObjectKey::of(&s.metadata))))
    })
}

/// A change of a service's field, at the line where it is written.
fn at_service(case: &Case, key: &ObjectKey, path: &str, what: &str) -> Remedy {
    let origin = case.material.origin;
    origin.change(origin.service(key, path), what)
}

/// What gives a service endpoints that answer.
fn endpoints(case: &Case, service: &Service) -> Vec<Remedy> {
    let lab = case.material.lab;
    let key = ObjectKey::of(&service.metadata);
    if let Some(empty) = scaled_to_nothing(lab, service) {
        let replicas = case.material.origin.replicas(&empty.key).filter(|n| *n > 0).unwrap_or(1);
        let namespace = match empty.key.namespace.as_str() {
            "default" => String::new(),
            other => format!(" -n {other}"),
        };
        let command = format!("labctl scale deployment {} --replicas {replicas}{namespace}", empty.key.name);
        return vec![Remedy { says: format!("give deployment {} pods again", empty.key), command: Some(command) }];
    }
    let all = hints(lab, service);
    if !all.is_empty() {
        return all.into_iter().map(|h| at_service(case, &key, &h.path, &format!("{}: {}", h.path, h.help))).collect();
    }
    let no_selector = service.spec.as_ref().and_then(|s| s.selector.as_ref()).is_none_or(|s| s.is_empty());
    if !no_selector {
        return Vec::new();
    }
    if (key.namespace.as_str(), key.name.as_str()) == ("default", "kubernetes") {
        let says = "a lab has no API server, so nobody stands behind this service; ask another one".to_owned();
        return vec![Remedy { says, command: None }];
    }
    let what = format!(
        "give the service a selector, or endpoints of its own: an EndpointSlice with the label \
         `kubernetes.io/service-name: {}`",
        key.name
    );
    vec![at_service(case, &key, "spec", &what)]
}

fn not_ready(case: &Case, blame: &Blame) -> Vec<Remedy> {
    let what = format!("see why with `labctl describe pod {}`, and mend the probe or the program", blame.place);
    let pod = if let NsName::Pod(id) = &blame.place { case.material.lab.pod(id) } else { None };
    let origin = case.material.origin;
    vec![origin.change(pod.and_then(|pod| origin.readiness(pod)), &what)]
}

/// A policy that keeps connections on a host without a pod of the service.
fn local(case: &Case, blame: &Blame) -> Vec<Remedy> {
    let Some(service) = asked_service(case) else { return Vec::new() };
    let key = ObjectKey::of(&service.metadata);
    let (field, what) = if blame.object.starts_with(EXTERNAL_POLICY) {
        let what = format!(
            "ask a host that has a pod of the service, or set {EXTERNAL_POLICY}: Cluster, which costs the client's address"
        );
        (EXTERNAL_POLICY, what)
    } else {
        let field = "internalTrafficPolicy";
        (field, format!("let a pod of the service run on {}, or set {field}: Cluster", blame.place))
    };
    vec![at_service(case, &key, &format!("spec.{field}"), &what)]
}

/// A port that the service does not have.
fn ports(case: &Case, blame: &Blame) -> Vec<Remedy> {
    let Some((ip, port, _)) = crate::trace::tell::target(case.asked, case.outcome) else { return Vec::new() };
    let is_it = |s: &&Service| crate::trace::who::addresses(s).any(|a| a == ip);
    let Some(service) = case.material.lab.services.iter().find(is_it) else { return Vec::new() };
    let key = ObjectKey::of(&service.metadata);
    let what = match (super::ports(service).next(), port) {
        (Some((first, _)), 0) => format!("ask for one of its ports, as with `--port {first}`, or ping a pod behind it"),
        (Some((first, _)), _) => format!("ask for a port that it has, such as {first}, or add {port} to `spec.ports`"),
        (None, _) => format!("add {port} to `spec.ports` of {}", blame.object),
    };
    vec![if port == 0 { Remedy { says: what, command: None } } else { at_service(case, &key, "spec.ports", &what) }]
}

/// Whether the question went to an address of a service.
fn is_service_address(case: &Case) -> bool {
    let lab = case.material.lab;
    let Some((ip, ..)) = crate::trace::tell::target(case.asked, case.outcome) else { return false };
    lab.services.iter().any(|s| crate::trace::who::addresses(s).any(|a| a == ip))
        || lab.cluster.service_cidr.contains(&ip)
}

fn certificate(case: &Case, blame: &Blame) -> String {
    let lab = case.material.lab;
    let host = beyond::asked_host(case);
    if host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        let such =
            lab.ingress_hosts().into_iter().next().map(|name| format!(", such as https://{name}/")).unwrap_or_default();
        return format!(
            "a certificate is for names, and {host} is an address: ask for a name{such}, or accept any certificate with `-k`"
        );
    }
    match blame.object.starts_with("secret ") {
        true => format!(
            "give {} a certificate for {host}, or leave the secret out: the lab's authority then signs one",
            blame.object
        ),
        false => format!(
            "name {host} under `tls` of the ingress that has a rule for it: the lab's authority then signs a certificate"
        ),
    }
}

/// What an ingress controller refuses.
fn refused(case: &Case, blame: &Blame) -> Remedy {
    let NsName::Pod(controller) = &blame.place else { return Remedy { says: String::new(), command: None } };
    let logs = format!("`labctl logs -n {} {}` what the controller says", controller.namespace, controller.name);
    let lab = case.material.lab;
    let ingresses = lab.ingress.iter().flat_map(|layer| &layer.ingresses);
    // The one that has decided, or the one that has rules for the host.
    let host = beyond::asked_host(case);
    let rules = |i: &&crate::objects::Ingress| {
        i.spec.iter().flat_map(|s| s.rules.iter().flatten()).any(|r| r.host.as_deref() == Some(host))
    };
    let names = |i: &&crate::objects::Ingress| {
        blame.object.split(',').next() == Some(&format!("ingress {}", ObjectKey::of(&i.metadata)))
    };
    let found = ingresses.clone().find(names).or_else(|| ingresses.clone().find(rules));
    let Some(key) = found.map(|i| ObjectKey::of(&i.metadata)) else {
        return Remedy {
            says: format!("give an ingress a rule for it; `labctl get ingress -A` shows which there are, {logs}"),
            command: None,
        };
    };
    let describe =
        format!("`labctl describe ingress -n {} {}` shows who stands behind each path", key.namespace, key.name);
    let origin = case.material.origin;
    let what = match proxied::router(lab).zip(case.asked_http()) {
        Some((router, http)) if proxied::choice(&router, http).words().is_none() => "give the ingress a rule for it; ",
        _ => "",
    };
    origin.change(origin.rules_of_ingress(&key), &format!("{what}{describe}, {logs}"))
}
