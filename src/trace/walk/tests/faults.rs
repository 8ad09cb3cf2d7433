//! Each fault is found where it is: a plan is spoilt in one place, and the walk must end there.

use super::super::{Known, Seen, compare, walk};
use super::*;
use crate::kernel::learnt::PathMtu;
use crate::lab::names::IfName;
use crate::plan::deviation::{Deviation, Told};
use crate::plan::rules::Rules;
use crate::plan::{Address, LinkKind, Route, Sysctl};
use crate::trace::model::Cause;

/// What a question meets in a lab that was planned and then spoilt.
pub struct Spoilt {
    planned: Plan,
    there: Plan,
    pub known: Known,
}

impl Spoilt {
    pub fn new(flannel: &str, spoil: impl FnOnce(&mut Plan)) -> Spoilt {
        let planned = plan(flannel);
        let mut there = planned.clone();
        spoil(&mut there);
        Spoilt { planned, there, known: Known::default() }
    }

    pub fn ask(&self, from: &str, probe: &Probe) -> Exchange {
        let healthy = ask(&self.planned, from, probe);
        assert_eq!(healthy.seen, Seen::Answer, "it is answered before it is spoilt: {}", told(&healthy));
        let state = State::observed(&self.there, &self.known, &self.planned);
        exchange(&state, &ns(from), probe, &Choices::First).expect("a namespace")
    }

    /// The fault: its cause, place and object.
    #[track_caller]
    pub fn is(&self, from: &str, probe: &Probe, wanted: (Cause, &str, &str)) {
        let way = self.ask(from, probe);
        let fault = way.fault.clone().unwrap_or_else(|| panic!("no fault: {}", told(&way)));
        let found = (fault.cause, fault.place.to_string(), fault.object.clone());
        assert_eq!(found, (wanted.0, wanted.1.to_owned(), wanted.2.to_owned()), "{}", told(&way));
    }

    /// The same for a pod's connection to one of another host.
    #[track_caller]
    pub fn across(&self, wanted: (Cause, &str, &str)) {
        self.is("pod/default/a1", &tcp("10.244.2.2", 8080), wanted);
    }
}

fn set(plan: &mut Plan, place: &str, key: &str, value: &str) {
    let ns = of(plan, place);
    ns.sysctls.retain(|s| s.key != key);
    ns.sysctls.push(Sysctl { key: key.to_owned(), value: value.to_owned(), optional: false });
}

fn take_down(plan: &mut Plan, place: &str, dev: &str) {
    let link = of(plan, place).links.iter_mut().find(|l| l.name.as_str() == dev).expect("a device");
    link.up = false;
}

/// As the kernel tells of a device that is down: its routes are gone.
fn take_down_for_good(plan: &mut Plan, place: &str, dev: &str) {
    take_down(plan, place, dev);
    let ns = of(plan, place);
    ns.routes.retain(|r| r.devices().all(|d| d.as_str() != dev));
    let whole = |a: &Address| a.net.prefix_len() == a.net.max_prefix_len();
    ns.addresses.iter_mut().filter(|a| a.dev.as_str() == dev && !whole(a)).for_each(|a| a.connected = false);
}

fn rule(plan: &mut Plan, place: &str, (table, chain): (&str, &str), rule: &str) {
    of(plan, place).rules.table(table).chain(chain).rules.insert(0, rule.to_owned());
}

fn pod_port(plan: &Plan, pod: &str) -> String {
    let pod = plan.get(&ns(pod)).expect("a pod");
    match &pod.links[0].kind {
        LinkKind::Veth { peer, .. } => peer.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_host_that_does_not_forward() {
    Spoilt::new(VXLAN, |p| set(p, "host/node2", "net/ipv4/ip_forward", "0")).across((
        Cause::ForwardingOff,
        "node2",
        "net.ipv4.ip_forward",
    ));
}

#[test]
fn a_rule_that_drops_and_one_that_refuses() {
    Spoilt::new(VXLAN, |p| rule(p, "host/node1", ("filter", "FORWARD"), "-d 10.244.2.2/32 -p tcp -j DROP")).across((
        Cause::RuleDrop,
        "node1",
        "-t filter -A FORWARD -d 10.244.2.2/32 -p tcp -j DROP",
    ));
    let refuses = "-p tcp -m tcp --dport 8080 -j REJECT --reject-with icmp-port-unreachable";
    let spoilt = Spoilt::new(VXLAN, |p| rule(p, "host/node1", ("filter", "FORWARD"), refuses));
    spoilt.across((Cause::RuleReject, "node1", &format!("-t filter -A FORWARD {refuses}")));
    assert_eq!(spoilt.ask("pod/default/a1", &tcp("10.244.2.2", 8080)).seen, Seen::Refused);
}

/// Rules of xtables in a host, beside those of its own.
fn legacy(plan: &mut Plan, place: &str, text: &str) {
    of(plan, place).deviations.push(Deviation::LegacyRules(Rules::parse(text)));
}

#[test]
fn rules_of_xtables_are_met_beside_those_of_nf_tables_and_named_as_such() {
    let rule = "-A FORWARD -p tcp -j DROP";
    let spoilt = |text: &str| Spoilt::new(VXLAN, |p| legacy(p, "host/node1", text));
    let filter = format!("*filter\n:FORWARD ACCEPT [0:0]\n{rule}\nCOMMIT\n");
    spoilt(&filter).across((Cause::RuleDrop, "node1", &format!("iptables-legacy -t filter {rule}")));
    let raw = "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp -j DROP\nCOMMIT\n";
    spoilt(raw).across((Cause::RuleDrop, "node1", "iptables-legacy -t raw -A PREROUTING -p tcp -j DROP"));
    let policy = "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n";
    spoilt(policy).across((Cause::PolicyDrop, "node1", "iptables-legacy -t filter -P FORWARD DROP"));
    let way = spoilt(raw).ask("pod/default/a1", &tcp("10.244.2.2", 8080));
    assert!(
        lines(&way.there).contains("the rule `iptables-legacy -t raw -A PREROUTING -p tcp -j DROP` drops it"),
        "{}",
        told(&way)
    );
}

#[test]
fn the_first_rule_that_translates_is_the_last_of_nat_that_is_met() {
    let rules = |to: &str| format!("-p tcp -m tcp --dport 8080 -j DNAT --to-destination {to}");
    let nat = format!("*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING {}\nCOMMIT\n", rules("10.244.3.2"));
    let spoilt = Spoilt::new(VXLAN, |p| {
        legacy(p, "host/node1", &nat);
        rule(p, "host/node1", ("nat", "PREROUTING"), &rules("10.244.1.9"));
    });
    let way = spoilt.ask("pod/default/a1", &tcp("10.244.2.2", 8080));
    assert_eq!((way.there.end.to_string().as_str(), way.seen), ("c1", Seen::Answer), "{}", told(&way));
    assert!(!lines(&way.there).contains("10.244.1.9"), "{}", told(&way));
}

#[test]
fn a_policy_that_drops() {
    Spoilt::new(VXLAN, |p| {
        let filter = of(p, "host/node1").rules.table("filter");
        filter.chain("FORWARD").policy = Some("DROP".to_owned());
        filter.chain("FLANNEL-FWD").rules.clear();
    })
    .across((Cause::PolicyDrop, "node1", "-t filter -P FORWARD DROP"));
}

#[test]
fn a_route_that_is_missing_where_no_other_takes_its_place() {
    let spoilt = Spoilt::new(VXLAN, |p| of(p, "host/node1").routes.clear());
    spoilt.across((Cause::NoRoute, "node1", "no route to 10.244.2.2"));
    assert_eq!(spoilt.ask("pod/default/a1", &tcp("10.244.2.2", 8080)).seen, Seen::Unreachable);
}

#[test]
fn a_route_that_refuses_is_named() {
    Spoilt::new(VXLAN, |p| {
        let what = "blackhole 10.244.2.2/32".to_owned();
        of(p, "host/node1").deviations.push(Deviation::Route(Told { what, message: Vec::new() }));
    })
    .across((Cause::NoRoute, "node1", "blackhole 10.244.2.2/32"));
}

#[test]
fn a_route_that_leads_elsewhere_is_where_the_ways_part() {
    let spoilt = Spoilt::new(VXLAN, |p| of(p, "host/node1").routes.retain(|r| r.dst.to_string() != "10.244.2.0/24"));
    let probe = tcp("10.244.2.2", 8080);
    let from = ns("pod/default/a1");
    let planned = walk(&State::planned(&spoilt.planned), &from, &probe, &Choices::First).expect("a way");
    let state = State::observed(&spoilt.there, &spoilt.known, &spoilt.planned);
    let actual = walk(&state, &from, &probe, &Choices::First).expect("a way");
    let says = |step: Option<&crate::trace::model::Step>| step.map(|s| s.says.clone()).unwrap_or_default();
    let (one, other) = compare(&planned.steps, &actual.steps.iter().collect::<Vec<_>>()).expect("they part");
    assert!(says(one).contains("route `10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink`"), "{one:?}");
    assert!(says(other).contains("route `default via 192.168.1.254 dev eth0`"), "{other:?}");
    assert_eq!(compare(&planned.steps, &planned.steps.iter().collect::<Vec<_>>()), None);
    spoilt.across((Cause::NoRoute, "node1", "10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink"));
}

#[test]
fn a_route_that_nobody_planned_is_named() {
    Spoilt::new(VXLAN, |p| {
        let dst = "10.244.2.0/25".parse().expect("a range");
        let via = Some(ip("192.168.1.101"));
        of(p, "host/node1").routes.push(Route { dst, via, dev: IfName::new("eth0"), onlink: false, also: Vec::new() });
    })
    .across((Cause::WrongRoute, "node1", "10.244.2.0/25 via 192.168.1.101 dev eth0"));
}

#[test]
fn a_packet_that_must_not_be_cut_and_is_too_large() {
    let plan = plan(VXLAN);
    let mut probe = ping("10.244.2.2");
    (probe.header.length, probe.header.dont_fragment) = (1451, true);
    let way = ask(&plan, "pod/default/a1", &probe);
    let fault = way.fault.expect("a fault");
    assert_eq!((way.seen, fault.cause, fault.place.to_string().as_str()), (Seen::TooBig, Cause::TooBig, "a1"));
    // Where a router finds it out, it tells the sender.
    let spoilt = Spoilt::new(VXLAN, |p| {
        of(p, "host/node1").links.iter_mut().find(|l| l.name.as_str() == "flannel.1").expect("a device").mtu = 1400;
    });
    (probe.header.length, probe.header.dont_fragment) = (1450, true);
    spoilt.is("pod/default/a1", &probe, (Cause::TooBig, "node1", "flannel.1 mtu 1400"));
    assert_eq!(spoilt.ask("pod/default/a1", &probe).seen, Seen::TooBig);
}

#[test]
fn what_the_senders_own_rules_drop_fails_at_once_but_for_tcp() {
    let datagram = Probe::to(Protocol::Udp, ip("10.244.2.2"), 8080);
    for (table, chain, place, seen) in [
        ("filter", "OUTPUT", "pod/default/a1", [Seen::NotPermitted, Seen::NotPermitted, Seen::Timeout]),
        ("mangle", "POSTROUTING", "pod/default/a1", [Seen::NotPermitted, Seen::NotPermitted, Seen::Timeout]),
        // Another machine's rules tell nobody.
        ("filter", "FORWARD", "host/node1", [Seen::Timeout; 3]),
        ("mangle", "POSTROUTING", "host/node2", [Seen::Timeout; 3]),
        // Nor do those that an answer meets.
        ("filter", "OUTPUT", "pod/default/b1", [Seen::Timeout; 3]),
    ] {
        let spoilt = Spoilt::new(VXLAN, |p| rule(p, place, (table, chain), "-j DROP"));
        let all = [&datagram, &ping("10.244.2.2"), &tcp("10.244.2.2", 8080)];
        assert_eq!(all.map(|probe| spoilt.ask("pod/default/a1", probe).seen), seen, "{table} {chain} of {place}");
    }
}

/// What a namespace remembers of a way, and the steps of a ping over it.
fn remembering(spoilt: &mut Spoilt, (place, to, mtu): (&str, &str, u32), dont_fragment: bool) -> Exchange {
    spoilt.known.path_mtus = vec![(ns(place), PathMtu { to: ip(to), mtu, expires: 600 })];
    let mut probe = ping("10.244.2.2");
    (probe.header.length, probe.header.dont_fragment) = (1450, dont_fragment);
    spoilt.ask("pod/default/a1", &probe)
}

#[test]
fn a_sender_cuts_as_it_remembers_of_the_way_and_a_narrow_device_beyond_is_named() {
    let mut narrow = Spoilt::new("backend: host-gw", |p| {
        of(p, "host/node1").links.iter_mut().find(|l| l.name.as_str() == "eth0").expect("a device").mtu = 1400;
    });
    let of_a1 = ("pod/default/a1", "10.244.2.2", 1300);
    let whole = remembering(&mut narrow, of_a1, true);
    let fault = whole.fault.as_ref().map(|f| (f.cause, f.place.to_string(), f.object.as_str()));
    assert_eq!(fault, Some((Cause::TooBig, "node1".to_owned(), "eth0 mtu 1400")), "{}", told(&whole));
    let mut cut = |remembered| {
        let way = remembering(&mut narrow, remembered, false);
        let step = way.there.steps.into_iter().find(|s| s.says.contains("cut into pieces"));
        step.map(|s| s.says).unwrap_or_default()
    };
    assert_eq!(cut(of_a1), "it leaves a1 by eth0, cut into pieces of at most 1300 bytes");
    // What is remembered of another address, or by a machine that only passes it on, does not count.
    for other in [("pod/default/a1", "10.244.2.3", 1300), ("host/node1", "10.244.2.2", 1300)] {
        assert_eq!(cut(other), "it leaves node1 by eth0, cut into pieces of at most 1400 bytes");
    }
}

#[test]
fn flanneld_lets_its_packets_be_cut_once_it_has_learnt_that_the_way_is_narrow() {
    let mut narrow = Spoilt::new("backend: udp", |p| {
        of(p, "router").links.iter_mut().filter(|l| l.name.as_str() == "br-rack2").for_each(|l| l.mtu = 1400);
    });
    let mut probe = ping("10.244.3.2");
    probe.header.length = 1450;
    narrow.is("pod/default/a1", &probe, (Cause::TooBig, "router", "br-rack2 mtu 1400"));
    let of_host = |ns_word: &str, to: &str| (ns(ns_word), PathMtu { to: ip(to), mtu: 1400, expires: 600 });
    narrow.known.path_mtus = vec![of_host("host/node1", "192.168.2.11")];
    let way = narrow.ask("pod/default/a1", &probe);
    assert_eq!(way.seen, Seen::Answer, "{}", told(&way));
}

#[test]
fn a_switch_that_is_too_narrow_tells_nobody() {
    let spoilt = Spoilt::new("backend: host-gw", |p| {
        let router = of(p, "router");
        router.links.iter_mut().for_each(|l| l.mtu = 1400);
    });
    let mut probe = ping("10.244.2.2");
    (probe.header.length, probe.header.dont_fragment) = (1500, true);
    let way = spoilt.ask("pod/default/a1", &probe);
    let fault = way.fault.expect("a fault");
    assert_eq!((way.seen, fault.cause, fault.place.to_string().as_str()), (Seen::Timeout, Cause::TooBig, "router"));
}

#[test]
fn the_reverse_path_filter() {
    Spoilt::new(VXLAN, |p| {
        set(p, "host/node2", "net/ipv4/conf/all/rp_filter", "1");
        of(p, "host/node2").routes.retain(|r| r.dst.to_string() != "10.244.1.0/24");
    })
    .across((Cause::ReversePath, "node2", "net.ipv4.conf.all.rp_filter"));
    // With the routes as they are it finds nothing wrong.
    let spoilt = Spoilt::new(VXLAN, |p| set(p, "host/node2", "net/ipv4/conf/all/rp_filter", "1"));
    assert_eq!(spoilt.ask("pod/default/a1", &tcp("10.244.2.2", 8080)).seen, Seen::Answer);
}

#[test]
fn a_device_that_is_down_wherever_it_is() {
    let port = pod_port(&plan(VXLAN), "pod/default/b1");
    for (place, dev) in [
        ("pod/default/a1", "eth0"),
        ("pod/default/b1", "eth0"),
        ("host/node2", port.as_str()),
        ("host/node1", "cni0"),
        ("host/node1", "flannel.1"),
        ("host/node1", "eth0"),
        ("host/node2", "flannel.1"),
        ("host/node2", "cni0"),
        ("host/node2", "eth0"),
        ("router", "br-rack1"),
    ] {
        let short = ns(place).to_string();
        Spoilt::new(VXLAN, |p| take_down(p, place, dev)).across((Cause::LinkDown, &short, dev));
        Spoilt::new(VXLAN, |p| take_down_for_good(p, place, dev)).across((Cause::LinkDown, &short, dev));
    }
}

#[test]
fn a_device_that_is_missing() {
    Spoilt::new(VXLAN, |p| {
        let pod = of(p, "pod/default/b1");
        (pod.links, pod.addresses, pod.routes) = (Vec::new(), Vec::new(), Vec::new());
        let port = "eth0";
        of(p, "host/node2").links.retain(|l| !matches!(&l.kind, LinkKind::Veth { peer_ns, peer } if peer.as_str() == port && peer_ns.path() == "pod/default/b1"));
    })
    .across((Cause::NoDevice, "b1", "eth0"));
    Spoilt::new(VXLAN, |p| {
        let node2 = of(p, "host/node2");
        let is = |dev: &IfName| dev.as_str() == "flannel.1";
        node2.links.retain(|l| !is(&l.name));
        node2.addresses.retain(|a| !is(&a.dev));
        node2.routes.retain(|r| !is(&r.dev));
    })
    .across((Cause::NoDevice, "node2", "flannel.1"));
}

#[test]
fn rules_that_bridged_packets_do_not_meet() {
    Spoilt::new(VXLAN, |p| set(p, "host/node1", "net/bridge/bridge-nf-call-iptables", "0")).is(
        "pod/default/a1",
        &tcp("10.96.0.101", 80),
        (Cause::BridgeNetfilterOff, "node1", "net.bridge.bridge-nf-call-iptables"),
    );
}

#[test]
fn answers_that_go_past_the_host_that_translated() {
    let spoilt = Spoilt::new("backend: host-gw", |p| {
        let nat = of(p, "host/node1").rules.table("nat");
        nat.chain("KUBE-POSTROUTING").rules.clear();
        nat.chain("FLANNEL-POSTRTG").rules.clear();
    });
    let way = spoilt.ask("client/laptop", &tcp("192.168.1.11", 30080));
    let fault = way.fault.clone().expect("a fault");
    assert_eq!((fault.cause, fault.place.to_string().as_str()), (Cause::NotMasqueraded, "node1"), "{}", told(&way));
}

#[test]
fn nobody_listens_or_nobody_is_there() {
    let plan = plan(VXLAN);
    let way = ask(&plan, "pod/default/a1", &tcp("10.244.2.2", 81));
    let fault = way.fault.expect("a fault");
    assert_eq!((way.seen, fault.cause, fault.object.as_str()), (Seen::Refused, Cause::NoListener, "port 81/tcp"));
    let way = ask(&plan, "pod/default/a1", &tcp("10.96.0.104", 80));
    assert_eq!((way.seen, way.fault.map(|f| f.cause)), (Seen::Refused, Some(Cause::NoEndpoints)));
    let way = ask(&plan, "pod/default/a1", &ping("10.244.2.77"));
    let fault = way.fault.expect("a fault");
    assert_eq!(
        (way.seen, fault.cause, fault.place.to_string().as_str()),
        (Seen::Unreachable, Cause::NoNeighbour, "node2")
    );
}

#[test]
fn hops_that_run_out() {
    let mut probe = ping("10.244.2.2");
    probe.header.ttl = 1;
    let way = ask(&plan(VXLAN), "pod/default/a1", &probe);
    let fault = way.fault.expect("a fault");
    assert_eq!(
        (way.seen, fault.cause, fault.place.to_string().as_str()),
        (Seen::TtlExceeded, Cause::TtlExceeded, "node1")
    );
}

#[test]
fn a_full_table_of_connections() {
    let mut spoilt = Spoilt::new(VXLAN, |_| {});
    spoilt.known.conntrack_full.insert(ns("host/node1"));
    spoilt.across((Cause::ConntrackFull, "node1", "nf_conntrack_max"));
}

#[test]
fn a_rule_that_is_not_understood_is_said() {
    let mut plan = plan(VXLAN);
    rule(&mut plan, "host/node1", ("filter", "FORWARD"), "-m set --match-set banned src -j DROP");
    let way = ask(&plan, "pod/default/a1", &tcp("10.244.2.2", 8080));
    assert_eq!(way.seen, Seen::Answer);
    assert!(way.there.notes.iter().any(|n| n.contains("`-m set`, which is not known here")), "{:?}", way.there.notes);
}
