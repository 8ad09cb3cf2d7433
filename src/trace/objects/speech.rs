//! Who speaks TLS, and who plain HTTP: by the lab's file, and what is said where one met the other.

use crate::lab::ingress::{HTTP, HTTPS, INGRESS_HEALTH_PORT};
use crate::lab::names::NsName;
use crate::lab::probe::{Ask, HttpAsk};
use crate::lab::{Lab, Port, Run};
use crate::probe;
use crate::spec::probe::FailureName;
use crate::spec::value::Protocol;

use crate::trace::model::{Cause, Direction, Flow, Role};
use crate::trace::proxied;
use crate::trace::verdict::Case;
use crate::trace::walk::Blame;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    PlainHttp,
    Tls,
}

/// What is spoken on a machine's port over TCP; nothing where a program of its own decides.
pub fn speaks(lab: &Lab, place: &NsName, port: u16) -> Option<Speaks> {
    let is_it = |p: &&Port| p.number == port && p.protocol == Protocol::Tcp;
    let echo = |ports: &[Port]| ports.iter().find(is_it).map(|_| Speaks::PlainHttp);
    match place {
        NsName::Pod(id) => lab.pod(id)?.containers.iter().find_map(|container| match container.run {
            Run::Echo => echo(&container.ports),
            Run::Ingress if port == INGRESS_HEALTH_PORT => Some(Speaks::PlainHttp),
            Run::Ingress => match container.ports.iter().find(is_it)?.name.as_deref() {
                Some(HTTP) => Some(Speaks::PlainHttp),
                Some(HTTPS) => Some(Speaks::Tls),
                _ => None,
            },
            Run::Dns | Run::Program { .. } => None,
        }),
        NsName::Host(name) => echo(&lab.host(name)?.ports),
        NsName::Client(name) => echo(&lab.clients.iter().find(|c| c.name == *name)?.ports),
        NsName::Router => None,
    }
}

/// What a fault is about where plain HTTP came to who speaks TLS, and where TLS came to who does not.
pub const PLAIN_HTTP: &str = "plain HTTP";
pub const TLS: &str = "TLS";
const HTTP_AT_ALL: &str = "HTTP";

/// That the one who took a request speaks otherwise than it was asked.
pub fn crossed(case: &Case, taken: &NsName) -> Option<Blame> {
    let HttpAsk { tls, .. } = case.asked_http()?;
    let (failure, seen) = (case.outcome.details.failure?, &case.outcome.observed);
    let status = case.outcome.details.status;
    let (lab, port) = (case.material.lab, arrived(case, taken));
    // Of a program of its own only what it answers is known.
    let doubted = |object: &str| {
        let says = format!("{seen}: is it {object} that it speaks?");
        Some(Blame { cause: Cause::Other, place: taken.clone(), object: object.to_owned(), says })
    };
    let (object, what) = match (tls, port.and_then(|port| speaks(lab, taken, port))) {
        (false, Some(Speaks::Tls)) => (PLAIN_HTTP, "speaks TLS, and plain HTTP came"),
        (true, Some(Speaks::PlainHttp)) if failure == FailureName::Tls => (TLS, "speaks plain HTTP, and TLS came"),
        (true, None) if failure == FailureName::Tls && !seen.contains("certificate") => return doubted(TLS),
        // Who answers with a status speaks HTTP.
        (false, None) if failure == FailureName::Protocol && status.is_none() => return doubted(HTTP_AT_ALL),
        _ => return None,
    };
    let who = if proxied::is_controller(lab, taken) { "the ingress controller".to_owned() } else { taken.to_string() };
    let port = port.map(|port| format!(" on port {port}")).unwrap_or_default();
    let says = format!("{seen}; {who} {what}{port}");
    Some(Blame { cause: Cause::Other, place: taken.clone(), object: object.to_owned(), says })
}

/// The port to which the request came, which may be another one than was asked.
fn arrived(case: &Case, taken: &NsName) -> Option<u16> {
    let requests = case.flows.iter().filter(|f: &&Flow| f.role == Role::Request);
    let mut packets = requests.flat_map(|f| &f.packets).filter(|p| p.direction == Direction::There);
    let port = packets.find_map(|p| {
        let mut here = p.steps.iter().rev().filter(|s| s.place == *taken && s.layer == 0);
        here.find_map(|s| s.header.as_ref()).map(|header| header.destination_port)
    });
    port.filter(|port| *port > 0)
}

/// The same question in the way in which the other one speaks.
pub fn other_way(case: &Case) -> Option<String> {
    let http = case.asked_http()?;
    Some(probe::asked(&Ask::Http(Box::new(HttpAsk { tls: !http.tls, ..http.clone() }))))
}
