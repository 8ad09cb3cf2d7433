//! Following a machine: what taps see of its real traffic becomes packets, each told once it has ended,
//! in the order in which they began.
//!
//! What was seen is looked at in rounds. A packet has ended when it was delivered, or when nothing
//! more was seen of it for a while, counted in the time of what was seen. Flows keep their number and what is
//! remembered of them over the rounds. Everything is bounded: what comes too fast is counted and left out,
//! and so is what was seen while sights were lost, as nobody knows where it went. Pure; watching, and reading
//! back the state that packets are laid beside, is the daemon's.

pub mod told;
mod window;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use crate::kernel::record::{Event, Recording, RuleBook};
use crate::lab::Lab;
use crate::lab::names::NsName;
use crate::plan::Plan;

use super::flow::Found;
use super::hits::Hits;
use super::model::{Fate, Packet};
use super::origin::Origin;
use super::packet::TLS;
use super::packets::{Memory, Teller, is_at_its_end};
use super::sight::Sight;
use super::tell::{Evidence, Material, tunnels};
use super::walk::Known;
use super::who::Who;
use super::{freed, proxied, senders, translation};

use told::{PacketTold, Told};
use window::{Whose, Window};

/// Nanoseconds after which nothing more comes of a packet.
pub const SETTLED: u64 = 400_000_000;
/// Nanoseconds after which what came beside a packet that was delivered has been read.
const DELIVERED: u64 = 40_000_000;
/// Nanoseconds between two times that the state is read back because of packets that did not arrive, and after
/// which it is too old for the first one of a flow.
const FRESH: u64 = 1_000_000_000;
const RECENT: u64 = 5_000_000_000;
/// More is not looked at and told in one round.
const MOST_SIGHTS: usize = 8_000;
const MOST_TOLD: usize = 100;
/// Flows that are known at a time, and nanoseconds without a packet after which one is forgotten.
const MOST_FLOWS: usize = 512;
const IDLE: u64 = 120_000_000_000;

/// The lab as it was read back.
pub struct World {
    pub lab: Arc<Lab>,
    pub planned: Plan,
    pub there: Plan,
    pub known: Known,
    pub chains: RuleBook,
    /// When, in nanoseconds since 1970.
    pub read_at: u64,
}

/// What was recorded since the last round.
pub struct Heard {
    pub events: Vec<Event>,
    /// So many events were lost.
    pub lost: u64,
    /// So many packets of the machine were not even seen.
    pub unseen: u64,
    /// The time of it, in nanoseconds since 1970.
    pub now: u64,
}

/// What came of a round.
pub enum Round {
    Told(Vec<Told>),
    /// The state is to be read back first, and then the round is to be repeated with nothing more heard.
    Stale,
}

/// A flow that is known.
struct Flow {
    number: u32,
    found: Found,
    memory: Memory,
    /// When something was seen of it last.
    last: u64,
}

/// A machine that is followed.
pub struct Follower {
    machine: NsName,
    /// When it began, in nanoseconds since 1970.
    begin: u64,
    window: Window,
    flows: Vec<Flow>,
    /// The last numbers that were given.
    flow_number: u32,
    packet_number: u32,
    /// Until when sights may be missing.
    thin_until: u64,
    /// Packets that were not told, and not said to be.
    unseen: u64,
}

/// A packet of a flow, by the flow's place and its own.
type At = (usize, usize);

impl Follower {
    pub fn new(machine: NsName, begin: u64) -> Follower {
        let (window, flows) = (Window::default(), Vec::new());
        Follower { machine, begin, window, flows, flow_number: 0, packet_number: 0, thin_until: 0, unseen: 0 }
    }

    /// Take in what was heard, and tell what has ended.
    pub fn round(&mut self, world: &World, heard: Heard) -> Round {
        let Heard { events, lost, unseen, now } = heard;
        self.window.take(events, tunnels(&world.lab));
        let mut untold = std::mem::take(&mut self.unseen) + unseen;
        if lost > 0 {
            self.thin_until = now + 2 * SETTLED;
        }
        if self.window.sights.len() > MOST_SIGHTS {
            untold += self.leave_out(now);
        }
        let who = Who::new(&world.lab, &world.there);
        let mut passed = HashSet::new();
        let parts = self.parts(world, now, &mut passed);
        let mut ended = self.ended(&parts, &who, now);
        if let Some(first) = ended.iter().position(|at| self.outdates(world, &parts, *at, (&who, now))) {
            // All of them wait for the state, which is not read back all the time.
            if now.saturating_sub(world.read_at) > FRESH {
                self.unbegin();
                self.unseen = untold;
                return Round::Stale;
            }
            ended.truncate(first);
        }
        let mut told = self.tell(world, &parts, &ended, &mut untold);
        let ended = ended.iter().flat_map(|(flow, packet)| parts[*flow].packets[*packet].sights.iter().copied());
        passed.extend(ended);
        self.keep(parts);
        self.window.forget(&passed, now);
        self.flows.retain(|flow| now.saturating_sub(flow.last) < IDLE);
        if untold > 0 {
            told.push(Told::Untold { packets: untold });
        }
        Round::Told(told)
    }

    /// Forget what was seen: it is too much. Returns how many packets of the machine it was.
    fn leave_out(&mut self, now: u64) -> u64 {
        self.thin_until = now + 2 * SETTLED;
        let sights = self.window.sights.iter().filter(|s| s.place == self.machine);
        let packets: HashSet<_> = sights.map(|s| s.essence).collect();
        self.window.forget(&(0..self.window.sights.len()).collect(), now);
        packets.len() as u64
    }

    /// What the window has of each flow, in the order of `flows`; those that begin in it are added there. Sights
    /// that are nobody's are put into `passed`.
    fn parts(&mut self, world: &World, now: u64, passed: &mut HashSet<usize>) -> Vec<Found> {
        let pairs = translation::pairs(self.window.entries.make_contiguous());
        let mut taken = HashSet::new();
        let mut parts = Vec::new();
        for flow in &self.flows {
            let mut part = self.window.more(&flow.found, &pairs).unwrap_or_else(|| nothing_of(&flow.found));
            part.packets.retain(|packet| packet.sights.iter().all(|n| !taken.contains(n)));
            taken.extend(part.packets.iter().flat_map(|p| p.sights.iter().copied()));
            parts.push(part);
        }
        let addresses = addresses(&self.machine, &world.there);
        let whose = Whose { machine: &self.machine, addresses: &addresses };
        for found in self.window.begun((&whose, now), &pairs, (&mut taken, passed)) {
            self.flow_number += 1;
            let memory = Memory::of_following();
            self.flows.push(Flow { number: self.flow_number, found: nothing_of(&found), memory, last: 0 });
            parts.push(found);
        }
        parts
    }

    /// The packets that have ended and began before all that have not, in the order in which they began.
    fn ended(&self, parts: &[Found], who: &Who, now: u64) -> Vec<At> {
        let mut all: Vec<(u64, bool, At)> = Vec::new();
        for (f, part) in parts.iter().enumerate() {
            for (p, packet) in part.packets.iter().enumerate() {
                let sights = || packet.sights.iter().map(|n| &self.window.sights[*n]);
                let (Some(first), Some(last)) = (sights().next(), sights().next_back()) else { continue };
                let wait = if is_at_its_end(last, who) { DELIVERED } else { SETTLED };
                all.push((first.at, now.saturating_sub(last.at) >= wait, (f, p)));
            }
        }
        all.sort_unstable();
        all.into_iter().take_while(|(_, ended, _)| *ended).map(|(.., at)| at).collect()
    }

    fn sights(&self, parts: &[Found], (flow, packet): At) -> Vec<&Sight> {
        parts[flow].packets[packet].sights.iter().map(|n| &self.window.sights[*n]).collect()
    }

    /// Whether the state was read too early to say anything of a packet: before one that did not arrive was seen
    /// last, or long before the first one of a flow.
    fn outdates(&self, world: &World, parts: &[Found], at: At, (who, now): (&Who, u64)) -> bool {
        let Some(last) = self.sights(parts, at).last().copied() else { return false };
        let is_new = self.flows[at.0].memory.is_empty() && now.saturating_sub(world.read_at) > RECENT;
        let is_lost = !is_at_its_end(last, who) && !self.is_thin(last.at) && world.read_at < last.at;
        is_new || is_lost
    }

    /// Whether sights of that time may be missing.
    fn is_thin(&self, at: u64) -> bool {
        at < self.thin_until
    }

    /// Flows that have begun in a round that is to be repeated begin there again.
    fn unbegin(&mut self) {
        let new = self.flows.iter().filter(|flow| flow.last == 0).count();
        self.flows.truncate(self.flows.len() - new);
        self.flow_number -= u32::try_from(new).unwrap_or(0);
    }

    fn tell(&mut self, world: &World, parts: &[Found], ended: &[At], untold: &mut u64) -> Vec<Told> {
        if ended.is_empty() {
            return Vec::new();
        }
        let recording = self.window.recording(&world.chains);
        let origin = Origin::default();
        let material = Material {
            lab: &world.lab,
            planned: &world.planned,
            there: &world.there,
            known: &world.known,
            recording: &recording,
            sockets: &[],
            told: &[],
            missing: &[],
            origin: &origin,
        };
        let evidence = Evidence {
            sights: std::mem::take(&mut self.window.sights),
            arps: Vec::new(),
            there: &world.there,
            hits: Hits::read(&recording, &world.there, tunnels(&world.lab)),
            entries: self.window.entries.iter().cloned().collect(),
            who: Who::new(&world.lab, &world.there),
            told: &[],
            begin: self.begin,
        };
        let machine = self.machine.clone();
        let mut teller = Teller::new(&material, &evidence, &machine);
        teller.number = self.packet_number;
        self.flows.iter_mut().for_each(|flow| flow.memory.begin_anew());
        let mut told = Vec::new();
        for (n, at) in ended.iter().enumerate() {
            let last = parts[at.0].packets[at.1].sights.last().map(|n| &evidence.sights[*n]);
            // Nobody knows where one went of which sights may be missing.
            let is_whole = last.is_some_and(|last| !self.is_thin(last.at) || is_at_its_end(last, &evidence.who));
            match n < MOST_TOLD && is_whole {
                true => told.extend(self.one((&mut teller, &evidence, &recording), &parts[at.0], *at)),
                false => *untold += 1,
            }
        }
        self.packet_number = teller.number;
        self.window.sights = evidence.sights;
        self.window.give_back(recording);
        told
    }

    /// A packet as it is told; nothing where it is the rest of one that was told.
    fn one(
        &mut self,
        (teller, evidence, recording): (&mut Teller, &Evidence, &Recording),
        part: &Found,
        at: At,
    ) -> Option<Told> {
        let flow = &mut self.flows[at.0];
        let found = &part.packets[at.1];
        let first = flow.memory.is_empty();
        if flow.memory.is_rest(found, &found.sights.iter().map(|n| &evidence.sights[*n]).collect::<Vec<_>>()) {
            return None;
        }
        let mut packet = teller.next((part, found), &mut flow.memory);
        freed::end(&mut packet, recording, self.begin);
        freed::mark(std::slice::from_mut(&mut packet), recording, self.begin);
        senders::mark(std::slice::from_mut(&mut packet), recording, self.begin);
        let sights = || found.sights.iter().map(|n| &evidence.sights[*n]);
        let said = sights().find_map(|s| s.said.clone());
        let because = said.as_deref().filter(|_| comes_to_controller(&packet, evidence));
        let because = because.and_then(|said| decides(said, evidence.who.lab()));
        let (source, destination) = (part.tuple.source, part.tuple.destination);
        Some(Told::Packet(Box::new(PacketTold {
            flow: flow.number,
            first,
            role: part.role,
            protocol: part.tuple.protocol,
            source: evidence.who.end(source),
            destination: evidence.who.end(destination),
            translations: translation::of_flow(&evidence.entries, part, &evidence.who),
            said,
            because,
            packet,
        })))
    }

    /// Remember what was learnt of flows.
    fn keep(&mut self, parts: Vec<Found>) {
        for (flow, part) in self.flows.iter_mut().zip(parts) {
            let last = part.packets.iter().flat_map(|p| &p.sights).map(|n| self.window.sights[*n].at).max();
            flow.last = flow.last.max(last.unwrap_or(1));
            flow.found = nothing_of(&part);
        }
        let too_many = self.flows.len().saturating_sub(MOST_FLOWS);
        self.flows.drain(..too_many);
    }
}

/// A flow without packets.
fn nothing_of(found: &Found) -> Found {
    Found { role: found.role, tuple: found.tuple, tuples: found.tuples.clone(), packets: Vec::new() }
}

fn addresses(machine: &NsName, there: &Plan) -> HashSet<IpAddr> {
    there.get(machine).map(|ns| ns.addresses.iter().map(|a| a.net.addr()).collect()).unwrap_or_default()
}

/// The objects that decide about a request, by what is said at its beginning.
fn decides(said: &str, lab: &Lab) -> Option<String> {
    let (method, url) = said.split_once(' ')?;
    if method == TLS {
        return proxied::serving(lab, url);
    }
    let (host, path) = url.split_at(url.find('/')?);
    proxied::because(lab, host, path)
}

fn comes_to_controller(packet: &Packet, evidence: &Evidence) -> bool {
    matches!(&packet.fate, Fate::Delivered { to } if proxied::is_controller(evidence.who.lab(), to))
}

#[cfg(test)]
mod tests;
