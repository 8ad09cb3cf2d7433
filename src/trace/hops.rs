//! Which next hops packets were led to, by the MAC addresses on their frames: of several that a route has,
//! which one is taken no state says (`fib_multipath_hash_policy`).

use std::net::IpAddr;

use crate::lab::names::NsName;
use crate::plan::Plan;

use super::flow::Found;
use super::model::Direction;
use super::sight::Sight;

/// The next hops of a flow's first packet, each with the place that led it there. `there` tells whose a MAC
/// address is.
pub fn taken(found: &Found, sights: &[Sight], there: &Plan) -> Vec<(NsName, IpAddr)> {
    let first = found.packets.iter().find(|packet| packet.direction == Direction::There && !packet.copy);
    let seen = first.into_iter().flat_map(|packet| &packet.sights).map(|n| &sights[*n]);
    let left = seen.filter(|sight| sight.outgoing);
    left.filter_map(|sight| Some((&sight.place, &sight.seen.macs.as_ref()?.1)))
        .flat_map(|(place, mac)| addresses(there, mac).map(|ip| (place.clone(), ip)))
        .collect()
}

/// The addresses of the devices that have this MAC address.
fn addresses<'a>(there: &'a Plan, mac: &'a str) -> impl Iterator<Item = IpAddr> + 'a {
    there.namespaces.iter().flat_map(move |ns| {
        let links = ns.links.iter().filter(move |link| link.mac.is_some_and(|own| own.to_string() == mac));
        links.flat_map(|link| ns.addresses.iter().filter(|a| a.dev == link.name)).map(|a| a.net.addr())
    })
}
