//! The user-space daemon of flannel's udp back end. The kernel routes the pod network into a TUN
//! device; what comes out of it is looked up in the map of leases and sent in UDP to the host that
//! has the destination's subnet, and what comes in from such a host is written to the TUN device.
//! Either way is a hop of the packet's path: the TTL goes down by one, and what cannot be sent on
//! is answered with ICMP.
//!
//! Here stand the daemon's life and its control channel. How packets move is `datapath`'s, what
//! is read from and written to their headers `header`'s, the answers `icmp`'s, the map
//! `leases`'. Making the device, its address and its route is the plan's business.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};

use serde::{Deserialize, Serialize};

use self::control::{Control, Heard};
use self::datapath::DataPath;
use super::events::Teller;

mod control;
mod datapath;
mod header;
mod icmp;
mod leases;

/// What a daemon is told once, at its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The host's own address.
    pub listen: IpAddr,
    /// The UDP port, its own and its peers'.
    pub port: u16,
    /// The address of the TUN device, from which ICMP errors come.
    pub tun_address: IpAddr,
    /// Bytes of the largest IP packet that is carried.
    pub mtu: u32,
}

/// Move packets until `control` ends. `tun` is the device's file (IFF_TUN | IFF_NO_PI), `control`
/// brings lines of JSON, each a list of [`PeerLease`](crate::plan::PeerLease) that replaces the
/// one before. The line `ready` goes to standard output once the socket is bound and the first
/// list is in force, and then, where that is ordered, [`events`](super::events) of packets.
///
/// A list that cannot be read is an error where it is the first one; a later one is complained
/// about on standard error and the former stays in force.
///
/// # Errors
/// An address that is not IPv4, a socket that cannot be made (the raw one wants CAP_NET_RAW in the
/// namespace), or a device that has gone.
pub fn run(tun: OwnedFd, config: &Config, control: impl Read + AsFd) -> io::Result<()> {
    run_then(tun, config, control, || {
        let mut out = io::stdout().lock();
        writeln!(out, "ready")?;
        out.flush()
    })
}

/// As [`run`], with something else to be done when it is ready.
///
/// # Errors
/// As [`run`], and those of `ready`.
pub fn run_then(
    tun: OwnedFd,
    config: &Config,
    control: impl Read + AsFd,
    ready: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    let teller = Teller::default();
    let mut path = DataPath::open(tun, config, teller.clone())?;
    let mut control = Control::new(control, teller);
    let mut leases = loop {
        match control.hear()? {
            Heard::Leases(first) => break told(first?),
            Heard::Order | Heard::Nothing => {}
            Heard::End => return Ok(()),
        }
    };
    ready()?;
    loop {
        let heard = match control.pending() {
            Some(heard) => heard,
            None => {
                path.forward_until_readable(&leases, control.as_fd())?;
                control.hear()?
            }
        };
        match heard {
            Heard::Leases(newer) => replace(&mut leases, newer),
            Heard::Order | Heard::Nothing => {}
            Heard::End => return Ok(()),
        }
    }
}

fn replace(leases: &mut leases::Leases, newer: io::Result<leases::Leases>) {
    match newer {
        Ok(newer) => *leases = told(newer),
        Err(problem) => log(format_args!("a list of leases was refused: {problem}")),
    }
}

/// Write into the log what is known from now on.
fn told(leases: leases::Leases) -> leases::Leases {
    for (subnet, host) in leases.iter() {
        log(format_args!("{subnet} is behind {host}"));
    }
    leases
}

/// Standard error may be closed, and that is no reason to stop moving packets.
fn log(what: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "flanneld: {what}");
}

fn ipv4(address: IpAddr, what: &str) -> io::Result<Ipv4Addr> {
    match address {
        IpAddr::V4(v4) => Ok(v4),
        IpAddr::V6(v6) => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{what} {v6} is not an IPv4 address")))
        }
    }
}
