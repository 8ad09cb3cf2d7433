//! What a verdict rests on, a sentence each: where the packet was seen last, the rule or the kernel that dropped
//! it, counters that go up with such a cause, a neighbour that did not answer, and what is not as planned.

use crate::kernel::record::CounterDelta;
use crate::plan::diff::Step as Difference;

use super::model::{Cause, Fate, Means, Packet, Role, Step, What};
use super::verdict::Case;
use super::walk::Blame;
use super::{freed, listeners, remedy, remembered, unplanned};

/// More lines than these are not told of one kind.
const MOST: usize = 6;

impl Case<'_> {
    /// All that speaks for a fault.
    pub fn grounds(&self, blame: &Blame, drift: &[Difference]) -> Vec<String> {
        // No packet was lost.
        if matches!(blame.cause, Cause::NoSuchName | Cause::WrongCertificate | Cause::ProxyRefused) {
            let told = self.packets().flat_map(|p| &p.steps).filter(|s| s.known_by.contains(&Means::Program));
            let told = told.filter(|s| matches!(s.what, What::Proxied { .. } | What::Asked { .. }));
            let told = told.take(MOST).map(|s| format!("{} told: {}", s.place, s.says));
            let saw = format!("what {} saw: {}", self.asked.from, self.outcome.observed);
            return std::iter::once(saw).chain(told).collect();
        }
        // Where a program says nothing every packet has arrived.
        let last = self.last_sight().filter(|_| blame.cause != Cause::ProgramSilent);
        let mut all: Vec<String> = last.into_iter().collect();
        let told = self.packets().flat_map(|p| &p.steps);
        let mut dropped = told.filter(|s| s.known_by.contains(&Means::Rules)).filter_map(dropped_by);
        // An answer that its sender's own rule dropped has no step.
        let by_rule = || unplanned::what_was_met(self, blame);
        let did = |what| format!("{}: the kernel told that `{}` {what} it", blame.place, blame.object);
        all.extend(dropped.next().or_else(|| by_rule().map(did)));
        all.extend(freed::reasons(self.evidence, self.material.recording, self.flows).into_iter().take(MOST));
        all.extend(self.counted(blame).take(MOST).map(|c| format!("{}: {} went up by {}", c.place, c.name, c.by)));
        all.extend(self.unanswered_arp());
        all.extend(self.concluded());
        all.extend(listeners::words(self).filter(|_| matches!(blame.cause, Cause::ProgramSilent | Cause::DnsDead)));
        all.extend(remembered::words(self).filter(|_| blame.cause == Cause::TooBig));
        let here = remedy::origins(&blame.place, drift).into_iter().flat_map(remedy::in_words);
        all.extend(here.take(MOST).map(|what| format!("{} is not as planned: {what}", blame.place)));
        all
    }

    fn packets(&self) -> impl Iterator<Item = &Packet> {
        self.flows.iter().flat_map(|f| &f.packets)
    }

    /// That a proxy which tells nothing asked somebody for the question, where that is inferred.
    fn concluded(&self) -> Option<String> {
        let proxied = self.flows.iter().rfind(|f| f.role == Role::Proxied)?;
        let begin = proxied.packets.first()?.steps.first()?;
        let is_guess = matches!(begin.what, What::Proxied { .. }) && begin.is_inferred();
        is_guess.then(|| format!("concluded, not seen: {}", begin.says))
    }

    fn last_sight(&self) -> Option<String> {
        let lost = |p: &&Packet| !matches!(p.fate, Fate::Delivered { .. });
        let all = || self.flows.iter().flat_map(|f| f.packets.iter().map(move |p| (f, p)));
        let (flow, packet) = all().find(|(_, p)| lost(p)).or_else(|| all().last())?;
        let tries = flow.packets.iter().filter(|p| p.kind == packet.kind && p.direction == packet.direction).count();
        let last = last_seen(packet)?;
        let dev = last.dev.as_ref().map(|d| format!(" at {d}")).unwrap_or_default();
        let often = if tries > 1 { format!(" ({tries} tries)") } else { String::new() };
        Some(format!("the {}{often} was seen last in {}{dev}", packet.kind, last.place))
    }

    /// Counters of the place that go up with such a cause.
    fn counted(&self, blame: &Blame) -> impl Iterator<Item = &CounterDelta> {
        let packets = self.packets().count() as u64;
        // Others may talk by a device, too: more than the question's own packets are not told.
        let by_device = move |c: &CounterDelta| c.by <= packets && is_of_device(&c.name, &blame.object);
        let by_queue =
            |c: &CounterDelta| blame.cause == Cause::Qdisc && c.name == format!("qdisc {} dropped", blame.object);
        let tells =
            move |c: &CounterDelta| counters_of(blame.cause).contains(&c.name.as_str()) || by_device(c) || by_queue(c);
        self.material.recording.counters.iter().filter(move |c| c.place == blame.place && tells(c))
    }

    /// A neighbour on the way that was asked for and did not answer.
    fn unanswered_arp(&self) -> Option<String> {
        let arps = &self.evidence.arps;
        let on_the_way = |place| self.packets().flat_map(|p| &p.steps).any(|s| s.place == place);
        let asked = arps.iter().find(|a| {
            let answers = |b: &super::sight::ArpSight| b.arp.reply && b.arp.sender == a.arp.target;
            a.outgoing && !a.arp.reply && on_the_way(a.place.clone()) && !arps.iter().any(answers)
        })?;
        Some(format!("{} asked for {} at {} and nobody answered (ARP)", asked.place, asked.arp.target, asked.dev))
    }
}

/// Where a packet was seen last on the way that the state has for it. A bridge that does not know a MAC address
/// floods the frame, and copies are seen elsewhere; they count where the way is not known.
pub fn last_seen(packet: &Packet) -> Option<&Step> {
    let seen = |s: &&Step| s.known_by.contains(&Means::Tap);
    let foreseen = |s: &&Step| seen(s) && s.known_by.iter().any(|m| matches!(m, Means::State | Means::Plan));
    packet.steps.iter().rfind(foreseen).or_else(|| packet.steps.iter().rfind(seen))
}

fn dropped_by(step: &Step) -> Option<String> {
    let (by, did) = match &step.what {
        What::Dropped(drop) => (drop.by.clone(), "dropped"),
        What::Rule(met) if met.verdict == "DROP" => (met.named(), if met.refuses() { "refused" } else { "dropped" }),
        _ => return None,
    };
    Some(format!("{}: the kernel told that `{by}` {did} it", step.place))
}

/// Counters that go up when packets are lost so (proc_net_snmp, /proc/net/stat/nf_conntrack).
fn counters_of(cause: Cause) -> &'static [&'static str] {
    match cause {
        // Without forwarding the kernel counts a packet for others by what its lookup found.
        Cause::ForwardingOff => &["Ip.InAddrErrors", "IpExt.InNoRoutes"],
        Cause::NoRoute | Cause::NoDevice | Cause::LinkDown | Cause::WrongSubnet | Cause::FlanneldDead => {
            &["IpExt.InNoRoutes", "Ip.OutNoRoutes"]
        }
        Cause::ReversePath => &["TcpExt.IPReversePathFilter"],
        Cause::TooBig => &["Ip.FragFails"],
        Cause::TtlExceeded => &["Ip.InHdrErrors"],
        Cause::NoListener | Cause::WrongVni | Cause::WrongTargetPort | Cause::AddressConflict => &["Udp.NoPorts"],
        Cause::ConntrackFull => &["nf_conntrack.drop", "nf_conntrack.early_drop", "nf_conntrack.insert_failed"],
        _ => &[],
    }
}

/// Whether a counter is one of packets that the device at fault lost (`dev cni0 tx_dropped`).
fn is_of_device(counter: &str, object: &str) -> bool {
    let mut words = counter.split(' ');
    let (Some("dev"), Some(dev), Some(what)) = (words.next(), words.next(), words.next()) else { return false };
    object.split(' ').any(|word| word == dev) && (what.ends_with("dropped") || what.ends_with("errors"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_devices_counters_tell_of_a_fault_of_that_device_alone() {
        assert!(is_of_device("dev flannel.1 tx_dropped", "9a:30:17:47:45:83 dev flannel.1"));
        assert!(!is_of_device("dev flannel.1 tx_dropped", "flannel.10"));
        assert!(!is_of_device("dev flannel.1 tx_packets", "flannel.1"));
        assert!(!is_of_device("Ip.InDiscards", "Ip.InDiscards"));
    }
}
