//! The boxes of a picture, taken from a lab and its plan: networks, machines, pods and their devices. How many
//! pods one box stands for is decided here.

use std::collections::BTreeMap;

use crate::lab::names::{IfName, NsName};
use crate::lab::{Attachment, Host, Lab, Pod};
use crate::plan::underlay::{bridge_name, port_name};
use crate::plan::{self, NsPlan, Plan};

use super::links;
use super::model::{Device, DeviceKind, Machine, MachineKind, Network, Options, PodBox, device_id};

/// With more pods than these, those of one deployment on one host are drawn as one.
const MOST_PODS: usize = 60;

/// The lab's networks with everything on them, and what is drawn as a part of something else.
pub fn networks(lab: &Lab, plan: &Plan, options: &Options) -> (Vec<Network>, BTreeMap<String, String>) {
    let folds = !options.all && lab.pods.len() > MOST_PODS;
    let mut build = Build { lab, plan, options, folds, folded: BTreeMap::new() };
    let networks = (0..lab.networks.len()).map(|index| build.network(index)).collect();
    (networks, build.folded)
}

struct Build<'a> {
    lab: &'a Lab,
    plan: &'a Plan,
    options: &'a Options,
    folds: bool,
    folded: BTreeMap<String, String>,
}

impl Build<'_> {
    fn network(&mut self, index: usize) -> Network {
        let network = &self.lab.networks[index];
        let here = |attachment: &Attachment| attachment.network == index;
        let lab = self.lab;
        let mut machines: Vec<Machine> =
            lab.hosts.iter().filter(|h| here(&h.attachment)).map(|host| self.host(host)).collect();
        for client in lab.clients.iter().filter(|c| here(&c.attachment)) {
            machines.push(self.machine(client.ns(), MachineKind::Client, client.ip().to_string()));
        }
        Network {
            name: network.name.to_string(),
            says: format!("{}, MTU {}", network.gateway.trunc(), network.mtu),
            bridge: self.device(&NsName::Router, &bridge_name(network)),
            machines,
        }
    }

    fn host(&mut self, host: &Host) -> Machine {
        let mut machine = self.machine(host.ns(), MachineKind::Host, host.ip().to_string());
        machine.pods_range = Some(host.pod_cidr.to_string());
        machine.pods = self.pods(host);
        machine
    }

    /// A machine with its devices, but for those that lead to pods.
    fn machine(&self, ns: NsName, kind: MachineKind, address: String) -> Machine {
        let of_ns = self.plan.get(&ns);
        let own = |link: &&plan::Link| link.master.is_none() && link.kind != plan::LinkKind::Bridge;
        let mut devices: Vec<Device> =
            of_ns.into_iter().flat_map(|n| n.links.iter().filter(own).map(|l| device(n, l))).collect();
        // eth0 stands first, whatever the kernel's order is.
        devices.sort_by_key(|d| d.name != "eth0");
        if let Some(flanneld) = of_ns.and_then(|n| n.flanneld.as_ref()) {
            let facts = vec![format!("UDP {}:{}", flanneld.listen, flanneld.port)];
            let (id, name) = (device_id(&ns, links::FLANNELD), links::FLANNELD.to_owned());
            devices.insert(
                devices.len().min(1),
                Device { id, name, kind: DeviceKind::Program, addresses: Vec::new(), facts },
            );
        }
        let bridge =
            of_ns.and_then(|n| n.links.iter().find(|l| l.kind == plan::LinkKind::Bridge).map(|l| device(n, l)));
        Machine {
            id: ns.path(),
            kind,
            name: ns.to_string(),
            address,
            pods_range: None,
            port: self.device(&NsName::Router, &port_name(&ns)),
            devices,
            bridge,
            pods: Vec::new(),
        }
    }

    /// The host's pods in their order, those that are drawn as one where the first of them stands.
    fn pods(&mut self, host: &Host) -> Vec<PodBox> {
        let mut groups: Vec<Vec<&Pod>> = Vec::new();
        for pod in self.lab.pods_on(&host.name) {
            let with = |group: &&mut Vec<&Pod>| group.first().is_some_and(|first| self.are_one(first, pod));
            match groups.iter_mut().find(with) {
                Some(group) => group.push(pod),
                None => groups.push(vec![pod]),
            }
        }
        groups.iter().filter_map(|group| self.pod_box(host, group)).collect()
    }

    /// Whether two pods of a host are drawn as one.
    fn are_one(&self, a: &Pod, b: &Pod) -> bool {
        let apart = |pod: &Pod| self.options.apart.contains(&pod.ns());
        self.folds
            && a.owner.is_some()
            && a.owner == b.owner
            && a.id.namespace == b.id.namespace
            && !apart(a)
            && !apart(b)
    }

    fn pod_box(&mut self, host: &Host, pods: &[&Pod]) -> Option<PodBox> {
        let (first, last) = (pods.first()?, pods.last()?);
        let of_ns = self.plan.get(&first.ns());
        let devices = of_ns.into_iter().flat_map(|n| n.links.iter().map(|l| device(n, l))).collect();
        let role = of_ns.and_then(role);
        let port = self.device(&host.ns(), &first.veth);
        let mut found = PodBox {
            id: first.ns().path(),
            name: first.id.to_string(),
            address: first.ip().to_string(),
            count: 1,
            role,
            port,
            devices,
        };
        if pods.len() > 1 {
            self.fold(host, pods, &mut found);
            found.address = format!("{} … {}", first.ip(), last.ip());
        }
        Some(found)
    }

    /// Make the first pod's box one of all.
    fn fold(&mut self, host: &Host, pods: &[&Pod], found: &mut PodBox) {
        let Some(first) = pods.first() else { return };
        let owner = first.owner.as_deref().unwrap_or_default();
        found.count = pods.len();
        found.id = format!("pods/{}/{}/{owner}", host.name, first.id.namespace);
        found.name = match first.id.namespace.as_str() {
            "default" => format!("{owner} ×{}", pods.len()),
            namespace => format!("{namespace}/{owner} ×{}", pods.len()),
        };
        let port = format!("{}#{}", host.ns().path(), found.id);
        for pod in pods {
            self.folded.insert(pod.ns().path(), found.id.clone());
            self.folded.insert(device_id(&pod.ns(), "eth0"), format!("{}#eth0", found.id));
            self.folded.insert(device_id(&host.ns(), pod.veth.as_str()), port.clone());
        }
        for device in &mut found.devices {
            device.id = format!("{}#{}", found.id, device.name);
            device.addresses = Vec::new();
            device.facts = vec![format!("one in each of {} pods", pods.len())];
        }
        if let Some(device) = &mut found.port {
            device.id = port;
            device.name = format!("{} × veth", pods.len());
            device.facts = pods.iter().map(|pod| format!("{} to {}", pod.veth, pod.id)).collect();
        }
    }

    /// A device of a namespace, where the plan has it.
    fn device(&self, ns: &NsName, name: &IfName) -> Option<Device> {
        let ns = self.plan.get(ns)?;
        ns.link(name).map(|link| device(ns, link))
    }
}

fn device(ns: &NsPlan, link: &plan::Link) -> Device {
    let kind = match &link.kind {
        plan::LinkKind::Bridge => DeviceKind::Bridge,
        plan::LinkKind::Veth { .. } if link.master.is_some() => DeviceKind::Port,
        plan::LinkKind::Veth { .. } => DeviceKind::Ethernet,
        plan::LinkKind::Vxlan { .. } => DeviceKind::Vxlan,
        plan::LinkKind::Tun => DeviceKind::Tun,
        plan::LinkKind::Other { .. } => DeviceKind::Other,
    };
    let addresses = ns.addresses.iter().filter(|a| a.dev == link.name).map(|a| a.net.to_string()).collect();
    let mut facts = vec![format!("MTU {}", link.mtu)];
    facts.extend(link.mac.map(|mac| format!("MAC {mac}")));
    if !link.up {
        facts.push("down".to_owned());
    }
    Device { id: device_id(&ns.ns, link.name.as_str()), name: link.name.to_string(), kind, addresses, facts }
}

/// What a pod is in the cluster, where it is more than a workload.
fn role(ns: &NsPlan) -> Option<&'static str> {
    let is_ingress = ns.programs.iter().any(|p| matches!(p.role, Some(plan::Role::Ingress(_))));
    match (&ns.dns, is_ingress) {
        (Some(_), _) => Some("DNS"),
        (None, true) => Some("ingress"),
        (None, false) => None,
    }
}
