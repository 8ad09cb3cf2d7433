//! A small synchronous rtnetlink socket: many messages in one send, one answer to them all, and
//! the kernel's own words where it refuses (`NETLINK_EXT_ACK`).
//!
//! A socket belongs to the namespace of the thread that opened it, wherever it is used later.
//! Which messages are sent is `kernel::message`'s business.

use std::fmt;
use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::errno::Errno;

/// `nlmsghdr` is 16 bytes: length, type, flags, sequence number, port.
const HEADER: usize = 16;
/// `NLM_F_ACK_TLVS`: attributes follow the error.
const ACK_TLVS: u16 = 0x200;
/// `NLMSGERR_ATTR_MSG`: the kernel's text.
const ATTR_MSG: u16 = 1;
/// Messages are sent in pieces of about this size; the kernel takes up to the socket's send
/// buffer, 208 KiB by default.
const PIECE: usize = 64 * 1024;

/// Why the kernel refused a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub errno: Errno,
    /// The extended acknowledgement's text, where there is one.
    pub text: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Some(text) => write!(f, "{text} ({})", self.errno.desc()),
            None => f.write_str(self.errno.desc()),
        }
    }
}

/// What can go wrong with a batch.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("the kernel refused: {refusal}")]
    Refused {
        /// Which message of the batch, from 0.
        index: usize,
        refusal: Refusal,
    },
    #[error("netlink: {0}")]
    Io(#[from] io::Error),
}

impl Refusal {
    /// Whether it says that what was to be removed is not there: an entry, a route, a device, an
    /// address.
    fn is_gone(&self) -> bool {
        matches!(self.errno, Errno::ENOENT | Errno::ESRCH | Errno::ENODEV | Errno::EADDRNOTAVAIL)
    }
}

/// A message with its flags (`NLM_F_CREATE` and the like).
pub struct Request {
    pub message: RouteNetlinkMessage,
    pub flags: u16,
}

pub struct Rtnl {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Rtnl {
    /// Open a socket in the calling thread's namespace.
    pub fn open() -> io::Result<Rtnl> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Without the capped form each refusal would quote the whole message before its text.
        socket.set_cap_ack(true)?;
        socket.set_ext_ack(true)?;
        // Otherwise a kernel before 4.20 is asked, which ignores filters; nothing is lost.
        let _ = socket.set_netlink_get_strict_chk(true);
        Ok(Rtnl { socket, sequence: 0, buffer: vec![0; 64 * 1024] })
    }

    /// Send all requests, in order. The kernel goes on after a refusal; the first one is returned.
    ///
    /// What is to be removed and has gone is no refusal. Much goes with something else: the other end
    /// of a pair, the second address of a network with the first, what stands on a device with it.
    pub fn batch(&mut self, requests: Vec<Request>) -> Result<(), Fault> {
        let mut first = None;
        let mut done = 0;
        let mut rest = requests.into_iter().peekable();
        while rest.peek().is_some() {
            let from = self.sequence + 1;
            let mut piece: Vec<u8> = Vec::new();
            let mut removals = Vec::new();
            while let Some(request) = rest.next() {
                let last = piece.len() >= PIECE || rest.peek().is_none();
                removals.push(removes(&request.message));
                self.append(&mut piece, request, last);
                if last {
                    break;
                }
            }
            self.socket.send(&piece, 0)?;
            let refused = self.await_ack(from, &removals)?;
            if first.is_none() {
                first = refused.map(|(offset, refusal)| Fault::Refused { index: done + offset, refusal });
            }
            done += (self.sequence + 1 - from) as usize;
        }
        first.map_or(Ok(()), Err)
    }

    /// Only the last message of a piece is acknowledged where all goes well; refusals come anyway.
    fn append(&mut self, piece: &mut Vec<u8>, request: Request, last: bool) {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | request.flags | if last { NLM_F_ACK } else { 0 };
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request.message));
        message.finalize();
        let start = piece.len();
        piece.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut piece[start..]);
    }

    /// Read answers until the last sequence number's. Returns the first refusal, as its distance
    /// from `from`. `removals` tells for each message whether it removes something.
    fn await_ack(&mut self, from: u32, removals: &[bool]) -> Result<Option<(usize, Refusal)>, Fault> {
        let mut first = None;
        loop {
            let length = receive(&self.socket, &mut self.buffer)?;
            for message in split(&self.buffer[..length]) {
                let Some(answer) = Answer::parse(message) else { continue };
                if answer.sequence < from || answer.sequence > self.sequence {
                    continue;
                }
                let at = (answer.sequence - from) as usize;
                let gone = |refusal: &Refusal| removals.get(at) == Some(&true) && refusal.is_gone();
                if let Some(refusal) = answer.refusal.filter(|r| first.is_none() && !gone(r)) {
                    first = Some((at, refusal));
                }
                if answer.sequence == self.sequence {
                    return Ok(first);
                }
            }
        }
    }

    /// Ask for a table; every message of the answer is returned.
    pub fn dump(&mut self, message: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, Fault> {
        self.inquire(Request { message, flags: NLM_F_DUMP })
    }

    /// Ask for one thing.
    pub fn ask(&mut self, message: RouteNetlinkMessage) -> Result<RouteNetlinkMessage, Fault> {
        let mut answers = self.inquire(Request { message, flags: 0 })?;
        answers.pop().ok_or_else(|| Fault::Io(io::Error::other("an empty answer")))
    }

    /// A question and its answers, which end with the last one of a table, or with the only one.
    fn inquire(&mut self, request: Request) -> Result<Vec<RouteNetlinkMessage>, Fault> {
        let table = request.flags & NLM_F_DUMP == NLM_F_DUMP;
        let mut bytes = Vec::new();
        self.append(&mut bytes, request, false);
        self.socket.send(&bytes, 0)?;
        let mut all = Vec::new();
        loop {
            let length = receive(&self.socket, &mut self.buffer)?;
            for bytes in split(&self.buffer[..length]) {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes).map_err(io::Error::other)?;
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) if table => all.push(inner),
                    NetlinkPayload::InnerMessage(inner) => return Ok(vec![inner]),
                    NetlinkPayload::Done(_) => return Ok(all),
                    NetlinkPayload::Error(e) => {
                        let errno = Errno::from_raw(e.code.map_or(0, |c| -c.get()));
                        return Err(Fault::Refused { index: 0, refusal: Refusal { errno, text: None } });
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Wait for a datagram. Returns its length; one that `buffer` cannot hold is an error.
pub(super) fn receive(socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        // MSG_TRUNC makes the kernel tell the whole length, so that a cut is seen.
        let mut window = &mut buffer[..];
        match socket.recv(&mut window, libc::MSG_TRUNC) {
            Ok(length) if length <= buffer.len() => return Ok(length),
            Ok(_) => return Err(io::Error::other("an answer is larger than the buffer")),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Whether a message takes something away.
fn removes(message: &RouteNetlinkMessage) -> bool {
    use RouteNetlinkMessage::{DelAddress, DelLink, DelNeighbour, DelQueueDiscipline, DelRoute, DelRule};
    matches!(message, DelAddress(_) | DelLink(_) | DelNeighbour(_) | DelQueueDiscipline(_) | DelRoute(_) | DelRule(_))
}

/// The messages of a datagram, each with its header.
pub(super) fn split(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = number(bytes.get(0..4)?) as usize;
        let message = bytes.get(..length).filter(|m| m.len() >= HEADER)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(message)
    })
}

fn number(bytes: &[u8]) -> u32 {
    bytes.try_into().map(u32::from_ne_bytes).unwrap_or(0)
}

fn short(bytes: &[u8]) -> u16 {
    bytes.try_into().map(u16::from_ne_bytes).unwrap_or(0)
}

/// An acknowledgement or refusal.
struct Answer {
    sequence: u32,
    refusal: Option<Refusal>,
}

impl Answer {
    /// `NLMSG_ERROR`: header, error number, the header of what was asked, then attributes.
    fn parse(message: &[u8]) -> Option<Answer> {
        let kind = short(message.get(4..6)?);
        if i32::from(kind) != libc::NLMSG_ERROR {
            return None;
        }
        let flags = short(message.get(6..8)?);
        let sequence = number(message.get(8..12)?);
        let code = number(message.get(HEADER..HEADER + 4)?).cast_signed();
        if code == 0 {
            return Some(Answer { sequence, refusal: None });
        }
        let text = if flags & ACK_TLVS != 0 { message.get(2 * HEADER + 4..).and_then(text_of) } else { None };
        Some(Answer { sequence, refusal: Some(Refusal { errno: Errno::from_raw(-code), text }) })
    }
}

fn text_of(mut attributes: &[u8]) -> Option<String> {
    while attributes.len() >= 4 {
        let length = usize::from(short(&attributes[0..2]));
        let value = attributes.get(4..length)?;
        if short(&attributes[2..4]) == ATTR_MSG {
            let text = value.split(|b| *b == 0).next()?;
            return Some(String::from_utf8_lossy(text).into_owned());
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}
