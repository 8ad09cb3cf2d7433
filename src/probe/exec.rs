//! Programs run in a namespace: their output, bounded, and how they ended. A program that is
//! still there at the time limit is killed with everything it started.

use std::io;
use std::process::ExitStatus;

use nix::sys::signal::Signal;

use super::Asking;
use super::outcome::{Answer, Details, Failure};
use crate::kernel::process::{Running, exit_code};
use crate::spec::probe::FailureName;

/// The most bytes of output that are kept.
const MOST_OUTPUT: usize = 64 << 10;

pub async fn ask(asking: &Asking<'_>, words: &[String]) -> Result<Answer, Failure> {
    let program = words.first().map_or("", String::as_str);
    let fault = |e: io::Error| Failure::unasked(format!("`{program}` on {}: {e}", asking.from));
    let mut running = (asking.field.enter)(asking.from, words).and_then(Running::start).map_err(fault)?;
    let mut output = Vec::new();
    let ended = asking.within(running.until_the_end(&mut output, MOST_OUTPUT)).await;
    let status = match ended {
        Some(status) => status.map_err(fault)?,
        None => {
            let said = super::outcome::excerpt(&String::from_utf8_lossy(&output));
            let said = if said.is_empty() { String::new() } else { format!("; it said: {said}") };
            let text = format!("`{program}` on {} did not end", asking.from);
            let silence = asking.silence(FailureName::Timeout, text);
            return Err(Failure { text: format!("{} and was killed{said}", silence.text), ..silence });
        }
    };
    let details = Details { exit_code: Some(exit_code(status)), ..Details::default() };
    let refusal = (!status.success())
        .then(|| Failure::answer(FailureName::Any, format!("`{program}` ended with {}", end(status))));
    Ok(Answer { details, text: Some(String::from_utf8_lossy(&output).into_owned()), refusal })
}

/// How it ended. Who is killed in a room of its own is told as shells tell it, by a number.
fn end(status: ExitStatus) -> String {
    let code = exit_code(status);
    match Signal::try_from(code - 128) {
        Ok(signal) => format!("exit code {code} ({signal})"),
        Err(_) => format!("exit code {code}"),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_signal_is_named() {
        for script in ["kill -TERM $$", "exit 143"] {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            let mut running = Running::start(command).expect("sh");
            let status = running.until_the_end(&mut Vec::new(), MOST_OUTPUT).await.expect("an end");
            assert_eq!((end(status).as_str(), exit_code(status)), ("exit code 143 (SIGTERM)", 143));
        }
    }
}
