//! Faults of devices: one that is down, at each kind of place, and one that takes too little.

use crate::lab::names::{IfName, NsName};
use crate::plan::{bridge, underlay};
use crate::trace::model::Cause;

use super::site::{End, route_to};
use super::twist::Bend;
use super::{Change, Chosen, Fault, Lacks, On, PlaceKind, Question, Site, Twist};

/// How much less the device takes than pods send.
const TOO_LITTLE: u32 = 50;

/// A device that is down.
const fn down(name: &'static str, title: &'static str, says: &'static str) -> Fault {
    Fault {
        name,
        title,
        says,
        cause: Cause::LinkDown,
        place: PlaceKind::Host,
        effect: "sets the device down",
        backends: &[],
        needs: "pods on two hosts",
        choose: pod_down,
    }
}

pub const FAULTS: &[Fault] = &[
    Fault {
        place: PlaceKind::Pod,
        choose: pod_down,
        ..down(
            "link-down-pod",
            "A pod's eth0 is down",
            "The pod's own end of its cable is down, so nothing gets in or out.",
        )
    },
    Fault {
        choose: veth_down,
        ..down(
            "link-down-veth",
            "The host's end of a pod's cable is down",
            "The veth that is a port of cni0 for a pod is down.",
        )
    },
    Fault {
        choose: cni0_down,
        ..down(
            "link-down-cni0",
            "The bridge of a host is down",
            "cni0 is down, so the host's pods reach nobody, not even their gateway.",
        )
    },
    Fault {
        choose: host_down,
        ..down(
            "link-down-host",
            "A host's eth0 is down",
            "The host's own cable is down, so its pods are cut off with it.",
        )
    },
    Fault {
        backends: &["vxlan", "udp"],
        choose: flannel_down,
        ..down(
            "link-down-flannel",
            "flannel's device is down",
            "The device that pods' packets leave a host by is down, and its routes are gone with it.",
        )
    },
    Fault {
        place: PlaceKind::Router,
        choose: port_down,
        ..down("link-down-router-port", "A port of the switch is down", "The switch's end of a host's cable is down.")
    },
    Fault {
        place: PlaceKind::Router,
        choose: switch_down,
        ..down(
            "link-down-switch",
            "A switch is down",
            "The switch of a network is down, and with it the router's address there.",
        )
    },
    Fault {
        place: PlaceKind::Client,
        needs: "a client",
        choose: client_down,
        ..down("link-down-client", "A client's eth0 is down", "The cluster is well, and the one who asks is not.")
    },
    Fault {
        name: "mtu-too-large",
        title: "Pods send more than the way takes",
        says: "The device that leads to the other host takes smaller packets than pods were told to send, and these must not be fragmented.",
        cause: Cause::TooBig,
        place: PlaceKind::Host,
        effect: "lowers the MTU of the device that leads to the other host by 50 bytes on the asker's host",
        backends: &[],
        needs: "pods on two hosts",
        choose: mtu,
    },
];

fn is_down(ns: NsName, on: String, dev: IfName, question: Question) -> Chosen {
    let change = Change::Machines(vec![Twist::new(ns.clone(), Bend::Down(dev.clone()))]);
    Chosen { on, place: ns, object: dev.to_string(), question, change }
}

fn pod_down(site: &Site) -> Result<Chosen, Lacks> {
    let (from, pod) = site.asked_pod()?;
    let question = Question::ping(from, &pod.id);
    Ok(is_down(pod.ns(), format!("pod {}", pod.id), IfName::new("eth0"), question))
}

fn veth_down(site: &Site) -> Result<Chosen, Lacks> {
    let (from, pod) = site.asked_pod()?;
    let (host, question) = (NsName::Host(pod.host.clone()), Question::ping(from, &pod.id));
    Ok(is_down(host, format!("pod {} on {}", pod.id, pod.host), pod.veth.clone(), question))
}

fn at_host(site: &Site, dev: impl Fn(&crate::lab::Host) -> Option<IfName>) -> Result<Chosen, Lacks> {
    let pair = site.any_pair(End::Asked)?;
    let dev = dev(pair.peer).ok_or("the host has no such device")?;
    let question = Question::ping(pair.from.ns(), &pair.to.id);
    Ok(is_down(pair.peer.ns(), pair.peer.name.to_string(), dev, question))
}

fn cni0_down(site: &Site) -> Result<Chosen, Lacks> {
    at_host(site, |_| Some(bridge::cni0()))
}

fn host_down(site: &Site) -> Result<Chosen, Lacks> {
    at_host(site, |_| Some(IfName::new("eth0")))
}

fn flannel_down(site: &Site) -> Result<Chosen, Lacks> {
    let pair = site.pair(End::Asked, "pods on two hosts that flannel's device joins", |host, peer| {
        let of = |h: &crate::lab::Host, p: &crate::lab::Host| {
            site.plan.get(&h.ns()).and_then(|ns| route_to(ns, p.pod_cidr.network()).ok().map(|r| r.dev.clone()))
        };
        of(host, peer).is_some_and(|dev| dev.as_str() != "eth0")
    })?;
    let dev = route_to(site.ns(&pair.peer.ns())?, pair.from.ip())?.dev.clone();
    let question = Question::ping(pair.from.ns(), &pair.to.id);
    Ok(is_down(pair.peer.ns(), pair.peer.name.to_string(), dev, question))
}

fn port_down(site: &Site) -> Result<Chosen, Lacks> {
    let pair = site.any_pair(End::Asked)?;
    let question = Question::ping(pair.from.ns(), &pair.to.id);
    let port = underlay::port_name(&pair.peer.ns());
    Ok(is_down(NsName::Router, format!("the port of {}", pair.peer.name), port, question))
}

fn switch_down(site: &Site) -> Result<Chosen, Lacks> {
    let pair = site.any_pair(End::Asked)?;
    let network = site.lab.network_of(&pair.peer.attachment);
    let question = Question::ping(pair.from.ns(), &pair.to.id);
    Ok(is_down(NsName::Router, format!("network {}", network.name), underlay::bridge_name(network), question))
}

fn client_down(site: &Site) -> Result<Chosen, Lacks> {
    let client = match &site.on {
        Some(On::Machine(ns)) => {
            site.lab.clients.iter().find(|c| c.ns() == *ns).ok_or_else(|| site.nowhere("a client"))?
        }
        _ => site.client()?,
    };
    let host = site.lab.hosts.first().ok_or("the lab has no host")?;
    let question = Question::ping(client.ns(), &host.name);
    Ok(is_down(client.ns(), client.name.to_string(), IfName::new("eth0"), question))
}

fn mtu(site: &Site) -> Result<Chosen, Lacks> {
    let pair = site.any_pair(End::Asker)?;
    let host = site.ns(&pair.host.ns())?;
    let dev = route_to(host, pair.to.ip())?.dev.clone();
    let eth0 = IfName::new("eth0");
    let size = site.ns(&pair.from.ns())?.link(&eth0).map(|l| l.mtu).ok_or("the pod has no eth0")?;
    let mtu =
        host.link(&dev).map(|l| l.mtu.min(size).saturating_sub(TOO_LITTLE)).ok_or("the host has no such device")?;
    let question = Question { size: Some(size), ..Question::ping(pair.from.ns(), &pair.to.id) };
    Ok(Chosen {
        on: pair.host.name.to_string(),
        place: pair.host.ns(),
        object: dev.to_string(),
        question,
        change: Change::Machines(vec![Twist::new(pair.host.ns(), Bend::SetMtu { dev, mtu })]),
    })
}
