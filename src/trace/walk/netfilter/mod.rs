//! iptables: which rules a packet meets at a hook, and what they do to it. The rules are those that
//! `iptables-save` prints, and `iptables-legacy-save` beside it; the order of tables at a hook is the kernel's.

mod rule;

use std::net::IpAddr;

use crate::lab::names::{IfName, NsName};
use crate::plan::proxy::explain::{Book, Rule};
use crate::trace::model::{Cause, Fate, Header, Means, Protocol, Rewrite, RuleMet, Ruleset, What};

use super::Blame;
use super::conntrack::{Known, Tracked};
use super::packet::{Kind, Packet, Trouble};
use super::walker::{At, End, Go, Told, Walker, Why};
pub(super) use rule::Parts;
use rule::{Match, Target, Test};

/// A hook: its chain, its tables in the order in which they are asked, and which end nat rewrites.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hook {
    chain: &'static str,
    tables: &'static [&'static str],
    side: Side,
}

/// An end of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    Destination,
}

impl Side {
    pub fn other(self) -> Side {
        match self {
            Side::Source => Side::Destination,
            Side::Destination => Side::Source,
        }
    }
}

pub(super) const PREROUTING: Hook =
    Hook { chain: "PREROUTING", tables: &["raw", "mangle", "nat"], side: Side::Destination };
pub(super) const INPUT: Hook = Hook { chain: "INPUT", tables: &["mangle", "filter", "nat"], side: Side::Source };
pub(super) const FORWARD: Hook = Hook { chain: "FORWARD", tables: &["mangle", "filter"], side: Side::Source };
pub(super) const OUTPUT: Hook =
    Hook { chain: "OUTPUT", tables: &["raw", "mangle", "nat", "filter"], side: Side::Destination };
pub(super) const POSTROUTING: Hook = Hook { chain: "POSTROUTING", tables: &["mangle", "nat"], side: Side::Source };

/// The devices that a packet came in by and leaves by.
pub(super) type Devices<'d> = (Option<&'d IfName>, Option<&'d IfName>);

/// What a chain has decided.
enum Verdict {
    /// The packet goes on, to the next table.
    Accept,
    /// The chain's end was reached, or RETURN.
    Back,
    Drop(usize),
    Reject(usize, String),
}

/// A table's chain that is gone through.
#[derive(Clone, Copy)]
struct Where<'h> {
    of: Ruleset,
    table: &'h str,
    chain: &'h str,
    devices: Devices<'h>,
}

/// Chains that lead into themselves are refused by iptables; this is only a bound.
const DEEPEST: usize = 64;

impl<'s, 'a> Walker<'s, 'a, '_> {
    /// Go through a hook.
    pub fn hooks(&mut self, at: At<'s, 'a>, hook: Hook, devices: Devices) -> Go<()> {
        for table in hook.tables {
            if *table == "mangle" {
                self.track(at)?;
            }
            let places = Ruleset::OF_IPTABLES.map(|of| Where { of, table, chain: hook.chain, devices });
            match *table {
                "nat" => self.nat(at, hook, places)?,
                _ => places.into_iter().try_for_each(|place| self.table(at, place))?,
            }
        }
        Ok(())
    }

    /// nat is asked for a flow's first packet; the others are rewritten as that was.
    fn nat(&mut self, at: At<'s, 'a>, hook: Hook, places: [Where; 2]) -> Go<()> {
        let Tracked::Flow { entry, reply, state } = self.tracking.now else { return Ok(()) };
        let ns = at.name();
        let decided = self.tracking.entry(ns, entry).is_none_or(|e| e.is_decided(hook.side));
        if reply || decided || state == Known::Related {
            self.rewrite(at, hook.side, Rewrite::Remembered);
            return Ok(());
        }
        let before = self.steps.len();
        for place in places {
            self.table(at, place)?;
            // One that rewrites is the last (`nf_nat_inet_fn`).
            if self.tracking.entry(ns, entry).is_some_and(|e| e.rewrites(hook.side)) {
                break;
            }
        }
        let by_others = self.follow_told(at, entry, hook.side);
        if let Some(entry) = self.tracking.entry(ns, entry) {
            entry.decide(hook.side);
        }
        // Its rules were met by the flow's first packet; and which were before others' decided is not known here.
        if !self.packet.first || by_others {
            self.steps.truncate(before);
        }
        let how = match (self.packet.first, hook.side) {
            (false, _) => Rewrite::Remembered,
            (true, Side::Destination) => Rewrite::Destination,
            (true, Side::Source) => Rewrite::Source,
        };
        self.rewrite(at, hook.side, how);
        if let Some(step) = self.steps.get_mut(before).filter(|_| by_others) {
            step.known_by = vec![Means::Conntrack];
        }
        Ok(())
    }

    /// A table's built-in chain, with its policy.
    fn table(&mut self, at: At<'s, 'a>, place: Where) -> Go<()> {
        let Where { of, table, chain, .. } = place;
        let Some((policy, _)) = at.chain(of, table, chain) else { return Ok(()) };
        match self.chain(at, place, 0)? {
            Verdict::Back if policy == Some("DROP") => {
                let rule = format!("-P {chain} DROP");
                let met = RuleMet {
                    of,
                    table: table.to_owned(),
                    chain: chain.to_owned(),
                    number: 0,
                    rule,
                    verdict: "DROP".to_owned(),
                    meaning: None,
                };
                let (by, table) = (met.named(), of.in_words(table));
                let says = format!("no rule of {chain} in the table {table} lets it through, and its policy is DROP");
                self.step(at, None, What::Rule(met), says.clone());
                self.dropped(at, None, Why::new(Cause::PolicyDrop, by, says))
            }
            _ => Ok(()),
        }
    }

    fn chain(&mut self, at: At<'s, 'a>, place: Where, depth: usize) -> Go<Verdict> {
        let Some((_, rules)) = at.chain(place.of, place.table, place.chain).filter(|_| depth < DEEPEST) else {
            return Ok(Verdict::Back);
        };
        for (index, Parts { tests, target }) in at.parts(place.of, place.table, place.chain).iter().enumerate() {
            if !self.matches(at, place, (rules, index), tests) {
                continue;
            }
            self.met(at, place, (rules, index), target);
            let verdict = match target {
                Target::Jump(chain) | Target::Goto(chain) => {
                    let verdict = self.chain(at, Where { chain, ..place }, depth + 1)?;
                    match (verdict, target) {
                        (Verdict::Back, Target::Jump(_)) => continue,
                        (verdict, _) => verdict,
                    }
                }
                Target::Drop => Verdict::Drop(index),
                Target::Reject(with) => Verdict::Reject(index, with.clone()),
                Target::Return => Verdict::Back,
                target if self.does(at, place, target) => continue,
                _ => Verdict::Accept,
            };
            return match verdict {
                Verdict::Drop(index) if matches!(target, Target::Drop) => self.drop_by(at, place, (rules, index)),
                Verdict::Reject(index, with) => self.reject_by(at, place, (rules, index), &with),
                verdict => Ok(verdict),
            };
        }
        Ok(Verdict::Back)
    }

    /// Carry out a target that ends nothing; whether the next rule follows.
    fn does(&mut self, at: At<'s, 'a>, place: Where, target: &Target) -> bool {
        let now = self.tracking.now;
        let nat = match now {
            Tracked::Flow { entry, reply: false, .. } if place.table == "nat" => Some(entry),
            _ => None,
        };
        match target {
            Target::Nothing | Target::Unknown(_) => true,
            Target::Mark { value, mask } => {
                self.packet.mark = (self.packet.mark & !mask) ^ value;
                true
            }
            Target::NoTrack => {
                self.tracking.now = Tracked::Untracked;
                true
            }
            Target::Destination { ip, port } => {
                let port = port.unwrap_or(self.packet.header.destination_port);
                if let Some(entry) = nat.and_then(|n| self.tracking.entry(at.name(), n)) {
                    (entry.reply.source, entry.reply.source_port) = (*ip, port);
                }
                false
            }
            Target::Masquerade | Target::Source(_) => {
                let own = || {
                    let dev = place.devices.1?;
                    at.tables.source_at(dev, Some(self.packet.header.destination))
                };
                let ip = if let Target::Source(ip) = target { Some(*ip) } else { own() };
                if let (Some(ip), Some(entry)) = (ip, nat.and_then(|n| self.tracking.entry(at.name(), n))) {
                    entry.reply.destination = ip;
                }
                false
            }
            _ => false,
        }
    }

    fn matches(&mut self, at: At<'s, 'a>, place: Where, (rules, index): (&[Rule], usize), tests: &[Match]) -> bool {
        let mut chance = None;
        for test in tests {
            let fits = match &test.what {
                Test::Chance(p) => {
                    chance = Some(*p);
                    continue;
                }
                Test::Unknown(what) => {
                    let note = format!(
                        "{}: the rule `-A {} {}` has `{what}`, which is not known here: it is taken as not met",
                        at.name(),
                        place.chain,
                        rules[index].text()
                    );
                    if !self.notes.contains(&note) {
                        self.notes.push(note);
                    }
                    return false;
                }
                what => self.fits(at, place.devices, what),
            };
            if fits == test.not {
                return false;
            }
        }
        let Some(p) = chance else { return true };
        let leads = |n: usize| -> Vec<std::net::SocketAddr> {
            rules.get(n).and_then(Rule::target).map(|t| targets(at, place, t, rules.get(n))).unwrap_or_default()
        };
        let here = leads(index);
        let later: Vec<_> = (index + 1..rules.len()).flat_map(leads).collect();
        // Met, or not met, which is what is wanted where a later rule leads to the target.
        let wanted = |way: usize, targets: &[std::net::SocketAddr], _: &[(NsName, IpAddr)]| {
            let all = if way == 0 { &here } else { &later };
            all.iter().any(|to| targets.contains(to))
        };
        self.chooser.pick(&[p, 1.0 - p], wanted) == 0
    }

    fn fits(&self, at: At<'s, 'a>, (input, output): Devices, test: &Test) -> bool {
        let header = &self.packet.header;
        let named = |dev: Option<&IfName>, name: &str| match name.strip_suffix('+') {
            Some(start) => dev.is_some_and(|d| d.as_str().starts_with(start)),
            None => dev.is_some_and(|d| d.as_str() == name),
        };
        let port = |ranges: &[(u16, u16)], port: u16| ranges.iter().any(|(from, to)| (*from..=*to).contains(&port));
        match test {
            Test::Source(net) => net.contains(&header.source),
            Test::Destination(net) => net.contains(&header.destination),
            Test::Input(name) => named(input, name),
            Test::Output(name) => named(output, name),
            Test::Protocol(name) => name == "all" || protocol_is(header, name),
            Test::SourcePort(ranges) => port(ranges, header.source_port),
            Test::DestinationPort(ranges) => port(ranges, header.destination_port),
            Test::Mark { value, mask } => self.packet.mark & mask == *value,
            Test::SourceLocal => at.has(header.source),
            Test::DestinationLocal => at.has(header.destination),
            Test::State(states) => states.iter().any(|s| self.is_in_state(at, s)),
            Test::OriginalDestination(net) => {
                self.tracking.current(at.name()).is_some_and(|(e, _)| net.contains(&e.original.destination))
            }
            Test::Syn => self.packet.kind == Kind::Syn,
            // A client that asks for the first time.
            Test::Remembered { .. } => false,
            Test::Chance(_) | Test::Unknown(_) => false,
        }
    }

    fn is_in_state(&self, at: At, name: &str) -> bool {
        let entry = self.tracking.current(at.name());
        match (name, self.tracking.now) {
            ("NEW", Tracked::Flow { state: Known::New, .. })
            | ("ESTABLISHED", Tracked::Flow { state: Known::Established, .. })
            | ("RELATED", Tracked::Flow { state: Known::Related, .. })
            | ("INVALID", Tracked::Invalid)
            | ("UNTRACKED", Tracked::Untracked) => true,
            ("DNAT", Tracked::Flow { .. }) => entry.is_some_and(|(e, _)| e.dnat()),
            ("SNAT", Tracked::Flow { .. }) => entry.is_some_and(|(e, _)| e.snat()),
            _ => false,
        }
    }

    fn met(&mut self, at: At<'s, 'a>, place: Where, (rules, index): (&[Rule], usize), target: &Target) {
        let rule = &rules[index];
        let meaning = self.meaning(at, place, index);
        let verdict = match target {
            Target::Jump(chain) => format!("jump {chain}"),
            Target::Goto(chain) => format!("goto {chain}"),
            Target::Accept => "ACCEPT".to_owned(),
            Target::Drop => "DROP".to_owned(),
            Target::Reject(_) => "REJECT".to_owned(),
            Target::Return => "RETURN".to_owned(),
            Target::Masquerade => "MASQUERADE".to_owned(),
            Target::Source(_) => "SNAT".to_owned(),
            Target::Destination { .. } => "DNAT".to_owned(),
            _ => "continue".to_owned(),
        };
        let table = place.of.in_words(place.table);
        let says = match &meaning {
            Some(meaning) => format!("{table} {} {}, {verdict}: {meaning}", place.chain, index + 1),
            None => format!("{table} {} {}, {verdict}", place.chain, index + 1),
        };
        let met = RuleMet {
            of: place.of,
            table: place.table.to_owned(),
            chain: place.chain.to_owned(),
            number: u32::try_from(index + 1).unwrap_or(u32::MAX),
            rule: format!("-A {} {}", place.chain, rule.text()),
            verdict,
            meaning,
        };
        if let Target::Unknown(what) = target {
            self.notes.push(format!("{}: what {what} does is not known here: the rule is passed over", at.name()));
        }
        self.step(at, None, What::Rule(met), says);
    }

    fn meaning(&self, at: At<'s, 'a>, place: Where, index: usize) -> Option<String> {
        let chains = |table: &str, chain: &str| at.chain(place.of, table, chain).map(|(_, rules)| rules);
        let state = self.state;
        let who = |ip: IpAddr| state.who(ip);
        Book { chains: &chains, who: &who }.meaning(place.table, place.chain, index)
    }

    fn drop_by<T>(&mut self, at: At<'s, 'a>, place: Where, rule: (&[Rule], usize)) -> Go<T> {
        let (by, meaning) = self.by(at, place, rule);
        let cause = if about_endpoints(rule.0, rule.1, "has no local endpoints") {
            Cause::NoLocalEndpoint
        } else {
            Cause::RuleDrop
        };
        let says = meaning.unwrap_or_else(|| {
            format!("a rule of {} in the table {} drops it", place.chain, place.of.in_words(place.table))
        });
        self.dropped(at, None, Why::new(cause, by, says))
    }

    fn reject_by<T>(&mut self, at: At<'s, 'a>, place: Where, rule: (&[Rule], usize), with: &str) -> Go<T> {
        let (by, meaning) = self.by(at, place, rule);
        let cause =
            if about_endpoints(rule.0, rule.1, "has no endpoints") { Cause::NoEndpoints } else { Cause::RuleReject };
        let says = meaning.unwrap_or_else(|| {
            format!("a rule of {} in the table {} refuses it", place.chain, place.of.in_words(place.table))
        });
        self.step(at, None, What::Refused { with: with.to_owned() }, format!("{} answers with {with}", at.name()));
        let told = match with {
            "tcp-reset" => Packet::answer(&self.packet, Kind::Reset),
            "icmp-host-unreachable" => Packet::error(Trouble::Host, &self.packet),
            "icmp-net-unreachable" => Packet::error(Trouble::Net, &self.packet),
            with if with.contains("prohibited") => Packet::error(Trouble::Forbidden, &self.packet),
            _ => Packet::error(Trouble::Port, &self.packet),
        };
        let place = at.name().clone();
        let blame = Some(Blame { cause, place: place.clone(), object: by, says });
        let told = self.packet.may_be_told_of().then_some(Told::Packet(told));
        Err(Box::new(End { fate: Fate::Refused, place, blame, told }))
    }

    fn by(&self, at: At<'s, 'a>, place: Where, (rules, index): (&[Rule], usize)) -> (String, Option<String>) {
        let Where { of, table, chain, .. } = place;
        let by = of.named((table, chain), &format!("-A {chain} {}", rules[index].text()));
        (by, self.meaning(at, place, index))
    }
}

/// Whether a rule stands there because a service lacks endpoints, as kube-proxy says in its comment.
fn about_endpoints(rules: &[Rule], index: usize, words: &str) -> bool {
    rules.get(index).is_some_and(|rule| rule.comment().ends_with(words))
}

fn protocol_is(header: &Header, name: &str) -> bool {
    match name {
        "tcp" | "6" => header.protocol == Protocol::Tcp,
        "udp" | "17" => header.protocol == Protocol::Udp,
        "icmp" | "1" => header.protocol == Protocol::Icmp,
        "sctp" | "132" => header.protocol == Protocol::Sctp,
        _ => false,
    }
}

/// Where a rule leads in the end: the targets of DNAT, its own or those of the chain that it jumps to.
fn targets(at: At, place: Where, target: &str, rule: Option<&Rule>) -> Vec<std::net::SocketAddr> {
    let of = |rule: &Rule| rule.option("--to-destination").and_then(|to| to.parse().ok());
    let own = rule.and_then(of);
    let behind = at.chain(place.of, place.table, target).map(|(_, rules)| rules).unwrap_or_default();
    own.into_iter().chain(behind.iter().filter_map(of)).collect()
}
