//! How a lab ends, wanted or not: nothing of it stays, and another can be built at once.

use std::os::unix::process::{CommandExt, ExitStatusExt};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::as_root_and_ordinary_user;
use crate::harness::process::{Tree, signal};
use crate::harness::{Background, Bench, until};
use crate::sample::FOUR_PODS;

as_root_and_ordinary_user![
    down_ends_every_process_and_leaves_no_file,
    a_killed_daemon_takes_its_lab_along_and_up_works_at_once,
    a_killed_first_process_takes_its_lab_along_and_up_works_at_once,
    sigterm_to_the_daemon_ends_the_lab,
    ctrl_c_in_the_middle_of_up_leaves_nothing,
    a_caller_killed_in_the_middle_of_up_leaves_nothing,
    up_in_the_foreground_ends_with_ctrl_c,
    up_in_the_foreground_ends_with_its_caller,
    a_client_that_hangs_does_not_stop_down,
    a_caller_that_hangs_up_ends_nothing,
];

/// A lab with programs of every kind, so that there is much to end.
fn lab(bench: &Bench) -> (String, Tree) {
    let stubborn =
        "  stubborn: { host: node1, command: [sh, -c, 'trap \"\" TERM INT HUP; while :; do sleep 1; done'] }";
    let file = bench.write(&FOUR_PODS.replace("pods:\n", &format!("pods:\n{stubborn}\n")));
    bench.up(&file);
    let tree = Tree::of(bench.daemon());
    until("init, the daemon, a shell and its sleep live", || tree.processes().len() >= 4);
    (file, tree)
}

fn is_gone_and_comes_back(bench: &Bench, file: &str, tree: &Tree) {
    tree.must_end();
    let socket = bench.runtime_dir().join(format!("{}.sock", bench.lab));
    assert!(std::os::unix::net::UnixStream::connect(socket).is_err(), "a socket answers");
    assert_eq!(bench.labs(), Vec::<String>::new());
    bench.up(file);
    bench.probes_pass();
    bench.is_as_planned();
}

fn down_ends_every_process_and_leaves_no_file(bench: &Bench) {
    let (_, tree) = lab(bench);
    bench.ok(&["down"]);
    tree.must_end();
    assert_eq!(bench.leftovers(), Vec::<String>::new());
}

fn a_killed_daemon_takes_its_lab_along_and_up_works_at_once(bench: &Bench) {
    let (file, tree) = lab(bench);
    signal(bench.daemon(), Signal::SIGKILL);
    // At once: what the kernel still takes apart must not be in the way.
    bench.up(&file);
    bench.probes_pass();
    bench.ok(&["down"]);
    is_gone_and_comes_back(bench, &file, &tree);
}

fn a_killed_first_process_takes_its_lab_along_and_up_works_at_once(bench: &Bench) {
    let (file, tree) = lab(bench);
    signal(tree.init(), Signal::SIGKILL);
    is_gone_and_comes_back(bench, &file, &tree);
}

fn sigterm_to_the_daemon_ends_the_lab(bench: &Bench) {
    let (file, tree) = lab(bench);
    signal(bench.daemon(), Signal::SIGTERM);
    is_gone_and_comes_back(bench, &file, &tree);
}

/// Start building a lab that takes a while, and give the caller once the daemon is at it.
fn building(bench: &Bench) -> (String, Background) {
    let file = bench.write("hosts: { node1: {}, node2: {} }\ndeployments: { many: { replicas: 300 } }\n");
    let mut up = bench.labctl(&["up", &file]);
    up.process_group(0);
    let up = Background::start(up);
    let socket = bench.runtime_dir().join(format!("{}.sock", bench.lab));
    until("the daemon builds", || socket.exists());
    (file, up)
}

fn left_nothing(bench: &Bench) {
    bench.nothing_lives();
    assert_eq!(bench.labs(), Vec::<String>::new());
    assert_eq!(bench.leftovers(), Vec::<String>::new());
}

fn ctrl_c_in_the_middle_of_up_leaves_nothing(bench: &Bench) {
    let (file, mut up) = building(bench);
    killpg(Pid::from_raw(up.pid()), Signal::SIGINT).expect("a process group");
    assert_eq!(up.end().signal(), Some(Signal::SIGINT as i32), "it was still at work");
    left_nothing(bench);
    bench.ok(&["up", &file]);
}

fn a_caller_killed_in_the_middle_of_up_leaves_nothing(bench: &Bench) {
    let (_, mut up) = building(bench);
    signal(up.pid(), Signal::SIGKILL);
    assert_eq!(up.end().signal(), Some(Signal::SIGKILL as i32), "it was still at work");
    left_nothing(bench);
}

fn in_the_foreground(bench: &Bench) -> (Background, Tree) {
    let file = bench.write(FOUR_PODS);
    let mut up = bench.labctl(&["up", "--foreground", &file]);
    up.process_group(0);
    let up = Background::start(up);
    until("the lab runs", || bench.labs() == [bench.lab.clone()]);
    bench.probes_pass();
    let tree = Tree::of(bench.daemon());
    (up, tree)
}

fn up_in_the_foreground_ends_with_ctrl_c(bench: &Bench) {
    let (mut up, tree) = in_the_foreground(bench);
    killpg(Pid::from_raw(up.pid()), Signal::SIGINT).expect("a process group");
    up.end();
    tree.must_end();
    left_nothing(bench);
}

fn up_in_the_foreground_ends_with_its_caller(bench: &Bench) {
    let (mut up, tree) = in_the_foreground(bench);
    signal(up.pid(), Signal::SIGKILL);
    up.end();
    tree.must_end();
    left_nothing(bench);
}

fn a_client_that_hangs_does_not_stop_down(bench: &Bench) {
    let (_, tree) = lab(bench);
    let socket = bench.runtime_dir().join(format!("{}.sock", bench.lab));
    let silent = std::os::unix::net::UnixStream::connect(&socket).expect("the control socket");
    bench.ok(&["down"]);
    tree.must_end();
    drop(silent);
}

fn a_caller_that_hangs_up_ends_nothing(bench: &Bench) {
    lab(bench);
    let daemon = bench.daemon();
    // Many times more than any buffer holds is on its way when the reader goes.
    let program = "import socket,struct,sys\ns=socket.create_connection((sys.argv[1],8080))\n\
                   s.sendall(b'GET /bytes/100000000 HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')\ns.recv(100)\n\
                   s.setsockopt(socket.SOL_SOCKET,socket.SO_LINGER,struct.pack('ii',1,0))\ns.close()";
    let pods = bench.ok(&["get", "pods", "-o", "json"]);
    let pods: serde_json::Value = serde_json::from_str(&pods).expect("JSON");
    let ips = pods["items"].as_array().into_iter().flatten().filter_map(|p| p["status"]["podIP"].as_str());
    for ip in ips {
        let _ = bench.run(&["exec", "node1", "--", "python3", "-c", program, ip]);
    }
    // Somebody who asks on the control socket and does not wait for the answer.
    for _ in 0..20 {
        use std::io::Write;
        let socket = bench.runtime_dir().join(format!("{}.sock", bench.lab));
        let mut caller = std::os::unix::net::UnixStream::connect(socket).expect("the control socket");
        let _ = caller
            .write_all(b"GET /api/v1/pods HTTP/1.1\r\nHost: x\r\n\r\nGET /api/v1/pods HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    bench.probes_pass();
    assert_eq!(bench.daemon(), daemon, "the same daemon lives");
}
