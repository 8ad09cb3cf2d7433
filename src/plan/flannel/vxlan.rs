//! flannel's vxlan back end: `flannel.1` (the VNI is its number) wraps each Ethernet frame into
//! UDP. It learns nothing by itself. For each peer flanneld writes down the way in three places:
//! a route to the subnet by way of the peer's `.0` address, a neighbour entry that gives `.0` the
//! MAC address of the peer's VTEP, and a forwarding entry that gives that MAC the peer's address.

use crate::lab::names::IfName;
use crate::lab::{Host, Lab};

use super::super::types::{Address, FdbEntry, Link, LinkKind, Mac, Neighbour, NsPlan, Route};
use super::{DEVICE_INDEX, device_address, device_mac, host_gw, peers, pod_mtu};

pub struct Options {
    pub vni: u32,
    pub port: u16,
    /// Peers of the same network are reached by plain routes, as host-gw does it.
    pub direct_routing: bool,
}

pub fn device(vni: u32) -> IfName {
    IfName::new(&format!("flannel.{vni}"))
}

pub fn vtep_mac(host: &Host, vni: u32) -> Mac {
    device_mac(host, &device(vni))
}

pub fn add(lab: &Lab, host: &Host, options: &Options, ns: &mut NsPlan) {
    let dev = device(options.vni);
    ns.links.push(Link {
        name: dev.clone(),
        index: DEVICE_INDEX,
        mac: Some(vtep_mac(host, options.vni)),
        mtu: pod_mtu(lab, host),
        master: None,
        hairpin: false,
        up: true,
        kind: LinkKind::Vxlan { vni: options.vni, port: options.port, local: host.ip(), dev: IfName::new("eth0") },
    });
    ns.addresses.push(Address { dev: dev.clone(), net: device_address(host), broadcast: false, connected: true });
    for peer in peers(lab, host) {
        let neighbours = peer.attachment.network == host.attachment.network;
        if options.direct_routing && neighbours {
            ns.routes.push(host_gw::route(peer));
            continue;
        }
        let far_end = peer.pod_cidr.network();
        let mac = vtep_mac(peer, options.vni);
        ns.neighbours.push(Neighbour { dev: dev.clone(), ip: far_end, mac });
        ns.fdb.push(FdbEntry { dev: dev.clone(), mac, dst: peer.ip() });
        ns.routes.push(Route {
            dst: peer.pod_cidr,
            via: Some(far_end),
            dev: dev.clone(),
            onlink: true,
            also: Vec::new(),
        });
    }
}
