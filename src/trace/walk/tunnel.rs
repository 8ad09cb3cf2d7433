//! Packets in packets: flannel's VXLAN device, and the TUN device with flanneld behind it.

use std::net::IpAddr;

use crate::lab::names::NsName;
use crate::plan::{FdbEntry, Link, LinkKind, Mac, NsPlan};
use crate::trace::model::{Cause, Header, Protocol, What};

use super::link::{down, off_the_link};
use super::packet::{Kind, Load, Packet, TTL, Trouble};
use super::state::Place;
use super::walker::{At, Go, Stage, Walker, Why};

/// Ethernet, VXLAN, UDP and IP around a packet (RFC 7348).
const VXLAN: u32 = 14 + 8 + 8 + 20;
/// UDP and IP.
const UDP: u32 = 8 + 20;

impl<'s, 'a> Walker<'s, 'a, '_> {
    /// A frame into a VXLAN device: the FDB says to which host.
    pub fn enter_vxlan(&mut self, at: At<'s, 'a>, link: &'a Link) -> Go<Stage<'s, 'a>> {
        let LinkKind::Vxlan { vni, port, local, .. } = link.kind else { return self.over_cable(at, link) };
        let dev = &link.name;
        self.step(at, Some(dev), What::Out, format!("it leaves by {dev}"));
        let to = self.packet.to.map(|mac| mac.to_string()).unwrap_or_default();
        let entry = at.plan.fdb.iter().find(|e| e.dev == *dev && Some(e.mac) == self.packet.to);
        let Some(entry) = entry else {
            let says = format!("the FDB of {dev} has no entry for {to}, so it knows no host to send the frame to");
            return self.dropped(at, Some(dev), Why::new(Cause::NoFdbEntry, format!("{to} dev {dev}"), says));
        };
        self.check_fdb(at, entry);
        let outer = outer((local, 0), (entry.dst, port), self.packet.size() + VXLAN);
        let says = format!("{dev} wraps it: the FDB entry `{entry}` leads to {}", self.state.called(entry.dst));
        let how = format!("vxlan {vni}");
        let what = What::Encapsulated { how, outer: Box::new(outer.clone()), entry: Some(entry.to_string()) };
        self.step(at, Some(dev), what, says);
        let from = at.name().clone();
        self.wrap(outer, |packet| Load::Frame { packet, vni, from });
        Ok(Stage::Output(at))
    }

    /// The outer packet takes the packet's place. It keeps its mark, as it is the same buffer.
    fn wrap(&mut self, outer: Header, load: impl FnOnce(Packet) -> Load) {
        let mut wrapping = Packet::new(outer, Kind::Datagram);
        (wrapping.mark, wrapping.first) = (self.packet.mark, self.packet.first);
        std::mem::swap(&mut self.packet, &mut wrapping);
        self.packet.load = Some(Box::new(load(wrapping)));
        self.tracking.forget(&mut self.packet);
    }

    /// What was wrapped comes out again.
    fn unwrap(&mut self, packet: Packet) {
        self.packet = packet;
        self.tracking.forget(&mut self.packet);
        self.packet.piece = None;
    }

    /// The MAC address that a permanent entry gives the far end of a tunnel.
    pub fn check_vtep(&mut self, at: At<'s, 'a>, link: &'a Link, (ip, mac): (IpAddr, Mac)) {
        let state = self.state;
        let Some(peer) = state.owners(ip).find(|p| p.name() != at.name()) else { return };
        let Some((name, own)) = vtep(peer) else { return };
        if own == Some(mac) {
            return;
        }
        let entry = format!("{ip} dev {} lladdr {mac}", link.name);
        let others = state.places().filter(|p| p.name() != peer.name());
        let another = others.filter_map(|p| vtep(p).filter(|(_, m)| *m == Some(mac)).map(|_| p.name())).next();
        let known = at.plan.fdb.iter().any(|e| e.dev == link.name && e.mac == mac);
        let own = own.map(|m| m.to_string()).unwrap_or_default();
        let is_peers_fault = state.wanted(peer.name()).is_some_and(|ns| ns.links.iter().any(|l| l.mac == Some(mac)));
        match another {
            Some(other) => {
                let says =
                    format!("the entry `{entry}` names the MAC address of {other}'s end, not that of {}", peer.name());
                self.suspect(Cause::WrongNeighbour, at, entry, says);
            }
            None if is_peers_fault => {
                let says =
                    format!("{name} of {} has the MAC address {own}, and all others know it as {mac}", peer.name());
                self.suspect(Cause::WrongVtepMac, peer, name, says);
            }
            None if known => {
                let says = format!("`{entry}` names {mac}, and {}'s {name} is {own}", peer.name());
                self.suspect(Cause::WrongVtepMac, at, entry, says);
            }
            None => {
                let says = format!("the entry `{entry}` names {mac}, and {}'s {name} is {own}", peer.name());
                self.suspect(Cause::WrongNeighbour, at, entry, says);
            }
        }
    }

    /// The FDB entry must lead to the host whose end has that MAC address.
    fn check_fdb(&mut self, at: At<'s, 'a>, entry: &FdbEntry) {
        let ends = self.state.places().filter(|p| p.name() != at.name());
        let mut ends = ends.flat_map(|p| p.plan.links.iter().map(move |l| (p, l)));
        let Some((peer, link)) = ends.find(|(_, l)| l.mac == Some(entry.mac)) else { return };
        let LinkKind::Vxlan { local, .. } = link.kind else { return };
        if local != entry.dst {
            let says = format!(
                "the FDB entry `{entry}` leads to {}, and the end with that MAC address is on {} ({local})",
                self.state.called(entry.dst),
                peer.name()
            );
            self.suspect(Cause::WrongFdbEntry, at, entry.to_string(), says);
        }
    }

    /// A UDP packet with something in it has arrived.
    pub fn take_out(&mut self, at: At<'s, 'a>, load: Load) -> Go<Stage<'s, 'a>> {
        match load {
            Load::Frame { packet, vni, from } => self.out_of_vxlan(at, packet, (vni, &from)),
            Load::Packet { packet, from } => self.out_of_udp(at, packet, &from),
        }
    }

    fn out_of_vxlan(&mut self, at: At<'s, 'a>, packet: Packet, (vni, from): (u32, &NsName)) -> Go<Stage<'s, 'a>> {
        let came = self.packet.header.destination_port;
        let ends = || {
            at.plan.links.iter().filter_map(|l| match l.kind {
                LinkKind::Vxlan { vni, port, .. } => Some((l, vni, port)),
                _ => None,
            })
        };
        let Some((link, _, _)) = ends().find(|(_, v, p)| (*v, *p) == (vni, came)) else {
            return self.no_tunnel_end(at, (vni, came), from, ends().next());
        };
        let name = &link.name;
        if !link.up {
            return self.dropped(at, Some(name), down(at, link));
        }
        self.unwrap(packet);
        let what = What::Decapsulated { how: format!("vxlan {vni}") };
        self.step(at, Some(name), what, format!("{name} takes the outer packet off"));
        if self.packet.to != link.mac {
            let to = self.packet.to.map(|m| m.to_string()).unwrap_or_default();
            let own = link.mac.map(|m| m.to_string()).unwrap_or_default();
            let says = format!("the frame is for {to}, and {name} of {} is {own}: it is not taken", at.name());
            return self.dropped(at, Some(name), Why::new(Cause::WrongVtepMac, format!("{name} {own}"), says));
        }
        off_the_link(&mut self.packet);
        Ok(Stage::Receive { at, dev: name.clone(), passed: false })
    }

    /// Nothing here takes VXLAN with this number on this port. Which end is wrong shows the plan.
    fn no_tunnel_end(
        &mut self,
        at: At<'s, 'a>,
        (vni, port): (u32, u16),
        from: &NsName,
        own: Option<(&'a Link, u32, u16)>,
    ) -> Go<Stage<'s, 'a>> {
        let Some((link, own_vni, own_port)) = own else {
            let planned = self.state.wanted(at.name()).into_iter().flat_map(|ns| &ns.links);
            let name =
                planned.into_iter().find(|l| matches!(l.kind, LinkKind::Vxlan { .. })).map(|l| l.name.to_string());
            let says = format!("{} has no VXLAN device that would take it", at.name());
            let name = name.unwrap_or_else(|| format!("flannel.{vni}"));
            return self.dropped(at, None, Why::new(Cause::NoDevice, name, says));
        };
        let says = format!(
            "it comes with VNI {vni} on port {port}, and {} of {} has VNI {own_vni} on port {own_port}",
            link.name,
            at.name()
        );
        let is = |ns: &NsPlan, vni, port| {
            ns.links.iter().any(|l| matches!(l.kind, LinkKind::Vxlan { vni: v, port: p, .. } if (v, p) == (vni, port)))
        };
        let sender = self.state.place(from);
        let at_fault = match (sender, self.state.wanted(at.name())) {
            (Some(sender), Some(wanted)) if is(wanted, own_vni, own_port) => sender,
            _ => at,
        };
        let (vni, port) = if std::ptr::eq(at_fault, at) { (own_vni, own_port) } else { (vni, port) };
        self.suspect(Cause::WrongVni, at_fault, format!("{} vni {vni} port {port}", link.name), says.clone());
        self.dropped(
            at,
            Some(&link.name),
            Why::new(Cause::WrongVni, format!("{} vni {vni} port {port}", link.name), says),
        )
    }

    /// Into a TUN device: flanneld reads it there, and sends it to the host that has the subnet.
    pub fn enter_tun(&mut self, at: At<'s, 'a>, link: &'a Link) -> Go<Stage<'s, 'a>> {
        let dev = &link.name;
        off_the_link(&mut self.packet);
        self.step(at, Some(dev), What::Out, format!("it leaves by {dev}, at whose other end flanneld reads"));
        let Some(flanneld) = at.plan.flanneld.as_ref().filter(|f| f.tun == *dev) else {
            let says = format!("nobody reads {dev}: flanneld of {} does not run", at.name());
            return self.dropped(at, Some(dev), Why::new(Cause::FlanneldDead, "flanneld", says));
        };
        self.step(at, Some(dev), What::UserSpace { program: "flanneld".into() }, "flanneld takes it".to_owned());
        let destination = self.packet.header.destination;
        let Some(lease) = flanneld.peers.iter().find(|lease| lease.subnet.contains(&destination)) else {
            let says = format!("flanneld knows no host that has a lease for {destination}");
            let why = Why::new(Cause::NoRoute, format!("flanneld: no lease for {destination}"), says);
            return self.dropped(at, Some(dev), Why { trouble: Some(Trouble::Net), ..why });
        };
        self.check_lease(at, lease);
        if self.packet.header.ttl <= 1 {
            let why = Why::new(Cause::TtlExceeded, "TTL", "its time to live has run out at flanneld");
            return self.dropped(at, Some(dev), Why { trouble: Some(Trouble::Ttl), ..why });
        }
        if self.packet.size() > flanneld.mtu && self.packet.header.dont_fragment {
            return self.too_big(at, dev, flanneld.mtu);
        }
        self.packet.header.ttl -= 1;
        let to = (lease.public_ip, flanneld.port);
        let length = self.packet.size() + UDP;
        let outer = Header { dont_fragment: true, ..outer((flanneld.listen, flanneld.port), to, length) };
        let lease_words = format!("{} at {}", lease.subnet, lease.public_ip);
        let says = format!(
            "flanneld sends it in UDP: the lease `{lease_words}` leads to {}",
            self.state.called(lease.public_ip)
        );
        let what = What::Encapsulated { how: "udp".into(), outer: Box::new(outer.clone()), entry: Some(lease_words) };
        self.step(at, Some(dev), what, says);
        // It is cut where the way is too narrow (`IP_PMTUDISC_WANT`): this socket asks for no more.
        let mtu = at.plan.links.iter().find(|l| l.name.as_str() == "eth0").map_or(u32::MAX, |l| l.mtu);
        let mtu = self.state.path_mtu(at.name(), lease.public_ip).map_or(mtu, |remembered| remembered.min(mtu));
        let outer = Header { dont_fragment: length <= mtu, ..outer };
        let from = at.name().clone();
        self.wrap(outer, |packet| Load::Packet { packet, from });
        // A program's packet begins anew.
        self.packet.mark = 0;
        Ok(Stage::Output(at))
    }

    /// A lease that leads to another host than the one whose pods have the subnet.
    fn check_lease(&mut self, at: At<'s, 'a>, lease: &crate::plan::PeerLease) {
        let state = self.state;
        let right = state.places().find(|p| {
            let tun = p.plan.links.iter().find(|l| l.kind == LinkKind::Tun).map(|l| &l.name);
            tun.is_some_and(|tun| {
                p.plan.addresses.iter().any(|a| a.dev == *tun && lease.subnet.contains(&a.net.addr()))
            })
        });
        if let Some(right) = right.filter(|p| !p.has(lease.public_ip)) {
            let says = format!("flanneld sends {} to {}, and {} has it", lease.subnet, lease.public_ip, right.name());
            self.suspect(Cause::WrongRoute, at, format!("lease {} at {}", lease.subnet, lease.public_ip), says);
        }
    }

    fn out_of_udp(&mut self, at: At<'s, 'a>, packet: Packet, from: &NsName) -> Go<Stage<'s, 'a>> {
        let header = &self.packet.header;
        let (sender, port) = (header.source, header.destination_port);
        let Some(flanneld) = at.plan.flanneld.as_ref().filter(|f| f.port == port) else {
            let says = format!("nobody takes it on UDP port {port}: flanneld of {} does not run", at.name());
            return self.dropped(at, None, Why::new(Cause::FlanneldDead, "flanneld", says));
        };
        if !flanneld.peers.iter().any(|lease| lease.public_ip == sender) {
            let says = format!(
                "flanneld of {} knows no host with the address {sender} ({from}) and takes nothing from it",
                at.name()
            );
            return self.dropped(at, None, Why::new(Cause::Other, format!("flanneld: no lease at {sender}"), says));
        }
        self.unwrap(packet);
        let dev = &flanneld.tun;
        self.step(at, None, What::Decapsulated { how: "udp".into() }, "flanneld takes it out of UDP".to_owned());
        if self.packet.header.ttl <= 1 {
            let why = Why::new(Cause::TtlExceeded, "TTL", "its time to live has run out at flanneld");
            return self.dropped(at, None, Why { trouble: Some(Trouble::Ttl), ..why });
        }
        self.packet.header.ttl -= 1;
        self.step(
            at,
            Some(dev),
            What::UserSpace { program: "flanneld".into() },
            format!("flanneld writes it to {dev}"),
        );
        match at.link(dev) {
            None => self.dropped(at, None, super::link::missing(at, dev)),
            Some(link) if !link.up => self.dropped(at, Some(dev), down(at, link)),
            Some(_) => {
                self.step(at, Some(dev), What::In, format!("it comes in to {} by {dev}", at.name()));
                Ok(Stage::Receive { at, dev: dev.clone(), passed: false })
            }
        }
    }
}

/// The end of a host's tunnel: its device's name and MAC address.
fn vtep(place: &Place) -> Option<(String, Option<Mac>)> {
    let link = place.plan.links.iter().find(|l| matches!(l.kind, LinkKind::Vxlan { .. }))?;
    Some((link.name.to_string(), link.mac))
}

fn outer((source, source_port): (IpAddr, u16), (destination, destination_port): (IpAddr, u16), length: u32) -> Header {
    Header {
        source,
        destination,
        protocol: Protocol::Udp,
        // VXLAN's source port is a hash of what is within, which is not computed here.
        source_port,
        destination_port,
        ttl: TTL,
        length,
        dont_fragment: false,
        macs: None,
    }
}
