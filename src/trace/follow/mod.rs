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
use super::packets::{Memory, Teller, is_at_its_end};
use super::sight::Sight;
use super::tell::{Evidence, Material, tunnels};
use super::walk::Known;
use super::who::Who;
use super::{freed, proxied, translation};

use told::{PacketTold, Told};
use window::{Whose, Window};

/// Nanoseconds after which nothing more comes of a packet.
pub const SETTLED: u64 = 400_000_000;
/// Nanoseconds after which what came beside a packet that was delivered has been read.
const DELIVERED: u64 = 40_000_000;
/// How old the state may be, in nanoseconds, that a packet is laid beside which did not arrive, and the first
/// one of a flow.
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
}

/// A packet of a flow, by the flow's place and its own.
type At = (usize, usize);

impl Follower {
    pub fn new(machine: NsName, begin: u64) -> Follower {
        let (window, flows) = (Window::default(), Vec::new());
        Follower { machine, begin, window, flows, flow_number: 0, packet_number: 0, thin_until: 0 }
    }

    /// Take in what was heard, and tell what has ended.
    pub fn round(&mut self, world: &World, heard: Heard) -> Round {
        let Heard { events, lost, now } = heard;
        self.window.take(events, tunnels(&world.lab));
        let mut untold = 0;
        if lost > 0 {
            self.thin_until = now + 2 * SETTLED;
        }
        if self.window.sights.len() > MOST_SIGHTS {
            untold += self.leave_out(now);
        }
        let who = Who::new(&world.lab, &world.there);
        let mut passed = HashSet::new();
        let parts = self.parts(world, now, &mut passed);
        let ended = self.ended(&parts, &who, now);
        if self.needs_fresh(world, &parts, &ended, &who, now) {
            return Round::Stale;
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
            self.flows.push(Flow { number: self.flow_number, found: nothing_of(&found), memory, last: now });
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

    /// Whether a packet is to be laid beside a state that is older than it may be.
    fn needs_fresh(&self, world: &World, parts: &[Found], ended: &[At], who: &Who, now: u64) -> bool {
        let age = now.saturating_sub(world.read_at);
        let wants = |at: &At| {
            let arrived = self.sights(parts, *at).last().is_some_and(|last| is_at_its_end(last, who));
            let is_new = self.flows[at.0].memory.is_empty();
            (is_new && age > RECENT) || (!arrived && age > FRESH && now > self.thin_until)
        };
        age > FRESH && ended.iter().take(MOST_TOLD).any(wants)
    }

    fn tell(&mut self, world: &World, parts: &[Found], ended: &[At], untold: &mut u64) -> Vec<Told> {
        if ended.is_empty() {
            return Vec::new();
        }
        let recording = self.window.recording(&world.chains);
        let material = Material {
            lab: &world.lab,
            planned: &world.planned,
            there: &world.there,
            known: &world.known,
            recording: &recording,
            missing: &[],
            file: "",
            edited: false,
        };
        let evidence = Evidence {
            sights: std::mem::take(&mut self.window.sights),
            arps: Vec::new(),
            hits: Hits::read(&recording, &world.there),
            entries: self.window.entries.iter().cloned().collect(),
            who: Who::new(&world.lab, &world.there),
            there: &world.there,
            begin: self.begin,
        };
        let machine = self.machine.clone();
        let mut teller = Teller::new(&material, &evidence, &machine);
        teller.number = self.packet_number;
        self.flows.iter_mut().for_each(|flow| flow.memory.begin_anew());
        let mut told = Vec::new();
        for at in ended {
            let thin = evidence.sights[parts[at.0].packets[at.1].sights[0]].at < self.thin_until;
            match told.len() < MOST_TOLD {
                true => told.extend(self.one((&mut teller, &evidence, &recording), &parts[at.0], *at, thin)),
                false => *untold += 1,
            }
        }
        *untold += self.packet_number.abs_diff(teller.number) as u64 - told.len() as u64;
        self.packet_number = teller.number;
        self.window.sights = evidence.sights;
        self.window.give_back(recording);
        told
    }

    /// A packet as it is told; nothing where nobody knows where it went, as sights are missing, or where it
    /// is the rest of one that was told.
    fn one(
        &mut self,
        (teller, evidence, recording): (&mut Teller, &Evidence, &Recording),
        part: &Found,
        at: At,
        thin: bool,
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
        if thin && packet.fate == Fate::Lost {
            return None;
        }
        let sights = || found.sights.iter().map(|n| &evidence.sights[*n]);
        let said = sights().find_map(|s| s.said.clone());
        let because = said.as_deref().filter(|_| comes_to_controller(&packet, evidence)).and_then(|said| {
            let (_, url) = said.split_once(' ')?;
            let (host, path) = url.split_at(url.find('/')?);
            proxied::because(evidence.who.lab(), host, path)
        });
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
            flow.last = flow.last.max(last.unwrap_or(0));
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

fn comes_to_controller(packet: &Packet, evidence: &Evidence) -> bool {
    matches!(&packet.fate, Fate::Delivered { to } if proxied::is_controller(evidence.who.lab(), to))
}
