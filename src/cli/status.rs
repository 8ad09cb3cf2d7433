//! `status`: how a running lab is.

use std::process::ExitCode;

use crate::daemon::api::LabStatus;

use super::args::LabArgs;
use super::output::{age, count, file_name, print};
use super::{Done, find_lab, list};

pub fn run(args: &LabArgs) -> Done {
    let client = find_lab(args.lab())?;
    let status: LabStatus = client.get("/labctl/v1/status")?;
    let pid = client.pid()?;
    print(args.format.output, &list::with_pid(pid, &status), |_| text(pid, &status));
    Ok(ExitCode::SUCCESS)
}

fn text(pid: i32, status: &LabStatus) -> String {
    let mut out = format!("lab {}, up for {}, from {}\n", status.name, age(status.age), file_name(&status.file));
    if let Some(description) = &status.description {
        out.push_str(&format!("{description}\n"));
    }
    out.push_str(&format!(
        "{}, {}, {}, and the internet behind the router; flannel {}\n{} of {} ready; daemon {pid}, {} MiB\n",
        count(status.networks, "network"),
        count(status.hosts, "host"),
        count(status.clients, "client"),
        status.backend,
        status.pods_ready,
        count(status.pods, "pod"),
        status.memory_kib / 1024,
    ));
    if !status.broken.is_empty() {
        out.push_str(&format!("broken on purpose: {}; `labctl heal` repairs it\n", status.broken.join(", ")));
    }
    if !status.trouble.is_empty() {
        out.push_str("trouble:\n");
        out.extend(status.trouble.iter().map(|t| format!("  {t}\n")));
    }
    if !status.notes.is_empty() {
        out.push_str("notes:\n");
        out.extend(status.notes.iter().map(|note| format!("  {note}\n")));
    }
    out
}
