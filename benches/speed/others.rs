//! What labctl is measured against: the floor, `ip` in a shell loop, `ip -batch`, and Mininet
//! where it is installed. Each is a process that builds, says `ready`, and takes down when its
//! standard input ends; each lives in namespaces of its own.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::labs::{path, raise_descriptor_limit};
use crate::timed;

/// How long building and taking down took.
pub struct Took {
    pub up: Duration,
    pub down: Duration,
}

/// This program under another name: `floor`, `inside` and the like.
pub fn helper(words: &[&str]) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(words);
    Ok(command)
}

fn measure(mut command: Command) -> io::Result<Took> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let (up, child) = timed(|| until_ready(command));
    let mut child = child?;
    let (down, status) = timed(|| {
        drop(child.stdin.take());
        child.wait()
    });
    let status = status?;
    if !status.success() {
        return Err(io::Error::other(format!("the comparison ended with {status}")));
    }
    Ok(Took { up, down })
}

fn until_ready(mut command: Command) -> io::Result<Child> {
    let mut child = command.spawn()?;
    let mut said = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut said)?;
    }
    if said.trim() != "ready" {
        let status = child.wait()?;
        return Err(io::Error::other(format!("the comparison said `{}` and ended with {status}", said.trim())));
    }
    Ok(child)
}

pub fn floor(hosts: u32, pods: u32) -> io::Result<Took> {
    measure(helper(&["floor", &hosts.to_string(), &pods.to_string()])?)
}

/// One `ip` for each device, address and route, as a script would have it.
pub fn shell_loop(dir: &Path, hosts: u32, pods: u32) -> io::Result<Took> {
    let mut script = String::from("set -e\n");
    for (ns, line) in lines(hosts, pods) {
        let _ = match ns {
            Some(ns) => writeln!(script, "ip -n {ns} {line}"),
            None => writeln!(script, "ip {line}"),
        };
    }
    run_script(&dir.join("loop.sh"), script, hosts, pods)
}

/// One `ip -batch` for the namespaces and one for each of them.
pub fn batches(dir: &Path, hosts: u32, pods: u32) -> io::Result<Took> {
    let mut script = String::from("set -e\n");
    let mut current = None;
    for (ns, line) in lines(hosts, pods) {
        if current.as_ref() != Some(&ns) {
            if current.is_some() {
                script.push_str("END\n");
            }
            let option = ns.as_ref().map(|ns| format!("-n {ns} ")).unwrap_or_default();
            let _ = writeln!(script, "ip {option}-batch - <<END");
            current = Some(ns);
        }
        let _ = writeln!(script, "{line}");
    }
    script.push_str("END\n");
    run_script(&dir.join("batch.sh"), script, hosts, pods)
}

fn run_script(file: &Path, mut script: String, hosts: u32, pods: u32) -> io::Result<Took> {
    script.push_str("echo ready\ncat\n");
    let names = (0..hosts).map(|h| format!("h{h}")).chain((0..pods).map(|p| format!("p{p}")));
    for name in names {
        let _ = writeln!(script, "ip netns del {name}");
    }
    std::fs::write(file, script)?;
    measure(helper(&["inside", "sh", path(file)?])?)
}

/// What is typed after `ip`, and in which namespace, in the order of the namespaces.
fn lines(hosts: u32, pods: u32) -> Vec<(Option<String>, String)> {
    let mut all = Vec::new();
    for name in (0..hosts).map(|h| format!("h{h}")).chain((0..pods).map(|p| format!("p{p}"))) {
        all.push((None, format!("netns add {name}")));
    }
    all.push((None, "link add br0 type bridge".to_owned()));
    all.push((None, "link set br0 up".to_owned()));
    all.push((None, "addr add 192.168.0.1/16 dev br0".to_owned()));
    for host in 0..hosts {
        all.push((None, format!("link add e{host} master br0 type veth peer name eth0 netns h{host}")));
        all.push((None, format!("link set e{host} up")));
    }
    for host in 0..hosts {
        let mine = host_lines(host, hosts, pods);
        all.extend(mine.into_iter().map(|line| (Some(format!("h{host}")), line)));
    }
    for pod in 0..pods {
        let (host, number) = (pod % hosts, pod / hosts);
        let mine = [
            "link set lo up".to_owned(),
            "link set eth0 up".to_owned(),
            format!("addr add {}/22 dev eth0", subnet(host, 2 + number)),
            format!("route add default via {}", subnet(host, 1)),
            format!("route add 10.244.0.0/16 via {}", subnet(host, 1)),
        ];
        all.extend(mine.into_iter().map(|line| (Some(format!("p{pod}")), line)));
    }
    all
}

fn host_lines(host: u32, hosts: u32, pods: u32) -> Vec<String> {
    let ip = |host: u32| format!("192.168.0.{}", 10 + host);
    let mac = |host: u32| format!("02:00:00:00:01:{host:02x}");
    let mut all = vec![
        "link set lo up".to_owned(),
        "link set eth0 up".to_owned(),
        format!("addr add {}/16 dev eth0", ip(host)),
        "route add default via 192.168.0.1".to_owned(),
        format!(
            "link add flannel.1 address {} type vxlan id 1 local {} dev eth0 dstport 8472 nolearning",
            mac(host),
            ip(host)
        ),
        "link set flannel.1 up".to_owned(),
        format!("addr add {}/32 dev flannel.1", subnet(host, 0)),
    ];
    for peer in (0..hosts).filter(|p| *p != host) {
        let far = subnet(peer, 0);
        all.push(format!("neigh add {far} lladdr {} dev flannel.1 nud permanent", mac(peer)));
        // `bridge fdb append` writes this; `ip` has no word for it, so the loop is one line short.
        all.push(format!("route add {far}/22 via {far} dev flannel.1 onlink"));
    }
    all.push("link add cni0 type bridge".to_owned());
    all.push("link set cni0 up".to_owned());
    all.push(format!("addr add {}/22 dev cni0", subnet(host, 1)));
    for pod in (host..pods).step_by(hosts as usize) {
        all.push(format!("link add v{pod} master cni0 type veth peer name eth0 netns p{pod}"));
        all.push(format!("link set v{pod} up"));
    }
    all
}

fn subnet(host: u32, offset: u32) -> std::net::Ipv4Addr {
    std::net::Ipv4Addr::from(0x0a_f4_00_00 + (host + 1) * 1024 + offset)
}

/// Mininet with a Linux bridge for each host and the same number of machines on them.
const MININET: &str = r"
import sys
from mininet.net import Mininet
from mininet.nodelib import LinuxBridge
hosts, pods = int(sys.argv[1]), int(sys.argv[2])
net = Mininet(controller=None, switch=LinuxBridge)
core = net.addSwitch('s1')
switches = []
for h in range(hosts):
    switches.append(net.addSwitch('s%d' % (h + 2)))
    net.addLink(core, switches[-1])
for p in range(pods):
    net.addLink(net.addHost('p%d' % p), switches[p % hosts])
net.start()
print('ready', flush=True)
sys.stdin.read()
net.stop()
";

/// The interpreter that Debian's Mininet is installed for; another one may come first in PATH.
const PYTHON: &str = "/usr/bin/python3";

/// Whether Python finds Mininet.
pub fn has_mininet() -> bool {
    let mut command = Command::new(PYTHON);
    command.args(["-c", "import mininet.net"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|s| s.success())
}

pub fn mininet(dir: &Path, hosts: u32, pods: u32) -> io::Result<Took> {
    let file = dir.join("net.py");
    std::fs::write(&file, MININET)?;
    measure(helper(&["inside", PYTHON, path(&file)?, &hosts.to_string(), &pods.to_string()])?)
}

/// Wait until the kernel has taken down what was given up before.
pub fn drain() -> io::Result<()> {
    raise_descriptor_limit();
    let status = helper(&["drained"])?.status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("`drained` ended with {status}"))) }
}
