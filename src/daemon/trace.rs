//! Traces of a running lab: a question is sent as a probe would send it, while every device of every
//! namespace is watched for packets that may be the question's, and what was seen is told. What it means is
//! [`crate::trace`]'s; here is only who does what when.
//!
//! The lab's state is read back before the question is sent, so that nothing is to be done afterwards but
//! to think. Everything that watches belongs to sockets of this process: when it ends, however it ends,
//! the kernel takes it back.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::diag::{Problem, codes};
use crate::kernel::ns::NetNs;
use crate::kernel::record::{Closing, Event, Filter, Missing, Options, Recorder, Recording, Seen, Spot};
use crate::kernel::sockets::{self, Socket};
use crate::kernel::{learnt, memory};
use crate::lab::Lab;
use crate::lab::names::{IfName, NsName};
use crate::lab::probe::{Ask, Expect, Probe, Target};
use crate::plan::{NsPlan, Plan};
use crate::probe::{self, Outcome};
use crate::trace::filter::{self, v4};
use crate::trace::model::{Means, Trace, What};
use crate::trace::origin::Origin;
use crate::trace::question::{MARK_HEADER, Question};
use crate::trace::tell::{self, Material};
use crate::trace::walk::Known;
use crate::workload::events as program;

use super::server::{Outcome as Answered, field, ok};
use super::state::Daemon;

/// How long nothing must come for a trace to be over, and how long it is waited for that at most: what is not
/// over then is others' traffic, where that is recorded, or the question's own.
const QUIET: Duration = Duration::from_millis(40);
const PATIENCE_WITH_OTHERS: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(1);
/// How long it is waited until others have ended theirs.
const TURN: Duration = Duration::from_secs(10);
/// Bytes kept of a frame: so many that a request's headers are among them.
const SNAP: usize = 1600;

/// What is asked of the daemon.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TraceRequest {
    pub asked: Wanted,
    /// Whether the frames are wanted, too.
    pub frames: bool,
    /// Where the caller is, for names of files.
    #[serde(default)]
    pub base: Option<PathBuf>,
}

/// What is to be traced.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wanted {
    /// A question as it was typed.
    Question(Question),
    /// The question of the lab's probe of this name.
    Probe(String),
}

impl Wanted {
    /// What is asked, once, and whom in words.
    fn probe(&self, lab: &Lab) -> Result<(Probe, String), Vec<Problem>> {
        match self {
            Wanted::Question(question) => question.probe(lab).map(|probe| (probe, question.to.clone())),
            Wanted::Probe(name) => {
                let probe = lab.probes.iter().find(|p| p.name == *name && can_be_traced(&p.ask)).ok_or_else(|| {
                    let message = format!("no probe that can be traced is called `{name}`");
                    let help = "`labctl probe` without a name runs all; those that run a program cannot be traced";
                    vec![Problem::error(codes::TARGET_UNKNOWN, message).help(help)]
                })?;
                // What is expected of the answer is the probe's business; here is asked where the packets go.
                let once = Probe { expect: Expect::default(), count: 1, retries: 0, ..probe.clone() };
                Ok((once, probe::asked(&probe.ask)))
            }
        }
    }
}

/// Whether a question's packets are known: what a program sends is not.
fn can_be_traced(ask: &Ask) -> bool {
    !matches!(ask, Ask::Exec { .. })
}

/// What it answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TraceAnswer {
    Traced(Box<Traced>),
    /// The question cannot be asked.
    Failed(Vec<Problem>),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Traced {
    pub trace: Trace,
    pub frames: Vec<RecordedFrame>,
}

/// A frame as a tap recorded it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RecordedFrame {
    pub place: NsName,
    pub dev: String,
    /// The device's index in its namespace.
    pub index: u32,
    pub ethernet: bool,
    /// Nanoseconds since the epoch.
    pub at: u64,
    /// The bytes that were kept, in base64.
    pub bytes: String,
    /// All bytes that it had.
    pub length: u32,
    /// What happened to the packet since it was seen before.
    #[serde(default)]
    pub comment: Option<String>,
}

/// What came of a question that was watched.
struct Watched {
    outcome: Outcome,
    recording: Recording,
    /// The taps are closed while the trace is told.
    closing: Closing,
    /// What labctl's own programs told.
    told: Vec<(NsName, program::Event)>,
    /// The sockets of programs, where the question was not answered.
    sockets: Vec<(NsName, Vec<Socket>)>,
    /// What could not be watched.
    missing: Vec<Missing>,
}

/// Says by its end that the caller has gone away.
type Gone = oneshot::Receiver<Infallible>;

/// Ask and tell. It is a task of its own: to stop watching is to wait for threads, which must not be done where a
/// caller that goes away leaves it.
pub async fn answer(daemon: &Rc<Daemon>, request: TraceRequest) -> Answered {
    let (caller, gone) = oneshot::channel();
    let own = Rc::clone(daemon);
    let answer = tokio::task::spawn_local(async move { traced(&own, request, gone).await }).await;
    drop(caller);
    answer.unwrap_or_else(|e| Err(refused(format!("the trace broke off: {e}"))))
}

async fn traced(daemon: &Rc<Daemon>, request: TraceRequest, gone: Gone) -> Answered {
    let lab = daemon.lab();
    let (mut asked, to) = match request.asked.probe(&lab) {
        Ok(found) => found,
        Err(problems) => return ok(&TraceAnswer::Failed(problems)),
    };
    let place = daemon.watching.place(TURN).await?;
    let mark = mark();
    match &mut asked.ask {
        Ask::Http(http) => drop(http.headers.insert(MARK_HEADER.to_owned(), mark.clone())),
        // Two datagrams with the same words are hard to tell apart.
        Ask::Udp { send: send @ None, .. } => *send = Some(format!("{mark} is a trace of labctl's\n")),
        _ => {}
    }
    let (read, known) = tokio::join!(daemon.there_and_planned(), learnt(daemon, &lab, Some(&asked)));
    let (there, planned) = read?;
    let concerned = tell::concerned(&asked, (&there, &known, &planned));
    let filter = filter::of_question(&lab, &there, &asked, &serving(daemon, &planned).await);
    let lookups = filter::lookups(&filter, &there, &asked);
    let programs = with_programs(daemon, &planned);
    let Watched { outcome, recording, closing, told, sockets, missing } =
        watched(daemon, (&lab, &asked), (filter, concerned, lookups, programs), gone).await?;
    let origin = Origin::new(daemon.text(), request.base);
    let told = tokio::task::spawn_blocking(move || {
        let material = Material {
            lab: &lab,
            planned: &planned,
            there: &there,
            known: &known,
            recording: &recording,
            told: &told,
            sockets: &sockets,
            missing: &missing,
            origin: &origin,
        };
        let trace = tell::trace(&material, (&to, &asked, &outcome), mark.as_bytes());
        let frames = if request.frames { frames(&recording, &trace) } else { Vec::new() };
        closing.wait();
        drop(place);
        Traced { trace, frames }
    });
    let traced = told.await.map_err(|e| refused(format!("the trace cannot be told: {e}")))?;
    // What was recorded is gone now; the answer need not wait for that.
    tokio::task::spawn_blocking(memory::give_back);
    ok(&TraceAnswer::Traced(Box::new(traced)))
}

/// Send the question while everything is watched that passes the filter. Counters of `concerned` namespaces are
/// read afterwards, also where nothing was seen; look-ups of routes are told of those addresses. Of a question that
/// was not answered the sockets of `programs` are read. Nobody waits for the answer once the caller is `gone`.
async fn watched(
    daemon: &Rc<Daemon>,
    (lab, asked): (&Lab, &Probe),
    (filter, concerned, lookups, programs): (Filter, HashSet<NsName>, HashSet<Ipv4Addr>, Vec<NsName>),
    gone: Gone,
) -> Result<Watched, Box<Problem>> {
    let spots: Vec<Spot> =
        lab.namespaces().filter_map(|place| Some(Spot { netns: daemon.netns(&place)?, place })).collect();
    let patience = if filter == Filter::default() { PATIENCE_WITH_OTHERS } else { PATIENCE };
    let options = Options { snap: SNAP, filter, lookups, ..Options::default() };
    let opening = tokio::task::spawn_blocking(move || Recorder::open(&spots, &options));
    let (opened, listening) = tokio::join!(opening, daemon.workloads.telling.listen());
    let recorder = match opened {
        Ok(Ok(recorder)) => Arc::new(recorder),
        Ok(Err(e)) => return Err(refused(format!("packets cannot be watched: {e}"))),
        Err(e) => return Err(refused(format!("packets cannot be watched: {e}"))),
    };
    let mut missing = recorder.missing().to_vec();
    let outcome = tokio::select! {
        mut all = probe::run_all(std::slice::from_ref(asked), Arc::new(field(daemon)), 1) => all.pop(),
        _ = gone => None,
    };
    if outcome.is_some() {
        until_quiet(&recorder, patience).await;
    }
    let sockets = match &outcome {
        Some(outcome) if !outcome.passed() => sockets_of(daemon, programs).await,
        _ => Vec::new(),
    };
    let hand_over = move |recorder: Recorder| recorder.hand_over(|place| concerned.contains(place));
    let finishing = tokio::task::spawn_blocking(move || Arc::into_inner(recorder).map(hand_over));
    let (finished, told) = tokio::join!(finishing, listening.end());
    let unsaid = |why| Missing { means: Means::Program, why, places: Vec::new() };
    missing.extend(told.gaps().into_iter().map(unsaid));
    let told = told.events;
    match (outcome, finished) {
        (Some(outcome), Ok(Some((recording, closing)))) => {
            Ok(Watched { outcome, recording, closing, told, sockets, missing })
        }
        _ => Err(refused("the question was not asked".to_owned())),
    }
}

/// The machines without programs of the lab's in which a visitor's program takes connections.
async fn serving(daemon: &Rc<Daemon>, planned: &Plan) -> Vec<NsName> {
    let visited = daemon.workloads.rooms.visited();
    let own = |place: &NsName| {
        let listeners = planned.get(place).map(|ns| ns.listeners.as_slice()).unwrap_or_default();
        listeners.iter().map(|listener| listener.port).collect()
    };
    let all: Vec<(NsName, NetNs, BTreeSet<u16>)> =
        visited.into_iter().filter_map(|place| Some((place.clone(), daemon.netns(&place)?, own(&place)))).collect();
    let read = tokio::task::spawn_blocking(move || {
        // Of one that cannot be read it is not known.
        let serves = |netns: &NetNs, own: &BTreeSet<u16>| sockets::ports(netns).map_or(true, |all| !all.is_subset(own));
        all.into_iter().filter(|(_, netns, own)| serves(netns, own)).map(|(place, ..)| place).collect()
    });
    read.await.unwrap_or_default()
}

/// The machines in which programs other than the daemon may have sockets.
fn with_programs(daemon: &Daemon, planned: &Plan) -> Vec<NsName> {
    let has = |ns: &&NsPlan| !ns.programs.is_empty() || ns.dns.is_some() || ns.flanneld.is_some();
    let own = planned.namespaces.iter().filter(has).map(|ns| ns.ns.clone());
    own.chain(daemon.workloads.rooms.visited()).collect()
}

/// The sockets of machines, and whose they are. One that cannot be read says nothing; the others still do.
async fn sockets_of(daemon: &Rc<Daemon>, places: Vec<NsName>) -> Vec<(NsName, Vec<Socket>)> {
    let all: Vec<(NsName, NetNs)> =
        places.into_iter().filter_map(|place| Some((place.clone(), daemon.netns(&place)?))).collect();
    let read = tokio::task::spawn_blocking(move || {
        let read = |(place, netns): (NsName, NetNs)| Some((place, sockets::read(&netns).ok()?));
        let mut all: Vec<(NsName, Vec<Socket>)> = all.into_iter().filter_map(read).collect();
        sockets::find_owners(all.iter_mut().flat_map(|(_, sockets)| sockets));
        all
    });
    read.await.unwrap_or_default()
}

/// What the namespaces have learnt, the asker's also of the way that is asked. One that cannot be read says nothing; the
/// others still do.
pub(super) async fn learnt(daemon: &Rc<Daemon>, lab: &Lab, asked: Option<&Probe>) -> Known {
    let way = asked.and_then(|asked| Some((asked.from.clone(), address(lab, asked)?)));
    let all: Vec<(NsName, NetNs)> =
        lab.namespaces().filter_map(|place| Some((place.clone(), daemon.netns(&place)?))).collect();
    let read = tokio::task::spawn_blocking(move || {
        let mut known = Known::default();
        for (place, netns) in all {
            let asked = way.as_ref().filter(|(from, _)| *from == place).map(|(_, to)| *to);
            let Ok(learnt) = learnt::read(&netns, asked) else { continue };
            known.neighbours.extend(learnt.neighbours.into_iter().map(|n| (place.clone(), n)));
            known.path_mtus.extend(learnt.path_mtus.into_iter().map(|m| (place.clone(), m)));
            known.sysctls.extend(learnt.settings.into_iter().map(|s| (place.clone(), s)));
            if learnt.conntrack_full {
                known.conntrack_full.insert(place);
            }
        }
        known
    });
    read.await.unwrap_or_default()
}

/// Whom a question asks, where no name must be looked up first.
fn address(lab: &Lab, asked: &Probe) -> Option<Ipv4Addr> {
    match asked.ask.target()?.0 {
        Target::Address(ip) => v4(*ip),
        Target::Machine(ns) => v4(lab.address_of(ns)?),
        Target::Service(_) | Target::Name(_) => None,
    }
}

/// Wait until nothing has come for a while, but not for ever.
async fn until_quiet(recorder: &Arc<Recorder>, patience: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < patience {
        // On a busy machine what has come long ago may not have been read.
        let (now, own) = (Instant::now(), Arc::clone(recorder));
        let last = tokio::task::spawn_blocking(move || own.last_event()).await.ok().flatten();
        let since = last.map_or(QUIET, |last| now.saturating_duration_since(last));
        if since >= QUIET {
            return;
        }
        tokio::time::sleep(QUIET - since).await;
    }
}

/// A word that is in no packet but this trace's.
fn mark() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // What changes fastest comes first: a packet is known by its beginning.
    format!("{:016x}", (now.as_nanos() as u64).swap_bytes() ^ u64::from(std::process::id()))
}

fn frames(recording: &Recording, trace: &Trace) -> Vec<RecordedFrame> {
    let mut comments = comments(trace);
    let frame = |event: &Event| {
        let (Seen::Frame(frame), Some(place)) = (&event.seen, &event.place) else { return None };
        let key = (event.at, place.clone(), frame.dev.clone(), frame.outgoing);
        Some(RecordedFrame {
            place: place.clone(),
            dev: frame.dev.to_string(),
            index: frame.index,
            ethernet: frame.ethernet,
            at: event.at,
            bytes: base64::engine::general_purpose::STANDARD.encode(&frame.bytes),
            length: frame.length,
            comment: comments.remove(&key),
        })
    };
    recording.events.iter().filter_map(frame).collect()
}

/// When, where, by which device and whether it left.
type Moment = (u64, NsName, IfName, bool);

/// What happened to a packet up to each of its sights.
fn comments(trace: &Trace) -> HashMap<Moment, String> {
    let mut all = HashMap::new();
    for packet in trace.flows.iter().flat_map(|f| &f.packets) {
        let mut said = vec![format!("packet {}, {}", packet.number, packet.kind)];
        for step in &packet.steps {
            said.push(step.says.clone());
            let seen = step.known_by.contains(&Means::Tap);
            if let (true, Some(at), Some(dev)) = (seen, step.at, &step.dev) {
                let key = (trace.began + at, step.place.clone(), dev.clone(), step.what == What::Out);
                all.insert(key, std::mem::take(&mut said).join("; "));
            }
        }
    }
    all
}

pub(super) fn refused(why: String) -> Box<Problem> {
    Box::new(Problem::error(codes::KERNEL_REFUSED, why).help("`labctl doctor` tries what a trace needs"))
}

impl Daemon {
    /// What the lab's kernel holds, and what it should hold.
    pub(super) async fn there_and_planned(&self) -> Result<(Plan, Plan), Box<Problem>> {
        let _turn = self.turn().await;
        Ok((self.observe().await?, self.planned()))
    }
}
