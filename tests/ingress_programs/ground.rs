//! What tests stand on: a controller's process, told what to do as the daemon tells it, and the
//! endpoints it leads to.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use labctl::objects::ObjectKey;
use labctl::plan::ingress::{
    Backend, BackendProtocol, Certificate, Endpoint, HostPattern, Location, Options, PathPattern, Routing, Server,
    Source, Tls, Update,
};
use labctl::workload::ingress::{Config, Driver, VERB};

/// How long anything that is waited for may take. Far more than it needs, for slow machines.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Wait until `condition` holds. What is waited for is said where it does not come.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "after {PATIENCE:?} still not: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Wait until `condition` holds and goes on to hold: while a worker is replaced both may answer.
#[track_caller]
pub fn settles(what: &str, mut condition: impl FnMut() -> bool) {
    let mut times = 0;
    until(what, || {
        times = if condition() { times + 1 } else { 0 };
        times == 30
    });
}

/// What a test of `program` lacks here.
pub fn missing(program: &str, test: &str) -> Option<String> {
    let there = |name: &str| {
        ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().any(|place| Path::new(place).join(name).exists())
    };
    let mut needed = vec!["unshare", "curl"];
    needed.extend(["nginx", "haproxy"].iter().filter(|p| **p == program));
    needed.extend((program == "command").then_some("python3"));
    needed.extend(test.contains("under_load").then_some("wrk"));
    let missing = needed.into_iter().find(|name| !there(name)).map(|name| format!("needs {name}"));
    let cases = test.contains("recorded").then(cases_file);
    missing.or_else(|| cases.filter(Option::is_none).map(|_| "needs ../shared".to_owned()))
}

/// The recorded cases, beside the project or one folder further out.
pub fn cases_file() -> Option<PathBuf> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = "shared/conformance/ingress/path_cases.json";
    ["..", "../.."].iter().map(|up| project.join(up).join(file)).find(|path| path.exists())
}

/// A place for one controller.
pub struct Ground {
    pub program: String,
    dir: tempfile::TempDir,
}

impl Ground {
    pub fn new(program: &str) -> Ground {
        Ground { program: program.to_owned(), dir: tempfile::tempdir_in("/tmp").unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn config(&self) -> Config {
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let driver = match self.program.as_str() {
            "nginx" => Driver::Nginx,
            "haproxy" => Driver::Haproxy,
            _ => Driver::BuiltIn,
        };
        Config { driver, http: at(80), https: at(443), health: at(10254), directory: self.path("run") }
    }

    /// A controller that serves `routing`.
    pub fn serving(&self, routing: &Routing, endpoints: &[(&str, &[SocketAddr])]) -> Controller {
        let mut controller = Controller::start(&self.config());
        controller.endpoints(endpoints);
        controller.tell(&Update::Routing(Box::new(routing.clone())));
        controller.hears("ready");
        controller
    }
}

/// The process `lab-ingress`.
pub struct Controller {
    process: Child,
    control: Option<ChildStdin>,
    said: Arc<Mutex<Vec<String>>>,
    logged: Arc<Mutex<Vec<String>>>,
    pub directory: PathBuf,
}

impl Controller {
    pub fn start(config: &Config) -> Controller {
        let mut process = Command::new(env!("CARGO_BIN_EXE_labctl"))
            .args([VERB, &serde_json::to_string(config).unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = collect(process.stdout.take().unwrap());
        let logged = collect(process.stderr.take().unwrap());
        let control = process.stdin.take();
        Controller { process, control, said, logged, directory: config.directory.clone() }
    }

    pub fn tell(&mut self, update: &Update) {
        let line = serde_json::to_string(update).unwrap();
        writeln!(self.control.as_mut().unwrap(), "{line}").unwrap();
    }

    pub fn routing(&mut self, routing: &Routing) {
        self.tell(&Update::Routing(Box::new(routing.clone())));
    }

    pub fn endpoints(&mut self, all: &[(&str, &[SocketAddr])]) {
        let pod = |address: &SocketAddr| Endpoint { address: *address, pod: String::new() };
        let all = all.iter().map(|(name, of)| ((*name).to_owned(), of.iter().map(pod).collect()));
        self.tell(&Update::Endpoints(all.collect()));
    }

    /// Wait for a line on standard output that begins like this.
    #[track_caller]
    pub fn hears(&self, what: &str) -> String {
        self.line(&self.said, what, |line, what| line.starts_with(what))
    }

    /// Wait for a line of the log that has this in it.
    #[track_caller]
    pub fn logs(&self, what: &str) -> String {
        self.line(&self.logged, what, |line, what| line.contains(what))
    }

    #[track_caller]
    fn line(&self, lines: &Mutex<Vec<String>>, what: &str, fits: impl Fn(&str, &str) -> bool) -> String {
        let started = Instant::now();
        loop {
            if let Some(line) = lines.lock().unwrap().iter().find(|line| fits(line, what)) {
                return line.clone();
            }
            let log = || self.log();
            assert!(started.elapsed() < PATIENCE, "no {what:?} after {PATIENCE:?}; the log:\n{}", log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn log(&self) -> String {
        self.logged.lock().unwrap().join("\n")
    }

    /// How many lines on standard output begin like this.
    pub fn heard(&self, what: &str) -> usize {
        self.said.lock().unwrap().iter().filter(|line| line.starts_with(what)).count()
    }

    /// Wait for its end. Returns whether it ended well.
    #[track_caller]
    pub fn ended(&mut self) -> bool {
        until("the controller ends", || self.process.try_wait().unwrap().is_some());
        self.process.wait().unwrap().success()
    }

    pub fn hang_up(&mut self) {
        drop(self.control.take());
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the controller's log\n{}", self.log());
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn collect(from: impl std::io::Read + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let to = Arc::clone(&lines);
    std::thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            to.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned());
        }
    });
    lines
}

/// Processes of a name in this PID namespace that live, by number.
pub fn processes(name: &str) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok());
    let is = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name);
    // Nobody waits for those whose parent has ended.
    let lives = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.contains(") Z ")
    };
    let mut found: Vec<i32> = pids.filter(is).filter(lives).collect();
    found.sort_unstable();
    found
}

/// A routing as it is put together.
#[derive(Default)]
pub struct Rules(pub Routing);

/// `default-NAME-80`.
pub fn backend_name(service: &str) -> String {
    format!("default-{service}-80")
}

impl Rules {
    pub fn new() -> Rules {
        Rules::default()
    }

    /// A path of a host that leads to a service; `change` sets its options.
    pub fn path(mut self, host: &str, path: PathPattern, service: &str, change: impl FnOnce(&mut Options)) -> Rules {
        let name = backend_name(service);
        let key = ObjectKey::new("default", service);
        let backend = Backend { service: key, port: "80".to_owned(), protocol: BackendProtocol::Http, affinity: None };
        self.0.backends.entry(name.clone()).or_insert(backend);
        let mut options = Options::default();
        change(&mut options);
        let source = source(&format!("spec.rules[0].http.paths[{}]", self.0.backends.len()));
        let location = Location { path, backend: name, options, source };
        let host = HostPattern::of(host);
        match self.0.servers.iter_mut().find(|s| s.host == host) {
            Some(server) => server.locations.push(location),
            None => self.0.servers.push(Server { host, tls: None, locations: vec![location] }),
        }
        self.0.servers.sort_by(|a, b| a.host.cmp(&b.host));
        self
    }

    pub fn prefix(self, host: &str, path: &str, service: &str) -> Rules {
        self.path(host, PathPattern::Prefix(path.to_owned()), service, |_| {})
    }

    pub fn backend(mut self, service: &str, change: impl FnOnce(&mut Backend)) -> Rules {
        change(self.0.backends.get_mut(&backend_name(service)).unwrap());
        self
    }

    /// Give a host a certificate; every other name has the default one.
    pub fn tls(mut self, host: &str, certificate: &Certificate) -> Rules {
        let secret = "default/cafe-secret".to_owned();
        let tls = Tls { certificate: Some(secret.clone()), source: source("spec.tls[0]") };
        self.0.certificates.insert(secret, certificate.clone());
        self.0.default_certificate.get_or_insert_with(|| self_signed("fake.example.com"));
        self.0.servers.iter_mut().filter(|s| s.host == HostPattern::of(host)).for_each(|s| s.tls = Some(tls.clone()));
        self
    }

    pub fn field(mut self, name: &str, value: &str) -> Rules {
        self.0.settings.fields.insert(name.to_owned(), value.to_owned());
        self
    }
}

fn source(field: &str) -> Source {
    Source { ingress: ObjectKey::new("default", "cafe"), field: field.to_owned() }
}

pub fn self_signed(host: &str) -> Certificate {
    let made = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
    Certificate { chain: made.cert.pem(), key: made.signing_key.serialize_pem() }
}

/// Counts by who answered.
pub type Counts = BTreeMap<String, usize>;
