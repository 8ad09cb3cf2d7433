//! Three real namespaces for probes to be asked in: `asker` - `router` - `server`. The link of the
//! server is narrower than the asker's, and the routes end where tests need them to.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use labctl::diag::Problems;
use labctl::kernel::ns::NetNs;
use labctl::lab::Lab;
use labctl::lab::names::NsName;
use labctl::probe::{Field, Outcome, run_all};
use labctl::spec::load::{Text, decode_text};

const GROUND: &str = "
networks:
  left: { cidr: 10.9.0.0/24 }
  right: { cidr: 10.9.1.0/24, mtu: 1400 }
hosts:
  node1: { network: left }
pods:
  # It asks from where the asker is, and as a pod.
  guest: { host: node1 }
deployments:
  tea: { replicas: 2 }
clients:
  asker: { network: left, address: 10.9.0.1 }
  server: { network: right, address: 10.9.1.2 }
probes:
";

pub const ASKER: &str = "10.9.0.1";
pub const SERVER: &str = "10.9.1.2";

pub struct World {
    pub router: NetNs,
    pub server: NetNs,
    asker: NetNs,
}

impl World {
    /// Build it, or, where this process may not, run the same test once more where it may, and
    /// give `None`.
    pub fn build(test: &str) -> Option<World> {
        if !nix::unistd::geteuid().is_root() {
            again_as_root_of_a_namespace(test);
            return None;
        }
        let world = World { router: fresh(), server: fresh(), asker: fresh() };
        world.plug("left", &world.asker, 1500);
        world.plug("right", &world.server, 1400);
        let router = "
            ip addr add 10.9.0.254/24 dev left; ip addr add 10.9.1.254/24 dev right
            ip route add unreachable 10.77.0.0/16; ip route add 10.96.0.0/12 via 10.9.1.2
            echo 1 > /proc/sys/net/ipv4/ip_forward";
        sh(&world.router, router);
        let asker = "ip addr add 10.9.0.1/24 dev eth0; ip route add default via 10.9.0.254";
        sh(&world.asker, asker);
        // The server has no default route, and the cluster's DNS address is its own.
        let server = "
            ip addr add 10.9.1.2/24 dev eth0; ip addr add 10.96.0.10/32 dev lo
            ip route add 10.9.0.0/24 via 10.9.1.254";
        sh(&world.server, server);
        Some(world)
    }

    fn plug(&self, port: &str, end: &NetNs, mtu: u32) {
        use std::os::fd::AsRawFd;
        let place = format!("/proc/{}/fd/{}", std::process::id(), end.as_raw_fd());
        sh(
            &self.router,
            &format!(
                "ip link add {port} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {place}; ip link set {port} up"
            ),
        );
        sh(end, "ip link set eth0 up");
    }

    /// Ask the probes of a YAML list.
    pub fn ask(&self, probes: &str) -> Vec<Outcome> {
        let text = format!("{GROUND}{probes}");
        let loaded = decode_text(&Text { name: "test".into(), text, default_name: "test".into(), ..Text::default() });
        let mut problems = Problems::default();
        let lab = labctl::lab::resolve(&loaded, None, &mut problems);
        let lab = lab.unwrap_or_else(|| panic!("{:?} {problems:?}", loaded.problems));
        let probes = lab.probes.clone();
        let field = Arc::new(self.field(lab));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(run_all(&probes, field, 32))
    }

    /// Ask one probe, which is asked by `asker` and has a second unless it says otherwise.
    pub fn one(&self, probe: &str) -> Outcome {
        self.one_from("asker", probe)
    }

    /// The same of another asker.
    pub fn one_from(&self, from: &str, probe: &str) -> Outcome {
        let limit = if probe.contains("timeout: ") { "" } else { "timeout: 1, " };
        let mut all = self.ask(&format!("  - {{ from: {from}, retries: 0, {limit}{probe} }}\n"));
        assert_eq!(all.len(), 1);
        all.remove(0)
    }

    fn field(&self, lab: Lab) -> Field {
        let name = |path: &str| NsName::try_from(path.to_owned()).expect("a path");
        let namespaces = HashMap::from([
            (name("client/asker"), self.asker.clone()),
            (name("pod/default/guest"), self.asker.clone()),
            (name("client/server"), self.server.clone()),
            (name("router"), self.router.clone()),
        ]);
        let inside = namespaces.clone();
        let enter = Box::new(move |ns: &NsName, words: &[String]| {
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]);
            let ns = inside[ns].clone();
            // SAFETY: between fork and exec only setns(2) is called.
            unsafe { command.pre_exec(move || ns.enter()) };
            Ok(command.into())
        });
        let authority = Arc::new(rustls::RootCertStore::empty());
        Field { lab: Arc::new(lab), namespaces, enter, authority }
    }

    /// Answer TCP connections to the server's `port` with `serve`, one after the other, until the
    /// test's process ends.
    pub fn tcp(&self, port: u16, mut serve: impl FnMut(TcpStream) -> io::Result<()> + Send + 'static) {
        let bound = self.server.run(|| TcpListener::bind(("0.0.0.0", port)));
        let listener = bound.expect("the namespace").expect("a free port");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // An asker that has seen enough may be gone.
                let _ = serve(stream);
            }
        });
    }

    /// Answer datagrams to the server's `port` with what `answer` makes of them.
    pub fn udp(&self, at: (&str, u16), answer: impl Fn(&[u8], String) -> Vec<u8> + Send + 'static) {
        let bound = self.server.run(|| UdpSocket::bind(at));
        let socket = bound.expect("the namespace").expect("a free port");
        std::thread::spawn(move || {
            let mut buffer = [0_u8; 65_535];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&answer(&buffer[..length], from.to_string()), from);
            }
        });
    }
}

/// The echo server's first line.
pub fn identity(name: &str, source: &str) -> String {
    format!("{{\"name\":\"{name}\",\"kind\":\"client\",\"ip\":\"{SERVER}\",\"source\":\"{source}\"}}\n")
}

/// The echo server's answer to a connection: who it is, then what it is sent.
pub fn echo(name: &str) -> impl FnMut(TcpStream) -> io::Result<()> + Send + use<> {
    let name = name.to_owned();
    move |mut stream| {
        let source = stream.peer_addr()?.to_string();
        let mut buffer = [0_u8; 4096];
        let length = stream.read(&mut buffer)?;
        stream.write_all(identity(&name, &source).as_bytes())?;
        stream.write_all(&buffer[..length])
    }
}

/// Serve HTTP with one ready answer to each request.
pub fn http(
    answer: impl Fn(&str, String) -> String + Send + 'static,
) -> impl FnMut(TcpStream) -> io::Result<()> + Send {
    move |mut stream| {
        let source = stream.peer_addr()?.to_string();
        let mut request = Vec::new();
        let mut buffer = [0_u8; 4096];
        while !request.windows(4).any(|w| w == b"\r\n\r\n") {
            match stream.read(&mut buffer)? {
                0 => break,
                length => request.extend_from_slice(&buffer[..length]),
            }
        }
        stream.write_all(answer(&String::from_utf8_lossy(&request), source).as_bytes())
    }
}

fn fresh() -> NetNs {
    let made = std::thread::spawn(NetNs::create_and_enter).join().expect("no panic").expect("a namespace");
    sh(&made, "ip link set lo up");
    made
}

/// Run a script in a namespace; each of its commands must succeed.
pub fn sh(ns: &NetNs, script: &str) {
    let script = script.replace("; ", "\n");
    let done = ns.run(|| Command::new("sh").args(["-ec", &script]).output());
    let done = done.expect("the namespace").expect("sh");
    assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
}

fn again_as_root_of_a_namespace(test: &str) {
    let myself = std::env::current_exe().expect("the test's own path");
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "--mount"]).arg(myself);
    let done = command.args([test, "--exact", "--nocapture"]).output().expect("unshare");
    let said = String::from_utf8_lossy(&done.stdout);
    let told = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && said.contains(" 1 passed;"), "in a user namespace:\n{said}{told}");
}

/// That an outcome differed, in the way and with the words that it should have.
#[track_caller]
pub fn differed(outcome: &Outcome, words: &[&str]) {
    assert!(!outcome.passed(), "{outcome:#?}");
    for part in words {
        assert!(outcome.observed.contains(part), "no {part:?} in {:?}", outcome.observed);
    }
}

#[track_caller]
pub fn passed(outcome: &Outcome) {
    assert!(outcome.passed(), "{outcome:#?}");
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
