//! The TCP and UDP sockets of a namespace (proc_net_tcp(5)): on which ports somebody listens, what the kernel has taken
//! for programs and they have not, and whose the sockets are.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::spec::value::Protocol;

use super::ns::NetNs;

const TCP: [&str; 2] = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];
const UDP: [&str; 2] = ["/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"];
/// `TCP_LISTEN`, and `TCP_CLOSE_WAIT`: the other end has said that it sends no more.
const LISTEN: u8 = 0x0a;
const CLOSE_WAIT: u8 = 0x08;

/// A socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    pub protocol: Protocol,
    pub local: SocketAddr,
    /// Unspecified, and port 0, where it is connected to nobody.
    pub remote: SocketAddr,
    pub listens: bool,
    /// Bytes that the program has not read; of one that listens the connections that it has not accepted.
    pub waiting: u64,
    /// 0 where no program has it, as with a connection that was not accepted.
    pub inode: u64,
    /// Whose it is, where that was looked for and found.
    pub owner: Option<Owner>,
}

/// A process that has a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// As its room numbers it (`NSpid` in proc_pid_status(5)).
    pub pid: u32,
    /// Its name (`comm`).
    pub name: String,
    /// Whether it was stopped by a signal.
    pub stopped: bool,
}

/// The sockets of `netns`, without their owners. Blocks; errors where it cannot be entered or read.
pub fn read(netns: &NetNs) -> io::Result<Vec<Socket>> {
    netns.run(|| {
        let mut all = tables(TCP, Protocol::Tcp)?;
        all.extend(tables(UDP, Protocol::Udp)?);
        Ok(all)
    })?
}

/// The ports on which somebody takes TCP connections in `netns`. Blocks; errors where it cannot be entered or read.
pub fn ports(netns: &NetNs) -> io::Result<BTreeSet<u16>> {
    let all = netns.run(|| tables(TCP, Protocol::Tcp))??;
    Ok(all.into_iter().filter(|socket| socket.listens).map(|socket| socket.local.port()).collect())
}

/// Find out whose sockets these are, among the processes that this one sees. Of several that have one it is the
/// first. Blocks.
pub fn find_owners<'s>(sockets: impl Iterator<Item = &'s mut Socket>) {
    let mut wanted: HashMap<u64, &mut Socket> = HashMap::new();
    wanted.extend(sockets.filter(|s| s.inode != 0).map(|s| (s.inode, s)));
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<u32> = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    // This process has sockets in every namespace, which are nobody's to stop.
    pids.retain(|pid| *pid != std::process::id());
    pids.sort_unstable();
    for pid in pids {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        for inode in files.filter_map(|file| inode(fs::read_link(file.path()).ok()?.to_str()?)) {
            if let Some(socket) = wanted.get_mut(&inode).filter(|socket| socket.owner.is_none()) {
                socket.owner = owner(pid);
            }
        }
    }
}

/// `socket:[4711]`.
fn inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn owner(pid: u32) -> Option<Owner> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim));
    let pid = field("NSpid")?.split_whitespace().last()?.parse().ok()?;
    Some(Owner { pid, name: field("Name")?.to_owned(), stopped: field("State")?.starts_with('T') })
}

fn tables(names: [&str; 2], protocol: Protocol) -> io::Result<Vec<Socket>> {
    let mut all = Vec::new();
    for table in names {
        match fs::read_to_string(table) {
            Ok(text) => all.extend(text.lines().filter_map(|line| socket(line, protocol))),
            // A kernel without IPv6.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(all)
}

/// A line of a table: `0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 INODE …`.
fn socket(line: &str, protocol: Protocol) -> Option<Socket> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let state = u8::from_str_radix(words.get(3)?, 16).ok()?;
    let (_, waiting) = words.get(4)?.split_once(':')?;
    // A FIN counts as a byte until the program has read the end.
    let fin = u64::from(protocol == Protocol::Tcp && state == CLOSE_WAIT);
    Some(Socket {
        protocol,
        local: end(words.get(1)?)?,
        remote: end(words.get(2)?)?,
        listens: protocol == Protocol::Tcp && state == LISTEN,
        waiting: u64::from_str_radix(waiting, 16).ok()?.saturating_sub(fin),
        inode: words.get(9)?.parse().ok()?,
        owner: None,
    })
}

/// An address in words of four bytes as the machine has them, and a port.
fn end(word: &str) -> Option<SocketAddr> {
    let (address, port) = word.split_once(':')?;
    let mut bytes = Vec::new();
    for start in (0..address.len()).step_by(8) {
        bytes.extend(u32::from_str_radix(address.get(start..start + 8)?, 16).ok()?.to_ne_bytes());
    }
    let ip = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(bytes) => IpAddr::V4(bytes.into()),
        Err(_) => IpAddr::V6(<[u8; 16]>::try_from(bytes.as_slice()).ok()?.into()),
    };
    Some(SocketAddr::new(plain(ip), u16::from_str_radix(port, 16).ok()?))
}

/// A socket of IPv6 takes packets of IPv4, too: one that is bound to no address is told as one of IPv4.
fn plain(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(ip) if ip == Ipv6Addr::UNSPECIFIED => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or(ip.into(), IpAddr::from),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTENS: &str = "   0: 00000000:1F90 00000000:0000 0A 00000000:00000003 00:00000000 00000000 0 0 17 1";

    #[test]
    fn a_socket_that_listens_tells_how_many_connections_wait() {
        let listener = socket(LISTENS, Protocol::Tcp).expect("a socket");
        assert!(listener.listens && listener.local == ([0, 0, 0, 0], 8080).into(), "{listener:?}");
        assert_eq!((listener.waiting, listener.inode), (3, 17));
        assert!(!socket(&LISTENS.replace(" 0A ", " 01 "), Protocol::Tcp).expect("a socket").listens);
        assert_eq!(socket("  sl  local_address rem_address   st tx_queue rx_queue", Protocol::Tcp), None);
    }

    #[test]
    fn the_end_of_a_connection_is_no_byte_that_waits() {
        let waiting = |state: &str| {
            socket(&LISTENS.replace(" 0A ", state), Protocol::Tcp).map(|socket| (socket.listens, socket.waiting))
        };
        assert_eq!((waiting(" 01 "), waiting(" 08 ")), (Some((false, 3)), Some((false, 2))));
    }

    #[test]
    fn sockets_of_ipv6_that_take_packets_of_ipv4_are_told_by_those_addresses() {
        let words = |bytes: [u8; 16]| -> String {
            bytes.chunks_exact(4).map(|b| format!("{:08X}", u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))).collect()
        };
        let mapped = words(Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped().octets());
        assert_eq!(end(&format!("{mapped}:0050")), Some(([10, 0, 0, 1], 80).into()));
        assert_eq!(end(&format!("{}:0050", words([0; 16]))), Some(([0, 0, 0, 0], 80).into()));
    }

    #[test]
    fn a_sockets_owner_is_found_by_its_file() {
        assert_eq!((inode("socket:[4711]"), inode("pipe:[4711]")), (Some(4711), None));
        let own = owner(std::process::id()).expect("a process");
        assert!(!own.stopped && !own.name.is_empty(), "{own:?}");
    }
}
