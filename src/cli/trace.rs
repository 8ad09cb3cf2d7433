//! `trace`: where a packet went, what changed it, and why it died.

use std::process::ExitCode;

use crate::daemon::trace::{TraceAnswer, TraceRequest, Traced, Wanted};
use crate::diag::{Problem, Problems, Sources, codes};
use crate::trace::model::Trace;
use crate::trace::question::{Ask, Question};
use crate::trace::show;

use super::args::{TraceArgs, TraceFormat};
use super::output;
use super::{DIFFERED, Done, Failure, find_lab, follow};

pub fn run(args: &TraceArgs) -> Done {
    if let Some(machine) = &args.follow {
        return follow::run(args, machine);
    }
    let client = find_lab(args.lab.as_deref())?;
    let request = TraceRequest { asked: Wanted::Question(question(args)), frames: args.output == TraceFormat::Pcapng };
    match client.post("/labctl/v1/trace", &request)? {
        TraceAnswer::Failed(found) => {
            let mut problems = Problems::default();
            problems.extend(found);
            Err(Failure::new(problems, Sources::default()))
        }
        TraceAnswer::Traced(traced) => {
            print(args, &traced)?;
            Ok(if traced.trace.asked.answered { ExitCode::SUCCESS } else { ExitCode::from(DIFFERED) })
        }
    }
}

/// The question that was typed.
fn question(args: &TraceArgs) -> Question {
    let kinds = [
        (args.tcp, Ask::Tcp),
        (args.udp, Ask::Udp),
        (args.icmp, Ask::Icmp),
        (args.http, Ask::Http),
        (args.dns, Ask::Dns),
    ];
    let size = args.size.map(|_| Ask::Icmp);
    Question {
        from: args.from.clone().unwrap_or_default(),
        to: args.to.clone().unwrap_or_default(),
        kind: kinds.iter().find(|(chosen, _)| *chosen).map(|(_, kind)| *kind).or(size),
        port: args.port.clone(),
        connect_to: args.connect_to.clone(),
        insecure: args.insecure,
        size: args.size,
        timeout: args.timeout,
    }
}

fn print(args: &TraceArgs, traced: &Traced) -> Result<(), Box<Problem>> {
    let trace = &traced.trace;
    let text = match args.output {
        TraceFormat::Text | TraceFormat::Wide => text(args, trace),
        TraceFormat::Json => format!("{:#}\n", serde_json::json!(trace)),
        _ => String::new(),
    };
    write(args, text.as_bytes())
}

fn text(args: &TraceArgs, trace: &Trace) -> String {
    let colour = args.out.is_none() && output::colour(&std::io::stdout());
    let wide = args.output == TraceFormat::Wide;
    show::text(trace, &show::Style { width: output::width(), colour, why: args.why, wide })
}

/// To the file that was named, or to standard output.
fn write(args: &TraceArgs, bytes: &[u8]) -> Result<(), Box<Problem>> {
    let Some(path) = &args.out else {
        output::write_bytes(bytes);
        return Ok(());
    };
    std::fs::write(path, bytes).map_err(|e| {
        let message = format!("{} cannot be written: {e}", path.display());
        Box::new(Problem::error(codes::FILE_UNREADABLE, message).help("check the path and its permissions"))
    })
}
