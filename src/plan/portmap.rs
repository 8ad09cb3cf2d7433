//! What the chained CNI plug-in portmap makes of pods' `hostPort`s: rules that lead a port of the host
//! to the pod (`portmap.go` of the reference plug-ins, its iptables back end with default settings,
//! in network `cbr0` as flannel's manifests call it), and the sysctl by which 127.0.0.1 works, too.
//!
//! Beside them stands which flows of UDP must be forgotten. Which pods may share a host is decided in
//! `lab`, and who meets a packet first follows from the order of the built-in chains: kube-proxy puts
//! its jumps to the top of PREROUTING and OUTPUT, portmap its own to their end and that of POSTROUTING
//! to the top ([`top`]).

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use sha2::{Digest, Sha256, Sha512};

use crate::lab::names::PodId;
use crate::lab::{Host, HostPort, Lab, Pod, Port};
use crate::spec::value::Protocol;

use super::bridge;
use super::rules::Chain;
use super::types::{NsPlan, Sysctl};

/// The network's name in flannel's CNI configuration, part of comments and of chains' names.
pub const NETWORK: &str = "cbr0";
/// Every new connection to an address of the host comes here.
pub const DNAT: &str = "CNI-HOSTPORT-DNAT";
/// Marks packets that must get an address of the host.
pub const SETMARK: &str = "CNI-HOSTPORT-SETMARK";
/// Gives it to them.
pub const MASQ: &str = "CNI-HOSTPORT-MASQ";
/// Each pod's own chain begins so.
pub const OF_POD: &str = "CNI-DN-";

/// Bit 13: kube-proxy has 14, and 15 was the kubelet's.
const MARK: &str = "0x2000/0x2000";
/// The length of a chain's name (`maxChainLength`).
const CHAIN_LENGTH: usize = 28;
/// The most ports of one rule with `-m multiport`.
const MULTIPORT: usize = 15;

/// The id of a pod's sandbox container, 64 hex digits as containerd has it. There it is random; here
/// it follows from the name, so that a plan can be compared with the next one.
pub fn container_id(pod: &PodId) -> String {
    hex(&Sha256::digest(format!("sandbox/{}/{}", pod.namespace, pod.name)))
}

/// The chain of a pod: the prefix and as much of a SHA-512 over network name and container id as
/// there is room for (`MustFormatHashWithPrefix`).
pub fn chain_of(network: &str, container_id: &str) -> String {
    let mut name = OF_POD.to_owned() + &hex(&Sha512::digest(format!("{network}{container_id}")));
    name.truncate(CHAIN_LENGTH);
    name
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// The ports of a pod that its host leads to it. Those with an address of the other family are passed
/// over, as portmap does.
pub fn ports(pod: &Pod) -> impl Iterator<Item = (&Port, &HostPort)> {
    let family = pod.ip().is_ipv4();
    let fits = move |host: &HostPort| host.ip.is_none_or(|ip| ip.is_ipv4() == family);
    pod.ports().filter_map(|port| Some((port, port.host_port.as_ref()?))).filter(move |(_, host)| fits(host))
}

/// Everything that portmap leaves on `host`: nothing where no pod there asks for a port.
pub fn add(lab: &Lab, host: &Host, ns: &mut NsPlan) {
    let pods: Vec<&Pod> = lab.pods_on(&host.name).filter(|pod| ports(pod).next().is_some()).collect();
    if pods.is_empty() {
        return;
    }
    let nat = ns.rules.table("nat");
    let posted = format!("-m comment --comment \"CNI portfwd requiring masquerade\" -j {MASQ}");
    // In front of flannel's and whoever else's masquerading.
    nat.chain("POSTROUTING").rules.insert(0, posted);
    for entry in ["PREROUTING", "OUTPUT"] {
        nat.chain(entry).add(format!("-m addrtype --dst-type LOCAL -j {DNAT}"));
    }
    nat.chain(SETMARK).add(format!("-m comment --comment \"CNI portfwd masquerade mark\" -j MARK --set-xmark {MARK}"));
    nat.chain(MASQ).add(format!("-m mark --mark {MARK} -j MASQUERADE"));
    for pod in pods {
        let chain = chain_of(NETWORK, &container_id(&pod.id));
        entries(pod, &chain).for_each(|rule| nat.chain(DNAT).add(rule));
        let own = nat.chain(&chain);
        ports(pod).for_each(|(port, host)| lead(pod, port, host, own));
    }
    ns.rules.sort();
    // A packet from 127.0.0.1 may leave by cni0, and its answer come in there.
    let key = format!("net/ipv4/conf/{}/route_localnet", bridge::cni0());
    ns.sysctls.push(Sysctl { key, value: "1".to_owned(), optional: false });
}

/// The rules that lead to a pod's chain, one for each protocol and at most fifteen ports.
fn entries<'p>(pod: &'p Pod, chain: &'p str) -> impl Iterator<Item = String> + 'p {
    let id = container_id(&pod.id);
    [Protocol::Tcp, Protocol::Udp].into_iter().flat_map(move |protocol| {
        let numbers: Vec<String> =
            ports(pod).filter(|(p, _)| p.protocol == protocol).map(|(_, host)| host.number.to_string()).collect();
        let (id, protocol) = (id.clone(), lower(protocol));
        let rule = move |some: &[String]| {
            format!(
                "-p {protocol} -m comment --comment \"dnat name: \\\"{NETWORK}\\\" id: \\\"{id}\\\"\" \
                 -m multiport --dports {} -j {chain}",
                some.join(",")
            )
        };
        numbers.chunks(MULTIPORT).map(rule).collect::<Vec<_>>()
    })
}

/// The three rules of one port. Whoever asks from the host's own pods would get the answer from the
/// pod itself, past the host that must translate it back; and no answer can come to 127.0.0.1.
fn lead(pod: &Pod, port: &Port, host: &HostPort, chain: &mut Chain) {
    let protocol = lower(port.protocol);
    let to = host.ip.map(|ip| format!("-d {} ", IpNet::from(ip))).unwrap_or_default();
    let base = format!("{to}-p {protocol} -m {protocol} --dport {}", host.number);
    let own = pod.address.trunc();
    for from in [own, IpNet::from(IpAddr::from(std::net::Ipv4Addr::LOCALHOST))] {
        chain.add(format!("-s {from} {base} -j {SETMARK}"));
    }
    chain.add(format!("{base} -j DNAT --to-destination {}", SocketAddr::new(pod.ip(), port.number)));
}

fn lower(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

/// How many rules at the top of a built-in chain are portmap's. It puts the jump to MASQ there whenever
/// a pod comes and it is missing, so above kube-proxy's, which is older.
pub fn top(rules: &[String]) -> usize {
    let suffix = format!("-j {MASQ}");
    rules.iter().take_while(|rule| rule.ends_with(&suffix)).count()
}

/// Where UDP to a host's ports leads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UdpPorts {
    /// The host's own addresses.
    local: Vec<IpNet>,
    /// Port and, where it is only on that, address, and the pod's.
    ways: Vec<(HostPort, SocketAddr)>,
}

impl UdpPorts {
    pub fn of(lab: &Lab, host: &Host) -> UdpPorts {
        let on = [host.ip(), bridge::gateway(host).addr(), host.pod_cidr.network()].map(IpNet::from);
        let loopback = ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(127, 0, 0, 0), 8);
        let local = on.into_iter().chain([loopback.into()]).collect();
        let udp = |pod: &Pod| -> Vec<_> {
            let all = ports(pod).filter(|(port, _)| port.protocol == Protocol::Udp);
            all.map(|(port, host)| (host.clone(), SocketAddr::new(pod.ip(), port.number))).collect()
        };
        UdpPorts { local, ways: lab.pods_on(&host.name).flat_map(udp).collect() }
    }

    /// Whether any port leads elsewhere in `new`, so that flows must be looked through.
    pub fn leads_elsewhere(&self, new: &UdpPorts) -> bool {
        self.ways != new.ways
    }

    fn leads_to(&self, destination: SocketAddr) -> Option<SocketAddr> {
        let (ip, number) = (destination.ip(), destination.port());
        let is = |port: &HostPort| port.number == number && port.ip.is_none_or(|own| own == ip);
        self.ways.iter().find(|(port, _)| is(port)).map(|(_, to)| *to)
    }

    /// Whether going from `self` to `new` leaves this flow with somebody who is no more meant: sent to
    /// `destination`, answered from `answers_from`. portmap forgets all flows to a port when a pod comes
    /// that has it; those of one that goes would stay until nobody has used them for a while.
    pub fn is_stale(&self, new: &UdpPorts, destination: SocketAddr, answers_from: SocketAddr) -> bool {
        if !new.local.iter().chain(&self.local).any(|net| net.contains(&destination.ip())) {
            return false;
        }
        match (self.leads_to(destination), new.leads_to(destination)) {
            (was, is) if was == is => false,
            (_, Some(to)) => answers_from != to,
            (was, None) => Some(answers_from) == was,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_called_as_the_plugin_calls_them() {
        // As the plug-in's own unit tests have it.
        let id = "icee6giejonei6sohng6ahngee7laquohquee9shiGo7fohferakah3Feiyoolu2pei7ciPhoh7shaoX6vai3vuf0ahfaeng8yohb9ceu0daez5hashee8ooYai5wa3y";
        assert_eq!(chain_of("testNetName", id), "CNI-DN-bfd599665540dd91d5d28");
    }

    #[test]
    fn udp_flows_are_stale_where_another_pod_is_meant_now() {
        let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let local = vec!["192.168.1.11/32".parse().expect("a range")];
        let way = |to: &str| (HostPort { number: 53, ip: None }, at(to));
        let old = UdpPorts { local: local.clone(), ways: vec![way("10.244.1.2:5353")] };
        let moved = UdpPorts { local: local.clone(), ways: vec![way("10.244.1.3:5353")] };
        let gone = UdpPorts { local, ways: Vec::new() };
        let to = at("192.168.1.11:53");
        let (first, second) = (at("10.244.1.2:5353"), at("10.244.1.3:5353"));
        assert!(!old.is_stale(&old, to, first));
        assert!(old.is_stale(&moved, to, first) && !old.is_stale(&moved, to, second));
        assert!(old.is_stale(&gone, to, first));
        // The host's own answers, from before there was a pod.
        assert!(gone.is_stale(&old, to, to) && !old.is_stale(&gone, to, to));
        assert!(!old.is_stale(&gone, at("192.168.1.12:53"), first), "it only passes through");
        assert!(!old.is_stale(&gone, at("192.168.1.11:54"), first));
    }
}
