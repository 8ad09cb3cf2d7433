//! Bodies both ways: limits, streaming, endpoints that break off.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::mpsc;

use labctl::plan::ingress::Options;

use crate::endpoint::Pod;
use crate::process::{Controller, body, connect, hear, hear_one, status, until};

/// A server that takes a body as it comes and answers at its end.
fn sink() -> Pod {
    Pod::raw(|mut stream| {
        let mut piece = [0; 64 << 10];
        let mut tail = Vec::new();
        while let Ok(count @ 1..) = stream.read(&mut piece) {
            tail.extend_from_slice(&piece[..count]);
            if tail.ends_with(b"the end") || tail.ends_with(b"\r\n0\r\n\r\n") {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ntaken");
            }
            tail.drain(..tail.len().saturating_sub(7));
        }
    })
}

const GIB: usize = 1 << 30;

#[test]
fn two_gigabytes_are_refused_at_the_limit() {
    let pod = Pod::named("a");
    let controller = Controller::of(&[pod.address]);
    let told = controller.say(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 2 * GIB));
    assert_eq!(status(&told), 413);
    // Without a length told beforehand it is noticed on the way.
    let mut stream = controller.connect();
    write!(stream, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    let chunk = [b"10000\r\n", &[b'x'; 0x10000][..], b"\r\n"].concat();
    for _ in 0..64 {
        // The rest is taken and thrown away, so that the answer arrives.
        stream.write_all(&chunk).unwrap();
    }
    let heard = hear(&mut stream);
    assert_eq!(status(&heard), 413);
    assert!(heard.contains("larger than proxy-body-size, 1048576 bytes"), "{heard}");
    assert!(pod.requests.lock().unwrap().is_empty());
}

#[test]
fn a_body_at_the_limit_passes_and_one_byte_more_does_not() {
    let pod = Pod::named("a");
    let controller = Controller::with(Options { body_size: 1000, ..Options::default() }, &[pod.address]);
    let post = |length: usize| {
        let body = "x".repeat(length);
        controller
            .say(format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"))
    };
    assert_eq!((status(&post(1000)), status(&post(1001))), (200, 413));
    let in_chunks = |length: usize| {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
        controller.say(format!("{head}{length:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(length)))
    };
    assert_eq!((status(&in_chunks(1000)), status(&in_chunks(1001))), (200, 413));
}

#[test]
fn two_gigabytes_stream_through_in_little_memory() {
    let pod = sink();
    let controller = Controller::with(Options { body_size: 0, ..Options::default() }, &[pod.address]);
    let (before, _) = controller.memory();
    let mut stream = controller.connect();
    write!(stream, "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 2 * GIB).unwrap();
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..2 * GIB / piece.len() - 1 {
        stream.write_all(&piece).unwrap();
    }
    stream.write_all(&piece[..piece.len() - 7]).unwrap();
    stream.write_all(b"the end").unwrap();
    assert_eq!(body(&hear_one(&mut stream)), "taken");
    let (_, most) = controller.memory();
    println!("memory: {} KiB before, at most {} KiB while 2 GiB went through", before >> 10, most >> 10);
    assert!(most < before + (16 << 20), "{before} bytes became {most}");
}

#[test]
fn an_answer_waits_for_a_client_that_does_not_read() {
    let pod = Pod::raw(|mut stream| {
        let mut head = [0; 4096];
        let _ = stream.read(&mut head);
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {GIB}\r\n\r\n");
        let piece = vec![b'x'; 1 << 20];
        while stream.write_all(&piece).is_ok() {}
    });
    let controller = Controller::of(&[pod.address]);
    let (before, _) = controller.memory();
    let mut stream = controller.connect();
    write!(stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut total = 0;
    let mut piece = vec![0; 1 << 20];
    while total < 200 << 20 {
        total += stream.read(&mut piece).unwrap();
    }
    let (_, most) = controller.memory();
    assert!(most < before + (16 << 20), "{before} bytes became {most}");
}

#[test]
fn pieces_of_an_answer_arrive_when_they_are_sent() {
    let (tell, told) = mpsc::channel::<()>();
    let told = std::sync::Mutex::new(told);
    let pod = Pod::raw(move |mut stream| {
        let mut head = [0; 4096];
        let _ = stream.read(&mut head);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
        let _ = told.lock().unwrap().recv();
        let _ = stream.write_all(b"6\r\nsecond\r\n0\r\n\r\n");
    });
    let controller = Controller::of(&[pod.address]);
    let mut stream = controller.connect();
    write!(stream, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut heard = String::new();
    while !heard.contains("first") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        heard.push(char::from(byte[0]));
    }
    assert!(!heard.contains("second"));
    tell.send(()).unwrap();
    assert!(hear(&mut stream).ends_with("6\r\nsecond\r\n0\r\n\r\n"));
}

#[test]
fn a_client_is_told_to_continue_when_the_body_is_wanted() {
    let pod = Pod::named("a");
    let controller = Controller::of(&[pod.address]);
    let mut stream = controller.connect();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nConnection: close\r\n";
    write!(stream, "{head}Content-Length: 5\r\n\r\n").unwrap();
    assert_eq!(hear_one(&mut stream), "HTTP/1.1 100 Continue\r\n\r\n");
    write!(stream, "hello").unwrap();
    assert_eq!(status(&hear(&mut stream)), 200);
    assert!(pod.last().ends_with("\r\n\r\nhello"), "{}", pod.last());
    let refused = controller.say(format!("{head}Content-Length: {GIB}\r\n\r\n"));
    assert!(refused.starts_with("HTTP/1.1 413 "), "{refused}");
}

#[test]
fn a_client_that_has_said_all_still_gets_its_answer() {
    let pod = Pod::named("a");
    let controller = Controller::of(&[pod.address]);
    let mut stream = controller.connect();
    write!(stream, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(status(&hear(&mut stream)), 200);
}

#[test]
fn a_client_that_goes_away_in_its_body_reaches_nobody() {
    let pod = Pod::named("a");
    let controller = Controller::of(&[pod.address]);
    let mut stream = controller.connect();
    write!(stream, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\nhello").unwrap();
    drop(stream);
    until("the request is logged", || controller.log().contains("\"POST / HTTP/1.1\""));
    assert!(pod.requests.lock().unwrap().is_empty());
    assert_eq!(status(&controller.get("/")), 200);
}

#[test]
fn an_answer_that_is_broken_off_is_not_taken_for_whole() {
    let pod = Pod::raw(|mut stream| {
        let mut head = [0; 4096];
        let count = stream.read(&mut head).unwrap_or(0);
        let chunked = head[..count].starts_with(b"GET /chunked");
        let _ = match chunked {
            true => stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"),
            false => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfirst"),
        };
    });
    let controller = Controller::of(&[pod.address]);
    for path in ["/length", "/chunked"] {
        let heard = controller.get(path);
        assert_eq!(status(&heard), 200);
        assert!(!heard.ends_with("0\r\n\r\n"), "{heard}");
        assert!(heard.contains("first"), "{heard}");
    }
    until("it is told", || controller.log().matches("broke off its answer").count() == 2);
}

#[test]
fn an_endpoint_may_answer_before_it_has_the_body() {
    let pod = Pod::raw(|mut stream| {
        let mut head = [0; 300];
        let _ = stream.read(&mut head);
        let _ = stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno");
        let mut rest = [0; 4096];
        while matches!(stream.read(&mut rest), Ok(1..)) {}
    });
    let controller = Controller::of(&[pod.address]);
    let mut stream = connect(controller.http);
    write!(stream, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nhello").unwrap();
    assert_eq!(status(&hear_one(&mut stream)), 401);
    // And the next client gets a connection of its own.
    assert_eq!(status(&controller.get("/")), 401);
}
