//! Ten thousand clients that have nothing to say, and what they cost.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;

use labctl::plan::ingress::Options;
use labctl::probe::tls;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use crate::endpoint::Pod;
use crate::process::{Controller, hear_one, status, until};

/// As many clients as there may be, at most ten thousand; the controller may have as many files as this
/// program, and lets three of four be clients' connections.
fn crowd() -> usize {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let room = usize::try_from(most / 4 * 3).unwrap_or(usize::MAX) - 200;
    if room < 10_000 {
        println!("only {room} clients instead of 10,000: a process may not have more than {most} files here");
    }
    room.min(10_000)
}

/// A fiftieth of a MiB each, in all 200 MB.
fn check(what: &str, count: usize, before: u64, after: u64) {
    let grown = after.saturating_sub(before);
    println!("{count} {what}: {} MB in all, {} bytes each", after / 1_000_000, grown / count as u64);
    assert!(after < 200_000_000 * count as u64 / 10_000, "{after} bytes");
}

#[test]
fn ten_thousand_idle_connections_cost_less_than_200_mb() {
    let pod = Pod::named("a");
    let controller = Controller::with(Options::default(), &[pod.address]);
    let count = crowd();
    let (before, _) = controller.memory();
    let mut clients: Vec<TcpStream> = (0..count).map(|_| controller.connect()).collect();
    // The last one is served, so those before it were accepted.
    let ask = |client: &mut TcpStream| {
        write!(client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_eq!(status(&hear_one(client)), 200);
    };
    ask(clients.last_mut().unwrap());
    check("connections that never said anything", count, before, controller.memory().0);
    clients.iter_mut().for_each(ask);
    // A connection keeps what it needs for requests for a moment, as most have another one at once.
    until("memory is given back", || controller.memory().0 < 200_000_000 * count as u64 / 10_000);
    check("connections that are idle after a request", count, before, controller.memory().0);
}

#[test]
fn ten_thousand_idle_connections_with_tls_cost_less_than_200_mb() {
    let pod = Pod::named("a");
    let controller = Controller::with(Options::default(), &[pod.address]);
    // Handshakes cost a debug build some time; what one costs in memory does not depend on their number.
    let count = crowd().min(2_000);
    let (before, _) = controller.memory();
    let config = Arc::new(tls::config(None).unwrap());
    let mut clients = Vec::new();
    for _ in 0..count {
        let name = ServerName::try_from("a.example").unwrap();
        let connection = ClientConnection::new(Arc::clone(&config), name).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, crate::process::connect(controller.https));
        write!(stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_eq!(status(&hear_one(&mut stream)), 200);
        clients.push(stream);
    }
    until("memory is given back", || controller.memory().0 - before < 20_000 * count as u64);
    let grown = controller.memory().0 - before;
    println!("{count} idle connections with TLS: {} bytes each", grown / count as u64);
}
