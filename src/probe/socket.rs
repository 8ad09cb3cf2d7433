//! Sockets in a lab's namespaces, and what the kernel says when they fail: an error number
//! becomes a [`Failure`], with the ICMP message behind it where there was one (the socket's error
//! queue, ip(7) `IP_RECVERR`), because only that tells who refused.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpStream, UdpSocket};

use super::icmp::Told;
use super::outcome::Failure;
use super::{Asking, Used};
use crate::spec::probe::FailureName;

/// A socket of the asker's namespace, not blocking.
pub fn open(asking: &Asking, domain: Domain, kind: Type, protocol: Option<Protocol>) -> Result<Socket, Failure> {
    let made = asking.ns.run(|| {
        let socket = Socket::new(domain, kind, protocol)?;
        socket.set_nonblocking(true)?;
        Ok::<_, io::Error>(socket)
    });
    made.and_then(|socket| socket).map_err(|e| Failure::unasked(format!("no socket in {}: {e}", asking.from)))
}

/// The time to live of what a socket sends (ip(7)); the kernel's own where nothing is said.
fn set_ttl(socket: &Socket, ttl: Option<u8>) -> Result<(), Failure> {
    ttl.map_or(Ok(()), |ttl| setsockopt(socket, sockopt::Ipv4Ttl, &i32::from(ttl))).map_err(Failure::unasked)
}

/// A TCP connection to `to`, or why there is none.
pub async fn connect(asking: &Asking<'_>, to: SocketAddr, ttl: Option<u8>) -> Result<TcpStream, Failure> {
    let socket = open(asking, Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    set_ttl(&socket, ttl)?;
    tell_errors(&socket, to, true);
    let connected = socket.connect(&to.into());
    asking.note_port(&socket, Used::Tcp);
    match connected {
        Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => return Err(failure(asking, &socket, &e, to)),
        _ => {}
    }
    let stream = TcpStream::from_std(socket.into()).map_err(Failure::unasked)?;
    let ready = asking.within(stream.writable()).await;
    let ready = ready.ok_or_else(|| asking.silence(FailureName::Timeout, format!("no answer from {to}")))?;
    match ready.and_then(|()| stream.take_error()) {
        Ok(None) => {
            // From here on an ICMP error is TCP's to weigh (RFC 1122, 4.2.3.9), not the end.
            tell_errors(&stream, to, false);
            Ok(stream)
        }
        Ok(Some(e)) | Err(e) => Err(failure(asking, &stream, &e, to)),
    }
}

/// A UDP socket connected to `to`, so that ICMP errors come back to it.
pub fn datagrams(asking: &Asking, to: SocketAddr, ttl: Option<u8>) -> Result<UdpSocket, Failure> {
    let socket = open(asking, Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))?;
    set_ttl(&socket, ttl)?;
    tell_errors(&socket, to, true);
    socket.connect(&to.into()).map_err(|e| failure(asking, &socket, &e, to))?;
    asking.note_port(&socket, Used::Udp);
    UdpSocket::from_std(socket.into()).map_err(Failure::unasked)
}

/// Whether ICMP errors are kept on the socket's error queue. A kernel that refuses leaves us with
/// the error number alone, which is still an answer.
pub fn tell_errors(socket: &impl AsFd, to: SocketAddr, on: bool) {
    let _ = match to {
        SocketAddr::V4(_) => setsockopt(socket, sockopt::Ipv4RecvErr, &on),
        SocketAddr::V6(_) => setsockopt(socket, sockopt::Ipv6RecvErr, &on),
    };
}

/// What the error queue holds first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queued {
    /// An ICMP message from the network.
    Icmp(Told),
    /// A refusal of this machine's own kernel; `info` is the MTU where a packet was too large.
    Local { info: u32 },
}

pub fn error_queue(socket: &impl AsRawFd) -> Option<Queued> {
    let mut data = [0_u8; 256];
    let mut parts = [IoSliceMut::new(&mut data)];
    let mut control = nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags).ok()?;
    message.cmsgs().ok()?.find_map(|part| match part {
        ControlMessageOwned::Ipv4RecvErr(error, by) => {
            let by = by.map(|a| IpAddr::V4(Ipv4Addr::from(u32::from_be(a.sin_addr.s_addr))));
            queued(&error, by)
        }
        ControlMessageOwned::Ipv6RecvErr(error, by) => {
            queued(&error, by.map(|a| IpAddr::V6(Ipv6Addr::from(a.sin6_addr.s6_addr))))
        }
        _ => None,
    })
}

fn queued(error: &libc::sock_extended_err, by: Option<IpAddr>) -> Option<Queued> {
    match (error.ee_origin, by) {
        (libc::SO_EE_ORIGIN_ICMP, Some(by)) => {
            Some(Queued::Icmp(Told { by, kind: error.ee_type, code: error.ee_code, mtu: error.ee_info }))
        }
        (libc::SO_EE_ORIGIN_LOCAL, _) => Some(Queued::Local { info: error.ee_info }),
        _ => None,
    }
}

/// What an error of a socket means for the question that was sent to `to`.
pub fn failure(asking: &Asking, socket: &impl AsRawFd, error: &io::Error, to: SocketAddr) -> Failure {
    match error_queue(socket) {
        Some(Queued::Icmp(told)) => from_icmp(asking, &told, &to.to_string(), to.ip()),
        _ => from_errno(error, &to.to_string()),
    }
}

/// The failure that an ICMP message tells of; `tried` is the address with its port.
pub fn from_icmp(asking: &Asking, told: &Told, tried: &str, target: IpAddr) -> Failure {
    let (kind, words) = (told.failure(), told.words());
    let text = if told.by == target && kind == FailureName::Refused {
        format!("{tried} refused: {words}")
    } else if told.by == target {
        format!("{tried} says: {words}")
    } else if asking.field.is_own(asking.from, told.by) {
        // A neighbour that does not answer makes the sender's own kernel write the message.
        format!("{} itself says of {tried}: {words}", asking.from)
    } else {
        format!("{} says of {tried}: {words}", asking.field.who(told.by))
    };
    Failure::new(kind, text)
}

/// What `EPERM` means to one who sends.
pub const NOT_PERMITTED: &str = "a rule of the sender's own drops the packet";

/// The failure that an error number alone tells of.
pub fn from_errno(error: &io::Error, tried: &str) -> Failure {
    let Some(number) = error.raw_os_error() else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => {
                Failure::new(FailureName::Reset, format!("{tried} hung up"))
            }
            _ => Failure::new(FailureName::Protocol, format!("{tried}: {error}")),
        };
    };
    let unreachable = |why: &str| Failure::new(FailureName::Unreachable, format!("{tried} cannot be reached: {why}"));
    match Errno::from_raw(number) {
        Errno::ECONNREFUSED => Failure::new(FailureName::Refused, format!("{tried} refused the connection")),
        Errno::ECONNRESET | Errno::EPIPE | Errno::ECONNABORTED => {
            Failure::new(FailureName::Reset, format!("{tried} cut the connection"))
        }
        Errno::ETIMEDOUT => Failure::new(FailureName::Timeout, format!("no answer from {tried}, says the kernel")),
        Errno::EMSGSIZE => Failure::new(FailureName::TooBig, format!("the packet to {tried} is larger than a link")),
        Errno::ENETUNREACH => unreachable("the sender has no route to it"),
        Errno::EHOSTUNREACH => unreachable("no neighbour answers for it, or a route says unreachable"),
        Errno::EPERM => unreachable(NOT_PERMITTED),
        Errno::EACCES => unreachable("the sender's routes prohibit it"),
        Errno::EINVAL => unreachable("the sender's routes lead nowhere"),
        Errno::ENETDOWN => unreachable("the sender's device is down"),
        Errno::ENOPROTOOPT => unreachable("it does not know the protocol"),
        Errno::EADDRNOTAVAIL => Failure::unasked(format!("no source port is free towards {tried}")),
        other => Failure::unasked(format!("{tried}: {}", other.desc())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(errno: Errno) -> Option<FailureName> {
        from_errno(&io::Error::from(errno), "10.0.0.1:80").kind
    }

    #[test]
    fn error_numbers_map_to_the_failures_of_the_lab_file() {
        assert_eq!(kind(Errno::ECONNREFUSED), Some(FailureName::Refused));
        assert_eq!(kind(Errno::ECONNRESET), Some(FailureName::Reset));
        assert_eq!(kind(Errno::ENETUNREACH), Some(FailureName::Unreachable));
        assert_eq!(kind(Errno::EMSGSIZE), Some(FailureName::TooBig));
        assert_eq!(kind(Errno::EMFILE), None, "a fault of the prober's is no answer of the network's");
    }

    #[test]
    fn every_text_names_the_address() {
        for errno in [Errno::ECONNREFUSED, Errno::ETIMEDOUT, Errno::EPERM, Errno::EMFILE, Errno::EADDRNOTAVAIL] {
            let text = from_errno(&io::Error::from(errno), "10.0.0.1:80").text;
            assert!(text.contains("10.0.0.1:80"), "{text}");
        }
    }
}
