//! Whether a namespace has any rules of iptables at all, asked of the kernel itself. Most pods have
//! none, and `iptables-save` is a process each; reading and writing rules is `kernel::iptables`'s.

use std::fs;
use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

/// `NFT_MSG_GETTABLE` of the subsystem `NFNL_SUBSYS_NFTABLES` (linux/netfilter/nfnetlink.h).
const GET_TABLES: u16 = 10 << 8 | 1;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
/// netlink's header (16 bytes) and nfnetlink's (family, version, resource).
const LENGTH: u32 = 20;

/// Whether the calling thread's namespace may have tables, of nf_tables or of the older xtables.
/// Where the kernel does not say, it may.
pub fn any() -> bool {
    legacy() || nf_tables().unwrap_or(true)
}

/// The kernel lists the xtables that were used in this namespace, one a line.
fn legacy() -> bool {
    match fs::read_to_string("/proc/thread-self/net/ip_tables_names") {
        Ok(names) => !names.is_empty(),
        Err(e) => e.kind() != io::ErrorKind::NotFound,
    }
}

/// Whether a dump of the tables has a first entry.
fn nf_tables() -> io::Result<bool> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut request = Vec::with_capacity(LENGTH as usize);
    request.extend(LENGTH.to_ne_bytes());
    request.extend(GET_TABLES.to_ne_bytes());
    request.extend(DUMP.to_ne_bytes());
    // Sequence and port need no numbers for a single question; the family is any.
    request.extend([0; 12]);
    socket.send(&request, 0)?;
    let mut answer = Vec::with_capacity(8192);
    socket.recv(&mut answer, 0)?;
    let kind = answer.get(4..6).and_then(|b| b.try_into().ok()).map(u16::from_ne_bytes);
    match kind {
        // NLMSG_DONE: nothing to list. NLMSG_ERROR: this kernel has no nf_tables.
        Some(2 | 3) => Ok(false),
        _ => Ok(true),
    }
}
