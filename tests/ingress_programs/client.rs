//! A client that writes what it means, and endpoints that tell what they saw.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::ground::{Counts, PATIENCE};

/// A new network namespace's loopback is down.
pub fn loopback_up() {
    let status = Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("ip");
    assert!(status.success());
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub code: u16,
    /// Names in lower case, each with the values of all headers of that name.
    pub headers: BTreeMap<String, Vec<String>>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|all| all.first()).map_or("", String::as_str)
    }

    /// Who answered: the first line of an endpoint's body.
    pub fn by(&self) -> &str {
        self.body.lines().next().unwrap_or_default()
    }

    /// A line of an endpoint's body that begins like this: what it saw.
    #[track_caller]
    pub fn saw(&self, name: &str) -> &str {
        let found = self.body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        found.unwrap_or_else(|| panic!("it saw no {name}: {self:?}"))
    }

    pub fn saw_path(&self) -> &str {
        self.body.lines().nth(1).and_then(|line| line.split(' ').nth(1)).unwrap_or_default()
    }

    fn read(from: &mut impl BufRead) -> std::io::Result<Answer> {
        let mut line = String::new();
        let mut next = |from: &mut dyn BufRead| {
            line.clear();
            if from.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            Ok::<_, std::io::Error>(line.trim_end().to_owned())
        };
        let first = next(from)?;
        let code = first.split(' ').nth(1).and_then(|c| c.parse().ok()).unwrap_or_else(|| panic!("{first:?}"));
        let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
        loop {
            let header = next(from)?;
            let Some((name, value)) = header.split_once(':') else { break };
            headers.entry(name.to_ascii_lowercase()).or_default().push(value.trim().to_owned());
        }
        let mut answer = Answer { code, headers, body: String::new() };
        let mut body = Vec::new();
        if let Ok(length) = answer.header("content-length").parse::<u64>() {
            from.take(length).read_to_end(&mut body)?;
        } else if answer.header("transfer-encoding") == "chunked" {
            while let Ok(length @ 1..) = u64::from_str_radix(&next(from)?, 16) {
                from.take(length).read_to_end(&mut body)?;
                next(from)?;
            }
            next(from)?;
        }
        answer.body = String::from_utf8_lossy(&body).into_owned();
        Ok(answer)
    }
}

/// A connection that stays.
pub struct Connection<S>(BufReader<S>);

impl Connection<TcpStream> {
    pub fn plain() -> Connection<TcpStream> {
        let stream = TcpStream::connect("127.0.0.1:80").unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Connection(BufReader::new(stream))
    }
}

impl<S: Read + Write> Connection<S> {
    pub fn over(stream: S) -> Connection<S> {
        Connection(BufReader::new(stream))
    }

    pub fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.get_mut().write_all(bytes)?;
        self.0.get_mut().flush()
    }

    pub fn read(&mut self) -> std::io::Result<Answer> {
        Answer::read(&mut self.0)
    }

    pub fn read_bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    #[track_caller]
    pub fn get(&mut self, host: &str, path: &str) -> Answer {
        self.write(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).unwrap();
        self.read().unwrap()
    }
}

/// One request on a connection of its own.
#[track_caller]
pub fn get(host: &str, path: &str) -> Answer {
    Connection::plain().get(host, path)
}

/// One with more headers, a line each with its end.
#[track_caller]
pub fn get_with(host: &str, path: &str, headers: &str) -> Answer {
    let mut connection = Connection::plain();
    connection.write(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n").as_bytes()).unwrap();
    connection.read().unwrap()
}

/// Who answers `count` requests, each on a connection of its own.
#[track_caller]
pub fn count(host: &str, path: &str, count: usize) -> Counts {
    let mut counts = Counts::new();
    for _ in 0..count {
        let answer = get(host, path);
        let who = if answer.code == 200 { answer.by().to_owned() } else { answer.code.to_string() };
        *counts.entry(who).or_default() += 1;
    }
    counts
}

/// What curl prints.
pub fn curl(args: &[&str]) -> String {
    let output = Command::new("curl").args(["-s", "--max-time", "20"]).args(args).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A server of HTTP/1.1 that tells its name, the request's first line and its headers, a line each.
/// `/sleep/MS` takes that long; an upgrade is answered, and then echoes.
pub struct Server {
    pub address: SocketAddr,
    /// Connections that it has taken.
    pub connections: Arc<AtomicUsize>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Server {
    /// At 127.0.0.NUMBER:8080, so that one can come back where it was.
    pub fn start(name: &str, number: u8) -> Server {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, number], 8080))).unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let open = Arc::new(Mutex::new(Vec::new()));
        let (name, counter, kept) = (name.to_owned(), Arc::clone(&connections), Arc::clone(&open));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                counter.fetch_add(1, Ordering::Relaxed);
                kept.lock().unwrap().push(stream.try_clone().unwrap());
                let name = name.clone();
                std::thread::spawn(move || serve(&name, stream));
            }
        });
        Server { address, connections, open }
    }

    /// Cut every connection that is open.
    pub fn cut(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

fn serve(name: &str, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut reader = BufReader::new(stream);
    while let Some(head) = head(&mut reader) {
        let header = |wanted: &str| {
            let named = |line: &&str| line.to_ascii_lowercase().starts_with(&format!("{wanted}:"));
            head.lines().find(named).and_then(|line| line.split_once(": ")).map(|(_, value)| value)
        };
        let mut read = 0;
        if let Some(length) = header("content-length").and_then(|l| l.parse::<u64>().ok()) {
            read = std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink()).unwrap_or(0);
        } else if header("transfer-encoding") == Some("chunked") {
            match chunks(&mut reader) {
                Some(count) => read = count,
                None => return,
            }
        }
        let path = head.split(' ').nth(1).unwrap_or_default();
        if let Some(ms) = path.strip_prefix("/sleep/").and_then(|ms| ms.parse().ok()) {
            std::thread::sleep(Duration::from_millis(ms));
        }
        if header("upgrade").is_some() {
            return echo(reader);
        }
        let body = format!("{name}\n{head}body: {read}\n");
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nSet-Cookie: own=1\r\n\r\n{body}", body.len());
        if reader.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// Read a body in chunks. Returns its length; nothing where it breaks off.
fn chunks(reader: &mut impl BufRead) -> Option<u64> {
    let mut read = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let length = u64::from_str_radix(line.trim(), 16).ok()?;
        // What ends a chunk has two bytes.
        let taken = std::io::copy(&mut reader.take(length + 2), &mut std::io::sink()).ok()?;
        if length == 0 || taken < length + 2 {
            return (taken == 2).then_some(read);
        }
        read += length;
    }
}

fn echo(mut reader: BufReader<TcpStream>) {
    // The accepted key is the one that RFC 6455 has for the key of its example.
    let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    let _ = reader.get_mut().write_all(answer.as_bytes());
    let mut chunk = [0; 1024];
    while let Ok(length @ 1..) = reader.read(&mut chunk) {
        if reader.get_mut().write_all(&chunk[..length]).is_err() {
            return;
        }
    }
}

/// A request's head, its lines ended plainly.
fn head(reader: &mut impl BufRead) -> Option<String> {
    let mut head = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => return Some(head),
            line => head.push_str(&format!("{line}\n")),
        }
    }
}
