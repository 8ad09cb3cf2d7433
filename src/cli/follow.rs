//! `trace --follow`: what a pod, host or client really sends and gets, packet by packet.

use std::io::Write;
use std::ops::ControlFlow;
use std::process::ExitCode;

use crate::daemon::api::LabStatus;
use crate::diag::{Problem, codes};
use crate::trace::follow::told::Told;
use crate::trace::show::{self, Style};

use super::args::{TraceArgs, TraceFormat};
use super::output;
use super::{Done, find_lab};

pub fn run(args: &TraceArgs, machine: &str) -> Done {
    if !matches!(args.format(), TraceFormat::Text | TraceFormat::Wide | TraceFormat::Json) || args.out.is_some() {
        let problem = Problem::error(codes::COMMAND_FAILED, "what is followed has no end, and so is told as it comes");
        return Err(
            Box::new(problem.help("take `-o text`, `-o wide` or `-o json`, and redirect it into a file")).into()
        );
    }
    let client = find_lab(args.lab.as_deref())?;
    let colour = output::colour(&std::io::stdout());
    let wide = args.format() == TraceFormat::Wide;
    let style = Style { width: output::width(), colour, why: false, wide, reply: false };
    let seconds = args.timeout.map(|s| format!("&seconds={s}")).unwrap_or_default();
    let (mut first, mut ended) = (true, false);
    let followed = client.follow(&format!("/labctl/v1/follow?target={machine}{seconds}"), |line| {
        first = false;
        let told = serde_json::from_slice::<Told>(line).ok();
        ended = matches!(told, Some(Told::Ended { .. }));
        let text = match args.format() {
            TraceFormat::Json => String::from_utf8_lossy(line).into_owned(),
            _ => told.map(|told| show::followed(&told, &style)).unwrap_or_default(),
        };
        // Each packet at once, also into a pipe.
        let mut out = anstream::stdout().lock();
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    match followed {
        Err(problem) if first => Err(problem.into()),
        // Followed to its end: the time is up, or the lab is gone.
        _ => {
            if !ended && client.get::<LabStatus>("/labctl/v1/status").is_err() {
                anstream::eprintln!("the lab {} has ended", client.lab());
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}
