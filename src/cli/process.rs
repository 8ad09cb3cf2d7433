//! Processes of a lab as the caller counts them. A lab has PID namespaces of its own, in which
//! its daemon knows its processes; `ps` outside shows other numbers.

use std::fs;

/// The number of a container's program in its room: the first process there starts it and
/// nobody before (pid_namespaces(7)).
const PROGRAM: u32 = 2;

/// The child of process `parent` that it knows as `inner`, as the caller sees it.
pub fn outer_pid(parent: i32, inner: u32) -> Option<u32> {
    let parent = u32::try_from(parent).ok()?;
    let level = Status::read(parent)?.numbers.len().checked_sub(1)?;
    let pids = fs::read_dir("/proc").ok()?.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, Status::read(pid)?)))
        .find(|(_, status)| status.parent == parent && status.numbers.get(level) == Some(&inner))
        .map(|(pid, _)| pid)
}

/// A container's program, given the first process of its room as `daemon` knows it.
pub fn program_pid(daemon: i32, first: u32) -> Option<u32> {
    outer_pid(i32::try_from(outer_pid(daemon, first)?).ok()?, PROGRAM)
}

/// What /proc says of a process (proc_pid_status(5)).
struct Status {
    parent: u32,
    /// Its numbers, from the caller's PID namespace to its own.
    numbers: Vec<u32>,
}

impl Status {
    fn read(pid: u32) -> Option<Status> {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name));
        let numbers = field("NSpid:")?.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        Some(Status { parent: field("PPid:")?.trim().parse().ok()?, numbers })
    }
}
