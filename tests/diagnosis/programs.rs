//! Programs that do not do what they are there for: stopped ones, for which the kernel takes connections all the same,
//! and ones that do not listen where they are asked.

use labctl::lab::names::NsName;
use labctl::trace::model::{Cause, Fault, Trace};

use crate::as_root_and_ordinary_user;
use crate::broken::{Broken, traced};
use crate::harness::{Bench, until};

as_root_and_ordinary_user![
    a_program_that_does_not_accept_a_connection_is_named,
    a_program_that_does_not_read_a_request_is_named,
    a_program_that_does_not_read_datagrams_is_named,
    a_program_that_reads_and_says_nothing_is_named,
    a_program_that_listens_on_loopback_alone_is_named,
    a_program_that_listens_on_another_port_is_named,
    a_program_that_listens_for_ipv6_alone_is_named,
    a_silent_program_behind_a_controller_is_named,
];

/// `web` answers each connection in a thread, `datagrams` each datagram; `mute` reads and says nothing, and `near`
/// listens on the loopback device.
const LAB: &str = r#"
cluster: { ingress: {} }
hosts: { node1: {}, node2: {} }
pods:
  a1: { host: node1, address: 10.244.1.20 }
  web:
    host: node2
    address: 10.244.2.20
    labels: { app: web }
    ports: [8080]
    command:
      - python3
      - -uc
      - |
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

        class Answers(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

        ThreadingHTTPServer(("", 8080), Answers).serve_forever()
  datagrams:
    host: node2
    address: 10.244.2.21
    ports: [{ containerPort: 8080, protocol: UDP }]
    command:
      - python3
      - -c
      - |
        import socket
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.bind(("", 8080))
        while True:
            data, end = s.recvfrom(2000)
            s.sendto(data, end)
  mute:
    host: node2
    address: 10.244.2.22
    ports: [8080]
    command:
      - python3
      - -c
      - |
        import socket
        s = socket.create_server(("", 8080))
        kept = []
        while True:
            c, _ = s.accept()
            kept.append(c)
            c.recv(2000)
  near: { host: node2, address: 10.244.2.23, ports: [8080], command: [python3, -m, http.server, --bind, 127.0.0.1, "8080"] }
  far: { host: node2, address: 10.244.2.24, ports: [8080], command: [python3, -m, http.server, "8081"] }
  six:
    host: node2
    address: 10.244.2.25
    ports: [8080]
    command: [python3, -uc, 'import signal, socket; s = socket.create_server(("::", 8080), family=socket.AF_INET6); signal.pause()']
services:
  web-svc: { clusterIP: 10.96.0.100, selector: { app: web }, ports: [{ port: 80, targetPort: 8080 }] }
ingresses:
  web:
    rules:
      - host: web.example.com
        http: { paths: [{ path: /, pathType: Prefix, backend: { service: { name: web-svc, port: { number: 80 } } } }] }
"#;

fn up(bench: &Bench) -> Broken<'_> {
    Broken::of_text(bench, LAB)
}

fn trace(bench: &Bench, words: &[&str]) -> Trace {
    traced(bench, &[&["a1"], words, &["--timeout", "1"]].concat())
}

fn answered(bench: &Bench, words: &[&str]) {
    until(&format!("{words:?} is answered"), || trace(bench, words).asked.answered);
}

/// That a trace names a pod as the place of a cause, and says why.
fn is_named(bench: &Bench, words: &[&str], (cause, pod, says): (Cause, &str, &str)) -> Fault {
    let trace = trace(bench, words);
    let fault = trace.verdict.fault.unwrap_or_else(|| panic!("no fault: {}", trace.verdict.says));
    let place: NsName = serde_json::from_value(format!("pod/default/{pod}").into()).expect("a machine");
    assert_eq!((fault.cause, &fault.place), (cause, &place), "{} {fault:#?}", trace.verdict.says);
    assert_eq!(trace.verdict.says, format!("{pod}: {says}"));
    fault
}

fn stop(bench: &Bench, pod: &str) {
    // The first process of a room only reaps.
    bench.sh(pod, "kill -STOP 2");
}

fn a_program_that_does_not_accept_a_connection_is_named(bench: &Bench) {
    let (broken, words) = (up(bench), ["http://web:8080/"]);
    answered(bench, &words);
    stop(bench, "web");
    let says = "the kernel took the connection on port 8080/tcp, and python3 has not accepted it: it is stopped";
    let fault = is_named(bench, &words, (Cause::ProgramSilent, "web", says));
    assert_eq!(fault.object, "python3 (process 2)");
    let line = |l: &String| {
        l.starts_with("web: the data, ")
            && l.ends_with("the socket 10.244.2.20:8080 has a connection that no program has accepted")
    };
    assert!(fault.evidence.iter().any(line), "{fault:#?}");
    broken.mend(&fault).expect("a remedy");
    answered(bench, &words);
}

fn a_program_that_does_not_read_a_request_is_named(bench: &Bench) {
    // The controller keeps its connection with the pod.
    let (broken, words) = (up(bench), ["http://web.example.com/", "--connect-to", "ingress"]);
    answered(bench, &words);
    stop(bench, "web");
    let trace = trace(bench, &words);
    let fault = trace.verdict.fault.unwrap_or_else(|| panic!("no fault: {}", trace.verdict.says));
    let says = &trace.verdict.says;
    assert!(says.starts_with("web: the kernel took ") && says.ends_with("has not read them: it is stopped"), "{says}");
    assert_eq!((fault.cause, fault.object.as_str()), (Cause::ProgramSilent, "python3 (process 2)"));
    broken.mend(&fault).expect("a remedy");
    answered(bench, &words);
}

fn a_program_that_does_not_read_datagrams_is_named(bench: &Bench) {
    let (broken, words) = (up(bench), ["datagrams:8080", "--udp"]);
    answered(bench, &words);
    stop(bench, "datagrams");
    let trace = trace(bench, &words);
    let fault = trace.verdict.fault.unwrap_or_else(|| panic!("no fault: {}", trace.verdict.says));
    let says = &trace.verdict.says;
    let expected =
        "datagrams: the kernel took datagrams on port 8080/udp, and python3 has not read them: it is stopped";
    assert_eq!(says, expected);
    broken.mend(&fault).expect("a remedy");
    answered(bench, &words);
}

fn a_program_that_reads_and_says_nothing_is_named(bench: &Bench) {
    up(bench);
    answered(bench, &["mute:8080", "--tcp"]);
    let trace = trace(bench, &["http://mute:8080/"]);
    let fault = trace.verdict.fault.unwrap_or_else(|| panic!("no fault: {}", trace.verdict.says));
    let says = &trace.verdict.says;
    let ends = says.ends_with(" bytes on port 8080/tcp, and does not answer");
    assert!(says.starts_with("mute: python3 took the data, ") && ends, "{says}");
    assert_eq!(fault.cause, Cause::ProgramSilent);
    assert!(fault.remedy.iter().any(|r| r.says.contains("`labctl logs mute`")), "{fault:#?}");
}

fn a_program_that_listens_on_loopback_alone_is_named(bench: &Bench) {
    up(bench);
    until("it listens", || bench.sh("near", "cat /proc/net/tcp").contains("0100007F:1F90"));
    let says = "nothing in near listens on port 8080/tcp: python3 listens on 127.0.0.1:8080 alone";
    let fault = is_named(bench, &["near:8080", "--tcp"], (Cause::NoListener, "near", says));
    assert!(fault.remedy.iter().any(|r| r.says.contains("listen on 0.0.0.0 in place of 127.0.0.1")), "{fault:#?}");
}

fn a_program_that_listens_on_another_port_is_named(bench: &Bench) {
    up(bench);
    answered(bench, &["far:8081", "--tcp"]);
    let says = "nothing in far listens on port 8080/tcp, only on 0.0.0.0:8081";
    is_named(bench, &["far:8080", "--tcp"], (Cause::NoListener, "far", says));
}

fn a_program_that_listens_for_ipv6_alone_is_named(bench: &Bench) {
    up(bench);
    until("it listens", || bench.sh("six", "cat /proc/net/tcp6").contains(":1F90"));
    let says = "nothing in six listens on port 8080/tcp: python3 listens on [::]:8080 alone";
    let fault = is_named(bench, &["six:8080", "--tcp"], (Cause::NoListener, "six", says));
    assert_eq!(fault.remedy[0].says, "let the program on six listen on 0.0.0.0 in place of ::");
}

fn a_silent_program_behind_a_controller_is_named(bench: &Bench) {
    let (broken, words) = (up(bench), ["http://web.example.com/", "--connect-to", "ingress"]);
    until("it listens", || bench.sh("web", "cat /proc/net/tcp").contains("00000000:1F90"));
    stop(bench, "web");
    let says = "the kernel took the connection on port 8080/tcp, and python3 has not accepted it: it is stopped";
    let fault = is_named(bench, &words, (Cause::ProgramSilent, "web", says));
    broken.mend(&fault).expect("a remedy");
    answered(bench, &words);
}
