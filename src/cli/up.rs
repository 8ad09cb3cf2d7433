//! `up`: a lab is built, or a running one is changed to what its file says now.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::daemon::api::{Bundle, Change, Event, LabStatus, Summary};
use crate::daemon::client::Client;
use crate::daemon::launch::{Launched, launch};
use crate::diag::{Problem, Problems, Sources, codes};
use crate::lab::{self, INTERNET_NAME, Lab};
use crate::probe::{Outcome, report};
use crate::runtime::RuntimeDir;
use crate::spec::beside;
use crate::spec::load::{Input, Text, decode_text, read};

use super::args::{FileArgs, UpArgs};
use super::{DIFFERED, Done, Failure, is_watched, output, plan, show};

/// How long a lab that another `up` starts may neither be there nor be gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at it.
const PAUSE: Duration = Duration::from_millis(20);

/// What is said of a lab that is not ready and stays.
const RUNS_ON: &str = "`labctl logs POD` shows what a program wrote, `labctl describe POD` the rest; the lab runs on";

/// A lab that was read and is valid, with the text that it came from.
pub struct Ready {
    pub text: Text,
    pub lab: Lab,
    pub sources: Sources,
    pub warnings: Problems,
}

/// Read and check a lab file.
pub fn prepare(file: &str) -> Result<Ready, Failure> {
    check(read(&Input::parse(file))?, None)
}

/// Read and check a lab file with manifests beside it.
pub fn prepare_with(args: &FileArgs) -> Result<Ready, Failure> {
    check(beside::read_with(args.file.as_deref(), &args.beside)?, None)
}

/// Make a lab of a text that was read; who is in `before` as well keeps host and address.
pub fn check(text: Text, before: Option<&Lab>) -> Result<Ready, Failure> {
    let mut loaded = decode_text(&text);
    let mut problems = std::mem::take(&mut loaded.problems);
    let lab = lab::resolve(&loaded, before, &mut problems);
    problems.sort();
    match lab {
        Some(lab) => Ok(Ready { text, lab, sources: loaded.sources, warnings: problems }),
        None => Err(Failure::new(problems, loaded.sources)),
    }
}

/// What takes longer is worth a word to whoever watches.
const BLINK: Duration = Duration::from_millis(300);

/// How a lab came to be what its file says.
pub struct Raised {
    pub client: Client,
    pub summary: Summary,
    /// Whether it ran before.
    pub changed: bool,
    /// Held by those with whom the lab is to end.
    pub launched: Option<Launched>,
    pub took: Duration,
}

/// Build the lab, or change the running one. With `lifeline` it ends with the caller, and a lab
/// of that name must not run already.
pub fn raise(ready: &Ready, lifeline: bool) -> Result<Raised, Failure> {
    let started = Instant::now();
    let dir = RuntimeDir::open()?;
    let client = Client::new(&dir, ready.lab.name.clone());
    // The lab may outlive the directory that the caller is in.
    let text = Text { name: absolute(&ready.text.name), ..ready.text.clone() };
    let bundle = Bundle { text, runtime_dir: dir.as_path().to_owned(), lifeline };
    // Another `up` may be at it in this very moment; then its lab is the one to change. Its daemon
    // may not have opened its socket yet, and where it fails and goes away, it is our turn again.
    loop {
        let mut launched = launch(&bundle)?;
        match follow(&mut launched, &ready.sources)? {
            Some(summary) => {
                let launched = keep(launched, lifeline);
                return Ok(Raised { client, summary, changed: false, launched, took: started.elapsed() });
            }
            None if lifeline => return Err(Failure::from(runs_already(&ready.lab))),
            None => {
                launched.release();
                tell_of_another_file(&client, &bundle.text.name, &ready.lab);
                let change = Change { text: bundle.text.clone() };
                match client.post::<Event>("/labctl/v1/change", &change) {
                    Ok(Event::Done(summary)) => {
                        return Ok(Raised { client, summary, changed: true, launched: None, took: started.elapsed() });
                    }
                    Ok(Event::Failed(problems)) => return Err(failed(problems, &ready.sources)),
                    Err(problem) if started.elapsed() > PATIENCE => return Err(problem.into()),
                    // Nothing tells when a socket begins to answer.
                    Ok(_) | Err(_) => std::thread::sleep(PAUSE),
                }
            }
        }
    }
}

fn absolute(file: &str) -> String {
    let path = Path::new(file).canonicalize();
    path.map_or_else(|_| file.to_owned(), |path| path.display().to_string())
}

/// A lab is known by its name, and another file may give that name, too.
fn tell_of_another_file(client: &Client, file: &str, lab: &Lab) {
    let Ok(status) = client.get::<LabStatus>("/labctl/v1/status") else { return };
    if status.file != file {
        let (before, now) = (output::file_name(&status.file), output::file_name(file));
        anstream::eprintln!("lab {} was made from {before}; it is changed to what {now} says", lab.name);
    }
}

fn keep(launched: Launched, lifeline: bool) -> Option<Launched> {
    if lifeline {
        return Some(launched);
    }
    launched.release();
    None
}

fn runs_already(lab: &Lab) -> Box<Problem> {
    Box::new(
        Problem::error(codes::LAB_RUNNING, format!("a lab called {} runs already", lab.name))
            .help(format!("end it with `labctl down {}`, or give this one another name", lab.name)),
    )
}

fn failed(problems: Vec<Problem>, sources: &Sources) -> Failure {
    let mut all = Problems::default();
    all.extend(problems);
    Failure::new(all, sources.clone())
}

/// Follow a daemon's reports. `None`: another daemon has the lab already.
fn follow(launched: &mut Launched, sources: &Sources) -> Result<Option<Summary>, Failure> {
    let mut doing = String::new();
    loop {
        // A blink needs no progress.
        if is_watched() && !launched.is_heard_within(BLINK) && !doing.is_empty() {
            anstream::eprintln!("{} …", std::mem::take(&mut doing));
        }
        match launched.report() {
            Some(Event::Progress(what)) => doing = what,
            Some(Event::Done(summary)) => return Ok(Some(summary)),
            Some(Event::Failed(problems)) => return Err(failed(problems, sources)),
            Some(Event::Running) => return Ok(None),
            None => {
                let problem = Problem::error(codes::LAB_GONE, "the lab's process ended without a word")
                    .help("`labctl doctor` tells what the machine allows; was it out of memory?");
                return Err(Failure::from(Box::new(problem)));
            }
        }
    }
}

/// Wait until every pod is ready. `help` is said where they are not.
pub fn await_ready(client: &Client, seconds: u64, help: &str) -> Result<(), Box<Problem>> {
    let trouble: Vec<String> = client
        .get_within(&format!("/labctl/v1/wait?seconds={seconds}"), Duration::from_secs(seconds.saturating_add(10)))?;
    if trouble.is_empty() {
        return Ok(());
    }
    let message = format!("after {seconds} s not everything is ready: {}", trouble.join("; "));
    Err(Box::new(Problem::error(codes::LAB_NOT_READY, message).help(help)))
}

pub fn run(args: &UpArgs) -> Done {
    let ready = prepare_with(&args.from)?;
    // What a running lab makes of its file depends on what it was before, so it tells by itself.
    let runs = RuntimeDir::open().and_then(|dir| dir.labs()).is_ok_and(|labs| labs.contains(&ready.lab.name));
    if !runs {
        show(&ready.warnings, &ready.sources);
    }
    let raised = raise(&ready, args.foreground)?;
    if runs {
        show(&told_by(&raised, &ready), &ready.sources);
    }
    await_ready(&raised.client, args.timeout, RUNS_ON)?;
    let mut outcomes: Vec<Outcome> = Vec::new();
    if !args.no_probes && !ready.lab.probes.is_empty() {
        let none: [&str; 0] = [];
        outcomes = raised.client.post("/labctl/v1/probe", &none)?;
    }
    present(args, &ready.lab, &raised, &outcomes);
    let trouble = trouble(&raised.client)?;
    if let Some(launched) = raised.launched {
        if is_watched() {
            anstream::eprintln!("Ctrl-C ends the lab");
        }
        launched.wait();
    }
    let all = outcomes.iter().all(Outcome::passed) && trouble.is_empty();
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::from(DIFFERED) })
}

/// The warnings of a lab that ran before, or of one that has gone in between and was built anew.
fn told_by(raised: &Raised, ready: &Ready) -> Problems {
    let mut all = Problems::default();
    match raised.changed {
        true => all.extend(raised.summary.warnings.clone()),
        false => all.extend(ready.warnings.iter().cloned()),
    }
    all.sort();
    all
}

/// What is not well once the probes have run, said on standard error: a program that ended at once
/// counted as ready in the moment in which it ran.
pub fn trouble(client: &Client) -> Result<Vec<String>, Box<Problem>> {
    let status: LabStatus = client.get("/labctl/v1/status")?;
    for line in &status.trouble {
        anstream::eprintln!("trouble: {line}");
    }
    Ok(status.trouble)
}

fn present(args: &UpArgs, lab: &Lab, raised: &Raised, outcomes: &[Outcome]) {
    let value = json!({
        "lab": lab.name,
        "changed": raised.changed,
        "steps": raised.summary.steps,
        "changes": raised.summary.changes,
        "services": raised.summary.services,
        "objects": raised.summary.objects,
        "forgotten": raised.summary.forgotten,
        "milliseconds": raised.took.as_millis(),
        "probes": outcomes,
    });
    output::print(args.format.output, &value, |wide| {
        let mut text = headline(lab, raised);
        text.push_str(&what_changed(&raised.summary, wide));
        if !outcomes.is_empty() {
            text.push('\n');
            text.push_str(&report::table(outcomes, output::look(wide)));
        }
        text.push_str(&next_steps(lab, outcomes));
        text
    });
}

/// What of a longer list is shown where the wide look is not wanted.
const MOST_LINES: usize = 20;

/// What a live change did and undid, services first: of them people think.
fn what_changed(summary: &Summary, wide: bool) -> String {
    let mut text = String::new();
    let most = if wide { usize::MAX } else { MOST_LINES };
    let more = |all: usize| all.checked_sub(most).filter(|more| *more > 0);
    if !summary.forgotten.is_empty() {
        let shown: Vec<&str> = summary.forgotten.iter().take(most).map(String::as_str).collect();
        let rest = more(summary.forgotten.len()).map(|n| format!(" and {n} more")).unwrap_or_default();
        text.push_str(&format!("  forgotten, as it is not in the file: {}{rest}\n", shown.join(", ")));
    }
    for line in summary.services.iter().take(most) {
        text.push_str(&format!("  service {line}\n"));
    }
    if let Some(more) = more(summary.services.len()) {
        text.push_str(&format!("  and {} (-o wide shows them)\n", output::count(more, "more service")));
    }
    for line in summary.objects.iter().take(most) {
        text.push_str(&format!("  {line}\n"));
    }
    if let Some(more) = more(summary.objects.len()) {
        text.push_str(&format!("  and {} (-o wide shows them)\n", output::count(more, "more object")));
    }
    if wide || summary.changes.len() <= MOST_LINES {
        for change in &summary.changes {
            let change = if wide { change.clone() } else { plan::brief(change) };
            text.push_str(&format!("  {change}\n"));
        }
    }
    text
}

fn headline(lab: &Lab, raised: &Raised) -> String {
    let took = raised.took.as_millis();
    if raised.changed {
        return match raised.summary.steps {
            0 if !raised.summary.objects.is_empty() => format!("lab {} changed ({took} ms)\n", lab.name),
            0 => format!("lab {} is up to date\n", lab.name),
            n => format!("lab {} changed in {} ({took} ms)\n", lab.name, output::count(n, "step")),
        };
    }
    // Those of the file: every lab has a client called internet besides.
    let clients = lab.clients.iter().filter(|c| c.name.as_str() != INTERNET_NAME).count();
    let clients = (clients > 0).then(|| output::count(clients, "client"));
    let (hosts, pods) = (output::count(lab.hosts.len(), "host"), output::count(lab.pods.len(), "pod"));
    let parts: Vec<String> = [Some(hosts), clients, Some(pods)].into_iter().flatten().collect();
    let up =
        format!("lab {} is up: {}, flannel {} ({took} ms)\n", lab.name, parts.join(", "), lab.cluster.backend.name());
    up + &ingress_words(lab)
}

/// Where the lab's ingress is, and which certificates it made for it.
fn ingress_words(lab: &Lab) -> String {
    let Some((layer, at)) = lab.ingress.as_ref().zip(lab.ingress_address()) else { return String::new() };
    let hosts: Vec<&str> = lab.ingress_hosts().into_iter().collect();
    let ports = if (at.http, at.https) == (80, 443) {
        String::new()
    } else {
        format!(" on ports {} and {}", at.http, at.https)
    };
    let mut text = format!("  ingress ({}): {}{ports}", layer.controller.driver, at.ip);
    if !hosts.is_empty() {
        text.push_str(&format!(" for {}", hosts.join(", ")));
    }
    text.push('\n');
    for secret in layer.generated.keys() {
        text.push_str(&format!("  secret {secret}: signed by the lab's authority (`labctl ca`)\n"));
    }
    text
}

fn next_steps(lab: &Lab, outcomes: &[Outcome]) -> String {
    let mut steps = outcomes.iter().find(|o| !o.passed()).map(after_a_difference).unwrap_or_default();
    if steps.is_empty() {
        let someone = lab.pods.first().map(|p| p.id.to_string()).or(lab.hosts.first().map(|h| h.name.to_string()));
        steps.push("labctl get pods -o wide".to_owned());
        steps.extend(someone.map(|s| format!("labctl shell {s}")));
    }
    steps.push(format!("labctl down {}", lab.name));
    format!("\nTry next:\n{}", steps.iter().map(|step| format!("  {step}\n")).collect::<String>())
}

/// What helps to find out why a probe saw something else: the way to the address that was tried,
/// whether the kernel still holds what was planned, and the probe again.
fn after_a_difference(outcome: &Outcome) -> Vec<String> {
    let ip = |text: &String| {
        text.parse::<SocketAddr>().map(|a| a.ip()).or_else(|_| text.parse::<IpAddr>()).ok().map(|ip| ip.to_canonical())
    };
    let mut steps = Vec::new();
    match outcome.tried.as_ref().and_then(ip) {
        Some(ip) => steps.push(format!("labctl exec {} -- ip route get {ip}", outcome.from)),
        None => steps.push(format!("labctl describe {}", outcome.from)),
    }
    steps.push(format!("labctl inspect stack {}", outcome.from));
    steps.push("labctl diff".to_owned());
    steps.push(format!("labctl probe '{}'", outcome.name.replace('\'', "'\\''")));
    steps
}
