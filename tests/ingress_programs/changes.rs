//! What changes while a controller serves: endpoints, rules, certificates; files that the program
//! refuses, and the program's own death.

use std::net::SocketAddr;

use labctl::plan::ingress::{PathPattern, Update};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Test;
use crate::client::{Connection, Server, count, get};
use crate::ground::{Controller, Ground, Rules, processes, self_signed, settles, until};
use crate::wire::{der, shown};

pub const TESTS: &[Test] = &[
    ("endpoints_change_without_a_reload", endpoints_change_without_a_reload),
    ("a_hundred_endpoints_take_turns", a_hundred_endpoints_take_turns),
    ("a_rule_is_changed", a_rule_is_changed),
    ("a_certificate_is_changed", a_certificate_is_changed),
    ("a_file_that_is_refused_changes_nothing", a_file_that_is_refused_changes_nothing),
    ("an_unknown_field_is_named", an_unknown_field_is_named),
    ("a_program_that_dies_is_started_again", a_program_that_dies_is_started_again),
    ("all_ends_with_the_control_channel", all_ends_with_the_control_channel),
    ("a_port_that_is_taken_is_told", a_port_that_is_taken_is_told),
    ("keys_are_nobody_elses_to_read", keys_are_nobody_elses_to_read),
];

pub const NGINX: &[Test] = &[("fields_are_directives", nginx_fields_are_directives)];
pub const HAPROXY: &[Test] = &[("fields_are_directives", haproxy_fields_are_directives)];

fn there(ground: &Ground) -> (Controller, Rules, Server) {
    let server = Server::start("there", 11);
    let rules = Rules::new().prefix("h.com", "/", "there");
    let controller = ground.serving(&rules.0, &[("default-there-80", &[server.address])]);
    (controller, rules, server)
}

fn endpoints_change_without_a_reload(ground: &Ground) {
    let (mut controller, _rules, first) = there(ground);
    let others: Vec<Server> = (1..4).map(|n| Server::start(&format!("new{n}"), 11 + n)).collect();
    let before = processes(&ground.program);
    let mut lasting = Connection::plain();
    assert_eq!(lasting.get("h.com", "/").by(), "there");
    // One by one: the new one comes, the old one goes.
    let mut old = first.address;
    for (n, new) in others.iter().enumerate() {
        controller.endpoints(&[("default-there-80", &[old, new.address])]);
        until("both answer", || count("h.com", "/", 4).len() == 2);
        controller.endpoints(&[("default-there-80", &[new.address])]);
        let name = format!("new{}", n + 1);
        until("only the new one answers", || count("h.com", "/", 4) == [(name.clone(), 4)].into());
        assert_eq!(lasting.get("h.com", "/").by(), name, "on the connection of the beginning");
        old = new.address;
    }
    assert_eq!(processes(&ground.program), before, "the same processes serve");
}

fn a_hundred_endpoints_take_turns(ground: &Ground) {
    let (mut controller, _rules, _server) = there(ground);
    let servers: Vec<Server> = (0..100).map(|n| Server::start(&format!("s{n}"), 100 + n)).collect();
    let all: Vec<SocketAddr> = servers.iter().map(|s| s.address).collect();
    controller.endpoints(&[("default-there-80", &all)]);
    until("all of them answer", || count("h.com", "/", 100).len() == 100);
    let counts = count("h.com", "/", 200);
    assert!(counts.len() == 100 && counts.values().all(|n| *n == 2), "{counts:?}");
}

fn a_rule_is_changed(ground: &Ground) {
    let (mut controller, rules, server) = there(ground);
    let rules = rules.prefix("new.com", "/late", "late").prefix("new.com", "/", "there");
    let late = Server::start("late", 12);
    controller.endpoints(&[("default-there-80", &[server.address]), ("default-late-80", &[late.address])]);
    assert_eq!(get("new.com", "/").code, 404);
    let mut lasting = Connection::plain();
    let sleeping = std::thread::spawn(|| get("h.com", "/sleep/1000").code);
    assert_eq!(lasting.get("h.com", "/").code, 200);
    controller.routing(&rules.0);
    settles("the new host is served", || get("new.com", "/").code == 200);
    assert_eq!(get("h.com", "/").code, 200);
    assert_eq!(sleeping.join().unwrap(), 200, "a request of before is answered");
    assert_eq!(controller.heard("refused"), 0);
    // The same again is no change.
    let before = processes(&ground.program);
    controller.routing(&rules.0);
    controller.endpoints(&[("default-there-80", &[late.address]), ("default-late-80", &[late.address])]);
    until("the next thing told is done", || get("h.com", "/").by() == "late");
    until("the old process has gone", || processes(&ground.program).len() <= before.len());
}

fn a_certificate_is_changed(ground: &Ground) {
    let server = Server::start("there", 11);
    let [first, second] = ["h.com", "h.com"].map(self_signed);
    let rules = Rules::new().prefix("h.com", "/", "there").tls("h.com", &first);
    let mut controller = ground.serving(&rules.0, &[("default-there-80", &[server.address])]);
    assert_eq!(shown("h.com"), der(&first));
    controller.routing(&rules.tls("h.com", &second).0);
    settles("the new certificate is shown", || shown("h.com") == der(&second));
}

fn a_file_that_is_refused_changes_nothing(ground: &Ground) {
    let (mut controller, rules, server) = there(ground);
    let bad = |rules: Rules| rules.path("new.com", PathPattern::Regex("/a(b".to_owned()), "there", |_| {});
    let before = processes(&ground.program);
    let refused = bad(Rules::new().prefix("h.com", "/", "there"));
    controller.routing(&refused.0);
    let said = controller.hears("refused");
    assert!(said.contains("comes from ingress default/cafe"), "{said}");
    assert_eq!(processes(&ground.program), before);
    assert_eq!(get("h.com", "/").code, 200);
    assert_eq!(get("new.com", "/ab").code, 404);
    // It still hears of endpoints, and of a file that is right.
    controller.endpoints(&[]);
    until("nobody is asked", || get("h.com", "/").code == 503);
    controller.endpoints(&[("default-there-80", &[server.address])]);
    controller.routing(&rules.prefix("new.com", "/", "there").0);
    controller.hears("accepted");
    settles("it is served", || get("new.com", "/ab").code == 200);
}

fn an_unknown_field_is_named(ground: &Ground) {
    let rules = Rules::new().prefix("h.com", "/", "there").field("proxy-boddy-size", "8m");
    let controller = ground.serving(&rules.0, &[]);
    let line = controller.logs("proxy-boddy-size");
    assert!(line.contains(&ground.program), "{line}");
}

fn main_process(program: &str) -> Pid {
    Pid::from_raw(processes(program)[0])
}

fn a_program_that_dies_is_started_again(ground: &Ground) {
    let (mut controller, rules, server) = there(ground);
    // A process that lives shorter than a second is not started again.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    kill(main_process(&ground.program), Signal::SIGKILL).unwrap();
    controller.logs("has ended (signal: 9");
    until("it serves again", || {
        std::net::TcpStream::connect("127.0.0.1:80").is_ok() && count_safely() == Some("there".to_owned())
    });
    let second = Server::start("second", 12);
    controller.endpoints(&[("default-there-80", &[second.address])]);
    until("it hears of endpoints", || get("h.com", "/").by() == "second");
    controller.routing(&rules.prefix("new.com", "/", "there").0);
    settles("it hears of rules", || get("new.com", "/").code == 200);
    // Twice at once: its words are ours.
    kill(main_process(&ground.program), Signal::SIGTERM).unwrap();
    until("it serves again", || std::net::TcpStream::connect("127.0.0.1:80").is_ok());
    drop(server);
}

/// Who answers, where an answer comes.
fn count_safely() -> Option<String> {
    let mut connection = Connection::plain();
    connection.write(b"GET / HTTP/1.1\r\nHost: h.com\r\n\r\n").ok()?;
    connection.read().ok().map(|answer| answer.by().to_owned())
}

fn all_ends_with_the_control_channel(ground: &Ground) {
    let (mut controller, _rules, _server) = there(ground);
    assert!(!processes(&ground.program).is_empty());
    controller.hang_up();
    assert!(controller.ended());
    until("the program ends, too", || processes(&ground.program).is_empty());
}

fn a_port_that_is_taken_is_told(ground: &Ground) {
    let _taken = std::net::TcpListener::bind("127.0.0.1:80").unwrap();
    let mut controller = Controller::start(&ground.config());
    controller.tell(&Update::Routing(Box::default()));
    assert!(!controller.ended());
    controller.logs("127.0.0.1:80");
}

fn keys_are_nobody_elses_to_read(ground: &Ground) {
    use std::os::unix::fs::PermissionsExt;
    let own = self_signed("h.com");
    let rules = Rules::new().prefix("h.com", "/", "there").tls("h.com", &own);
    let controller = ground.serving(&rules.0, &[]);
    let mode = |name: &str| std::fs::metadata(controller.directory.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("."), 0o700);
    assert_eq!(mode("current/certificates/default_cafe-secret.pem"), 0o600);
    let secret = own.key.lines().nth(1).unwrap();
    for file in ["nginx.conf", "haproxy.cfg"] {
        let text = std::fs::read_to_string(controller.directory.join("current").join(file)).unwrap_or_default();
        assert!(!text.contains(secret));
    }
    assert!(!controller.log().contains(secret));
}

fn nginx_fields_are_directives(ground: &Ground) {
    let server = Server::start("there", 11);
    let rules = Rules::new()
        .prefix("h.com", "/", "there")
        .field("log-format-upstream", "seen $request_uri \"by\" {$host}")
        .field("use-gzip", "true")
        .field("gzip-types", "text/plain")
        .field("server-tokens", "maybe")
        .tls("h.com", &self_signed("h.com"));
    let controller = ground.serving(&rules.0, &[("default-there-80", &[server.address])]);
    get("h.com", "/x");
    controller.logs("seen /x \"by\" {h.com}");
    controller.logs("server-tokens cannot be \"maybe\"");
    let answer = Connection::over(crate::wire::tls("h.com")).get("h.com", "/");
    assert_eq!(answer.header("server"), "nginx");
}

fn haproxy_fields_are_directives(ground: &Ground) {
    let server = Server::start("there", 11);
    let rules = Rules::new()
        .prefix("h.com", "/", "there")
        .field("load-balance", "first")
        .field("timeout-http-request", "300ms")
        .field("maxconn", "many");
    let controller = ground.serving(&rules.0, &[("default-there-80", &[server.address])]);
    let mut slow = Connection::plain();
    slow.write(b"GET / HT").unwrap();
    assert_eq!(slow.read().unwrap().code, 408);
    controller.logs("maxconn cannot be \"many\"");
    let text = std::fs::read_to_string(controller.directory.join("current/haproxy.cfg")).unwrap();
    assert!(text.contains("balance first\n"), "{text}");
}
