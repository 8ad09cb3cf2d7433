//! Neighbours: which MAC address stands for the next hop's address on its link.

use std::net::IpAddr;

use crate::lab::names::NsName;
use crate::plan::{Link, LinkKind, Mac};
use crate::trace::model::{Cause, What};

use super::bridge::{Reach, on_link};
use super::packet::Trouble;
use super::walker::{At, Go, Walker, Why};

impl<'s, 'a> Walker<'s, 'a, '_> {
    /// Find the MAC address of a next hop and put it on the frame.
    pub fn neighbour(&mut self, at: At<'s, 'a>, link: &'a Link, ip: IpAddr) -> Go<()> {
        let permanent = at.plan.neighbours.iter().find(|n| n.dev == link.name && n.ip == ip).map(|n| n.mac);
        if let Some(mac) = permanent {
            self.check_entry(at, link, (ip, mac));
            self.found(at, link, (ip, mac), "permanent");
            return Ok(());
        }
        if let Some(mac) = self.state.learned(at.name(), &link.name, ip) {
            self.check_entry(at, link, (ip, mac));
            self.found(at, link, (ip, mac), "learned");
            return Ok(());
        }
        self.ask(at, link, ip)
    }

    fn found(&mut self, at: At<'s, 'a>, link: &Link, (ip, mac): (IpAddr, Mac), state: &str) {
        let from = link.mac.map(|own| own.to_string()).unwrap_or_default();
        self.packet.to = Some(mac);
        self.packet.header.macs = Some((from, mac.to_string()));
        let whose = self.state.who(ip).map(|who| format!(" of {who}")).unwrap_or_default();
        let says = match state {
            "permanent" => format!("an entry gives {ip}{whose} the MAC address {mac}"),
            _ => format!("{ip}{whose} has the MAC address {mac}"),
        };
        let what = What::Neighbour { ip, mac: Some(mac.to_string()), state: state.to_owned() };
        self.step(at, Some(&link.name), what, says);
    }

    /// Ask the link, as ARP does.
    fn ask(&mut self, at: At<'s, 'a>, link: &'a Link, ip: IpAddr) -> Go<()> {
        let all = on_link(self.state, at, link);
        let mut owners: Vec<&Reach> = all.iter().filter(|r| r.place.has(ip) && r.link.mac.is_some()).collect();
        owners.sort_by_key(|r| !r.place.plan.addresses.iter().any(|a| a.dev == r.link.name && a.net.addr() == ip));
        let answering: Vec<&&Reach> =
            owners.iter().filter(|r| r.down().is_none() && !self.suspect_ports(&r.way)).collect();
        let names: Vec<&NsName> = answering.iter().fold(Vec::new(), |mut names, r| {
            if !names.contains(&r.place.name()) {
                names.push(r.place.name());
            }
            names
        });
        if names.len() > 1 {
            self.suspect_conflict(ip);
        }
        if let Some(mac) = answering.first().and_then(|r| r.link.mac) {
            self.found(at, link, (ip, mac), "learned");
            return Ok(());
        }
        let cut = owners.iter().find_map(|r| r.down().map(|(place, link)| (place.name().clone(), link.name.clone())));
        if let Some((place, dev)) = cut
            && let Some(there) = self.state.place(&place)
        {
            self.suspect_device(there, &dev);
        }
        self.nobody(at, link, ip)
    }

    fn nobody(&mut self, at: At<'s, 'a>, link: &'a Link, ip: IpAddr) -> Go<()> {
        let dev = &link.name;
        let what = What::Neighbour { ip, mac: None, state: "failed".to_owned() };
        self.step(at, Some(dev), what, format!("nobody on the link of {dev} answers for {ip}"));
        let elsewhere = self.state.owners(ip).next().map(|p| p.name().to_string());
        let tunnel = matches!(link.kind, LinkKind::Vxlan { .. });
        self.suspect_missing_end(at, link, ip);
        let (cause, says) = match elsewhere {
            Some(who) if !tunnel && who != at.name().to_string() => (
                Cause::NotOnLink,
                format!("{ip} is {who}, which is not on the link of {dev}: a next hop must be a neighbour"),
            ),
            _ if tunnel => (
                Cause::NoNeighbour,
                format!("{dev} has no neighbour entry for {ip}, and nobody can be asked through a tunnel"),
            ),
            _ => (Cause::NoNeighbour, format!("nobody answers for {ip} on {dev}")),
        };
        let why = Why::new(cause, format!("{ip} dev {dev}"), says);
        self.dropped(at, Some(dev), Why { trouble: Some(Trouble::Host), ..why })
    }

    /// Whoever should have the address may have no cable: its device is gone.
    fn suspect_missing_end(&mut self, at: At<'s, 'a>, link: &'a Link, ip: IpAddr) {
        let state = self.state;
        let wanted = state.planned.into_iter().flat_map(|plan| &plan.namespaces);
        let owner = wanted.flat_map(|ns| ns.addresses.iter().map(move |a| (ns, a))).find(|(_, a)| a.net.addr() == ip);
        if let Some((ns, address)) = owner
            && let Some(there) = state.place(&ns.ns)
        {
            if there.link(&address.dev).is_none() {
                self.suspect_device(there, &address.dev);
            } else {
                self.suspect_lost_address(there, ip);
            }
        }
        self.suspect_lost_ports(at, link, |peer| state.owners(ip).any(|p| p.name() == peer));
    }

    /// Ports that have left their bridge, or pairs that were cut in two, which led to machines that are looked for.
    pub fn suspect_lost_ports(&mut self, at: At<'s, 'a>, bridge: &Link, is_wanted: impl Fn(&NsName) -> bool) {
        let ports = self.state.wanted(at.name()).into_iter().flat_map(|ns| &ns.links);
        for port in ports.filter(|l| l.master.as_ref() == Some(&bridge.name)) {
            let leads = matches!(&port.kind, LinkKind::Veth { peer_ns, .. } if is_wanted(peer_ns));
            if leads && at.link(&port.name).is_some_and(|l| l.master != port.master) {
                let says = format!("{} is no port of {}", port.name, bridge.name);
                self.suspect(Cause::NoDevice, at, port.name.as_str(), says);
            }
        }
    }

    /// An entry that names another MAC address than the next hop's is not to be trusted.
    fn check_entry(&mut self, at: At<'s, 'a>, link: &'a Link, (ip, mac): (IpAddr, Mac)) {
        if let LinkKind::Vxlan { .. } = link.kind {
            return self.check_vtep(at, link, (ip, mac));
        }
        let all = on_link(self.state, at, link);
        let owners: Vec<&Reach> = all.iter().filter(|r| r.place.has(ip)).collect();
        if !owners.is_empty() && owners.iter().all(|r| r.link.mac != Some(mac)) {
            let entry = format!("{ip} dev {} lladdr {mac}", link.name);
            let says = format!("the entry `{entry}` names {mac}, which is not {}'s", self.state.called(ip));
            if !self.suspect_mac(mac) {
                self.suspect(Cause::WrongNeighbour, at, entry, says);
            }
        }
    }
}
