//! What to do about a machine that refuses something: the same words for `doctor` and for `up`.

use std::fs;
use std::io;

use nix::unistd::geteuid;

/// For rules that no iptables takes.
pub const IPTABLES: &str = "install the package `iptables` (Debian: `sudo apt install iptables`), and where it is \
                            there, load the kernel's part: `sudo modprobe nf_tables nft_compat` or `sudo modprobe \
                            ip_tables iptable_nat`";

/// For /dev/net/tun that does not open.
pub const TUN: &str = "open it for your user (`sudo chmod 666 /dev/net/tun`, which most distributions do), run as \
                       root, or take `backend: vxlan`; where the file is missing: `sudo modprobe tun`";

/// For a device that the kernel does not know.
pub const DEVICES: &str = "load the kernel's modules: `sudo modprobe veth bridge vxlan`; a kernel built without them \
                           needs another one, such as Debian's `linux-image-amd64`";

/// A limit that forbids namespaces altogether, and how to change it. To be asked before a user
/// namespace is made: each has limits of its own, and shows only those.
pub fn forbidden() -> Option<String> {
    ["user", "net", "mnt", "pid", "uts", "ipc"]
        .into_iter()
        .find(|limit| value(&format!("user/max_{limit}_namespaces")).as_deref() == Some("0"))
        .map(|limit| format!("they are forbidden: `sudo sysctl user.max_{limit}_namespaces=10000` allows them"))
}

/// Which setting forbids namespaces on this machine, and how to change it. `why` is what the kernel
/// said, where it said something.
pub fn namespaces(why: Option<&io::Error>) -> String {
    let root = geteuid().is_root();
    let zero = |key: &str| value(key).as_deref() == Some("0");
    let one = |key: &str| value(key).as_deref() == Some("1");
    if let Some(limit) = forbidden() {
        return limit;
    }
    // namespaces(7): a limit that is not zero has been reached, here or in a user namespace around.
    if why.and_then(io::Error::raw_os_error) == Some(libc::ENOSPC) {
        return "a limit on their number is reached: end labs (`labctl down --all`), or raise \
                `user.max_net_namespaces` and its like with sysctl"
            .to_owned();
    }
    if !root && zero("kernel/unprivileged_userns_clone") {
        return "ordinary users may make none: `sudo sysctl kernel.unprivileged_userns_clone=1` allows it, or run \
                as root"
            .to_owned();
    }
    if !root && one("kernel/apparmor_restrict_unprivileged_userns") {
        return "AppArmor keeps ordinary users from it: `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0` \
                allows it, or run as root"
            .to_owned();
    }
    if root {
        "in a container, start that one privileged (`docker run --privileged`); elsewhere, ask what security \
         profile this process is under"
            .to_owned()
    } else {
        "in a container, its seccomp profile may forbid it: start that one with `--security-opt \
         seccomp=unconfined`, or run as root"
            .to_owned()
    }
}

/// A value under /proc/sys.
pub fn value(key: &str) -> Option<String> {
    Some(fs::read_to_string(format!("/proc/sys/{key}")).ok()?.trim().to_owned())
}
