//! `doctor`: what the machine allows, one line each, with a remedy for what it does not.

use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use serde_json::json;

use crate::doctor::{Finding, Verdict, examine, is_fit};

use super::args::OutputArgs;
use super::output::{colour, print};
use super::{Done, MACHINE};

pub fn run(args: &OutputArgs) -> Done {
    let findings = examine();
    let fit = is_fit(&findings);
    print(args.output, &json!({ "fit": fit, "findings": findings }), |_| text(&findings));
    Ok(if fit { ExitCode::SUCCESS } else { ExitCode::from(MACHINE) })
}

fn text(findings: &[Finding]) -> String {
    let painted = colour(&std::io::stdout());
    let widest = findings.iter().map(|f| f.what.len()).max().unwrap_or(0);
    let mut out = String::new();
    for finding in findings {
        let style = if painted { style(finding.verdict) } else { Style::new() };
        let word = finding.verdict.word();
        out.push_str(&format!("{style}{word:<8}{style:#} {:<widest$}  {}\n", finding.what, finding.said));
        if let Some(remedy) = &finding.remedy {
            out.push_str(&format!("{:9}{:widest$}  what to do: {remedy}\n", "", ""));
        }
    }
    out.push_str(match is_fit(findings) {
        true if findings.iter().any(|f| f.verdict == Verdict::Warning) => "\nlabs can run, with what is warned of\n",
        true => "\nlabs can run\n",
        false => "\nlabs cannot run on this machine as it is\n",
    });
    out
}

fn style(verdict: Verdict) -> Style {
    Style::new().fg_color(Some(
        match verdict {
            Verdict::Ok => AnsiColor::Green,
            Verdict::Hint => AnsiColor::Cyan,
            Verdict::Warning => AnsiColor::Yellow,
            Verdict::Fails => AnsiColor::Red,
        }
        .into(),
    ))
}
