//! What somebody did by hand to a machine's devices, bridges, settings and queues: the trace of a question names it, and
//! what it names as remedy mends it.

use labctl::fault::Question;
use labctl::lab::names::NsName;
use labctl::trace::model::Cause;

use crate::as_root_and_ordinary_user;
use crate::broken::Broken;
use crate::harness::Bench;

as_root_and_ordinary_user![
    a_pod_that_answers_no_ping_is_named,
    a_device_that_forwards_nothing_is_named,
    a_reverse_path_filter_of_one_device_is_named,
    a_short_time_to_live_is_named,
    a_port_out_of_service_is_named,
    two_isolated_ports_are_named,
    a_port_that_left_its_bridge_is_named,
    an_entry_of_a_bridge_that_leads_elsewhere_is_named,
    an_entry_that_makes_an_address_the_bridges_own_is_named,
    another_mac_address_is_named,
    an_address_that_a_bridge_has_lost_is_named,
    an_address_that_a_pod_has_lost_is_named,
    a_queue_that_drops_is_named,
    a_queue_of_the_askers_own_is_named,
];

const LAB: &str = "
hosts: { node1: {}, node2: {} }
pods:
  a1: { host: node1, address: 10.244.1.20 }
  a2: { host: node1, address: 10.244.1.21 }
  a3: { host: node1, address: 10.244.1.22 }
  b1: { host: node2, address: 10.244.2.20 }
";
/// The device of a pod's host that leads to it, once the bridge has learnt of it.
const PORT: &str =
    "port() { bridge fdb show br cni0 | sed -n \"s/^0a:58:0a:f4:01:$1 dev \\([^ ]*\\).*/\\1/p\" | head -n 1; }";
const A1: &str = "14";
const A2: &str = "15";
const A3: &str = "16";
/// A queue that has no room for a packet.
const NO_ROOM: &str = "root tbf rate 8kbit burst 10 limit 10";

fn at(path: &str) -> NsName {
    serde_json::from_value(path.into()).expect("a machine")
}

fn pod(name: &str) -> NsName {
    at(&format!("pod/default/{name}"))
}

fn ping(from: &str, to: &str) -> Question {
    Question::ping(pod(from), to)
}

/// Break a lab, after its question was answered, so that neighbours are known; and see the fault named and mended.
fn is_named(
    bench: &Bench,
    question: &Question,
    (target, line): (&str, &str),
    (cause, place, object): (Cause, NsName, &str),
) {
    let broken = Broken::of_text(bench, LAB);
    for all in [question, &ping("a1", "a3")] {
        broken.is_answered(all);
    }
    bench.sh(target, &format!("export PATH=$PATH:/usr/sbin:/sbin; {PORT}; {line}"));
    // Once more, as neighbours may be asked for anew in the meantime.
    for _ in 0..2 {
        let trace = broken.trace(question);
        let fault = trace.verdict.fault.as_ref().unwrap_or_else(|| panic!("no fault: {trace:#?}"));
        assert_eq!((fault.cause, &fault.place), (cause, &place), "{} {fault:#?}", trace.verdict.says);
        assert!(fault.object.contains(object), "{fault:#?}");
        assert!(!trace.asked.answered && !fault.evidence.is_empty(), "{fault:#?}");
    }
    let fault = broken.trace(question).verdict.fault.expect("a fault");
    broken.mend(&fault).unwrap_or_else(|why| panic!("{why}: {fault:#?}"));
    broken.is_answered(question);
    bench.is_as_planned();
}

fn a_pod_that_answers_no_ping_is_named(bench: &Bench) {
    let setting = "net.ipv4.icmp_echo_ignore_all";
    let line = format!("sysctl -w {setting}=1");
    is_named(bench, &ping("a1", "a2"), ("a2", &line), (Cause::Setting, pod("a2"), setting));
}

fn a_device_that_forwards_nothing_is_named(bench: &Bench) {
    let setting = "net.ipv4.conf.flannel/1.forwarding";
    let line = format!("sysctl -w {setting}=0");
    is_named(bench, &ping("a1", "b1"), ("node2", &line), (Cause::ForwardingOff, at("host/node2"), setting));
}

fn a_reverse_path_filter_of_one_device_is_named(bench: &Bench) {
    let setting = "net.ipv4.conf.flannel/1.rp_filter";
    let line = format!("ip route replace 10.244.1.0/24 via 192.168.1.11 dev eth0; sysctl -w {setting}=1");
    let line = line.replace("192.168.1.11", "$(getent hosts node1 | cut -d' ' -f1)");
    is_named(bench, &ping("a1", "b1"), ("node2", &line), (Cause::ReversePath, at("host/node2"), setting));
    let left = bench.sh("node2", &format!("PATH=$PATH:/usr/sbin:/sbin; sysctl -n {setting}"));
    assert_eq!(left.trim(), "0", "the filter is still there, and hidden by the route that is right again");
}

fn a_short_time_to_live_is_named(bench: &Bench) {
    let setting = "net.ipv4.ip_default_ttl";
    let question = Question::tcp(pod("a1"), "b1", 8080);
    is_named(bench, &question, ("a1", &format!("sysctl -w {setting}=2")), (Cause::Setting, pod("a1"), setting));
}

fn a_port_out_of_service_is_named(bench: &Bench) {
    let line = format!("bridge link set dev $(port {A2}) state 0");
    is_named(bench, &ping("a1", "a2"), ("node1", &line), (Cause::PortBlocked, at("host/node1"), "veth"));
}

fn two_isolated_ports_are_named(bench: &Bench) {
    let one = |port| format!("bridge link set dev $(port {port}) isolated on");
    let line = format!("{}; {}", one(A1), one(A2));
    is_named(bench, &ping("a1", "a2"), ("node1", &line), (Cause::PortBlocked, at("host/node1"), "veth"));
}

fn a_port_that_left_its_bridge_is_named(bench: &Bench) {
    let line = format!("ip link set $(port {A2}) nomaster");
    is_named(bench, &ping("a1", "a2"), ("node1", &line), (Cause::NoDevice, at("host/node1"), "veth"));
}

fn an_entry_of_a_bridge_that_leads_elsewhere_is_named(bench: &Bench) {
    let line = format!("bridge fdb replace 0a:58:0a:f4:01:{A2} dev $(port {A3}) master static sticky");
    is_named(bench, &ping("a1", "a2"), ("node1", &line), (Cause::WrongFdbEntry, at("host/node1"), "0a:58:0a:f4:01:15"));
}

fn an_entry_that_makes_an_address_the_bridges_own_is_named(bench: &Bench) {
    let line = format!("bridge fdb replace 0a:58:0a:f4:01:{A2} dev $(port {A3}) master");
    is_named(bench, &ping("a1", "a2"), ("node1", &line), (Cause::WrongFdbEntry, at("host/node1"), "0a:58:0a:f4:01:15"));
}

fn another_mac_address_is_named(bench: &Bench) {
    let line = "ip link set eth0 address 02:00:00:00:00:09";
    is_named(bench, &ping("a1", "a2"), ("a2", line), (Cause::WrongMac, pod("a2"), "eth0"));
}

fn an_address_that_a_bridge_has_lost_is_named(bench: &Bench) {
    let named = (Cause::NoAddress, at("host/node1"), "10.244.1.1/24 dev cni0");
    is_named(bench, &ping("a1", "b1"), ("node1", "ip address flush dev cni0"), named);
}

fn an_address_that_a_pod_has_lost_is_named(bench: &Bench) {
    let named = (Cause::NoAddress, pod("b1"), "10.244.2.20/24 dev eth0");
    is_named(bench, &ping("a1", "b1"), ("b1", "ip address flush dev eth0"), named);
}

fn a_queue_that_drops_is_named(bench: &Bench) {
    let line = format!("tc qdisc add dev flannel.1 {NO_ROOM}");
    is_named(bench, &ping("a1", "b1"), ("node1", &line), (Cause::Qdisc, at("host/node1"), "tbf dev flannel.1"));
}

fn a_queue_of_the_askers_own_is_named(bench: &Bench) {
    let line = format!("tc qdisc add dev eth0 {NO_ROOM}");
    is_named(bench, &ping("a1", "b1"), ("a1", &line), (Cause::Qdisc, pod("a1"), "tbf dev eth0"));
}
