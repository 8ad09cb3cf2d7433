//! What can be read of the machine: versions, limits, directories, programs. Nothing is tried.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{AccessFlags, access};

use crate::runtime::RuntimeDir;

use super::remedy::value;
use super::{Finding, Verdict};

/// The first kernel whose setns(2) takes a process, by which a container's namespaces are entered.
const OLDEST_KERNEL: (u32, u32) = (5, 8);

pub fn kernel() -> Finding {
    let release = value("kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= OLDEST_KERNEL {
        return Finding::ok("kernel", format!("Linux {release}"));
    }
    let (major, minor) = OLDEST_KERNEL;
    Finding::new("kernel", Verdict::Warning, format!("Linux {release} is older than any that was tried"))
        .remedy(format!("take Linux {major}.{minor} or newer"))
}

/// A namespace for each pod, host and client.
pub fn net_namespaces() -> Finding {
    const WHAT: &str = "namespace limit";
    let Some(most) = value("user/max_net_namespaces").and_then(|v| v.parse::<u64>().ok()) else {
        return Finding::ok(WHAT, "this kernel has none");
    };
    let said = format!("at most {most} network namespaces for a user");
    match most {
        0..100 => Finding::new(WHAT, Verdict::Warning, said)
            .remedy("`sudo sysctl user.max_net_namespaces=10000` allows larger labs"),
        _ => Finding::ok(WHAT, said),
    }
}

/// The smallest of the limits on processes. Pods without a program need none.
pub fn processes() -> Finding {
    let own = getrlimit(Resource::RLIMIT_NPROC).map_or(u64::MAX, |(soft, _)| soft);
    let all = value("kernel/pid_max").and_then(|v| v.parse().ok()).unwrap_or(u64::MAX);
    let limits = [
        (own, "the limit of your user (`ulimit -u`)"),
        (all, "kernel.pid_max"),
        (cgroup_pids().unwrap_or(u64::MAX), "the control group's pids.max"),
    ];
    let (most, whose) = limits.into_iter().min_by_key(|l| l.0).unwrap_or((u64::MAX, "none"));
    let said = format!("at most {most}, by {whose}");
    match most {
        u64::MAX => Finding::ok("processes", "no limit"),
        0..256 => Finding::new("processes", Verdict::Warning, said)
            .remedy("raise it where pods are to run many programs; each is a process, as is each host's flanneld"),
        _ => Finding::ok("processes", said),
    }
}

/// cgroups(7), version 2: the limit nearest to us that says a number.
fn cgroup_pids() -> Option<u64> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|l| l.strip_prefix("0::"))?.trim_start_matches('/').to_owned();
    let place = Path::new("/sys/fs/cgroup").join(path);
    place
        .ancestors()
        .take_while(|d| d.starts_with("/sys/fs/cgroup"))
        .find_map(|dir| fs::read_to_string(dir.join("pids.max")).ok()?.trim().parse().ok())
}

/// A lab holds a descriptor for each namespace and one for each listening socket and connection.
pub fn descriptors() -> Finding {
    const EACH: u64 = 3;
    let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return Finding::ok("descriptors", "the limit cannot be read");
    };
    let said = format!("at most {hard} for a process: some {} pods", hard / EACH);
    match hard {
        0..1024 => Finding::new("descriptors", Verdict::Warning, said)
            .remedy("raise the hard limit (`ulimit -Hn`, or `nofile` in /etc/security/limits.conf)"),
        _ => Finding::ok("descriptors", said),
    }
}

/// The neighbour table has one size for all namespaces together (arp(7)).
pub fn neighbours() -> Finding {
    const WHAT: &str = "neighbour table";
    let Some(most) = value("net/ipv4/neigh/default/gc_thresh3").and_then(|v| v.parse::<u64>().ok()) else {
        return Finding::ok(WHAT, "its size is not shown here; the machine's default is 1024 entries");
    };
    // A pod that talks is in its gateway's table, and the gateway in its own.
    let said = format!("gc_thresh3 is {most}: some {} pods that talk at the same time", most / 2);
    match most {
        0..1024 => Finding::new(WHAT, Verdict::Warning, said)
            .remedy("`sudo sysctl net.ipv4.neigh.default.gc_thresh3=8192` allows larger labs"),
        _ => Finding::ok(WHAT, said),
    }
}

pub fn runtime_dir() -> Finding {
    const WHAT: &str = "runtime directory";
    let path = RuntimeDir::path();
    let was_there = path.exists();
    let tried = RuntimeDir::at(path.clone()).and_then(|dir| dir.try_room());
    if !was_there {
        // Only where it is empty: another labctl may have begun a lab meanwhile.
        let _ = fs::remove_dir(&path);
    }
    match tried {
        Ok(()) => Finding::ok(WHAT, path.display().to_string()),
        Err(problem) => {
            let finding = Finding::new(WHAT, Verdict::Fails, problem.message);
            Finding { remedy: problem.help, ..finding }
        }
    }
}

/// What people like to run in a lab. labctl itself uses none of it.
pub fn programs() -> Vec<Finding> {
    let all = [("ip", "iproute2"), ("ping", "iputils-ping"), ("curl", "curl")];
    all.into_iter()
        .map(|(program, package)| match find(program) {
            Some(path) => Finding::ok(program, path.display().to_string()),
            None => not_installed(program, package),
        })
        .collect()
}

pub(super) fn not_installed(program: &str, package: &str) -> Finding {
    Finding::new(program, Verdict::Hint, "it is not installed; labs run without it")
        .remedy(format!("to use it in `labctl exec`, install the package `{package}`"))
}

pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    let found = std::env::split_paths(&path).chain(places).map(|dir| dir.join(program));
    found.into_iter().find(|file| file.is_file() && access(file, AccessFlags::X_OK).is_ok())
}
