//! `break`: a running lab is given a fault, or the faults that there are are shown.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::daemon::client::Client;
use crate::daemon::faults::api::{BreakRequest, Broken, PATH, Seen, fault};
use crate::diag::codes;
use crate::fault;

use super::args::BreakArgs;
use super::output::{Table, print, text};
use super::{DIFFERED, Done, Failure, find_lab};

pub fn run(args: &BreakArgs) -> Done {
    if args.list {
        return list(args);
    }
    let name = args.name.clone().unwrap_or_default();
    fault(&name)?;
    let client = find_lab(args.lab.as_deref())?;
    let request = BreakRequest { name, on: args.on.clone() };
    let broken: Broken = client.post(&format!("{PATH}/break"), &request)?;
    print(args.format.output, &json!(broken), |_| drawn(&client, &broken, &named(args.lab.as_deref())));
    // A fault that shows nothing is worth a word.
    Ok(if broken.before.answered && !broken.now.answered { ExitCode::SUCCESS } else { ExitCode::from(DIFFERED) })
}

/// Words that name the lab again where it had to be named.
pub fn named(lab: Option<&str>) -> String {
    lab.map(|lab| format!(" -l {lab}")).unwrap_or_default()
}

fn drawn(client: &Client, broken: &Broken, lab: &str) -> String {
    let mut out = format!("lab {} is broken: {} on {}\n", client.lab(), broken.name, broken.here.on);
    out.push_str(&format!("  {}\n", broken.says));
    out.extend(broken.steps.iter().map(|step| format!("  {}\n", super::plan::brief(step))));
    out.push_str(&asked(&broken.here.asks, &broken.now));
    if !broken.before.answered {
        out.push_str(&format!("  but that was not answered before, either: {}\n", broken.before.seen));
    }
    let trace = broken.here.question.typed().join(" ");
    let heal = format!("labctl heal {}{lab}", broken.name);
    out.push_str(&format!("\nTry next:\n  labctl trace {trace} --why{lab}\n  labctl diff{lab}\n  {heal}\n"));
    out
}

/// What came of a question, as a line.
pub fn asked(asks: &str, seen: &Seen) -> String {
    let answered = if seen.answered { "is answered" } else { "is not answered" };
    format!("  {asks}: {answered} ({})\n", seen.seen)
}

/// Every fault. Without a lab that runs nothing is said of where it would be.
fn list(args: &BreakArgs) -> Done {
    let all: Vec<Value> = match find_lab(args.lab.as_deref()) {
        Ok(client) => client.get(PATH)?,
        Err(problem) if args.lab.is_none() && problem.code == codes::LAB_UNKNOWN => {
            fault::catalogue().map(|f| json!(f)).collect()
        }
        Err(problem) => return Err(Failure::from(problem)),
    };
    print(args.format.output, &json!(all), |wide| {
        let mut headings = vec!["NAME", "WHAT", "HERE"];
        if wide {
            headings.extend(["CAUSE", "PLACE", "ASKED", "NEEDS"]);
        }
        let mut table = Table::new(&headings);
        all.iter().for_each(|f| table.row(row(f, wide)));
        table.text()
    });
    Ok(ExitCode::SUCCESS)
}

fn row(fault: &Value, wide: bool) -> Vec<String> {
    let here = match (fault["broken"].as_bool(), fault.get("here")) {
        (Some(true), _) => "broken".to_owned(),
        (_, Some(_)) => text(fault, "/here/on").to_owned(),
        _ => "-".to_owned(),
    };
    let mut cells = vec![text(fault, "/name").to_owned(), text(fault, "/title").to_owned(), here];
    if wide {
        cells.extend(["/cause", "/place", "/here/asks", "/needs"].map(|at| text(fault, at).to_owned()));
    }
    cells
}
