//! Hosts, paths, redirects, who may come, what endpoints are told.

use std::time::Duration;

use labctl::plan::ingress::{Endpoints, Options, PathPattern, Routing, Settings};

use crate::endpoint::Pod;
use crate::process::{BACKEND, Controller, all_to, backend, body, ends, header, location, server, source, status};

fn name(answer: &str) -> &str {
    body(answer).lines().next().unwrap_or_default()
}

#[test]
fn a_request_belongs_to_one_host_and_its_longest_path() {
    let (tea, coffee) = (Pod::named("tea"), Pod::named("coffee"));
    let to = |path: &str, backend: &str| location(PathPattern::Prefix(path.to_owned()), backend, Options::default());
    let routing = Routing {
        servers: vec![
            server("cafe.example.com", vec![to("/tea", "tea"), to("/coffee", "coffee")]),
            server("*.example.com", vec![to("/", "coffee")]),
        ],
        backends: [("tea".to_owned(), backend("tea-svc")), ("coffee".to_owned(), backend("coffee-svc"))].into(),
        ..Routing::default()
    };
    let all = |of: &Pod| ends(&[of.address]).remove(BACKEND).unwrap();
    let endpoints = [("tea".to_owned(), all(&tea)), ("coffee".to_owned(), all(&coffee))].into();
    let controller = Controller::start(&routing, &endpoints);
    for (host, path, who) in [
        ("cafe.example.com", "/tea", "tea"),
        ("CAFE.example.COM:8080", "/tea/green", "tea"),
        ("cafe.example.com.", "/coffee?x=/tea", "coffee"),
        ("cafe.example.com", "//tea", "tea"),
        ("cafe.example.com", "/tea%2fgreen", "tea"),
        ("cafe.example.com", "/coffee/../tea", "tea"),
        ("other.example.com", "/tea", "coffee"),
    ] {
        let answer = controller.get_of(host, path);
        assert_eq!(name(&answer), who, "{host} {path}: {answer}");
        // What was written goes through as it was written.
        assert!(body(&answer).contains(&format!("GET {path} HTTP/1.1")), "{answer}");
    }
    for (host, path) in [
        ("cafe.example.com", "/"),
        ("cafe.example.com", "/Tea"),
        ("cafe.example.com", "/teapot"),
        ("a.b.example.com", "/"),
        ("example.com", "/"),
    ] {
        let answer = controller.get_of(host, path);
        assert_eq!(status(&answer), 404, "{host} {path}");
        assert!(answer.contains("The ingress controller answered this"), "{answer}");
    }
}

#[test]
fn an_absolute_request_names_its_host_itself() {
    let pod = Pod::named("tea");
    let routing = Routing {
        servers: vec![server(
            "tea.example.com",
            vec![location(PathPattern::Prefix("/".to_owned()), BACKEND, Options::default())],
        )],
        ..all_to(Options::default())
    };
    let controller = Controller::start(&routing, &ends(&[pod.address]));
    let ask = |target: &str, host: &str| {
        controller.say(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
    };
    let answer = ask("http://tea.example.com/green?x", "other.example.com");
    assert!(body(&answer).contains("GET /green?x HTTP/1.1"), "{answer}");
    assert_eq!(header(body(&answer).split_once('\n').unwrap().1, "host"), Some("tea.example.com"));
    assert_eq!(status(&ask("http://other.example.com/", "tea.example.com")), 404);
}

#[test]
fn endpoints_are_told_of_the_client_and_clients_cannot_forge_it() {
    let pod = Pod::named("a");
    let controller = Controller::of(&[pod.address]);
    controller.say(
        "GET /x HTTP/1.1\r\nHost: a.example:81\r\nX-Forwarded-For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n\
        X-Forwarded-Proto: https\r\nX-Request-ID: mine\r\nKeep-Alive: 5\r\nX-Secret: 1\r\n\
        Connection: close, X-Secret\r\n\r\n",
    );
    let request = pod.last();
    let port = controller.http.port().to_string();
    for (name, value) in [
        ("host", "a.example:81"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-original-forwarded-for", "6.6.6.6"),
        ("x-real-ip", "127.0.0.1"),
        ("x-forwarded-host", "a.example:81"),
        ("x-forwarded-port", &port),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-scheme", "http"),
        ("x-request-id", "mine"),
    ] {
        assert_eq!(header(&request, name), Some(value), "{name} in {request}");
    }
    for name in ["x-secret", "keep-alive", "connection"] {
        assert_eq!(header(&request, name), None, "{name}");
    }
}

#[test]
fn with_use_forwarded_headers_a_proxy_before_is_believed() {
    let pod = Pod::named("a");
    let settings = Settings { use_forwarded_headers: true, ..Settings::default() };
    let only = Options { allow: vec!["6.6.6.0/24".parse().unwrap()], ssl_redirect: true, ..Options::default() };
    let controller = Controller::start(&Routing { settings, ..all_to(only) }, &ends(&[pod.address]));
    let say = |more: &str| controller.say(format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{more}\r\n"));
    let answer = say("X-Forwarded-For: 6.6.6.6, 10.0.0.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 443\r\n");
    assert_eq!(status(&answer), 200, "{answer}");
    assert_eq!(header(&pod.last(), "x-forwarded-for"), Some("6.6.6.6"));
    assert_eq!(header(&pod.last(), "x-forwarded-port"), Some("443"));
    assert_eq!(status(&say("X-Forwarded-For: 7.7.7.7\r\nX-Forwarded-Proto: https\r\n")), 403);
    assert_eq!(status(&say("X-Forwarded-For: 6.6.6.6\r\n")), 308);
}

#[test]
fn plain_http_is_sent_to_https_and_the_root_to_the_application() {
    let controller = Controller::with(Options { ssl_redirect: true, ..Options::default() }, &[]);
    let answer = controller.get_of("Cafe.Example.com:8080", "/tea%20x?y=1");
    assert_eq!((status(&answer), header(&answer, "location")), (308, Some("https://cafe.example.com/tea%20x?y=1")));
    let controller = Controller::with(Options { app_root: Some("/app".to_owned()), ..Options::default() }, &[]);
    let answer = controller.get_of("cafe.example.com", "/");
    assert_eq!((status(&answer), header(&answer, "location")), (302, Some("http://cafe.example.com/app")));
    assert_eq!(status(&controller.get_of("cafe.example.com", "/app")), 503);
}

#[test]
fn those_from_elsewhere_are_forbidden() {
    let pod = Pod::named("a");
    let here = Options { allow: vec!["127.0.0.0/8".parse().unwrap()], ..Options::default() };
    assert_eq!(status(&Controller::with(here, &[pod.address]).get("/")), 200);
    let elsewhere = Options { allow: vec!["10.0.0.0/8".parse().unwrap()], ..Options::default() };
    let answer = Controller::with(elsewhere, &[pod.address]).get("/");
    assert_eq!(status(&answer), 403);
    assert!(answer.contains("127.0.0.1 is in none of the ranges"), "{answer}");
}

#[test]
fn a_rewrite_changes_what_the_endpoint_is_asked_for() {
    let pod = Pod::named("a");
    let options = Options { rewrite: Some("/$2".to_owned()), ..Options::default() };
    let regex = PathPattern::Regex("/tea(/|$)(.*)".to_owned());
    let routing =
        Routing { servers: vec![server("", vec![location(regex, BACKEND, options)])], ..all_to(Options::default()) };
    let controller = Controller::start(&routing, &ends(&[pod.address]));
    for (path, asked) in [
        ("/tea/green", "/green"),
        ("/TEA", "/"),
        ("/tea/a%20b?x=1", "/a%20b?x=1"),
        ("/tea/a%2Fb", "/a/b"),
        ("/tea/%3Fx", "/%3Fx"),
    ] {
        assert_eq!(status(&controller.get(path)), 200, "{path}");
        assert!(pod.last().starts_with(&format!("GET {asked} HTTP/1.1\r\n")), "{path}: {}", pod.last());
    }
    assert_eq!(status(&controller.get("/teapot")), 404);
    assert_eq!(status(&controller.get("/x/tea/")), 404);
}

#[test]
fn a_pattern_that_is_none_or_too_large_is_left_out_and_told() {
    let pod = Pod::named("a");
    let regex = |text: &str| location(PathPattern::Regex(text.to_owned()), BACKEND, Options::default());
    let servers = vec![server("", vec![regex("/(tea"), regex("/(a{1000}){1000}"), regex("/ok")])];
    let controller = Controller::start(&Routing { servers, ..all_to(Options::default()) }, &ends(&[pod.address]));
    assert_eq!(status(&controller.get("/ok")), 200);
    assert_eq!(status(&controller.get("/tea")), 404);
    let log = controller.log();
    let place = format!("{} {}", source().ingress, source().field);
    assert_eq!(log.matches(&format!("ingress: {place} of * is left out: ")).count(), 2, "{log}");
}

#[test]
fn no_endpoint_no_service_no_rule_and_no_backend_are_different_things() {
    let pod = Pod::named("fallback");
    let controller = Controller::of(&[]);
    let answer = controller.get("/");
    assert_eq!(status(&answer), 503);
    assert!(answer.contains("no endpoint of default/web port 80 is ready"), "{answer}");
    let answer = Controller::start(&all_to(Options::default()), &Endpoints::new()).get("/");
    assert_eq!(status(&answer), 503);
    assert!(answer.contains("there is no service default/web with a port 80"), "{answer}");
    let routing =
        Routing { servers: Vec::new(), default_backend: Some(BACKEND.to_owned()), ..all_to(Options::default()) };
    assert_eq!(name(&Controller::start(&routing, &ends(&[pod.address])).get("/")), "fallback");
    let nothing = Controller::start(&Routing::default(), &ends(&[]));
    let answer = nothing.get_of("nobody.example", "/");
    assert_eq!(status(&answer), 404);
    assert!(answer.contains("no ingress has a rule for the host nobody.example"), "{answer}");
}

#[test]
fn each_request_has_a_line_in_the_log() {
    let pod = Pod::named("a");
    let controller = Controller::of(&[pod.address]);
    controller.say("GET /tea?x HTTP/1.1\r\nHost: a\r\nUser-Agent: me\r\nX-Request-ID: 77\r\nConnection: close\r\n\r\n");
    let mut line = String::new();
    crate::process::until("a line", || {
        line = controller.log().lines().next().unwrap_or_default().to_owned();
        !line.is_empty()
    });
    assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
    assert!(line.contains("\"GET /tea?x HTTP/1.1\" 200 "), "{line}");
    assert!(line.contains(&format!(" [{BACKEND}] [] {} ", pod.address)), "{line}");
    assert!(line.ends_with(" 200 77"), "{line}");
}

#[test]
fn a_connection_brings_as_many_requests_as_it_may() {
    let pod = Pod::named("a");
    let settings = Settings { keep_alive_requests: 2, keep_alive: Duration::from_secs(30), ..Settings::default() };
    let controller = Controller::start(&Routing { settings, ..all_to(Options::default()) }, &ends(&[pod.address]));
    let one = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let heard = controller.say(one.repeat(3));
    assert_eq!(heard.matches("HTTP/1.1 200 OK").count(), 2, "{heard}");
    assert_eq!(heard.matches("connection: close").count(), 1, "{heard}");
}
