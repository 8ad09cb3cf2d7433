//! TUN devices: the kernel's end is a device, ours is a file descriptor. The device lives as long
//! as the descriptor.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;

use crate::plan::Link;

/// The device file that every TUN device is made through.
pub const DEVICE_FILE: &str = "/dev/net/tun";

mod ioctl {
    use nix::libc;
    // linux/if_tun.h. Both are declared with an int, whatever they take.
    nix::ioctl_write_ptr_bad!(set_index, nix::request_code_write!(b'T', 218, size_of::<libc::c_int>()), u32);
    nix::ioctl_write_ptr_bad!(set_device, nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()), libc::ifreq);
}

/// Make the TUN device `link` in the calling thread's namespace, with the index that it is planned
/// with: one of the kernel's choice could be another device's. Its packets come without a header
/// of TUN's own (`IFF_NO_PI`). Address and routes are given by netlink like any other device's.
pub fn create(link: &Link) -> io::Result<OwnedFd> {
    let file = OpenOptions::new().read(true).write(true).open(DEVICE_FILE)?;
    // SAFETY: an ifreq is plain data, for which zeroes are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // A name has at most 15 bytes, so that a zero stays behind it.
    for (to, from) in request.ifr_name.iter_mut().zip(link.name.as_str().bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the descriptor is open and both structures are what these calls read.
    unsafe {
        ioctl::set_index(file.as_raw_fd(), &raw const link.index)?;
        ioctl::set_device(file.as_raw_fd(), &raw const request)?;
    }
    Ok(OwnedFd::from(file))
}
