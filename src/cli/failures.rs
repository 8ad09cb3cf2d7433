//! `--trace-failures` of `test` and `probe`: what differed is asked once more and traced, while the lab is up.

use serde_json::{Value, json};

use crate::daemon::client::Client;
use crate::daemon::trace::{TraceAnswer, TraceRequest, Wanted};
use crate::diag::Problem;
use crate::probe::{Kind, Outcome};
use crate::trace::model::Trace;
use crate::trace::show::{self, Style};

use super::output;

/// More probes than these are not traced: where a lab is broken, the first ones tell why.
const MOST: usize = 20;
/// Columns of a trace in a report that is no terminal.
const COLUMNS: usize = 100;

/// The traces of a lab's probes that differed.
#[derive(Debug, Default)]
pub struct Traces {
    /// One for each outcome; nothing where it passed or cannot be traced.
    all: Vec<Option<Trace>>,
    /// So many more could have been traced.
    left: usize,
}

impl Traces {
    /// Ask each question that differed once more.
    pub fn of(client: &Client, outcomes: &[Outcome]) -> Result<Traces, Box<Problem>> {
        let mut traces = Traces { all: vec![None; outcomes.len()], left: 0 };
        let mut done = 0;
        for (outcome, trace) in outcomes.iter().zip(&mut traces.all) {
            if outcome.passed() || outcome.kind == Kind::Exec {
                continue;
            }
            if done == MOST {
                traces.left += 1;
                continue;
            }
            done += 1;
            let request = TraceRequest {
                asked: Wanted::Probe(outcome.name.clone()),
                frames: false,
                base: std::env::current_dir().ok(),
            };
            // One that cannot be traced any more leaves its outcome as it is.
            if let TraceAnswer::Traced(traced) = client.post("/labctl/v1/trace", &request)? {
                *trace = Some(traced.trace);
            }
        }
        Ok(traces)
    }

    /// The outcomes with the trace beside each that has one.
    pub fn json(&self, outcomes: &[Outcome]) -> Value {
        let mut values: Vec<Value> = outcomes.iter().map(|o| json!(o)).collect();
        for (value, trace) in values.iter_mut().zip(&self.all) {
            if let Some(trace) = trace {
                value["trace"] = json!(trace);
            }
        }
        Value::Array(values)
    }

    /// The text of each trace for a report, one for each outcome.
    pub fn texts(&self) -> Vec<Option<String>> {
        let style = Style { width: COLUMNS, colour: false, why: true, wide: false, reply: false };
        self.all.iter().map(|trace| trace.as_ref().map(|trace| show::text(trace, &style))).collect()
    }

    /// Tell them behind the table.
    pub fn tell(&self, outcomes: &[Outcome], wide: bool) {
        let style =
            Style { width: output::width(), colour: output::colour(&std::io::stdout()), why: true, wide, reply: false };
        for (outcome, trace) in outcomes.iter().zip(&self.all) {
            if let Some(trace) = trace {
                output::write(format_args!("\n{}, asked once more:\n{}", outcome.name, show::text(trace, &style)));
            }
        }
        if self.left > 0 {
            output::line(format_args!("\n{} more that differed were not traced", output::count(self.left, "probe")));
        }
    }
}
