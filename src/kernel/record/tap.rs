//! A packet socket that sees every frame at every device of one namespace (packet(7)).

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};
use socket2::{SockFilter, SockRef};

/// `SO_RCVMARK` (since 5.19).
const RECEIVE_MARK: libc::c_int = 75;

pub(super) struct Tap {
    socket: OwnedFd,
}

/// A frame as the socket gives it; the device has no name here.
pub(super) struct Caught {
    /// Nanoseconds since 1970.
    pub at: u64,
    pub index: u32,
    pub packet_type: u8,
    pub ethernet: bool,
    pub protocol: u16,
    pub bytes: Vec<u8>,
    pub length: u32,
    pub mark: Option<u32>,
}

impl Tap {
    /// Listen in the calling thread's namespace, through a [`Filter`]'s program.
    ///
    /// [`Filter`]: super::Filter
    pub fn open(program: &[SockFilter], buffer: usize) -> io::Result<Tap> {
        let tap = Tap::filtered(program)?;
        enlarge(&tap.socket, buffer)?;
        setsockopt(&tap.socket, sockopt::ReceiveTimestampns, &true)?;
        tap.switch_on(libc::SOL_PACKET, libc::PACKET_AUXDATA)?;
        // Older kernels do not tell the mark.
        let _ = tap.switch_on(libc::SOL_SOCKET, RECEIVE_MARK);
        tap.bind()?;
        Ok(tap)
    }

    /// One that is never read, and only counts what passes the program.
    pub fn counter(program: &[SockFilter]) -> io::Result<Tap> {
        let tap = Tap::filtered(program)?;
        // The kernel has a least size, which some frames fill; then they cost nothing more.
        setsockopt(&tap.socket, sockopt::RcvBuf, &0)?;
        tap.bind()?;
        Ok(tap)
    }

    fn filtered(program: &[SockFilter]) -> io::Result<Tap> {
        // Without a protocol nothing comes before the filter is there.
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let tap = Tap { socket: socket(AddressFamily::Packet, SockType::Raw, flags, None)? };
        SockRef::from(&tap.socket).attach_filter(program)?;
        Ok(tap)
    }

    /// Let in what passes a program from now on.
    pub fn filter_by(&self, program: &[SockFilter]) -> io::Result<()> {
        SockRef::from(&self.socket).attach_filter(program)
    }

    fn switch_on(&self, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
        let on: libc::c_int = 1;
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the option is an integer, which lives for the call.
        let done = unsafe { libc::setsockopt(self.socket.as_raw_fd(), level, option, (&raw const on).cast(), length) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// All protocols at all devices.
    fn bind(&self) -> io::Result<()> {
        // SAFETY: a structure of numbers, for which zero is a value.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        address.sll_family = libc::AF_PACKET as libc::c_ushort;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the address is of the socket's family and has the length that is told.
        let done = unsafe { libc::bind(self.socket.as_raw_fd(), (&raw const address).cast(), length) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// The next frame; nothing where there is none just now.
    pub fn next(&self, buffer: &mut [u8]) -> io::Result<Option<Caught>> {
        // SAFETY: structures of numbers and pointers, for which zero is a value.
        let (mut from, mut header): (libc::sockaddr_ll, libc::msghdr) = unsafe { (zeroed(), zeroed()) };
        // Aligned as control messages must be.
        let mut control = [0u64; 32];
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        header.msg_name = (&raw mut from).cast();
        header.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control) as _;
        // SAFETY: every buffer of the header lives for the call and has the length that is told.
        let length = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut header, 0) };
        let Ok(length) = usize::try_from(length) else {
            return match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
                e => Err(e),
            };
        };
        let bytes = buffer.get(..length).unwrap_or_default().to_vec();
        let mut caught = Caught {
            at: 0,
            index: from.sll_ifindex.cast_unsigned(),
            packet_type: from.sll_pkttype,
            ethernet: matches!(from.sll_hatype, libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK),
            protocol: u16::from_be(from.sll_protocol),
            length: u32::try_from(length).unwrap_or(u32::MAX),
            bytes,
            mark: None,
        };
        // SAFETY: the kernel has filled in the header just now.
        unsafe { caught.controls(&header) };
        Ok(Some(caught))
    }

    /// How many frames found no room since the last call.
    pub fn lost(&self) -> u64 {
        self.counted().1
    }

    /// How many frames passed the filter since the last call, whether there was room or not.
    pub fn passed(&self) -> u64 {
        self.counted().0
    }

    fn counted(&self) -> (u64, u64) {
        // SAFETY: a structure of numbers, for which zero is a value.
        let mut told: libc::tpacket_stats = unsafe { zeroed() };
        let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        let (level, option) = (libc::SOL_PACKET, libc::PACKET_STATISTICS);
        let fd = self.socket.as_raw_fd();
        // SAFETY: the kernel writes at most `length` bytes into the structure.
        let done = unsafe { libc::getsockopt(fd, level, option, (&raw mut told).cast(), &raw mut length) };
        // The first number has the second in it.
        if done == 0 { (u64::from(told.tp_packets), u64::from(told.tp_drops)) } else { (0, 0) }
    }
}

impl Caught {
    /// Take in what came beside the frame.
    ///
    /// # Safety
    /// `header` is as recvmsg(2) left it, and its buffers are still there.
    unsafe fn controls(&mut self, header: &libc::msghdr) {
        // SAFETY: cmsg(3) walks within the header's control buffer; each kind has the type that is read.
        unsafe {
            let mut next = libc::CMSG_FIRSTHDR(header);
            while !next.is_null() {
                let data = libc::CMSG_DATA(next);
                match ((*next).cmsg_level, (*next).cmsg_type) {
                    (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                        self.at = nanoseconds(&data.cast::<libc::timespec>().read_unaligned());
                    }
                    (libc::SOL_SOCKET, libc::SO_MARK) => self.mark = Some(data.cast::<u32>().read_unaligned()),
                    (libc::SOL_PACKET, libc::PACKET_AUXDATA) => {
                        self.length = data.cast::<libc::tpacket_auxdata>().read_unaligned().tp_len;
                    }
                    _ => {}
                }
                next = libc::CMSG_NXTHDR(header, next);
            }
        }
    }
}

/// A time as one number.
pub(super) fn nanoseconds(time: &libc::timespec) -> u64 {
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Give a socket a larger receive buffer, as far as the user may.
pub(super) fn enlarge(socket: &impl AsFd, bytes: usize) -> io::Result<()> {
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err() {
        setsockopt(socket, sockopt::RcvBuf, &bytes)?;
    }
    Ok(())
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
