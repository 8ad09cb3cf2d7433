//! A TCP port of the echo server: who may connect, which protocol a connection speaks, and the
//! line protocol. That one says who answers, in one line of JSON, and then sends back whatever
//! comes.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout, timeout_at};

use super::{Identity, Limits, http};

/// How long to wait where the process has no descriptor left for a connection. Which one will be
/// closed cannot be waited for.
const NO_DESCRIPTOR: Duration = Duration::from_millis(50);

/// How often the kernel asks whether an idle peer is still there: a namespace that is taken down
/// ends its connections without a word.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// The words that HTTP begins with.
const METHODS: [&[u8]; 9] =
    [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"TRACE ", b"CONNECT "];

/// The words that HTTP/2 begins with (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HT";

/// Bytes that tell HTTP from the rest: those of the longest method.
const SNIFF: usize = 8;

/// Accept for ever. The connections belong to this task and end with it.
pub async fn accept(listener: TcpListener, identity: Arc<Identity>, limits: Limits) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            // How a connection ended is its client's concern.
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < limits.connections.max(1) => match accepted {
                // One too many for the process: it is told so by its end.
                Ok((stream, _)) if stream.as_raw_fd() >= limits.descriptors => drop(stream),
                Ok((stream, peer)) => {
                    connections.spawn(connection(stream, peer, identity.clone(), limits));
                }
                Err(e) if is_of_one_connection(&e) => {}
                Err(_) => sleep(NO_DESCRIPTOR).await,
            },
        }
    }
}

/// Whether accepting failed for a connection that was gone again (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

async fn connection(stream: TcpStream, peer: SocketAddr, identity: Arc<Identity>, limits: Limits) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    let mut stream = Unstalled::new(stream, limits.stall);
    let first = sniff(&mut stream, limits.silence).await?;
    match first {
        First::Http(bytes) => {
            stream.push_back(bytes);
            // Hyper's connection is large: only those who speak HTTP pay for it.
            Box::pin(http::serve(stream, peer, identity, limits)).await
        }
        First::Http2(bytes) => {
            stream.push_back(bytes);
            Box::pin(http::serve2(stream, peer, identity, limits)).await
        }
        First::Other(bytes) => lines(stream, &bytes, &identity.line(peer), limits).await,
        First::End => Ok(()),
    }
}

/// How a connection began.
enum First {
    Http(Vec<u8>),
    /// HTTP/2, as gRPC speaks it.
    Http2(Vec<u8>),
    /// With bytes that are not HTTP, or silence.
    Other(Vec<u8>),
    End,
}

/// Read until it is clear what the client speaks, or until it has been silent for too long.
async fn sniff(stream: &mut Unstalled, silence: Duration) -> io::Result<First> {
    let deadline = Instant::now() + silence;
    let mut bytes = Vec::with_capacity(SNIFF);
    loop {
        let Ok(read) = timeout_at(deadline, stream.read_buf(&mut bytes)).await else {
            return Ok(First::Other(bytes));
        };
        if read? == 0 {
            return Ok(if bytes.is_empty() { First::End } else { First::Other(bytes) });
        }
        if METHODS.iter().any(|method| bytes.starts_with(method)) {
            return Ok(First::Http(bytes));
        }
        if bytes.starts_with(PREFACE) {
            return Ok(First::Http2(bytes));
        }
        if !METHODS.iter().chain([&PREFACE]).any(|begin| begin.starts_with(&bytes)) {
            return Ok(First::Other(bytes));
        }
    }
}

async fn lines(mut stream: Unstalled, first: &[u8], identity: &[u8], limits: Limits) -> io::Result<()> {
    stream.write_all(identity).await?;
    stream.write_all(first).await?;
    loop {
        // An idle connection has no buffer: it is made when there is something to put in.
        match timeout(limits.line_idle, stream.inner.readable()).await {
            Ok(readable) => readable?,
            Err(_) => return Ok(()),
        }
        let mut chunk = Vec::with_capacity(16 << 10);
        match stream.inner.try_read_buf(&mut chunk) {
            Ok(0) => return stream.shutdown().await,
            Ok(_) => stream.write_all(&chunk).await?,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
}

/// A connection that gives its client up when that takes nothing of what it is sent for too long.
/// What was read to find out the protocol can be put back.
pub struct Unstalled {
    inner: TcpStream,
    pushed_back: Vec<u8>,
    limit: Duration,
    /// When to give up; there only while the client does not take anything.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Unstalled {
    fn new(inner: TcpStream, limit: Duration) -> Unstalled {
        Unstalled { inner, pushed_back: Vec::new(), limit, stalled: None }
    }

    fn push_back(&mut self, bytes: Vec<u8>) {
        self.pushed_back = bytes;
    }

    fn watched<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let limit = self.limit;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + limit)));
        ready!(stalled.as_mut().poll(context));
        // Reset it: the kernel would go on holding what was not taken.
        let _ = SockRef::from(&self.inner).set_linger(Some(Duration::ZERO));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Unstalled {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.pushed_back.is_empty() {
            return Pin::new(&mut this.inner).poll_read(context, buffer);
        }
        let bytes = std::mem::take(&mut this.pushed_back);
        let (now, later) = bytes.split_at(bytes.len().min(buffer.remaining()));
        buffer.put_slice(now);
        this.pushed_back = later.to_vec();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Unstalled {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write(context, bytes);
        this.watched(context, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write_vectored(context, slices);
        this.watched(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}
