//! A broken lab: its file, its faults as `break --list` tells them, what a trace says of one, and applying what
//! that names as remedy.

use std::fs;
use std::path::{Path, PathBuf};

use labctl::fault::{Fault as Listed, Question, catalogue};
use labctl::lab::names::NsName;
use labctl::trace::model::{Cause, Fault, Trace};
use serde_json::Value;

use crate::harness::{Bench, Ran, until};

/// Far more than a packet needs within a lab. A question that is to fail takes as long.
const FAILS_WITHIN: &str = "1";
/// For slow machines.
const ANSWERS_WITHIN: &str = "5";

/// A fault that fits a lab.
pub struct Fitting {
    pub fault: &'static Listed,
    pub place: NsName,
    pub object: String,
    pub question: Question,
}

impl Fitting {
    /// Whether a verdict names the cause, at its place and with an object that concerns it.
    pub fn is_named_by(&self, found: &Fault) -> bool {
        // Which of the DNS servers is asked is chance.
        let server = |place: &NsName| place.path().starts_with("pod/kube-system/coredns-");
        let is_there = found.place == self.place
            || (found.cause == Cause::NoSuchName && server(&found.place) && server(&self.place));
        found.cause == self.fault.cause && is_there && concerns(found.cause, &found.object, &self.object)
    }
}

/// Whether what a verdict names is what is at fault, or stands for it.
fn concerns(cause: Cause, found: &str, object: &str) -> bool {
    let words = |text: &str| -> Vec<String> {
        let all = text.split([' ', '"', ',']).map(|word| word.trim_end_matches("/32").to_owned());
        all.filter(|word| word.len() > 3).collect()
    };
    let (found_words, wanted) = (words(found), words(object));
    let share = wanted.iter().any(|word| found_words.iter().any(|f| f == word || object_ends(word, f)));
    let stands_for = match cause {
        // No route leads to the target: what is missing is the default route.
        Cause::NoRoute => object == "default" && found.starts_with("no route to "),
        // Another rule than the one that should have done it.
        Cause::NotMasqueraded => found.split(' ').any(|word| word == "MASQUERADE"),
        // The name of a service.
        Cause::NoSuchName => object.rsplit('/').next() == Some(found),
        // What the proxy answered.
        Cause::ProxyRefused => found.starts_with("HTTP status "),
        Cause::NotReady => found.starts_with("readinessProbe "),
        _ => false,
    };
    share || stands_for
}

/// `net.ipv4.conf.all.rp_filter` is `rp_filter`.
fn object_ends(long: &str, short: &str) -> bool {
    long.rsplit('.').next() == Some(short) && long.contains('.')
}

/// The folder of broken labs.
fn path(lab: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("labs/broken").join(format!("{lab}.yaml"))
}

/// A lab of `labs/broken` on a bench, under the bench's name.
pub struct Broken<'b> {
    pub bench: &'b Bench,
    /// Its file there.
    pub file: String,
}

impl<'b> Broken<'b> {
    pub fn up(bench: &'b Bench, lab: &str) -> Broken<'b> {
        let text = fs::read_to_string(path(lab)).expect("the lab");
        let name = format!("\nname: broken-{lab}\n");
        assert!(text.contains(&name), "{lab} has another name");
        let file = bench.write(&text.replace(&name, "\n"));
        bench.up(&file);
        Broken { bench, file }
    }

    /// A lab of a test's own.
    pub fn of_text(bench: &'b Bench, text: &str) -> Broken<'b> {
        let file = bench.write(text);
        bench.up(&file);
        Broken { bench, file }
    }

    /// The faults that fit it.
    pub fn fitting(&self) -> Vec<Fitting> {
        let listed = self.bench.json(&["break", "--list"]);
        let all = listed.as_array().expect("a list").iter().filter(|entry| !entry["here"].is_null());
        all.map(fitting).collect()
    }

    /// Ask a question that is to fail, and trace it.
    pub fn trace(&self, question: &Question) -> Trace {
        trace(self.bench, question, FAILS_WITHIN)
    }

    /// Trace a question until it is answered.
    pub fn is_answered(&self, question: &Question) -> Trace {
        let mut last = None;
        // A host that was asked in vain is not asked again for a moment, and endpoints take one to be known.
        until(&format!("{} is answered", question.words()), || {
            last = Some(trace(self.bench, question, ANSWERS_WITHIN));
            last.as_ref().is_some_and(|trace| trace.asked.answered)
        });
        last.expect("a trace")
    }

    /// Do what a verdict names as remedy: what is to be typed but for `labctl up`, or that where there is no more.
    pub fn mend(&self, fault: &Fault) -> Result<(), String> {
        let all: Vec<&str> = fault.remedy.iter().filter_map(|r| r.command.as_deref()).collect();
        let (up, by_hand): (Vec<&str>, Vec<&str>) = all.into_iter().partition(|line| line.starts_with("labctl up "));
        let lines = if by_hand.is_empty() { up } else { by_hand };
        if lines.is_empty() {
            return Err(format!("no command is named as remedy: {:?}", fault.remedy));
        }
        let failed = lines.iter().map(|line| typed(self.bench, line)).find(|ran| ran.code != 0);
        failed.map_or(Ok(()), |ran| Err(format!("the remedy fails: {ran}")))
    }
}

fn fitting(entry: &Value) -> Fitting {
    let text = |at: &str| entry.pointer(at).and_then(Value::as_str).unwrap_or_else(|| panic!("no {at}: {entry}"));
    let here = |what: &str| entry["here"][what].clone();
    Fitting {
        fault: catalogue().find(|f| f.name == text("/name")).expect("a fault of the catalogue"),
        place: serde_json::from_value(here("place")).expect("a place"),
        object: text("/here/object").to_owned(),
        question: serde_json::from_value(here("question")).expect("a question"),
    }
}

fn trace(bench: &Bench, question: &Question, timeout: &str) -> Trace {
    let words = question.typed();
    let mut args = vec!["--timeout", timeout];
    args.extend(words.iter().map(String::as_str));
    traced(bench, &args)
}

/// Trace what is typed.
pub fn traced(bench: &Bench, words: &[&str]) -> Trace {
    let ran = bench.run(&[&["trace", "-o", "json"], words].concat());
    serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("no trace ({e}): {ran}"))
}

/// Run a line as a shell does, where `labctl` is the program under test.
pub fn typed(bench: &Bench, line: &str) -> Ran {
    let mut command = bench.command("sh");
    let program = bench.labctl(&[]);
    // The last word is the program.
    let program = program.get_args().last().unwrap_or(program.get_program());
    let folder = Path::new(program).parent().expect("a folder").display();
    let path = std::env::var("PATH").unwrap_or_default();
    command.args(["-c", line]).env("PATH", format!("{folder}:{path}:/usr/sbin:/sbin"));
    Ran::from_output(&command.output().expect("a shell"), line)
}
