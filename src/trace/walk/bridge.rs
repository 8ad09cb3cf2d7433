//! Bridges: which port a frame leaves by, and the rules that bridged packets meet.

use std::collections::HashSet;

use crate::lab::names::{IfName, NsName};
use crate::plan::deviation::{BridgeEntry, Deviation};
use crate::plan::{Link, LinkKind, Mac};
use crate::trace::model::{Cause, What};

use super::link::down;
use super::netfilter;
use super::routing::{Found, Key};
use super::state::{Place, State};
use super::walker::{At, Go, Stage, Walker, Why};

/// A device that takes frames for its namespace, and the way there: every device that a frame would
/// pass, with its namespace.
pub(super) struct Reach<'s, 'a> {
    pub place: &'s Place<'a>,
    pub link: &'a Link,
    pub way: Vec<(&'s Place<'a>, &'a Link)>,
}

impl Reach<'_, '_> {
    /// The first device on the way that is down.
    pub fn down(&self) -> Option<(&Place<'_>, &Link)> {
        self.way.iter().find(|(_, link)| !link.up).map(|(place, link)| (*place, *link))
    }
}

/// Everybody on the same link as a device, whether or not the cables in between are up.
pub(super) fn on_link<'s, 'a>(state: &'s State<'a>, at: At<'s, 'a>, link: &'a Link) -> Vec<Reach<'s, 'a>> {
    let mut search = Search { state, seen: HashSet::new(), found: Vec::new() };
    search.seen.insert((at.name(), &link.name));
    match &link.kind {
        LinkKind::Bridge => search.ports(at, &link.name, &mut vec![(at, link)]),
        _ => search.cable(at, link, &mut Vec::new()),
    }
    search.found
}

struct Search<'s, 'a> {
    state: &'s State<'a>,
    seen: HashSet<(&'a NsName, &'a IfName)>,
    found: Vec<Reach<'s, 'a>>,
}

impl<'s, 'a> Search<'s, 'a> {
    /// To the other end of a cable, and on from there.
    fn cable(&mut self, at: At<'s, 'a>, link: &'a Link, way: &mut Vec<(At<'s, 'a>, &'a Link)>) {
        way.push((at, link));
        if let Some((there, far)) = self.state.far_end(link)
            && self.seen.insert((there.name(), &far.name))
        {
            way.push((there, far));
            match far.master.as_ref().and_then(|name| there.link(name)) {
                Some(bridge) if self.seen.insert((there.name(), &bridge.name)) => {
                    way.push((there, bridge));
                    self.found.push(Reach { place: there, link: bridge, way: way.clone() });
                    self.ports(there, &bridge.name, way);
                    way.pop();
                }
                Some(_) => {}
                None => self.found.push(Reach { place: there, link: far, way: way.clone() }),
            }
            way.pop();
        }
        way.pop();
    }

    fn ports(&mut self, at: At<'s, 'a>, bridge: &IfName, way: &mut Vec<(At<'s, 'a>, &'a Link)>) {
        for port in at.plan.links.iter().filter(|l| l.master.as_ref() == Some(bridge)) {
            if self.seen.insert((at.name(), &port.name)) {
                self.cable(at, port, way);
            }
        }
    }
}

impl<'s, 'a> Walker<'s, 'a, '_> {
    /// A frame is on a bridge: from a port, or from the namespace itself.
    pub fn bridge(&mut self, at: At<'s, 'a>, bridge: &'a Link, port: Option<&'a Link>) -> Go<Stage<'s, 'a>> {
        if !bridge.up {
            return self.dropped(at, Some(&bridge.name), down(at, bridge));
        }
        if let Some(port) = port {
            self.pass_port(at, &[(at, port)])?;
        }
        let filtered = port.is_some() && at.filters_bridges();
        if filtered {
            self.track(at)?;
            let before = self.packet.header.destination;
            self.hooks(at, netfilter::PREROUTING, (Some(&bridge.name), None))?;
            if self.packet.header.destination != before {
                self.lead_on(at, bridge)?;
            }
        }
        let written = self.written(at, bridge);
        if self.packet.to == bridge.mac || written.is_some_and(|entry| entry.local) {
            let says = format!("the frame is for {} itself: up to the routing of {}", bridge.name, at.name());
            self.bridged(at, bridge, None, says);
            let passed = filtered;
            return Ok(Stage::Receive { at, dev: bridge.name.clone(), passed });
        }
        let out = match written.and_then(|entry| at.link(&entry.port)) {
            Some(port) => port,
            None => self.port_to(at, bridge)?,
        };
        let way: Vec<(At, &Link)> = port.into_iter().chain([out]).map(|port| (at, port)).collect();
        self.pass_port(at, &way)?;
        self.out_of_port(at, bridge, port, out, filtered)
    }

    /// A rule has changed the destination of a packet on a bridge (`br_nf_pre_routing_finish`): where
    /// the new one is on the same bridge, the frame goes on to it and nobody routes; where not, it
    /// is for the bridge's own namespace to route.
    fn lead_on(&mut self, at: At<'s, 'a>, bridge: &'a Link) -> Go<()> {
        let header = &self.packet.header;
        let key = Key {
            destination: header.destination,
            source: Some(header.source),
            mark: self.packet.mark,
            input: Some(&bridge.name),
        };
        match at.tables.look_up(key) {
            Found::Route(entry) if entry.hops.iter().all(|(_, dev)| *dev == bridge.name) => {
                let to = entry.hops.first().and_then(|hop| hop.0).unwrap_or(key.destination);
                self.neighbour(at, bridge, to)
            }
            _ => {
                self.packet.to = bridge.mac;
                Ok(())
            }
        }
    }

    /// Past ports, where they are in service.
    fn pass_port(&mut self, at: At<'s, 'a>, ports: &[(At<'s, 'a>, &'a Link)]) -> Go<()> {
        if !self.suspect_ports(ports) {
            return Ok(());
        }
        let (_, last) = ports[ports.len() - 1];
        let says = format!("a port of {} passes it not on", at.name());
        self.dropped(at, Some(&last.name), Why::new(Cause::PortBlocked, last.name.as_str(), says))
    }

    /// What somebody wrote into a bridge's table about the frame's MAC address: it counts for more than what the bridge
    /// learns.
    fn written(&mut self, at: At<'s, 'a>, bridge: &Link) -> Option<&'a BridgeEntry> {
        let to = self.packet.to?;
        let entry = at.plan.deviations.iter().find_map(|d| match d {
            Deviation::BridgeEntry(entry) if entry.bridge == bridge.name && entry.mac == to => Some(entry),
            _ => None,
        })?;
        let right = on_link(self.state, at, bridge).into_iter().find(|reach| reach.link.mac == Some(to));
        let port = right.as_ref().and_then(|reach| Some(&reach.way.get(1)?.1.name));
        if entry.local || port.is_some_and(|port| *port != entry.port) {
            let leads = match (entry.local, port) {
                (true, _) => format!("takes frames to it for {}'s own", at.name()),
                (_, Some(port)) => format!("leads to {}, and it is behind {port}", entry.port),
                _ => format!("leads to {}", entry.port),
            };
            let says = format!("the entry `{}` of {} {leads}", entry.told.what, bridge.name);
            self.suspect(Cause::WrongFdbEntry, at, &entry.told.what, says);
        }
        Some(entry)
    }

    /// The port behind which the frame's MAC address is.
    fn port_to(&mut self, at: At<'s, 'a>, bridge: &'a Link) -> Go<&'a Link> {
        let wanted: Option<Mac> = self.packet.to;
        let state = self.state;
        let of_bridge = |reach: &Reach| reach.way.get(1).map(|(_, port)| port.name.clone());
        let found = on_link(state, at, bridge).into_iter().find(|reach| reach.link.mac == wanted);
        let port = found.and_then(|reach| of_bridge(&reach)).and_then(|name| at.link(&name));
        if let Some(port) = port {
            return Ok(port);
        }
        if let Some(mac) = wanted {
            self.suspect_mac(mac);
            let has = |peer: &NsName| state.place(peer).is_some_and(|p| p.plan.links.iter().any(|l| l.mac == wanted));
            self.suspect_lost_ports(at, bridge, has);
        }
        let to = wanted.map(|mac| mac.to_string()).unwrap_or_default();
        let says = format!("{} floods it to all ports, and nobody behind them is {to}", bridge.name);
        self.step(
            at,
            Some(&bridge.name),
            What::Bridged { bridge: bridge.name.to_string(), port: None, flooded: true },
            format!("no port of {} is known to lead to {to}: it is flooded", bridge.name),
        );
        self.dropped(at, Some(&bridge.name), Why::new(Cause::WrongNeighbour, to, says))
    }

    fn out_of_port(
        &mut self,
        at: At<'s, 'a>,
        bridge: &'a Link,
        from: Option<&'a Link>,
        out: &'a Link,
        filtered: bool,
    ) -> Go<Stage<'s, 'a>> {
        if from.is_some_and(|from| from.name == out.name) && !out.hairpin {
            let says = format!("{} would have to go back out of {}, whose hairpin mode is off", at.name(), out.name);
            return self.dropped(
                at,
                Some(&out.name),
                Why::new(Cause::Other, format!("{} hairpin off", out.name), says),
            );
        }
        if filtered {
            let both = (Some(&bridge.name), Some(&bridge.name));
            self.hooks(at, netfilter::FORWARD, both)?;
            self.hooks(at, netfilter::POSTROUTING, (None, Some(&bridge.name)))?;
        }
        let behind = match self.state.far_end(out) {
            Some((there, _)) => format!(", to {}", there.name()),
            None => String::new(),
        };
        let says = format!("{} sends it out of its port {}{behind}", bridge.name, out.name);
        self.bridged(at, bridge, Some(out), says);
        if self.packet.size() > out.mtu + 4 {
            let says =
                format!("it has {} bytes, and {} takes {}; nobody is told", self.packet.size(), out.name, out.mtu);
            let why = Why::new(Cause::TooBig, format!("{} mtu {}", out.name, out.mtu), says);
            return self.dropped(at, Some(&out.name), why);
        }
        self.over_cable(at, out)
    }

    fn bridged(&mut self, at: At<'s, 'a>, bridge: &Link, port: Option<&Link>, says: String) {
        let port = port.map(|p| p.name.to_string());
        let what = What::Bridged { bridge: bridge.name.to_string(), port, flooded: false };
        self.step(at, Some(&bridge.name), what, says);
    }
}
