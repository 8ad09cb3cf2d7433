//! Faults of routing: forwarding, routes, addresses and the reverse path.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::lab::Host;
use crate::lab::names::IfName;
use crate::plan::Route;
use crate::trace::model::Cause;

use super::site::{End, Pair, route_to};
use super::twist::Bend;
use super::{Change, Chosen, Fault, Lacks, PlaceKind, Question, Site, Twist};

const VXLAN_AND_UDP: &[&str] = &["vxlan", "udp"];
const KERNEL: &[&str] = &["vxlan", "host-gw"];
const TWO_HOSTS: &str = "pods on two hosts";

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "ip-forward-off",
        title: "A host does not forward",
        says: "A host is a router for its pods, and net.ipv4.ip_forward is 0 on one.",
        cause: Cause::ForwardingOff,
        place: PlaceKind::Host,
        effect: "sets net.ipv4.ip_forward to 0 on the host of the pod that asks",
        backends: &[],
        needs: TWO_HOSTS,
        choose: ip_forward_off,
    },
    Fault {
        name: "route-missing",
        title: "A host has no route to another host's pods",
        says: "The route that flanneld wrote for another host's subnet is gone, and packets leave by the default route.",
        cause: Cause::NoRoute,
        place: PlaceKind::Host,
        effect: "deletes the route to the asked pod's subnet on the asker's host",
        backends: &[],
        needs: TWO_HOSTS,
        choose: route_missing,
    },
    Fault {
        name: "default-route-missing",
        title: "A pod has no default route",
        says: "A pod reaches what is no pod by its default route, and has lost it.",
        cause: Cause::NoRoute,
        place: PlaceKind::Pod,
        effect: "deletes the default route of the pod that asks",
        backends: &[],
        needs: TWO_HOSTS,
        choose: default_route_missing,
    },
    Fault {
        name: "route-steals-services",
        title: "A static route takes the service range",
        says: "A pod has a route of its own for the range of services, to a gateway that is not there.",
        cause: Cause::WrongRoute,
        place: PlaceKind::Pod,
        effect: "adds a route for the service range in the pod that asks, by an address of its subnet that nobody has",
        backends: &[],
        needs: "a service with a pod behind it and a pod that is not",
        choose: route_steals_services,
    },
    Fault {
        name: "route-loop",
        title: "Two hosts send a packet to each other",
        says: "A host has a route for one of its own pods that leads to another host, which sends it back.",
        cause: Cause::TtlExceeded,
        place: PlaceKind::Host,
        effect: "adds a route for the asked pod's address on its host, to the asker's host",
        backends: KERNEL,
        needs: TWO_HOSTS,
        choose: route_loop,
    },
    Fault {
        name: "host-gw-across-router",
        title: "A next hop behind a router",
        says: "A route names a host of another network as its next hop, as host-gw does, and a next hop must be a neighbour.",
        cause: Cause::NotOnLink,
        place: PlaceKind::Host,
        effect: "replaces the route to the asked pod's subnet by one whose next hop is its host, behind the router",
        backends: VXLAN_AND_UDP,
        needs: "pods on hosts of two networks",
        choose: across_router,
    },
    Fault {
        name: "rp-filter",
        title: "The reverse path filter drops what comes another way",
        says: "Packets of a peer come by the tunnel and answers would leave by eth0, and net.ipv4.conf.all.rp_filter is 1.",
        cause: Cause::ReversePath,
        place: PlaceKind::Host,
        effect: "gives the asked pod's host a plain route to the asker's subnet and sets rp_filter to 1 there",
        backends: VXLAN_AND_UDP,
        needs: "pods on two hosts of one network, without directRouting",
        choose: rp_filter,
    },
    Fault {
        name: "address-conflict",
        title: "Two hosts have the same address",
        says: "A host has another host's address beside its own, so what it sends there it takes itself.",
        cause: Cause::AddressConflict,
        place: PlaceKind::Host,
        effect: "adds the address of the asked pod's host to eth0 of the asker's host",
        backends: VXLAN_AND_UDP,
        needs: TWO_HOSTS,
        choose: address_conflict,
    },
    Fault {
        name: "bridge-outside-subnet",
        title: "The bridge is outside the host's subnet",
        says: "cni0 has an address of docker0's range, so its pods have no gateway and the host no way to them.",
        cause: Cause::WrongSubnet,
        place: PlaceKind::Host,
        effect: "gives cni0 of the asker's host the address 172.17.0.1/16 in place of its own",
        backends: &[],
        needs: TWO_HOSTS,
        choose: bridge_outside,
    },
    Fault {
        name: "bridge-address-missing",
        title: "The bridge has lost its address",
        says: "cni0 has no address any more, and with that went the route to the host's own pods, and their gateway.",
        cause: Cause::NoAddress,
        place: PlaceKind::Host,
        effect: "takes the address of cni0 away on the asker's host",
        backends: &[],
        needs: TWO_HOSTS,
        choose: bridge_bare,
    },
];

/// A ping between two pods that fails at the asker's host.
fn at_asker(pair: Pair, object: &str, twists: Vec<Bend>) -> Chosen {
    let ns = pair.host.ns();
    Chosen {
        on: pair.host.name.to_string(),
        place: ns.clone(),
        object: object.to_owned(),
        question: Question::ping(pair.from.ns(), &pair.to.id),
        change: Change::Machines(twists.into_iter().map(|b| Twist::new(ns.clone(), b)).collect()),
    }
}

/// The same, where the host of the pod that is asked is at fault.
fn at_asked(pair: Pair, object: &str, twists: Vec<Bend>) -> Chosen {
    let ns = pair.peer.ns();
    let machines = twists.into_iter().map(|b| Twist::new(ns.clone(), b)).collect();
    Chosen {
        on: pair.peer.name.to_string(),
        place: ns,
        change: Change::Machines(machines),
        ..at_asker(pair, object, Vec::new())
    }
}

fn ip_forward_off(site: &Site) -> Result<Chosen, Lacks> {
    let pair = site.any_pair(End::Asker)?;
    let setting = Bend::Setting { key: "net/ipv4/ip_forward".to_owned(), value: "0".to_owned() };
    Ok(at_asker(pair, "net.ipv4.ip_forward", vec![setting]))
}

fn route_missing(site: &Site) -> Result<Chosen, Lacks> {
    let pair = site.any_pair(End::Asker)?;
    let dst = route_to(site.ns(&pair.host.ns())?, pair.to.ip())?.dst;
    Ok(at_asker(pair, &dst.to_string(), vec![Bend::RemoveRoute(dst)]))
}

fn default_route_missing(site: &Site) -> Result<Chosen, Lacks> {
    let pair = site.any_pair(End::Asker)?;
    let ns = pair.from.ns();
    let routes = &site.ns(&ns)?.routes;
    let default = routes.iter().find(|r| r.dst.prefix_len() == 0).ok_or("the pod has no default route")?;
    let twist = Twist::new(ns.clone(), Bend::RemoveRoute(default.dst));
    let on = format!("pod {}", pair.from.id);
    // The CNI plug-in gives pods a route of its own to the other pods.
    let question = Question::ping(ns.clone(), &site.internet()?.name);
    let change = Change::Machines(vec![twist]);
    Ok(Chosen { on, place: ns, question, change, ..at_asker(pair, "default", Vec::new()) })
}

fn route_steals_services(site: &Site) -> Result<Chosen, Lacks> {
    let all = "a service with a pod behind it and a pod that is not";
    let wanted = |pod: &&crate::lab::Pod| match &site.on {
        Some(super::On::Machine(ns)) => pod.ns() == *ns || *ns == crate::lab::names::NsName::Host(pod.host.clone()),
        _ => true,
    };
    let doors = site.doors();
    let found = doors.iter().find_map(|door| {
        let asker = site.pods().filter(wanted).find(|p| door.pods.iter().all(|b| b.id != p.id))?;
        Some((door, asker))
    });
    let (door, asker) = found.ok_or_else(|| site.nowhere(all))?;
    let via = unused(site, asker.address).ok_or("the pod's subnet has no address left")?;
    let range = site.lab.cluster.service_cidr;
    let route = Route { dst: range, via: Some(via), dev: IfName::new("eth0"), onlink: false, also: Vec::new() };
    Ok(Chosen {
        on: format!("pod {}", asker.id),
        place: asker.ns(),
        object: range.to_string(),
        question: Question::tcp(asker.ns(), door.spec.cluster_ip.clone().unwrap_or_default(), door.port),
        change: Change::Machines(vec![Twist::new(asker.ns(), Bend::AddRoute(route))]),
    })
}

/// The last address of a subnet that nobody has.
fn unused(site: &Site, subnet: IpNet) -> Option<IpAddr> {
    let taken = |ip: &IpAddr| site.lab.pods.iter().any(|p| p.ip() == *ip);
    let (first, last) = (subnet.network(), subnet.broadcast());
    let (IpAddr::V4(first), IpAddr::V4(last)) = (first, last) else { return None };
    let mut all = (u32::from(first) + 2..u32::from(last)).rev().map(|n| IpAddr::V4(n.into()));
    all.find(|ip| !taken(ip))
}

fn route_loop(site: &Site) -> Result<Chosen, Lacks> {
    let pair = site.any_pair(End::Asked)?;
    let back = route_to(site.ns(&pair.peer.ns())?, pair.from.ip())?;
    let dst = IpNet::from(pair.to.ip());
    let route = Route { dst, ..back.clone() };
    Ok(at_asked(pair, &dst.to_string(), vec![Bend::AddRoute(route)]))
}

fn in_one_network(a: &Host, b: &Host) -> bool {
    a.attachment.network == b.attachment.network
}

fn across_router(site: &Site) -> Result<Chosen, Lacks> {
    let pair = site.pair(End::Asker, "pods on hosts of two networks", |a, b| !in_one_network(a, b))?;
    let route = by_eth0(pair.peer);
    let (was, is) = (Bend::RemoveRoute(route.dst), Bend::AddRoute(route.clone()));
    Ok(at_asker(pair, &route.dst.to_string(), vec![was, is]))
}

/// The route that host-gw writes for a peer's subnet. The kernel takes a next hop that is no neighbour only
/// where it is told that it is one.
fn by_eth0(peer: &Host) -> Route {
    Route { dst: peer.pod_cidr, via: Some(peer.ip()), dev: IfName::new("eth0"), onlink: true, also: Vec::new() }
}

fn rp_filter(site: &Site) -> Result<Chosen, Lacks> {
    let what = "pods on two hosts of one network, without directRouting";
    let tunnelled = |host: &Host, peer: &Host| {
        let plan = site.plan.get(&host.ns());
        let route = plan.and_then(|ns| route_to(ns, peer.pod_cidr.network()).ok());
        in_one_network(host, peer) && route.is_some_and(|r| r.dev.as_str() != "eth0")
    };
    let pair = site.pair(End::Asked, what, tunnelled)?;
    let route = Route { onlink: false, ..by_eth0(pair.host) };
    let setting = Bend::Setting { key: "net/ipv4/conf/all/rp_filter".to_owned(), value: "1".to_owned() };
    let bends = vec![Bend::RemoveRoute(route.dst), Bend::AddRoute(route), setting];
    Ok(at_asked(pair, "net.ipv4.conf.all.rp_filter", bends))
}

fn address_conflict(site: &Site) -> Result<Chosen, Lacks> {
    let pair = site.any_pair(End::Asker)?;
    let net = IpNet::from(pair.peer.ip());
    let dev = IfName::new("eth0");
    Ok(at_asker(pair, &net.addr().to_string(), vec![Bend::AddAddress { dev, net }]))
}

fn bridge_bare(site: &Site) -> Result<Chosen, Lacks> {
    let pair = site.any_pair(End::Asker)?;
    let dev = crate::plan::bridge::cni0();
    Ok(at_asker(pair, dev.as_str(), vec![Bend::RemoveAddress(dev.clone())]))
}

fn bridge_outside(site: &Site) -> Result<Chosen, Lacks> {
    let pair = site.any_pair(End::Asker)?;
    let net = IpNet::new([172, 17, 0, 1].into(), 16).map_err(|e| e.to_string())?;
    let dev = crate::plan::bridge::cni0();
    Ok(at_asker(pair, dev.as_str(), vec![Bend::SetAddress { dev: dev.clone(), net }]))
}
