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
/// Events that one listener keeps.
const MOST_KEPT: usize = 20_000;

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

    fn hear(&self, id: u64, line: Line) {
        let mut programs = self.programs.borrow_mut();
        let Some(program) = programs.get_mut(&id) else { return };
        match line {
            Line::Event(event) => {
                for heard in self.listeners.borrow().iter().filter_map(Weak::upgrade) {
                    heard.take(&program.ns, &event);
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
    fn take(&self, ns: &NsName, event: &Event) {
        let mut events = self.events.borrow_mut();
        match events.len() < MOST_KEPT {
            true => events.push((ns.clone(), event.clone())),
            false => self.lost.set(self.lost.get() + 1),
        }
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

    /// Hear a line of its standard output; whether it was of this kind.
    pub fn hear(&self, line: &str) -> bool {
        let Some(line) = Line::read(line) else { return false };
        self.telling.hear(self.id, line);
        true
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.telling.programs.borrow_mut().remove(&self.id);
        self.telling.obeyed.notify_waiters();
    }
}

/// Give each line of `output` to `each` until it ends. One that is too long is left out.
pub async fn each_line(mut output: impl AsyncRead + Unpin, mut each: impl FnMut(&str)) {
    let (mut line, mut buffer) = (Vec::new(), [0u8; 8192]);
    while let Ok(n @ 1..) = output.read(&mut buffer).await {
        for part in buffer[..n].split_inclusive(|byte| *byte == b'\n') {
            line.extend(part);
            if line.ends_with(b"\n") {
                each(String::from_utf8_lossy(&line).trim_end());
                line.clear();
            } else if line.len() > LONGEST_LINE {
                line.clear();
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
mod tests {
    use std::task::{Context, Waker};

    use super::*;
    use crate::workload::events::Did;

    fn event(request: u64) -> String {
        let did = Did::Passed { request, from: None, to: ([10, 244, 1, 2], 80).into() };
        serde_json::to_string(&Event { at: request, did }).expect("JSON")
    }

    /// A program that obeys, and tells of one thing more each time before it does.
    fn obedient(telling: &Rc<Telling>, lost: u64) -> NsName {
        let ns = NsName::try_from("pod/ingress/controller-1".to_owned()).expect("a pod");
        let present = telling.enter(&ns);
        tokio::task::spawn_local(async move {
            let mut orders = present.orders();
            loop {
                let line = next_order(&mut orders).await;
                let order = Order::read(line.as_bytes()).expect("an order");
                assert!(present.hear(&event(order.number)));
                assert!(present.hear(&format!("told {} {}", order.number, order.number * lost)));
            }
        });
        ns
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_is_told_before_the_end_is_heard_and_the_last_listener_ends_it() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let telling = Rc::new(Telling::default());
                let ns = obedient(&telling, 1);
                let (one, other) = (telling.listen().await, telling.listen().await);
                assert!(telling.order.borrow().on);
                let heard = |told: &Told| told.events.iter().map(|(_, event)| event.at).collect::<Vec<_>>();
                let one = one.end().await;
                assert_eq!((heard(&one), one.lost, one.events[0].0.clone()), (vec![1, 2, 3], 2, ns));
                assert!(telling.order.borrow().on, "another one listens");
                let other = other.end().await;
                assert_eq!((heard(&other), other.silent), (vec![2, 3, 4], vec![]));
                assert!(!telling.order.borrow().on && telling.listeners.borrow().is_empty());
                drop(telling.listen().await);
                assert!(!telling.order.borrow().on, "who has gone away does not listen");
            })
            .await;
    }

    #[tokio::test(flavor = "current_thread")]
    async fn who_has_obeyed_is_not_silent_as_another_listener_orders_something_more() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let telling = Rc::new(Telling::default());
                let _program = obedient(&telling, 0);
                let one = telling.listen().await;
                let mut end = std::pin::pin!(one.end());
                let number = telling.order.borrow().number + 1;
                let mut unheard = Context::from_waker(Waker::noop());
                assert!(end.as_mut().poll(&mut unheard).is_pending());
                while telling.programs.borrow().values().any(|p| p.obeyed < number) {
                    tokio::task::yield_now().await;
                }
                telling.send();
                assert_eq!(end.await.silent, vec![]);
            })
            .await;
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_program_that_does_not_obey_is_named_and_one_that_has_ended_is_not_waited_for() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let telling = Rc::new(Telling::default());
                let ns = NsName::try_from("host/node1".to_owned()).expect("a host");
                let stopped = telling.enter(&ns);
                let told = telling.listen().await.end().await;
                assert_eq!(told, Told { silent: vec![ns], ..Told::default() });
                drop(stopped);
                let begun = std::time::Instant::now();
                assert_eq!(telling.listen().await.end().await, Told::default());
                assert!(begun.elapsed() < PATIENCE);
            })
            .await;
    }
}
