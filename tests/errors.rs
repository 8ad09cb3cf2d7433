//! Every problem that a lab file can have, as its writer sees it. `tests/golden/NAME.yaml` is a bad
//! file and `NAME.txt` what is said about it; run with `UPDATE_GOLDEN=1` to write the texts anew, and
//! read them before they are committed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use labctl::diag::{Problems, codes, render};
use labctl::lab;
use labctl::spec::load::{self, Input, Loaded, Manifest, Text, decode_text, load};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn yaml_files(name: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder(name)).expect("the folder");
    let mut files: Vec<_> = entries.map(|e| e.expect("an entry").path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "yaml"));
    files.sort();
    assert!(!files.is_empty(), "{name} is empty");
    files
}

/// All problems of what was loaded, in reading order.
fn problems(loaded: &Loaded) -> Problems {
    let mut problems = loaded.problems.clone();
    let lab = lab::resolve(loaded, None, &mut problems);
    assert_eq!(lab.is_none(), problems.has_errors(), "a lab is refused exactly where there is an error");
    problems.sort();
    problems
}

/// A file of the folder, called by its bare name in messages, wherever the project lies.
fn golden(path: &Path) -> Loaded {
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    match labctl::spec::load::read(&Input::Path(path.to_owned())) {
        Ok(mut text) => {
            let folder = format!("{}/", path.parent().expect("a folder").display());
            for manifest in text.manifests.iter_mut().chain(&mut text.template) {
                manifest.name = manifest.name.replace(&folder, "");
                manifest.text = manifest.text.clone().map_err(|mut problem| {
                    problem.message = problem.message.replace(&folder, "");
                    problem
                });
            }
            decode_text(&Text { name, ..text })
        }
        Err(problem) => {
            let mut loaded = Loaded::default();
            let message = problem.message.replace(&path.display().to_string(), &name);
            loaded.problems.push(labctl::diag::Problem { message, ..*problem });
            loaded
        }
    }
}

fn codes_of(problems: &Problems) -> Vec<&'static str> {
    problems.iter().map(|p| p.code.as_str()).collect()
}

#[test]
fn every_bad_file_is_answered_as_recorded() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for path in yaml_files("tests/golden") {
        let loaded = golden(&path);
        let drawn = render::to_text(&problems(&loaded), &loaded.sources, false, 100);
        let recorded = path.with_extension("txt");
        if update {
            std::fs::write(&recorded, &drawn).expect("the text is written");
        }
        let expected = std::fs::read_to_string(&recorded).unwrap_or_default();
        if drawn != expected {
            wrong.push(format!("--- {} as recorded\n{expected}\n+++ as it is now\n{drawn}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{} texts differ (UPDATE_GOLDEN=1 records them)\n{}", wrong.len(), wrong.join("\n"));
}

/// Where a golden file is called after a code, it gives that code.
#[test]
fn every_code_of_a_file_has_a_bad_file_that_gives_it() {
    let mut shown: BTreeSet<&'static str> = BTreeSet::new();
    for path in yaml_files("tests/golden") {
        let codes = codes_of(&problems(&golden(&path)));
        let stem = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let named = codes::ALL.iter().map(|(c, _)| c.as_str()).find(|c| stem.starts_with(c));
        assert!(named.is_none_or(|code| codes.contains(&code)), "{stem} gives {codes:?}");
        shown.extend(codes);
    }
    // These have no file that could lie here: it is not there, or too large.
    shown.extend(["file-unreadable", "file-too-large"]);
    let of_the_machine = codes::ALL.iter().position(|(c, _)| *c == codes::MACHINE_NAMESPACES).expect("a code");
    let missing: Vec<_> = codes::ALL[..of_the_machine].iter().filter(|(c, _)| !shown.contains(c.as_str())).collect();
    assert!(missing.is_empty(), "no golden file gives {missing:?}");
}

#[test]
fn every_code_has_a_page_that_explains_it_and_is_listed() {
    let list = std::fs::read_to_string(folder("book/src/errors/README.md")).expect("the list");
    for (code, page) in codes::ALL {
        let lines = page.lines().filter(|l| !l.trim().is_empty()).count();
        assert!(page.starts_with(&format!("# {code}\n")), "{code}: the page begins with its code");
        assert!(lines >= 6, "{code}: the page has {lines} lines");
        assert!(list.contains(&format!("[{code}]({code}.md)")), "{code} is not listed");
    }
    let pages = std::fs::read_dir(folder("book/src/errors")).expect("the pages");
    for page in pages.map(|e| e.expect("an entry").path()) {
        let stem = page.file_stem().expect("a name").to_string_lossy().into_owned();
        assert!(stem == "README" || codes::Code::parse(&stem).is_some(), "{stem} is no code");
    }
}

/// The blocks of a page that are marked with `info`.
fn blocks(page: &str, info: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut current: Option<String> = None;
    for line in page.lines() {
        match (&mut current, line.strip_prefix("```")) {
            (None, Some(mark)) if mark == info => current = Some(String::new()),
            (Some(_), Some(_)) => all.extend(current.take()),
            (Some(text), None) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, _) => {}
        }
    }
    all
}

/// A page's examples are bad for the reason that the page gives, and its remedies are good.
#[test]
fn the_examples_of_a_page_have_its_code_and_the_remedies_have_none() {
    for (code, page) in codes::ALL {
        let with = |text: String, manifests| {
            let text = Text { name: "lab.yaml".into(), text, default_name: "lab".into(), manifests, ..Text::default() };
            let loaded = decode_text(&text);
            let problems = problems(&loaded);
            (codes_of(&problems), render::to_text(&problems, &loaded.sources, false, 100))
        };
        let of = |text: String| with(text, Vec::new());
        // A manifest stands beside a lab with one host.
        let beside = |text: String| {
            let manifest = Manifest { asked: None, name: "manifest.yaml".into(), text: Ok(text), namespace: None };
            with("hosts: { node1: {} }\n".into(), vec![manifest])
        };
        for example in blocks(page, "yaml manifest") {
            let (codes, drawn) = beside(example);
            assert!(!codes.is_empty() && codes.iter().all(|c| c == &code.as_str()), "{code}: {codes:?}\n{drawn}");
        }
        for remedy in blocks(page, "yaml manifest good") {
            let (codes, drawn) = beside(remedy);
            assert!(codes.is_empty(), "{code}: {drawn}");
        }
        for example in blocks(page, "yaml") {
            let (codes, drawn) = of(example);
            assert!(!codes.is_empty() && codes.iter().all(|c| c == &code.as_str()), "{code}: {codes:?}\n{drawn}");
        }
        for remedy in blocks(page, "yaml good") {
            let (codes, drawn) = of(remedy);
            assert!(codes.is_empty(), "{code}: {drawn}");
        }
    }
}

#[test]
fn every_lab_of_the_project_is_valid() {
    for path in ["labs", "labs/broken"].into_iter().flat_map(yaml_files) {
        let loaded = load(&Input::Path(path.clone()));
        let problems = problems(&loaded);
        let drawn = render::to_text(&problems, &loaded.sources, false, 100);
        // These are about what does not work.
        let expected: &[&str] = match path.file_name().and_then(|n| n.to_str()) {
            Some("host-gw-two-networks.yaml" | "host-gw-across-router.yaml") => &["host-gw-router"],
            Some("selector-wrong.yaml" | "target-port-wrong.yaml") => &["service-no-pods"],
            Some("ingress-nginx.yaml") => &["ingress-class"],
            Some("service-troubles.yaml") => &["service-no-pods", "service-no-pods", "balancer-address"],
            _ => &[],
        };
        assert_eq!(codes_of(&problems), expected, "{}\n{drawn}", path.display());
        assert!(!loaded.file.probes.is_empty(), "{} has no probes", path.display());
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_the_reason() {
    let dir = tempfile::tempdir().expect("a directory");
    let message = |path: &Path| {
        let loaded = load(&Input::Path(path.to_owned()));
        assert_eq!(codes_of(&loaded.problems), ["file-unreadable"]);
        loaded.problems.iter().map(ToString::to_string).collect::<String>()
    };
    assert!(message(&dir.path().join("none.yaml")).contains("No such file"));
    assert!(message(dir.path()).contains("holds no lab"));
    std::fs::write(dir.path().join("one.yaml"), "hosts: { a: }").expect("a file");
    assert!(load(&Input::Path(dir.path().to_owned())).problems.is_empty(), "the only file is taken");
    std::fs::write(dir.path().join("two.yaml"), "hosts: { a: }").expect("a file");
    assert!(message(dir.path()).contains("several"));
    std::fs::write(dir.path().join("lab.yaml"), "hosts: { a: }").expect("a file");
    assert!(load(&Input::Path(dir.path().to_owned())).problems.is_empty(), "lab.yaml is taken before others");
}

#[test]
fn a_directory_is_one_lab_with_a_lab_yaml_and_else_a_lab_for_each_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name).display().to_string();
    let found = || load::labs(&dir.path().display().to_string()).map_err(|p| p.message);
    assert!(found().expect_err("nothing is there").contains("holds no lab"));
    for name in ["a.yaml", "b.yml", "notes.txt"] {
        std::fs::write(at(name), "hosts: { a: }").expect("a file");
    }
    for name in ["cafe", "manifests"] {
        std::fs::create_dir(at(name)).expect("a directory");
        std::fs::write(at(&format!("{name}/other.yaml")), "hosts: { a: }").expect("a file");
    }
    std::fs::write(at("cafe/lab.yaml"), "hosts: { a: }").expect("a file");
    assert_eq!(found(), Ok(vec![at("a.yaml"), at("b.yml"), at("cafe/lab.yaml")]));
    std::fs::write(at("lab.yaml"), "hosts: { a: }").expect("a file");
    assert_eq!(found(), Ok(vec![at("lab.yaml")]));
    assert_eq!(load::labs(&at("none.yaml")), Ok(vec![at("none.yaml")]), "a file is itself, also one that is not there");
    assert_eq!(load::labs("-"), Ok(vec!["-".to_owned()]));
}

#[test]
fn probes_without_names_get_names_of_their_own() {
    let probe = "{ from: a, ping: b }";
    let text = format!(
        "hosts: {{ a: , b: }}\nprobes: [{probe}, {probe}, {{ name: 'a: ping b (2)', from: a, ping: a }}, {probe}]"
    );
    let loaded = decode_text(&Text { name: "lab.yaml".into(), text, default_name: "lab".into(), ..Text::default() });
    let lab = lab::resolve(&loaded, None, &mut Problems::default()).expect("a lab");
    let names: Vec<&str> = lab.probes.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["a: ping b", "a: ping b (3)", "a: ping b (2)", "a: ping b (4)"]);
}

/// What a faulty part would have meant is not missed elsewhere.
#[test]
fn one_fault_gives_one_problem() {
    let two = "networks: { a: { cidr: 10.0.1.0/24 }, b: { cidr: 10.0.2.0/24 } }";
    let files = [
        // The host is named by a pod and a probe, and its own description is wrong.
        "hosts: { n1: 5 }\npods: { p: { host: n1 } }\nprobes: [{ from: p, ping: n1 }]".to_owned(),
        "hosts: [n1, n2]\npods: { p: { host: n1 } }\nprobes: [{ from: p, ping: n2 }]".to_owned(),
        "hots: { n1: }\npods: { p: { host: n1 } }\nprobes: [{ from: p, ping: n1 }]".to_owned(),
        "nodes: { n1: }\nhosts: { n2: }\npods: { p: { host: n1 } }\nprobes: [{ from: n2, ping: n1 }]".to_owned(),
        "hosts: { n1: { labels: { a: 1 } } }\npods: { p: { host: n1 } }".to_owned(),
        "hosts: { N1: }\npods: { p: { host: N1 } }\nprobes: [{ from: p, ping: N1 }]".to_owned(),
        "hosts: { n1: { network: c } }\npods: { p: { host: n1 } }\nprobes: [{ from: p, ping: n1 }]".to_owned(),
        format!("{two}\nhosts: {{ n1: {{ network: [a] }} }}\npods: {{ p: {{ host: n1 }} }}"),
        format!("{two}\nhosts: {{ n1: {{ netwrk: a }} }}\npods: {{ p: {{ host: n1 }} }}"),
        "hosts: { n1: }\nhosts: { n2: }\npods: { p: { host: n2 } }".to_owned(),
        // The same of networks and ranges.
        "networks: { Lan: { cidr: 10.0.1.0/24 } }\nhosts: { n1: { address: 10.0.1.5 }, n2: { network: Lan } }".to_owned(),
        "networks: { lan: { cidr: 10.0.1.300/24 } }\nhosts: { n1: { address: 10.0.1.5 } }".to_owned(),
        "networks: { lan: { cidr: 10.0.1.0/24, gateway: 10.0.9.1 } }\nhosts: { n1: { address: 10.0.1.5 } }".to_owned(),
        "networks: { lan: { cidr: 10.96.1.0/24 } }\nhosts: { n1: { address: 10.96.1.5 } }".to_owned(),
        "networks: { lan: { cidr: [10.0.1.0/24] } }\nhosts: { n1: { address: 10.0.1.5 } }".to_owned(),
        "cluster: { podCIDR: 10.1.0/16 }\nhosts: { n1: { podCIDR: 10.1.1.0/24 } }\npods: { p: { address: 10.1.1.9 } }".to_owned(),
        "hosts: { n1: { podCIDR: [10.244.7.0/24] } }\npods: { p: { address: 10.244.7.9 } }".to_owned(),
        // Pods, containers and probes.
        "hosts: { n1: }\npods: { P: }\nprobes: [{ from: P, ping: n1 }]".to_owned(),
        "hosts: { n1: }\npods: { p: [] }\nprobes: [{ from: p, ping: n1 }, { from: n1, http: 'http://p:8080/', expect: { pod: p } }]".to_owned(),
        "hosts: { n1: }\ndeployments: { t: { replicas: many } }\nprobes: [{ from: t-3, ping: n1, expect: { ttl: 64 } }]".to_owned(),
        "hosts: { n1: }\npods: { p: { ports: [{ containerPort: http, name: web }], readinessProbe: { tcpSocket: { port: web } } } }\nprobes: [{ from: n1, tcp: 'p:web' }]".to_owned(),
        "hosts: { n1: }\npods: { p: { command: run, args: [x] } }".to_owned(),
        "hosts: { n1: }\npods: { p: { readinessProbe: { httpGet: { port: 99999 } } } }".to_owned(),
        "hosts: { n1: }\nprobes: [{ from: [n1], ping: n1 }]".to_owned(),
        "hosts: { n1: }\nprobes: [{ from: n1, pong: n1 }]".to_owned(),
        "hosts: { n1: }\nprobes: [{ from: n1, ping: { size: 100 } }]".to_owned(),
    ];
    for text in files {
        let loaded = decode_text(&Text {
            name: "lab.yaml".into(),
            text: text.clone(),
            default_name: "lab".into(),
            ..Text::default()
        });
        let problems = problems(&loaded);
        assert_eq!(problems.iter().count(), 1, "{text}\n{}", render::to_text(&problems, &loaded.sources, false, 100));
    }
}
