//! What a proxy did between the request that it took and the one that it sent: the object that decided,
//! and the backend.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::lab::Lab;
use crate::lab::names::NsName;
use crate::lab::probe::{Ask, HttpAsk, Probe};
use crate::plan::ingress::{self, BackendName, Choice, Router};

use super::flow::{Found, FoundPacket};
use super::model::{Direction, End, Flow, Means, Packet, Role, Step, What};
use super::packet::Essence;
use super::sight::{Sight, Tuple};
use super::tell::Evidence;

/// Begin each flow that a proxy sent with the step in the proxy that led to it.
/// `is_read` says whether the request was seen to be sent on, and is not only supposed to be.
pub fn tell(flows: &mut [Flow], lab: &Lab, (asked, is_read): (&Probe, bool)) {
    let Ask::Http(http) = &asked.ask else { return };
    let scheme = if http.tls { "https" } else { "http" };
    let request = format!("{} {scheme}://{}{}", http.method, http.host, http.path);
    let because = because(lab, &http.host, &http.path);
    for flow in flows.iter_mut().filter(|f| f.role == Role::Proxied) {
        let backend = backend(&flow.destination);
        let Some(Packet { steps, kind, .. }) = flow.packets.first_mut() else { continue };
        let Some(first) = steps.first() else { continue };
        let stood = if kind == "SYN" { "" } else { ", over a connection that stood already" };
        let guess =
            if is_read { "" } else { " (inferred: nobody else was asked then, and what it sends cannot be read)" };
        let program = program(lab, &first.place);
        let by = because.as_ref().map(|b| format!(" by {b}")).unwrap_or_default();
        let step = Step {
            at: None,
            place: first.place.clone(),
            host: first.host.clone(),
            dev: None,
            layer: 0,
            says: format!("{program} has taken {request}, and sends it on{by} to {backend}{stood}{guess}"),
            what: What::Proxied { program, request: request.clone(), because: because.clone(), backend },
            header: None,
            known_by: if is_read { vec![Means::Tap, Means::State] } else { vec![Means::State] },
        };
        steps.insert(0, step);
    }
}

/// The connection by which a controller sent on a request that cannot be read there, as it is encrypted: the
/// only one over which it sent data to a pod between taking the request in and answering. Nothing where there are
/// several, or none.
pub fn unread(request: &Found, evidence: &Evidence) -> Option<Tuple> {
    let sights = || request.packets.iter().flat_map(|p| p.sights.iter().map(move |n| (p, &evidence.sights[*n])));
    let is_data = |essence: &Essence| matches!(essence, Essence::Tcp { data: 1.., .. });
    let lab = evidence.who.lab();
    let there = |(p, s): &(&FoundPacket, &Sight)| p.direction == Direction::There && is_data(&p.essence) && !s.outgoing;
    let (_, taken) = sights().filter(there).find(|(_, s)| is_controller(lab, &s.place))?;
    let place = &taken.place;
    let back = |(p, s): &(&FoundPacket, &Sight)| {
        p.direction == Direction::Back && is_data(&p.essence) && s.outgoing && s.place == *place
    };
    let answered = sights().filter(back).map(|(_, s)| s.at).max()?;
    let mut asked: Vec<Tuple> = Vec::new();
    for sight in &evidence.sights {
        let tuple = sight.tuple();
        // What has the controller's own port as its source answers somebody else.
        let is_answer = tuple.source.1 == taken.header.destination_port;
        let is_other = !is_answer && !request.tuples.contains_key(&tuple) && !asked.contains(&tuple);
        let goes_to_pod = matches!(evidence.who.machine(tuple.destination.0), Some(NsName::Pod(_)));
        let sent = sight.place == *place && sight.outgoing && is_data(&sight.essence);
        if is_other && goes_to_pod && sent && (taken.at..answered).contains(&sight.at) {
            asked.push(tuple);
        }
    }
    match asked[..] {
        [only] => Some(only),
        _ => None,
    }
}

fn backend(end: &End) -> String {
    let address = SocketAddr::new(end.ip, end.port);
    end.name.as_ref().map_or_else(|| address.to_string(), |name| format!("{name} {address}"))
}

fn program(lab: &Lab, place: &NsName) -> String {
    match &lab.ingress {
        Some(layer) if is_controller(lab, place) => format!("the ingress controller ({})", layer.controller.driver),
        _ => format!("a program of {place}"),
    }
}

pub fn is_controller(lab: &Lab, place: &NsName) -> bool {
    let NsName::Pod(id) = place else { return false };
    id.namespace.as_str() == crate::lab::ingress::INGRESS_NAMESPACE && lab.pod(id).is_some()
}

/// The object whose rule takes a request.
pub fn because(lab: &Lab, host: &str, path: &str) -> Option<String> {
    let router = router(lab)?;
    decided(&chosen(&router, host, path), &router)
}

/// What the lab's ingress controller does, ready to be asked; nothing where there is none.
pub fn router(lab: &Lab) -> Option<Router> {
    lab.ingress.as_ref()?;
    Some(Router::new(Arc::new(ingress::of_lab(lab, &ingress::brought(lab), None))).0)
}

/// Who takes a request.
pub fn choice<'r>(router: &'r Router, http: &HttpAsk) -> Choice<'r> {
    chosen(router, &http.host, &http.path)
}

fn chosen<'r>(router: &'r Router, host: &str, path: &str) -> Choice<'r> {
    router.choose(&host.to_lowercase(), path.split('?').next().unwrap_or(path))
}

/// The object that has decided so, in words.
pub fn decided(choice: &Choice, router: &Router) -> Option<String> {
    // As the ingress names it; the routing's own name for it means nothing to anybody else.
    let service = |name: &BackendName| match router.routing().backends.get(name) {
        Some(backend) => format!("service {} port {}", backend.service, backend.port),
        None => format!("service {name}"),
    };
    match choice.location {
        Some(location) => Some(format!("{}, {}", location.source, service(&location.backend))),
        None => choice.backend().map(|backend| format!("the default backend, {}", service(backend))),
    }
}
