//! How packets move between the TUN device and the UDP socket: one thread, one buffer, a batch of
//! packets from each side per wake-up. This is the whole of the daemon's speed, and stands alone
//! so that a faster one can take its place: `DataPath::open` and
//! `DataPath::forward_until_readable` are all that the rest knows of it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, Socket, Type};

use super::header::Packet;
use super::icmp::{self, Allowance, Problem};
use super::leases::Leases;
use super::{Config, ipv4};
use crate::workload::events::{Carried, Did, Teller, Way};

/// Packets taken from one side before the other has its turn.
const BATCH: usize = 64;

/// Bytes that the socket may hold in either direction, of which the kernel grants what
/// `net.core.rmem_max` allows.
const SOCKET_BUFFER: usize = 4 << 20;

/// Bytes of the largest IP packet.
const LARGEST: usize = 65535;

/// Both sides of the daemon, and what it needs to answer for packets that go to neither.
pub struct DataPath {
    tun: File,
    udp: UdpSocket,
    errors: Errors,
    port: u16,
    mtu: usize,
    buffer: Vec<u8>,
    teller: Teller,
}

/// Whether a side may have more.
#[derive(PartialEq)]
enum Side {
    Drained,
    More,
}

impl DataPath {
    /// # Errors
    /// An address that is not IPv4, or a socket that the kernel refuses.
    pub fn open(tun: OwnedFd, config: &Config, teller: Teller) -> io::Result<DataPath> {
        let listen = SocketAddrV4::new(ipv4(config.listen, "the host's address")?, config.port);
        let flags = OFlag::from_bits_retain(fcntl(&tun, FcntlArg::F_GETFL)?);
        fcntl(&tun, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(DataPath {
            tun: File::from(tun),
            udp: bind(listen)?,
            errors: Errors::open(ipv4(config.tun_address, "the device's address")?)?,
            port: config.port,
            mtu: usize::try_from(config.mtu).map_or(LARGEST, |mtu| mtu.min(LARGEST)),
            buffer: vec![0; LARGEST],
            teller,
        })
    }

    /// Move packets until there is something to read on `control`, or its other end is closed.
    ///
    /// # Errors
    /// A device or socket that can no longer be read. A packet that cannot be sent is no error.
    pub fn forward_until_readable(&mut self, leases: &Leases, control: BorrowedFd<'_>) -> io::Result<()> {
        loop {
            let mut ready = [
                PollFd::new(control, PollFlags::POLLIN),
                PollFd::new(self.tun.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.udp.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut ready, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
            // Any event, an error too, is found out by reading.
            let [control_ready, from_tun, from_udp] = ready.map(|fd| fd.any().unwrap_or(true));
            if control_ready {
                return Ok(());
            }
            self.turn(leases, from_tun, from_udp)?;
        }
    }

    /// A batch from each side that has something.
    fn turn(&mut self, leases: &Leases, from_tun: bool, from_udp: bool) -> io::Result<()> {
        if from_tun {
            for _ in 0..BATCH {
                if self.one_out(leases)? == Side::Drained {
                    break;
                }
            }
        }
        if from_udp {
            for _ in 0..BATCH {
                if self.one_in(leases)? == Side::Drained {
                    break;
                }
            }
        }
        Ok(())
    }

    /// A packet from the device to the host that has its destination.
    fn one_out(&mut self, leases: &Leases) -> io::Result<Side> {
        let length = match self.tun.read(&mut self.buffer) {
            Ok(length) => length,
            Err(e) => return nothing_read(e),
        };
        // The kernel also sends IPv6 into the device, looking for routers.
        let Some(mut packet) = self.buffer.get_mut(..length).and_then(Packet::parse) else { return Ok(Side::More) };
        let began = self.teller.moment();
        let sent = send_out(&mut packet, leases, &Out { udp: &self.udp, port: self.port, mtu: self.mtu });
        let did = || carried(Way::Out, &packet, leases.find(packet.destination()), sent.as_ref().err());
        self.teller.tell_since(began, did);
        match sent {
            Ok(()) => {}
            Err(problem) => self.errors.tell(problem, &packet),
        }
        Ok(Side::More)
    }

    /// A packet from another host to the device.
    fn one_in(&mut self, leases: &Leases) -> io::Result<Side> {
        let (length, sender) = match self.udp.recv_from(&mut self.buffer) {
            Ok(received) => received,
            Err(e) => return nothing_read(e),
        };
        if !leases.knows(sender.ip()) {
            return Ok(Side::More);
        }
        let Some(mut packet) = self.buffer.get_mut(..length).and_then(Packet::parse) else { return Ok(Side::More) };
        let went_on = packet.take_hop();
        let (peer, problem) = (ipv4(sender.ip(), "the sender").ok(), (!went_on).then_some(&Problem::NoHopLeft));
        self.teller.tell(|| carried(Way::In, &packet, peer, problem));
        if went_on {
            // A device that is down (EIO) or has no room loses the packet, as a wire would.
            let _ = self.tun.write(packet.bytes());
        } else {
            self.errors.tell(Problem::NoHopLeft, &packet);
        }
        Ok(Side::More)
    }
}

/// A packet as it is told of.
fn carried(way: Way, packet: &Packet, peer: Option<Ipv4Addr>, problem: Option<&Problem>) -> Did {
    Did::Carried(Carried {
        way,
        source: packet.source().into(),
        destination: packet.destination().into(),
        length: u32::try_from(packet.bytes().len()).unwrap_or(u32::MAX),
        identification: packet.identification(),
        peer: peer.map(Into::into),
        dropped: problem.map(ToString::to_string),
    })
}

/// What a packet is sent with.
struct Out<'a> {
    udp: &'a UdpSocket,
    port: u16,
    mtu: usize,
}

/// Route, hop, size, in the order in which the kernel's forwarding looks at them.
fn send_out(packet: &mut Packet, leases: &Leases, out: &Out) -> Result<(), Problem> {
    let host = leases.find(packet.destination()).ok_or(Problem::NoRoute)?;
    let too_large = Problem::TooLarge { mtu: u16::try_from(out.mtu).unwrap_or(u16::MAX) };
    // The kernel fragments what is larger than the device. What it lets through nevertheless, as
    // the device's MTU was raised, is carried: the outer packet is then fragmented.
    let oversize = packet.bytes().len() > out.mtu && packet.dont_fragment();
    if !packet.has_hop() {
        return Err(Problem::NoHopLeft);
    }
    if oversize {
        return Err(too_large);
    }
    packet.take_hop();
    let to = SocketAddr::V4(SocketAddrV4::new(host, out.port));
    match out.udp.send_to(packet.bytes(), to) {
        Ok(_) => Ok(()),
        Err(e) => match e.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EMSGSIZE) => Err(too_large),
            Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH) => Err(Problem::NoRoute),
            // No room in the socket, or a rule that drops it: lost, as in any router.
            _ => Ok(()),
        },
    }
}

/// The socket through which ICMP errors leave. They are sent as the host's own packets and not
/// written to the device, where the kernel would refuse them for having an address of the host as
/// their source (a martian, RFC 1812, 5.3.7).
struct Errors {
    raw: Socket,
    from: Ipv4Addr,
    allowance: Allowance,
}

impl Errors {
    fn open(from: Ipv4Addr) -> io::Result<Errors> {
        // A raw socket of this protocol sends whole packets and receives none (raw(7)).
        const IPPROTO_RAW: i32 = 255;
        let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(IPPROTO_RAW)))?;
        raw.set_nonblocking(true)?;
        Ok(Errors { raw, from, allowance: Allowance::new(Instant::now()) })
    }

    fn tell(&mut self, problem: Problem, about: &Packet) {
        let Some(error) = icmp::error(problem, about, self.from) else { return };
        if self.allowance.take(Instant::now()) {
            // An error that cannot be sent is not worth another.
            let _ = self.raw.send_to(&error, &SocketAddrV4::new(about.source(), 0).into());
        }
    }
}

fn bind(listen: SocketAddrV4) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    socket.bind(&listen.into())?;
    Ok(socket.into())
}

/// Whether a read that brought nothing is the end of the batch or of the daemon.
fn nothing_read(error: io::Error) -> io::Result<Side> {
    match error.kind() {
        io::ErrorKind::WouldBlock => Ok(Side::Drained),
        // What an earlier packet met with may be reported to a later read.
        io::ErrorKind::Interrupted
        | io::ErrorKind::ConnectionRefused
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable => Ok(Side::More),
        _ => Err(error),
    }
}
