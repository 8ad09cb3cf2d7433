//! Who lives in the lab: echo listeners, programs, and, in files of their own, rooms and flannelds.
//! Started and stopped by the steps of a plan; what really lives is told from here, so that a
//! plan can be compared with it.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::kernel::ns::NetNs;
use crate::kernel::process::Place;
use crate::lab::names::NsName;
use crate::plan::{Listener, NsPlan, Program};
use crate::spec::value::Protocol;
use crate::workload::echo::{self, Identity};

use super::flannelds::Flannelds;
use super::programs::{Log, Own, Supervised, Surroundings};
use super::rooms::{Key, Rooms};
use super::telling::Telling;

type ListenerKey = (NsName, Protocol, u16);

/// Everyone who lives in a lab.
#[derive(Default)]
pub struct Workloads {
    listeners: RefCell<HashMap<ListenerKey, (Listener, JoinHandle<()>)>>,
    programs: RefCell<BTreeMap<Key, Supervised>>,
    /// What containers' programs wrote, also while one takes another's place.
    logs: RefCell<BTreeMap<Key, Rc<Log>>>,
    pub flannelds: Flannelds,
    pub rooms: Rooms,
    /// What labctl's own programs tell of what they do.
    pub telling: Rc<Telling>,
    /// Rung whenever something starts, ends or changes.
    pub changed: Rc<Notify>,
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

    /// Start a program; `own` where it is one of labctl's.
    pub fn start(&self, ns: &NsName, program: &Program, place: Place, own: Option<Own>) {
        let key = (ns.clone(), program.name.clone());
        let log = Rc::clone(self.logs.borrow_mut().entry(key.clone()).or_default());
        log.begin_anew();
        let (rooms, changed) = (self.rooms.clone(), Rc::clone(&self.changed));
        let around = Surroundings { key: key.clone(), place, rooms, log, changed, own };
        let supervised = Supervised::start(program.clone(), around);
        self.programs.borrow_mut().insert(key, supervised);
    }

    /// Take a program out, for the caller to stop.
    pub fn take(&self, ns: &NsName, program: &Program) -> Option<Supervised> {
        self.programs.borrow_mut().remove(&(ns.clone(), program.name.clone()))
    }

    /// Tell all programs of a pod to end within `grace`.
    pub fn tell_to_end(&self, ns: &NsName, grace: Duration) {
        self.of(ns, |program| program.tell_to_end(grace));
    }

    /// Whether no program of a pod lives any more.
    pub fn is_over(&self, ns: &NsName) -> bool {
        let mut over = true;
        self.of(ns, |program| over &= program.is_over());
        over
    }

    fn of(&self, ns: &NsName, mut look: impl FnMut(&Supervised)) {
        let programs = self.programs.borrow();
        programs.iter().filter(|((pod, _), _)| pod == ns).for_each(|(_, program)| look(program));
    }

    /// What a container's program wrote.
    pub fn log(&self, ns: &NsName, container: &str) -> Option<Rc<Log>> {
        self.logs.borrow().get(&(ns.clone(), container.to_owned())).cloned()
    }

    /// Keep the logs of those containers only.
    pub fn keep_logs(&self, keep: impl Fn(&Key) -> bool) {
        self.logs.borrow_mut().retain(|key, log| {
            let kept = keep(key);
            if !kept {
                // Who follows is to see that there is no more to come.
                log.ring_bell();
            }
            kept
        });
    }

    /// Look at one program, by container name.
    pub fn program<T>(&self, ns: &NsName, container: &str, look: impl FnOnce(&Supervised) -> T) -> Option<T> {
        self.programs.borrow().get(&(ns.clone(), container.to_owned())).map(look)
    }

    /// Put into `observed` who really lives in this namespace, planned or not.
    pub fn observe(&self, observed: &mut NsPlan) {
        observed.flanneld = self.flannelds.config(&observed.ns);
        let here = |ns: &NsName| *ns == observed.ns;
        let listeners = self.listeners.borrow();
        let open = listeners.iter().filter(|((ns, ..), (_, task))| here(ns) && !task.is_finished());
        observed.listeners = open.map(|(_, (listener, _))| listener.clone()).collect();
        let programs = self.programs.borrow();
        observed.programs =
            programs.iter().filter(|((ns, _), _)| here(ns)).map(|(_, kept)| kept.program.clone()).collect();
    }
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
