//! `list`: the labs that run.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::daemon::api::LabStatus;
use crate::daemon::client::Client;
use crate::runtime::RuntimeDir;

use super::Done;
use super::args::OutputArgs;
use super::output::{self, Table};

pub fn run(args: &OutputArgs) -> Done {
    let dir = RuntimeDir::open()?;
    let mut all: Vec<(i32, LabStatus)> = Vec::new();
    for name in dir.labs()? {
        let client = Client::new(&dir, name);
        // One that ends in this moment is simply no longer there.
        if let (Ok(pid), Ok(status)) = (client.pid(), client.get("/labctl/v1/status")) {
            all.push((pid, status));
        }
    }
    let value: Value = all.iter().map(|(pid, status)| with_pid(*pid, status)).collect();
    output::print(args.output, &value, |wide| table(&all, wide));
    Ok(ExitCode::SUCCESS)
}

/// A lab's status with its daemon's process as the caller sees it.
pub fn with_pid(pid: i32, status: &LabStatus) -> Value {
    let mut value = json!(status);
    value["pid"] = pid.into();
    value
}

fn table(all: &[(i32, LabStatus)], wide: bool) -> String {
    if all.is_empty() {
        return "no lab runs; start one with `labctl up FILE`\n".to_owned();
    }
    let mut headings = vec!["NAME", "BACKEND", "HOSTS", "PODS", "READY", "AGE"];
    if wide {
        headings.extend(["PID", "MEMORY", "FILE"]);
    }
    let mut table = Table::new(&headings);
    for (pid, lab) in all {
        let mut row = vec![
            lab.name.clone(),
            lab.backend.clone(),
            lab.hosts.to_string(),
            lab.pods.to_string(),
            format!("{}/{}", lab.pods_ready, lab.pods),
            output::age(lab.age),
        ];
        if wide {
            row.extend([pid.to_string(), format!("{} MiB", lab.memory_kib / 1024), output::file_name(&lab.file)]);
        }
        table.row(row);
    }
    table.text()
}
