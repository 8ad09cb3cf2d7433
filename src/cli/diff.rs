//! `diff`: where the kernel's state is not what the lab's plan says. `up` repairs it.

use std::process::ExitCode;

use serde_json::json;

use crate::daemon::api::StepText;

use super::args::LabArgs;
use super::output::{count, print};
use super::{DIFFERED, Done, find_lab, plan};

/// A large lab is read back in some seconds.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);

pub fn run(args: &LabArgs) -> Done {
    let client = find_lab(args.lab())?;
    let steps: Vec<StepText> = client.get_within("/labctl/v1/drift", PATIENCE)?;
    print(args.format.output, &json!({ "lab": client.lab(), "repair": steps }), |_| {
        if steps.is_empty() {
            return format!("lab {} is as planned\n", client.lab());
        }
        let many = count(steps.len(), "step");
        format!("lab {} is not as planned; `labctl up` would repair it in {many}:\n", client.lab())
            + &plan::by_namespace(&steps)
    });
    Ok(if steps.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(DIFFERED) })
}
