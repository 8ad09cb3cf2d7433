//! Pings: ICMP echo requests from a raw socket, matched to their answers and to the errors that
//! quote them. Finding a path's MTU with them is `mtu`'s.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::icmp::{self, Heard, Tag};
use super::outcome::{Answer, Details, Failure};
use super::socket::{Queued, error_queue, from_errno, from_icmp, open, tell_errors};
use super::{Asking, Used, mtu};
use crate::spec::probe::FailureName;

/// The packet that a ping sends.
#[derive(Debug, Clone, Copy)]
pub struct Packet {
    /// Bytes of the whole IP packet.
    pub size: u32,
    pub dont_fragment: bool,
    pub ttl: u8,
}

/// An answer.
#[derive(Debug, Clone, Copy)]
pub struct Reply {
    pub ttl: u8,
    pub rtt: std::time::Duration,
}

/// Why there was none.
#[derive(Debug, Clone)]
pub enum Lost {
    /// Nothing came until the deadline.
    Silence,
    /// The packet is larger than a link of this MTU (0: nobody said).
    TooBig {
        mtu: u32,
        failure: Failure,
    },
    Failed(Failure),
}

pub async fn ask(asking: &Asking<'_>, to: IpAddr, packet: Packet) -> Result<Answer, Failure> {
    let IpAddr::V4(to) = to else {
        return Err(Failure::unasked(format!("{to} is an IPv6 address, and pings here are IPv4's")));
    };
    if asking.expect.mtu.is_some() {
        return mtu::find(asking, to, packet.ttl).await;
    }
    let mut pinger = Pinger::new(asking, to, packet.ttl, packet.dont_fragment)?;
    let reply = pinger.exchange(packet.size, asking.deadline).await.map_err(|lost| pinger.failure(lost))?;
    Ok(Answer { details: reply.details(), ..Answer::default() })
}

impl Reply {
    pub fn details(&self) -> Details {
        Details { ttl: Some(self.ttl), rtt_ms: Some(self.rtt.as_secs_f64() * 1e3), ..Details::default() }
    }
}

/// A raw socket that pings one address.
pub struct Pinger<'a> {
    asking: &'a Asking<'a>,
    socket: AsyncFd<Socket>,
    to: Ipv4Addr,
    buffer: Vec<u8>,
}

impl<'a> Pinger<'a> {
    pub fn new(asking: &'a Asking<'a>, to: Ipv4Addr, ttl: u8, dont_fragment: bool) -> Result<Pinger<'a>, Failure> {
        let socket = open(asking, Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
        // PROBE sets "don't fragment" and leaves out what the kernel remembers of the path, so
        // that each packet meets the links as they are now.
        let discover = if dont_fragment { libc::IP_PMTUDISC_PROBE } else { libc::IP_PMTUDISC_DONT };
        mtu_discover(&socket, discover).map_err(Failure::unasked)?;
        setsockopt(&socket, sockopt::Ipv4Ttl, &i32::from(ttl)).map_err(Failure::unasked)?;
        // SAFETY: the socket keeps its descriptor until it is dropped, with the AsyncFd.
        let socket = unsafe { AsyncFd::register(socket) }.map_err(Failure::unasked)?;
        Ok(Pinger { asking, socket, to, buffer: vec![0; 65_536] })
    }

    /// Send one echo request with an IP packet of `size` bytes and wait for what it brings, at
    /// most until `deadline`.
    pub async fn exchange(&mut self, size: u32, deadline: Instant) -> Result<Reply, Lost> {
        let tag = next_tag();
        self.asking.note(Used::Echo(tag.identifier));
        let message = icmp::echo_request(tag, size as usize);
        let begin = Instant::now();
        match tokio::time::timeout_at(deadline, self.send(&message)).await {
            Ok(sent) => sent.map_err(|e| self.refused(&e, &message))?,
            Err(_) => return Err(Lost::Silence),
        }
        let heard = tokio::time::timeout_at(deadline, self.listen(tag)).await;
        match heard.map_err(|_| Lost::Silence)? {
            Ok(Heard::Reply { ttl, .. }) => Ok(Reply { ttl, rtt: begin.elapsed() }),
            Ok(Heard::Error(told)) => {
                let failure = from_icmp(self.asking, &told, &self.to.to_string(), self.to.into());
                Err(match told.failure() {
                    FailureName::TooBig => Lost::TooBig { mtu: told.mtu, failure },
                    _ => Lost::Failed(failure),
                })
            }
            Err(e) => Err(Lost::Failed(from_errno(&e, &self.to.to_string()))),
        }
    }

    async fn send(&self, message: &[u8]) -> io::Result<()> {
        let to = SocketAddr::new(self.to.into(), 0).into();
        loop {
            let mut ready = self.socket.writable().await?;
            if let Ok(sent) = ready.try_io(|socket| socket.get_ref().send_to(message, &to)) {
                return sent.map(drop);
            }
        }
    }

    async fn listen(&mut self, tag: Tag) -> io::Result<Heard> {
        loop {
            let mut ready = self.socket.readable().await?;
            let buffer = &mut self.buffer;
            let Ok(read) = ready.try_io(|socket| socket.get_ref().read(buffer)) else { continue };
            if let Some(heard) = icmp::heard(&self.buffer[..read?], tag) {
                return Ok(heard);
            }
        }
    }

    /// Why this machine's own kernel did not send.
    fn refused(&self, error: &io::Error, message: &[u8]) -> Lost {
        if error.raw_os_error() != Some(libc::EMSGSIZE) {
            return Lost::Failed(from_errno(error, &self.to.to_string()));
        }
        let (mtu, to) = (self.local_mtu(message), self.to);
        let size = message.len() + 20;
        let text = format!("{} cannot send {size} bytes to {to}: its own link takes {mtu}", self.asking.from);
        Lost::TooBig { mtu, failure: Failure::new(FailureName::TooBig, text) }
    }

    /// The MTU of the device that a too large packet would leave by: the kernel writes it onto
    /// the error queue where one is wanted, so the same packet is refused once more.
    fn local_mtu(&self, message: &[u8]) -> u32 {
        let (socket, to) = (self.socket.get_ref(), SocketAddr::new(self.to.into(), 0));
        tell_errors(socket, to, true);
        let queued = match socket.send_to(message, &to.into()) {
            Err(_) => error_queue(socket),
            Ok(_) => None,
        };
        tell_errors(socket, to, false);
        match queued {
            Some(Queued::Local { info }) => info,
            _ => 0,
        }
    }

    /// The failure that a lost ping is.
    pub fn failure(&self, lost: Lost) -> Failure {
        match lost {
            Lost::Silence => self.asking.silence(FailureName::Timeout, format!("no answer from {}", self.to)),
            Lost::TooBig { failure, .. } | Lost::Failed(failure) => failure,
        }
    }
}

/// Say whether packets may be fragmented (ip(7), `IP_MTU_DISCOVER`).
fn mtu_discover(socket: &Socket, mode: libc::c_int) -> nix::Result<()> {
    let (value, size) = ((&raw const mode).cast(), size_of::<libc::c_int>() as libc::socklen_t);
    // SAFETY: the pointer is to an int that outlives the call, and the length is an int's.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, value, size) };
    nix::errno::Errno::result(result).map(drop)
}

/// A tag that no other ping of this process has had for a while: a number that counts, begun
/// at a place that another process is unlikely to be at.
fn next_tag() -> Tag {
    static NEXT: OnceLock<AtomicU32> = OnceLock::new();
    let next = NEXT.get_or_init(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        AtomicU32::new(now.subsec_nanos() ^ (std::process::id() << 16))
    });
    tag(next.fetch_add(1, Ordering::Relaxed))
}

/// The tag of the ping with this number. Both halves change with each: by the identifier connection tracking
/// knows a flow, so that a ping with that of an earlier one would be let through by what was decided then.
fn tag(n: u32) -> Tag {
    // Knuth's multiplicative hash: numbers that follow each other land far apart.
    Tag { identifier: n as u16, sequence: (n.wrapping_mul(2_654_435_761) >> 16) as u16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_ping_goes_on_with_what_was_decided_of_an_earlier_one() {
        for n in [0, 77, u32::from(u16::MAX), u32::MAX] {
            let (one, other) = (tag(n), tag(n.wrapping_add(1)));
            assert_ne!(one.identifier, other.identifier);
            assert_ne!(one.sequence, other.sequence);
        }
    }
}
