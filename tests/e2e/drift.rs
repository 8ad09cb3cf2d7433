//! Someone changes the lab's kernel state by hand: `diff` names it, `up` repairs it.
//!
//! Most cases are a line of the table: where, what somebody types there, and the step that mends
//! it. Packet filters have a file of their own.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::as_root;
use crate::harness::process::{Tree, signal};
use crate::harness::{Background, Bench, until};
use crate::sample::FOUR_PODS;

/// Do `harm` on a machine; `diff` must show the step that mends it, and `up` must take it.
#[track_caller]
pub fn repairs(bench: &Bench, target: &str, harm: &str, step: &str) {
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

/// A test for each line.
#[macro_export]
macro_rules! drift {
    ($($name:ident: on $target:literal $harm:expr => $step:expr;)*) => {
        $(fn $name(bench: &$crate::harness::Bench) { $crate::drift::repairs(bench, $target, $harm, $step); })*
        $crate::as_root_and_ordinary_user![$($name),*];
    };
}

drift! {
    a_missing_route: on "node1" "ip route del 10.244.2.0/24"
        => "route add 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink";
    a_missing_forwarding_entry: on "node1"
        "bridge fdb del $(bridge fdb show dev flannel.1 | cut -d' ' -f1) dev flannel.1 dst 192.168.1.12"
        => "dst 192.168.1.12 self permanent";
    a_missing_neighbour: on "node1" "ip neigh del 10.244.2.0 dev flannel.1" => "neigh add 10.244.2.0 dev flannel.1";
    a_wrong_neighbour: on "node1" "ip neigh replace 10.244.2.0 lladdr 02:00:00:00:00:01 dev flannel.1"
        => "neigh add 10.244.2.0 dev flannel.1";
    a_port_out_of_service: on "node1"
        "bridge link set dev $(bridge link | grep -o 'veth[0-9a-f]*' | head -n 1) state 0"
        => "state 3 (was state disabled)";
    an_isolated_port: on "node1"
        "bridge link set dev $(bridge link | grep -o 'veth[0-9a-f]*' | head -n 1) isolated on"
        => "isolated off (was isolated on)";
    an_entry_in_a_bridges_table: on "node1"
        "bridge fdb add 02:00:00:00:00:01 dev $(bridge link | grep -o 'veth[0-9a-f]*' | head -n 1) master static"
        => "bridge fdb delete 02:00:00:00:00:01 dev veth";
    a_device_that_forwards_nothing: on "node1" "echo 0 > /proc/sys/net/ipv4/conf/flannel.1/forwarding"
        => "sysctl net.ipv4.conf.flannel/1.forwarding=1 (was 0)";
    a_machine_that_answers_no_ping: on "b1" "echo 1 > /proc/sys/net/ipv4/icmp_echo_ignore_all"
        => "sysctl net.ipv4.icmp_echo_ignore_all=0 (was 1)";
    a_route_too_many: on "a1" "ip route add 10.244.2.0/24 via 10.244.1.3" => "route delete 10.244.2.0/24 via 10.244.1.3";
    a_route_that_another_program_made: on "node1" "ip route add 10.99.0.0/16 dev eth0 proto static"
        => "route delete 10.99.0.0/16 dev eth0";
    a_route_that_swallows: on "node1" "ip route add blackhole 10.99.0.0/16" => "route delete blackhole 10.99.0.0/16";
    a_route_that_refuses_in_place_of_ours: on "node1" "ip route replace unreachable 10.244.2.0/24"
        => "route delete unreachable 10.244.2.0/24";
    a_route_that_forbids: on "b1" "ip route add prohibit 10.244.1.2" => "route delete prohibit 10.244.1.2/32";
    a_route_of_another_table: on "node1" "ip route add 10.99.0.0/16 via 192.168.1.12 table 1000"
        => "route delete 10.99.0.0/16 via 192.168.1.12 dev eth0 table 1000";
    a_second_route_with_a_metric: on "a1" "ip route add default via 10.244.1.3 metric 7"
        => "route delete default metric 7 via 10.244.1.3 dev eth0";
    a_route_with_two_next_hops: on "node1"
        "ip route add 10.99.0.0/16 nexthop via 192.168.1.1 nexthop via 192.168.1.12"
        => "route delete 10.99.0.0/16 nexthop via 192.168.1.1 dev eth0 nexthop via 192.168.1.12 dev eth0";
    a_route_with_a_next_hop_of_its_own_right: on "node1"
        "ip nexthop add id 5 via 192.168.1.1 dev eth0 && ip route add 10.99.0.0/16 nhid 5"
        => "route delete 10.99.0.0/16";
    a_route_into_the_machine_itself: on "b1" "ip route add local 10.99.0.0/16 dev lo"
        => "route delete local 10.99.0.0/16 dev lo table local";
    a_policy_rule_too_many: on "node1" "ip rule add from 10.244.1.0/24 fwmark 1 lookup 1000 pref 100"
        => "rule delete 100: from 10.244.1.0/24 fwmark 0x1 lookup 1000";
    a_policy_rule_that_swallows: on "a1" "ip rule add blackhole to 10.244.2.0/24 pref 0"
        => "rule delete 0: from all to 10.244.2.0/24 blackhole";
    a_missing_policy_rule: on "node1" "ip rule del pref 32766" => "rule add 32766: from all lookup main";
    a_missing_first_policy_rule: on "a1" "ip rule del pref 0" => "rule add 0: from all lookup local";
    a_replaced_policy_rule: on "b1" "ip rule del pref 32767 && ip rule add pref 32767 lookup main"
        => "rule add 32767: from all lookup default";
    a_queueing_discipline: on "node1" "tc qdisc add dev eth0 root tbf rate 1mbit burst 10k latency 50ms"
        => "qdisc delete tbf dev eth0";
    a_tree_of_queueing_disciplines: on "b1"
        "tc qdisc add dev eth0 root handle 1: htb default 1 \
         && tc class add dev eth0 parent 1: classid 1:1 htb rate 1mbit \
         && tc qdisc add dev eth0 parent 1:1 tbf rate 1mbit burst 10k latency 50ms"
        => "qdisc delete htb dev eth0";
    a_place_for_filters_of_arriving_packets: on "a1" "tc qdisc add dev eth0 clsact" => "qdisc delete clsact dev eth0";
    a_hosts_loopback_that_is_down: on "node1" "ip link set lo down" => "link set lo up";
    a_pods_loopback_that_is_down: on "a1" "ip link set lo down" => "link set lo up";
    a_loopback_without_its_address: on "a1" "ip address del 127.0.0.1/8 dev lo" => "address add 127.0.0.1/8 dev lo";
    an_address_on_the_loopback: on "node1"
        "ip address add 10.96.0.10/32 dev lo && ip route add 10.99.0.0/16 dev lo"
        => "address delete 10.96.0.10/32 dev lo";
    a_link_that_is_down: on "node1" "ip link set flannel.1 down" => "link set flannel.1 up";
    a_pods_link_that_is_down: on "a1" "ip link set eth0 down" => "link set eth0 up";
    a_missing_tunnel_device: on "node2" "ip link del flannel.1" => "link add flannel.1";
    a_missing_bridge: on "node1" "ip link del cni0" => "link add cni0";
    a_missing_cable: on "a2" "ip link del eth0" => "type veth peer eth0 in a2";
    a_device_too_many: on "node1" "ip link add stray type bridge" => "link delete stray";
    a_pair_of_devices_too_many: on "node1" "ip link add stray type veth peer name other" => "link delete stray";
    a_pods_device_under_another_name: on "a1" "ip link set eth0 down && ip link set eth0 name other && ip link set other up"
        => "link delete other";
    a_hosts_device_under_another_name: on "node1" "ip link set eth0 down && ip link set eth0 name other"
        => "link delete other";
    a_cable_under_another_name: on "node1"
        "veth=$(ip -o link show master cni0 | head -1 | cut -d' ' -f2 | cut -d@ -f1) \
         && ip link set $veth down && ip link set $veth name other"
        => "link delete other";
    a_bridge_under_another_name: on "node2" "ip link set cni0 down && ip link set cni0 name other"
        => "link delete other";
    a_name_taken_by_another_device: on "a1"
        "ip link set eth0 down && ip link set eth0 name other && ip link add eth0 type bridge"
        => "link delete eth0";
    another_mtu: on "a1" "ip link set eth0 mtu 1400" => "link set eth0 mtu 1450 (was 1400)";
    a_cable_pulled_out_of_the_bridge: on "node1"
        "ip link set $(ip -o link show master cni0 | head -1 | cut -d' ' -f2 | cut -d@ -f1) nomaster"
        => "master cni0";
    a_changed_sysctl: on "node1" "echo 0 > /proc/sys/net/ipv4/ip_forward" => "sysctl net.ipv4.ip_forward=1";
    a_missing_address: on "a1" "ip address flush dev eth0" => "address add 10.244.1.2/24 dev eth0";
    two_addresses_of_one_network_too_many: on "node1"
        "ip address add 10.99.0.1/24 dev eth0 && ip address add 10.99.0.2/24 dev eth0"
        => "address delete 10.99.0.2/24 dev eth0";
    an_address_that_came_before_ours: on "a1"
        "ip address flush dev eth0 && ip address add 10.244.1.9/24 dev eth0 && ip address add 10.244.1.2/24 dev eth0"
        => "address delete 10.244.1.9/24 dev eth0";
    a_missing_route_of_the_kernels_own: on "node1" "ip route del 10.244.1.0/24 dev cni0"
        => "which lacks a route of its own";
    a_missing_route_to_an_address_itself: on "node1" "ip route del local 10.244.1.1 table local"
        => "address add 10.244.1.1/24 dev cni0";
}

as_root![
    a_killed_flanneld,
    a_tun_device_that_is_taken_away,
    a_tun_device_under_another_name,
    a_tun_device_of_somebody_else,
    two_cables_that_changed_places,
];

fn udp(bench: &Bench) -> String {
    let file = bench.write(&format!("cluster: {{ flannel: {{ backend: udp }} }}\n{FOUR_PODS}"));
    bench.up(&file);
    file
}

fn a_killed_flanneld(bench: &Bench) {
    let file = udp(bench);
    let tree = Tree::of(bench.daemon());
    signal(tree.named("flanneld")[0], Signal::SIGKILL);
    until("status says so", || bench.ok(&["status"]).contains("flanneld does not run"));
    mends(bench, &file, "start flanneld");
    assert_eq!(tree.named("flanneld").len(), 2);
    assert!(!bench.ok(&["status"]).contains("trouble"));
}

fn a_tun_device_that_is_taken_away(bench: &Bench) {
    let file = udp(bench);
    bench.sh("node1", "ip link del flannel0");
    mends(bench, &file, "start flanneld");
    assert_eq!(Tree::of(bench.daemon()).named("flanneld").len(), 2);
}

/// Its flanneld goes on behind it, and cannot be had for the device that takes its place.
fn a_tun_device_under_another_name(bench: &Bench) {
    let file = udp(bench);
    bench.sh("node1", "ip link set flannel0 down && ip link set flannel0 name other");
    mends(bench, &file, "start flanneld");
    assert_eq!(Tree::of(bench.daemon()).named("flanneld").len(), 2);
}

fn a_tun_device_of_somebody_else(bench: &Bench) {
    repairs(bench, "node1", "ip tuntap add mode tun name mine && ip link set mine up", "link delete mine");
}

/// The file by which the daemon holds a machine's network namespace.
fn namespace(bench: &Bench, target: &str) -> PathBuf {
    let name = bench.sh(target, "readlink /proc/self/ns/net");
    let held = fs::read_dir(format!("/proc/{}/fd", bench.daemon())).expect("the daemon's files");
    let mut files = held.map(|entry| entry.expect("an entry").path());
    let is = |file: &PathBuf| fs::read_link(file).is_ok_and(|link| link.to_string_lossy() == name.trim());
    files.find(is).expect("the namespace")
}

/// Every index of the cables stays what it was; only where the far ends are has changed.
fn two_cables_that_changed_places(bench: &Bench) {
    let file = bench.write(FOUR_PODS);
    bench.up(&file);
    let (a1, b1) = (namespace(bench, "a1"), namespace(bench, "b1"));
    let mut third = Command::new("unshare");
    third.args(["--net", "sleep", "1000"]);
    let third = Background::start(third);
    let third = PathBuf::from(format!("/proc/{}/ns/net", third.pid()));
    let own = fs::read_link("/proc/self/ns/net").expect("a namespace");
    until("there is a third namespace", || fs::read_link(&third).is_ok_and(|ns| ns != own));
    for (from, to) in [(&a1, &third), (&b1, &a1), (&third, &b1)] {
        let mut moved = Command::new("nsenter");
        moved.arg(format!("--net={}", from.display())).args(["ip", "link", "set", "eth0", "netns"]).arg(to);
        let moved = moved.status().expect("nsenter");
        assert!(moved.success(), "from {} to {}: {moved}", from.display(), to.display());
    }
    mends(bench, &file, "type veth peer eth0 in a1");
}
