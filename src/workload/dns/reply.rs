//! Writing an answer: header, question, records, OPT, within a number of bytes (RFC 1035, 4.1).
//! What does not fit is left out, and the answer says that it is truncated. Which records there are
//! is decided elsewhere.
//!
//! A name that has been written is pointed to (RFC 1035, 4.1.4), so that the asker's own spelling
//! of the question comes back in every record. The target of an SRV record is written in full, as
//! RFC 2782 has it.

use std::net::IpAddr;

use super::name::MAX_NAME;
use super::query::{CLASS_IN, Edns, HEADER, Head, Query, Rcode, kind};

/// Where the question's name stands in every answer.
pub const QUESTION: usize = HEADER;
/// The largest offset that a compression pointer can hold.
const MAX_POINTER: usize = 0x3fff;
/// Bytes of an OPT record without options.
const OPT: usize = 11;
/// The size of UDP message that is said to be taken: what passes any network unfragmented.
const OWN_SIZE: u16 = 1232;

const QR: u16 = 1 << 15;
const AA: u16 = 1 << 10;
const TC: u16 = 1 << 9;
const RA: u16 = 1 << 7;

/// The three sections behind the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    Answer = 1,
    Authority = 2,
    Additional = 3,
}

/// A name to be written: some labels, then a tail that ends with the root.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    pub head: &'a [u8],
    pub tail: &'a [u8],
    /// Where the tail stands in the answer already, so that it can be pointed to.
    pub tail_at: Option<usize>,
}

impl<'a> Target<'a> {
    /// A whole name, which stands nowhere yet.
    pub fn whole(wire: &'a [u8]) -> Target<'a> {
        Target { head: &[], tail: wire, tail_at: None }
    }
}

/// An answer in the making.
pub struct Reply<'b> {
    buffer: &'b mut Vec<u8>,
    /// Bytes that all but the OPT record may take.
    limit: usize,
    flags: u16,
    counts: [u16; 4],
    edns: Option<Edns>,
    truncated: bool,
}

/// Refuse a message whose question was not understood: a header alone.
pub fn refuse(buffer: &mut Vec<u8>, head: Head, code: Rcode) {
    buffer.clear();
    buffer.extend_from_slice(&head.id);
    buffer.extend_from_slice(&(head.flags | QR | code as u16).to_be_bytes());
    buffer.extend_from_slice(&[0; 8]);
}

impl<'b> Reply<'b> {
    /// Begin an answer of at most `limit` bytes with the question.
    pub fn to(query: &Query<'_>, limit: usize, buffer: &'b mut Vec<u8>) -> Reply<'b> {
        buffer.clear();
        buffer.extend_from_slice(&query.head.id);
        buffer.extend_from_slice(&[0; HEADER - 2]);
        buffer.extend_from_slice(query.question);
        let limit = limit.saturating_sub(if query.edns.is_some() { OPT } else { 0 });
        let flags = query.head.flags | QR;
        Reply { buffer, limit, flags, counts: [1, 0, 0, 0], edns: query.edns, truncated: false }
    }

    /// Say that the answer is from who knows, not from who has heard.
    pub fn authoritative(&mut self) {
        self.flags |= AA;
    }

    /// Say that names of others are looked up, too.
    pub fn recursive(&mut self) {
        self.flags |= RA;
    }

    pub fn has_answers(&self) -> bool {
        self.counts[Section::Answer as usize] > 0
    }

    /// Write the header and OPT.
    pub fn finish(mut self, code: Rcode) {
        if let Some(edns) = self.edns {
            self.buffer.push(0);
            self.u16(kind::OPT);
            self.u16(OWN_SIZE);
            // The upper bits of the code, version 0, the flags.
            self.buffer.push((code as u16 >> 4) as u8);
            self.buffer.push(0);
            self.u16(if edns.dnssec { 0x8000 } else { 0 });
            self.u16(0);
            self.counts[Section::Additional as usize] += 1;
        }
        let truncated = if self.truncated { TC } else { 0 };
        let flags = self.flags | truncated | (code as u16 & 0xf);
        let words = [flags, self.counts[0], self.counts[1], self.counts[2], self.counts[3]];
        for (place, word) in self.buffer.iter_mut().skip(2).zip(words.iter().flat_map(|w| w.to_be_bytes())) {
            *place = word;
        }
    }

    fn u16(&mut self, number: u16) {
        self.buffer.extend_from_slice(&number.to_be_bytes());
    }

    /// Add a record whose owner's name stands at `owner`. Returns where its data begin; `None`
    /// where it did not fit, after which nothing else is added.
    fn record(&mut self, at: At, owner: usize, kind: u16, data: impl FnOnce(&mut Self)) -> Option<usize> {
        if self.truncated {
            return None;
        }
        let start = self.buffer.len();
        self.pointer(owner);
        self.u16(kind);
        self.u16(CLASS_IN);
        self.buffer.extend_from_slice(&at.ttl.to_be_bytes());
        let length_at = self.buffer.len();
        self.u16(0);
        data(self);
        let length = self.buffer.len() - length_at - 2;
        if self.buffer.len() > self.limit {
            self.buffer.truncate(start);
            self.truncated = true;
            return None;
        }
        let length = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
        self.buffer.get_mut(length_at..length_at + 2)?.copy_from_slice(&length);
        self.counts[at.section as usize] += 1;
        Some(length_at + 2)
    }

    /// The name that stands at `at`; in full where a pointer does not reach.
    fn pointer(&mut self, at: usize) {
        match u16::try_from(at).ok().filter(|_| at <= MAX_POINTER) {
            Some(at) => self.u16(0xc000 | at),
            None => {
                // A pointer within the name is as good at its new place.
                let end = super::name::skip(self.buffer, at).unwrap_or(at);
                self.buffer.extend_from_within(at..end);
            }
        }
    }

    fn name(&mut self, name: Target<'_>) {
        self.buffer.extend_from_slice(name.head);
        match name.tail_at {
            Some(at) => self.pointer(at),
            None => self.buffer.extend_from_slice(name.tail),
        }
    }

    pub fn address(&mut self, at: At, owner: usize, ip: IpAddr) {
        let (kind, octets) = match ip {
            IpAddr::V4(v4) => (kind::A, &v4.octets()[..]),
            IpAddr::V6(v6) => (kind::AAAA, &v6.octets()[..]),
        };
        self.record(at, owner, kind, |r| r.buffer.extend_from_slice(octets));
    }

    /// A record that consists of a name: CNAME, NS, PTR. Returns where that name stands.
    pub fn pointing(&mut self, at: At, owner: usize, kind: u16, target: Target<'_>) -> Option<usize> {
        if !fits(target) {
            return None;
        }
        self.record(at, owner, kind, |r| r.name(target))
    }

    /// Returns where the target's name stands.
    pub fn srv(&mut self, at: At, owner: usize, numbers: [u16; 3], target: Target<'_>) -> Option<usize> {
        if !fits(target) {
            return None;
        }
        let data = self.record(at, owner, kind::SRV, |r| {
            numbers.iter().for_each(|n| r.u16(*n));
            r.buffer.extend_from_slice(target.head);
            r.buffer.extend_from_slice(target.tail);
        });
        data.map(|data| data + 6)
    }

    pub fn mx(&mut self, at: At, owner: usize, preference: u16, exchange: Target<'_>) {
        self.record(at, owner, kind::MX, |r| {
            r.u16(preference);
            r.name(exchange);
        });
    }

    /// One TXT record of one text, in strings of at most 255 bytes (RFC 1035, 3.3.14).
    pub fn txt(&mut self, at: At, owner: usize, text: &[u8]) {
        self.record(at, owner, kind::TXT, |r| {
            if text.is_empty() {
                r.buffer.push(0);
            }
            for part in text.chunks(255) {
                r.buffer.push(u8::try_from(part.len()).unwrap_or(u8::MAX));
                r.buffer.extend_from_slice(part);
            }
        });
    }

    /// The SOA record of a zone, whose name stands at `zone`. The numbers behind the serial are
    /// CoreDNS' own: refresh, retry, expire and for how long an absence may be remembered.
    pub fn soa(&mut self, at: At, zone: usize, serial: u32, negative: u32) {
        self.record(at, zone, kind::SOA, |r| {
            r.buffer.extend_from_slice(b"\x02ns\x03dns");
            r.pointer(zone);
            r.buffer.extend_from_slice(b"\x0ahostmaster");
            r.pointer(zone);
            for number in [serial, 7200, 1800, 86400, negative] {
                r.buffer.extend_from_slice(&number.to_be_bytes());
            }
        });
    }
}

/// Names that grew too long by a long domain cannot be said in DNS.
fn fits(target: Target<'_>) -> bool {
    target.head.len() + target.tail.len() <= MAX_NAME
}

/// Which section a record is added to, and how long it may be remembered.
#[derive(Debug, Clone, Copy)]
pub struct At {
    pub section: Section,
    /// Seconds.
    pub ttl: u32,
}
