//! A recording of its own of every frame at every device of a lab: one packet socket in each
//! namespace (packet(7)), read by one thread.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use labctl::lab::names::NsName;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvmsg, setsockopt,
    socket, sockopt,
};

use crate::harness::Bench;

/// The largest frame, and how much of it is kept.
const LARGEST: usize = 1 << 17;
const KEPT: usize = 400;
/// Else the kernel tells an address of errors once in a while (`icmp_ratemask`), and questions come faster. The
/// limit itself must stay: one of 0 takes an address all that it may still be told of missing routes (`ip_error`,
/// which counts in the same place).
const TELL_ALL: &str = "sysctl -qw net.ipv4.icmp_ratemask=0";
/// Milliseconds after which the reader looks whether it is to end.
const LOOK: u16 = 50;

/// A frame at a device.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Nanoseconds since 1970.
    pub at: u64,
    pub place: NsName,
    pub dev: String,
    pub outgoing: bool,
    pub ethernet: bool,
    pub bytes: Vec<u8>,
}

struct Tap {
    place: NsName,
    devices: HashMap<usize, String>,
    socket: OwnedFd,
}

/// A recording that goes on.
pub struct Capture {
    frames: Arc<Mutex<Vec<Frame>>>,
    end: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Capture {
    /// Record in these namespaces of the bench's lab.
    pub fn start(bench: &Bench, places: impl Iterator<Item = NsName>) -> Capture {
        let held = held(bench.daemon());
        let taps: Vec<Tap> = places.map(|place| tap(bench, place, &held)).collect();
        let (frames, end) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (kept, over) = (Arc::clone(&frames), Arc::clone(&end));
        let reader = std::thread::spawn(move || read(&taps, &kept, &over));
        Capture { frames, end, reader: Some(reader) }
    }

    /// What came since the last call, in the order of time.
    pub fn take(&self) -> Vec<Frame> {
        // What was there before is read once a whole turn has begun and ended.
        std::thread::sleep(std::time::Duration::from_millis(5));
        let mut frames = std::mem::take(&mut *self.frames.lock().expect("the frames"));
        frames.sort_by_key(|f| f.at);
        frames
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// The network namespaces that the daemon holds, by what their links say (`net:[4026531840]`).
fn held(daemon: i32) -> HashMap<String, File> {
    let all = fs::read_dir(format!("/proc/{daemon}/fd")).expect("the daemon's descriptors");
    let named = all.filter_map(|entry| {
        let path = entry.ok()?.path();
        let link = fs::read_link(&path).ok()?.to_string_lossy().into_owned();
        Some((link, path))
    });
    named
        .filter(|(link, _)| link.starts_with("net:["))
        .filter_map(|(l, path)| Some((l, File::open(path).ok()?)))
        .collect()
}

fn tap(bench: &Bench, place: NsName, held: &HashMap<String, File>) -> Tap {
    let said = bench.sh(&place.to_string(), &format!("{TELL_ALL}; readlink /proc/self/ns/net; ip -j link"));
    let (link, devices) = said.split_once('\n').expect("two lines");
    let devices: serde_json::Value = serde_json::from_str(devices).expect("JSON");
    let device =
        |d: &serde_json::Value| Some((usize::try_from(d["ifindex"].as_u64()?).ok()?, d["ifname"].as_str()?.to_owned()));
    let devices = devices.as_array().expect("devices").iter().filter_map(device).collect();
    let netns = held.get(link).unwrap_or_else(|| panic!("the daemon holds no {link} for {place}"));
    let socket = std::thread::scope(|scope| scope.spawn(|| open(netns)).join().expect("a socket"));
    Tap { place, devices, socket }
}

/// A socket in a namespace, which the calling thread does not leave again.
fn open(netns: &File) -> OwnedFd {
    setns(netns, CloneFlags::CLONE_NEWNET).expect("the namespace");
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll).expect("a packet socket");
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true).expect("stamps");
    setsockopt(&socket, sockopt::RcvBufForce, &(4 << 20)).expect("room");
    socket
}

fn read(taps: &[Tap], kept: &Mutex<Vec<Frame>>, over: &AtomicBool) {
    let mut buffer = vec![0; LARGEST];
    while !over.load(Ordering::Relaxed) {
        let mut ready: Vec<PollFd> = taps.iter().map(|t| PollFd::new(t.socket.as_fd(), PollFlags::POLLIN)).collect();
        poll(&mut ready, PollTimeout::from(LOOK)).expect("waiting for frames");
        let some: Vec<bool> = ready.iter().map(|p| p.any().unwrap_or(false)).collect();
        for (tap, _) in taps.iter().zip(some).filter(|(_, some)| *some) {
            let mut frames = kept.lock().expect("the frames");
            while let Some(frame) = next(tap, &mut buffer) {
                frames.push(frame);
            }
        }
    }
}

fn next(tap: &Tap, buffer: &mut [u8]) -> Option<Frame> {
    let mut control = nix::cmsg_space!(nix::sys::time::TimeSpec);
    let mut parts = [IoSliceMut::new(buffer)];
    let fd = tap.socket.as_raw_fd();
    let got = recvmsg::<LinkAddr>(fd, &mut parts, Some(&mut control), MsgFlags::empty()).ok()?;
    let stamp = got.cmsgs().ok()?.find_map(|c| match c {
        ControlMessageOwned::ScmTimestampns(time) => Some(time),
        _ => None,
    });
    let (stamp, from, length) = (stamp.expect("a stamp"), got.address.expect("a device"), got.bytes);
    let at = u64::try_from(stamp.tv_sec()).ok()? * 1_000_000_000 + u64::try_from(stamp.tv_nsec()).ok()?;
    Some(Frame {
        at,
        place: tap.place.clone(),
        dev: tap.devices.get(&from.ifindex()).cloned().unwrap_or_else(|| format!("device {}", from.ifindex())),
        outgoing: from.pkttype() == libc::PACKET_OUTGOING,
        ethernet: matches!(from.hatype(), libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK),
        bytes: buffer[..length.min(KEPT)].to_vec(),
    })
}
