//! Reading a query: the header, its one question and EDNS (RFC 1035, 4.1; RFC 6891). What cannot be
//! answered is told apart here by how it is refused; what names stand for is not known.

use super::name::{self, Name};

/// Bytes of a message's header.
pub const HEADER: usize = 12;

/// Response codes that are given (RFC 1035, 4.1.1; RFC 6891, 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rcode {
    NoError = 0,
    FormErr = 1,
    ServFail = 2,
    NxDomain = 3,
    NotImp = 4,
    Refused = 5,
    BadVers = 16,
}

/// Numbers of record types that are known here (IANA, DNS parameters).
pub mod kind {
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const PTR: u16 = 12;
    pub const MX: u16 = 15;
    pub const TXT: u16 = 16;
    pub const AAAA: u16 = 28;
    pub const SRV: u16 = 33;
    pub const OPT: u16 = 41;
    pub const IXFR: u16 = 251;
    pub const AXFR: u16 = 252;
    pub const ANY: u16 = 255;
}

/// The Internet, the one class that is served.
pub const CLASS_IN: u16 = 1;

/// Header bits of the second 16-bit word.
const QR: u16 = 1 << 15;
const OPCODE: u16 = 0xf << 11;
const RD: u16 = 1 << 8;
const CD: u16 = 1 << 4;

/// What the asker says of itself in its OPT record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edns {
    /// Bytes of the largest UDP answer that it takes.
    pub size: u16,
    pub version: u8,
    /// Whether it wants DNSSEC's records; there are none, but the bit is given back (RFC 3225).
    pub dnssec: bool,
}

/// A message's first two words, as far as they return.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    pub id: [u8; 2],
    /// Opcode, RD and CD.
    pub flags: u16,
}

/// A query with one question.
#[derive(Debug)]
pub struct Query<'m> {
    pub head: Head,
    /// The question as it came, its name in the case in which it was asked: it goes back so.
    pub question: &'m [u8],
    pub name: Name,
    pub kind: u16,
    pub class: u16,
    pub edns: Option<Edns>,
}

/// What a message is.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and a box would cost more than its size")]
pub enum Asked<'m> {
    /// Not a query, or too short to be answered at all: to answer could make two servers talk
    /// for ever.
    Nothing,
    /// To be refused without its question being understood.
    Wrong(Head, Rcode),
    Query(Query<'m>),
}

fn word(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]))
}

/// Understand `message`. What is refused here is what the library under CoreDNS refuses before
/// CoreDNS sees it: another opcode, not just one question, records where a query has none.
pub fn read(message: &[u8]) -> Asked<'_> {
    let (Some(id), Some(bits)) = (message.get(..2), word(message, 2)) else { return Asked::Nothing };
    if message.len() < HEADER || bits & QR != 0 {
        return Asked::Nothing;
    }
    let head = Head { id: [id[0], id[1]], flags: bits & (OPCODE | RD | CD) };
    if bits & OPCODE != 0 {
        return Asked::Wrong(head, Rcode::NotImp);
    }
    question(message, head).map_or(Asked::Wrong(head, Rcode::FormErr), Asked::Query)
}

fn question(message: &[u8], head: Head) -> Option<Query<'_>> {
    let count = |n: usize| word(message, 4 + 2 * n);
    // IXFR has a record in the authority section; TSIG may stand beside OPT.
    if count(0)? != 1 || count(1)? > 1 || count(2)? > 1 || count(3)? > 2 {
        return None;
    }
    let name = Name::read(message.get(HEADER..)?)?;
    let end = HEADER + name.wire().len();
    let (kind, class) = (word(message, end)?, word(message, end + 2)?);
    let edns = edns(message, end + 4, count(1)? + count(2)?, count(3)?)?;
    Some(Query { head, question: message.get(HEADER..end + 4)?, name, kind, class, edns })
}

/// The OPT record among the `extra` ones that follow `before` others. `None` where a record is
/// cut off, or there are two OPTs, or one has a name (RFC 6891, 6.1.1).
fn edns(message: &[u8], mut at: usize, before: u16, extra: u16) -> Option<Option<Edns>> {
    let mut found = None;
    for n in 0..before + extra {
        let end = name::skip(message, at)?;
        let (kind, length) = (word(message, end)?, word(message, end + 8)?);
        let next = end + 10 + usize::from(length);
        message.get(end..next)?;
        if kind == kind::OPT && n >= before {
            if found.is_some() || end != at + 1 {
                return None;
            }
            let version = *message.get(end + 5)?;
            found =
                Some(Edns { size: word(message, end + 2)?, version, dnssec: word(message, end + 6)? & 0x8000 != 0 });
        }
        at = next;
    }
    Some(found)
}
