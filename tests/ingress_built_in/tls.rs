//! TLS towards clients: which certificate is shown, and that new ones reach new connections only.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use labctl::plan::ingress::{BackendProtocol, Certificate, Options, PathPattern, Routing, Server, Settings, Tls};
use labctl::probe::tls;
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use crate::endpoint::Pod;
use crate::process::{
    BACKEND, Controller, all_to, backend, connect, ends, header, hear, hear_one, location, server, source, status,
    until,
};

type Stream = StreamOwned<ClientConnection, TcpStream>;

pub fn certificate(name: &str) -> Certificate {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, format!("of {name}"));
    let key = KeyPair::generate().unwrap();
    Certificate { chain: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
}

fn secured(host: &str, secret: Option<&str>) -> Server {
    let tls = Some(Tls { certificate: secret.map(str::to_owned), source: source() });
    Server { tls, ..server(host, vec![location(PathPattern::Prefix("/".to_owned()), BACKEND, Options::default())]) }
}

fn open(to: SocketAddr, name: &str, protocols: &[&str]) -> Stream {
    let mut config = tls::config(None).unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut stream = StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), connect(to));
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).unwrap();
    }
    stream
}

/// Whose certificate is shown.
fn shown(stream: &Stream) -> String {
    let der = stream.conn.peer_certificates().unwrap()[0].to_vec();
    let text = String::from_utf8_lossy(&der).into_owned();
    for name in [
        "of foo.example",
        "of wild",
        "of default",
        "of new",
        "of pod",
        "Kubernetes Ingress Controller Fake Certificate",
    ] {
        if text.contains(name) {
            return name.to_owned();
        }
    }
    panic!("an unknown certificate: {text}");
}

fn get(stream: &mut Stream, host: &str) -> String {
    write!(stream, "GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
    hear_one(stream)
}

fn two_hosts() -> Routing {
    let mut wild = certificate("*.example");
    wild.chain = certificate("wild").chain;
    Routing {
        servers: vec![secured("foo.example", Some("default/foo")), secured("*.example", Some("default/wild"))],
        certificates: [
            ("default/foo".to_owned(), certificate("foo.example")),
            ("default/wild".to_owned(), certificate("wild")),
        ]
        .into(),
        ..all_to(Options::default())
    }
}

const FAKE: &str = "Kubernetes Ingress Controller Fake Certificate";

#[test]
fn each_name_is_shown_its_certificate() {
    let pod = Pod::named("a");
    let controller = Controller::start(&two_hosts(), &ends(&[pod.address]));
    for (name, whose) in [
        ("foo.example", "of foo.example"),
        ("FOO.example", "of foo.example"),
        ("bar.example", "of wild"),
        ("a.bar.example", FAKE),
        ("example", FAKE),
        ("127.0.0.1", FAKE),
    ] {
        assert_eq!(shown(&open(controller.https, name, &[])), whose, "{name}");
    }
    let mut stream = open(controller.https, "foo.example", &[]);
    assert_eq!(status(&get(&mut stream, "foo.example")), 200);
    assert_eq!(header(&pod.last(), "x-forwarded-proto"), Some("https"));
    // As nginx does: the Host header says whom the request is for, whatever name TLS began with.
    assert_eq!(status(&get(&mut stream, "bar.example")), 200);
    assert_eq!(status(&get(&mut stream, "nobody.test")), 404);
}

#[test]
fn a_broken_or_missing_secret_is_covered_by_the_default() {
    let foo = certificate("foo.example");
    let mixed = Certificate { key: certificate("other").key, ..foo };
    let routing = Routing {
        servers: vec![
            secured("foo.example", Some("default/foo")),
            secured("bar.example", Some("default/none")),
            secured("baz.example", None),
        ],
        certificates: [("default/foo".to_owned(), mixed)].into(),
        default_certificate: Some(certificate("default")),
        ..all_to(Options::default())
    };
    let controller = Controller::start(&routing, &ends(&[]));
    for name in ["foo.example", "bar.example", "baz.example", "nobody.test"] {
        assert_eq!(shown(&open(controller.https, name, &[])), "of default", "{name}");
    }
    assert!(controller.log().contains("the certificate of default/foo is not used"), "{}", controller.log());
}

#[test]
fn a_new_certificate_is_shown_to_new_connections_and_old_ones_live_on() {
    let pod = Pod::named("a");
    let mut routing = two_hosts();
    let mut controller = Controller::start(&routing, &ends(&[pod.address]));
    let mut old = open(controller.https, "foo.example", &[]);
    assert_eq!(status(&get(&mut old, "foo.example")), 200);
    routing.certificates.insert("default/foo".to_owned(), certificate("new"));
    controller.route(&routing);
    until("the new one is shown", || shown(&open(controller.https, "foo.example", &[])) == "of new");
    assert_eq!(status(&get(&mut old, "foo.example")), 200);
}

#[test]
fn the_protocol_is_agreed_on_and_http2_can_be_turned_off() {
    let mut controller = Controller::start(&two_hosts(), &ends(&[]));
    let agreed = |to, offered: &[&str]| {
        open(to, "foo.example", offered).conn.alpn_protocol().map(|name| String::from_utf8(name.to_vec()).unwrap())
    };
    assert_eq!(agreed(controller.https, &["h2", "http/1.1"]).as_deref(), Some("h2"));
    assert_eq!(agreed(controller.https, &["http/1.1"]).as_deref(), Some("http/1.1"));
    assert_eq!(agreed(controller.https, &[]), None);
    controller.route(&Routing { settings: Settings { http2: false, ..Settings::default() }, ..two_hosts() });
    until("HTTP/2 is off", || agreed(controller.https, &["h2", "http/1.1"]).as_deref() == Some("http/1.1"));
}

#[test]
fn an_endpoint_may_want_tls_whatever_its_certificate() {
    let own = certificate("pod");
    let chain = vec![rustls::pki_types::pem::PemObject::from_pem_slice(own.chain.as_bytes()).unwrap()];
    let key = rustls::pki_types::pem::PemObject::from_pem_slice(own.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap());
    let pod = Pod::raw(move |stream| {
        let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        let _ = crate::endpoint::read_request(&mut std::io::BufReader::new(&mut stream));
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret");
    });
    let behind = labctl::plan::ingress::Backend { protocol: BackendProtocol::Https, ..backend("web") };
    let routing = Routing { backends: [(BACKEND.to_owned(), behind)].into(), ..all_to(Options::default()) };
    let controller = Controller::start(&routing, &ends(&[pod.address]));
    assert!(controller.get("/").ends_with("secret"));
    // One that does not want TLS is a bad gateway.
    let plain = Pod::named("plain");
    assert_eq!(status(&Controller::start(&routing, &ends(&[plain.address])).get("/")), 502);
}

#[test]
fn a_client_may_end_within_its_handshake() {
    let controller = Controller::start(&two_hosts(), &ends(&[]));
    let mut stream = connect(controller.https);
    stream.write_all(&[0x16, 3, 1, 0, 5, 1, 2, 3, 4, 5]).unwrap();
    hear(&mut stream);
    drop(connect(controller.https));
    assert_eq!(shown(&open(controller.https, "foo.example", &[])), "of foo.example");
}
