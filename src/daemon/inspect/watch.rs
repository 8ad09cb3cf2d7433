//! A bridge watched while it learns: a stream of JSON lines, the table first and then each change
//! as the kernel tells it, until the caller goes away or the bridge does.

use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::kernel::stack::{self, FdbRow, Origin};
use crate::kernel::watch::{Change, Watch};

use super::super::lines::{Say, lines};
use super::super::server::Outcome;
use super::super::state::Daemon;
use super::bridge::{self, Found};
use super::unreadable;

/// One change of a bridge's table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    /// Milliseconds since the watch began.
    pub after: u64,
    /// `learnt`, `added`, `moved`, `aged out`, `removed`, `bridge gone` or `lost`.
    pub what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<bridge::Entry>,
    /// The port that it was behind before it moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// How often a watch looks whether its machine is still part of the lab: its socket would keep
/// the namespace of one that is not.
const LOOK_ROUND: Duration = Duration::from_secs(2);

/// The kernel collects old entries in rounds of its own, and rounds ages down.
const SLACK: u64 = 1_000;

pub async fn stream(daemon: &Rc<Daemon>, word: &str) -> Outcome {
    let (ns, wanted) = bridge::place(&daemon.lab(), word)?;
    let netns = daemon.netns(&ns).ok_or_else(|| unreadable(&ns, "it is being changed"))?;
    // First listen, then read: what changes in between is told twice rather than not at all.
    let opened = tokio::task::spawn_blocking(move || {
        let watch = netns.run(Watch::open)??;
        Ok::<_, crate::kernel::rtnl::Fault>((watch, stack::read(&netns)?))
    });
    let (mut watch, stack) = opened.await.map_err(|e| unreadable(&ns, e))?.map_err(|e| unreadable(&ns, e))?;
    let found = bridge::found(&daemon.plan(), ns, wanted.as_deref(), &stack)?;
    watch.know(stack.interfaces.iter().map(|i| (i.index, i.name.clone())));
    let table = found.answer(&stack);
    let known = stack.fdb.into_iter().filter(|r| r.bridge == Some(found.bridge.index));
    let known = known.map(|r| (r.mac.clone(), r)).collect();
    let (say, answer) = lines();
    let follower = Follower { daemon: Rc::clone(daemon), found, known, say, started: Instant::now() };
    // SAFETY: a watch owns its socket, which stays the same and open until it is dropped.
    let socket = unsafe { AsyncFd::register_with_interest(watch, Interest::READABLE) };
    let socket = socket.map_err(|e| unreadable(word, io::Error::from(e)))?;
    tokio::task::spawn_local(async move {
        if follower.say.line(&table).await {
            follower.follow(socket).await;
        }
    });
    Ok(answer)
}

struct Follower {
    daemon: Rc<Daemon>,
    found: Found,
    known: HashMap<String, FdbRow>,
    say: Say,
    started: Instant,
}

impl Follower {
    async fn follow(mut self, mut socket: AsyncFd<Watch>) {
        let mut rounds = tokio::time::interval(LOOK_ROUND);
        loop {
            let told = tokio::select! {
                () = self.say.closed() => return,
                _ = rounds.tick() => {
                    if self.daemon.netns(&self.found.ns).is_none() {
                        self.say.line(&self.plain("bridge gone")).await;
                        return;
                    }
                    continue;
                }
                told = changes(&mut socket) => told,
            };
            let Ok(told) = told else { return };
            for change in told {
                let gone = matches!(&change, Change::DeviceGone(name) if *name == self.found.bridge.name);
                let Some(told) = self.meaning(change) else { continue };
                if !self.say.line(&told).await || gone {
                    return;
                }
            }
        }
    }

    fn plain(&self, what: &str) -> Told {
        let after = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Told { after, what: what.to_owned(), entry: None, from: None }
    }

    fn about(&self, what: &str, row: &FdbRow) -> Told {
        Told { entry: Some(self.found.entry(row)), ..self.plain(what) }
    }

    fn meaning(&mut self, change: Change) -> Option<Told> {
        let index = self.found.bridge.index;
        match change {
            Change::There(row) if row.bridge == Some(index) => {
                let before = self.known.insert(row.mac.clone(), row.clone());
                match before {
                    Some(old) if old.dev == row.dev => None,
                    Some(old) => Some(Told { from: Some(old.dev), ..self.about("moved", &row) }),
                    None if row.origin == Origin::Learnt => Some(self.about("learnt", &row)),
                    None => Some(self.about("added", &row)),
                }
            }
            Change::Gone(row) if row.bridge == Some(index) => {
                // One that has moved on is still there.
                let old = self.known.get(&row.mac).filter(|old| old.dev == row.dev)?.clone();
                self.known.remove(&row.mac);
                let old_age = self.found.bridge.ageing.is_some_and(|limit| row.age + SLACK >= limit);
                let aged = old.origin == Origin::Learnt && old_age;
                Some(self.about(if aged { "aged out" } else { "removed" }, &row))
            }
            Change::DeviceGone(name) if name == self.found.bridge.name => Some(self.plain("bridge gone")),
            Change::Lost => Some(self.plain("lost")),
            _ => None,
        }
    }
}

async fn changes(socket: &mut AsyncFd<Watch>) -> io::Result<Vec<Change>> {
    loop {
        let mut ready = socket.readable_mut().await?;
        match ready.try_io(|watch| watch.get_mut().read()) {
            Ok(read) => return read,
            // Another wake-up for nothing.
            Err(_) => continue,
        }
    }
}
