//! Devices and cables: up or down, large enough or not, and what is at the other end.

use crate::lab::names::{IfName, NsName};
use crate::plan::{Link, LinkKind};
use crate::trace::model::{Cause, What};

use super::packet::{Hop, Packet, Trouble};
use super::state::State;
use super::walker::{At, Go, Stage, Walker, Why};

/// A frame may be so much longer than the device's MTU (`VLAN_HLEN` in `is_skb_forwardable`).
const LEEWAY: u32 = 4;

impl<'a> State<'a> {
    /// The device at the other end of a cable, where it does not take packets of this length.
    pub fn too_small_behind(&self, (place, dev): (&NsName, &IfName), length: u32) -> Option<(&'a NsName, &'a Link)> {
        let (there, far) = self.far_end(self.place(place)?.link(dev)?)?;
        (length > far.mtu + LEEWAY).then_some((there.name(), far))
    }
}

impl<'s, 'a> Walker<'s, 'a, '_> {
    /// A packet that may not be cut and is larger than the sender's own device is never sent. One that may be is cut as
    /// the sender remembers of the way. What it remembers stops none: TCP sends no more, and pings of labctl's pass it
    /// over (`IP_PMTUDISC_PROBE`).
    pub fn check_local_size(&mut self, at: At<'s, 'a>, hop: Option<&Hop>) -> Go<()> {
        let Some((hop, link)) = hop.and_then(|hop| Some((hop, at.link(&hop.dev)?))) else { return Ok(()) };
        if self.packet.header.dont_fragment {
            return if self.packet.size() > link.mtu { self.too_big(at, &hop.dev, link.mtu) } else { Ok(()) };
        }
        let remembered = self.state.path_mtu(at.name(), self.packet.header.destination);
        if let Some(mtu) = remembered.filter(|mtu| self.packet.size() > *mtu) {
            self.packet.piece = Some(mtu);
        }
        Ok(())
    }

    pub fn too_big<T>(&mut self, at: At<'s, 'a>, dev: &IfName, mtu: u32) -> Go<T> {
        let size = self.packet.size();
        let says = format!("it has {size} bytes and must not be cut; {dev} takes {mtu}");
        let why = Why::new(Cause::TooBig, format!("{dev} mtu {mtu}"), says);
        self.dropped(at, Some(dev), Why { trouble: Some(Trouble::TooBig { mtu }), ..why })
    }

    /// Out of a device, to a next hop.
    pub fn transmit(&mut self, at: At<'s, 'a>, hop: &Hop) -> Go<Stage<'s, 'a>> {
        let dev = &hop.dev;
        let Some(link) = self.up(at, dev)? else { return self.dropped(at, None, missing(at, dev)) };
        self.cut(link);
        match &link.kind {
            LinkKind::Tun => return self.enter_tun(at, link),
            LinkKind::Other { what } if link.mac.is_none() => {
                let says = format!("nothing is known of what {dev} ({what}) does with it");
                return self.dropped(at, Some(dev), Why::new(Cause::Other, format!("{dev} ({what})"), says));
            }
            _ => {}
        }
        self.neighbour(at, link, hop.to)?;
        match &link.kind {
            LinkKind::Bridge => {
                self.step(
                    at,
                    Some(dev),
                    What::Out,
                    format!("it leaves {} by the bridge {dev}{}", at.name(), self.in_pieces()),
                );
                self.bridge(at, link, None)
            }
            LinkKind::Vxlan { .. } => self.enter_vxlan(at, link),
            _ => self.over_cable(at, link),
        }
    }

    /// The device, where it is up.
    fn up(&mut self, at: At<'s, 'a>, dev: &IfName) -> Go<Option<&'a Link>> {
        match at.link(dev) {
            Some(link) if !link.up => self.dropped(at, Some(dev), down(at, link)),
            link => Ok(link),
        }
    }

    /// Fragments, where it is larger than the device.
    fn cut(&mut self, link: &Link) {
        if self.packet.size() > link.mtu {
            self.packet.piece = Some(link.mtu);
        }
    }

    /// That it is in pieces, where it is.
    fn in_pieces(&self) -> String {
        self.packet.piece.map(|most| format!(", cut into pieces of at most {most} bytes")).unwrap_or_default()
    }

    /// Over a veth pair to its other end.
    pub fn over_cable(&mut self, at: At<'s, 'a>, link: &'a Link) -> Go<Stage<'s, 'a>> {
        let dev = &link.name;
        if !link.up {
            return self.dropped(at, Some(dev), down(at, link));
        }
        self.step(at, Some(dev), What::Out, format!("it leaves {} by {dev}{}", at.name(), self.in_pieces()));
        let state = self.state;
        let Some((there, far)) = state.far_end(link) else {
            if let LinkKind::Veth { peer_ns, peer } = &link.kind
                && let Some(there) = state.place(peer_ns)
            {
                return self.dropped(there, None, missing(there, peer));
            }
            let says = format!("nothing of the lab is at the other end of {dev}");
            return self.dropped(at, Some(dev), Why::new(Cause::NoDevice, dev.as_str(), says));
        };
        if !far.up {
            return self.dropped(there, Some(&far.name), down(there, far));
        }
        if self.packet.size() > far.mtu + LEEWAY {
            let size = self.packet.size();
            let says = format!("it has {size} bytes, and {} takes {}; nobody is told", far.name, far.mtu);
            let why = Why::new(Cause::TooBig, format!("{} mtu {}", far.name, far.mtu), says);
            return self.dropped(there, Some(&far.name), why);
        }
        // Another namespace knows nothing of the mark (`skb_scrub_packet`).
        self.packet.mark = 0;
        Ok(Stage::Arrive(there, &far.name))
    }

    /// A frame comes in by a device.
    pub fn arrive(&mut self, at: At<'s, 'a>, dev: &'a IfName) -> Go<Stage<'s, 'a>> {
        self.tracking.forget(&mut self.packet);
        self.step(at, Some(dev), What::In, format!("it comes in to {} by {dev}", at.name()));
        let Some(link) = at.link(dev) else { return self.dropped(at, None, missing(at, dev)) };
        if let Some(bridge) = link.master.as_ref().and_then(|name| at.link(name)) {
            return self.bridge(at, bridge, Some(link));
        }
        self.take_in(at, link)?;
        Ok(Stage::Receive { at, dev: dev.clone(), passed: false })
    }

    /// A device takes only frames to its own MAC address.
    pub fn take_in(&mut self, at: At<'s, 'a>, link: &Link) -> Go<()> {
        let (Some(to), Some(own)) = (self.packet.to, link.mac) else { return Ok(()) };
        if to == own {
            return Ok(());
        }
        let says = format!("the frame is for {to}, and {} of {} is {own}: it is not taken", link.name, at.name());
        self.dropped(at, Some(&link.name), Why::new(Cause::WrongNeighbour, to.to_string(), says))
    }
}

pub(super) fn down(at: At, link: &Link) -> Why {
    Why::new(Cause::LinkDown, link.name.as_str(), format!("{} of {} is down", link.name, at.name()))
}

pub(super) fn missing(at: At, dev: &IfName) -> Why {
    Why::new(Cause::NoDevice, dev.as_str(), format!("{} has no device {dev}", at.name()))
}

/// What is put on a frame that is wrapped and taken off again keeps no trace of its link.
pub(super) fn off_the_link(packet: &mut Packet) {
    packet.to = None;
    packet.header.macs = None;
}
