//! Reading and forgetting UDP flows, with real packets through real rules.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use labctl::kernel::conntrack::{Flow, delete, for_each_udp, forget_udp};
use labctl::kernel::crowd;
use labctl::kernel::ns::NetNs;

use crate::as_root_and_in_a_user_namespace;
use crate::ground::{fresh, sh};

as_root_and_in_a_user_namespace!(
    a_flow_shows_where_it_was_sent_and_who_answers,
    a_flow_of_ipv6_is_found_and_forgotten_like_one_of_ipv4,
    a_flow_that_no_rule_translated_answers_from_where_it_was_sent,
    a_forgotten_flow_goes_to_the_new_endpoint,
    an_entry_with_another_number_stays,
    a_flow_in_a_zone_is_forgotten_too,
    connections_of_tcp_are_neither_listed_nor_forgotten,
    flows_of_another_namespace_are_neither_listed_nor_forgotten,
    more_flows_than_one_answer_holds_are_all_listed_and_forgotten,
    a_namespace_that_tracks_nothing_has_no_flows,
    no_flow_of_others_stays_in_a_table_that_was_filled_while_they_sent,
);

const SERVICE: &str = "10.96.0.53:53";
const FIRST: &str = "10.0.0.1:5353";
const SECOND: &str = "10.0.0.2:5353";
/// How long a packet over loopback may take. Far more than it needs.
const PATIENCE: Duration = Duration::from_secs(10);

/// A namespace with a service and two endpoints, of which the first one serves.
fn ground() -> NetNs {
    let ns = fresh();
    sh(
        &ns,
        "ip addr add 10.0.0.1/32 dev lo
         ip addr add 10.0.0.2/32 dev lo
         ip addr add 10.0.0.9/32 dev lo
         ip route add 10.96.0.0/12 dev lo src 10.0.0.9",
    );
    lead_to(&ns, FIRST);
    ns
}

/// Make the service lead to one endpoint only.
fn lead_to(ns: &NetNs, endpoint: &str) {
    let rule = "-d 10.96.0.53/32 -p udp --dport 53 -j DNAT --to-destination";
    sh(ns, &format!("iptables -t nat -F OUTPUT\niptables -t nat -A OUTPUT {rule} {endpoint}"));
}

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address with a port")
}

/// A socket in the namespace, bound to `address`.
fn udp(ns: &NetNs, address: &str) -> UdpSocket {
    let socket = ns.run(|| UdpSocket::bind(address)).expect("the namespace").expect("a free port");
    socket.set_read_timeout(Some(PATIENCE)).expect("a limit");
    socket
}

/// Send a packet from `client` to the service; `server` must get it.
#[track_caller]
fn reaches(client: &UdpSocket, server: &UdpSocket) {
    client.send_to(b"who", SERVICE).expect("a packet");
    let got = server.recv_from(&mut [0; 8]);
    assert!(got.is_ok(), "the packet did not reach {:?}: {got:?}", server.local_addr());
}

fn all(ns: &NetNs) -> Vec<Flow> {
    let mut flows = Vec::new();
    for_each_udp(ns, |flow| flows.push(flow)).expect("the table");
    flows
}

fn a_flow_shows_where_it_was_sent_and_who_answers() {
    let ns = ground();
    let (client, server) = (udp(&ns, "10.0.0.9:4000"), udp(&ns, FIRST));
    reaches(&client, &server);
    let flows = all(&ns);
    assert_eq!(flows.len(), 1, "{flows:?}");
    assert_eq!(flows[0].original.source, at("10.0.0.9:4000"));
    assert_eq!(flows[0].destination(), at(SERVICE));
    assert_eq!(flows[0].answers_from(), at(FIRST));
    assert_eq!(flows[0].reply.destination, at("10.0.0.9:4000"));
}

fn a_flow_of_ipv6_is_found_and_forgotten_like_one_of_ipv4() {
    let ns = fresh();
    sh(
        &ns,
        "ip -6 addr add fd00::1/128 dev lo nodad
         ip -6 route add fd00:96::/64 dev lo src fd00::1
         ip6tables -t nat -A OUTPUT -d fd00:96::53 -p udp --dport 53 -j DNAT --to-destination [fd00::1]:5353",
    );
    let (client, server) = (udp(&ns, "[fd00::1]:4000"), udp(&ns, "[fd00::1]:5353"));
    client.send_to(b"who", "[fd00:96::53]:53").expect("a packet");
    server.recv_from(&mut [0; 8]).expect("the packet");
    let flows = all(&ns);
    assert_eq!(flows.len(), 1, "{flows:?}");
    assert_eq!((flows[0].destination(), flows[0].answers_from()), (at("[fd00:96::53]:53"), at("[fd00::1]:5353")));
    assert_eq!(delete(&ns, &flows).expect("the table"), 1);
    assert_eq!(all(&ns), []);
}

fn a_flow_that_no_rule_translated_answers_from_where_it_was_sent() {
    let ns = ground();
    udp(&ns, "10.0.0.9:4000").send_to(b"who", SECOND).expect("a packet");
    let flows = all(&ns);
    assert_eq!(flows.len(), 1, "{flows:?}");
    assert_eq!((flows[0].destination(), flows[0].answers_from()), (at(SECOND), at(SECOND)));
}

fn a_forgotten_flow_goes_to_the_new_endpoint() {
    let ns = ground();
    let (client, first, second) = (udp(&ns, "10.0.0.9:4000"), udp(&ns, FIRST), udp(&ns, SECOND));
    let other = udp(&ns, "10.0.0.9:4001");
    reaches(&client, &first);
    other.send_to(b"who", FIRST).expect("a packet");
    lead_to(&ns, SECOND);
    // A flow keeps its endpoint whatever the rules say now. That is why it must be forgotten.
    reaches(&client, &first);
    let stale = |flow: &Flow| flow.destination() == at(SERVICE) && flow.answers_from() != at(SECOND);
    assert_eq!(forget_udp(&ns, stale).expect("the table"), 1);
    reaches(&client, &second);
    let left: HashSet<_> = all(&ns).iter().map(|f| (f.destination(), f.answers_from())).collect();
    assert_eq!(left, HashSet::from([(at(SERVICE), at(SECOND)), (at(FIRST), at(FIRST))]));
}

fn an_entry_with_another_number_stays() {
    let ns = ground();
    udp(&ns, "10.0.0.9:4000").send_to(b"who", SERVICE).expect("a packet");
    let listed = all(&ns);
    let gone = Flow { id: listed[0].id.map(|id| !id), ..listed[0] };
    assert!(gone.id.is_some(), "{gone:?}");
    assert_eq!(delete(&ns, &[gone]).expect("the table"), 0);
    assert_eq!(all(&ns), listed);
    assert_eq!(delete(&ns, &listed).expect("the table"), 1);
}

fn a_flow_in_a_zone_is_forgotten_too() {
    for option in ["--zone", "--zone-orig"] {
        let ns = ground();
        sh(&ns, &format!("iptables -t raw -A OUTPUT -p udp --sport 4000 -j CT {option} 7"));
        let client = udp(&ns, "10.0.0.9:4000");
        client.send_to(b"who", SERVICE).expect("a packet");
        // With a zone for one direction only, the way back in is another flow's, without one.
        let ours = |flow: &Flow| flow.destination() == at(SERVICE);
        assert!(all(&ns).iter().any(ours), "{option}: {:?}", all(&ns));
        assert_eq!(forget_udp(&ns, ours).expect("the table"), 1, "{option}");
        assert!(!all(&ns).iter().any(ours), "{option}: {:?}", all(&ns));
    }
}

fn connections_of_tcp_are_neither_listed_nor_forgotten() {
    let ns = ground();
    let listener = ns.run(|| TcpListener::bind(FIRST)).expect("the namespace").expect("a free port");
    let _client = ns.run(|| TcpStream::connect(FIRST)).expect("the namespace").expect("a connection");
    let _server = listener.accept().expect("the connection");
    assert_eq!(all(&ns), []);
    assert_eq!(forget_udp(&ns, |_| true).expect("the table"), 0);
    let count = ns.run(|| std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count"));
    assert_eq!(count.expect("the namespace").expect("the number of entries").trim(), "1");
}

fn flows_of_another_namespace_are_neither_listed_nor_forgotten() {
    let (here, there) = (ground(), ground());
    udp(&there, "10.0.0.9:4000").send_to(b"who", SERVICE).expect("a packet");
    assert_eq!(all(&here), []);
    let flows = all(&there);
    assert_eq!(flows.len(), 1);
    assert_eq!(delete(&here, &flows).expect("the table"), 0);
    assert_eq!(all(&there), flows);
}

fn more_flows_than_one_answer_holds_are_all_listed_and_forgotten() {
    let ns = ground();
    let client = udp(&ns, "10.0.0.9:4000");
    // Nobody listens on most of these ports, which is no matter to conntrack.
    let ports: HashSet<u16> = (1..=3_000).collect();
    for port in &ports {
        client.send_to(b"who", ("10.0.0.1", *port)).expect("a packet");
    }
    let flows = all(&ns);
    assert_eq!(flows.iter().map(|f| f.destination().port()).collect::<HashSet<_>>(), ports);
    let even: Vec<_> = flows.iter().filter(|f| f.destination().port() % 2 == 0).copied().collect();
    assert_eq!(delete(&ns, &even).expect("the table"), 1_500);
    assert_eq!(delete(&ns, &flows).expect("the table"), 1_500, "those that have gone are no error");
    assert_eq!(all(&ns), []);
    for port in &ports {
        client.send_to(b"who", ("10.0.0.1", *port)).expect("a packet");
    }
    assert_eq!(forget_udp(&ns, |_| true).expect("the table"), 3_000);
    assert_eq!(all(&ns), []);
}

fn a_namespace_that_tracks_nothing_has_no_flows() {
    let ns = fresh();
    udp(&ns, "127.0.0.1:4000").send_to(b"who", "127.0.0.1:4001").expect("a packet");
    assert_eq!(all(&ns), []);
    assert_eq!(delete(&ns, &[]).expect("the table"), 0);
    assert_eq!(forget_udp(&ns, |_| true).expect("the table"), 0);
}

fn no_flow_of_others_stays_in_a_table_that_was_filled_while_they_sent() {
    let ns = ground();
    let is_over = AtomicBool::new(false);
    let filled = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                // Each is a flow of its own; one for which there is no room is refused.
                let _ = udp(&ns, "10.0.0.9:0").send_to(b"who", FIRST);
                thread::sleep(Duration::from_millis(20));
            }
        });
        let filled = crowd::fill(&ns);
        is_over.store(true, Ordering::Relaxed);
        filled
    });
    let (mut ours, mut others) = (0, Vec::new());
    for_each_udp(&ns, |flow| match flow.original.source.ip() {
        IpAddr::V4(ip) if ip.octets()[0] == 198 => ours += 1,
        _ => others.push(flow),
    })
    .expect("the table");
    assert_eq!((ours, others), (filled.expect("a full table"), Vec::new()));
    crowd::forget(&ns).expect("an empty table");
    assert_eq!(all(&ns), []);
}
