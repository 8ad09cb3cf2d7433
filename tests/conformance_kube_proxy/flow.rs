//! One flow through a real namespace that holds our rules. The node has a veth pair to a namespace
//! for every address that takes part: the client's, each endpoint's, and one for the rest of the
//! world, where packets go that no rule takes. Each endpoint listens, and who was reached tells.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use labctl::plan::proxy::sysctl::sysctls;
use labctl::plan::rules::Rules;

use crate::case::{Case, Flow};
use crate::nfacct;
use crate::peer::{Hit, Peer, attempt, listen};
use crate::space::{ip, run, sysctl};

/// How many connections may be needed until chance has chosen each endpoint.
const MOST_ATTEMPTS: usize = 400;
const PATIENCE: Duration = Duration::from_secs(10);

/// The node and all around it.
struct World {
    node: BTreeSet<IpAddr>,
    client: Option<Peer>,
    hits: Receiver<Hit>,
    /// They live as long as the world does.
    _peers: Vec<Peer>,
}

pub fn check(case: &Case, flow: &Flow) {
    let mut world = World::new(case, flow);
    let seen = match flow.output.as_str() {
        "REJECT" => {
            world.fails(flow, io::ErrorKind::ConnectionRefused);
            "REJECT --reject-with"
        }
        "DROP" => {
            world.fails(flow, io::ErrorKind::TimedOut);
            "-j DROP"
        }
        "ACCEPT" => {
            assert_eq!(world.reaches(flow).who, "node");
            "health check node port"
        }
        "" => {
            let expected = if world.node.contains(&flow.destination) { "node" } else { "elsewhere" };
            assert_eq!(world.reaches(flow).who, expected);
            return;
        }
        endpoints => {
            world.spreads(flow, endpoints.split(", ").map(str::to_owned).collect());
            "-j DNAT"
        }
    };
    assert!(packets(seen) > 0, "no rule with {seen:?} has seen a packet:\n{}", run("iptables-save", &["-c"], ""));
    let masqueraded = packets("-j MASQUERADE") > 0;
    assert_eq!(masqueraded, flow.masq, "masqueraded:\n{}", run("iptables-save", &["-c"], ""));
}

/// How many packets the rules with these words have seen.
fn packets(words: &str) -> u64 {
    let text = run("iptables-save", &["-c"], "");
    let rules = text.lines().filter(|l| l.contains(words));
    rules.filter_map(|l| l.strip_prefix('[')?.split(':').next()?.parse::<u64>().ok()).sum()
}

impl World {
    fn new(case: &Case, flow: &Flow) -> World {
        let has_counters = nfacct::make() && case.config.nfacct;
        let config = case.config(has_counters);
        for key in ["all", "default"] {
            sysctl(&format!("net/ipv4/conf/{key}/rp_filter"), "0");
        }
        sysctl("net/ipv4/ip_forward", "1");
        let node: BTreeSet<IpAddr> = config.addresses.iter().copied().filter(IpAddr::is_ipv4).collect();
        ip("link set lo up\naddress add 169.254.1.1/32 dev lo scope link\n");
        node.iter().filter(|ip| !ip.is_loopback()).for_each(|one| ip(&format!("address add {one}/32 dev lo\n")));
        let (sender, hits) = channel();
        let mut peers = Vec::new();
        let endpoints = endpoints(case);
        let addresses: BTreeSet<IpAddr> = endpoints.iter().map(|(_, e)| e.ip()).collect();
        for address in addresses {
            let peer = Peer::new(peers.len(), address);
            for (protocol, endpoint) in endpoints.iter().filter(|(_, e)| e.ip() == address) {
                let (protocol, endpoint, sender) = (protocol.clone(), *endpoint, sender.clone());
                peer.run(move || listen(&protocol, endpoint, endpoint.to_string(), sender));
            }
            peers.push(peer);
        }
        elsewhere(&mut peers, flow, &sender);
        let any = SocketAddr::from(([0, 0, 0, 0], flow.dest_port));
        listen(&flow.protocol, any, "node".to_owned(), sender);
        let client = client(&mut peers, flow, &node);
        let mut rules = Rules::default();
        case.plan(&config).add_to(&mut rules);
        run("iptables-restore", &[], &rules.restore_text());
        for set in sysctls(&config, 1).iter().filter(|s| !s.optional) {
            sysctl(&set.key, &set.value);
        }
        World { node, client, hits, _peers: peers }
    }

    fn attempt(&self, flow: &Flow) -> io::Result<()> {
        let (protocol, source) = (flow.protocol.clone(), flow.source);
        let to = SocketAddr::new(flow.destination, flow.dest_port);
        let send = move || attempt(&protocol, source, to);
        match &self.client {
            Some(client) => client.run(send),
            None => send(),
        }
    }

    #[track_caller]
    fn reaches(&mut self, flow: &Flow) -> Hit {
        let outcome = self.attempt(flow);
        assert!(outcome.is_ok(), "{}: {outcome:?}\n{}", flow.name, run("iptables-save", &["-c"], ""));
        self.hits.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("nobody was reached: {e}"))
    }

    #[track_caller]
    fn fails(&mut self, flow: &Flow, kind: io::ErrorKind) {
        let outcome = self.attempt(flow).map_err(|e| e.kind());
        assert_eq!(outcome, Err(kind), "{}\n{}", flow.name, run("iptables-save", &["-c"], ""));
        assert!(self.hits.try_recv().is_err(), "somebody was reached all the same");
    }

    /// Every one of the endpoints is reached, and nobody else.
    #[track_caller]
    fn spreads(&mut self, flow: &Flow, expected: BTreeSet<String>) {
        let mut seen = BTreeSet::new();
        for _ in 0..MOST_ATTEMPTS {
            let hit = self.reaches(flow);
            assert!(expected.contains(&hit.who), "{} was reached, not one of {expected:?}", hit.who);
            // The node's own address may be masqueraded as itself.
            if self.client.is_some() {
                assert_eq!(hit.source != flow.source, flow.masq, "{} saw {}", hit.who, hit.source);
            }
            seen.insert(hit.who);
            if seen == expected {
                return;
            }
        }
        panic!("after {MOST_ATTEMPTS} connections only {seen:?} of {expected:?} were reached");
    }
}

/// Every address and port in the case's slices, usable or not, so that a wrong one is seen.
fn endpoints(case: &Case) -> Vec<(String, SocketAddr)> {
    let mut all = Vec::new();
    for slice in &case.endpoint_slices {
        for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
            let Some(Ok(address)) = endpoint["addresses"][0].as_str().map(str::parse::<IpAddr>) else { continue };
            for port in slice["ports"].as_array().into_iter().flatten() {
                let number = port["port"].as_u64().and_then(|p| u16::try_from(p).ok()).expect("a port");
                let protocol = port["protocol"].as_str().expect("a protocol").to_lowercase();
                let one = (protocol, SocketAddr::new(address, number));
                if !all.contains(&one) {
                    all.push(one);
                }
            }
        }
    }
    all
}

/// The rest of the world, where packets go that the rules leave alone: it has the flow's destination
/// for an address.
fn elsewhere(peers: &mut Vec<Peer>, flow: &Flow, sender: &Sender<Hit>) {
    let peer = Peer::new(peers.len(), IpAddr::from([198, 51, 100, 2]));
    ip(&format!("route add default via 198.51.100.2 dev p{} onlink\n", peers.len()));
    let (protocol, sender) = (flow.protocol.clone(), sender.clone());
    let at = SocketAddr::new(flow.destination, flow.dest_port);
    peer.run(move || {
        ip(&format!("address add {}/32 dev lo\n", at.ip()));
        listen(&protocol, at, "elsewhere".to_owned(), sender);
    });
    peers.push(peer);
}

/// The client's namespace; nothing where the node itself is the client.
fn client(peers: &mut Vec<Peer>, flow: &Flow, node: &BTreeSet<IpAddr>) -> Option<Peer> {
    if node.contains(&flow.source) {
        return None;
    }
    let known = peers.iter().position(|p| p.address == flow.source);
    Some(match known {
        Some(place) => peers.remove(place),
        None => Peer::new(peers.len(), flow.source),
    })
}
