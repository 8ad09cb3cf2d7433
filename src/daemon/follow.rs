//! Following a machine: a stream of JSON lines with each packet that begins or ends there, until the caller
//! goes away, the time is up or the machine is gone. What packets mean is [`crate::trace::follow`]'s.
//!
//! Everything that watches belongs to sockets of this process and is closed with the stream, so that nothing
//! stays, however the caller ends.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::kernel::memory;
use crate::kernel::record::{self, Options, Pace, Recorder, Spot};
use crate::lab::Lab;
use crate::lab::names::NsName;
use crate::trace::filter;
use crate::trace::follow::told::{Following, Told};
use crate::trace::follow::{Follower, Heard, Round, World};
use crate::trace::model::VERSION;

use super::frames::{RecordedFrame, Waiting};
use super::lines::{Say, lines};
use super::server::{Outcome, parameter, target};
use super::state::Daemon;
use super::trace::{self, learnt, refused};

/// Bytes kept of a frame: a request's first lines are among them. Where the frames are wanted it is as many as a trace
/// keeps.
const SNAP: usize = 512;
/// How much of a second is read: what a packet across hosts leaves at its devices is some twenty events, and as many of
/// tracepoints'.
const EVENTS: u32 = 10_000;
const TOLD: u32 = 20_000;
/// Packets whose rules are told, of each namespace.
const TRACED: u32 = 50;
/// How often it is told.
const ROUND: Duration = Duration::from_millis(150);

/// What is told where the frames are wanted, too.
#[derive(Debug, Serialize, Deserialize)]
pub struct Captured {
    pub told: Told,
    /// Those of the packet that is told, in the order of time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frames: Vec<RecordedFrame>,
}

/// Whom to tell.
struct Caller {
    say: Say,
    /// Where the frames are wanted, those that were not given yet.
    waiting: Option<Waiting>,
    /// When it began, from when packets' times count.
    since: u64,
}

impl Caller {
    /// Tell something; whether someone still listens.
    async fn tell(&mut self, told: Told) -> bool {
        let Some(waiting) = &mut self.waiting else { return self.say.line(&told).await };
        let frames = match &told {
            Told::Packet(told) => waiting.of(&told.packet, self.since),
            _ => Vec::new(),
        };
        self.say.line(&Captured { told, frames }).await
    }

    async fn end(&mut self, why: impl Into<String>) {
        // Who has gone away need not know.
        let _ = self.tell(Told::Ended { why: why.into() }).await;
    }
}

/// What is watched, and beside which state it is laid.
struct Watching {
    recorder: Recorder,
    /// The lab whose machines are watched.
    lab: Arc<Lab>,
    machine: NsName,
    means: Options,
    /// Events that were lost until the last round, and frames of the machine.
    lost: (u64, u64),
    world: World,
}

pub async fn stream(daemon: &Rc<Daemon>, query: &str) -> Outcome {
    let machine = target(daemon, query)?;
    let seconds = parameter(query, "seconds").and_then(|s| s.parse::<f64>().ok());
    let limit = seconds.and_then(|s| Duration::try_from_secs_f64(s).ok());
    let waiting = parameter(query, "frames").map(|_| Waiting::default());
    let means = means(query, if waiting.is_some() { trace::SNAP } else { SNAP }, &machine);
    let place = daemon.watching.place(Duration::ZERO).await?;
    let watching = Watching::open(daemon, &machine, means).await?;
    let notes = watching.recorder.missing().iter().map(|m| m.why.clone()).collect();
    let since = now();
    let lab = watching.world.lab.name.to_string();
    let begun = Told::Following(Following { version: VERSION, lab, machine: machine.clone(), since, notes });
    let (say, answer) = lines();
    let mut caller = Caller { say, waiting, since };
    let follower = Follower::new(machine, since);
    let daemon = Rc::clone(daemon);
    tokio::task::spawn_local(async move {
        if caller.tell(begun).await {
            follow(&daemon, caller, (watching, follower), limit).await;
        } else {
            watching.close().await;
        }
        drop(place);
        tokio::task::spawn_blocking(memory::give_back);
    });
    Ok(answer)
}

/// By what is watched: all means but those that are not wanted.
fn means(query: &str, snap: usize, machine: &NsName) -> Options {
    let without = parameter(query, "without").unwrap_or_default();
    let is_wanted = |means: &str| without.split(',').all(|word| word != means);
    Options {
        snap,
        rules: is_wanted("rules"),
        conntrack: is_wanted("conntrack"),
        drops: is_wanted("drops"),
        senders: is_wanted("senders"),
        pace: Some(Pace { events: EVENTS, traced: TRACED, told: TOLD, counted: machine.clone() }),
        ..Options::default()
    }
}

/// Tell until it ends.
async fn follow(
    daemon: &Rc<Daemon>,
    mut caller: Caller,
    (mut watching, mut follower): (Watching, Follower),
    limit: Option<Duration>,
) {
    let until = limit.map(|limit| Instant::now() + limit);
    let mut rounds = tokio::time::interval(ROUND);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = caller.say.closed() => break,
            _ = rounds.tick() => {}
        }
        let is_over = until.is_some_and(|until| Instant::now() >= until);
        let (again, told) = watching.round(daemon, (follower, &mut caller.waiting)).await;
        let Some((mut still, again)) = again else { return };
        for line in told {
            if !caller.tell(line).await {
                return still.close().await;
            }
        }
        if is_over {
            caller.end("the time is up").await;
            return still.close().await;
        }
        if !Arc::ptr_eq(&still.lab, &daemon.lab()) {
            // Machines may have come and gone.
            let (machine, means) = (still.machine.clone(), still.means.clone());
            still.close().await;
            match Watching::open(daemon, &machine, means).await {
                Ok(opened) if caller.tell(Told::Changed).await => still = opened,
                Ok(opened) => return opened.close().await,
                Err(problem) => return caller.end(&problem.message).await,
            }
        }
        (watching, follower) = (still, again);
    }
    watching.close().await;
}

impl Watching {
    async fn open(
        daemon: &Rc<Daemon>,
        machine: &NsName,
        means: Options,
    ) -> Result<Watching, Box<crate::diag::Problem>> {
        if daemon.netns(machine).is_none() {
            return Err(refused(format!("{machine} is not there any more")));
        }
        let world = read(daemon).await?;
        let filter = filter::of_machine(&world.lab, &world.there, machine);
        let options = Options { filter, ..means.clone() };
        let (lab, spots) = (daemon.lab(), spots(daemon));
        let opened = tokio::task::spawn_blocking(move || Recorder::open(&spots, &options)).await;
        match opened {
            Ok(Ok(recorder)) => Ok(Watching { recorder, lab, machine: machine.clone(), means, lost: (0, 0), world }),
            Ok(Err(e)) => Err(refused(format!("packets cannot be watched: {e}"))),
            Err(e) => Err(refused(format!("packets cannot be watched: {e}"))),
        }
    }

    /// One round, beside a state that is read anew where it must be. Nothing but lines where it broke.
    async fn round(
        mut self,
        daemon: &Rc<Daemon>,
        (mut follower, waiting): (Follower, &mut Option<Waiting>),
    ) -> (Option<(Watching, Follower)>, Vec<Told>) {
        for fresh in [false, true] {
            if fresh && let Ok(world) = read(daemon).await {
                self.world = world;
            }
            let mut kept = waiting.take();
            let round = tokio::task::spawn_blocking(move || {
                // What came before now has been read, or its sockets have lost it.
                let now = now();
                let heard = self.hear(now);
                kept.iter_mut().for_each(|kept| kept.keep(&heard.events));
                if fresh {
                    self.world.read_at = now;
                }
                let round = follower.round(&self.world, heard);
                (self, follower, kept, round)
            });
            let Ok((watching, again, kept, round)) = round.await else { return (None, Vec::new()) };
            (self, follower) = (watching, again);
            *waiting = kept;
            if let Round::Told(told) = round {
                return (Some((self, follower)), told);
            }
        }
        (Some((self, follower)), Vec::new())
    }

    fn hear(&mut self, now: u64) -> Heard {
        let events = self.recorder.drain();
        let (lost, own) = (self.recorder.lost(), self.recorder.lost_at(&self.machine));
        // By a host and the router packets of others pass, too.
        let counts = matches!(self.machine, NsName::Pod(_) | NsName::Client(_));
        let unseen = if counts { own - self.lost.1 } else { 0 };
        let heard = Heard { events, lost: lost - self.lost.0, unseen, now };
        self.lost = (lost, own);
        heard
    }

    /// Stop watching. It waits for threads, so not here.
    async fn close(self) {
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }
}

fn spots(daemon: &Daemon) -> Vec<Spot> {
    daemon.lab().namespaces().filter_map(|place| Some(Spot { netns: daemon.netns(&place)?, place })).collect()
}

/// The state as it is now.
async fn read(daemon: &Rc<Daemon>) -> Result<World, Box<crate::diag::Problem>> {
    let lab = daemon.lab();
    let (there, planned) = daemon.there_and_planned().await?;
    let known = learnt(daemon, &lab, None).await;
    let spots = spots(daemon);
    let chains = tokio::task::spawn_blocking(move || record::book(&spots)).await.unwrap_or_default();
    Ok(World { lab, planned, there, known, chains, read_at: now() })
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
