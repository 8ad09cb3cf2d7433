//! What a client is answered where something fails: too large a body, endpoints that fail in each of
//! the ways there are.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use labctl::plan::ingress::{Options, PathPattern};

use crate::Test;
use crate::client::{Server, get};
use crate::ground::{Ground, Rules, self_signed};

pub const TESTS: &[Test] = &[
    ("each_failure_has_its_own_status", each_failure_has_its_own_status),
    ("a_request_that_may_have_had_an_effect_is_502", a_request_that_may_have_had_an_effect_is_502),
    ("an_endpoints_own_503_stays_its_own", an_endpoints_own_503_stays_its_own),
    ("a_body_that_is_too_large_is_413_over_http1_and_http2", a_body_that_is_too_large_is_413_over_http1_and_http2),
    ("a_body_without_a_length_is_measured_too", a_body_without_a_length_is_measured_too),
    ("the_default_backend_has_the_limits_of_the_configmap", the_default_backend_has_the_limits_of_the_configmap),
    ("large_bodies_cost_no_memory", large_bodies_cost_no_memory),
];

/// An endpoint at 127.0.0.NUMBER:8080 that does this with every connection.
pub fn endpoint(number: u8, serve: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, number], 8080))).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Read a head, and say this.
fn saying(number: u8, answer: &'static str) -> SocketAddr {
    endpoint(number, move |stream| {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|count| count > 2) {
            line.clear();
        }
        let _ = reader.get_mut().write_all(answer.as_bytes());
    })
}

/// An address from which nothing ever comes back: packets to it vanish in a device that leads nowhere.
fn nowhere() -> SocketAddr {
    let made = ["link add nowhere type veth peer name nobody", "addr add 10.9.9.1/24 dev nowhere"];
    for words in made.iter().chain(&["link set nowhere up", "link set nobody up"]) {
        assert!(Command::new("ip").args(words.split(' ')).status().unwrap().success(), "{words}");
    }
    // Without a neighbour's address the kernel would say soon that nobody is there.
    let neighbour = "neigh add 10.9.9.9 lladdr 02:00:00:00:00:09 dev nowhere";
    assert!(Command::new("ip").args(neighbour.split(' ')).status().unwrap().success());
    SocketAddr::from(([10, 9, 9, 9], 8080))
}

fn each_failure_has_its_own_status(ground: &Ground) {
    let refusing = SocketAddr::from(([127, 0, 0, 99], 8080));
    let short = |o: &mut Options| {
        o.connect_timeout = Duration::from_secs(1);
        o.read_timeout = Duration::from_secs(1);
    };
    let cases: [(&str, SocketAddr, u16); 5] = [
        ("refusing", refusing, 502),
        ("silent", endpoint(12, |mut stream| drop(stream.read_to_end(&mut Vec::new()))), 504),
        ("unreachable", nowhere(), 504),
        ("closing", saying(14, ""), 502),
        ("rubbish", saying(15, "HTTP/1.1 200 OK\r\nba\x01d: x\r\n\r\n"), 502),
    ];
    let mut rules = Rules::new().prefix("h.com", "/nobody", "nobody");
    for (name, ..) in &cases {
        rules = rules.path("h.com", PathPattern::Prefix(format!("/{name}")), name, short);
    }
    let names: Vec<String> = cases.iter().map(|(name, ..)| crate::ground::backend_name(name)).collect();
    let addresses: Vec<[SocketAddr; 1]> = cases.iter().map(|case| [case.1]).collect();
    let endpoints: Vec<(&str, &[SocketAddr])> =
        names.iter().zip(&addresses).map(|(name, address)| (name.as_str(), &address[..])).collect();
    let _controller = ground.serving(&rules.0, &endpoints);
    let found: Vec<(&str, u16)> =
        cases.iter().map(|case| (case.0, get("h.com", &format!("/{}", case.0)).code)).collect();
    let expected: Vec<(&str, u16)> = cases.iter().map(|case| (case.0, case.2)).collect();
    assert_eq!(found, expected);
    assert_eq!(get("h.com", "/nobody").code, 503);
}

fn a_request_that_may_have_had_an_effect_is_502(ground: &Ground) {
    let rules = Rules::new().prefix("h.com", "/", "there");
    let _controller = ground.serving(&rules.0, &[("default-there-80", &[saying(11, ""), saying(12, "")])]);
    let mut connection = crate::client::Connection::plain();
    connection.write(b"POST / HTTP/1.1\r\nHost: h.com\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert_eq!(connection.read().unwrap().code, 502);
}

fn an_endpoints_own_503_stays_its_own(ground: &Ground) {
    let own = saying(11, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\nX-Own: 1\r\n\r\nown\n");
    let rules = Rules::new().prefix("h.com", "/", "there");
    let _controller = ground.serving(&rules.0, &[("default-there-80", &[own])]);
    let answer = get("h.com", "/");
    assert_eq!((answer.code, answer.by(), answer.header("x-own")), (503, "own", "1"));
}

/// What curl finds when it sends `size` bytes, and its exit status.
fn upload(version: &str, how: &[&str], size: usize) -> String {
    let url = if version == "--http2" { "https://h.com/" } else { "http://h.com/" };
    let resolve = ["--resolve", "h.com:443:127.0.0.1", "--resolve", "h.com:80:127.0.0.1"];
    let mut child = Command::new("curl")
        .args(["-sk", "--max-time", "60", version, "-H", "Expect:", "-X", "POST", "-o", "/dev/null"])
        .args(["-w", "%{http_version} %{http_code} %{exitcode}"])
        .args(resolve)
        .args(how)
        .arg(url)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writing = std::thread::spawn(move || {
        let piece = vec![b'x'; 1 << 16];
        let mut left = size;
        while left > 0 && stdin.write_all(&piece[..left.min(piece.len())]).is_ok() {
            left = left.saturating_sub(piece.len());
        }
    });
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// With a length, which curl knows when it has read all of its input.
const MEASURED: &[&str] = &["--data-binary", "@-"];
/// Without one: in chunks, or as frames of HTTP/2.
const STREAMED: &[&str] = &["-T", "-"];

fn a_body_that_is_too_large_is_413_over_http1_and_http2(ground: &Ground) {
    let server = Server::start("there", 11);
    let rules = Rules::new().prefix("h.com", "/", "there").tls("h.com", &self_signed("h.com"));
    let _controller = ground.serving(&rules.0, &[("default-there-80", &[server.address])]);
    for (version, told) in [("--http1.1", "1.1"), ("--http2", "2")] {
        assert_eq!(upload(version, MEASURED, 1 << 20), format!("{told} 200 0"));
        assert_eq!(upload(version, MEASURED, 3 << 20), format!("{told} 413 0"));
        assert_eq!(upload(version, MEASURED, 200 << 20), format!("{told} 413 0"));
    }
}

fn a_body_without_a_length_is_measured_too(ground: &Ground) {
    let server = Server::start("there", 11);
    let rules = Rules::new().prefix("h.com", "/", "there").tls("h.com", &self_signed("h.com"));
    let _controller = ground.serving(&rules.0, &[("default-there-80", &[server.address])]);
    for (version, told) in [("--http1.1", "1.1"), ("--http2", "2")] {
        assert_eq!(upload(version, STREAMED, 1 << 20), format!("{told} 200 0"));
        // HAProxy 2.6 does not count what streams through it.
        let code = if ground.program == "haproxy" { 200 } else { 413 };
        assert_eq!(upload(version, STREAMED, 3 << 20), format!("{told} {code} 0"));
    }
}

fn the_default_backend_has_the_limits_of_the_configmap(ground: &Ground) {
    let server = Server::start("rest", 11);
    let mut rules = Rules::new().prefix("gone.com", "/", "rest").tls("h.com", &self_signed("h.com"));
    rules.0.servers.clear();
    rules.0.default_backend = Some("default-rest-80".to_owned());
    rules.0.default_options =
        Options { body_size: 4 << 20, read_timeout: Duration::from_secs(1), ..Options::default() };
    let _controller = ground.serving(&rules.0, &[("default-rest-80", &[server.address])]);
    assert_eq!(upload("--http1.1", MEASURED, 3 << 20), "1.1 200 0");
    assert_eq!(upload("--http1.1", MEASURED, 5 << 20), "1.1 413 0");
    assert_eq!(get("h.com", "/sleep/20000").code, 504);
}

/// Bytes that the controller and its program hold: in memory of their own, and in files of the directory,
/// which in a pod are in memory, too.
pub fn held(ground: &Ground) -> u64 {
    let mut memory = 0;
    for entry in std::fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let ours = ["nginx", "haproxy", "ingress"].iter().any(|name| status.starts_with(&format!("Name:\t{name}\n")));
        let most = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).filter(|_| ours);
        memory += most.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or(0) << 10;
    }
    assert!(memory > 0, "no process of the controller was found");
    // Files that are open and have no name any more count as well.
    let directory = Command::new("du").arg("-sb").arg(ground.path("run")).output().unwrap();
    let files = String::from_utf8_lossy(&directory.stdout).split('\t').next().and_then(|n| n.parse::<u64>().ok());
    memory + files.unwrap_or(0) + nameless()
}

/// Bytes of files that are open somewhere and have been removed.
fn nameless() -> u64 {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let files = processes.flat_map(|p| std::fs::read_dir(p.path().join("fd")).into_iter().flatten().flatten());
    let removed = files.map(|f| f.path()).filter(|path| {
        let target = std::fs::read_link(path).unwrap_or_default();
        target.to_string_lossy().ends_with(" (deleted)")
    });
    removed.filter_map(|path| std::fs::metadata(path).ok()).filter(|m| m.is_file()).map(|m| m.len()).sum()
}

/// How much a body is, in which nobody hurries.
const LARGE: usize = 300 << 20;

fn large_bodies_cost_no_memory(ground: &Ground) {
    // Takes a piece now and then, and answers with as much.
    let slow = endpoint(11, |mut stream| {
        let mut piece = vec![0; 1 << 20];
        let mut seen = 0;
        while seen < LARGE {
            match stream.read(&mut piece) {
                Ok(count @ 1..) => seen += count,
                _ => return,
            }
            if seen % 16 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n");
        let piece = vec![b'y'; 1 << 20];
        while stream.write_all(&piece).is_ok() {}
    });
    let rules = Rules::new().path("h.com", PathPattern::Prefix("/".to_owned()), "there", |o| o.body_size = 0);
    let _controller = ground.serving(&rules.0, &[("default-there-80", &[slow])]);
    let before = held(ground);
    let mut stream = TcpStream::connect("127.0.0.1:80").unwrap();
    stream.set_read_timeout(Some(crate::ground::PATIENCE)).unwrap();
    write!(stream, "POST / HTTP/1.1\r\nHost: h.com\r\nContent-Length: {}\r\n\r\n", LARGE).unwrap();
    let piece = vec![b'x'; 1 << 20];
    let mut most = 0;
    for n in 0..LARGE / piece.len() {
        stream.write_all(&piece).unwrap();
        if n % 20 == 0 {
            most = most.max(held(ground));
        }
    }
    let mut piece = piece;
    let mut seen = 0;
    while seen < LARGE {
        seen += stream.read(&mut piece).unwrap();
        if seen % 64 == 0 {
            most = most.max(held(ground));
        }
    }
    println!("{} MiB before, at most {} MiB while 300 MiB went each way", before >> 20, most >> 20);
    assert!(most < before + (24 << 20), "{before} bytes became {most}");
}
