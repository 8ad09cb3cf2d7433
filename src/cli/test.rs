//! `test`: labs are built, asked and ended, for CI. Nothing stays behind, however it ends.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::diag::render;
use crate::probe::report::{Suite, Summary};
use crate::probe::{Outcome, report};
use crate::spec::load;

use super::args::{ReportFormat, TestArgs};
use super::failures::Traces;
use super::output::{self, count, print_json, print_yaml};
use super::{DIFFERED, Done, Failure, down, pictures, point_to_explain, show, up};

/// What is said of a lab that did not become ready.
const ENDED: &str =
    "the lab was ended; `labctl up` builds it and lets it stay, for `labctl logs POD` and `labctl describe POD`";

/// What came of one file.
struct Tested {
    file: String,
    /// The lab's name, where the file could be read.
    lab: Option<String>,
    came: Result<Asked, Failure>,
}

/// What came of a lab that was asked.
struct Asked {
    outcomes: Vec<Outcome>,
    traces: Traces,
    /// What was not well at the end.
    trouble: Vec<String>,
}

pub fn run(args: &TestArgs) -> Done {
    let mut all = Vec::new();
    for word in &args.files {
        match load::labs(word) {
            Ok(files) => all.extend(files.into_iter().map(|file| one(args, file))),
            Err(problem) => {
                let failure = Failure::from(problem);
                show(&failure.problems, &failure.sources);
                all.push(Tested { file: word.clone(), lab: None, came: Err(failure) });
            }
        }
    }
    let written = write_reports(args, &all);
    if matches!(args.output, ReportFormat::Table | ReportFormat::Wide) && all.len() > 1 {
        output::write(format_args!("{}", summary(&all)));
    }
    let problems = all.iter().filter_map(|t| t.came.as_ref().err()).flat_map(|f| f.problems.iter());
    point_to_explain(problems);
    written?;
    Ok(ExitCode::from(all.iter().map(Tested::code).max().unwrap_or(0)))
}

/// Test one lab, and tell of it at once.
fn one(args: &TestArgs, file: String) -> Tested {
    let mut lab = None;
    let came = up::prepare(&file).and_then(|ready| {
        lab = Some(ready.lab.name.to_string());
        show(&ready.warnings, &ready.sources);
        ask(args, &ready)
    });
    let tested = Tested { file, lab, came };
    match &tested.came {
        Err(failure) => show(&failure.problems, &failure.sources),
        Ok(asked) if matches!(args.output, ReportFormat::Table | ReportFormat::Wide) => {
            tell(&tested, asked, args.output == ReportFormat::Wide);
        }
        Ok(_) => {}
    }
    tested
}

fn ask(args: &TestArgs, ready: &up::Ready) -> Result<Asked, Failure> {
    let raised = up::raise(ready, true)?;
    let none: [&str; 0] = [];
    let asked = up::await_ready(&raised.client, args.timeout, ENDED)
        .and_then(|()| raised.client.post::<Vec<Outcome>>("/labctl/v1/probe", &none));
    let traces = match &asked {
        Ok(outcomes) if args.trace_failures => Traces::of(&raised.client, outcomes),
        _ => Ok(Traces::default()),
    };
    let trouble = up::trouble(&raised.client);
    let ended = down::end(&raised.client);
    drop(raised.launched);
    let (outcomes, traces, trouble) = (asked?, traces?, trouble?);
    ended?;
    Ok(Asked { outcomes, traces, trouble })
}

impl Tested {
    /// The exit code that it calls for.
    fn code(&self) -> u8 {
        match &self.came {
            Err(failure) => failure.code(),
            Ok(asked) if !asked.trouble.is_empty() || !asked.outcomes.iter().all(Outcome::passed) => DIFFERED,
            Ok(_) => 0,
        }
    }

    fn outcomes(&self) -> &[Outcome] {
        self.came.as_ref().map_or(&[], |asked| &asked.outcomes)
    }

    /// The outcomes with their traces.
    fn probes(&self) -> Value {
        self.came.as_ref().map_or(json!([]), |asked| asked.traces.json(&asked.outcomes))
    }

    fn traces(&self) -> Vec<Option<String>> {
        self.came.as_ref().map(|asked| asked.traces.texts()).unwrap_or_default()
    }

    /// Why it could not be tested or is not well, on one line; nothing where all is.
    fn why(&self) -> Option<String> {
        match &self.came {
            Err(failure) => {
                let errors: Vec<String> = failure
                    .problems
                    .iter()
                    .filter(|p| p.is_error())
                    .map(|p| format!("{} [{}]", p.message, p.code))
                    .collect();
                Some(errors.join("; "))
            }
            Ok(asked) => (!asked.trouble.is_empty()).then(|| asked.trouble.join("; ")),
        }
    }

    fn json(&self) -> Value {
        let mut value = json!({ "lab": self.lab, "file": self.file, "probes": self.probes() });
        match &self.came {
            Err(failure) => value["problems"] = render::to_json(&failure.problems, &failure.sources),
            Ok(asked) if !asked.trouble.is_empty() => value["trouble"] = json!(asked.trouble),
            Ok(_) => {}
        }
        value
    }
}

fn tell(tested: &Tested, asked: &Asked, wide: bool) {
    output::line(format_args!("lab {} ({})", tested.lab.as_deref().unwrap_or_default(), tested.file));
    match asked.outcomes.as_slice() {
        [] => output::line(format_args!("it has no probes")),
        outcomes => output::write(format_args!("{}", report::table(outcomes, output::look(wide)))),
    }
    asked.traces.tell(&asked.outcomes, wide);
    output::line(format_args!(""));
}

/// A line for each lab, and one for all of them.
fn summary(all: &[Tested]) -> String {
    let mut table = output::Table::new(&["RESULT", "LAB", "FILE", "PROBES"]);
    for tested in all {
        let result = match (&tested.came, tested.code()) {
            (Err(failure), DIFFERED) if failure.problems.has_errors() => "not ready",
            (Err(_), _) => "not tested",
            (Ok(_), 0) => "passed",
            (Ok(_), _) => "differed",
        };
        let lab = tested.lab.clone().unwrap_or_else(|| "-".to_owned());
        let probes = match &tested.came {
            Ok(asked) => Summary::of(&asked.outcomes).to_string(),
            Err(_) => "-".to_owned(),
        };
        table.row([result.to_owned(), lab, tested.file.clone(), probes]);
    }
    let good = all.iter().filter(|t| t.code() == 0).count();
    let bad = match all.len() - good {
        0 => String::new(),
        n => format!(", {n} not"),
    };
    format!("{}{}: {good} as expected{bad}\n", table.text(), count(all.len(), "lab"))
}

fn write_reports(args: &TestArgs, all: &[Tested]) -> Result<(), Failure> {
    let junit = || {
        let texts: Vec<_> = all.iter().map(|tested| (tested.traces(), tested.why())).collect();
        let suites: Vec<Suite> =
            all.iter().zip(&texts).map(|(tested, (t, why))| suite(tested, t, why.as_deref())).collect();
        report::junit(&suites).unwrap_or_default()
    };
    let value = || -> Value { all.iter().map(Tested::json).collect() };
    match args.output {
        ReportFormat::Table | ReportFormat::Wide => {}
        ReportFormat::Json => print_json(&value()),
        ReportFormat::Yaml => print_yaml(&value()),
        ReportFormat::Junit => output::write(format_args!("{}", junit())),
    }
    if let Some(dir) = &args.svg {
        pictures::write(dir, all.iter().map(|t| (t.lab.as_deref().unwrap_or_default(), t.outcomes())))?;
    }
    let Some(path) = &args.junit else { return Ok(()) };
    output::write_file(path, junit())
}

fn suite<'t>(tested: &'t Tested, traces: &'t [Option<String>], failure: Option<&'t str>) -> Suite<'t> {
    Suite { lab: tested.lab.as_deref().unwrap_or(&tested.file), outcomes: tested.outcomes(), traces, failure }
}
