//! The controller's process, what it is told, and a client that says exactly what a test wants.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use labctl::objects::ObjectKey;
use labctl::plan::ingress::{
    Backend, BackendProtocol, Endpoint, Endpoints, HostPattern, Location, Options, PathPattern, Routing, Server,
    Source, Update,
};
use labctl::workload::ingress::{Config, VERB};

/// How long anything that is waited for may take. Far more than it needs, for slow machines.
pub const PATIENCE: Duration = Duration::from_secs(60);

#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "after {PATIENCE:?} still not: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub struct Controller {
    process: Child,
    control: ChildStdin,
    pub http: SocketAddr,
    pub https: SocketAddr,
    log: Arc<Mutex<String>>,
}

impl Controller {
    pub fn start(routing: &Routing, endpoints: &Endpoints) -> Controller {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = Config { http: any, https: any, health: any, ..Config::default() };
        let mut process = Command::new(env!("CARGO_BIN_EXE_labctl"))
            .args([VERB, &serde_json::to_string(&config).unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = follow(process.stderr.take().unwrap());
        let control = process.stdin.take().unwrap();
        let mut said = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut address = |what: &str| said.next().unwrap().strip_prefix(what).unwrap().parse().unwrap();
        let (http, https) = (address("listening http "), address("listening https "));
        let mut controller = Controller { process, control, http, https, log };
        controller.tell(&Update::Endpoints(endpoints.clone()));
        controller.route(routing);
        assert_eq!(said.next().as_deref(), Some("ready"));
        controller
    }

    /// One virtual host for every name, whose `/` is `pods`.
    pub fn of(pods: &[SocketAddr]) -> Controller {
        Controller::start(&all_to(Options::default()), &ends(pods))
    }

    pub fn with(options: Options, pods: &[SocketAddr]) -> Controller {
        Controller::start(&all_to(options), &ends(pods))
    }

    pub fn tell(&mut self, update: &Update) {
        writeln!(self.control, "{}", serde_json::to_string(update).unwrap()).unwrap();
    }

    pub fn route(&mut self, routing: &Routing) {
        self.tell(&Update::Routing(Box::new(routing.clone())));
    }

    pub fn connect(&self) -> TcpStream {
        connect(self.http)
    }

    /// Say this on a connection of its own and hear all that comes.
    pub fn say(&self, words: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect();
        stream.write_all(words.as_ref()).unwrap();
        hear(&mut stream)
    }

    pub fn get(&self, path: &str) -> String {
        self.get_of("any.example", path)
    }

    pub fn get_of(&self, host: &str, path: &str) -> String {
        self.say(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Bytes of memory: now, and the most there ever were.
    pub fn memory(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
        };
        (field("VmRSS:"), field("VmHWM:"))
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("the controller said:\n{}", self.log());
        }
    }
}

fn follow(from: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let log = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&log);
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            kept.lock().unwrap().push_str(&(line + "\n"));
        }
    });
    log
}

pub fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// All that comes until the end, however that comes.
pub fn hear(stream: &mut impl Read) -> String {
    let mut all = Vec::new();
    let mut piece = [0; 64 << 10];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => all.extend_from_slice(&piece[..count]),
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(e) => panic!("{e} after {:?}", String::from_utf8_lossy(&all)),
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// One answer, whose length is told, on a connection that goes on.
pub fn hear_one(stream: &mut impl Read) -> String {
    let mut all = Vec::new();
    let mut byte = [0];
    while !all.ends_with(b"\r\n\r\n") {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "the end after {:?}", String::from_utf8_lossy(&all));
        all.push(byte[0]);
    }
    let head = String::from_utf8(all).unwrap();
    let length = header(&head, "content-length").map_or(0, |value| value.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    head + &String::from_utf8(body).unwrap()
}

#[track_caller]
pub fn status(answer: &str) -> u16 {
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    code.unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

pub fn header<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    let lines = message.split("\r\n\r\n").next().unwrap().lines().skip(1);
    let mut pairs = lines.filter_map(|line| line.split_once(": "));
    pairs.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// What is behind the head.
pub fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no end of the head: {answer:?}")).1
}

pub const BACKEND: &str = "default-web-80";

pub fn source() -> Source {
    Source { ingress: ObjectKey::new("default", "test"), field: "spec.rules[0].http.paths[0]".to_owned() }
}

pub fn location(path: PathPattern, backend: &str, options: Options) -> Location {
    Location { path, backend: backend.to_owned(), options, source: source() }
}

pub fn server(host: &str, locations: Vec<Location>) -> Server {
    Server { host: HostPattern::of(host), tls: None, locations }
}

pub fn backend(service: &str) -> Backend {
    let protocol = BackendProtocol::Http;
    Backend { service: ObjectKey::new("default", service), port: "80".to_owned(), protocol, affinity: None }
}

pub fn all_to(options: Options) -> Routing {
    let servers = vec![server("", vec![location(PathPattern::Prefix("/".to_owned()), BACKEND, options)])];
    Routing { servers, backends: [(BACKEND.to_owned(), backend("web"))].into(), ..Routing::default() }
}

pub fn ends(pods: &[SocketAddr]) -> Endpoints {
    let end = |&address: &SocketAddr| Endpoint { address, pod: "default/web-1".to_owned() };
    [(BACKEND.to_owned(), pods.iter().map(end).collect())].into()
}
