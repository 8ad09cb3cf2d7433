//! The labs of ingresses, broken on purpose: each of their probes must differ where what it proves is
//! no longer so. That they pass as they are is `testing`'s.
//!
//! A break is a text of a lab's files and what is put in its place, with the probes that must notice.
//! Others may notice too.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::harness::{Bench, Who};
use crate::tests;

// As an ordinary user, who has the same and can do less.
tests![
    &[];
    every_probe_of_the_cafe_can_fail,
    every_probe_of_the_classic_cafe_can_fail,
    every_probe_of_the_default_backend_can_fail,
    every_probe_of_the_layers_can_fail,
    every_probe_of_nginx_can_fail,
    every_probe_of_haproxy_can_fail,
    every_probe_of_the_own_controller_can_fail,
];

/// One change, in the one file of the lab that has the text.
struct Break {
    from: &'static str,
    to: &'static str,
    /// The probes that differ then.
    noticed: &'static [&'static str],
}

const fn broken(from: &'static str, to: &'static str, noticed: &'static [&'static str]) -> Break {
    Break { from, to, noticed }
}

const CAFE: &[Break] = &[
    broken(
        "selector: { app: tea }",
        "selector: { app: tee }",
        &["33: by path to tea", "33: whom the pod sees", "34: the pod knows that it was https"],
    ),
    broken("path: /coffee", "path: /koffee", &["33: by path to coffee", "34: and arrives"]),
    broken("app: bread }", "app: brad }", &["33: by host to bread"]),
    broken(
        "- host: kiosk.example.com",
        "- host: kiosk.example.org",
        &["33: by host over http", "34: without tls no redirect"],
    ),
    broken(
        "hosts:\n  node1",
        "cluster: { ingress: { service: { type: NodePort } } }\nhosts:\n  node1",
        &["33: the internet enters as well"],
    ),
    broken(
        "path: /tea, pathType: Prefix",
        "path: /tea, pathType: ImplementationSpecific",
        &["33: whole words of a path"],
    ),
    broken("path: /cake, pathType", "path: /, pathType", &["33: a path without a rule"]),
    broken(
        "10.96.0.103, ports: [{ port: 80 }]",
        "10.96.0.103, selector: { app: tea }, ports: [{ port: 80, targetPort: 8080 }]",
        &["33: a service without endpoints"],
    ),
    broken("- host: kiosk.example.com\n        http:", "- http:", &["33: a host without a rule"]),
    broken("10.244.2.23, labels: { app: tea }", "10.244.2.23, labels: { app: tee }", &["33: all pods of a service"]),
    broken(
        "cafe-ingress:",
        "cafe-ingress:\n    annotations: { nginx.ingress.kubernetes.io/ssl-redirect: \"false\" }",
        &["34: plain http is sent to https"],
    ),
    broken(
        "kiosk-ingress:",
        "kiosk-ingress:\n    tls: [{ hosts: [kiosk.example.com], secretName: kiosk-secret }]",
        &["34: without tls no redirect"],
    ),
    broken("secretName: cafe-secret", "secretName: bakery-secret", &["36: the cafe's", "33: by path to tea"]),
    broken(
        "secretName: bakery-secret",
        "secretName: another-secret",
        &["36: the bakery's own", "36: which nobody trusts"],
    ),
    broken(
        "hosts:\n  node1",
        "cluster: { ingress: { defaultSSLCertificate: default/bakery-secret } }\nhosts:\n  node1",
        &["36: for other names the controller's"],
    ),
];

const CLASSIC: &[Break] = &[
    broken(
        "path: /tea",
        "path: /tee",
        &["34: tea over https", "34: what the pod is asked for", "34: letter by letter"],
    ),
    broken("servicePort: http", "servicePort: web", &["34: coffee by the port's name"]),
    broken(
        "  tls:\n  - hosts:\n    - cafe.example.com\n    secretName: cafe-secret\n",
        "",
        &["34: plain http is sent to https"],
    ),
    broken("    nginx.ingress.kubernetes.io/rewrite-target: /\n", "", &["34: what the pod is asked for"]),
    broken("path: /coffee", "path: /", &["34: another path"]),
    broken("  name: cafe-secret\ntype", "  name: coffee-secret\ntype", &["36: it is the secret's"]),
    broken(
        "manifests: [cafe.yaml, cafe-secret.yaml, cafe-ingress.yaml]",
        "manifests: [cafe.yaml, cafe-ingress.yaml]\nsecrets: { cafe-secret: { generate: true } }",
        &["36: nobody trusts it", "36: it is the secret's"],
    ),
];

const DEFAULT_BACKEND: &[Break] = &[
    broken(
        "defaultBackendService: default/lost-svc",
        "replicas: 1",
        &["41: a path without a rule", "41: a host without a rule", "41: over https as well"],
    ),
    broken("path: /tea", "path: /tee", &["41: a rule comes first"]),
    broken("path: /food", "path: /feed", &["41: a rule of the pub"]),
    broken(
        "    defaultBackend: { service: { name: landlord-svc, port: { number: 80 } } }\n",
        "",
        &["41: what else the pub is asked for"],
    ),
];

const LAYERS: &[Break] = &[
    broken("selector: { kind: drink }", "selector: { app: tea }", &["42: a service cannot tell /tea from /coffee"]),
    broken(
        "selector: { app: vault }, ports: [{ port: 443, targetPort: 8443",
        "selector: { app: tea }, ports: [{ port: 443, targetPort: 8080",
        &[
            "42: TLS goes through a service untouched",
            "42: nothing is added on the way",
            "42: which tells the pod who asked",
        ],
    ),
    broken(", nodePort: 30900", "", &["42: any protocol goes through"]),
    broken(
        "selector: { kind: drink }, ports: [{ port: 80, targetPort: 8080",
        "selector: { app: vault }, ports: [{ port: 80, targetPort: 8443",
        &["42: a service speaks no TLS for its pods"],
    ),
    broken(
        "path: /tea, pathType: Prefix, backend: { service: { name: tea-svc",
        "path: /tea, pathType: Prefix, backend: { service: { name: drinks-svc",
        &["42: an ingress tells tea"],
    ),
    broken(
        "path: /coffee, pathType: Prefix, backend: { service: { name: coffee-svc",
        "path: /coffee, pathType: Prefix, backend: { service: { name: drinks-svc",
        &["42: from coffee"],
    ),
    broken("secretName: vault-secret", "secretName: other-secret", &["42: TLS ends at an ingress"]),
    broken("backend-protocol: HTTPS", "backend-protocol: HTTP", &["42: which tells the pod who asked"]),
    broken(
        "selector: { app: greeter }, ports: [{ port: 9000, nodePort",
        "selector: { app: tea }, ports: [{ port: 9000, targetPort: 8080, nodePort",
        &["42: what is no HTTP does not pass", "42: any protocol goes through"],
    ),
    broken("- host: greeter.example.com", "- host: greeter.example.org", &["42: neither in nor out"]),
];

const NGINX: &[Break] = &[
    broken("path: /tea", "path: /tee", &["37: tea"]),
    broken("path: /coffee", "path: /koffee", &["37: coffee"]),
    broken("ingressClassName: haproxy", "ingressClassName: nginx", &["37: another controller's ingress is nobody's"]),
    broken("host: cafe.example.com\n", "host: cafe.example.org\n", &["38: the host is in the file"]),
    broken(
        "controller: nginx",
        "controller: built-in",
        &[
            "37: it is nginx that answers",
            "38: the host is in the file",
            "38: and what it comes from",
            "38: nginx runs with it",
            "39: pods change and workers stay",
        ],
    ),
    // A pod that is never unready is never taken out.
    broken(
        "    readinessProbe: { httpGet: { path: /healthz, port: 8080 }, periodSeconds: 1, failureThreshold: 1 }\n",
        "",
        &["39: pods change and workers stay"],
    ),
    broken("proxy-body-size: 2m", "proxy-body-size: 1m", &["40: a body of 1.5 MB may pass"]),
    broken("proxy-body-size: 2m", "proxy-body-size: 3m", &["40: one of 2.5 MB may not"]),
    broken(
        ", hsts-max-age: \"86400\", http-redirect-code: \"301\"",
        "",
        &["40: the redirect is a 301", "40: browsers are told to stay with https"],
    ),
];

const HAPROXY: &[Break] = &[
    broken("path: /tea, pathType: Prefix", "path: /tee, pathType: Prefix", &["37: tea", "37: all pods of a service"]),
    broken("path: /coffee", "path: /koffee", &["37: coffee"]),
    broken(
        "path: /tea, pathType: Prefix",
        "path: /tea, pathType: ImplementationSpecific",
        &["37: whole words of a path"],
    ),
    broken(
        "    tls: [{ hosts: [cafe.example.com], secretName: cafe-secret }]\n",
        "",
        &["37: plain http is sent to https"],
    ),
    broken("controller: haproxy", "controller: built-in", &["37: it is HAProxy that runs"]),
];

const OWN: &[Break] = &[
    broken("path: /tea", "path: /tee", &["37: tea"]),
    broken("{{#endpoints}}pod {{{name}}}", "{{#endpoints}}pot {{{name}}}", &["37: tea", "37: coffee"]),
    broken("asked.startswith(path.rstrip(\"/\") + \"/\")", "asked.startswith(path)", &["37: no rule"]),
    broken("if not pods:", "if len(pods) > 5:", &["37: no endpoint"]),
    broken("X-Forwarded-For", "X-Forwarded-From", &["37: the pod learns who asked"]),
];

fn every_probe_of_the_cafe_can_fail() {
    every_probe_can_fail("cafe.yaml", CAFE);
}

fn every_probe_of_the_classic_cafe_can_fail() {
    every_probe_can_fail("cafe-classic", CLASSIC);
}

fn every_probe_of_the_default_backend_can_fail() {
    every_probe_can_fail("default-backend.yaml", DEFAULT_BACKEND);
}

fn every_probe_of_the_layers_can_fail() {
    every_probe_can_fail("layers.yaml", LAYERS);
}

fn every_probe_of_nginx_can_fail() {
    every_probe_can_fail("ingress-nginx.yaml", NGINX);
}

fn every_probe_of_haproxy_can_fail() {
    every_probe_can_fail("ingress-haproxy.yaml", HAPROXY);
}

fn every_probe_of_the_own_controller_can_fail() {
    every_probe_can_fail("own-controller", OWN);
}

/// Make each break in a copy of the lab, a file or a folder of `labs/`.
fn every_probe_can_fail(lab: &str, breaks: &[Break]) {
    let bench = Bench::new(Who::Ordinary);
    let mut all = BTreeSet::new();
    let mut noticed = BTreeSet::new();
    for one in breaks {
        let file = bench.path(lab);
        copy(lab, &file);
        change(&file, one);
        // One that is shown to differ shows the rest in the same answer.
        let ran = bench.run(&["test", &file.to_string_lossy(), "-o", "json"]).ends_with(1);
        let report = ran.json();
        let probes = report[0]["probes"].as_array().unwrap_or_else(|| panic!("no probes: {ran}"));
        let name = |probe: &serde_json::Value| probe["name"].as_str().unwrap_or_default().to_owned();
        let differed: BTreeSet<String> = probes.iter().filter(|p| p["verdict"] == "differed").map(name).collect();
        for probe in one.noticed {
            assert!(
                differed.contains(*probe),
                "{:?} instead of {:?} is not noticed by {probe:?}: {ran}",
                one.to,
                one.from
            );
        }
        all.extend(probes.iter().map(name));
        noticed.extend(one.noticed.iter().map(|probe| (*probe).to_owned()));
    }
    let never: Vec<&String> = all.difference(&noticed).collect();
    assert!(never.is_empty(), "nothing breaks these probes of {lab}: {never:?}");
}

/// The project may lie where the bench's user cannot go.
fn copy(lab: &str, to: &Path) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("labs").join(lab);
    let _ = std::fs::remove_dir_all(to);
    assert!(Command::new("cp").arg("-r").arg(&from).arg(to).status().expect("cp").success());
}

fn change(lab: &Path, one: &Break) {
    let mut files = vec![lab.to_owned()];
    if lab.is_dir() {
        let entries = std::fs::read_dir(lab).expect("the lab's folder");
        files = entries.map(|entry| entry.expect("an entry").path()).collect();
    }
    let texts = files.iter().map(|file| (file, std::fs::read_to_string(file).expect("a file of the lab")));
    let found: Vec<_> = texts.filter(|(_, text)| text.contains(one.from)).collect();
    let [(file, text)] = &found[..] else { panic!("{} files have {:?}", found.len(), one.from) };
    std::fs::write(file, text.replacen(one.from, one.to, 1)).expect("the changed file");
}
