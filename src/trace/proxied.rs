//! What a proxy did between the request that it took and the one that it sent: the object that decided,
//! and the backend.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::lab::Lab;
use crate::lab::names::NsName;
use crate::lab::probe::{Ask, Probe};
use crate::plan::ingress::{self, BackendName, Router};

use super::model::{End, Flow, Means, Packet, Role, Step, What};

/// Begin each flow that a proxy sent with the step in the proxy that led to it.
pub fn tell(flows: &mut [Flow], lab: &Lab, asked: &Probe) {
    let Ask::Http(http) = &asked.ask else { return };
    let scheme = if http.tls { "https" } else { "http" };
    let request = format!("{} {scheme}://{}{}", http.method, http.host, http.path);
    let because = because(lab, &http.host, &http.path);
    for flow in flows.iter_mut().filter(|f| f.role == Role::Proxied) {
        let backend = backend(&flow.destination);
        let Some(Packet { steps, .. }) = flow.packets.first_mut() else { continue };
        let Some(first) = steps.first() else { continue };
        let program = program(lab, &first.place);
        let by = because.as_ref().map(|b| format!(" by {b}")).unwrap_or_default();
        let step = Step {
            at: None,
            place: first.place.clone(),
            host: first.host.clone(),
            dev: None,
            layer: 0,
            says: format!("{program} has taken {request}, and sends it on{by} to {backend}"),
            what: What::Proxied { program, request: request.clone(), because: because.clone(), backend },
            header: None,
            known_by: vec![Means::Tap, Means::State],
        };
        steps.insert(0, step);
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
    lab.ingress.as_ref()?;
    let routing = Arc::new(ingress::of_lab(lab, &ingress::brought(lab), None));
    let (router, _) = Router::new(Arc::clone(&routing));
    // As the ingress names it; the routing's own name for it means nothing to anybody else.
    let service = |name: &BackendName| match routing.backends.get(name) {
        Some(backend) => format!("service {} port {}", backend.service, backend.port),
        None => format!("service {name}"),
    };
    let path = path.split('?').next().unwrap_or(path);
    let choice = router.choose(&host.to_lowercase(), path);
    match choice.location {
        Some(location) => Some(format!("{}, {}", location.source, service(&location.backend))),
        None => choice.backend().map(|backend| format!("the default backend, {}", service(backend))),
    }
}
