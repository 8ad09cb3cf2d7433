//! Tables of packet filters, asked of the kernel itself: which there are, of nf_tables and of the
//! older xtables, and how one of nf_tables is removed. Most pods have none, and `iptables-save` is a
//! process each; reading and writing rules is `kernel::iptables`'s.

use std::fs;
use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

use crate::plan::deviation::NftTable;

use super::rtnl::split;

/// Of the subsystem `NFNL_SUBSYS_NFTABLES` (linux/netfilter/nfnetlink.h, nf_tables.h).
const SUBSYSTEM: u16 = 10;
const GET_TABLES: u16 = SUBSYSTEM << 8 | 1;
const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
/// `NFNL_MSG_BATCH_BEGIN` and `_END`: between them all is done or nothing.
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;

/// `NLM_F_REQUEST`, with `NLM_F_ACK` or `NLM_F_DUMP`.
const REQUEST: u16 = 1;
const ACK: u16 = 5;
const DUMP: u16 = 0x301;

/// `NLMSG_ERROR` and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// netlink's header (16 bytes) and nfnetlink's (family, version, resource).
const LENGTH: usize = 20;
const NAME: u16 = 1;
const FLAGS: u16 = 2;
/// `NFT_TABLE_F_OWNER`.
const OWNED: u32 = 2;

/// What there is in one namespace.
#[derive(Debug, Default)]
pub struct Tables {
    /// Whether a table of xtables was ever used.
    pub legacy: bool,
    pub nft: Vec<NftTable>,
}

/// The tables of the calling thread's namespace.
pub fn read() -> io::Result<Tables> {
    Ok(Tables { legacy: legacy(), nft: nft()? })
}

/// The kernel lists the xtables that were used in this namespace, one a line.
fn legacy() -> bool {
    match fs::read_to_string("/proc/thread-self/net/ip_tables_names") {
        Ok(names) => !names.is_empty(),
        Err(e) => e.kind() != io::ErrorKind::NotFound,
    }
}

fn nft() -> io::Result<Vec<NftTable>> {
    let mut socket = match open() {
        Ok(socket) => socket,
        // A kernel without netfilter's netlink has no tables to list.
        Err(e) if e.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    // Sequence and port need no numbers for a single question; the family is any.
    socket.send(&message(GET_TABLES, DUMP, 0, 0, &[]), 0)?;
    let mut all = Vec::new();
    loop {
        let answer = receive(&mut socket)?;
        for message in split(&answer) {
            match short(message, 4) {
                // An error: this kernel has no nf_tables.
                DONE | ERROR => return Ok(all),
                _ => all.extend(table(message)),
            }
        }
    }
}

/// A table in the kernel's answer. One with an owner is left out: it goes with the process that
/// made it, and nobody else can remove it.
fn table(message: &[u8]) -> Option<NftTable> {
    let (mut name, mut owned) = (None, false);
    let mut rest = message.get(LENGTH..)?;
    while rest.len() >= 4 {
        let length = usize::from(short(rest, 0));
        let value = rest.get(4..length)?;
        match short(rest, 2) {
            NAME => name = value.split(|b| *b == 0).next().map(|n| String::from_utf8_lossy(n).into_owned()),
            FLAGS => owned = u32::from_be_bytes(value.try_into().ok()?) & OWNED != 0,
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Some(NftTable { family: *message.get(16)?, name: name? }).filter(|_| !owned)
}

/// Remove a table of nf_tables with all that is in it from the calling thread's namespace. One
/// that has gone is none to remove.
pub fn delete(table: &NftTable) -> io::Result<()> {
    let mut socket = open()?;
    let mut name = table.name.clone().into_bytes();
    name.push(0);
    let resource = SUBSYSTEM.to_be();
    let mut batch = message(BEGIN, REQUEST, 0, resource, &[]);
    batch.extend(message(DELETE_TABLE, ACK, table.family, 0, &attribute(NAME, &name)));
    batch.extend(message(END, REQUEST, 0, resource, &[]));
    socket.send(&batch, 0)?;
    let answer = receive(&mut socket)?;
    let code = answer.get(16..20).and_then(|b| b.try_into().ok()).map_or(0, i32::from_ne_bytes);
    match -code {
        0 | libc::ENOENT => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// The next datagram. The kernel makes those of a dump no larger than 32 KiB.
fn receive(socket: &mut Socket) -> io::Result<Vec<u8>> {
    let mut buffer = Vec::with_capacity(32 * 1024);
    socket.recv(&mut buffer, 0)?;
    Ok(buffer)
}

fn message(kind: u16, flags: u16, family: u8, resource: u16, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(LENGTH + attributes.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(LENGTH + attributes.len());
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([family, 0]);
    bytes.extend(resource.to_ne_bytes());
    bytes.extend(attributes);
    bytes
}

/// An attribute with its padding. Names of tables are short (`NFT_TABLE_MAXNAMELEN`).
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::from(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Two bytes at `at`; 0 where there are none.
fn short(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_ne_bytes)
}
