//! Services of a lab: checked, completed and given their addresses as the API server does it, and
//! the services that every cluster has.
//!
//! A lab has a service layer (kube-proxy on every host, and DNS) when its file has services,
//! endpoint slices, `dns:` or an ingress. One without is a plain pod network, on which names do not resolve.
//! What the fields of an object may be is decided in [`crate::objects`]; here every refusal gets
//! the place where it was written.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::diag::{Place, Problem, Problems, codes};
use crate::objects::allocate::{self, Ranges, Refused};
use crate::objects::balancers::Pending;
use crate::objects::field::{Fault, FieldError};
use crate::objects::hints::{self, Behind};
use crate::objects::slices::{SERVICE_NAME, is_kept_apart, is_mirrored, mirror};
use crate::objects::{EndpointSlice, ObjectKey, Service, balancers, defaults, validate};
use crate::spec::LabFile;
use crate::spec::manifest::Written;

use super::dns::{DNS_LABEL, DNS_NAMESPACE, DNS_SERVICE};
use super::ingress;
use super::model::{Cluster, Lab, Pod, Run};

/// What resolving services makes.
#[derive(Debug, Default)]
pub struct Services {
    pub services: Vec<Service>,
    pub slices: Vec<EndpointSlice>,
    /// Kubernetes' namespaces, those of pods and services among them.
    pub namespaces: BTreeSet<String>,
}

/// What services are given out of.
pub struct Ground<'a> {
    pub cluster: &'a Cluster,
    pub pods: &'a [Pod],
    pub dns_address: IpAddr,
}

/// Whether the lab has services, slices, DNS or an ingress of its own.
pub(super) fn wanted(file: &LabFile) -> bool {
    let objects = &file.objects;
    let any = !objects.services.is_empty() || !objects.slices.is_empty() || !objects.endpoints.is_empty();
    any || file.dns.is_some() || ingress::wanted(file)
}

/// Every service with its addresses. `before` is the lab as it runs now, whose services keep theirs.
pub(super) fn resolve(file: &LabFile, ground: &Ground, before: Option<&Lab>, problems: &mut Problems) -> Services {
    if !wanted(file) {
        return Services::default();
    }
    let controller = ingress::service(file, problems);
    let mut all = Resolver { ground, services: Vec::new(), written: Vec::new(), keys: HashMap::new() };
    for service in built_in(ground) {
        all.add(service, None, problems);
    }
    controller.iter().for_each(|written| all.check(written, problems));
    for written in &file.objects.services {
        all.check(written, problems);
    }
    all.allocate(before, problems);
    all.check_reach(file, problems);
    let mut slices = slices(file, problems);
    slices.extend(mirrors(file, &all.services, problems));
    let namespaces = namespaces(file, ground.pods, &all.services);
    Services { services: all.services, slices, namespaces }
}

struct Resolver<'a> {
    ground: &'a Ground<'a>,
    services: Vec<Service>,
    /// Where each of them was written; nothing for those that every cluster has.
    written: Vec<Option<&'a Written<Service>>>,
    keys: HashMap<ObjectKey, Option<Place>>,
}

impl<'a> Resolver<'a> {
    fn check(&mut self, written: &'a Written<Service>, problems: &mut Problems) {
        let faults = validate::service(&written.object);
        for fault in &faults {
            problems.push(told(codes::OBJECT_INVALID, fault, written));
        }
        if faults.is_empty() {
            let mut service = written.object.clone();
            // What some other cluster wrote there is nothing that this one gives out.
            service.status = None;
            defaults::service(&mut service);
            self.add(service, Some(written), problems);
        }
    }

    fn add(&mut self, service: Service, written: Option<&'a Written<Service>>, problems: &mut Problems) {
        let key = ObjectKey::of(&service.metadata);
        let place = written.map(Written::name_place);
        if let (Some(first), Some(place)) = (self.keys.get(&key), place) {
            let problem =
                Problem::error(codes::OBJECT_TAKEN, format!("services \"{key}\" already exists")).at(place, "this one");
            let problem = match first {
                Some(first) => problem.at(*first, "and this one"),
                None => problem,
            };
            problems.push(problem.help(match first {
                Some(_) => "give one of them another name, or another namespace",
                None => "every lab with services has one of this name; take another",
            }));
            return;
        }
        self.keys.insert(key, place);
        self.services.push(service);
        self.written.push(written);
    }

    fn allocate(&mut self, before: Option<&Lab>, problems: &mut Problems) {
        let ranges =
            Ranges { addresses: self.ground.cluster.service_cidr, node_ports: self.ground.cluster.node_ports.clone() };
        let old: HashMap<ObjectKey, &Service> =
            before.iter().flat_map(|lab| &lab.services).map(|s| (ObjectKey::of(&s.metadata), s)).collect();
        for refused in allocate::allocate(&mut self.services, &old, &ranges) {
            problems.push(self.refusal(&refused));
        }
        for pending in balancers::allocate(&mut self.services, &old, self.ground.cluster.balancers) {
            problems.extend(self.pending(&pending));
        }
    }

    /// As in a real cloud no error: the service works but for its load balancer.
    fn pending(&self, pending: &Pending) -> Option<Problem> {
        let key = ObjectKey::of(&self.services[pending.service].metadata);
        let written = self.written[pending.service]?;
        let message = format!("service {key} gets no load balancer: {}", pending.reason);
        let path = if pending.asks { "spec.loadBalancerIP" } else { "spec.type" };
        let help = match pending.asks {
            true => "ask for a free one, or leave `loadBalancerIP` out and one is found",
            false => "take a larger `cluster.loadBalancer.addresses`",
        };
        let problem = Problem::warning(codes::BALANCER_ADDRESS, message);
        Some(problem.at(written.place(path), "it stays pending").help(help))
    }

    fn refusal(&self, refused: &Refused) -> Problem {
        let code = if refused.port { codes::NODE_PORT } else { codes::SERVICE_ADDRESS };
        let key = ObjectKey::of(&self.services[refused.service].metadata);
        let message = format!("service {key}: {}", refused.fault);
        let problem = Problem::error(code, message);
        let problem = match self.written[refused.service] {
            Some(written) => problem.at(written.place(&refused.fault.path), "this one"),
            None => problem,
        };
        let range = &self.ground.cluster.node_ports;
        problem.help(match refused.port {
            true => format!("take another of {}-{}, or leave it out and one is found", range.start(), range.end()),
            false if refused.fault.detail.ends_with("is full") => "take a larger `cluster.serviceCIDR`".to_owned(),
            false if refused.fault.detail.starts_with("may not change") => {
                "leave it as it is, or take the service out first and apply it anew".to_owned()
            }
            false => format!("take another of {}, or leave it out and one is found", self.ground.cluster.service_cidr),
        })
    }

    /// A service that leads nowhere is a warning: pods may come later.
    fn check_reach(&self, file: &LabFile, problems: &mut Problems) {
        if !file.damage.is_empty() {
            return;
        }
        let pods: Vec<Behind> = self.ground.pods.iter().map(behind).collect();
        for (service, written) in self.services.iter().zip(&self.written) {
            let Some(written) = written else { continue };
            let key = ObjectKey::of(&service.metadata);
            for hint in hints::of_service(service, pods.iter()) {
                let words = if hint.path == "spec.selector" { "matches nothing" } else { "leads nowhere" };
                let problem = Problem::warning(codes::SERVICE_NO_PODS, format!("service {key}: {}", hint.what));
                problems.push(problem.at(written.place(&hint.path), words).help(hint.help));
            }
        }
    }
}

/// What hints want to know of a pod.
pub fn behind(pod: &Pod) -> Behind<'_> {
    Behind {
        namespace: pod.id.namespace.as_str(),
        name: pod.id.name.as_str(),
        labels: &pod.labels,
        ports: pod.ports().map(|p| (p.name.as_deref(), p.number, p.protocol.to_string())).collect(),
        only_these: pod.containers.iter().all(|c| c.run == Run::Echo),
    }
}

/// A field that the API server refuses, at its place.
pub(super) fn told<T>(code: codes::Code, fault: &FieldError, written: &Written<T>) -> Problem {
    let help = match &fault.fault {
        Fault::Required => match fault.detail.split_once("; ") {
            Some((_, remedy)) => remedy.to_owned(),
            None => format!("add `{}`", last_step(&fault.path)),
        },
        Fault::Forbidden => format!("take `{}` out", last_step(&fault.path)),
        Fault::Duplicate(_) => "each may be there once".to_owned(),
        Fault::NotSupported(_) => "write one of those".to_owned(),
        Fault::Invalid(_) => remedy(fault),
    };
    let message = fault.to_string();
    let message = message.split("; ").next().unwrap_or_default().to_owned();
    Problem::error(code, message).at(written.place(&fault.path), "here").help(help)
}

/// What to write in place of a value that cannot be.
fn remedy(fault: &FieldError) -> String {
    if let Some((_, remedy)) = fault.detail.split_once("; ") {
        return remedy.to_owned();
    }
    let step = last_step(&fault.path).split('[').next().unwrap_or_default();
    match step {
        "clusterIP" if matches!(&fault.fault, Fault::Invalid(value) if value.eq_ignore_ascii_case("\"none\"")) => {
            "write `None`, with a capital N, for a service without an address".to_owned()
        }
        "name" | "namespace" | "hostname" => "such as `tea-svc`: small letters, digits and dashes".to_owned(),
        "externalIPs" => "write an address that routers can send to a host of the lab".to_owned(),
        "addresses" | "ip" | "clusterIP" => "write an address such as 10.96.1.2".to_owned(),
        step if step.to_ascii_lowercase().ends_with("port") => "write the port's number or name as it is".to_owned(),
        step => format!("change `{step}`, or take it out"),
    }
}

/// The field's own name: `nodePort` of `spec.ports[0].nodePort`, and `tls.key` of `data[tls.key]`.
fn last_step(path: &str) -> &str {
    let key = path.strip_suffix(']').and_then(|path| path.rsplit_once('[')).map(|(_, key)| key);
    match key.filter(|key| key.parse::<usize>().is_err()) {
        Some(key) => key,
        None => path.rsplit('.').next().unwrap_or(path),
    }
}

/// Slices as given.
fn slices(file: &LabFile, problems: &mut Problems) -> Vec<EndpointSlice> {
    let mut all = Vec::new();
    let mut keys: HashMap<ObjectKey, Place> = HashMap::new();
    for written in &file.objects.slices {
        let faults = validate::slice(&written.object);
        faults.iter().for_each(|f| problems.push(told(codes::OBJECT_INVALID, f, written)));
        let key = ObjectKey::of(&written.object.metadata);
        if let Some(first) = keys.insert(key.clone(), written.name_place()) {
            problems.push(
                Problem::error(codes::OBJECT_TAKEN, format!("endpointslices \"{key}\" already exists"))
                    .at(written.name_place(), "this one")
                    .at(first, "and this one")
                    .help("give one of them another name"),
            );
        }
        let labelled = written.object.metadata.labels.as_ref().is_some_and(|l| l.contains_key(SERVICE_NAME));
        if !labelled {
            problems.push(
                Problem::warning(codes::SERVICE_NO_PODS, format!("endpoint slice {key} belongs to no service"))
                    .at(written.name_place(), "nobody uses it")
                    .help(format!("add the label `{SERVICE_NAME}: …`")),
            );
        }
        let mut slice = written.object.clone();
        slice.metadata.namespace = Some(key.namespace);
        all.push(slice);
    }
    all
}

/// Slices that say the same as the Endpoints objects that services live by.
fn mirrors(file: &LabFile, services: &[Service], problems: &mut Problems) -> Vec<EndpointSlice> {
    let mut all = Vec::new();
    for written in &file.objects.endpoints {
        let faults = validate::endpoints(&written.object);
        faults.iter().for_each(|f| problems.push(told(codes::OBJECT_INVALID, f, written)));
        let key = ObjectKey::of(&written.object.metadata);
        let service = services.iter().find(|s| ObjectKey::of(&s.metadata) == key);
        if is_mirrored(&written.object, service) {
            all.extend(mirror(&written.object));
        } else if !is_kept_apart(&written.object) && file.damage.is_empty() {
            let help = match service {
                Some(_) => "its pods are found by its selector; take that out, or these endpoints",
                None => "give them the name and namespace of a service without selector",
            };
            problems.push(
                Problem::warning(
                    codes::SERVICE_NO_PODS,
                    format!("endpoints {key} belong to no service without selector"),
                )
                .at(written.name_place(), "nobody uses them")
                .help(help),
            );
        }
    }
    all
}

fn namespaces(file: &LabFile, pods: &[Pod], services: &[Service]) -> BTreeSet<String> {
    let mut all: BTreeSet<String> =
        ["default", "kube-node-lease", "kube-public", DNS_NAMESPACE].map(str::to_owned).into_iter().collect();
    all.extend(file.objects.namespaces.iter().filter_map(|n| n.object.metadata.name.clone()));
    all.extend(pods.iter().map(|p| p.id.namespace.to_string()));
    all.extend(services.iter().map(|s| ObjectKey::of(&s.metadata).namespace));
    all
}

/// The services that every cluster has: the API server's, which has the range's first address, and
/// the DNS server's, to which kubeadm gives the tenth.
fn built_in(ground: &Ground) -> Vec<Service> {
    let first = ground.cluster.service_cidr.hosts().next().unwrap_or(ground.dns_address);
    let kubernetes = serde_json::json!({
        "metadata": { "name": "kubernetes", "namespace": "default" },
        "spec": { "clusterIP": first, "ports": [{ "name": "https", "port": 443, "targetPort": 6443 }] },
    });
    let dns = serde_json::json!({
        "metadata": { "name": DNS_SERVICE, "namespace": DNS_NAMESPACE, "labels": { DNS_LABEL.0: DNS_LABEL.1 } },
        "spec": {
            "clusterIP": ground.dns_address,
            "selector": { DNS_LABEL.0: DNS_LABEL.1 },
            "ports": [
                { "name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53 },
                { "name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53 },
            ],
        },
    });
    let made = [kubernetes, dns].into_iter().filter_map(|json| serde_json::from_value::<Service>(json).ok());
    made.map(|mut service| {
        defaults::service(&mut service);
        service
    })
    .collect()
}

/// The ports that NodePorts come from.
pub(super) fn node_ports(file: &LabFile, problems: &mut Problems) -> RangeInclusive<u16> {
    const DEFAULT: RangeInclusive<u16> = 30_000..=32_767;
    let Some(written) = &file.cluster.service_node_port_range else { return DEFAULT };
    let range = written.split_once('-').and_then(|(first, last)| {
        let (first, last) = (first.trim().parse::<u16>().ok()?, last.trim().parse::<u16>().ok()?);
        (first > 0 && first <= last).then_some(first..=last)
    });
    range.unwrap_or_else(|| {
        problems.push(
            Problem::error(codes::RANGE_INVALID, format!("`{}` is no range of ports", written.value))
                .at(written.place, "this range")
                .help("write the first and the last one, such as 30000-32767"),
        );
        DEFAULT
    })
}

#[cfg(test)]
mod tests;
