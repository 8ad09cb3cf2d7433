//! The machine that a walk is: where the packet is, what comes next, and how it ended. What happens
//! at each place is in the files beside this one, one for each mechanism.

use std::net::IpAddr;

use crate::lab::names::{IfName, NsName};
use crate::plan::deviation::Deviation;
use crate::trace::model::{Cause, Drop, Fate, Protocol, Routed, Step, What};

use super::choices::Chooser;
use super::conntrack::Tracking;
use super::packet::{Hop, Packet, Trouble};
use super::routing::{Entry, Found, Key, hop_words};
use super::state::{Place, State};
use super::{A_PROGRAM, ANSWERER, Blame};

/// More steps than any lab has hops; a bridge that leads into itself would go on for ever.
const MOST_STAGES: usize = 1_000;

/// What comes next for the packet.
pub(super) enum Stage<'s, 'a> {
    /// The namespace sends it itself.
    Output(At<'s, 'a>),
    /// The device of the namespace is given it from outside.
    Arrive(At<'s, 'a>, &'a IfName),
    /// It is up to IP; `passed` says whether PREROUTING has been passed on a bridge.
    Receive { at: At<'s, 'a>, dev: IfName, passed: bool },
    /// It is for the namespace itself.
    Local(At<'s, 'a>, IfName),
    /// It leaves to a next hop; POSTROUTING comes first.
    Leave(At<'s, 'a>, Hop),
}

pub(super) type At<'s, 'a> = &'s Place<'a>;

/// How it ended.
#[derive(Debug)]
pub(super) struct End {
    pub fate: Fate,
    pub place: NsName,
    pub blame: Option<Blame>,
    pub told: Option<Told>,
}

/// What the sender is told.
#[derive(Debug)]
pub(super) enum Told {
    /// By an answer, or by an error in its place.
    Packet(Packet),
    /// By its own kernel, when it sends.
    AtOnce(Trouble),
    /// By its own kernel, whose rules drop it.
    NotPermitted,
}

pub(super) type Go<T> = Result<T, Box<End>>;

/// A walk under way.
pub(super) struct Walker<'s, 'a, 'w> {
    pub state: &'s State<'a>,
    pub from: At<'s, 'a>,
    pub packet: Packet,
    /// Whether it answers another one, so that a socket waits for it.
    pub is_answer: bool,
    pub steps: Vec<Step>,
    pub chooser: &'w mut Chooser,
    pub tracking: &'w mut Tracking,
    /// What is not as it should be, in the order in which it was met.
    pub suspects: Vec<Blame>,
    pub notes: Vec<String>,
}

impl<'s, 'a> Walker<'s, 'a, '_> {
    pub fn run(&mut self) -> End {
        let mut stage = Stage::Output(self.from);
        for _ in 0..MOST_STAGES {
            let next = match stage {
                Stage::Output(at) => self.output(at),
                Stage::Arrive(at, dev) => self.arrive(at, dev),
                Stage::Receive { at, dev, passed } => self.receive(at, dev, passed),
                Stage::Local(at, dev) => self.local(at, &dev),
                Stage::Leave(at, hop) => self.leave(at, hop),
            };
            stage = match next {
                Ok(next) => next,
                Err(end) => return *end,
            };
        }
        End { fate: Fate::Lost, place: self.from.name().clone(), blame: None, told: None }
    }

    /// A step at a place.
    pub fn step(&mut self, at: At<'s, 'a>, dev: Option<&IfName>, what: What, says: String) {
        self.steps.push(Step {
            at: None,
            place: at.name().clone(),
            host: at.host.clone(),
            dev: dev.cloned(),
            layer: self.packet.layer(),
            what,
            header: Some(self.packet.header.clone()),
            known_by: vec![self.state.means],
            says,
        });
    }

    /// The packet ends here; `trouble` is what its sender is told.
    pub fn dropped<T>(&mut self, at: At<'s, 'a>, dev: Option<&IfName>, why: Why) -> Go<T> {
        let Why { cause, by, says, trouble } = why;
        let drop = Drop { cause, by: by.clone(), reason: None };
        self.step(at, dev, What::Dropped(drop), says.clone());
        let place = at.name().clone();
        let own = std::ptr::eq(at, self.from) && !self.packet.is_load_or_error();
        let told = match trouble {
            Some(trouble) if own => Some(Told::AtOnce(trouble)),
            trouble => {
                let trouble = trouble.filter(|_| self.packet.may_be_told_of());
                trouble.map(|t| Told::Packet(Packet::error(t, &self.packet)))
            }
        };
        let blame = Some(Blame { cause, place: place.clone(), object: by, says });
        Err(Box::new(End { fate: Fate::Dropped, place, blame, told }))
    }

    fn output(&mut self, at: At<'s, 'a>) -> Go<Stage<'s, 'a>> {
        let first = self.steps.len();
        let hop = self.route_out(at);
        self.sent(at, first);
        let hop = hop?;
        let out = hop.as_ref().map_or_else(lo, |hop| hop.dev.clone());
        let before = (self.packet.header.destination, self.packet.mark);
        let passed = self.track(at).and_then(|()| self.hooks(at, super::netfilter::OUTPUT, (None, Some(&out))));
        self.told_at_once(at, passed)?;
        // A rule may have led it elsewhere (`ip_route_me_harder`).
        let hop = if (self.packet.header.destination, self.packet.mark) == before { hop } else { self.route_out(at)? };
        self.check_local_size(at, hop.as_ref())?;
        match hop {
            Some(hop) => Ok(Stage::Leave(at, hop)),
            None => self.send_to_itself(at),
        }
    }

    /// What a sender's own rules drop in silence fails as it is sent (`nf_hook_slow` gives `EPERM`); TCP alone
    /// tries again and tells nobody.
    fn told_at_once(&self, at: At<'s, 'a>, passed: Go<()>) -> Go<()> {
        let has_left = || self.steps.iter().any(|s| matches!(s.what, What::In | What::Out));
        let is_sent = std::ptr::eq(at, self.from) && !self.is_answer && !self.packet.is_load_or_error() && !has_left();
        passed.map_err(|mut end| {
            let silent = end.fate == Fate::Dropped && end.told.is_none();
            if silent && is_sent && self.packet.header.protocol != Protocol::Tcp {
                end.told = Some(Told::NotPermitted);
            }
            end
        })
    }

    /// The packet is born before it is routed, though its source follows from that.
    fn sent(&mut self, at: At<'s, 'a>, first: usize) {
        let (by, says) = match (&self.packet.load, self.is_answer) {
            (Some(load), _) if load.is_frame() => ("the kernel", "the kernel sends the outer packet".to_owned()),
            (Some(_), _) => ("flanneld", "flanneld sends the outer packet".to_owned()),
            (None, true) => (ANSWERER, format!("{} answers: {}", at.name(), self.packet.words())),
            (None, false) => (A_PROGRAM, format!("a program of {} sends it: {}", at.name(), self.packet.words())),
        };
        let routed = self.steps.split_off(first);
        self.step(at, None, What::Sent { by: by.to_owned() }, says);
        self.steps.extend(routed);
    }

    /// What a namespace sends to itself goes out of the loopback device and comes in again.
    fn send_to_itself(&mut self, at: At<'s, 'a>) -> Go<Stage<'s, 'a>> {
        let lo = lo();
        let passed = self.hooks(at, super::netfilter::POSTROUTING, (None, Some(&lo)));
        self.told_at_once(at, passed)?;
        if at.plan.deviations.contains(&Deviation::LoopbackDown) {
            let says = format!("{} sends it to itself, and its loopback device is down", at.name());
            return self.dropped(at, Some(&lo), Why::new(Cause::LinkDown, "lo", says));
        }
        self.step(at, Some(&lo), What::Out, format!("{} sends it to itself, by its loopback device", at.name()));
        self.step(at, Some(&lo), What::In, format!("it comes in to {} again by lo", at.name()));
        Ok(Stage::Receive { at, dev: lo, passed: false })
    }

    /// Where a packet of the namespace's own goes; nothing where to itself. Its source follows where
    /// it has none yet.
    fn route_out(&mut self, at: At<'s, 'a>) -> Go<Option<Hop>> {
        let header = &self.packet.header;
        let (destination, source) = (header.destination, header.source);
        let source = (!source.is_unspecified()).then_some(source);
        let key = Key { destination, source, mark: self.packet.mark, input: None };
        self.note_unread(at);
        match at.tables.look_up(key) {
            Found::Local => {
                if source.is_none() {
                    self.packet.header.source = destination;
                }
                self.is_own(at, destination);
                Ok(None)
            }
            Found::Route(entry) => {
                let hop = self.choose_hop(at, entry);
                if source.is_none() {
                    self.packet.header.source = at.tables.source(entry, &hop).unwrap_or(self.packet.header.source);
                }
                let says = format!("{} sends it {}: route `{}`", at.name(), hop_words(&hop), entry.text);
                self.suspect_lost_route(at, key, Some(entry));
                self.routed(at, Some(&hop), entry.text.clone(), says);
                let (from, onto) = (self.packet.header.source, &hop.1);
                if from.is_loopback() && at.conf(onto, "route_localnet") == 0 {
                    let says = format!("a packet from {from} may not leave by {onto}: route_localnet is 0");
                    return self.dropped(at, Some(onto), Why::new(Cause::Other, "route_localnet", says));
                }
                Ok(Some(Hop { dev: hop.1, to: hop.0.unwrap_or(destination) }))
            }
            found => self.no_way(at, key, &found, None),
        }
    }

    fn routed(&mut self, at: At<'s, 'a>, hop: Option<&(Option<IpAddr>, IfName)>, route: String, says: String) {
        let (via, dev) = (hop.and_then(|h| h.0), hop.map(|h| h.1.to_string()));
        self.step(at, None, What::Routed(Routed { route, via, dev }), says);
    }

    /// The namespace itself has the address.
    fn is_own(&mut self, at: At<'s, 'a>, ip: IpAddr) {
        self.suspect_conflict(ip);
        self.routed(at, None, "local".to_owned(), format!("{ip} is an address of {} itself", at.name()));
    }

    fn note_unread(&mut self, at: At<'s, 'a>) {
        for what in &at.tables.unread {
            let note = format!("{}: `{what}` is not understood and was passed over", at.name());
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
    }

    fn choose_hop(&mut self, at: At<'s, 'a>, entry: &Entry) -> (Option<IpAddr>, IfName) {
        let hops = &entry.hops;
        let taken = match hops.len() {
            0 | 1 => 0,
            n => {
                let odds = vec![1.0 / n as f64; n];
                let is_taken = |hop: &(Option<IpAddr>, IfName), taken: &[(NsName, IpAddr)]| {
                    taken.iter().any(|(place, via)| place == at.name() && Some(*via) == hop.0)
                };
                self.chooser.pick(&odds, |n, _, taken| is_taken(&hops[n], taken))
            }
        };
        hops.get(taken).cloned().unwrap_or_else(|| (None, lo()))
    }

    /// No route, or one that refuses. The sender is told where the packet came from outside and
    /// the namespace is a router.
    fn no_way<T>(&mut self, at: At<'s, 'a>, key: Key, found: &Found, input: Option<&IfName>) -> Go<T> {
        self.suspect_lost_route(at, key, None);
        let to = self.state.called(key.destination);
        let (by, says) = match found {
            Found::Refused(entry) => {
                (entry.text.clone(), format!("the route `{}` of {} refuses it", entry.text, at.name()))
            }
            _ if at.plan.links.is_empty() => {
                self.suspect(Cause::NoDevice, at, "eth0", format!("{} has no device but lo", at.name()));
                ("no route".to_owned(), format!("{} has no device and no route to {to}", at.name()))
            }
            _ => (format!("no route to {}", key.destination), format!("{} has no route to {to}", at.name())),
        };
        let silent = by.starts_with("blackhole");
        let trouble = (!silent).then_some(if by.starts_with("prohibit") { Trouble::Forbidden } else { Trouble::Net });
        self.dropped(at, input, Why { trouble, ..Why::new(Cause::NoRoute, by, says) })
    }

    /// A packet has come up to IP.
    fn receive(&mut self, at: At<'s, 'a>, dev: IfName, passed: bool) -> Go<Stage<'s, 'a>> {
        if !passed {
            self.track(at)?;
            self.hooks(at, super::netfilter::PREROUTING, (Some(&dev), None))?;
        }
        let header = &self.packet.header;
        let (source, destination) = (header.source, header.destination);
        let key = Key { destination, source: Some(source), mark: self.packet.mark, input: Some(&dev) };
        self.check_source(at, &dev, key)?;
        self.note_unread(at);
        match at.tables.look_up(key) {
            Found::Local => {
                self.is_own(at, destination);
                Ok(Stage::Local(at, dev))
            }
            _ if !at.is_on("net/ipv4/ip_forward") => {
                let says =
                    format!("it is not for {} itself, and {} forwards nothing: ip_forward is 0", at.name(), at.name());
                self.dropped(at, Some(&dev), Why::new(Cause::ForwardingOff, "net.ipv4.ip_forward", says))
            }
            Found::Route(entry) => self.forward(at, &dev, key, entry),
            found => self.no_way(at, key, &found, Some(&dev)),
        }
    }

    /// Is the source one that may come in here (`fib_validate_source`)?
    pub fn check_source(&mut self, at: At<'s, 'a>, dev: &IfName, key: Key) -> Go<()> {
        let (Some(source), destination) = (key.source, key.destination) else { return Ok(()) };
        if dev.as_str() == "lo" {
            return Ok(());
        }
        let localnet = at.conf(dev, "route_localnet") > 0;
        if (source.is_loopback() || destination.is_loopback()) && !localnet {
            let says = format!("addresses of 127.0.0.0/8 may not come in by {dev}: route_localnet is 0");
            return self.dropped(at, Some(dev), Why::new(Cause::Other, "route_localnet", says));
        }
        if at.has(source) && !source.is_loopback() {
            let says = format!("it claims to come from {source}, which is an address of {} itself", at.name());
            self.suspect_conflict(source);
            return self.dropped(at, Some(dev), Why::new(Cause::ReversePath, format!("source {source}"), says));
        }
        let filter = at.conf(dev, "rp_filter");
        if filter == 0 {
            return Ok(());
        }
        let back = Key { destination: source, source: Some(destination), mark: 0, input: None };
        let found = at.tables.look_up(back);
        let fits = match &found {
            Found::Route(entry) => filter == 2 || entry.hops.iter().any(|(_, out)| out == dev),
            Found::Local => true,
            _ => false,
        };
        if fits {
            return Ok(());
        }
        let way = match found {
            Found::Route(entry) => format!("answers would leave by `{}`", entry.text),
            _ => "there is no route back".to_owned(),
        };
        let says = format!("the reverse path filter finds {source} at the wrong device: {way}, not by {dev}");
        self.dropped(at, Some(dev), Why::new(Cause::ReversePath, format!("rp_filter of {dev}"), says))
    }

    /// In the order of `ip_forward`: hops, size, then the rules.
    fn forward(&mut self, at: At<'s, 'a>, dev: &IfName, key: Key, entry: &Entry) -> Go<Stage<'s, 'a>> {
        let hop = self.choose_hop(at, entry);
        let says = format!("{} passes it on {}: route `{}`", at.name(), hop_words(&hop), entry.text);
        self.suspect_lost_route(at, key, Some(entry));
        let mtu = at.link(&hop.1).map_or(u32::MAX, |l| l.mtu);
        let is_over = self.packet.header.ttl <= 1;
        let is_too_big = self.packet.size() > mtu && self.packet.header.dont_fragment;
        if !is_over && !is_too_big {
            self.packet.header.ttl -= 1;
        }
        self.routed(at, Some(&hop), entry.text.clone(), says);
        if is_over {
            let says = format!("its time to live has run out where `{}` would lead it on", entry.text);
            let why = Why::new(Cause::TtlExceeded, &entry.text, says);
            return self.dropped(at, Some(dev), Why { trouble: Some(Trouble::Ttl), ..why });
        }
        if is_too_big {
            return self.too_big(at, &hop.1, mtu);
        }
        self.hooks(at, super::netfilter::FORWARD, (Some(dev), Some(&hop.1)))?;
        Ok(Stage::Leave(at, Hop { dev: hop.1, to: hop.0.unwrap_or(key.destination) }))
    }

    fn leave(&mut self, at: At<'s, 'a>, hop: Hop) -> Go<Stage<'s, 'a>> {
        let passed = self.hooks(at, super::netfilter::POSTROUTING, (None, Some(&hop.dev)));
        self.told_at_once(at, passed)?;
        self.transmit(at, &hop)
    }
}

pub(super) fn lo() -> IfName {
    IfName::new("lo")
}

/// Why a packet is dropped.
pub(super) struct Why {
    pub cause: Cause,
    /// The rule, route, device or setting.
    pub by: String,
    pub says: String,
    pub trouble: Option<Trouble>,
}

impl Why {
    pub fn new(cause: Cause, by: impl Into<String>, says: impl Into<String>) -> Why {
        Why { cause, by: by.into(), says: says.into(), trouble: None }
    }
}
