//! Which rooms there are: one for each container whose program runs, made and ended by its keeper,
//! and one for visitors of a machine where nothing runs, which is there as long as one of them is.
//! Who serves a thousand pods without programs therefore has no process for them.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::AsRawFd;
use std::rc::{Rc, Weak};

use crate::diag::{Problem, codes};
use crate::kernel::ns::NetNs;
use crate::kernel::process::{Place, Running};
use crate::kernel::room::{Doors, Room};
use crate::lab::names::NsName;

use super::api::Door;
use super::state::Daemon;

/// A container: where it is, and its name.
pub type Key = (NsName, String);

/// The rooms of a lab.
#[derive(Default, Clone)]
pub struct Rooms {
    containers: Rc<RefCell<BTreeMap<Key, Room>>>,
    visited: Rc<RefCell<BTreeMap<NsName, Weak<Waiting>>>>,
    /// Held while a room for visitors is made, so that two who come at once get the same.
    making: Rc<tokio::sync::Mutex<()>>,
}

/// A room without a program, for visitors. It ends when it is dropped.
struct Waiting {
    room: Room,
    _first: Running,
}

/// What a visitor's connection holds.
pub struct Visit {
    _netns: NetNs,
    _doors: Doors,
    _waiting: Option<Rc<Waiting>>,
}

impl Rooms {
    pub fn open(&self, key: &Key, room: Room) {
        self.containers.borrow_mut().insert(key.clone(), room);
    }

    pub fn close(&self, key: &Key) {
        self.containers.borrow_mut().remove(key);
    }

    /// The room of one container, while its program runs.
    pub fn container(&self, key: &Key) -> Option<Room> {
        self.containers.borrow().get(key).cloned()
    }

    /// The room that who comes to a machine is shown into, where there is one: that of its first
    /// container whose program runs.
    fn of(&self, ns: &NsName, containers: &[String]) -> Option<Room> {
        containers.iter().find_map(|name| self.container(&(ns.clone(), name.clone())))
    }

    /// The machines in which nothing runs but what visitors have started.
    pub fn visited(&self) -> Vec<NsName> {
        let visited = self.visited.borrow();
        visited.iter().filter(|(_, waiting)| waiting.strong_count() > 0).map(|(ns, _)| ns.clone()).collect()
    }

    /// End all visitors of a machine that is to go, with what they started there.
    pub fn clear(&self, ns: &NsName) {
        let waiting = self.visited.borrow_mut().remove(ns).and_then(|w| w.upgrade());
        if let Some(waiting) = waiting {
            waiting.room.end();
        }
    }

    /// The room for visitors, made where there is none.
    async fn waiting(&self, ns: &NsName, place: &Place) -> io::Result<Rc<Waiting>> {
        let _turn = self.making.lock().await;
        let there = self.visited.borrow().get(ns).and_then(Weak::upgrade);
        if let Some(waiting) = there {
            return Ok(waiting);
        }
        let mut first = Running::start(place.launch(&[])?)?;
        if !first.has_started().await? {
            let mut said = Vec::new();
            first.until_the_end(&mut said, 1024).await?;
            return Err(io::Error::other(String::from_utf8_lossy(&said).trim().to_owned()));
        }
        let waiting = Rc::new(Waiting { room: first.room()?, _first: first });
        self.visited.borrow_mut().insert(ns.clone(), Rc::downgrade(&waiting));
        Ok(waiting)
    }
}

impl Daemon {
    /// How a program gets into a machine, in the room that is there now.
    pub fn place(&self, ns: &NsName) -> io::Result<Place> {
        let netns = self.netns(ns).ok_or_else(|| io::Error::other("it is being changed"))?;
        Ok(Place { netns, entry: self.entry(ns)?, room: self.workloads.rooms.of(ns, &self.containers(ns)) })
    }

    fn containers(&self, ns: &NsName) -> Vec<String> {
        let plan = self.plan();
        let programs = plan.get(ns).map(|n| n.programs.as_slice()).unwrap_or_default();
        programs.iter().map(|p| p.name.clone()).collect()
    }

    /// Open a machine for a visitor. What is returned beside the door must be held while he is in.
    pub async fn receive(&self, ns: &NsName) -> Result<(Door, Visit), Box<Problem>> {
        let closed = |why: io::Error| {
            Box::new(
                Problem::error(codes::COMMAND_FAILED, format!("{ns} cannot be entered: {why}"))
                    .help("is there room in the lab's /run, and for another process?"),
            )
        };
        self.show_in(ns).await.map_err(closed)
    }

    async fn show_in(&self, ns: &NsName) -> io::Result<(Door, Visit)> {
        let mut place = self.place(ns)?;
        let (room, waiting) = match place.room.take() {
            Some(room) => (room, None),
            None => {
                let waiting = self.workloads.rooms.waiting(ns, &place).await?;
                (waiting.room.clone(), Some(waiting))
            }
        };
        let (netns, doors) = (place.netns, room.doors()?);
        let door = Door {
            hostname: place.entry.hostname,
            netns: netns.as_raw_fd(),
            pids: doors.pids.as_raw_fd(),
            mounts: doors.mounts.as_raw_fd(),
            uts: doors.uts.as_raw_fd(),
        };
        Ok((door, Visit { _netns: netns, _doors: doors, _waiting: waiting }))
    }
}

/// The places of several machines, for probes that run programs there.
pub fn places(daemon: &Daemon, machines: impl Iterator<Item = NsName>) -> HashMap<NsName, Place> {
    machines.filter_map(|ns| Some((ns.clone(), daemon.place(&ns).ok()?))).collect()
}
