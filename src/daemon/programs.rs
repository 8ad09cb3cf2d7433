//! The life of a container's program: started in its pod, watched, restarted as Kubernetes'
//! restartPolicy says, its output kept in a bounded ring.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::process::ExitStatus;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::watch;

use crate::kernel::process::{Place, Running, exit_code};
use crate::plan::Program;
use crate::spec::types::RestartPolicy;

use super::rooms::{Key, Rooms};
use super::telling::{Present, Telling, next_order};
use crate::workload::events::Order;

/// How much of a program's output is kept, in bytes.
const KEPT_OUTPUT: usize = 256 * 1024;
/// kubelet's back-off: at once, then 10 s, doubled up to 5 minutes; forgotten after 10 good ones.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);
/// How long a program has after SIGTERM where its pod is changed and stays. One that goes has its own time.
const GRACE: Duration = Duration::from_secs(2);
/// How long is waited for what was written last.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// What a container does now, in Kubernetes' words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    #[serde(rename_all = "camelCase")]
    Waiting {
        reason: String,
        message: String,
    },
    Running {
        pid: u32,
    },
    #[serde(rename_all = "camelCase")]
    Terminated {
        exit_code: i32,
        reason: String,
    },
}

/// The last of a program's output, and a bell for who follows it.
#[derive(Default)]
pub struct Log {
    ring: RefCell<VecDeque<u8>>,
    /// Bytes ever written, so that a follower knows what it has seen.
    written: RefCell<u64>,
    bell: watch::Sender<()>,
}

impl Log {
    fn add(&self, bytes: &[u8]) {
        let mut ring = self.ring.borrow_mut();
        ring.extend(bytes);
        let over = ring.len().saturating_sub(KEPT_OUTPUT);
        ring.drain(..over);
        *self.written.borrow_mut() += bytes.len() as u64;
        self.ring_bell();
    }

    pub fn ring_bell(&self) {
        self.bell.send_replace(());
    }

    /// Forget what was written, for a program that comes in another's place. Who follows goes on
    /// where he is.
    pub fn begin_anew(&self) {
        self.ring.borrow_mut().clear();
    }

    fn line(&self, text: &str) {
        self.add(format!("{text}\n").as_bytes());
    }

    /// What was written from byte `from` on, as far as it is kept, and the position behind it.
    pub fn since(&self, from: u64) -> (Vec<u8>, u64) {
        let (ring, written) = (self.ring.borrow(), *self.written.borrow());
        let kept = ring.len() as u64;
        // Who knows more than was written has read the log of another pod of this name.
        let from = if from > written { 0 } else { from };
        let skip = from.saturating_sub(written - kept).min(kept);
        (ring.iter().skip(usize::try_from(skip).unwrap_or(0)).copied().collect(), written)
    }

    pub fn bell(&self) -> watch::Receiver<()> {
        self.bell.subscribe()
    }
}

/// A program that is looked after.
pub struct Supervised {
    pub program: Program,
    pub state: Rc<RefCell<State>>,
    pub restarts: Rc<RefCell<u32>>,
    pub log: Rc<Log>,
    /// How long it has to end, once it is to.
    stop: watch::Sender<Option<Duration>>,
    over: Rc<Cell<bool>>,
    changed: Rc<tokio::sync::Notify>,
    task: tokio::task::JoinHandle<()>,
}

/// What a program needs besides itself.
pub struct Surroundings {
    pub key: Key,
    pub place: Place,
    pub rooms: Rooms,
    pub log: Rc<Log>,
    /// Rung at each change of state.
    pub changed: Rc<tokio::sync::Notify>,
    /// What makes it one of labctl's own, where it is.
    pub own: Option<Own>,
}

/// How a program of labctl's own is started and what it is told. Its plan says only what it is for.
pub struct Own {
    pub command: Vec<String>,
    pub feed: Feed,
    pub hear: Hearing,
    pub telling: Rc<Telling>,
}

/// Who hears what a program says of itself: nothing when it is started, and then each line of its standard
/// output, which therefore is no part of its log.
pub type Hearing = Rc<dyn Fn(Option<&str>)>;

/// The newest of what a program is told, lines of JSON; nothing where there is nothing to tell yet.
pub type Feed = watch::Receiver<Option<Arc<[u8]>>>;

impl Supervised {
    /// Start looking after `program`.
    pub fn start(program: Program, around: Surroundings) -> Supervised {
        let Surroundings { key, place, rooms, log, changed, own } = around;
        let waiting = State::Waiting { reason: "ContainerCreating".to_owned(), message: String::new() };
        let (state, restarts) = (Rc::new(RefCell::new(waiting)), Rc::new(RefCell::new(0)));
        let (stop, stopped) = watch::channel(None);
        let over = Rc::new(Cell::new(false));
        let keeper = Keeper {
            program: program.clone(),
            key,
            place,
            rooms,
            state: Rc::clone(&state),
            restarts: Rc::clone(&restarts),
            log: Rc::clone(&log),
            changed: Rc::clone(&changed),
            own,
            stopped,
        };
        let (ended, bell) = (Rc::clone(&over), Rc::clone(&changed));
        let task = tokio::task::spawn_local(async move {
            keeper.run().await;
            ended.set(true);
            bell.notify_waiters();
        });
        Supervised { program, state, restarts, log, stop, over, changed, task }
    }

    /// Tell the program to end, and end it where it has not when `grace` is over. It stays here with
    /// what it was, and rings when it has ended; see [`Supervised::is_over`].
    pub fn tell_to_end(&self, grace: Duration) {
        self.stop.send_replace(Some(grace));
    }

    /// Whether it has ended for good.
    pub fn is_over(&self) -> bool {
        self.over.get()
    }

    /// End the program: SIGTERM to its process group, SIGKILL to its room where that does not help.
    pub async fn stop(self) {
        self.stop.send_replace(Some(GRACE));
        let _ = self.task.await;
        self.changed.notify_waiters();
    }
}

struct Keeper {
    program: Program,
    key: Key,
    place: Place,
    rooms: Rooms,
    state: Rc<RefCell<State>>,
    restarts: Rc<RefCell<u32>>,
    log: Rc<Log>,
    changed: Rc<tokio::sync::Notify>,
    own: Option<Own>,
    stopped: watch::Receiver<Option<Duration>>,
}

impl Keeper {
    fn set(&self, state: State) {
        *self.state.borrow_mut() = state;
        self.changed.notify_waiters();
    }

    fn command(&self) -> &[String] {
        self.own.as_ref().map_or(&self.program.command, |own| &own.command)
    }

    async fn run(mut self) {
        let mut pause = Duration::ZERO;
        loop {
            let started = Instant::now();
            let ended = self.once().await;
            let (exit_code, reason) = ended.unwrap_or_else(|e| {
                self.log.line(&format!("labctl: {} cannot be started: {e}", self.command().join(" ")));
                (128, "StartError".to_owned())
            });
            let told = self.stopped.borrow().is_some();
            let again = !told
                && match self.program.restart_policy {
                    RestartPolicy::Always => true,
                    RestartPolicy::OnFailure => exit_code != 0,
                    RestartPolicy::Never => false,
                };
            self.set(State::Terminated { exit_code, reason });
            if !again {
                return;
            }
            pause = if started.elapsed() > FORGIVEN_AFTER { Duration::ZERO } else { pause };
            if !pause.is_zero() {
                let message = format!("ended with {exit_code}; started again after a pause of {} s", pause.as_secs());
                self.set(State::Waiting { reason: "CrashLoopBackOff".to_owned(), message });
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = self.stopped.wait_for(Option::is_some) => return,
            }
            pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
            *self.restarts.borrow_mut() += 1;
        }
    }

    /// Run the program once, in a room of its own. Returns its exit code and Kubernetes' reason.
    async fn once(&mut self) -> io::Result<(i32, String)> {
        let mut launch = self.place.launch(self.command())?;
        launch.env(self.program.env.iter().map(|e| (&e.name, &e.value)));
        let (mut reports, mut feed) = (None, None);
        if let Some(own) = &self.own {
            launch.feed();
            let (reading, writing) = io::pipe()?;
            launch.stdout(writing.into());
            let present = own.telling.enter(&self.key.0);
            feed = Some((own.feed.clone(), present.orders()));
            reports = Some((Receiver::from_owned_fd(reading.into())?, Rc::clone(&own.hear), present));
        }
        let mut running = Running::start(launch)?;
        // It ends with the last of those who write.
        reports.map(|(output, hear, present)| tokio::task::spawn_local(listen(output, hear, present)));
        let feeding = running.input.take().zip(feed).map(|(input, feed)| Feeding::start(input, feed));
        let output = running.output.take();
        let output = output.map(|o| tokio::task::spawn_local(keep(o, Rc::clone(&self.log))));
        if running.has_started().await? {
            self.rooms.open(&self.key, running.room()?);
            self.set(State::Running { pid: running.pid() });
        }
        let ended = tokio::select! {
            ended = running.ended() => Some(ended),
            _ = self.stopped.wait_for(Option::is_some) => None,
        };
        let status = match ended {
            Some(status) => status,
            None => self.end(&mut running).await,
        };
        drop(feeding);
        self.rooms.close(&self.key);
        // Everyone who wrote is gone with the room; what is left is in the pipe.
        if let Some(output) = output {
            let _ = tokio::time::timeout(LAST_WORDS, output).await;
        }
        Ok(outcome(status?))
    }

    /// SIGTERM, and SIGKILL when the time is over. Who is in more of a hurry may cut it short.
    async fn end(&mut self, running: &mut Running) -> io::Result<ExitStatus> {
        running.ask_to_end();
        loop {
            let grace = self.stopped.borrow_and_update().unwrap_or_default();
            tokio::select! {
                status = running.ended() => return status,
                () = tokio::time::sleep(grace) => return running.killed().await,
                Ok(()) = self.stopped.changed() => {}
            }
        }
    }
}

/// The telling of a program, for as long as this lives.
struct Feeding(tokio::task::JoinHandle<()>);

impl Feeding {
    /// Tell what is known now, and every change from then on, and whether to tell of what is done.
    fn start(mut input: Sender, (mut feed, mut orders): (Feed, watch::Receiver<Order>)) -> Feeding {
        feed.mark_changed();
        Feeding(tokio::task::spawn_local(async move {
            loop {
                let lines: Option<Arc<[u8]>> = tokio::select! {
                    changed = feed.changed() => match changed {
                        Ok(()) => feed.borrow_and_update().clone(),
                        Err(_) => return,
                    },
                    order = next_order(&mut orders) => Some(order.into_bytes().into()),
                };
                let Some(lines) = lines else { continue };
                // Who does not listen any more has ended or is about to.
                if input.write_all(&lines).await.is_err() {
                    return;
                }
            }
        }))
    }
}

impl Drop for Feeding {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Take what a program writes until it writes no more.
pub async fn keep(mut output: impl tokio::io::AsyncRead + Unpin, log: Rc<Log>) {
    let mut buffer = [0u8; 8192];
    while let Ok(n) = output.read(&mut buffer).await {
        if n == 0 {
            return;
        }
        log.add(&buffer[..n]);
    }
}

/// Hear what a program says of itself until it says no more.
async fn listen(output: Receiver, hear: Hearing, present: Present) {
    hear(None);
    present.hear_all(output, |line| hear(Some(line))).await;
}

/// Exit code and Kubernetes' reason.
fn outcome(status: ExitStatus) -> (i32, String) {
    let code = exit_code(status);
    (code, if code == 0 { "Completed" } else { "Error" }.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_keeps_only_its_end_and_a_follower_misses_nothing_that_is_kept() {
        let log = Log::default();
        log.line("first");
        let (seen, position) = log.since(0);
        assert_eq!(seen, b"first\n");
        log.line("second");
        assert_eq!(log.since(position).0, b"second\n");
        for _ in 0..1_000 {
            log.add(&[b'x'; 1_000]);
        }
        let (kept, end) = log.since(0);
        assert_eq!(kept.len(), KEPT_OUTPUT);
        assert_eq!(end, 13 + 1_000_000);
        assert!(log.since(end).0.is_empty());
        log.begin_anew();
        log.line("another");
        assert_eq!(log.since(0).0, b"another\n");
        assert_eq!(log.since(end), (b"another\n".to_vec(), end + 8));
    }
}
