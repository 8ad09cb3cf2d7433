//! A full table of tracked connections, and an empty one. The table of a namespace holds as many entries as
//! the machine allows each of its namespaces (`net.netfilter.nf_conntrack_max`), which is no lab's to change; so it is
//! filled with as many, over ctnetlink (linux/netfilter/nfnetlink_conntrack.h).
//!
//! The entries are of UDP flows between addresses that benchmarks have (198.18.0.0/15), and count as
//! answered and long-lived: those the kernel does not drop to make room (`early_drop`). Those of others must not
//! stay among them: they end after seconds, and leave room. By a mark that others' have not they are told apart.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::thread;

use netlink_packet_core::{DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_packet_core::{NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute as Attribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol, Tuple as Part,
};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use super::ns::NetNs;
use super::rtnl::{receive, split};
use super::sysctl;

/// `CTA_STATUS`, `CTA_TIMEOUT`, `CTA_MARK` and `CTA_MARK_MASK`.
const STATUS: u16 = 3;
const TIMEOUT: u16 = 7;
const MARK: u16 = 8;
const MARK_MASK: u16 = 21;
/// The bit of an entry's mark that says that it is of the crowd.
const OURS: u32 = 1 << 30;
/// So often others' entries are forgotten at most. Of those that are made meanwhile few find room.
const ROUNDS: usize = 50;
/// `IPS_CONFIRMED`, `IPS_ASSURED` and `IPS_SEEN_REPLY`.
const ANSWERED: u32 = 0b1110;
/// Longer than a lab is broken.
const SECONDS: u32 = 5 * 24 * 3600;
/// How many are sent at once. All may be refused, and each refusal takes about 1 KiB of the socket's buffer.
const AT_ONCE: u32 = 64;
/// A table of so many entries takes some 400 MB of the machine's memory.
const MOST: u32 = 1 << 20;
/// What stands in the template where each entry has its own.
const SOURCE: [u8; 4] = [198, 18, 0, 0];
const DESTINATION: Ipv4Addr = Ipv4Addr::new(198, 19, 255, 254);
const PORT: u16 = 0xa5c3;
const DESTINATION_PORT: u16 = 9;
/// Ports of one source address.
const PORTS: u32 = 1 << 15;
const FIRST_PORT: u32 = 1024;

/// Forget what `netns` tracks and fill its table. Returns with how many entries. Blocks.
///
/// # Errors
/// [`io::ErrorKind::Unsupported`] where the machine allows more than this fills; what the kernel refuses.
pub fn fill(netns: &NetNs) -> io::Result<u32> {
    let allowed = netns.run(|| sysctl::read("net/netfilter/nf_conntrack_max"))??;
    let allowed: u32 = allowed.parse().map_err(io::Error::other)?;
    if allowed > MOST {
        let why = format!("the machine allows {allowed} tracked connections, and more than {MOST} are not filled in");
        return Err(io::Error::new(io::ErrorKind::Unsupported, why));
    }
    let mut crowd = Crowd { table: Table::open(netns)?, template: Template::new(), next: 0, made: 0 };
    crowd.table.forget()?;
    while crowd.add()? == AT_ONCE {
        if crowd.made > allowed {
            return Err(io::Error::other("the kernel took more connections than it allows"));
        }
    }
    for _ in 0..ROUNDS {
        if !crowd.table.has_others()? {
            return Ok(crowd.made);
        }
        crowd.take_over(netns)?;
    }
    Err(io::Error::other("others make connections faster than they can be forgotten"))
}

/// Entries that fill a table.
struct Crowd {
    table: Table,
    template: Template,
    /// The number of the entry that is added next.
    next: u32,
    made: u32,
}

impl Crowd {
    /// Add as many as are sent at once. Returns for how many there was room.
    fn add(&mut self) -> io::Result<u32> {
        let taken = AT_ONCE - self.table.add(&self.template, self.next)?;
        if taken > 0 {
            // Which of them are there is not known.
            self.next += AT_ONCE;
        }
        self.made += taken;
        Ok(taken)
    }

    /// Forget others' entries, and take their places before somebody else does.
    fn take_over(&mut self, netns: &NetNs) -> io::Result<()> {
        let mut others = Table::open(netns)?;
        thread::scope(|scope| {
            let forgetting = scope.spawn(move || others.forget_others());
            let mut is_full = false;
            while !is_full {
                let is_over = forgetting.is_finished();
                is_full = self.add()? == 0 && is_over;
            }
            forgetting.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
        })
    }
}

/// Forget what `netns` tracks. Blocks.
///
/// # Errors
/// What the kernel refuses.
pub fn forget(netns: &NetNs) -> io::Result<()> {
    Table::open(netns)?.forget()
}

struct Table(Socket);

impl Table {
    fn open(netns: &NetNs) -> io::Result<Table> {
        netns.run(|| {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            // Without the capped form each refusal would quote the whole message.
            socket.set_cap_ack(true)?;
            Ok(Table(socket))
        })?
    }

    /// Delete every entry: a deletion without a tuple means all.
    fn forget(&mut self) -> io::Result<()> {
        self.delete(Vec::new())
    }

    /// Delete every entry without the crowd's mark.
    fn forget_others(&mut self) -> io::Result<()> {
        self.delete(others())
    }

    /// Whether there is an entry without the crowd's mark.
    fn has_others(&mut self) -> io::Result<bool> {
        self.0.send(&message(ConntrackMessage::Get(others()), NLM_F_DUMP, 2), 0)?;
        let mut buffer = vec![0; 32 * 1024];
        let mut found = false;
        loop {
            let length = receive(&self.0, &mut buffer)?;
            for bytes in split(&buffer[..length]) {
                match NetlinkMessage::<NetfilterMessage>::deserialize(bytes).map_err(io::Error::other)?.payload {
                    NetlinkPayload::InnerMessage(_) => found = true,
                    NetlinkPayload::Done(done) if done.code == 0 => return Ok(found),
                    NetlinkPayload::Done(done) => return Err(io::Error::from_raw_os_error(-done.code)),
                    NetlinkPayload::Error(e) => {
                        return Err(io::Error::from_raw_os_error(e.code.map_or(libc::EIO, |code| -code.get())));
                    }
                    _ => {}
                }
            }
        }
    }

    fn delete(&mut self, which: Vec<Attribute>) -> io::Result<()> {
        let request = message(ConntrackMessage::Delete(which), NLM_F_ACK, 1);
        match self.exchange(&request, 1)?.1 {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => Ok(()),
        }
    }

    /// Add entries from the `first` on. Returns how many the table had no room for.
    fn add(&mut self, template: &Template, first: u32) -> io::Result<u32> {
        let last = first + AT_ONCE - 1;
        let request: Vec<u8> = (first..=last).flat_map(|n| template.entry(n, n == last)).collect();
        match self.exchange(&request, last)? {
            (refused, None | Some(libc::ENOMEM)) => Ok(refused),
            (_, Some(errno)) => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// Send messages of which the last one's number is `last`, and read what is refused until that is
    /// answered. Returns how many were, and the first error.
    fn exchange(&mut self, request: &[u8], last: u32) -> io::Result<(u32, Option<i32>)> {
        self.0.send(request, 0)?;
        let mut buffer = vec![0; 32 * 1024];
        let (mut refused, mut first) = (0, None);
        loop {
            let length = receive(&self.0, &mut buffer)?;
            for bytes in split(&buffer[..length]) {
                let answer = NetlinkMessage::<NetfilterMessage>::deserialize(bytes).map_err(io::Error::other)?;
                let NetlinkPayload::Error(told) = answer.payload else { continue };
                if let Some(code) = told.code {
                    refused += 1;
                    first = first.or(Some(-code.get()));
                }
                if answer.header.sequence_number == last {
                    return Ok((refused, first));
                }
            }
        }
    }
}

/// A message that adds an entry, and where in it entries differ. Making a quarter of a million messages
/// anew would take seconds.
struct Template {
    bytes: Vec<u8>,
    addresses: Vec<usize>,
    ports: Vec<usize>,
}

impl Template {
    fn new() -> Template {
        let tuple = |source: (IpAddr, u16), destination: (IpAddr, u16)| {
            vec![
                Part::Ip(vec![IPTuple::SourceAddress(source.0), IPTuple::DestinationAddress(destination.0)]),
                Part::Proto(vec![
                    ProtoTuple::Protocol(Protocol::Udp),
                    ProtoTuple::SourcePort(source.1),
                    ProtoTuple::DestinationPort(destination.1),
                ]),
            ]
        };
        let (from, to) = ((IpAddr::from(SOURCE), PORT), (IpAddr::from(DESTINATION), DESTINATION_PORT));
        let attributes = vec![
            Attribute::CtaTupleOrig(tuple(from, to)),
            Attribute::CtaTupleReply(tuple(to, from)),
            number(STATUS, ANSWERED),
            number(TIMEOUT, SECONDS),
            number(MARK, OURS),
        ];
        let bytes = message(ConntrackMessage::New(attributes), NLM_F_CREATE, 0);
        let (addresses, ports) = (places(&bytes, &SOURCE), places(&bytes, &PORT.to_be_bytes()));
        Template { bytes, addresses, ports }
    }

    /// The message of the entry with this number; the last one of a batch is acknowledged.
    fn entry(&self, n: u32, last: bool) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let source = (u32::from_be_bytes(SOURCE) + n / PORTS).to_be_bytes();
        let port = u16::try_from(FIRST_PORT + n % PORTS).unwrap_or_default().to_be_bytes();
        self.addresses.iter().for_each(|at| bytes[*at..at + 4].copy_from_slice(&source));
        self.ports.iter().for_each(|at| bytes[*at..at + 2].copy_from_slice(&port));
        // nlmsghdr: flags at 6, the number at 8.
        if last {
            bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK).to_ne_bytes());
        }
        bytes[8..12].copy_from_slice(&n.to_ne_bytes());
        bytes
    }
}

/// What all entries without the crowd's mark have, as a filter of dumps and deletions.
fn others() -> Vec<Attribute> {
    vec![number(MARK, 0), number(MARK_MASK, OURS)]
}

fn number(kind: u16, value: u32) -> Attribute {
    Attribute::Other(DefaultNla::new(kind, value.to_be_bytes().to_vec()))
}

/// Where a part begins in a message.
fn places(bytes: &[u8], part: &[u8]) -> Vec<usize> {
    bytes.windows(part.len()).enumerate().filter(|(_, w)| *w == part).map(|(at, _)| at).collect()
}

fn message(inner: ConntrackMessage, flags: u16, number: u32) -> Vec<u8> {
    let header = NetfilterHeader::new(NetfilterProtoFamily::IPv4, 0, 0);
    let mut netlink = NetlinkHeader::default();
    netlink.flags = NLM_F_REQUEST | flags;
    netlink.sequence_number = number;
    let mut message = NetlinkMessage::new(netlink, NetlinkPayload::from(NetfilterMessage::new(header, inner)));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len().next_multiple_of(4)];
    message.serialize(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_differs_from_the_next_in_both_directions_and_nowhere_else() {
        let template = Template::new();
        assert_eq!((template.addresses.len(), template.ports.len()), (2, 2));
        let (a, b) = (template.entry(0, false), template.entry(PORTS + 1, false));
        let differing = a.iter().zip(&b).filter(|(a, b)| a != b).count();
        // The last byte of two addresses and of two ports, and the message's number.
        assert!((4..=8).contains(&differing), "{differing}");
        assert_eq!(places(&b, &[198, 18, 0, 1]).len(), 2);
    }
}
