//! A trace laid beside the walk through the planned lab, with the endpoint chosen that was chosen: the
//! same devices in the same order, the same rules that decide, and what the asker saw.

use std::net::{IpAddr, SocketAddr};

use labctl::lab::names::NsName;
use labctl::plan::Plan;
use labctl::trace::model::{Direction, Flow, Header, Means, Packet, Role, Step, Trace, What};
use labctl::trace::walk::{self, Choices, Exchange, Path, Probe, Seen, State};

use crate::labs::Written;
use crate::seen;

/// Say where both differ.
pub fn differences(trace: &Trace, written: &Written) -> Vec<String> {
    let mut wrong = Vec::new();
    for flow in trace.flows.iter().filter(|f| matches!(f.role, Role::Request | Role::NameLookup)) {
        let Some(exchange) = exchange(&written.plan, &trace.asked.from, flow) else {
            wrong.push(format!("nothing is predicted of the {:?}", flow.role));
            continue;
        };
        let first = |direction| flow.packets.iter().find(|p| p.direction == direction);
        if let Some(packet) = first(Direction::There) {
            wrong.extend(of_packet(packet, &exchange.there));
        }
        match (first(Direction::Back), &exchange.back) {
            (Some(packet), Some(back)) => wrong.extend(of_packet(packet, back)),
            (Some(packet), None) => wrong.push(format!("packet {} came back, which was not predicted", packet.number)),
            (None, Some(back)) if devices_of(&back.steps, |_| true).is_empty() => {}
            (None, Some(back)) => wrong.push(format!("{} from {} was predicted to come back", back.kind, back.from)),
            (None, None) => {}
        }
        if flow.role == Role::Request && !agrees(exchange.seen, trace) {
            wrong.push(format!("{:?} was predicted, and {}", exchange.seen, trace.asked.seen));
        }
    }
    if trace.flows.iter().all(|f| f.role != Role::Request) && trace.asked.tried.is_some() {
        let nothing_goes = trace.verdict.fault.is_some() && !trace.asked.answered;
        if !nothing_goes {
            wrong.push("no request is told, and no fault".into());
        }
    }
    wrong.extend(trace.parting.iter().map(|p| format!("a parting is told where nothing is broken: {p:?}")));
    wrong
}

fn exchange(plan: &Plan, from: &NsName, flow: &Flow) -> Option<Exchange> {
    let tap = flow.packets.first()?.steps.iter().find(|s| s.known_by.contains(&Means::Tap));
    let (source, destination) = (&flow.source, &flow.destination);
    let usual = || Probe::to(flow.protocol, destination.ip, destination.port).header;
    // A machine's own rules translate a packet before any tap sees it.
    let header = Header {
        macs: None,
        source: source.ip,
        source_port: source.port,
        destination: destination.ip,
        destination_port: destination.port,
        ..tap.and_then(|s| s.header.clone()).unwrap_or_else(usual)
    };
    let probe = Probe { header, first: true };
    let targets = flow.translations.iter().map(|t| SocketAddr::new(t.reply.0.ip, t.reply.0.port)).collect();
    walk::exchange(
        &State::planned(plan),
        from,
        &probe,
        &Choices::Following { targets, hops: hops(plan, flow), entries: Vec::new() },
    )
}

/// The addresses of each machine to which another one passed the flow's first packet on.
fn hops(plan: &Plan, flow: &Flow) -> Vec<(NsName, IpAddr)> {
    let first = flow.packets.first().into_iter().flat_map(|packet| &packet.steps);
    let seen: Vec<&Step> = first.filter(|s| s.known_by.contains(&Means::Tap)).collect();
    let passed_on = seen.windows(2).filter(|pair| pair[0].place != pair[1].place);
    passed_on
        .flat_map(|pair| {
            let addresses = plan.get(&pair[1].place).map(|ns| ns.addresses.as_slice()).unwrap_or_default();
            addresses.iter().map(|address| (pair[0].place.clone(), address.net.addr()))
        })
        .collect()
}

/// Place, device, outwards or not, and layer.
type Device = (String, String, bool, u8);

fn devices_of(steps: &[Step], which: impl Fn(&Step) -> bool) -> Vec<Device> {
    let at_device = |s: &&Step| {
        which(s)
            && match &s.what {
                What::In | What::Out | What::Bridged { port: None, flooded: false, .. } => true,
                What::Decapsulated { .. } => s.dev.is_some(),
                _ => false,
            }
    };
    let device = |s: &Step| {
        let dev = s.dev.as_ref().map(ToString::to_string).unwrap_or_default();
        (s.place.to_string(), dev, seen::is_outgoing(s), s.layer)
    };
    steps.iter().filter(at_device).map(device).collect()
}

fn of_packet(packet: &Packet, path: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    let (observed, predicted) =
        (devices_of(&packet.steps, |s| s.known_by.contains(&Means::Tap)), devices_of(&path.steps, |_| true));
    let observed = without_bridge_devices(observed, &predicted);
    if observed != predicted {
        let at = observed.iter().zip(&predicted).take_while(|(a, b)| a == b).count();
        let (seen, should) = (observed.get(at), predicted.get(at));
        wrong
            .push(format!("packet {} ({}): device {at} is {seen:?}, predicted {should:?}", packet.number, packet.kind));
    }
    let (observed, predicted) = (deciding(&packet.steps), deciding(&path.steps));
    if observed != predicted {
        wrong.push(format!("packet {}: rules {observed:?}, predicted {predicted:?}", packet.number));
    }
    wrong
}

/// A bridged packet that was translated leaves by the bridge's own device, too, where the neighbour's entry
/// has grown old (`br_nf_pre_routing_finish_bridge`), which no plan knows.
fn without_bridge_devices(mut observed: Vec<Device>, predicted: &[Device]) -> Vec<Device> {
    for at in 1..observed.len() {
        let (place, dev, outgoing, _) = &observed[at];
        let is_bridge = *outgoing && dev == "cni0" && predicted.get(at) != Some(&observed[at]);
        let was_bridged = observed[..at].iter().any(|(p, d, out, _)| p == place && d.starts_with("veth") && !out);
        if is_bridge && was_bridged && predicted.get(at) == observed.get(at + 1) {
            observed.remove(at);
            break;
        }
    }
    observed
}

/// The rules that changed the packet or ended it.
fn deciding(steps: &[Step]) -> Vec<(String, String)> {
    let decides = |rule: &str| {
        ["DNAT", "SNAT", "MASQUERADE", "DROP", "REJECT"].iter().any(|target| rule.contains(&format!("-j {target}")))
    };
    let rule = |s: &Step| match &s.what {
        What::Rule(met) if decides(&met.rule) => Some((s.place.to_string(), met.rule.clone())),
        What::Dropped(drop) if decides(&drop.by) => Some((s.place.to_string(), drop.by.clone())),
        _ => None,
    };
    steps.iter().filter_map(rule).collect()
}

fn agrees(seen: Seen, trace: &Trace) -> bool {
    let says = |words: &[&str]| words.iter().any(|w| trace.asked.seen.contains(w));
    match seen {
        // An answer may say no.
        Seen::Answer => trace.asked.answered || says(&[" answers "]),
        Seen::Refused => says(&["refused"]),
        Seen::Unreachable => says(&["unreachable"]),
        Seen::TooBig => says(&["too big", "too-big", "too large", "MTU"]),
        Seen::TtlExceeded => says(&["TTL", "time to live"]),
        Seen::NotPermitted => says(&["a rule of the sender's own drops"]),
        Seen::Timeout => says(&["no answer", "timeout", "nothing", "within"]),
    }
}
