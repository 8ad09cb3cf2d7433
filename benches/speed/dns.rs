//! How many queries a second the DNS server answers on one core, and how long an answer takes at
//! half the rate that is wanted: the real process over loopback in a namespace of its own, with
//! 10,000 services, asked from the other core.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use labctl::kernel::ns::NetNs;
use labctl::workload::dns::{Config, VERB};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::report::Figure;

const SERVICES: usize = 10_000;
/// Queries a second that are wanted of one core.
const WANTED: f64 = 50_000.0;
/// Queries under way at a time where the rate is measured.
const WINDOW: usize = 64;

/// Rate, delay and how long a new set of all services takes to be served.
pub fn measure(quick: bool) -> io::Result<Vec<Figure>> {
    std::thread::spawn(move || {
        NetNs::create_and_enter()?;
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status()?;
        if !up.success() {
            return Err(io::Error::other("loopback cannot be set up"));
        }
        inside(Duration::from_secs(if quick { 1 } else { 5 }))
    })
    .join()
    .map_err(|_| io::Error::other("the measuring thread panicked"))?
}

fn inside(time: Duration) -> io::Result<Vec<Figure>> {
    pin(1)?;
    let (server, address, told) = Server::start()?;
    let queries = queries();
    check(address, &queries)?;
    let (busy, (rate, answered)) = {
        let before = server.cpu()?;
        let done = flood(address, &queries, time)?;
        (server.cpu()?.saturating_sub(before), done)
    };
    let (delay, lost) = pace(address, &queries, WANTED / 2.0, time)?;
    let figure = |what: &str, value: f64, unit, target| Figure { what: what.to_owned(), value, unit, target };
    Ok(vec![
        figure("DNS, queries a second", rate, "1/s", Some((">=", WANTED))),
        figure("DNS, answers for a second of the server's own time", answered / busy.as_secs_f64(), "1/s", None),
        figure("DNS at 25,000 queries a second, p99", delay, "ms", Some(("<", 1.0))),
        figure("DNS at 25,000 queries a second, lost", lost, "queries", None),
        figure("DNS, 10,000 services from told to served", told.as_secs_f64() * 1e3, "ms", None),
    ])
}

/// Keep the calling thread on one core, where there are two.
pub fn pin(core: usize) -> io::Result<()> {
    let cores = std::thread::available_parallelism()?.get();
    let mut set = CpuSet::new();
    set.set(core % cores)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    /// Start it and tell it all services; the time is from telling to being ready.
    fn start() -> io::Result<(Server, SocketAddr, Duration)> {
        let config = Config { listen: Ipv4Addr::LOCALHOST.into(), ..Config::default() };
        let mut command = Command::new(env!("CARGO_BIN_EXE_labctl"));
        command.args([VERB, &serde_json::to_string(&config)?]).stdin(Stdio::piped()).stdout(Stdio::piped());
        // SAFETY: one system call on memory of its own.
        unsafe {
            command.pre_exec(|| pin(0));
        }
        let mut server = Server(command.spawn()?);
        let (Some(mut control), Some(out)) = (server.0.stdin.take(), server.0.stdout.take()) else {
            return Err(io::Error::other("no pipes"));
        };
        let mut lines = BufReader::new(out).lines();
        let listening = lines.next().transpose()?.unwrap_or_default();
        let address = listening.strip_prefix("listening ").and_then(|a| a.parse().ok());
        let address = address.ok_or_else(|| io::Error::other("the DNS server does not listen"))?;
        let update = format!("{}\n", cluster());
        let started = Instant::now();
        control.write_all(update.as_bytes())?;
        if lines.next().transpose()?.as_deref() != Some("ready") {
            return Err(io::Error::other("the DNS server did not become ready"));
        }
        let told = started.elapsed();
        // It ends with its control channel, so that is kept with the process.
        server.0.stdin = Some(control);
        Ok((server, address, told))
    }

    /// The process' own time, user and system (proc(5), stat).
    fn cpu(&self) -> io::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        let behind = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let ticks: u64 = behind.split(' ').skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
        // The kernel tells of hundredths of a second (USER_HZ).
        Ok(Duration::from_millis(ticks * 10))
    }
}

fn cluster() -> Value {
    let port = json!([{ "name": "http", "protocol": "TCP", "port": 80 }]);
    let ip = |base: u8, n: usize| format!("10.{}.{}.{}", usize::from(base) + n / 65536, n / 256 % 256, n % 256);
    let service = |n: usize| {
        let address = if n.is_multiple_of(10) { "None".to_owned() } else { ip(96, n) };
        json!({ "metadata": { "name": format!("svc-{n}"), "namespace": "default" },
                "spec": { "clusterIPs": [address], "ports": port } })
    };
    let slice = |n: usize| {
        json!({ "metadata": { "name": format!("svc-{n}-abcde"), "namespace": "default",
                              "labels": { "kubernetes.io/service-name": format!("svc-{n}") } },
                "addressType": "IPv4", "ports": port,
                "endpoints": [{ "addresses": [ip(128, 2 * n)] }, { "addresses": [ip(128, 2 * n + 1)] }] })
    };
    json!({ "set": {
        "namespaces": ["default"],
        "services": (0..SERVICES).map(service).collect::<Vec<_>>(),
        "slices": (0..SERVICES).map(slice).collect::<Vec<_>>(),
    } })
}

/// What resolvers ask: mostly addresses of services (one in ten is headless, with two), one in ten
/// a name that its search list made and that is not there, one in ten SRV.
fn queries() -> Vec<Vec<u8>> {
    let one = |n: usize| match n % 10 {
        3 => message(&format!("svc-{n}.default.svc.cluster.local.default.svc.cluster.local"), 1),
        7 => message(&format!("_http._tcp.svc-{n}.default.svc.cluster.local"), 33),
        _ => message(&format!("svc-{n}.default.svc.cluster.local"), 1),
    };
    // Not in order, so that no cache is flattered.
    (0..SERVICES).map(|n| one(n * 7919 % SERVICES)).collect()
}

fn message(name: &str, kind: u8) -> Vec<u8> {
    let mut query = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).unwrap_or(0));
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, kind, 0, 1]);
    query
}

fn socket(server: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    Ok(socket)
}

/// What is answered fast must also be right: one of each kind of query is looked at.
fn check(server: SocketAddr, queries: &[Vec<u8>]) -> io::Result<()> {
    let socket = socket(server)?;
    for (n, query) in queries.iter().enumerate().take(10) {
        // Of the headless services' two endpoints both are there; services count by tens.
        let wanted = match n * 7919 % SERVICES % 10 {
            0 => (0, 2),
            3 => (3, 0),
            _ => (0, 1),
        };
        let mut buffer = [0; 512];
        socket.send(query)?;
        socket.recv(&mut buffer)?;
        let seen = (buffer[3] & 0xf, buffer[7]);
        if seen != wanted {
            return Err(io::Error::other(format!("query {n}: code and answers {seen:?} instead of {wanted:?}")));
        }
    }
    Ok(())
}

/// Ask as fast as answers come; answers a second, and answers in all.
fn flood(server: SocketAddr, queries: &[Vec<u8>], time: Duration) -> io::Result<(f64, f64)> {
    let socket = socket(server)?;
    let mut next = queries.iter().cycle();
    let mut ask = |socket: &UdpSocket| next.next().map_or(Ok(0), |q| socket.send(q));
    (0..WINDOW).try_for_each(|_| ask(&socket).map(drop))?;
    let (mut answered, mut buffer) = (0u64, [0; 4096]);
    let started = Instant::now();
    while started.elapsed() < time {
        match socket.recv(&mut buffer) {
            Ok(_) => {
                answered += 1;
                ask(&socket)?;
            }
            // One that was lost is made up for.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => drop(ask(&socket)?),
            Err(e) => return Err(e),
        }
    }
    Ok((answered as f64 / started.elapsed().as_secs_f64(), answered as f64))
}

/// Ask at a steady rate; the delay in milliseconds that 99 of 100 answers stay below, and how many
/// never came. A query that is sent late counts from when it was due.
fn pace(server: SocketAddr, queries: &[Vec<u8>], rate: f64, time: Duration) -> io::Result<(f64, f64)> {
    let socket = socket(server)?;
    socket.set_nonblocking(true)?;
    let mut due: HashMap<u16, Duration> = HashMap::new();
    let (mut delays, mut sent, mut lost) = (Vec::new(), 0u64, 0u64);
    let mut buffer = [0; 4096];
    let started = Instant::now();
    while started.elapsed() < time + Duration::from_millis(100) {
        let at = Duration::from_secs_f64(sent as f64 / rate);
        let now = started.elapsed();
        if now >= at && at < time {
            let mut query = queries[sent as usize % queries.len()].clone();
            let id = (sent % 65536) as u16;
            query[..2].copy_from_slice(&id.to_be_bytes());
            socket.send(&query)?;
            sent += 1;
            lost += u64::from(due.insert(id, at).is_some());
        }
        while let Ok(length) = socket.recv(&mut buffer) {
            if let Some(at) = due.remove(&u16::from_be_bytes([buffer[0], buffer[1]])).filter(|_| length > 12) {
                delays.push(started.elapsed().saturating_sub(at));
            }
        }
    }
    delays.sort();
    let p99 = delays.get(delays.len() * 99 / 100).ok_or_else(|| io::Error::other("no answer came"))?;
    Ok((p99.as_secs_f64() * 1e3, (lost + due.len() as u64) as f64))
}
