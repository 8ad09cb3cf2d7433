//! `validate`: every problem of lab files, without building anything.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::diag::{Problems, Sources, render};

use super::args::{Format, ValidateArgs};
use super::output::{self, count, print_json, print_yaml};
use super::{BAD_INPUT, Done, Failure, show, up};

pub fn run(args: &ValidateArgs) -> Done {
    let mut good = true;
    let mut all: Vec<Value> = Vec::new();
    for file in &args.files {
        let (problems, sources, said) = match up::prepare(file) {
            Ok(ready) => {
                let said = format!(
                    "{file}: lab {} is valid: {}, {}, {}\n",
                    ready.lab.name,
                    count(ready.lab.hosts.len(), "host"),
                    count(ready.lab.pods.len(), "pod"),
                    count(ready.lab.probes.len(), "probe"),
                );
                (ready.warnings, ready.sources, said)
            }
            Err(Failure { problems, sources }) => {
                good = false;
                (problems, sources, String::new())
            }
        };
        report(args.format.output, &problems, &sources, &said, file, &mut all);
    }
    match args.format.output {
        Format::Json => print_json(&Value::Array(all)),
        Format::Yaml => print_yaml(&Value::Array(all)),
        Format::Table | Format::Wide => {}
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(BAD_INPUT) })
}

fn report(format: Format, problems: &Problems, sources: &Sources, said: &str, file: &str, all: &mut Vec<Value>) {
    if matches!(format, Format::Json | Format::Yaml) {
        let valid = !problems.has_errors();
        all.push(json!({ "file": file, "valid": valid, "problems": render::to_json(problems, sources) }));
    } else {
        show(problems, sources);
        output::write(format_args!("{said}"));
    }
}
