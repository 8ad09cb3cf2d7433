//! What clients of load balancers find: session affinity, UDP, probes of the lab file, and rules that come
//! back when somebody has taken them from the router.

use std::collections::BTreeSet;

use crate::as_root_and_ordinary_user;
use crate::ask::{Datagram, get_many, text, udp};
use crate::harness::{Background, Bench, until};

as_root_and_ordinary_user![
    under_policy_cluster_a_client_keeps_its_host_and_its_pod,
    under_policy_local_a_client_keeps_its_host_and_its_pod,
    udp_is_spread_under_policy_cluster_and_comes_from_the_hosts,
    udp_keeps_the_client_under_policy_local_and_goes_to_hosts_with_pods,
    a_probe_of_the_lab_file_asks_a_load_balancer,
    rules_taken_from_the_router_come_back_and_strangers_stay,
    hardly_anybody_notices_when_pods_are_replaced_one_by_one,
];

/// Three hosts on two networks with a pod each, and a client on each network.
fn lab(pods: &[&str], service: &str) -> String {
    let pods: String =
        pods.iter().map(|host| format!("  on-{host}: {{ host: {host}, labels: {{ app: tea }} }}\n")).collect();
    format!(
        "networks: {{ rack1: {{}}, rack2: {{}} }}\n\
         hosts: {{ node1: {{ network: rack1 }}, node2: {{ network: rack1 }}, node3: {{ network: rack2 }} }}\n\
         clients: {{ laptop: {{ network: rack1 }}, desk: {{ network: rack2 }} }}\npods:\n{pods}services:\n  \
         tea: {{ type: LoadBalancer, selector: {{ app: tea }}{service}, ports: [\
         {{ name: t, port: 80, targetPort: 8080 }}, {{ name: u, port: 80, protocol: UDP, targetPort: 8080 }}] }}\n"
    )
}

const HOSTS: [&str; 3] = ["node1", "node2", "node3"];
const CLIENTS: [&str; 3] = ["laptop", "desk", "internet"];
/// The first address of the load balancers' range.
const ADDRESS: &str = "198.51.100.1";
const LOCAL: &str = ", externalTrafficPolicy: Local";
const STICKY: &str = ", sessionAffinity: ClientIP";

/// The pods that answer a client, and the addresses that they see, without ports.
type Seen = (BTreeSet<String>, BTreeSet<String>);

fn seen(answers: impl IntoIterator<Item = serde_json::Value>) -> Seen {
    let host = |source: String| source.rsplit_once(':').expect("a port").0.to_owned();
    answers.into_iter().map(|a| (text(&a, "name"), host(text(&a, "source")))).unzip()
}

/// Over TCP. By chance one of three would answer all of 16 once in ten million times.
#[track_caller]
fn over_tcp(bench: &Bench, client: &str) -> Seen {
    seen(get_many(bench, client, &format!("http://{ADDRESS}"), 16).expect("answers"))
}

/// Over UDP, each time from another port.
#[track_caller]
fn over_udp(bench: &Bench, client: &str, times: u32) -> Seen {
    let ask = |_| udp(bench, client, &format!("{ADDRESS}:80"), Datagram::ANY).expect("an answer").0;
    seen((0..times).map(ask))
}

fn names(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|name| (*name).to_owned()).collect()
}

#[track_caller]
fn address_of(bench: &Bench, machine: &str) -> String {
    bench.sh(machine, "hostname -I").trim().to_owned()
}

/// A client stays where it is; when the service no longer says so it is spread, and stays again afterwards.
#[track_caller]
fn keeps_clients(bench: &Bench, policy: &str) {
    let up = |affinity: &str| bench.up(&bench.write(&lab(&HOSTS, &format!("{policy}{affinity}"))));
    up(STICKY);
    bench.is_as_planned();
    for client in CLIENTS {
        let (pods, sources) = over_tcp(bench, client);
        assert_eq!((pods.len(), sources.len()), (1, 1), "{client}: {pods:?} see {sources:?}");
        let (pods, sources) = over_udp(bench, client, 8);
        assert_eq!((pods.len(), sources.len()), (1, 1), "{client} over UDP: {pods:?} see {sources:?}");
    }
    up("");
    bench.is_as_planned();
    assert_eq!(over_tcp(bench, "desk").0.len(), 3, "without affinity every pod answers");
    up(STICKY);
    bench.is_as_planned();
    assert_eq!(over_tcp(bench, "desk").0.len(), 1, "it stays again");
}

/// Which host that is shows in the address that the host puts on.
fn under_policy_cluster_a_client_keeps_its_host_and_its_pod(bench: &Bench) {
    keeps_clients(bench, "");
}

fn under_policy_local_a_client_keeps_its_host_and_its_pod(bench: &Bench) {
    keeps_clients(bench, LOCAL);
}

fn udp_is_spread_under_policy_cluster_and_comes_from_the_hosts(bench: &Bench) {
    bench.up(&bench.write(&lab(&["node1"], "")));
    for client in CLIENTS {
        let (pods, sources) = over_udp(bench, client, 30);
        assert_eq!(pods, names(&["on-node1"]));
        // cni0's address on the pod's host, flannel.1's on the others.
        assert_eq!(sources, names(&["10.244.1.1", "10.244.2.0", "10.244.3.0"]), "{client}");
    }
    // What is larger than a packet comes through in pieces.
    let datagram = Datagram { size: 3000, ..Datagram::ANY };
    let (_, size) = udp(bench, "desk", &format!("{ADDRESS}:80"), datagram).expect("an answer");
    assert_eq!(size, 3000);
}

fn udp_keeps_the_client_under_policy_local_and_goes_to_hosts_with_pods(bench: &Bench) {
    bench.up(&bench.write(&lab(&["node1", "node3"], LOCAL)));
    for client in CLIENTS {
        let (pods, sources) = over_udp(bench, client, 24);
        assert_eq!(pods, names(&["on-node1", "on-node3"]), "{client}");
        assert_eq!(sources, names(&[&address_of(bench, client)]));
    }
    // One flow stays with one host, whichever socket it comes from.
    let ask = || udp(bench, "laptop", &format!("{ADDRESS}:80"), Datagram { source_port: 5555, size: 1 });
    let (pods, _) = seen((0..6).map(|_| ask().expect("an answer").0));
    assert_eq!(pods.len(), 1);
}

fn a_probe_of_the_lab_file_asks_a_load_balancer(bench: &Bench) {
    let probes = format!(
        "probes:\n  \
         - {{ name: http, from: laptop, http: 'http://{ADDRESS}/', expect: {{ status: 200, pod: on-node3 }} }}\n  \
         - {{ name: tcp, from: desk, tcp: '{ADDRESS}:80', expect: {{ pod: on-node3, source: desk }} }}\n  \
         - {{ name: udp, from: internet, udp: '{ADDRESS}:80', expect: {{ pod: on-node3, source: internet }} }}\n  \
         - {{ name: another port, from: laptop, tcp: '{ADDRESS}:81', expect: fail }}\n"
    );
    let text = lab(&["node3"], LOCAL) + &probes;
    bench.ok(&["up", &bench.write(&text)]);
    // The same questions under another policy, where the pod does not see the client.
    let ran = bench.run(&["up", &bench.write(&text.replace(LOCAL, ""))]).ends_with(1);
    assert!(ran.stdout.contains("4 probes: 2 as expected, 2 differed"), "{ran}");
}

fn rules_taken_from_the_router_come_back_and_strangers_stay(bench: &Bench) {
    let ranges = ", loadBalancerSourceRanges: [192.168.1.0/24]";
    bench.up(&bench.write(&lab(&HOSTS, ranges)));
    let rules = || {
        let all = bench.sh("router", "iptables-save -t nat; iptables-save -t mangle");
        all.lines().filter(|l| l.contains("LB-") && l.starts_with("-A")).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = rules();
    assert!(before.len() > 8, "{before:#?}");
    let takes = [
        "iptables -w -t nat -F LB-SERVICES",
        "iptables -w -t mangle -F",
        "iptables -w -t nat -D PREROUTING 1",
        "iptables -w -t nat -F LB-POSTROUTING; iptables -w -t nat -A PREROUTING -d 192.0.2.1 -j RETURN",
    ];
    for take in takes {
        bench.sh("router", take);
        until(take, || rules() == before);
        assert_eq!(over_tcp(bench, "laptop").0.len(), 3, "after {take}");
    }
    let nat = bench.sh("router", "iptables-save -t nat");
    assert!(nat.contains("-A PREROUTING -d 192.0.2.1/32 -j RETURN"), "a stranger's rule stays:\n{nat}");
    // Clients on the hosts' own network get answers only with the router's address on their packets.
    bench.sh("router", "iptables -w -t nat -D PREROUTING -d 192.0.2.1 -j RETURN");
    bench.is_as_planned();
}

/// What a rolling update does, by hand: each pod is followed by another one before it goes, and serves on
/// while it is ending. Kubernetes' own test lets one request of a hundred fail.
fn hardly_anybody_notices_when_pods_are_replaced_one_by_one(bench: &Bench) {
    let tea = "  ask: {}\ndeployments:\n  tea: { replicas: 3, labels: { app: tea }, containers: [\
        { name: echo, ports: [8080] }, { name: late, command: [bash, -c, \
        \"trap 'sleep 1.5; exit 0' TERM; while :; do sleep 0.05; done\"] }] }\n";
    for policy in ["", LOCAL] {
        bench.up(&bench.write(&lab(&[], policy).replace("pods:\n", &format!("pods:\n{tea}"))));
        let stop = bench.path("stop");
        let ask = format!(
            "good=0; bad=0; until [ -e {} ]; do if curl -sf -o /dev/null -m 1 http://{ADDRESS}/; \
             then good=$((good+1)); else bad=$((bad+1)); fi; done; echo $good $bad",
            stop.display()
        );
        let mut client = Background::start(bench.labctl(&["exec", "laptop", "--", "bash", "-c", &ask]));
        for pod in 1..=3 {
            bench.ok(&["delete", "pod", &format!("tea-{pod}")]);
        }
        std::fs::write(&stop, "").expect("a file");
        let said = client.line();
        let counts: Vec<u32> = said.split_whitespace().map(|n| n.parse().expect("a number")).collect();
        let [good, bad] = counts[..] else { panic!("two numbers, not {said:?}") };
        println!("{good} answers and {bad} without{policy}");
        assert!(good > 50 && bad * 100 <= good, "{good} answers and {bad} without{policy}");
        std::fs::remove_file(&stop).expect("the file");
        bench.ok(&["down"]);
    }
}
