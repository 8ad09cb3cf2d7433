//! ICMP errors for packets that the daemon cannot send on: whether one may be sent at all, what is
//! in it, and how many a second. Sending is the data path's.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Instant;

use etherparse::icmpv4::{DestUnreachableHeader, TimeExceededCode};
use etherparse::{Icmpv4Header, Icmpv4Type, IpDscp, IpNumber, Ipv4Header};

use super::header::{MIN_HEADER, Packet};

/// Bytes of the largest ICMP error (RFC 1812, 4.3.2.3).
const MAX_ERROR: usize = 576;

/// Bytes of an ICMP header.
const ICMP_HEADER: usize = 8;

/// Internetwork control (CS6), the precedence of a router's own messages (RFC 1812, 4.3.2.5).
const CS6: u8 = 48;

/// What is wrong with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// No host has a lease of the destination.
    NoRoute,
    /// The time to live has run out.
    NoHopLeft,
    /// It must not be fragmented and is larger than this many bytes.
    TooLarge { mtu: u16 },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::NoRoute => f.write_str("no host can be reached that has a lease of its destination"),
            Problem::NoHopLeft => f.write_str("its time to live has run out"),
            Problem::TooLarge { mtu } => write!(f, "it must not be cut and is larger than {mtu} bytes"),
        }
    }
}

impl Problem {
    fn icmp_type(self) -> Icmpv4Type {
        match self {
            Problem::NoRoute => Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Network),
            Problem::NoHopLeft => Icmpv4Type::TimeExceeded(TimeExceededCode::TtlExceededInTransit),
            Problem::TooLarge { mtu } => {
                Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu })
            }
        }
    }
}

/// The packet that tells the sender of `about` of the problem; `None` where it must not be told
/// (RFC 1122, 3.2.2, and RFC 1812, 4.3.2.7).
pub fn error(problem: Problem, about: &Packet, from: Ipv4Addr) -> Option<Vec<u8>> {
    if !may_be_told(about) {
        return None;
    }
    let quoted = about.bytes().len().min(MAX_ERROR - MIN_HEADER - ICMP_HEADER);
    let quote = about.bytes().get(..quoted)?;
    let icmp = Icmpv4Header::with_checksum(problem.icmp_type(), quote);
    let length = u16::try_from(ICMP_HEADER + quote.len()).ok()?;
    let mut ip = Ipv4Header::new(length, 64, IpNumber::ICMP, from.octets(), about.source().octets()).ok()?;
    ip.dscp = IpDscp::try_new(CS6).ok()?;
    ip.header_checksum = ip.calc_header_checksum();
    let mut bytes = Vec::with_capacity(MAX_ERROR);
    bytes.extend_from_slice(&ip.to_bytes());
    bytes.extend_from_slice(&icmp.to_bytes());
    bytes.extend_from_slice(quote);
    Some(bytes)
}

fn may_be_told(about: &Packet) -> bool {
    let to = about.destination();
    let for_many = to.is_multicast() || to.is_broadcast() || to.is_unspecified();
    let from = about.source();
    let from_one = !(from.is_unspecified() || from.is_loopback() || from.octets()[0] >= 224);
    from_one && !for_many && !about.is_later_fragment() && !is_error(about)
}

/// Whether the packet is an ICMP error itself. A kind of ICMP that nobody knows counts as one, as
/// with the kernel.
fn is_error(packet: &Packet) -> bool {
    const QUERIES: [u8; 11] = [0, 8, 9, 10, 13, 14, 15, 16, 17, 18, 42];
    packet.protocol() == 1 && !packet.payload().first().is_some_and(|kind| QUERIES.contains(kind))
}

/// A bucket of permissions to send. The numbers are those of the kernel's `icmp_msgs_per_sec` and
/// `icmp_msgs_burst`.
#[derive(Debug)]
pub struct Allowance {
    left: f64,
    counted: Instant,
}

impl Allowance {
    const PER_SECOND: f64 = 1000.0;
    const BURST: f64 = 50.0;

    pub fn new(now: Instant) -> Allowance {
        Allowance { left: Allowance::BURST, counted: now }
    }

    /// Whether one more may be sent at `now`.
    pub fn take(&mut self, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.counted).as_secs_f64() * Allowance::PER_SECOND;
        self.left = (self.left + earned).min(Allowance::BURST);
        self.counted = now;
        let allowed = self.left >= 1.0;
        if allowed {
            self.left -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::super::header::tests::packet;
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    const SELF: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 0);
    const POD: [u8; 4] = [10, 244, 1, 2];
    const FAR: [u8; 4] = [10, 244, 9, 9];

    fn answer(problem: Problem, mut about: Vec<u8>) -> Option<Vec<u8>> {
        error(problem, &Packet::parse(&mut about).unwrap(), SELF)
    }

    #[test]
    fn it_quotes_the_packet_and_goes_to_its_sender() {
        let about = packet(1, IpNumber::UDP, [POD, FAR], b"what was sent");
        let bytes = answer(Problem::NoHopLeft, about.clone()).unwrap();
        let (ip, rest) = Ipv4Header::from_slice(&bytes).unwrap();
        assert_eq!((ip.source, ip.destination), (SELF.octets(), POD));
        assert_eq!(ip.header_checksum, ip.calc_header_checksum());
        assert_eq!((rest[0], rest[1]), (11, 0));
        let (icmp, quote) = Icmpv4Header::from_slice(rest).unwrap();
        assert_eq!(icmp.checksum, icmp.icmp_type.calc_checksum(quote));
        assert_eq!(quote, about);
    }

    #[test]
    fn each_problem_has_its_type_and_code() {
        let kind = |problem| answer(problem, packet(9, IpNumber::UDP, [POD, FAR], b"x")).unwrap()[20..28].to_vec();
        assert_eq!(kind(Problem::NoRoute)[..2], [3, 0]);
        assert_eq!(kind(Problem::NoHopLeft)[..2], [11, 0]);
        let too_large = kind(Problem::TooLarge { mtu: 1472 });
        assert_eq!(too_large[..2], [3, 4]);
        assert_eq!(too_large[6..], 1472u16.to_be_bytes());
    }

    #[test]
    fn a_long_packet_is_quoted_in_part() {
        let bytes = answer(Problem::NoRoute, packet(9, IpNumber::UDP, [POD, FAR], &[7; 1400])).unwrap();
        assert_eq!(bytes.len(), MAX_ERROR);
    }

    #[test]
    fn what_must_not_be_answered_is_not() {
        let silent = |bytes| answer(Problem::NoRoute, bytes).is_none();
        let icmp = |kind: u8| packet(9, IpNumber::ICMP, [POD, FAR], &[kind, 0, 0, 0, 0, 0, 0, 0]);
        assert!(!silent(icmp(8)), "an echo request is answered");
        for kind in [3, 4, 5, 11, 12, 200] {
            assert!(silent(icmp(kind)), "ICMP type {kind}");
        }
        assert!(silent(packet(9, IpNumber::ICMP, [POD, FAR], b"")), "ICMP without a type");
        for to in [[224, 0, 0, 1], [255; 4], [0; 4]] {
            assert!(silent(packet(9, IpNumber::UDP, [POD, to], b"x")), "to {to:?}");
        }
        for from in [[0; 4], [127, 0, 0, 1], [239, 1, 1, 1], [255; 4]] {
            assert!(silent(packet(9, IpNumber::UDP, [from, FAR], b"x")), "from {from:?}");
        }
        let mut later = packet(9, IpNumber::UDP, [POD, FAR], b"x");
        later[7] = 1;
        let sum = Ipv4Header::from_slice(&later).unwrap().0.calc_header_checksum();
        later[10..12].copy_from_slice(&sum.to_be_bytes());
        assert!(silent(later), "a later fragment");
    }

    #[test]
    fn permissions_run_out_and_come_back() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        assert_eq!((0..200).filter(|_| allowance.take(start)).count(), 50);
        let later = start + Duration::from_millis(10);
        assert_eq!((0..200).filter(|_| allowance.take(later)).count(), 10);
    }

    proptest! {
        #[test]
        fn an_error_is_bounded_and_never_begets_another(
            protocol in any::<u8>(), ends in any::<[[u8; 4]; 2]>(), payload in proptest::collection::vec(any::<u8>(), 0..2000),
        ) {
            if let Some(bytes) = answer(Problem::NoRoute, packet(9, IpNumber(protocol), ends, &payload)) {
                prop_assert!(bytes.len() <= MAX_ERROR);
                prop_assert_eq!(answer(Problem::NoRoute, bytes), None);
            }
        }
    }
}
