//! Which packet met which rule: what nf_tables told, given to the packets that taps have seen.
//!
//! nf_tables tells the headers of a packet once for each hook, with the first rule there, and then only
//! its number for the packet, which it uses again. Headers lead to the packet by its essence; for the
//! packet of a tunnel, whose inside is not told, by the identification in its IP header.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use crate::kernel::record::{Event, Recording, RuleKind, RuleSeen, Seen, Verdict};
use crate::lab::names::NsName;
use crate::plan::Plan;
use crate::plan::rules::Rules;

use super::align::Hit;
use super::model::RuleMet;
use super::packet::{self, Essence};
use super::sight::{Sight, Tuple};

/// How a packet is known where it met rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Key {
    Packet(Essence),
    /// Source, destination, identification and length of a tunnel's packet.
    Outer(IpAddr, IpAddr, u16, u32),
}

/// A rule that a packet met, with the ends that the packet had then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PacketHit {
    pub hit: Hit,
    pub tuple: Tuple,
    /// Its place among all that was told.
    pub sequence: u64,
    /// How often a packet of these looks had come by here before.
    pub pass: usize,
}

/// The rules that were met, for each packet in the order in which it met them.
#[derive(Debug, Default)]
pub struct Hits(HashMap<Key, Vec<PacketHit>>);

impl Hits {
    /// Read all of `recording`; `there` has the rules' texts.
    pub fn read(recording: &Recording, there: &Plan) -> Hits {
        let mut events: Vec<(&Event, &NsName, &RuleSeen)> = recording.events.iter().filter_map(rule).collect();
        events.sort_by_key(|(event, place, _)| ((*place).clone(), event.sequence));
        let mut hits = Hits::default();
        let mut current: HashMap<(&NsName, u32), (Key, Tuple)> = HashMap::new();
        let mut passes: HashMap<(&NsName, Key), Pass> = HashMap::new();
        for (event, place, seen) in events {
            if let Some(known) = headers(seen) {
                current.insert((place, seen.id), known);
            }
            let Some((key, tuple)) = current.get(&(place, seen.id)).copied() else { continue };
            let Some(met) = met(place, seen, recording, there) else { continue };
            let pass = passes.entry((place, key)).or_default().of(&met);
            let layer = u8::from(matches!(key, Key::Outer(..)));
            let hit = Hit { place: place.clone(), layer, met };
            hits.0.entry(key).or_default().push(PacketHit { hit, tuple, sequence: event.sequence, pass });
        }
        hits
    }

    /// The rules that a packet with these sights met on its `pass`-th way, from 0. Within a namespace they are
    /// in the order in which they were met.
    pub fn of(&self, essence: Essence, sights: &[&Sight], pass: usize) -> Vec<Hit> {
        let mut keys = vec![Key::Packet(essence)];
        for sight in sights.iter().filter(|s| s.layer > 0) {
            let key = outer(sight.seen.source, sight.seen.destination, sight.identification, sight.seen.length);
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        let all = |key: &Key| {
            let own = matches!(key, Key::Packet(_));
            let hits = self.0.get(key).map(Vec::as_slice).unwrap_or_default();
            hits.iter().filter(move |h| !own || h.pass == pass)
        };
        let mut met: Vec<&PacketHit> = keys.iter().flat_map(all).collect();
        met.sort_by_key(|h| h.sequence);
        met.into_iter().map(|h| h.hit.clone()).collect()
    }

    /// Essences of packets that met rules and were perhaps seen by no tap, with their ends.
    pub fn packets(&self) -> impl Iterator<Item = (Essence, &PacketHit)> {
        self.0.iter().filter_map(|(key, hits)| match key {
            Key::Packet(essence) => hits.first().map(|h| (*essence, h)),
            Key::Outer(..) => None,
        })
    }
}

/// Which rules a packet of some looks has met on its present way: one that is met again begins another.
#[derive(Default)]
struct Pass {
    number: usize,
    met: HashSet<(String, String, u32)>,
}

impl Pass {
    fn of(&mut self, met: &RuleMet) -> usize {
        if !self.met.insert((met.table.clone(), met.chain.clone(), met.number)) {
            self.number += 1;
            self.met = HashSet::from([(met.table.clone(), met.chain.clone(), met.number)]);
        }
        self.number
    }
}

fn rule(event: &Event) -> Option<(&Event, &NsName, &RuleSeen)> {
    match (&event.seen, &event.place) {
        (Seen::Rule(seen), Some(place)) => Some((event, place, seen)),
        _ => None,
    }
}

fn outer(source: IpAddr, destination: IpAddr, identification: u16, length: u32) -> Key {
    Key::Outer(source, destination, identification, length)
}

fn headers(seen: &RuleSeen) -> Option<(Key, Tuple)> {
    let packet = packet::parts(&seen.network, &seen.transport)?;
    let header = &packet.header;
    let tuple = Tuple::of(header);
    let key = match packet.essence {
        // What a tunnel carries cannot be told from the beginning of its packet.
        Essence::Udp { begin: [8, 0, 0, 0, ..], .. } | Essence::Udp { begin: [0x45, ..], .. } => {
            outer(header.source, header.destination, packet.identification, header.length)
        }
        essence => Key::Packet(essence),
    };
    Some((key, tuple))
}

/// The rule in the words of `iptables -S`. Jumps to a chain and its end are left to the walk, which tells
/// them with what they are for.
fn met(place: &NsName, seen: &RuleSeen, recording: &Recording, there: &Plan) -> Option<RuleMet> {
    let number = match (seen.kind, seen.handle) {
        (RuleKind::Rule, Some(handle)) => {
            let key = (place.clone(), seen.table.clone(), seen.chain.clone());
            let at = recording.chains.0.get(&key)?.iter().position(|h| *h == handle)?;
            u32::try_from(at + 1).ok()?
        }
        (RuleKind::Policy, _) => 0,
        _ => return None,
    };
    let rules = there.get(place).map(|ns| &ns.rules);
    let rule = rules.and_then(|rules| text(rules, &seen.table, &seen.chain, number)).unwrap_or_default();
    Some(RuleMet {
        table: seen.table.clone(),
        chain: seen.chain.clone(),
        number,
        rule,
        verdict: verdict(&seen.verdict),
        meaning: None,
    })
}

fn text(rules: &Rules, table: &str, chain: &str, number: u32) -> Option<String> {
    let chains = &rules.tables.iter().find(|t| t.name == table)?.chains;
    let found = chains.iter().find(|c| c.name == chain)?;
    match number.checked_sub(1) {
        Some(n) => found.rules.get(usize::try_from(n).ok()?).map(|rule| format!("-A {chain} {rule}")),
        None => found.policy.as_ref().map(|policy| format!("-P {chain} {policy}")),
    }
}

fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accept => "ACCEPT".to_owned(),
        Verdict::Drop => "DROP".to_owned(),
        Verdict::Continue => "continue".to_owned(),
        Verdict::Return => "RETURN".to_owned(),
        Verdict::Jump(chain) => format!("jump {chain}"),
        Verdict::Goto(chain) => format!("goto {chain}"),
        Verdict::Other(number) => format!("verdict {number}"),
    }
}
