//! The process: many messages in a stream, rubbish, changes, what it tells of itself, its end.

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use labctl::workload::dns::{Config, VERB};
use serde_json::{Value, json};

use crate::sample::{cluster, config, query, service, slice};

/// How long anything that is waited for may take. Far more than it needs, for slow machines.
const PATIENCE: Duration = Duration::from_secs(30);

#[track_caller]
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "after {PATIENCE:?} still not: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

struct Server {
    process: Child,
    control: Option<ChildStdin>,
    said: Lines<BufReader<ChildStdout>>,
    dns: SocketAddr,
}

impl Server {
    fn start(metrics: Option<u16>) -> Server {
        let listen = [127, 0, 0, 1].into();
        let config = Config { listen, port: 0, health: None, ready: None, metrics, dns: config() };
        Server::start_with(&config)
    }

    fn start_with(config: &Config) -> Server {
        let mut process = Command::new(env!("CARGO_BIN_EXE_labctl"))
            .args([VERB, &serde_json::to_string(config).unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let control = process.stdin.take();
        let mut said = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = said.next().expect("a line").unwrap();
        let dns = line.strip_prefix("listening ").unwrap().parse().unwrap();
        Server { process, control, said, dns }
    }

    fn ready() -> Server {
        let mut server = Server::start(None);
        server.tell(&cluster());
        assert_eq!(server.said.next().unwrap().unwrap(), "ready");
        server
    }

    fn tell(&mut self, update: &Value) {
        writeln!(self.control.as_mut().unwrap(), "{update}").unwrap();
    }

    fn socket(&self) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(self.dns).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    fn stream(&self) -> TcpStream {
        let stream = TcpStream::connect(self.dns).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn ask(&self, name: &str) -> Message {
        let socket = self.socket();
        socket.send(&query(name, 1, 0x0100)).unwrap();
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).unwrap();
        Message::from_vec(&buffer[..length]).unwrap()
    }

    fn code(&self, name: &str) -> ResponseCode {
        self.ask(name).metadata.response_code
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const WEB: &str = "web.shop.svc.cluster.local";

fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

fn next(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).unwrap();
    message
}

#[test]
fn many_queries_in_one_connection_are_answered_in_their_order() {
    let server = Server::ready();
    let mut stream = server.stream();
    let mut all = Vec::new();
    for id in 0..500u16 {
        let mut message = query(WEB, 1, 0x0100);
        message[..2].copy_from_slice(&id.to_be_bytes());
        all.extend(framed(&message));
    }
    // In pieces that are no messages.
    for piece in all.chunks(37) {
        stream.write_all(piece).unwrap();
    }
    for id in 0..500u16 {
        let reply = Message::from_vec(&next(&mut stream)).unwrap();
        assert_eq!((reply.metadata.id, reply.answers.len()), (id, 1));
    }
}

#[test]
fn rubbish_is_survived_and_counted() {
    let http = free_port();
    let mut server = Server::start(Some(http));
    server.tell(&cluster());
    assert_eq!(server.said.next().unwrap().unwrap(), "ready");
    let socket = server.socket();
    socket.send(&[]).unwrap();
    socket.send(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    socket.send(&[0xff; 600]).unwrap();
    // As large as a datagram can be: a question, and then nothing that makes sense.
    let mut large = query(WEB, 1, 0x0100);
    large[7] = 1;
    large.resize(65507, 0xc0);
    socket.send(&large).unwrap();
    let mut loops = query("", 1, 0);
    loops.splice(12..13, [0xc0, 12]);
    socket.send(&loops).unwrap();
    // The HTTP request has the bits of a query with an unknown opcode; the large one is a question
    // with a record of 49,344 bytes behind it, which is nothing to refuse.
    let mut buffer = [0; 512];
    let mut next_code = || {
        let length = socket.recv(&mut buffer).unwrap();
        Message::from_vec(&buffer[..length]).unwrap().metadata.response_code
    };
    let codes = [next_code(), next_code(), next_code()];
    assert_eq!(codes, [ResponseCode::NotImp, ResponseCode::NoError, ResponseCode::FormErr]);
    let mut stream = server.stream();
    stream.write_all(&framed(&[0x5a; 65535])).unwrap();
    // Half a message, and gone.
    server.stream().write_all(&[0xff, 0xff, 1, 2, 3]).unwrap();
    assert_eq!(server.code(WEB), ResponseCode::NoError);
    until("all of it is counted", || {
        let page = get(http, "/metrics").1;
        let count = |what: &str| -> u64 {
            let line = page.lines().find_map(|l| l.strip_prefix(what)).unwrap_or_else(|| panic!("no {what} in {page}"));
            line.trim().parse().unwrap()
        };
        count("coredns_dns_ignored_total ") >= 2
            && count("coredns_dns_responses_total{rcode=\"FORMERR\"}") == 1
            && count("coredns_dns_responses_total{rcode=\"NOTIMP\"}") == 2
            && count("coredns_dns_requests_total{proto=\"tcp\"}") == 1
    });
}

/// A port of loopback that was free a moment ago.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn get(port: u16, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: dns\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[test]
fn it_is_healthy_at_once_and_ready_when_it_knows_the_cluster() {
    let listen = [127, 0, 0, 1].into();
    let [health, ready] = [free_port(), free_port()];
    let mut server = Server::start_with(&Config {
        listen,
        port: 0,
        health: Some(health),
        ready: Some(ready),
        metrics: None,
        dns: config(),
    });
    assert_eq!(get(health, "/health").0, "HTTP/1.1 200 OK");
    assert_eq!(get(ready, "/ready").0, "HTTP/1.1 503 Service Unavailable");
    assert_eq!(server.code(WEB), ResponseCode::ServFail);
    server.tell(&cluster());
    assert_eq!(server.said.next().unwrap().unwrap(), "ready");
    assert_eq!(get(ready, "/ready").0, "HTTP/1.1 200 OK");
    assert_eq!(get(ready, "/health").0, "HTTP/1.1 404 Not Found");
    assert_eq!(server.code(WEB), ResponseCode::NoError);
}

#[test]
fn changes_are_served_and_what_they_do_not_name_stays() {
    let mut server = Server::ready();
    let few = "few.shop.svc.cluster.local";
    assert_eq!(server.code(few), ResponseCode::NXDomain);
    let put = |slices: Value| {
        json!({ "change": { "gone": {}, "put": {
        "services": [service("few", json!({ "clusterIPs": ["None"] }))], "slices": slices } } })
    };
    server.tell(&put(json!([slice("few", 2)])));
    until("the new service is served", || server.ask(few).answers.len() == 2);
    server.tell(&put(json!([slice("few", 1)])));
    until("a slice takes its former self's place", || server.ask(few).answers.len() == 1);
    server.tell(&json!({ "change": { "gone": { "slices": ["shop/few-1"] }, "put": {} } }));
    until("without endpoints there is no name", || server.code(few) == ResponseCode::NXDomain);
    server.tell(&json!({ "change": { "gone": { "services": ["shop/web"] }, "put": {} } }));
    until("a service is gone", || server.code(WEB) == ResponseCode::NXDomain);
    assert_eq!(server.ask("many.shop.svc.cluster.local").metadata.response_code, ResponseCode::NoError);
    // What cannot be read changes nothing.
    writeln!(server.control.as_mut().unwrap(), "{{\"set\": 7}}").unwrap();
    server.tell(&json!({ "set": { "namespaces": ["shop"], "services": [service("web", json!({ "clusterIPs": ["10.96.0.9"], "ports": [] }))] } }));
    until("a whole set is served", || server.code(WEB) == ResponseCode::NoError);
    assert_eq!(server.code("many.shop.svc.cluster.local"), ResponseCode::NXDomain, "and nothing else");
}

#[test]
fn it_has_its_real_name_and_ends_with_its_control_channel() {
    let mut server = Server::ready();
    let comm = std::fs::read_to_string(format!("/proc/{}/comm", server.process.id())).unwrap();
    assert_eq!(comm.trim(), "coredns");
    // A connection that is open does not keep it.
    let _open = server.stream();
    drop(server.control.take());
    until("it ends", || server.process.try_wait().unwrap().is_some());
    assert!(server.process.wait().unwrap().success());
}

#[test]
fn a_port_that_is_taken_is_named() {
    let first = Server::ready();
    let config = Config {
        listen: first.dns.ip(),
        port: first.dns.port(),
        health: None,
        ready: None,
        metrics: None,
        dns: config(),
    };
    let output = Command::new(env!("CARGO_BIN_EXE_labctl"))
        .args([VERB, &serde_json::to_string(&config).unwrap()])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(&first.dns.to_string()), "{said}");
}
