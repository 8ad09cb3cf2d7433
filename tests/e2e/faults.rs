//! Labs that are broken on purpose: each fault's question is answered, not answered with the fault, and answered
//! again without it; and nothing of a fault is left in the kernel. A lab serves the faults of one family, so
//! that families run side by side.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use labctl::fault::catalogue;
use serde_json::Value;

use crate::harness::Bench;
use crate::{as_ordinary_user_with_tun, as_root, as_root_and_ordinary_user, tests};

const ROUTING: &[&str] = &[
    "ip-forward-off",
    "route-missing",
    "default-route-missing",
    "route-steals-services",
    "route-loop",
    "host-gw-across-router",
    "rp-filter",
    "address-conflict",
    "bridge-outside-subnet",
    "bridge-address-missing",
];
const LINKS: &[&str] = &[
    "link-down-pod",
    "link-down-veth",
    "link-down-cni0",
    "link-down-host",
    "link-down-flannel",
    "link-down-router-port",
    "link-down-switch",
    "link-down-client",
    "mtu-too-large",
];
const VXLAN: &[&str] = &[
    "fdb-missing",
    "fdb-wrong",
    "neighbour-missing",
    "neighbour-wrong",
    "vtep-mac-wrong",
    "vni-wrong",
    "vxlan-port-wrong",
];
const FILTERS: &[&str] = &[
    "forward-policy-drop",
    "forward-drop",
    "forward-reject",
    "pod-firewalled",
    "node-port-firewalled",
    "node-port-not-masqueraded",
    "pods-not-masqueraded",
    "br-netfilter-off",
    "conntrack-full",
];
const OBJECTS: &[&str] = &[
    "selector-wrong",
    "target-port-wrong",
    "no-endpoints",
    "readiness-failing",
    "local-without-pod",
    "internal-local-without-pod",
    "dns-dead",
    "service-missing",
    "ingress-wrong-secret",
    "ingress-wrong-backend",
    "no-listener",
];
/// Beside flanneld those that are another thing with a TUN device.
const UDP: &[&str] = &[
    "flanneld-dead",
    "route-missing",
    "link-down-flannel",
    "mtu-too-large",
    "address-conflict",
    "host-gw-across-router",
];
const HOST_GW: &[&str] = &["route-missing", "route-loop", "link-down-host", "mtu-too-large", "pods-not-masqueraded"];

as_root_and_ordinary_user![
    faults_of_routing_break_a_lab_and_heal,
    faults_of_links_break_a_lab_and_heal,
    faults_of_vxlan_break_a_lab_and_heal,
    faults_of_filters_break_a_lab_and_heal,
    faults_of_objects_break_a_lab_and_heal,
    faults_break_host_gw_and_heal,
    a_ping_of_the_machines_own_sees_the_fault,
    faults_stay_through_apply_and_go_with_up,
    several_faults_heal_one_by_one,
    a_quiz_hides_its_fault,
    a_fault_that_does_not_fit_is_refused,
];
as_root![faults_break_udp_and_heal];
as_ordinary_user_with_tun![faults_break_udp_and_heal];
tests![&[]; every_fault_is_broken_and_healed];

fn every_fault_is_broken_and_healed() {
    let tested: BTreeSet<&str> = [ROUTING, LINKS, VXLAN, FILTERS, OBJECTS, UDP].concat().into_iter().collect();
    let all: BTreeSet<&str> = catalogue().map(|fault| fault.name).collect();
    assert_eq!(tested, all);
    assert_eq!(all.len(), catalogue().count(), "a name is there twice");
    assert!(all.len() >= 24);
}

fn faults_of_routing_break_a_lab_and_heal(bench: &Bench) {
    break_and_heal(bench, "vxlan", ROUTING);
}

fn faults_of_links_break_a_lab_and_heal(bench: &Bench) {
    break_and_heal(bench, "vxlan", LINKS);
}

fn faults_of_vxlan_break_a_lab_and_heal(bench: &Bench) {
    break_and_heal(bench, "vxlan", VXLAN);
}

fn faults_of_filters_break_a_lab_and_heal(bench: &Bench) {
    break_and_heal(bench, "vxlan", FILTERS);
}

fn faults_of_objects_break_a_lab_and_heal(bench: &Bench) {
    break_and_heal(bench, "vxlan", OBJECTS);
}

fn faults_break_udp_and_heal(bench: &Bench) {
    break_and_heal(bench, "udp", UDP);
}

fn faults_break_host_gw_and_heal(bench: &Bench) {
    break_and_heal(bench, "host-gw", HOST_GW);
}

/// A lab of `labs/broken`, under the bench's name.
fn up(bench: &Bench, lab: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("labs/broken").join(format!("{lab}.yaml"));
    let text = fs::read_to_string(path).expect("the lab").replace(&format!("\nname: broken-{lab}\n"), "\n");
    let file = bench.write(&text);
    bench.ok(&["up", &file]);
    file
}

/// The entry of a fault in the list.
fn listed(bench: &Bench, name: &str) -> Value {
    let list = bench.json(&["break", "--list"]);
    let found = list.as_array().expect("a list").iter().find(|f| f["name"] == name);
    found.unwrap_or_else(|| panic!("{name} is not listed: {list}")).clone()
}

fn break_and_heal(bench: &Bench, lab: &str, faults: &[&str]) {
    up(bench, lab);
    for name in faults {
        let entry = listed(bench, name);
        let broken = bench.json(&["break", name]);
        assert_eq!(broken["before"]["answered"], true, "{name}: it must be answered in the healthy lab: {broken}");
        assert_eq!(broken["now"]["answered"], false, "{name}: it must not be answered: {broken}");
        assert_eq!(broken["question"], entry["here"]["question"], "{name}: the list tells another question");
        let kind = broken["place"].as_str().and_then(|p| p.split('/').next());
        assert_eq!(kind, entry["place"].as_str(), "{name}: the catalogue tells another kind of place: {broken}");
        let status = bench.ok(&["status"]);
        assert!(status.contains(&format!("broken on purpose: {name} (")), "{status}");
        let healed = bench.json(&["heal"]);
        assert_eq!(healed[0]["now"]["answered"], true, "{name}: it must be answered again: {healed}");
        bench.is_as_planned();
    }
    assert!(!bench.ok(&["status"]).contains("broken"));
    bench.probes_pass();
}

/// The lab judges its own questions; this one is asked by a program that knows nothing of faults.
fn a_ping_of_the_machines_own_sees_the_fault(bench: &Bench) {
    up(bench, "vxlan");
    let answered = |code| drop(bench.exec("a1", &["ping", "-c1", "-W1", "10.244.2.20"]).ends_with(code));
    answered(0);
    bench.ok(&["break", "ip-forward-off", "--on", "node1"]);
    answered(1);
    let drift = bench.run(&["diff"]).ends_with(1);
    assert!(drift.stdout.contains("net.ipv4.ip_forward=1"), "{drift}");
    bench.ok(&["heal"]);
    answered(0);
}

const EXTRA: &str = "{ apiVersion: v1, kind: Service, metadata: { name: extra }, spec: { ports: [{ port: 80 }] } }";

fn faults_stay_through_apply_and_go_with_up(bench: &Bench) {
    let file = up(bench, "vxlan");
    bench.ok(&["break", "link-down-flannel"]);
    // Its question may have no answer before: DNS may be behind the device that is down.
    bench.run(&["break", "selector-wrong"]);
    let extra = bench.path("extra.yaml");
    fs::write(&extra, EXTRA).expect("a manifest");
    bench.ok(&["apply", "-f", &extra.to_string_lossy()]);
    let status = bench.ok(&["status"]);
    assert!(status.contains("link-down-flannel (node2), selector-wrong (service default/solo-svc)"), "{status}");
    bench.exec("a1", &["ping", "-c1", "-W1", "10.244.2.20"]).ends_with(1);
    bench.ok(&["up", &file]);
    assert!(!bench.ok(&["status"]).contains("broken"));
    bench.is_as_planned();
}

fn several_faults_heal_one_by_one(bench: &Bench) {
    up(bench, "vxlan");
    for name in ["selector-wrong", "no-endpoints", "link-down-flannel", "forward-drop"] {
        bench.run(&["break", name]);
    }
    bench.run(&["break", "internal-local-without-pod", "--on", "solo-svc"]).ends_with(2).says("fault-unfit");
    // Applied in between, which no healing takes away.
    let extra = bench.path("extra.yaml");
    fs::write(&extra, EXTRA).expect("a manifest");
    bench.ok(&["apply", "-f", &extra.to_string_lossy()]);
    let selector = || bench.json(&["get", "service", "solo-svc"])["spec"]["selector"]["app"].clone();
    bench.run(&["heal", "selector-wrong"]);
    assert_eq!(selector(), "solo");
    bench.run(&["get", "pods", "tea-1"]).ends_with(2);
    bench.run(&["heal", "link-down-flannel"]);
    let drift = bench.run(&["diff"]).ends_with(1);
    assert!(drift.stdout.contains("-j DROP") && !drift.stdout.contains("flannel.1"), "{drift}");
    bench.ok(&["heal"]);
    bench.is_as_planned();
    bench.probes_pass();
    bench.ok(&["get", "pods", "tea-1"]);
    bench.ok(&["get", "service", "extra"]);
    bench.run(&["heal", "forward-drop"]).ends_with(2).says("target-unknown");
}

fn a_quiz_hides_its_fault(bench: &Bench) {
    let file = up(bench, "host-gw");
    let asked = bench.json(&["quiz", "--seed", "7"]);
    assert_eq!(asked["now"]["answered"], false, "{asked}");
    assert!(!bench.ok(&["status"]).contains("broken on purpose"));
    assert!(!bench.ok(&["break", "--list"]).contains("broken\n"), "the list tells it");
    bench.run(&["quiz"]).ends_with(2).says("fault-unfit");
    // One that never fits this lab.
    bench.run(&["quiz", "--answer", "vni-wrong"]).ends_with(1);
    let revealed = bench.json(&["quiz", "--reveal"]);
    let name = revealed["name"].as_str().expect("a name").to_owned();
    assert_eq!(bench.json(&["quiz", "--answer", &name])["right"], true);
    bench.ok(&["heal"]);
    bench.is_as_planned();
    bench.run(&["quiz", "--reveal"]).ends_with(2).says("no quiz");
    bench.ok(&["quiz", "--seed", "7"]);
    assert_eq!(bench.json(&["quiz", "--reveal"])["name"], name.as_str(), "a seed gives the same fault again");
    bench.ok(&["up", &file]);
    bench.run(&["quiz", "--reveal"]).ends_with(2);
}

fn a_fault_that_does_not_fit_is_refused(bench: &Bench) {
    // Without a lab the catalogue alone is told.
    assert!(bench.json(&["break", "--list"])[0]["here"].is_null());
    up(bench, "host-gw");
    bench.run(&["break", "vni-wrong"]).ends_with(2).says("fault-unfit").says("flannel is host-gw");
    bench.run(&["break", "selector-wrong"]).ends_with(2).says("a service with a pod behind it");
    bench.run(&["break", "ip-forward-of"]).ends_with(2).says("did you mean `ip-forward-off`");
    bench.run(&["break", "ip-forward-off", "--on", "node4"]).ends_with(2).says("target-unknown");
    let unfit = listed(bench, "vni-wrong");
    assert!(unfit["here"].is_null() && unfit["unfit"].as_str().is_some_and(|u| u.contains("host-gw")), "{unfit}");
    let broken = bench.json(&["break", "ip-forward-off", "--on", "node3"]);
    assert_eq!((&broken["place"], &broken["on"]), (&"host/node3".into(), &"node3".into()));
    bench.run(&["break", "ip-forward-off"]).ends_with(2).says("already");
    bench.ok(&["heal"]);
    assert!(bench.ok(&["heal"]).contains("was not broken"));
}
