//! The echo server's HTTP: every request is answered with the identity and what was asked, as
//! JSON, and a few paths do something else, for probes and for seeing slow and large answers.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fmt, io};

use http_body_util::{BodyExt, Either};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde::Serialize;

use super::tcp::Unstalled;
use super::{Answer, Identity, Limits, grpc};

/// Bytes of a request's head, and of what is read or written at a time.
const BUFFER: usize = 16 << 10;

/// Requests at a time of one HTTP/2 connection.
const STREAMS: u32 = 16;

/// Bytes of a request's body that are sent back.
const MAX_ECHO: usize = 64 << 10;

/// Bytes of the longest body that `/bytes` makes.
const MAX_BYTES: u64 = 1 << 30;

/// Milliseconds of the longest `/delay`.
const MAX_DELAY: u64 = 60_000;

/// A part of what `/bytes` sends, shared by all.
static PART: [u8; BUFFER] = [b'x'; BUFFER];

/// Serve requests until the client goes away or is idle for too long.
pub async fn serve(stream: Unstalled, peer: SocketAddr, identity: Arc<Identity>, limits: Limits) -> io::Result<()> {
    let service = service_fn(|request| {
        let identity = identity.clone();
        async move { Ok::<_, Infallible>(respond(request, &identity.to(peer), limits.http_idle).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.http_idle)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service)
        .await
        .map_err(io::Error::other)
}

/// The same over HTTP/2 in clear text, with the gRPC health checking protocol.
pub async fn serve2(stream: Unstalled, peer: SocketAddr, identity: Arc<Identity>, limits: Limits) -> io::Result<()> {
    let service = service_fn(move |request: Request<Incoming>| {
        let identity = identity.clone();
        async move {
            let reply = match grpc::answer(&request) {
                Some(answer) => answer,
                None => respond(request, &identity.to(peer), limits.http_idle).await.map(Either::Right),
            };
            Ok::<_, Infallible>(reply)
        }
    });
    http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.http_idle)
        .max_concurrent_streams(STREAMS)
        .max_send_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service)
        .await
        .map_err(io::Error::other)
}

/// What a path asks for.
#[derive(Debug, PartialEq)]
enum Task {
    Health,
    Status(StatusCode),
    Delay(Duration),
    Bytes(u64),
    Echo,
    /// A path that begins like one of those and goes on wrongly, and what was wanted.
    Wrong(String),
}

fn task(path: &str) -> Task {
    match path.strip_prefix('/').and_then(|rest| rest.split_once('/')) {
        Some(("status", code)) => status(code).map_or_else(|| wrong("/status/", "200 to 599"), Task::Status),
        Some(("delay", ms)) => number(ms, MAX_DELAY).map_or_else(
            || wrong("/delay/", format_args!("a number of milliseconds up to {MAX_DELAY}")),
            |ms| Task::Delay(Duration::from_millis(ms)),
        ),
        Some(("bytes", n)) => {
            number(n, MAX_BYTES).map_or_else(|| wrong("/bytes/", format_args!("0 to {MAX_BYTES}")), Task::Bytes)
        }
        _ if path == "/healthz" => Task::Health,
        _ => Task::Echo,
    }
}

fn number(text: &str, max: u64) -> Option<u64> {
    text.parse().ok().filter(|n| *n <= max)
}

/// The codes below 200 announce a further answer, which never comes.
fn status(text: &str) -> Option<StatusCode> {
    number(text, 599).filter(|code| *code >= 200).and_then(|code| StatusCode::from_u16(code as u16).ok())
}

fn wrong(path: &str, wanted: impl fmt::Display) -> Task {
    Task::Wrong(format!("after {path} comes {wanted}\n"))
}

async fn respond(request: Request<Incoming>, answer: &Answer<'_>, idle: Duration) -> Response<Reply> {
    let mut response = match (request.method(), task(request.uri().path())) {
        // A tunnel is nothing that can be echoed.
        (&Method::CONNECT, _) => text(StatusCode::METHOD_NOT_ALLOWED, "an echo server is no proxy\n".into()),
        (_, Task::Health) => text(StatusCode::OK, "ok".into()),
        (_, Task::Wrong(why)) => text(StatusCode::BAD_REQUEST, why),
        (_, Task::Bytes(n)) => reply(StatusCode::OK, "application/octet-stream", Reply { whole: None, left: n }),
        (_, Task::Status(code)) => echo(code, request, answer, idle).await,
        (_, Task::Echo) => echo(StatusCode::OK, request, answer, idle).await,
        (_, Task::Delay(delay)) => {
            tokio::time::sleep(delay).await;
            echo(StatusCode::OK, request, answer, idle).await
        }
    };
    if let Ok(name) = HeaderValue::from_str(answer.name) {
        response.headers_mut().insert("x-labctl-pod", name);
    }
    response
}

/// The identity and the request.
#[derive(Serialize)]
struct Echo<'a> {
    #[serde(flatten)]
    answer: &'a Answer<'a>,
    method: &'a str,
    path: String,
    headers: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    /// Bytes of the whole body, where less than that is shown.
    #[serde(rename = "bodyBytes", skip_serializing_if = "Option::is_none")]
    body_bytes: Option<u64>,
}

async fn echo(code: StatusCode, request: Request<Incoming>, answer: &Answer<'_>, idle: Duration) -> Response<Reply> {
    let (head, incoming) = request.into_parts();
    let Some(body) = collect(incoming, idle).await else {
        return text(StatusCode::REQUEST_TIMEOUT, "the body did not come\n".into());
    };
    let echo = Echo {
        answer,
        method: head.method.as_str(),
        path: head.uri.path_and_query().map_or_else(|| head.uri.to_string(), ToString::to_string),
        headers: readable(&head.headers),
        body: (!body.begin.is_empty()).then(|| String::from_utf8_lossy(&body.begin).into_owned()),
        body_bytes: (body.length > body.begin.len() as u64).then_some(body.length),
    };
    let mut json = serde_json::to_vec_pretty(&echo).unwrap_or_default();
    json.push(b'\n');
    reply(code, "application/json", Reply::from(json))
}

/// Headers as text, those of one name joined as RFC 9110 (5.3) allows.
fn readable(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut readable: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        readable
            .entry(name.to_string())
            .and_modify(|joined| {
                joined.push_str(", ");
                joined.push_str(&value);
            })
            .or_insert_with(|| value.to_string());
    }
    readable
}

/// A body's beginning, and its whole length in bytes.
struct Begun {
    begin: Vec<u8>,
    length: u64,
}

/// Read a body to its end, keeping no more than may be sent back. `None` where it stops coming.
async fn collect(mut body: Incoming, idle: Duration) -> Option<Begun> {
    let mut begun = Begun { begin: Vec::new(), length: 0 };
    while let Some(frame) = tokio::time::timeout(idle, body.frame()).await.ok()? {
        let Ok(data) = frame.ok()?.into_data() else { continue };
        let room = MAX_ECHO - begun.begin.len();
        begun.begin.extend_from_slice(data.get(..room).unwrap_or(&data));
        begun.length += data.len() as u64;
    }
    Some(begun)
}

fn text(code: StatusCode, words: String) -> Response<Reply> {
    reply(code, "text/plain; charset=utf-8", Reply::from(words.into_bytes()))
}

fn reply(code: StatusCode, content: &'static str, body: Reply) -> Response<Reply> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content));
    response
}

/// A response's body: something whole, then a number of equal bytes that are made as they go.
pub struct Reply {
    whole: Option<Bytes>,
    left: u64,
}

impl From<Vec<u8>> for Reply {
    fn from(whole: Vec<u8>) -> Reply {
        Reply { whole: Some(whole.into()), left: 0 }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if let Some(whole) = this.whole.take() {
            return Poll::Ready(Some(Ok(Frame::data(whole))));
        }
        let now = usize::try_from(this.left).map_or(PART.len(), |left| left.min(PART.len()));
        this.left -= now as u64;
        let part = PART.get(..now).filter(|part| !part.is_empty());
        Poll::Ready(part.map(|part| Ok(Frame::data(Bytes::from_static(part)))))
    }

    fn is_end_stream(&self) -> bool {
        self.whole.is_none() && self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left + self.whole.as_ref().map_or(0, |whole| whole.len() as u64))
    }
}
