//! The small pages that tell how the server is, as CoreDNS' plugins health, ready and prometheus
//! have them.

use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use super::server::State;
use super::tcp;

const MAX_CONNECTIONS: usize = 64;
/// How long a connection may take in all.
const SLOW: Duration = Duration::from_secs(30);
const HEAD: Duration = Duration::from_secs(5);

/// What a port is for. Any other path there is not found.
#[derive(Debug, Clone, Copy)]
pub enum Page {
    Health,
    Ready,
    Metrics,
}

pub async fn serve(listener: TcpListener, page: Page, state: Rc<State>) {
    tcp::accept(listener, MAX_CONNECTIONS, state, move |stream, state| connection(stream, page, state)).await;
}

async fn connection(stream: TcpStream, page: Page, state: Rc<State>) {
    let service = service_fn(|request| {
        let response = respond(&request, page, &state);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(16 << 10);
    // Whatever a client does wrong ends its own connection.
    let _ = tokio::time::timeout(SLOW, builder.serve_connection(TokioIo::new(stream), service)).await;
}

fn respond(request: &Request<Incoming>, page: Page, state: &State) -> Response<Full<Bytes>> {
    let (code, text) = match (page, request.uri().path()) {
        (Page::Health, "/health") => (StatusCode::OK, "OK".to_owned()),
        (Page::Ready, "/ready") if state.records.read().is_synced() => (StatusCode::OK, "OK".to_owned()),
        // CoreDNS names the plugins that are not ready.
        (Page::Ready, "/ready") => (StatusCode::SERVICE_UNAVAILABLE, "kubernetes".to_owned()),
        (Page::Metrics, "/metrics") => (StatusCode::OK, state.counters.text()),
        _ => (StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = code;
    response
}
