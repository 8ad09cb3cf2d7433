//! Bodies on their way: what a client sends ([`Upload`]) and what it gets ([`Answer`]), both passed on
//! piece by piece as the other side takes them, with their limits.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::{Instant, timeout_at};

use super::super::log;
use super::connection::Active;
use super::intake::{LINGER, LINGER_QUIET};
use super::log::Entry;
use super::patience::{Patience, after};
use super::pool::Lease;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Bytes of a body that are kept, so that another endpoint can be asked when the first fails.
const KEPT: usize = 64 << 10;

/// Why a body did not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadFault {
    TooLarge,
    Slow,
    /// The client went away or sent what no body is.
    Broken,
}

/// A client's body, whoever reads it.
pub struct Feed(RefCell<State>);

struct State {
    body: Incoming,
    hint: SizeHint,
    /// What was read, while it all fits.
    kept: Option<Vec<Bytes>>,
    size: u64,
    limit: u64,
    patience: Patience,
    slow: Duration,
    /// Which endpoint reads it: an earlier one that has not noticed its end gets nothing more.
    turn: u32,
    waits: Waits,
    fault: Option<UploadFault>,
}

/// Who keeps the exchange waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// The next piece is the client's to send.
    Client,
    /// The endpoint has not taken the next piece since.
    Endpoint(Instant),
    /// All is sent since.
    Done(Instant),
}

impl Feed {
    /// `limit` in bytes, 0: none. A client that sends nothing for `slow` is given up.
    pub fn new(body: Incoming, limit: u64, slow: Duration) -> Feed {
        Feed(RefCell::new(State {
            hint: body.size_hint(),
            body,
            kept: Some(Vec::new()),
            size: 0,
            limit,
            patience: Patience::default(),
            slow,
            turn: 0,
            waits: Waits::Endpoint(Instant::now()),
            fault: None,
        }))
    }

    /// For an endpoint to read, from its beginning. Nothing where that is gone.
    pub fn upload(self: &Rc<Self>) -> Option<Upload> {
        let mut state = self.0.borrow_mut();
        state.turn += 1;
        state.waits = Waits::Endpoint(Instant::now());
        let kept = state.kept.as_ref()?.iter().cloned().collect();
        Some(Upload(Some(Reader { feed: Rc::clone(self), turn: state.turn, kept })))
    }

    /// Take what still comes, for some time.
    async fn throw_away(&self) {
        let until = after(LINGER);
        loop {
            let piece = poll_fn(|cx| Pin::new(&mut self.0.borrow_mut().body).poll_frame(cx));
            match timeout_at(until.min(after(LINGER_QUIET)), piece).await {
                Ok(Some(Ok(_))) => {}
                _ => return,
            }
        }
    }

    pub fn fault(&self) -> Option<UploadFault> {
        self.0.borrow().fault
    }

    pub fn waits(&self) -> Waits {
        self.0.borrow().waits
    }

    /// Whether all of it was sent.
    pub fn done(&self) -> bool {
        matches!(self.waits(), Waits::Done(_))
    }

    /// Whether another endpoint can be given it from its beginning.
    pub fn whole(&self) -> bool {
        self.0.borrow().kept.is_some()
    }
}

impl State {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let fault = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.patience.renew();
                self.waits = Waits::Endpoint(Instant::now());
                if self.came(&frame) {
                    return Poll::Ready(Some(Ok(frame)));
                }
                UploadFault::TooLarge
            }
            Poll::Ready(None) => {
                self.waits = Waits::Done(Instant::now());
                return Poll::Ready(None);
            }
            Poll::Ready(Some(Err(_))) => UploadFault::Broken,
            Poll::Pending if self.patience.ended(cx, self.slow) => UploadFault::Slow,
            Poll::Pending => {
                self.waits = Waits::Client;
                return Poll::Pending;
            }
        };
        self.fault = Some(fault);
        Poll::Ready(Some(Err("the client's body did not come to its end".into())))
    }

    /// Count a piece and keep it. Whether it is within the limit.
    fn came(&mut self, frame: &Frame<Bytes>) -> bool {
        let Some(data) = frame.data_ref() else {
            self.kept = None;
            return true;
        };
        self.size += data.len() as u64;
        match &mut self.kept {
            Some(kept) if self.size <= KEPT as u64 => kept.push(data.clone()),
            _ => self.kept = None,
        }
        if self.hint.exact() == Some(self.size) {
            // hyper does not ask again for the end of a body whose length it knows.
            self.waits = Waits::Done(Instant::now());
        }
        self.limit == 0 || self.size <= self.limit
    }
}

/// A client's body as an endpoint's connection reads it.
pub struct Upload(Option<Reader>);

struct Reader {
    feed: Rc<Feed>,
    turn: u32,
    /// What an earlier endpoint has read before.
    kept: VecDeque<Bytes>,
}

impl Upload {
    pub fn none() -> Upload {
        Upload(None)
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(reader) = &mut self.0 else { return Poll::Ready(None) };
        let mut state = reader.feed.0.borrow_mut();
        if state.turn != reader.turn {
            return Poll::Ready(Some(Err("another endpoint was asked".into())));
        }
        if let Some(kept) = reader.kept.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(kept))));
        }
        state.poll(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Some(reader) => reader.feed.0.borrow().hint,
            None => SizeHint::with_exact(0),
        }
    }
}

/// What a client gets, with its line in the log.
pub struct Answer {
    from: From,
    entry: Option<Box<Entry>>,
    /// Until this is sent or given up, its connection is not idle.
    active: Option<Active>,
    /// What the client may still be sending: see [`Answer::before_the_end_of`].
    unread: Option<Rc<Feed>>,
}

enum From {
    Page(Option<Bytes>),
    Endpoint(Box<Relay>),
}

/// An endpoint's body.
struct Relay {
    body: Incoming,
    lease: Option<Lease>,
    patience: Patience,
    silence: Duration,
    complete: bool,
}

impl Answer {
    pub fn page(text: Bytes) -> Answer {
        Answer { from: From::Page(Some(text)), entry: None, active: None, unread: None }
    }

    /// What an endpoint answers. Its connection serves others once the body is through; it may be
    /// silent for `silence`.
    pub fn relay(body: Incoming, lease: Option<Lease>, silence: Duration) -> Answer {
        let relay = Relay { body, lease, patience: Patience::default(), silence, complete: false };
        Answer { from: From::Endpoint(Box::new(relay)), entry: None, active: None, unread: None }
    }

    /// Answer a request of HTTP/2 whose body was not read to its end. Given up before the answer is
    /// sent, its stream would be cancelled; given up right behind it, clients such as curl would still
    /// throw the answer away. So what comes is taken for a while, as HTTP/1 does at a connection's end.
    pub fn before_the_end_of(mut self, unread: Option<Rc<Feed>>) -> Answer {
        self.unread = unread;
        self
    }

    /// Log the request when this was sent or given up, and count it until then.
    pub fn logged(mut self, entry: Box<Entry>, active: Active) -> Answer {
        (self.entry, self.active) = (Some(entry), Some(active));
        self
    }
}

impl Relay {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.patience.renew();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                self.complete = true;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(e))) => Poll::Ready(Some(Err(self.broken("broke off", e.into())))),
            Poll::Pending if self.patience.ended(cx, self.silence) => {
                let why = format!("it was silent for {:?}", self.silence);
                Poll::Ready(Some(Err(self.broken("was cut off in", why.into()))))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// The client sees it by its connection's end, and a reader of the log here.
    fn broken(&mut self, what: &str, why: BoxError) -> BoxError {
        if let Some(lease) = self.lease.take() {
            log(format_args!("{} {what} its answer: {why}", lease.target.address));
        }
        why
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // hyper stops asking when a body has reached its length.
        if (self.complete || self.body.is_end_stream())
            && let Some(lease) = self.lease.take()
        {
            lease.give_back();
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(unread) = self.unread.take() {
            tokio::task::spawn_local(async move { unread.throw_away().await });
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        // Who asks for more has taken what there was.
        self.active.iter_mut().for_each(|active| active.give(false));
        let frame = match &mut self.from {
            From::Page(text) => text.take().map(|text| Ok(Frame::data(text))),
            From::Endpoint(relay) => ready!(relay.poll(cx)),
        };
        self.active.iter_mut().for_each(|active| active.give(frame.is_some()));
        if let (Some(Ok(frame)), Some(entry)) = (&frame, &mut self.entry) {
            entry.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.from {
            From::Page(text) => text.is_none(),
            From::Endpoint(relay) => relay.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.from {
            From::Page(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            From::Endpoint(relay) => relay.body.size_hint(),
        }
    }
}
