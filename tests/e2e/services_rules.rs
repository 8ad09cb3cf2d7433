//! kube-proxy's rules in a running lab: they follow the pods, come back when somebody removes them,
//! leave others' rules alone, and go with the services.

use std::time::{Duration, Instant};

use crate::as_root_and_ordinary_user;
use crate::harness::{Bench, until};

as_root_and_ordinary_user![
    a_service_leads_to_its_pods_by_address_and_by_name,
    rules_removed_by_hand_come_back_and_strangers_stay,
    a_pod_that_stops_being_ready_leaves_the_rules_within_a_second,
    a_lab_loses_its_services_and_gets_them_again,
    many_services_are_built_and_changed,
    rules_that_could_not_be_written_are_told_of_and_written_later
];

const TEA: &str = "
hosts: { node1: {}, node2: {} }
pods: { asks: { host: node1 } }
deployments:
  tea:
    replicas: 2
    labels: { app: tea }
    readinessProbe: { exec: { command: [test, '!', -e, /run/unwell] }, periodSeconds: 1, failureThreshold: 1 }
services:
  tea-svc: { clusterIP: 10.96.1.1, selector: { app: tea }, ports: [{ port: 80, targetPort: 8080 }] }
";

fn rules(bench: &Bench, host: &str) -> String {
    bench.sh(host, "iptables-save -t nat")
}

fn a_service_leads_to_its_pods_by_address_and_by_name(bench: &Bench) {
    bench.up(&bench.write(TEA));
    let mut seen = std::collections::BTreeSet::new();
    for name in ["10.96.1.1", "tea-svc", "tea-svc.default", "tea-svc.default.svc.cluster.local."] {
        for _ in 0..10 {
            let answer = bench.sh("asks", &format!("curl -sS -m 5 http://{name}/ | grep '\"name\"'"));
            seen.insert(answer.trim().to_owned());
        }
    }
    assert_eq!(seen.len(), 2, "both pods answer: {seen:?}");
    bench.is_as_planned();
}

fn rules_removed_by_hand_come_back_and_strangers_stay(bench: &Bench) {
    bench.up(&bench.write(TEA));
    let before = rules(bench, "node1");
    let jump = "-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES";
    assert!(before.contains(jump), "{before}");
    bench.sh("node1", "iptables -w -t nat -A PREROUTING -d 192.0.2.1 -j RETURN; iptables -w -t nat -F KUBE-SERVICES");
    until("KUBE-SERVICES is filled again", || rules(bench, "node1").contains("tea-svc cluster IP"));
    bench.sh(
        "node1",
        "iptables -w -t nat -D PREROUTING -m comment --comment 'kubernetes service portals' -j KUBE-SERVICES",
    );
    until("the jump is there again", || rules(bench, "node1").contains(jump));
    let after = rules(bench, "node1");
    assert!(after.contains("-A PREROUTING -d 192.0.2.1/32 -j RETURN"), "a stranger's rule stays:\n{after}");
    bench.sh("node1", "iptables -w -t nat -D PREROUTING -d 192.0.2.1 -j RETURN");
    bench.is_as_planned();
}

fn a_pod_that_stops_being_ready_leaves_the_rules_within_a_second(bench: &Bench) {
    bench.up(&bench.write(TEA));
    let ip = bench.ip("tea-1");
    let has = |host: &str| rules(bench, host).contains(&format!("--to-destination {ip}:8080"));
    assert!(has("node1") && has("node2"), "both hosts know tea-1");
    // The probe looks once a second; from its verdict on it is the rules' turn.
    bench.sh("tea-1", "touch /run/unwell");
    until("tea-1 is told to be unready", || bench.row("tea-1").contains("0/1"));
    let begun = Instant::now();
    until("the hosts forget tea-1", || !has("node1") && !has("node2"));
    let took = begun.elapsed();
    println!("gone from the rules {} ms after the pod was shown as unready", took.as_millis());
    assert!(took < Duration::from_secs(1), "{took:?}");
    bench.sh("tea-1", "rm /run/unwell");
    until("tea-1 is back", || has("node1") && has("node2"));
    bench.is_as_planned();
}

fn a_lab_loses_its_services_and_gets_them_again(bench: &Bench) {
    bench.up(&bench.write(TEA));
    let without = TEA.split("services:").next().expect("a beginning").to_owned();
    bench.up(&bench.write(&without));
    assert!(!bench.sh("node1", "iptables-save").contains("KUBE-"), "no rule of a service is left");
    assert_eq!(bench.sh("node1", "cat /proc/sys/net/ipv4/conf/all/route_localnet").trim(), "0");
    bench.is_as_planned();
    bench.up(&bench.write(TEA));
    bench.sh("asks", "curl -sS -m 5 http://tea-svc/");
    assert_eq!(bench.sh("node1", "cat /proc/sys/net/ipv4/conf/all/route_localnet").trim(), "1");
    bench.is_as_planned();
}

/// More than one netlink message of an ordinary user takes.
fn many_services_are_built_and_changed(bench: &Bench) {
    let many = |count: usize| {
        let service =
            |n: usize| format!("  s{n}: {{ selector: {{ app: tea }}, ports: [{{ port: 80, targetPort: 8080 }}] }}\n");
        format!("{TEA}{}", (0..count).map(service).collect::<String>())
    };
    bench.up(&bench.write(&many(120)));
    bench.sh("asks", "curl -sS -m 5 http://s119/");
    bench.is_as_planned();
    bench.sh("tea-1", "touch /run/unwell");
    let ip = bench.ip("tea-1");
    until("the hosts forget tea-1", || !rules(bench, "node2").contains(&format!("--to-destination {ip}:8080")));
    bench.sh("tea-1", "rm /run/unwell");
    bench.up(&bench.write(&many(60)));
    assert!(!rules(bench, "node1").contains("default/s119"), "a service that is gone has no rules");
}

/// An `iptables-restore` first in the PATH that fails while the file `broken` is there.
fn breakable(bench: &Bench) -> std::ffi::OsString {
    use std::os::unix::fs::PermissionsExt;
    let dir = bench.path("bin");
    std::fs::create_dir(&dir).expect("a directory");
    let real = ["/usr/sbin", "/sbin"].map(|d| format!("{d}/iptables-restore"));
    let real = real.iter().find(|p| std::path::Path::new(p).exists()).expect("iptables-restore is installed");
    let script = format!("#!/bin/sh\n[ ! -e {}/broken ] || exit 4\nexec {real} \"$@\"\n", dir.display());
    let program = dir.join("iptables-restore");
    std::fs::write(&program, script).expect("a script");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths([dir].into_iter().chain(std::env::split_paths(&path))).expect("a PATH")
}

fn rules_that_could_not_be_written_are_told_of_and_written_later(bench: &Bench) {
    let path = breakable(bench);
    let file = bench.write(TEA);
    let mut up = bench.labctl(&["up", &file]);
    up.env("PATH", &path);
    crate::harness::Ran::of(up, &["up"]).ends_with(0);
    let broken = bench.path("bin").join("broken");
    std::fs::write(&broken, "").expect("a file");
    bench.sh("tea-1", "touch /run/unwell");
    until("the trouble is told", || bench.ok(&["status"]).contains("host node1: rules of services"));
    let leads_there = format!("--to-destination {}:8080", bench.ip("tea-1"));
    assert!(rules(bench, "node1").contains(&leads_there), "nothing could be written");
    std::fs::remove_file(&broken).expect("the file");
    until("the rules follow", || !rules(bench, "node1").contains(&leads_there));
    bench.sh("tea-1", "rm /run/unwell");
    until("all is well", || !bench.ok(&["status"]).contains("rules of services"));
    bench.is_as_planned();
}
