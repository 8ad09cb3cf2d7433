//! What the benchmark runs in namespaces of its own: helpers that this same program becomes when
//! it is started with a hidden first word. Nothing here touches the machine's own network.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{getegid, geteuid};

use crate::wire::{Batch, Socket};

/// How many seconds the kernel may be silent before the wait is given up.
const DRAIN_LIMIT: i64 = 60;

/// Leave the caller's namespaces, as root or, in a user namespace, as anyone.
pub fn leave(flags: CloneFlags) -> io::Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    if uid.is_root() && unshare(flags).is_ok() {
        return Ok(());
    }
    unshare(flags | CloneFlags::CLONE_NEWUSER)?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
}

/// The namespace of the calling thread.
pub fn own_netns() -> io::Result<OwnedFd> {
    Ok(OwnedFd::from(std::fs::File::open("/proc/thread-self/ns/net")?))
}

/// Tell the benchmark that the work is done, and live until it has seen enough.
pub fn ready_until_told() -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(b"ready\n")?;
    out.flush()?;
    let mut rest = Vec::new();
    io::stdin().lock().read_to_end(&mut rest)?;
    Ok(())
}

/// `inside COMMAND…`: become COMMAND with a network, a mount tree and a /run of its own.
pub fn run(words: &[String]) -> io::Result<()> {
    leave(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none)?;
    let Some((program, rest)) = words.split_first() else { return Err(io::Error::other("no command")) };
    Err(Command::new(program).args(rest).exec())
}

/// `drained`: wait until the kernel has taken down every namespace that was given up before.
///
/// It takes them down in one queue, in the order in which they come (`cleanup_net`), so one that
/// is given up now goes last. A veth pair reaches into it, and our end vanishes with the other.
pub fn drained() -> io::Result<()> {
    const RTM_NEWLINK: u16 = 16;
    const RTM_DELLINK: u16 = 17;
    const GROUP_LINK: u32 = 1;
    // The kernel heeds a peer's index only where the pair's first end is given one, too.
    const INDEX: u32 = 77;
    leave(CloneFlags::CLONE_NEWNET)?;
    let ours = own_netns()?;
    let listener = Socket::open(GROUP_LINK)?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    let mut batch = Batch::default();
    batch.message(RTM_NEWLINK, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &link(INDEX + 1, false)).nest(18, |info| {
        info.attribute(1, b"veth").nest(2, |data| {
            data.nest(1, |peer| {
                peer.raw(&link(INDEX, false));
                peer.attribute(28, &ours.as_raw_fd().to_ne_bytes());
            });
        });
    });
    Socket::open(0)?.send(&mut batch)?;
    setns(&ours, CloneFlags::CLONE_NEWNET)?;
    listener.await_link(RTM_DELLINK, INDEX, DRAIN_LIMIT)
}

/// `ifinfomsg` of a device, by index, and whether to bring it up.
pub fn link(index: u32, up: bool) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    if up {
        let flag = (libc::IFF_UP as u32).to_ne_bytes();
        bytes[8..12].copy_from_slice(&flag);
        bytes[12..16].copy_from_slice(&flag);
    }
    bytes
}
