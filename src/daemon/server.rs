//! The control socket: HTTP/1.1 with JSON, for the same user only.
//!
//! Kubernetes' objects are under Kubernetes' own paths; everything that only labctl knows is
//! under `/labctl/v1`.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::{UnixListener, UnixStream};

use crate::diag::{Problem, codes, did_you_mean};
use crate::lab::INTERNET_NAME;
use crate::lab::names::NsName;
use crate::objects::ObjectKey;
use crate::probe;

use super::api::{Change, EditRequest, Event, LabStatus, Refusal, StepText, Steps, Summary};
use super::rooms::{self, Visit};
use super::state::{Daemon, Preview};
use super::{faults, inspect, kube, objects};

/// The longest request body with a lab's text: a file of the largest size, escaped.
const LONGEST_TEXT: usize = 256 << 20;
/// The longest one that asks.
const LONGEST_QUESTION: usize = 1 << 20;

/// Probes run side by side, but a thousand at once would measure themselves.
const PROBES_AT_ONCE: usize = 32;

pub type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;
pub type Outcome = Result<Answer, Box<Problem>>;

/// The machines that a caller is in, for as long as its connection lasts.
type Visits = RefCell<Vec<Visit>>;

/// Answer until the lab ends.
pub async fn run(daemon: Rc<Daemon>, listener: UnixListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: there will be some again, and asking at once is no help.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        if !is_ours(&stream) {
            continue;
        }
        let daemon = Rc::clone(&daemon);
        tokio::task::spawn_local(async move {
            let visits = Visits::default();
            let service = hyper::service::service_fn(|request| {
                let (daemon, visits) = (Rc::clone(&daemon), &visits);
                async move { Ok::<_, Infallible>(answer(&daemon, request, visits).await) }
            });
            // A caller that goes away in the middle is no fault of ours.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// The socket's mode keeps others out; this holds also where its directory was left open. In a
/// user namespace the lab's own user is 0, and every other one is nobody.
fn is_ours(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == nix::unistd::geteuid().as_raw())
}

async fn answer(daemon: &Rc<Daemon>, request: Request<Incoming>, visits: &Visits) -> Answer {
    daemon.until_built().await;
    match route(daemon, request, visits).await {
        Ok(answer) => answer,
        Err(problem) => answer_with(StatusCode::UNPROCESSABLE_ENTITY, &Refusal { problem: *problem }),
    }
}

pub fn answer_with(status: StatusCode, value: &impl Serialize) -> Answer {
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    let mut answer = Response::new(Full::new(Bytes::from(bytes)).boxed_unsync());
    *answer.status_mut() = status;
    answer.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
    answer
}

pub fn ok(value: &impl Serialize) -> Outcome {
    Ok(answer_with(StatusCode::OK, value))
}

async fn route(daemon: &Rc<Daemon>, request: Request<Incoming>, visits: &Visits) -> Outcome {
    let path = request.uri().path().to_owned();
    let query = read_back(request.uri().query().unwrap_or_default());
    let lab = daemon.lab();
    match (request.method(), path.as_str()) {
        (&Method::GET, "/labctl/v1/clients") => {
            ok(&objects::list(lab.clients.iter().map(|c| objects::client(&lab, c)).collect()))
        }
        (&Method::GET, "/labctl/v1/networks") => {
            ok(&objects::list(lab.networks.iter().map(|n| objects::network(&lab, n)).collect()))
        }
        (&Method::GET, asked) if asked.starts_with(inspect::PATH) => inspect::answer(daemon, asked, &query).await,
        (method, asked) if asked.starts_with(faults::PATH) => {
            let (method, asked) = (method.clone(), asked.to_owned());
            faults::answer(daemon, &method, &asked, request).await
        }
        (&Method::GET, "/labctl/v1/status") => ok(&status(daemon)),
        (&Method::GET, "/labctl/v1/text") => ok(&daemon.text()),
        (&Method::GET, "/labctl/v1/config") => {
            let wanted = parameter(&query, "wanted") == Some("true");
            ok(&daemon.ingress_config(&target(daemon, &query)?, wanted)?)
        }
        (&Method::GET, "/labctl/v1/ingress-trouble") => {
            let name = parameter(&query, "name").unwrap_or_default();
            ok(&name.split_once('/').map(|(ns, name)| daemon.trouble_of(&ObjectKey::new(ns, name))).unwrap_or_default())
        }
        (&Method::GET, "/labctl/v1/authority") => ok(&daemon.authority_pem()),
        (&Method::GET, "/labctl/v1/flannelds") => ok(&flannelds(daemon)),
        (&Method::GET, "/labctl/v1/drift") => ok(&texts(&daemon.drift().await?)),
        (&Method::GET, "/labctl/v1/door") => {
            let (door, visit) = daemon.receive(&target(daemon, &query)?).await?;
            visits.borrow_mut().push(visit);
            ok(&door)
        }
        (&Method::GET, "/labctl/v1/logs") => super::logs::answer(daemon, &query).await,
        (&Method::GET, "/labctl/v1/wait") => ok(&wait(daemon, &query).await),
        (&Method::GET, "/labctl/v1/follow") => super::follow::stream(daemon, &query).await,
        (&Method::POST, _) => post(daemon, &path, request).await,
        (&Method::GET, asked) if asked.starts_with("/api") => {
            Ok(kube::answer(daemon, asked).unwrap_or_else(|| nothing_at(asked)))
        }
        _ => Ok(nothing_at(&path)),
    }
}

/// What is to be done.
async fn post(daemon: &Rc<Daemon>, path: &str, request: Request<Incoming>) -> Outcome {
    match path {
        "/labctl/v1/probe" => probe(daemon, body(request).await?).await,
        "/labctl/v1/trace" => super::trace::answer(daemon, body(request).await?).await,
        "/labctl/v1/plan" => {
            let change: Change = text(request).await?;
            ok(&match daemon.steps_to(&change.text).await {
                Ok(Preview { steps, services, objects }) => Steps::Steps { steps: texts(&steps), services, objects },
                Err(problems) => Steps::Failed(problems),
            })
        }
        "/labctl/v1/change" => {
            let change: Change = text(request).await?;
            let changing = Rc::clone(daemon);
            ok(&to_its_end(async move { changing.change(&change.text).await }).await)
        }
        "/labctl/v1/edit" => {
            let edit: EditRequest = text(request).await?;
            let changing = Rc::clone(daemon);
            ok(&to_its_end(async move { changing.edit(&edit).await }).await)
        }
        "/labctl/v1/down" => {
            daemon.end();
            ok(&())
        }
        _ => Ok(nothing_at(path)),
    }
}

fn nothing_at(path: &str) -> Answer {
    answer_with(StatusCode::NOT_FOUND, &serde_json::json!({ "message": format!("there is no {path} here") }))
}

/// A change as a task of its own: a caller that goes away must not leave it half done.
async fn to_its_end(change: impl Future<Output = Result<Summary, Vec<Problem>>> + 'static) -> Event {
    match tokio::task::spawn_local(change).await {
        Ok(Ok(summary)) => Event::Done(summary),
        Ok(Err(problems)) => Event::Failed(problems),
        Err(e) => Event::Failed(vec![Problem::error(codes::KERNEL_REFUSED, format!("the change broke off: {e}"))]),
    }
}

/// A question.
pub(super) async fn body<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Box<Problem>> {
    read(request, LONGEST_QUESTION).await
}

/// A lab's text, or a part of one.
async fn text<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Box<Problem>> {
    read(request, LONGEST_TEXT).await
}

async fn read<T: DeserializeOwned>(request: Request<Incoming>, longest: usize) -> Result<T, Box<Problem>> {
    let refuse = |why: String| {
        Box::new(
            Problem::error(codes::LAB_GONE, format!("the lab's daemon did not understand: {why}"))
                .help("is labctl of the same version as the lab's daemon? Take the lab down and up again"),
        )
    };
    let bytes = Limited::new(request.into_body(), longest).collect().await.map_err(|e| refuse(e.to_string()))?;
    serde_json::from_slice(&bytes.to_bytes()).map_err(|e| refuse(e.to_string()))
}

fn texts(steps: &[crate::plan::diff::Step]) -> Vec<StepText> {
    steps.iter().map(|s| StepText { namespace: s.ns.to_string(), step: s.op.to_string() }).collect()
}

fn status(daemon: &Daemon) -> LabStatus {
    let lab = daemon.lab();
    let ready = lab.pods.iter().filter(|p| objects::is_ready(daemon, p)).count();
    let mut trouble: Vec<String> = lab.pods.iter().filter_map(|p| objects::trouble(daemon, p)).collect();
    trouble.extend(daemon.services.trouble());
    trouble.extend(daemon.refusals(&lab));
    for ns in &daemon.plan().namespaces {
        if ns.flanneld.is_some() && daemon.workloads.flannelds.pid(&ns.ns).is_none() {
            trouble.push(format!("host {}: flanneld does not run; `labctl up` starts it again", ns.ns));
        }
    }
    let written = |name: &str| usize::from(name != INTERNET_NAME);
    LabStatus {
        name: lab.name.to_string(),
        description: lab.description.clone(),
        backend: lab.cluster.backend.name().to_owned(),
        age: daemon.age(),
        networks: lab.networks.iter().map(|n| written(n.name.as_str())).sum(),
        hosts: lab.hosts.len(),
        clients: lab.clients.iter().map(|c| written(c.name.as_str())).sum(),
        pods: lab.pods.len(),
        pods_ready: ready,
        trouble,
        broken: daemon.faults.told(),
        notes: daemon.certificate_notes(&lab, |_| true),
        file: daemon.text().name,
        memory_kib: memory(),
    }
}

/// proc_pid_status(5): VmRSS, in KiB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The process of each host's flanneld, where it lives.
fn flannelds(daemon: &Daemon) -> Vec<(String, Option<u32>)> {
    let plan = daemon.plan();
    let with = plan.namespaces.iter().filter(|n| n.flanneld.is_some());
    with.map(|n| (n.ns.to_string(), daemon.workloads.flannelds.pid(&n.ns))).collect()
}

/// A query as it was typed, before the client wrote some of its bytes as `%` and two digits.
fn read_back(query: &str) -> String {
    let mut parts = query.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).and_then(|d| u8::from_str_radix(d, 16).ok());
        bytes.extend(digits);
        bytes.extend_from_slice(if digits.is_some() { &part.as_bytes()[2..] } else { part.as_bytes() });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The value of `name` in a query string.
pub fn parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

pub fn target(daemon: &Daemon, query: &str) -> Result<NsName, Box<Problem>> {
    let word = parameter(query, "target").unwrap_or_default();
    let lab = daemon.lab();
    lab.find(word).ok_or_else(|| {
        let names: Vec<String> = lab.namespaces().map(|n| n.to_string()).collect();
        let help = match did_you_mean(word, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`labctl get pods`, `labctl get hosts` and `labctl get clients` show the names".to_owned(),
        };
        let message = format!("nothing in the lab {} is called `{word}`", lab.name);
        Box::new(Problem::error(codes::TARGET_UNKNOWN, message).help(help))
    })
}

/// Wait until every pod is ready, for at most `seconds`. Returns what is still in trouble.
async fn wait(daemon: &Rc<Daemon>, query: &str) -> Vec<String> {
    let seconds = parameter(query, "seconds").and_then(|s| s.parse().ok()).unwrap_or(60);
    let all_ready = async {
        loop {
            let changed = daemon.workloads.changed.notified();
            let lab = daemon.lab();
            if lab.pods.iter().all(|p| objects::trouble(daemon, p).is_none()) {
                return;
            }
            changed.await;
        }
    };
    let _ = tokio::time::timeout(std::time::Duration::from_secs(seconds), all_ready).await;
    // Who waits wants services to follow, too.
    daemon.sync_services().await;
    daemon.sync_balancers(&daemon.turn().await).await;
    let lab = daemon.lab();
    lab.pods.iter().filter_map(|p| objects::trouble(daemon, p)).collect()
}

/// Run the lab's probes, all or those with the given names.
async fn probe(daemon: &Rc<Daemon>, names: Vec<String>) -> Outcome {
    let lab = daemon.lab();
    let chosen: Vec<_> = lab.probes.iter().filter(|p| names.is_empty() || names.contains(&p.name)).cloned().collect();
    let unknown = names.iter().find(|n| !chosen.iter().any(|p| p.name == **n));
    if let Some(unknown) = unknown {
        let near = did_you_mean(unknown, lab.probes.iter().map(|p| p.name.as_str()));
        let help = near.map_or("`labctl probe` without a name runs all".to_owned(), |n| format!("did you mean `{n}`?"));
        return Err(Box::new(
            Problem::error(codes::TARGET_UNKNOWN, format!("no probe is called `{unknown}`")).help(help),
        ));
    }
    let outcomes = probe::run_all(&chosen, std::sync::Arc::new(field(daemon)), PROBES_AT_ONCE).await;
    ok(&outcomes)
}

/// Where probes run: every namespace, and a way to start programs there.
pub(super) fn field(daemon: &Rc<Daemon>) -> probe::Field {
    let lab = daemon.lab();
    let namespaces: std::collections::HashMap<_, _> =
        lab.namespaces().filter_map(|ns| Some((ns.clone(), daemon.netns(&ns)?))).collect();
    // Files are written now, for the few machines that a program is started in.
    let asks = |p: &crate::lab::probe::Probe| matches!(p.ask, crate::lab::probe::Ask::Exec { .. });
    let asking = lab.probes.iter().filter(|p| asks(p)).map(|p| p.from.clone());
    let places = rooms::places(daemon, asking);
    let enter = move |ns: &NsName, words: &[String]| {
        places.get(ns).ok_or_else(|| std::io::Error::other("it cannot be entered"))?.launch(words)
    };
    probe::Field { lab, namespaces, enter: Box::new(enter), authority: daemon.trusted() }
}
