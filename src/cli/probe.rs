//! `probe`: the probes of a running lab, all or some.

use std::process::ExitCode;

use crate::probe::{Outcome, report};

use super::args::{ProbeArgs, ReportFormat};
use super::failures::Traces;
use super::output::{self, print_json, print_yaml};
use super::{DIFFERED, Done, find_lab, pictures};

pub fn run(args: &ProbeArgs) -> Done {
    let client = find_lab(args.lab.as_deref())?;
    let outcomes: Vec<Outcome> = client.post("/labctl/v1/probe", &args.names)?;
    let traces = if args.trace_failures { Traces::of(&client, &outcomes)? } else { Traces::default() };
    match args.output {
        ReportFormat::Table | ReportFormat::Wide if outcomes.is_empty() => {
            output::line(format_args!("lab {} has no probes", client.lab()))
        }
        ReportFormat::Table | ReportFormat::Wide => {
            let look = output::look(args.output == ReportFormat::Wide);
            output::write(format_args!("{}", report::table(&outcomes, look)));
            traces.tell(&outcomes, args.output == ReportFormat::Wide);
        }
        ReportFormat::Json => print_json(&traces.json(&outcomes)),
        ReportFormat::Yaml => print_yaml(&traces.json(&outcomes)),
        ReportFormat::Junit => {
            let (lab, texts) = (client.lab().as_str(), traces.texts());
            let labs = [report::Suite { lab, outcomes: &outcomes, traces: &texts, failure: None }];
            output::write(format_args!("{}", report::junit(&labs).unwrap_or_default()));
        }
    }
    if let Some(dir) = &args.svg {
        pictures::write(dir, [(client.lab().as_str(), outcomes.as_slice())])?;
    }
    let all = outcomes.iter().all(Outcome::passed);
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::from(DIFFERED) })
}
