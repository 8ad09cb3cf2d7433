//! A client's connection, from its first byte to its last: TLS or none, HTTP/1 or HTTP/2, request after
//! request.

use std::cell::Cell;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HeaderValue, REFERER, USER_AGENT};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};

use super::body::{Answer, Feed};
use super::decide;
use super::forward::Passing;
use super::intake::{Intake, Limits, Shared, Speaks};
use super::log::Entry;
use super::pages::Page;
use super::pool::{BUFFER, Local};
use super::site::Site;
use super::told::Telling;
use crate::plan::ingress::Choice;

/// Streams that a connection may have at once; nginx' own number.
const STREAMS: u32 = 128;
/// How long a client may take nothing of an answer; nginx' `send_timeout`, which ingress-nginx leaves alone.
const WRITE: Duration = Duration::from_secs(60);
/// The first byte of a TLS record that a client begins with.
const HANDSHAKE: u8 = 0x16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub fn name(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

/// A client.
pub struct Peer {
    pub remote: IpAddr,
    /// Its end of the connection.
    pub client: SocketAddr,
    /// The controller's own, which it came to.
    pub port: u16,
    pub scheme: Scheme,
    pub shared: Arc<Shared>,
    /// Whether it speaks plain HTTP where TLS is spoken.
    astray: Cell<bool>,
    served: Cell<u32>,
    active: Cell<u32>,
    quiet_since: Cell<Instant>,
    /// Answers of which the client has a piece to take, and since when it has taken nothing.
    untaken: Cell<u32>,
    taken: Cell<Instant>,
    _room: OwnedSemaphorePermit,
}

impl Peer {
    pub fn new((remote, port): (SocketAddr, u16), scheme: Scheme, room: OwnedSemaphorePermit) -> Peer {
        Peer {
            remote: remote.ip().to_canonical(),
            client: SocketAddr::new(remote.ip().to_canonical(), remote.port()),
            port,
            scheme,
            shared: Arc::default(),
            astray: Cell::new(false),
            served: Cell::new(0),
            active: Cell::new(0),
            quiet_since: Cell::new(Instant::now()),
            untaken: Cell::new(0),
            taken: Cell::new(Instant::now()),
            _room: room,
        }
    }
}

/// Serve a connection to its end.
pub async fn attend(site: Rc<Site>, stream: TcpStream, peer: Peer) {
    // Small answers are written whole; waiting for more would only delay them.
    let _ = stream.set_nodelay(true);
    let peer = Rc::new(peer);
    if peer.scheme == Scheme::Http {
        return converse(site, stream, peer).await;
    }
    let limit = site.state().settings().header_timeout;
    let mut first = [0];
    let Ok(Ok(1)) = timeout(limit, stream.peek(&mut first)).await else { return };
    if first[0] != HANDSHAKE {
        peer.astray.set(true);
        return converse(site, stream, peer).await;
    }
    let handshake = site.state().tls.accept(stream);
    // A client that wants no such TLS has said so itself.
    if let Ok(Ok(stream)) = timeout(limit, Box::pin(handshake)).await {
        // Boxed, as it is large and handed on a few times.
        Box::pin(converse(site, Box::new(stream), peer)).await;
    }
}

async fn converse<S>(site: Rc<Site>, stream: S, peer: Rc<Peer>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = {
        let state = site.state();
        let settings = state.settings();
        Limits { idle: settings.keep_alive, head: settings.header_timeout, write: WRITE }
    };
    let mut intake = Intake::new(stream, Arc::clone(&peer.shared), limits);
    // Boxed, so that a connection that says nothing costs nothing of what these need.
    match intake.speaks().await {
        Speaks::Http1 => {
            let mut talking = Box::pin(http1(Rc::clone(&site), intake, Rc::clone(&peer))).await;
            while let Some(mut quiet) = talking.take() {
                if !quiet.again().await {
                    let _ = quiet.shutdown().await;
                    return;
                }
                talking = Box::pin(http1(Rc::clone(&site), quiet, Rc::clone(&peer))).await;
            }
        }
        Speaks::Http2 => Box::pin(http2(site, intake, peer, limits.idle)).await,
        Speaks::Nothing => {}
    }
}

/// Serve HTTP/1 to the end, or until it has been quiet for a while: then the connection is returned.
async fn http1<S>(site: Rc<Site>, intake: Intake<S>, peer: Rc<Peer>) -> Option<Intake<S>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let (site, peer) = (Rc::clone(&site), Rc::clone(&peer));
        async move { Ok::<_, Infallible>(serve(&site, &peer, request).await) }
    });
    let mut builder = http1::Builder::new();
    // A client may say that it sends no more and still wait for the answer.
    builder.half_close(true).max_buf_size(BUFFER);
    // Whatever a client does wrong ends its own connection.
    let mut connection = builder.serve_connection(TokioIo::new(intake), service).with_upgrades();
    let _ = (&mut connection).await;
    // After an upgrade there is none left.
    let intake = connection.into_parts()?.io.into_inner();
    intake.parked().then_some(intake)
}

async fn http2<S>(site: Rc<Site>, intake: Intake<S>, peer: Rc<Peer>, idle: Duration)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let of_service = Rc::clone(&peer);
    let service = service_fn(move |request| {
        let (site, peer) = (Rc::clone(&site), Rc::clone(&of_service));
        async move { Ok::<_, Infallible>(serve(&site, &peer, request).await) }
    });
    let mut builder = http2::Builder::new(Local);
    builder.timer(TokioTimer::new()).max_concurrent_streams(STREAMS);
    builder.max_header_list_size(u32::try_from(super::intake::head::MAX_HEAD).unwrap_or(u32::MAX));
    // A client gets the time to say something, also where none is kept waiting.
    let idle = idle.max(Duration::from_secs(1));
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(intake), service));
    loop {
        let quiet = peer.quiet_since.get().elapsed();
        if peer.active.get() == 0 && quiet >= idle {
            connection.as_mut().graceful_shutdown();
            let _ = timeout(idle, connection).await;
            return;
        }
        // A client that gives no window takes nothing, however well its connection is.
        let untaken = peer.taken.get().elapsed();
        if peer.untaken.get() > 0 && untaken >= WRITE {
            return;
        }
        let wait =
            if peer.active.get() > 0 { idle.min(WRITE.saturating_sub(untaken)) } else { idle.saturating_sub(quiet) };
        let wait = wait.max(Duration::from_millis(100));
        tokio::select! {
            _ = connection.as_mut() => return,
            () = sleep(wait) => {}
        }
    }
}

/// Answer one request.
async fn serve(site: &Rc<Site>, peer: &Rc<Peer>, request: Request<Incoming>) -> Response<Answer> {
    let active = Active::of(peer);
    let version = request.version();
    let id = HeaderValue::try_from(site.request_id()).unwrap_or(HeaderValue::from_static("-"));
    let mut entry = Box::new(begin(site, peer, &request, id));
    let mut response = answer(site, peer, request, &mut entry).await;
    peer.served.set(peer.served.get().saturating_add(1));
    if version != Version::HTTP_2 && peer.served.get() >= site.state().settings().keep_alive_requests {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if version == Version::HTTP_2 {
        response.headers_mut().remove(CONNECTION);
    }
    entry.status = response.status().as_u16();
    response.map(|body| body.logged(entry, active))
}

async fn answer(site: &Rc<Site>, peer: &Rc<Peer>, request: Request<Incoming>, entry: &mut Entry) -> Response<Answer> {
    if let Some(fault) = peer.shared.fault() {
        // What stands in for it is not what the client sent.
        entry.line = None;
        let status = StatusCode::from_u16(fault.status).unwrap_or(StatusCode::BAD_REQUEST);
        return Page::new(status, fault.why).closing().response();
    }
    if peer.astray.get() {
        return Page::new(StatusCode::BAD_REQUEST, "plain HTTP came to the port for HTTPS").closing().response();
    }
    let state = site.state();
    let telling = Telling::begin(site);
    let mut rule = None;
    let taken = |choice: &Choice<'_>| rule = telling.is_wanted().then(|| choice.words()).flatten();
    let decided = decide::decide(&state.router, peer, (&request, &entry.id), taken);
    telling.took(peer, &request, rule);
    let (mut response, secured) = match decided {
        Err(page) => {
            telling.answered(page.status, Some(page.why.clone()));
            let unread = request.version() == Version::HTTP_2 && !request.body().is_end_stream();
            let unread = unread.then(|| Rc::new(Feed::new(request.into_body(), 0, Duration::ZERO)));
            (page.response().map(|answer| answer.before_the_end_of(unread)), page.secured)
        }
        Ok(way) => {
            entry.backend.clone_from(way.name);
            entry.id = way.facts.id.clone();
            (Passing::new((site, &telling), peer, &way, request).run(entry).await, way.secured)
        }
    };
    state.secure(peer.scheme, secured, response.headers_mut());
    response
}

fn begin(site: &Rc<Site>, peer: &Peer, request: &Request<Incoming>, id: HeaderValue) -> Entry {
    Entry {
        log: Rc::clone(&site.log),
        begun: Instant::now(),
        remote: peer.remote,
        line: Some((request.method().clone(), request.uri().clone(), request.version())),
        referer: request.headers().get(REFERER).cloned(),
        agent: request.headers().get(USER_AGENT).cloned(),
        length: peer.shared.length(),
        backend: String::new(),
        tries: Vec::new(),
        id,
        status: 0,
        sent: 0,
    }
}

/// Counts a request while it is answered, to the end of the body.
pub struct Active {
    peer: Rc<Peer>,
    /// Whether the client has a piece of the answer to take.
    given: bool,
}

impl Active {
    fn of(peer: &Rc<Peer>) -> Active {
        peer.active.set(peer.active.get() + 1);
        Active { peer: Rc::clone(peer), given: false }
    }

    /// Note whether there is a piece of the answer that the client has not taken.
    pub fn give(&mut self, given: bool) {
        if self.given || (given && self.peer.untaken.get() == 0) {
            self.peer.taken.set(Instant::now());
        }
        let others = self.peer.untaken.get() - u32::from(self.given);
        self.peer.untaken.set(others + u32::from(given));
        self.given = given;
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.give(false);
        self.peer.active.set(self.peer.active.get().saturating_sub(1));
        self.peer.quiet_since.set(Instant::now());
    }
}
