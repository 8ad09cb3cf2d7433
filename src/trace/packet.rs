//! What a trace reads in a packet: its headers, and by what the same packet is known again at another
//! place.
//!
//! A packet changes on its way: NAT rewrites addresses and ports, routers the TTL, tunnels put another
//! packet around it. What nobody changes is its [`Essence`], which can be read in the first 20 bytes
//! behind the IP header, as nf_tables tells no more of a packet that meets a rule. Packets come from
//! outside: every length is checked, and what is cut short reads as far as it goes.

mod tls;

use std::net::{IpAddr, Ipv4Addr};

use hickory_proto::op::{Message, MessageType};

use crate::lab::dns::DNS_PORT;
use crate::plan::Mac;
use crate::probe::rcode;

use super::model::{Header, Protocol};

/// By what a packet is known again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Essence {
    Tcp {
        sequence: u32,
        acknowledged: u32,
        flags: u8,
        /// Bytes of data.
        data: u16,
    },
    /// The first bytes of the data, and how many there are.
    Udp {
        begin: [u8; 12],
        data: u16,
    },
    /// An ICMP echo request or its reply. The identifier is left out, as NAT may change it, and so is the
    /// length, as a first fragment does not tell that of its packet.
    Echo {
        reply: bool,
        sequence: u16,
    },
    /// Any other ICMP message, with identification, length and protocol of the packet that it quotes.
    Icmp {
        kind: u8,
        code: u8,
        quoted: (u16, u16, u8),
    },
    /// A fragment that is not the first of its packet, with its offset in units of 8 bytes.
    Fragment {
        identification: u16,
        offset: u16,
    },
    Other {
        protocol: u8,
        identification: u16,
        data: u16,
    },
}

/// A packet as far as it was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet<'a> {
    pub header: Header,
    /// The IP header's identification; 0 says nothing.
    pub identification: u16,
    pub essence: Essence,
    /// What is behind TCP's, UDP's or ICMP's header.
    pub data: &'a [u8],
}

/// TCP's flags (RFC 9293, 3.1).
pub mod flags {
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 2;
    pub const RST: u8 = 4;
    pub const PSH: u8 = 8;
    pub const ACK: u8 = 16;
}

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const ECHO_REQUEST: u8 = 8;
const TIME_EXCEEDED: u8 = 11;

/// Stands before the name that a client asks for over TLS, where HTTP has its method.
pub const TLS: &str = "TLS";
/// Records of an answer that are told.
const MOST_RECORDS: usize = 3;
/// Bytes of an HTTP message in which its first line and host are looked for.
const LONGEST_HEAD: usize = 1024;
/// Bytes of a VXLAN header (RFC 7348).
const VXLAN_HEADER: usize = 8;
const ETHERNET_HEADER: usize = 14;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;

/// What a frame holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame<'a> {
    Ip(Packet<'a>),
    Arp(Arp),
}

/// An ARP message (RFC 826).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arp {
    pub reply: bool,
    pub sender: Ipv4Addr,
    pub sender_mac: Mac,
    pub target: Ipv4Addr,
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn ip(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    word(bytes, at).map(Ipv4Addr::from)
}

fn mac(bytes: &[u8], at: usize) -> Option<String> {
    Some(Mac(bytes.get(at..at + 6)?.try_into().ok()?).to_string())
}

/// Read an Ethernet frame.
pub fn ethernet(bytes: &[u8]) -> Option<Frame<'_>> {
    match half(bytes, 12)? {
        ETHERTYPE_IPV4 => {
            let mut packet = ipv4(bytes.get(ETHERNET_HEADER..)?)?;
            packet.header.macs = mac(bytes, 6).zip(mac(bytes, 0));
            Some(Frame::Ip(packet))
        }
        ETHERTYPE_ARP => arp(bytes.get(ETHERNET_HEADER..)?).map(Frame::Arp),
        _ => None,
    }
}

fn arp(bytes: &[u8]) -> Option<Arp> {
    let sender_mac = Mac(bytes.get(8..14)?.try_into().ok()?);
    Some(Arp { reply: half(bytes, 6)? == 2, sender: ip(bytes, 14)?, sender_mac, target: ip(bytes, 24)? })
}

/// Read an IPv4 packet.
pub fn ipv4(bytes: &[u8]) -> Option<Packet<'_>> {
    let length = header_length(bytes)?;
    parts(bytes.get(..length)?, bytes.get(length..)?)
}

fn header_length(bytes: &[u8]) -> Option<usize> {
    let first = *bytes.first()?;
    let length = usize::from(first & 0x0f) * 4;
    (first >> 4 == 4 && length >= 20).then_some(length)
}

/// A packet whose IP header and what follows were told apart, as nf_tables does. Of the header, 20 bytes
/// are enough.
pub fn parts<'a>(network: &[u8], behind: &'a [u8]) -> Option<Packet<'a>> {
    let header_length = header_length(network)?;
    let total = half(network, 2)?;
    let identification = half(network, 4)?;
    let fragment = half(network, 6)?;
    let number = *network.get(9)?;
    let behind_length = total.saturating_sub(u16::try_from(header_length).ok()?);
    let (protocol, ends) = (protocol(number), if fragment & 0x1fff == 0 { ports(number, behind) } else { None });
    let (source_port, destination_port) = ends.unwrap_or((0, 0));
    let header = Header {
        source: IpAddr::V4(ip(network, 12)?),
        destination: IpAddr::V4(ip(network, 16)?),
        protocol,
        source_port,
        destination_port,
        ttl: *network.get(8)?,
        length: total.into(),
        dont_fragment: fragment & 0x4000 != 0,
        macs: None,
    };
    let (essence, skip) = match fragment & 0x1fff {
        0 => essence(number, behind, behind_length)
            .unwrap_or((Essence::Other { protocol: number, identification, data: behind_length }, 0)),
        offset => (Essence::Fragment { identification, offset }, 0),
    };
    Some(Packet { header, identification, essence, data: behind.get(skip..).unwrap_or_default() })
}

fn protocol(number: u8) -> Protocol {
    match number {
        ICMP => Protocol::Icmp,
        TCP => Protocol::Tcp,
        UDP => Protocol::Udp,
        SCTP => Protocol::Sctp,
        _ => Protocol::Other,
    }
}

fn ports(number: u8, behind: &[u8]) -> Option<(u16, u16)> {
    match number {
        TCP | UDP | SCTP => Some((half(behind, 0)?, half(behind, 2)?)),
        ICMP if matches!(behind.first()?, &ECHO_REPLY | &ECHO_REQUEST) => half(behind, 4).map(|id| (id, id)),
        _ => None,
    }
}

/// The essence of a packet that is no later fragment, and the bytes of its transport header.
fn essence(number: u8, behind: &[u8], length: u16) -> Option<(Essence, usize)> {
    match number {
        TCP => {
            let header = usize::from(*behind.get(12)? >> 4) * 4;
            let data = length.saturating_sub(u16::try_from(header).ok()?);
            let flags = *behind.get(13)?;
            Some((Essence::Tcp { sequence: word(behind, 4)?, acknowledged: word(behind, 8)?, flags, data }, header))
        }
        UDP => {
            let mut begin = [0; 12];
            let there = behind.get(8..)?;
            let kept = there.len().min(begin.len());
            begin[..kept].copy_from_slice(&there[..kept]);
            Some((Essence::Udp { begin, data: half(behind, 4)?.saturating_sub(8) }, 8))
        }
        ICMP => {
            let (kind, code) = (*behind.first()?, *behind.get(1)?);
            if matches!(kind, ECHO_REPLY | ECHO_REQUEST) {
                return Some((Essence::Echo { reply: kind == ECHO_REPLY, sequence: half(behind, 6)? }, 8));
            }
            let quoted = behind.get(8..)?;
            let of = (half(quoted, 4)?, half(quoted, 2)?, *quoted.get(9)?);
            Some((Essence::Icmp { kind, code, quoted: of }, 8))
        }
        _ => None,
    }
}

impl<'a> Packet<'a> {
    /// The packet inside, where this is VXLAN's on `port`.
    pub fn in_vxlan(&self, port: u16) -> Option<Packet<'a>> {
        if self.header.protocol != Protocol::Udp || self.header.destination_port != port {
            return None;
        }
        match ethernet(self.data.get(VXLAN_HEADER..)?)? {
            Frame::Ip(packet) => Some(packet),
            Frame::Arp(_) => None,
        }
    }

    /// The VNI, where this is VXLAN's on `port`.
    pub fn vni(&self, port: u16) -> Option<u32> {
        self.in_vxlan(port).and(word(self.data, 4)).map(|word| word >> 8)
    }

    /// The packet inside, where this is one of flannel's udp back end on `port`.
    pub fn in_flannel_udp(&self, port: u16) -> Option<Packet<'a>> {
        let is = self.header.protocol == Protocol::Udp && self.header.destination_port == port;
        is.then(|| ipv4(self.data)).flatten()
    }

    /// The packet that an ICMP error is about.
    pub fn quoted(&self) -> Option<Packet<'a>> {
        matches!(self.essence, Essence::Icmp { .. }).then(|| ipv4(self.data)).flatten()
    }

    /// What a program says in it, where that is HTTP in clear text, or the name that it asks for over TLS.
    pub fn said(&self) -> Option<String> {
        if matches!(self.essence, Essence::Tcp { data: 1.., .. }) {
            http(self.data).or_else(|| tls(self.data))
        } else {
            None
        }
    }

    /// What it is, in a few words: `SYN`, `data, 78 bytes`, `echo request`.
    pub fn kind(&self) -> String {
        match self.essence {
            Essence::Tcp { flags, data, .. } => tcp_kind(flags, data),
            Essence::Udp { .. } if [self.header.source_port, self.header.destination_port].contains(&DNS_PORT) => {
                dns_kind(self.data).unwrap_or_else(|| "datagram to or from port 53".to_owned())
            }
            Essence::Udp { data, .. } => format!("datagram, {data} bytes"),
            Essence::Echo { reply: false, .. } => "echo request".to_owned(),
            Essence::Echo { reply: true, .. } => "echo reply".to_owned(),
            Essence::Icmp { kind, code, .. } => icmp_kind(kind, code),
            Essence::Fragment { offset, .. } => format!("fragment, from byte {}", u32::from(offset) * 8),
            Essence::Other { protocol, data, .. } => format!("protocol {protocol}, {data} bytes"),
        }
    }
}

/// The beginning of an HTTP/1 message (RFC 9112, 2): `GET cafe.example.com/tea`, `HTTP 404 Not Found`.
fn http(bytes: &[u8]) -> Option<String> {
    let head = &bytes[..bytes.len().min(LONGEST_HEAD)];
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n");
    let first = lines.next()?;
    if let Some(status) = first.strip_prefix("HTTP/1.").and_then(|rest| rest.split_once(' ')) {
        return Some(format!("HTTP {}", status.1));
    }
    let (request, _) = first.rsplit_once(" HTTP/1.")?;
    let (method, target) = request.split_once(' ')?;
    let host = lines.find_map(|line| line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("host")));
    method.bytes().all(|b| b.is_ascii_uppercase()).then(|| {
        let host = host.map(|(_, host)| host.trim()).unwrap_or_default();
        format!("{method} {host}{target}")
    })
}

/// The beginning of a TLS client's connection: `TLS cafe.example.com`.
fn tls(bytes: &[u8]) -> Option<String> {
    tls::name(bytes).map(|name| format!("{TLS} {name}"))
}

/// A DNS message that was kept whole: `query A tea-svc.default.svc.cluster.local`, `answer A … 10.96.0.100`.
fn dns_kind(bytes: &[u8]) -> Option<String> {
    let message = Message::from_vec(bytes).ok()?;
    let query = message.queries.first()?;
    let name = query.name().to_utf8();
    let asked = format!("{} {}", query.query_type(), name.trim_end_matches('.'));
    if message.metadata.message_type == MessageType::Query {
        return Some(format!("query {asked}"));
    }
    let records: Vec<String> = message.answers.iter().take(MOST_RECORDS).map(|r| r.data.to_string()).collect();
    let told = if records.is_empty() { rcode(message.metadata.response_code) } else { records.join(", ") };
    Some(format!("answer {asked}: {told}"))
}

fn tcp_kind(flags: u8, data: u16) -> String {
    let has = |flag: u8| flags & flag != 0;
    let name = match () {
        () if has(flags::RST) => "RST",
        () if has(flags::SYN) && has(flags::ACK) => "SYN-ACK",
        () if has(flags::SYN) => "SYN",
        () if has(flags::FIN) => "FIN",
        () if data > 0 => "data",
        () => "ACK",
    };
    if data > 0 { format!("{name}, {data} bytes") } else { name.to_owned() }
}

fn icmp_kind(kind: u8, code: u8) -> String {
    let words = match (kind, code) {
        (UNREACHABLE, 0) => "destination unreachable: network",
        (UNREACHABLE, 1) => "destination unreachable: host",
        (UNREACHABLE, 2) => "destination unreachable: protocol",
        (UNREACHABLE, 3) => "destination unreachable: port",
        (UNREACHABLE, 4) => "destination unreachable: fragmentation needed",
        (UNREACHABLE, 9 | 10 | 13) => "destination unreachable: prohibited",
        (TIME_EXCEEDED, 0) => "time exceeded: TTL ran out",
        (5, _) => "redirect",
        _ => return format!("ICMP type {kind}, code {code}"),
    };
    words.to_owned()
}

#[cfg(test)]
mod tests;
