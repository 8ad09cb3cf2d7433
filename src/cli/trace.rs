//! `trace`: where a packet goes, what changes it, and why it dies.

use std::io::IsTerminal;
use std::process::ExitCode;

use base64::Engine;

use crate::daemon::frames::RecordedFrame;
use crate::daemon::trace::{TraceAnswer, TraceRequest, Traced, Wanted};
use crate::diag::{Problem, Problems, Sources, codes};
use crate::plan;
use crate::trace::model::Trace;
use crate::trace::origin::Origin;
use crate::trace::predict;
use crate::trace::question::{Ask, Question};
use crate::trace::show::{self, pcapng};

use super::args::{TraceArgs, TraceFormat};
use super::output;
use super::{DIFFERED, Done, Failure, find_lab, follow, graph, up};

pub fn run(args: &TraceArgs) -> Done {
    if let Some(ending) = args.strange_ending() {
        let message = format!("no form of a trace is kept in a file that ends in `.{ending}`");
        let help =
            "take .txt, .json, .pcapng, .mmd or .html, or choose a form with `-o`; `labctl graph` draws pictures";
        return Err(Box::new(Problem::error(codes::FILE_UNREADABLE, message).help(help)).into());
    }
    let to_terminal = args.out.is_none() && std::io::stdout().is_terminal();
    if args.format() == TraceFormat::Pcapng && to_terminal {
        let problem = Problem::error(codes::FILE_UNREADABLE, "a capture is no text for a terminal");
        let help = "write it to a file with `--out FILE`, or give it to another program, as with `| tshark -r -`";
        return Err(Box::new(problem.help(help)).into());
    }
    if let Some(machine) = &args.follow {
        return follow::run(args, machine);
    }
    let traced = if args.predict { predicted(args)? } else { observed(args)? };
    print(args, &traced)?;
    Ok(if traced.trace.asked.answered { ExitCode::SUCCESS } else { ExitCode::from(DIFFERED) })
}

/// Send the question, and be told where it went.
fn observed(args: &TraceArgs) -> Result<Traced, Failure> {
    let client = find_lab(args.lab.as_deref())?;
    let asked = Wanted::Question(question(args));
    let frames = args.format() == TraceFormat::Pcapng;
    let base = std::env::current_dir().ok();
    match client.post("/labctl/v1/trace", &TraceRequest { asked, frames, base })? {
        TraceAnswer::Failed(found) => Err(failed(found)),
        TraceAnswer::Traced(mut traced) => {
            args.lab.iter().for_each(|lab| name_lab(&mut traced.trace, lab));
            Ok(*traced)
        }
    }
}

/// Who had to say which lab is meant has to say it again: where several run, commands do not know it.
fn name_lab(trace: &mut Trace, lab: &str) {
    let (alone, told) = ("`labctl exec ", format!("`labctl exec -l {lab} "));
    trace.notes.iter_mut().for_each(|note| *note = note.replace(alone, &told));
    let remedies = trace.verdict.fault.iter_mut().flat_map(|fault| &mut fault.remedy);
    for command in remedies.filter_map(|remedy| remedy.command.as_mut()) {
        let mut words = command.splitn(3, ' ');
        if let (Some(program), Some(verb @ ("exec" | "scale")), Some(rest)) = (words.next(), words.next(), words.next())
        {
            *command = format!("{program} {verb} -l {lab} {rest}");
        }
    }
}

/// What the plan says: of a file, or of the lab that runs.
fn predicted(args: &TraceArgs) -> Result<Traced, Failure> {
    let up::Ready { lab, text, .. } = match &args.file {
        Some(file) => up::prepare(file)?,
        None => graph::running(&find_lab(args.lab.as_deref())?)?,
    };
    let question = question(args);
    let asked = question.probe(&lab).map_err(failed)?;
    let origin = Origin::new(text, std::env::current_dir().ok());
    Ok(Traced { trace: predict::trace(&lab, &asked, (&question.to, &origin)), frames: Vec::new() })
}

fn failed(found: Vec<Problem>) -> Failure {
    let mut problems = Problems::default();
    problems.extend(found);
    Failure::new(problems, Sources::default())
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
        fragment: args.fragment,
        ttl: args.ttl,
        timeout: args.timeout,
    }
}

fn print(args: &TraceArgs, traced: &Traced) -> Result<(), Failure> {
    let trace = &traced.trace;
    let bytes = match args.format() {
        TraceFormat::Text | TraceFormat::Wide => text(args, trace).into_bytes(),
        TraceFormat::Json => format!("{:#}\n", serde_json::json!(trace)).into_bytes(),
        TraceFormat::Mermaid => show::mermaid(trace).into_bytes(),
        TraceFormat::Pcapng => capture(args, traced)?,
        TraceFormat::Html => page(args, trace)?.into_bytes(),
    };
    match &args.out {
        Some(path) => output::write_file(path, &bytes)?,
        None => output::write_bytes(&bytes),
    }
    Ok(())
}

/// A page that plays the trace along a picture of the lab.
fn page(args: &TraceArgs, trace: &Trace) -> Result<String, Failure> {
    let lab = match &args.file {
        Some(file) => up::prepare(file)?.lab,
        None => graph::running(&find_lab(args.lab.as_deref())?)?.lab,
    };
    Ok(crate::graph::html(&lab, &plan::plan(&lab), Some(trace)))
}

fn text(args: &TraceArgs, trace: &Trace) -> String {
    let colour = args.out.is_none() && output::colour(&std::io::stdout());
    let wide = args.format() == TraceFormat::Wide;
    show::text(trace, &show::Style { width: output::width(), colour, why: args.why, wide, reply: args.reply })
}

/// The frames that were seen, for Wireshark.
fn capture(args: &TraceArgs, traced: &Traced) -> Result<Vec<u8>, Box<Problem>> {
    if args.predict {
        let problem = Problem::error(codes::TARGET_UNKNOWN, "a prediction has no packets to capture");
        return Err(Box::new(problem.help("leave `--predict` out, or take `-o json`")));
    }
    let frames: Vec<pcapng::Frame> = traced.frames.iter().cloned().map(frame).collect();
    let Trace { asked, .. } = &traced.trace;
    let question = format!("{} asks {}: {}", asked.from, asked.to, traced.trace.verdict.says);
    let mut bytes = Vec::new();
    pcapng::write(&frames, &question, &mut bytes).map_err(|e| {
        let problem = Problem::error(codes::COMMAND_FAILED, format!("the capture cannot be written: {e}"));
        Box::new(problem.help("take `-o json`"))
    })?;
    Ok(bytes)
}

/// A frame as a capture has it.
pub fn frame(frame: RecordedFrame) -> pcapng::Frame {
    pcapng::Frame {
        place: frame.place,
        dev: crate::lab::names::IfName::new(&frame.dev),
        index: frame.index,
        ethernet: frame.ethernet,
        at: frame.at,
        // What the daemon wrote can be read.
        bytes: base64::engine::general_purpose::STANDARD.decode(&frame.bytes).unwrap_or_default(),
        length: frame.length,
        comment: frame.comment,
    }
}
