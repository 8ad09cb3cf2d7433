//! The echo server that stands behind every pod without a program of its own, and on hosts and
//! clients that listen. It says who answered and what source address was seen, which is what
//! probes look at. One process serves all of a lab: sockets are made elsewhere, inside the right
//! namespace, and given here with the identity to answer with.
//!
//! A TCP port speaks HTTP/1.1 to who begins with an HTTP method (`http`), HTTP/2 with the gRPC health
//! checks to who begins with its preface (`grpc`), and lines to everyone
//! else (`tcp`); a UDP port answers datagrams (`udp`). Nothing is held for a listener that is
//! idle but its task, and nothing that a client does is unbounded: connections, headers, bodies
//! and idle time have [`Limits`].

use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;
use std::{io, net};

use nix::sys::resource::{Resource, getrlimit};
use serde::Serialize;
use tokio::task::JoinHandle;

mod grpc;
mod http;
mod tcp;
mod udp;

#[cfg(test)]
mod tests;

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `tea-1`, or `namespace/name`.
    pub name: String,
    /// `pod`, `host` or `client`.
    pub kind: String,
    /// The Kubernetes namespace, of a pod.
    pub namespace: Option<String>,
    /// The host that it is on.
    pub host: Option<String>,
    /// Its own address.
    pub ip: IpAddr,
}

impl Identity {
    /// What is said to a peer.
    fn to(&self, peer: SocketAddr) -> Answer<'_> {
        Answer {
            name: &self.name,
            kind: &self.kind,
            pod: (self.kind == "pod").then_some(&self.name),
            namespace: self.namespace.as_deref(),
            host: self.host.as_deref(),
            ip: self.ip,
            source: SocketAddr::new(peer.ip().to_canonical(), peer.port()).to_string(),
        }
    }

    /// The same as a line of JSON.
    fn line(&self, peer: SocketAddr) -> Vec<u8> {
        let mut line = serde_json::to_vec(&self.to(peer)).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// An identity as JSON.
#[derive(Serialize)]
struct Answer<'a> {
    name: &'a str,
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<&'a String>,
    namespace: Option<&'a str>,
    host: Option<&'a str>,
    ip: IpAddr,
    /// `ip:port`, as it arrived.
    source: String,
}

/// How much a client may have of a listener.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at a time; further ones wait in the listener's backlog.
    pub connections: usize,
    /// The first descriptor that no connection may have. The kernel gives the lowest free one, so
    /// a high one tells that the listeners together hold almost all that the process may have;
    /// the rest is for everyone else in it. A connection that gets it is closed at once.
    pub descriptors: RawFd,
    /// How long a new connection may be silent before it is told the identity, and from then on
    /// speaks lines.
    pub silence: Duration,
    /// How long the head of an HTTP request, or the next part of its body, may be in coming. It
    /// is also how long a connection is kept for its next request.
    pub http_idle: Duration,
    /// How long a connection that speaks lines may be idle.
    pub line_idle: Duration,
    /// How long a client may refuse to take what it is sent.
    pub stall: Duration,
}

impl Default for Limits {
    /// Generous where a person at a keyboard or a test of long-lived connections is on the other
    /// side, and short where only a hostile one is.
    fn default() -> Limits {
        Limits {
            connections: 4096,
            descriptors: spared(),
            silence: Duration::from_millis(300),
            http_idle: Duration::from_secs(75),
            line_idle: Duration::from_secs(3600),
            stall: Duration::from_secs(60),
        }
    }
}

/// Three quarters of the descriptors that the process may have, or all but enough of them.
fn spared() -> RawFd {
    const ENOUGH: u64 = 4096;
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    RawFd::try_from(limit - (limit / 4).min(ENOUGH)).unwrap_or(RawFd::MAX)
}

/// Serve a TCP listener until the task is aborted, which closes its connections too: an open
/// socket would keep the namespace that it belongs to. Wants to be called in a Tokio runtime.
///
/// # Errors
/// A socket that cannot be made non-blocking or be watched.
pub fn serve_tcp(listener: net::TcpListener, identity: Arc<Identity>) -> io::Result<JoinHandle<()>> {
    serve_tcp_within(listener, identity, Limits::default())
}

/// As [`serve_tcp`], with other limits.
///
/// # Errors
/// As [`serve_tcp`].
pub fn serve_tcp_within(
    listener: net::TcpListener,
    identity: Arc<Identity>,
    limits: Limits,
) -> io::Result<JoinHandle<()>> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    Ok(tokio::spawn(tcp::accept(listener, identity, limits)))
}

/// Serve a UDP socket until the task is aborted. Wants to be called in a Tokio runtime.
///
/// # Errors
/// A socket that cannot be made non-blocking or be watched.
pub fn serve_udp(socket: net::UdpSocket, identity: Arc<Identity>) -> io::Result<JoinHandle<()>> {
    socket.set_nonblocking(true)?;
    udp::tell_local_addresses(&socket)?;
    let socket = tokio::net::UdpSocket::from_std(socket)?;
    Ok(tokio::spawn(udp::answer(socket, identity)))
}
