//! Which UDP flows must be forgotten (kube-proxy's `conntrack/cleanup.go`). UDP has no end that
//! conntrack could see, so a flow keeps its old endpoint as long as packets come, unless its entry
//! is deleted. TCP's and SCTP's entries are left alone.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::endpoint::Endpoints;
use super::service::{Protocol, ServicePort};

/// Where UDP flows to services may lead: each way in with the endpoints that serve it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UdpServices {
    addresses: HashMap<SocketAddr, Arc<[SocketAddr]>>,
    node_ports: HashMap<u16, Arc<[SocketAddr]>>,
}

/// What an entry of conntrack says of a UDP flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpFlow {
    /// Where the client sent its packets.
    pub destination: SocketAddr,
    /// Where answers come from, before they are translated back.
    pub answers_from: SocketAddr,
}

impl UdpServices {
    pub(super) fn new(ports: &[ServicePort], endpoints: &Endpoints) -> UdpServices {
        let mut all = UdpServices::default();
        for port in ports.iter().filter(|p| p.name.protocol == Protocol::Udp) {
            // Serving, whatever the policies and hints say now: a change of those does not end
            // flows, as it does not end TCP's.
            let serving: Arc<[SocketAddr]> =
                endpoints.of(&port.name).iter().filter(|e| e.serving).map(|e| e.address).collect();
            let own = std::iter::once(&port.cluster_ip).chain(&port.external_ips).chain(&port.balancer_ips);
            for ip in own {
                all.addresses.insert(SocketAddr::new(*ip, port.port), serving.clone());
            }
            if let Some(node_port) = port.node_port {
                all.node_ports.insert(node_port, serving);
            }
        }
        all
    }

    /// Whether this flow's entry is to be deleted: it was sent to a service, and what answers is
    /// none of the service's endpoints. That is so too for a flow that began before the service had
    /// any endpoint and went nowhere. kube-proxy leaves entries of services without endpoints until
    /// there is one; here they go at once.
    pub fn is_stale(&self, flow: &UdpFlow) -> bool {
        let leads_elsewhere = |serving: &Arc<[SocketAddr]>| !serving.contains(&flow.answers_from);
        self.addresses.get(&flow.destination).is_some_and(leads_elsewhere)
            || self.node_ports.get(&flow.destination.port()).is_some_and(leads_elsewhere)
    }

    /// Whether going from `old` to these may have left stale flows, so that entries must be looked
    /// through.
    pub fn needs_cleaning(&self, old: &UdpServices) -> bool {
        self != old && !(self.addresses.is_empty() && self.node_ports.is_empty())
    }

    /// Whether packets to this address are for a UDP service.
    pub fn has(&self, ip: IpAddr, port: u16) -> bool {
        self.addresses.contains_key(&SocketAddr::new(ip, port)) || self.node_ports.contains_key(&port)
    }
}
