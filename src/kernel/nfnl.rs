//! Messages of netfilter's netlink (linux/netfilter/nfnetlink.h) as bytes: their headers, their
//! attributes, and batches, in which all is done or nothing. What they say is the callers' business.

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use super::rtnl::{receive, split};

/// Messages of `NFNL_SUBSYS_NFTABLES` (linux/netfilter/nf_tables.h) begin here.
pub(super) const NFTABLES: u16 = 10 << 8;
/// `NFPROTO_INET`, `NFPROTO_IPV4`, `NFPROTO_NETDEV` and `NFPROTO_BRIDGE` (linux/netfilter.h): the families whose rules
/// packets of IPv4 meet.
pub(super) const INET: u8 = 1;
pub(super) const IPV4: u8 = 2;
pub(super) const NETDEV: u8 = 5;
pub(super) const BRIDGE: u8 = 7;
/// `NFT_TABLE_F_OWNER`: a table that goes with its socket, and that nobody else can change.
pub(super) const OWNED: u32 = 2;
/// `NFNL_MSG_BATCH_BEGIN` and `_END`.
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;

/// `NLM_F_REQUEST`, `NLM_F_ACK` and `NLM_F_DUMP`.
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
/// `NLMSG_ERROR` and `NLMSG_DONE`.
pub(super) const ERROR: u16 = 2;
pub(super) const DONE: u16 = 3;

/// netlink's header (16 bytes) and nfnetlink's (family, version, resource).
pub(super) const LENGTH: usize = 20;
/// `NLA_F_NESTED`: attributes within an attribute.
pub(super) const NESTED: u16 = 1 << 15;
/// The kernel makes datagrams of a dump no larger than this.
const PIECE: usize = 32 * 1024;

/// A message of a batch.
pub(super) struct Part {
    pub kind: u16,
    /// Beside `NLM_F_REQUEST`.
    pub flags: u16,
    /// `NFPROTO_IPV4` and the like.
    pub family: u8,
    pub attributes: Vec<u8>,
}

/// A socket in the calling thread's namespace.
pub(super) fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// Do all of this or nothing, and wait until it is done. Returns the kernel's first refusal.
pub(super) fn commit(socket: &Socket, parts: &[Part]) -> io::Result<()> {
    let mut bytes = message(Head { kind: BEGIN, flags: REQUEST, family: 0, resource: 10, sequence: 0 }, &[]);
    let mut sequence = 0;
    for (i, part) in parts.iter().enumerate() {
        sequence += 1;
        // Refusals come anyway, and the last one's acknowledgement tells that all were looked at.
        let flags = part.flags | REQUEST | if i + 1 == parts.len() { ACK } else { 0 };
        let head = Head { kind: part.kind, flags, family: part.family, resource: 0, sequence };
        bytes.extend(message(head, &part.attributes));
    }
    let end = Head { kind: END, flags: REQUEST, family: 0, resource: 10, sequence: sequence + 1 };
    bytes.extend(message(end, &[]));
    socket.send(&bytes, 0)?;
    let mut buffer = vec![0; PIECE];
    loop {
        let length = receive(socket, &mut buffer)?;
        for answer in split(&buffer[..length]).filter(|m| short(m, 4) == ERROR) {
            match number(answer, 16).cast_signed() {
                0 if number(answer, 8) == sequence => return Ok(()),
                0 => {}
                code => return Err(io::Error::from_raw_os_error(-code)),
            }
        }
    }
}

/// Ask for one thing that is no part of a batch, and wait until it is done.
pub(super) fn request(socket: &Socket, part: &Part) -> io::Result<()> {
    let head =
        Head { kind: part.kind, flags: part.flags | REQUEST | ACK, family: part.family, resource: 0, sequence: 1 };
    socket.send(&message(head, &part.attributes), 0)?;
    let mut buffer = vec![0; PIECE];
    loop {
        let length = receive(socket, &mut buffer)?;
        if let Some(answer) = split(&buffer[..length]).find(|m| short(m, 4) == ERROR) {
            return match number(answer, 16).cast_signed() {
                0 => Ok(()),
                code => Err(io::Error::from_raw_os_error(-code)),
            };
        }
    }
}

/// Ask for all of a kind and call `each` with every message of the answer. A kernel that does not know
/// the question has nothing of it to tell.
pub(super) fn dump(kind: u16, family: u8, each: impl FnMut(&[u8])) -> io::Result<()> {
    match open() {
        // A kernel without netfilter's netlink.
        Err(e) if e.raw_os_error() == Some(libc::EPROTONOSUPPORT) => Ok(()),
        other => dump_by(&other?, kind, family, each),
    }
}

/// The same by a socket that hears nothing else yet.
pub(super) fn dump_by(socket: &Socket, kind: u16, family: u8, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    // Sequence and port need no numbers for a single question.
    socket.send(&message(Head { kind, flags: REQUEST | DUMP, family, resource: 0, sequence: 0 }, &[]), 0)?;
    let mut buffer = vec![0; PIECE];
    loop {
        let length = receive(socket, &mut buffer)?;
        for message in split(&buffer[..length]) {
            match short(message, 4) {
                DONE | ERROR => return Ok(()),
                _ => each(message),
            }
        }
    }
}

struct Head {
    kind: u16,
    flags: u16,
    family: u8,
    resource: u16,
    sequence: u32,
}

fn message(head: Head, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(LENGTH + attributes.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(LENGTH + attributes.len());
    bytes.extend(length.to_ne_bytes());
    bytes.extend(head.kind.to_ne_bytes());
    bytes.extend(head.flags.to_ne_bytes());
    bytes.extend(head.sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend([head.family, 0]);
    bytes.extend(head.resource.to_be_bytes());
    bytes.extend(attributes);
    bytes
}

/// An attribute with its padding. Whatever is put in here is far shorter than 64 KiB.
pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::from(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Attributes within an attribute.
pub(super) fn nest(kind: u16, inner: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | NESTED, &inner.concat())
}

/// A text with its end.
pub(super) fn text(kind: u16, value: &str) -> Vec<u8> {
    let mut bytes = value.as_bytes().to_vec();
    bytes.push(0);
    attribute(kind, &bytes)
}

/// Kind and value of each attribute, as far as they are sound.
pub(super) fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(short(rest.get(..4)?, 0));
        let kind = short(rest, 2) & !NESTED;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

/// A text up to its end.
pub(super) fn word(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}

/// A number as the network has it; nothing where the length is another.
pub(super) fn big(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

/// Two bytes at `at` in the machine's order; 0 where there are none.
pub(super) fn short(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_ne_bytes)
}

/// Four bytes; the same.
pub(super) fn number(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes)
}
