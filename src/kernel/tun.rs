//! TUN devices: the kernel's end is a device, ours is a file descriptor. The device lives as long
//! as the descriptor.

use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

use crate::plan::Link;

/// The device file that every TUN device is made through.
pub const DEVICE_FILE: &str = "/dev/net/tun";

/// Make the TUN device `link` in the calling thread's namespace. Its packets come without a
/// header of TUN's own (`IFF_NO_PI`). Address and routes are given by netlink like any other
/// device's.
pub fn create(link: &Link) -> io::Result<OwnedFd> {
    let device = tun_rs::DeviceBuilder::new()
        .name(link.name.to_string())
        .packet_information(false)
        .inherit_enable_state()
        .build_sync()?;
    // SAFETY: into_raw_fd gives the descriptor up to us, and to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(device.into_raw_fd()) })
}
