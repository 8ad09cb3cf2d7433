//! What routing tables answered, for packets with an address of the lab.

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use crate::kernel::nfnl::word;
use crate::kernel::record::event::Lookup;
use crate::lab::names::IfName;

use super::perf::{Ring, Wanted};
use super::tracefs::{Format, Tracefs};

pub(super) struct Lookups {
    format: Format,
    of: HashSet<Ipv4Addr>,
}

impl Lookups {
    /// With its buffers.
    pub fn open(tracefs: &Tracefs, of: &HashSet<Ipv4Addr>) -> io::Result<(Vec<Ring>, Lookups)> {
        let format = tracefs.format("fib/fib_table_lookup")?;
        let rings = Ring::of_each_cpu(&[Wanted { id: format.id, ..Wanted::default() }])?;
        Ok((rings, Lookups { format, of: of.clone() }))
    }

    /// Read a record; nothing where it is about others.
    pub fn read(&self, bytes: &[u8]) -> Option<Lookup> {
        let ip = |field| self.format.bytes(bytes, field).and_then(|b| <[u8; 4]>::try_from(b).ok()).map(Ipv4Addr::from);
        let (source, destination) = (ip("src")?, ip("dst")?);
        if !self.of.contains(&source) && !self.of.contains(&destination) {
            return None;
        }
        let number = |field| self.format.number(bytes, field);
        let port = |field| number(field).and_then(|n| u16::try_from(n).ok()).unwrap_or(0);
        let dev = self.format.bytes(bytes, "name").filter(|_| number("err") == Some(0));
        Some(Lookup {
            table: u32::try_from(number("tb_id")?).ok()?,
            source: SocketAddrV4::new(source, port("sport")),
            destination: SocketAddrV4::new(destination, port("dport")),
            iif: u32::try_from(number("iif")?).ok()?,
            dev: dev.map(|name| IfName::new(&word(name))),
            via: ip("gw4")?,
        })
    }
}
