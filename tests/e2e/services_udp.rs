//! What conntrack remembers of services' flows. UDP while pods change: where a client's datagrams go
//! must be forgotten in time, or a client that keeps its port talks to nobody. TCP: what kube-proxy sets,
//! and packets that conntrack takes for no part of a connection.

use std::time::Duration;

use crate::ask::{Datagram, Stream, endpoints, udp};
use crate::harness::{Background, Bench, until};
use crate::{as_root, as_root_and_ordinary_user};

as_root_and_ordinary_user![
    udp_goes_on_to_a_cluster_ip_when_the_server_pod_cycles,
    udp_goes_on_when_the_first_endpoints_were_unready,
    udp_flows_to_a_gone_endpoint_are_forgotten_and_others_are_kept,
];
as_root![
    udp_goes_on_to_a_node_port_when_the_server_pod_cycles,
    udp_goes_on_under_internal_traffic_policy_local_when_the_server_pod_cycles,
    udp_goes_on_from_a_host_when_the_server_pod_cycles,
    udp_goes_on_to_a_load_balancer_when_the_server_pod_cycles_on_one_host,
    udp_goes_on_to_a_load_balancer_when_the_server_pod_cycles_between_hosts,
    udp_to_a_node_port_follows_a_new_target_port,
    a_half_closed_connection_is_remembered_for_an_hour,
    a_packet_out_of_a_connections_window_is_dropped,
];

/// The longest that a client may be without an answer once the new pod is there.
const SOON: Duration = Duration::from_secs(5);
const VIP: &str = "10.96.7.7";

fn lab(pods: &str, service: &str) -> String {
    format!(
        "hosts: {{ node1: {{}}, node2: {{}} }}\nclients: {{ laptop: {{}} }}\npods:\n  ask: {{ host: node1 }}\n{pods}\
         services:\n  tea: {{ clusterIP: {VIP}, selector: {{ app: tea }}, {service} }}\n"
    )
}

const PORTS: &str = "ports: [{ port: 80, protocol: UDP, targetPort: 8080 }]";
const NODE_PORT: &str = "type: NodePort, ports: [{ port: 80, protocol: UDP, targetPort: 8080, nodePort: 30080 }]";

fn pod(name: &str, host: &str) -> String {
    format!("  {name}: {{ host: {host}, labels: {{ app: tea }} }}\n")
}

/// A client that never stops asks a service whose pod goes and is followed by another one.
#[track_caller]
fn cycles(bench: &Bench, service: &str, from: &str, to: &str) {
    cycles_on(bench, service, (from, to), ["node1", "node1", "node1"]);
}

/// The same with the hosts that the pods are on, one after the other.
#[track_caller]
fn cycles_on(bench: &Bench, service: &str, (from, to): (&str, &str), [first, second, third]: [&str; 3]) {
    let up = |pods: &str| bench.up(&bench.write(&lab(pods, service)));
    up(&pod("first", first));
    let mut stream = Stream::start(bench, from, to, 5555);
    stream.until_answered_by("first");
    up("");
    // Datagrams go on while nobody is there, and what conntrack remembers then is wrong, too.
    assert_eq!(udp(bench, from, to, Datagram::ANY).err().as_deref(), Some("refused"));
    up(&pod("second", second));
    let took = stream.until_answered_by("second");
    println!("the new pod answered {took:?} after `up` had returned");
    assert!(took < SOON, "{took:?}");
    // And from one pod to the next without a pause.
    up(&(pod("second", second) + &pod("third", third)));
    up(&pod("third", third));
    let took = stream.until_answered_by("third");
    assert!(took < SOON, "{took:?}");
}

fn udp_goes_on_to_a_cluster_ip_when_the_server_pod_cycles(bench: &Bench) {
    cycles(bench, PORTS, "ask", &format!("{VIP}:80"));
}

fn udp_goes_on_to_a_node_port_when_the_server_pod_cycles(bench: &Bench) {
    cycles(bench, NODE_PORT, "laptop", "192.168.1.12:30080");
}

fn udp_goes_on_under_internal_traffic_policy_local_when_the_server_pod_cycles(bench: &Bench) {
    cycles(bench, &format!("internalTrafficPolicy: Local, {PORTS}"), "ask", &format!("{VIP}:80"));
}

fn udp_goes_on_from_a_host_when_the_server_pod_cycles(bench: &Bench) {
    cycles(bench, PORTS, "node2", &format!("{VIP}:80"));
}

/// The first address of the load balancers' range.
const BALANCER: &str = "198.51.100.1:80";

fn udp_goes_on_to_a_load_balancer_when_the_server_pod_cycles_on_one_host(bench: &Bench) {
    cycles(bench, &format!("type: LoadBalancer, {PORTS}"), "laptop", BALANCER);
}

fn udp_goes_on_to_a_load_balancer_when_the_server_pod_cycles_between_hosts(bench: &Bench) {
    let service = format!("type: LoadBalancer, {PORTS}");
    cycles_on(bench, &service, ("laptop", BALANCER), ["node1", "node2", "node1"]);
}

fn udp_goes_on_when_the_first_endpoints_were_unready(bench: &Bench) {
    let slow = "  slow: { host: node2, labels: { app: tea }, \
                readinessProbe: { exec: { command: [test, -e, /run/ready] }, periodSeconds: 1 } }\n";
    let file = bench.write(&lab(slow, NODE_PORT));
    bench.run(&["up", &file, "--timeout", "1"]).ends_with(1).says("lab-not-ready");
    // Their first datagrams find nobody.
    assert_eq!(udp(bench, "laptop", "192.168.1.12:30080", Datagram::ANY).err().as_deref(), Some("refused"));
    let mut inside = Stream::start(bench, "ask", &format!("{VIP}:80"), 5555);
    let mut outside = Stream::start(bench, "laptop", "192.168.1.12:30080", 5556);
    bench.sh("slow", "touch /run/ready");
    until("the pod is in the rules", || !endpoints(bench, "node2", "default/tea").is_empty());
    for stream in [&mut inside, &mut outside] {
        let took = stream.until_answered_by("slow");
        assert!(took < SOON, "{took:?}");
    }
}

fn udp_to_a_node_port_follows_a_new_target_port(bench: &Bench) {
    let pods = "  first: { host: node1, labels: { app: tea }, ports: [{ containerPort: 8080, protocol: UDP }] }\n";
    let moved = pods.replace("8080", "9090");
    bench.up(&bench.write(&lab(pods, NODE_PORT)));
    let mut stream = Stream::start(bench, "laptop", "192.168.1.12:30080", 5555);
    stream.until_answered_by("first");
    bench.up(&bench.write(&lab(&moved, &NODE_PORT.replace("targetPort: 8080", "targetPort: 9090"))));
    // What comes from now on was sent anew: the old port is closed.
    stream.forget();
    let took = stream.until_answered_by("first");
    assert!(took < SOON, "{took:?}");
}

/// The UDP flows that a host remembers from a source port.
fn flows(bench: &Bench, host: &str, port: u16) -> Vec<String> {
    let all = bench.sh(host, "cat /proc/net/nf_conntrack 2>/dev/null || conntrack -L -p udp 2>/dev/null");
    all.lines()
        .filter(|l| l.contains(" udp ") || l.starts_with("udp "))
        .filter(|l| l.contains(&format!("sport={port} ")))
        .map(str::to_owned)
        .collect()
}

fn udp_flows_to_a_gone_endpoint_are_forgotten_and_others_are_kept(bench: &Bench) {
    let both = pod("first", "node1") + &pod("second", "node2");
    bench.up(&bench.write(&lab(&both, PORTS)));
    let (first, second) = (bench.ip("first"), bench.ip("second"));
    for port in 6000..6012 {
        let asked = udp(bench, "ask", &format!("{VIP}:80"), Datagram { source_port: port, size: 1 });
        asked.expect("an answer");
    }
    let to = |bench: &Bench, ip: &str| {
        (6000..6012).flat_map(|port| flows(bench, "node1", port)).filter(|f| f.contains(&format!("src={ip} "))).count()
    };
    assert!(to(bench, &first) > 0 && to(bench, &second) > 0, "both have flows");
    let kept = to(bench, &second);
    bench.up(&bench.write(&lab(&pod("second", "node2"), PORTS)));
    assert_eq!(to(bench, &first), 0, "flows to the pod that went are forgotten");
    assert_eq!(to(bench, &second), kept, "flows to the other one are not");
}

/// A connection through the service that waits: `talk` is what perl does with its socket `$s`.
fn connect(bench: &Bench, talk: &str) -> Background {
    let line = format!("my $s = IO::Socket::INET->new('{VIP}:80') or die; $| = 1; {talk}");
    Background::start(bench.labctl(&["exec", "ask", "--", "perl", "-MIO::Socket::INET", "-e", &line]))
}

/// A service whose server takes connections and says and closes nothing.
fn silent() -> String {
    let listen = "my $l = IO::Socket::INET->new(LocalPort => 8080, Listen => 5, ReuseAddr => 1); \
                  my @all; while (1) { push @all, $l->accept }";
    let server = format!(
        "  silent: {{ host: node1, labels: {{ app: tea }}, command: [perl, -MIO::Socket::INET, -e, '{listen}'], \
         readinessProbe: {{ tcpSocket: {{ port: 8080 }}, periodSeconds: 1 }} }}\n"
    );
    lab(&server, "ports: [{ port: 80, targetPort: 8080 }]")
}

/// kube-proxy's --conntrack-tcp-timeout-close-wait.
fn a_half_closed_connection_is_remembered_for_an_hour(bench: &Bench) {
    bench.up(&bench.write(&silent()));
    let mut client = connect(bench, "shutdown($s, 1); print qq(closed\\n); sleep 1000");
    assert_eq!(client.line(), "closed\n");
    let seconds = |bench: &Bench| -> Option<u32> {
        let all = bench.sh("node1", "conntrack -L -p tcp 2>/dev/null");
        let line = all.lines().find(|l| l.contains("CLOSE_WAIT") && l.contains(&format!("dst={VIP}")))?;
        line.split_whitespace().nth(2)?.parse().ok()
    };
    until("the connection is half closed", || seconds(bench).is_some());
    let left = seconds(bench).expect("it is remembered");
    assert!((3500..=3600).contains(&left), "{left} s");
}

/// Segments from the server's port, half of all numbers apart, so that one is beyond the window, whatever
/// that is; with their checksums, because conntrack looks at those, too.
const STRAY: &str = "
my ($from, $to, $port) = @ARGV;
socket(S, AF_INET, SOCK_RAW, 6) or die;
for my $number (0x10000000, 0x90000000) {
    my $segment = pack 'nnNNnnnn', 8080, $port, $number, 0, 0x5010, 1000, 0, 0;
    my $all = inet_aton($from) . inet_aton($to) . pack('nn', 6, length $segment) . $segment;
    my $sum = 0; $sum += $_ for unpack 'n*', $all;
    $sum = ($sum & 0xffff) + ($sum >> 16) while $sum >> 16;
    substr $segment, 16, 2, pack 'n', ~$sum & 0xffff;
    send(S, $segment, 0, sockaddr_in(0, inet_aton($to))) or die;
}
";

/// Without the rule the client would get it from the pod's own address, which it knows nothing of,
/// and would reset the connection.
fn a_packet_out_of_a_connections_window_is_dropped(bench: &Bench) {
    bench.up(&bench.write(&silent()));
    let mut client = connect(bench, "print $s->sockport, qq(\\n); sleep 1000");
    let port = client.line().trim().to_owned();
    let dropped = |bench: &Bench| -> u32 {
        let rules = bench.sh("node1", "iptables-save -c -t filter");
        let rule = rules.lines().find(|l| l.contains("-A KUBE-FORWARD") && l.contains("INVALID")).expect("the rule");
        rule.trim_start_matches('[').split(':').next().and_then(|n| n.parse().ok()).expect("a number")
    };
    assert_eq!(dropped(bench), 0);
    let (from, to) = (bench.ip("silent"), bench.ip("ask"));
    let resets = || bench.sh("ask", "grep '^Tcp:' /proc/net/snmp | tail -1 | cut -d' ' -f16");
    let before = resets();
    bench.exec("silent", &["perl", "-MSocket", "-e", STRAY, &from, &to, &port]).ends_with(0);
    until("the host has dropped it", || dropped(bench) > 0);
    assert_eq!(resets(), before, "the client has sent no reset");
    assert!(bench.sh("node1", "conntrack -L -p tcp 2>/dev/null").contains("ESTABLISHED"), "the connection lives");
}
