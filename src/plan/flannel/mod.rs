//! flanneld's work on a host: the subnet lease and its file, the masquerading and forwarding
//! rules, and the back end's device and routes. What only one back end does is in its own file.

mod host_gw;
mod udp;
mod vxlan;

use std::net::IpAddr;

use serde::Serialize;

use crate::lab::names::IfName;
use crate::lab::{Backend, Host, Lab};

use super::bridge;
use super::machine::mac;
use super::types::{File, Mac, NsPlan};

/// The index of flannel's device on a host.
const DEVICE_INDEX: u32 = 3;

/// Everything that flanneld leaves on `host`.
pub fn add(lab: &Lab, host: &Host, ns: &mut NsPlan) {
    match lab.cluster.backend {
        Backend::Vxlan { vni, port, direct_routing } => {
            vxlan::add(lab, host, &vxlan::Options { vni, port, direct_routing }, ns);
        }
        Backend::HostGw => host_gw::add(lab, host, ns),
        Backend::Udp { port } => udp::add(lab, host, port, ns),
    }
    rules(lab, host, ns);
    ns.files.push(File { path: "/run/flannel/subnet.env".to_owned(), content: subnet_env(lab, host) });
}

/// The largest packet that a pod may send: the host's own, less what the back end puts around it.
pub fn pod_mtu(lab: &Lab, host: &Host) -> u32 {
    lab.network_of(&host.attachment).mtu - overhead(lab)
}

/// Bytes that the back end puts around a packet that it carries to another host.
pub fn overhead(lab: &Lab) -> u32 {
    match lab.cluster.backend {
        // Inner Ethernet 14, IP 20, UDP 8, VXLAN 8 (RFC 7348).
        Backend::Vxlan { .. } => 50,
        // IP 20, UDP 8.
        Backend::Udp { .. } => 28,
        Backend::HostGw => 0,
    }
}

/// The other hosts, in file order.
fn peers<'a>(lab: &'a Lab, host: &'a Host) -> impl Iterator<Item = &'a Host> {
    lab.hosts.iter().filter(move |h| h.name != host.name)
}

/// The subnet's own address with /32, which flannel's device has.
fn device_address(host: &Host) -> ipnet::IpNet {
    ipnet::IpNet::from(host.pod_cidr.network())
}

fn subnet_env(lab: &Lab, host: &Host) -> String {
    format!(
        "FLANNEL_NETWORK={}\nFLANNEL_SUBNET={}\nFLANNEL_MTU={}\nFLANNEL_IPMASQ={}\n",
        lab.cluster.pod_cidr,
        bridge::gateway(host),
        pod_mtu(lab, host),
        lab.cluster.ip_masq
    )
}

/// flannel's trafficmngr: FLANNEL-POSTRTG decides which packets get the host's address, and
/// FLANNEL-FWD lets pods' packets through a FORWARD chain that drops.
fn rules(lab: &Lab, host: &Host, ns: &mut NsPlan) {
    let (net, pods) = (lab.cluster.pod_cidr, host.pod_cidr);
    const MASQ: &str = "-m comment --comment \"flanneld masq\"";
    const FORWARD: &str = "-m comment --comment \"flanneld forward\"";
    let filter = ns.rules.table("filter");
    filter.chain("FORWARD").add(format!("{FORWARD} -j FLANNEL-FWD"));
    let forward = filter.chain("FLANNEL-FWD");
    forward.add(format!("-s {net} {FORWARD} -j ACCEPT"));
    forward.add(format!("-d {net} {FORWARD} -j ACCEPT"));
    if lab.cluster.ip_masq {
        let nat = ns.rules.table("nat");
        nat.chain("POSTROUTING").add(format!("{MASQ} -j FLANNEL-POSTRTG"));
        let masq = nat.chain("FLANNEL-POSTRTG");
        masq.add(format!("-m mark --mark 0x4000/0x4000 {MASQ} -j RETURN"));
        masq.add(format!("-s {pods} -d {net} {MASQ} -j RETURN"));
        masq.add(format!("-s {net} -d {pods} {MASQ} -j RETURN"));
        masq.add(format!("! -s {net} -d {pods} {MASQ} -j RETURN"));
        masq.add(format!("-s {net} ! -d 224.0.0.0/4 {MASQ} -j MASQUERADE --random-fully"));
        masq.add(format!("! -s {net} -d {net} {MASQ} -j MASQUERADE --random-fully"));
    }
    ns.rules.sort();
}

/// A lease as flannel keeps it in etcd, in its own field names and order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Lease {
    #[serde(rename = "PublicIP")]
    pub public_ip: IpAddr,
    #[serde(rename = "PublicIPv6")]
    pub public_ipv6: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend_data: Option<VxlanData>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VxlanData {
    #[serde(rename = "VNI")]
    pub vni: u32,
    #[serde(rename = "VtepMAC")]
    pub vtep_mac: Mac,
}

/// The lease that `host` holds.
pub fn lease(lab: &Lab, host: &Host) -> Lease {
    let (backend_type, backend_data) = match lab.cluster.backend {
        Backend::Vxlan { vni, .. } => (Some("vxlan"), Some(VxlanData { vni, vtep_mac: vxlan::vtep_mac(host, vni) })),
        Backend::HostGw => (Some("host-gw"), None),
        Backend::Udp { .. } => (None, None),
    };
    let backend_type = backend_type.map(str::to_owned);
    Lease { public_ip: host.ip(), public_ipv6: None, backend_type, backend_data }
}

/// The name of the back end's device, where it has one.
pub fn device(backend: &Backend) -> Option<IfName> {
    match backend {
        Backend::Vxlan { vni, .. } => Some(vxlan::device(*vni)),
        Backend::HostGw => None,
        Backend::Udp { .. } => Some(udp::device()),
    }
}

fn device_mac(host: &Host, dev: &IfName) -> Mac {
    mac(&host.ns(), dev.as_str())
}
