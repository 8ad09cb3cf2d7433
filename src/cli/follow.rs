//! `trace --follow`: what a pod, host or client really sends and gets, packet by packet.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;

use crate::daemon::api::LabStatus;
use crate::daemon::follow::Captured;
use crate::diag::{Problem, codes};
use crate::trace::follow::told::Told;
use crate::trace::show::pcapng::Capture;
use crate::trace::show::{Follow, Style};

use super::args::{TraceArgs, TraceFormat};
use super::output;
use super::trace::frame;
use super::{Done, Failure, find_lab};

pub fn run(args: &TraceArgs, machine: &str) -> Done {
    let format = args.format();
    if matches!(format, TraceFormat::Mermaid | TraceFormat::Html) {
        let problem = Problem::error(codes::COMMAND_FAILED, "what is followed has no end, and so is told as it comes");
        return Err(Box::new(problem.help("take `-o text`, `-o wide`, `-o json` or `-o pcapng`")).into());
    }
    let client = find_lab(args.lab.as_deref())?;
    let mut writer = Writer::open(args)?;
    let seconds = args.timeout.map(|s| format!("&seconds={s}")).unwrap_or_default();
    let frames = if format == TraceFormat::Pcapng { "&frames=1" } else { "" };
    let without = args.without.as_ref().map(|means| format!("&without={means}")).unwrap_or_default();
    let (mut first, mut ended, mut failed) = (true, false, None);
    let followed = client.follow(&format!("/labctl/v1/follow?target={machine}{seconds}{frames}{without}"), |line| {
        first = false;
        let captured = captured(line, format);
        ended = matches!(captured, Some(Captured { told: Told::Ended { .. }, .. }));
        failed = writer.write(line, captured).err();
        if failed.is_none() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    if let (Some(e), Some(path)) = (&failed, &args.out) {
        return Err(output::unwritable(path, e));
    }
    match followed {
        Err(problem) if first => Err(problem.into()),
        // Followed to its end: the time is up, or the lab or the reader is gone.
        _ => {
            if !ended && failed.is_none() && client.get::<LabStatus>("/labctl/v1/status").is_err() {
                anstream::eprintln!("the lab {} has ended", client.lab());
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// What a line says; nothing where it is of a daemon that says more than is known here.
fn captured(line: &[u8], format: TraceFormat) -> Option<Captured> {
    match format {
        TraceFormat::Pcapng => serde_json::from_slice(line).ok(),
        _ => serde_json::from_slice(line).ok().map(|told| Captured { told, frames: Vec::new() }),
    }
}

/// Where what is told goes, each packet at once, also into a pipe.
enum Writer {
    /// Lines as they come.
    Json(Box<dyn Write>),
    Text(Box<dyn Write>, Follow),
    /// It begins with the first line, which says what it is of.
    Capture(Option<Box<dyn Write>>, Option<Capture<Box<dyn Write>>>),
}

impl Writer {
    fn open(args: &TraceArgs) -> Result<Writer, Failure> {
        let out: Box<dyn Write> = match &args.out {
            Some(path) => Box::new(std::fs::File::create(path).map_err(|e| output::unwritable(path, &e))?),
            None if args.format() == TraceFormat::Pcapng => Box::new(io::stdout()),
            None => Box::new(anstream::stdout()),
        };
        let colour = args.out.is_none() && output::colour(&io::stdout());
        let wide = args.format() == TraceFormat::Wide;
        Ok(match args.format() {
            TraceFormat::Json => Writer::Json(out),
            TraceFormat::Pcapng => Writer::Capture(Some(out), None),
            _ => Writer::Text(out, shown(colour, wide)),
        })
    }

    fn write(&mut self, line: &[u8], captured: Option<Captured>) -> io::Result<()> {
        match self {
            Writer::Json(out) => out.write_all(line).and_then(|()| out.flush()),
            Writer::Text(out, shown) => {
                let text = captured.map(|captured| shown.text(&captured.told)).unwrap_or_default();
                out.write_all(text.as_bytes()).and_then(|()| out.flush())
            }
            Writer::Capture(out, capture) => {
                let Some(Captured { told, frames }) = captured else { return Ok(()) };
                if let (Some(out), Told::Following(begun)) = (out.take_if(|_| capture.is_none()), &told) {
                    let says = format!("what {} in lab {} sends and gets", begun.machine, begun.lab);
                    *capture = Some(Capture::begin(&says, out).map_err(io::Error::other)?);
                }
                if !matches!(told, Told::Packet(_)) {
                    anstream::eprint!("{}", shown(false, false).text(&told));
                }
                let Some(capture) = capture else { return Ok(()) };
                let written = frames.into_iter().try_for_each(|one| capture.frame(&frame(one)));
                written.and_then(|()| capture.flush()).map_err(io::Error::other)
            }
        }
    }
}

fn shown(colour: bool, wide: bool) -> Follow {
    Follow::new(Style { width: output::width(), colour, why: false, wide, reply: false })
}
