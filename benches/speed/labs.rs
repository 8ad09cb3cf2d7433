//! labctl as a person runs it: lab files, the program itself, and what it says of its labs.

use std::fmt::Write as _;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::timed;

/// A directory of labs and a runtime directory of the benchmark's own.
pub struct Labs {
    dir: tempfile::TempDir,
    /// Ends what still runs when our end of its standard input closes, also when we are killed.
    _sweeper: Child,
}

/// A lab that runs. It ends with this value, however the benchmark ends.
pub struct Running<'a> {
    labs: &'a Labs,
    name: &'static str,
    /// From typing `up` to its return.
    pub up: Duration,
    ended: bool,
}

/// A file with hosts on one network and pods spread over them, each with a port.
pub fn text(backend: &str, hosts: u32, pods: u32) -> String {
    let length = if pods.div_ceil(hosts) > 250 { 22 } else { 24 };
    let mut text = format!(
        "name: bench\ncluster: {{ podCIDR: 10.244.0.0/16, flannel: {{ backend: {backend}, subnetLen: {length} }} }}\n\
         networks: {{ net: {{ cidr: 192.168.0.0/16 }} }}\nhosts:\n"
    );
    for host in 1..=hosts {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  node{host}: {{ network: net }}");
    }
    text + &format!("deployments: {{ p: {{ replicas: {pods}, labels: {{ app: p }}, ports: [8080] }} }}\n")
}

impl Labs {
    pub fn new() -> io::Result<Labs> {
        let dir = tempfile::tempdir()?;
        let mut sweeper = crate::others::helper(&["sweep", path(&dir.path().join("run"))?])?;
        // A group of its own: Ctrl-C is for the benchmark.
        let sweeper = sweeper.stdin(Stdio::piped()).process_group(0).spawn()?;
        Ok(Labs { dir, _sweeper: sweeper })
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_labctl"));
        command.args(words).env("LABCTL_RUNTIME_DIR", self.dir.path().join("run")).stdin(Stdio::null());
        command
    }

    /// What labctl printed, or an error with what it complained of.
    pub fn ask(&self, words: &[&str]) -> io::Result<String> {
        said(words, self.command(words).output()?)
    }

    /// Build a lab and time it.
    pub fn up(&self, backend: &str, hosts: u32, pods: u32) -> io::Result<Running<'_>> {
        self.up_text(&text(backend, hosts, pods))
    }

    /// Build the lab of a file, which must call it `bench`.
    pub fn up_text(&self, text: &str) -> io::Result<Running<'_>> {
        let file: PathBuf = self.dir.path().join("bench.yaml");
        std::fs::write(&file, text)?;
        let file = path(&file)?;
        let (up, answer) = timed(|| self.ask(&["up", "--no-probes", file]));
        answer?;
        Ok(Running { labs: self, name: "bench", up, ended: false })
    }
}

/// `sweep DIRECTORY`: when standard input ends, end the labs of this runtime directory.
pub fn sweep(dir: &str) -> io::Result<()> {
    io::copy(&mut io::stdin().lock(), &mut io::sink())?;
    if !Path::new(dir).is_dir() {
        return Ok(());
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_labctl"));
    command.args(["down", "--all"]).env("LABCTL_RUNTIME_DIR", dir).stdout(Stdio::null()).status()?;
    Ok(())
}

impl Running<'_> {
    /// End the lab; how long `down` took to return.
    pub fn down(mut self) -> io::Result<Duration> {
        let (took, answer) = timed(|| self.labs.ask(&["down", self.name]));
        answer?;
        self.ended = true;
        Ok(took)
    }

    /// VmRSS of the daemon in KiB.
    pub fn memory(&self) -> io::Result<u64> {
        let status: Value = serde_json::from_str(&self.labs.ask(&["status", "-o", "json"])?)?;
        let found = find(&status, "memory_kib").and_then(Value::as_u64);
        found.ok_or_else(|| io::Error::other(format!("no memory_kib in {status}")))
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.ended {
            // Nothing is left to tell it to.
            let _ = self.labs.ask(&["down", self.name]);
        }
    }
}

fn find<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    match value {
        Value::Object(map) => map.get(key).or_else(|| map.values().find_map(|v| find(v, key))),
        Value::Array(all) => all.iter().find_map(|v| find(v, key)),
        _ => None,
    }
}

pub fn path(path: &Path) -> io::Result<&str> {
    path.to_str().ok_or_else(|| io::Error::other("a path that is not UTF-8"))
}

pub fn said(what: &[&str], output: Output) -> io::Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("`{}` ended with {}: {}", what.join(" "), output.status, why.trim())))
}

/// Each namespace is a descriptor; the soft limit is often 1024.
pub fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
