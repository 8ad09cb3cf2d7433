//! How long a trace takes on a lab of 10 hosts and 200 pods: from the last packet of the exchange to
//! the end of the command, and the command as a whole.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use labctl::trace::model::Trace;

use crate::labs::{self, Labs};
use crate::report::{Figure, median, milliseconds};
use crate::timed;

const HOSTS: u32 = 10;
const PODS: u32 = 200;
const SERVICE: &str =
    "services: { s: { clusterIP: 10.96.0.100, selector: { app: p }, ports: [{ port: 80, targetPort: 8080 }] } }\n";

/// What is asked: a pod on another host by its name, and a service by its address.
const QUESTIONS: [(&str, &[&str]); 2] = [
    ("a pod over TCP", &["trace", "p-1", "p-2", "--tcp", "--port", "8080", "-o", "json"]),
    ("a service over HTTP", &["trace", "p-1", "http://10.96.0.100/", "-o", "json"]),
];

pub fn measure(quick: bool) -> io::Result<Vec<Figure>> {
    let labs = Labs::new()?;
    let lab = labs.up_text(&(labs::text("vxlan", HOSTS, PODS) + SERVICE))?;
    let mut all = Vec::new();
    for (what, words) in QUESTIONS {
        let (mut whole, mut after) = (Vec::new(), Vec::new());
        for _ in 0..if quick { 5 } else { 15 } {
            let (took, said) = timed(|| labs.ask(words));
            let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let trace: Trace = serde_json::from_str(&said?)?;
            whole.push(took);
            after.push(end.saturating_sub(last_packet(&trace)));
        }
        let figure = |part: &str, time, target| Figure {
            what: format!("trace of {what}, {part}"),
            value: milliseconds(time),
            unit: "ms",
            target: Some(("<", target)),
        };
        all.push(figure("from its last packet to the answer", median(after), 300.0));
        all.push(figure("from typing it to the answer", median(whole), 1000.0));
    }
    lab.down()?;
    Ok(all)
}

/// When the last packet was seen, since 1970.
fn last_packet(trace: &Trace) -> Duration {
    let steps = trace.flows.iter().flat_map(|f| &f.packets).flat_map(|p| &p.steps);
    let last = steps.filter_map(|s| s.at).max().unwrap_or(0);
    Duration::from_nanos(trace.began + last)
}
