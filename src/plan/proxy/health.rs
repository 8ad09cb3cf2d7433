//! What a service's health check port answers on this node (kube-proxy's
//! `healthcheck/service_health.go`). The server is not here.

use serde::Serialize;

use crate::objects::ObjectKey;

use super::endpoint::Endpoints;
use super::service::ServicePort;

/// One health check port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    pub service: ObjectKey,
    pub port: u16,
    /// Ready endpoints on this node, by address; terminating ones do not count.
    pub local_endpoints: usize,
}

/// The answer's body, in kube-proxy's field names and order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer<'s> {
    pub service: AnswerService<'s>,
    pub local_endpoints: usize,
    pub service_proxy_healthy: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AnswerService<'s> {
    pub namespace: &'s str,
    pub name: &'s str,
}

impl HealthCheck {
    /// 200 where this node has an endpoint, else 503: a load balancer then leaves the node out.
    pub fn status(&self) -> u16 {
        if self.local_endpoints > 0 { 200 } else { 503 }
    }

    /// The body that goes with it, with `X-Load-Balancing-Endpoint-Weight` of as many endpoints.
    pub fn answer(&self) -> Answer<'_> {
        let service = AnswerService { namespace: &self.service.namespace, name: &self.service.name };
        Answer { service, local_endpoints: self.local_endpoints, service_proxy_healthy: true }
    }
}

/// One for each service that has such a port, sorted by service.
pub fn checks(ports: &[ServicePort], endpoints: &Endpoints) -> Vec<HealthCheck> {
    let mut checks: Vec<HealthCheck> = Vec::new();
    let mut local = None;
    for port in ports {
        let Some(number) = port.health_check_port else { continue };
        let service = ObjectKey::new(&port.name.namespace, &port.name.name);
        if checks.last().is_some_and(|c| c.service == service) {
            continue;
        }
        let ready = local.get_or_insert_with(|| endpoints.local_ready());
        let local_endpoints = ready.get(&(port.name.namespace.as_str(), port.name.name.as_str())).map_or(0, Vec::len);
        checks.push(HealthCheck { service, port: number, local_endpoints });
    }
    checks
}
