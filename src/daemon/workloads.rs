//! Who lives in the lab: echo listeners, programs, and flanneld where the back end is udp.
//! Started and stopped by the steps of a plan; what really lives is told from here, so that a
//! plan can be compared with it.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::kernel::enter::Entry;
use crate::kernel::ns::NetNs;
use crate::lab::names::NsName;
use crate::plan::{Flanneld, Listener, NsPlan, PeerLease, Program};
use crate::spec::value::Protocol;
use crate::workload::echo::{self, Identity};
use crate::workload::flanneld;

use super::programs::{Log, NETNS_FD, Place, Supervised, hand_over, keep};

/// The hidden verb that is flanneld.
pub const FLANNELD_VERB: &str = "lab-flanneld";

type ListenerKey = (NsName, Protocol, u16);

/// Everyone who lives in a lab.
#[derive(Default)]
pub struct Workloads {
    listeners: RefCell<HashMap<ListenerKey, (Listener, JoinHandle<()>)>>,
    programs: RefCell<BTreeMap<(NsName, String), Supervised>>,
    flannelds: RefCell<BTreeMap<NsName, Daemonised>>,
    /// Rung whenever something starts, ends or changes.
    pub changed: Rc<Notify>,
}

/// A flanneld of the udp back end.
struct Daemonised {
    config: Flanneld,
    child: Child,
    control: ChildStdin,
    log: Rc<Log>,
}

/// A listener and where it is to be.
pub struct Wanted {
    pub ns: NsName,
    pub netns: NetNs,
    pub listener: Listener,
}

enum Socket {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Workloads {
    /// Open all these listeners. One thread walks through the namespaces and makes the sockets.
    pub fn listen(&self, wanted: Vec<Wanted>) -> Result<(), (String, io::Error)> {
        if wanted.is_empty() {
            return Ok(());
        }
        let sockets = std::thread::scope(|scope| {
            let walk = || wanted.iter().map(open_socket).collect::<Vec<_>>();
            scope.spawn(walk).join().unwrap_or_default()
        });
        // All or none: what is open without being planned would be in the way for ever.
        let what = |wanted: &Wanted| format!("{}: listen on {}", wanted.ns, wanted.listener);
        let sockets: Vec<Socket> = wanted
            .iter()
            .zip(sockets)
            .map(|(wanted, socket)| socket.map_err(|e| (what(wanted), e)))
            .collect::<Result<_, _>>()?;
        for (wanted, socket) in wanted.into_iter().zip(sockets) {
            let identity = Arc::new(identity(&wanted.ns, &wanted.listener));
            let task = match socket {
                Socket::Tcp(socket) => echo::serve_tcp(socket, identity),
                Socket::Udp(socket) => echo::serve_udp(socket, identity),
            };
            let key = (wanted.ns, wanted.listener.protocol, wanted.listener.port);
            self.listeners.borrow_mut().insert(key, (wanted.listener, task.map_err(|e| ("echo".to_owned(), e))?));
        }
        Ok(())
    }

    pub fn close(&self, ns: &NsName, listener: &Listener) {
        let key = (ns.clone(), listener.protocol, listener.port);
        if let Some((_, task)) = self.listeners.borrow_mut().remove(&key) {
            task.abort();
        }
    }

    pub fn start(&self, ns: &NsName, program: &Program, netns: NetNs, entry: Entry) {
        let place = Place { netns, entry };
        let supervised = Supervised::start(program.clone(), place, Rc::clone(&self.changed));
        self.programs.borrow_mut().insert((ns.clone(), program.name.clone()), supervised);
    }

    /// Take a program out, for the caller to stop.
    pub fn take(&self, ns: &NsName, program: &Program) -> Option<Supervised> {
        self.programs.borrow_mut().remove(&(ns.clone(), program.name.clone()))
    }

    /// Look at one program, by container name.
    pub fn program<T>(&self, ns: &NsName, container: &str, look: impl FnOnce(&Supervised) -> T) -> Option<T> {
        self.programs.borrow().get(&(ns.clone(), container.to_owned())).map(look)
    }

    /// Start flanneld behind a TUN device and wait until it says that it is ready.
    pub fn start_flanneld(&self, ns: &NsName, config: &Flanneld, netns: &NetNs, tun: OwnedFd) -> io::Result<()> {
        let options = flanneld::Config {
            listen: config.listen,
            port: config.port,
            tun_address: config.tun_address,
            mtu: config.mtu,
        };
        let mut command = Command::new("/proc/self/exe");
        command.arg0("flanneld").arg(FLANNELD_VERB).arg(serde_json::to_string(&options).map_err(io::Error::other)?);
        // Our standard error is the caller's until the lab is ready; flanneld must not hold it open.
        command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        // SAFETY: dup2 is async-signal-safe, and the descriptor lives as long as the closure.
        unsafe {
            command.pre_exec(move || hand_over(tun.as_raw_fd(), NETNS_FD));
        }
        // A child is born into the namespace of the thread that starts it.
        let mut child = netns.run(|| command.spawn())??;
        // Our copy of the descriptor goes with the command, so that the device ends with flanneld.
        drop(command);
        let Some(mut control) = child.stdin.take() else { return Err(io::Error::other("no pipe")) };
        tell(&mut control, &config.peers)?;
        let mut said = String::new();
        if let Some(stdout) = child.stdout.take() {
            io::BufRead::read_line(&mut io::BufReader::new(stdout), &mut said)?;
        }
        if said.trim() != "ready" {
            let _ = child.kill();
            let ended = child.wait_with_output()?;
            let why = String::from_utf8_lossy(&ended.stderr).trim().to_owned();
            return Err(io::Error::other(format!("flanneld ended at once ({}): {why}", ended.status)));
        }
        let log = Rc::new(Log::default());
        if let Some(stderr) = child.stderr.take() {
            let output = tokio::net::unix::pipe::Receiver::from_owned_fd(OwnedFd::from(stderr))?;
            tokio::task::spawn_local(keep(output, Rc::clone(&log)));
        }
        self.flannelds.borrow_mut().insert(ns.clone(), Daemonised { config: config.clone(), child, control, log });
        Ok(())
    }

    pub fn stop_flanneld(&self, ns: &NsName) {
        if let Some(mut flanneld) = self.flannelds.borrow_mut().remove(ns) {
            // It may have been ended by someone else; then there is nothing left to do.
            let _ = flanneld.child.kill();
            let _ = flanneld.child.wait();
        }
    }

    pub fn set_peers(&self, ns: &NsName, peers: &[PeerLease]) -> io::Result<()> {
        let mut all = self.flannelds.borrow_mut();
        let Some(flanneld) = all.get_mut(ns) else { return Ok(()) };
        flanneld.config.peers = peers.to_vec();
        tell(&mut flanneld.control, peers)
    }

    /// What a host's flanneld complained about, where there is one or was.
    pub fn flanneld_log(&self, ns: &NsName) -> Option<Rc<Log>> {
        self.flannelds.borrow().get(ns).map(|f| Rc::clone(&f.log))
    }

    /// The process of a host's flanneld, where it lives.
    pub fn flanneld_pid(&self, ns: &NsName) -> Option<u32> {
        let mut all = self.flannelds.borrow_mut();
        let flanneld = all.get_mut(ns)?;
        matches!(flanneld.child.try_wait(), Ok(None)).then(|| flanneld.child.id())
    }

    /// Put into `observed` who really lives in this namespace, planned or not.
    pub fn observe(&self, observed: &mut NsPlan) {
        let alive = self.flanneld_pid(&observed.ns).is_some();
        observed.flanneld = self.flannelds.borrow().get(&observed.ns).filter(|_| alive).map(|f| f.config.clone());
        let here = |ns: &NsName| *ns == observed.ns;
        let listeners = self.listeners.borrow();
        let open = listeners.iter().filter(|((ns, ..), (_, task))| here(ns) && !task.is_finished());
        observed.listeners = open.map(|(_, (listener, _))| listener.clone()).collect();
        let programs = self.programs.borrow();
        observed.programs =
            programs.iter().filter(|((ns, _), _)| here(ns)).map(|(_, kept)| kept.program.clone()).collect();
    }
}

fn tell(control: &mut ChildStdin, peers: &[PeerLease]) -> io::Result<()> {
    let mut line = serde_json::to_vec(peers).map_err(io::Error::other)?;
    line.push(b'\n');
    control.write_all(&line)
}

/// To be called on a thread of its own: it walks into the namespace.
fn open_socket(wanted: &Wanted) -> io::Result<Socket> {
    wanted.netns.enter()?;
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, wanted.listener.port));
    match wanted.listener.protocol {
        Protocol::Tcp => {
            let socket = TcpListener::bind(any)?;
            socket.set_nonblocking(true)?;
            Ok(Socket::Tcp(socket))
        }
        Protocol::Udp => {
            let socket = UdpSocket::bind(any)?;
            socket.set_nonblocking(true)?;
            Ok(Socket::Udp(socket))
        }
    }
}

fn identity(ns: &NsName, listener: &Listener) -> Identity {
    let namespace = match ns {
        NsName::Pod(id) => Some(id.namespace.to_string()),
        _ => None,
    };
    Identity {
        name: ns.to_string(),
        kind: ns.kind().to_owned(),
        namespace,
        host: listener.host.as_ref().map(ToString::to_string),
        ip: listener.ip,
    }
}
