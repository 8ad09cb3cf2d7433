//! Which endpoint is asked, and which when that one fails.

use std::io::{Read, Write};

use labctl::plan::ingress::{Affinity, Backend, Options, Routing};

use crate::endpoint::{Pod, nobody, read_request};
use crate::process::{BACKEND, Controller, all_to, backend, body, ends, header, hear_one, status};

/// Takes a request and hangs up.
fn dying() -> Pod {
    Pod::raw(|stream| {
        read_request(&mut std::io::BufReader::new(stream));
    })
}

fn who(answer: &str) -> &str {
    assert_eq!(status(answer), 200, "{answer}");
    body(answer).lines().next().unwrap()
}

#[test]
fn endpoints_have_their_turns() {
    let (a, b, c) = (Pod::named("a"), Pod::named("b"), Pod::named("c"));
    let controller = Controller::of(&[a.address, b.address, c.address]);
    let mut seen = [0; 3];
    for _ in 0..30 {
        let answer = controller.get("/");
        seen[usize::from(who(&answer).as_bytes()[0] - b'a')] += 1;
    }
    assert_eq!(seen, [10, 10, 10]);
}

#[test]
fn one_connection_to_an_endpoint_serves_many_requests() {
    let pod = Pod::named("a");
    let controller = Controller::of(&[pod.address]);
    for _ in 0..20 {
        assert_eq!(status(&controller.get("/")), 200);
    }
    assert_eq!(pod.count(), 1);
}

#[test]
fn another_endpoint_is_asked_when_one_refuses_or_hangs_up() {
    let dying = dying();
    for bad in [nobody(), dying.address] {
        let good = Pod::named("good");
        let controller = Controller::of(&[bad, good.address]);
        for _ in 0..10 {
            assert_eq!(who(&controller.get("/")), "good");
        }
    }
}

#[test]
fn what_may_have_been_done_is_not_done_twice() {
    let (first, second) = (dying(), dying());
    let good = Pod::named("good");
    let controller = Controller::of(&[first.address, second.address, good.address]);
    let post = || controller.say("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello");
    let mut codes: Vec<u16> = (0..3).map(|_| status(&post())).collect();
    codes.sort_unstable();
    assert_eq!(codes, [200, 502, 502]);
    // A request that nobody has seen is another matter, body or no body.
    let controller = Controller::of(&[nobody(), good.address]);
    let post = || controller.say("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello");
    for _ in 0..4 {
        assert!(who(&post()) == "good" && good.last().ends_with("\r\n\r\nhello"));
    }
}

#[test]
fn a_body_that_one_endpoint_has_read_is_read_by_the_next() {
    let (bad, good) = (dying(), Pod::named("good"));
    let controller = Controller::of(&[bad.address, good.address]);
    for _ in 0..4 {
        let body = "x".repeat(30_000);
        let put = format!("PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 30000\r\n\r\n{body}");
        assert_eq!(who(&controller.say(put)), "good");
        assert!(good.last().ends_with(&format!("\r\n\r\n{body}")));
    }
    assert!(bad.count() >= 1);
}

#[test]
fn a_connection_that_an_endpoint_closed_meanwhile_fails_nobody() {
    // Answers once on each connection, as if more could follow, and closes when the next request comes.
    let pod = Pod::raw(|mut stream| {
        let mut reader = std::io::BufReader::new(stream.try_clone().unwrap());
        read_request(&mut reader);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na\n");
        read_request(&mut reader);
    });
    let controller = Controller::of(&[pod.address]);
    for _ in 0..10 {
        assert_eq!(who(&controller.get("/")), "a");
    }
}

#[test]
fn when_all_fail_the_answer_says_how() {
    let gone = nobody();
    let answer = Controller::of(&[gone]).get("/");
    assert_eq!(status(&answer), 502);
    assert!(
        answer.contains(&format!("{gone}, an endpoint of default/web port 80, refused the connection")),
        "{answer}"
    );
    let pod = dying();
    let answer = Controller::of(&[pod.address]).get("/");
    assert_eq!(status(&answer), 502);
    assert!(answer.contains("closed the connection before it answered"), "{answer}");
    let pod = Pod::answering(|_| "rubbish\r\n\r\nConnection: close".to_owned());
    let answer = Controller::of(&[pod.address]).get("/");
    assert_eq!(status(&answer), 502);
    assert!(answer.contains("answered what is no HTTP"), "{answer}");
}

#[test]
fn an_endpoint_that_speaks_first_answers_what_is_no_http() {
    let pod = Pod::raw(|mut stream| {
        let _ = stream.write_all(b"hello, who are you?\r\n");
        let _ = stream.read(&mut [0; 4096]);
    });
    let controller = Controller::of(&[pod.address]);
    for _ in 0..20 {
        let answer = controller.get("/");
        assert_eq!(status(&answer), 502);
        assert!(answer.contains("answered what is no HTTP"), "{answer}");
    }
}

#[test]
fn no_more_endpoints_are_asked_than_it_may_be() {
    let pods = [dying(), dying(), dying(), dying(), dying()];
    let controller = Controller::of(&pods.each_ref().map(|pod| pod.address));
    assert_eq!(status(&controller.get("/")), 502);
    assert_eq!(pods.iter().map(Pod::count).sum::<usize>(), 3);
}

#[test]
fn a_cookie_keeps_a_client_at_its_endpoint() {
    let (a, b) = (Pod::named("a"), Pod::named("b"));
    let affinity = Affinity { cookie: "route".to_owned(), max_age: Some(60), ..Affinity::default() };
    let sticky = Backend { affinity: Some(affinity), ..backend("web") };
    let routing = Routing { backends: [(BACKEND.to_owned(), sticky)].into(), ..all_to(Options::default()) };
    let mut controller = Controller::start(&routing, &ends(&[a.address, b.address]));
    let first = controller.get("/");
    let cookie = header(&first, "set-cookie").unwrap().to_owned();
    assert!(cookie.starts_with("route=") && cookie.ends_with("; Path=/; Max-Age=60; HttpOnly"), "{cookie}");
    let mine = cookie.split(';').next().unwrap();
    let say = |controller: &Controller, cookie: &str| {
        controller.say(format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: x=1; {cookie}\r\nConnection: close\r\n\r\n"))
    };
    for _ in 0..6 {
        let answer = say(&controller, mine);
        assert_eq!((who(&answer), header(&answer, "set-cookie")), (who(&first), None));
    }
    // When it is gone, the client gets another one.
    let (left, left_name) = if who(&first) == "a" { (b.address, "b") } else { (a.address, "a") };
    controller.tell(&labctl::plan::ingress::Update::Endpoints(ends(&[left])));
    crate::process::until("the other answers", || who(&say(&controller, mine)) == left_name);
    assert!(header(&say(&controller, mine), "set-cookie").is_some());
    assert!(header(&say(&controller, "route=rubbish"), "set-cookie").is_some());
}

#[test]
fn an_endpoint_that_dies_in_a_request_does_not_end_the_clients_connection() {
    let (bad, good) = (dying(), Pod::named("good"));
    let controller = Controller::of(&[bad.address, good.address]);
    let mut stream = controller.connect();
    for _ in 0..6 {
        write!(stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_eq!(who(&hear_one(&mut stream)), "good");
    }
    stream.set_nonblocking(true).unwrap();
    assert!(stream.read(&mut [0]).is_err(), "nothing more came, and no end");
}
