//! What labctl's own programs tell of single requests and packets while a trace wants to know: the built-in ingress
//! controller, the DNS server and flanneld. Both ends of it are here.
//!
//! It goes over the channels that there are. On a program's standard input comes an [`Order`], a line that is no
//! JSON; on its standard output go [`Event`]s, a line of JSON each, and behind all that was told before it a
//! [`Receipt`] for the order. Nothing is put together while nobody wants it, and nobody who is served waits for
//! it: a thread writes, from a queue that is bounded, and what finds no room there is counted.

use std::fmt;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Events that wait to be written, at most.
const QUEUE: usize = 4096;

/// Something that a program did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Nanoseconds since 1970, by the machine's clock.
    pub at: u64,
    pub did: Did,
}

/// What it did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Did {
    /// An ingress controller took a request in and knows what becomes of it.
    Took(Request),
    /// It sends the request to an endpoint, `from` its own end of the connection; nothing where that is still to
    /// be made. An endpoint that fails may be followed by another one.
    Passed { request: u64, from: Option<SocketAddr>, to: SocketAddr },
    /// It begins to answer. `why` is its own reason where no endpoint answered.
    Answered { request: u64, status: u16, why: Option<String> },
    /// A DNS server answered.
    Resolved(Lookup),
    /// flanneld was given a packet.
    Carried(Carried),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The controller's number for it.
    pub request: u64,
    pub client: SocketAddr,
    pub method: String,
    /// `http` or `https`.
    pub scheme: String,
    /// As the request names it.
    pub host: String,
    pub path: String,
    /// The rule that takes it, with its service; nothing where there is none.
    pub rule: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    pub client: SocketAddr,
    /// The query's own number; the client's.
    pub id: u16,
    pub name: String,
    /// `A`, `SRV` and the like.
    pub kind: String,
    /// The records, or the response code where there are none.
    pub answer: String,
    /// Whose the name is, such as `service default/tea-svc`.
    pub source: String,
}

/// A packet that flanneld sends to another host, or has from one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    pub way: Way,
    pub source: IpAddr,
    pub destination: IpAddr,
    /// Bytes of the packet, and its identification.
    pub length: u32,
    pub identification: u16,
    /// The other host; nothing where none has a lease for the destination.
    pub peer: Option<IpAddr>,
    /// Why it goes no further, where it does not.
    pub dropped: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// From the TUN device into UDP.
    Out,
    /// Out of UDP to the TUN device.
    In,
}

/// Whether events are wanted from now on. Each order has a number of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Order {
    pub number: u64,
    pub on: bool,
}

const ORDER: &str = "tell";

impl Order {
    /// A line of a control channel, where it is one.
    pub fn read(line: &[u8]) -> Option<Order> {
        let rest = line.strip_prefix(ORDER.as_bytes())?;
        let mut words = std::str::from_utf8(rest).ok()?.split_whitespace();
        let (on, number) = (words.next()?, words.next()?.parse().ok()?);
        Some(Order { number, on: on == "on" })
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ORDER} {} {}", if self.on { "on" } else { "off" }, self.number)
    }
}

/// That an order is in force, and that all that was told before it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    pub number: u64,
    /// Events that found no room in the queue since the program began.
    pub lost: u64,
}

const RECEIPT: &str = "told ";

/// A line of a program's standard output, as far as it is of this kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    Event(Event),
    Receipt(Receipt),
}

impl Line {
    /// Whether a line begins as an event does.
    pub fn is_event(line: &str) -> bool {
        line.starts_with('{')
    }

    pub fn read(line: &str) -> Option<Line> {
        if Line::is_event(line) {
            return serde_json::from_str(line).ok().map(Line::Event);
        }
        let mut words = line.strip_prefix(RECEIPT)?.split(' ');
        let mut number = || words.next()?.parse().ok();
        Some(Line::Receipt(Receipt { number: number()?, lost: number()? }))
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Line::Event(event) => serde_json::to_writer(&mut *out, event)?,
            Line::Receipt(Receipt { number, lost }) => write!(out, "{RECEIPT}{number} {lost}")?,
        }
        out.write_all(b"\n")?;
        out.flush()
    }
}

/// A program's end of it, for all parts of the program.
#[derive(Clone, Default)]
pub struct Teller(Arc<Inner>);

#[derive(Default)]
struct Inner {
    on: AtomicBool,
    lost: AtomicU64,
    /// The thread that writes is started when somebody first wants to know. Nothing where it cannot be.
    queue: OnceLock<Option<Queue>>,
}

/// Lines on their way to the thread that writes.
struct Queue {
    lines: SyncSender<Line>,
    /// So many are in it, or are just being put there.
    waiting: Arc<AtomicUsize>,
    most: usize,
}

impl Queue {
    fn has_room(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) < self.most
    }

    fn put(&self, line: Line) -> bool {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let is_put = self.lines.try_send(line).is_ok();
        if !is_put {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        is_put
    }
}

impl Teller {
    /// Take a line of the control channel, where it is an order.
    pub fn obey(&self, line: &[u8]) -> bool {
        let Some(order) = Order::read(line) else { return false };
        self.0.on.store(order.on, Ordering::Relaxed);
        let lost = self.0.lost.load(Ordering::Relaxed);
        // Who has no room for a receipt has told too much; that it does not come says so.
        self.put(Line::Receipt(Receipt { number: order.number, lost }));
        true
    }

    pub fn is_on(&self) -> bool {
        self.0.on.load(Ordering::Relaxed)
    }

    /// Now, where somebody wants to know what is done from now on.
    pub fn moment(&self) -> Option<u64> {
        self.is_on().then(now)
    }

    /// Tell what was just done. It is not even put together where nobody wants to know.
    pub fn tell(&self, did: impl FnOnce() -> Did) {
        self.tell_since(self.moment(), did);
    }

    /// The same of what may turn out to be nothing to tell of.
    pub fn tell_some(&self, did: impl FnOnce() -> Option<Did>) {
        self.event(self.moment(), did);
    }

    /// Tell what was begun at a [`moment`](Teller::moment).
    pub fn tell_since(&self, moment: Option<u64>, did: impl FnOnce() -> Did) {
        self.event(moment, || Some(did()));
    }

    fn event(&self, moment: Option<u64>, did: impl FnOnce() -> Option<Did>) {
        let Some(at) = moment else { return };
        // Whoever is served waits while it is put together, so that is not done where there is no room for it.
        let is_told = self.queue().is_some_and(Queue::has_room)
            && did().is_none_or(|did| self.put(Line::Event(Event { at, did })));
        if !is_told {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn put(&self, line: Line) -> bool {
        self.queue().is_some_and(|queue| queue.put(line))
    }

    fn queue(&self) -> Option<&Queue> {
        self.0.queue.get_or_init(|| begin().ok()).as_ref()
    }
}

fn begin() -> io::Result<Queue> {
    let (lines, receiver) = sync_channel(QUEUE);
    let waiting = Arc::new(AtomicUsize::new(0));
    let written = Arc::clone(&waiting);
    std::thread::Builder::new().name("tell".to_owned()).spawn(move || write(&receiver, &written))?;
    Ok(Queue { lines, waiting, most: QUEUE })
}

/// Standard output may be closed, and that is no reason to stop anything else.
fn write(lines: &Receiver<Line>, waiting: &AtomicUsize) {
    for line in lines {
        waiting.fetch_sub(1, Ordering::Relaxed);
        let _ = line.write(&mut io::stdout().lock());
    }
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed() -> Did {
        Did::Passed { request: 7, from: None, to: SocketAddr::from(([10, 244, 1, 2], 8080)) }
    }

    #[test]
    fn what_is_told_is_read_again_and_nothing_else_is_taken_for_it() {
        let event = Line::Event(Event { at: 5, did: passed() });
        for line in [event, Line::Receipt(Receipt { number: 3, lost: 2 })] {
            let mut text = Vec::new();
            line.write(&mut text).expect("memory");
            assert_eq!(Line::read(String::from_utf8(text).expect("text").trim_end()), Some(line));
        }
        for other in ["", "ready", "told", "told x 1", "{}", "accepted 0a1b"] {
            assert_eq!(Line::read(other), None, "{other}");
        }
        for order in [Order { number: 9, on: true }, Order { number: 10, on: false }] {
            assert_eq!(Order::read(format!("{order}\n").as_bytes()), Some(order));
        }
        assert_eq!(Order::read(b"{\"endpoints\":{}}"), None);
    }

    #[test]
    fn nothing_is_put_together_until_somebody_wants_to_know() {
        let teller = Teller::default();
        teller.tell(|| unreachable!("nobody wants to know"));
        assert!(!teller.obey(b"[]\n") && !teller.is_on());
    }

    #[test]
    fn what_finds_no_room_is_counted_and_nobody_waits() {
        let teller = Teller::default();
        let (sender, lines) = sync_channel(2);
        let queue = Queue { lines: sender, waiting: Arc::default(), most: 2 };
        assert!(teller.0.queue.set(Some(queue)).is_ok(), "not yet begun");
        assert!(teller.obey(b"tell on 1\n"));
        teller.tell(passed);
        teller.tell(|| unreachable!("it has no room"));
        teller.tell_some(|| unreachable!("it has no room"));
        assert_eq!(lines.recv(), Ok(Line::Receipt(Receipt { number: 1, lost: 0 })));
        assert!(teller.obey(b"tell off 2\n"));
        teller.tell(|| unreachable!("nobody wants to know any more"));
        drop(teller);
        let rest: Vec<Line> = lines.iter().collect();
        assert_eq!(rest.last(), Some(&Line::Receipt(Receipt { number: 2, lost: 2 })), "{rest:?}");
    }
}
