//! How many requests a second go through each ingress controller, and how long the slowest hundredth
//! takes: the real processes over loopback in a namespace of its own, each on one core with the same
//! routing, asked by wrk from the other. The endpoints behind them are an nginx of this program's
//! own, on wrk's core. And whether a request fails while endpoints come and go.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use labctl::kernel::ns::NetNs;
use labctl::objects::ObjectKey;
use labctl::plan::ingress::{
    Backend, BackendProtocol, Certificate, Endpoint, Endpoints, HostPattern, Location, Options, PathPattern, Routing,
    Server, Source, Tls, Update,
};
use labctl::workload::ingress::{Config, Driver, VERB};

use crate::dns::pin;
use crate::report::Figure;

const CONTROLLERS: [(&str, Driver); 3] =
    [("built-in", Driver::BuiltIn), ("nginx", Driver::Nginx), ("haproxy", Driver::Haproxy)];
/// How many requests the built-in controller should serve where nginx serves one.
const WANTED: f64 = 0.8;
const CONNECTIONS: &str = "50";
/// The ports of the two endpoints.
const ENDPOINTS: [u16; 2] = [9001, 9002];
const BACKEND: &str = "default-web-80";
/// How often endpoints change under load.
const BEAT: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(20);

/// What is asked for.
const KINDS: [(&str, &str); 4] = [
    ("http, small", "http://127.0.0.1/small"),
    ("http, 1 MB", "http://127.0.0.1/big"),
    ("https, small", "https://127.0.0.1/small"),
    ("https, 1 MB", "https://127.0.0.1/big"),
];

/// Rates and delays of all controllers, kind by kind, so that a busy moment meets them all.
pub fn measure(quick: bool) -> io::Result<Vec<Figure>> {
    std::thread::spawn(move || {
        NetNs::create_and_enter()?;
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status()?;
        if !up.success() {
            return Err(io::Error::other("loopback cannot be set up"));
        }
        inside(if quick { 2 } else { 8 })
    })
    .join()
    .map_err(|_| io::Error::other("the measuring thread panicked"))?
}

fn inside(seconds: u32) -> io::Result<Vec<Figure>> {
    let directory = tempfile::tempdir()?;
    let _endpoints = endpoints(&directory.path().join("endpoints"))?;
    let figure = |what: String, value: f64, unit, target| Figure { what, value, unit, target };
    let mut rates: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut figures = Vec::new();
    for (name, driver) in &CONTROLLERS {
        let mut controller = Controller::start(driver, &directory.path().join(name))?;
        for (kind, url) in KINDS {
            let seen = wrk(url, seconds)?.wait()?;
            rates.entry(kind).or_default().push(seen.rate);
            figures.push(figure(format!("{name}: {kind}"), seen.rate, "requests/s", None));
            figures.push(figure(format!("{name}: {kind}, p99"), seen.p99, "ms", None));
        }
        let failed = controller.under_load(seconds)?;
        figures.push(figure(
            format!("{name}: failed while endpoints come and go"),
            failed,
            "requests",
            Some(("<", 1.0)),
        ));
    }
    let _plain = plain(&directory.path().join("plain"))?;
    for (kind, url) in KINDS {
        let seen = wrk(url, seconds)?.wait()?;
        rates.entry(kind).or_default().push(seen.rate);
        figures.push(figure(format!("plain nginx: {kind}"), seen.rate, "requests/s", None));
        figures.push(figure(format!("plain nginx: {kind}, p99"), seen.p99, "ms", None));
    }
    for (kind, rates) in rates {
        let [own, nginx, _, plain] = rates[..] else { continue };
        figures.push(figure(format!("{kind}: built-in to nginx"), own / nginx, "times", Some((">=", WANTED))));
        figures.push(figure(format!("{kind}: built-in to plain nginx"), own / plain, "times", None));
    }
    Ok(figures)
}

/// nginx as one writes it by hand: endpoints in the file, kept connections, no Lua, no log, no headers. It
/// does less than any controller and says what the others' work costs.
fn plain(directory: &Path) -> io::Result<Ended> {
    fs::create_dir_all(directory)?;
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).map_err(io::Error::other)?;
    fs::write(directory.join("both.pem"), signed.cert.pem() + &signed.signing_key.serialize_pem())?;
    let here = directory.display();
    let endpoints: String = ENDPOINTS.iter().map(|port| format!("server 127.0.0.1:{port}; ")).collect();
    let main = "events { worker_connections 16384; multi_accept on; }";
    let http = format!(
        "keepalive_requests 10000000; ssl_certificate {here}/both.pem; ssl_certificate_key {here}/both.pem;\n\
         upstream web {{ {endpoints} keepalive 320; keepalive_requests 10000000; }}\n\
         server {{ listen 80; listen 443 ssl http2; location / {{ proxy_http_version 1.1; proxy_buffering off;\n\
         proxy_set_header Connection \"\"; proxy_pass http://web; }} }}"
    );
    nginx(directory, (main, &http), 0, &[80, 443])
}

/// A process that ends with this value, with everything it started.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        if let Ok(group) = i32::try_from(self.0.id()) {
            // The child leads a group of its own and has not been waited for.
            let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(group), nix::sys::signal::Signal::SIGKILL);
        }
        let _ = self.0.wait();
    }
}

/// Start `command` on one core, as the leader of a group.
fn start(command: &mut Command, core: usize) -> io::Result<Ended> {
    command.process_group(0);
    // SAFETY: one system call on memory of its own.
    unsafe {
        command.pre_exec(move || pin(core));
    }
    Ok(Ended(command.spawn()?))
}

/// nginx with two ports that answer a few bytes and a megabyte.
fn endpoints(directory: &Path) -> io::Result<Ended> {
    fs::create_dir_all(directory)?;
    fs::write(directory.join("big"), vec![b'x'; 1 << 20])?;
    let here = directory.display();
    let servers: String = ENDPOINTS
        .iter()
        .map(|port| format!("server {{ listen 127.0.0.1:{port}; location = /small {{ return 200 tea; }} }}\n"))
        .collect();
    let http = format!("root {here}; sendfile on; keepalive_requests 1000000;\n{servers}");
    nginx(directory, ("events { worker_connections 4096; }", &http), 1, &ENDPOINTS)
}

/// An nginx of one worker on one core, once it listens on these ports.
fn nginx(directory: &Path, (main, http): (&str, &str), core: usize, ports: &[u16]) -> io::Result<Ended> {
    let here = directory.display();
    let text = format!(
        "daemon off; user root; worker_processes 1; pid {here}/pid; error_log stderr;\n{main}\n\
         http {{ access_log off; client_body_temp_path {here}/body; proxy_temp_path {here}/proxy;\n\
         fastcgi_temp_path {here}/fastcgi; uwsgi_temp_path {here}/uwsgi; scgi_temp_path {here}/scgi;\n{http} }}\n"
    );
    let file = directory.join("nginx.conf");
    fs::write(&file, text)?;
    let nginx = start(Command::new("nginx").arg("-c").arg(&file).stderr(Stdio::null()), core)?;
    let begun = Instant::now();
    let all = || ports.iter().all(|port| std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_ok());
    while !all() {
        if begun.elapsed() > PATIENCE {
            return Err(io::Error::other("nginx does not listen"));
        }
        std::thread::yield_now();
    }
    Ok(nginx)
}

/// A controller's process, told one host without rules for names.
struct Controller {
    control: ChildStdin,
    _process: Ended,
}

impl Controller {
    fn start(driver: &Driver, directory: &Path) -> io::Result<Controller> {
        let config = Config { driver: driver.clone(), directory: directory.to_owned(), ..Config::default() };
        let mut command = Command::new(env!("CARGO_BIN_EXE_labctl"));
        command.args([VERB, &serde_json::to_string(&config)?]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = start(&mut command, 0)?;
        let (Some(control), Some(out)) = (process.0.stdin.take(), process.0.stdout.take()) else {
            return Err(io::Error::other("no pipes"));
        };
        let mut controller = Controller { control, _process: process };
        controller.tell(&Update::Endpoints(both(&ENDPOINTS)))?;
        controller.tell(&Update::Routing(Box::new(routing()?)))?;
        let ready = BufReader::new(out).lines().map_while(Result::ok).any(|line| line == "ready");
        if ready { Ok(controller) } else { Err(io::Error::other(format!("{driver:?} did not become ready"))) }
    }

    fn tell(&mut self, update: &Update) -> io::Result<()> {
        let mut line = serde_json::to_vec(update)?;
        line.push(b'\n');
        self.control.write_all(&line)
    }

    /// Requests that fail while one endpoint after the other goes and comes back.
    fn under_load(&mut self, seconds: u32) -> io::Result<f64> {
        let mut asking = wrk("http://127.0.0.1/small", seconds)?;
        let sets: [&[u16]; 4] = [&ENDPOINTS, &ENDPOINTS[..1], &ENDPOINTS, &ENDPOINTS[1..]];
        for set in sets.iter().cycle() {
            self.tell(&Update::Endpoints(both(set)))?;
            if asking.ends_within(BEAT)? {
                break;
            }
        }
        Ok(asking.wait()?.failed)
    }
}

fn both(ports: &[u16]) -> Endpoints {
    let endpoint = |port: &u16| Endpoint {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, *port)),
        pod: format!("default/web-{port}"),
    };
    BTreeMap::from([(BACKEND.to_owned(), ports.iter().map(endpoint).collect())])
}

fn routing() -> io::Result<Routing> {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).map_err(io::Error::other)?;
    let certificate = Certificate { chain: signed.cert.pem(), key: signed.signing_key.serialize_pem() };
    let ingress = ObjectKey::new("default", "web");
    let source = |field: &str| Source { ingress: ingress.clone(), field: field.to_owned() };
    let location = Location {
        path: PathPattern::Prefix("/".to_owned()),
        backend: BACKEND.to_owned(),
        options: Options::default(),
        source: source("spec.rules[0].http.paths[0]"),
    };
    let tls = Some(Tls { certificate: None, source: source("spec.tls[0]") });
    let backend = Backend {
        service: ObjectKey::new("default", "web"),
        port: "80".to_owned(),
        protocol: BackendProtocol::Http,
        affinity: None,
    };
    let mut routing = Routing {
        servers: vec![Server { host: HostPattern::Any, tls, locations: vec![location] }],
        backends: BTreeMap::from([(BACKEND.to_owned(), backend)]),
        default_certificate: Some(certificate),
        ..Routing::default()
    };
    // All bring as many requests a connection as there is time for.
    routing.settings.keep_alive_requests = 10_000_000;
    Ok(routing)
}

/// wrk at work.
struct Asking(Ended);

/// What wrk saw.
struct Seen {
    /// Requests a second.
    rate: f64,
    /// In milliseconds.
    p99: f64,
    /// Answers that were not 2xx, and errors of sockets.
    failed: f64,
}

fn wrk(url: &str, seconds: u32) -> io::Result<Asking> {
    let mut command = Command::new("wrk");
    command.args(["-t1", "-c", CONNECTIONS, "-d", &format!("{seconds}s"), "--latency", url]).stdout(Stdio::piped());
    Ok(Asking(start(&mut command, 1)?))
}

impl Asking {
    /// Whether it ends before `time` is over.
    fn ends_within(&mut self, time: Duration) -> io::Result<bool> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            if self.0.0.try_wait()?.is_some() {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(false)
    }

    fn wait(mut self) -> io::Result<Seen> {
        let mut text = String::new();
        if let Some(out) = self.0.0.stdout.as_mut() {
            io::Read::read_to_string(out, &mut text)?;
        }
        let ended = self.0.0.wait()?;
        let seen = read(&text).filter(|_| ended.success());
        seen.ok_or_else(|| io::Error::other(format!("wrk said: {text}")))
    }
}

/// What wrk's report says.
fn read(text: &str) -> Option<Seen> {
    let behind = |label: &str| text.lines().find_map(|line| line.trim().strip_prefix(label)).map(str::trim);
    let rate = behind("Requests/sec:")?.parse().ok()?;
    let delay = behind("99%")?;
    let units = [("us", 1e-3), ("ms", 1.0), ("s", 1e3)];
    let p99 = units.iter().find_map(|(unit, factor)| Some(delay.strip_suffix(unit)?.parse::<f64>().ok()? * factor))?;
    let numbers =
        |line: &str| -> f64 { line.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<f64>().ok()).sum() };
    let failed =
        behind("Socket errors:").map_or(0.0, numbers) + behind("Non-2xx or 3xx responses:").map_or(0.0, numbers);
    Some(Seen { rate, p99, failed })
}
