//! Hosts and paths: the recorded cases from ingress objects on, and what they leave open.

use std::collections::BTreeMap;

use labctl::plan::ingress::{Objects, PathPattern, routing};
use serde_json::{Value, json};

use crate::Test;
use crate::client::{Server, get};
use crate::ground::{Ground, Rules, cases_file};

pub const TESTS: &[Test] = &[
    ("the_recorded_paths_hold", the_recorded_paths_hold),
    ("the_recorded_hosts_hold", the_recorded_hosts_hold),
    ("a_host_does_not_fall_through_to_another", a_host_does_not_fall_through_to_another),
    ("letters_are_compared_as_they_are", letters_are_compared_as_they_are),
    ("an_implementation_specific_path_is_letter_by_letter", an_implementation_specific_path_is_letter_by_letter),
    ("dots_slashes_and_escapes_are_read_before_paths_are_compared", dots_slashes_and_escapes),
    ("regular_expressions_and_rewrites", regular_expressions_and_rewrites),
    ("the_default_backend_takes_the_rest", the_default_backend_takes_the_rest),
];

fn recorded() -> Value {
    let text = std::fs::read_to_string(cases_file().expect("it is there")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect()
}

/// An ingress for a recorded case: the path at number N leads to the service `sN`.
fn ingress(host: &str, kind: &str, paths: &[String], default: bool) -> Value {
    let path = |(n, path): (usize, &String)| {
        let (path, kind) = match path.split_once(" (") {
            Some((path, kind)) => (path, kind.trim_end_matches(')')),
            None => (path.as_str(), kind),
        };
        let backend = json!({ "service": { "name": format!("s{n}"), "port": { "number": 80 } } });
        json!({ "path": path, "pathType": kind, "backend": backend })
    };
    let paths: Vec<Value> = paths.iter().enumerate().map(path).collect();
    let mut spec = json!({ "rules": [{ "host": host, "http": { "paths": paths } }] });
    if default {
        spec["defaultBackend"] = json!({ "service": { "name": "rest", "port": { "number": 80 } } });
    }
    json!({ "metadata": { "name": host.replace('.', "-"), "namespace": "default" }, "spec": spec })
}

fn the_recorded_paths_hold(ground: &Ground) {
    let cases = recorded()["docPathTable"].as_array().unwrap().clone();
    let host = |n: usize| format!("case-{n}.example.com");
    let of = |(n, case): (usize, &Value)| {
        let kind = case["kind"].as_str().unwrap();
        ingress(&host(n), kind, &strings(&case["paths"]), case["winner"] == "defaultBackend")
    };
    let ingresses: Vec<_> = cases.iter().enumerate().map(of).map(|i| serde_json::from_value(i).unwrap()).collect();
    let (certificates, config) = (BTreeMap::new(), BTreeMap::new());
    let routing = routing(&Objects {
        ingresses: &ingresses,
        certificates: &certificates,
        config: &config,
        default_backend: None,
        default_certificate: None,
    });
    let names = ["s0", "s1", "s2", "rest"];
    let servers: Vec<Server> = (1..).zip(names).map(|(n, name)| Server::start(name, n + 10)).collect();
    let endpoints: Vec<_> = names.iter().zip(&servers).map(|(n, s)| (format!("default-{n}-80"), [s.address])).collect();
    let endpoints: Vec<_> = endpoints.iter().map(|(n, a)| (n.as_str(), &a[..])).collect();
    let _controller = ground.serving(&routing, &endpoints);
    let mut asked = 0;
    for (n, case) in cases.iter().enumerate() {
        let paths = strings(&case["paths"]);
        let expected = match case["winner"].as_str() {
            None => "404".to_owned(),
            Some("defaultBackend") => "rest".to_owned(),
            Some(winner) => format!("s{}", paths.iter().position(|p| p == winner).unwrap()),
        };
        let requests = match case["request"].as_str().unwrap() {
            "(all paths)" => vec!["/", "/foo", "/foo/bar/", "/a//b?c=/d"],
            one => vec![one],
        };
        for request in requests {
            let answer = get(&host(n), request);
            let found = if answer.code == 200 { answer.by().to_owned() } else { answer.code.to_string() };
            assert_eq!(found, expected, "case {n}, {request}: {case}");
            asked += 1;
        }
    }
    assert!(asked >= 20, "{asked}");
}

fn the_recorded_hosts_hold(ground: &Ground) {
    let server = Server::start("there", 11);
    let rules = Rules::new().prefix("*.foo.com", "/", "there");
    let _controller = ground.serving(&rules.0, &[("default-there-80", &[server.address])]);
    let cases = recorded()["docHostTable"].as_array().unwrap().clone();
    assert!(!cases.is_empty());
    for case in cases {
        assert_eq!(case["rule"], "*.foo.com");
        let expected = if case["matches"] == true { 200 } else { 404 };
        assert_eq!(get(case["hostHeader"].as_str().unwrap(), "/").code, expected, "{case}");
    }
    for (host, code) in [("BAR.foo.COM", 200), ("bar.foo.com:80", 200), ("barfoo.com", 404), ("bar.fooxcom", 404)] {
        assert_eq!(get(host, "/").code, code, "{host}");
    }
}

fn a_host_does_not_fall_through_to_another(ground: &Ground) {
    let servers = [Server::start("name", 11), Server::start("wild", 12), Server::start("any", 13)];
    let rules =
        Rules::new().prefix("a.foo.com", "/tea", "name").prefix("*.foo.com", "/", "wild").prefix("", "/", "any");
    let endpoints = ["name", "wild", "any"].map(|n| format!("default-{n}-80"));
    let endpoints: Vec<_> = endpoints.iter().zip(&servers).map(|(n, s)| (n.as_str(), vec![s.address])).collect();
    let endpoints: Vec<_> = endpoints.iter().map(|(n, a)| (*n, a.as_slice())).collect();
    let _controller = ground.serving(&rules.0, &endpoints);
    assert_eq!(get("a.foo.com", "/tea").by(), "name");
    assert_eq!(get("a.foo.com", "/coffee").code, 404);
    assert_eq!(get("b.foo.com", "/tea").by(), "wild");
    assert_eq!(get("c.b.foo.com", "/tea").by(), "any");
    assert_eq!(get("else.where", "/").by(), "any");
}

/// One host, `h.com`, whose paths lead to endpoints of the paths' own names.
fn paths(ground: &Ground, paths: &[PathPattern]) -> (crate::ground::Controller, Vec<Server>) {
    let mut rules = Rules::new();
    let mut servers = Vec::new();
    let mut endpoints = Vec::new();
    for (n, path) in (0u8..).zip(paths) {
        let name = format!("s{n}");
        rules = rules.path("h.com", path.clone(), &name, |_| {});
        let server = Server::start(&name, 11 + n);
        endpoints.push((format!("default-{name}-80"), [server.address]));
        servers.push(server);
    }
    let endpoints: Vec<_> = endpoints.iter().map(|(n, a)| (n.as_str(), &a[..])).collect();
    (ground.serving(&rules.0, &endpoints), servers)
}

#[track_caller]
fn leads(path: &str, to: &str) {
    let answer = get("h.com", path);
    let found = if answer.code == 200 { answer.by().to_owned() } else { answer.code.to_string() };
    assert_eq!(found, to, "{path}");
}

fn letters_are_compared_as_they_are(ground: &Ground) {
    let (_controller, _servers) =
        paths(ground, &[PathPattern::Exact("/Exact".to_owned()), PathPattern::Prefix("/Tea".to_owned())]);
    for (path, to) in [("/Tea/x", "s1"), ("/tea", "404"), ("/Exact", "s0"), ("/EXACT", "404"), ("/Exact?a=/tea", "s0")]
    {
        leads(path, to);
    }
}

fn an_implementation_specific_path_is_letter_by_letter(ground: &Ground) {
    let (_controller, _servers) = paths(
        ground,
        &[
            PathPattern::Begin("/dir/".to_owned()),
            PathPattern::Prefix("/foo".to_owned()),
            PathPattern::Begin("/foo".to_owned()),
        ],
    );
    for (path, to) in [("/foo", "s1"), ("/foo/x", "s1"), ("/foobar", "s2"), ("/dir/x", "s0"), ("/dir", "404")] {
        leads(path, to);
    }
}

/// As nginx reads paths; what the endpoint is sent is the path as the client wrote it.
fn dots_slashes_and_escapes(ground: &Ground) {
    let (_controller, _servers) =
        paths(ground, &[PathPattern::Prefix("/admin".to_owned()), PathPattern::Prefix("/tea".to_owned())]);
    for path in ["/tea/../admin/x", "//admin", "/%61dmin", "/tea/%2e%2e/admin", "/admin%2fx", "/./admin"] {
        leads(path, "s0");
        assert_eq!(get("h.com", path).saw_path(), path);
    }
    for path in ["/..", "/tea/..%2f..%2f..%2fadmin"] {
        let code = get("h.com", path).code;
        assert!([400, 404].contains(&code), "{path}: {code}");
    }
}

fn regular_expressions_and_rewrites(ground: &Ground) {
    let server = Server::start("there", 11);
    let regex = |text: &str| PathPattern::Regex(text.to_owned());
    let rules = Rules::new()
        .path("h.com", regex("/something(/|$)(.*)"), "there", |o| o.rewrite = Some("/new/$2".to_owned()))
        .path("h.com", regex("/[a-z]{3}/x"), "there", |_| {})
        .path("h.com", regex("/it's \"q\" $"), "there", |o| o.rewrite = Some("/$host/$1%/".to_owned()));
    let _controller = ground.serving(&rules.0, &[("default-there-80", &[server.address])]);
    let path = |path: &str| get("h.com", path).saw_path().to_owned();
    assert_eq!(path("/something/a/b?c=d"), "/new/a/b?c=d");
    assert_eq!(path("/SOMETHING"), "/new/");
    assert_eq!(path("/abc/xyz"), "/abc/xyz");
    assert_eq!(get("h.com", "/abcd/x").code, 404);
    assert_eq!(get("h.com", "/prefix/something/a").code, 404);
    assert_eq!(get("h.com", "/it's%20%22q%22%20").code, 200);
    // HAProxy rewrites the path as it is written, with its escapes.
    if ground.program == "nginx" {
        assert!(path("/it's%20%22q%22%20").starts_with("/$host/"));
    }
}

fn the_default_backend_takes_the_rest(ground: &Ground) {
    let servers = [Server::start("tea", 11), Server::start("rest", 12)];
    let mut rules = Rules::new().prefix("h.com", "/tea", "tea").prefix("gone.com", "/", "rest");
    rules.0.servers.retain(|s| s.host.to_string() == "h.com");
    let endpoints: [(&str, &[_]); 2] =
        [("default-tea-80", &[servers[0].address]), ("default-rest-80", &[servers[1].address])];
    let mut controller = ground.serving(&rules.0, &endpoints);
    assert_eq!((get("h.com", "/x").code, get("gone.com", "/").code), (404, 404));
    rules.0.default_backend = Some("default-rest-80".to_owned());
    controller.routing(&rules.0);
    crate::ground::settles("the default backend answers", || get("h.com", "/x").code == 200);
    assert_eq!((get("h.com", "/x").by(), get("gone.com", "/tea").by()), ("rest", "rest"));
    assert_eq!(get("h.com", "/tea").by(), "tea");
}
