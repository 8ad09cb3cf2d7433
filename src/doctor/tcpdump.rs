//! Whether tcpdump listens in a lab. It becomes another user before it does, on Debian one of its
//! own; and an ordinary user's lab has no user but its root and can set no groups
//! (user_namespaces(7)). How a distribution has built it decides, so it is tried, in the child's
//! namespaces.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Finding, Verdict, machine};

const WHAT: &str = "tcpdump";

pub fn tried() -> Finding {
    let Some(path) = machine::find(WHAT) else { return machine::not_installed(WHAT, WHAT) };
    let Err(why) = listens(&path, &[]) else { return Finding::ok(WHAT, path.display().to_string()) };
    let said = format!("it does not listen in a lab of yours: {why}");
    let remedy = match listens(&path, &["-Z", "root"]) {
        Ok(()) => "let it stay root: `labctl exec POD -- tcpdump -Z root -ni eth0`",
        Err(_) => "run the lab as root where you want to listen with tcpdump; nothing else needs it",
    };
    Finding::new(WHAT, Verdict::Hint, said).remedy(remedy)
}

/// Start it, and see whether it comes to listening. It says so on its standard error once it is who
/// it wants to be.
fn listens(path: &Path, more: &[&str]) -> Result<(), String> {
    let mut command = Command::new(path);
    command.args(["-n", "-i", "any", "-w", "/dev/null"]).args(more);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(|e| e.to_string())?;
    let mut last = "it ended without a word".to_owned();
    let mut listening = false;
    for line in child.stderr.take().into_iter().flat_map(|stderr| BufReader::new(stderr).lines()) {
        let Ok(line) = line else { break };
        if line.contains("listening on") {
            listening = true;
            break;
        }
        last = line.trim_start_matches("tcpdump: ").to_owned();
    }
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
    if listening { Ok(()) } else { Err(last) }
}
