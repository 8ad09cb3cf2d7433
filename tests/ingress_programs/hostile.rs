//! Whatever is in an ingress, nothing of it is more than a word of the file: the program takes the
//! file, and the file has just the sections and servers that it should.

use labctl::objects::ingress::annotations::Affinity;
use labctl::plan::ingress::{HostPattern, PathPattern, Place, Rendered, Routing, Source, haproxy, nginx};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::Test;
use crate::ground::{Ground, Rules};

pub const TESTS: &[Test] =
    &[("hostile_words_stay_words", hostile_words_stay_words), ("known_attacks_stay_words", known_attacks_stay_words)];

/// How many files are checked by the program itself; each takes it some milliseconds.
const FILES: u32 = 60;

/// Letters that mean something to somebody, and any others.
fn word() -> impl Strategy<Value = String> {
    let special = proptest::sample::select(
        "'\"\\{};#$%()[]<>|&*?!=~^:,. \n\r\t\0/@-_\u{7f}ü日abcXYZ019".chars().collect::<Vec<_>>(),
    );
    proptest::collection::vec(prop_oneof![8 => special, 1 => any::<char>()], 0..40)
        .prop_map(|v| v.into_iter().collect())
}

#[derive(Debug, Clone)]
struct Words {
    host: String,
    wildcard: bool,
    path: String,
    kind: u8,
    rewrite: Option<String>,
    app_root: Option<String>,
    cookie: Affinity,
    source: String,
}

fn words() -> impl Strategy<Value = Words> {
    let affinity = (word(), word(), proptest::option::of(word())).prop_map(|(cookie, path, same_site)| Affinity {
        cookie,
        path,
        same_site,
        ..Affinity::default()
    });
    let option = || proptest::option::of(word());
    let all = (word(), any::<bool>(), word(), 0..4u8, option(), option(), affinity, word());
    all.prop_map(|(host, wildcard, path, kind, rewrite, app_root, cookie, source)| Words {
        host,
        wildcard,
        path,
        kind,
        rewrite,
        app_root,
        cookie,
        source,
    })
}

/// A routing with the words wherever words can be.
fn routing(all: &[Words]) -> Routing {
    let mut rules = Rules::new().prefix("fixed.com", "/", "fixed");
    for (n, words) in all.iter().enumerate() {
        let path = format!("/{}", words.path);
        let path = match words.kind {
            0 => PathPattern::Exact(path),
            1 => PathPattern::Prefix(path),
            2 => PathPattern::Begin(path),
            _ => PathPattern::Regex(path),
        };
        let service = format!("s{n}");
        let host = format!("h{n}.com");
        rules = rules.path(&host, path, &service, |o| {
            o.rewrite = words.rewrite.as_ref().map(|r| format!("{}{r}", if n % 2 == 0 { "/" } else { "" }));
            o.app_root = words.app_root.as_ref().map(|r| format!("{}{r}", if n % 2 == 0 { "/" } else { "" }));
        });
        rules = rules.backend(&service, |b| {
            b.affinity = Some(words.cookie.clone());
            b.port.clone_from(&words.source);
        });
        let server = rules.0.servers.iter_mut().find(|s| s.host == HostPattern::Name(host.clone())).unwrap();
        let source = Source { field: words.source.clone(), ..server.locations[0].source.clone() };
        server.locations[0].source = source;
        // A host twice, so that one with a sound name is there, too.
        let mut other = server.clone();
        other.host = match words.wildcard {
            true => HostPattern::Wildcard(words.host.clone()),
            false => HostPattern::Name(words.host.clone()),
        };
        if !rules.0.servers.iter().any(|s| s.host == other.host) {
            rules.0.servers.push(other);
        }
    }
    rules.0
}

fn render(ground: &Ground, routing: &Routing) -> Rendered {
    let config = ground.config();
    let place = Place { http: config.http, https: config.https, directory: &config.directory };
    match ground.program.as_str() {
        "nginx" => nginx::render(routing, place),
        _ => haproxy::render(routing, place, &haproxy::slots(routing, &[].into())),
    }
}

/// Write the files, and let the program say what it thinks of them.
fn check(ground: &Ground, rendered: &Rendered) -> Result<(), String> {
    let current = ground.path("run/current");
    for directory in [current.clone(), current.join("certificates")] {
        std::fs::create_dir_all(directory).unwrap();
    }
    for file in &rendered.files {
        std::fs::write(current.join(&file.name), &file.text).unwrap();
    }
    let main = current.join(&rendered.files[0].name);
    let mut command = std::process::Command::new(&ground.program);
    match ground.program.as_str() {
        "nginx" => command.args(["-e", "stderr", "-t", "-q", "-p"]).arg(ground.path("run")).arg("-c").arg(main),
        _ => command.args(["-c", "-f"]).arg(main),
    };
    let output = command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(format!("{said}\n{}", rendered.files[0].text)) }
}

/// How often lines begin like this.
fn lines(text: &str, begin: &str) -> usize {
    text.lines().filter(|line| line.trim_start().starts_with(begin)).count()
}

fn hold(ground: &Ground, all: &[Words]) -> Result<(), String> {
    let routing = routing(all);
    let rendered = render(ground, &routing);
    let text = &rendered.files[0].text;
    // Whether it is a regular expression is the program's to say; it is a word in any case.
    if !all.iter().any(|words| words.kind == 3) {
        check(ground, &rendered)?;
    }
    let hosts = lines(text, "# host ");
    let expected = if ground.program == "nginx" {
        // The one for other names, the control socket, and those which could be written.
        [("server {", hosts + 2), ("upstream ", routing.backends.len()), ("include ", 0), ("http {", 1)]
    } else {
        // Hosts are named twice: where they are found, and where their paths are.
        let sections = lines(text, "server s1 ");
        [("acl host_", hosts / 2), ("backend ", sections + 2), ("frontend ", 1), ("global", 1)]
    };
    for (what, count) in expected {
        if lines(text, what) != count {
            return Err(format!("{what:?} is there {} times, not {count}:\n{text}", lines(text, what)));
        }
    }
    Ok(())
}

fn hostile_words_stay_words(ground: &Ground) {
    let config = ProptestConfig { cases: FILES, failure_persistence: None, ..ProptestConfig::default() };
    let outcome = TestRunner::new(config)
        .run(&proptest::collection::vec(words(), 1..6), |all| hold(ground, &all).map_err(TestCaseError::fail));
    outcome.unwrap();
}

fn known_attacks_stay_words(ground: &Ground) {
    let attacks = [
        "/x\" { } } server { listen 81; } #",
        "x'; return 200 \"owned\"; #",
        "/}\nbackend evil\n    http-request return status 200\n",
        "' if TRUE\n",
        "$(id) ${HOME} %[env(HOME)] $host $uri",
        "x; include /etc/passwd;",
        "]] os.execute('id') --",
        "\") os.execute(\"id\") --",
        "-f /etc/passwd",
        "a b c d",
        "\\",
        "x\\\"",
        "..",
        "*",
    ];
    for attack in attacks {
        let own = || attack.to_owned();
        for kind in 0..4 {
            let cookie = Affinity { cookie: own(), path: own(), same_site: Some(own()), ..Affinity::default() };
            let words = Words {
                host: own(),
                wildcard: kind == 1,
                path: own(),
                kind,
                rewrite: Some(own()),
                app_root: Some(own()),
                cookie,
                source: own(),
            };
            if let Err(e) = hold(ground, &[words]) {
                panic!("{attack:?}: {e}");
            }
        }
    }
}
