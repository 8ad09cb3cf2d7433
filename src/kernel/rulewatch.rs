//! Hearing of it when somebody changes the nf_tables rules of a namespace, such as those of
//! `iptables-nft`. Every change that the kernel takes, however large, ends with one message that
//! tells the new generation of the rules and who made it (`nf_tables_gen_notify` in
//! net/netfilter/nf_tables_api.c). What changed is not told here: `kernel::iptables` reads it, and
//! reading is no change. Whether something must be put back is the reader's business.
//!
//! One table of an `iptables-restore` is one change. What a change that is refused would have done,
//! and the older xtables (`iptables-legacy`), cannot be heard at all.
//!
//! # Whose change it was
//! Two numbers come with a change, and only one of them helps a lab:
//! - [`Change::pid`] counts as the machine's first PID namespace does, whoever listens. A lab has a
//!   PID namespace of its own, so there it is no number that the daemon knows a child by.
//! - [`Change::port`] is that of the netlink socket. The kernel gives a program's first socket the
//!   number of its process *as that process sees itself*. For a child in the listener's own PID
//!   namespace that is the number the child was started with: [`Change::is_by`]. A program in
//!   another PID namespace can have the same number by chance; and where the number is taken, the
//!   socket gets a large random one instead, so that a change of one's own may seem a stranger's,
//!   which costs one look at the rules.
//!
//! What a recording does (`kernel::record`) changes no rule and is passed over.
//!
//! The kernel queues the message before it answers the program. So once a child of one's own has
//! ended, all its changes are here, and [`RuleWatch::drain`] finds them without waiting.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::nftables::{GenAttribute, NfTablesMessage};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner};
use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};
use socket2::{SockFilter, SockRef};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::ns::NetNs;
use super::record;
use super::rtnl::split;

/// `NFNLGRP_NFTABLES` (linux/netfilter/nfnetlink.h).
const GROUP: u32 = 7;
/// `NFT_MSG_NEWGEN` of the subsystem `NFNL_SUBSYS_NFTABLES`.
const NEW_GENERATION: u16 = 10 << 8 | 15;
/// A message with a generation takes some 60 bytes.
const LARGEST: usize = 4096;

/// A change of the rules. All is `None` where the socket could not hold what was told: then there
/// were changes, and nobody knows whose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// The netlink port of the program: mostly its process, as it sees itself.
    pub port: Option<u32>,
    /// The program's thread, as the machine's first PID namespace counts.
    pub pid: Option<u32>,
    /// The program's name, of which the kernel keeps 15 bytes (`iptables-restor`).
    pub program: Option<String>,
}

impl Change {
    /// Whether the process `pid`, of the caller's own PID namespace, made this change.
    pub fn is_by(&self, pid: u32) -> bool {
        self.port == Some(pid)
    }
}

/// Listens in one namespace. The socket keeps the namespace for as long as it is open.
pub struct RuleWatch {
    socket: AsyncFd<Socket>,
    buffer: Vec<u8>,
}

impl RuleWatch {
    /// Listen in `netns` from now on. To be called in the context of a tokio runtime with I/O, as
    /// [`AsyncFd`] is.
    ///
    /// Errors: [`io::ErrorKind::PermissionDenied`] without `CAP_NET_ADMIN` over the namespace; a
    /// kernel without nf_tables is none, and tells nothing.
    pub fn open(netns: &NetNs) -> io::Result<RuleWatch> {
        let socket = netns.run(|| {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            // Before the first message: each rule, chain and set of a change is told of before its
            // generation, and ten thousand services would overrun any buffer.
            SockRef::from(&socket).attach_filter(&generations_only())?;
            socket.add_membership(GROUP)?;
            socket.set_non_blocking(true)?;
            Ok::<_, io::Error>(socket)
        })??;
        // SAFETY: the socket owns its descriptor, which stays the same and open until it is dropped.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(RuleWatch { socket, buffer: vec![0; LARGEST] })
    }

    /// Wait for the next change. Nothing is lost where the caller stops waiting.
    pub async fn changed(&mut self) -> io::Result<Change> {
        loop {
            let mut ready = self.socket.readable().await?;
            let buffer = &mut self.buffer;
            match ready.try_io(|socket| next(socket.get_ref(), buffer)) {
                Ok(Ok(Some(change))) => return Ok(change),
                Ok(Err(e)) if e.kind() != io::ErrorKind::Interrupted => return Err(e),
                // Nothing there after all, or no message of ours.
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// The changes that have been told and not been read, in their order. Never waits.
    pub fn drain(&mut self) -> io::Result<Vec<Change>> {
        let mut all = Vec::new();
        loop {
            match next(self.socket.get_ref(), &mut self.buffer) {
                Ok(change) => all.extend(change),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(all),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

impl AsFd for RuleWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A socket filter (linux/filter.h) that lets through what begins as a generation's message does.
fn generations_only() -> [SockFilter; 4] {
    const LOAD_HALF: u16 = 0x28;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    /// Where `nlmsghdr` has its type.
    const TYPE: u32 = 4;
    // Filters read as if from the network; the header is in the machine's own order.
    let wanted = u32::from(u16::from_be_bytes(NEW_GENERATION.to_ne_bytes()));
    [
        SockFilter::new(LOAD_HALF, 0, 0, TYPE),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, wanted),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

/// Read one datagram, which the kernel never gives more than one generation.
fn next(socket: &Socket, buffer: &mut [u8]) -> io::Result<Option<Change>> {
    let mut window = &mut buffer[..];
    match socket.recv(&mut window, 0) {
        Ok(length) => Ok(buffer.get(..length).and_then(|bytes| split(bytes).find_map(change)).filter(is_told)),
        Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => Ok(Some(Change::default())),
        Err(e) => Err(e),
    }
}

/// Whether it is anybody else's than a recording's.
fn is_told(change: &Change) -> bool {
    !change.port.is_some_and(record::is_own_port)
}

fn change(bytes: &[u8]) -> Option<Change> {
    let message = NetlinkMessage::<NetfilterMessage>::deserialize(bytes).ok()?;
    let NetlinkPayload::InnerMessage(NetfilterMessage { inner, .. }) = message.payload else { return None };
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewGen(generation)) = inner else { return None };
    let mut change = Change { port: Some(message.header.port_number), ..Change::default() };
    for attribute in generation.attributes {
        match attribute {
            GenAttribute::ProcPid(pid) => change.pid = Some(pid),
            GenAttribute::ProcName(name) => change.program = Some(name),
            _ => {}
        }
    }
    Some(change)
}
