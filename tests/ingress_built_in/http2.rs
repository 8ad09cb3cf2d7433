//! HTTP/2 on either side, with and without TLS, and what gRPC needs of it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use labctl::plan::ingress::{Backend, BackendProtocol, Options, Routing};
use labctl::probe::tls;
use rustls::pki_types::ServerName;
use tokio::net::{TcpListener, TcpStream};

use crate::endpoint::Pod;
use crate::process::{BACKEND, Controller, all_to, backend, ends, status};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

type Sender = http2::SendRequest<Full<Bytes>>;

async fn open(to: SocketAddr, with_tls: bool) -> Sender {
    let stream = TcpStream::connect(to).await.unwrap();
    if !with_tls {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        return sender;
    }
    let mut config = tls::config(None).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from("a.example").unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn ask(sender: &mut Sender, path: &str, body: &str) -> (hyper::http::response::Parts, String, Option<HeaderMap>) {
    let uri = format!("https://a.example{path}");
    let request = Request::post(uri).header("te", "trailers").header("cookie", "a=1").header("cookie", "b=2");
    let answer = sender.send_request(request.body(Full::from(body.to_owned())).unwrap()).await.unwrap();
    let (head, body) = answer.into_parts();
    let whole = body.collect().await.unwrap();
    let trailers = whole.trailers().cloned();
    (head, String::from_utf8(whole.to_bytes().to_vec()).unwrap(), trailers)
}

#[test]
fn many_requests_share_a_connection_with_and_without_tls() {
    let pod = Pod::named("a");
    let controller = Controller::of(&[pod.address]);
    runtime().block_on(async {
        for (to, with_tls) in [(controller.http, false), (controller.https, true)] {
            let sender = open(to, with_tls).await;
            let tasks: Vec<_> = (0..50)
                .map(|number| {
                    let mut sender = sender.clone();
                    tokio::spawn(async move { ask(&mut sender, &format!("/{number}"), "hello").await })
                })
                .collect();
            for (number, task) in tasks.into_iter().enumerate() {
                let (head, body, _) = task.await.unwrap();
                assert_eq!(head.status, 200);
                assert!(body.contains(&format!("POST /{number} HTTP/1.1\r\n")) && body.ends_with("hello"), "{body}");
                assert!(body.contains("host: a.example\r\n") && body.contains("cookie: a=1; b=2\r\n"), "{body}");
            }
        }
    });
}

/// An HTTP/2 server in the clear that says what it was asked, with trailers as gRPC has them.
fn grpc() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        runtime().block_on(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let service = service_fn(say_what_was_asked);
                tokio::spawn(
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
    });
    address
}

async fn say_what_was_asked(
    request: Request<Incoming>,
) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
    let uri = request.uri().clone();
    let te = request.headers().get("te").cloned();
    let body = request.into_body().collect().await.map(|whole| whole.to_bytes()).unwrap_or_default();
    let text = format!("{uri} te={te:?} {}", String::from_utf8_lossy(&body));
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
    Ok(Response::new(Full::from(text).with_trailers(async move { Some(Ok(trailers)) })))
}

#[test]
fn trailers_pass_and_endpoints_of_grpc_share_a_connection() {
    let behind = Backend { protocol: BackendProtocol::Grpc, ..backend("web") };
    let routing = Routing { backends: [(BACKEND.to_owned(), behind)].into(), ..all_to(Options::default()) };
    let controller = Controller::start(&routing, &ends(&[grpc()]));
    runtime().block_on(async {
        let mut sender = open(controller.https, true).await;
        for _ in 0..3 {
            let (head, body, trailers) = ask(&mut sender, "/pkg.Service/Method", "hello").await;
            assert_eq!(head.status, 200);
            assert_eq!(body, "http://a.example/pkg.Service/Method te=Some(\"trailers\") hello");
            assert_eq!(trailers.unwrap()["grpc-status"], "0");
        }
    });
    // From a client of HTTP/1 as well.
    let answer = controller.get("/plain");
    assert!(status(&answer) == 200 && answer.contains("http://any.example/plain te=None"), "{answer}");
}

#[test]
fn a_body_beyond_the_limit_and_a_bad_path_are_refused_in_http2_too() {
    let pod = Pod::named("a");
    let controller = Controller::with(Options { body_size: 10, ..Options::default() }, &[pod.address]);
    runtime().block_on(async {
        let mut sender = open(controller.http, false).await;
        assert_eq!(ask(&mut sender, "/", "much more than ten bytes").await.0.status, 413);
        assert_eq!(ask(&mut sender, "/..", "").await.0.status, 400);
        assert_eq!(ask(&mut sender, "/", "ten bytes!").await.0.status, 200);
    });
}
