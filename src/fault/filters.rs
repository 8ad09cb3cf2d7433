//! Faults of what hosts let through and rewrite: rules, policies, and connection tracking.

use crate::lab::names::NsName;
use crate::lab::{Host, Pod};
use crate::plan::machine;
use crate::spec::value::Protocol;
use crate::trace::model::Cause;

use super::site::{End, Pair};
use super::twist::Bend;
use super::{Change, Chosen, Fault, Lacks, PlaceKind, Question, Site, Twist};

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "forward-policy-drop",
        title: "A host's FORWARD policy is DROP",
        says: "Docker sets the policy of FORWARD to DROP; flannel's rules let pods through all the same, and they are gone.",
        cause: Cause::PolicyDrop,
        place: PlaceKind::Host,
        effect: "sets the policy of FORWARD to DROP on the asker's host and takes out the jump to FLANNEL-FWD",
        backends: &[],
        needs: "pods on two hosts",
        choose: policy_drop,
    },
    Fault {
        name: "forward-drop",
        title: "A firewall rule drops a host's pods",
        says: "A rule in FORWARD drops what comes from the host's own pods.",
        cause: Cause::RuleDrop,
        place: PlaceKind::Host,
        effect: "puts a rule at the top of FORWARD on the asker's host that drops its pods' packets",
        backends: &[],
        needs: "pods on two hosts",
        choose: forward_drop,
    },
    Fault {
        name: "forward-reject",
        title: "A firewall rule rejects packets for a host's pods",
        says: "A rule in FORWARD answers what is for the host's pods with an error.",
        cause: Cause::RuleReject,
        place: PlaceKind::Host,
        effect: "puts a rule at the top of FORWARD on the asked pod's host that rejects packets for its pods",
        backends: &[],
        needs: "pods on two hosts",
        choose: forward_reject,
    },
    Fault {
        name: "pod-firewalled",
        title: "A pod drops what comes for its port",
        says: "A rule in the pod's own INPUT chain drops connections to the port that it listens on.",
        cause: Cause::RuleDrop,
        place: PlaceKind::Pod,
        effect: "puts a rule into INPUT of a pod that drops packets for its port",
        backends: &[],
        needs: "a pod with a port",
        choose: pod_firewalled,
    },
    Fault {
        name: "node-port-firewalled",
        title: "A firewall closes a NodePort",
        says: "A host drops packets for a NodePort before they are translated.",
        cause: Cause::RuleDrop,
        place: PlaceKind::Host,
        effect: "puts a rule into PREROUTING of the table raw that drops packets for a NodePort",
        backends: &[],
        needs: "a client, and a service with a NodePort and a host that has none of its pods",
        choose: node_port_firewalled,
    },
    Fault {
        name: "node-port-not-masqueraded",
        title: "A NodePort's packets keep their source",
        says: "A rule lets marked packets go before KUBE-POSTROUTING masquerades them, so the answer goes past the host that translated.",
        cause: Cause::NotMasqueraded,
        place: PlaceKind::Host,
        effect: "puts a rule at the top of POSTROUTING that accepts packets with kube-proxy's mark",
        backends: &[],
        needs: "a client, and a service with a NodePort and a host that has none of its pods",
        choose: not_masqueraded,
    },
    Fault {
        name: "pods-not-masqueraded",
        title: "Pods leave the cluster with their own address",
        says: "Nobody outside knows a way back to a pod's address, and the rules that hide it behind the host's are gone.",
        cause: Cause::NotMasqueraded,
        place: PlaceKind::Host,
        effect: "takes the jump to FLANNEL-POSTRTG out of POSTROUTING on the asker's host",
        backends: &[],
        needs: "a pod, and flannel with ipMasq",
        choose: pods_not_masqueraded,
    },
    Fault {
        name: "br-netfilter-off",
        title: "Bridged packets pass no rules",
        says: "Between two pods of one host the answer crosses the bridge alone, so nobody translates it back where net.bridge.bridge-nf-call-iptables is 0.",
        cause: Cause::BridgeNetfilterOff,
        place: PlaceKind::Host,
        effect: "sets net.bridge.bridge-nf-call-iptables to 0 on a host",
        backends: &[],
        needs: "a service whose pods are all on one host, and another pod there",
        choose: br_netfilter_off,
    },
    Fault {
        name: "conntrack-full",
        title: "A host tracks as many connections as it may",
        says: "The table of tracked connections is full, and the first packet of each new one is dropped.",
        cause: Cause::ConntrackFull,
        place: PlaceKind::Host,
        effect: "forgets the connections of the asker's host and fills its table (net.netfilter.nf_conntrack_max) with others",
        backends: &[],
        needs: "pods on two hosts, and services or ipMasq, without which nothing is tracked",
        choose: conntrack_full,
    },
];

/// A ping between two pods that fails at one of their hosts.
fn ping(pair: Pair, host: &Host, object: String, bends: Vec<Bend>) -> Chosen {
    Chosen {
        on: host.name.to_string(),
        place: host.ns(),
        object,
        question: Question::ping(pair.from.ns(), &pair.to.id),
        change: machines(host.ns(), bends),
    }
}

fn machines(ns: NsName, bends: Vec<Bend>) -> Change {
    Change::Machines(bends.into_iter().map(|bend| Twist::new(ns.clone(), bend)).collect())
}

fn policy_drop(site: &Site) -> Result<Chosen, Lacks> {
    let pair = site.any_pair(End::Asker)?;
    let unhook = Bend::Unhook { table: "filter", chain: "FORWARD", target: "FLANNEL-FWD" };
    let bends = vec![unhook, Bend::Policy { chain: "FORWARD", policy: "DROP" }];
    // A ping after another is the same flow to connection tracking, which a rule of kube-proxy's lets through.
    let port = port_of(pair.to).ok_or("the asked pod has no port")?;
    let question = Question::tcp(pair.from.ns(), &pair.to.id, port);
    Ok(Chosen { question, ..ping(pair, pair.host, "-t filter -P FORWARD DROP".to_owned(), bends) })
}

/// A rule at the top of FORWARD.
fn forward(pair: Pair, host: &Host, rule: String) -> Chosen {
    let object = format!("-t filter -A FORWARD {rule}");
    ping(pair, host, object, vec![Bend::Insert { table: "filter", chain: "FORWARD", rule }])
}

fn forward_drop(site: &Site) -> Result<Chosen, Lacks> {
    let pair = site.any_pair(End::Asker)?;
    Ok(forward(pair, pair.host, format!("-s {} -j DROP", pair.host.pod_cidr)))
}

fn forward_reject(site: &Site) -> Result<Chosen, Lacks> {
    let pair = site.any_pair(End::Asked)?;
    let rule = format!("-d {} -j REJECT --reject-with icmp-port-unreachable", pair.peer.pod_cidr);
    Ok(forward(pair, pair.peer, rule))
}

/// The first TCP port of a pod.
pub(super) fn port_of(pod: &Pod) -> Option<u16> {
    pod.ports().find(|p| p.protocol == Protocol::Tcp).map(|p| p.number)
}

fn pod_firewalled(site: &Site) -> Result<Chosen, Lacks> {
    let (from, pod) = site.asked_pod()?;
    let port = port_of(pod).ok_or("the pod has no port")?;
    let rule = format!("-p tcp -m tcp --dport {port} -j DROP");
    Ok(Chosen {
        on: format!("pod {}", pod.id),
        place: pod.ns(),
        object: format!("-t filter -A INPUT {rule}"),
        question: Question::tcp(from, &pod.id, port),
        change: machines(pod.ns(), vec![Bend::Insert { table: "filter", chain: "INPUT", rule }]),
    })
}

/// A rule on a host that a client asks by a NodePort, which has none of the pods behind it.
fn at_node_port(site: &Site, rule: impl Fn(u16) -> (&'static str, &'static str, String)) -> Result<Chosen, Lacks> {
    let client = site.client()?;
    let (_, host, port) = site.far_node_port()?;
    let (table, chain, rule) = rule(port);
    Ok(Chosen {
        on: host.name.to_string(),
        place: host.ns(),
        object: format!("-t {table} -A {chain} {rule}"),
        question: Question::tcp(client.ns(), &host.name, port),
        change: machines(host.ns(), vec![Bend::Insert { table, chain, rule }]),
    })
}

fn node_port_firewalled(site: &Site) -> Result<Chosen, Lacks> {
    at_node_port(site, |port| ("raw", "PREROUTING", format!("-p tcp -m tcp --dport {port} -j DROP")))
}

fn not_masqueraded(site: &Site) -> Result<Chosen, Lacks> {
    at_node_port(site, |_| ("nat", "POSTROUTING", "-m mark --mark 0x4000/0x4000 -j ACCEPT".to_owned()))
}

fn pods_not_masqueraded(site: &Site) -> Result<Chosen, Lacks> {
    if !site.lab.cluster.ip_masq {
        return Err("flannel does not masquerade in this lab (ipMasq)".into());
    }
    let (_, pod) = site.asked_pod()?;
    let internet = site.internet()?;
    let port = internet.ports.iter().find(|p| p.protocol == Protocol::Tcp).ok_or("the internet has no port")?;
    let host = NsName::Host(pod.host.clone());
    let unhook = Bend::Unhook { table: "nat", chain: "POSTROUTING", target: "FLANNEL-POSTRTG" };
    Ok(Chosen {
        on: pod.host.to_string(),
        place: host.clone(),
        object: "-t nat -A POSTROUTING -j FLANNEL-POSTRTG".to_owned(),
        question: Question::tcp(pod.ns(), &internet.name, port.number),
        change: machines(host, vec![unhook]),
    })
}

fn br_netfilter_off(site: &Site) -> Result<Chosen, Lacks> {
    let what = "a service whose pods are all on one host, and another pod there";
    let found = site.doors().into_iter().find_map(|door| {
        let host = door.pods.first()?.host.clone();
        let all = door.pods.iter().all(|p| p.host == host);
        let asker = site.asker(&door, |h| *h == host).filter(|_| all)?;
        Some((door, asker))
    });
    let (door, asker) = found.ok_or_else(|| site.nowhere(what))?;
    let host = NsName::Host(asker.host.clone());
    if let Some(super::On::Machine(on)) = &site.on
        && *on != host
    {
        return Err(site.nowhere(what));
    }
    let key = machine::bridge_netfilter(true).key;
    Ok(Chosen {
        on: asker.host.to_string(),
        place: host.clone(),
        object: key.replace('/', "."),
        question: Question::tcp(asker.ns(), door.spec.cluster_ip.clone().unwrap_or_default(), door.port),
        change: machines(host, vec![Bend::Setting { key, value: "0".to_owned() }]),
    })
}

fn conntrack_full(site: &Site) -> Result<Chosen, Lacks> {
    if site.lab.services.is_empty() && !site.lab.cluster.ip_masq {
        return Err("without services and ipMasq the hosts of the lab track no connections".into());
    }
    let pair = site.any_pair(End::Asker)?;
    let chosen = ping(pair, pair.host, "net.netfilter.nf_conntrack_max".to_owned(), Vec::new());
    Ok(Chosen { change: Change::Connections(pair.host.ns()), ..chosen })
}
