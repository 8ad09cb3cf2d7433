//! `heal`: faults that a running lab was given are undone.

use std::process::ExitCode;

use serde_json::json;

use crate::daemon::faults::api::{HealRequest, Healed, PATH};

use super::args::HealArgs;
use super::output::print;
use super::{DIFFERED, Done, break_it, find_lab};

pub fn run(args: &HealArgs) -> Done {
    let client = find_lab(args.lab.as_deref())?;
    let healed: Vec<Healed> = client.post(&format!("{PATH}/heal"), &HealRequest { name: args.name.clone() })?;
    print(args.format.output, &json!(healed), |_| {
        if healed.is_empty() {
            return format!("lab {} was not broken on purpose\n", client.lab());
        }
        let told = |h: &Healed| {
            format!("lab {} is healed: it was {} on {}\n", client.lab(), h.name, h.on)
                + &break_it::asked(&h.asks, &h.now)
        };
        healed.iter().map(told).collect()
    });
    Ok(if healed.iter().all(|h| h.now.answered) { ExitCode::SUCCESS } else { ExitCode::from(DIFFERED) })
}
