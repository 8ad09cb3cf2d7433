//! `logs`: what a pod's program wrote, as far as it is kept.

use std::io::Write;
use std::process::ExitCode;

use super::args::LogsArgs;
use super::{Done, find_lab, kube};

pub fn run(args: &LogsArgs) -> Done {
    let client = find_lab(args.lab.as_deref())?;
    let target = kube::target(&client, &args.pod, args.namespace.as_deref())?;
    let container = args.container.as_ref().map(|c| format!("&container={c}")).unwrap_or_default();
    let follow = if args.follow { "&follow=1" } else { "" };
    let mut from = 0;
    loop {
        let raw = match client.raw(&format!("/labctl/v1/logs?target={target}{container}{follow}&from={from}")) {
            Ok(raw) => raw,
            // Followed to its end: the lab or the pod is gone.
            Err(_) if from > 0 => return Ok(ExitCode::SUCCESS),
            Err(problem) => return Err(problem.into()),
        };
        let mut out = std::io::stdout().lock();
        if out.write_all(&raw.bytes).and_then(|()| out.flush()).is_err() || !args.follow {
            return Ok(ExitCode::SUCCESS);
        }
        from = raw.position;
    }
}
