//! flannel's udp back end: `flannel0`, a TUN device that hands IP packets to flanneld, which looks
//! the peer up and sends them there in UDP. One route leads the whole pod network into it; the
//! host's own subnet has the longer prefix, on `cni0`.

use crate::lab::names::IfName;
use crate::lab::{Host, Lab};

use super::super::types::{Address, Flanneld, Link, LinkKind, NsPlan, PeerLease, Route};
use super::{DEVICE_INDEX, device_address, peers, pod_mtu};

pub fn device() -> IfName {
    IfName::new("flannel0")
}

pub fn add(lab: &Lab, host: &Host, port: u16, ns: &mut NsPlan) {
    let mtu = pod_mtu(lab, host);
    ns.links.push(Link {
        name: device(),
        index: DEVICE_INDEX,
        mac: None,
        mtu,
        master: None,
        hairpin: false,
        up: true,
        kind: LinkKind::Tun,
    });
    ns.addresses.push(Address { dev: device(), net: device_address(host), broadcast: false, connected: true });
    ns.routes.push(Route { dst: lab.cluster.pod_cidr, via: None, dev: device(), onlink: false, also: Vec::new() });
    ns.flanneld = Some(Flanneld {
        tun: device(),
        listen: host.ip(),
        port,
        tun_address: device_address(host).addr(),
        mtu,
        peers: peers(lab, host).map(|p| PeerLease { subnet: p.pod_cidr, public_ip: p.ip() }).collect(),
    });
}
