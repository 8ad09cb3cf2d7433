//! A namespace with one address, behind a veth pair of the node's, and what is sent and heard in it.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use socket2::{Domain, Protocol, Socket, Type};

use crate::harness::until;
use crate::sctp;
use crate::space::{ip, run};

/// How long a packet that nothing answers is waited for.
const SILENCE: Duration = Duration::from_secs(1);
const SCTP: i32 = 132;

type Job = Box<dyn FnOnce() + Send>;

/// A thread that lives in a network namespace of its own.
pub struct Peer {
    pub address: IpAddr,
    jobs: Sender<Job>,
}

/// Somebody was reached.
#[derive(Debug)]
pub struct Hit {
    pub who: String,
    /// The client's address as it was seen there.
    pub source: IpAddr,
}

impl Peer {
    /// A namespace with this address and `eth0`, whose other end is the node's `p` and a number.
    pub fn new(number: usize, address: IpAddr) -> Peer {
        let (jobs, todo) = channel::<Job>();
        let (born, id) = channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
            born.send(nix::unistd::gettid()).expect("somebody who waits");
            todo.iter().for_each(|job| job());
        });
        let thread = id.recv().expect("a thread");
        ip(&format!(
            "link add p{number} type veth peer name eth0 netns {thread}\n\
             link set p{number} up\nroute add {address}/32 dev p{number}\n"
        ));
        let peer = Peer { address, jobs };
        peer.run(move || {
            ip(&format!(
                "link set lo up\nlink set eth0 up\naddress add {address}/32 dev eth0\n\
                 route add 169.254.1.1 dev eth0\nroute add default via 169.254.1.1 dev eth0\n"
            ));
        });
        // The kernel may take a second to notice that a pair is connected, and until then it drops
        // what is sent.
        until("the pair is up", || is_up(&format!("p{number}")) && peer.run(|| is_up("eth0")));
        peer
    }

    /// Do this in the namespace.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = channel();
        // Whoever waits may have given up.
        let job = Box::new(move || drop(done.send(job())));
        self.jobs.send(job).expect("a living thread");
        result.recv().expect("the job has failed")
    }
}

fn is_up(device: &str) -> bool {
    run("ip", &["-o", "link", "show", "dev", device], "").contains(" state UP ")
}

/// Listen in the calling thread's namespace, and tell of everybody who comes.
pub fn listen(protocol: &str, at: SocketAddr, who: String, hits: Sender<Hit>) {
    // Whoever hears of hits may be gone when the last one comes.
    let tell = move |source: IpAddr| drop(hits.send(Hit { who: who.clone(), source }));
    match protocol {
        "tcp" => {
            let listener = TcpListener::bind(at).expect("a port");
            thread::spawn(move || {
                while let Ok((mut stream, from)) = listener.accept() {
                    tell(from.ip());
                    let _ = stream.write_all(b"!");
                }
            });
        }
        "udp" => {
            let socket = UdpSocket::bind(at).expect("a port");
            thread::spawn(move || {
                let mut bytes = [0; 64];
                while let Ok((_, from)) = socket.recv_from(&mut bytes) {
                    tell(from.ip());
                    let _ = socket.send_to(b"!", from);
                }
            });
        }
        "sctp" => {
            let mut socket = raw();
            thread::spawn(move || {
                let mut bytes = [0; 512];
                while let Ok(length) = socket.read(&mut bytes) {
                    // An IP header without options is 20 bytes, with the source at 12.
                    let port = u16::from_be_bytes([bytes[22], bytes[23]]);
                    if length >= 24 && port == at.port() {
                        tell(IpAddr::from([bytes[12], bytes[13], bytes[14], bytes[15]]));
                    }
                }
            });
        }
        other => panic!("what is {other}?"),
    }
}

fn raw() -> Socket {
    Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(SCTP))).expect("a raw socket")
}

/// Send a flow's first packet, and wait for what comes back.
pub fn attempt(protocol: &str, source: IpAddr, to: SocketAddr) -> io::Result<()> {
    static PORT: AtomicU16 = AtomicU16::new(20_000);
    let own = SocketAddr::new(source, 0);
    match protocol {
        "tcp" => {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&own.into())?;
            socket.connect_timeout(&to.into(), SILENCE)?;
            socket.set_read_timeout(Some(SILENCE * 10))?;
            (&socket).read_exact(&mut [0])
        }
        "udp" => {
            let socket = UdpSocket::bind(own)?;
            socket.connect(to)?;
            socket.send(b"?")?;
            socket.set_read_timeout(Some(SILENCE))?;
            let heard = socket.recv(&mut [0; 8]).map(|_| ());
            heard.map_err(|e| if e.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { e })
        }
        "sctp" => {
            let socket = raw();
            socket.bind(&own.into())?;
            // A flow of its own for each, or conntrack would send it where the one before went.
            let packet = sctp::init(PORT.fetch_add(1, Ordering::Relaxed), to.port());
            socket.send_to(&packet, &to.into()).map(|_| ())
        }
        other => panic!("what is {other}?"),
    }
}
