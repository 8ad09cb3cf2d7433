//! Whose an address is: a machine's, with each of its devices, or a service's.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::lab::Lab;
use crate::lab::names::{HostName, NsName};
use crate::objects::{ObjectKey, Service};
use crate::plan::Plan;

use super::model::{End, Header};

/// Who is who in a lab.
pub struct Who<'a> {
    lab: &'a Lab,
    machines: HashMap<IpAddr, &'a NsName>,
    services: HashMap<IpAddr, String>,
}

impl<'a> Who<'a> {
    /// By the addresses that machines have in `plan` and services in `lab`.
    pub fn new(lab: &'a Lab, plan: &'a Plan) -> Who<'a> {
        let mut machines = HashMap::new();
        for ns in &plan.namespaces {
            for address in &ns.addresses {
                machines.entry(address.net.addr()).or_insert(&ns.ns);
            }
        }
        let mut services = HashMap::new();
        for service in &lab.services {
            let name = format!("service {}", ObjectKey::of(&service.metadata));
            services.extend(addresses(service).map(|ip| (ip, name.clone())));
        }
        Who { lab, machines, services }
    }

    pub fn lab(&self) -> &'a Lab {
        self.lab
    }

    pub fn machine(&self, ip: IpAddr) -> Option<&'a NsName> {
        self.machines.get(&ip).copied()
    }

    /// The name of whoever has an address: a machine's comes first, as an external IP may be a host's.
    pub fn name(&self, ip: IpAddr) -> Option<String> {
        let machine = self.machine(ip).map(ToString::to_string);
        machine.or_else(|| self.services.get(&ip).cloned())
    }

    pub fn end(&self, (ip, port): (IpAddr, u16)) -> End {
        End { ip, port, name: self.name(ip) }
    }

    /// Both ends of a packet.
    pub fn ends(&self, header: &Header) -> (End, End) {
        let (source, destination) = (header.source, header.destination);
        (self.end((source, header.source_port)), self.end((destination, header.destination_port)))
    }

    /// The host that a namespace is or is on.
    pub fn host_of(&self, ns: &NsName) -> Option<HostName> {
        match ns {
            NsName::Host(name) => Some(name.clone()),
            NsName::Pod(id) => self.lab.pod(id).map(|pod| pod.host.clone()),
            NsName::Router | NsName::Client(_) => None,
        }
    }
}

/// The addresses that a service has: virtual, external and its load balancer's.
pub fn addresses(service: &Service) -> impl Iterator<Item = IpAddr> + '_ {
    let spec = service.spec.as_ref();
    let cluster = spec.and_then(|s| s.cluster_ips.as_ref()).into_iter().flatten();
    let single = spec.and_then(|s| s.cluster_ip.as_ref());
    let external = spec.and_then(|s| s.external_ips.as_ref()).into_iter().flatten();
    let status = service.status.as_ref().and_then(|s| s.load_balancer.as_ref()?.ingress.as_ref());
    let balancers = status.into_iter().flatten().filter_map(|i| i.ip.as_ref());
    cluster.chain(single).chain(external).chain(balancers).filter_map(|ip| ip.parse().ok())
}
