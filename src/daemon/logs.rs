//! What a pod's program or a host's flanneld wrote, for `labctl logs`.

use std::rc::Rc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::Response;
use hyper::body::Bytes;

use crate::diag::{Problem, codes};
use crate::lab::names::NsName;

use super::programs::Log;
use super::server::{Outcome, parameter, target};
use super::state::Daemon;

/// How long a caller that follows is let wait before it asks again.
const WAIT: Duration = Duration::from_secs(20);

/// The output from byte `from` on, as far as it is kept; with `follow`, once there is more.
pub async fn answer(daemon: &Daemon, query: &str) -> Outcome {
    let ns = target(daemon, query)?;
    let log = match &ns {
        NsName::Pod(_) => of_container(daemon, &ns, query)?,
        NsName::Host(_) => daemon.workloads.flannelds.log(&ns).ok_or_else(|| {
            no_log(format!("host {ns} has no log"), "of hosts, only flanneld of the back end udp writes one".to_owned())
        })?,
        _ => return Err(no_log(format!("{ns} has no log"), "pods have, and hosts with the back end udp".to_owned())),
    };
    let from = parameter(query, "from").and_then(|f| f.parse().ok()).unwrap_or(0);
    let mut bell = log.bell();
    let (mut bytes, mut position) = log.since(from);
    if bytes.is_empty() && parameter(query, "follow").is_some() {
        let _ = tokio::time::timeout(WAIT, bell.changed()).await;
        (bytes, position) = log.since(from);
    }
    let mut answer = Response::new(Full::new(Bytes::from(bytes)).boxed_unsync());
    answer.headers_mut().insert("x-labctl-position", position.into());
    Ok(answer)
}

fn of_container(daemon: &Daemon, ns: &NsName, query: &str) -> Result<Rc<Log>, Box<Problem>> {
    let lab = daemon.lab();
    let pod = lab.pods.iter().find(|p| p.ns() == *ns);
    let names: Vec<&str> = pod.iter().flat_map(|p| &p.containers).map(|c| c.name.as_str()).collect();
    let name = parameter(query, "container").or(names.first().copied()).unwrap_or_default();
    daemon.workloads.log(ns, name).ok_or_else(|| {
        let help = match names.contains(&name) {
            true => "its container is the built-in echo server, which writes nothing".to_owned(),
            false => format!("its containers are: {}", names.join(", ")),
        };
        no_log(format!("`{name}` of {ns} has no log"), help)
    })
}

fn no_log(message: String, help: String) -> Box<Problem> {
    Box::new(Problem::error(codes::TARGET_UNKNOWN, message).help(help))
}
