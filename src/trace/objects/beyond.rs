//! Faults above the network: what the one who was reached said no to, by TLS or by HTTP.

use crate::lab::Lab;
use crate::lab::names::NsName;
use crate::lab::probe::HttpAsk;
use crate::objects::ObjectKey;
use crate::plan::ingress::{Backend, Choice, HostPattern, PathPattern, Router, Server};
use crate::spec::probe::FailureName;

use super::speech;
use crate::trace::model::{Cause, Flow, Role};
use crate::trace::proxied;
use crate::trace::verdict::Case;
use crate::trace::walk::Blame;

/// A fault above the network: what the one who was reached said no to.
pub fn beyond_the_network(case: &Case) -> Option<Blame> {
    let taken = case.flows.iter().rfind(|f| f.role == Role::Request).and_then(Flow::taken_by)?;
    let outcome = case.outcome;
    let says = outcome.observed.clone();
    if let Some(blame) = speech::crossed(case, &taken) {
        return Some(blame);
    }
    match (outcome.details.failure?, outcome.details.status) {
        // A program's ports are not known before one of them is asked.
        (FailureName::Refused, _) => {
            let port = crate::trace::tell::target(case.asked, outcome);
            let object = port.map(|(_, port, protocol)| format!("port {port}/{protocol}")).unwrap_or_default();
            let says = format!("nothing in {taken} listens there: {says}");
            Some(Blame { cause: Cause::NoListener, place: taken, object, says })
        }
        (FailureName::Tls, _) => {
            let name = asked_host(case);
            let object = secret_for(case.material.lab, name).unwrap_or_else(|| format!("the certificate for {name}"));
            Some(Blame { cause: Cause::WrongCertificate, place: taken, object, says })
        }
        (_, Some(status)) if status >= 400 && !proxied::is_controller(case.material.lab, &taken) => {
            let object = format!("HTTP status {status}");
            Some(Blame { cause: Cause::Other, place: taken, object, says })
        }
        (_, Some(status)) if status >= 400 => Some(refused_by_proxy(case, taken, status)),
        _ => None,
    }
}

/// The host of the URL that was asked for.
pub fn asked_host<'c>(case: &Case<'c>) -> &'c str {
    case.asked_http().map(|http| http.host.as_str()).unwrap_or_default()
}

/// Why an ingress controller, or the pod to which it has sent the request, answers with an error.
fn refused_by_proxy(case: &Case, controller: NsName, status: u16) -> Blame {
    let lab = case.material.lab;
    let seen = &case.outcome.observed;
    let proxied = case.flows.iter().rfind(|f| f.role == Role::Proxied).and_then(Flow::taken_by);
    let router = proxied::router(lab);
    let (Some(http), Some(router)) = (case.asked_http(), &router) else {
        return Blame {
            cause: Cause::ProxyRefused,
            place: controller,
            object: format!("HTTP status {status}"),
            says: seen.clone(),
        };
    };
    let choice = proxied::choice(router, http);
    let decided = choice.words();
    let refused =
        |object: String, says: String| Blame { cause: Cause::ProxyRefused, place: controller.clone(), object, says };
    match (decided, proxied) {
        (Some(by), Some(pod)) => {
            let says = format!("{seen}; it is sent on by {by}, and {pod} answers so");
            Blame { cause: Cause::Other, place: pod, object: format!("HTTP status {status}"), says }
        }
        (Some(by), None) => {
            let why =
                choice.backend().and_then(|name| router.routing().backends.get(name)).and_then(|b| nobody(lab, b));
            let why = why.map(|why| format!(", and {why}")).unwrap_or_default();
            let says = format!("{seen}; it is sent on by {by}{why}");
            refused(by, says)
        }
        (None, _) => {
            let (what, says) = no_rule(&choice, router, http);
            refused(what, format!("{seen}; {says}"))
        }
    }
}

/// Why nobody stands behind a backend; nothing where its service has pods.
fn nobody(lab: &Lab, backend: &Backend) -> Option<String> {
    let key = &backend.service;
    let Some(service) = lab.service(key) else { return Some(format!("there is no service {key}")) };
    if let Some(empty) = super::scaled_to_nothing(lab, service) {
        return Some(format!("deployment {} has 0 replicas", empty.key));
    }
    super::hints(lab, service).first().map(|hint| hint.what.clone())
}

/// Which host or path no rule fits, in a word, and which ones there are.
fn no_rule(choice: &Choice, router: &Router, http: &HttpAsk) -> (String, String) {
    let path = http.path.split('?').next().unwrap_or_default();
    match choice.server {
        Some(server) => {
            let has = some(server.locations.iter().map(|l| shown_path(&l.path)));
            let only = if has.is_empty() { has } else { format!(", only {has}") };
            let host = shown_host(&server.host);
            (format!("path {path}"), format!("no rule for {host} takes the path {path}{only}"))
        }
        None => {
            let has = some(router.routing().servers.iter().map(|s: &Server| shown_host(&s.host)));
            let only = if has.is_empty() { has } else { format!(", only for {has}") };
            (format!("host {}", http.host), format!("no ingress has a rule for the host {}{only}", http.host))
        }
    }
}

/// The first of them, each once.
fn some(all: impl Iterator<Item = String>) -> String {
    const MOST: usize = 8;
    let mut each: Vec<String> = Vec::new();
    all.for_each(|one| {
        if !each.contains(&one) {
            each.push(one)
        }
    });
    let left = each.len().saturating_sub(MOST);
    each.truncate(MOST);
    let more = if left > 0 { format!(" and {left} more") } else { String::new() };
    each.join(", ") + &more
}

fn shown_host(host: &HostPattern) -> String {
    match host {
        HostPattern::Name(name) => name.clone(),
        HostPattern::Wildcard(parent) => format!("*.{parent}"),
        HostPattern::Any => "any host".to_owned(),
    }
}

fn shown_path(path: &PathPattern) -> String {
    match path {
        PathPattern::Exact(path) => format!("{path} (Exact)"),
        PathPattern::Prefix(path) => format!("{path} (Prefix)"),
        PathPattern::Begin(path) => format!("{path} (ImplementationSpecific)"),
        PathPattern::Regex(path) => format!("{path} (a regular expression)"),
    }
}

/// The secret that an ingress names for a host.
fn secret_for(lab: &Lab, host: &str) -> Option<String> {
    let layer = lab.ingress.as_ref()?;
    layer.ingresses.iter().find_map(|ingress| {
        let tls = ingress.spec.as_ref()?.tls.as_ref()?;
        let entry = tls.iter().find(|t| t.hosts.iter().flatten().any(|h| h == host))?;
        let key = ObjectKey::of(&ingress.metadata);
        Some(format!("secret {}/{} of ingress {key}", key.namespace, entry.secret_name.as_deref()?))
    })
}
