//! Which sights are of one packet, and which packets of one flow.
//!
//! It begins with what the asker sent and grows: a sight belongs to a flow when its addresses and ports are
//! known to be the flow's, when its essence is that of a packet of the flow (then NAT has given it the
//! addresses that it has, which are the flow's from now on), or when it is an error about such a packet.
//! What connection tracking told adds addresses, too. Nothing here knows how a lab is built.

mod apart;

use std::collections::{HashMap, HashSet};

use super::model::{Direction, Role};
use super::packet::Essence;
use super::sight::{Sight, Tuple};

/// Packets between the same two ends, by their sights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub role: Role,
    /// Both ends as the first packet had them when it was sent.
    pub tuple: Tuple,
    /// Every pair of ends that NAT gave it, in the direction of its packets.
    pub tuples: HashMap<Tuple, Direction>,
    /// In the order in which they were first seen.
    pub packets: Vec<FoundPacket>,
}

/// One packet of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundPacket {
    pub direction: Direction,
    pub essence: Essence,
    /// Indices of its sights, in the order of time.
    pub sights: Vec<usize>,
    /// Whether it is a copy that a bridge made.
    pub copy: bool,
}

/// The flow that began with `tuple`. `translated` are pairs of ends that connection tracking holds to be the
/// same packet before and after a translation.
pub fn flow(role: Role, tuple: Tuple, sights: &[Sight], translated: &[(Tuple, Tuple)]) -> Found {
    let mut tuples = HashMap::new();
    learn(&mut tuples, tuple, Direction::There);
    more(&Found { role, tuple, tuples, packets: Vec::new() }, sights, translated)
}

/// What `sights` have of a flow that is known from before.
pub fn more(known: &Found, sights: &[Sight], translated: &[(Tuple, Tuple)]) -> Found {
    let grown = grow(known.tuples.clone(), sights, translated);
    let packets = packets(sights, &grown.members);
    Found { role: known.role, tuple: known.tuple, tuples: grown.tuples, packets }
}

struct Grown {
    tuples: HashMap<Tuple, Direction>,
    /// The direction of each sight that belongs.
    members: HashMap<usize, Direction>,
}

fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::There => Direction::Back,
        Direction::Back => Direction::There,
    }
}

fn grow(tuples: HashMap<Tuple, Direction>, sights: &[Sight], translated: &[(Tuple, Tuple)]) -> Grown {
    let mut grown = Grown { tuples, members: HashMap::new() };
    let mut essences: HashSet<(Essence, Direction)> = HashSet::new();
    // Each round finds a member or an address more, or is the last.
    loop {
        let before = (grown.members.len(), grown.tuples.len());
        for (original, after) in translated {
            let known = |t: &Tuple| grown.tuples.get(t).copied();
            match (known(original), known(after)) {
                (Some(direction), None) => learn(&mut grown.tuples, *after, direction),
                (None, Some(direction)) => learn(&mut grown.tuples, *original, direction),
                _ => {}
            }
        }
        for (n, sight) in sights.iter().enumerate() {
            if grown.members.contains_key(&n) {
                continue;
            }
            if let Some(direction) = direction_of(sight, &grown.tuples, &essences) {
                grown.members.insert(n, direction);
                if sight.about.is_none() && sight.piece_of.is_none() {
                    essences.insert((sight.essence, direction));
                    learn(&mut grown.tuples, sight.tuple(), direction);
                }
            }
        }
        if before == (grown.members.len(), grown.tuples.len()) {
            return grown;
        }
    }
}

fn learn(tuples: &mut HashMap<Tuple, Direction>, tuple: Tuple, direction: Direction) {
    tuples.entry(tuple).or_insert(direction);
    // A packet between equal ends, as some pings are, has no direction of its own.
    tuples.entry(tuple.reversed()).or_insert(opposite(direction));
}

fn direction_of(
    sight: &Sight,
    tuples: &HashMap<Tuple, Direction>,
    essences: &HashSet<(Essence, Direction)>,
) -> Option<Direction> {
    let of = |(tuple, essence): &(Tuple, Essence)| {
        let both = [Direction::There, Direction::Back];
        // An echo's ends do not tell its direction.
        let echo = || if let Essence::Echo { reply, .. } = essence { Some(echo_direction(*reply)) } else { None };
        let known = tuples.get(tuple).map(|direction| echo().unwrap_or(*direction));
        known.or_else(|| both.into_iter().find(|d| essences.contains(&(*essence, *d))))
    };
    if let Some(about) = &sight.about {
        return of(about).map(opposite);
    }
    if let Some(whole) = &sight.piece_of {
        return of(whole);
    }
    if let Essence::Echo { reply, .. } = sight.essence {
        let direction = echo_direction(reply);
        let known = tuples.contains_key(&sight.tuple()) || essences.contains(&(sight.essence, direction));
        return known.then_some(direction);
    }
    let known = tuples.get(&sight.tuple()).copied();
    known.or_else(|| {
        let both = [Direction::There, Direction::Back];
        both.into_iter().find(|d| essences.contains(&(sight.essence, *d)))
    })
}

/// An echo's identifier is both of its ports, so it alone does not tell requests from replies.
fn echo_direction(reply: bool) -> Direction {
    if reply { Direction::Back } else { Direction::There }
}

/// Put sights of the same packet together.
fn packets(sights: &[Sight], members: &HashMap<usize, Direction>) -> Vec<FoundPacket> {
    let mut order: Vec<usize> = members.keys().copied().collect();
    order.sort_unstable_by_key(|n| (sights[*n].at, *n));
    let mut alike: HashMap<(Essence, Direction), Vec<usize>> = HashMap::new();
    for n in order {
        alike.entry((sights[n].essence, members[&n])).or_default().push(n);
    }
    let mut all: Vec<FoundPacket> = Vec::new();
    for ((essence, direction), alike) in alike {
        let apart = apart::apart(&alike, sights).into_iter();
        all.extend(apart.map(|sights| FoundPacket { direction, essence, sights, copy: false }));
    }
    let first = |packet: &FoundPacket| packet.sights.first().map(|n| (sights[*n].at, *n));
    all.sort_unstable_by_key(first);
    all
}

#[cfg(test)]
mod tests {
    use super::super::model::Header;
    use super::super::sample;
    use super::*;

    /// A sight of a TCP packet: when, where, from and to whom, its sequence number and TTL.
    fn sight(at: u64, place: &str, dev: (&str, bool), ends: (&str, &str), sequence: u32, ttl: u8) -> Sight {
        let end = |word: &str| word.parse::<std::net::SocketAddr>().expect("an end");
        let (source, destination) = (end(ends.0), end(ends.1));
        let header = Header {
            source: source.ip(),
            destination: destination.ip(),
            source_port: source.port(),
            destination_port: destination.port(),
            ttl,
            ..sample::header()
        };
        Sight {
            seen: header.clone(),
            header,
            essence: Essence::Tcp { sequence, acknowledged: 0, flags: 2, data: 0 },
            ..sample::sight(at, place, dev.0, dev.1)
        }
    }

    const VIP: (&str, &str) = ("10.0.0.1:4000", "10.96.0.1:80");

    fn found(sights: &[Sight]) -> Found {
        flow(Role::Request, sights[0].tuple(), sights, &[])
    }

    #[test]
    fn a_packet_is_followed_through_nat_and_its_answer_found() {
        let sights = [
            sight(1, "a", ("eth0", true), VIP, 7, 64),
            sight(2, "b", ("veth", false), VIP, 7, 64),
            sight(3, "b", ("eth0", true), ("192.168.0.1:999", "10.0.0.2:8080"), 7, 63),
            sight(4, "c", ("eth0", true), ("10.0.0.2:8080", "192.168.0.1:999"), 90, 64),
            sight(5, "b", ("veth", true), ("10.96.0.1:80", "10.0.0.1:4000"), 90, 63),
            sight(6, "b", ("veth", true), ("10.9.9.9:80", "10.0.0.1:4000"), 91, 63),
        ];
        let found = found(&sights);
        let told: Vec<_> = found.packets.iter().map(|p| (p.direction, p.sights.clone())).collect();
        assert_eq!(told, [(Direction::There, vec![0, 1, 2]), (Direction::Back, vec![3, 4])]);
    }

    #[test]
    fn the_same_once_more_is_a_second_try_and_a_lower_ttl_a_circle() {
        let mut sights = vec![
            sight(1, "a", ("eth0", true), VIP, 7, 64),
            sight(2, "b", ("veth", false), VIP, 7, 64),
            sight(9, "a", ("eth0", true), VIP, 7, 64),
            sight(10, "b", ("veth", false), VIP, 7, 64),
        ];
        let told: Vec<_> = found(&sights).packets.iter().map(|p| p.sights.clone()).collect();
        assert_eq!(told, [vec![0, 1], vec![2, 3]]);
        (sights[2].header.ttl, sights[3].header.ttl) = (62, 62);
        assert_eq!(found(&sights).packets.len(), 1);
    }

    /// The packets' sights, of a packet that was seen at these times at `a` and then at `b`.
    fn alike(at_a: &[u64], at_b: &[u64]) -> Vec<Vec<usize>> {
        let seen = |place, dev, times: &[u64]| -> Vec<Sight> {
            times.iter().map(|at| sight(*at, place, dev, VIP, 7, 64)).collect()
        };
        let sights = [seen("a", ("eth0", true), at_a), seen("b", ("veth", false), at_b)].concat();
        found(&sights).packets.into_iter().map(|p| p.sights).collect()
    }

    #[test]
    fn tries_that_are_under_way_at_once_go_on_in_their_order() {
        assert_eq!(alike(&[1, 9], &[10, 11]), [vec![0, 2], vec![1, 3]]);
        assert_eq!(alike(&[1, 9, 20], &[10, 30, 40]), [vec![0, 3], vec![1, 4], vec![2, 5]]);
    }

    #[test]
    fn of_tries_that_were_lost_the_one_before_what_is_seen_was_not() {
        assert_eq!(alike(&[1, 9], &[10]), [vec![0], vec![1, 2]]);
        assert_eq!(alike(&[1, 9], &[2]), [vec![0, 2], vec![1]]);
        assert_eq!(alike(&[1, 9, 20], &[2, 21]), [vec![0, 3], vec![1], vec![2, 4]]);
    }

    #[test]
    fn a_sight_that_is_stamped_too_early_begins_no_packet() {
        let mut sights = vec![
            sight(1, "a", ("eth0", true), VIP, 7, 64),
            sight(5, "a", ("eth0", true), VIP, 7, 64),
            sight(6, "b", ("veth", false), VIP, 7, 64),
            sight(9, "b", ("veth", false), VIP, 7, 64),
            sight(7, "b", ("cni0", false), VIP, 7, 64),
            sight(8, "b", ("cni0", false), VIP, 7, 64),
        ];
        let told = |sights: &[Sight]| -> Vec<_> { found(sights).packets.into_iter().map(|p| p.sights).collect() };
        assert_eq!(told(&sights), [vec![0, 2, 4], vec![1, 5, 3]]);
        sights[3].at = 7;
        assert_eq!(told(&sights), [vec![0, 2, 4], vec![1, 3, 5]]);
    }

    #[test]
    fn what_connection_tracking_told_leads_on_where_nothing_was_seen() {
        let sights = [
            sight(1, "a", ("eth0", true), VIP, 7, 64),
            sight(4, "c", ("eth0", true), ("10.0.0.2:8080", "10.0.0.1:4000"), 90, 64),
        ];
        assert_eq!(found(&sights).packets.len(), 1);
        let to_pod = sights[1].tuple().reversed();
        let found = flow(Role::Request, sights[0].tuple(), &sights, &[(sights[0].tuple(), to_pod)]);
        assert_eq!(found.packets.len(), 2);
        assert_eq!(found.packets[1].direction, Direction::Back);
    }
}
