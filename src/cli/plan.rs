//! `plan`: what `up` would do. Against a running lab of that name, the difference.

use std::process::ExitCode;

use serde_json::json;

use crate::daemon::api::{Change, StepText, Steps};
use crate::daemon::client::Client;
use crate::diag::Problems;
use crate::plan::{self, Plan, diff};
use crate::runtime::RuntimeDir;

use super::args::{Format, PlanArgs};
use super::output::{count, print, print_json, print_yaml};
use super::{Done, Failure, show, up};

pub fn run(args: &PlanArgs) -> Done {
    let ready = up::prepare_with(&args.from)?;
    show(&ready.warnings, &ready.sources);
    let running = RuntimeDir::open().and_then(|dir| Ok((dir.labs()?, dir)));
    let client = running
        .ok()
        .and_then(|(labs, dir)| labs.contains(&ready.lab.name).then(|| Client::new(&dir, ready.lab.name.clone())));
    let wanted = plan::plan(&ready.lab);
    let (steps, services, objects, what) = match client {
        None => {
            let steps = diff::diff(&Plan::default(), &wanted);
            let steps: Vec<StepText> =
                steps.iter().map(|s| StepText { namespace: s.ns.to_string(), step: s.op.to_string() }).collect();
            let what = format!("`up` would build lab {} in {}:\n", ready.lab.name, count(steps.len(), "step"));
            (steps, Vec::new(), Vec::new(), what)
        }
        Some(client) => match client.post("/labctl/v1/plan", &Change { text: ready.text.clone() })? {
            Steps::Failed(found) => {
                let mut problems = Problems::default();
                problems.extend(found);
                return Err(Failure::new(problems, ready.sources));
            }
            Steps::Steps { steps, services, objects } => {
                let what = match steps.len() {
                    0 if !objects.is_empty() => format!("`up` would change lab {}:\n", ready.lab.name),
                    0 => format!("lab {} is as the file says\n", ready.lab.name),
                    n => format!("`up` would change lab {} in {}:\n", ready.lab.name, count(n, "step")),
                };
                (steps, services, objects, what)
            }
        },
    };
    let value = json!({
        "lab": ready.lab, "namespaces": wanted.namespaces, "steps": steps, "services": services, "objects": objects,
    });
    match args.format.output {
        Format::Json => print_json(&value),
        Format::Yaml => print_yaml(&value),
        format => {
            print(format, &value, |wide| what + &of_objects(&services, &objects) + &by_namespace(&shown(&steps, wide)))
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What becomes of services and of what the ingress controller reads, a line each.
fn of_objects(services: &[String], objects: &[String]) -> String {
    let services = services.iter().map(|line| format!("service {line}\n"));
    services.chain(objects.iter().map(|line| format!("{line}\n"))).collect()
}

/// Steps with each rule that differs only where the wide look is wanted.
fn shown(steps: &[StepText], wide: bool) -> Vec<StepText> {
    let short = |s: &StepText| StepText { namespace: s.namespace.clone(), step: brief(&s.step) };
    if wide { steps.to_vec() } else { steps.iter().map(short).collect() }
}

/// A step in one line: rules that differ are counted.
pub(super) fn brief(step: &str) -> String {
    let mut lines = step.lines();
    let first = lines.next().unwrap_or_default();
    match lines.count() {
        0 => first.to_owned(),
        n => format!("{first}, {n} differ (-o wide shows them)"),
    }
}

/// Steps under the name of their namespace, which is said once for those that follow each other.
pub fn by_namespace(steps: &[StepText]) -> String {
    let mut out = String::new();
    for group in steps.chunk_by(|a, b| a.namespace == b.namespace) {
        out.push_str(&format!("{}\n", group[0].namespace));
        for step in group {
            out.push_str(&format!("  {}\n", step.step));
        }
    }
    out
}
