//! flannel's host-gw back end: no device and no wrapping, only a route to each peer's subnet by
//! way of the peer itself. The kernel takes a next hop only where it is a neighbour, so a peer on
//! another network gets no route: there flanneld logs "network is unreachable" and goes on.

use crate::lab::names::IfName;
use crate::lab::{Host, Lab};

use super::super::types::{NsPlan, Route};
use super::peers;

pub fn add(lab: &Lab, host: &Host, ns: &mut NsPlan) {
    let reachable = peers(lab, host).filter(|p| p.attachment.network == host.attachment.network);
    ns.routes.extend(reachable.map(route));
}

pub fn route(peer: &Host) -> Route {
    Route { dst: peer.pod_cidr, via: Some(peer.ip()), dev: IfName::new("eth0"), onlink: false, also: Vec::new() }
}
