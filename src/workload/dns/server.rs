//! The server's sockets and its event loop: datagrams here, streams in `tcp`, probes in `http`. One
//! thread does it all. What is answered is decided elsewhere.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use super::answer::{Transport, answer};
use super::config::Config;
use super::control::Shared;
use super::counters::Counters;
use super::http::{self, Page};
use super::{tcp, told};
use crate::workload::events::Teller;

/// Datagrams taken before others have their turn.
const BATCH: usize = 64;
/// Bytes of the largest datagram there can be.
const DATAGRAM: usize = 65535;
/// Bytes of queries that the kernel keeps for us, as far as it allows.
const BACKLOG: usize = 4 << 20;
/// How often a port that is free for UDP is looked for among TCP's.
const TRIES: usize = 16;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// UDP and TCP.
    pub dns: SocketAddr,
    pub health: Option<SocketAddr>,
    pub ready: Option<SocketAddr>,
    pub metrics: Option<SocketAddr>,
}

/// What all parts of a server share.
pub struct State {
    pub records: Shared,
    pub counters: Counters,
    pub teller: Teller,
}

pub struct Server {
    udp: UdpSocket,
    tcp: TcpListener,
    pages: Vec<(Page, TcpListener)>,
    bound: Bound,
    state: Rc<State>,
}

impl Server {
    /// Bind all ports. To be called within tokio.
    ///
    /// # Errors
    /// A port that cannot be bound, with its number.
    pub fn bind(config: &Config, records: Shared, teller: Teller) -> io::Result<Server> {
        let (udp, tcp, dns) = dns_sockets(config)?;
        let mut bound = Bound { dns, health: None, ready: None, metrics: None };
        let mut pages = Vec::new();
        let wanted = [
            (Page::Health, config.health, &mut bound.health),
            (Page::Ready, config.ready, &mut bound.ready),
            (Page::Metrics, config.metrics, &mut bound.metrics),
        ];
        for (page, port, place) in wanted {
            let Some(port) = port else { continue };
            let listener = tcp_socket(SocketAddr::new(config.listen, port))?;
            *place = Some(listener.local_addr()?);
            pages.push((page, listener));
        }
        let state = Rc::new(State { records, counters: Counters::default(), teller });
        Ok(Server { udp, tcp, pages, bound, state })
    }

    pub fn bound(&self) -> &Bound {
        &self.bound
    }

    /// Answer until `ended` tells of the end.
    ///
    /// # Errors
    /// What `ended` tells, or a socket that is broken.
    pub async fn serve_until(self, ended: oneshot::Receiver<io::Result<()>>) -> io::Result<()> {
        let tasks = LocalSet::new();
        for (page, listener) in self.pages {
            tasks.spawn_local(http::serve(listener, page, Rc::clone(&self.state)));
        }
        tasks.spawn_local(tcp::serve(self.tcp, Rc::clone(&self.state)));
        let datagrams = datagrams(&self.udp, &self.state);
        let all = async {
            tokio::select! {
                broken = datagrams => broken,
                outcome = ended => outcome.unwrap_or_else(|_| Err(io::Error::other("the control thread is gone"))),
            }
        };
        tasks.run_until(all).await
    }
}

/// UDP and TCP at one port; port 0 is any that both have free.
fn dns_sockets(config: &Config) -> io::Result<(UdpSocket, TcpListener, SocketAddr)> {
    let mut tries = TRIES;
    loop {
        let udp = udp_socket(SocketAddr::new(config.listen, config.port))?;
        let address = udp.local_addr()?;
        tries -= 1;
        match tcp_socket(address) {
            Ok(tcp) => return Ok((udp, tcp, address)),
            Err(e) if config.port != 0 || tries == 0 => return Err(e),
            Err(_) => {}
        }
    }
}

fn named(what: &'static str, address: SocketAddr) -> impl Fn(io::Error) -> io::Error {
    move |e| io::Error::new(e.kind(), format!("{what} {address} cannot be had: {e}"))
}

fn domain(ip: IpAddr) -> Domain {
    if ip.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 }
}

fn udp_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let make = || {
        let socket = Socket::new(domain(address.ip()), Type::DGRAM, Some(Protocol::UDP))?;
        // As much as the machine gives; less is no fault.
        let _ = socket.set_recv_buffer_size(BACKLOG);
        let _ = socket.set_send_buffer_size(BACKLOG);
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        UdpSocket::from_std(socket.into())
    };
    make().map_err(named("UDP", address))
}

fn tcp_socket(address: SocketAddr) -> io::Result<TcpListener> {
    let make = || {
        let socket = Socket::new(domain(address.ip()), Type::STREAM, Some(Protocol::TCP))?;
        // Connections of a server before this one may still be closing.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(1024)?;
        TcpListener::from_std(socket.into())
    };
    make().map_err(named("TCP", address))
}

async fn datagrams(socket: &UdpSocket, state: &State) -> io::Result<()> {
    let mut query = vec![0; DATAGRAM];
    let mut reply = Vec::with_capacity(DATAGRAM);
    loop {
        socket.readable().await?;
        batch(socket, state, &mut query, &mut reply);
        tokio::task::yield_now().await;
    }
}

/// Answer what is there, up to a number.
fn batch(socket: &UdpSocket, state: &State, query: &mut [u8], reply: &mut Vec<u8>) {
    let records = state.records.read();
    for _ in 0..BATCH {
        let (length, from) = match socket.try_recv_from(query) {
            Ok(received) => received,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
            // An answer of before that could not be delivered is told here; it concerns no other.
            Err(_) => continue,
        };
        let code = answer(&records, query.get(..length).unwrap_or_default(), Transport::Udp, reply);
        state.counters.seen(Transport::Udp, code);
        if code.is_some() {
            told::tell(&state.teller, &records, from, (query.get(..length).unwrap_or_default(), reply));
        }
        // Where the kernel has no room, the asker asks again: it is UDP.
        if code.is_some() && socket.try_send_to(reply, from).is_err() {
            state.counters.unsent();
        }
    }
}
