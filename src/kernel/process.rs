//! Processes by the network namespace that they are in.

use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::ns::NetNs;

/// End every process that is in one of these namespaces: what a removed pod's programs started
/// and left behind, and shells that somebody still has open there. Processes outside the lab are
/// not seen, because /proc is the lab's own.
pub fn kill_in(namespaces: &[NetNs]) {
    let inodes: Vec<u64> = namespaces.iter().filter_map(|ns| ns.inode().ok()).collect();
    let own = std::process::id();
    // Where the machine gave the lab no /proc of its own (a container may forbid it), numbers there
    // mean other processes than kill(2) does: better none than the wrong one.
    let is_own = fs::read_link("/proc/self").is_ok_and(|name| name.to_str() == Some(own.to_string().as_str()));
    if !is_own {
        return;
    }
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    for pid in pids.filter(|pid| u32::try_from(*pid) != Ok(own) && *pid != 1) {
        let inode = fs::metadata(format!("/proc/{pid}/ns/net")).map(|m| m.ino());
        if inode.is_ok_and(|inode| inodes.contains(&inode)) {
            // One that ends in this moment needs no signal.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}
