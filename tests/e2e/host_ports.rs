//! Ports of hosts that lead to pods: who gets there from where, and whom the pod sees then; which pods
//! share a host; what a change leaves behind.

use std::time::Duration;

use crate::ask::{self, Datagram, Stream, refused, source, udp, udp_who, who};
use crate::harness::{Bench, until};
use crate::{as_root, as_root_and_ordinary_user};

as_root_and_ordinary_user![
    a_host_port_leads_to_its_pod_from_everywhere,
    pods_with_one_host_port_go_to_different_hosts,
    one_host_port_is_shared_by_address_and_protocol,
    udp_follows_the_pod_that_has_the_host_port,
    a_host_port_changes_live_and_connections_live_on,
];
as_root![
    a_host_port_leads_to_its_pod_beside_services,
    what_is_broken_by_hand_is_seen_and_put_right,
    a_node_port_wins_and_a_listener_loses,
    host_ports_of_manifests_are_taken_as_they_are,
];

const NODE1: &str = "192.168.1.11";
const NODE2: &str = "192.168.1.12";
/// The longest that a UDP client may be without an answer once the new pod is there.
const SOON: Duration = Duration::from_secs(5);

const DOOR: &str = "
hosts: { node1: {}, node2: {} }
clients: { laptop: {} }
pods:
  door:
    host: node1
    ports: [{ containerPort: 80, hostPort: 8080 }, { containerPort: 53, protocol: UDP, hostPort: 5353 }]
  near: { host: node1 }
  far: { host: node2 }
";

fn rules(bench: &Bench, host: &str) -> String {
    bench.sh(host, "iptables-save -t nat")
}

fn a_host_port_leads_to_its_pod_from_everywhere(bench: &Bench) {
    bench.up(&bench.write(DOOR));
    reaches(bench);
    bench.is_as_planned();
    // In words.
    let told = bench.ok(&["describe", "pod", "door"]);
    assert!(told.contains("8080/TCP of node1 leads to port 80 (chain CNI-DN-"), "{told}");
    let tree = bench.ok(&["get", "rules", "node1"]);
    assert!(tree.contains("port 8080/tcp of this host: door"), "{tree}");
    let port = &bench.pod("door")["spec"]["containers"][0]["ports"][1];
    assert_eq!((port["hostPort"].as_u64(), port["protocol"].as_str()), (Some(5353), Some("UDP")));
}

fn a_host_port_leads_to_its_pod_beside_services(bench: &Bench) {
    bench.up(&bench.write(&format!("{DOOR}services: {{ other: {{ type: NodePort, ports: [{{ port: 80 }}] }} }}\n")));
    reaches(bench);
    bench.is_as_planned();
}

/// Whom the pod sees depends on the way.
#[track_caller]
fn reaches(bench: &Bench) {
    let by = |address: &str| format!("http://{address}:8080/");
    let laptop = "192.168.1.101";
    let bridge = "10.244.1.1";
    for (from, to, seen) in [
        // Nobody hides who comes from outside.
        ("laptop", NODE1, laptop),
        ("node2", NODE1, NODE2),
        ("node1", NODE1, NODE1),
        // No answer could come to 127.0.0.1.
        ("node1", "127.0.0.1", bridge),
        // Without another address the pod would answer its neighbour, and itself, past the host.
        ("near", NODE1, bridge),
        ("door", NODE1, bridge),
        // Its own host has hidden it.
        ("far", NODE1, NODE2),
    ] {
        assert_eq!(who(bench, from, &by(to)), "door", "{from} by {to}");
        assert_eq!(source(bench, from, &by(to)), seen, "{from} by {to}");
        let to = format!("{to}:5353");
        let (answer, _) = udp(bench, from, &to, Datagram::ANY).unwrap_or_else(|e| panic!("{from} by {to}: {e}"));
        assert_eq!(ask::text(&answer, "name"), "door", "{from} by {to} over UDP");
        let source = ask::text(&answer, "source");
        assert_eq!(source.rsplit_once(':').map(|(ip, _)| ip), Some(seen), "{from} by {to} over UDP");
    }
    refused(bench, "laptop", &by(NODE2));
    assert_eq!(udp(bench, "laptop", &format!("{NODE1}:8080"), Datagram::ANY).err().as_deref(), Some("refused"));
    assert_eq!(bench.sh("node1", "cat /proc/sys/net/ipv4/conf/cni0/route_localnet").trim(), "1");
    assert!(!rules(bench, "node2").contains("CNI-"), "a host without such pods has no such rules");
}

fn pods_with_one_host_port_go_to_different_hosts(bench: &Bench) {
    let lab = |replicas: u32| {
        format!(
            "hosts: {{ node1: {{}}, node2: {{}} }}\nclients: {{ laptop: {{}} }}\npods: {{ busy: {{ host: node1 }} }}\n\
             deployments:\n  web: {{ replicas: {replicas}, ports: [{{ containerPort: 8080, hostPort: 80 }}] }}\n"
        )
    };
    bench.up(&bench.write(&lab(2)));
    let on = |pod: &str| bench.pod(pod)["spec"]["nodeName"].as_str().expect("a host").to_owned();
    // The emptier host comes first.
    assert_eq!((on("web-1").as_str(), on("web-2").as_str()), ("node2", "node1"));
    assert_eq!(who(bench, "laptop", &format!("http://{NODE1}/")), "web-2");
    assert_eq!(who(bench, "laptop", &format!("http://{NODE2}/")), "web-1");
    let refused = bench.run(&["scale", "deployment", "web", "--replicas", "3"]);
    assert!(refused.code != 0 && refused.stderr.contains("host-port"), "{refused}");
    assert_eq!(who(bench, "laptop", &format!("http://{NODE2}/")), "web-1", "the lab is as it was");
    bench.is_as_planned();
}

/// Three pods of one host, as in Kubernetes' own test.
fn one_host_port_is_shared_by_address_and_protocol(bench: &Bench) {
    let pod = |name: &str, ip: &str, protocol: &str| {
        format!(
            "  {name}: {{ host: node1, ports: [{{ containerPort: 8080, protocol: {protocol}, hostPort: 54323, hostIP: {ip} }}] }}\n"
        )
    };
    let pods = pod("inside", "127.0.0.1", "TCP") + &pod("outside", NODE1, "TCP") + &pod("datagrams", NODE1, "UDP");
    bench.up(&bench.write(&format!("hosts: {{ node1: {{}} }}\nclients: {{ laptop: {{}} }}\npods:\n{pods}")));
    let there = format!("{NODE1}:54323");
    assert_eq!(who(bench, "node1", "http://127.0.0.1:54323/"), "inside");
    assert_eq!(who(bench, "node1", &format!("http://{there}/")), "outside");
    assert_eq!(who(bench, "laptop", &format!("http://{there}/")), "outside");
    assert_eq!(udp_who(bench, "laptop", &there), "datagrams");
    assert_eq!(udp(bench, "node1", "127.0.0.1:54323", Datagram::ANY).err().as_deref(), Some("refused"));
    let told = bench.ok(&["describe", "pod", "outside"]);
    assert!(told.contains(&format!("54323/TCP of node1, on {NODE1} alone, leads to port 8080")), "{told}");
    bench.is_as_planned();
}

fn udp_follows_the_pod_that_has_the_host_port(bench: &Bench) {
    let lab =
        |pods: &str| format!("hosts: {{ node1: {{}} }}\nclients: {{ laptop: {{}} }}\npods:\n  other: {{}}\n{pods}");
    let pod = |name: &str, port: u16| {
        format!("  {name}: {{ ports: [{{ containerPort: {port}, protocol: UDP, hostPort: 5353 }}] }}\n")
    };
    bench.up(&bench.write(&lab(&pod("first", 53))));
    let mut stream = Stream::start(bench, "laptop", &format!("{NODE1}:5353"), 5555);
    stream.until_answered_by("first");
    // From one pod to the next at once.
    bench.up(&bench.write(&lab(&pod("second", 5300))));
    let took = stream.until_answered_by("second");
    assert!(took < SOON, "{took:?}");
    // Another port of the same pod.
    bench.up(&bench.write(&lab(&pod("second", 5301))));
    stream.forget();
    let took = stream.until_answered_by("second");
    assert!(took < SOON, "{took:?}");
    // It goes with its rules and flows; the client never stops.
    bench.ok(&["delete", "pod", "second"]);
    until("the rules are gone", || !rules(bench, "node1").contains("CNI-"));
    // The kernel tells an address of so many errors a second and no more, and the laptop's client takes them all.
    assert_eq!(udp(bench, "other", &format!("{NODE1}:5353"), Datagram::ANY).err().as_deref(), Some("refused"));
    bench.up(&bench.write(&lab(&pod("third", 53))));
    let took = stream.until_answered_by("third");
    assert!(took < SOON, "{took:?}");
    bench.is_as_planned();
}

fn a_host_port_changes_live_and_connections_live_on(bench: &Bench) {
    let lab = DOOR.to_owned();
    let url = |port: u16| format!("http://{NODE1}:{port}/");
    bench.up(&bench.write(&lab));
    assert_eq!(who(bench, "laptop", &url(8080)), "door");
    // A connection that asks twice, with the change between.
    let talk = "my $s = IO::Socket::INET->new('192.168.1.11:8080') or die; $| = 1;
        for (1, 2) { print $s qq(GET / HTTP/1.1\\r\\nHost: door\\r\\n\\r\\n); sysread $s, my $all, 65536 or die; print qq(answered\\n); <STDIN> }";
    let mut client = crate::harness::Background::start(bench.labctl(&[
        "exec",
        "laptop",
        "--",
        "perl",
        "-MIO::Socket::INET",
        "-e",
        talk,
    ]));
    assert_eq!(client.line(), "answered\n");
    let told = bench.up(&bench.write(&lab.replace("hostPort: 8080", "hostPort: 8081")));
    assert!(!told.contains("node2"), "the other host is not touched: {told}");
    assert_eq!(who(bench, "laptop", &url(8081)), "door");
    refused(bench, "laptop", &url(8080));
    client.tell("");
    assert_eq!(client.line(), "answered\n");
    bench.is_as_planned();
    // Without any, nothing is left of it.
    let bare = lab.replace(", hostPort: 8080", "").replace(", hostPort: 5353", "");
    bench.up(&bench.write(&bare));
    refused(bench, "laptop", &url(8081));
    assert!(!rules(bench, "node1").contains("CNI-"), "{}", rules(bench, "node1"));
    bench.is_as_planned();
}

fn what_is_broken_by_hand_is_seen_and_put_right(bench: &Bench) {
    let file = bench.write(DOOR);
    bench.up(&file);
    let by_127 = "http://127.0.0.1:8080/";
    for (line, told) in [
        ("iptables -w -t nat -F CNI-HOSTPORT-DNAT", "CNI-HOSTPORT-DNAT"),
        ("iptables -w -t nat -D POSTROUTING 1", "CNI-HOSTPORT-MASQ"),
        ("echo 0 >/proc/sys/net/ipv4/conf/cni0/route_localnet", "sysctl net.ipv4.conf.cni0.route_localnet=1"),
        // The bridge takes its settings with it.
        ("ip link delete cni0", "sysctl net.ipv4.conf.cni0.route_localnet=1"),
        // Another one goes with whatever settings it has.
        (
            "ip link delete cni0; ip link add cni0 index 999 type bridge; echo 1 >/proc/sys/net/ipv4/conf/cni0/route_localnet",
            "sysctl net.ipv4.conf.cni0.route_localnet=1",
        ),
    ] {
        bench.sh("node1", line);
        let drift = bench.run(&["diff"]).ends_with(1).stdout;
        assert!(drift.contains(told), "{line}: {drift}");
        assert!(ask::get(bench, "node1", by_127).is_err(), "{line} breaks it");
        bench.up(&file);
        assert_eq!(who(bench, "node1", by_127), "door", "after {line}");
        bench.is_as_planned();
    }
}

/// As the warnings say.
fn a_node_port_wins_and_a_listener_loses(bench: &Bench) {
    let text = "
hosts: { node1: { ports: [9000] } }
clients: { laptop: {} }
pods:
  door: { ports: [{ containerPort: 8080, hostPort: 30080 }, { containerPort: 8081, hostPort: 9000 }] }
  tea: { labels: { app: tea } }
services:
  tea: { type: NodePort, selector: { app: tea }, ports: [{ port: 80, targetPort: 8080, nodePort: 30080 }] }
";
    let said = bench.run(&["up", &bench.write(text), "--no-probes"]).ends_with(0);
    assert!(said.stderr.contains("is the NodePort of service default/tea, which wins"), "{said}");
    assert!(said.stderr.contains("hides the port that host node1 itself listens on"), "{said}");
    for from in ["laptop", "node1"] {
        assert_eq!(who(bench, from, &format!("http://{NODE1}:30080/")), "tea", "from {from}");
        assert_eq!(who(bench, from, &format!("http://{NODE1}:9000/")), "door", "from {from}");
    }
}

fn host_ports_of_manifests_are_taken_as_they_are(bench: &Bench) {
    let manifest = "
apiVersion: apps/v1
kind: Deployment
metadata: { name: gate }
spec:
  replicas: 2
  selector: { matchLabels: { app: gate } }
  template:
    metadata: { labels: { app: gate } }
    spec:
      containers:
      - name: gate
        image: gate
        ports:
        - { containerPort: 8080, hostPort: 80 }
        - { containerPort: 8081, hostPort: 0, hostIP: '' }
";
    std::fs::write(bench.path("gate.yaml"), manifest).expect("a file");
    bench.up(&bench.write("hosts: { node1: {}, node2: {} }\nclients: { laptop: {} }\nmanifests: [gate.yaml]\n"));
    let mut all =
        vec![who(bench, "laptop", &format!("http://{NODE1}/")), who(bench, "laptop", &format!("http://{NODE2}/"))];
    all.sort();
    assert_eq!(all, ["gate-1", "gate-2"]);
    let ports = bench.pod("gate-1")["spec"]["containers"][0]["ports"].clone();
    assert_eq!((ports[0]["hostPort"].as_u64(), ports[1].get("hostPort")), (Some(80), None), "{ports}");
}
