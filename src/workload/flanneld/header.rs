//! The IPv4 header of a packet on its way: is it sane, where does it go, one hop less. Bytes in,
//! bytes changed; nothing here reads or sends.

use std::net::Ipv4Addr;

/// Bytes of a header without options.
pub const MIN_HEADER: usize = 20;

const TOTAL_LENGTH: usize = 2;
const IDENTIFICATION: usize = 4;
const FRAGMENT: usize = 6;
const TTL: usize = 8;
const PROTOCOL: usize = 9;
const SOURCE: usize = 12;
const DESTINATION: usize = 16;

const DONT_FRAGMENT: u16 = 0x4000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// A packet whose header was found sane: version, lengths and checksum (RFC 1812, 5.2.2). It ends
/// where its header says; what follows it in the buffer is cut off.
#[derive(Debug)]
pub struct Packet<'a> {
    bytes: &'a mut [u8],
    header_len: usize,
}

impl<'a> Packet<'a> {
    /// `None` where the bytes are no IPv4 packet, which a router drops without a word.
    pub fn parse(bytes: &'a mut [u8]) -> Option<Packet<'a>> {
        let first = *bytes.first()?;
        let header_len = usize::from(first & 0x0f) * 4;
        let total = usize::from(word(bytes, TOTAL_LENGTH)?);
        if first >> 4 != 4 || header_len < MIN_HEADER || total < header_len {
            return None;
        }
        let bytes = bytes.get_mut(..total)?;
        let valid = sum(bytes.get(..header_len)?) == 0xffff;
        valid.then_some(Packet { bytes, header_len })
    }

    pub fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// What the header carries.
    pub fn payload(&self) -> &[u8] {
        self.bytes.get(self.header_len..).unwrap_or_default()
    }

    pub fn source(&self) -> Ipv4Addr {
        self.address(SOURCE)
    }

    pub fn destination(&self) -> Ipv4Addr {
        self.address(DESTINATION)
    }

    pub fn identification(&self) -> u16 {
        word(self.bytes, IDENTIFICATION).unwrap_or(0)
    }

    pub fn protocol(&self) -> u8 {
        self.bytes.get(PROTOCOL).copied().unwrap_or(0)
    }

    pub fn dont_fragment(&self) -> bool {
        self.fragment_word() & DONT_FRAGMENT != 0
    }

    /// Whether it is a fragment without the beginning of what it carries.
    pub fn is_later_fragment(&self) -> bool {
        self.fragment_word() & FRAGMENT_OFFSET != 0
    }

    /// Whether it may be sent on.
    pub fn has_hop(&self) -> bool {
        self.bytes.get(TTL).is_some_and(|ttl| *ttl > 1)
    }

    /// Take one hop off and mend the checksum by the difference (RFC 1624, equation 3). `false`,
    /// and nothing changed, where no hop is left for the packet to be sent on.
    pub fn take_hop(&mut self) -> bool {
        let Some([ttl, protocol, high, low]) = self.bytes.get_mut(TTL..SOURCE) else { return false };
        if *ttl <= 1 {
            return false;
        }
        let old = u16::from_be_bytes([*ttl, *protocol]);
        *ttl -= 1;
        let new = u16::from_be_bytes([*ttl, *protocol]);
        [*high, *low] = replaced(u16::from_be_bytes([*high, *low]), old, new).to_be_bytes();
        true
    }

    fn fragment_word(&self) -> u16 {
        word(self.bytes, FRAGMENT).unwrap_or(0)
    }

    fn address(&self, at: usize) -> Ipv4Addr {
        let octets = self.bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
        octets.map_or(Ipv4Addr::UNSPECIFIED, |octets| Ipv4Addr::from(*octets))
    }
}

/// The checksum after one 16-bit word changed from `old` to `new`.
fn replaced(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(u64::from(!checksum) + u64::from(!old) + u64::from(new))
}

/// The ones' complement sum of the bytes, which is 0xffff over a header with the right checksum.
fn sum(bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks::<2>();
    let sum: u64 = words.iter().map(|pair| u64::from(u16::from_be_bytes(*pair))).sum();
    fold(sum + rest.first().map_or(0, |last| u64::from(*last) << 8))
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk::<2>().map(|pair| u16::from_be_bytes(*pair))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use etherparse::{IpNumber, Ipv4Header};
    use proptest::prelude::*;

    /// A packet with a correct header, as etherparse makes it.
    pub fn packet(ttl: u8, protocol: IpNumber, ends: [[u8; 4]; 2], payload: &[u8]) -> Vec<u8> {
        let mut header = Ipv4Header::new(payload.len() as u16, ttl, protocol, ends[0], ends[1]).unwrap();
        header.header_checksum = header.calc_header_checksum();
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend_from_slice(payload);
        bytes
    }

    const ENDS: [[u8; 4]; 2] = [[10, 244, 1, 2], [10, 244, 2, 3]];

    #[test]
    fn the_fields_are_read_and_the_tail_is_cut() {
        let mut bytes = packet(64, IpNumber::UDP, ENDS, b"payload");
        bytes.extend_from_slice(b"behind");
        let packet = Packet::parse(&mut bytes).unwrap();
        assert_eq!(packet.source(), Ipv4Addr::new(10, 244, 1, 2));
        assert_eq!(packet.destination(), Ipv4Addr::new(10, 244, 2, 3));
        assert_eq!(packet.protocol(), 17);
        assert_eq!(packet.payload(), b"payload");
        assert!(!packet.is_later_fragment());
    }

    #[test]
    fn what_is_no_packet_is_refused() {
        let good = packet(64, IpNumber::UDP, ENDS, b"payload");
        let spoilt = |change: fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            Packet::parse(&mut bytes).is_none()
        };
        assert!(!spoilt(|_| {}));
        assert!(spoilt(Vec::clear));
        assert!(spoilt(|b| b[0] = 0x65), "another version");
        assert!(spoilt(|b| b[0] = 0x44), "a header of 16 bytes");
        assert!(spoilt(|b| b[0] = 0x4f), "a header longer than the packet");
        assert!(spoilt(|b| b.truncate(25)), "shorter than it says");
        assert!(spoilt(|b| b[3] = 19), "a total shorter than the header");
        assert!(spoilt(|b| b[12] ^= 1), "a wrong checksum");
    }

    #[test]
    fn the_last_hop_is_not_taken() {
        for ttl in [0, 1] {
            let mut bytes = packet(ttl, IpNumber::UDP, ENDS, b"");
            let before = bytes.clone();
            assert!(!Packet::parse(&mut bytes).unwrap().take_hop());
            assert_eq!(bytes, before);
        }
    }

    proptest! {
        #[test]
        fn the_checksum_after_a_hop_is_the_one_computed_afresh(
            ttl in 2u8.., tos in any::<u8>(), id in any::<u16>(), protocol in any::<u8>(), ends in any::<[[u8; 4]; 2]>(),
        ) {
            let mut bytes = packet(ttl, IpNumber(protocol), ends, b"");
            bytes[1] = tos;
            bytes[4..6].copy_from_slice(&id.to_be_bytes());
            let fresh = Ipv4Header::from_slice(&bytes).unwrap().0.calc_header_checksum();
            bytes[10..12].copy_from_slice(&fresh.to_be_bytes());
            prop_assert!(Packet::parse(&mut bytes).unwrap().take_hop());
            let (after, _) = Ipv4Header::from_slice(&bytes).unwrap();
            prop_assert_eq!(after.time_to_live, ttl - 1);
            prop_assert_eq!(after.header_checksum, after.calc_header_checksum());
        }

        #[test]
        fn any_bytes_are_taken_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let length = bytes.len();
            if let Some(mut packet) = Packet::parse(&mut bytes) {
                packet.take_hop();
                prop_assert!(packet.bytes().len() <= length);
            }
        }
    }
}
