//! Pings, and the ways in which packets are lost.

use labctl::spec::probe::FailureName;

use super::world::{SERVER, differed, passed, sh};

#[test]
fn a_ping_tells_the_ttl_of_its_answer() {
    let world = crate::world!();
    let seen = world.one("ping: server, expect: { ttl: 63 }");
    passed(&seen);
    assert_eq!(seen.tried.as_deref(), Some(SERVER));
    assert!(seen.details.rtt_ms.is_some_and(|ms| ms > 0.0));
    let other = world.one("ping: server, expect: { ttl: 62 }");
    differed(&other, &["an answer from 10.9.1.2", "TTL 63"]);
    assert!(other.expected.contains("TTL 62"), "{}", other.expected);
    passed(&world.one("ping: asker"));
}

#[test]
fn silence_is_a_timeout_that_names_the_address() {
    let world = crate::world!();
    sh(&world.server, "iptables -A INPUT -p icmp -j DROP");
    let seen = world.one("ping: server");
    differed(&seen, &["timeout: no answer from 10.9.1.2 within 1 s"]);
    passed(&world.one("ping: server, expect: { fail: timeout }"));
    differed(&world.one("ping: server, expect: { fail: unreachable }"), &["timeout"]);
}

#[test]
fn unreachable_says_who_says_so() {
    let world = crate::world!();
    let routed = world.one("ping: 10.77.0.1");
    differed(&routed, &["unreachable: 10.9.0.254 (router) says of 10.77.0.1: host unreachable"]);
    passed(&world.one("ping: 10.77.0.1, expect: { fail: unreachable }"));
    let here = world.ask("  - { from: server, ping: 172.16.0.1, retries: 0 }\n").remove(0);
    differed(&here, &["unreachable: 172.16.0.1 cannot be reached: the sender has no route to it"]);
}

#[test]
fn a_missing_neighbour_is_told_by_the_sender_itself() {
    let world = crate::world!();
    let seen = world.one("timeout: 10, ping: 10.9.0.77, expect: { fail: unreachable }");
    passed(&seen);
    assert!(seen.observed.contains("asker itself says of 10.9.0.77: host unreachable"), "{}", seen.observed);
}

#[test]
fn a_closed_udp_port_in_front_of_a_ping_is_a_refusal() {
    let world = crate::world!();
    sh(&world.server, "iptables -A INPUT -p icmp -j REJECT");
    let seen = world.one("ping: server, expect: { fail: refused }");
    passed(&seen);
    assert!(seen.observed.contains("10.9.1.2 refused: port unreachable"), "{}", seen.observed);
}

#[test]
fn too_big_says_which_link_and_its_mtu() {
    let world = crate::world!();
    let far = world.one("ping: { to: server, size: 1450, dontFragment: true }, expect: { fail: too-big }");
    passed(&far);
    assert!(far.observed.contains("10.9.0.254 (router) says of 10.9.1.2: too large"), "{}", far.observed);
    assert!(far.observed.contains("takes 1400 bytes"), "{}", far.observed);
    let own = world.one("ping: { to: server, size: 1600, dontFragment: true }");
    differed(&own, &["too-big: asker cannot send 1600 bytes to 10.9.1.2: its own link takes 1500"]);
    passed(&world.one("ping: { to: server, size: 1400, dontFragment: true }"));
    passed(&world.one("ping: { to: server, size: 3000 }"));
}

#[test]
fn the_mtu_of_a_path_is_found() {
    let world = crate::world!();
    let seen = world.one("ping: server, expect: { mtu: 1400 }");
    passed(&seen);
    differed(&world.one("ping: server, expect: { mtu: 1500 }"), &["MTU 1400 bytes"]);
    let loopback = world.one("ping: asker, expect: { mtu: 65535 }");
    passed(&loopback);
}

#[test]
fn the_mtu_is_found_where_no_router_tells_it() {
    let world = crate::world!();
    sh(&world.router, "iptables -A OUTPUT -p icmp --icmp-type fragmentation-needed -j DROP");
    passed(&world.one("ping: server, expect: { mtu: 1400 }"));
    differed(&world.one("ping: { to: server, size: 1450, dontFragment: true }"), &["timeout"]);
}

#[test]
fn a_ttl_that_runs_out_names_the_router() {
    let world = crate::world!();
    let seen = world.one("ping: { to: server, ttl: 1 }, expect: { fail: ttl-exceeded }");
    passed(&seen);
    assert!(seen.observed.contains("10.9.0.254 (router) says of 10.9.1.2: time to live exceeded"), "{}", seen.observed);
    assert_eq!(seen.details.failure, Some(FailureName::TtlExceeded));
}

#[test]
fn a_rule_of_the_senders_own_is_told() {
    let world = crate::world!();
    sh(&world.server, "iptables -A OUTPUT -p icmp -d 10.9.0.1 -j DROP");
    let seen = world.ask("  - { from: server, ping: asker, retries: 0 }\n").remove(0);
    differed(&seen, &["unreachable", "a rule of the sender's own drops the packet"]);
}

#[test]
fn pings_side_by_side_do_not_take_each_others_answers() {
    let world = crate::world!();
    let seen = world.one("ping: server, count: 200, expect: { ttl: 63 }");
    passed(&seen);
    assert_eq!(seen.tries, 200);
}

#[test]
fn probes_run_side_by_side_and_keep_their_order() {
    let world = crate::world!();
    sh(&world.server, "iptables -A INPUT -p icmp -j DROP");
    let probes: String = (0..20)
        .map(|n| format!("  - {{ name: n{n}, from: asker, ping: server, timeout: 1, retries: 0, expect: fail }}\n"))
        .collect();
    let begin = std::time::Instant::now();
    let seen = world.ask(&probes);
    assert!(begin.elapsed().as_secs() < 10, "one after the other they take 20 s");
    let names: Vec<_> = seen.iter().map(|o| o.name.clone()).collect();
    assert_eq!(names, (0..20).map(|n| format!("n{n}")).collect::<Vec<_>>());
    seen.iter().for_each(passed);
}
