//! Files that nobody wrote in good faith, or that are no lab files at all. Each must end with a
//! clear code, in bounded time and memory, and never with a panic.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use labctl::diag::{Problems, render};
use labctl::lab;
use labctl::lab::ingress::{SecretData, certificate};
use labctl::spec::load::{Loaded, Manifest, Text, decode_text};
use labctl::spec::{Input, load};
use proptest::prelude::*;

/// Far above what the slowest case takes in a debug build beside other tests, and still a bound.
const LIMIT: Duration = Duration::from_secs(20);

fn text(text: impl Into<String>) -> Text {
    Text { name: "lab.yaml".to_owned(), text: text.into(), default_name: "lab".to_owned(), ..Text::default() }
}

/// Load, resolve and draw, as every verb does.
fn everything(loaded: &Loaded) -> (Vec<&'static str>, String) {
    let mut problems = loaded.problems.clone();
    let _ = lab::resolve(loaded, None, &mut problems);
    let drawn = render::to_text(&problems, &loaded.sources, false, 100);
    let _ = render::to_json(&problems, &loaded.sources);
    (problems.iter().map(|p| p.code.as_str()).collect(), drawn)
}

#[track_caller]
fn ends_with(bad: impl Into<String>, code: &str) {
    let start = Instant::now();
    let loaded = decode_text(&text(bad));
    let loading = start.elapsed();
    let (codes, drawn) = everything(&loaded);
    let took = start.elapsed();
    println!("{code}: {} problems, loading {loading:?}, all {took:?}", codes.len());
    let beginning: String = drawn.chars().take(2_000).collect();
    assert_eq!(codes.first(), Some(&code), "{beginning}");
    assert!(took < LIMIT, "took {took:?}");
    assert!(drawn.len() < 1 << 20, "{} bytes were drawn: {beginning}", drawn.len());
}

#[test]
fn brackets_that_never_close() {
    ends_with("[".repeat(100_000), "yaml-too-deep");
}

#[test]
fn maps_within_maps() {
    ends_with("{a: ".repeat(100_000), "yaml-too-deep");
    ends_with("{a:".repeat(100_000), "yaml-syntax");
}

#[test]
fn lists_within_lists_on_one_line() {
    ends_with("- ".repeat(100_000), "yaml-too-deep");
}

#[test]
fn maps_within_maps_by_indentation() {
    let deep: String = (0..3_000).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
    ends_with(deep, "yaml-too-deep");
}

#[test]
fn question_marks_within_question_marks() {
    ends_with("? ".repeat(100_000), "yaml-too-deep");
}

#[test]
fn an_alias_within_its_own_anchor() {
    ends_with("hosts: &a [*a]\n", "yaml-syntax");
}

#[test]
fn aliases_that_repeat_aliases() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..20 {
        let inner = vec![format!("*a{}", i - 1); 10].join(", ");
        bomb.push_str(&format!("a{i}: &a{i} [{inner}]\n"));
    }
    ends_with(bomb, "yaml-too-many-values");
}

#[test]
fn aliases_that_nest_aliases() {
    let mut tower = format!("a0: &a0 {}{}\n", "[".repeat(60), "]".repeat(60));
    for i in 1..1_000 {
        tower.push_str(&format!("a{i}: &a{i} {}*a{}{}\n", "[".repeat(60), i - 1, "]".repeat(60)));
    }
    ends_with(tower, "yaml-too-deep");
}

#[test]
fn merges_that_repeat_merges() {
    let mut bomb = "a0: &a0 { x0: 1, x1: 1, x2: 1 }\n".to_owned();
    for i in 1..40 {
        let inner = vec![format!("*a{}", i - 1); 10].join(", ");
        bomb.push_str(&format!("a{i}: &a{i} {{ <<: [{inner}], y{i}: *a{} }}\n", i - 1));
    }
    ends_with(bomb, "yaml-too-many-values");
}

#[test]
fn a_line_of_thirty_megabytes() {
    ends_with(format!("name: {}\n", "x".repeat(30 << 20)), "name-invalid");
}

#[test]
fn a_quoted_line_of_thirty_megabytes_outside_ascii() {
    ends_with(format!("name: \"{}\"\n", "ü".repeat(15 << 20)), "name-invalid");
}

#[test]
fn thirty_megabytes_of_one_key() {
    ends_with("a: 1\n".repeat(6 << 20), "yaml-duplicate-key");
}

#[test]
fn thirty_megabytes_of_different_keys() {
    let many: String = (0..2_000_000).map(|n| format!("a{n}: 1\n")).collect();
    ends_with(many, "yaml-too-many-values");
}

#[test]
fn very_many_wrong_hosts_on_one_line() {
    let many: String = (0..400_000).map(|n| format!("h{n}: 7, ")).collect();
    ends_with(format!("hosts: {{ {many} }}\n"), "spec-wrong-type");
}

#[test]
fn four_thousand_clients() {
    let many: String = (0..4_000).map(|n| format!("  c{n}:\n")).collect();
    ends_with(format!("networks: {{ lan: {{ cidr: 10.0.0.0/16 }} }}\nclients:\n{many}"), "network-full");
}

#[test]
fn ten_thousand_pods_on_hosts_that_are_not_there() {
    let hosts: String = (0..250).map(|n| format!("  node-number-{n}:\n")).collect();
    let pods: String = (0..10_000).map(|n| format!("  p{n}: {{ host: nodes-number-{n} }}\n")).collect();
    ends_with(format!("networks: {{ lan: {{ cidr: 10.0.0.0/16 }} }}\nhosts:\n{hosts}pods:\n{pods}"), "host-unknown");
}

#[test]
fn ten_thousand_probes_of_nobody() {
    let head = "cluster: { podCIDR: 10.0.0.0/8, serviceCIDR: 172.16.0.0/12, flannel: { subnetLen: 16 } }\n\
                hosts: { a: , b: , c: , d: , e: , f: , g: , h: , i: , j: }\n\
                deployments: { tea: { replicas: 9000 } }\nprobes:\n";
    let probes = "  - { from: tea-1x9, ping: tea-1x8 }\n".repeat(10_000);
    ends_with(format!("{head}{probes}"), "probe-target");
}

#[test]
fn very_many_replicas() {
    ends_with("hosts: { a: }\ndeployments: { tea: { replicas: 4000000000 } }\n", "pods-too-many");
    ends_with("hosts: { a: }\ndeployments: { tea: { replicas: 20000 } }\n", "pods-too-many");
}

#[test]
fn ten_thousand_ingresses_that_lead_to_ten_thousand_services_that_are_not_there() {
    let services: String = (0..10_000).map(|n| format!("  tea-{n}: {{ ports: [{{ port: 80 }}] }}\n")).collect();
    let rule = |n| {
        let backend = format!("{{ service: {{ name: te-{n}, port: {{ number: 80 }} }} }}");
        format!(
            "{{ host: h{n}.example.com, http: {{ paths: [{{ path: /, pathType: Prefix, backend: {backend} }}] }} }}"
        )
    };
    let ingresses: String = (0..10_000).map(|n| format!("  i{n}: {{ rules: [{}] }}\n", rule(n))).collect();
    ends_with(format!("hosts: {{ a: }}\nservices:\n{services}ingresses:\n{ingresses}"), "ingress-backend");
}

#[test]
fn ten_thousand_hosts_under_tls_that_no_rule_has() {
    let hosts: String = (0..10_000).map(|n| format!("h{n}.example.com, ")).collect();
    let rules: String = (0..10_000).map(|n| format!("{{ host: h{n}.example.org }}, ")).collect();
    let ingress = format!("cafe: {{ tls: [{{ hosts: [{hosts}], secretName: s }}], rules: [{rules}] }}");
    ends_with(format!("hosts: {{ a: }}\ningresses: {{ {ingress} }}\n"), "ingress-host");
}

#[test]
fn ten_thousand_ingresses_of_ten_thousand_classes_that_nobody_serves() {
    let classes: String = (0..10_000).map(|n| format!("  c{n}: {{ controller: example.com/c }}\n")).collect();
    let ingresses: String =
        (0..10_000).map(|n| format!("  i{n}: {{ ingressClassName: c{n}, rules: [{{}}] }}\n")).collect();
    ends_with(format!("hosts: {{ a: }}\ningressClasses:\n{classes}ingresses:\n{ingresses}"), "ingress-class");
}

#[test]
fn a_secret_of_three_megabytes() {
    let data = "QUFB".repeat(1 << 20);
    ends_with(format!("hosts: {{ a: }}\nsecrets: {{ s: {{ data: {{ a: {data} }} }} }}\n"), "object-invalid");
}

#[test]
fn a_tab_is_named_as_one() {
    ends_with("hosts:\n\tnode1: {}\n", "yaml-tab");
    ends_with("hosts:\n  node1:\n\t  network: lan\n", "yaml-tab");
}

fn at(path: &Path) -> (Vec<&'static str>, Duration) {
    let start = Instant::now();
    let loaded = load(&Input::Path(path.to_owned()));
    (everything(&loaded).0, start.elapsed())
}

#[test]
fn a_file_of_a_hundred_megabytes_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("large.yaml");
    let file = std::fs::File::create(&path).expect("a file");
    file.set_len(100 << 20).expect("its length");
    let (codes, took) = at(&path);
    assert_eq!(codes, ["file-too-large"]);
    assert!(took < LIMIT, "took {took:?}");
}

#[test]
fn a_stream_without_end_is_refused() {
    let (codes, took) = at(Path::new("/dev/zero"));
    assert_eq!(codes, ["file-too-large"]);
    assert!(took < LIMIT, "took {took:?}");
}

#[test]
fn a_pipe_that_never_ends_is_refused_and_left() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("pipe.yaml");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let (codes, took) = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut pipe = std::fs::OpenOptions::new().write(true).open(&path).expect("the pipe");
            // Ends when the reader closes its end.
            while pipe.write_all(&b"y\n".repeat(4096)).is_ok() {}
        });
        at(&path)
    });
    assert_eq!(codes, ["file-too-large"]);
    assert!(took < LIMIT, "took {took:?}");
}

#[test]
fn rubbish_is_not_text() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("rubbish.yaml");
    let rubbish: Vec<u8> = (0..1u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(&path, rubbish).expect("a file");
    assert_eq!(at(&path).0, ["file-not-text"]);
    std::fs::write(&path, b"\x7fELF\x02\x01\x01\0\0\0\0\0").expect("a file");
    assert_eq!(at(&path).0, ["file-not-text"], "control characters");
    std::fs::write(&path, b"\xff\xfeh\0o\0s\0t\0s\0:\0").expect("a file");
    assert_eq!(at(&path).0, ["file-not-text"], "UTF-16");
}

/// Every valid lab of the project, to be spoiled.
fn labs() -> Vec<String> {
    let in_dir =
        |dir: &Path| -> Vec<_> { std::fs::read_dir(dir).expect("labs").map(|e| e.expect("an entry").path()).collect() };
    let found = in_dir(&Path::new(env!("CARGO_MANIFEST_DIR")).join("labs"));
    // A lab may be a directory with its manifests beside it; other directories have several labs.
    let mut files: Vec<_> = found
        .into_iter()
        .flat_map(|path| match path.join("lab.yaml") {
            lab if lab.exists() => vec![lab],
            _ if path.is_dir() => in_dir(&path),
            _ => vec![path],
        })
        .collect();
    files.sort();
    files.iter().map(|p| std::fs::read_to_string(p).expect("a lab")).collect()
}

/// Manifests of what an ingress consists of, to be spoiled.
fn ingress_manifests() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("a manifest");
    let config = "apiVersion: v1\nkind: Secret\nmetadata: { name: s }\ndata: { tls.crt: YWJj, tls.key: YQ== }\nstringData: { a: b }\n---\n\
                  apiVersion: v1\nkind: ConfigMap\nmetadata: { name: c }\ndata: { keep-alive: '1' }\nbinaryData: { a: YQ== }\n---\n\
                  apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: { name: x }\nspec: { controller: a.b/c }\n";
    vec![read("manifests/old-ingress.yaml"), read("manifests/no-secret.yaml"), config.to_owned()]
}

/// Whatever the text is: no panic, and no refusal without a reason.
fn survives(input: &str) {
    survives_as(&text(input));
}

fn survives_as(input: &Text) {
    let loaded = decode_text(input);
    let mut problems = loaded.problems.clone();
    let lab = lab::resolve(&loaded, None, &mut problems);
    if let Some(lab) = &lab {
        let _ = labctl::plan::plan(lab);
    }
    assert!(lab.is_some() || Problems::has_errors(&problems), "refused without a reason: {input:?}");
    let _ = render::to_text(&problems, &loaded.sources, false, 100);
    let _ = render::to_json(&problems, &loaded.sources);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_it_panic(input in any::<String>()) {
        survives(&input);
    }

    #[test]
    fn no_text_of_yaml_signs_makes_it_panic(input in "[-a:#&*!|>{}\\[\\],?%@`\"'\\\\ \\n\\t0-9~<é]{0,80}") {
        survives(&input);
    }

    #[test]
    fn no_spoiled_lab_makes_it_panic(
        which in any::<prop::sample::Index>(),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0usize..12, "[-a:{}\\[\\],0-9/. \\n\"é*&]{0,4}"), 1..4),
    ) {
        let labs = labs();
        let mut letters: Vec<char> = labs[which.index(labs.len())].chars().collect();
        for (at, length, with) in cuts {
            let start = at.index(letters.len());
            let end = (start + length).min(letters.len());
            letters.splice(start..end, with.chars());
            letters.push('\n');
        }
        survives(&letters.into_iter().collect::<String>());
    }
    #[test]
    fn no_spoiled_ingress_makes_it_panic(
        which in any::<prop::sample::Index>(),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0usize..12, "[-a:{}\\[\\],0-9/.*% \\n\"é&]{0,4}"), 1..4),
    ) {
        let manifests = ingress_manifests();
        let mut letters: Vec<char> = manifests[which.index(manifests.len())].chars().collect();
        for (at, length, with) in cuts {
            let start = at.index(letters.len());
            let end = (start + length).min(letters.len());
            letters.splice(start..end, with.chars());
            letters.push('\n');
        }
        let manifest = Manifest {
            name: "m.yaml".to_owned(),
            text: Ok(letters.into_iter().collect()),
            asked: None,
            namespace: None,
        };
        survives_as(&Text { manifests: vec![manifest], ..text("hosts: { a: }\ncluster: { ingress: {} }\n") });
    }

    /// Certificates come from anywhere.
    #[test]
    fn no_spoiled_certificate_makes_it_panic(
        spoiled in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        length in any::<prop::sample::Index>(),
        of_key in any::<bool>(),
    ) {
        let made = rcgen::generate_simple_self_signed(["cafe.example.com".to_owned()]).expect("a certificate");
        let (mut chain, mut key) = (made.cert.der().to_vec(), made.signing_key.serialize_der());
        let bytes = if of_key { &mut key } else { &mut chain };
        for (at, byte) in spoiled {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let cut = bytes.len() - length.index(bytes.len()) / 8;
        bytes.truncate(cut);
        let pem = |label: &str, der: &[u8]| {
            let body = STANDARD.encode(der);
            format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n").into_bytes()
        };
        let data = [("tls.crt", pem("CERTIFICATE", &chain)), ("tls.key", pem("PRIVATE KEY", &key))];
        let data = data.into_iter().map(|(field, value)| (field.to_owned(), value)).collect();
        if let Ok(read) = certificate::read(&SecretData { kind: "kubernetes.io/tls".to_owned(), data }) {
            let _ = (read.covers("cafe.example.com"), read.age(std::time::SystemTime::now()));
        }
    }
}
