//! The ground a lab stands on: the cluster's ranges and back end, and the networks with their
//! router. Who stands on the networks is [`super::machines`]'s.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::diag::{Place, Problem, Problems, codes};
use crate::spec::at::At;
use crate::spec::types::{BackendName, ClusterSpec, FlannelSpec, KubeProxySpec, LabFile, NetworkSpec};

use super::declared;
use super::external::{self, ExternalRoute};
use super::ipam::{Pool, Ranges, size};
use super::machines::{self, Slots};
use super::model::{Backend, Client, Cluster, Host, Lab, Network, ProxySettings};
use super::names::NetworkName;
use super::ranges::{claim_range, fixed, outside, range};
use super::resolve::valid;
use super::services;

/// The network behind the router where the client `internet` stands: TEST-NET-3 of RFC 5737.
const INTERNET: &str = "203.0.113.0/24";
/// Load balancers' addresses: TEST-NET-2 of RFC 5737.
const BALANCERS: &str = "198.51.100.0/24";
/// The name of that network and of its client.
pub const INTERNET_NAME: &str = "internet";

/// RFC 7348 has 24 bits for it, 16777215, but the kernel has 15 letters for `flannel.` and the
/// number, and real flannel fails there too.
const LARGEST_VNI: u32 = 9_999_999;

/// What [`lay`] makes.
pub struct Ground {
    pub cluster: Cluster,
    pub networks: Vec<Network>,
    pub hosts: Vec<Host>,
    pub clients: Vec<Client>,
    pub external_routes: Vec<ExternalRoute>,
}

pub fn lay(file: &LabFile, before: Option<&Lab>, problems: &mut Problems) -> Ground {
    let mut ranges = Ranges::default();
    let cluster = cluster(file, &mut ranges, problems);
    let networks = networks(file, before, &mut ranges, problems);
    let (hosts, clients) = machines::plug_in(file, &cluster, &networks, before, problems);
    let external_routes = external::resolve(file, &hosts, &mut ranges, problems);
    Ground { cluster, networks, hosts, clients, external_routes }
}

fn cluster(file: &LabFile, ranges: &mut Ranges, problems: &mut Problems) -> Cluster {
    let spec: &ClusterSpec = &file.cluster;
    let mut take = |written: &Option<At<String>>, default: &str, owner: &str| {
        let net = written.as_ref().and_then(|text| range(text, problems)).unwrap_or_else(|| fixed(default));
        claim_range(net, owner, written.as_ref().map(|w| w.place), ranges, problems);
        net
    };
    let pod_cidr = take(&spec.pod_cidr, "10.244.0.0/16", "cluster.podCIDR");
    let service_cidr = take(&spec.service_cidr, "10.96.0.0/12", "cluster.serviceCIDR");
    let balancers = match &spec.load_balancer.addresses {
        // The default is kept free only where it is used.
        None if !services::wanted(file) => fixed(BALANCERS),
        written => take(written, BALANCERS, "cluster.loadBalancer.addresses"),
    };
    Cluster {
        balancers,
        node_ports: services::node_ports(file, problems),
        proxy: proxy(&spec.kube_proxy, problems),
        pod_cidr,
        service_cidr,
        domain: domain(spec.domain.as_ref(), problems),
        backend: backend(&spec.flannel, problems),
        ip_masq: spec.flannel.ip_masq.unwrap_or(true),
    }
}

fn proxy(spec: &KubeProxySpec, problems: &mut Problems) -> ProxySettings {
    ProxySettings {
        masquerade_all: spec.masquerade_all,
        localhost_node_ports: spec.localhost_node_ports.unwrap_or(true),
        node_port_addresses: spec.node_port_addresses.iter().filter_map(|r| range(r, problems)).collect(),
    }
}

fn domain(written: Option<&At<String>>, problems: &mut Problems) -> String {
    let Some(written) = written else { return "cluster.local".to_owned() };
    let fault = written.split('.').find_map(|label| match super::names::check_label(label) {
        Err(_) if label.is_empty() => Some("there is nothing before, behind or between its dots".to_owned()),
        outcome => outcome.err().map(|why| format!("in `{label}`, {why}")),
    });
    if let Some(why) = fault {
        problems.push(
            Problem::error(codes::NAME_INVALID, format!("`{}` cannot be a domain: {why}", written.value))
                .at(written.place, "this domain")
                .help("write labels with dots between them, such as cluster.local"),
        );
    }
    written.value.clone()
}

fn backend(spec: &FlannelSpec, problems: &mut Problems) -> Backend {
    let name = spec.backend.as_ref().map_or(BackendName::Vxlan, |b| b.value);
    let mut refuse = |place: Option<Place>, option: &str, only: &str| {
        if let Some(place) = place {
            problems.push(
                Problem::error(codes::BACKEND_OPTION, format!("`{option}` is an option of {only} only"))
                    .at(place, "not used by this back end")
                    .help(format!("take it out, or choose the back end {only}")),
            );
        }
    };
    if name != BackendName::Vxlan {
        refuse(spec.vni.as_ref().map(|v| v.place), "vni", "vxlan");
        refuse(spec.direct_routing.as_ref().map(|v| v.place), "directRouting", "vxlan");
    }
    if name == BackendName::HostGw {
        refuse(spec.port.as_ref().map(|v| v.place), "port", "vxlan or udp");
    }
    let port = spec.port.as_ref().map(|p| p.value.0);
    match name {
        BackendName::Vxlan => {
            let vni = spec.vni.as_ref().map_or(1, |v| v.value);
            if let Some(written) = spec.vni.as_ref().filter(|v| !(1..=LARGEST_VNI).contains(&v.value)) {
                problems.push(
                    Problem::error(codes::BACKEND_OPTION, format!("{vni} cannot be the VXLAN Network Identifier"))
                        .at(written.place, "this number")
                        .help(format!(
                            "take 1 to {LARGEST_VNI}; flannel names its device `flannel.` and this number, \
                             and a device's name has 15 letters at most"
                        )),
                );
            }
            let direct_routing = spec.direct_routing.as_ref().is_some_and(|d| d.value);
            Backend::Vxlan { vni, port: port.unwrap_or(8472), direct_routing }
        }
        BackendName::HostGw => Backend::HostGw,
        BackendName::Udp => Backend::Udp { port: port.unwrap_or(8285) },
    }
}

fn networks(file: &LabFile, before: Option<&Lab>, ranges: &mut Ranges, problems: &mut Problems) -> Vec<Network> {
    let implied;
    let mut written: Vec<(At<String>, &NetworkSpec)> = file.networks.iter().map(|(n, s)| (n.clone(), s)).collect();
    if written.is_empty() {
        implied = NetworkSpec::default();
        written.push((At::new("lan".to_owned(), Place::default()), &implied));
    }
    let internet = NetworkSpec { cidr: Some(At::new(INTERNET.to_owned(), Place::default())), ..Default::default() };
    if !written.iter().any(|(n, _)| n.value == INTERNET_NAME) {
        written.push((At::new(INTERNET_NAME.to_owned(), Place::default()), &internet));
    }
    let mut slots = Slots::new(before.map(|l| l.networks.iter().map(|n| (n.name.to_string(), n.slot)).collect()));
    // What is written must be claimed before defaults look for what is free.
    let mut cidrs: Vec<Option<IpNet>> = Vec::new();
    for (name, spec) in &written {
        let net = spec.cidr.as_ref().and_then(|text| range(text, problems));
        let owner = format!("network {}", name.value);
        let place = spec.cidr.as_ref().map(|c| c.place).filter(|p| p.end > 0);
        if let Some(net) = net {
            claim_range(net, &owner, place, ranges, problems);
        }
        cidrs.push(net);
    }
    // What a network had before it keeps, before others are given what is free.
    for ((name, spec), cidr) in written.iter().zip(&mut cidrs) {
        let was = before.and_then(|l| l.networks.iter().find(|n| n.name.as_str() == name.value));
        let was = was.map(|n| n.gateway.trunc()).filter(|net| ranges.overlapping(*net).is_none());
        if let (None, Some(net)) = (&spec.cidr, was) {
            ranges.add(net, format!("network {}", name.value), None);
            *cidr = Some(net);
        }
    }
    let mut all = Vec::new();
    for ((name, spec), cidr) in written.iter().zip(cidrs) {
        let Some(valid_name) = valid::<NetworkName>(name, "network", problems) else { continue };
        let cidr = match (cidr, &spec.cidr) {
            (Some(net), _) => net,
            // Refused above; go on for the other problems.
            (None, Some(_)) => fixed("192.168.0.0/24"),
            (None, None) => free_network(name, ranges, problems),
        };
        let gateway = gateway(file, (name, spec), cidr, problems);
        let mtu = mtu(spec, problems);
        all.push(Network { slot: slots.get(valid_name.as_str()), name: valid_name, gateway, mtu });
    }
    all
}

fn free_network(name: &At<String>, ranges: &mut Ranges, problems: &mut Problems) -> IpNet {
    let mut candidates = (1..=255).map(|n| fixed(&format!("192.168.{n}.0/24")));
    match candidates.find(|net| ranges.overlapping(*net).is_none()) {
        Some(net) => {
            ranges.add(net, format!("network {}", name.value), None);
            net
        }
        None => {
            problems.push(
                Problem::error(codes::RANGE_OVERLAP, format!("no 192.168.N.0/24 is left for network `{}`", name.value))
                    .at(name.place, "has no range of its own")
                    .help("write its `cidr:`, such as 172.16.1.0/24"),
            );
            fixed("192.168.0.0/24")
        }
    }
}

fn gateway(file: &LabFile, (name, spec): (&At<String>, &NetworkSpec), cidr: IpNet, problems: &mut Problems) -> IpNet {
    let pool = Pool::new(cidr, 1);
    let place = spec.cidr.as_ref().map(|c| c.place).unwrap_or_default();
    if size(cidr) < 4 {
        problems.push(
            Problem::error(codes::RANGE_TOO_SMALL, format!("{cidr} has no room for a router and a machine"))
                .at(place, "too small")
                .help("take a length of /30 or shorter"),
        );
    }
    let last = cidr.hosts().next_back().unwrap_or(cidr.network());
    let ip = match &spec.gateway {
        None => last,
        Some(written) => match written.parse::<IpAddr>() {
            Ok(ip) if pool.usable(ip) => ip,
            Ok(_) if declared::network_is_guessed(file, name) => last,
            _ => {
                problems.push(outside(written, cidr, "the network"));
                last
            }
        },
    };
    IpNet::new(ip, cidr.prefix_len()).unwrap_or(cidr)
}

fn mtu(spec: &NetworkSpec, problems: &mut Problems) -> u32 {
    let Some(written) = &spec.mtu else { return 1500 };
    if !(576..=65535).contains(&written.value) {
        problems.push(
            Problem::error(codes::SPEC_BAD_VALUE, format!("an MTU of {} bytes is not possible", written.value))
                .at(written.place, "this MTU")
                .help("take 576 to 65535; Ethernet's is 1500"),
        );
    }
    written.value.clamp(576, 65535)
}
