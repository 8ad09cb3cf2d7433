//! `probe`: the probes of a running lab, all or some.

use std::process::ExitCode;

use serde_json::json;

use crate::probe::{Outcome, report};

use super::args::{ProbeArgs, ReportFormat};
use super::output::{self, colour, print_json, print_yaml};
use super::{DIFFERED, Done, find_lab};

pub fn run(args: &ProbeArgs) -> Done {
    let client = find_lab(args.lab.as_deref())?;
    let outcomes: Vec<Outcome> = client.post("/labctl/v1/probe", &args.names)?;
    match args.output {
        ReportFormat::Table if outcomes.is_empty() => output::line(format_args!("lab {} has no probes", client.lab())),
        ReportFormat::Table => output::write(format_args!("{}", report::table(&outcomes, colour(&std::io::stdout())))),
        ReportFormat::Json => print_json(&json!(outcomes)),
        ReportFormat::Yaml => print_yaml(&json!(outcomes)),
        ReportFormat::Junit => {
            let labs = [(client.lab().as_str(), outcomes.as_slice())];
            output::write(format_args!("{}", report::junit(&labs).unwrap_or_default()));
        }
    }
    let all = outcomes.iter().all(Outcome::passed);
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::from(DIFFERED) })
}
