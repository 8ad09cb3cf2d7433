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
    an_https_answer_decides_whatever_the_certificate,
    a_grpc_answer_decides,
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

/// A server with a certificate that nobody has signed, which comes when it is told to.
fn an_https_answer_decides_whatever_the_certificate(bench: &Bench) {
    let serve = "cd /run; until [ -e go ]; do sleep 0.05; done; \
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=tea -keyout k -out c && \
        exec openssl s_server -accept 8443 -key k -cert c -www";
    let command = serde_json::to_string(serve).expect("text");
    let probe = "httpGet: { path: /, port: 8443, scheme: HTTPS }, failureThreshold: 1";
    let file = bench.write(&pod(probe, &format!("command: [sh, -c, {command}]")));
    bench.run(&["up", &file, "--timeout", "1"]).ends_with(1).says("GET https://").says("refused");
    bench.sh("tea", "touch /run/go");
    until("it is ready", || bench.row("tea").contains("1/1"));
    // Who speaks TLS does not speak HTTP on the same port.
    let plain = bench.write(&pod(&probe.replace(", scheme: HTTPS", ""), &format!("command: [sh, -c, {command}]")));
    bench.run(&["up", &plain, "--timeout", "1"]).ends_with(1).says("GET http://");
    assert!(bench.row("tea").contains("0/1"));
}

/// HTTP/2 by hand (RFC 9113): frames of length, type, flags, stream and payload. The answer to each request
/// is a HealthCheckResponse, with SERVING where there is a file /run/serving.
const HEALTH: &str = r#"
sub frame { my ($type, $flags, $stream, $payload) = @_; substr(pack('N', length $payload), 1) . pack('CCN', $type, $flags, $stream) . $payload }
my $l = IO::Socket::INET->new(LocalPort => 9090, Listen => 5, ReuseAddr => 1) or die;
while (my $s = $l->accept) {
    my $whole = sub { my $n = shift; my $all = ''; while (length $all < $n) { $s->read($all, $n - length $all, length $all) or return } $all };
    $whole->(24) or next;
    $s->print(frame(4, 0, 0, '')); $s->flush;
    while (defined(my $head = $whole->(9))) {
        my ($high, $low, $type, $flags, $stream) = unpack 'CnCCN', $head;
        my $length = $high << 16 | $low;
        $whole->($length) if $length;
        if ($type == 4 and not $flags & 1) { $s->print(frame(4, 1, 0, '')); $s->flush }
        next unless ($type == 0 or $type == 1) and $flags & 1;
        my $status = -e '/run/serving' ? 1 : 2;
        $s->print(frame(1, 4, $stream, "\x88\x0f\x10\x10application/grpc"));
        $s->print(frame(0, 0, $stream, pack('CNCC', 0, 2, 8, $status)));
        $s->print(frame(1, 5, $stream, "\x00\x0bgrpc-status\x010"));
        $s->flush;
    }
}
"#;

fn a_grpc_answer_decides(bench: &Bench) {
    let script = serde_json::to_string(HEALTH).expect("text");
    let file = bench.write(&pod(
        "grpc: { port: 9090 }, failureThreshold: 1",
        &format!("command: [perl, -MIO::Socket::INET, -e, {script}]"),
    ));
    bench.run(&["up", &file, "--timeout", "2"]).ends_with(1).says("NOT_SERVING");
    assert!(bench.row("tea").contains("0/1"));
    bench.sh("tea", "touch /run/serving");
    until("it is ready", || bench.row("tea").contains("1/1"));
    bench.sh("tea", "rm /run/serving");
    until("it is no longer ready", || bench.row("tea").contains("0/1"));
}
