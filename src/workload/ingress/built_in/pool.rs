//! Connections to endpoints: made, kept while idle, and let go when the endpoint goes.
//!
//! HTTP/1 connections serve one request after the other and wait here in between; HTTP/2 ones serve
//! many at once, so there is one for each endpoint. The bounds are those of ingress-nginx'
//! `upstream-keepalive-*`.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::client::conn::{http1, http2};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::body::{Feed, Upload};
use crate::plan::ingress::BackendProtocol;

/// Idle connections to one endpoint.
const IDLE: usize = 320;
/// How long one may be idle.
const IDLE_TIME: Duration = Duration::from_secs(60);
/// Requests that one may serve.
const REQUESTS: u32 = 10_000;
/// Bytes that are read or written at once.
pub const BUFFER: usize = 128 << 10;
const ALPN_HTTP2: &[u8] = b"h2";

/// An endpoint, and how it is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Target {
    pub address: SocketAddr,
    pub tls: bool,
    pub http2: bool,
}

impl Target {
    pub fn new(address: SocketAddr, protocol: BackendProtocol) -> Target {
        let tls = matches!(protocol, BackendProtocol::Https | BackendProtocol::Grpcs);
        let http2 = matches!(protocol, BackendProtocol::Grpc | BackendProtocol::Grpcs);
        Target { address, tls, http2 }
    }
}

/// All connections to endpoints.
pub struct Pool {
    idle: RefCell<HashMap<Target, Vec<Idle>>>,
    shared: RefCell<HashMap<Target, Shared>>,
    /// Those that there are now: only they are kept connections to.
    endpoints: RefCell<HashSet<SocketAddr>>,
    tls: Arc<ClientConfig>,
    tls_http2: Arc<ClientConfig>,
}

/// A connection for many requests at once, and its own end.
type Shared = (http2::SendRequest<Upload>, Option<SocketAddr>);

struct Idle {
    sender: http1::SendRequest<Upload>,
    local: Option<SocketAddr>,
    since: Instant,
    served: u32,
}

/// A connection for one request.
pub struct Lease {
    pool: Rc<Pool>,
    pub target: Target,
    pub sender: Sender,
    /// Our own end of it.
    pub local: Option<SocketAddr>,
    /// What was sent: a connection is free only when that has come to its end.
    pub feed: Option<Rc<Feed>>,
    served: u32,
}

pub enum Sender {
    One(http1::SendRequest<Upload>),
    Many(http2::SendRequest<Upload>),
}

impl Pool {
    /// # Errors
    /// TLS that this program's library cannot do.
    pub fn new() -> Result<Pool, rustls::Error> {
        // Endpoints' certificates are not looked at, as nginx does not by default.
        let tls = crate::probe::tls::config(None)?;
        let mut tls_http2 = tls.clone();
        tls_http2.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
        Ok(Pool {
            idle: RefCell::default(),
            shared: RefCell::default(),
            endpoints: RefCell::default(),
            tls: Arc::new(tls),
            tls_http2: Arc::new(tls_http2),
        })
    }

    /// Forget connections to all others. Requests in them go on.
    pub fn keep_only(&self, endpoints: HashSet<SocketAddr>) {
        self.idle.borrow_mut().retain(|target, _| endpoints.contains(&target.address));
        self.shared.borrow_mut().retain(|target, _| endpoints.contains(&target.address));
        *self.endpoints.borrow_mut() = endpoints;
    }

    /// Forget those that were idle for too long.
    pub fn sweep(&self) {
        let mut idle = self.idle.borrow_mut();
        for connections in idle.values_mut() {
            connections.retain(|one| one.since.elapsed() < IDLE_TIME && !one.sender.is_closed());
        }
        idle.retain(|_, connections| !connections.is_empty());
        self.shared.borrow_mut().retain(|_, (sender, _)| !sender.is_closed());
    }

    /// A connection that is there and ready.
    pub async fn idle(self: &Rc<Self>, target: Target) -> Option<Lease> {
        if target.http2 {
            let shared = self.shared.borrow().get(&target).filter(|(sender, _)| !sender.is_closed()).cloned();
            let (sender, local) = shared?;
            return Some(self.lease((target, local), Sender::Many(sender), 0));
        }
        loop {
            let mut one = self.idle.borrow_mut().get_mut(&target)?.pop()?;
            // The one that answered last may still be about to notice that it is free.
            if one.since.elapsed() < IDLE_TIME && one.sender.ready().await.is_ok() {
                return Some(self.lease((target, one.local), Sender::One(one.sender), one.served));
            }
        }
    }

    fn lease(self: &Rc<Self>, (target, local): (Target, Option<SocketAddr>), sender: Sender, served: u32) -> Lease {
        Lease { pool: Rc::clone(self), target, sender, local, feed: None, served }
    }

    /// A new connection.
    ///
    /// # Errors
    /// What the system, TLS or HTTP/2 says against it.
    pub async fn connect(self: &Rc<Self>, target: Target) -> io::Result<Lease> {
        let stream = TcpStream::connect(target.address).await?;
        stream.set_nodelay(true)?;
        let local = stream.local_addr().ok();
        if !target.tls {
            return self.begin((target, local), stream).await;
        }
        let config = if target.http2 { &self.tls_http2 } else { &self.tls };
        // An address has no name to be asked for: nginx' `proxy_ssl_server_name off`.
        let name = ServerName::from(target.address.ip());
        let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await?;
        self.begin((target, local), stream).await
    }

    async fn begin<S>(self: &Rc<Self>, (target, local): (Target, Option<SocketAddr>), stream: S) -> io::Result<Lease>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = TokioIo::new(stream);
        if target.http2 {
            let mut builder = http2::Builder::new(Local);
            builder.timer(TokioTimer::new());
            let (sender, connection) = builder.handshake(stream).await.map_err(io::Error::other)?;
            tokio::task::spawn_local(connection);
            if self.endpoints.borrow().contains(&target.address) {
                self.shared.borrow_mut().insert(target, (sender.clone(), local));
            }
            return Ok(self.lease((target, local), Sender::Many(sender), 0));
        }
        let mut builder = http1::Builder::new();
        builder.max_buf_size(BUFFER);
        let (sender, connection) = builder.handshake(stream).await.map_err(io::Error::other)?;
        tokio::task::spawn_local(connection.with_upgrades());
        Ok(self.lease((target, local), Sender::One(sender), 0))
    }
}

impl Lease {
    /// The request is answered: the connection may serve another.
    pub fn give_back(self) {
        let Sender::One(sender) = self.sender else { return };
        if self.feed.is_some_and(|feed| !feed.done()) {
            return;
        }
        let served = self.served + 1;
        if sender.is_closed() || served >= REQUESTS || !self.pool.endpoints.borrow().contains(&self.target.address) {
            return;
        }
        let mut idle = self.pool.idle.borrow_mut();
        let connections = idle.entry(self.target).or_default();
        if connections.len() < IDLE {
            connections.push(Idle { sender, local: self.local, since: Instant::now(), served });
        }
    }
}

/// Runs hyper's tasks where everything runs: on the one thread.
#[derive(Debug, Clone, Copy)]
pub struct Local;

impl<F: Future + 'static> Executor<F> for Local {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(async move { drop(task.await) });
    }
}
