//! What walks say, for people: snapshots to be read, and by value what must hold of each kind of way.

use super::super::{Seen, every};
use super::*;
use crate::trace::model::Header;
use crate::trace::{sight, translation};

const HOST_GW: &str = "backend: host-gw";
const UDP: &str = "backend: udp";
const ALL: [&str; 3] = [VXLAN, HOST_GW, UDP];

/// A question that is answered, with the source that the answerer sees and the TTL of the packet there.
#[track_caller]
fn answered(plan: &Plan, from: &str, probe: &Probe) -> (String, String, u8) {
    let way = ask(plan, from, probe);
    assert_eq!(way.seen, Seen::Answer, "{}", told(&way));
    assert_eq!(way.fault, None);
    (way.there.end.to_string(), way.there.header.source.to_string(), way.there.header.ttl)
}

fn is((end, source, ttl): (String, String, u8)) -> String {
    format!("{end} sees {source}, TTL {ttl}")
}

#[test]
fn a_pods_ping_to_another_host_goes_through_vxlan() {
    insta::assert_snapshot!(told(&ask(&plan(VXLAN), "pod/default/a1", &ping("10.244.2.2"))));
}

#[test]
fn a_pods_ping_to_another_host_goes_by_a_plain_route() {
    insta::assert_snapshot!(told(&ask(&plan(HOST_GW), "pod/default/a1", &ping("10.244.2.2"))));
}

#[test]
fn a_pods_ping_to_another_network_goes_through_two_flannelds() {
    insta::assert_snapshot!(told(&ask(&plan(UDP), "pod/default/a1", &ping("10.244.3.2"))));
}

#[test]
fn two_pods_of_a_host_meet_on_its_bridge() {
    insta::assert_snapshot!(told(&ask(&plan(VXLAN), "pod/default/a1", &tcp("10.244.1.3", 8080))));
}

#[test]
fn a_cluster_ip_leads_to_a_pod_of_another_host() {
    insta::assert_snapshot!(told(&ask(&plan(VXLAN), "pod/default/a1", &tcp("10.96.0.100", 80))));
}

#[test]
fn a_cluster_ip_with_a_pod_of_the_same_host_is_bridged_and_the_answer_meets_the_rules() {
    insta::assert_snapshot!(told(&ask(&plan(VXLAN), "pod/default/a1", &tcp("10.96.0.101", 80))));
}

#[test]
fn a_pod_that_asks_its_own_service_gets_the_bridges_address_and_goes_back_by_the_same_port() {
    insta::assert_snapshot!(told(&ask(&plan(VXLAN), "pod/default/a1", &tcp("10.96.0.102", 80))));
}

#[test]
fn a_client_comes_by_a_node_port_to_a_pod_elsewhere() {
    insta::assert_snapshot!(told(&ask(&plan(VXLAN), "client/laptop", &tcp("192.168.1.11", 30080))));
}

#[test]
fn a_load_balancer_translates_to_a_node_port() {
    insta::assert_snapshot!(told(&ask(&plan(HOST_GW), "client/internet", &tcp("198.51.100.10", 80))));
}

#[test]
fn a_service_without_endpoints_refuses() {
    insta::assert_snapshot!(told(&ask(&plan(VXLAN), "pod/default/a1", &tcp("10.96.0.104", 80))));
}

#[test]
fn every_back_end_brings_pods_together_with_its_own_number_of_hops() {
    for (flannel, hops) in [(VXLAN, 62), (HOST_GW, 62), (UDP, 60)] {
        let plan = plan(flannel);
        assert_eq!(is(answered(&plan, "pod/default/a1", &tcp("10.244.1.3", 8080))), "a2 sees 10.244.1.2, TTL 64");
        let far = answered(&plan, "pod/default/a1", &tcp("10.244.2.2", 8080));
        assert_eq!(is(far), format!("b1 sees 10.244.1.2, TTL {hops}"), "{flannel}");
        if flannel != HOST_GW {
            let other = answered(&plan, "pod/default/a1", &tcp("10.244.3.2", 8080));
            assert_eq!(is(other), format!("c1 sees 10.244.1.2, TTL {hops}"), "{flannel}");
        }
    }
}

#[test]
fn who_is_no_pod_sees_the_host() {
    for flannel in ALL {
        let plan = plan(flannel);
        assert_eq!(is(answered(&plan, "pod/default/a1", &tcp("192.168.1.11", 9000))), "node1 sees 10.244.1.2, TTL 64");
        assert_eq!(
            is(answered(&plan, "pod/default/a1", &tcp("192.168.1.101", 8080))),
            "laptop sees 192.168.1.11, TTL 63"
        );
        let internet = answered(&plan, "pod/default/a1", &tcp("203.0.113.10", 80));
        assert_eq!(is(internet), "internet sees 203.0.113.254, TTL 62", "{flannel}");
    }
}

#[test]
fn a_hosts_own_packets_have_the_address_of_the_device_that_they_leave_by() {
    for (flannel, source) in [(VXLAN, "10.244.1.0"), (HOST_GW, "192.168.1.11"), (UDP, "10.244.1.0")] {
        let (end, seen, _) = answered(&plan(flannel), "host/node1", &tcp("10.244.2.2", 8080));
        assert_eq!((end.as_str(), seen.as_str()), ("b1", source), "{flannel}");
    }
}

#[test]
fn node_ports_and_load_balancers_are_answered_whatever_the_back_end() {
    for flannel in ALL {
        let plan = plan(flannel);
        let port = tcp("192.168.1.11", 30080);
        assert_eq!(answered(&plan, "client/laptop", &port).0, "b1", "{flannel}");
        assert_eq!(answered(&plan, "client/internet", &tcp("198.51.100.10", 80)).0, "b1", "{flannel}");
        // Under policy Local the client's address stays, and a host without a pod says nothing.
        let local = answered(&plan, "client/laptop", &tcp("192.168.1.11", 30081));
        assert_eq!(is(local), "a2 sees 192.168.1.101, TTL 63", "{flannel}");
        let other = ask(&plan, "client/laptop", &tcp("192.168.1.12", 30081));
        let fault = other.fault.expect("a fault");
        assert_eq!((other.seen, fault.cause), (Seen::Timeout, crate::trace::model::Cause::NoLocalEndpoint));
    }
}

#[test]
fn services_of_the_own_host_are_answered_through_the_bridge() {
    for flannel in ALL {
        let plan = plan(flannel);
        assert_eq!(is(answered(&plan, "pod/default/a1", &tcp("10.96.0.101", 80))), "a2 sees 10.244.1.2, TTL 64");
        assert_eq!(is(answered(&plan, "pod/default/a1", &tcp("10.96.0.102", 80))), "a1 sees 10.244.1.1, TTL 64");
    }
}

#[test]
fn all_ways_have_their_probabilities() {
    let plan = plan(VXLAN);
    let ways = every(&State::planned(&plan), &ns("pod/default/a1"), &tcp("10.96.0.100", 80));
    let ends: Vec<(String, f64)> = ways.iter().map(|w| (w.there.end.to_string(), w.probability)).collect();
    assert_eq!(ends, [("b1".to_owned(), 0.5), ("c1".to_owned(), 0.5)]);
}

#[test]
fn what_was_observed_is_followed_over_several_translations() {
    let plan = plan(VXLAN);
    let targets = ["192.168.2.11:30080", "10.244.3.2:8080"].map(|t| t.parse().expect("an address"));
    let choices = Choices::Following { targets: targets.to_vec(), hops: Vec::new(), entries: Vec::new() };
    let from = ns("client/internet");
    let way = exchange(&State::planned(&plan), &from, &tcp("198.51.100.10", 80), &choices).expect("a namespace");
    assert_eq!((way.there.end.to_string().as_str(), way.seen), ("c1", Seen::Answer), "{}", told(&way));
    assert!(lines(&way.there).contains("becomes node3 192.168.2.11:30080"), "{}", told(&way));
}

#[test]
fn an_echos_other_identifier_is_no_other_destination() {
    let (plan, from) = (plan(VXLAN), ns("pod/default/a1"));
    let usual = ask(&plan, "pod/default/a1", &ping("192.168.2.11"));
    let (place, before, after) = usual
        .there
        .steps
        .iter()
        .find_map(|s| match &s.what {
            What::Rewritten { before, after, .. } => Some((s.place.clone(), before, after)),
            _ => None,
        })
        .expect("the host masquerades");
    let header = Header { source_port: 99, destination_port: 99, ..(**after).clone() };
    let reply = sight::Tuple::of(&header).reversed();
    let entry = translation::Entry { at: 0, place, original: sight::Tuple::of(before), reply };
    let choices = Choices::Following { targets: Vec::new(), hops: Vec::new(), entries: vec![entry] };
    let way = exchange(&State::planned(&plan), &from, &ping("192.168.2.11"), &choices).expect("a namespace");
    assert_eq!(lines(&way.there), lines(&usual.there));
}

#[test]
fn a_later_packet_of_a_flow_meets_no_rule_of_nat_and_is_translated_all_the_same() {
    let plan = plan(VXLAN);
    let probe = Probe { first: false, ..tcp("10.96.0.100", 80) };
    let way = ask(&plan, "pod/default/a1", &probe);
    let nat = |s: &crate::trace::model::Step| matches!(&s.what, What::Rule(met) if met.table == "nat");
    assert!(!way.there.steps.iter().any(nat), "{}", told(&way));
    assert_eq!((way.there.end.to_string().as_str(), way.seen), ("b1", Seen::Answer));
}

#[test]
fn a_packet_that_may_be_cut_arrives_in_pieces() {
    let mut probe = ping("10.244.2.2");
    probe.header.length = 4000;
    let way = ask(&plan(VXLAN), "pod/default/a1", &probe);
    assert_eq!(way.seen, Seen::Answer, "{}", told(&way));
    assert!(lines(&way.there).contains("cut into pieces of at most 1450 bytes"), "{}", told(&way));
}
