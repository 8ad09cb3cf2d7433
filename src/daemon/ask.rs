//! What a readiness probe sends: HTTP and gRPC requests as kubelet makes them
//! (`pkg/probe/http`, `pkg/probe/grpc`). When and from where is [`super::readiness`]'s.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use crate::lab::HttpCheck;
use crate::probe::tls;

/// As kubelet calls itself.
const AGENT: &str = "kube-probe/1.36";
/// `grpc.health.v1.HealthCheckResponse.ServingStatus`.
const STATUS: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
const SERVING: u8 = 1;
/// A gRPC message begins with whether it is compressed and with its length in four bytes.
const GRPC_HEAD: usize = 5;

/// A connection whose reads and writes take no longer than `limit`. To be called in the namespace
/// that it is to begin in.
pub fn connect(at: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&at, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    Ok(stream)
}

/// A GET; a status from 200 to 399 is success. `at` is the pod's address, which the check may replace.
pub fn http_get(at: SocketAddr, check: &HttpCheck, limit: Duration) -> Result<(), String> {
    let at = SocketAddr::new(check.host.unwrap_or(at.ip()), at.port());
    let what = format!("GET {}://{at}{}", if check.https { "https" } else { "http" }, check.path);
    let ask = || -> io::Result<String> {
        let stream = connect(at, limit)?;
        if check.https { exchange(encrypted(stream, at)?, at, check) } else { exchange(stream, at, check) }
    };
    let answer = ask().map_err(|e| format!("{what}: {e}"))?;
    let status = answer.split_whitespace().nth(1).and_then(|s| s.parse::<u16>().ok());
    match status {
        Some(200..=399) => Ok(()),
        Some(other) => Err(format!("{what}: status {other}")),
        None => Err(format!("{what}: not an HTTP answer")),
    }
}

/// TLS with whomever it is: kubelet checks no certificate.
fn encrypted(stream: TcpStream, at: SocketAddr) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let config = tls::config(None).map_err(io::Error::other)?;
    let name = ServerName::IpAddress(at.ip().into());
    let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    Ok(StreamOwned::new(connection, stream))
}

/// Send the request, and read the first line of the answer.
fn exchange(mut stream: impl Read + Write, at: SocketAddr, check: &HttpCheck) -> io::Result<String> {
    stream.write_all(head(at, check).as_bytes())?;
    stream.flush()?;
    let mut start = [0u8; 64];
    let mut have = 0;
    while have < start.len() && !start[..have].contains(&b'\n') {
        match stream.read(&mut start[have..])? {
            0 => break,
            n => have += n,
        }
    }
    Ok(String::from_utf8_lossy(&start[..have]).into_owned())
}

fn head(at: SocketAddr, check: &HttpCheck) -> String {
    let at = at.to_string();
    let mut head = format!("GET {} HTTP/1.1\r\nConnection: close\r\n", check.path);
    for (name, value) in [("Host", at.as_str()), ("User-Agent", AGENT), ("Accept", "*/*")] {
        if !check.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name)) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    head.extend(check.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")));
    head + "\r\n"
}

/// Ask for the health of `service` over HTTP/2 in clear text. Only SERVING is success.
pub async fn grpc_health(stream: TcpStream, service: &str) -> Result<(), String> {
    let told = |e: &dyn std::fmt::Display| format!("gRPC health check: {e}");
    stream.set_nonblocking(true).map_err(|e| told(&e))?;
    let at = stream.peer_addr().map_err(|e| told(&e))?;
    let stream = tokio::net::TcpStream::from_std(stream).map_err(|e| told(&e))?;
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(|e| told(&e))?;
    let request = Request::post(format!("http://{at}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", AGENT)
        .body(Full::new(Bytes::from(question(service))))
        .map_err(|e| told(&e))?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(|e| told(&e))?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(|e| told(&e))?;
        let code = body.trailers().and_then(|t| t.get("grpc-status")).or(head.headers.get("grpc-status")).cloned();
        match code.as_ref().and_then(|c| c.to_str().ok()) {
            Some("0") => status(&body.to_bytes()),
            Some(code) => Err(told(&format_args!("{at} answers with gRPC status {code}"))),
            None => Err(told(&format_args!("{at} does not speak gRPC, HTTP status {}", head.status))),
        }
    };
    let driven = async {
        // The connection must be driven until the answer is there; its own end is no news.
        let _ = connection.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answer = answer => answer,
        () = driven => Err(told(&"the connection ended")),
    }
}

/// A HealthCheckRequest: its field 1 is the service.
fn question(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(length as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend((message.len() as u32).to_be_bytes());
    framed.extend(message);
    framed
}

/// A HealthCheckResponse: its field 1 is the status, which is left out where it is 0.
fn status(framed: &[u8]) -> Result<(), String> {
    let status = match framed.get(GRPC_HEAD..) {
        Some([0x08, status, ..]) => *status,
        _ => 0,
    };
    let name = STATUS.get(usize::from(status)).copied().unwrap_or("unknown");
    if status == SERVING { Ok(()) } else { Err(format!("gRPC health check: the service is {name}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_are_given_take_the_place_of_kubelets() {
        let at: SocketAddr = "10.244.1.2:80".parse().expect("an address");
        let check = HttpCheck { path: "/x".into(), port: 80, ..HttpCheck::default() };
        assert_eq!(
            head(at, &check),
            "GET /x HTTP/1.1\r\nConnection: close\r\nHost: 10.244.1.2:80\r\nUser-Agent: kube-probe/1.36\r\nAccept: */*\r\n\r\n"
        );
        let headers = vec![("host".to_owned(), "tea.example.com".to_owned()), ("X-A".to_owned(), "1".to_owned())];
        let own = head(at, &HttpCheck { headers, ..check });
        assert!(!own.contains("10.244.1.2") && own.ends_with("host: tea.example.com\r\nX-A: 1\r\n\r\n"), "{own}");
    }

    /// A server with a certificate of its own making that answers once.
    fn secret(answer: &'static str) -> SocketAddr {
        use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
        let made = rcgen::generate_simple_self_signed(["tea.test".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config =
            builder.expect("versions").with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key);
        let config = Arc::new(config.expect("a certificate with its key"));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a connection");
            let connection = rustls::ServerConnection::new(config).expect("a connection");
            let mut stream = StreamOwned::new(connection, stream);
            let mut request = [0u8; 1024];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer.as_bytes());
        });
        at
    }

    #[test]
    fn https_is_asked_whosever_the_certificate_is() {
        let limit = Duration::from_secs(10);
        let check = HttpCheck { path: "/".into(), https: true, ..HttpCheck::default() };
        assert_eq!(http_get(secret("HTTP/1.1 204 No Content\r\n\r\n"), &check, limit), Ok(()));
        let refused = http_get(secret("HTTP/1.1 503 No\r\n\r\n"), &check, limit);
        assert!(refused.as_ref().is_err_and(|e| e.ends_with("status 503")), "{refused:?}");
    }

    #[test]
    fn the_health_protocols_messages_are_as_protobuf_writes_them() {
        assert_eq!(question(""), [0, 0, 0, 0, 0]);
        assert_eq!(question("tea"), [0, 0, 0, 0, 5, 0x0a, 3, b't', b'e', b'a']);
        assert_eq!(question(&"x".repeat(200))[5..8], [0x0a, 0xc8, 1]);
        assert_eq!(status(&[0, 0, 0, 0, 2, 8, 1]), Ok(()));
        assert!(status(&[0, 0, 0, 0, 2, 8, 2]).is_err_and(|e| e.contains("NOT_SERVING")));
        assert!(status(&[0, 0, 0, 0, 0]).is_err_and(|e| e.contains("UNKNOWN")));
    }
}
