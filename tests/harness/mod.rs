//! What the end-to-end tests stand on: a bench with a runtime directory, lab names and, for tests
//! as an ordinary user, a user of its own, and with the real program to run. What a test found is
//! printed when it fails, and nothing of its labs outlives it. What is tested is the tests' own.

#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod dice;
pub mod machine;
pub mod process;
pub mod tests;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything that is waited for may take. Far more than it needs, for slow machines.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Who a test is run as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Root,
    Ordinary,
    /// An ordinary user who may open /dev/net/tun, as on most distributions.
    WithTun,
}

/// A place to run labs from that no other test shares.
pub struct Bench {
    /// Holds the runtime directory, the lab files and, for another user, the program.
    dir: tempfile::TempDir,
    program: PathBuf,
    /// The user to become, where that is not the one who runs the tests.
    user: Option<u32>,
    /// Whether the bench's programs see a /dev/net/tun that anyone may open: one in a mount namespace
    /// of theirs, so that the machine's own stays as it is.
    open_tun: bool,
    /// A name that no other bench gives its lab.
    pub lab: String,
}

impl Bench {
    pub fn new(who: Who) -> Bench {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        // A number that belongs to nobody: a user needs no entry in any file to have processes.
        let root = nix::unistd::geteuid().is_root();
        let other = who != Who::Root && root;
        let user = other.then_some(200_000 + pid % 1_000_000 * 16 + number % 16);
        let dir = tempfile::Builder::new().prefix("labctl-e2e-").tempdir().expect("a directory");
        let mut program = PathBuf::from(env!("CARGO_BIN_EXE_labctl"));
        fs::create_dir(dir.path().join("run")).expect("the runtime directory");
        fs::set_permissions(dir.path().join("run"), fs::Permissions::from_mode(0o700)).expect("its mode");
        if let Some(uid) = user {
            // The program may lie where the other user cannot go.
            let copy = dir.path().join("labctl");
            fs::copy(&program, &copy).expect("a copy of the program");
            program = copy;
            for path in [dir.path().to_owned(), dir.path().join("run")] {
                chown(path, Some(uid), Some(uid)).expect("the user's own directory");
            }
        }
        Bench { dir, program, user, open_tun: who == Who::WithTun && root, lab: format!("e2e-{pid}-{number}") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The directory of running labs.
    pub fn runtime_dir(&self) -> PathBuf {
        self.path("run")
    }

    /// Whether the labs of this bench run as root.
    pub fn is_root(&self) -> bool {
        self.user.is_none() && nix::unistd::geteuid().is_root()
    }

    /// Write a lab file that gives the lab this bench's name.
    pub fn write(&self, text: &str) -> String {
        self.write_as(&self.lab, text)
    }

    /// Write a lab file for a lab called `name`.
    pub fn write_as(&self, name: &str, text: &str) -> String {
        let path = self.path(&format!("{name}.yaml"));
        fs::write(&path, format!("name: {name}\n{text}")).expect("a lab file");
        path.to_string_lossy().into_owned()
    }

    /// A program of the bench's user, with the bench's directory as its home.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut words: Vec<std::ffi::OsString> = Vec::new();
        if self.open_tun {
            let node = "mount -t tmpfs -o dev none /dev/net && mknod -m 666 /dev/net/tun c 10 200 && exec \"$@\"";
            words.extend(["unshare", "--mount", "sh", "-c", node, "sh"].map(Into::into));
        }
        if let Some(uid) = self.user {
            let (uid, gid) = (format!("--reuid={uid}"), format!("--regid={uid}"));
            words.extend(["setpriv", &uid, &gid, "--clear-groups"].map(Into::into));
        }
        words.push(program.as_ref().to_owned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command.env("LABCTL_RUNTIME_DIR", self.runtime_dir()).env("HOME", self.dir.path());
        // Lines wide enough that no message is broken where a test looks for it.
        command.env("COLUMNS", "1000").env_remove("XDG_RUNTIME_DIR").env_remove("NO_COLOR");
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    pub fn labctl(&self, args: &[&str]) -> Command {
        let mut command = self.command(&self.program);
        command.args(args);
        command
    }

    /// Run labctl to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.labctl(args), args)
    }

    /// Run labctl, which must succeed, and give what it printed.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        self.run(args).ends_with(0).stdout
    }

    /// Run a verb with `-o json`, which must succeed, and read its answer.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let mut all = args.to_vec();
        all.extend(["-o", "json"]);
        self.run(&all).ends_with(0).json()
    }

    /// Build or change the lab of a file with probes left out.
    #[track_caller]
    pub fn up(&self, file: &str) -> String {
        self.ok(&["up", file, "--no-probes"])
    }

    /// All probes of the lab must pass.
    #[track_caller]
    pub fn probes_pass(&self) {
        self.ok(&["probe"]);
    }

    /// The kernel must hold what the plan says.
    #[track_caller]
    pub fn is_as_planned(&self) {
        self.ok(&["diff"]);
    }

    /// Run a program on a machine of the lab.
    pub fn exec(&self, target: &str, command: &[&str]) -> Ran {
        let mut args = vec!["exec", target, "--"];
        args.extend(command);
        self.run(&args)
    }

    /// What a shell line prints on a machine of the lab.
    #[track_caller]
    pub fn sh(&self, target: &str, line: &str) -> String {
        self.exec(target, &["sh", "-c", line]).ends_with(0).stdout
    }

    /// The process of the lab's daemon, from `list`.
    #[track_caller]
    pub fn daemon(&self) -> i32 {
        let list = self.json(&["list"]);
        let pid = list[0]["pid"].as_i64().unwrap_or_else(|| panic!("no lab runs: {list}"));
        i32::try_from(pid).expect("a process id")
    }

    /// The names of the labs that run.
    #[track_caller]
    pub fn labs(&self) -> Vec<String> {
        let list = self.json(&["list"]);
        let names = list.as_array().expect("a list").iter().map(|l| l["name"].as_str().unwrap_or_default().to_owned());
        names.collect()
    }

    /// One pod as an object.
    #[track_caller]
    pub fn pod(&self, name: &str) -> Value {
        self.json(&["get", "pods", name])
    }

    /// A pod's address.
    #[track_caller]
    pub fn ip(&self, pod: &str) -> String {
        self.pod(pod)["status"]["podIP"].as_str().expect("an address").to_owned()
    }

    /// One line of `get pods`.
    #[track_caller]
    pub fn row(&self, pod: &str) -> String {
        self.ok(&["get", "pods", pod]).lines().nth(1).unwrap_or_default().to_owned()
    }

    /// Every process that was started for this bench, found by its environment.
    pub fn processes(&self) -> Vec<i32> {
        process::with_environment(&format!("LABCTL_RUNTIME_DIR={}", self.runtime_dir().display()))
    }

    /// Wait until none of them lives.
    #[track_caller]
    pub fn nothing_lives(&self) {
        until("every process of the bench's labs ends", || self.processes().is_empty());
    }

    /// What the runtime directory holds; nothing where no lab runs.
    pub fn leftovers(&self) -> Vec<String> {
        let entries = fs::read_dir(self.runtime_dir()).expect("the runtime directory");
        entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
    }

    fn show_state(&self) {
        eprintln!("--- the state that the test found");
        for lab in self.run(&["list", "-o", "json"]).json_or_null().as_array().into_iter().flatten() {
            let name = lab["name"].as_str().unwrap_or_default();
            for args in [&["status", name][..], &["get", "pods", "-o", "wide", "--lab", name], &["diff", name]] {
                eprintln!("{}", self.run(args));
            }
            let file = self.path(&format!("{name}.yaml"));
            if file.exists() {
                eprintln!("{}", self.run(&["plan", &file.to_string_lossy()]));
            }
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_state();
        }
        let ended = self.run(&["down", "--all"]);
        if ended.code != 0 && !std::thread::panicking() {
            panic!("the labs do not end: {ended}");
        }
    }
}

/// A program that has ended.
#[derive(Debug, Clone)]
pub struct Ran {
    pub what: String,
    /// Its exit code, or 128 and the number of the signal that ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn of(mut command: Command, args: &[&str]) -> Ran {
        let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        Ran::from_output(&output, &format!("labctl {}", args.join(" ")))
    }

    pub fn from_output(output: &Output, what: &str) -> Ran {
        use std::os::unix::process::ExitStatusExt;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let code = output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0));
        Ran { what: what.to_owned(), code, stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    #[track_caller]
    pub fn ends_with(self, code: i32) -> Ran {
        assert!(self.code == code, "it should have ended with {code}: {self}");
        self
    }

    /// Its standard error must have this in it.
    #[track_caller]
    pub fn says(self, what: &str) -> Ran {
        assert!(self.stderr.contains(what), "it should have said {what:?}: {self}");
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("no JSON ({e}): {self}"))
    }

    pub fn json_or_null(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_default()
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "$ {}\n{}{}[ended with {}]", self.what, self.stdout, self.stderr, self.code)
    }
}

/// Wait until `condition` holds. What is waited for is said where it does not come.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "after {PATIENCE:?} still not: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A program in the background, which is ended with the test.
pub struct Background(pub Child);

impl Background {
    pub fn start(mut command: Command) -> Background {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Background(child.unwrap_or_else(|e| panic!("{command:?}: {e}")))
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).expect("a process id")
    }

    /// Write a line to it.
    pub fn tell(&mut self, line: &str) {
        let stdin = self.0.stdin.as_mut().expect("a pipe");
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).expect("a reader");
    }

    /// The next line that it prints; empty at its end. Nothing else may have taken its output.
    pub fn line(&mut self) -> String {
        let stdout = self.0.stdout.as_mut().expect("a pipe");
        let (mut line, mut byte) = (Vec::new(), [0]);
        // Byte by byte, so that what follows stays in the pipe.
        while line.last() != Some(&b'\n') && stdout.read(&mut byte).expect("output") > 0 {
            line.push(byte[0]);
        }
        String::from_utf8_lossy(&line).into_owned()
    }

    /// Wait for its end, within limits.
    #[track_caller]
    pub fn end(&mut self) -> std::process::ExitStatus {
        until("the program ends", || self.0.try_wait().expect("a child").is_some());
        self.0.wait().expect("a child")
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A folder that stands beside the project, or one folder further out as beside a worktree.
pub fn beside_the_project(path: &str) -> Option<PathBuf> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    ["..", "../.."].into_iter().map(|up| project.join(up).join(path)).find(|p| p.exists())
}
