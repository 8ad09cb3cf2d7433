//! Tables of packet filters, asked of the kernel itself: which there are, of nf_tables and of the
//! older xtables, and how one of nf_tables is removed. Most pods have none, and `iptables-save` is a
//! process each; reading and writing rules is `kernel::iptables`'s.

use std::fs;
use std::io;

use crate::plan::deviation::NftTable;

use super::nfnl::{self, IPV4, LENGTH, NFTABLES, OWNED, Part, attributes, big, text, word};
use super::record;

/// linux/netfilter/nf_tables.h.
const GET_TABLES: u16 = NFTABLES | 1;
const DELETE_TABLE: u16 = NFTABLES | 2;
const NAME: u16 = 1;
const FLAGS: u16 = 2;

/// Tables that iptables-nft makes, all of nf_tables' family `ip`.
const OF_IPTABLES: [&str; 5] = ["filter", "nat", "mangle", "raw", "security"];

/// Whether a table of nf_tables is one of those that iptables-nft writes.
pub fn is_of_iptables(family: u8, name: &str) -> bool {
    family == IPV4 && OF_IPTABLES.contains(&name)
}

/// What there is in one namespace.
#[derive(Debug, Default)]
pub struct Tables {
    /// Whether a table of xtables was ever used.
    pub legacy: bool,
    pub nft: Vec<NftTable>,
}

/// The tables of the calling thread's namespace.
pub fn read() -> io::Result<Tables> {
    let mut nft = Vec::new();
    nfnl::dump(GET_TABLES, 0, |message| nft.extend(table(message)))?;
    Ok(Tables { legacy: legacy(), nft })
}

/// Whether a table of xtables was ever used in the calling thread's namespace: the kernel lists them,
/// one a line.
pub fn legacy() -> bool {
    match fs::read_to_string("/proc/thread-self/net/ip_tables_names") {
        Ok(names) => !names.is_empty(),
        Err(e) => e.kind() != io::ErrorKind::NotFound,
    }
}

/// A table in the kernel's answer. One with an owner is left out: it goes with the process that
/// made it, and nobody else can remove it. So is a recording's where the kernel knows no owners.
fn table(message: &[u8]) -> Option<NftTable> {
    let (mut name, mut owned) = (None, false);
    for (kind, value) in attributes(message.get(LENGTH..)?) {
        match kind {
            NAME => name = Some(word(value)),
            FLAGS => owned = big(value)? & OWNED != 0,
            _ => {}
        }
    }
    let temporary = |name: &str| owned || record::is_own_table(name);
    Some(NftTable { family: *message.get(16)?, name: name.filter(|name| !temporary(name))? })
}

/// Remove a table of nf_tables with all that is in it from the calling thread's namespace. One
/// that has gone is none to remove.
pub fn delete(table: &NftTable) -> io::Result<()> {
    let attributes = text(NAME, &table.name);
    let gone = nfnl::commit(&nfnl::open()?, &[Part { kind: DELETE_TABLE, flags: 0, family: table.family, attributes }]);
    match gone {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}
