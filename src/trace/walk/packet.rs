//! The packet that is walked: headers, what it is, and what is wrapped into it.

use std::net::IpAddr;

use crate::lab::names::{IfName, NsName};
use crate::lab::probe::Ask;
use crate::plan::Mac;
use crate::trace::model::{Header, Protocol};
use crate::trace::sight;

/// Bytes of IP and TCP headers of a packet without data, with the options that Linux sends.
const TCP: u32 = 60;
/// IP and UDP, or IP and ICMP echo.
const DATAGRAM: u32 = 28;
/// The time to live that Linux begins with (`net.ipv4.ip_default_ttl`).
pub const TTL: u8 = 64;

/// The packet that is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The source is chosen by the sender's routing table where it is unspecified (0.0.0.0).
    pub header: Header,
    /// Whether it is the first packet of its flow. Rules of the table nat are asked for that one only.
    pub first: bool,
}

impl Probe {
    /// A packet of its own to `to`: a connection's first one, a datagram of 32 bytes or an echo request.
    pub fn to(protocol: Protocol, to: IpAddr, port: u16) -> Probe {
        let length = match protocol {
            Protocol::Tcp => TCP,
            Protocol::Icmp => DATAGRAM + 56,
            _ => DATAGRAM + 32,
        };
        let source_port = if protocol == Protocol::Icmp { port } else { 40_000 };
        let nowhere = if to.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        let header = Header {
            source: nowhere,
            destination: to,
            protocol,
            source_port,
            destination_port: port,
            ttl: TTL,
            length,
            // TCP finds out the path's MTU (`ip_no_pmtu_disc` is 0).
            dont_fragment: protocol == Protocol::Tcp,
            macs: None,
        };
        Probe { header, first: true }
    }

    /// The first packet of a question to `to`, as [`Probe::to`] but with what the question says of it.
    pub fn of(ask: &Ask, protocol: Protocol, to: IpAddr, port: u16) -> Probe {
        let mut probe = Probe::to(protocol, to, port);
        let header = &mut probe.header;
        match ask {
            Ask::Ping { size, dont_fragment, ttl, .. } => {
                (header.length, header.dont_fragment, header.ttl) = (*size, *dont_fragment, *ttl);
            }
            Ask::Tcp { ttl: Some(ttl), .. } | Ask::Udp { ttl: Some(ttl), .. } => header.ttl = *ttl,
            _ => {}
        }
        probe
    }
}

/// What a packet is to those who take it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    EchoRequest,
    EchoReply,
    Syn,
    SynAck,
    /// Of a connection that stands.
    Segment,
    Reset,
    Datagram,
    Error(Trouble),
}

/// An error that is told in a packet's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    Port,
    Host,
    Net,
    Forbidden,
    TooBig { mtu: u32 },
    Ttl,
}

impl Trouble {
    /// As the model has it.
    pub fn words(self) -> String {
        match self {
            Trouble::Port => "destination unreachable: port unreachable".to_owned(),
            Trouble::Host => "destination unreachable: host unreachable".to_owned(),
            Trouble::Net => "destination unreachable: network unreachable".to_owned(),
            Trouble::Forbidden => "destination unreachable: forbidden by a filter".to_owned(),
            Trouble::TooBig { mtu } => format!("destination unreachable: fragmentation needed, MTU {mtu}"),
            Trouble::Ttl => "time exceeded".to_owned(),
        }
    }
}

/// Addresses and ports, by which connection tracking knows a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    pub source: IpAddr,
    pub source_port: u16,
    pub destination: IpAddr,
    pub destination_port: u16,
    pub protocol: Protocol,
}

impl Tuple {
    pub fn of(header: &Header) -> Tuple {
        Tuple {
            source: header.source,
            source_port: header.source_port,
            destination: header.destination,
            destination_port: header.destination_port,
            protocol: header.protocol,
        }
    }

    pub fn turned(self) -> Tuple {
        Tuple {
            source: self.destination,
            source_port: self.destination_port,
            destination: self.source,
            destination_port: self.source_port,
            protocol: self.protocol,
        }
    }
}

impl From<sight::Tuple> for Tuple {
    fn from(sight::Tuple { protocol, source, destination }: sight::Tuple) -> Tuple {
        let (source_port, destination_port) = (source.1, destination.1);
        Tuple { source: source.0, source_port, destination: destination.0, destination_port, protocol }
    }
}

/// What an outer packet carries.
#[derive(Debug, Clone)]
pub enum Load {
    /// A frame from a VXLAN device.
    Frame { packet: Packet, vni: u32, from: NsName },
    /// What flanneld took from its TUN device.
    Packet { packet: Packet, from: NsName },
}

impl Load {
    pub fn packet(&self) -> &Packet {
        match self {
            Load::Frame { packet, .. } | Load::Packet { packet, .. } => packet,
        }
    }

    pub fn is_frame(&self) -> bool {
        matches!(self, Load::Frame { .. })
    }
}

/// A packet on its way.
#[derive(Debug, Clone)]
pub struct Packet {
    pub header: Header,
    pub kind: Kind,
    pub first: bool,
    /// The MAC address that the frame goes to; nothing at devices without any.
    pub to: Option<Mac>,
    pub mark: u32,
    /// Bytes of the largest piece, where it was cut.
    pub piece: Option<u32>,
    /// The packet that an ICMP error tells of, as it was where the error arose.
    pub about: Option<Tuple>,
    pub load: Option<Box<Load>>,
}

impl Packet {
    pub fn new(header: Header, kind: Kind) -> Packet {
        Packet { header, kind, first: true, to: None, mark: 0, piece: None, about: None, load: None }
    }

    /// The packet that a probe begins with.
    pub fn of(probe: &Probe) -> Packet {
        let kind = match probe.header.protocol {
            Protocol::Icmp => Kind::EchoRequest,
            Protocol::Tcp if probe.first => Kind::Syn,
            Protocol::Tcp => Kind::Segment,
            _ => Kind::Datagram,
        };
        Packet { first: probe.first, ..Packet::new(probe.header.clone(), kind) }
    }

    /// A packet in the other direction, with a length that an answer of this kind has.
    pub fn answer(to: &Packet, kind: Kind) -> Packet {
        let turned = Tuple::of(&to.header).turned();
        let length = match kind {
            Kind::SynAck => TCP,
            Kind::Reset => TCP - 20,
            _ => to.header.length,
        };
        let header = Header {
            source: turned.source,
            destination: turned.destination,
            source_port: turned.source_port,
            destination_port: turned.destination_port,
            ttl: TTL,
            length,
            dont_fragment: to.header.protocol == Protocol::Tcp,
            macs: None,
            protocol: turned.protocol,
        };
        Packet::new(header, kind)
    }

    /// The error that tells the sender of `about`; its source is chosen by routing.
    pub fn error(trouble: Trouble, about: &Packet) -> Packet {
        let quoted = about.header.length.min(576 - DATAGRAM);
        let header = Header {
            source: Probe::to(Protocol::Icmp, about.header.source, 0).header.source,
            destination: about.header.source,
            protocol: Protocol::Icmp,
            source_port: 0,
            destination_port: 0,
            ttl: TTL,
            length: DATAGRAM + quoted,
            dont_fragment: false,
            macs: None,
        };
        Packet { about: Some(Tuple::of(&about.header)), ..Packet::new(header, Kind::Error(trouble)) }
    }

    /// Bytes of the largest packet that a device is given.
    pub fn size(&self) -> u32 {
        self.piece.unwrap_or(self.header.length)
    }

    /// How many packets are around it.
    pub fn layer(&self) -> u8 {
        u8::from(self.load.is_some())
    }

    /// What it is, in the model's words.
    pub fn words(&self) -> String {
        match &self.kind {
            Kind::EchoRequest => "echo request".to_owned(),
            Kind::EchoReply => "echo reply".to_owned(),
            Kind::Syn => "SYN".to_owned(),
            Kind::SynAck => "SYN-ACK".to_owned(),
            Kind::Segment => format!("data, {} bytes", self.header.length.saturating_sub(TCP - 8)),
            Kind::Reset => "RST".to_owned(),
            Kind::Datagram => format!("data, {} bytes", self.header.length.saturating_sub(DATAGRAM)),
            Kind::Error(trouble) => trouble.words(),
        }
    }

    /// Whether an error may be sent about it (RFC 1122, 3.2.2).
    pub fn may_be_told_of(&self) -> bool {
        !self.is_load_or_error() && !self.header.source.is_unspecified()
    }

    /// Whether nobody is told of its loss.
    pub fn is_load_or_error(&self) -> bool {
        matches!(self.kind, Kind::Error(_)) || self.load.is_some()
    }
}

/// A device of a namespace, and the next hop behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    pub dev: IfName,
    /// The neighbour's address; the packet's own destination where there is no gateway.
    pub to: IpAddr,
}
