//! One namespace that is recorded: its sockets, its devices' names, what it had counted before.

use std::io;
use std::os::fd::AsFd;

use netlink_sys::Socket;
use nix::sys::stat::fstat;
use nix::time::{ClockId, clock_gettime};
use socket2::SockFilter;

use crate::kernel::nfnl::short;
use crate::kernel::ns::NetNs;
use crate::kernel::rtnl::split;
use crate::kernel::tables;
use crate::lab::names::{IfName, NsName};
use crate::plan::deviation::NftTable;
use crate::trace::model::Means;

use super::connections;
use super::counters::{self, Devices, Snapshot};
use super::event::{Frame, RuleBook, Seen};
use super::tap::{Tap, enlarge, nanoseconds};
use super::{Options, Spot, filter};
use super::{marking, nflog, rules};

/// `NFNLGRP_CONNTRACK_NEW`, `_UPDATE` and `_DESTROY` (linux/netfilter/nfnetlink.h). A recording at a pace hears of the
/// first alone, which has the translation: of a short connection there is one such message in half a dozen.
const CONNTRACK: [u32; 3] = [1, 2, 3];
const PACED_CONNTRACK: [u32; 1] = [1];
/// `NFNLGRP_NFTRACE`.
const NFTRACE: u32 = 9;
/// No more is read from one socket before others have their turn.
const AT_ONCE: usize = 256;

/// What is said where a means does not work here.
pub(super) type Failure = (Means, String);

pub(super) struct Place {
    pub name: NsName,
    netns: NetNs,
    pub tap: Option<Tap>,
    pub told: Option<Socket>,
    /// What of netfilter `told` hears.
    groups: Vec<u32>,
    /// Counts frames, where their number is wanted.
    counter: Option<Tap>,
    /// So many of those were read or are known to be lost, since the counter was read.
    read: u64,
    /// Whether something was read since it was held back last, and whether it is.
    pub busy: bool,
    pub held: bool,
    left: Vec<NftTable>,
    /// Where the namespace's log went before.
    log: Option<nflog::Before>,
    devices: Devices,
    before: Snapshot,
    /// Whether a rule of it was met.
    pub met: bool,
}

/// What was read from a socket.
#[derive(Default)]
pub(super) struct Read {
    /// With the time of each.
    pub events: Vec<(u64, Seen)>,
    pub lost: u64,
    /// Whether there may be more.
    pub more: bool,
}

impl Place {
    /// Begin to record in the spot's namespace, which the calling thread enters.
    pub fn open(spot: &Spot, options: &Options, failed: &mut Vec<Failure>) -> io::Result<Place> {
        spot.netns.enter()?;
        let (before, devices) = counters::read().unwrap_or_else(|e| {
            failed.push((Means::Counter, e.to_string()));
            Default::default()
        });
        let (name, netns) = (spot.place.clone(), spot.netns.clone());
        let mut place = Place {
            name,
            netns,
            devices,
            before,
            tap: None,
            told: None,
            groups: Vec::new(),
            counter: None,
            read: 0,
            busy: false,
            held: false,
            left: Vec::new(),
            log: None,
            met: false,
        };
        let program = options.program();
        match Tap::open(&program, options.buffer()) {
            Ok(tap) => place.tap = Some(tap),
            Err(e) => failed.push((Means::Tap, e.to_string())),
        }
        if options.pace.as_ref().is_some_and(|pace| pace.counted == spot.place) {
            // Where it cannot be opened, what was lost is not counted.
            place.counter = Tap::counter(&program).ok();
        }
        place.hear_rules(options, failed);
        place.hear_connections(options, failed);
        Ok(place)
    }

    fn hear_rules(&mut self, options: &Options, failed: &mut Vec<Failure>) {
        if !options.rules {
            return;
        }
        let marking = marking::mark(&options.filter, options.pace.as_ref().map(|pace| pace.traced));
        let marking = marking.and_then(|mut marking| {
            if let Some(e) = marking.failed.take() {
                failed.push((Means::Rules, format!("rules for devices and bridges are not told of: {e}")));
            }
            if tables::legacy() {
                match nflog::hear(&marking.socket) {
                    Ok(before) => self.log = Some(before),
                    Err(e) => failed.push((Means::Rules, format!("rules of iptables-legacy are not told of: {e}"))),
                }
            }
            ready(&mut marking.socket, options)?;
            marking.socket.add_membership(NFTRACE)?;
            Ok(marking)
        });
        match marking {
            Ok(marking) => {
                (self.told, self.left) = (Some(marking.socket), marking.left);
                self.groups.push(NFTRACE);
            }
            Err(e) => failed.push((Means::Rules, format!("nf_tables does not trace here: {e}"))),
        }
    }

    /// What stat(2) says of the namespace: its device and inode.
    pub fn identity(&self) -> Option<(u64, u64)> {
        fstat(self.netns.as_fd()).ok().map(|stat| (stat.st_dev, stat.st_ino))
    }

    /// Let the namespace's log go where it went before. To be done while the socket is still there: until then
    /// nobody else can take the log.
    pub fn give_back(&mut self) {
        if let Some(before) = self.log.take() {
            // Where that fails the namespace is gone.
            let _ = self.netns.run(|| nflog::give_back(&before));
        }
    }

    /// On the same socket, where there is one.
    fn hear_connections(&mut self, options: &Options, failed: &mut Vec<Failure>) {
        if !options.conntrack {
            return;
        }
        let heard = self.told.take().map_or_else(
            || {
                let (mut socket, _) = marking::socket()?;
                ready(&mut socket, options).map(|()| socket)
            },
            Ok,
        );
        let heard = heard.and_then(|socket| {
            let wanted = if options.pace.is_some() { &PACED_CONNTRACK[..] } else { &CONNTRACK };
            let joined = wanted.iter().try_for_each(|group| socket.add_membership(*group));
            self.groups.extend(wanted);
            self.told = Some(socket);
            joined
        });
        if let Err(e) = heard {
            failed.push((Means::Conntrack, format!("connection tracking does not tell of changes: {e}")));
        }
    }

    /// Let nothing in until [`Place::go_on`]; what was let in can still be read. Returns how many frames found no room.
    pub fn hold(&mut self) -> u64 {
        self.held = true;
        // Where the kernel refuses, more comes than is wanted.
        self.groups.iter().zip(self.told.iter().cycle()).for_each(|(group, told)| drop(told.drop_membership(*group)));
        self.tap.iter().for_each(|tap| drop(tap.filter_by(&[filter::NOTHING])));
        self.overflowed()
    }

    /// How many frames found no room since the last call.
    pub fn overflowed(&mut self) -> u64 {
        self.busy = false;
        let lost = self.tap.as_ref().map_or(0, Tap::lost);
        self.read += lost;
        lost
    }

    /// Let in again what passes the program. To be called when all has been read; returns how many frames were not, where
    /// that is counted.
    pub fn go_on(&mut self, program: &[SockFilter]) -> u64 {
        self.held = false;
        // The kernel has taken both before.
        self.groups.iter().zip(self.told.iter().cycle()).for_each(|(group, told)| drop(told.add_membership(*group)));
        let passed = self.counter.as_ref().map_or(0, Tap::passed);
        self.tap.iter().for_each(|tap| drop(tap.filter_by(program)));
        passed.saturating_sub(std::mem::take(&mut self.read))
    }

    /// The next frames.
    pub fn frames(&mut self, buffer: &mut [u8]) -> Read {
        let mut read = Read::default();
        let Some(tap) = &self.tap else { return read };
        while read.events.len() < AT_ONCE {
            let caught = match tap.next(buffer) {
                Ok(Some(caught)) => caught,
                // The network of a device is down: told once, and it goes on (packet(7)).
                Err(e) if e.raw_os_error() == Some(libc::ENETDOWN) => continue,
                Ok(None) | Err(_) => return read,
            };
            let frame = Frame {
                index: caught.index,
                dev: device(&mut self.devices, &self.netns, caught.index),
                outgoing: caught.packet_type == libc::PACKET_OUTGOING,
                packet_type: caught.packet_type,
                ethernet: caught.ethernet,
                protocol: caught.protocol,
                bytes: caught.bytes,
                length: caught.length,
                mark: caught.mark,
            };
            read.events.push((caught.at, Seen::Frame(frame)));
            self.read += 1;
        }
        read.more = true;
        read
    }

    /// What netfilter has told since.
    pub fn tidings(&mut self, buffer: &mut [u8]) -> Read {
        let mut read = Read::default();
        let Some(socket) = &self.told else { return read };
        for _ in 0..AT_ONCE {
            let mut window = &mut buffer[..];
            let length = match socket.recv(&mut window, 0) {
                Ok(length) => length,
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {
                    // How much it was the kernel does not tell.
                    read.lost += 1;
                    continue;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return read,
            };
            let now = now();
            for message in split(&buffer[..length]) {
                let names = |index| device(&mut self.devices, &self.netns, index);
                let seen = match short(message, 4) {
                    rules::TRACE => rules::seen(message, names).map(Seen::Rule),
                    nflog::PACKET => nflog::seen(message, names).map(Seen::Rule),
                    _ => connections::entry(message).map(Seen::Conntrack),
                };
                self.met |= matches!(seen, Some(Seen::Rule(_)));
                read.events.extend(seen.map(|seen| (now, seen)));
            }
        }
        read.more = true;
        read
    }

    /// How much each counter went up since the beginning. The calling thread enters the namespace.
    pub fn counted(&self) -> io::Result<Vec<(String, u64)>> {
        self.netns.enter()?;
        let (after, _) = counters::read().map_err(io::Error::other)?;
        Ok(after.since(&self.before))
    }

    /// Add the rules of the namespace, which the calling thread enters.
    pub fn book(&self, book: &mut RuleBook) -> io::Result<()> {
        self.netns.enter()?;
        rules::book(&self.name, book)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.give_back();
        if !self.left.is_empty() {
            // Without an owner they are ours to remove; where that fails the namespace is gone.
            let _ = self.netns.run(|| self.left.iter().try_for_each(tables::delete));
        }
    }
}

/// A socket whose answers have been read, made ready to listen.
fn ready(socket: &mut Socket, options: &Options) -> io::Result<()> {
    enlarge(socket, options.buffer())?;
    socket.set_non_blocking(true)
}

/// A device's name. One that came later is looked for; one that has gone again is called by its number.
fn device(devices: &mut Devices, netns: &NetNs, index: u32) -> IfName {
    if let Some(name) = devices.get(&index) {
        return name.clone();
    }
    if let Ok(Ok((_, found))) = netns.run(counters::read) {
        devices.extend(found);
    }
    devices.entry(index).or_insert_with(|| IfName::new(&format!("if{index}"))).clone()
}

/// The time as frames have it.
pub(super) fn now() -> u64 {
    clock_gettime(ClockId::CLOCK_REALTIME).map_or(0, |time| nanoseconds(time.as_ref()))
}
