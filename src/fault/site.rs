//! A lab as faults look at it: who could ask whom, and through what.

use std::net::IpAddr;

use crate::lab::names::{HostName, NsName};
use crate::lab::{Client, Host, INTERNET_NAME, Lab, Pod};
use crate::objects::{EndpointSlice, ObjectKey, Service, ServiceSpec, service_type};
use crate::plan::services::slices_of;
use crate::plan::{Link, NsPlan, Plan, Route};

use super::Lacks;

/// Namespaces of what a lab has by itself.
const OWN: [&str; 2] = ["kube-system", "ingress"];

/// What a person wants broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum On {
    Machine(NsName),
    Service(ObjectKey),
}

/// A running lab.
pub struct Site<'a> {
    pub lab: &'a Lab,
    /// What its machines are to hold.
    pub plan: &'a Plan,
    /// Where its services lead.
    pub slices: &'a [EndpointSlice],
    /// Where the fault is wanted; the first place that fits where nothing is said.
    pub on: Option<On>,
}

/// Two pods on different hosts, the first of which asks the second.
#[derive(Debug, Clone, Copy)]
pub struct Pair<'a> {
    pub from: &'a Pod,
    pub host: &'a Host,
    pub to: &'a Pod,
    pub peer: &'a Host,
}

/// Which of two ends a fault is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Asker,
    Asked,
}

/// A service that leads somewhere.
pub struct Door<'a> {
    pub service: &'a Service,
    pub spec: &'a ServiceSpec,
    pub key: ObjectKey,
    pub port: u16,
    pub node_port: Option<u16>,
    /// The pods that are ready behind it.
    pub pods: Vec<&'a Pod>,
}

impl<'a> Site<'a> {
    pub fn ns(&self, ns: &NsName) -> Result<&'a NsPlan, Lacks> {
        self.plan.get(ns).ok_or_else(|| format!("{ns} is not planned").into())
    }

    /// Pods that a file or manifest brought, which can be asked and ask.
    pub fn pods(&self) -> impl Iterator<Item = &'a Pod> + use<'a> {
        self.lab.pods.iter().filter(|p| !OWN.contains(&p.id.namespace.as_str()))
    }

    /// Whether a machine is where the fault is wanted: the host, or a pod that is on it.
    fn wanted(&self, host: &Host, pod: Option<&Pod>) -> bool {
        match &self.on {
            None | Some(On::Service(_)) => true,
            Some(On::Machine(ns)) => *ns == host.ns() || pod.is_some_and(|p| *ns == p.ns()),
        }
    }

    fn no_service(&self) -> Result<(), Lacks> {
        match &self.on {
            Some(On::Service(key)) => Err(format!("it is a fault of a machine, and {key} is a service").into()),
            _ => Ok(()),
        }
    }

    /// The first two pods on hosts that fit, asker's first; the fault is at one end.
    pub fn pair(&self, at: End, what: &str, fits: impl Fn(&Host, &Host) -> bool) -> Result<Pair<'a>, Lacks> {
        self.no_service()?;
        let host = |pod: &Pod| self.lab.host(&pod.host);
        for from in self.pods() {
            for to in self.pods().filter(|to| to.host != from.host) {
                let (Some(host), Some(peer)) = (host(from), host(to)) else { continue };
                let here = match at {
                    End::Asker => self.wanted(host, Some(from)),
                    End::Asked => self.wanted(peer, Some(to)),
                };
                if here && fits(host, peer) {
                    return Ok(Pair { from, host, to, peer });
                }
            }
        }
        Err(self.nowhere(what))
    }

    /// The first pods on two hosts.
    pub fn any_pair(&self, at: End) -> Result<Pair<'a>, Lacks> {
        self.pair(at, "pods on two hosts", |_, _| true)
    }

    /// The first pod where the fault is wanted, and another machine of the cluster that can ask it.
    pub fn asked_pod(&self) -> Result<(NsName, &'a Pod), Lacks> {
        self.no_service()?;
        let host = |pod: &Pod| self.lab.host(&pod.host);
        let mut all = self.pods().filter(|p| host(p).is_some_and(|h| self.wanted(h, Some(p))));
        let pod = all.next().ok_or_else(|| self.nowhere("a pod"))?;
        let asker = self.pods().find(|other| other.id != pod.id).map(Pod::ns);
        Ok((asker.unwrap_or_else(|| NsName::Host(pod.host.clone())), pod))
    }

    /// What is said where nothing fits.
    pub fn nowhere(&self, what: &str) -> Lacks {
        match &self.on {
            None => format!("the lab does not have {what}").into(),
            Some(On::Machine(ns)) => format!("the lab does not have {what}, with {ns} where the fault is").into(),
            Some(On::Service(key)) => format!("the service {key} is not {what}").into(),
        }
    }

    /// A client of the lab's own.
    pub fn client(&self) -> Result<&'a Client, Lacks> {
        let mut all = self.lab.clients.iter().filter(|c| c.name.as_str() != INTERNET_NAME);
        all.next().ok_or_else(|| "the lab has no client".into())
    }

    /// Who is behind the router.
    pub fn internet(&self) -> Result<&'a Client, Lacks> {
        let found = self.lab.clients.iter().find(|c| c.name.as_str() == INTERNET_NAME);
        found.ok_or_else(|| "the lab has no internet".into())
    }

    /// Services of a file or manifest that lead to pods, those with few first: what fails behind one that
    /// has a single pod fails always.
    pub fn doors(&self) -> Vec<Door<'a>> {
        let mut all: Vec<Door> = self.lab.services.iter().filter_map(|s| self.door(s)).collect();
        all.retain(|d| !d.pods.is_empty() && !OWN.contains(&d.key.namespace.as_str()));
        all.retain(|d| !matches!(&self.on, Some(On::Service(key)) if *key != d.key));
        all.sort_by_key(|d| d.pods.len());
        all
    }

    fn door(&self, service: &'a Service) -> Option<Door<'a>> {
        let spec = service.spec.as_ref()?;
        let key = ObjectKey::of(&service.metadata);
        let has_address = spec.cluster_ip.as_deref().is_some_and(|ip| ip.parse::<IpAddr>().is_ok());
        let tcp = |p: &&crate::objects::ServicePort| p.protocol.as_deref().is_none_or(|p| p == "TCP");
        let port = spec.ports.iter().flatten().find(tcp).filter(|_| has_address)?;
        let number = |n: i32| u16::try_from(n).ok();
        let slices = slices_of(self.slices, &key);
        let ready = slices
            .iter()
            .flat_map(|s| s.endpoints.iter().flatten())
            .filter(|e| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true));
        let addresses: Vec<&str> = ready.flat_map(|e| &e.addresses).map(String::as_str).collect();
        let pods = self.lab.pods.iter().filter(|p| addresses.contains(&p.ip().to_string().as_str())).collect();
        let node_port = port.node_port.and_then(number).filter(|_| service_type(spec) != "ClusterIP");
        Some(Door { service, spec, key, port: number(port.port)?, node_port, pods })
    }

    /// A pod that is none of those behind a service, on a host that fits.
    pub fn asker(&self, door: &Door, fits: impl Fn(&HostName) -> bool) -> Option<&'a Pod> {
        self.pods().find(|p| fits(&p.host) && !door.pods.iter().any(|behind| behind.id == p.id))
    }

    /// A service behind a NodePort, and a host without a pod of it where the fault may be.
    pub fn far_node_port(&self) -> Result<(Door<'a>, &'a Host, u16), Lacks> {
        for door in self.doors() {
            let Some(port) = door.node_port else { continue };
            let far = |h: &&Host| self.wanted(h, None) && door.pods.iter().all(|p| p.host != h.name);
            if let Some(host) = self.lab.hosts.iter().find(far) {
                return Ok((door, host, port));
            }
        }
        Err(self.nowhere("a service with a NodePort and a host that has none of its pods"))
    }
}

impl Door<'_> {
    /// The service's name as a pod asks for it.
    pub fn name_for(&self, pod: &Pod) -> String {
        match self.key.namespace == pod.id.namespace.as_str() {
            true => self.key.name.clone(),
            false => format!("{}.{}", self.key.name, self.key.namespace),
        }
    }

    pub fn words(&self) -> String {
        format!("service {}", self.key)
    }
}

/// The route that a host sends packets to an address by, other than the default route.
pub fn route_to(ns: &NsPlan, ip: IpAddr) -> Result<&Route, Lacks> {
    let leads = |r: &&Route| r.dst.prefix_len() > 0 && r.dst.contains(&ip);
    let found = ns.routes.iter().filter(leads).max_by_key(|r| r.dst.prefix_len());
    found.ok_or_else(|| format!("{} has no route to {ip}", ns.ns).into())
}

/// The first VXLAN device of a host.
pub fn tunnel(ns: &NsPlan) -> Result<&Link, Lacks> {
    let found = ns.links.iter().find(|l| matches!(l.kind, crate::plan::LinkKind::Vxlan { .. }));
    found.ok_or_else(|| format!("{} has no VXLAN device", ns.ns).into())
}
