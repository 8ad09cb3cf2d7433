//! What a bridge learns and forgets, as the kernel tells it (`RTNLGRP_NEIGH`). Nothing is asked
//! for again and again. What the changes mean is the reader's business.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};

use super::rtnl::split;
use super::stack::{DeviceNames, FdbRow, fdb_row, name};

/// rtnetlink(7): the multicast groups of links and of neighbours with forwarding entries.
const GROUP_LINK: u32 = 1;
const GROUP_NEIGHBOUR: u32 = 3;

/// One thing that the kernel told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An entry is there: new, behind another port than before, or confirmed.
    There(FdbRow),
    Gone(FdbRow),
    /// A device, by name, is gone.
    DeviceGone(String),
    /// There was more than the socket could hold.
    Lost,
}

/// A socket that hears of changes in the namespace that it was opened in.
pub struct Watch {
    socket: Socket,
    names: DeviceNames,
    buffer: Vec<u8>,
}

impl Watch {
    /// Listen in the calling thread's namespace, without ever waiting.
    pub fn open() -> io::Result<Watch> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.add_membership(GROUP_LINK)?;
        socket.add_membership(GROUP_NEIGHBOUR)?;
        socket.set_non_blocking(true)?;
        Ok(Watch { socket, names: DeviceNames::new(), buffer: vec![0; 64 * 1024] })
    }

    /// The devices that are there, by which changes are named.
    pub fn know(&mut self, names: impl IntoIterator<Item = (u32, String)>) {
        self.names.extend(names);
    }

    /// What has been told since the last call. [`io::ErrorKind::WouldBlock`] where that is nothing.
    pub fn read(&mut self) -> io::Result<Vec<Change>> {
        let mut window = &mut self.buffer[..];
        let length = match self.socket.recv(&mut window, 0) {
            Ok(length) => length,
            Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => return Ok(vec![Change::Lost]),
            Err(e) => return Err(e),
        };
        let messages: Vec<Message> = split(&self.buffer[..length])
            .filter_map(|bytes| NetlinkMessage::<Message>::deserialize(bytes).ok())
            .filter_map(|m| if let NetlinkPayload::InnerMessage(inner) = m.payload { Some(inner) } else { None })
            .collect();
        Ok(messages.into_iter().filter_map(|m| self.change(m)).collect())
    }

    fn change(&mut self, message: Message) -> Option<Change> {
        match message {
            Message::NewNeighbour(m) if m.header.family == AddressFamily::Bridge => {
                fdb_row(&m, &self.names).map(Change::There)
            }
            Message::DelNeighbour(m) if m.header.family == AddressFamily::Bridge => {
                fdb_row(&m, &self.names).map(Change::Gone)
            }
            Message::NewLink(link) => {
                self.names.extend(name(&link).map(|name| (link.header.index, name)));
                None
            }
            // A port that leaves its bridge is told of in the same words, with the bridge's family.
            Message::DelLink(link) if !of_bridge(&link) => {
                self.names.remove(&link.header.index).map(Change::DeviceGone)
            }
            _ => None,
        }
    }
}

fn of_bridge(link: &LinkMessage) -> bool {
    link.header.interface_family == AddressFamily::Bridge
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
