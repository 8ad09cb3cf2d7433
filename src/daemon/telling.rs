//! What labctl's own programs tell of single requests and packets while somebody wants to know. Who tells is
//! ordered to begin when the first one listens and to end when the last one has heard enough; between them
//! nothing is told. What is told is [`crate::workload::events`]'.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{Notify, watch};

use crate::lab::names::NsName;
use crate::workload::events::{Event, Line, Order, Receipt};

/// How long a program may take to obey. One that is stopped does not, and is not waited for any longer.
const PATIENCE: Duration = Duration::from_millis(250);
/// Bytes of the longest line that is heard.
const LONGEST_LINE: usize = 64 * 1024;
/// Events that one listener keeps, and bytes of their lines.
const MOST_KEPT: usize = 20_000;
const MOST_BYTES: usize = 8 * 1024 * 1024;

/// The programs that can tell, and who listens to them.
pub struct Telling {
    order: watch::Sender<Order>,
    programs: RefCell<BTreeMap<u64, Program>>,
    listeners: RefCell<Vec<Weak<Heard>>>,
    /// So many listen.
    wanted: Cell<usize>,
    next: Cell<u64>,
    obeyed: Notify,
}

struct Program {
    ns: NsName,
    /// The last order that it has obeyed.
    obeyed: u64,
    lost: u64,
}

/// What one listener has heard.
#[derive(Default)]
struct Heard {
    events: RefCell<Vec<(NsName, Event)>>,
    /// Bytes of their lines.
    bytes: Cell<usize>,
    lost: Cell<u64>,
}

impl Default for Telling {
    fn default() -> Self {
        Telling {
            order: watch::Sender::new(Order::default()),
            programs: RefCell::default(),
            listeners: RefCell::default(),
            wanted: Cell::new(0),
            next: Cell::new(0),
            obeyed: Notify::new(),
        }
    }
}

impl Telling {
    /// A program in `ns` has begun, and is to be told of orders as long as what is returned lives.
    pub fn enter(self: &Rc<Self>, ns: &NsName) -> Present {
        let id = self.next.replace(self.next.get() + 1);
        self.programs.borrow_mut().insert(id, Program { ns: ns.clone(), obeyed: 0, lost: 0 });
        Present { telling: Rc::clone(self), id }
    }

    /// Begin to listen: everything that is done from now on is heard.
    pub async fn listen(self: &Rc<Self>) -> Listening {
        let heard = Rc::new(Heard::default());
        self.listeners.borrow_mut().push(Rc::downgrade(&heard));
        self.wanted.set(self.wanted.get() + 1);
        let telling = Rc::clone(self);
        let mut listening = Listening { telling, heard, is_over: false, lost_before: BTreeMap::new() };
        self.order().await;
        listening.lost_before = self.lost();
        listening
    }

    /// Order what is wanted now, and wait until it is done. It is done again where nothing has changed: a receipt
    /// says that what was told before has been heard. Who has not done it in time is `silent` for the order's number,
    /// which is returned.
    async fn order(&self) -> u64 {
        let number = self.send();
        let done = async {
            loop {
                let obeyed = self.obeyed.notified();
                if self.programs.borrow().values().all(|p| p.obeyed >= number) {
                    return;
                }
                obeyed.await;
            }
        };
        let _ = tokio::time::timeout(PATIENCE, done).await;
        number
    }

    fn send(&self) -> u64 {
        let number = self.order.borrow().number + 1;
        self.order.send_replace(Order { number, on: self.wanted.get() > 0 });
        number
    }

    /// Who has not obeyed an order. Others may have ordered something since.
    fn silent(&self, number: u64) -> Vec<NsName> {
        self.programs.borrow().values().filter(|p| p.obeyed < number).map(|p| p.ns.clone()).collect()
    }

    fn lost(&self) -> BTreeMap<u64, u64> {
        self.programs.borrow().iter().map(|(id, program)| (*id, program.lost)).collect()
    }

    /// An event was too long to be heard.
    fn miss(&self) {
        self.listeners.borrow().iter().filter_map(Weak::upgrade).for_each(|heard| heard.miss());
    }

    /// Hear a line of so many bytes.
    fn hear(&self, id: u64, line: Line, bytes: usize) {
        let mut programs = self.programs.borrow_mut();
        let Some(program) = programs.get_mut(&id) else { return };
        match line {
            Line::Event(event) => {
                for heard in self.listeners.borrow().iter().filter_map(Weak::upgrade) {
                    heard.take(&program.ns, &event, bytes);
                }
            }
            Line::Receipt(Receipt { number, lost }) => {
                (program.obeyed, program.lost) = (number, lost);
                self.obeyed.notify_waiters();
            }
        }
    }
}

impl Heard {
    fn take(&self, ns: &NsName, event: &Event, bytes: usize) {
        let mut events = self.events.borrow_mut();
        let all = self.bytes.get() + bytes;
        if events.len() < MOST_KEPT && all <= MOST_BYTES {
            events.push((ns.clone(), event.clone()));
            self.bytes.set(all);
        } else {
            self.miss();
        }
    }

    fn miss(&self) {
        self.lost.set(self.lost.get() + 1);
    }
}

/// A program that can tell, for as long as it runs.
pub struct Present {
    telling: Rc<Telling>,
    id: u64,
}

impl Present {
    /// What the program is to do, now and from then on.
    pub fn orders(&self) -> watch::Receiver<Order> {
        let mut orders = self.telling.order.subscribe();
        // One that begins while somebody listens is to tell, too.
        if orders.borrow().on {
            orders.mark_changed();
        }
        orders
    }

    /// Hear its standard output until it ends. Lines that are not of this kind go to `other`; what is too long goes
    /// to nobody, and counts as lost where it was told.
    pub async fn hear_all(&self, output: impl AsyncRead + Unpin, mut other: impl FnMut(&str)) {
        let hear = |line: &str, is_whole: bool| match is_whole {
            true if !self.hear(line) => other(line),
            false if Line::is_event(line) => self.telling.miss(),
            _ => {}
        };
        each_line(output, hear).await;
    }

    /// Hear a line of its standard output; whether it was of this kind.
    fn hear(&self, line: &str) -> bool {
        let Some(read) = Line::read(line) else { return false };
        self.telling.hear(self.id, read, line.len());
        true
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.telling.programs.borrow_mut().remove(&self.id);
        self.telling.obeyed.notify_waiters();
    }
}

/// Give each line of `output` to `each` until it ends, and whether that is all of it: of one that is too long only the
/// beginning is kept.
async fn each_line(mut output: impl AsyncRead + Unpin, mut each: impl FnMut(&str, bool)) {
    let (mut line, mut is_whole, mut buffer) = (Vec::new(), true, [0u8; 8192]);
    while let Ok(n @ 1..) = output.read(&mut buffer).await {
        for part in buffer[..n].split_inclusive(|byte| *byte == b'\n') {
            let room = LONGEST_LINE.saturating_sub(line.len());
            is_whole &= part.len() <= room;
            line.extend(part.iter().take(room));
            if part.ends_with(b"\n") {
                each(String::from_utf8_lossy(&line).trim_end(), is_whole);
                line.clear();
                is_whole = true;
            }
        }
    }
}

/// The next order as a line; pending for ever where none can come any more.
pub async fn next_order(orders: &mut watch::Receiver<Order>) -> String {
    match orders.changed().await {
        Ok(()) => format!("{}\n", *orders.borrow_and_update()),
        Err(_) => std::future::pending().await,
    }
}

/// Somebody listens, for as long as this lives.
pub struct Listening {
    telling: Rc<Telling>,
    heard: Rc<Heard>,
    is_over: bool,
    lost_before: BTreeMap<u64, u64>,
}

/// What was heard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// With the namespaces of those who told, each one's in the order in which they were told.
    pub events: Vec<(NsName, Event)>,
    /// So many more were not kept.
    pub lost: u64,
    /// Who did not answer.
    pub silent: Vec<NsName>,
}

impl Told {
    /// What is missing of it, in words.
    pub fn gaps(&self) -> Vec<String> {
        let lost = (self.lost > 0).then(|| format!("{} things that programs did came too fast to be told", self.lost));
        let silent = self.silent.iter().map(|ns| {
            let who = if matches!(ns, NsName::Host(_)) {
                format!("flanneld of {ns}")
            } else {
                format!("the program of {ns}")
            };
            format!("{who} does not tell what it does: it has not answered for {} ms", PATIENCE.as_millis())
        });
        lost.into_iter().chain(silent).collect()
    }
}

impl Listening {
    /// Hear what has been told until now, and no more.
    pub async fn end(mut self) -> Told {
        self.no_longer();
        let number = self.telling.order().await;
        let before = |id| self.lost_before.get(&id).copied().unwrap_or(0);
        let lost = self.telling.lost().into_iter().map(|(id, lost)| lost.saturating_sub(before(id))).sum::<u64>();
        let events = self.heard.events.take();
        Told { events, lost: lost + self.heard.lost.get(), silent: self.telling.silent(number) }
    }

    fn no_longer(&mut self) {
        if !std::mem::replace(&mut self.is_over, true) {
            self.telling.wanted.set(self.telling.wanted.get().saturating_sub(1));
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let this = Rc::downgrade(&self.heard);
        self.telling.listeners.borrow_mut().retain(|other| !other.ptr_eq(&this));
        if !self.is_over {
            self.no_longer();
            self.telling.send();
        }
    }
}

#[cfg(test)]
mod tests;
