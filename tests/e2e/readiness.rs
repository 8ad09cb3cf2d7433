//! Readiness: `up` waits for it, `get pods` shows it, and what is not ready in time is named.

use crate::as_root_and_ordinary_user;
use crate::harness::{Background, Bench, until};

as_root_and_ordinary_user![
    up_waits_until_a_command_says_that_the_pod_is_ready,
    an_http_answer_decides,
    a_tcp_port_decides,
    what_is_not_ready_in_time_is_named_with_its_reason,
    a_pod_can_become_unready_and_ready_again,
    a_pod_that_moved_to_another_host_is_asked_there,
];

fn pod(probe: &str, rest: &str) -> String {
    format!("hosts: {{ node1: {{}} }}\npods:\n  tea: {{ readinessProbe: {{ {probe}, periodSeconds: 1 }}, {rest} }}\n")
}

fn up_waits_until_a_command_says_that_the_pod_is_ready(bench: &Bench) {
    let file = bench.write(&pod("exec: { command: [test, -e, /run/ready] }", "ports: [80]"));
    let mut up = Background::start(bench.labctl(&["up", &file]));
    until("the pod is there and not ready", || bench.run(&["get", "pods", "tea"]).stdout.contains("0/1"));
    assert!(up.0.try_wait().expect("a child").is_none(), "`up` waits");
    assert!(bench.ok(&["status"]).contains("0 of 1 pod"));
    bench.sh("tea", "touch /run/ready");
    assert!(up.end().success());
    assert!(bench.row("tea").contains("1/1"));
}

fn an_http_answer_decides(bench: &Bench) {
    let http = |path: &str| pod(&format!("httpGet: {{ path: {path}, port: 80 }}"), "ports: [80]");
    bench.ok(&["up", &bench.write(&http("/healthz"))]);
    assert!(bench.row("tea").contains("1/1"));
    let file = bench.write(&http("/status/503"));
    bench.run(&["up", &file, "--timeout", "1"]).ends_with(1).says("status 503");
    assert!(bench.row("tea").contains("0/1"));
}

fn a_tcp_port_decides(bench: &Bench) {
    bench.ok(&["up", &bench.write(&pod("tcpSocket: { port: 80 }", "ports: [80]"))]);
    assert!(bench.row("tea").contains("1/1"));
    let file = bench.write(&pod("tcpSocket: { port: 81 }", "ports: [80]"));
    bench.run(&["up", &file, "--timeout", "1"]).ends_with(1).says("refused");
    assert!(bench.row("tea").contains("0/1"));
}

fn what_is_not_ready_in_time_is_named_with_its_reason(bench: &Bench) {
    let file = bench.write(&pod("exec: { command: [sh, -c, 'exit 7'] }", "ports: [80]"));
    let ran = bench.run(&["up", &file, "--timeout", "1"]).ends_with(1);
    let ran = ran.says("lab-not-ready").says("pod tea").says("exit status: 7");
    assert_eq!(ran.stdout, "");
    assert_eq!(bench.labs(), [bench.lab.as_str()], "the lab runs on, to be looked at");
    let condition = &bench.pod("tea")["status"]["conditions"][0];
    assert_eq!(condition["status"], "False");
}

fn a_pod_can_become_unready_and_ready_again(bench: &Bench) {
    let probe = "exec: { command: [test, '!', -e, /run/busy] }, failureThreshold: 1";
    bench.ok(&["up", &bench.write(&pod(probe, "ports: [80]"))]);
    bench.sh("tea", "touch /run/busy");
    until("it is unready", || bench.row("tea").contains("0/1"));
    bench.sh("tea", "rm /run/busy");
    until("it is ready again", || bench.row("tea").contains("1/1"));
}

fn a_pod_that_moved_to_another_host_is_asked_there(bench: &Bench) {
    let on = |host: &str| {
        let not_busy = "{ exec: { command: [test, '!', -e, /run/busy] }, periodSeconds: 1, failureThreshold: 1 }";
        let answers = "{ httpGet: { path: /healthz, port: 80 }, periodSeconds: 1, failureThreshold: 1 }";
        format!(
            "hosts: {{ node1: {{}}, node2: {{}} }}\npods:\n  \
             tea: {{ host: {host}, ports: [80], readinessProbe: {not_busy} }}\n  \
             coffee: {{ host: {host}, ports: [80], readinessProbe: {answers} }}\n"
        )
    };
    bench.up(&bench.write(&on("node1")));
    bench.up(&bench.write(&on("node2")));
    for pod in ["tea", "coffee"] {
        let row = bench.row(pod);
        assert!(row.contains("1/1") && row.contains("node2"), "{row}");
    }
    bench.sh("tea", "touch /run/busy");
    until("it is asked where it is", || bench.row("tea").contains("0/1"));
    bench.sh("node2", "ip link set cni0 down");
    until("and from its new host", || bench.row("coffee").contains("0/1"));
}
