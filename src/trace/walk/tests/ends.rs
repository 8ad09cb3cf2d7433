//! Faults of who is where: neighbours, addresses, the ends of tunnels.

use super::super::Seen;
use super::faults::Spoilt;
use super::*;
use crate::lab::names::IfName;
use crate::plan::{Address, LinkKind, Mac, Neighbour, Route};
use crate::trace::model::Cause;

const OTHER: Mac = Mac([2, 0, 0, 0, 0, 1]);

#[test]
fn a_tunnels_end_with_another_mac_address() {
    let flannel = |p: &mut Plan, host: &str, change: fn(&mut crate::plan::Link)| {
        change(of(p, host).links.iter_mut().find(|l| l.name.as_str() == "flannel.1").expect("a device"));
    };
    Spoilt::new(VXLAN, |p| flannel(p, "host/node2", |l| l.mac = Some(OTHER))).across((
        Cause::WrongVtepMac,
        "node2",
        "flannel.1",
    ));
    let vni = |l: &mut crate::plan::Link| {
        if let LinkKind::Vxlan { vni, .. } = &mut l.kind {
            *vni = 9;
        }
    };
    Spoilt::new(VXLAN, |p| flannel(p, "host/node2", vni)).across((
        Cause::WrongVni,
        "node2",
        "flannel.1 vni 9 port 8472",
    ));
    Spoilt::new(VXLAN, |p| flannel(p, "host/node1", vni)).across((
        Cause::WrongVni,
        "node1",
        "flannel.1 vni 9 port 8472",
    ));
}

#[test]
fn an_fdb_entry_that_is_missing_or_wrong() {
    let mut entry = String::new();
    Spoilt::new(VXLAN, |p| of(p, "host/node1").fdb.retain(|e| e.dst != ip("192.168.1.12"))).across((
        Cause::NoFdbEntry,
        "node1",
        &{
            let plan = plan(VXLAN);
            let node2 = plan.get(&ns("host/node2")).expect("a host");
            format!("{} dev flannel.1", node2.link(&IfName::new("flannel.1")).and_then(|l| l.mac).expect("a MAC"))
        },
    ));
    let spoilt = Spoilt::new(VXLAN, |p| {
        let found = of(p, "host/node1").fdb.iter_mut().find(|e| e.dst == ip("192.168.1.12")).expect("an entry");
        found.dst = ip("192.168.2.11");
        entry = found.to_string();
    });
    spoilt.across((Cause::WrongFdbEntry, "node1", &entry));
}

#[test]
fn a_neighbour_entry_that_is_missing_or_wrong() {
    Spoilt::new(VXLAN, |p| of(p, "host/node1").neighbours.clear()).across((
        Cause::NoNeighbour,
        "node1",
        "10.244.2.0 dev flannel.1",
    ));
    // The other host passes it on, so that it arrives all the same, by a detour.
    let spoilt = Spoilt::new(VXLAN, |p| {
        let node3 = of(p, "host/node3").links.iter().find(|l| l.name.as_str() == "flannel.1").and_then(|l| l.mac);
        let entry = of(p, "host/node1").neighbours.iter_mut().find(|n| n.ip == ip("10.244.2.0")).expect("an entry");
        entry.mac = node3.expect("a MAC address");
    });
    let way = spoilt.ask("pod/default/a1", &tcp("10.244.2.2", 8080));
    assert_eq!((way.seen, way.there.header.ttl), (Seen::Answer, 61));
    let suspects: Vec<_> = way.there.suspects.iter().map(|s| (s.cause, s.object.clone())).collect();
    assert_eq!(suspects, [(Cause::WrongNeighbour, wrong_entry())]);
    Spoilt::new(VXLAN, |p| {
        let entry = Neighbour { dev: IfName::new("eth0"), ip: ip("10.244.1.1"), mac: OTHER };
        of(p, "pod/default/a1").neighbours.push(entry);
    })
    .across((Cause::WrongNeighbour, "a1", "10.244.1.1 dev eth0 lladdr 02:00:00:00:00:01"));
}

#[test]
fn a_flanneld_that_does_not_run() {
    for host in ["node1", "node2"] {
        Spoilt::new("backend: udp", |p| of(p, &format!("host/{host}")).flanneld = None).across((
            Cause::FlanneldDead,
            host,
            "flanneld",
        ));
    }
}

#[test]
fn a_bridge_outside_the_range_that_is_routed_to_it() {
    Spoilt::new(VXLAN, |p| {
        let address = of(p, "host/node2").addresses.iter_mut().find(|a| a.dev.as_str() == "cni0").expect("an address");
        address.net = "10.99.0.1/24".parse().expect("a range");
    })
    .across((Cause::WrongSubnet, "node2", "cni0"));
}

#[test]
fn two_machines_with_one_address() {
    let spoilt = Spoilt::new(VXLAN, |p| {
        let net = "10.244.2.2/24".parse().expect("a range");
        let dev = IfName::new("cni0");
        // Another machine on the same bridge: the host itself.
        of(p, "host/node2").addresses.push(Address { dev, net, broadcast: false, connected: false });
    });
    let way = spoilt.ask("pod/default/a1", &tcp("10.244.2.2", 8080));
    assert_eq!(way.fault.map(|f| f.cause), Some(Cause::AddressConflict));
    let spoilt = Spoilt::new(VXLAN, |p| {
        let net = "192.168.1.12/24".parse().expect("a range");
        of(p, "client/laptop").addresses.push(Address {
            dev: IfName::new("eth0"),
            net,
            broadcast: false,
            connected: true,
        });
    });
    let way = spoilt.ask("pod/default/a1", &tcp("10.244.2.2", 8080));
    let suspects: Vec<_> = way.there.suspects.iter().map(|s| (s.cause, s.object.as_str())).collect();
    assert_eq!(suspects, [(Cause::AddressConflict, "192.168.1.12")]);
}

#[test]
fn a_next_hop_behind_a_router() {
    let probe = tcp("10.244.3.2", 8080);
    let mut plan = plan("backend: host-gw");
    let dst = "10.244.3.0/24".parse().expect("a range");
    let via = Some(ip("192.168.2.11"));
    of(&mut plan, "host/node1").routes.push(Route {
        dst,
        via,
        dev: IfName::new("eth0"),
        onlink: true,
        also: Vec::new(),
    });
    let fault = ask(&plan, "pod/default/a1", &probe).fault.expect("a fault");
    let found = (fault.cause, fault.place.to_string(), fault.object);
    assert_eq!(found, (Cause::NotOnLink, "node1".to_owned(), "192.168.2.11 dev eth0".to_owned()));
}

#[test]
fn what_the_kernel_has_learnt_counts() {
    let mut spoilt = Spoilt::new(VXLAN, |_| {});
    let learnt = Neighbour { dev: IfName::new("eth0"), ip: ip("10.244.1.1"), mac: OTHER };
    spoilt.known.neighbours.push((ns("pod/default/a1"), learnt));
    spoilt.across((Cause::WrongNeighbour, "a1", "10.244.1.1 dev eth0 lladdr 02:00:00:00:00:01"));
}

fn wrong_entry() -> String {
    let plan = plan(VXLAN);
    let node3 = plan.get(&ns("host/node3")).expect("a host");
    let mac = node3.link(&IfName::new("flannel.1")).and_then(|l| l.mac).expect("a MAC address");
    format!("10.244.2.0 dev flannel.1 lladdr {mac}")
}
