//! Three hosts on two networks with a dozen pods: each back end builds it, and its probes pass.

use crate::harness::Bench;
use crate::harness::process::Tree;
use crate::sample::{one_network, two_networks};
use crate::{as_root, as_root_and_ordinary_user};

as_root_and_ordinary_user![
    vxlan_joins_hosts_of_two_networks,
    vxlan_with_direct_routing_wraps_only_between_networks,
    vxlan_takes_another_vni_and_port,
    host_gw_joins_hosts_of_one_network,
    host_gw_does_not_join_hosts_of_two_networks,
    udp_works_or_says_that_the_machine_does_not_allow_it,
];
as_root![udp_joins_hosts_of_two_networks_through_a_process];

fn passes(bench: &Bench, text: &str) {
    let file = bench.write(text);
    let said = bench.ok(&["up", &file]);
    assert!(said.contains("12 probes: 12 as expected"), "{said}");
    bench.is_as_planned();
}

fn vxlan_joins_hosts_of_two_networks(bench: &Bench) {
    passes(bench, &two_networks("{ backend: vxlan }", 62, 1450));
}

fn vxlan_with_direct_routing_wraps_only_between_networks(bench: &Bench) {
    passes(bench, &two_networks("{ backend: vxlan, directRouting: true }", 62, 1450));
    let routes = bench.sh("node1", "ip route");
    assert!(routes.contains("via 192.168.1.12 dev eth0"), "{routes}");
    assert!(routes.contains("via 10.244.3.0 dev flannel.1 onlink"), "{routes}");
    let fdb = bench.sh("node1", "bridge fdb show dev flannel.1");
    assert!(fdb.contains("dst 192.168.2.11") && !fdb.contains("dst 192.168.1.12"), "{fdb}");
}

fn vxlan_takes_another_vni_and_port(bench: &Bench) {
    passes(bench, &two_networks("{ backend: vxlan, vni: 4096, port: 4789 }", 62, 1450));
    let device = bench.sh("node1", "ip -d link show flannel.4096");
    assert!(device.contains("vxlan id 4096") && device.contains("dstport 4789"), "{device}");
}

fn host_gw_joins_hosts_of_one_network(bench: &Bench) {
    passes(bench, &one_network("{ backend: host-gw }", 62, 1500));
}

fn host_gw_does_not_join_hosts_of_two_networks(bench: &Bench) {
    let file = bench.write(&two_networks("{ backend: host-gw }", 62, 1500));
    let said = bench.run(&["up", &file]).ends_with(1).says("host-gw-router");
    let differed = |probe: &str| said.stdout.lines().any(|l| l.starts_with("differed") && l.contains(probe));
    assert!(differed("to the third host") && !differed("to another host"), "{said}");
}

fn udp_joins_hosts_of_two_networks_through_a_process(bench: &Bench) {
    passes(bench, &two_networks("{ backend: udp }", 60, 1472));
    let flannelds = Tree::of(bench.daemon()).named("flanneld");
    assert_eq!(flannelds.len(), 3, "one flanneld a host");
    let log = bench.ok(&["logs", "node1"]);
    assert!(log.contains("flanneld: 10.244.2.0/24 is behind 192.168."), "{log}");
}

fn udp_works_or_says_that_the_machine_does_not_allow_it(bench: &Bench) {
    let text = two_networks("{ backend: udp }", 60, 1472);
    let open = bench.command("sh").args(["-c", "exec 3<>/dev/net/tun"]).output().expect("a shell");
    if open.status.success() {
        return passes(bench, &text);
    }
    let file = bench.write(&text);
    bench.run(&["up", &file]).ends_with(3).says("machine-tun").says("/dev/net/tun");
    assert_eq!(bench.labs(), Vec::<String>::new());
    assert_eq!(bench.leftovers(), Vec::<String>::new());
    bench.nothing_lives();
}
