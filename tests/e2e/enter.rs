//! `exec`: a program on a machine of the lab sees that machine and nothing else.

use crate::as_root_and_ordinary_user;
use crate::harness::process::Tree;
use crate::harness::{Background, Bench, until};
use crate::sample::FOUR_PODS;

as_root_and_ordinary_user![
    the_programs_exit_code_is_passed_through,
    a_pod_has_its_own_name_files_and_network,
    hosts_clients_and_the_router_can_be_entered,
    each_machine_has_a_run_directory_of_its_own,
    standard_input_and_output_are_the_callers,
    a_background_child_stays_in_a_containers_room_and_ends_with_the_lab,
    an_unknown_target_is_told_with_a_near_one,
    a_program_that_is_not_there_is_told,
    tcpdump_listens_as_doctor_says,
];

fn up(bench: &Bench) {
    bench.up(&bench.write(&format!("clients: {{ laptop: {{}} }}\n{FOUR_PODS}")));
}

fn the_programs_exit_code_is_passed_through(bench: &Bench) {
    up(bench);
    bench.exec("a1", &["true"]).ends_with(0);
    bench.exec("a1", &["sh", "-c", "exit 42"]).ends_with(42);
    bench.exec("a1", &["sh", "-c", "kill -KILL $$"]).ends_with(128 + 9);
}

fn a_pod_has_its_own_name_files_and_network(bench: &Bench) {
    up(bench);
    assert_eq!(bench.sh("a1", "hostname; cat /etc/hostname"), "a1\na1\n");
    assert!(bench.sh("a1", "cat /etc/hosts").contains("10.244.1.2\ta1"));
    let resolv = bench.sh("a1", "cat /etc/resolv.conf");
    assert_eq!(
        resolv,
        "search default.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
    );
    let devices = bench.sh("a1", "ls /sys/class/net; ip -br -4 address show dev eth0");
    assert!(devices.starts_with("eth0\nlo\n") && devices.contains("10.244.1.2/24"), "{devices}");
    assert_eq!(bench.sh("a1", "readlink /proc/self/ns/net"), bench.sh("a1", "readlink /proc/self/ns/net"));
    assert_ne!(bench.sh("a1", "readlink /proc/self/ns/net"), bench.sh("a2", "readlink /proc/self/ns/net"));
}

fn hosts_clients_and_the_router_can_be_entered(bench: &Bench) {
    up(bench);
    for (target, has) in [
        ("node1", "192.168.1.11/24"),
        ("laptop", "192.168.1.101/24"),
        ("internet", "203.0.113."),
        ("router", "192.168.1.254/24"),
        ("host/node2", "192.168.1.12/24"),
        ("pod/default/b1", "10.244.2.2/24"),
    ] {
        let addresses = bench.sh(target, "ip -br address");
        assert!(addresses.contains(has), "{target} has no {has}: {addresses}");
    }
    assert_eq!(bench.sh("node1", "cat /run/flannel/subnet.env").lines().count(), 4);
    assert!(bench.sh("laptop", "cat /etc/hosts").contains("192.168.1.12\tnode2"));
}

fn each_machine_has_a_run_directory_of_its_own(bench: &Bench) {
    up(bench);
    bench.sh("a1", "echo mine > /run/note");
    assert_eq!(bench.sh("a1", "cat /run/note"), "mine\n");
    bench.exec("a2", &["test", "-e", "/run/note"]).ends_with(1);
    assert!(!std::path::Path::new("/run/note").exists(), "the machine's own /run is another one");
}

fn standard_input_and_output_are_the_callers(bench: &Bench) {
    up(bench);
    let mut cat =
        Background::start(bench.labctl(&["exec", "a1", "--", "sh", "-c", "read -r x; echo got $x; echo err >&2"]));
    cat.tell("hello");
    cat.end();
    let text = |mut from: Box<dyn std::io::Read>| {
        let mut said = String::new();
        from.read_to_string(&mut said).expect("text");
        said
    };
    assert_eq!(text(Box::new(cat.0.stdout.take().expect("a pipe"))), "got hello\n");
    assert_eq!(text(Box::new(cat.0.stderr.take().expect("a pipe"))), "err\n");
}

fn a_background_child_stays_in_a_containers_room_and_ends_with_the_lab(bench: &Bench) {
    bench.up(&bench.write("hosts: { node1: {} }\npods: { own: { command: [tail, -f, /dev/null] } }\n"));
    let tree = Tree::of(bench.daemon());
    bench.sh("own", "sleep 12345 >/dev/null 2>&1 & echo started");
    until("the child lives on in the lab", || tree.named("sleep").len() == 1);
    bench.ok(&["down"]);
    tree.must_end();
}

fn an_unknown_target_is_told_with_a_near_one(bench: &Bench) {
    up(bench);
    bench.exec("node11", &["true"]).ends_with(2).says("target-unknown").says("node1");
    bench.run(&["logs", "node1"]).ends_with(2).says("only flanneld of the back end udp writes one");
}

fn a_program_that_is_not_there_is_told(bench: &Bench) {
    up(bench);
    let ran = bench.exec("a1", &["no-such-program"]).says("no-such-program");
    assert_ne!(ran.code, 0);
}

fn tcpdump_listens_as_doctor_says(bench: &Bench) {
    let doctor = bench.json(&["doctor"]);
    let findings = doctor["findings"].as_array().expect("findings");
    let tcpdump = findings.iter().find(|f| f["what"] == "tcpdump").expect("a finding about tcpdump");
    let remedy = tcpdump["remedy"].as_str().unwrap_or_default();
    let (options, listens) = match remedy {
        _ if tcpdump["verdict"] == "ok" => ("", true),
        stay_root if stay_root.contains("-Z root") => ("-Z root", true),
        _ => ("-Z root", false),
    };
    assert!(listens || (!bench.is_root() && remedy.contains("as root")), "{tcpdump}");
    up(bench);
    let ping = format!("ping -i 0.2 {} >/dev/null & ", bench.ip("a2"));
    let listen = format!("timeout 20 tcpdump {options} -c 1 -ni eth0 icmp; code=$?; kill $!; exit $code");
    let ran = bench.exec("a1", &["sh", "-c", &(ping + &listen)]);
    assert_eq!(ran.code == 0 && ran.stdout.contains("ICMP echo"), listens, "{tcpdump} {ran}");
}
