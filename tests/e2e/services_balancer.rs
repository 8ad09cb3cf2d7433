//! Services of type LoadBalancer, the health checks that their load balancers go by, and external
//! IPs that are routed to a host.

use serde_json::Value;

use crate::as_root_and_ordinary_user;
use crate::harness::{Bench, Ran, until};

as_root_and_ordinary_user![
    clients_everywhere_reach_it_and_it_spreads_over_all_hosts,
    under_policy_local_the_pod_sees_the_client_and_only_its_host_is_used,
    it_follows_a_pod_that_moves_and_one_that_is_no_longer_ready,
    a_host_that_does_not_answer_is_left_out,
    the_health_check_port_answers_as_kube_proxys,
    without_node_ports_packets_are_routed_to_the_hosts,
    source_ranges_keep_others_out,
    a_port_that_nobody_has_is_refused_and_nothing_loops,
    a_service_without_an_address_is_pending_and_gets_one_when_it_is_free,
    a_service_that_goes_leaves_no_rule_and_no_route,
    what_somebody_takes_from_the_router_is_mended,
    a_route_that_is_gone_already_holds_nothing_up,
    an_external_ip_needs_a_route_to_a_host,
];

/// Three hosts on two networks, and a client on each.
const GROUND: &str = "
networks: { rack1: {}, rack2: {} }
hosts: { node1: { network: rack1 }, node2: { network: rack1 }, node3: { network: rack2 } }
clients: { laptop: { network: rack1 }, desk: { network: rack2 } }
";
const CLIENTS: [&str; 3] = ["laptop", "desk", "internet"];

/// A lab with these pods and services.
fn lab(pods: &str, services: &str) -> String {
    format!("{GROUND}pods:\n{pods}services:\n{services}")
}

fn tea(name: &str, host: &str) -> String {
    format!("  {name}: {{ host: {host}, labels: {{ app: tea }} }}\n")
}

/// A service of type LoadBalancer in front of the tea pods.
fn balanced(name: &str, more: &str) -> String {
    let ports = "ports: [{ port: 80, targetPort: 8080 }]";
    format!("  {name}: {{ type: LoadBalancer, selector: {{ app: tea }}, {ports}{more} }}\n")
}

const LOCAL: &str = ", externalTrafficPolicy: Local";

/// The first address of the load balancers' range.
const FIRST: &str = "198.51.100.1";

fn curl(bench: &Bench, from: &str, url: &str) -> Ran {
    bench.exec(from, &["curl", "-sS", "--max-time", "5", url])
}

/// Why there is no answer, in the kernel's words.
#[track_caller]
fn no_answer(bench: &Bench, from: &str, url: &str) -> String {
    bench.exec(from, &["curl", "-sv", "--max-time", "5", url]).ends_with(7).stderr
}

#[track_caller]
fn is_unreachable(bench: &Bench, from: &str, url: &str) {
    let why = no_answer(bench, from, url);
    assert!(why.contains("unreachable"), "{from} to {url}: {why}");
}

/// What an echo pod behind `address` says of one connection.
#[track_caller]
fn answer(bench: &Bench, from: &str, address: &str) -> Value {
    curl(bench, from, &format!("http://{address}/")).ends_with(0).json()
}

/// The sources that pods saw of this many connections, without their ports, and the pods' hosts.
#[track_caller]
fn seen(bench: &Bench, from: &str, address: &str, times: u32) -> (Vec<String>, Vec<String>) {
    let ask = format!("for i in $(seq {times}); do curl -sS --max-time 5 http://{address}/ || exit 1; done");
    let said = bench.sh(from, &ask);
    let answers = serde_json::Deserializer::from_str(&said).into_iter::<Value>().map(|a| a.expect("an answer"));
    let (mut sources, mut hosts) = (Vec::new(), Vec::new());
    for answer in answers {
        let source = answer["source"].as_str().expect("a source");
        sources.push(source.rsplit_once(':').expect("a port").0.to_owned());
        hosts.push(answer["host"].as_str().expect("a host").to_owned());
    }
    assert_eq!(hosts.len(), times as usize);
    for list in [&mut sources, &mut hosts] {
        list.sort();
        list.dedup();
    }
    (sources, hosts)
}

#[track_caller]
fn address_of(bench: &Bench, machine: &str) -> String {
    bench.sh(machine, "ip -4 -o address show dev eth0 | sed 's,.* inet \\([0-9.]*\\)/.*,\\1,'").trim().to_owned()
}

#[track_caller]
fn router(bench: &Bench) -> String {
    bench.sh(
        "router",
        "export PATH=$PATH:/usr/sbin:/sbin; ip -o route; iptables-save; iptables-legacy-save 2>/dev/null; true",
    )
}

fn clients_everywhere_reach_it_and_it_spreads_over_all_hosts(bench: &Bench) {
    bench.up(&bench.write(&lab(&tea("tea", "node1"), &balanced("tea-svc", ""))));
    bench.is_as_planned();
    for client in CLIENTS {
        let (sources, hosts) = seen(bench, client, FIRST, 60);
        // Each host puts an address of its own on what it passes on (claim 29): cni0's on the pod's
        // host, flannel.1's on the others.
        assert_eq!(sources, ["10.244.1.1", "10.244.2.0", "10.244.3.0"], "{client}");
        assert_eq!(hosts, ["node1"]);
    }
}

fn under_policy_local_the_pod_sees_the_client_and_only_its_host_is_used(bench: &Bench) {
    let pods = tea("one", "node1") + &tea("two", "node3");
    bench.up(&bench.write(&lab(&pods, &balanced("tea-svc", LOCAL))));
    bench.is_as_planned();
    for client in CLIENTS {
        let (sources, hosts) = seen(bench, client, FIRST, 40);
        assert_eq!(sources, [address_of(bench, client)]);
        assert_eq!(hosts, ["node1", "node3"], "{client}");
    }
    let routes = bench.sh("router", &format!("ip -o route show {FIRST}"));
    assert!(!routes.contains(&address_of(bench, "node2")), "{routes}");
}

fn it_follows_a_pod_that_moves_and_one_that_is_no_longer_ready(bench: &Bench) {
    let service = balanced("tea-svc", LOCAL);
    bench.up(&bench.write(&lab(&tea("tea", "node1"), &service)));
    assert_eq!(answer(bench, "laptop", FIRST)["host"], "node1");
    // What is written by hand is there when `up` returns.
    bench.up(&bench.write(&lab(&tea("tea", "node3"), &service)));
    for client in CLIENTS {
        assert_eq!(answer(bench, client, FIRST)["host"], "node3");
    }
    let probe = "exec: { command: [test, '!', -e, /run/busy] }, periodSeconds: 1, failureThreshold: 1";
    let pod =
        |host| format!("  on-{host}: {{ host: {host}, labels: {{ app: tea }}, readinessProbe: {{ {probe} }} }}\n");
    bench.ok(&["up", &bench.write(&lab(&(pod("node1") + &pod("node2")), &service))]);
    let hops = || bench.sh("router", &format!("ip -o route show {FIRST}"));
    let (one, two) = (address_of(bench, "node1"), address_of(bench, "node2"));
    assert!(hops().contains(&one) && hops().contains(&two), "{}", hops());
    bench.sh("on-node1", "touch /run/busy");
    until("node1 is left out", || !hops().contains(&one));
    bench.is_as_planned();
    assert_eq!(seen(bench, "laptop", FIRST, 10).1, ["node2"]);
    bench.sh("on-node2", "touch /run/busy");
    until("node2 is left out", || hops().is_empty());
    is_unreachable(bench, "laptop", &format!("http://{FIRST}/"));
    bench.sh("on-node1", "rm /run/busy");
    until("node1 is back", || hops().contains(&one));
    assert_eq!(answer(bench, "desk", FIRST)["host"], "node1");
    bench.is_as_planned();
}

fn a_host_that_does_not_answer_is_left_out(bench: &Bench) {
    let pods = tea("one", "node1") + &tea("two", "node2");
    bench.up(&bench.write(&lab(&pods, &balanced("tea-svc", LOCAL))));
    let hops = || bench.sh("router", &format!("ip -o route show {FIRST}"));
    let two = address_of(bench, "node2");
    assert!(hops().contains(&two));
    bench.sh("node2", "ip link set eth0 down");
    until("the host that is cut off is left out", || !hops().contains(&two));
    assert_eq!(seen(bench, "desk", FIRST, 10).1, ["node1"]);
    bench.sh("node2", "ip link set eth0 up");
    bench.up(&bench.path(&format!("{}.yaml", bench.lab)).to_string_lossy());
    until("it is back", || hops().contains(&two));
    bench.is_as_planned();
}

fn the_health_check_port_answers_as_kube_proxys(bench: &Bench) {
    let pods = tea("one", "node1") + &tea("two", "node1");
    bench
        .up(&bench
            .write(&lab(&pods, &balanced("tea-svc", ", externalTrafficPolicy: Local, healthCheckNodePort: 31000"))));
    let asked = |host: &str| {
        bench.exec("router", &["curl", "-sSi", &format!("http://{}:31000/healthz", address_of(bench, host))])
    };
    let said = asked("node1").ends_with(0).stdout;
    assert!(said.starts_with("HTTP/1.1 200 OK\r\n"), "{said}");
    for header in [
        "Content-Type: application/json\r\n",
        "X-Content-Type-Options: nosniff\r\n",
        "X-Load-Balancing-Endpoint-Weight: 2\r\n",
    ] {
        assert!(said.contains(header), "no {header:?} in {said}");
    }
    let body = "{\n\t\"service\": {\n\t\t\"namespace\": \"default\",\n\t\t\"name\": \"tea-svc\"\n\t},\n\t\"localEndpoints\": 2,\n\t\"serviceProxyHealthy\": true\n}";
    assert!(said.ends_with(&format!("\r\n\r\n{body}")), "{said}");
    let said = asked("node2").ends_with(0).stdout;
    assert!(
        said.starts_with("HTTP/1.1 503 Service Unavailable\r\n") && said.contains("\"localEndpoints\": 0"),
        "{said}"
    );
    // Under policy Cluster there is no such port.
    bench.up(&bench.write(&lab(&pods, &balanced("tea-svc", ""))));
    asked("node1").ends_with(7).says("31000");
}

fn without_node_ports_packets_are_routed_to_the_hosts(bench: &Bench) {
    let service = balanced("tea-svc", ", allocateLoadBalancerNodePorts: false");
    bench.up(&bench.write(&lab(&tea("tea", "node1"), &service)));
    bench.is_as_planned();
    assert!(!router(bench).contains("DNAT"), "{}", router(bench));
    for client in CLIENTS {
        let (sources, hosts) = seen(bench, client, FIRST, 60);
        assert_eq!(sources, ["10.244.1.1", "10.244.2.0", "10.244.3.0"], "{client}");
        assert_eq!(hosts, ["node1"]);
    }
    // With NodePorts it is translated, at the same address; and back again.
    bench.up(&bench.write(&lab(&tea("tea", "node1"), &balanced("tea-svc", ""))));
    bench.is_as_planned();
    assert!(router(bench).contains("DNAT") && !router(bench).contains("nexthop"), "{}", router(bench));
    assert_eq!(answer(bench, "laptop", FIRST)["pod"], "tea");
    bench.up(&bench.write(&lab(&tea("tea", "node1"), &service)));
    bench.is_as_planned();
    assert_eq!(answer(bench, "desk", FIRST)["pod"], "tea");
}

fn source_ranges_keep_others_out(bench: &Bench) {
    let ranges = ", loadBalancerSourceRanges: [192.168.2.0/24, 203.0.113.0/24]";
    let services = balanced("cluster", ranges) + &balanced("local", &format!("{LOCAL}{ranges}"));
    bench.up(&bench.write(&lab(&tea("tea", "node1"), &services)));
    bench.is_as_planned();
    for address in [FIRST, "198.51.100.2"] {
        for client in ["desk", "internet"] {
            assert_eq!(answer(bench, client, address)["pod"], "tea");
        }
        let url = format!("http://{address}/");
        bench.exec("laptop", &["curl", "-sS", "--max-time", "1", &url]).ends_with(28).says("timed out");
    }
}

fn a_port_that_nobody_has_is_refused_and_nothing_loops(bench: &Bench) {
    let services = balanced("cluster", "") + &balanced("local", LOCAL);
    bench.up(&bench.write(&lab(&tea("tea", "node1"), &services)));
    let why = no_answer(bench, "laptop", "http://198.51.100.2:81/");
    assert!(why.contains("refused"), "{why}");
    is_unreachable(bench, "desk", "http://198.51.100.1:81/");
    let ping = bench.exec("internet", &["ping", "-c1", "-W2", "198.51.100.2"]).ends_with(1).stdout;
    assert!(ping.contains("Port Unreachable") && !ping.contains("Time to live exceeded"), "{ping}");
}

fn a_service_without_an_address_is_pending_and_gets_one_when_it_is_free(bench: &Bench) {
    let small = |services: &str| {
        let cluster = "cluster: { loadBalancer: { addresses: 198.51.100.0/30 } }";
        format!("{cluster}\n{}", lab(&tea("tea", "node1"), services))
    };
    let (one, two, three) = (balanced("one", ""), balanced("two", ""), balanced("three", ""));
    let file = bench.write(&small(&(one.clone() + &two + &three)));
    bench
        .run(&["up", &file])
        .ends_with(0)
        .says("balancer-address")
        .says("service default/three")
        .says("198.51.100.0/30");
    bench.is_as_planned();
    assert_eq!(answer(bench, "laptop", "198.51.100.2")["pod"], "tea");
    let rules = router(bench);
    assert!(rules.contains("default/two") && !rules.contains("default/three"), "{rules}");
    // It takes the place of the one that goes, and the other keeps its own.
    let file = bench.write(&small(&(three + &two)));
    assert!(!bench.run(&["up", &file]).ends_with(0).stderr.contains("balancer-address"));
    let rules = router(bench);
    let rule = |service: &str| rules.lines().find(|l| l.contains(&format!("\"default/{service} "))).unwrap_or_default();
    assert!(rule("three").contains("-d 198.51.100.1/32") && rule("two").contains("-d 198.51.100.2/32"), "{rules}");
    assert_eq!(answer(bench, "laptop", FIRST)["pod"], "tea");
}

fn a_service_that_goes_leaves_no_rule_and_no_route(bench: &Bench) {
    let plain = "  tea-svc: { selector: { app: tea }, ports: [{ port: 80, targetPort: 8080 }] }\n";
    let ranges = ", loadBalancerSourceRanges: [192.168.2.0/24]";
    let services = [balanced("a", ""), balanced("b", LOCAL), balanced("c", ranges)].concat();
    bench.up(&bench.write(&lab(&tea("tea", "node1"), &(plain.to_owned() + &services))));
    assert!(router(bench).contains("LB-") && router(bench).contains("198.51.100.2"));
    bench.up(&bench.write(&lab(&tea("tea", "node1"), plain)));
    bench.is_as_planned();
    let left = router(bench);
    assert!(!left.contains("LB-") && !left.contains("198.51.100."), "{left}");
}

fn what_somebody_takes_from_the_router_is_mended(bench: &Bench) {
    let services = balanced("cluster", "") + &balanced("local", LOCAL);
    let pods = tea("one", "node1") + &tea("two", "node2");
    let file = bench.write(&lab(&pods, &services));
    bench.up(&file);
    bench.is_as_planned();
    let one = address_of(bench, "node1");
    bench.sh("router", &format!("ip route replace 198.51.100.2 via {one}"));
    let drift = bench.run(&["diff"]).ends_with(1).stdout;
    assert!(drift.contains("route add 198.51.100.2/32 nexthop via"), "{drift}");
    bench.up(&file);
    bench.is_as_planned();
    let weighed = "ip route replace 198.51.100.2 nexthop via NODE weight 5 nexthop via NODE2";
    bench.sh("router", &weighed.replace("NODE2", &address_of(bench, "node2")).replace("NODE", &one));
    bench.run(&["diff"]).ends_with(1);
    bench.up(&file);
    bench.is_as_planned();
    bench.sh("router", "ip route del 198.51.100.2");
    // A change of its own finds the route missing, and brings the router to what it must be all the same.
    bench.up(&bench.write(&lab(&tea("one", "node1"), &services)));
    bench.is_as_planned();
    assert_eq!(answer(bench, "laptop", "198.51.100.2")["pod"], "one");
}

fn a_route_that_is_gone_already_holds_nothing_up(bench: &Bench) {
    let probe = "exec: { command: [test, '!', -e, /run/busy] }, periodSeconds: 1, failureThreshold: 1";
    let pod = format!("  tea: {{ host: node1, labels: {{ app: tea }}, readinessProbe: {{ {probe} }} }}\n");
    bench.ok(&["up", &bench.write(&lab(&pod, &balanced("tea-svc", LOCAL)))]);
    bench.sh("router", &format!("ip route del {FIRST}"));
    assert!(bench.run(&["diff"]).ends_with(1).stdout.contains("route add"));
    // The load balancer is to take the route away, which somebody did before.
    bench.sh("tea", "touch /run/busy");
    until("there is to be no route", || bench.run(&["diff"]).code == 0);
    bench.sh("tea", "rm /run/busy");
    until("it is back", || bench.sh("router", "ip route").contains(FIRST));
    bench.is_as_planned();
}

fn an_external_ip_needs_a_route_to_a_host(bench: &Bench) {
    let service = "  tea-svc: { selector: { app: tea }, ports: [{ port: 80, targetPort: 8080 }], externalIPs: [192.0.2.10, 192.0.2.11, 192.0.2.12] }\n";
    let routed = "cluster: { externalRoutes: { 192.0.2.10: node2, 192.0.2.12/32: [node1, node3] } }\n";
    bench.up(&bench.write(&format!("{routed}{}", lab(&tea("tea", "node1"), service))));
    bench.is_as_planned();
    for client in CLIENTS {
        let (sources, _) = seen(bench, client, "192.0.2.10", 3);
        assert_eq!(sources, ["10.244.2.0"], "{client} comes by node2");
        let (sources, _) = seen(bench, client, "192.0.2.12", 40);
        assert_eq!(sources, ["10.244.1.1", "10.244.3.0"], "{client} comes by both");
        is_unreachable(bench, client, "http://192.0.2.11/");
    }
    bench.up(&bench.write(&lab(&tea("tea", "node1"), service)));
    bench.is_as_planned();
    is_unreachable(bench, "laptop", "http://192.0.2.10/");
    // Inside the cluster no route is needed.
    assert_eq!(answer(bench, "node3", "192.0.2.10")["pod"], "tea");
}
