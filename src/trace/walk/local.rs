//! The end of the way: who takes a packet that is for the namespace itself.

use crate::lab::names::IfName;
use crate::plan::NsPlan;
use crate::plan::proxy::chain::NODEPORTS;
use crate::spec::value;
use crate::trace::model::{Cause, Fate, Header, Protocol, Ruleset, What};
use crate::workload::dns;

use super::Blame;
use super::netfilter;
use super::packet::{Kind, Packet, Trouble};
use super::walker::{At, End, Go, Stage, Told, Walker};

/// Who has a socket for a packet.
enum Taker {
    Known(String),
    /// A program of which nobody knows where it listens.
    Perhaps(String),
    Nobody,
}

impl<'s, 'a> Walker<'s, 'a, '_> {
    pub fn local(&mut self, at: At<'s, 'a>, dev: &IfName) -> Go<Stage<'s, 'a>> {
        self.hooks(at, netfilter::INPUT, (Some(dev), None))?;
        if let Some(load) = self.packet.load.clone() {
            return self.take_out(at, *load);
        }
        let answer = match self.packet.kind {
            Kind::EchoRequest => Some(Kind::EchoReply),
            Kind::Syn => Some(Kind::SynAck),
            Kind::Datagram | Kind::Segment => Some(self.packet.kind.clone()),
            Kind::EchoReply | Kind::SynAck | Kind::Reset | Kind::Error(_) => None,
        };
        let (Some(answer), false) = (answer, self.is_answer) else {
            return self.delivered(at, "the one who asked", None);
        };
        if self.packet.header.protocol == Protocol::Icmp {
            return self.delivered(at, "the kernel", Some(answer));
        }
        match taker(at, &self.packet.header) {
            Taker::Known(who) => self.delivered(at, &who, Some(answer)),
            Taker::Perhaps(who) => {
                let port = self.packet.header.destination_port;
                let note =
                    format!("whether {who} of {} listens on port {port} is not known; it is taken to", at.name());
                self.notes.push(note);
                self.delivered(at, &who, Some(answer))
            }
            Taker::Nobody => self.nobody_listens(at),
        }
    }

    fn delivered<T>(&mut self, at: At<'s, 'a>, to: &str, answer: Option<Kind>) -> Go<T> {
        let what = What::Delivered { to: to.to_owned() };
        self.step(at, None, what, format!("{} has it, and {to} takes it", at.name()));
        let told = answer.map(|kind| Told::Packet(Packet::answer(&self.packet, kind)));
        let place = at.name().clone();
        Err(Box::new(End { fate: Fate::Delivered { to: place.clone() }, place, blame: None, told }))
    }

    fn nobody_listens<T>(&mut self, at: At<'s, 'a>) -> Go<T> {
        let Header { destination_port, protocol, .. } = self.packet.header;
        let (with, told) = match protocol {
            Protocol::Tcp => ("RST", Packet::answer(&self.packet, Kind::Reset)),
            _ => {
                let mut error = Packet::error(Trouble::Port, &self.packet);
                // Of its own addresses it takes the one that was asked (`icmp_send`).
                error.header.source = self.packet.header.destination;
                ("port unreachable", error)
            }
        };
        let says = format!(
            "nothing in {} listens on port {destination_port}/{protocol}: it is answered with {with}",
            at.name()
        );
        self.step(at, None, What::Refused { with: with.to_owned() }, says.clone());
        let place = at.name().clone();
        let object = format!("port {destination_port}/{protocol}");
        let dns = destination_port == 53 && self.state.wanted(at.name()).is_some_and(|ns| ns.dns.is_some());
        let (cause, object) = if dns { (Cause::DnsDead, "coredns".to_owned()) } else { (Cause::NoListener, object) };
        let blame = Some(Blame { cause, place: place.clone(), object, says });
        Err(Box::new(End { fate: Fate::Refused, place, blame, told: Some(Told::Packet(told)) }))
    }
}

fn taker(at: At, header: &Header) -> Taker {
    let (ns, port): (&NsPlan, u16) = (at.plan, header.destination_port);
    let fits = |p: value::Protocol| match p {
        value::Protocol::Tcp => header.protocol == Protocol::Tcp,
        value::Protocol::Udp => header.protocol == Protocol::Udp,
    };
    if ns.listeners.iter().any(|l| l.port == port && fits(l.protocol)) {
        return Taker::Known("the echo server".to_owned());
    }
    let dns = dns::Config::default();
    let of_dns = [Some(dns.port), dns.health, dns.ready, dns.metrics];
    let only_tcp = port != dns.port && header.protocol != Protocol::Tcp;
    if ns.dns.is_some() && of_dns.contains(&Some(port)) && !only_tcp {
        return Taker::Known("coredns".to_owned());
    }
    // kube-proxy lets in what asks for its health checks, and answers it.
    let checks = at.chain(Ruleset::Iptables, "filter", NODEPORTS).map(|(_, rules)| rules).unwrap_or_default();
    if checks.iter().any(|r| r.option("--dport") == Some(&port.to_string()) && r.target() == Some("ACCEPT")) {
        return Taker::Known("kube-proxy's health check".to_owned());
    }
    match ns.programs.first() {
        Some(program) => Taker::Perhaps(format!("the program {}", program.name)),
        None => Taker::Nobody,
    }
}
