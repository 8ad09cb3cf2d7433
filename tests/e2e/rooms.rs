//! The room of a machine's programs: what is in it, whom it keeps out, and that nothing of it is
//! left when it goes.

use crate::as_root_and_ordinary_user;
use crate::harness::process::Tree;
use crate::harness::{Background, Bench, until};
use crate::sample::FOUR_PODS;

as_root_and_ordinary_user![
    who_kills_everyone_in_a_machine_kills_nobody_elsewhere,
    a_container_sees_its_own_processes_only,
    who_comes_to_a_container_is_in_its_room,
    pods_without_a_program_cost_no_process,
    visitors_of_one_machine_meet_and_leave_nothing,
    what_a_visitor_writes_into_etc_hosts_is_there_for_the_next,
    daemonised_children_of_a_removed_pod_are_ended,
    daemonised_children_of_a_program_end_with_it,
    a_visitor_of_a_removed_pod_is_ended,
    what_a_readiness_command_leaves_behind_is_ended,
    what_a_probe_leaves_behind_is_ended,
    connections_cannot_use_up_the_labs_descriptors,
];

/// Four pods, and one with a program.
fn up(bench: &Bench, program: &str) -> Tree {
    bench.up(&bench.write(&with(program)));
    Tree::of(bench.daemon())
}

fn with(program: &str) -> String {
    FOUR_PODS.replace("pods:\n", &format!("pods:\n  own: {{ host: node1, command: [sh, -c, '{program}'] }}\n"))
}

fn who_kills_everyone_in_a_machine_kills_nobody_elsewhere(bench: &Bench) {
    up(bench, "exec sleep 1000");
    let daemon = bench.daemon();
    for machine in ["a1", "own", "node1", "router"] {
        // It may end itself with the others.
        bench.exec(machine, &["sh", "-c", "kill -9 -1"]);
        assert_eq!(bench.daemon(), daemon, "after {machine}");
    }
    bench.probes_pass();
    bench.is_as_planned();
    until("the program is started again", || bench.row("own").contains("1/1"));
}

const NAMES: &str = "cd /proc; for p in [0-9]*; do echo $p $(cat $p/comm); done";

fn a_container_sees_its_own_processes_only(bench: &Bench) {
    up(bench, &format!("sleep 1000 & {NAMES}; wait"));
    let log = || bench.ok(&["logs", "own"]);
    until("it has spoken", || log().contains("2 sh"));
    let seen = log();
    assert!(seen.starts_with("1 pause\n2 sh\n3 sleep\n"), "{seen}");
    assert!(!seen.contains("labctl"), "{seen}");
}

fn who_comes_to_a_container_is_in_its_room(bench: &Bench) {
    up(bench, "echo mine > /run/note; mount -t tmpfs none /mnt; touch /mnt/here; exec sleep 1000");
    until("it has begun", || bench.exec("own", &["test", "-e", "/mnt/here"]).code == 0);
    assert_eq!(bench.sh("own", "cat /run/note; cat /proc/2/comm"), "mine\nsleep\n");
    // It may be ended with the room before it has told of its own end.
    bench.exec("own", &["sh", "-c", "kill -TERM 2"]);
    until("the program was ended by its number", || {
        bench.pod("own")["status"]["containerStatuses"][0]["restartCount"] == 1
    });
}

fn pods_without_a_program_cost_no_process(bench: &Bench) {
    bench.up(&bench.write(FOUR_PODS));
    assert_eq!(Tree::of(bench.daemon()).processes().len(), 2, "the first one and the daemon");
}

fn visitors_of_one_machine_meet_and_leave_nothing(bench: &Bench) {
    let tree = up(bench, "exec sleep 1000");
    let before = tree.processes().len();
    let mut first = Background::start(bench.labctl(&["exec", "a1", "--", "sh", "-c", "sleep 4321 & read -r go"]));
    until("the first one's child is seen by the second", || bench.sh("a1", NAMES).contains("sleep"));
    assert!(!bench.sh("a2", NAMES).contains("sleep"), "others do not see it");
    first.tell("go");
    assert!(first.end().success());
    until("nobody is left", || tree.processes().len() == before);
}

fn what_a_visitor_writes_into_etc_hosts_is_there_for_the_next(bench: &Bench) {
    up(bench, "exec sleep 1000");
    for machine in ["a1", "own"] {
        bench.sh(machine, "echo 192.0.2.1 far >> /etc/hosts");
        assert!(bench.sh(machine, "getent hosts far").starts_with("192.0.2.1"));
    }
    assert!(!bench.sh("a2", "cat /etc/hosts").contains("far"));
    assert!(!std::fs::read_to_string("/etc/hosts").expect("the machine's").contains("192.0.2.1"));
    let text = with("exec sleep 1000").replace("node2: {} }", "node2: {}, node3: {} }");
    bench.up(&bench.write(&text));
    bench.is_as_planned();
}

const DAEMONISE: &str = "setsid sleep 4321 >/dev/null 2>&1 & exec sleep 1000";

fn daemonised_children_of_a_removed_pod_are_ended(bench: &Bench) {
    let tree = up(bench, DAEMONISE);
    until("both live", || tree.named("sleep").len() == 2);
    bench.up(&bench.write(FOUR_PODS));
    until("both are ended", || tree.named("sleep").is_empty());
    bench.is_as_planned();
}

fn daemonised_children_of_a_program_end_with_it(bench: &Bench) {
    let tree = up(bench, "setsid sleep 4321 >/dev/null 2>&1 & exit 0");
    until("it has ended", || bench.pod("own")["status"]["containerStatuses"][0]["restartCount"] == 1);
    until("so has its child", || tree.named("sleep").is_empty());
}

fn a_visitor_of_a_removed_pod_is_ended(bench: &Bench) {
    let tree = up(bench, "exec sleep 1000");
    let visit = |pod| {
        let before = tree.named("sleep").len();
        let visitor = Background::start(bench.labctl(&["exec", pod, "--", "setsid", "sh", "-c", "sleep 4321; true"]));
        until("the visitor is in", || tree.named("sleep").len() > before);
        visitor
    };
    let mut visitors = [visit("a2"), visit("own")];
    bench.up(&bench.write(&FOUR_PODS.replace("  a2: { host: node1 }\n", "").replace("ping: a2", "ping: a1")));
    for visitor in &mut visitors {
        assert_eq!(visitor.end().code(), Some(128 + 9));
    }
    until("nobody is left", || tree.named("sleep").is_empty());
}

fn what_a_readiness_command_leaves_behind_is_ended(bench: &Bench) {
    let probe = "readinessProbe: { periodSeconds: 1, exec: { command: [sh, -c, \
                 'setsid sleep 4321 >/dev/null 2>&1 & echo >> /run/tries'] } }";
    let text = format!(
        "hosts: {{ node1: {{}} }}\npods:\n  echo: {{ {probe} }}\n  \
         own: {{ command: [sh, -c, 'exec tail -f /dev/null'], {probe} }}\n"
    );
    bench.up(&bench.write(&text));
    let tree = Tree::of(bench.daemon());
    for pod in ["echo", "own"] {
        until("it was asked four times", || bench.sh(pod, "cat /run/tries").lines().count() >= 4);
    }
    // At most the ones of the tries that are under way.
    assert!(tree.named("sleep").len() <= 2, "{} are left", tree.named("sleep").len());
}

fn what_a_probe_leaves_behind_is_ended(bench: &Bench) {
    let probe = |from: &str, line: &str| format!("  - {{ from: {from}, exec: [sh, -c, '{line}'] }}\n");
    let daemonise = "setsid sleep 4321 >/dev/null 2>&1 & cat /proc/[0-9]*/comm";
    let text = with("exec tail -f /dev/null") + &probe("a1", daemonise) + &probe("own", daemonise);
    bench.up(&bench.write(&text));
    let tree = Tree::of(bench.daemon());
    bench.probes_pass();
    until("nothing is left", || tree.named("sleep").is_empty());
    // One that is there at the time limit goes with all that it started.
    let late =
        "  - { from: own, timeout: 1, retries: 0, expect: fail, exec: [sh, -c, 'setsid sleep 4321 & sleep 4321'] }\n";
    bench.up(&bench.write(&(with("exec tail -f /dev/null") + late)));
    bench.probes_pass();
    until("nothing is left of the late one", || tree.named("sleep").is_empty());
}

fn connections_cannot_use_up_the_labs_descriptors(bench: &Bench) {
    let file = bench.write(FOUR_PODS);
    let up = bench.labctl(&["up", &file, "--no-probes"]);
    let mut limited = std::process::Command::new("prlimit");
    limited.arg("--nofile=128:128").arg(up.get_program()).args(up.get_args());
    limited.envs(up.get_envs().filter_map(|(name, value)| Some((name, value?)))).env_remove("XDG_RUNTIME_DIR");
    crate::harness::Ran::of(limited, &["up", &file]).ends_with(0);
    // More than the daemon may have, to two listeners, and held.
    let hold = "import socket,sys\n\
                held=[socket.create_connection((ip,8080)) for ip in sys.argv[1:] for _ in range(150)]\n\
                print('held',flush=True)\nsys.stdin.readline()";
    let (one, two) = (bench.ip("a1"), bench.ip("b1"));
    let mut holder = Background::start(bench.labctl(&["exec", "node1", "--", "python3", "-c", hold, &one, &two]));
    let mut said = String::new();
    let stdout = holder.0.stdout.as_mut().expect("a pipe");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut said).expect("text");
    assert_eq!(said, "held\n");
    bench.ok(&["status"]);
    bench.sh("a2", "true");
    bench.up(&bench.write(&FOUR_PODS.replace("pods:\n", "pods:\n  new: { host: node2 }\n")));
    holder.tell("enough");
    holder.end();
    until("its place is free again", || bench.run(&["probe"]).code == 0);
}
