//! Probes of servers: TCP, UDP, HTTP, TLS, DNS, and programs.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::str::FromStr;
use std::sync::Arc;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record, RecordType};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::world::{ASKER, World, differed, echo, http, identity, ip, passed, sh};

#[test]
fn a_closed_port_refuses() {
    let world = crate::world!();
    let seen = world.one("tcp: 'server:81'");
    differed(&seen, &["refused: 10.9.1.2:81 refused the connection"]);
    assert_eq!(seen.tried.as_deref(), Some("10.9.1.2:81"));
    passed(&world.one("tcp: 'server:81', expect: { fail: refused }"));
    passed(&world.one("tcp: 'server:81', expect: fail"));
}

#[test]
fn a_connection_can_be_dropped_rejected_or_led_nowhere() {
    let world = crate::world!();
    sh(&world.server, "iptables -A INPUT -p tcp --dport 81 -j DROP");
    differed(&world.one("tcp: 'server:81'"), &["timeout: no answer from 10.9.1.2:81 within 1 s"]);
    sh(&world.router, "iptables -A FORWARD -p tcp --dport 82 -j REJECT --reject-with icmp-admin-prohibited");
    let rejected = world.one("tcp: 'server:82', expect: { fail: unreachable }");
    passed(&rejected);
    let words = "10.9.0.254 (router) says of 10.9.1.2:82: communication prohibited by a filter";
    assert!(rejected.observed.contains(words), "{}", rejected.observed);
    sh(&world.router, "iptables -A FORWARD -p tcp --dport 83 -j REJECT");
    let refused = world.one("tcp: 'server:83', expect: { fail: refused }");
    passed(&refused);
    assert!(refused.observed.contains("10.9.0.254 (router)"), "{}", refused.observed);
    let nowhere = world.one("tcp: '10.77.0.1:80'");
    differed(&nowhere, &["unreachable: 10.9.0.254 (router) says of 10.77.0.1:80: host unreachable"]);
    let no_route = world.ask("  - { from: server, tcp: '172.16.0.1:80', retries: 0 }\n").remove(0);
    differed(&no_route, &["unreachable: 172.16.0.1:80 cannot be reached: the sender has no route to it"]);
}

#[test]
fn the_echo_server_says_who_it_is_and_whom_it_sees() {
    let world = crate::world!();
    world.tcp(80, echo("server"));
    let seen = world.one("tcp: { to: 'server:80', send: hello }, expect: { pod: ser*, source: asker, body: hello }");
    passed(&seen);
    assert_eq!(seen.details.answered_by.as_deref(), Some("server"));
    assert_eq!(seen.details.source.map(|s| s.ip()), Some(ip(ASKER)));
    let other = world.one("tcp: 'server:80', expect: { pod: tea-*, source: 10.244.0.0/16 }");
    differed(&other, &["an answer from server, seen as coming from 10.9.0.1"]);
    assert_eq!(other.expected, "an answer, from tea-*, seen as coming from 10.244.0.0/16");
}

#[test]
fn any_server_will_do_where_only_words_are_wanted() {
    let world = crate::world!();
    world.tcp(25, |mut stream| stream.write_all(b"220 mail ready\r\n"));
    passed(&world.one("tcp: 'server:25', expect: { body: ready }"));
    differed(&world.one("tcp: 'server:25', expect: { pod: server }"), &["does not say who it is"]);
}

#[test]
fn a_connection_that_is_cut_is_a_reset() {
    let world = crate::world!();
    world.tcp(80, |stream| {
        socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO))?;
        drop(stream);
        Ok(())
    });
    let seen = world.one("tcp: { to: 'server:80', send: x }, expect: { fail: reset }");
    passed(&seen);
    passed(&world.one("http: 'http://server/', expect: { fail: reset }"));
}

#[test]
fn a_server_that_says_nothing_is_a_timeout_after_the_connection() {
    let world = crate::world!();
    let mut kept = Vec::new();
    world.tcp(80, move |stream| {
        kept.push(stream);
        Ok(())
    });
    passed(&world.one("tcp: 'server:80'"));
    let seen = world.one("timeout: 0.3, tcp: { to: 'server:80', send: x }");
    differed(&seen, &["timeout: 10.9.1.2:80 took the connection but sent no answer within 0.3 s"]);
    let web = world.one("timeout: 0.3, http: 'http://server/'");
    differed(&web, &["timeout: 10.9.1.2:80 took the connection but gave no whole answer within 0.3 s"]);
    let tls = world.one("timeout: 0.3, http: 'https://server:80/'");
    differed(&tls, &["timeout: 10.9.1.2:80 took the connection but did not finish a TLS handshake"]);
}

#[test]
fn what_did_not_all_come_back_is_counted() {
    let world = crate::world!();
    let mut kept = Vec::new();
    world.tcp(80, move |mut stream| {
        stream.write_all(identity("server", "10.9.0.1:1").as_bytes())?;
        stream.write_all(b"hel")?;
        kept.push(stream);
        Ok(())
    });
    let seen = world.one("timeout: 0.3, tcp: { to: 'server:80', send: hello }");
    differed(&seen, &["timeout: 10.9.1.2:80 said who it is and sent back 3 of 5 bytes within 0.3 s"]);
}

#[test]
fn a_datagram_is_answered_refused_or_lost() {
    let world = crate::world!();
    world.udp(("0.0.0.0", 7), |sent, source| [identity("server", &source).as_bytes(), sent].concat());
    let seen = world.one("udp: { to: 'server:7', send: hello }, expect: { pod: server, body: hello, source: asker }");
    passed(&seen);
    let refused = world.one("udp: 'server:81'");
    differed(&refused, &["refused: 10.9.1.2:81 refused: port unreachable"]);
    sh(&world.server, "iptables -A INPUT -p udp --dport 82 -j DROP");
    differed(&world.one("udp: 'server:82'"), &["timeout: no answer from 10.9.1.2:82 within 1 s"]);
    differed(&world.one("udp: '10.77.0.1:82'"), &["unreachable: 10.9.0.254 (router)"]);
}

#[test]
fn shares_of_many_answers_are_counted() {
    let world = crate::world!();
    let mut turn = 0;
    world.tcp(80, move |stream| {
        turn += 1;
        echo(if turn % 2 == 0 { "tea-1" } else { "tea-2" })(stream)
    });
    let even = world.one("tcp: 'server:80', count: 40, expect: { distribution: { tea-1: 0.5, tea-2: 0.5 } }");
    passed(&even);
    assert_eq!(even.details.distribution, [("tea-1".to_owned(), 20), ("tea-2".to_owned(), 20)].into());
    let odd = world.one("tcp: 'server:80', count: 40, expect: { distribution: { tea-1: 0.9 } }");
    differed(&odd, &["40 answers to 40 tries: tea-1 20, tea-2 20; tea-1 gave 0.50"]);
}

fn page(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn a_web_answer_has_status_body_and_answerer() {
    let world = crate::world!();
    world.tcp(
        80,
        http(|request, source| match request.split(' ').nth(1) {
            Some("/tea") => page("200 OK", &identity("server", &source)),
            _ => page("404 Not Found", "no such page"),
        }),
    );
    let seen = world.one("http: 'http://server/tea', expect: { status: 200, pod: server, source: asker }");
    passed(&seen);
    let missing = world.one("http: 'http://server/milk'");
    differed(&missing, &["10.9.1.2:80 answers 404 Not Found"]);
    passed(&world.one("http: 'http://server/milk', expect: { status: 404, body: no such }"));
    passed(&world.one("http: 'http://server/milk', expect: fail"));
    let wrong = world.one("http: 'http://server/tea', expect: { status: 404 }");
    differed(&wrong, &["an answer from server, status 200"]);
}

#[test]
fn a_request_goes_where_it_is_sent_with_its_own_host() {
    let world = crate::world!();
    world.tcp(8080, http(|request, _| page("200 OK", request)));
    let url = "url: 'http://cafe.example.com:8080/', connectTo: server, headers: { x-asker: me }";
    let seen = world.one(&format!("http: {{ {url} }}, expect: {{ body: 'host: cafe.example.com:8080' }}"));
    passed(&seen);
    assert_eq!((seen.target.as_str(), seen.tried.as_deref()), ("http://cafe.example.com:8080/", Some("10.9.1.2:8080")));
    passed(&world.one(&format!("http: {{ {url} }}, expect: {{ body: 'x-asker: me' }}")));
}

#[test]
fn what_is_not_http_is_a_protocol_failure() {
    let world = crate::world!();
    world.tcp(80, http(|_, _| "this is no HTTP at all\r\n\r\n".to_owned()));
    differed(&world.one("http: 'http://server/'"), &["protocol: 10.9.1.2:80 answers what is not HTTP"]);
}

#[test]
fn a_certificate_is_checked_unless_told_otherwise() {
    let world = crate::world!();
    let made = rcgen::generate_simple_self_signed(["cafe.example.com".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|b| b.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key));
    let config = Arc::new(config.expect("a configuration"));
    world.tcp(443, move |mut stream| {
        let mut session = rustls::ServerConnection::new(config.clone()).map_err(io::Error::other)?;
        let mut tls = rustls::Stream::new(&mut session, &mut stream);
        let mut buffer = [0_u8; 4096];
        let _ = tls.read(&mut buffer)?;
        let asked_for = tls.conn.server_name().unwrap_or("nobody").to_owned();
        tls.write_all(page("200 OK", &format!("hello over TLS from {asked_for}")).as_bytes())
    });
    let url = "url: 'https://cafe.example.com/', connectTo: server";
    passed(&world.one(&format!(
        "http: {{ {url}, insecure: true }}, expect: {{ status: 200, body: over TLS from cafe.example.com }}"
    )));
    let checked = world.one(&format!("http: {{ {url} }}, expect: {{ fail: tls }}"));
    passed(&checked);
    assert!(checked.observed.contains("tls: no TLS with 10.9.1.2:443"), "{}", checked.observed);
    world.tcp(25, |mut stream| stream.write_all(b"220 mail ready\r\n"));
    differed(&world.one("http: 'https://server:25/'"), &["tls: no TLS with 10.9.1.2:25"]);
}

/// A name server that knows one name. Over UDP it says of `big` names that they did not fit.
fn answer(query: &[u8], udp: bool) -> Vec<u8> {
    let query = Message::from_vec(query).expect("a query");
    let mut response = query.clone().into_response();
    let asked = &query.queries[0];
    match asked.name().to_string().as_str() {
        "tea.example.com." if asked.query_type() == RecordType::A => {
            response.add_answer(Record::from_rdata(asked.name().clone(), 5, RData::A(A(Ipv4Addr::new(10, 9, 1, 2)))));
        }
        "tea.example.com." => {}
        "big.example.com." if udp => response.metadata.truncation = true,
        "big.example.com." => {
            for n in 1..=100 {
                let data = RData::A(A(Ipv4Addr::new(10, 0, 0, n)));
                response.add_answer(Record::from_rdata(asked.name().clone(), 5, data));
            }
        }
        _ => response.metadata.response_code = ResponseCode::NXDomain,
    }
    response.to_vec().expect("a response")
}

fn name_server(world: &World) {
    world.udp(("10.96.0.10", 53), |query, _| answer(query, true));
    world.tcp(53, |mut stream: TcpStream| {
        let mut length = [0_u8; 2];
        stream.read_exact(&mut length)?;
        let mut query = vec![0_u8; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query)?;
        let response = answer(&query, false);
        let length = u16::try_from(response.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], &response].concat())
    });
}

#[test]
fn dns_answers_records_and_codes() {
    let world = crate::world!();
    name_server(&world);
    let seen = world.one("dns: tea.example.com, expect: { answers: [10.9.1.2], rcode: NOERROR }");
    passed(&seen);
    assert_eq!(seen.tried.as_deref(), Some("10.96.0.10:53"));
    differed(&world.one("dns: milk.example.com"), &["name: 10.96.0.10:53 answers NXDOMAIN for milk.example.com A"]);
    passed(&world.one("dns: milk.example.com, expect: { rcode: NXDOMAIN }"));
    passed(&world.one("dns: milk.example.com, expect: { fail: name }"));
    let empty = "dns: { name: tea.example.com, type: SRV }";
    differed(&world.one(empty), &["10.96.0.10:53 knows no SRV record of tea.example.com"]);
    passed(&world.one(&format!("{empty}, expect: {{ answers: [] }}")));
    let other = world.one("dns: tea.example.com, expect: { answers: [10.9.1.3] }");
    differed(&other, &["records 10.9.1.2"]);
    differed(&world.one("dns: { name: a.b, server: '10.9.1.254' }"), &["refused: 10.9.1.254:53 refused"]);
}

#[test]
fn a_truncated_dns_answer_is_fetched_over_tcp() {
    let world = crate::world!();
    name_server(&world);
    let seen = world.one("dns: big.example.com");
    passed(&seen);
    assert_eq!(seen.details.answers.map(|a| a.len()), Some(100));
    passed(&world.one("dns: { name: tea.example.com, tcp: true }"));
}

#[test]
fn a_name_is_resolved_by_the_cluster_dns_or_fails_as_one() {
    let world = crate::world!();
    let unanswered = world.one_from("guest", "tcp: 'tea.example.com:80'");
    differed(&unanswered, &["name: `tea.example.com` does not resolve: 10.96.0.10:53 refused"]);
    name_server(&world);
    world.tcp(80, echo("server"));
    let seen = world.one_from("guest", "tcp: 'tea.example.com:80', expect: { pod: server }");
    passed(&seen);
    assert_eq!(seen.tried.as_deref(), Some("10.9.1.2:80"));
    let unknown = world.one_from("guest", "ping: milk.example.com, expect: { fail: name }");
    passed(&unknown);
    let all = "NXDOMAIN for milk.example.com.default.svc.cluster.local, milk.example.com.svc.cluster.local, \
               milk.example.com.cluster.local and milk.example.com";
    assert!(unknown.observed.contains(all), "{}", unknown.observed);
    assert_eq!(unknown.tried, None);
    // Clients and hosts know no DNS server.
    let nobody = "does not resolve: it is not in the /etc/hosts of asker, which knows no DNS server";
    differed(&world.one("tcp: 'tea.example.com:80'"), &[nobody]);
}

#[test]
fn a_program_runs_there_and_its_end_counts() {
    let world = crate::world!();
    passed(&world.one("exec: [ip, -o, addr], expect: { body: 10.9.0.1/24 }"));
    let seen = world.one("exec: [sh, -c, 'echo to stdout; echo to stderr >&2; exit 3']");
    differed(&seen, &["`sh` ended with exit code 3", "to stdout\\nto stderr"]);
    assert_eq!(seen.details.exit_code, Some(3));
    passed(&world.one("exec: [sh, -c, exit 3], expect: { exitCode: 3 }"));
    passed(&world.one("exec: [sh, -c, exit 3], expect: fail"));
    differed(&world.one("exec: [sh, -c, exit 3], expect: { exitCode: 4 }"), &["exit code 3"]);
    let missing = world.one("exec: [/nowhere/at/all], expect: fail");
    differed(&missing, &["could not be asked: `/nowhere/at/all` on asker: No such file"]);
}

#[test]
fn a_program_that_does_not_end_is_killed_with_its_children() {
    let world = crate::world!();
    let begin = std::time::Instant::now();
    let seen = world.one("timeout: 0.3, exec: [sh, -c, 'echo $$; sleep 1000 & wait'], expect: { fail: timeout }");
    passed(&seen);
    let words = "timeout: `sh` on asker did not end within 0.3 s and was killed; it said: ";
    let group = seen.observed.strip_prefix(words).unwrap_or_else(|| panic!("{}", seen.observed));
    let group: i32 = group.trim().parse().expect("the leader's number");
    while let Some(stat) = living_member(group) {
        assert!(begin.elapsed().as_secs() < 20, "still there: {stat}");
        std::thread::yield_now();
    }
}

/// A process of the group that is not dead; the dead stay visible until they are waited for.
fn living_member(group: i32) -> Option<String> {
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let stats = processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    stats.into_iter().find(|stat| {
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let alive = fields.first().is_some_and(|state| !matches!(*state, "Z" | "X"));
        alive && fields.get(2).and_then(|g| i32::from_str(g).ok()) == Some(group)
    })
}

#[test]
fn a_probe_that_differs_is_asked_again_but_a_wrong_success_is_not() {
    let world = crate::world!();
    let mut met = 0;
    world.tcp(80, move |stream| {
        met += 1;
        // The first two are hung up on.
        if met < 3 { stream.shutdown(std::net::Shutdown::Both) } else { echo("server")(stream) }
    });
    let ask = |more: &str| world.ask(&format!("  - {{ from: asker, tcp: {{ to: 'server:80', send: x }}, {more} }}\n"));
    let late = ask("retries: 5").remove(0);
    passed(&late);
    assert_eq!(late.tries, 3);
    let wrong = ask("retries: 5, expect: fail").remove(0);
    differed(&wrong, &["an answer from server"]);
    assert_eq!(wrong.tries, 1);
}

#[test]
fn a_namespace_that_is_not_there_is_no_failure_of_the_network() {
    let world = crate::world!();
    let seen = world.ask("  - { from: node1, ping: server, retries: 0, expect: fail }\n").remove(0);
    differed(&seen, &["could not be asked: node1 is not there"]);
}

/// The request goes where `connectTo` says, and asks for what the URL says, as with curl.
#[test]
fn a_request_for_any_url_can_be_sent_elsewhere() {
    let world = crate::world!();
    let web = || {
        http(|request: &str, _| {
            let host = request.lines().find(|l| l.to_lowercase().starts_with("host:")).unwrap_or_default().to_owned();
            let body = format!("asked for {host}!");
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
        })
    };
    world.tcp(80, web());
    world.tcp(8080, web());
    let ask = |url: &str, to: &str, host: &str| {
        world
            .one(&format!("http: {{ url: '{url}', connectTo: '{to}' }}, expect: {{ body: 'asked for host: {host}!' }}"))
    };
    for to in ["server", "10.9.1.2", "server:80", "10.9.1.2:80"] {
        let seen = ask("http://cafe.example.com/", to, "cafe.example.com");
        passed(&seen);
        assert_eq!(seen.tried.as_deref(), Some("10.9.1.2:80"), "{to}");
    }
    let seen = ask("http://cafe.example.com/", "server:8080", "cafe.example.com");
    passed(&seen);
    assert_eq!(seen.tried.as_deref(), Some("10.9.1.2:8080"), "the port of connectTo");
    let seen = ask("http://cafe.example.com:8080/", "server", "cafe.example.com:8080");
    passed(&seen);
    assert_eq!(seen.tried.as_deref(), Some("10.9.1.2:8080"), "the port of the URL");
    differed(&world.one("http: { url: 'http://server/', connectTo: 'server:81' }"), &["refused: 10.9.1.2:81"]);
}
