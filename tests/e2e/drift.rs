//! Someone changes the lab's kernel state by hand: `diff` names it, `up` repairs it.

use nix::sys::signal::Signal;

use crate::harness::process::{Tree, signal};
use crate::harness::{Bench, until};
use crate::sample::FOUR_PODS;
use crate::{as_root, as_root_and_ordinary_user};

as_root_and_ordinary_user![
    a_missing_route_is_named_and_repaired,
    a_missing_forwarding_entry_is_named_and_repaired,
    a_missing_neighbour_is_named_and_repaired,
    a_wrong_neighbour_is_named_and_repaired,
    missing_rules_are_named_and_repaired,
    a_rule_too_many_is_named_and_removed,
    a_route_too_many_is_named_and_removed,
    a_link_that_is_down_is_named_and_repaired,
    a_pods_link_that_is_down_is_named_and_repaired,
    a_missing_tunnel_device_is_named_and_repaired,
    a_missing_bridge_is_named_and_repaired,
    a_missing_cable_is_named_and_repaired,
    a_device_too_many_is_named_and_removed,
    a_pair_of_devices_too_many_is_named_and_removed,
    rules_in_a_table_of_nobodys_are_named_and_removed,
    another_mtu_is_named_and_repaired,
    a_cable_pulled_out_of_the_bridge_is_named_and_repaired,
    a_changed_sysctl_is_named_and_repaired,
    a_missing_address_is_named_and_repaired,
    a_missing_route_of_the_kernels_own_is_named_and_repaired,
];
as_root![a_killed_flanneld_is_named_and_started_again];

/// Do `harm` on a machine; `diff` must show the step that mends it, and `up` must take it.
#[track_caller]
fn repairs(bench: &Bench, target: &str, harm: &str, step: &str) {
    let file = bench.write(FOUR_PODS);
    bench.up(&file);
    bench.sh(target, harm);
    mends(bench, &file, step);
}

#[track_caller]
fn mends(bench: &Bench, file: &str, step: &str) {
    let drift = bench.run(&["diff"]).ends_with(1);
    assert!(drift.stdout.contains(step), "it should name {step:?}: {drift}");
    bench.up(file);
    bench.is_as_planned();
    bench.probes_pass();
}

fn a_missing_route_is_named_and_repaired(bench: &Bench) {
    let step = "route add 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink";
    repairs(bench, "node1", "ip route del 10.244.2.0/24", step);
}

fn a_missing_forwarding_entry_is_named_and_repaired(bench: &Bench) {
    let harm = "bridge fdb del $(bridge fdb show dev flannel.1 | cut -d' ' -f1) dev flannel.1 dst 192.168.1.12";
    repairs(bench, "node1", harm, "dst 192.168.1.12 self permanent");
}

fn a_missing_neighbour_is_named_and_repaired(bench: &Bench) {
    repairs(bench, "node1", "ip neigh del 10.244.2.0 dev flannel.1", "neigh add 10.244.2.0 dev flannel.1");
}

fn a_wrong_neighbour_is_named_and_repaired(bench: &Bench) {
    let harm = "ip neigh replace 10.244.2.0 lladdr 02:00:00:00:00:01 dev flannel.1";
    repairs(bench, "node1", harm, "neigh add 10.244.2.0 dev flannel.1");
}

fn missing_rules_are_named_and_repaired(bench: &Bench) {
    repairs(bench, "node1", "iptables -w -F FLANNEL-FWD", "iptables-restore");
}

fn a_rule_too_many_is_named_and_removed(bench: &Bench) {
    repairs(bench, "b1", "iptables -w -A INPUT -p icmp -j DROP", "iptables-restore");
}

fn a_route_too_many_is_named_and_removed(bench: &Bench) {
    repairs(bench, "a1", "ip route add 10.244.2.0/24 via 10.244.1.3", "route delete 10.244.2.0/24 via 10.244.1.3");
}

fn a_link_that_is_down_is_named_and_repaired(bench: &Bench) {
    repairs(bench, "node1", "ip link set flannel.1 down", "link set flannel.1 up");
}

fn a_pods_link_that_is_down_is_named_and_repaired(bench: &Bench) {
    repairs(bench, "a1", "ip link set eth0 down", "link set eth0 up");
}

fn a_missing_tunnel_device_is_named_and_repaired(bench: &Bench) {
    repairs(bench, "node2", "ip link del flannel.1", "link add flannel.1");
}

fn a_missing_bridge_is_named_and_repaired(bench: &Bench) {
    repairs(bench, "node1", "ip link del cni0", "link add cni0");
}

fn a_missing_cable_is_named_and_repaired(bench: &Bench) {
    repairs(bench, "a2", "ip link del eth0", "type veth peer eth0 in a2");
}

fn a_device_too_many_is_named_and_removed(bench: &Bench) {
    repairs(bench, "node1", "ip link add stray type bridge", "link delete stray");
}

fn a_pair_of_devices_too_many_is_named_and_removed(bench: &Bench) {
    repairs(bench, "node1", "ip link add stray type veth peer name other", "link delete stray");
}

fn rules_in_a_table_of_nobodys_are_named_and_removed(bench: &Bench) {
    repairs(bench, "node1", "iptables -w -t raw -A PREROUTING -p icmp -j DROP", "iptables-restore");
}

fn another_mtu_is_named_and_repaired(bench: &Bench) {
    repairs(bench, "a1", "ip link set eth0 mtu 1400", "link set eth0 mtu 1450 (was 1400)");
}

fn a_cable_pulled_out_of_the_bridge_is_named_and_repaired(bench: &Bench) {
    let harm = "ip link set $(ip -o link show master cni0 | head -1 | cut -d' ' -f2 | cut -d@ -f1) nomaster";
    repairs(bench, "node1", harm, "master cni0");
}

fn a_changed_sysctl_is_named_and_repaired(bench: &Bench) {
    repairs(bench, "node1", "echo 0 > /proc/sys/net/ipv4/ip_forward", "sysctl net.ipv4.ip_forward=1");
}

fn a_missing_address_is_named_and_repaired(bench: &Bench) {
    repairs(bench, "a1", "ip address flush dev eth0", "address add 10.244.1.2/24 dev eth0");
}

fn a_missing_route_of_the_kernels_own_is_named_and_repaired(bench: &Bench) {
    repairs(bench, "node1", "ip route del 10.244.1.0/24 dev cni0", "whose network has no route");
}

fn a_killed_flanneld_is_named_and_started_again(bench: &Bench) {
    let file = bench.write(&format!("cluster: {{ flannel: {{ backend: udp }} }}\n{FOUR_PODS}"));
    bench.up(&file);
    let tree = Tree::of(bench.daemon());
    signal(tree.named("flanneld")[0], Signal::SIGKILL);
    until("status says so", || bench.ok(&["status"]).contains("flanneld does not run"));
    mends(bench, &file, "start flanneld");
    assert_eq!(tree.named("flanneld").len(), 2);
    assert!(!bench.ok(&["status"]).contains("trouble"));
}
