//! What annotations ask for.

use std::time::Duration;

use labctl::objects::ingress::annotations::Affinity;
use labctl::plan::ingress::{Options, PathPattern};

use crate::Test;
use crate::client::{Connection, Server, count, get, get_with};
use crate::ground::{Controller, Ground, Rules, self_signed, until};

pub const TESTS: &[Test] = &[
    ("endpoints_are_told_of_the_client", endpoints_are_told_of_the_client),
    ("forwarded_headers_are_believed_where_asked_for", forwarded_headers_are_believed_where_asked_for),
    ("plain_http_is_redirected", plain_http_is_redirected),
    ("the_root_is_redirected", the_root_is_redirected),
    ("only_named_sources_may_come", only_named_sources_may_come),
    ("a_large_body_is_refused", a_large_body_is_refused),
    ("a_slow_endpoint_is_not_waited_for", a_slow_endpoint_is_not_waited_for),
    ("a_cookie_keeps_a_client_at_its_endpoint", a_cookie_keeps_a_client_at_its_endpoint),
];

fn one(ground: &Ground, change: impl FnOnce(&mut Options)) -> (Controller, Server) {
    let server = Server::start("there", 11);
    let rules = Rules::new().path("h.com", PathPattern::Prefix("/".to_owned()), "there", change);
    (ground.serving(&rules.0, &[("default-there-80", &[server.address])]), server)
}

fn endpoints_are_told_of_the_client(ground: &Ground) {
    let (_controller, _server) = one(ground, |_| {});
    let answer = get_with("h.com", "/", "X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: https\r\nProxy: evil\r\n");
    let seen = answer.body.to_ascii_lowercase();
    let saw = |name: &str| {
        let line = seen.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("no {name}: {seen}")).to_owned()
    };
    assert_eq!(saw("host"), "h.com");
    assert_eq!(saw("x-forwarded-for"), "127.0.0.1");
    assert_eq!(saw("x-real-ip"), "127.0.0.1");
    assert_eq!(saw("x-forwarded-host"), "h.com");
    assert_eq!(saw("x-forwarded-port"), "80");
    assert_eq!(saw("x-forwarded-proto"), "http");
    assert_eq!(saw("x-forwarded-scheme"), "http");
    assert_eq!(saw("x-scheme"), "http");
    assert_eq!(saw("x-original-forwarded-for"), "9.9.9.9");
    assert!(saw("x-request-id").len() >= 32);
    assert!(!seen.contains("evil"), "{seen}");
    let kept = get_with("h.com", "/", "X-Request-ID: mine\r\n").body.to_ascii_lowercase();
    assert!(kept.contains("x-request-id: mine"), "{kept}");
}

fn forwarded_headers_are_believed_where_asked_for(ground: &Ground) {
    let server = Server::start("there", 11);
    let allow = |o: &mut Options| {
        o.allow = vec!["9.9.9.0/24".parse().unwrap()];
        o.ssl_redirect = true;
    };
    let mut rules = Rules::new().path("h.com", PathPattern::Prefix("/".to_owned()), "there", allow);
    rules.0.settings.use_forwarded_headers = true;
    let _controller = ground.serving(&rules.0, &[("default-there-80", &[server.address])]);
    assert_eq!(get("h.com", "/").code, 308);
    assert_eq!(get_with("h.com", "/", "X-Forwarded-Proto: https\r\n").code, 403);
    let answer = get_with("h.com", "/", "X-Forwarded-Proto: https\r\nX-Forwarded-For: 9.9.9.9\r\n");
    let seen = answer.body.to_ascii_lowercase();
    assert!(answer.code == 200 && seen.contains("x-forwarded-for: 9.9.9.9\n"), "{answer:?}");
    assert!(seen.contains("x-forwarded-proto: https\n"), "{seen}");
}

fn plain_http_is_redirected(ground: &Ground) {
    let server = Server::start("there", 11);
    let rules = Rules::new()
        .path("h.com", PathPattern::Prefix("/".to_owned()), "there", |o| o.ssl_redirect = true)
        .tls("h.com", &self_signed("h.com"));
    let _controller = ground.serving(&rules.0, &[("default-there-80", &[server.address])]);
    let answer = get("h.com", "/a/b?c=d&e=%2f");
    assert_eq!((answer.code, answer.header("location")), (308, "https://h.com/a/b?c=d&e=%2f"));
}

fn the_root_is_redirected(ground: &Ground) {
    let (_controller, _server) = one(ground, |o| o.app_root = Some("/app$1%20/x".to_owned()));
    let answer = get("h.com", "/");
    assert_eq!(answer.code, 302);
    assert!(["http://h.com/app$1%20/x", "/app$1%20/x"].contains(&answer.header("location")), "{answer:?}");
    assert_eq!(get("h.com", "/x").code, 200);
}

fn only_named_sources_may_come(ground: &Ground) {
    let server = Server::start("there", 11);
    let many = |o: &mut Options| {
        o.allow = (0..200).map(|n| format!("10.{n}.0.0/16").parse().unwrap()).collect();
    };
    let ours = |o: &mut Options| o.allow = vec!["10.0.0.0/8".parse().unwrap(), "127.0.0.0/8".parse().unwrap()];
    let rules = Rules::new().path("h.com", PathPattern::Prefix("/many".to_owned()), "there", many).path(
        "h.com",
        PathPattern::Prefix("/ours".to_owned()),
        "there",
        ours,
    );
    let _controller = ground.serving(&rules.0, &[("default-there-80", &[server.address])]);
    assert_eq!((get("h.com", "/many").code, get("h.com", "/ours").code), (403, 200));
}

fn a_large_body_is_refused(ground: &Ground) {
    let (_controller, _server) = one(ground, |o| o.body_size = 1000);
    let post = |length: usize| {
        let mut connection = Connection::plain();
        let head = format!("POST / HTTP/1.1\r\nHost: h.com\r\nContent-Length: {length}\r\n\r\n");
        connection.write(head.as_bytes()).unwrap();
        // It may be refused before it is all there.
        let _ = connection.write("x".repeat(length.min(5000)).as_bytes());
        connection.read().unwrap()
    };
    let fits = post(1000);
    assert_eq!((fits.code, fits.saw("body")), (200, "1000"));
    assert_eq!(post(1001).code, 413);
    assert_eq!(post(2_000_000_000).code, 413);
}

fn a_slow_endpoint_is_not_waited_for(ground: &Ground) {
    let (_controller, _server) = one(ground, |o| o.read_timeout = Duration::from_secs(1));
    assert_eq!(get("h.com", "/sleep/100").code, 200);
    assert_eq!(get("h.com", "/sleep/20000").code, 504);
}

fn a_cookie_keeps_a_client_at_its_endpoint(ground: &Ground) {
    let servers: Vec<Server> = (0..3).map(|n| Server::start(&format!("s{n}"), 11 + n)).collect();
    let all: Vec<_> = servers.iter().map(|s| s.address).collect();
    let affinity = Affinity {
        cookie: "route".to_owned(),
        path: "/app".to_owned(),
        max_age: Some(172_800),
        same_site: Some("Strict".to_owned()),
        secure: false,
        change_on_failure: true,
    };
    let rules = Rules::new().prefix("h.com", "/", "there").backend("there", |b| b.affinity = Some(affinity));
    let mut controller = ground.serving(&rules.0, &[("default-there-80", &all)]);
    assert_eq!(count("h.com", "/", 12).len(), 3, "without a cookie all are asked");
    let first = get("h.com", "/");
    let own = first.headers["set-cookie"].iter().find(|c| c.starts_with("route=")).expect("a cookie");
    for attribute in ["Path=/app", "Max-Age=172800", "SameSite=Strict", "HttpOnly"] {
        assert!(own.contains(attribute), "{own}");
    }
    assert!(first.headers["set-cookie"].iter().any(|c| c == "own=1"), "the endpoint's own stays: {first:?}");
    assert!(!own.contains("Secure"), "{own}");
    let cookie = format!("Cookie: a=b; {}\r\n", own.split(';').next().unwrap());
    for _ in 0..12 {
        let again = get_with("h.com", "/", &cookie);
        assert_eq!(again.by(), first.by());
        assert!(!again.headers["set-cookie"].iter().any(|c| c.starts_with("route=")), "{again:?}");
    }
    // Without its endpoint a client goes to another one, and hears of it.
    let left: Vec<_> = servers.iter().filter(|s| s.address != all[by(first.by())]).map(|s| s.address).collect();
    controller.endpoints(&[("default-there-80", &left)]);
    until("the client is led elsewhere", || get_with("h.com", "/", &cookie).by() != first.by());
    let moved = get_with("h.com", "/", &cookie);
    assert!(moved.headers["set-cookie"].iter().any(|c| c.starts_with("route=")), "{moved:?}");
}

fn by(name: &str) -> usize {
    name[1..].parse().unwrap()
}
