//! Random questions to random labs.

use std::time::Instant;

use labctl::trace::model::Trace;

use crate::capture::Capture;
use crate::frames::{self, Sighting};
use crate::harness::dice::Dice;
use crate::harness::tests::Need;
use crate::harness::{Bench, Ran};
use crate::labs::{self, Written};
use crate::questions::{Question, question};
use crate::{as_root, on_a_bench, seen, sound, walked};

as_root![random_traces_tell_what_was_there_and_what_the_plan_predicts];
// It is root that records beside the trace.
on_a_bench!(WithTun, "as_an_ordinary_user", &[Need::Root], so_do_those_of_an_ordinary_user);

/// Traces, the first lab's seed, and how many of each lab.
const TRACES: u64 = 40;
const SEED: u64 = 1;
const EACH: u64 = 10;
/// Of an ordinary user's labs, which begin elsewhere.
const OTHERS: u64 = 20;
const OTHERS_SEED: u64 = 501;
/// So many failures are told in full.
const TOLD: usize = 12;

#[derive(Default)]
struct Found {
    traces: u64,
    answered: u64,
    packets: usize,
    sightings: usize,
    wrong: Vec<String>,
}

fn random_traces_tell_what_was_there_and_what_the_plan_predicts(bench: &Bench) {
    are_true(bench, TRACES, SEED);
}

fn so_do_those_of_an_ordinary_user(bench: &Bench) {
    are_true(bench, OTHERS, OTHERS_SEED);
}

/// So many traces, of labs from this seed on, where nobody asks for others.
fn are_true(bench: &Bench, wanted: u64, seed: u64) {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let (wanted, mut seed) = (number("LABCTL_TRACES").unwrap_or(wanted), number("LABCTL_SEED").unwrap_or(seed));
    let (mut found, begin) = (Found::default(), Instant::now());
    while found.traces < wanted {
        of_lab(bench, seed, EACH.min(wanted - found.traces), &mut found);
        seed += 1;
    }
    let Found { traces, answered, packets, sightings, wrong } = found;
    println!(
        "{traces} traces of which {answered} were answered, {packets} packets seen {sightings} times, {} wrong, in {:.0?}",
        wrong.len(),
        begin.elapsed()
    );
    let told: Vec<&str> = wrong.iter().take(TOLD).map(String::as_str).collect();
    assert!(wrong.is_empty(), "{} of {traces} traces are wrong:\n{}", wrong.len(), told.join("\n\n"));
}

fn of_lab(bench: &Bench, seed: u64, traces: u64, found: &mut Found) {
    let mut dice = Dice::of_case(seed);
    let written = Written::new(&bench.lab, labs::lab(&mut dice));
    bench.up(&bench.write(&written.text));
    let capture = Capture::start(bench, written.lab.namespaces());
    for _ in 0..traces {
        let question = question(&written, &mut dice);
        found.traces += 1;
        let what = match traced(bench, &capture, &written, &question) {
            Ok((trace, sightings)) => {
                found.answered += u64::from(trace.asked.answered);
                found.packets += trace.flows.iter().map(|f| f.packets.len()).sum::<usize>();
                found.sightings += sightings.len();
                judge(&trace, &sightings, &written)
            }
            Err(ran) => vec![format!("no trace: {ran}")],
        };
        if !what.is_empty() {
            let words = question.words().join(" ");
            println!("LABCTL_SEED={seed}: labctl {words}\n  {}\n", what.join("\n  "));
            found.wrong.push(format!("LABCTL_SEED={seed}: labctl {words}\n  {}\n{}", what.join("\n  "), written.text));
        }
    }
    drop(capture);
    bench.ok(&["down"]);
}

/// Ask, and give the trace with what was recorded of it.
pub fn traced(
    bench: &Bench,
    capture: &Capture,
    written: &Written,
    question: &Question,
) -> Result<(Trace, Vec<Sighting>), Box<Ran>> {
    // What an earlier question left behind is none of this one's.
    capture.take();
    let mut words = question.words();
    words.extend(["-o", "json"]);
    let ran = bench.run(&words);
    let trace = serde_json::from_str(&ran.stdout).map_err(|_| Box::new(ran))?;
    let frames = capture.take();
    let read = frames.iter().filter_map(|f| frames::read(f, &written.lab.cluster.backend));
    let sightings = read.filter(|s| !labs::is_of_a_health_check(s.header().ports)).collect();
    Ok((trace, sightings))
}

/// All that is wrong with a trace.
pub fn judge(trace: &Trace, sightings: &[Sighting], written: &Written) -> Vec<String> {
    let mut wrong = seen::differences(trace, sightings);
    wrong.extend(sound::contradictions(trace, sightings));
    wrong.extend(walked::differences(trace, written));
    wrong
}
