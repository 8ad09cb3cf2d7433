//! How fast packets go from pod to pod over each back end: one TCP stream and a ping, between
//! pods of two hosts. iperf3 sends where it is installed, otherwise a sender of our own.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::labs::{Labs, path};

/// What one back end carries.
pub struct Speed {
    pub backend: &'static str,
    pub gigabits: f64,
    /// Milliseconds there and back, on average; `None` where there is no ping program.
    pub ping: Option<f64>,
}

/// Which sender there is.
#[derive(Clone, Copy, PartialEq)]
pub enum Sender {
    Iperf3,
    BuiltIn,
}

impl Sender {
    pub fn choose() -> Sender {
        if is_installed("iperf3") { Sender::Iperf3 } else { Sender::BuiltIn }
    }

    pub fn name(self) -> &'static str {
        match self {
            Sender::Iperf3 => "iperf3",
            Sender::BuiltIn => "the built-in sender",
        }
    }
}

fn is_installed(program: &str) -> bool {
    let quiet = || Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet().is_ok_and(|s| s.success()) || quiet().is_ok_and(|s| s.code() == Some(2))
}

/// A receiver in a pod; it ends with this value.
struct Receiver(Child);

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const PORT: &str = "5201";

pub fn measure(labs: &Labs, backend: &'static str, sender: Sender, seconds: u32) -> io::Result<Speed> {
    let lab = labs.up(backend, 2, 2)?;
    let address = address_of(labs, "p-2")?;
    let gigabits = throughput(labs, sender, &address, seconds)?;
    let ping = if is_installed("ping") { Some(ping(labs, &address)?) } else { None };
    lab.down()?;
    Ok(Speed { backend, gigabits, ping })
}

pub fn address_of(labs: &Labs, pod: &str) -> io::Result<String> {
    let list: Value = serde_json::from_str(&labs.ask(&["get", "pods", "-o", "json"])?)?;
    let pods = list["items"].as_array().cloned().unwrap_or_default();
    let found = pods.iter().find(|p| p["metadata"]["name"] == pod).and_then(|p| p["status"]["podIP"].as_str());
    found.map(str::to_owned).ok_or_else(|| io::Error::other(format!("pod {pod} has no address")))
}

pub fn throughput(labs: &Labs, sender: Sender, address: &str, seconds: u32) -> io::Result<f64> {
    let own = std::env::current_exe()?;
    let (own, seconds) = (path(&own)?, seconds.to_string());
    let receive: &[&str] = match sender {
        Sender::Iperf3 => &["iperf3", "-s", "-1", "-p", PORT, "--forceflush"],
        Sender::BuiltIn => &[own, "receive", PORT],
    };
    let _receiver = listen(labs, receive)?;
    match sender {
        Sender::Iperf3 => {
            let words = ["exec", "p-1", "--", "iperf3", "-c", address, "-p", PORT, "-t", &seconds, "-J"];
            let report: Value = serde_json::from_str(&labs.ask(&words)?)?;
            let bits = report["end"]["sum_received"]["bits_per_second"].as_f64();
            bits.map(|b| b / 1e9).ok_or_else(|| io::Error::other("iperf3 reported no throughput"))
        }
        Sender::BuiltIn => {
            let said = labs.ask(&["exec", "p-1", "--", own, "send", address, PORT, &seconds])?;
            said.trim().parse().map_err(io::Error::other)
        }
    }
}

/// Start a receiver in the second pod and wait until it says that it listens.
fn listen(labs: &Labs, words: &[&str]) -> io::Result<Receiver> {
    let mut command = labs.command(&["exec", "p-2", "--"]);
    let mut child = command.args(words).stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take();
    let receiver = Receiver(child);
    let Some(stdout) = stdout else { return Err(io::Error::other("no pipe")) };
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) = lines.next().transpose()? {
        if line.contains("listening") {
            // Whatever it says later must find room.
            std::thread::spawn(move || lines.for_each(drop));
            return Ok(receiver);
        }
    }
    Err(io::Error::other("the receiver ended before it listened"))
}

/// `rtt min/avg/max/mdev = 0.03/0.04/…`
fn ping(labs: &Labs, address: &str) -> io::Result<f64> {
    let said = labs.ask(&["exec", "p-1", "--", "ping", "-q", "-c", "100", "-i", "0.01", address])?;
    let average = said.lines().find_map(|l| l.split_once(" = ")?.1.split('/').nth(1)?.parse().ok());
    average.ok_or_else(|| io::Error::other(format!("ping said: {said}")))
}

/// `receive PORT`: take one stream.
pub fn receive(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", port))?;
    let mut out = io::stdout();
    writeln!(out, "listening")?;
    out.flush()?;
    let (mut stream, _) = listener.accept()?;
    let mut buffer = vec![0; 128 * 1024];
    let mut all: u64 = 0;
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            n => all += n as u64,
        }
    }
    // The sender counts what has arrived.
    stream.write_all(&all.to_be_bytes())
}

/// `send ADDRESS PORT SECONDS`: send as fast as it goes and print the gigabits per second that
/// have arrived.
pub fn send(address: &str, port: u16, seconds: u64) -> io::Result<()> {
    let mut stream = TcpStream::connect((address, port))?;
    let buffer = vec![0x5a; 128 * 1024];
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(seconds) {
        stream.write_all(&buffer)?;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut all = [0; 8];
    stream.read_exact(&mut all)?;
    let bits = u64::from_be_bytes(all) as f64 * 8.0;
    println!("{}", bits / started.elapsed().as_secs_f64() / 1e9);
    Ok(())
}
