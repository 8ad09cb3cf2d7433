//! How packets to a service go: from pods, hosts and clients, to virtual addresses, NodePorts and
//! external addresses; who sees which source address; and which endpoints a policy leaves.

use crate::ask::{
    Datagram, address, answerers, dropped, get, get_many, refused, source, text, udp, udp_who, until_answers, who,
};
use crate::harness::{Bench, until};
use crate::{as_root, as_root_and_ordinary_user};

as_root_and_ordinary_user![
    pods_and_hosts_reach_pods_without_a_service_and_are_seen_as_they_are,
    a_pod_reaches_itself_through_its_service,
    a_pods_address_is_seen_through_the_virtual_address,
    a_node_port_answers_on_every_host_and_hides_the_client,
    internal_traffic_policy_local_stays_on_the_host,
    an_external_address_leads_to_the_service,
];
as_root![
    pods_hosts_and_endpoints_reach_a_service_over_http_and_udp,
    external_traffic_policy_local_keeps_the_client_and_stays_on_the_host,
    traffic_distribution_keeps_to_the_zone_or_the_host_while_it_can,
    large_requests_pass_over_http_and_udp,
    a_node_port_is_updated_when_endpoints_go,
    an_sctp_service_has_rules_and_its_packets_arrive,
];

const PORTS: &str = "[{ name: t, port: 80, targetPort: 8080, nodePort: 30080 }, \
                     { name: u, port: 80, protocol: UDP, targetPort: 8080, nodePort: 30080 }]";

/// Two hosts with a pod behind `tea` on each, one that asks on the first, and a client. What stands
/// in `more` becomes part of the service.
fn two_hosts(more: &str) -> String {
    format!(
        "hosts: {{ node1: {{}}, node2: {{}} }}\nclients: {{ laptop: {{}} }}\npods:\n  ask: {{ host: node1 }}\n  \
         near: {{ host: node1, labels: {{ app: tea }} }}\n  far: {{ host: node2, labels: {{ app: tea }} }}\n\
         services:\n  tea: {{ type: NodePort, selector: {{ app: tea }}, ports: {PORTS}, {more} }}\n"
    )
}

const NODE1: &str = "http://192.168.1.11:30080";
const NODE2: &str = "http://192.168.1.12:30080";

fn pods_hosts_and_endpoints_reach_a_service_over_http_and_udp(bench: &Bench) {
    bench.up(&bench.write(&two_hosts("")));
    let virtual_address = address(bench, "ask", "tea");
    for from in ["ask", "near", "far", "node1", "node2"] {
        let url = format!("http://{virtual_address}");
        assert_eq!(answerers(bench, from, &url, 24), ["far", "near"], "from {from}");
        let to = format!("{virtual_address}:80");
        until(&format!("both answer {from} over UDP"), || udp_who(bench, from, &to) == "near");
        until(&format!("both answer {from} over UDP"), || udp_who(bench, from, &to) == "far");
    }
}

fn pods_and_hosts_reach_pods_without_a_service_and_are_seen_as_they_are(bench: &Bench) {
    bench.up(&bench.write(&two_hosts("")));
    for pod in ["near", "far"] {
        let (url, to) = (format!("http://{}:8080", bench.ip(pod)), format!("{}:8080", bench.ip(pod)));
        for from in ["ask", "node1", "node2"] {
            assert_eq!(who(bench, from, &url), pod, "from {from}");
            assert_eq!(udp_who(bench, from, &to), pod, "from {from}");
        }
        assert_eq!(source(bench, "ask", &url), bench.ip("ask"), "no address is translated between pods");
    }
    assert_eq!(source(bench, "far", &format!("http://{}:8080", bench.ip("near"))), bench.ip("far"));
}

fn a_pod_reaches_itself_through_its_service(bench: &Bench) {
    let text = two_hosts("").replace("  far: { host: node2, labels: { app: tea } }\n", "");
    bench.up(&bench.write(&text));
    assert_eq!(who(bench, "near", "http://tea"), "near");
    assert_eq!(udp_who(bench, "near", "tea:80"), "near");
    // Without another source it would answer itself past the host, and to the wrong address.
    assert_eq!(source(bench, "near", "http://tea"), "10.244.1.1");
}

fn a_pods_address_is_seen_through_the_virtual_address(bench: &Bench) {
    bench.up(&bench.write(&two_hosts("")));
    let pod = bench.ip("ask");
    let answers = get_many(bench, "ask", "http://tea", 20).expect("answers");
    for answer in &answers {
        assert!(text(answer, "source").starts_with(&format!("{pod}:")), "{answer}");
    }
    let of = |name: &str| answers.iter().filter(|a| a["name"] == name).count();
    assert!(of("near") > 0 && of("far") > 0, "both a pod of the same host and one of another");
}

fn a_node_port_answers_on_every_host_and_hides_the_client(bench: &Bench) {
    bench.up(&bench.write(&two_hosts("")));
    for url in [NODE1, NODE2] {
        for from in ["laptop", "ask", "node1"] {
            assert_eq!(answerers(bench, from, url, 20), ["far", "near"], "{from} asks {url}");
        }
    }
    for answer in get_many(bench, "laptop", NODE1, 20).expect("answers") {
        let seen = if answer["name"] == "near" { "10.244.1.1:" } else { "10.244.1.0:" };
        assert!(text(&answer, "source").starts_with(seen), "the address that it left node1 by: {answer}");
    }
    until("a pod of another host answers over UDP", || udp_who(bench, "laptop", "192.168.1.11:30080") == "far");
    assert_eq!(answerers(bench, "ask", "http://tea", 20), ["far", "near"], "and so does its name");
}

fn external_traffic_policy_local_keeps_the_client_and_stays_on_the_host(bench: &Bench) {
    let alone = |more: &str| two_hosts(more).replace("  far: { host: node2, labels: { app: tea } }\n", "");
    bench.up(&bench.write(&alone("externalTrafficPolicy: Local")));
    assert_eq!(source(bench, "laptop", NODE1), bench.sh("laptop", "hostname -I").trim());
    dropped(bench, "laptop", NODE2);
    assert_eq!(udp(bench, "laptop", "192.168.1.12:30080", Datagram::ANY), Err("timeout".to_owned()));
    // For the host itself the policy does not count. A pod of another host comes with that host's
    // address, as everything that leaves the pod network does, and is a stranger there.
    assert_eq!(who(bench, "node2", NODE2), "near");
    dropped(bench, "ask", NODE2);
    bench.up(&bench.write(&alone("externalTrafficPolicy: Cluster")));
    assert_eq!(who(bench, "laptop", NODE2), "near");
    assert_eq!(source(bench, "laptop", NODE1), "10.244.1.1");
    bench.up(&bench.write(&alone("externalTrafficPolicy: Local")));
    dropped(bench, "laptop", NODE2);
}

fn internal_traffic_policy_local_stays_on_the_host(bench: &Bench) {
    bench.up(&bench.write(&two_hosts("internalTrafficPolicy: Local")));
    let virtual_address = format!("http://{}", address(bench, "ask", "tea"));
    assert_eq!(answerers(bench, "ask", "http://tea", 12), ["near"]);
    assert_eq!(answerers(bench, "node1", &virtual_address, 12), ["near"]);
    assert_eq!(answerers(bench, "node2", &virtual_address, 12), ["far"]);
    let text = two_hosts("internalTrafficPolicy: Local");
    bench.up(&bench.write(&text.replace("  far: { host: node2, labels: { app: tea } }\n", "")));
    assert_eq!(who(bench, "ask", "http://tea"), "near");
    dropped(bench, "node2", &virtual_address);
}

/// Four hosts in two zones, a pod that asks on each and pods behind the service on three.
fn zones(distribution: &str, pods: &[&str]) -> String {
    let host = |n: u8, zone: &str| format!("  node{n}: {{ labels: {{ topology.kubernetes.io/zone: {zone} }} }}\n");
    let hosts = [host(1, "east"), host(2, "east"), host(3, "west"), host(4, "west")].concat();
    let asks: String = (1..=4).map(|n| format!("  ask{n}: {{ host: node{n} }}\n")).collect();
    let pods: String =
        pods.iter().map(|host| format!("  on-{host}: {{ host: {host}, labels: {{ app: tea }} }}\n")).collect();
    format!(
        "hosts:\n{hosts}pods:\n{asks}{pods}services:\n  tea: {{ selector: {{ app: tea }}, \
         ports: [{{ port: 80, targetPort: 8080 }}], trafficDistribution: {distribution} }}\n"
    )
}

fn traffic_distribution_keeps_to_the_zone_or_the_host_while_it_can(bench: &Bench) {
    let ask = |from: &str| answerers(bench, from, "http://tea", 16);
    let all = ["node1", "node2", "node3"];
    for distribution in ["PreferClose", "PreferSameZone"] {
        bench.up(&bench.write(&zones(distribution, &all)));
        assert_eq!(ask("ask1"), ["on-node1", "on-node2"], "{distribution}");
        assert_eq!(ask("ask4"), ["on-node3"], "{distribution}");
    }
    bench.up(&bench.write(&zones("PreferSameNode", &all)));
    assert_eq!(ask("ask1"), ["on-node1"]);
    assert_eq!(ask("ask2"), ["on-node2"]);
    assert_eq!(ask("ask4"), ["on-node3"], "there is none on its host, so its zone serves it");
    bench.up(&bench.write(&zones("PreferSameNode", &["node1", "node2"])));
    assert_eq!(ask("ask4"), ["on-node1", "on-node2"], "there is none in its zone, so all serve it");
    bench.up(&bench.write(&zones("PreferSameNode", &["node2", "node3"])));
    assert_eq!(ask("ask1"), ["on-node2"], "its host's endpoint is gone, so its zone serves it");
}

fn an_external_address_leads_to_the_service(bench: &Bench) {
    bench.up(&bench.write(&two_hosts("externalIPs: [198.18.7.7]")));
    // The address belongs to nobody; it must be routed to a host by who wants to use it.
    bench.sh("laptop", "ip route add 198.18.7.7 via 192.168.1.12");
    for from in ["laptop", "ask", "node2"] {
        assert_eq!(answerers(bench, from, "http://198.18.7.7", 20), ["far", "near"], "from {from}");
    }
    let far = get_many(bench, "laptop", "http://198.18.7.7", 20).expect("answers");
    let far = far.iter().find(|a| a["name"] == "far").expect("the pod of node2");
    assert!(text(far, "source").starts_with("10.244.2.1:"), "{far}");
}

fn large_requests_pass_over_http_and_udp(bench: &Bench) {
    bench.up(&bench.write(&two_hosts("")));
    let line = "head -c 50000 /dev/zero | tr '\\0' x | curl -sS --noproxy '*' --max-time 5 --data-binary @- http://tea";
    for _ in 0..6 {
        let answer: serde_json::Value = serde_json::from_str(&bench.sh("ask", line)).expect("JSON");
        assert_eq!(answer["body"].as_str().map(str::len), Some(50000));
    }
    // More than a link takes at once, so it goes in fragments.
    for _ in 0..6 {
        let (answer, back) = udp(bench, "ask", "tea:80", Datagram { source_port: 0, size: 4000 }).expect("an answer");
        assert_eq!(back, 4000, "{answer}");
    }
}

fn a_node_port_is_updated_when_endpoints_go(bench: &Bench) {
    bench.up(&bench.write(&two_hosts("")));
    assert_eq!(answerers(bench, "laptop", NODE1, 20), ["far", "near"]);
    bench.up(&bench.write(&two_hosts("").replace("  near: { host: node1, labels: { app: tea } }\n", "")));
    assert_eq!(answerers(bench, "laptop", NODE1, 8), ["far"]);
    assert!((0..4).all(|_| udp_who(bench, "laptop", "192.168.1.11:30080") == "far"));
    bench.up(&bench.write(&two_hosts("").replace("labels: { app: tea }", "labels: { app: none }")));
    refused(bench, "laptop", NODE1);
    bench.up(&bench.write(&two_hosts("").replace("nodePort: 30080", "nodePort: 30090")));
    until_answers(bench, "laptop", "http://192.168.1.11:30090", |got| got.is_ok());
    assert!(get(bench, "laptop", NODE1).is_err(), "the old NodePort does not answer");
}

/// Hear what arrives for SCTP, without a socket of that kind, which many kernels lack.
const SCTP_HEAR: &str = "
socket(S, AF_INET, SOCK_RAW, 132) or die; $| = 1; print qq(here\\n);
recv(S, my $packet, 2000, 0);
my $from = inet_ntoa(substr $packet, 12, 4);
my ($source, $port) = unpack 'n2', substr $packet, (ord($packet) & 15) * 4, 4;
print qq($from $source $port\\n);
";
/// Send the first packet of an association.
const SCTP_SEND: &str = "
socket(S, AF_INET, SOCK_RAW, 132) or die;
send(S, pack('H*', $ARGV[1]), 0, sockaddr_in(0, inet_aton($ARGV[0]))) or die;
";

fn an_sctp_service_has_rules_and_its_packets_arrive(bench: &Bench) {
    let lab = "hosts: { node1: {}, node2: {} }\npods:\n  ask: { host: node1 }\n  \
               one: { host: node2, labels: { app: tea }, command: [sleep, '1000'] }\nservices:\n  \
               tea: { selector: { app: tea }, ports: [{ port: 5060, targetPort: 5061, protocol: SCTP }] }\n";
    bench.up(&bench.write(lab));
    let rules = bench.sh("node1", "iptables-save -t nat");
    assert!(rules.contains("-p sctp") && rules.contains("--dport 5060"), "{rules}");
    let hear = bench.labctl(&["exec", "one", "--", "perl", "-MSocket", "-e", SCTP_HEAR]);
    let mut hear = crate::harness::Background::start(hear);
    assert_eq!(hear.line(), "here\n");
    let packet: String = crate::sctp::init(40_000, 5060).iter().map(|b| format!("{b:02x}")).collect();
    let to = address(bench, "ask", "tea");
    bench.exec("ask", &["perl", "-MSocket", "-e", SCTP_SEND, &to, &packet]).ends_with(0);
    assert_eq!(hear.line(), format!("{} 40000 5061\n", bench.ip("ask")));
}
