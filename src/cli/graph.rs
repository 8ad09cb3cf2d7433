//! `graph`: a running lab, or one of a file that need not run, as a picture, and a trace along it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;

use ipnet::IpNet;

use crate::daemon::client::Client;
use crate::diag::{Problem, codes};
use crate::graph::{self, dot, mermaid, model::Graph, page, svg};
use crate::lab::Lab;
use crate::plan;
use crate::runtime::RuntimeDir;
use crate::spec::load::Text;
use crate::trace::model::{self, Trace};

use super::args::{GraphArgs, PictureFormat};
use super::output::text;
use super::{Done, Failure, find_lab, kube, output, show, up};

/// The largest trace that is read, in bytes.
const LARGEST_TRACE: u64 = 64 << 20;

pub fn run(args: &GraphArgs) -> Done {
    let format = args.format();
    if args.trace.is_some() && format != PictureFormat::Html {
        let problem = Problem::error(codes::TARGET_UNKNOWN, "only a page plays a trace");
        return Err(Box::new(problem.help("say `-o html`, or leave --trace out")).into());
    }
    let ready = lab(args)?;
    let trace = args.trace.as_deref().map(read_trace).transpose()?;
    if let Some(other) = trace.as_ref().filter(|trace| trace.lab != ready.lab.name.to_string()) {
        let message = format!("the trace is one of lab {}, the picture one of lab {}", other.lab, ready.lab.name);
        let problem = Problem::error(codes::LAB_UNKNOWN, message).help("name the lab or the file that was traced");
        return Err(Box::new(problem).into());
    }
    let planned = plan::plan(&ready.lab);
    let graph = Graph::of(&ready.lab, &planned, &graph::options(trace.as_ref(), args.all));
    let picture = match format {
        PictureFormat::Mermaid => mermaid::write(&graph),
        PictureFormat::Dot => dot::write(&graph),
        PictureFormat::Svg => svg::write(&graph),
        PictureFormat::Html => page::write(&graph, trace.as_ref()),
    };
    match &args.out {
        Some(path) => output::write_file(path, &picture)?,
        None => output::write(format_args!("{picture}")),
    }
    Ok(ExitCode::SUCCESS)
}

/// The lab that is meant: one that runs, or one of a file.
fn lab(args: &GraphArgs) -> Result<up::Ready, Failure> {
    let is_file = |word: &str| word == "-" || Path::new(word).exists();
    let runs = |word: &str| {
        RuntimeDir::open().and_then(|dir| dir.labs()).is_ok_and(|labs| labs.iter().any(|lab| lab.as_str() == word))
    };
    match args.word() {
        Some(word) if !runs(word) && (is_file(word) || word.contains(['/', '.'])) => {
            let ready = up::prepare(word)?;
            show(&ready.warnings, &ready.sources);
            Ok(ready)
        }
        word => {
            let client = find_lab(word.or(args.running.as_deref()))?;
            running(&client)
        }
    }
}

/// A lab that runs, as its text means it.
pub fn running(client: &Client) -> Result<up::Ready, Failure> {
    let written: Text = client.get("/labctl/v1/text")?;
    let mut lab = up::check(written.clone(), None)?.lab;
    as_it_runs(client, &mut lab)?;
    up::check(written, Some(&lab))
}

/// Put hosts and pods where they are in the running lab: after changes others may stand elsewhere than in a
/// lab that is built afresh of the same text.
fn as_it_runs(client: &Client, lab: &mut Lab) -> Result<(), Box<Problem>> {
    for node in kube::items(client, "/api/v1/nodes")? {
        let Some(host) = lab.hosts.iter_mut().find(|h| h.name.as_str() == text(&node, "/metadata/name")) else {
            continue;
        };
        host.pod_cidr = text(&node, "/spec/podCIDR").parse().unwrap_or(host.pod_cidr);
    }
    for found in kube::items(client, "/api/v1/pods")? {
        let key = (text(&found, "/metadata/namespace"), text(&found, "/metadata/name"));
        let host = lab.hosts.iter().find(|h| h.name.as_str() == text(&found, "/spec/nodeName"));
        let pod = lab.pods.iter_mut().find(|p| (p.id.namespace.as_str(), p.id.name.as_str()) == key);
        let (Some(host), Some(pod)) = (host, pod) else { continue };
        let ip = text(&found, "/status/podIP").parse().unwrap_or(pod.ip());
        pod.host = host.name.clone();
        pod.address = IpNet::new(ip, host.pod_cidr.prefix_len()).unwrap_or(pod.address);
    }
    Ok(())
}

fn read_trace(path: &Path) -> Result<Trace, Failure> {
    let name = path.display();
    let refuse = |message: String, help: &str| {
        Failure::from(Box::new(Problem::error(codes::FILE_UNREADABLE, message).help(help.to_owned())))
    };
    let mut json = String::new();
    let read = if path == Path::new("-") {
        io::stdin().take(LARGEST_TRACE + 1).read_to_string(&mut json)
    } else {
        File::open(path).and_then(|file| file.take(LARGEST_TRACE + 1).read_to_string(&mut json))
    };
    let length =
        read.map_err(|e| refuse(format!("{name} cannot be read: {e}"), "check the path and its permissions"))?;
    if length as u64 > LARGEST_TRACE {
        return Err(refuse(format!("{name} is larger than {} MiB", LARGEST_TRACE >> 20), "trace fewer packets"));
    }
    let trace: Trace = serde_json::from_str(&json)
        .map_err(|e| refuse(format!("{name} is no trace: {e}"), "`labctl trace -o json` writes one"))?;
    if trace.version != model::VERSION {
        let message = format!("{name} has version {} of traces, not {}", trace.version, model::VERSION);
        return Err(refuse(message, "trace again with this version of labctl"));
    }
    Ok(trace)
}
