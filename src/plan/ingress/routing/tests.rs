//! From ingresses to virtual hosts and locations.

use std::collections::BTreeMap;

use super::*;

fn ingress(json: &str) -> Ingress {
    serde_json::from_str(json).unwrap()
}

/// A short way to write one: `HOST PATHTYPE PATH SERVICE`, a line each.
fn rules(name: &str, annotations: &[(&str, &str)], lines: &[&str]) -> Ingress {
    let rule = |line: &&str| {
        let words: Vec<&str> = line.split(' ').collect();
        let [host, kind, path, service] = words[..] else { panic!("{line}") };
        serde_json::json!({
            "host": if host == "*" { "" } else { host },
            "http": { "paths": [{
                "path": path, "pathType": kind,
                "backend": { "service": { "name": service, "port": { "number": 80 } } },
            }] },
        })
    };
    let notes: BTreeMap<String, &str> =
        annotations.iter().map(|(k, v)| (format!("{}{k}", annotations::PREFIX), *v)).collect();
    serde_json::from_value(serde_json::json!({
        "metadata": { "name": name, "namespace": "default", "annotations": notes },
        "spec": { "rules": lines.iter().map(rule).collect::<Vec<_>>() },
    }))
    .unwrap()
}

fn plan(ingresses: &[Ingress]) -> Routing {
    let certificate = Certificate { chain: "chain".to_owned(), key: "key".to_owned() };
    let certificates = BTreeMap::from([("default/there".to_owned(), certificate)]);
    let config = BTreeMap::new();
    routing(&Objects {
        ingresses,
        certificates: &certificates,
        config: &config,
        default_backend: None,
        default_certificate: None,
    })
}

/// Host, path and backend of each location, in order.
fn lines(routing: &Routing) -> Vec<String> {
    let of = |server: &Server| {
        let host = server.host.to_string();
        server.locations.iter().map(move |l| format!("{host} {:?} {}", l.path, l.backend)).collect::<Vec<_>>()
    };
    routing.servers.iter().flat_map(of).collect()
}

#[test]
fn the_longest_path_comes_first_then_exact() {
    let one = rules("a", &[], &["* Prefix / r", "* Prefix /foo p", "* Exact /foo e", "* Prefix /foo/bar/ b"]);
    let expected = [
        "* Prefix(\"/foo/bar/\") default-b-80",
        "* Exact(\"/foo\") default-e-80",
        "* Prefix(\"/foo\") default-p-80",
        "* Prefix(\"/\") default-r-80",
    ];
    assert_eq!(lines(&plan(&[one])), expected);
}

#[test]
fn exact_names_come_before_wildcards_before_the_rest() {
    let one = rules("a", &[], &["* Prefix / any", "*.foo.com Prefix / wild", "Bar.foo.com Prefix / name"]);
    let hosts: Vec<String> = plan(&[one]).servers.iter().map(|s| s.host.to_string()).collect();
    assert_eq!(hosts, ["bar.foo.com", "*.foo.com", "*"]);
}

#[test]
fn of_two_that_ask_for_one_path_the_first_has_it() {
    let all = [rules("a", &[], &["h.com Prefix /tea first"]), rules("b", &[], &["h.com Prefix /tea/ second"])];
    assert_eq!(lines(&plan(&all)), ["h.com Prefix(\"/tea\") default-first-80"]);
}

#[test]
fn a_rewrite_makes_all_paths_of_its_host_regular_expressions() {
    let all = [
        rules("a", &[("rewrite-target", "/$2")], &["h.com ImplementationSpecific /x(/|$)(.*) x"]),
        rules("b", &[], &["h.com Prefix /tea tea", "other.com Prefix /tea tea"]),
    ];
    let routing = plan(&all);
    let expected = [
        "h.com Regex(\"/x(/|$)(.*)\") default-x-80",
        "h.com Regex(\"/tea\") default-tea-80",
        "other.com Prefix(\"/tea\") default-tea-80",
    ];
    assert_eq!(lines(&routing), expected);
    let rewrites: Vec<_> = routing.servers[0].locations.iter().map(|l| l.options.rewrite.as_deref()).collect();
    assert_eq!(rewrites, [Some("/$2"), None]);
}

#[test]
fn a_default_backend_takes_what_is_left_of_its_hosts() {
    let mut with_rules = rules("a", &[], &["h.com Prefix /tea tea"]);
    let default = serde_json::from_str(r#"{"service":{"name":"rest","port":{"name":"web"}}}"#).ok();
    with_rules.spec.as_mut().unwrap().default_backend = default;
    let alone = ingress(
        r#"{"metadata":{"name":"b"},"spec":{"defaultBackend":{"service":{"name":"all","port":{"number":80}}}}}"#,
    );
    let expected = [
        "h.com Prefix(\"/tea\") default-tea-80",
        "h.com Prefix(\"/\") default-rest-web",
        "* Prefix(\"/\") default-all-80",
    ];
    assert_eq!(lines(&plan(&[with_rules, alone])), expected);
}

#[test]
fn a_rule_for_everything_goes_before_a_default_backend() {
    let mut one = rules("a", &[], &["h.com ImplementationSpecific / tea"]);
    let default = serde_json::from_str(r#"{"service":{"name":"rest","port":{"number":80}}}"#).ok();
    one.spec.as_mut().unwrap().default_backend = default;
    assert_eq!(lines(&plan(&[one])), ["h.com Begin(\"/\") default-tea-80"]);
}

#[test]
fn http_is_redirected_where_the_host_has_tls_unless_it_is_not_wanted() {
    let with_tls = |name: &str, notes: &[(&str, &str)], line: &str, tls: &str| {
        let mut one = rules(name, notes, &[line]);
        one.spec.as_mut().unwrap().tls = serde_json::from_str(tls).ok();
        one
    };
    let all = [
        with_tls("a", &[], "a.com Prefix / a", r#"[{"hosts":["a.com"],"secretName":"there"}]"#),
        with_tls("b", &[("ssl-redirect", "false")], "b.com Prefix / b", r#"[{"hosts":["b.com"],"secretName":"gone"}]"#),
        with_tls("c", &[], "c.com Prefix / c", r#"[{"hosts":["other.com"],"secretName":"there"}]"#),
        with_tls("d", &[("force-ssl-redirect", "true")], "d.com Prefix / d", "[]"),
        with_tls("e", &[], "x.e.com Prefix / e", r#"[{"hosts":["*.e.com"],"secretName":"there"}]"#),
        with_tls("f", &[], "f.com Prefix / f", r#"[{"secretName":"there"}]"#),
    ];
    let routing = plan(&all);
    let told = |s: &Server| {
        let tls = s.tls.as_ref().map(|t| t.certificate.as_deref().unwrap_or("default one"));
        (s.host.to_string(), tls.map(str::to_owned), s.locations[0].options.ssl_redirect)
    };
    let expected = [
        ("a.com", Some("default/there"), true),
        ("b.com", Some("default one"), false),
        ("c.com", None, false),
        ("d.com", None, true),
        ("f.com", Some("default/there"), true),
        ("x.e.com", Some("default/there"), true),
    ];
    let expected: Vec<_> = expected.map(|(h, t, r)| (h.to_owned(), t.map(str::to_owned), r)).to_vec();
    assert_eq!(routing.servers.iter().map(told).collect::<Vec<_>>(), expected);
}

#[test]
fn backends_that_differ_have_names_that_differ() {
    let key = |namespace: &str, one: Ingress| {
        let mut one = one;
        one.metadata.namespace = Some(namespace.to_owned());
        one
    };
    let all = [
        key("a-b", rules("x", &[], &["1.com Prefix / c"])),
        key("a", rules("x", &[], &["2.com Prefix / b-c"])),
        key("a", rules("y", &[("backend-protocol", "HTTPS")], &["3.com Prefix / b-c"])),
        key("a", rules("z", &[], &["4.com Prefix / b-c"])),
    ];
    let routing = plan(&all);
    let names: Vec<&str> = routing.servers.iter().map(|s| s.locations[0].backend.as_str()).collect();
    assert_eq!(names, ["a-b-c-80", "a-b-c-80-2", "a-b-c-80-3", "a-b-c-80-2"]);
    assert_eq!(routing.backends.len(), 3);
}

#[test]
fn a_pattern_that_nobody_can_read_is_left_out_and_the_others_stay() {
    let all =
        [rules("a", &[("use-regex", "true")], &["h.com ImplementationSpecific /a( bad", "h.com Prefix /tea tea"])];
    assert_eq!(lines(&plan(&all)), ["h.com Regex(\"/tea\") default-tea-80"]);
}
