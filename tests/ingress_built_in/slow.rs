//! Those who take their time: clients and endpoints, each within limits.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use labctl::plan::ingress::{Options, Routing, Settings};

use crate::endpoint::Pod;
use crate::process::{Controller, all_to, ends, hear, hear_one, status, until};

/// Limits are told in whole seconds.
const SHORT: Duration = Duration::from_secs(1);

fn with_settings(settings: Settings, pod: &Pod) -> Controller {
    Controller::start(&Routing { settings, ..all_to(Options::default()) }, &ends(&[pod.address]))
}

/// Takes requests and never answers.
fn silent() -> Pod {
    Pod::raw(|mut stream| {
        let mut piece = [0; 4096];
        while matches!(stream.read(&mut piece), Ok(1..)) {}
    })
}

#[test]
fn a_head_that_does_not_come_in_time_is_given_up() {
    let pod = Pod::named("a");
    let controller = with_settings(Settings { header_timeout: SHORT, ..Settings::default() }, &pod);
    let mut stream = controller.connect();
    write!(stream, "GET / HTTP/1.1\r\nHo").unwrap();
    let heard = hear(&mut stream);
    assert_eq!(status(&heard), 408);
    // Byte after byte does not help.
    let mut stream = controller.connect();
    let begun = Instant::now();
    while stream.write_all(b"G").is_ok() && begun.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(20));
        stream.set_nonblocking(true).unwrap();
        let ended = stream.peek(&mut [0]).is_ok();
        stream.set_nonblocking(false).unwrap();
        if ended {
            break;
        }
    }
    assert_eq!(status(&hear(&mut stream)), 408);
    assert!(begun.elapsed() < Duration::from_secs(20));
    // Nor does saying nothing.
    assert_eq!(hear(&mut controller.connect()), "");
}

#[test]
fn a_body_that_stops_coming_is_given_up() {
    let pod = Pod::named("a");
    let controller = with_settings(Settings { body_timeout: SHORT, ..Settings::default() }, &pod);
    let mut stream = controller.connect();
    write!(stream, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello").unwrap();
    let heard = hear(&mut stream);
    assert_eq!(status(&heard), 408);
    assert!(heard.contains("body did not come in time"), "{heard}");
}

#[test]
fn an_idle_connection_ends_after_keep_alive_and_not_before() {
    let pod = Pod::named("a");
    let settings = Settings { keep_alive: Duration::from_secs(2), header_timeout: SHORT, ..Settings::default() };
    let controller = with_settings(settings, &pod);
    let mut stream = controller.connect();
    write!(stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(status(&hear_one(&mut stream)), 200);
    let begun = Instant::now();
    assert_eq!(hear(&mut stream), "");
    assert!((Duration::from_millis(1900)..Duration::from_secs(20)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

#[test]
fn an_endpoint_that_is_silent_is_a_gateway_timeout() {
    let pod = silent();
    let options = Options { read_timeout: SHORT, ..Options::default() };
    let controller = Controller::with(options, &[pod.address]);
    let answer = controller.get("/");
    assert_eq!(status(&answer), 504);
    assert!(
        answer.contains(&format!("{}, an endpoint of default/web port 80, was silent for 1s", pod.address)),
        "{answer}"
    );
}

#[test]
fn an_endpoint_that_falls_silent_in_its_answer_is_cut_off() {
    let pod = Pod::raw(|mut stream| {
        let mut piece = [0; 4096];
        let _ = stream.read(&mut piece);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfirst");
        while matches!(stream.read(&mut piece), Ok(1..)) {}
    });
    let controller = Controller::with(Options { read_timeout: SHORT, ..Options::default() }, &[pod.address]);
    let heard = controller.get("/");
    assert!(heard.ends_with("first"), "{heard}");
}

#[test]
fn an_endpoint_that_takes_nothing_is_a_gateway_timeout() {
    let pod = Pod::raw(|stream| {
        let mut piece = [0; 1];
        // Neither reads nor ends until the controller does.
        let _ = stream.peek(&mut piece);
        std::thread::park_timeout(Duration::from_secs(60));
    });
    let options = Options { send_timeout: SHORT, body_size: 0, ..Options::default() };
    let controller = Controller::with(options, &[pod.address]);
    let mut stream = controller.connect();
    write!(stream, "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n").unwrap();
    let piece = vec![b'x'; 1 << 20];
    let mut writer = stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || while writer.write_all(&piece).is_ok() {});
    assert_eq!(status(&hear_one(&mut stream)), 504);
    stream.shutdown(std::net::Shutdown::Both).unwrap();
    writing.join().unwrap();
}

/// A frame of HTTP/2 of the first stream (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    [&[0, 0, u8::try_from(payload.len()).unwrap(), kind, flags, 0, 0, 0, stream], payload].concat()
}

/// A minute, which is nginx' `send_timeout`: by HTTP/1 as the socket takes nothing, by HTTP/2 as the window
/// is none.
#[test]
fn a_client_that_takes_nothing_of_its_answer_is_given_up() {
    let pod = Pod::answering(|_| {
        let body = "x".repeat(64 << 20);
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    });
    // How often it is looked at.
    let controller = with_settings(Settings { keep_alive: Duration::from_secs(5), ..Settings::default() }, &pod);
    let begun = Instant::now();
    let mut old = controller.connect();
    write!(old, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut new = controller.connect();
    // An initial window of no bytes, and a request of the static table's words.
    let head = [&[0x82, 0x86, 0x84, 0x01, 1][..], b"a"].concat();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    new.write_all(&[preface, frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]), frame(1, 5, 1, &head)].concat()).unwrap();
    new.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    let heard = hear(&mut new);
    assert!(!heard.contains("xxx"), "data came without a window");
    assert!((55..110).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    until("both are logged", || controller.log().matches("\"GET / HTTP/").count() == 2);
    assert!(controller.get("/none").len() > 1000, "others are served");
}

#[test]
fn a_slow_client_is_not_the_endpoints_fault() {
    let pod = Pod::named("a");
    let options = Options { read_timeout: SHORT, send_timeout: SHORT, ..Options::default() };
    let controller = Controller::with(options, &[pod.address]);
    let mut stream = controller.connect();
    write!(stream, "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 10\r\n\r\nhello").unwrap();
    std::thread::sleep(SHORT * 2);
    write!(stream, "world").unwrap();
    assert_eq!(status(&hear(&mut stream)), 200);
}
