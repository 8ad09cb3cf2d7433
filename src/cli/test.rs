//! `test`: labs are built, asked and ended, for CI. Nothing stays behind, however it ends.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::diag::{Problem, Problems, codes};
use crate::probe::{Outcome, report};

use super::args::{ReportFormat, TestArgs};
use super::output::{self, colour, print_json, print_yaml};
use super::{DIFFERED, Done, Failure, down, show, up};

/// What came of one lab.
struct Tested {
    lab: String,
    file: String,
    outcomes: Vec<Outcome>,
    /// Whether a pod was not well at the end.
    trouble: bool,
}

pub fn run(args: &TestArgs) -> Done {
    let mut all = Vec::new();
    let mut worst = 0;
    for file in &args.files {
        match one(args, file) {
            Ok(tested) => {
                if tested.trouble || !tested.outcomes.iter().all(Outcome::passed) {
                    worst = worst.max(DIFFERED);
                }
                if args.output == ReportFormat::Table {
                    tell(&tested);
                }
                all.push(tested);
            }
            Err(failure) => {
                show(&failure.problems, &failure.sources);
                worst = worst.max(failure.code());
            }
        }
    }
    write_reports(args, &all)?;
    Ok(ExitCode::from(worst))
}

fn one(args: &TestArgs, file: &str) -> Result<Tested, Failure> {
    let ready = up::prepare(file)?;
    show(&ready.warnings, &ready.sources);
    let raised = up::raise(&ready, true)?;
    let none: [&str; 0] = [];
    let asked = up::await_ready(&raised.client, args.timeout)
        .and_then(|()| raised.client.post::<Vec<Outcome>>("/labctl/v1/probe", &none));
    let trouble = up::trouble(&raised.client);
    let ended = down::end(&raised.client);
    drop(raised.launched);
    let (outcomes, trouble) = (asked?, trouble?);
    ended?;
    Ok(Tested { lab: ready.lab.name.to_string(), file: file.to_owned(), outcomes, trouble: !trouble.is_empty() })
}

fn tell(tested: &Tested) {
    output::line(format_args!("lab {} ({})", tested.lab, tested.file));
    match tested.outcomes.as_slice() {
        [] => output::line(format_args!("it has no probes")),
        outcomes => output::write(format_args!("{}", report::table(outcomes, colour(&std::io::stdout())))),
    }
    output::line(format_args!(""));
}

fn write_reports(args: &TestArgs, all: &[Tested]) -> Result<(), Failure> {
    let junit = || {
        let labs: Vec<(&str, &[Outcome])> = all.iter().map(|t| (t.lab.as_str(), t.outcomes.as_slice())).collect();
        report::junit(&labs).unwrap_or_default()
    };
    let value =
        || -> Value { all.iter().map(|t| json!({ "lab": t.lab, "file": t.file, "probes": t.outcomes })).collect() };
    match args.output {
        ReportFormat::Table => {}
        ReportFormat::Json => print_json(&value()),
        ReportFormat::Yaml => print_yaml(&value()),
        ReportFormat::Junit => output::write(format_args!("{}", junit())),
    }
    let Some(path) = &args.junit else { return Ok(()) };
    std::fs::write(path, junit()).map_err(|e| {
        let message = format!("{} cannot be written: {e}", path.display());
        let mut problems = Problems::default();
        problems.push(Problem::error(codes::FILE_UNREADABLE, message).help("check the path and its permissions"));
        Failure::new(problems, crate::diag::Sources::default())
    })
}
