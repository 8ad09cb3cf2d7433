//! The links of a picture: veth pairs, ports of bridges, and the tunnels between hosts.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::lab::Lab;
use crate::lab::names::NsName;
use crate::plan::{self, NsPlan, Plan};

use super::model::{Graph, Link, LinkKind, Tunnel, device_id};

/// What the user-space daemon of flannel's udp back end is called.
pub const FLANNELD: &str = "flanneld";

/// With more tunnels than these, they are drawn as one mesh.
const MOST_TUNNELS: usize = 6;

/// Add every link between devices that the graph draws.
pub fn add(lab: &Lab, plan: &Plan, graph: &mut Graph) {
    let drawn: BTreeSet<String> = graph.devices().map(|d| d.id.clone()).collect();
    let mut found: BTreeSet<Link> = BTreeSet::new();
    let mut add = |from: String, to: String, kind: LinkKind| {
        let seen = |id: String| graph.folded.get(&id).cloned().unwrap_or(id);
        let (from, to) = (seen(from), seen(to));
        if drawn.contains(&from) && drawn.contains(&to) {
            found.insert(Link { from, to, kind });
        }
    };
    for ns in &plan.namespaces {
        for link in &ns.links {
            let id = |dev: &str| device_id(&ns.ns, dev);
            if let Some(master) = &link.master {
                add(id(master.as_str()), id(link.name.as_str()), LinkKind::Plug);
            }
            match &link.kind {
                // The end that is a bridge's port makes the pair.
                plan::LinkKind::Veth { peer_ns, peer } if link.master.is_some() => {
                    add(id(link.name.as_str()), device_id(peer_ns, peer.as_str()), LinkKind::Cable);
                }
                plan::LinkKind::Vxlan { dev, .. } => add(id(link.name.as_str()), id(dev.as_str()), LinkKind::Carrier),
                _ => {}
            }
        }
        if let Some(flanneld) = &ns.flanneld {
            add(device_id(&ns.ns, flanneld.tun.as_str()), device_id(&ns.ns, FLANNELD), LinkKind::Carrier);
            add(device_id(&ns.ns, FLANNELD), device_id(&ns.ns, "eth0"), LinkKind::Carrier);
        }
    }
    let (tunnel, pairs) = tunnels(lab, plan);
    for (from, to) in pairs {
        add(from, to, LinkKind::Tunnel);
    }
    graph.links = found.into_iter().collect();
    graph.tunnel = tunnel;
}

/// The tunnels between hosts, and each pair of ends where each is drawn.
fn tunnels(lab: &Lab, plan: &Plan) -> (Option<Tunnel>, Vec<(String, String)>) {
    let mut pairs = BTreeSet::new();
    let (mut says, mut ends) = (None, Vec::new());
    for host in &lab.hosts {
        let Some((ns, own)) = plan.get(&host.ns()).and_then(|ns| Some((ns, end(ns)?))) else { continue };
        let peers = peers(ns).filter_map(|ip| plan.get(&owner(lab, ip)?));
        pairs.extend(peers.filter_map(end).map(|peer| {
            let (a, b) = (own.id.clone(), peer.id);
            if a < b { (a, b) } else { (b, a) }
        }));
        says.get_or_insert(own.says);
        ends.push(own.id);
    }
    if pairs.is_empty() {
        return (None, Vec::new());
    }
    let is_mesh = pairs.len() > MOST_TUNNELS;
    let tunnel = says.map(|says| Tunnel { says, ends, is_mesh });
    (tunnel, if is_mesh { Vec::new() } else { pairs.into_iter().collect() })
}

struct End {
    id: String,
    says: String,
}

/// A host's end of its tunnels, where it has one.
fn end(ns: &NsPlan) -> Option<End> {
    if let Some(flanneld) = &ns.flanneld {
        return Some(End { id: device_id(&ns.ns, FLANNELD), says: format!("flannel udp, UDP port {}", flanneld.port) });
    }
    ns.links.iter().find_map(|link| match &link.kind {
        plan::LinkKind::Vxlan { vni, port, .. } => {
            Some(End { id: device_id(&ns.ns, link.name.as_str()), says: format!("VXLAN {vni}, UDP port {port}") })
        }
        _ => None,
    })
}

/// The addresses of hosts that packets are tunnelled to.
fn peers(ns: &NsPlan) -> impl Iterator<Item = IpAddr> {
    let leases = ns.flanneld.iter().flat_map(|f| &f.peers).map(|lease| lease.public_ip);
    ns.fdb.iter().map(|entry| entry.dst).chain(leases)
}

fn owner(lab: &Lab, ip: IpAddr) -> Option<NsName> {
    lab.hosts.iter().find(|host| host.ip() == ip).map(|host| host.ns())
}
