//! flannel's udp daemon between two namespaces with real TUN devices, joined by a veth pair. What
//! is looked at is what sockets in the namespaces see.

mod harness;

use std::fs::File;
use std::io::{self, IoSliceMut, PipeWriter, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use harness::tests::Need;
use labctl::kernel::ns::NetNs;
use labctl::workload::flanneld::{Config, run_then};
use nix::libc;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt};

tests![&[Need::Tun]; each_daemon_on_the_way_takes_a_hop, what_cannot_be_sent_on_is_answered_with_icmp, rubbish_and_strangers_are_dropped, a_device_that_goes_ends_the_daemon];

fn main() {
    harness::tests::main();
}

const LIMIT: Duration = Duration::from_secs(5);
const MTU: u32 = 1472;

/// A host: a namespace with eth0, flannel0 and a daemon. Host n is 192.168.0.n and has the subnet
/// 10.244.n.0/24, in which 10.244.n.1 is an address of its own.
struct Host {
    ns: NetNs,
    number: u8,
    control: Option<PipeWriter>,
    daemon: JoinHandle<io::Result<()>>,
}

impl Host {
    fn start(number: u8, ns: NetNs, leases: &str) -> Host {
        ip(&ns, &format!("addr add 192.168.0.{number}/24 dev eth0"));
        for dev in ["lo", "eth0"] {
            ip(&ns, &format!("link set {dev} up"));
        }
        let tun = ns.run(|| tun("flannel0")).unwrap().unwrap();
        ip(&ns, &format!("link set flannel0 mtu {MTU} up"));
        ip(&ns, &format!("addr add 10.244.{number}.0/32 dev flannel0"));
        ip(&ns, &format!("addr add 10.244.{number}.1/32 dev lo"));
        ip(&ns, "route add 10.244.0.0/16 dev flannel0");
        let (reader, mut control) = io::pipe().unwrap();
        writeln!(control, "{leases}").unwrap();
        let (told, ready) = mpsc::channel();
        let inside = ns.clone();
        let daemon = thread::spawn(move || {
            inside.enter()?;
            let config = Config {
                listen: Ipv4Addr::new(192, 168, 0, number).into(),
                port: 8285,
                tun_address: Ipv4Addr::new(10, 244, number, 0).into(),
                mtu: MTU,
            };
            run_then(tun, &config, reader, || told.send(()).map_err(io::Error::other))
        });
        ready.recv_timeout(LIMIT).expect("the daemon is not ready");
        Host { ns, number, control: Some(control), daemon }
    }

    /// A UDP socket on this host that tells of ICMP errors and of the TTL of what comes.
    fn socket(&self, address: &str) -> UdpSocket {
        let socket = self.ns.run(|| UdpSocket::bind(address)).unwrap().unwrap();
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true).unwrap();
        setsockopt(&socket, sockopt::Ipv4RecvTtl, &true).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket
    }

    fn stop(mut self) {
        drop(self.control.take());
        self.daemon.join().unwrap().unwrap();
    }
}

fn ip(ns: &NetNs, arguments: &str) {
    let output = ns.run(|| Command::new("ip").args(arguments.split(' ')).output()).unwrap().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A TUN device in the namespace of the calling thread.
fn tun(name: &str) -> io::Result<OwnedFd> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: all bytes zero are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the request lives until the call returns, and is of the type that it wants.
    nix::errno::Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &request) })?;
    Ok(file.into())
}

fn two_hosts() -> [Host; 2] {
    let new = || thread::spawn(NetNs::create_and_enter).join().unwrap().unwrap();
    let (first, second) = (new(), new());
    let far = format!("/proc/{}/fd/{}", std::process::id(), second.as_raw_fd());
    ip(&first, &format!("link add eth0 type veth peer name eth0 netns {far}"));
    let to_second = r#"[{"subnet":"10.244.2.0/24","public_ip":"192.168.0.2"}]"#;
    let to_first = r#"[{"subnet":"10.244.1.0/24","public_ip":"192.168.0.1"}]"#;
    [Host::start(1, first, to_second), Host::start(2, second, to_first)]
}

/// Set DF on what is sent, whatever the kernel knows of the path.
fn never_fragment(socket: &UdpSocket) {
    let how = libc::IP_PMTUDISC_PROBE;
    let size = size_of_val(&how) as libc::socklen_t;
    // SAFETY: the option is an int, which lives until the call returns.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, (&raw const how).cast(), size)
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// The payload and the TTL of the next datagram.
fn receive(socket: &UdpSocket) -> (Vec<u8>, i32) {
    let mut payload = [0; 2048];
    let mut room = nix::cmsg_space!(libc::c_int);
    let mut slices = [IoSliceMut::new(&mut payload)];
    let message = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut slices, Some(&mut room), MsgFlags::empty()).unwrap();
    let ttl = message.cmsgs().unwrap().find_map(|c| match c {
        ControlMessageOwned::Ipv4Ttl(ttl) => Some(ttl),
        _ => None,
    });
    let length = message.bytes;
    (payload[..length].to_vec(), ttl.unwrap())
}

/// The ICMP error that a socket was told of.
#[derive(Debug, PartialEq)]
struct Told {
    kind: u8,
    code: u8,
    mtu: u32,
    from: Ipv4Addr,
}

fn icmp_error(socket: &UdpSocket) -> Told {
    let mut poll = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(socket), nix::poll::PollFlags::empty())];
    assert_eq!(nix::poll::poll(&mut poll, 5000u16), Ok(1), "no ICMP error came");
    let mut payload = [0; 2048];
    let mut room = nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in, libc::c_int);
    let mut slices = [IoSliceMut::new(&mut payload)];
    let flags = MsgFlags::MSG_ERRQUEUE;
    let message = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut slices, Some(&mut room), flags).unwrap();
    message
        .cmsgs()
        .unwrap()
        .find_map(|c| match c {
            ControlMessageOwned::Ipv4RecvErr(e, Some(from)) => Some(Told {
                kind: e.ee_type,
                code: e.ee_code,
                mtu: e.ee_info,
                from: Ipv4Addr::from(u32::from_be(from.sin_addr.s_addr)),
            }),
            _ => None,
        })
        .expect("no ICMP error in the error queue")
}

/// Run `test` where TUN devices in namespaces can be made. An ordinary user's test runs itself again
/// as the root of a user namespace.
fn in_own_namespaces(test: &str, body: fn()) {
    if nix::unistd::geteuid().is_root() {
        return body();
    }
    let own = std::env::current_exe().unwrap();
    let mut again = Command::new("unshare");
    again.args(["--user", "--map-root-user", "--net"]).arg(own).args(["--nocapture", "--exact", test]);
    assert!(again.status().unwrap().success(), "it failed in a user namespace");
}

fn each_daemon_on_the_way_takes_a_hop() {
    in_own_namespaces("each_daemon_on_the_way_takes_a_hop", || {
        let [one, two] = two_hosts();
        let (near, far) = (one.socket("10.244.1.1:7000"), two.socket("10.244.2.1:7000"));
        near.send_to(b"there", "10.244.2.1:7000").unwrap();
        assert_eq!(receive(&far), (b"there".to_vec(), 62));
        far.send_to(b"and back", "10.244.1.1:7000").unwrap();
        assert_eq!(receive(&near), (b"and back".to_vec(), 62));
        one.stop();
        two.stop();
    });
}

fn what_cannot_be_sent_on_is_answered_with_icmp() {
    in_own_namespaces("what_cannot_be_sent_on_is_answered_with_icmp", || {
        let [mut one, two] = two_hosts();
        let socket = one.socket("10.244.1.1:7000");
        let device = |n| Ipv4Addr::new(10, 244, n, 0);

        socket.send_to(b"nobody has it", "10.244.9.9:7000").unwrap();
        assert_eq!(icmp_error(&socket), Told { kind: 3, code: 0, mtu: 0, from: device(1) });

        for (ttl, host) in [(1, one.number), (2, two.number)] {
            socket.set_ttl(ttl).unwrap();
            socket.send_to(b"too far", "10.244.2.1:7000").unwrap();
            assert_eq!(icmp_error(&socket), Told { kind: 11, code: 0, mtu: 0, from: device(host) });
        }
        socket.set_ttl(64).unwrap();

        ip(&one.ns, "link set flannel0 mtu 9000");
        never_fragment(&socket);
        socket.send_to(&[7; 1600], "10.244.2.1:7000").unwrap();
        assert_eq!(icmp_error(&socket), Told { kind: 3, code: 4, mtu: MTU, from: device(1) });

        let control = one.control.as_mut().unwrap();
        writeln!(control, "this is no list and changes nothing").unwrap();
        writeln!(control, r#"[{{"subnet":"10.244.9.0/24","public_ip":"192.168.0.2"}}]"#).unwrap();
        let gone = loop {
            // Until the daemon has taken the new map, the other host answers that the port is closed.
            socket.send_to(b"its lease is gone", "10.244.2.1:7000").unwrap();
            match icmp_error(&socket) {
                Told { kind: 3, code: 3, .. } => {}
                told => break told,
            }
        };
        assert_eq!(gone, Told { kind: 3, code: 0, mtu: 0, from: device(1) });
        one.stop();
        two.stop();
    });
}

fn rubbish_and_strangers_are_dropped() {
    in_own_namespaces("rubbish_and_strangers_are_dropped", || {
        let [one, two] = two_hosts();
        ip(&one.ns, "addr add 192.168.0.77/24 dev eth0");
        let far = two.socket("10.244.2.1:7000");
        let mut forged = Vec::new();
        let builder = etherparse::PacketBuilder::ipv4([10, 244, 1, 1], [10, 244, 2, 1], 64).udp(7000, 7000);
        builder.write(&mut forged, b"forged").unwrap();

        let (stranger, peer) = (one.socket("192.168.0.77:0"), one.socket("192.168.0.1:0"));
        stranger.send_to(&forged, "192.168.0.2:8285").unwrap();
        for length in [0, 1, 19, 20, 21, 1400] {
            for byte in [0x00, 0x45, 0x4f, 0xff] {
                peer.send_to(&vec![byte; length], "192.168.0.2:8285").unwrap();
            }
        }
        for cut in 0..forged.len() {
            peer.send_to(&forged[..cut], "192.168.0.2:8285").unwrap();
        }
        one.socket("10.244.1.1:7001").send_to(b"honest", "10.244.2.1:7000").unwrap();
        assert_eq!(receive(&far).0, b"honest", "nothing may come before it");

        peer.send_to(&forged, "192.168.0.2:8285").unwrap();
        assert_eq!(receive(&far).0, b"forged", "from a host with a lease it is carried: it was a good packet");
        one.stop();
        two.stop();
    });
}

fn a_device_that_goes_ends_the_daemon() {
    in_own_namespaces("a_device_that_goes_ends_the_daemon", || {
        let [one, two] = two_hosts();
        ip(&one.ns, "link del flannel0");
        assert!(one.daemon.join().unwrap().is_err());
        two.stop();
    });
}
