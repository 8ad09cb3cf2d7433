//! ICMP for IPv4 (RFC 792): the echo request that a ping sends, what comes back, and the words
//! for the errors that routers and hosts send. No sockets here.

use std::net::{IpAddr, Ipv4Addr};

use crate::spec::probe::FailureName;

/// Bytes of an IPv4 header without options and of an ICMP echo header.
pub const HEADERS: usize = 28;

const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const ECHO_REQUEST: u8 = 8;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;
const IPPROTO_ICMP: u8 = 1;

/// How a ping's packets are told from others': echoed in answers and quoted in errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag {
    pub identifier: u16,
    pub sequence: u16,
}

/// An ICMP error message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Who says so.
    pub by: IpAddr,
    /// The message's type and code.
    pub kind: u8,
    pub code: u8,
    /// The next link's MTU in bytes, where a packet was too large (RFC 1191); 0 is "not said".
    pub mtu: u32,
}

/// What a received packet means for the sender of an echo request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    Reply { from: Ipv4Addr, ttl: u8 },
    Error(Told),
}

/// An echo request so large that its IP packet has `size` bytes (at least [`HEADERS`]).
pub fn echo_request(tag: Tag, size: usize) -> Vec<u8> {
    let mut message = vec![ECHO_REQUEST, 0, 0, 0, 0, 0, 0, 0];
    message[4..6].copy_from_slice(&tag.identifier.to_be_bytes());
    message[6..8].copy_from_slice(&tag.sequence.to_be_bytes());
    message.extend((0..size.saturating_sub(HEADERS)).map(|n| n as u8));
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// What an IPv4 packet from a raw ICMP socket says about the echo request with this tag; `None`
/// where it is about something else.
pub fn heard(packet: &[u8], tag: Tag) -> Option<Heard> {
    let (header, message) = split(packet)?;
    let from = Ipv4Addr::from(<[u8; 4]>::try_from(header.get(12..16)?).ok()?);
    match *message.first()? {
        ECHO_REPLY if tag_of(message)? == tag => Some(Heard::Reply { from, ttl: header[8] }),
        kind @ (UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM) => {
            // An error quotes the packet that it is about: its IP header and at least 8 bytes.
            let (inner, quoted) = split(message.get(8..)?)?;
            let ours = inner[9] == IPPROTO_ICMP && *quoted.first()? == ECHO_REQUEST && tag_of(quoted)? == tag;
            let mtu = u32::from(u16::from_be_bytes([message[6], message[7]]));
            ours.then_some(Heard::Error(Told { by: from.into(), kind, code: message[1], mtu }))
        }
        _ => None,
    }
}

/// An IPv4 packet's header and what follows it.
fn split(packet: &[u8]) -> Option<(&[u8], &[u8])> {
    let first = *packet.first()?;
    let length = usize::from(first & 0x0f) * 4;
    if first >> 4 != 4 || length < 20 {
        return None;
    }
    packet.split_at_checked(length)
}

fn tag_of(message: &[u8]) -> Option<Tag> {
    let bytes = message.get(4..8)?;
    Some(Tag {
        identifier: u16::from_be_bytes([bytes[0], bytes[1]]),
        sequence: u16::from_be_bytes([bytes[2], bytes[3]]),
    })
}

impl Told {
    /// The failure that the message stands for.
    pub fn failure(&self) -> FailureName {
        match (self.kind, self.code) {
            (UNREACHABLE, 3) => FailureName::Refused,
            (UNREACHABLE, 4) => FailureName::TooBig,
            (TIME_EXCEEDED, 0) => FailureName::TtlExceeded,
            (TIME_EXCEEDED, _) => FailureName::Timeout,
            (UNREACHABLE, _) => FailureName::Unreachable,
            _ => FailureName::Protocol,
        }
    }

    /// The message in words.
    pub fn words(&self) -> String {
        let words = match (self.kind, self.code) {
            (UNREACHABLE, 0) => "network unreachable",
            (UNREACHABLE, 1) => "host unreachable",
            (UNREACHABLE, 2) => "protocol unreachable",
            (UNREACHABLE, 3) => "port unreachable",
            (UNREACHABLE, 4) if self.mtu > 0 => {
                return format!("too large for the next link, which takes {} bytes", self.mtu);
            }
            (UNREACHABLE, 4) => "too large for the next link",
            (UNREACHABLE, 5) => "source route failed",
            (UNREACHABLE, 6) => "network unknown",
            (UNREACHABLE, 7) => "host unknown",
            (UNREACHABLE, 9) => "network prohibited",
            (UNREACHABLE, 10) => "host prohibited",
            (UNREACHABLE, 11) => "network unreachable for this type of service",
            (UNREACHABLE, 12) => "host unreachable for this type of service",
            (UNREACHABLE, 13) => "communication prohibited by a filter",
            (TIME_EXCEEDED, 0) => "time to live exceeded",
            (TIME_EXCEEDED, 1) => "not all fragments came in time",
            (kind, code) => return format!("ICMP type {kind} code {code}"),
        };
        words.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: Tag = Tag { identifier: 0xabcd, sequence: 7 };

    fn packet(source: [u8; 4], ttl: u8, message: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, ttl, IPPROTO_ICMP, 0, 0];
        packet.extend(source);
        packet.extend([10, 0, 0, 1]);
        packet.extend(message);
        packet
    }

    fn error(kind: u8, code: u8, mtu: u16, quoted: &[u8]) -> Vec<u8> {
        let mut message = vec![kind, code, 0, 0, 0, 0];
        message.extend(mtu.to_be_bytes());
        message.extend(packet([10, 0, 0, 1], 1, &quoted[..8]));
        message
    }

    #[test]
    fn a_request_has_the_size_asked_for_and_a_checksum_that_holds() {
        for size in [HEADERS, 84, 85, 1500] {
            let message = echo_request(TAG, size);
            assert_eq!(message.len() + 20, size);
            assert_eq!(checksum(&message), 0, "over the whole message with its checksum, for {size}");
        }
    }

    #[test]
    fn a_reply_is_known_by_its_tag() {
        let mut message = echo_request(TAG, 84);
        message[0] = ECHO_REPLY;
        let bytes = packet([10, 0, 0, 9], 62, &message);
        assert_eq!(heard(&bytes, TAG), Some(Heard::Reply { from: [10, 0, 0, 9].into(), ttl: 62 }));
        assert_eq!(heard(&bytes, Tag { sequence: 8, ..TAG }), None);
        assert_eq!(heard(&packet([10, 0, 0, 1], 64, &echo_request(TAG, 84)), TAG), None, "a request is no answer");
    }

    #[test]
    fn an_error_is_known_by_the_packet_it_quotes() {
        let request = echo_request(TAG, 84);
        let bytes = packet([192, 168, 1, 254], 64, &error(UNREACHABLE, 4, 1450, &request));
        let Some(Heard::Error(told)) = heard(&bytes, TAG) else { panic!("not understood") };
        assert_eq!(told, Told { by: [192, 168, 1, 254].into(), kind: 3, code: 4, mtu: 1450 });
        assert_eq!(told.failure(), FailureName::TooBig);
        assert!(told.words().contains("1450"));
        assert_eq!(heard(&bytes, Tag { identifier: 1, ..TAG }), None);
    }

    #[test]
    fn a_cut_or_foreign_packet_means_nothing() {
        let request = echo_request(TAG, 84);
        let bytes = packet([192, 168, 1, 254], 64, &error(TIME_EXCEEDED, 0, 0, &request));
        assert!(heard(&bytes, TAG).is_some());
        for end in 0..bytes.len() {
            assert_eq!(heard(&bytes[..end], TAG), None, "cut at {end}");
        }
        assert_eq!(heard(&[0x60; 60], TAG), None, "IPv6");
    }
}
