//! A UDP port of the echo server: each datagram is answered with the identity as a line of JSON
//! and the datagram behind it.

use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{self, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::Identity;

/// Bytes of the largest datagram over IPv4.
const LARGEST: usize = 65507;

/// Datagrams answered before other tasks have their turn.
const BATCH: usize = 64;

thread_local! {
    /// Where datagrams are put. No datagram outlives a turn of its task, so all sockets of a
    /// thread share one place.
    static DATAGRAM: RefCell<Vec<u8>> = RefCell::new(vec![0; LARGEST]);
}

/// Have each datagram come with the address that it was sent to. A machine with several must
/// answer from that one, where the kernel would choose the one nearest to the client.
pub fn tell_local_addresses(socket: &net::UdpSocket) -> io::Result<()> {
    if socket.local_addr()?.is_ipv4() {
        setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?;
    } else {
        setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    }
    Ok(())
}

/// Answer for ever.
pub async fn answer(socket: UdpSocket, identity: Arc<Identity>) {
    while socket.readable().await.is_ok() {
        let _ = socket.try_io(Interest::READABLE, || answer_batch(&socket, &identity));
        tokio::task::yield_now().await;
    }
}

/// Answer what is there. Ends with `WouldBlock`, by which the runtime learns that there is no
/// more, or in the middle, when it was enough for now.
fn answer_batch(socket: &UdpSocket, identity: &Identity) -> io::Result<()> {
    DATAGRAM.with_borrow_mut(|buffer| {
        for _ in 0..BATCH {
            let datagram = match receive(socket, buffer) {
                Ok(Some(datagram)) => datagram,
                // Without an address it cannot be answered.
                Ok(None) => continue,
                // What an earlier answer met with, such as a closed port, is reported here.
                Err(e) if e.kind() != io::ErrorKind::WouldBlock => continue,
                Err(e) => return Err(e),
            };
            let payload = buffer.get(..datagram.length).unwrap_or_default();
            // A lost answer is what UDP promises.
            let _ = send(socket, &datagram, &identity.line(datagram.from), payload);
        }
        Ok(())
    })
}

struct Datagram {
    length: usize,
    from: SocketAddr,
    to: Option<LocalAddress>,
}

enum LocalAddress {
    V4(libc::in_pktinfo),
    V6(libc::in6_pktinfo),
}

fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Option<Datagram>> {
    let mut room = nix::cmsg_space!(libc::in6_pktinfo);
    let mut slices = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut slices, Some(&mut room), flags)?;
    let to = message.cmsgs().ok().and_then(|mut all| {
        all.find_map(|one| match one {
            // Any device may lead back to the client.
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                Some(LocalAddress::V4(libc::in_pktinfo { ipi_ifindex: 0, ..info }))
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(LocalAddress::V6(info)),
            _ => None,
        })
    });
    let from = message.address.as_ref().and_then(|from| {
        let v4 = from.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
        v4.or_else(|| from.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
    });
    Ok(from.map(|from| Datagram { length: message.bytes, from, to }))
}

/// Send an answer from the address that was asked. One that would be larger than a datagram is
/// not sent at all: were it cut, two echo servers that were brought to talk to each other would
/// never end.
fn send(socket: &UdpSocket, about: &Datagram, line: &[u8], payload: &[u8]) -> Result<(), Errno> {
    if line.len() + payload.len() > LARGEST {
        return Err(Errno::EMSGSIZE);
    }
    let slices = [IoSlice::new(line), IoSlice::new(payload)];
    let from = about.to.as_ref().map(|to| match to {
        LocalAddress::V4(info) => ControlMessage::Ipv4PacketInfo(info),
        LocalAddress::V6(info) => ControlMessage::Ipv6PacketInfo(info),
    });
    let to = SockaddrStorage::from(about.from);
    sendmsg(socket.as_raw_fd(), &slices, from.as_slice(), MsgFlags::MSG_DONTWAIT, Some(&to)).map(drop)
}
