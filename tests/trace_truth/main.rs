//! Whether traces are true: random labs, random questions, and of each question every packet at every
//! device, recorded by sockets of this program and laid beside what the trace tells.
//!
//! Root asks most of them, and an ordinary user some. The labs' seeds are fixed, so that a failure comes
//! again. `LABCTL_TRACES=1000` asks so many in place of root's 40 or the user's 20, and `LABCTL_SEED` begins with
//! another lab than the first; as nextest ends a test that takes minutes, run those by
//! `LABCTL_TRACES=1000 cargo test --test trace_truth random_traces -- --nocapture`, and the user's by
//! `so_do_those`.
//!
//! One file a matter: `labs` and `questions` are what is thrown; `capture` records, `frames` reads what was
//! recorded; `seen` compares a trace with the recording, `walked` with the plan's prediction, `sound` with
//! itself; `cases` are single questions whose trace is known beforehand, `load` such beside other traffic.

#[path = "../harness/mod.rs"]
mod harness;

mod capture;
mod cases;
mod frames;
mod labs;
mod load;
mod questions;
mod random;
mod seen;
mod sound;
mod walked;

fn main() {
    harness::tests::main();
}
