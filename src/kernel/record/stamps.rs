//! Waiting until the kernel stamps frames with the time at which they come. It begins to some time after
//! the first socket has asked for it (`net_enable_timestamp` leaves it to a work queue), and until
//! then a frame has the time at which it is read, which says nothing of the order.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::time::{ClockId, clock_gettime};

use crate::kernel::message::{LOOPBACK, link_up};
use crate::kernel::ns::NetNs;
use crate::kernel::rtnl::Rtnl;

/// A packet to oneself comes at once.
const PATIENCE: Duration = Duration::from_secs(2);

/// A socket by which it is seen. As long as it is there, the kernel goes on stamping.
pub(super) struct Stamps(UdpSocket);

impl Stamps {
    /// Ask for stamps, in a namespace of its own, so that nobody else sees its packets. To be called on a
    /// thread of its own.
    pub fn ask() -> io::Result<Stamps> {
        NetNs::create_and_enter()?;
        Rtnl::open()?.batch(vec![link_up(LOOPBACK)]).map_err(io::Error::other)?;
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect(socket.local_addr()?)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        Ok(Stamps(socket))
    }

    /// Blocks until a packet is stamped before it is read.
    pub fn wait(&self) -> io::Result<()> {
        loop {
            self.0.send(&[0])?;
            let before = clock_gettime(ClockId::CLOCK_REALTIME)?;
            if self.stamp()? <= before {
                return Ok(());
            }
            std::thread::yield_now();
        }
    }

    fn stamp(&self) -> io::Result<nix::sys::time::TimeSpec> {
        use std::os::fd::AsRawFd;
        let mut space = nix::cmsg_space!(nix::sys::time::TimeSpec);
        let mut byte = [0];
        let mut parts = [io::IoSliceMut::new(&mut byte)];
        let read = recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty())?;
        let stamp = read.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::ScmTimestampns(time) => Some(time),
            _ => None,
        });
        stamp.ok_or_else(|| io::Error::other("the kernel gives packets no time (SO_TIMESTAMPNS)"))
    }
}
