//! kube-proxy's iptables mode as a pure function: from services, endpoint slices and the node's
//! configuration to the rules that kube-proxy 1.36 writes, chain for chain and line for line.
//!
//! The way through: [`service`] makes the map of service ports (kube-proxy's `serviceport.go`),
//! [`endpoint`] that of endpoints (`endpointslicecache.go`), [`categorize`] says which endpoints a
//! service may use on this node (`topology.go`), [`decision`] which chains that takes, [`nat`] and
//! [`filter`] write one service's lines (`syncProxyRules` in `iptables/proxier.go`), and [`fixed`]
//! what is there without any service. The result is [`ProxyRules`]: its lines are kept by service,
//! so that [`sync()`] can write only what changed. [`canonical`] turns them into the form in which
//! `iptables-save` prints them, and [`explain`] tells people what they are for. Beside the rules stand [`conntrack`] (whose entries must go),
//! [`health`] (what a health check port answers) and [`sysctl`]. How rules get into a kernel is not
//! decided here.

pub mod address;
pub mod canonical;
pub mod categorize;
pub mod chain;
pub mod config;
pub mod conntrack;
pub mod decision;
pub mod endpoint;
pub mod explain;
pub mod filter;
pub mod fixed;
pub mod health;
pub mod mend;
pub mod nat;
pub mod service;
pub mod sync;
pub mod sysctl;
#[cfg(test)]
mod tests;

use crate::objects::{EndpointSlice, Service};

pub use config::{Family, LocalTraffic, ProxyConfig};
pub use sync::sync;

use conntrack::UdpServices;
use decision::Decision;
use endpoint::Endpoints;
use fixed::Table;
use health::HealthCheck;
use service::{ServicePort, ServicePortName};

/// With more endpoints than this, kube-proxy leaves out the comments on endpoints' rules
/// (`largeClusterEndpointsThreshold`).
const MANY_ENDPOINTS: usize = 1000;

/// What kube-proxy writes on one node for one address family, and what it does beside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyRules {
    pub family: Family,
    /// Lines of the filter table that are there without any service.
    pub filter: Table,
    /// The same of the nat table.
    pub nat: Table,
    /// By the service port's name, sorted.
    pub services: Vec<ServiceRules>,
    /// What the health check ports of this node answer, by service.
    pub health: Vec<HealthCheck>,
    /// Where UDP flows to services may lead.
    pub udp: UdpServices,
}

/// The lines of one service port. Each is a whole line, `-A CHAIN …` with its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRules {
    pub name: ServicePortName,
    /// Lines of the filter table, all in chains that services share.
    pub filter: String,
    /// Lines of the nat table in chains that services share: KUBE-SERVICES and KUBE-NODEPORTS.
    pub shared: String,
    /// The service port's own chains in the nat table, in the order in which kube-proxy writes them.
    pub chains: Vec<String>,
    /// The lines of these chains.
    pub own: String,
}

/// The rules for these objects. An object that comes twice counts as it came last; fields that no
/// API server would let pass are passed over with what depends on them.
pub fn plan<'o>(
    services: impl IntoIterator<Item = &'o Service>,
    slices: impl IntoIterator<Item = &'o EndpointSlice>,
    config: &ProxyConfig,
) -> ProxyRules {
    let ports = service::map(services, config.family);
    let endpoints = Endpoints::new(slices, config);
    let total: usize = ports.iter().map(|p| endpoints.of(&p.name).len()).sum();
    let comments = total <= MANY_ENDPOINTS;
    let services = ports.iter().map(|port| rules_of(port, &endpoints, config, comments)).collect();
    ProxyRules {
        family: config.family,
        filter: fixed::filter(config),
        nat: fixed::nat(config),
        services,
        health: health::checks(&ports, &endpoints),
        udp: UdpServices::new(&ports, &endpoints),
    }
}

fn rules_of(port: &ServicePort, endpoints: &Endpoints, config: &ProxyConfig, comments: bool) -> ServiceRules {
    let decision = Decision::new(port, endpoints.of(&port.name), config);
    let (chains, own) = nat::own(&decision, config, comments);
    ServiceRules {
        name: port.name.clone(),
        filter: filter::lines(&decision),
        shared: nat::shared(&decision, config),
        chains,
        own,
    }
}

impl ProxyRules {
    /// The input that kube-proxy gives to `iptables-restore --noflush --counters` at its first
    /// sync, with the services in the order of their names (kube-proxy's order is random). The
    /// jumps from the built-in chains are not part of it, see [`fixed::JUMPS`].
    pub fn restore_input(&self) -> String {
        let lines = self.services.iter().map(|s| s.filter.len() + s.shared.len() + s.own.len() + s.chains.len() * 32);
        let mut out = String::with_capacity(4096 + lines.sum::<usize>());
        out.push_str("*filter\n");
        self.filter.chains.iter().for_each(|chain| chain::declare(&mut out, chain));
        out.push_str(&self.filter.head);
        self.services.iter().for_each(|s| out.push_str(&s.filter));
        out.push_str(&self.filter.tail);
        out.push_str("COMMIT\n*nat\n");
        self.nat.chains.iter().for_each(|chain| chain::declare(&mut out, chain));
        self.services.iter().flat_map(|s| &s.chains).for_each(|chain| chain::declare(&mut out, chain));
        out.push_str(&self.nat.head);
        for service in &self.services {
            out.push_str(&service.shared);
            out.push_str(&service.own);
        }
        out.push_str(&self.nat.tail);
        out.push_str("COMMIT\n");
        out
    }

    /// The rules of one service, all its ports.
    pub fn of<'r>(&'r self, namespace: &'r str, name: &'r str) -> impl Iterator<Item = &'r ServiceRules> {
        self.services.iter().filter(move |s| s.name.namespace == namespace && s.name.name == name)
    }
}
