//! Under load: while pods are replaced and rules change, no request is lost. wrk asks as fast as it is
//! answered; what it found is printed.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::Test;
use crate::client::Server;
use crate::ground::{Controller, Ground, Rules, processes, until};

pub const TESTS: &[Test] = &[
    ("replacing_endpoints_under_load_loses_no_request", replacing_endpoints_under_load_loses_no_request),
    ("changing_rules_under_load_loses_no_request", changing_rules_under_load_loses_no_request),
];

/// Run `meanwhile` while wrk asks. Returns how many requests it made.
fn under_load(what: &str, meanwhile: impl FnOnce()) -> u64 {
    let wrk = Command::new("wrk")
        .args(["-t1", "-c16", "-d5", "-H", "Host: h.com", "http://127.0.0.1/"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    meanwhile();
    let output = wrk.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for fault in ["Socket errors", "Non-2xx"] {
        assert!(!text.contains(fault), "{what}: {text}");
    }
    let line = text.lines().find(|l| l.contains(" requests in ")).unwrap_or_else(|| panic!("{text}"));
    println!("{what}: {}; none was lost", line.trim());
    line.trim().split(' ').next().unwrap().parse().unwrap()
}

fn serving(ground: &Ground) -> (Controller, Rules, Vec<Server>) {
    let servers: Vec<Server> = (0..6).map(|n| Server::start(&format!("s{n}"), 11 + n)).collect();
    let rules = Rules::new().prefix("h.com", "/", "there");
    let endpoints: Vec<SocketAddr> = servers[..3].iter().map(|s| s.address).collect();
    (ground.serving(&rules.0, &[("default-there-80", &endpoints)]), rules, servers)
}

fn asked(server: &Server) -> usize {
    server.connections.load(std::sync::atomic::Ordering::Relaxed)
}

fn replacing_endpoints_under_load_loses_no_request(ground: &Ground) {
    let (mut controller, _rules, servers) = serving(ground);
    let before = processes(&ground.program);
    let made = under_load("three pods replaced one by one", || {
        for n in 0..3 {
            let now: Vec<SocketAddr> = servers[n + 1..n + 4].iter().map(|s| s.address).collect();
            controller.endpoints(&[("default-there-80", &now)]);
            until("the new one is asked", || asked(&servers[n + 3]) > 0);
        }
    });
    assert!(made > 1000, "{made}");
    assert_eq!(processes(&ground.program), before, "no reload");
}

fn changing_rules_under_load_loses_no_request(ground: &Ground) {
    let (mut controller, mut rules, _servers) = serving(ground);
    let made = under_load("three rules added", || {
        for n in 0..3 {
            let host = format!("new{n}.com");
            rules = std::mem::take(&mut rules).prefix(&host, "/", "there");
            controller.routing(&rules.0);
            until("the new rule holds", || crate::client::get(&host, "/").code == 200);
        }
    });
    assert!(made > 1000, "{made}");
    assert_eq!(controller.heard("refused"), 0);
}
