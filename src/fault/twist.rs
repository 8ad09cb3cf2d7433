//! Changes of what machines hold, as changes of a plan: of one that is to be, or of one that was read
//! back, so that what somebody did by hand stays beside the fault.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::lab::names::{IfName, NsName};
use crate::plan::{Address, LinkKind, Mac, NsPlan, Plan, Route, Sysctl};

/// One change in one namespace.
#[derive(Debug, Clone, PartialEq)]
pub struct Twist {
    pub ns: NsName,
    pub bend: Bend,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Bend {
    /// A setting under /proc/sys.
    Setting {
        key: String,
        value: String,
    },
    RemoveRoute(IpNet),
    AddRoute(Route),
    RemoveNeighbour(IpAddr),
    SetNeighbour {
        ip: IpAddr,
        mac: Mac,
    },
    RemoveFdb(Mac),
    SetFdb {
        mac: Mac,
        dst: IpAddr,
    },
    SetMac {
        dev: IfName,
        mac: Mac,
    },
    SetMtu {
        dev: IfName,
        mtu: u32,
    },
    /// Another VNI and UDP port for a VXLAN device.
    SetTunnel {
        dev: IfName,
        vni: u32,
        port: u16,
    },
    /// A device goes down, and with it what the kernel takes away: routes and neighbour entries.
    Down(IfName),
    AddAddress {
        dev: IfName,
        net: IpNet,
    },
    /// A device loses its addresses.
    RemoveAddress(IfName),
    /// The only address of a device becomes another one.
    SetAddress {
        dev: IfName,
        net: IpNet,
    },
    Policy {
        chain: &'static str,
        policy: &'static str,
    },
    /// A rule at the top of a chain.
    Insert {
        table: &'static str,
        chain: &'static str,
        rule: String,
    },
    /// Rules of a built-in chain that lead to this chain are taken out.
    Unhook {
        table: &'static str,
        chain: &'static str,
        target: &'static str,
    },
    /// flanneld ends, and with it its TUN device and what belongs to that.
    WithoutFlanneld,
    /// The DNS server of a pod ends.
    WithoutDns,
    /// Nobody listens on a port any more.
    Deaf(u16),
}

impl Twist {
    pub fn new(ns: NsName, bend: Bend) -> Twist {
        Twist { ns, bend }
    }
}

/// Make these changes to a plan. What is not there cannot be changed and is passed over.
pub fn apply(twists: &[Twist], plan: &mut Plan) {
    for twist in twists {
        if let Some(ns) = plan.namespaces.iter_mut().find(|n| n.ns == twist.ns) {
            bend(&twist.bend, ns);
        }
    }
}

/// Where a device is to be down and is, its addresses are as they are planned, only without what the kernel
/// gives them on a device that is up.
pub fn settle(there: &mut Plan, wanted: &Plan) {
    for ns in &mut there.namespaces {
        let Some(wanted) = wanted.get(&ns.ns) else { continue };
        let down = |dev: &IfName| {
            [&*ns.links, &wanted.links].iter().all(|links| links.iter().any(|l| l.name == *dev && !l.up))
        };
        ns.addresses.iter_mut().filter(|a| down(&a.dev)).for_each(|a| a.connected = true);
    }
}

fn bend(bend: &Bend, ns: &mut NsPlan) {
    match bend {
        Bend::Setting { key, value } => set(ns, key, value),
        Bend::RemoveRoute(dst) => ns.routes.retain(|r| r.dst != *dst),
        Bend::AddRoute(route) => ns.routes.push(route.clone()),
        Bend::RemoveNeighbour(ip) => ns.neighbours.retain(|n| n.ip != *ip),
        Bend::SetNeighbour { ip, mac } => ns.neighbours.iter_mut().filter(|n| n.ip == *ip).for_each(|n| n.mac = *mac),
        Bend::RemoveFdb(mac) => ns.fdb.retain(|e| e.mac != *mac),
        Bend::SetFdb { mac, dst } => ns.fdb.iter_mut().filter(|e| e.mac == *mac).for_each(|e| e.dst = *dst),
        Bend::AddAddress { dev, net } => {
            ns.addresses.push(Address { dev: dev.clone(), net: *net, broadcast: false, connected: true });
        }
        Bend::RemoveAddress(dev) => ns.addresses.retain(|a| a.dev != *dev),
        Bend::SetAddress { dev, net } => ns.addresses.iter_mut().filter(|a| a.dev == *dev).for_each(|a| a.net = *net),
        Bend::SetMac { .. } | Bend::SetMtu { .. } | Bend::SetTunnel { .. } | Bend::Down(_) => bend_link(bend, ns),
        Bend::Policy { .. } | Bend::Insert { .. } | Bend::Unhook { .. } => bend_rules(bend, ns),
        Bend::WithoutFlanneld => {
            if let Some(flanneld) = ns.flanneld.take() {
                ns.links.retain(|l| l.name != flanneld.tun);
                ns.addresses.retain(|a| a.dev != flanneld.tun);
                ns.routes.retain(|r| r.dev != flanneld.tun);
            }
        }
        Bend::WithoutDns => ns.dns = None,
        Bend::Deaf(port) => ns.listeners.retain(|l| l.port != *port),
    }
}

fn set(ns: &mut NsPlan, key: &str, value: &str) {
    match ns.sysctls.iter_mut().find(|s| s.key == key) {
        Some(sysctl) => value.clone_into(&mut sysctl.value),
        None => ns.sysctls.push(Sysctl { key: key.to_owned(), value: value.to_owned(), optional: false }),
    }
}

fn bend_link(bend: &Bend, ns: &mut NsPlan) {
    let (Bend::SetMac { dev, .. } | Bend::SetMtu { dev, .. } | Bend::SetTunnel { dev, .. } | Bend::Down(dev)) = bend
    else {
        return;
    };
    let Some(link) = ns.links.iter_mut().find(|l| l.name == *dev) else { return };
    match bend {
        Bend::SetMac { mac, .. } => link.mac = Some(*mac),
        Bend::SetMtu { mtu, .. } => link.mtu = *mtu,
        Bend::SetTunnel { vni, port, .. } => {
            if let LinkKind::Vxlan { vni: of_link, port: at, .. } = &mut link.kind {
                (*of_link, *at) = (*vni, *port);
            }
        }
        _ => {
            link.up = false;
            ns.routes.retain(|r| r.devices().all(|d| d != dev));
            ns.neighbours.retain(|n| n.dev != *dev);
        }
    }
}

fn bend_rules(bend: &Bend, ns: &mut NsPlan) {
    match bend {
        Bend::Policy { chain, policy } => {
            ns.rules.table("filter").chain(chain).policy = Some((*policy).to_owned());
        }
        Bend::Insert { table, chain, rule } => ns.rules.table(table).chain(chain).rules.insert(0, rule.clone()),
        Bend::Unhook { table, chain, target } => {
            let jump = format!("-j {target}");
            ns.rules.table(table).chain(chain).rules.retain(|rule| !rule.ends_with(&jump));
        }
        _ => {}
    }
    ns.rules.sort();
}
