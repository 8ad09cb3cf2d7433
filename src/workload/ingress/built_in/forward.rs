//! A request to an endpoint and its answer back, with the endpoints that are asked instead when one fails.
//!
//! Who may be asked again is nginx' `proxy_next_upstream error timeout`: nothing went to the client yet,
//! and either the request did not reach the endpoint or doing it twice does no harm.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::client::conn::TrySendError;
use hyper::header::{CONNECTION, EXPECT, HOST, HeaderValue, SET_COOKIE, UPGRADE};
use hyper::http::request::Parts;
use hyper::http::response;
use hyper::http::uri::Uri;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Version};
use tokio::time::{Instant, timeout, timeout_at};

use super::super::log;
use super::balance;
use super::body::{Answer, Feed, Upload, UploadFault, Waits};
use super::connection::{Peer, Scheme};
use super::decide::{self, Way};
use super::headers;
use super::log::{Entry, Try};
use super::pages::Page;
use super::patience::{after, later};
use super::pool::{Lease, Sender, Target};
use super::site::Site;
use super::told::Telling;
use super::tunnel;
use crate::plan::ingress::{Affinity, Options};

/// A request under way.
pub struct Passing<'a> {
    site: &'a Rc<Site>,
    telling: &'a Telling,
    peer: &'a Rc<Peer>,
    way: &'a Way<'a>,
    /// As endpoints get it, but for its target.
    head: Parts,
    feed: Option<Rc<Feed>>,
    upgrade: Option<OnUpgrade>,
}

/// Why an endpoint did not answer.
#[derive(Debug)]
struct Failure {
    status: StatusCode,
    why: String,
    /// Whether it may have begun to do what was asked.
    sent: bool,
    /// Whether another one may do better.
    next: bool,
}

impl Failure {
    fn unsent(status: StatusCode, why: String) -> Failure {
        Failure { status, why, sent: false, next: true }
    }
}

impl<'a> Passing<'a> {
    pub fn new(
        (site, telling): (&'a Rc<Site>, &'a Telling),
        peer: &'a Rc<Peer>,
        way: &'a Way<'a>,
        request: Request<Incoming>,
    ) -> Self {
        let mut request = request;
        let wish = headers::upgrade(request.headers()).filter(|_| request.version() == Version::HTTP_11);
        let upgrade = wish.is_some().then(|| hyper::upgrade::on(&mut request));
        let (mut head, body) = request.into_parts();
        headers::strip(&mut head.headers);
        headers::tell(&mut head.headers, &way.facts);
        // It is answered here, when the body is wanted.
        head.headers.remove(EXPECT);
        if let Some(wish) = wish {
            head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            head.headers.insert(UPGRADE, wish);
        }
        let slow = site.state().settings().body_timeout;
        let feed = (!body.is_end_stream()).then(|| Rc::new(Feed::new(body, way.options.body_size, slow)));
        Passing { site, telling, peer, way, head, feed, upgrade }
    }

    /// Ask endpoints until one answers or none may be asked.
    pub async fn run(mut self, entry: &mut Entry) -> Response<Answer> {
        let mut tried: Vec<SocketAddr> = Vec::new();
        let mut failed: Option<Failure> = None;
        while let Some((address, sticky)) = self.pick(&tried) {
            tried.push(address);
            let begun = std::time::Instant::now();
            let outcome = self.ask(address).await;
            let status = outcome.as_ref().map_or_else(|failure| failure.status, |(answer, _)| answer.status());
            entry.tries.push(Try { address, begun, took: Some(begun.elapsed()), status: status.as_u16() });
            match outcome {
                Ok((answer, lease)) => {
                    self.telling.answered(answer.status(), None);
                    return self.answer(answer, lease, (address, sticky));
                }
                Err(failure) => {
                    log(format_args!("{}: {}", self.way.name, failure.why));
                    let again = self.may_go_on(&failure, tried.len());
                    failed = Some(failure);
                    if !again {
                        break;
                    }
                }
            }
        }
        self.give_up(failed)
    }

    /// Who is asked next, and whether it is the one that the client's cookie names.
    fn pick(&self, tried: &[SocketAddr]) -> Option<(SocketAddr, bool)> {
        // Of those that there are now: in the meantime some may have come and gone.
        let state = self.site.state();
        let balancer = state.balancers.get(self.way.name)?;
        let named = self.way.sticky.as_deref().filter(|_| tried.is_empty()).and_then(|name| balancer.named(name));
        named.map(|address| (address, true)).or_else(|| Some((balancer.next(tried)?, false)))
    }

    fn may_go_on(&self, failure: &Failure, tries: usize) -> bool {
        let state = self.site.state();
        let limit = match state.settings().tries {
            0 => state.balancers.get(self.way.name).map_or(0, |balancer| balancer.len()),
            limit => limit as usize,
        };
        tries < limit && failure.next && self.repeatable(failure)
    }

    fn repeatable(&self, failure: &Failure) -> bool {
        let harmless = !matches!(self.head.method, Method::POST | Method::PATCH) && self.head.method.as_str() != "LOCK";
        let whole = self.feed.as_ref().is_none_or(|feed| feed.whole() && feed.fault().is_none());
        (!failure.sent || harmless) && whole && self.upgrade_left()
    }

    /// Whether the client's own half of an upgrade is still there, where one is wanted.
    fn upgrade_left(&self) -> bool {
        self.upgrade.is_some() || !self.head.headers.contains_key(UPGRADE)
    }

    fn give_up(&self, failed: Option<Failure>) -> Response<Answer> {
        let fault = self.feed.as_ref().and_then(|feed| feed.fault());
        let page = match (fault, failed) {
            (Some(UploadFault::TooLarge), _) => decide::too_large(self.way.options.body_size),
            (Some(UploadFault::Slow), _) => {
                Page::new(StatusCode::REQUEST_TIMEOUT, "the request's body did not come in time").closing()
            }
            (Some(UploadFault::Broken), _) => {
                Page::new(StatusCode::BAD_REQUEST, "the request's body is malformed or was broken off").closing()
            }
            (None, Some(failure)) => Page::new(failure.status, failure.why),
            (None, None) => {
                let known = self.site.state().balancers.contains_key(self.way.name);
                let why = match known {
                    true => format!("no endpoint of {} is ready", self.service()),
                    false => format!(
                        "there is no service {} with a port {}",
                        self.way.backend.service, self.way.backend.port
                    ),
                };
                Page::new(StatusCode::SERVICE_UNAVAILABLE, why)
            }
        };
        self.telling.answered(page.status, Some(page.why.clone()));
        let unread = self.feed.clone().filter(|_| self.head.version == Version::HTTP_2);
        page.response().map(|answer| answer.before_the_end_of(unread))
    }

    fn service(&self) -> String {
        format!("{} port {}", self.way.backend.service, self.way.backend.port)
    }

    /// Ask one endpoint.
    async fn ask(&self, address: SocketAddr) -> Result<(Response<Incoming>, Lease), Failure> {
        let target = Target::new(address, self.way.backend.protocol);
        if let Some(lease) = self.site.pool.idle(target).await {
            match self.send(lease).await {
                // It may have closed the connection just when the request came: nobody's fault.
                Err(failure)
                    if failure.next && failure.status == StatusCode::BAD_GATEWAY && self.repeatable(&failure) => {}
                outcome => return outcome,
            }
        }
        let limit = self.way.options.connect_timeout;
        self.telling.passed(None, address);
        match timeout(limit, self.site.pool.connect(target)).await {
            Ok(Ok(lease)) => self.send(lease).await,
            Ok(Err(e)) => {
                let what = if e.kind() == io::ErrorKind::ConnectionRefused {
                    "refused the connection"
                } else {
                    "cannot be reached"
                };
                Err(Failure::unsent(StatusCode::BAD_GATEWAY, format!("{} {what} ({e})", self.endpoint(address))))
            }
            Err(_) => {
                let why = format!("{} did not take the connection within {limit:?}", self.endpoint(address));
                Err(Failure::unsent(StatusCode::GATEWAY_TIMEOUT, why))
            }
        }
    }

    fn endpoint(&self, address: SocketAddr) -> String {
        format!("{address}, an endpoint of {},", self.service())
    }

    async fn send(&self, mut lease: Lease) -> Result<(Response<Incoming>, Lease), Failure> {
        let address = lease.target.address;
        let Some(request) = self.request(lease.target) else {
            return Err(Failure {
                next: false,
                ..Failure::unsent(StatusCode::BAD_GATEWAY, "the body is gone".to_owned())
            });
        };
        self.telling.passed(lease.local, address);
        lease.feed = self.feed.clone();
        let outcome = match &mut lease.sender {
            Sender::One(sender) => self.within(sender.try_send_request(request)).await,
            Sender::Many(sender) => self.within(sender.try_send_request(request)).await,
        };
        match outcome {
            Ok(Ok(answer)) => Ok((answer, lease)),
            Ok(Err(e)) => Err(self.broken(address, e)),
            Err(limit) => {
                let why = format!("{} was silent for {limit:?}", self.endpoint(address));
                Err(Failure { status: StatusCode::GATEWAY_TIMEOUT, why, sent: true, next: true })
            }
        }
    }

    fn broken(&self, address: SocketAddr, mut error: TrySendError<Request<Upload>>) -> Failure {
        let sent = error.take_message().is_none();
        let error = error.into_error();
        // Who speaks before it is asked ends the connection, and the request is cancelled for that reason.
        let reason = error.source().and_then(|source| source.downcast_ref::<hyper::Error>()).unwrap_or(&error);
        // An answer that is none would not be better from another one (nginx' `invalid_header`).
        let next = !is_no_http(reason);
        let what = if next { "closed the connection before it answered" } else { "answered what is no HTTP" };
        let why = format!("{} {what} ({reason})", self.endpoint(address));
        Failure { status: StatusCode::BAD_GATEWAY, why, sent, next }
    }

    /// The request as `target` gets it.
    fn request(&self, target: Target) -> Option<Request<Upload>> {
        let upload = match &self.feed {
            None => Upload::none(),
            Some(feed) => feed.upload()?,
        };
        let mut request = Request::new(upload);
        *request.method_mut() = self.head.method.clone();
        *request.headers_mut() = self.head.headers.clone();
        *request.uri_mut() = Uri::from(self.way.target.clone());
        if target.http2 {
            let scheme = if target.tls { "https" } else { "http" };
            let authority = decide::authority_of(&self.way.facts, target.address)?;
            let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(self.way.target.clone());
            *request.uri_mut() = uri.build().ok()?;
            *request.version_mut() = Version::HTTP_2;
            for name in [HOST, CONNECTION, UPGRADE] {
                request.headers_mut().remove(name);
            }
        }
        Some(request)
    }

    /// Wait for an answer's head, as long as the endpoint is not silent for too long.
    ///
    /// # Errors
    /// The limit that it exceeded.
    async fn within<T>(&self, answer: impl Future<Output = T>) -> Result<T, Duration> {
        let mut answer = std::pin::pin!(answer);
        let asked = Instant::now();
        loop {
            let until = self.deadline(asked);
            // While the client is waited for, there is no hurry to look again.
            let (look, _) = until.unwrap_or_else(|| (after(self.way.options.read_timeout), Duration::ZERO));
            if let Ok(answer) = timeout_at(look, answer.as_mut()).await {
                return Ok(answer);
            }
            if let Some((until, limit)) = self.deadline(asked)
                && until <= Instant::now()
            {
                return Err(limit);
            }
        }
    }

    /// Until when the endpoint has to do something, and the limit that says so.
    fn deadline(&self, asked: Instant) -> Option<(Instant, Duration)> {
        let Options { read_timeout, send_timeout, .. } = *self.way.options;
        match self.feed.as_ref().map_or(Waits::Done(asked), |feed| feed.waits()) {
            Waits::Client => None,
            Waits::Endpoint(since) => Some((later(since, send_timeout), send_timeout)),
            Waits::Done(since) => Some((later(since, read_timeout), read_timeout)),
        }
    }

    /// What the client gets of an endpoint's answer.
    fn answer(
        &mut self,
        answer: Response<Incoming>,
        lease: Lease,
        (from, sticky): (SocketAddr, bool),
    ) -> Response<Answer> {
        let cookie = self.cookie(from, sticky);
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return self.switch(answer);
        }
        let (mut head, body) = answer.into_parts();
        headers::strip(&mut head.headers);
        head.version = Version::HTTP_11;
        head.headers.extend(cookie.map(|cookie| (SET_COOKIE, cookie)));
        Response::from_parts(head, Answer::relay(body, Some(lease), self.way.options.read_timeout))
    }

    /// Let client and endpoint speak what they agreed on.
    fn switch(&mut self, mut answer: Response<Incoming>) -> Response<Answer> {
        let Some(client) = self.upgrade.take() else {
            return Page::new(StatusCode::BAD_GATEWAY, "the endpoint changes to a protocol that nobody asked for")
                .response();
        };
        let endpoint = hyper::upgrade::on(&mut answer);
        let (response::Parts { headers: mut fields, .. }, _) = answer.into_parts();
        let protocol = fields.get(UPGRADE).cloned();
        headers::strip(&mut fields);
        let mut switched = Response::new(Answer::page(hyper::body::Bytes::new()));
        *switched.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *switched.headers_mut() = fields;
        switched.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        switched.headers_mut().extend(protocol.map(|protocol| (UPGRADE, protocol)));
        self.peer.shared.set_raw();
        let (peer, silence) = (Rc::clone(self.peer), self.way.options.read_timeout);
        tokio::task::spawn_local(async move {
            tunnel::run(client, endpoint, silence).await;
            // Until now it counts as a connection.
            drop(peer);
        });
        switched
    }

    /// The cookie that keeps the client at `from`, where it has none that does.
    fn cookie(&self, from: SocketAddr, sticky: bool) -> Option<HeaderValue> {
        let affinity = self.way.backend.affinity.as_ref()?;
        let state = self.site.state();
        let balancer = state.balancers.get(self.way.name);
        let named = self.way.sticky.as_deref().and_then(|name| balancer?.named(name));
        match named {
            Some(_) if sticky || !affinity.change_on_failure => None,
            _ => HeaderValue::try_from(written(affinity, from, self.peer.scheme)).ok(),
        }
    }
}

/// Whether something came, and it was no answer: it cannot be read, or came before the request.
fn is_no_http(error: &hyper::Error) -> bool {
    let ended = error.is_canceled() || error.is_closed() || error.is_incomplete_message();
    // What the system or the body says against it is a source.
    error.is_parse() || !ended && error.source().is_none()
}

fn written(affinity: &Affinity, endpoint: SocketAddr, scheme: Scheme) -> String {
    let mut cookie = format!("{}={}; Path={}", affinity.cookie, balance::name(endpoint), affinity.path);
    if let Some(seconds) = affinity.max_age {
        cookie.push_str(&format!("; Max-Age={seconds}"));
    }
    if affinity.secure || scheme == Scheme::Https {
        cookie.push_str("; Secure");
    }
    cookie.push_str("; HttpOnly");
    if let Some(site) = &affinity.same_site {
        cookie.push_str(&format!("; SameSite={site}"));
    }
    cookie
}
