//! Sights: where and when a packet was seen. Frames that taps have recorded are read here, so that
//! what comes later knows packets and no bytes.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::lab::names::{IfName, NsName};

use super::model::{Header, Protocol};
use super::packet::{self, Arp, Essence, Frame, Packet};

/// A frame as a tap recorded it.
#[derive(Debug, Clone, Copy)]
pub struct Tapped<'a> {
    /// Nanoseconds since the epoch.
    pub at: u64,
    pub place: &'a NsName,
    pub dev: &'a IfName,
    /// Whether it leaves by the device.
    pub outgoing: bool,
    /// Whether it begins with an Ethernet header.
    pub ethernet: bool,
    /// Whether the frame is for another device than the one at which it came in (`PACKET_OTHERHOST`).
    pub stray: bool,
    pub bytes: &'a [u8],
}

/// By which UDP ports tunnels are known; 0 where the lab has none of the kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tunnels {
    pub vxlan: u16,
    pub flannel_udp: u16,
}

/// Both ends of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple {
    pub protocol: Protocol,
    pub source: (IpAddr, u16),
    pub destination: (IpAddr, u16),
}

impl Tuple {
    pub fn of(header: &Header) -> Tuple {
        Tuple {
            protocol: header.protocol,
            source: (header.source, header.source_port),
            destination: (header.destination, header.destination_port),
        }
    }

    /// A header with these ends in place of its own.
    #[must_use]
    pub fn put_into(self, header: Header) -> Header {
        Header {
            source: self.source.0,
            source_port: self.source.1,
            destination: self.destination.0,
            destination_port: self.destination.1,
            ..header
        }
    }

    #[must_use]
    pub fn reversed(self) -> Tuple {
        Tuple { protocol: self.protocol, source: self.destination, destination: self.source }
    }
}

/// A packet at a device at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    pub at: u64,
    pub place: NsName,
    pub dev: IfName,
    pub outgoing: bool,
    /// 1 where it was inside a tunnel's packet, else 0.
    pub layer: u8,
    /// The header that was seen: the tunnel's where the layer is 1.
    pub seen: Header,
    /// The header of the packet itself.
    pub header: Header,
    /// The identification in the header that was seen.
    pub identification: u16,
    pub vni: Option<u32>,
    pub essence: Essence,
    pub kind: String,
    /// The packet that it is about, where it is an ICMP error.
    pub about: Option<(Tuple, Essence)>,
    /// Whether the data holds the mark that the trace gave its request.
    pub marked: bool,
    /// What a program says in it, as [`Packet::said`] has it.
    pub said: Option<String>,
    /// The packet that it is a later fragment of.
    pub piece_of: Option<(Tuple, Essence)>,
    /// Whether the frame was for another device.
    pub stray: bool,
}

impl Sight {
    pub fn tuple(&self) -> Tuple {
        Tuple::of(&self.header)
    }

    /// Where it was seen, without when.
    pub fn point(&self) -> (&NsName, &IfName, bool, u8) {
        (&self.place, &self.dev, self.outgoing, self.layer)
    }
}

/// An ARP message that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArpSight {
    pub at: u64,
    pub place: NsName,
    pub dev: IfName,
    pub outgoing: bool,
    pub arp: Arp,
}

/// Read what taps recorded, which must be in the order of time. `mark` is looked for in the data; an empty
/// one is nowhere.
pub fn read<'a>(
    tapped: impl IntoIterator<Item = Tapped<'a>>,
    tunnels: Tunnels,
    mark: &[u8],
) -> (Vec<Sight>, Vec<ArpSight>) {
    let (mut sights, mut arps, mut cut) = (Vec::new(), Vec::new(), Cut::new());
    for tap in tapped {
        let frame = if tap.ethernet { packet::ethernet(tap.bytes) } else { packet::ipv4(tap.bytes).map(Frame::Ip) };
        match frame {
            Some(Frame::Ip(packet)) => sights.push(sight(&tap, &packet, tunnels, (mark, &mut cut))),
            Some(Frame::Arp(arp)) => arps.push(ArpSight {
                at: tap.at,
                place: tap.place.clone(),
                dev: tap.dev.clone(),
                outgoing: tap.outgoing,
                arp,
            }),
            None => {}
        }
    }
    (sights, arps)
}

/// First fragments and whole packets, by what their later fragments share with them.
type Cut = HashMap<(IpAddr, IpAddr, Protocol, u16), (Tuple, Essence)>;

/// The packet that this one is a later fragment of, where it is one.
fn piece_of(packet: &Packet, cut: &mut Cut) -> Option<(Tuple, Essence)> {
    let header = &packet.header;
    let key = (header.source, header.destination, header.protocol, packet.identification);
    if matches!(packet.essence, Essence::Fragment { .. }) {
        return cut.get(&key).copied();
    }
    if !header.dont_fragment {
        cut.insert(key, (Tuple::of(header), packet.essence));
    }
    None
}

fn sight(tap: &Tapped, outer: &Packet, tunnels: Tunnels, (mark, cut): (&[u8], &mut Cut)) -> Sight {
    let inside = outer.in_vxlan(tunnels.vxlan).or_else(|| outer.in_flannel_udp(tunnels.flannel_udp));
    let (packet, layer) = inside.as_ref().map_or((outer, 0), |inner| (inner, 1));
    let holds_mark = |data: &[u8]| !mark.is_empty() && data.windows(mark.len()).any(|w| w == mark);
    Sight {
        at: tap.at,
        place: tap.place.clone(),
        dev: tap.dev.clone(),
        outgoing: tap.outgoing,
        layer,
        seen: outer.header.clone(),
        header: packet.header.clone(),
        identification: outer.identification,
        vni: outer.vni(tunnels.vxlan),
        essence: packet.essence,
        kind: packet.kind(),
        about: packet.quoted().map(|quoted| (Tuple::of(&quoted.header), quoted.essence)),
        marked: holds_mark(packet.data),
        said: packet.said(),
        piece_of: piece_of(packet, cut),
        stray: tap.stray,
    }
}
