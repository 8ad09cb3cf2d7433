//! Which packet met which rule: what nf_tables and xtables told, given to the packets that taps have seen.
//!
//! nf_tables tells the headers of a packet once for each hook, with the first rule there, and then only
//! its number for the packet, which it uses again. xtables tells them with each rule. Headers lead to the packet by its essence; for the
//! packet of a tunnel, whose inside is not told, by the identification in its IP header.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use crate::kernel::record::{Event, Recording, RuleSeen, Seen};
use crate::lab::names::NsName;
use crate::plan::Plan;

use super::align::Hit;
use super::met::met;
use super::model::{Protocol, RuleMet, Ruleset};
use super::packet::{self, Essence};
use super::sight::{Sight, Tunnels, Tuple};

/// How a packet is known where it met rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Key {
    Packet(Essence),
    /// Source, destination, identification and length of a tunnel's packet.
    Outer(IpAddr, IpAddr, u16, u32),
}

/// A rule that a packet met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PacketHit {
    pub hit: Hit,
    /// The rule's number for the kernel, where nf_tables has it.
    pub handle: Option<u64>,
    /// Its place among all that was told.
    pub sequence: u64,
    /// How often a packet of these looks had come by here before.
    pub pass: usize,
    /// Whether the packet was one of the machine's own, that came in by no device.
    pub own: bool,
}

/// The rules that were met, for each packet in the order in which it met them.
#[derive(Debug, Default)]
pub struct Hits(HashMap<Key, Vec<PacketHit>>);

impl Hits {
    /// Read all of `recording`; `there` has the rules' texts.
    pub fn read(recording: &Recording, there: &Plan, tunnels: Tunnels) -> Hits {
        let mut events: Vec<(&Event, &NsName, &RuleSeen)> = recording.events.iter().filter_map(rule).collect();
        events.sort_by_key(|(event, place, _)| ((*place).clone(), event.sequence));
        let mut hits = Hits::default();
        let mut current: HashMap<(&NsName, u32), At> = HashMap::new();
        let mut passes: HashMap<(&NsName, Key), Pass> = HashMap::new();
        for (event, place, seen) in events {
            let known = headers(seen, tunnels);
            // xtables has no numbers for packets.
            if let (Some(known), None) = (known, seen.legacy) {
                current.insert((place, seen.id), known);
            }
            let here = if seen.legacy.is_some() { known } else { current.get(&(place, seen.id)).copied() };
            let Some(At { key, ends, own, leaves }) = here else { continue };
            let Some(met) = met(place, seen, recording, there) else { continue };
            let pass = passes.entry((place, key)).or_default().of(&met);
            let layer = u8::from(matches!(key, Key::Outer(..)));
            let hit = Hit { place: place.clone(), layer, leaves, ends, met };
            let (handle, sequence) = (seen.handle, event.sequence);
            hits.0.entry(key).or_default().push(PacketHit { hit, handle, sequence, pass, own });
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

    /// All that was met, by whatever packet.
    pub fn all(&self) -> impl Iterator<Item = &PacketHit> {
        self.0.values().flatten()
    }

    /// Essences of packets that met rules and were perhaps seen by no tap, with their ends.
    pub fn packets(&self) -> impl Iterator<Item = (Essence, &PacketHit)> {
        self.0.iter().filter_map(|(key, hits)| match key {
            Key::Packet(essence) => hits.first().map(|h| (*essence, h)),
            Key::Outer(..) => None,
        })
    }
}

/// Which rules a packet of some looks has met on its present way: one of a hook's own chain that is met again begins
/// another. A chain that others jump to may be met more than once on one way, as KUBE-MARK-MASQ is.
#[derive(Default)]
struct Pass {
    number: usize,
    met: HashSet<(ChainKey, u32)>,
    jumped_to: HashSet<ChainKey>,
}

/// A chain, with its table and whose it is.
type ChainKey = (Ruleset, String, String);

impl Pass {
    fn of(&mut self, met: &RuleMet) -> usize {
        let key = |chain: &str| (met.of, met.table.clone(), chain.to_owned());
        let rule = (key(&met.chain), met.number);
        if !self.jumped_to.contains(&rule.0) && self.met.contains(&rule) {
            *self = Pass { number: self.number + 1, ..Pass::default() };
        }
        self.met.insert(rule);
        let target = ["jump ", "goto "].iter().find_map(|word| met.verdict.strip_prefix(word));
        self.jumped_to.extend(target.map(key));
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

/// A packet at a hook.
#[derive(Debug, Clone, Copy)]
struct At {
    key: Key,
    ends: Tuple,
    /// Whether it came in by no device, and whether it is known by which it leaves.
    own: bool,
    leaves: bool,
}

fn headers(seen: &RuleSeen, tunnels: Tunnels) -> Option<At> {
    let packet = packet::parts(&seen.network, &seen.transport)?;
    let header = &packet.header;
    let ends = Tuple::of(header);
    let is_tunnels = header.protocol == Protocol::Udp
        && header.destination_port != 0
        && [tunnels.vxlan, tunnels.flannel_udp].contains(&header.destination_port);
    let key = match packet.essence {
        // What a tunnel carries cannot be told from the beginning of its packet.
        Essence::Udp { .. } if is_tunnels => {
            outer(header.source, header.destination, packet.identification, header.length)
        }
        essence => Key::Packet(essence),
    };
    Some(At { key, ends, own: seen.iif.is_none(), leaves: seen.oif.is_some() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A datagram to a port as nf_tables tells of it, with the beginning of what it says.
    fn datagram(port: u16, begin: [u8; 4]) -> RuleSeen {
        let network = vec![0x45, 0, 0, 40, 0, 7, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let mut transport = vec![0x10, 0, 0, 0, 0, 20, 0, 0];
        transport[2..4].copy_from_slice(&port.to_be_bytes());
        transport.extend(begin);
        RuleSeen { network, transport, ..RuleSeen::default() }
    }

    #[test]
    fn a_tunnels_packet_is_known_by_its_port_and_not_by_what_a_datagram_says() {
        let is_outer =
            |seen: &RuleSeen, tunnels| matches!(headers(seen, tunnels).expect("headers").key, Key::Outer(..));
        let (vxlan, udp) = (Tunnels { vxlan: 8472, flannel_udp: 0 }, Tunnels { vxlan: 0, flannel_udp: 8285 });
        assert!(is_outer(&datagram(8472, [8, 0, 0, 0]), vxlan) && is_outer(&datagram(8285, *b"E\0\0("), udp));
        assert!(!is_outer(&datagram(7, *b"Echo"), udp) && !is_outer(&datagram(7, [8, 0, 0, 0]), vxlan));
    }

    #[test]
    fn a_way_ends_where_a_hooks_own_rule_is_met_again_and_not_where_a_chain_is() {
        let rule = |chain: &str, number, verdict: &str| RuleMet {
            of: Ruleset::Iptables,
            table: "nat".into(),
            chain: chain.into(),
            number,
            rule: String::new(),
            verdict: verdict.into(),
            meaning: None,
        };
        let way = [
            rule("PREROUTING", 1, "jump EXT"),
            rule("EXT", 1, "jump MARK"),
            rule("MARK", 1, "continue"),
            rule("EXT", 2, "goto SEP"),
            rule("SEP", 1, "jump MARK"),
            rule("MARK", 1, "continue"),
            rule("SEP", 2, "ACCEPT"),
        ];
        let mut pass = Pass::default();
        for number in 0..3 {
            assert!(way.iter().all(|met| pass.of(met) == number), "{number}");
        }
    }
}
