//! What stands in a recorded frame, read without any of labctl's own code.

use std::net::Ipv4Addr;

use labctl::lab::Backend;
use labctl::lab::names::NsName;

use crate::capture::Frame;

/// An IPv4 packet's header, as far as it is compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Header {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub protocol: u8,
    /// Of TCP and UDP, 0 for what else there is and for later fragments.
    pub ports: (u16, u16),
    pub ttl: u8,
    pub length: u16,
}

/// An IPv4 packet at a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    pub at: u64,
    pub place: NsName,
    pub dev: String,
    pub outgoing: bool,
    /// The header next to the device.
    pub outer: Header,
    /// What a tunnel's packet carries.
    pub inner: Option<Header>,
    /// What of the packet (the inner one) nobody may change on its way: everything behind the addresses, ports, the
    /// echo's identifier and checksums, as far as it was kept.
    pub core: Vec<u8>,
}

impl Sighting {
    /// The header of the packet itself.
    pub fn header(&self) -> &Header {
        self.inner.as_ref().unwrap_or(&self.outer)
    }
}

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

const ETHERNET: usize = 14;
const VXLAN: usize = 8;
/// Bytes that are compared.
const CORE: usize = 200;

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// A packet's header and what is behind it.
fn packet(bytes: &[u8]) -> Option<(Header, &[u8])> {
    let first = *bytes.first()?;
    let behind = bytes.get(usize::from(first & 15) * 4..).filter(|_| first >> 4 == 4)?;
    let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?));
    let protocol = bytes[9];
    let whole = half(bytes, 6)? & 0x1fff == 0;
    let ports = match protocol {
        TCP | UDP if whole => (half(behind, 0)?, half(behind, 2)?),
        _ => (0, 0),
    };
    let (source, destination) = (address(12)?, address(16)?);
    Some((Header { source, destination, protocol, ports, ttl: bytes[8], length: half(bytes, 2)? }, behind))
}

/// What stays as it is behind a header.
fn core(header: &Header, behind: &[u8]) -> Vec<u8> {
    let without = |from: usize, gap: std::ops::Range<usize>| {
        let stays = behind.iter().enumerate().filter(|(n, _)| *n >= from && !gap.contains(n));
        stays.map(|(_, b)| *b).collect()
    };
    match header.protocol {
        TCP if header.ports != (0, 0) => without(4, 16..18),
        UDP if header.ports != (0, 0) => without(4, 6..8),
        // An error quotes headers, which are translated with it.
        ICMP if matches!(behind.first(), Some(0 | 8)) => without(0, 2..6),
        ICMP => behind.iter().take(2).copied().collect(),
        _ => behind.to_vec(),
    }
}

/// Read a frame; nothing where it is no IPv4, or no machine's own business (multicast).
pub fn read(frame: &Frame, backend: &Backend) -> Option<Sighting> {
    let ip = if frame.ethernet {
        frame.bytes.get(ETHERNET..).filter(|_| half(&frame.bytes, 12) == Some(0x0800))?
    } else {
        &frame.bytes[..]
    };
    let (outer, behind) = packet(ip)?;
    let carried = match backend {
        Backend::Vxlan { port, .. } if (outer.protocol, outer.ports.1) == (UDP, *port) => {
            let frame = behind.get(8 + VXLAN..)?;
            if half(frame, 12) != Some(0x0800) {
                return None;
            }
            packet(frame.get(ETHERNET..)?)
        }
        Backend::Udp { port } if (outer.protocol, outer.ports.1) == (UDP, *port) => packet(behind.get(8..)?),
        _ => None,
    };
    let mut core = match &carried {
        Some((inner, behind)) => core(inner, behind),
        None => core(&outer, behind),
    };
    // As much as is there of every sighting, also inside a tunnel's packet.
    core.truncate(CORE);
    let inner = carried.map(|(inner, _)| inner);
    let sighting = Sighting {
        at: frame.at,
        place: frame.place.clone(),
        dev: frame.dev.clone(),
        outgoing: frame.outgoing,
        outer,
        inner,
        core,
    };
    (!sighting.header().destination.is_multicast()).then_some(sighting)
}
