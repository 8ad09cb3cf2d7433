//! Processes of a lab as the caller counts them. A lab has a PID namespace of its own, in which
//! its daemon knows its processes; `ps` outside shows other numbers.

use std::fs;

/// The process that is `inner` in the PID namespace of process `member`, as the caller sees it
/// (proc_pid_status(5), NSpid).
pub fn outer_pid(member: i32, inner: u32) -> Option<u32> {
    let room = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let wanted = room(&member.to_string())?;
    let pids = fs::read_dir("/proc").ok()?.filter_map(|e| e.ok()?.file_name().into_string().ok());
    pids.filter(|p| p.bytes().all(|b| b.is_ascii_digit()))
        .find(|pid| last_number(pid) == Some(inner) && room(pid).as_ref() == Some(&wanted))
        .and_then(|pid| pid.parse().ok())
}

/// A process' number in its innermost PID namespace.
fn last_number(pid: &str) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|l| l.strip_prefix("NSpid:"))?.split_whitespace().last()?.parse().ok()
}
