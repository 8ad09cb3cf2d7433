//! The echo server as its clients see it, over loopback.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::time::Instant;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::*;

const LIMIT: Duration = Duration::from_secs(10);

fn identity() -> Arc<Identity> {
    Arc::new(Identity {
        name: "tea-1".into(),
        kind: "pod".into(),
        namespace: Some("default".into()),
        host: Some("node1".into()),
        ip: Ipv4Addr::new(10, 244, 1, 2).into(),
    })
}

fn listen() -> (net::TcpListener, SocketAddr) {
    let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Run a client against a server with these limits.
fn with_server<F: Future<Output = ()>>(limits: Limits, client: impl FnOnce(SocketAddr, JoinHandle<()>) -> F) {
    within_runtime(async {
        let (listener, address) = listen();
        let server = serve_tcp_within(listener, identity(), limits).unwrap();
        client(address, server).await;
    });
}

fn within_runtime(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(LIMIT, work).await.expect("it took too long") });
}

async fn connect(address: SocketAddr) -> BufReader<TcpStream> {
    BufReader::new(TcpStream::connect(address).await.unwrap())
}

async fn line(stream: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    line
}

/// A response: the status line, the headers, the body.
struct Response {
    status: String,
    headers: String,
    body: Vec<u8>,
}

impl Response {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

async fn response(stream: &mut BufReader<TcpStream>) -> Response {
    let status = line(stream).await;
    let (mut headers, mut length) = (String::new(), 0);
    loop {
        let header = line(stream).await;
        match header.trim_end() {
            "" => break,
            header => {
                length = header.strip_prefix("content-length: ").map_or(length, |n| n.parse().unwrap());
                headers.push_str(&format!("{header}\n"));
            }
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    Response { status: status.trim_end().to_owned(), headers, body }
}

async fn get(stream: &mut BufReader<TcpStream>, path: &str) -> Response {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: tea\r\n\r\n").as_bytes()).await.unwrap();
    response(stream).await
}

/// Whether the other end is closed; it may have been reset, where something was left unread.
async fn closed(stream: &mut BufReader<TcpStream>) -> bool {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest).await {
        Ok(_) => true,
        Err(e) => e.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn http_says_who_answered_and_what_was_asked() {
    with_server(Limits::default(), |address, _server| async move {
        let mut stream = connect(address).await;
        let source = stream.get_ref().local_addr().unwrap().to_string();
        let request = b"POST /tea?x=1 HTTP/1.1\r\nhost: tea\r\nx-a: 1\r\nx-a: 2\r\ncontent-length: 5\r\n\r\nhello";
        stream.write_all(request).await.unwrap();
        let response = response(&mut stream).await;
        assert_eq!(response.status, "HTTP/1.1 200 OK");
        assert!(response.headers.contains("x-labctl-pod: tea-1\n"), "{}", response.headers);
        let expected = serde_json::json!({
            "name": "tea-1", "kind": "pod", "pod": "tea-1", "namespace": "default", "host": "node1",
            "ip": "10.244.1.2", "source": source, "method": "POST", "path": "/tea?x=1",
            "headers": { "host": "tea", "x-a": "1, 2", "content-length": "5" }, "body": "hello",
        });
        assert_eq!(response.json(), expected);
        let text = String::from_utf8(response.body).unwrap();
        assert!(text.starts_with("{\n  \"name\": \"tea-1\",\n  \"kind\": \"pod\",\n"), "{text}");
        assert!(text.ends_with("}\n"), "{text}");
    });
}

#[test]
fn a_host_has_no_pod_and_every_other_key() {
    let host =
        Identity { name: "node1".into(), kind: "host".into(), namespace: None, host: None, ..(*identity()).clone() };
    let line = host.line("[::ffff:10.0.0.9]:99".parse().unwrap());
    let text = String::from_utf8(line).unwrap();
    let expected =
        r#"{"name":"node1","kind":"host","namespace":null,"host":null,"ip":"10.244.1.2","source":"10.0.0.9:99"}"#;
    assert_eq!(text, format!("{expected}\n"));
}

#[test]
fn a_connection_is_kept_for_further_requests() {
    with_server(Limits::default(), |address, _server| async move {
        let mut stream = connect(address).await;
        for path in ["/one", "/two", "/three"] {
            assert_eq!(get(&mut stream, path).await.json()["path"], path);
        }
    });
}

#[test]
fn paths_do_what_they_say() {
    with_server(Limits::default(), |address, _server| async move {
        let mut stream = connect(address).await;
        let health = get(&mut stream, "/healthz").await;
        assert_eq!((health.status.as_str(), health.body.as_slice()), ("HTTP/1.1 200 OK", b"ok".as_slice()));
        let status = get(&mut stream, "/status/503").await;
        assert_eq!(status.status, "HTTP/1.1 503 Service Unavailable");
        assert_eq!(status.json()["name"], "tea-1");
        let started = Instant::now();
        assert_eq!(get(&mut stream, "/delay/120").await.json()["path"], "/delay/120");
        assert!(started.elapsed() >= Duration::from_millis(120));
        for wrong in
            ["/status/99", "/status/100", "/status/600", "/status/x", "/delay/60001", "/bytes/-1", "/bytes/1073741825"]
        {
            assert_eq!(get(&mut stream, wrong).await.status, "HTTP/1.1 400 Bad Request", "{wrong}");
        }
        for n in [0, 1, 16384, 100_000] {
            assert_eq!(get(&mut stream, &format!("/bytes/{n}")).await.body, vec![b'x'; n]);
        }
        assert_eq!(get(&mut stream, "/status/204").await.body, b"");
        assert_eq!(get(&mut stream, "/healthz/more").await.json()["path"], "/healthz/more");
    });
}

#[test]
fn a_long_body_is_cut_and_counted() {
    with_server(Limits::default(), |address, _server| async move {
        let mut stream = connect(address).await;
        stream.write_all(b"POST / HTTP/1.1\r\nhost: tea\r\ncontent-length: 300000\r\n\r\n").await.unwrap();
        stream.write_all(&[b'a'; 300_000]).await.unwrap();
        let json = response(&mut stream).await.json();
        assert_eq!(json["body"].as_str().unwrap().len(), 64 << 10);
        assert_eq!(json["bodyBytes"], 300_000);
        assert_eq!(get(&mut stream, "/next").await.json()["path"], "/next");
    });
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    with_server(Limits::default(), |address, _server| async move {
        let mut stream = connect(address).await;
        let request = format!("GET / HTTP/1.1\r\nhost: tea\r\nx-long: {}\r\n\r\n", "a".repeat(100_000));
        // The server may have hung up before it has all.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut status = String::new();
        let read = stream.read_line(&mut status).await;
        assert!(read.is_err() || status.starts_with("HTTP/1.1 431 "), "{status}");
        assert!(closed(&mut stream).await);
    });
}

#[test]
fn other_bytes_are_echoed_behind_the_identity() {
    with_server(Limits::default(), |address, _server| async move {
        for rubbish in [&b"hello\n"[..], b"GETAWAY\n", b"get / HTTP/1.1\r\n\r\n\n", b"\x16\x03\x01\x00\xff\0\n", b"\n"]
        {
            let mut stream = connect(address).await;
            let source = stream.get_ref().local_addr().unwrap().to_string();
            stream.write_all(rubbish).await.unwrap();
            let identity: Value = serde_json::from_str(&line(&mut stream).await).unwrap();
            assert_eq!((&identity["pod"], &identity["source"]), (&"tea-1".into(), &source.into()));
            stream.write_all(b"more").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, [rubbish, b"more"].concat());
        }
    });
}

#[test]
fn a_silent_client_is_told_the_identity_and_then_speaks_lines() {
    with_server(Limits::default(), |address, _server| async move {
        let started = Instant::now();
        let mut stream = connect(address).await;
        let identity: Value = serde_json::from_str(&line(&mut stream).await).unwrap();
        assert_eq!(identity["name"], "tea-1");
        assert!(started.elapsed() >= Duration::from_millis(300));
        stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        assert_eq!(line(&mut stream).await, "GET / HTTP/1.1\r\n");
    });
}

#[test]
fn a_method_in_pieces_is_still_http() {
    let limits = Limits { silence: LIMIT, ..Limits::default() };
    with_server(limits, |address, _server| async move {
        let mut stream = connect(address).await;
        stream.get_ref().set_nodelay(true).unwrap();
        for piece in [&b"G"[..], b"E", b"T /piece", b"s HTTP/1.1\r\nhost: t\r\n\r\n"] {
            stream.write_all(piece).await.unwrap();
            stream.flush().await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(response(&mut stream).await.json()["path"], "/pieces");
    });
}

#[test]
fn a_head_that_never_ends_is_given_up() {
    let limits = Limits { http_idle: Duration::from_millis(200), ..Limits::default() };
    with_server(limits, |address, _server| async move {
        let mut slow = connect(address).await;
        slow.write_all(b"GET / HTTP/1.1\r\nx-slow: ").await.unwrap();
        let (mut reader, mut writer) = slow.into_inner().into_split();
        let dripping = tokio::spawn(async move {
            while writer.write_all(b"a").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let _ = reader.read_to_end(&mut Vec::new()).await;
        dripping.await.unwrap();
    });
}

#[test]
fn idle_connections_and_bodies_that_stop_are_given_up() {
    let brief = Duration::from_millis(200);
    let limits = Limits { http_idle: brief, line_idle: brief, ..Limits::default() };
    with_server(limits, |address, _server| async move {
        let mut kept = connect(address).await;
        assert_eq!(get(&mut kept, "/healthz").await.body, b"ok");
        assert!(closed(&mut kept).await, "an idle HTTP connection");
        let mut lines = connect(address).await;
        lines.write_all(b"x\n").await.unwrap();
        assert!(closed(&mut lines).await, "an idle connection of lines");
        let mut body = connect(address).await;
        body.write_all(b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 9\r\n\r\nhal").await.unwrap();
        assert_eq!(response(&mut body).await.status, "HTTP/1.1 408 Request Timeout");
        assert!(closed(&mut body).await, "a body that stopped");
    });
}

#[test]
fn a_client_that_takes_nothing_is_given_up() {
    let limits = Limits { stall: Duration::from_millis(200), ..Limits::default() };
    with_server(limits, |address, _server| async move {
        let mut stream = connect(address).await;
        stream.write_all(b"GET /bytes/1073741824 HTTP/1.1\r\nhost: t\r\n\r\n").await.unwrap();
        // Writing fails once the server has reset the connection, and not before.
        let mut said = stream.into_inner();
        said.ready(tokio::io::Interest::ERROR).await.unwrap();
        let mut taken = 0u64;
        let mut chunk = vec![0; 1 << 16];
        while let Ok(n @ 1..) = said.read(&mut chunk).await {
            taken += n as u64;
        }
        assert!(taken < 1 << 30, "all of it came");
    });
}

#[test]
fn connections_beyond_the_limit_wait_for_their_turn() {
    let limits = Limits { connections: 2, ..Limits::default() };
    with_server(limits, |address, _server| async move {
        let mut first = connect(address).await;
        let mut second = connect(address).await;
        for stream in [&mut first, &mut second] {
            assert_eq!(get(stream, "/healthz").await.body, b"ok");
        }
        let mut third = connect(address).await;
        third.write_all(b"GET /healthz HTTP/1.1\r\nhost: t\r\n\r\n").await.unwrap();
        let early = timeout(Duration::from_millis(100), response(&mut third)).await;
        assert!(early.is_err(), "answered beyond the limit");
        drop(first);
        assert_eq!(response(&mut third).await.body, b"ok");
    });
}

#[test]
fn a_connection_that_would_take_one_of_the_spared_descriptors_is_closed_at_once() {
    // Descriptors are the whole process', in which other tests run: no number but these is sure.
    for (descriptors, is_served) in [(0, false), (RawFd::MAX, true)] {
        let limits = Limits { descriptors, ..Limits::default() };
        with_server(limits, |address, _server| async move {
            let mut stream = connect(address).await;
            if is_served {
                assert_eq!(get(&mut stream, "/healthz").await.body, b"ok");
            } else {
                assert!(closed(&mut stream).await);
            }
        });
    }
}

#[test]
fn the_end_of_the_task_ends_its_connections() {
    with_server(Limits::default(), |address, server| async move {
        let mut stream = connect(address).await;
        assert_eq!(get(&mut stream, "/healthz").await.body, b"ok");
        server.abort();
        assert!(closed(&mut stream).await);
        let refused = TcpStream::connect(address).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_datagram_comes_back_behind_the_identity_from_where_it_went() {
    within_runtime(async {
        let server = net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = server.local_addr().unwrap().port();
        serve_udp(server, identity()).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        // All of 127/8 is this machine; the kernel alone would answer from 127.0.0.1.
        client.connect(("127.3.2.1", port)).await.unwrap();
        let mut answer = vec![0; 65536];
        for payload in [&b""[..], b"hello", b"\0\xff\n", &[b'z'; 9000]] {
            client.send(payload).await.unwrap();
            let n = client.recv(&mut answer).await.unwrap();
            let end = answer.iter().position(|b| *b == b'\n').unwrap() + 1;
            let identity: Value = serde_json::from_slice(&answer[..end]).unwrap();
            assert_eq!(identity["source"], client.local_addr().unwrap().to_string());
            assert_eq!(identity["name"], "tea-1");
            assert_eq!(&answer[end..n], payload);
        }
    });
}

#[test]
fn a_datagram_too_large_to_come_back_is_not_answered() {
    within_runtime(async {
        let server = net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        serve_udp(server, identity()).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(address).await.unwrap();
        client.send(&[b'z'; 65507]).await.unwrap();
        client.send(b"small").await.unwrap();
        let mut answer = vec![0; 65536];
        let n = client.recv(&mut answer).await.unwrap();
        assert!(answer[..n].ends_with(b"}\nsmall"), "the large one was answered");
    });
}
