//! What a service port gets on this node, before a line is written: its usable endpoints, the chains
//! it takes, and what happens to packets for which there is no endpoint.

use super::categorize::{Usable, categorize};
use super::chain;
use super::config::ProxyConfig;
use super::endpoint::Endpoint;
use super::service::ServicePort;

/// One service port's lot.
#[derive(Debug)]
pub struct Decision<'e> {
    pub port: &'e ServicePort,
    /// The service port's name as rules write it.
    pub name: String,
    pub usable: Usable<'e>,
    /// Chains' names; not all of them are used.
    pub svc: String,
    pub svl: String,
    pub ext: String,
    pub fw: String,
}

impl<'e> Decision<'e> {
    pub fn new(port: &'e ServicePort, endpoints: &'e [Endpoint<'e>], config: &ProxyConfig) -> Decision<'e> {
        let name = port.name.to_string();
        let hash = chain::hash(&[&name, port.name.protocol.name()]);
        Decision {
            port,
            usable: categorize(endpoints, port.policy, config),
            svc: format!("KUBE-SVC-{hash}"),
            svl: format!("KUBE-SVL-{hash}"),
            ext: format!("KUBE-EXT-{hash}"),
            fw: format!("KUBE-FW-{hash}"),
            name,
        }
    }

    /// Whether the cluster IP leads anywhere from here.
    pub fn has_internal(&self) -> bool {
        self.usable.any && !(self.port.policy.internal_local && self.usable.local.is_empty())
    }

    /// Whether traffic from outside finds an endpoint here. Pods' own may find one all the same.
    pub fn has_external(&self) -> bool {
        self.usable.any && !(self.port.policy.external_local && self.usable.local.is_empty())
    }

    /// The chain behind the cluster IP.
    pub fn internal_chain(&self) -> &str {
        if self.port.policy.internal_local { &self.svl } else { &self.svc }
    }

    /// The chain at the end of EXT.
    pub fn external_chain(&self) -> &str {
        if self.port.policy.external_local { &self.svl } else { &self.svc }
    }

    /// Whether EXT is there. It depends on endpoints anywhere, because pods' own traffic takes a
    /// short cut through it.
    pub fn uses_ext(&self) -> bool {
        self.usable.any && self.port.policy.accessible
    }

    /// Whether source ranges guard the load balancer's addresses.
    pub fn uses_fw(&self) -> bool {
        self.usable.any && !self.port.balancer_ips.is_empty() && !self.port.source_ranges.is_empty()
    }

    pub fn uses_svc(&self) -> bool {
        self.port.policy.uses_cluster() && !self.usable.cluster.is_empty()
    }

    pub fn uses_svl(&self) -> bool {
        self.port.policy.uses_local() && !self.usable.local.is_empty()
    }

    /// What the filter table does to packets that the nat table has no endpoint for, and why.
    pub fn refusal(&self) -> (&'static str, &'static str) {
        if self.usable.any { ("DROP", "has no local endpoints") } else { ("REJECT", "has no endpoints") }
    }
}
