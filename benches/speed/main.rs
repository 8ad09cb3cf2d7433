//! How fast labctl is, as ratios that one run gives: its `up` and `down` beside the floor (see
//! [`floor`]), beside `ip` in a shell loop and Mininet, and each back end beside host-gw.
//!
//! `cargo bench`, or `cargo bench -- --quick`. `--only HOSTSxPODS` measures one size and nothing
//! else, without the slow comparisons; `--only proxy` kube-proxy's rules, `--only dns` the DNS server,
//! `--only ingress` the ingress controllers (which needs wrk, nginx and haproxy), `--only trace` traces, `--only follow` what
//! following a pod costs. It
//! prints tables and, as the last line, JSON. Figures that
//! miss their target are marked; only what cannot be measured is an error. Nothing is left on the
//! machine, and its own network is not touched.
//!
//! Runs of different things take turns, so that a busy moment of the machine meets them all.

mod dns;
mod floor;
mod follow;
mod ingress;
mod inside;
mod labs;
mod others;
mod proxy;
mod report;
mod trace;
mod traffic;
mod wire;

use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use labs::Labs;
use others::Took;
use report::{Figure, Row, median, milliseconds};
use traffic::Sender;

/// What is measured, and how often.
struct Scope {
    sizes: Vec<(u32, u32)>,
    runs: usize,
    /// Whether only the sizes are of interest.
    only: bool,
    quick: bool,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match helper(&words) {
        Some(outcome) => outcome,
        None if words.iter().any(|w| w == "--bench") => run(&words),
        // `cargo test --all-targets` starts benchmarks without that word.
        None => {
            eprintln!("nothing is measured: start it as `cargo bench`, with `-- --quick` for a short run");
            Ok(())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("speed: {e}");
            ExitCode::FAILURE
        }
    }
}

/// The programs that this one becomes for its own use.
fn helper(words: &[String]) -> Option<io::Result<()>> {
    let number = |i: usize| words.get(i).and_then(|w| w.parse::<u32>().ok()).unwrap_or(0);
    let port = |i: usize| u16::try_from(number(i)).unwrap_or(0);
    match words.first()?.as_str() {
        "floor" => Some(floor::run(number(1).max(1), number(2))),
        "inside" => Some(inside::run(&words[1..])),
        "sweep" => Some(labs::sweep(words.get(1)?)),
        "proxy" => Some(proxy::run(number(1), number(2).max(1) as usize)),
        "drained" => Some(inside::drained()),
        "receive" => Some(traffic::receive(port(1))),
        "requests" => Some(follow::requests(words.get(1)?, u64::from(number(2)))),
        "send" => Some(traffic::send(words.get(1)?, port(2), u64::from(number(3)))),
        _ => None,
    }
}

pub fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let started = Instant::now();
    let result = work();
    (started.elapsed(), result)
}

fn scope(words: &[String]) -> io::Result<Scope> {
    let quick = words.iter().any(|w| w == "--quick");
    let runs = if quick { 3 } else { 5 };
    if let Some(at) = words.iter().position(|w| w == "--only") {
        let size = words.get(at + 1).and_then(|w| w.split_once('x'));
        let size = size.and_then(|(h, p)| Some((h.parse().ok()?, p.parse().ok()?)));
        let size = size.ok_or_else(|| io::Error::other("--only wants HOSTSxPODS, such as 10x1000"))?;
        return Ok(Scope { sizes: vec![size], runs, only: true, quick });
    }
    let sizes = if quick {
        vec![(1, 10), (1, 100), (10, 100)]
    } else {
        [10, 100, 1000].into_iter().flat_map(|pods| [1, 2, 10].map(|hosts| (hosts, pods))).collect()
    };
    Ok(Scope { sizes, runs, only: false, quick })
}

type Measure = fn(bool) -> io::Result<Vec<Figure>>;

/// What `--only` measures by name.
const ALONE: [(&str, Measure); 5] = [
    ("proxy", proxy::figures),
    ("dns", dns::measure),
    ("ingress", ingress::measure),
    ("trace", trace::measure),
    ("follow", follow::measure),
];

fn run(words: &[String]) -> io::Result<()> {
    let quick = words.iter().any(|w| w == "--quick");
    let only = words.iter().position(|w| w == "--only").and_then(|at| words.get(at + 1));
    if let Some((_, measure)) = ALONE.iter().find(|(name, _)| only.is_some_and(|o| o == name)) {
        let figures = measure(quick)?;
        println!("{}\n\n{}", report::figures(&figures), report::json(&[], &figures, &[]));
        return Ok(());
    }
    let scope = scope(words)?;
    let labs = Labs::new()?;
    let scratch = tempfile::tempdir()?;
    let mut notes = Vec::new();
    let mininet = !scope.only && others::has_mininet();
    if !scope.only && !mininet {
        notes.push("Mininet: not installed".to_owned());
    }
    let mut rows = Vec::new();
    for &(hosts, pods) in &scope.sizes {
        eprintln!("measuring {pods} pods on {hosts} hosts");
        rows.extend(own_rows(&labs, &scope, hosts, pods)?);
        if scope.only {
            continue;
        }
        // These take seconds to minutes; one run of the largest is enough to tell.
        let runs = if pods >= 1000 || scope.quick { 1 } else { 3 };
        rows.push(repeat("ip loop", (hosts, pods), runs, || others::shell_loop(scratch.path(), hosts, pods))?);
        rows.push(repeat("ip -batch", (hosts, pods), runs, || others::batches(scratch.path(), hosts, pods))?);
        if mininet && pods <= 100 {
            rows.push(repeat("Mininet", (hosts, pods), runs, || others::mininet(scratch.path(), hosts, pods))?);
        }
    }
    let figures = if scope.only { Vec::new() } else { all_figures(&labs, &scope, &rows, &mut notes)? };
    println!("{}\n", report::table(&rows));
    if !figures.is_empty() {
        println!("{}\n", report::figures(&figures));
    }
    notes.iter().for_each(|note| println!("{note}"));
    println!("{}", report::json(&rows, &figures, &notes));
    Ok(())
}

/// labctl and the floor, in turns.
fn own_rows(labs: &Labs, scope: &Scope, hosts: u32, pods: u32) -> io::Result<[Row; 2]> {
    let (mut own, mut floor) = (Samples::default(), Samples::default());
    for _ in 0..scope.runs {
        floor.take(|| others::floor(hosts, pods))?;
        own.take(|| {
            let lab = labs.up("vxlan", hosts, pods)?;
            Ok(Took { up: lab.up, down: lab.down()? })
        })?;
    }
    Ok([floor.row("floor", (hosts, pods)), own.row("labctl", (hosts, pods))])
}

fn repeat(
    what: &'static str,
    size: (u32, u32),
    runs: usize,
    mut measure: impl FnMut() -> io::Result<Took>,
) -> io::Result<Row> {
    let mut samples = Samples::default();
    for _ in 0..runs {
        samples.take(&mut measure)?;
    }
    Ok(samples.row(what, size))
}

#[derive(Default)]
struct Samples {
    up: Vec<Duration>,
    down: Vec<Duration>,
    gone: Vec<Duration>,
}

impl Samples {
    /// Measure once, and begin only when nothing is left of what was before.
    fn take(&mut self, measure: impl FnOnce() -> io::Result<Took>) -> io::Result<()> {
        others::drain()?;
        let took = measure()?;
        let (drained, outcome) = timed(others::drain);
        outcome?;
        self.up.push(took.up);
        self.down.push(took.down);
        self.gone.push(took.down + drained);
        Ok(())
    }

    fn row(self, what: &'static str, (hosts, pods): (u32, u32)) -> Row {
        let runs = self.up.len();
        Row { what, hosts, pods, runs, up: median(self.up), down: median(self.down), gone: median(self.gone) }
    }
}

fn all_figures(labs: &Labs, scope: &Scope, rows: &[Row], notes: &mut Vec<String>) -> io::Result<Vec<Figure>> {
    let mut all = ratios(rows);
    all.extend(small_lab(labs, scope)?);
    all.push(memory(labs)?);
    all.extend(proxy::figures(scope.quick)?);
    all.extend(speeds(labs, scope, notes)?);
    // An ordinary user has no namespace to measure in, and not everyone has wrk.
    let measured =
        [("the DNS server", dns::measure as Measure), ("ingress", ingress::measure), ("trace", trace::measure)];
    for (what, measured) in measured.map(|(what, measure)| (what, measure(scope.quick))) {
        match measured {
            Ok(figures) => all.extend(figures),
            Err(e) => notes.push(format!("{what} was not measured: {e}")),
        }
    }
    Ok(all)
}

fn ratios(rows: &[Row]) -> Vec<Figure> {
    let floors = rows.iter().filter(|r| r.what == "floor");
    let pairs = floors.filter_map(|f| {
        let own = rows.iter().find(|r| r.what == "labctl" && (r.hosts, r.pods) == (f.hosts, f.pods))?;
        Some((own, own.up.as_secs_f64() / f.up.as_secs_f64()))
    });
    let wanted = |r: &Row| r.pods == 100 || (r.hosts, r.pods) == (10, 1000);
    pairs
        .map(|(own, ratio)| Figure {
            what: format!("up, {} pods on {} hosts, to the floor", own.pods, own.hosts),
            value: ratio,
            unit: "times",
            target: wanted(own).then_some(("<", 2.0)),
        })
        .collect()
}

fn small_lab(labs: &Labs, scope: &Scope) -> io::Result<[Figure; 3]> {
    let mut samples = Samples::default();
    for _ in 0..scope.runs {
        samples.take(|| {
            let lab = labs.up("vxlan", 3, 6)?;
            Ok(Took { up: lab.up, down: lab.down()? })
        })?;
    }
    let row = samples.row("labctl", (3, 6));
    let figure = |what: &str, time, target| Figure {
        what: format!("{what}, 6 pods on 3 hosts"),
        value: milliseconds(time),
        unit: "ms",
        target: Some(("<", target)),
    };
    Ok([
        figure("up", row.up, 150.0),
        figure("down", row.down, 100.0),
        figure("until the namespaces are gone", row.gone, 2000.0),
    ])
}

fn memory(labs: &Labs) -> io::Result<Figure> {
    let lab = labs.up("vxlan", 10, 1000)?;
    let value = lab.memory()? as f64 / 1024.0;
    lab.down()?;
    Ok(Figure { what: "daemon's memory, 1000 pods".to_owned(), value, unit: "MiB", target: Some(("<", 64.0)) })
}

fn speeds(labs: &Labs, scope: &Scope, notes: &mut Vec<String>) -> io::Result<Vec<Figure>> {
    let sender = Sender::choose();
    notes.push(format!("TCP throughput by {}, one stream, pod to pod on two hosts", sender.name()));
    let seconds = if scope.quick { 1 } else { 5 };
    let mut all = Vec::new();
    let mut reference: Option<traffic::Speed> = None;
    for backend in ["host-gw", "vxlan", "udp"] {
        let speed = match traffic::measure(labs, backend, sender, seconds) {
            Ok(speed) => speed,
            // An ordinary user may lack TUN; that is said, not hidden.
            Err(e) => {
                notes.push(format!("{backend} was not measured: {e}"));
                continue;
            }
        };
        all.extend(of_backend(&speed, reference.as_ref()));
        if speed.ping.is_none() {
            notes.push("ping: not installed".to_owned());
        }
        reference = reference.or(Some(speed));
    }
    Ok(all)
}

fn of_backend(speed: &traffic::Speed, reference: Option<&traffic::Speed>) -> Vec<Figure> {
    let name = speed.backend;
    let plain = |what: String, value, unit, target| Figure { what, value, unit, target };
    let target = (name == "udp").then_some((">=", 0.39));
    let mut all = vec![plain(format!("{name}, TCP"), speed.gigabits, "Gbit/s", target)];
    all.extend(speed.ping.map(|ping| plain(format!("{name}, ping"), ping, "ms", None)));
    if let Some(reference) = reference {
        let to = format!("to {}", reference.backend);
        all.push(plain(format!("{name}, TCP, {to}"), speed.gigabits / reference.gigabits, "times", None));
        let ping = speed.ping.zip(reference.ping).map(|(own, other)| own / other);
        all.extend(ping.map(|ratio| plain(format!("{name}, ping, {to}"), ratio, "times", None)));
    }
    all
}
