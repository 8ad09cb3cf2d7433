//! What it costs to follow a pod: one TCP stream between pods of two hosts, and requests one after the other,
//! with and without somebody who follows the sender, in turns. A long run also tells what requests gain where one of the
//! means of following is left out, which is what that costs.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::labs::{Labs, path};
use crate::report::Figure;
use crate::traffic::{Sender, address_of, throughput};

/// What following may leave of the throughput.
const WANTED: f64 = 0.5;
/// The port of the pods' echo server.
const PORT: u16 = 8080;

/// By what packets are followed beside taps, as `--without` has it.
const MEANS: [&str; 4] = ["rules", "conntrack", "drops", "senders"];

/// Somebody who follows a pod; it ends with this value.
struct Following(Child);

impl Following {
    /// Returns when packets are watched.
    fn start(labs: &Labs, without: Option<&str>) -> io::Result<Following> {
        let mut command = labs.command(&["trace", "--follow", "p-1"]);
        command.args(without.map(|means| format!("--without={means}")));
        let mut following = Following(command.stdout(Stdio::piped()).spawn()?);
        let stdout = following.0.stdout.take().ok_or_else(|| io::Error::other("no pipe"))?;
        let mut lines = BufReader::new(stdout).lines();
        lines.next().transpose()?.ok_or_else(|| io::Error::other("it ended before it followed"))?;
        // Whatever it tells must find room.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(following)
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Rates with and without, and their ratios.
pub fn measure(quick: bool) -> io::Result<Vec<Figure>> {
    let (runs, seconds) = if quick { (2, 2) } else { (5, 4) };
    let labs = Labs::new()?;
    let lab = labs.up("vxlan", 2, 2)?;
    let (address, sender) = (address_of(&labs, "p-2")?, Sender::choose());
    // First without, then with.
    let (mut streams, mut requests) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for _ in 0..runs {
        for with in [0, 1] {
            let _following = if with == 1 { Some(Following::start(&labs, None)?) } else { None };
            streams[with].push(throughput(&labs, sender, &address, seconds)?);
            requests[with].push(rate(&labs, &address, seconds)?);
        }
    }
    let mut parts = Vec::new();
    for means in MEANS.iter().filter(|_| !quick) {
        let mut both = [Vec::new(), Vec::new()];
        for _ in 0..runs {
            for (of, without) in both.iter_mut().zip([None, Some(*means)]) {
                let _following = Following::start(&labs, without)?;
                of.push(rate(&labs, &address, seconds)?);
            }
        }
        let [with, without] = both.map(middle);
        let what = format!("requests between hosts, followed: without {means} to with all");
        parts.push(Figure { what, value: without / with.max(1e-9), unit: "times", target: None });
    }
    lab.down()?;
    let mut figures = rates(format!("TCP between hosts ({})", sender.name()), streams, "Gbit/s");
    figures.extend(rates("requests between hosts".to_owned(), requests, "requests/s"));
    figures.extend(parts);
    Ok(figures)
}

fn middle(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or_default()
}

fn rates(what: String, all: [Vec<f64>; 2], unit: &'static str) -> Vec<Figure> {
    let [without, with] = all.map(middle);
    vec![
        Figure { what: what.clone(), value: without, unit, target: None },
        Figure { what: format!("{what}, followed"), value: with, unit, target: None },
        Figure {
            what: format!("{what}: followed to not"),
            value: with / without.max(1e-9),
            unit: "times",
            target: Some((">=", WANTED)),
        },
    ]
}

fn rate(labs: &Labs, address: &str, seconds: u32) -> io::Result<f64> {
    let own = std::env::current_exe()?;
    let said = labs.ask(&["exec", "p-1", "--", path(&own)?, "requests", address, &seconds.to_string()])?;
    said.trim().parse().map_err(io::Error::other)
}

/// `requests ADDRESS SECONDS`: ask the echo server again and again, each time on a connection of its own, and
/// print how often a second.
pub fn requests(address: &str, seconds: u64) -> io::Result<()> {
    let (started, mut count) = (Instant::now(), 0u32);
    let mut answer = Vec::new();
    while started.elapsed() < Duration::from_secs(seconds) {
        let mut stream = TcpStream::connect((address, PORT))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: p-2\r\nConnection: close\r\n\r\n")?;
        answer.clear();
        stream.read_to_end(&mut answer)?;
        if !answer.starts_with(b"HTTP/1.1 200") {
            return Err(io::Error::other("the echo server gave no answer"));
        }
        count += 1;
    }
    println!("{}", f64::from(count) / started.elapsed().as_secs_f64());
    Ok(())
}
