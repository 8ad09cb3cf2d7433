//! Programs that a question has reached and that did not answer it: what the kernel took for them and they have not
//! read, and ports on which they do not listen. Sockets that were read afterwards say so.

use std::net::{IpAddr, SocketAddr};

use crate::kernel::sockets::{Owner, Socket};
use crate::lab::names::NsName;
use crate::lab::{Lab, Run};
use crate::spec::probe::FailureName;
use crate::spec::value;

use super::model::{Cause, Direction, Fate, Flow, Header, Packet, Protocol, Remedy, Role};
use super::verdict::Case;
use super::walk::Blame;

/// What a program was given and has not answered.
struct Reached<'c> {
    place: &'c NsName,
    packet: &'c Packet,
    /// Its header where it arrived.
    header: &'c Header,
    /// Nothing where they were not read.
    sockets: Option<&'c [Socket]>,
}

/// The program that the question reached and that says nothing, or does not listen.
pub fn blame(case: &Case) -> Option<Blame> {
    let flow = last(case)?;
    refused(case, flow).or_else(|| silent(case, flow))
}

/// What would mend a program that is silent, or deaf.
pub fn remedy(case: &Case, blame: &Blame) -> Option<Remedy> {
    let (place, flow) = (&blame.place, last(case)?);
    let say = |says: String| Some(Remedy { says, command: None });
    if blame.cause == Cause::NoListener {
        let own = Reached::first_of(case, flow)?.deaf()?;
        return say(format!("let the program on {place} listen on 0.0.0.0 in place of {}", own.local.ip()));
    }
    // Only of a pod with one program it is known in which room that is.
    let is_alone = programs(case.material.lab, place) == 1;
    match Reached::last_of(case, flow)?.owner().filter(|owner| owner.stopped) {
        Some(Owner { pid, name, .. }) => Some(Remedy {
            says: format!("let {name} (process {pid}) go on, and whatever else of it is stopped"),
            // To all that run in the room of the pod's program.
            command: is_alone.then(|| format!("labctl exec {place} -- sh -c 'kill -CONT -1'")),
        }),
        None if is_alone => {
            say(format!("see what the program does with `labctl logs {place}`, and mend or restart it"))
        }
        None => say("see what the program does, and mend or restart it".to_owned()),
    }
}

/// How many programs a pod runs.
fn programs(lab: &Lab, place: &NsName) -> usize {
    let NsName::Pod(id) = place else { return 0 };
    let containers = lab.pod(id).map(|pod| pod.containers.as_slice()).unwrap_or_default();
    containers.iter().filter(|container| container.run != Run::Echo).count()
}

/// What its socket says of a program that is silent.
pub fn words(case: &Case) -> Option<String> {
    let reached = Reached::last_of(case, last(case)?)?;
    let Reached { place, packet, .. } = reached;
    let socket = reached.waiting()?;
    let what = match socket.inode {
        0 => "a connection that no program has accepted".to_owned(),
        _ if socket.protocol == value::Protocol::Udp => "datagrams that no program has read".to_owned(),
        _ => format!("{} bytes that no program has read", socket.waiting),
    };
    let end = SocketAddr::new(reached.header.destination, reached.header.destination_port);
    Some(format!("{place}: the {} has arrived, and the socket {end} has {what}", packet.kind))
}

/// The flow on which the end hangs.
fn last<'c>(case: &Case<'c>) -> Option<&'c Flow> {
    let last = |role: Role| case.flows.iter().rfind(|f| f.role == role);
    match case.outcome.details.failure {
        Some(FailureName::Name) => last(Role::NameLookup),
        _ => last(Role::Proxied).or_else(|| last(Role::Request)),
    }
}

/// Nothing listens on the port: the connection was answered with a reset.
fn refused(case: &Case, flow: &Flow) -> Option<Blame> {
    let answer = flow.packets.iter().find(|p| p.direction == Direction::Back)?;
    if !answer.kind.starts_with("RST") {
        return None;
    }
    let reached = Reached::first_of(case, flow)?;
    let Header { destination_port: port, protocol, .. } = reached.header;
    let object = format!("port {port}/{protocol}");
    let listens = match (reached.deaf(), reached.listener(), &reached.listening()[..]) {
        (Some(own), ..) => format!(": {} listens on {} alone", named(own.owner.as_ref()), own.local),
        (None, Some(late), _) => format!(" when it was asked; by now {} does", named(late.owner.as_ref())),
        (None, None, []) => ", and on no other one".to_owned(),
        (None, None, others) => format!(", only on {}", others.join(", ")),
    };
    let listens = if reached.sockets.is_none() { String::new() } else { listens };
    let says = format!("nothing in {} listens on {object}{listens}", reached.place);
    Some(Blame { cause: Cause::NoListener, place: reached.place.clone(), object, says })
}

/// The kernel took what was sent, and nothing came back.
fn silent(case: &Case, flow: &Flow) -> Option<Blame> {
    if !matches!(case.outcome.details.failure?, FailureName::Timeout | FailureName::Name) && flow.role != Role::Proxied
    {
        return None;
    }
    let reached = Reached::last_of(case, flow).filter(|_| flow.protocol != Protocol::Icmp)?;
    if is_answered(flow, reached.packet) {
        return None;
    }
    let place = reached.place.clone();
    let Header { destination_port: port, protocol, .. } = reached.header;
    let port = format!("port {port}/{protocol}");
    let owner = reached.owner();
    let name = named(owner);
    let stopped = if owner.is_some_and(|owner| owner.stopped) { ": it is stopped" } else { "" };
    let says = match reached.waiting() {
        Some(socket) if socket.inode == 0 => {
            format!("the kernel took the connection on {port}, and {name} has not accepted it{stopped}")
        }
        Some(Socket { protocol: value::Protocol::Udp, .. }) => {
            format!("the kernel took datagrams on {port}, and {name} has not read them{stopped}")
        }
        Some(socket) => {
            format!("the kernel took {} bytes on {port}, and {name} has not read them{stopped}", socket.waiting)
        }
        None => format!("{name} took the {} on {port}, and does not answer{stopped}", reached.packet.kind),
    };
    let is_dns = case.material.planned.get(&place).is_some_and(|ns| ns.dns.is_some());
    let (cause, object) = match is_dns {
        true => (Cause::DnsDead, "coredns".to_owned()),
        false => (Cause::ProgramSilent, owner.map_or(port, |o| format!("{} (process {})", o.name, o.pid))),
    };
    Some(Blame { cause, place, object, says })
}

fn named(owner: Option<&Owner>) -> String {
    owner.map_or_else(|| "the program".to_owned(), |owner| owner.name.clone())
}

/// Whether the one who took a packet said anything to it, were it that it wants to hear no more. Behind the asker's own
/// end of the connection only data are an answer, which came too late.
fn is_answered(flow: &Flow, packet: &Packet) -> bool {
    let ends = |p: &&Packet| p.direction == Direction::There && ["FIN", "RST"].iter().any(|k| p.kind.starts_with(k));
    let end = flow.packets.iter().find(ends).map_or(u32::MAX, |p| p.number);
    let mut back = flow.packets.iter().filter(|p| p.direction == Direction::Back && p.number >= packet.number);
    back.any(|p| match p.kind.as_str() {
        "ACK" | "SYN-ACK" => false,
        kind => p.about.is_none() && (p.number < end || kind.starts_with("data")),
    })
}

impl<'c> Reached<'c> {
    /// The last packet of a flow with something in it, or the first one where none has.
    fn last_of(case: &Case<'c>, flow: &'c Flow) -> Option<Reached<'c>> {
        let there = || flow.packets.iter().filter(|p| p.direction == Direction::There && !p.is_copy());
        // A connection without data was to be made, and was.
        let has_data = |p: &&Packet| flow.protocol != Protocol::Tcp || p.kind.starts_with("data");
        Reached::of(case, there().rfind(has_data)?)
    }

    fn first_of(case: &Case<'c>, flow: &'c Flow) -> Option<Reached<'c>> {
        Reached::of(case, flow.packets.iter().find(|p| p.direction == Direction::There)?)
    }

    fn of(case: &Case<'c>, packet: &'c Packet) -> Option<Reached<'c>> {
        let Fate::Delivered { to: place } = &packet.fate else { return None };
        let header = packet.steps.iter().rev().find(|s| s.layer == 0 && s.header.is_some())?.header.as_ref()?;
        let sockets = case.material.sockets.iter().find(|(at, _)| at == place);
        Some(Reached { place, packet, header, sockets: sockets.map(|(_, all)| all.as_slice()) })
    }

    fn of_protocol(&self) -> impl Iterator<Item = &'c Socket> {
        let wanted = self.header.protocol;
        self.sockets.unwrap_or_default().iter().filter(move |s| {
            matches!(
                (s.protocol, wanted),
                (value::Protocol::Tcp, Protocol::Tcp) | (value::Protocol::Udp, Protocol::Udp)
            )
        })
    }

    /// The socket of the packet's connection, or the one that takes datagrams to its port.
    fn socket(&self) -> Option<&'c Socket> {
        let (local, remote) = (self.header.destination, self.header.source);
        let local = SocketAddr::new(local, self.header.destination_port);
        let remote = SocketAddr::new(remote, self.header.source_port);
        self.of_protocol().find(|s| !s.listens && s.local == local && s.remote == remote).or_else(|| {
            let takes = |s: &&Socket| s.local.port() == local.port() && is_at(s, local.ip()) && s.remote.port() == 0;
            self.of_protocol().filter(|s| !s.listens).find(takes)
        })
    }

    /// The socket where something waits for the program.
    fn waiting(&self) -> Option<&'c Socket> {
        self.socket().filter(|s| s.waiting > 0 || s.inode == 0)
    }

    /// Whose the port is.
    fn owner(&self) -> Option<&'c Owner> {
        self.socket().and_then(|s| s.owner.as_ref()).or_else(|| self.listener()?.owner.as_ref())
    }

    /// The socket that takes connections to the port, from wherever.
    fn listener(&self) -> Option<&'c Socket> {
        let port = self.header.destination_port;
        self.of_protocol().find(|s| s.listens && s.local.port() == port)
    }

    /// A socket that takes connections to the port, and only from the machine itself or over IPv6.
    fn deaf(&self) -> Option<&'c Socket> {
        self.listener().filter(|s| s.local.ip().is_loopback() || s.local.is_ipv6())
    }

    /// Where else connections are taken.
    fn listening(&self) -> Vec<String> {
        self.of_protocol().filter(|s| s.listens).map(|s| s.local.to_string()).collect()
    }
}

fn is_at(socket: &Socket, ip: IpAddr) -> bool {
    socket.local.ip().is_unspecified() || socket.local.ip() == ip
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::sample::{flow, packet};

    fn told(packets: &[(u32, Direction, &str)]) -> bool {
        let sent = |(number, direction, kind): &(u32, Direction, &str)| Packet {
            number: *number,
            direction: *direction,
            kind: (*kind).to_owned(),
            ..packet(Vec::new())
        };
        let flow = flow(Role::Request, packets.iter().map(sent).collect());
        is_answered(&flow, &flow.packets[0])
    }

    #[test]
    fn a_programs_answer_is_what_it_says_and_not_what_the_kernel_does_for_it() {
        use Direction::{Back, There};
        let asked = (4, There, "data, 78 bytes");
        assert!(told(&[asked, (5, Back, "data, 9 bytes")]) && told(&[asked, (5, Back, "FIN")]));
        assert!(!told(&[asked, (5, Back, "ACK")]));
        assert!(!told(&[asked, (5, There, "FIN"), (6, Back, "RST")]), "the asker had given up");
        assert!(told(&[asked, (5, There, "FIN"), (6, Back, "data, 9 bytes")]), "it came too late");
    }
}
