//! What the cluster stands on: one switch per network, a router between them, and the machines
//! plugged in. The router is the lab's root namespace; its bridges are the switches.

use ipnet::IpNet;

use crate::lab::names::{IfName, NsName};
use crate::lab::{Attachment, Client, Host, INTERNET_NAME, Lab, Network, Port};

use super::balancers;
use super::machine::{self, bridge_netfilter, listeners, mac, machine_files};
use super::types::{Address, Link, LinkKind, NsPlan, Route, Sysctl};

/// Device indices in the router, which has any number of bridges and of ports: bridges have the even
/// ones and ports the odd ones, each by its slot. Index 1 is the loopback device's.
const FIRST_BRIDGE: u32 = 2;
const FIRST_PORT: u32 = 3;
/// `eth0`'s index in every machine and pod.
pub const ETH0: u32 = 2;

/// The router: a bridge per network with the router's address, a port per machine, and
/// masquerading towards `internet`.
pub fn router(lab: &Lab) -> NsPlan {
    let mut ns = NsPlan::new(NsName::Router);
    ns.sysctls = machine::sysctls(true);
    ns.sysctls.push(bridge_netfilter(false));
    ns.sysctls.extend(routing(lab));
    for network in &lab.networks {
        let bridge = bridge_name(network);
        ns.addresses.push(Address { dev: bridge.clone(), net: network.gateway, broadcast: true, connected: true });
        ns.links.push(Link {
            mac: Some(mac(&NsName::Router, bridge.as_str())),
            name: bridge,
            index: FIRST_BRIDGE + 2 * network.slot,
            mtu: network.mtu,
            master: None,
            hairpin: false,
            up: true,
            kind: LinkKind::Bridge,
        });
    }
    ns.links.extend(lab.hosts.iter().map(|h| port(lab, h.ns(), &h.attachment)));
    ns.links.extend(lab.clients.iter().map(|c| port(lab, c.ns(), &c.attachment)));
    if let Some(internet) = lab.networks.iter().find(|n| n.name.as_str() == INTERNET_NAME) {
        // As a provider's router does: the internet knows one address of us and no other.
        let nat = ns.rules.table("nat");
        nat.chain("POSTROUTING").add(format!("-o {} -j MASQUERADE", bridge_name(internet)));
        ns.rules.sort();
    }
    ns.routes.extend(lab.external_routes.iter().filter_map(|route| {
        let hosts: Vec<&Host> = route.hosts.iter().filter_map(|name| lab.host(name)).collect();
        balancers::over(lab, route.to, &hosts)
    }));
    ns.files = machine_files(lab, &NsName::Router);
    ns
}

/// Addresses, protocol and ports, as bits of `fib_multipath_hash_fields`.
const FLOW: &str = "55";

/// Which of several next hops a packet takes is decided by addresses and ports, so that connections are
/// spread, or by addresses alone where a service wants its clients kept. The kernel's policy 1 would take the
/// hash that the sender's socket has put on the packet, as this router is on the sender's own machine: that
/// is another one for each socket, and after a retransmission (`sk_rethink_txhash`), so a connection would
/// change its host in the middle. Policy 3 looks at the packet itself.
///
/// And the router tells nobody of a shorter way: who had once learnt that a load balancer's
/// address is behind one host would go on sending there when its pods are elsewhere.
fn routing(lab: &Lab) -> Vec<Sysctl> {
    let set = |key: &str, value: &str| Sysctl { key: key.to_owned(), value: value.to_owned(), optional: false };
    let by = if balancers::keeps_sources(lab) { "0" } else { "3" };
    vec![
        // Kernels before 5.14 choose by addresses alone.
        Sysctl { optional: true, ..set("net/ipv4/fib_multipath_hash_fields", FLOW) },
        Sysctl { optional: true, ..set("net/ipv4/fib_multipath_hash_policy", by) },
        set("net/ipv4/conf/all/send_redirects", "0"),
        set("net/ipv4/conf/default/send_redirects", "0"),
    ]
}

/// The bridge that is a network's switch: `br-` and the name, or a part of it and a digest.
pub fn bridge_name(network: &Network) -> IfName {
    let name = network.name.as_str();
    if name.len() <= IfName::LONGEST - 3 {
        return IfName::new(&format!("br-{name}"));
    }
    let digest = mac(&NsName::Router, name).0;
    IfName::new(&format!("br-{}{:02x}{:02x}{:02x}", &name[..6], digest[3], digest[4], digest[5]))
}

/// The router's end of a machine's cable.
pub fn port_name(ns: &NsName) -> IfName {
    let digest = mac(ns, "port").0;
    IfName::new(&format!("veth{:02x}{:02x}{:02x}{:02x}", digest[2], digest[3], digest[4], digest[5]))
}

fn port(lab: &Lab, ns: NsName, attachment: &Attachment) -> Link {
    let network = lab.network_of(attachment);
    let name = port_name(&ns);
    Link {
        mac: Some(mac(&NsName::Router, name.as_str())),
        name,
        index: FIRST_PORT + 2 * attachment.slot,
        mtu: network.mtu,
        master: Some(bridge_name(network)),
        hairpin: false,
        up: true,
        kind: LinkKind::Veth { peer_ns: ns, peer: IfName::new("eth0") },
    }
}

/// A machine's `eth0`, its address, and the router as its way to everywhere else.
fn machine(lab: &Lab, ns: NsName, attachment: &Attachment, ports: &[Port], host: Option<&Host>) -> NsPlan {
    let network = lab.network_of(attachment);
    let eth0 = IfName::new("eth0");
    let mut plan = NsPlan::new(ns.clone());
    plan.links.push(Link {
        name: eth0.clone(),
        index: ETH0,
        mac: Some(mac(&ns, "eth0")),
        mtu: network.mtu,
        master: None,
        hairpin: false,
        up: true,
        kind: LinkKind::Veth { peer_ns: NsName::Router, peer: port_name(&ns) },
    });
    plan.addresses.push(Address { dev: eth0.clone(), net: attachment.address, broadcast: false, connected: true });
    if network.name.as_str() != INTERNET_NAME {
        plan.routes.push(default_route(network.gateway, eth0.clone()));
    } else {
        // What the internet knows of the lab: its public addresses.
        let balancers = (!lab.services.is_empty()).then_some(lab.cluster.balancers);
        let public = balancers.into_iter().chain(lab.external_routes.iter().map(|r| r.to));
        let route = |dst| Route { dst, ..default_route(network.gateway, eth0.clone()) };
        plan.routes.extend(public.map(route));
    }
    plan.sysctls = machine::sysctls(host.is_some());
    plan.files = machine_files(lab, &ns);
    plan.listeners = listeners(ports, host, attachment.address.addr());
    plan
}

pub fn default_route(gateway: IpNet, dev: IfName) -> Route {
    let everywhere = match gateway {
        IpNet::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
        IpNet::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    };
    Route { dst: everywhere, via: Some(gateway.addr()), dev, onlink: false, also: Vec::new() }
}

/// A host without its cluster parts.
pub fn host(lab: &Lab, host: &Host) -> NsPlan {
    let mut ns = machine(lab, host.ns(), &host.attachment, &host.ports, Some(host));
    ns.sysctls.push(bridge_netfilter(true));
    ns
}

pub fn client(lab: &Lab, client: &Client) -> NsPlan {
    machine(lab, client.ns(), &client.attachment, &client.ports, None)
}
