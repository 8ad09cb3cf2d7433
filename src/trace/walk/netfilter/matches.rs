//! Whether a packet is one that a rule is for.

use std::net::{IpAddr, SocketAddr};

use crate::lab::names::{IfName, NsName};
use crate::plan::proxy::explain::Rule;
use crate::trace::model::{Header, Protocol};
use crate::trace::walk::conntrack::{Known, Tracked};
use crate::trace::walk::packet::Kind;
use crate::trace::walk::walker::{At, Walker};

use super::rule::{Match, Test};
use super::{Devices, Where};

impl<'s, 'a> Walker<'s, 'a, '_> {
    /// Whether a packet is one that a rule is for.
    pub(super) fn matches(
        &mut self,
        at: At<'s, 'a>,
        place: Where,
        (rules, index): (&[Rule], usize),
        tests: &[Match],
    ) -> bool {
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
        let leads = |n: usize| -> Vec<SocketAddr> {
            rules.get(n).and_then(Rule::target).map(|t| targets(at, place, t, rules.get(n))).unwrap_or_default()
        };
        let here = leads(index);
        let later: Vec<_> = (index + 1..rules.len()).flat_map(leads).collect();
        // Met, or not met, which is what is wanted where a later rule leads to the target.
        let wanted = |way: usize, targets: &[SocketAddr], _: &[(NsName, IpAddr)]| {
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
fn targets(at: At, place: Where, target: &str, rule: Option<&Rule>) -> Vec<SocketAddr> {
    let of = |rule: &Rule| rule.option("--to-destination").and_then(|to| to.parse().ok());
    let own = rule.and_then(of);
    let behind = at.chain(place.of, place.table, target).map(|(_, rules)| rules).unwrap_or_default();
    own.into_iter().chain(behind.iter().filter_map(of)).collect()
}
