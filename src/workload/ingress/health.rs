//! The page that tells whether the controller serves, where ingress-nginx has it.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

const MAX_CONNECTIONS: usize = 64;
/// How long a connection may take in all.
const SLOW: Duration = Duration::from_secs(30);
const HEAD: Duration = Duration::from_secs(5);
/// After a connection that could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// Listen, and return what answers for as long as it is awaited.
pub async fn serve(at: SocketAddr, healthy: watch::Receiver<bool>) -> io::Result<impl Future<Output = io::Result<()>>> {
    let listener = TcpListener::bind(at).await?;
    let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    Ok(async move {
        loop {
            // Who finds no room waits in the kernel's queue.
            let room = Arc::clone(&free).acquire_owned().await.map_err(io::Error::other)?;
            let Ok((stream, _)) = listener.accept().await else {
                // A client's own trouble, or too many open files, of which no event tells the end. Neither is a
                // reason to stop serving.
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let healthy = healthy.clone();
            tokio::task::spawn_local(async move {
                connection(stream, &healthy).await;
                drop(room);
            });
        }
    })
}

async fn connection(stream: TcpStream, healthy: &watch::Receiver<bool>) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = respond(request.uri().path(), *healthy.borrow());
        async move { Ok::<_, Infallible>(response) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(16 << 10);
    // Whatever a client does wrong ends its own connection.
    let _ = tokio::time::timeout(SLOW, builder.serve_connection(TokioIo::new(stream), service)).await;
}

fn respond(path: &str, healthy: bool) -> Response<Full<Bytes>> {
    let (code, text) = match (path, healthy) {
        ("/healthz", true) => (StatusCode::OK, "ok"),
        ("/healthz", false) => (StatusCode::SERVICE_UNAVAILABLE, "nothing is served yet"),
        _ => (StatusCode::NOT_FOUND, "404 page not found"),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = code;
    response
}
