//! `validate`: every problem of lab files, without building anything.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::diag::{Problem, Problems, Sources, render};
use crate::spec::{beside, load};

use super::args::{Format, ValidateArgs};
use super::output::{self, count, print_json, print_yaml};
use super::{BAD_INPUT, Done, Failure, point_to_explain, show, up};

/// What is known of one file.
struct Checked {
    file: String,
    problems: Problems,
    sources: Sources,
    /// What there is to say of a valid one.
    said: String,
}

pub fn run(args: &ValidateArgs) -> Done {
    let mut all = Vec::new();
    let together = args.is_one() && beside::any_manifest(args.beside());
    if together {
        let one = args.one();
        let name = one.file.iter().chain(&one.beside).next().cloned().unwrap_or_default();
        all.push(judge(name, up::prepare_with(&one)));
    }
    for word in args.files().filter(|_| !together) {
        match load::labs(word) {
            Ok(files) => all.extend(files.into_iter().map(check)),
            Err(problem) => all.push(refused(word.clone(), Failure::from(problem))),
        }
    }
    let programs = matches!(args.format.output, Format::Json | Format::Yaml);
    if programs {
        let value: Value = all.iter().map(Checked::json).collect();
        if args.format.output == Format::Json { print_json(&value) } else { print_yaml(&value) }
    } else {
        all.iter().for_each(Checked::tell);
    }
    let bad = all.iter().filter(|c| c.problems.has_errors()).count();
    if !programs && all.len() > 1 {
        output::line(format_args!("{}: {} valid, {bad} not", count(all.len(), "lab"), all.len() - bad));
    }
    if !programs {
        let problems: Vec<&Problem> = all.iter().flat_map(|c| c.problems.iter()).collect();
        point_to_explain(problems);
    }
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::from(BAD_INPUT) })
}

fn check(file: String) -> Checked {
    let found = up::prepare(&file);
    judge(file, found)
}

fn judge(file: String, found: Result<up::Ready, Failure>) -> Checked {
    match found {
        Ok(ready) => {
            let lab = &ready.lab;
            let (hosts, pods) = (count(lab.hosts.len(), "host"), count(lab.pods.len(), "pod"));
            let probes = count(lab.probes.len(), "probe");
            let said = format!("{file}: lab {} is valid: {hosts}, {pods}, {probes}\n", lab.name);
            Checked { file, problems: ready.warnings, sources: ready.sources, said }
        }
        Err(failure) => refused(file, failure),
    }
}

fn refused(file: String, Failure { problems, sources }: Failure) -> Checked {
    Checked { file, problems, sources, said: String::new() }
}

impl Checked {
    fn json(&self) -> Value {
        let problems = render::to_json(&self.problems, &self.sources);
        json!({ "file": self.file, "valid": !self.problems.has_errors(), "problems": problems })
    }

    fn tell(&self) {
        show(&self.problems, &self.sources);
        output::write(format_args!("{}", self.said));
    }
}
