//! Requests that could be understood in two ways, or that ask for too much: each gets its answer, the
//! connection ends, and nothing of it reaches an endpoint.

use std::io::Write;

use crate::endpoint::Pod;
use crate::process::{Controller, hear, hear_one, status};

const NEXT: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn what_has_two_meanings_is_refused_and_nothing_follows() {
    let pod = Pod::named("a");
    let controller = Controller::of(&[pod.address]);
    for (headers, rest) in [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"),
        ("Content-Length: 0\r\nContent-Length: 40\r\n", ""),
        ("Content-Length: 0\r\nContent-Length: 0\r\n", ""),
        ("Content-Length: 0, 0\r\n", ""),
        ("Content-Length : 0\r\n", ""),
        ("Content-Length: -1\r\n", ""),
        ("X: a\r\n b\r\n", ""),
        ("X: a\n", ""),
        ("X: a\rb\r\n", ""),
        ("X: a\0b\r\n", ""),
    ] {
        let heard = controller.say(format!("POST /x HTTP/1.1\r\nHost: a\r\n{headers}\r\n{rest}{NEXT}"));
        assert_eq!(status(&heard), 400, "{headers:?}");
        assert_eq!(heard.matches("HTTP/1.1 ").count(), 1, "{headers:?}: {heard}");
        assert!(heard.contains("connection: close"), "{headers:?}: {heard}");
    }
    assert!(!pod.requests.lock().unwrap().iter().any(|request| request.starts_with("POST")));
}

#[test]
fn an_encoding_that_nobody_knows_is_not_implemented() {
    let controller = Controller::of(&[]);
    for encoding in ["gzip, chunked", "xchunked", "identity"] {
        let heard = controller.say(format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {encoding}\r\n\r\n"));
        assert_eq!(status(&heard), 501, "{encoding}");
    }
}

#[test]
fn chunks_that_are_none_are_refused() {
    let pod = Pod::named("a");
    let controller = Controller::of(&[pod.address]);
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for chunks in [
        "zz\r\n",
        "3\r\nabcd\r\n",
        "3\nabc\n",
        "0x3\r\nabc\r\n",
        "-3\r\n",
        "fffffffffffffffff\r\n",
        "3\r\nabc0\r\n\r\n",
    ] {
        let heard = controller.say(format!("{head}{chunks}{NEXT}"));
        assert_eq!(status(&heard), 400, "{chunks:?}: {heard}");
        assert_eq!(heard.matches("HTTP/1.1 ").count(), 1, "{chunks:?}: {heard}");
    }
    assert!(pod.requests.lock().unwrap().is_empty());
}

#[test]
fn the_answer_to_a_refused_request_comes_in_its_turn() {
    let pod = Pod::named("a");
    let controller = Controller::of(&[pod.address]);
    let good = "GET /good HTTP/1.1\r\nHost: a\r\n\r\n";
    let heard = controller.say(format!("{good}{good}GET / HTTP/1.1\nHost: a\n\n{NEXT}"));
    let starts = heard.split("HTTP/1.1 ").filter_map(|rest| rest.get(..3));
    let codes: Vec<&str> = starts.filter(|code| code.parse::<u16>().is_ok()).collect();
    assert_eq!(codes, ["200", "200", "400"], "{heard}");
}

#[test]
fn ten_thousand_headers_are_too_many() {
    let controller = Controller::of(&[]);
    let many = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count));
    assert_eq!(status(&controller.say(many(10_000))), 431);
    assert_eq!(status(&controller.say(many(100))), 431);
    assert_eq!(status(&controller.say(many(98).replace("Host: a", "Host: a\r\nConnection: close"))), 503);
    assert_eq!(status(&controller.say(format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(20_000)))), 414);
    assert_eq!(
        status(&controller.say(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(100_000)))),
        431
    );
}

#[test]
fn paths_and_hosts_that_lead_nowhere_are_refused() {
    let pod = Pod::named("a");
    let controller = Controller::of(&[pod.address]);
    for path in ["/..", "/a/../../b", "/%2e%2e/a", "/%00", "/%zz", "/a%"] {
        assert_eq!(status(&controller.get(path)), 400, "{path}");
    }
    for host in ["", "a/b", "a..b"] {
        assert_eq!(status(&controller.get_of(host, "/")), 400, "{host:?}");
    }
    assert_eq!(status(&controller.say("GET / HTTP/1.1\r\nConnection: close\r\n\r\n")), 400);
    assert_eq!(status(&controller.say("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\nConnection: close\r\n\r\n")), 400);
    assert_eq!(status(&controller.say("GET / HTTP/1.0\r\n\r\n")), 200);
    assert_eq!(status(&controller.say("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n")), 405);
    assert_eq!(status(&controller.say("OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")), 400);
}

#[test]
fn rubbish_ends_its_own_connection_only() {
    let pod = Pod::named("a");
    let controller = Controller::of(&[pod.address]);
    let mut good = controller.connect();
    for rubbish in
        [&[0u8; 100][..], &[0xff; 5000], b"\r\n\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nrubbish", b"\x16\x03\x01"]
    {
        let mut stream = controller.connect();
        stream.write_all(rubbish).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        hear(&mut stream);
    }
    write!(good, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(status(&hear_one(&mut good)), 200);
}

#[test]
fn plain_http_on_the_port_for_https_is_told_so() {
    let controller = Controller::of(&[]);
    let mut stream = crate::process::connect(controller.https);
    write!(stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let heard = hear(&mut stream);
    assert_eq!(status(&heard), 400);
    assert!(heard.contains("plain HTTP came to the port for HTTPS"), "{heard}");
}
