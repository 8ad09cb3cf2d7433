//! The floor: what the kernel itself takes for a lab's namespaces, veth pairs, addresses and
//! routes, when one process asks for them with as few messages as there can be.
//!
//! Devices are born in their namespaces, with their bridges, and up where the kernel allows it;
//! each namespace gets one batch. The machine is the one that labctl builds for the same numbers:
//! a router with a bridge, hosts on it with a VXLAN device and entries for each peer, a bridge on
//! each host, pods. There are no rules, no sysctls, no listeners, and nothing is checked.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sched::{CloneFlags, unshare};

use crate::inside::{leave, link, own_netns, ready_until_told};
use crate::wire::{Batch, Socket};

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_NEWNEIGH: u16 = 28;
const CREATE: i32 = libc::NLM_F_CREATE | libc::NLM_F_EXCL;

const LOOPBACK: u32 = 1;
const ETH0: u32 = 2;
const VXLAN: u32 = 3;
const BRIDGE: u32 = 4;
/// Pairs' other ends, on hosts and router. Never equal to the near end's: that delays the carrier.
const FIRST_PORT: u32 = 5;

/// A namespace and a socket in it.
struct Space {
    netns: OwnedFd,
    socket: Socket,
    batch: Batch,
}

/// `floor HOSTS PODS`: build, say so, and live until standard input ends.
pub fn run(hosts: u32, pods: u32) -> io::Result<()> {
    crate::labs::raise_descriptor_limit();
    leave(CloneFlags::CLONE_NEWNET)?;
    let mut router = Space::here()?;
    bridge(&mut router.batch, BRIDGE, [192, 168, 0, 1], 16);
    router.batch.message(RTM_NEWLINK, 0, &link(LOOPBACK, true));
    router.flush()?;
    let mut spaces = Vec::new();
    for host in 0..hosts {
        let machine = Space::new()?;
        pair(&mut router, &machine.netns, FIRST_PORT + host)?;
        spaces.push(machine);
    }
    router.flush()?;
    let mut all_pods = Vec::new();
    for (host, machine) in (0u32..).zip(&mut spaces) {
        fill_host(machine, host, hosts)?;
        // The scheduler's way: the pods go round the hosts.
        for pod in (host..pods).step_by(hosts as usize) {
            let mut space = Space::new()?;
            pair(machine, &space.netns, FIRST_PORT + pod)?;
            fill_pod(&mut space.batch, host, pod / hosts);
            all_pods.push(space);
        }
        machine.flush()?;
    }
    all_pods.iter_mut().try_for_each(Space::flush)?;
    ready_until_told()
}

impl Space {
    fn here() -> io::Result<Space> {
        Ok(Space { netns: own_netns()?, socket: Socket::open(0)?, batch: Batch::default() })
    }

    fn new() -> io::Result<Space> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        Space::here()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.send(&mut self.batch)
    }
}

fn bridge(batch: &mut Batch, index: u32, ip: [u8; 4], prefix: u8) {
    batch.message(RTM_NEWLINK, CREATE, &link(index, true)).nest(18, |info| {
        info.attribute(1, b"bridge");
    });
    address(batch, index, ip, prefix);
}

/// A veth pair from a port of the bridge here to `eth0` there.
fn pair(here: &mut Space, there: &OwnedFd, index: u32) -> io::Result<()> {
    let batch = here.batch.message(RTM_NEWLINK, CREATE, &link(index, true));
    batch.attribute(10, &BRIDGE.to_ne_bytes());
    batch.nest(18, |info| {
        info.attribute(1, b"veth").nest(2, |data| {
            data.nest(1, |peer| {
                peer.raw(&link(ETH0, false));
                peer.attribute(3, b"eth0\0").attribute(28, &there.as_raw_fd().to_ne_bytes());
            });
        });
    });
    if here.batch.is_full() { here.flush() } else { Ok(()) }
}

fn address(batch: &mut Batch, index: u32, ip: [u8; 4], prefix: u8) {
    // `ifaddrmsg`: family, prefix length, flags, scope, index.
    let mut fixed = [libc::AF_INET as u8, prefix, 0, 0, 0, 0, 0, 0];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    batch.message(RTM_NEWADDR, CREATE, &fixed).attribute(2, &ip);
}

fn route(batch: &mut Batch, to: ([u8; 4], u8), via: [u8; 4], dev: u32, onlink: bool) {
    // `rtmsg`: family, lengths, tos, table main, protocol boot, scope universe, unicast, flags.
    let mut fixed = [libc::AF_INET as u8, to.1, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
    fixed[8] = if onlink { 4 } else { 0 };
    batch.message(RTM_NEWROUTE, CREATE, &fixed);
    if to.1 > 0 {
        batch.attribute(1, &to.0);
    }
    batch.attribute(5, &via).attribute(4, &dev.to_ne_bytes());
}

/// An entry of the kind `family`, neighbour or forwarding table, from `key` to `value`.
fn entry(batch: &mut Batch, family: u8, flags: u8, ip: [u8; 4], mac: [u8; 6]) {
    const PERMANENT: u16 = 0x80;
    let mut fixed = [0; 12];
    fixed[0] = family;
    fixed[4..8].copy_from_slice(&VXLAN.to_ne_bytes());
    fixed[8..10].copy_from_slice(&PERMANENT.to_ne_bytes());
    fixed[10] = flags;
    batch.message(RTM_NEWNEIGH, CREATE, &fixed).attribute(1, &ip).attribute(2, &mac);
}

fn host_ip(host: u32) -> [u8; 4] {
    [192, 168, 0, 10 + host as u8]
}

/// A /22 each, so that one host has room for a thousand pods.
fn subnet(host: u32, offset: u32) -> [u8; 4] {
    (0x0a_f4_00_00 + (host + 1) * 1024 + offset).to_be_bytes()
}

fn mac(host: u32) -> [u8; 6] {
    [2, 0, 0, 0, 1, host as u8]
}

fn fill_host(machine: &mut Space, host: u32, hosts: u32) -> io::Result<()> {
    let batch = &mut machine.batch;
    batch.message(RTM_NEWLINK, 0, &link(LOOPBACK, true));
    batch.message(RTM_NEWLINK, 0, &link(ETH0, true));
    address(batch, ETH0, host_ip(host), 16);
    route(batch, ([0; 4], 0), [192, 168, 0, 1], ETH0, false);
    batch.message(RTM_NEWLINK, CREATE, &link(VXLAN, true));
    batch.attribute(3, b"flannel.1\0").attribute(1, &mac(host)).nest(18, |info| {
        info.attribute(1, b"vxlan").nest(2, |data| {
            let port = 8472u16.to_be_bytes();
            data.attribute(1, &1u32.to_ne_bytes()).attribute(3, &ETH0.to_ne_bytes());
            data.attribute(4, &host_ip(host)).attribute(15, &port).attribute(7, &[0]);
        });
    });
    address(batch, VXLAN, subnet(host, 0), 32);
    for peer in (0..hosts).filter(|p| *p != host) {
        const SELF: u8 = 2;
        entry(batch, libc::AF_INET as u8, 0, subnet(peer, 0), mac(peer));
        entry(batch, libc::AF_BRIDGE as u8, SELF, host_ip(peer), mac(peer));
        route(batch, (subnet(peer, 0), 22), subnet(peer, 0), VXLAN, true);
    }
    bridge(batch, BRIDGE, subnet(host, 1), 22);
    machine.flush()
}

fn fill_pod(batch: &mut Batch, host: u32, number: u32) {
    batch.message(RTM_NEWLINK, 0, &link(LOOPBACK, true));
    batch.message(RTM_NEWLINK, 0, &link(ETH0, true));
    address(batch, ETH0, subnet(host, 2 + number), 22);
    route(batch, ([0; 4], 0), subnet(host, 1), ETH0, false);
    route(batch, ([10, 244, 0, 0], 16), subnet(host, 1), ETH0, false);
}
