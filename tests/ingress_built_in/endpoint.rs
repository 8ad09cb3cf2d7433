//! Endpoints: small servers in threads, well-behaved ones and others.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// A server, which ends with the test.
pub struct Pod {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    /// Heads and bodies of requests, as they came.
    pub requests: Arc<Mutex<Vec<String>>>,
    ended: Arc<AtomicBool>,
}

impl Pod {
    /// Answers every request with its name, and with the request for a body.
    pub fn named(name: &'static str) -> Pod {
        Pod::answering(move |request| {
            let body = format!("{name}\n{request}");
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        })
    }

    /// Answers every request so; keeps the connection unless the answer says otherwise.
    pub fn answering(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Pod {
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let noted = Arc::clone(&requests);
        let mut pod = Pod::raw(move |stream| {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut stream = stream;
            while let Some(request) = read_request(&mut reader) {
                noted.lock().unwrap().push(request.clone());
                let answer = answer(&request);
                if stream.write_all(answer.as_bytes()).is_err() || answer.contains("Connection: close") {
                    return;
                }
            }
        });
        pod.requests = requests;
        pod
    }

    /// Does this with every connection, each in a thread of its own.
    pub fn raw(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Pod {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, stop, serve) = (Arc::clone(&connections), Arc::clone(&ended), Arc::new(serve));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                count.fetch_add(1, Ordering::Relaxed);
                let serve = Arc::clone(&serve);
                std::thread::spawn(move || serve(stream));
            }
        });
        Pod { address, connections, requests: Arc::default(), ended }
    }

    pub fn count(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub fn last(&self) -> String {
        self.requests.lock().unwrap().last().cloned().unwrap_or_default()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // The listener closes when it has seen the next connection.
        let _ = TcpStream::connect(self.address);
    }
}

/// A port that refuses connections.
pub fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A request with its body, decoded; nothing at the end.
pub fn read_request(reader: &mut impl BufRead) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let value = |name: &str| {
        let lower = head.to_ascii_lowercase();
        lower.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")).map(str::to_owned))
    };
    if value("transfer-encoding").as_deref() == Some("chunked") {
        let body = read_chunks(reader)?;
        return Some(head + &body);
    }
    let mut body = vec![0; value("content-length").map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body).ok()?;
    Some(head + &String::from_utf8_lossy(&body))
}

fn read_chunks(reader: &mut impl BufRead) -> Option<String> {
    let mut all = String::new();
    loop {
        let mut size = String::new();
        reader.read_line(&mut size).ok()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        let mut chunk = vec![0; size + 2];
        reader.read_exact(&mut chunk).ok()?;
        all.push_str(&String::from_utf8_lossy(&chunk[..size]));
        if size == 0 {
            return Some(all);
        }
    }
}
