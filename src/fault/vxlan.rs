//! Faults of flannel's vxlan back end: the three entries that it writes for each peer, and the tunnel's ends.

use crate::plan::{FdbEntry, LinkKind, Mac};
use crate::trace::model::Cause;

use super::site::{End, Pair, route_to, tunnel};
use super::twist::Bend;
use super::{Change, Chosen, Fault, Lacks, PlaceKind, Question, Site, Twist};

/// A MAC address that no lab gives.
const STRANGER: Mac = Mac([0x02, 0, 0, 0, 0xba, 0xd1]);

const fn of_vxlan(name: &'static str, title: &'static str, says: &'static str) -> Fault {
    Fault {
        name,
        title,
        says,
        cause: Cause::NoFdbEntry,
        place: PlaceKind::Host,
        effect: "",
        backends: &["vxlan"],
        needs: "pods on two hosts that VXLAN joins",
        choose: fdb_missing,
    }
}

pub const FAULTS: &[Fault] = &[
    Fault {
        cause: Cause::NoFdbEntry,
        effect: "deletes the forwarding entry of the asked pod's host on the asker's host",
        choose: fdb_missing,
        ..of_vxlan(
            "fdb-missing",
            "A forwarding entry is missing",
            "flannel.1 does not know which host has the peer's MAC address, and drops the frame.",
        )
    },
    Fault {
        cause: Cause::WrongFdbEntry,
        effect: "lets the forwarding entry of the asked pod's host name the asker's own gateway",
        choose: fdb_wrong,
        ..of_vxlan(
            "fdb-wrong",
            "A forwarding entry names another machine",
            "flannel.1 sends the peer's frames to a machine that is not the peer.",
        )
    },
    Fault {
        cause: Cause::NoNeighbour,
        effect: "deletes the neighbour entry of the asked pod's host on the asker's host",
        choose: neighbour_missing,
        ..of_vxlan(
            "neighbour-missing",
            "A neighbour entry is missing",
            "flannel.1 has no MAC address for the peer, and nobody answers when it asks for one.",
        )
    },
    Fault {
        cause: Cause::WrongNeighbour,
        effect: "gives the neighbour entry of the asked pod's host a MAC address that nobody has",
        choose: neighbour_wrong,
        ..of_vxlan(
            "neighbour-wrong",
            "A neighbour entry has the wrong MAC address",
            "Frames for the peer carry a MAC address that is not its VTEP's.",
        )
    },
    Fault {
        cause: Cause::WrongVtepMac,
        effect: "gives flannel.1 of the asked pod's host another MAC address, of which the others know nothing",
        choose: vtep_mac_wrong,
        ..of_vxlan(
            "vtep-mac-wrong",
            "A VTEP has another MAC address",
            "flannel.1 of a host was made anew with another MAC address, and the peers still send to the old one.",
        )
    },
    Fault {
        cause: Cause::WrongVni,
        effect: "makes flannel.1 of the asked pod's host anew with another VNI",
        choose: vni_wrong,
        ..of_vxlan(
            "vni-wrong",
            "A host has another VNI",
            "A VTEP takes only packets of its own VNI, and that of one host differs.",
        )
    },
    Fault {
        cause: Cause::WrongVni,
        effect: "makes flannel.1 of the asked pod's host anew with another UDP port",
        choose: port_wrong,
        ..of_vxlan(
            "vxlan-port-wrong",
            "A host has another VXLAN port",
            "Linux' default is 8472 and IANA's 4789, and a host listens on the one while its peers send to the other.",
        )
    },
];

/// Two pods that VXLAN joins, with the peer's forwarding entry on the asker's host.
fn joined<'a>(site: &Site<'a>, at: End) -> Result<(Pair<'a>, &'a FdbEntry), Lacks> {
    let entry = |host: &crate::lab::Host, peer: &crate::lab::Host| {
        site.plan.get(&host.ns()).and_then(|ns| ns.fdb.iter().find(|e| e.dst == peer.ip()))
    };
    let pair = site.pair(at, "pods on two hosts that VXLAN joins", |host, peer| entry(host, peer).is_some())?;
    let entry = entry(pair.host, pair.peer).ok_or("the peer has no forwarding entry")?;
    Ok((pair, entry))
}

fn chosen(pair: Pair, end: End, object: String, bend: Bend) -> Chosen {
    let host = if end == End::Asker { pair.host } else { pair.peer };
    Chosen {
        on: host.name.to_string(),
        place: host.ns(),
        object,
        question: Question::ping(pair.from.ns(), &pair.to.id),
        change: Change::Machines(vec![Twist::new(host.ns(), bend)]),
    }
}

fn fdb_missing(site: &Site) -> Result<Chosen, Lacks> {
    let (pair, entry) = joined(site, End::Asker)?;
    Ok(chosen(pair, End::Asker, entry.mac.to_string(), Bend::RemoveFdb(entry.mac)))
}

fn fdb_wrong(site: &Site) -> Result<Chosen, Lacks> {
    let (pair, entry) = joined(site, End::Asker)?;
    let dst = site.lab.network_of(&pair.host.attachment).gateway.addr();
    Ok(chosen(pair, End::Asker, entry.mac.to_string(), Bend::SetFdb { mac: entry.mac, dst }))
}

/// The next hop of the route to the asked pod.
fn far_end(site: &Site, pair: &Pair) -> Result<std::net::IpAddr, Lacks> {
    let route = route_to(site.ns(&pair.host.ns())?, pair.to.ip())?;
    route.via.ok_or_else(|| "the route has no next hop".into())
}

fn neighbour_missing(site: &Site) -> Result<Chosen, Lacks> {
    let (pair, _) = joined(site, End::Asker)?;
    let ip = far_end(site, &pair)?;
    Ok(chosen(pair, End::Asker, ip.to_string(), Bend::RemoveNeighbour(ip)))
}

fn neighbour_wrong(site: &Site) -> Result<Chosen, Lacks> {
    let (pair, _) = joined(site, End::Asker)?;
    let ip = far_end(site, &pair)?;
    Ok(chosen(pair, End::Asker, ip.to_string(), Bend::SetNeighbour { ip, mac: STRANGER }))
}

fn vtep_mac_wrong(site: &Site) -> Result<Chosen, Lacks> {
    let (pair, _) = joined(site, End::Asked)?;
    let dev = tunnel(site.ns(&pair.peer.ns())?)?.name.clone();
    Ok(chosen(pair, End::Asked, dev.to_string(), Bend::SetMac { dev, mac: STRANGER }))
}

/// Another tunnel on the asked pod's host, of what its VNI and port are made.
fn other_tunnel(site: &Site, other: fn(u32, u16) -> (u32, u16)) -> Result<Chosen, Lacks> {
    let (pair, _) = joined(site, End::Asked)?;
    let link = tunnel(site.ns(&pair.peer.ns())?)?;
    let LinkKind::Vxlan { vni, port, .. } = link.kind else { return Err("the host has no VXLAN device".into()) };
    let (vni, port) = other(vni, port);
    let dev = link.name.clone();
    Ok(chosen(pair, End::Asked, dev.to_string(), Bend::SetTunnel { dev, vni, port }))
}

fn vni_wrong(site: &Site) -> Result<Chosen, Lacks> {
    // One that differs in its lowest bit is valid wherever the first is.
    other_tunnel(site, |vni, port| (if vni > 1 { vni ^ 1 } else { 2 }, port))
}

fn port_wrong(site: &Site) -> Result<Chosen, Lacks> {
    other_tunnel(site, |vni, port| (vni, if port == 4789 { 8472 } else { 4789 }))
}
