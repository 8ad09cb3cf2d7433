//! What namespaces of every kind have: sysctls with known values, MAC addresses, files.

use std::fmt::Write;
use std::net::IpAddr;

use sha2::{Digest, Sha256};

use crate::lab::names::NsName;
use crate::lab::resolver::LOCALHOST;
use crate::lab::{Host, Lab, Pod, Port};

use super::types::{File, Listener, Mac, Sysctl};

/// The MAC address of a device other than a pod's. The kernel would choose one at random; here it follows from the
/// names, so that the plan can write down peers' addresses and a lab looks the same every time.
pub fn mac(ns: &NsName, dev: &str) -> Mac {
    let digest = Sha256::digest(format!("{}/{dev}", ns.path()));
    // Locally administered, and not a group address (IEEE 802).
    Mac([digest[0] & 0xfc | 0x02, digest[1], digest[2], digest[3], digest[4], digest[5]])
}

/// The MAC address of a pod's `eth0`: it follows from its IP address, as CNI's plug-in bridge made it
/// for years (`hwaddr.GenerateHardwareAddr4`). A pod that gets the address of one that went is then
/// found at once, where its neighbours would send to the old one until they ask anew.
pub fn pod_mac(ip: IpAddr) -> Mac {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            Mac([0x0a, 0x58, a, b, c, d])
        }
        IpAddr::V6(ip) => {
            let digest = Sha256::digest(ip.octets());
            Mac([0x0a, 0x58, digest[0], digest[1], digest[2], digest[3]])
        }
    }
}

/// A new namespace inherits the IPv4 settings of the machine's own (`devconf_inherit_init_net`),
/// which differ from machine to machine; these make labs alike.
pub fn sysctls(forwards: bool) -> Vec<Sysctl> {
    let set = |key: &str, value: &str| Sysctl { key: key.to_owned(), value: value.to_owned(), optional: false };
    vec![
        set("net/ipv4/ip_forward", if forwards { "1" } else { "0" }),
        set("net/ipv4/conf/all/rp_filter", "0"),
        set("net/ipv4/conf/default/rp_filter", "0"),
    ]
}

/// Whether frames that a bridge forwards pass iptables (br_netfilter). Kubernetes wants it on
/// hosts, or two pods of one host cannot reach each other through a service; a switch has none.
pub fn bridge_netfilter(on: bool) -> Sysctl {
    let value = if on { "1" } else { "0" }.to_owned();
    Sysctl { key: "net/bridge/bridge-nf-call-iptables".to_owned(), value, optional: true }
}

pub fn listeners(ports: &[Port], host: Option<&Host>, ip: IpAddr) -> Vec<Listener> {
    let host = host.map(|h| h.name.clone());
    ports.iter().map(|p| Listener { protocol: p.protocol, port: p.number, host: host.clone(), ip }).collect()
}

/// The file that has a machine's own name.
const HOSTNAME: &str = "/etc/hostname";

/// The name that processes of a machine with these files see, where they say it.
pub fn hostname(files: &[File]) -> Option<&str> {
    files.iter().find(|f| f.path == HOSTNAME).map(|f| f.content.trim())
}

/// Hosts, clients and the router know each other by name, as machines with a DNS of their own do.
/// Clients also know the names that ingresses have, as a public DNS would tell them.
pub fn machine_files(lab: &Lab, ns: &NsName) -> Vec<File> {
    let mut hosts = LOCALHOST.to_owned();
    let known = lab.hosts.iter().map(|h| (h.ip(), h.name.as_str()));
    let known = known.chain(lab.clients.iter().map(|c| (c.ip(), c.name.as_str())));
    for (ip, name) in known {
        let _ = writeln!(hosts, "{ip}\t{name}");
    }
    if let (NsName::Client(_), Some(ingress)) = (ns, lab.ingress_address()) {
        for name in lab.ingress_hosts() {
            let _ = writeln!(hosts, "{}\t{name}", ingress.ip);
        }
    }
    files(ns.hostname(), hosts, "# no DNS server is known here\n".to_owned())
}

/// A pod's files as kubelet writes them: its own name, with the one behind its subdomain in front,
/// how it resolves names (`GeneratePodHostNameAndDomain`, `ensureHostsFile`).
pub fn pod_files(lab: &Lab, pod: &Pod) -> Vec<File> {
    let cluster = lab.cluster_dns(pod);
    let name = pod.hostname();
    let names = match &pod.subdomain {
        Some(subdomain) => format!("{name}.{subdomain}.{}.svc.{}\t{name}", cluster.namespace, cluster.domain),
        None => name.to_owned(),
    };
    let hosts = format!("# Kubernetes-managed hosts file.\n{LOCALHOST}{}\t{names}\n", pod.ip());
    let resolv = pod.resolver.text(cluster);
    files(name, hosts, resolv)
}

fn files(hostname: &str, hosts: String, resolv: String) -> Vec<File> {
    let file = |path: &str, content: String| File { path: path.to_owned(), content };
    vec![file(HOSTNAME, format!("{hostname}\n")), file("/etc/hosts", hosts), file("/etc/resolv.conf", resolv)]
}
