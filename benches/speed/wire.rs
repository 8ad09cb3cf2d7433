//! rtnetlink by hand: bytes in, one acknowledgement out. The floor must not pay for a library, so
//! it writes its messages itself. What the messages say is `floor`'s.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `nlmsghdr`: length, type, flags, sequence number, port.
const HEADER: usize = 16;
/// The kernel takes up to the socket's send buffer (208 KiB by default) in one go.
const PIECE: usize = 64 * 1024;

/// Messages that are sent together.
#[derive(Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Where the last message begins.
    last: usize,
    count: u32,
}

impl Batch {
    /// Begin a message with its fixed part (`ifinfomsg` and the like).
    pub fn message(&mut self, kind: u16, flags: i32, fixed: &[u8]) -> &mut Batch {
        self.last = self.bytes.len();
        self.count += 1;
        let flags = u16::try_from(flags | libc::NLM_F_REQUEST).unwrap_or(0);
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&self.count.to_ne_bytes());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(fixed);
        self.close();
        self
    }

    /// Add an attribute to the message that was begun last.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Batch {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.close();
        self
    }

    /// Add an attribute that holds others.
    pub fn nest(&mut self, kind: u16, inner: impl FnOnce(&mut Batch)) -> &mut Batch {
        let start = self.bytes.len();
        self.attribute(kind, &[]);
        inner(self);
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// Bytes that stand between attributes, such as a veth peer's `ifinfomsg`.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.close();
    }

    fn close(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let length = u32::try_from(self.bytes.len() - self.last).unwrap_or(0);
        self.bytes[self.last..self.last + 4].copy_from_slice(&length.to_ne_bytes());
    }

    pub fn is_full(&self) -> bool {
        self.bytes.len() >= PIECE
    }
}

/// A socket in the namespace of the thread that opened it.
pub struct Socket(OwnedFd);

impl Socket {
    /// `groups` are the multicast groups to listen to, as a bit mask.
    pub fn open(groups: u32) -> io::Result<Socket> {
        // SAFETY: plain system call; the descriptor is ours alone.
        let fd = checked(unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })?;
        // SAFETY: as above.
        let socket = Socket(unsafe { OwnedFd::from_raw_fd(fd) });
        if groups != 0 {
            // SAFETY: an all-zero sockaddr_nl is valid, and the length is its own.
            let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
            address.nl_family = libc::AF_NETLINK as u16;
            address.nl_groups = groups;
            let length = size_of::<libc::sockaddr_nl>() as u32;
            // SAFETY: as above.
            checked(unsafe { libc::bind(socket.0.as_raw_fd(), (&raw const address).cast(), length) })?;
        }
        Ok(socket)
    }

    /// Send the batch and wait until the kernel has done it. Empties the batch.
    pub fn send(&self, batch: &mut Batch) -> io::Result<()> {
        let batch = std::mem::take(batch);
        let mut bytes = batch.bytes;
        if bytes.is_empty() {
            return Ok(());
        }
        // Only the last message is acknowledged where all goes well; refusals come anyway.
        let flags = batch.last + 6;
        bytes[flags] |= libc::NLM_F_ACK as u8;
        // SAFETY: the pointer and the length are those of one buffer.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        self.await_end(batch.count)
    }

    fn await_end(&self, last: u32) -> io::Result<()> {
        let mut buffer = [0u8; 16 * 1024];
        loop {
            let length = self.receive(&mut buffer)?;
            let mut rest = &buffer[..length];
            while rest.len() >= HEADER + 4 {
                let code = number(&rest[HEADER..]).cast_signed();
                if i32::from(kind(rest)) == libc::NLMSG_ERROR && code != 0 {
                    return Err(io::Error::from_raw_os_error(-code));
                }
                if number(&rest[8..]) == last {
                    return Ok(());
                }
                rest = rest.get((number(rest) as usize).next_multiple_of(4).max(HEADER)..).unwrap_or(&[]);
            }
        }
    }

    /// Wait until the kernel sends a message of this type about this device. It may be silent for
    /// some `seconds`, no longer.
    pub fn await_link(&self, wanted: u16, index: u32, seconds: i64) -> io::Result<()> {
        let limit = libc::timeval { tv_sec: seconds, tv_usec: 0 };
        let length = size_of::<libc::timeval>() as u32;
        let (level, name) = (libc::SOL_SOCKET, libc::SO_RCVTIMEO);
        // SAFETY: the value lives through the call, and the length is its own.
        checked(unsafe { libc::setsockopt(self.0.as_raw_fd(), level, name, (&raw const limit).cast(), length) })?;
        let mut buffer = [0u8; 16 * 1024];
        loop {
            let length = self.receive(&mut buffer)?;
            let mut rest = &buffer[..length];
            while rest.len() >= HEADER + 8 {
                // `ifinfomsg`: family, type, and then the index at its fourth byte.
                if kind(rest) == wanted && number(&rest[HEADER + 4..]) == index {
                    return Ok(());
                }
                rest = rest.get((number(rest) as usize).next_multiple_of(4).max(HEADER)..).unwrap_or(&[]);
            }
        }
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the pointer and the length are those of one buffer.
        let length = unsafe { libc::recv(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        usize::try_from(length).map_err(|_| io::Error::last_os_error())
    }
}

fn checked(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn kind(message: &[u8]) -> u16 {
    u16::from_ne_bytes([message[4], message[5]])
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}
