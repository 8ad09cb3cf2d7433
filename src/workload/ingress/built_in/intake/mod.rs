//! What a client sends, on its way to hyper: every HTTP/1 message is followed from its first byte to
//! its last, so that messages are refused about whose end two readers could differ ([`head`], [`chunks`]),
//! and so that slow clients are told from idle ones.
//!
//! A head is given to hyper when it is complete and found good. In place of a bad one hyper is given a
//! request that says nothing, and [`Shared`] tells whoever answers it what was wrong: so the answer
//! comes in its turn behind those of earlier requests, whatever was pipelined. After that nothing is
//! read. HTTP/2 and what follows an upgrade pass unseen.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::patience::Patience;
use chunks::Chunks;
pub use head::Fault;
use head::Length;
pub use shared::{Limits, Shared, Speaks};

pub mod chunks;
pub mod head;
mod shared;

/// How clients of HTTP/2 begin (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What hyper is given in place of a bad head.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n";
/// Bytes that are read at once while a head is awaited.
const PIECE: usize = 4 << 10;
/// How long a connection is quiet before hyper is let go of it.
const PARK: Duration = Duration::from_secs(1);
/// How long the rest of a refused message is taken and thrown away, in all and without a byte: who closes
/// while the client still sends makes its kernel throw the answer away (nginx' `lingering_time`
/// and `lingering_timeout`).
pub const LINGER: Duration = Duration::from_secs(30);
pub const LINGER_QUIET: Duration = Duration::from_secs(5);

/// A connection whose messages are followed.
pub struct Intake<S> {
    stream: S,
    shared: Arc<Shared>,
    limits: Limits,
    stage: Stage,
    /// Read, and not yet given to hyper.
    held: Vec<u8>,
    /// How much of it was given.
    given: usize,
    fresh: bool,
    /// Whether hyper is told of an end that is none: see [`Intake::parked`].
    parked: bool,
    reading: Patience,
    writing: Patience,
    closing: Patience,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Before and within a head; so much of it was looked at.
    Head(usize),
    /// A head is given: so many bytes are left of it.
    Give(usize, Length),
    Body(u64),
    Chunks(Chunks),
    /// So many bytes are left of what stands in for a bad head.
    StandIn(usize),
    /// A bad message: nothing more is read.
    Refused,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Intake<S> {
    pub fn new(stream: S, shared: Arc<Shared>, limits: Limits) -> Self {
        let patience = Patience::default;
        Intake {
            stream,
            shared,
            limits,
            stage: Stage::Head(0),
            held: Vec::new(),
            given: 0,
            fresh: true,
            parked: false,
            reading: patience(),
            writing: patience(),
            closing: patience(),
        }
    }

    /// Whether the connection has been quiet for a while and hyper was told that it had ended, because
    /// its buffers are what ten thousand quiet connections would cost most. What says something
    /// again after [`Intake::again`] is for another of hyper's connections.
    pub fn parked(&self) -> bool {
        self.parked
    }

    /// Wait for a parked client to say something. Whether it does before its time is over.
    pub async fn again(&mut self) -> bool {
        self.parked = false;
        let limit = self.limits.idle.saturating_sub(PARK);
        matches!(std::future::poll_fn(|cx| self.poll_more(cx, limit)).await, Ok(1..))
    }

    /// Wait for enough to know what the client speaks; nothing of it is lost.
    pub async fn speaks(&mut self) -> Speaks {
        std::future::poll_fn(|cx| self.poll_speaks(cx)).await
    }

    fn poll_speaks(&mut self, cx: &mut Context<'_>) -> Poll<Speaks> {
        loop {
            let known = self.held.len().min(PREFACE.len());
            if self.held[..known] != PREFACE[..known] {
                return Poll::Ready(Speaks::Http1);
            }
            if known == PREFACE.len() {
                self.shared.set_raw();
                return Poll::Ready(Speaks::Http2);
            }
            match self.poll_more(cx, self.limits.head) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) if self.held.is_empty() => return Poll::Ready(Speaks::Nothing),
                // Some bytes that could be the beginning of either: HTTP/1 tells what is wrong with them.
                Poll::Ready(_) => return Poll::Ready(Speaks::Http1),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Read more into what is held. Zero bytes: the end, or the client's time is over.
    fn poll_more(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<io::Result<usize>> {
        let mut piece = [std::mem::MaybeUninit::uninit(); PIECE];
        let mut piece = ReadBuf::uninit(&mut piece);
        match Pin::new(&mut self.stream).poll_read(cx, &mut piece) {
            Poll::Ready(Ok(())) => {
                if self.held.is_empty() {
                    // A head has its own time, which begins with its first byte.
                    self.reading.renew();
                }
                self.held.extend_from_slice(piece.filled());
                Poll::Ready(Ok(piece.filled().len()))
            }
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            Poll::Pending if self.reading.ended(cx, limit) => {
                Poll::Ready(Err(io::Error::from(io::ErrorKind::TimedOut)))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Go on with a head. Whether there is something for hyper; else it is the end.
    fn poll_head(&mut self, cx: &mut Context<'_>, scanned: usize) -> Poll<bool> {
        let mut scanned = scanned;
        loop {
            // An empty line before a request is a habit of old clients (RFC 9112, 2.2).
            while scanned == 0 && self.held.starts_with(b"\r\n") {
                self.held.drain(..2);
            }
            match head::end(&self.held, scanned) {
                Ok(Some(end)) => {
                    self.reading.renew();
                    self.found(end);
                    return Poll::Ready(true);
                }
                Ok(None) => {}
                Err(fault) => {
                    self.refuse(fault);
                    return Poll::Ready(true);
                }
            }
            scanned = self.held.len();
            self.stage = Stage::Head(scanned);
            let quiet = self.held.is_empty() && !self.fresh;
            let limit = if quiet { PARK.min(self.limits.idle) } else { self.limits.head };
            match ready!(self.poll_more(cx, limit)) {
                Ok(1..) => {}
                Err(e) if e.kind() == io::ErrorKind::TimedOut && quiet => {
                    self.reading.renew();
                    self.parked = true;
                    return Poll::Ready(false);
                }
                Err(e) if e.kind() == io::ErrorKind::TimedOut && !self.held.is_empty() => {
                    self.refuse(Fault { status: 408, why: "the request's head did not come in time" });
                    return Poll::Ready(true);
                }
                _ => return Poll::Ready(false),
            }
        }
    }

    fn found(&mut self, end: usize) {
        self.fresh = false;
        self.shared.set_length(end);
        match head::judge(&self.held[..end]) {
            Ok(length) => self.stage = Stage::Give(end, length),
            Err(fault) => self.refuse(fault),
        }
    }

    fn refuse(&mut self, fault: Fault) {
        self.shared.set_length(self.held.len());
        self.shared.set_fault(fault);
        self.forget();
        self.stage = Stage::StandIn(STAND_IN.len());
    }

    /// Idle connections hold no memory for what was sent before.
    fn forget(&mut self) {
        self.held = Vec::new();
        self.given = 0;
    }

    /// Give held bytes, at most `limit`.
    fn give(&mut self, buffer: &mut ReadBuf<'_>, limit: usize) -> usize {
        let held = &self.held[self.given..];
        let count = held.len().min(limit).min(buffer.remaining());
        buffer.put_slice(&held[..count]);
        self.given += count;
        if self.given == self.held.len() {
            self.forget();
        }
        count
    }

    /// Give what is held or else what comes now.
    fn poll_any(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.held.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        self.give(buffer, usize::MAX);
        Poll::Ready(Ok(()))
    }

    /// Give bytes of a body, and keep what follows it: that is the next request's.
    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
        follow: impl FnOnce(&[u8]) -> Result<(usize, Stage), chunks::Malformed>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(self.poll_any(cx, buffer))?;
        let came = &buffer.filled()[before..];
        let Ok((taken, stage)) = follow(came) else {
            self.stage = Stage::Refused;
            buffer.set_filled(before);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "the body's chunks are malformed")));
        };
        if taken < came.len() {
            let mut rest = came[taken..].to_vec();
            rest.extend_from_slice(&self.held[self.given..]);
            (self.held, self.given) = (rest, 0);
        }
        buffer.set_filled(before + taken);
        self.stage = stage;
        self.next_message();
        Poll::Ready(Ok(()))
    }

    /// Behind a message, what is held begins with the next one.
    fn next_message(&mut self) {
        if self.stage == Stage::Head(0) && self.given > 0 {
            self.held.drain(..self.given);
            self.given = 0;
        }
    }
}

fn counted(came: &[u8], left: u64) -> (usize, Stage) {
    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(came.len());
    let left = left - taken as u64;
    (taken, if left == 0 { Stage::Head(0) } else { Stage::Body(left) })
}

fn chunked(came: &[u8], mut chunks: Chunks) -> Result<(usize, Stage), chunks::Malformed> {
    let taken = chunks.follow(came)?;
    Ok((taken, if chunks.done() { Stage::Head(0) } else { Stage::Chunks(chunks) }))
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Intake<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.shared.raw() {
            return this.poll_any(cx, buffer);
        }
        loop {
            match this.stage {
                Stage::Head(scanned) => {
                    if !ready!(this.poll_head(cx, scanned)) {
                        return Poll::Ready(Ok(()));
                    }
                }
                Stage::Give(left, length) => {
                    let left = left - this.give(buffer, left);
                    this.stage = match length {
                        _ if left > 0 => Stage::Give(left, length),
                        Length::Bytes(0) => Stage::Head(0),
                        Length::Bytes(count) => Stage::Body(count),
                        Length::Chunked => Stage::Chunks(Chunks::default()),
                    };
                    this.next_message();
                    return Poll::Ready(Ok(()));
                }
                Stage::Body(left) => return this.poll_body(cx, buffer, |came| Ok(counted(came, left))),
                Stage::Chunks(chunks) => return this.poll_body(cx, buffer, |came| chunked(came, chunks)),
                Stage::StandIn(left) => {
                    let rest = &STAND_IN[STAND_IN.len() - left..];
                    let count = rest.len().min(buffer.remaining());
                    buffer.put_slice(&rest[..count]);
                    this.stage = if count < left { Stage::StandIn(left - count) } else { Stage::Refused };
                    return Poll::Ready(Ok(()));
                }
                Stage::Refused => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Intake<S> {
    /// An answer goes on, or the client has taken nothing of it for too long.
    fn paced<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match outcome {
            Poll::Pending if !self.writing.ended(cx, self.limits.write) => Poll::Pending,
            Poll::Pending => Poll::Ready(Err(io::Error::from(io::ErrorKind::TimedOut))),
            done => {
                self.writing.renew();
                done
            }
        }
    }

    /// Take what a client still sends, for some time.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; PIECE];
        loop {
            if self.closing.ended(cx, LINGER) {
                return Poll::Ready(());
            }
            let mut scratch = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut scratch) {
                Poll::Ready(Ok(())) if !scratch.filled().is_empty() => self.reading.renew(),
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending if self.reading.ended(cx, LINGER_QUIET) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Intake<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.paced(cx, outcome)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write_vectored(cx, pieces);
        this.paced(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_flush(cx);
        this.paced(cx, outcome)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.parked {
            return Poll::Ready(Ok(()));
        }
        let outcome = Pin::new(&mut this.stream).poll_shutdown(cx);
        ready!(this.paced(cx, outcome))?;
        let complete = matches!(this.stage, Stage::Head(0)) || this.shared.raw();
        if !complete {
            ready!(this.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}
