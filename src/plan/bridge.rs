//! What the CNI plug-ins bridge and host-local make for pods: `cni0` on each host, and a veth pair
//! for each pod (isGateway, isDefaultGateway, hairpinMode, and a route to the pod network).

use ipnet::IpNet;

use crate::lab::ingress::IngressLayer;
use crate::lab::names::{IfName, NsName};
use crate::lab::{Container, Dns, Host, Lab, Pod, Run};
use crate::spec::types::RestartPolicy;

use super::flannel;
use super::machine::{self, listeners, mac, pod_files};
use super::types::{Address, DnsServer, Link, LinkKind, NsPlan, Program, Role, Route};
use super::underlay::{ETH0, default_route};

/// Device indices on a host: `eth0` 2, flannel's device 3, `cni0` 4, pods' veths from here on, each
/// by its address.
const FIRST_VETH: u32 = 5;
const CNI0_INDEX: u32 = 4;

pub fn cni0() -> IfName {
    IfName::new("cni0")
}

/// The bridge's address, the first of the host's subnet.
pub fn gateway(host: &Host) -> IpNet {
    let first = host.pod_cidr.hosts().next().unwrap_or(host.pod_cidr.addr());
    IpNet::new(first, host.pod_cidr.prefix_len()).unwrap_or(host.pod_cidr)
}

/// `cni0` and the host's ends of its pods' veth pairs. Like the plug-in, it makes the bridge with
/// the first pod, not before.
pub fn add(lab: &Lab, host: &Host, ns: &mut NsPlan) {
    let mtu = flannel::pod_mtu(lab, host);
    let mut pods = lab.pods_on(&host.name).peekable();
    if pods.peek().is_none() {
        return;
    }
    ns.links.push(Link {
        name: cni0(),
        index: CNI0_INDEX,
        mac: Some(mac(&ns.ns, "cni0")),
        mtu,
        master: None,
        hairpin: false,
        up: true,
        kind: LinkKind::Bridge,
    });
    ns.addresses.push(Address { dev: cni0(), net: gateway(host), broadcast: true, connected: true });
    for pod in pods {
        ns.links.push(Link {
            name: pod.veth.clone(),
            index: FIRST_VETH + offset(pod).saturating_sub(2),
            mac: Some(mac(&ns.ns, pod.veth.as_str())),
            mtu,
            master: Some(cni0()),
            hairpin: true,
            up: true,
            kind: LinkKind::Veth { peer_ns: pod.ns(), peer: IfName::new("eth0") },
        });
    }
}

/// How far a pod's address is from its subnet's beginning.
fn offset(pod: &Pod) -> u32 {
    match (pod.address.addr(), pod.address.network()) {
        (std::net::IpAddr::V4(ip), std::net::IpAddr::V4(net)) => u32::from(ip).wrapping_sub(u32::from(net)),
        _ => 2,
    }
}

fn dns_server(lab: &Lab, dns: &Dns, pod: &Pod) -> DnsServer {
    DnsServer { ip: pod.ip(), domain: lab.cluster.domain.clone(), pods: dns.pods, records: dns.records.clone() }
}

fn ingress_controller(layer: &IngressLayer, container: &Container) -> Program {
    Program {
        name: container.name.clone(),
        command: Vec::new(),
        env: Vec::new(),
        restart_policy: RestartPolicy::Always,
        role: Some(Role::Ingress(layer.controller.driver.clone())),
    }
}

/// A pod's namespace.
pub fn pod(lab: &Lab, pod: &Pod) -> NsPlan {
    let ns_name: NsName = pod.ns();
    let eth0 = IfName::new("eth0");
    let mut ns = NsPlan::new(ns_name.clone());
    // A valid lab has no pod without its host.
    let Some(host) = lab.host(&pod.host) else { return ns };
    ns.links.push(Link {
        name: eth0.clone(),
        index: ETH0,
        mac: Some(machine::pod_mac(pod.ip())),
        mtu: flannel::pod_mtu(lab, host),
        master: None,
        hairpin: false,
        up: true,
        kind: LinkKind::Veth { peer_ns: host.ns(), peer: pod.veth.clone() },
    });
    ns.addresses.push(Address { dev: eth0.clone(), net: pod.address, broadcast: true, connected: true });
    let gateway = gateway(host);
    ns.routes.push(default_route(gateway, eth0.clone()));
    ns.routes.push(Route {
        dst: lab.cluster.pod_cidr,
        via: Some(gateway.addr()),
        dev: eth0,
        onlink: false,
        also: Vec::new(),
    });
    ns.sysctls = machine::sysctls(false);
    ns.files = pod_files(lab, pod);
    for container in &pod.containers {
        match &container.run {
            Run::Echo => ns.listeners.extend(listeners(&container.ports, Some(host), pod.ip())),
            Run::Dns => ns.dns = lab.dns.as_ref().map(|dns| dns_server(lab, dns, pod)),
            // The daemon starts it, as it alone knows what the controller must do.
            Run::Ingress => ns.programs.extend(lab.ingress.as_ref().map(|layer| ingress_controller(layer, container))),
            Run::Program { command, env } => ns.programs.push(Program {
                name: container.name.clone(),
                command: command.clone(),
                env: env.clone(),
                restart_policy: pod.restart_policy,
                role: None,
            }),
        }
    }
    ns
}
