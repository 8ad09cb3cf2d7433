//! What a proxy did between the request that it took and the one that it sent: the object that decided,
//! and the backend.

mod guess;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::lab::Lab;
use crate::lab::names::NsName;
use crate::lab::probe::{Ask, HttpAsk, Probe};
use crate::plan::ingress::{self, Choice, Router};

use super::flow::Found;
use super::model::{Direction, End, Fate, Flow, Means, Packet, Role, Step, What};
use super::programs::{self, Taken};
use super::sight::Tuple;
use super::tell::Evidence;

pub use guess::Waiting;

/// Begin each flow that a proxy sent with the step in the proxy that led to it, and end a request that a
/// controller answered itself with that. `marked` are the flows that carry the question's mark.
pub fn tell(flows: &mut [Flow], evidence: &Evidence, (asked, found, marked): (&Probe, &[Found], &[Tuple])) {
    let Ask::Http(http) = &asked.ask else { return };
    let lab = evidence.who.lab();
    let supposed = Turn::supposed(lab, http);
    let requests = found.iter().filter(|f| f.role == Role::Request);
    let taken: Vec<Taken> = requests.flat_map(|request| programs::taken(evidence, request)).collect();
    for (flow, found) in flows.iter_mut().zip(found).filter(|(flow, _)| flow.role == Role::Proxied) {
        let told = taken.iter().find(|taken| has_sent(taken, found.tuple));
        let mut turn = told.map_or_else(|| supposed.clone(), |taken| Turn::told(taken, evidence.begin));
        if marked.contains(&found.tuple) {
            turn.known_by.insert(0, Means::Tap);
        }
        begin(flow, turn, lab);
    }
    for taken in taken.iter().filter(|taken| taken.passed.is_empty()) {
        answered(flows, taken, evidence);
    }
}

/// Begin the flow that a controller will send for a request with the step in it.
pub fn predicted(flow: &mut Flow, lab: &Lab, http: &HttpAsk) {
    begin(flow, Turn { known_by: vec![Means::Plan], ..Turn::supposed(lab, http) }, lab);
}

/// What a proxy did with a request.
#[derive(Clone)]
struct Turn {
    at: Option<u64>,
    request: String,
    because: Option<String>,
    known_by: Vec<Means>,
}

impl Turn {
    /// What follows from the lab's objects.
    fn supposed(lab: &Lab, http: &HttpAsk) -> Turn {
        let scheme = if http.tls { "https" } else { "http" };
        let request = format!("{} {scheme}://{}{}", http.method, http.host, http.path);
        Turn { at: None, request, because: because(lab, &http.host, &http.path), known_by: vec![Means::State] }
    }

    fn told(taken: &Taken, begin: u64) -> Turn {
        let at = Some(taken.at.saturating_sub(begin));
        Turn { at, request: taken.words(), because: taken.request.rule.clone(), known_by: vec![Means::Program] }
    }
}

/// Whether a controller sent a request on by the connection with these ends.
fn has_sent(taken: &Taken, tuple: Tuple) -> bool {
    let ends = |from: SocketAddr| (from.ip(), from.port());
    let is_it = |from: Option<SocketAddr>, to| {
        from.is_none_or(|from| ends(from) == tuple.source) && ends(to) == tuple.destination
    };
    taken.passed.iter().any(|(_, from, to)| is_it(*from, *to))
}

fn begin(flow: &mut Flow, turn: Turn, lab: &Lab) {
    let backend = backend(&flow.destination);
    let is_data = |p: &Packet| p.direction == Direction::There && p.kind.starts_with("data");
    let has_data = flow.packets.iter().any(is_data);
    let Some(Packet { steps, kind, .. }) = flow.packets.first_mut() else { return };
    let Some(first) = steps.first() else { return };
    let Turn { at, request, because, known_by } = turn;
    let stood = if kind == "SYN" { "" } else { ", over a connection that stood already" };
    let guess = match (&known_by[..], has_data) {
        ([Means::State], true) => " (inferred: nobody else was asked then, and what it sends cannot be read)",
        ([Means::State], false) => {
            " (inferred: that is an endpoint of the service, and was asked for a connection while the request waited)"
        }
        _ => "",
    };
    let program = program(lab, &first.place);
    let took = if known_by == [Means::Plan] { "takes" } else { "has taken" };
    let sends = if known_by == [Means::State] && !has_data { "tries to send" } else { "sends" };
    let by = because.as_ref().map(|b| format!(" by {b}")).unwrap_or_default();
    let step = Step {
        at,
        place: first.place.clone(),
        host: first.host.clone(),
        dev: None,
        layer: 0,
        says: format!("{program} {took} {request}, and {sends} it on{by} to {backend}{stood}{guess}"),
        what: What::Proxied { program, request, because, backend },
        header: None,
        known_by,
    };
    steps.insert(0, step);
}

/// A request that a controller answered without asking anybody: the last packet that it had taken by then ends so.
fn answered(flows: &mut [Flow], taken: &Taken, evidence: &Evidence) {
    let Some((status, why)) = taken.answered else { return };
    let at = taken.at.saturating_sub(evidence.begin);
    let is_it = |p: &&mut Packet| {
        let here = matches!(&p.fate, Fate::Delivered { to } if to == taken.place);
        let seen = p.steps.iter().filter_map(|s| s.at).max();
        here && p.direction == Direction::There && p.kind.starts_with("data") && seen.is_some_and(|seen| seen <= at)
    };
    let packets = flows.iter_mut().filter(|f| f.role == Role::Request).flat_map(|f| &mut f.packets);
    let Some(packet) = packets.filter(is_it).last() else { return };
    let (program, request) = (program(evidence.who.lab(), taken.place), taken.words());
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    let says = format!("{program} has taken {request}, and answers {status} itself{why}");
    let backend = format!("itself, with {status}");
    let what = What::Proxied { program, request, because: taken.request.rule.clone(), backend };
    packet.steps.push(programs::step(evidence, taken.place, (taken.at, what, says)));
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

/// The ingresses that say what becomes of requests for a host, where no more is known of those.
pub fn serving(lab: &Lab, host: &str) -> Option<String> {
    lab.ingress.as_ref()?;
    let routing = ingress::of_lab(lab, &ingress::brought(lab), None);
    let server = routing.server(&host.to_lowercase())?;
    let all: BTreeSet<String> = server.locations.iter().map(|l| format!("ingress {}", l.source.ingress)).collect();
    (!all.is_empty()).then(|| all.into_iter().collect::<Vec<_>>().join(", "))
}

/// The object whose rule takes a request.
pub fn because(lab: &Lab, host: &str, path: &str) -> Option<String> {
    chosen(&router(lab)?, host, path).words()
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
    // What cannot be read is refused before anything is chosen.
    let path = path_of(path).unwrap_or_default();
    router.choose(&ingress::host_of(host).unwrap_or_default(), path)
}

/// The path of a request for `target`, a path with a query, as rules see it.
///
/// # Errors
/// One that a controller refuses with 400, and why.
pub fn path_of(target: &str) -> Result<Cow<'_, [u8]>, ingress::Refusal> {
    let raw = target.split('?').next().unwrap_or(target);
    ingress::normalise(raw.as_bytes())
}
