//! Connection tracking of one namespace, over ctnetlink (linux/netfilter/nfnetlink_conntrack.h):
//! reading its entries, which UDP flows there are, and forgetting some of them. Which ones must go is
//! decided by whoever knows the services; TCP and SCTP end their flows themselves and are never touched.
//! Being told of new entries is `kernel::record`'s.
//!
//! A table may hold a million entries. So flows are handed over one by one, as the kernel gives
//! them in pieces of at most 32 KiB, and nothing here grows with the table.

use std::io;
use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, Nla,
};
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute as Attribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol, Tuple as Part,
};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};
use netlink_sys::{Socket, SocketAddr as Port, protocols::NETLINK_NETFILTER};

use super::ns::NetNs;
use super::rtnl::{receive, split};

/// `CTA_TUPLE_ZONE`, in a tuple: the zone of this direction alone.
const TUPLE_ZONE: u16 = 3;
/// `CTA_PROTO_ICMP_ID`, in a tuple: what ICMP has in the place of ports.
const ICMP_ID: u16 = 4;
/// `CTA_ID`: the entry's number.
const ID: u16 = 12;
/// `CTA_ZONE`: the zone of both directions.
const ZONE: u16 = 18;
/// The largest piece in which the kernel gives a table (`netlink_recvmsg`).
const PIECE: usize = 32 * 1024;
/// How many entries are deleted by one send. All of them may be refused, and each refusal takes
/// about 1 KiB of the socket's receive buffer, 208 KiB by default.
const AT_ONCE: usize = 64;

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

/// A UDP flow, as the table has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// As its first packet was sent.
    pub original: Tuple,
    /// As answers come, before they are translated back.
    pub reply: Tuple,
    /// The entry's number, as `conntrack -o id` shows it. Two entries with the same tuples, one
    /// after the other, have different ones, unless the second lies where the first did in the
    /// kernel's memory (`nf_ct_get_id`).
    pub id: Option<u32>,
    /// Of the original direction; none is zone 0.
    pub zone: Option<u16>,
}

/// An entry of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tracked {
    /// The IP protocol's number.
    pub protocol: u8,
    /// As its first packet was sent. For ICMP both ports are the identifier.
    pub original: Tuple,
    /// As answers come, before they are translated back.
    pub reply: Tuple,
    /// As of [`Flow::id`].
    pub id: Option<u32>,
    /// As of [`Flow::zone`].
    pub zone: Option<u16>,
    /// `IPS_SEEN_REPLY` and the like (linux/netfilter/nf_conntrack_common.h); 0 where it is not told.
    pub status: u32,
}

impl Flow {
    /// Where the client sends its packets: for a service, one of the service's addresses.
    pub fn destination(&self) -> SocketAddr {
        self.original.destination
    }

    /// Who answers: for a service, the endpoint that the flow was given. The same as
    /// [`Flow::destination`] where no rule translated it.
    pub fn answers_from(&self) -> SocketAddr {
        self.reply.source
    }
}

/// Call `each` with every UDP flow of `netns`, of both address families. A flow may come twice
/// where the table changes meanwhile. Blocks until the table has been read.
///
/// Errors: [`io::ErrorKind::Unsupported`] where the kernel has no ctnetlink, and
/// [`io::ErrorKind::PermissionDenied`] without `CAP_NET_ADMIN` over the namespace.
pub fn for_each_udp(netns: &NetNs, mut each: impl FnMut(Flow)) -> io::Result<()> {
    Table::open(netns)?.each_udp(|flow| {
        each(flow);
        Ok(())
    })
}

/// Delete the entries of these flows. Returns how many there were: one that has gone meanwhile is
/// not counted and no error. A new entry with the same tuples has mostly another number and stays;
/// where it does not, its next packet is only led by the rules once more. The first other refusal
/// is returned. Blocks; errors as of [`for_each_udp`].
pub fn delete(netns: &NetNs, flows: &[Flow]) -> io::Result<usize> {
    let mut table = Table::open(netns)?;
    flows.chunks(AT_ONCE).try_fold(0, |gone, some| Ok(gone + table.delete(some)?))
}

/// Delete every UDP flow of `netns` that is stale, while the table is being read, so that this
/// takes no more memory for a million of them than for one. Returns how many went. Blocks; errors
/// as of [`for_each_udp`].
pub fn forget_udp(netns: &NetNs, mut is_stale: impl FnMut(&Flow) -> bool) -> io::Result<usize> {
    // A socket of its own: the one that reads is in the middle of an answer.
    let mut deleting = Table::open(netns)?;
    let mut doomed = Vec::with_capacity(AT_ONCE);
    let mut gone = 0;
    Table::open(netns)?.each_udp(|flow| {
        if is_stale(&flow) {
            doomed.push(flow);
        }
        if doomed.len() == AT_ONCE {
            gone += deleting.delete(&doomed)?;
            doomed.clear();
        }
        Ok(())
    })?;
    Ok(gone + deleting.delete(&doomed)?)
}

/// A socket to one namespace's table.
struct Table {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Table {
    fn open(netns: &NetNs) -> io::Result<Table> {
        let socket = netns.run(|| {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            socket.connect(&Port::new(0, 0))?;
            // Without the capped form each refusal would quote the whole message.
            socket.set_cap_ack(true)?;
            Ok::<_, io::Error>(socket)
        })??;
        Ok(Table { socket, sequence: 0, buffer: vec![0; PIECE] })
    }

    fn each_udp(&mut self, mut each: impl FnMut(Flow) -> io::Result<()>) -> io::Result<()> {
        let mut request = Vec::new();
        let everything = message(NetfilterProtoFamily::Unspec, ConntrackMessage::Get(Vec::new()));
        self.append(&mut request, everything, NLM_F_DUMP);
        self.socket.send(&request, 0)?;
        loop {
            let length = receive(&self.socket, &mut self.buffer)?;
            for bytes in split(&self.buffer[..length]) {
                match NetlinkMessage::<NetfilterMessage>::deserialize(bytes).map_err(io::Error::other)?.payload {
                    NetlinkPayload::InnerMessage(entry) => flow(entry).map_or(Ok(()), &mut each)?,
                    NetlinkPayload::Done(done) if done.code == 0 => return Ok(()),
                    NetlinkPayload::Done(done) => return Err(unreadable(-done.code)),
                    NetlinkPayload::Error(e) => return Err(unreadable(e.code.map_or(0, |code| -code.get()))),
                    _ => {}
                }
            }
        }
    }

    /// Delete at most [`AT_ONCE`] flows.
    fn delete(&mut self, flows: &[Flow]) -> io::Result<usize> {
        let mut request = Vec::new();
        for (i, flow) in flows.iter().enumerate() {
            // Refusals come anyway, and the last one's acknowledgement tells that all were looked at.
            let ack = if i + 1 == flows.len() { NLM_F_ACK } else { 0 };
            self.append(&mut request, deletion(flow), ack);
        }
        if flows.is_empty() {
            return Ok(0);
        }
        self.socket.send(&request, 0)?;
        let mut missing = 0;
        let mut refused = None;
        loop {
            let length = receive(&self.socket, &mut self.buffer)?;
            for bytes in split(&self.buffer[..length]) {
                let answer = NetlinkMessage::<NetfilterMessage>::deserialize(bytes).map_err(io::Error::other)?;
                let NetlinkPayload::Error(told) = answer.payload else { continue };
                match told.code.map(|code| -code.get()) {
                    None => {}
                    Some(libc::ENOENT) => missing += 1,
                    Some(errno) => refused = refused.or(Some(errno)),
                }
                if answer.header.sequence_number == self.sequence {
                    return refused.map_or(Ok(flows.len() - missing), |e| Err(io::Error::from_raw_os_error(e)));
                }
            }
        }
    }

    fn append(&mut self, request: &mut Vec<u8>, message: NetfilterMessage, flags: u16) {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let start = request.len();
        request.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut request[start..]);
    }
}

/// A dump is refused as invalid where nobody in the kernel answers for ctnetlink
/// (`nfnetlink_rcv_msg`); there is nothing else in it that could be.
fn unreadable(errno: i32) -> io::Error {
    match errno {
        libc::EINVAL | libc::EOPNOTSUPP => {
            let why = "the kernel cannot list tracked connections (CONFIG_NF_CT_NETLINK)";
            io::Error::new(io::ErrorKind::Unsupported, why)
        }
        errno => io::Error::from_raw_os_error(errno),
    }
}

fn message(family: NetfilterProtoFamily, inner: ConntrackMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), inner)
}

/// The message that deletes a flow. It always has a tuple: without one the kernel empties the table.
fn deletion(flow: &Flow) -> NetfilterMessage {
    let Tuple { source, destination } = flow.original;
    let addresses = vec![IPTuple::SourceAddress(source.ip()), IPTuple::DestinationAddress(destination.ip())];
    let ports = vec![
        ProtoTuple::Protocol(Protocol::Udp),
        ProtoTuple::SourcePort(source.port()),
        ProtoTuple::DestinationPort(destination.port()),
    ];
    let mut attributes = vec![Attribute::CtaTupleOrig(vec![Part::Ip(addresses), Part::Proto(ports)])];
    let plain = |kind, value: &[u8]| Attribute::Other(DefaultNla::new(kind, value.to_vec()));
    attributes.extend(flow.id.map(|id| plain(ID, &id.to_be_bytes())));
    attributes.extend(flow.zone.map(|zone| plain(ZONE, &zone.to_be_bytes())));
    let family = if source.is_ipv4() { NetfilterProtoFamily::IPv4 } else { NetfilterProtoFamily::IPv6 };
    message(family, ConntrackMessage::Delete(attributes))
}

/// An entry of the table, where it is UDP's.
fn flow(message: NetfilterMessage) -> Option<Flow> {
    let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = message.inner else { return None };
    let Tracked { protocol, original, reply, id, zone, .. } = tracked(&attributes)?;
    (protocol == u8::from(Protocol::Udp)).then_some(Flow { original, reply, id, zone })
}

/// Read an entry; nothing where it is of a protocol without ports that is not ICMP.
pub(super) fn tracked(attributes: &[Attribute]) -> Option<Tracked> {
    let (mut original, mut reply, mut id, mut zone, mut status) = (None, None, None, None, 0);
    for attribute in attributes {
        match attribute {
            Attribute::CtaTupleOrig(parts) => {
                original = Some(tuple(parts)?);
                zone = zone.or(zone_of(parts));
            }
            Attribute::CtaTupleReply(parts) => reply = Some(tuple(parts)?),
            Attribute::CtaStatus(bits) => status = bits.bits(),
            Attribute::Other(other) if other.kind() == ID => id = value(other).map(u32::from_be_bytes),
            Attribute::Other(other) if other.kind() == ZONE => zone = value(other).map(u16::from_be_bytes),
            _ => {}
        }
    }
    let ((protocol, original), (_, reply)) = (original?, reply?);
    Some(Tracked { protocol: protocol.into(), original, reply, id, zone, status })
}

/// A tuple's protocol, addresses and ports.
fn tuple(parts: &[Part]) -> Option<(Protocol, Tuple)> {
    let (mut source, mut destination): (Option<IpAddr>, Option<IpAddr>) = (None, None);
    let (mut from, mut to, mut protocol) = (None, None, None);
    for part in parts {
        match part {
            Part::Ip(addresses) => addresses.iter().for_each(|address| match address {
                IPTuple::SourceAddress(ip) => source = Some(*ip),
                IPTuple::DestinationAddress(ip) => destination = Some(*ip),
                _ => {}
            }),
            Part::Proto(numbers) => numbers.iter().for_each(|number| match number {
                ProtoTuple::Protocol(number) => protocol = Some(*number),
                ProtoTuple::SourcePort(port) => from = Some(*port),
                ProtoTuple::DestinationPort(port) => to = Some(*port),
                ProtoTuple::Other(other) if other.kind() == ICMP_ID => {
                    from = value(other).map(u16::from_be_bytes);
                    to = from;
                }
                _ => {}
            }),
            _ => {}
        }
    }
    let (source, destination) = (SocketAddr::new(source?, from?), SocketAddr::new(destination?, to?));
    Some((protocol?, Tuple { source, destination }))
}

fn zone_of(parts: &[Part]) -> Option<u16> {
    parts.iter().find_map(|part| match part {
        Part::Other(other) if other.kind() == TUPLE_ZONE => value(other).map(u16::from_be_bytes),
        _ => None,
    })
}

fn value<const N: usize>(attribute: &DefaultNla) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if attribute.value_len() != N {
        return None;
    }
    attribute.emit_value(&mut bytes);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_ctnetlink_is_told_from_one_that_forbids_it() {
        assert_eq!(unreadable(libc::EINVAL).kind(), io::ErrorKind::Unsupported);
        assert_eq!(unreadable(libc::EPERM).kind(), io::ErrorKind::PermissionDenied);
    }
}
