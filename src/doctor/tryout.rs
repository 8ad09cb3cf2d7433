//! What a lab needs of the kernel, done once in a child process with namespaces of its own. When
//! the child ends, the kernel takes back all that it made.

use std::io::{self, BufRead, Write};
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, geteuid};

use crate::diag::Problems;
use crate::kernel::birth;
use crate::kernel::iptables::Iptables;
use crate::kernel::message::{Far, add_link};
use crate::kernel::ns::NetNs;
use crate::kernel::rtnl::Rtnl;
use crate::kernel::tun;
use crate::lab::names::{IfName, NsName};
use crate::plan::{self, Link, LinkKind, rules::Rules};
use crate::spec::load::{Text, decode_text};

use super::{Finding, Verdict, remedy, tcpdump};

/// The hidden verb that tries.
pub const VERB: &str = "lab-doctor";

/// The indices and names of the devices that are tried.
const VETH: (u32, &str) = (20, "try-veth");
const FAR: (u32, &str) = (21, "try-far");
const BRIDGE: (u32, &str) = (22, "try-bridge");
const VXLAN: (u32, &str) = (23, "try-vxlan");
const TUN: (u32, &str) = (24, "try-tun");

/// Try everything in a child and gather what it says.
pub fn in_child() -> Vec<Finding> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("labctl").arg(VERB).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let started = command.spawn().and_then(|mut child| {
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("no pipe"))?;
        // The pipe ends with the last process of the tree, and so does this loop.
        let lines: Vec<String> = io::BufReader::new(stdout).lines().collect::<io::Result<_>>()?;
        child.wait()?;
        Ok(lines)
    });
    match started {
        Ok(lines) if !lines.is_empty() => lines.iter().filter_map(|l| serde_json::from_str(l).ok()).collect(),
        Ok(_) => vec![Finding::new("namespaces", Verdict::Fails, "the child that tries them ended without a word")],
        Err(e) => vec![Finding::new("namespaces", Verdict::Fails, format!("no child process can be started: {e}"))],
    }
}

/// The child: findings go to standard output, a JSON line each.
pub fn run() -> ExitCode {
    birth::close_inherited();
    let way = if geteuid().is_root() { "as root" } else { "rootless, in a user namespace of your own" };
    let forbidden = remedy::forbidden();
    let begun = birth::unshare_all().and_then(|()| birth::fork_daemon()).and_then(|()| birth::mounts());
    match begun {
        Ok(()) => tell(&Finding::ok("namespaces", format!("network, mount, PID, UTS and IPC, {way}"))),
        Err(failed) => {
            let said = format!("{way}: {failed}");
            let help = forbidden.unwrap_or_else(|| remedy::namespaces(Some(&failed.error)));
            tell(&Finding::new("namespaces", Verdict::Fails, said).remedy(help));
            return ExitCode::FAILURE;
        }
    }
    let mechanisms =
        [rooms, veth, bridge, vxlan, tun, iptables, bridge_netfilter, conntrack, raw_socket, tcpdump::tried];
    for tried in mechanisms {
        tell(&tried());
    }
    ExitCode::SUCCESS
}

fn tell(finding: &Finding) {
    if let Ok(mut line) = serde_json::to_vec(finding) {
        line.push(b'\n');
        let mut out = io::stdout().lock();
        // Whoever asked may have gone away; then nobody misses the rest.
        let _ = out.write_all(&line).and_then(|()| out.flush());
    }
}

fn device((index, name): (u32, &str), kind: LinkKind) -> Link {
    let name = IfName::new(name);
    Link { name, index, mac: None, mtu: 1450, master: None, hairpin: false, up: true, kind }
}

fn made(what: &str, link: &Link, far: Option<&Far>, said: &str) -> Finding {
    let requests = add_link(link, far, &|name| if name == BRIDGE.1 { BRIDGE.0 } else { 0 });
    let done = Rtnl::open().map_err(|e| e.to_string()).and_then(|mut r| r.batch(requests).map_err(|e| e.to_string()));
    match done {
        Ok(()) => Finding::ok(what, said),
        Err(why) => Finding::new(what, Verdict::Fails, why).remedy(remedy::DEVICES),
    }
}

fn pair((index, name): (u32, &'static str), peer: &str) -> Link {
    device((index, name), LinkKind::Veth { peer_ns: NsName::Router, peer: IfName::new(peer) })
}

/// What a container's processes see of each other.
fn rooms() -> Finding {
    const WHAT: &str = "/proc";
    // Each in a child: who has made a PID namespace can start no thread any more.
    let namespace = || succeeds_in_child(|| unshare(CloneFlags::CLONE_NEWPID).is_ok());
    let own_proc = || {
        succeeds_in_child(|| {
            let made = unshare(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS);
            made.is_ok() && succeeds_in_child(|| birth::proc().is_ok())
        })
    };
    if own_proc() {
        return Finding::ok(WHAT, "each container's programs see their own processes only");
    }
    if namespace() {
        return Finding::new(WHAT, Verdict::Hint, "a lab gets none of its own, as in most containers").remedy(
            "programs in a lab end none outside all the same, but `ps` there shows other numbers than `kill` takes; \
             start the container with `--security-opt systempaths=unconfined`",
        );
    }
    Finding::new(WHAT, Verdict::Fails, "a second PID namespace cannot be made").remedy(remedy::namespaces(None))
}

fn succeeds_in_child(what: impl FnOnce() -> bool) -> bool {
    // SAFETY: this process has one thread; the child does one thing and ends.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => std::process::exit(i32::from(!what())),
        Ok(ForkResult::Parent { child }) => waitpid(child, None) == Ok(WaitStatus::Exited(child, 0)),
        Err(_) => false,
    }
}

fn veth() -> Finding {
    // In a thread of its own, which walks away into the new namespace.
    let other = std::thread::spawn(NetNs::create_and_enter).join();
    let Ok(Ok(other)) = other else {
        return Finding::new("veth", Verdict::Fails, "a second network namespace cannot be made")
            .remedy(remedy::namespaces(None));
    };
    let far = pair(FAR, VETH.1);
    let far = Far { link: &far, netns: other.as_raw_fd() };
    made("veth", &pair(VETH, FAR.1), Some(&far), "a pair between two namespaces")
}

fn bridge() -> Finding {
    made("bridge", &device(BRIDGE, LinkKind::Bridge), None, "the switch of networks and hosts")
}

/// Over the bridge that was tried before: the pair is gone with its other namespace.
fn vxlan() -> Finding {
    let local = IpAddr::from([192, 0, 2, 1]);
    let kind = LinkKind::Vxlan { vni: 1, port: 8472, local, dev: IfName::new(BRIDGE.1) };
    let tried = made("VXLAN", &device(VXLAN, kind), None, "flannel's back end vxlan");
    match tried.verdict {
        Verdict::Ok => tried,
        // The other back ends do without.
        _ => Finding { verdict: Verdict::Warning, ..tried }
            .remedy("load the module (`sudo modprobe vxlan`), or take `backend: host-gw` or `backend: udp`"),
    }
}

fn tun() -> Finding {
    match tun::create(&device(TUN, LinkKind::Tun)) {
        Ok(_) => Finding::ok("TUN", "flannel's back end udp"),
        Err(e) => {
            Finding::new("TUN", Verdict::Warning, format!("{} is closed: {e}", tun::DEVICE_FILE)).remedy(remedy::TUN)
        }
    }
}

/// The very rules that a host of a small lab gets.
fn flannel_rules() -> Rules {
    let text = "hosts: { one: {}, two: {} }\n".to_owned();
    let loaded =
        decode_text(&Text { name: "doctor".to_owned(), text, default_name: "doctor".to_owned(), ..Text::default() });
    let lab = crate::lab::resolve(&loaded, None, &mut Problems::default());
    let plan = lab.map(|lab| plan::plan(&lab)).unwrap_or_default();
    plan.namespaces.into_iter().map(|n| n.rules).find(|r| !r.is_empty()).unwrap_or_default()
}

fn iptables() -> Finding {
    let rules = flannel_rules();
    let here = match NetNs::current() {
        Ok(here) => here,
        Err(e) => return Finding::new("iptables", Verdict::Fails, e.to_string()),
    };
    let mut refused = Vec::new();
    for iptables in Iptables::candidates() {
        let version = iptables.version().unwrap_or_default();
        match iptables.restore(&here, &rules).and_then(|()| iptables.save(&here)) {
            Ok(read) if read == rules => return Finding::ok("iptables", format!("{version} takes flannel's rules")),
            Ok(_) => refused.push(format!("{version}: what it reads back are not the rules that were written")),
            Err(fault) => refused.push(format!("{version}: {fault}")),
        }
    }
    let said = if refused.is_empty() { "no iptables-restore is installed".to_owned() } else { refused.join("; ") };
    Finding::new("iptables", Verdict::Fails, said).remedy(remedy::IPTABLES)
}

fn bridge_netfilter() -> Finding {
    match remedy::value("net/bridge/bridge-nf-call-iptables") {
        Some(_) => Finding::ok("br_netfilter", "what a bridge forwards passes iptables"),
        None => Finding::new("br_netfilter", Verdict::Warning, "the kernel's module is not loaded")
            .remedy("`sudo modprobe br_netfilter`; without it two pods of one host do not meet through a service"),
    }
}

/// After the rules, because some of them need it and load it.
fn conntrack() -> Finding {
    match remedy::value("net/netfilter/nf_conntrack_count") {
        Some(_) => Finding::ok("conntrack", "connections are tracked, as masquerading needs it"),
        None => Finding::new("conntrack", Verdict::Warning, "the kernel tracks no connections")
            .remedy("`sudo modprobe nf_conntrack`; without it nothing is masqueraded"),
    }
}

fn raw_socket() -> Finding {
    use socket2::{Domain, Protocol, Socket, Type};
    match Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)) {
        Ok(_) => Finding::ok("raw ICMP socket", "ping probes"),
        Err(e) => Finding::new("raw ICMP socket", Verdict::Warning, e.to_string())
            .remedy("ping probes need CAP_NET_RAW; in a container, start that one with it"),
    }
}
