//! What is not as it should be along the way, though the packet may go on: a packet that takes a wrong
//! turn is lost elsewhere, and the turn is the fault.

use std::net::IpAddr;

use crate::lab::names::IfName;
use crate::plan::deviation::PortFault;
use crate::plan::{Link, LinkKind, Mac, NsPlan};
use crate::trace::model::Cause;

use super::Blame;
use super::routing::{Entry, Found, Key, Tables};
use super::state::Place;
use super::walker::{At, Walker};

/// A next hop that is in no network of the device that leads to it.
fn off_link(at: At, route: &Entry) -> Option<IpAddr> {
    let is_near = |hop: IpAddr, dev: &IfName| at.plan.addresses.iter().any(|a| a.dev == *dev && a.net.contains(&hop));
    route.hops.iter().find_map(|(hop, dev)| hop.filter(|hop| !is_near(*hop, dev)))
}

/// Why a port lets nothing through.
fn blocked(at: At, port: &Link) -> Option<PortFault> {
    at.port_faults(&port.name).find(|fault| matches!(fault, PortFault::State(_)))
}

impl<'s, 'a> Walker<'s, 'a, '_> {
    pub fn suspect(&mut self, cause: Cause, at: At<'s, 'a>, object: impl Into<String>, says: impl Into<String>) {
        let blame = Blame { cause, place: at.name().clone(), object: object.into(), says: says.into() };
        let known = |b: &Blame| (b.cause, &b.place, &b.object) == (blame.cause, &blame.place, &blame.object);
        if !self.suspects.iter().any(known) {
            self.suspects.push(blame);
        }
    }

    /// A route that went away with its device, or an address whose network has lost its route, may be
    /// why another one was taken or none.
    pub fn suspect_lost_route(&mut self, at: At<'s, 'a>, key: Key, taken: Option<&Entry>) {
        let taken_len = taken.map_or(-1, |e| i16::from(e.prefix_len()));
        if let Some(better) = at.tables.if_up(key).filter(|e| i16::from(e.prefix_len()) > taken_len) {
            let gone = better.hops.iter().map(|(_, dev)| dev).find(|dev| at.link(dev).is_none_or(|l| !l.up));
            if let Some(dev) = gone {
                self.suspect_device(at, dev);
            }
        }
        let lost = |len: u8, dst: &ipnet::IpNet| dst.contains(&key.destination) && i16::from(len) > taken_len;
        for address in at.plan.addresses.iter().filter(|a| lost(a.net.prefix_len(), &a.net)) {
            if at.link(&address.dev).is_some_and(|l| !l.up) {
                self.suspect_device(at, &address.dev);
            }
        }
        self.suspect_unplanned(at, key, taken);
    }

    /// Another route than the planned one was taken: its device is down or gone, its network is another
    /// one, it is missing, or a stranger leads elsewhere.
    fn suspect_unplanned(&mut self, at: At<'s, 'a>, key: Key, taken: Option<&Entry>) {
        let Some(wanted) = self.state.wanted(at.name()) else { return };
        let planned = Tables::new(wanted);
        let Found::Route(entry) = planned.look_up(key) else { return };
        if taken.is_some_and(|taken| taken.text == entry.text) {
            return;
        }
        if let Some((_, dev)) = entry.hops.iter().find(|(_, dev)| at.link(dev).is_none_or(|l| !l.up)) {
            return self.suspect_device(at, dev);
        }
        if entry.is_connected() {
            return entry.hops.iter().for_each(|(_, dev)| self.suspect_subnet(at, dev));
        }
        let Some(taken) = taken else {
            // Routes go with the address that their next hop is found by.
            let bare = |dev: &&IfName| !at.plan.addresses.iter().any(|a| a.dev == **dev);
            return entry.hops.iter().map(|(_, dev)| dev).filter(bare).for_each(|dev| self.suspect_subnet(at, dev));
        };
        if planned.has_text(&taken.text) {
            let (name, taken) = (at.name(), &taken.text);
            let says = format!("{name} has lost the route `{}`, and takes `{taken}`", entry.text);
            return self.suspect(Cause::NoRoute, at, &entry.text, says);
        }
        let (cause, what) = match off_link(at, taken) {
            Some(hop) => (Cause::NotOnLink, format!(", whose next hop {hop} is no neighbour")),
            None => (Cause::WrongRoute, String::new()),
        };
        let says = format!("{} takes the route `{}`{what}; planned is `{}`", at.name(), taken.text, entry.text);
        self.suspect(cause, at, &taken.text, says);
    }

    /// A device that has not the address which was planned for it.
    pub fn suspect_subnet(&mut self, at: At<'s, 'a>, dev: &IfName) {
        let of = |ns: &NsPlan| ns.addresses.iter().find(|a| a.dev == *dev).map(|a| a.net);
        let Some(was) = self.state.wanted(at.name()).and_then(of) else { return };
        let Some(is) = of(at.plan) else {
            let says = format!("{dev} of {} has lost its address {was}", at.name());
            return self.suspect(Cause::NoAddress, at, format!("{was} dev {dev}"), says);
        };
        if is != was {
            let says = format!("{dev} of {} has the address {is}; {was} is the one that is routed to it", at.name());
            self.suspect(Cause::WrongSubnet, at, dev.as_str(), says);
        }
    }

    /// An address that a machine should have and has not.
    pub fn suspect_lost_address(&mut self, at: At<'s, 'a>, ip: IpAddr) {
        let planned = self.state.wanted(at.name()).into_iter().flat_map(|ns| &ns.addresses);
        let Some(address) = planned.into_iter().find(|a| a.net.addr() == ip).filter(|_| !at.has(ip)) else { return };
        self.suspect_subnet(at, &address.dev);
        let says = format!("{} of {} has lost the address {ip}", address.dev, at.name());
        self.suspect(Cause::NoAddress, at, format!("{} dev {}", address.net, address.dev), says);
    }

    /// An address that another machine has, too. Where one of them was not to have it, that is the place.
    pub fn suspect_conflict(&mut self, ip: IpAddr) {
        let state = self.state;
        let owners: Vec<_> = state.owners(ip).collect();
        let stranger =
            |p: &&&Place| state.wanted(p.name()).is_some_and(|ns| !ns.addresses.iter().any(|a| a.net.addr() == ip));
        let Some(first) = owners.iter().find(stranger).or(owners.first()).filter(|_| owners.len() > 1) else { return };
        let names: Vec<String> = owners.iter().map(|p| p.name().to_string()).collect();
        let says = format!("{ip} is an address of {}", names.join(" and of "));
        self.suspect(Cause::AddressConflict, first, ip.to_string(), says);
    }

    /// A device that should have a MAC address and has another one. Tunnels' ends are known by other ways.
    pub fn suspect_mac(&mut self, mac: Mac) -> bool {
        let state = self.state;
        let planned = state.planned.into_iter().flat_map(|plan| &plan.namespaces);
        let own = |l: &&Link| l.mac == Some(mac) && !matches!(l.kind, LinkKind::Vxlan { .. });
        let mut all = planned.filter_map(|ns| Some((state.place(&ns.ns)?, ns.links.iter().find(own)?)));
        let Some((there, wanted)) = all.next() else { return false };
        match there.link(&wanted.name).and_then(|link| link.mac).filter(|is| *is != mac) {
            Some(is) => {
                let dev = &wanted.name;
                let says =
                    format!("{dev} of {} has the MAC address {is}, and its neighbours know it by {mac}", there.name());
                self.suspect(Cause::WrongMac, there, dev.as_str(), says);
                true
            }
            None => false,
        }
    }

    /// What is wrong with ports of bridges on the way of a frame; whether it is kept from going on.
    pub fn suspect_ports(&mut self, way: &[(&'s Place<'a>, &'a Link)]) -> bool {
        let blocked = way.iter().find_map(|(at, port)| Some((*at, *port, blocked(at, port)?)));
        let isolated =
            |(at, port): &&(&'s Place<'a>, &'a Link)| at.port_faults(&port.name).any(|f| f == PortFault::Isolated);
        let mut all = way.iter().filter(isolated);
        let both = all.next().and_then(|first| Some((first, all.find(|(at, _)| at.name() == first.0.name())?)));
        if let Some((at, port, fault)) = blocked {
            let says = format!("the port {} of {} passes no frames on: {fault}", port.name, at.name());
            self.suspect(Cause::PortBlocked, at, port.name.as_str(), says);
        } else if let Some(((at, one), (_, other))) = both {
            let says = format!(
                "the ports {} and {} of {} are both isolated, and pass nothing to each other",
                one.name,
                other.name,
                at.name()
            );
            self.suspect(Cause::PortBlocked, at, one.name.as_str(), says);
        }
        blocked.is_some() || both.is_some()
    }

    pub fn suspect_device(&mut self, at: At<'s, 'a>, dev: &IfName) {
        let flanneld = self.state.wanted(at.name()).and_then(|ns| ns.flanneld.as_ref());
        if at.plan.flanneld.is_none() && flanneld.is_some_and(|f| f.tun == *dev) {
            let says = format!("flanneld of {} does not run, and {dev} is its device", at.name());
            return self.suspect(Cause::FlanneldDead, at, "flanneld", says);
        }
        match at.link(dev) {
            Some(_) => self.suspect(Cause::LinkDown, at, dev.as_str(), format!("{dev} of {} is down", at.name())),
            None => self.suspect(Cause::NoDevice, at, dev.as_str(), format!("{} has no device {dev}", at.name())),
        }
    }
}
