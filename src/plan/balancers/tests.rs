use super::*;
use crate::lab;
use crate::spec::load::{Text, decode_text};

fn lab(services: &str) -> Lab {
    let text = format!(
        "networks: {{ rack1: {{}}, rack2: {{}} }}\nhosts: {{ node1: {{ network: rack1 }}, node2: {{ network: rack1 }}, \
         node3: {{ network: rack2 }} }}\npods: {{ tea: {{ labels: {{ app: tea }} }} }}\nservices: {services}\n"
    );
    let mut loaded = decode_text(&Text { text, default_name: "lab".to_owned(), ..Text::default() });
    let mut problems = std::mem::take(&mut loaded.problems);
    lab::resolve(&loaded, None, &mut problems).unwrap_or_else(|| panic!("{problems:#?}"))
}

fn tea(more: &str) -> Lab {
    lab(&format!("{{ tea: {{ type: LoadBalancer, selector: {{ app: tea }}, ports: [{{ port: 80 }}]{more} }} }}"))
}

const LOCAL: &str = ", externalTrafficPolicy: Local, healthCheckNodePort: 31000";

#[test]
fn under_policy_cluster_every_host_has_even_odds_and_the_routers_address_is_put_on() {
    let made = plan(&tea(""), |_, _| false);
    let lines = made.rules.lines();
    let odds: Vec<&str> = lines.iter().filter_map(|l| l.split("--probability ").nth(1)).collect();
    assert_eq!(odds.len(), 2, "{lines:#?}");
    assert!(odds[0].starts_with("0.33333333349 ") && odds[1].starts_with("0.50000000000 "), "{odds:?}");
    let to: Vec<&str> = lines.iter().filter_map(|l| l.split("--to-destination ").nth(1)).collect();
    assert_eq!(to, ["192.168.1.11:30086", "192.168.1.12:30086", "192.168.2.11:30086"]);
    assert!(lines.iter().any(|l| l.contains("POSTROUTING") && l.ends_with("-j MASQUERADE")), "{lines:#?}");
    assert_eq!(made.routes, []);
}

#[test]
fn under_policy_local_the_healthy_hosts_are_next_hops_and_nothing_is_translated() {
    let lab = tea(LOCAL);
    let asked: Vec<String> = checks(&lab).iter().map(|c| c.at.to_string()).collect();
    assert_eq!(asked, ["192.168.1.11:31000", "192.168.1.12:31000", "192.168.2.11:31000"]);
    let made = plan(&lab, |service, host| service.name == "tea" && host.as_str() != "node2");
    let shown: Vec<String> = made.routes.iter().map(ToString::to_string).collect();
    let both = "198.51.100.1/32 nexthop via 192.168.1.11 dev br-rack1 nexthop via 192.168.2.11 dev br-rack2";
    assert_eq!(shown, [both]);
    assert!(made.rules.tables.iter().all(|t| t.name != "nat"));
    assert_eq!(plan(&lab, |_, _| false).routes, []);
}

#[test]
fn without_node_ports_all_hosts_are_next_hops_whether_or_not_they_have_endpoints() {
    let lab = tea(", allocateLoadBalancerNodePorts: false");
    assert_eq!(checks(&lab), []);
    assert_eq!(plan(&lab, |_, _| false).routes[0].devices().count(), 3);
}

#[test]
fn what_is_routed_ends_at_the_router_unless_a_service_has_the_port() {
    let lines = plan(&tea(LOCAL), |_, _| true).rules.lines();
    let forward: Vec<&String> = lines.iter().filter(|l| l.contains("-A LB-FORWARD")).collect();
    assert!(forward[0].contains("-d 198.51.100.1/32 -p tcp") && forward[0].ends_with("--dport 80 -j ACCEPT"));
    assert!(forward.last().is_some_and(|l| l.contains("-j REJECT")), "{lines:#?}");
}

#[test]
fn source_ranges_come_before_everything_else() {
    let lines = plan(&tea(", loadBalancerSourceRanges: [10.0.0.0/8, 0.0.0.0/0]"), |_, _| true).rules.lines();
    let wall: Vec<&String> = lines.iter().filter(|l| l.contains("-t mangle -A LB-FIREWALL")).collect();
    assert_eq!(wall.len(), 3, "{lines:#?}");
    assert!(wall[0].contains("-s 10.0.0.0/8 -d 198.51.100.1/32") && wall[0].ends_with("-j ACCEPT"));
    assert!(!wall[1].contains("-s ") && wall[2].ends_with("-j DROP"));
}

#[test]
fn a_lab_without_load_balancers_has_nothing_at_the_router() {
    let lab = lab("{ tea: { selector: { app: tea }, ports: [{ port: 80 }] } }");
    assert_eq!(plan(&lab, |_, _| true), Balancers::default());
}

#[test]
fn a_udp_flow_is_stale_when_its_host_is_gone() {
    let udp =
        |ports: &str| lab(&format!("{{ dns: {{ type: LoadBalancer, selector: {{ app: tea }}, ports: [{ports}] }} }}"));
    let old = plan(&udp("{ port: 53, protocol: UDP, nodePort: 30053 }"), |_, _| true);
    let new = plan(&udp("{ port: 53, protocol: UDP, nodePort: 30054 }"), |_, _| true);
    let at = |text: &str| text.parse().expect("an address and a port");
    let (to, by) = (at("198.51.100.1:53"), at("192.168.1.11:30053"));
    assert!(new.is_stale(&old, to, by) && !old.is_stale(&old, to, by));
    assert!(!new.is_stale(&old, at("192.168.1.12:53"), by), "somebody else's flow");
}

const STICKY: &str = ", sessionAffinity: ClientIP, sessionAffinityConfig: { clientIP: { timeoutSeconds: 60 } }";

#[test]
fn a_load_balancer_that_translates_remembers_each_clients_host() {
    let lines = plan(&tea(STICKY), |_, _| false).rules.lines();
    let of = |what: &str| lines.iter().filter(|l| l.contains(what)).collect::<Vec<_>>();
    let (asked, chosen, set) = (of("--rcheck --seconds 60 --reap"), of("--mode random"), of("--set"));
    assert_eq!((asked.len(), chosen.len(), set.len()), (3, 2, 3), "{lines:#?}");
    for line in set {
        let chain = line.split_whitespace().nth(3).expect("a chain");
        assert!(line.contains(&format!("--name {chain} ")) && line.contains("-j DNAT"), "{line}");
        assert!(asked.iter().any(|l| l.contains(&format!("--name {chain} ")) && l.ends_with(chain)), "{asked:#?}");
    }
    let place = |line: &str| lines.iter().position(|l| l == line);
    assert!(place(asked[2]) < place(chosen[0]), "who is known comes first");
    assert!(!keeps_sources(&tea(STICKY)));
}

#[test]
fn a_load_balancer_that_routes_keeps_clients_by_their_addresses() {
    let policy = |lab: &Lab| {
        let router = super::super::underlay::router(lab);
        let policy = router.sysctls.into_iter().find(|s| s.key.ends_with("fib_multipath_hash_policy"));
        policy.map(|s| s.value)
    };
    assert_eq!(policy(&tea(&format!("{LOCAL}{STICKY}"))).as_deref(), Some("0"));
    assert_eq!(policy(&tea(&format!(", allocateLoadBalancerNodePorts: false{STICKY}"))).as_deref(), Some("0"));
    for others in [LOCAL, STICKY] {
        assert_eq!(policy(&tea(others)).as_deref(), Some("3"), "{others}");
    }
}

#[test]
fn jumps_are_put_where_they_are_put_back() {
    let lab = tea("");
    let router = super::super::underlay::router(&lab);
    let wanted = planned(&router.rules, &plan(&lab, |_, _| false));
    assert_eq!(super::super::proxy::mend::mended(&router.rules, &wanted, is_own), wanted);
}
