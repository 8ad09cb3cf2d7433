//! Protocols: TLS, HTTP/2, WebSocket, hostile requests, endpoints that do not answer.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use labctl::plan::ingress::{BackendProtocol, Certificate, PathPattern};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};

use crate::Test;
use crate::client::{Connection, Server, count, curl, get, get_with};
use crate::ground::{Ground, Rules, self_signed};

pub const TESTS: &[Test] = &[
    ("tls_shows_each_name_its_certificate", tls_shows_each_name_its_certificate),
    ("strict_transport_security_is_told", strict_transport_security_is_told),
    ("http2_is_spoken_over_tls", http2_is_spoken_over_tls),
    ("endpoints_may_want_tls", endpoints_may_want_tls),
    ("a_connection_is_upgraded", a_connection_is_upgraded),
    ("without_endpoints_the_answer_is_503", without_endpoints_the_answer_is_503),
    ("another_endpoint_is_tried_where_one_is_dead", another_endpoint_is_tried_where_one_is_dead),
    ("connections_to_endpoints_are_kept", connections_to_endpoints_are_kept),
    ("requests_that_could_be_two_are_refused", requests_that_could_be_two_are_refused),
    ("each_request_is_logged", each_request_is_logged),
];

/// Takes any certificate: what is shown is compared by the tests.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

type Tls = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

/// A TLS connection that asks for `name`.
pub fn tls(name: &str) -> Tls {
    tls_for(name, &[])
}

/// One on which one of these protocols is to be spoken.
pub fn tls_for(name: &str, protocols: &[&[u8]]) -> Tls {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.dangerous().with_custom_certificate_verifier(Arc::new(Anyone)).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = TcpStream::connect("127.0.0.1:443").unwrap();
    stream.set_read_timeout(Some(crate::ground::PATIENCE)).unwrap();
    let mut tls = rustls::StreamOwned::new(client, stream);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock).unwrap();
    }
    tls
}

/// The certificate that is shown to who asks for `name`.
pub fn shown(name: &str) -> Vec<u8> {
    tls(name).conn.peer_certificates().unwrap()[0].to_vec()
}

pub fn der(certificate: &Certificate) -> Vec<u8> {
    CertificateDer::from_pem_slice(certificate.chain.as_bytes()).unwrap().to_vec()
}

fn tls_shows_each_name_its_certificate(ground: &Ground) {
    let server = Server::start("there", 11);
    let own = self_signed("h.com");
    let mut rules = Rules::new()
        .prefix("h.com", "/", "there")
        .prefix("x.h.com", "/", "there")
        .prefix("*.wild.com", "/", "there")
        .prefix("bare.wild.com", "/", "there")
        .tls("h.com", &own)
        .tls("*.wild.com", &own);
    let fake = self_signed("fake.example.com");
    rules.0.default_certificate = Some(fake.clone());
    let _controller = ground.serving(&rules.0, &[("default-there-80", &[server.address])]);
    for (name, expected) in [
        ("h.com", &own),
        ("a.wild.com", &own),
        ("b.a.wild.com", &fake),
        ("bare.wild.com", &fake),
        ("x.h.com", &fake),
        ("else.com", &fake),
    ] {
        assert_eq!(shown(name), der(expected), "{name}");
    }
    let answer = Connection::over(tls("h.com")).get("h.com", "/x");
    let seen = answer.body.to_ascii_lowercase();
    assert!(seen.contains("x-forwarded-proto: https\n") && seen.contains("x-forwarded-port: 443\n"), "{answer:?}");
    assert_eq!(Connection::over(tls("else.com")).get("h.com", "/x").code, 200, "the Host header chooses");
}

fn strict_transport_security_is_told(ground: &Ground) {
    let server = Server::start("there", 11);
    let mut rules = Rules::new()
        .prefix("h.com", "/tea", "there")
        .prefix("bare.com", "/", "there")
        .tls("h.com", &self_signed("h.com"));
    let mut controller = ground.serving(&rules.0, &[("default-there-80", &[server.address])]);
    let over_tls = |host: &str, path: &str| {
        Connection::over(tls(host)).get(host, path).header("strict-transport-security").to_owned()
    };
    // Also in an answer of the controller's own.
    for path in ["/tea", "/nowhere"] {
        assert_eq!(over_tls("h.com", path), "max-age=31536000; includeSubDomains", "{path}");
    }
    assert_eq!(over_tls("bare.com", "/"), "", "whose certificate nobody believes");
    assert_eq!(get("h.com", "/tea").header("strict-transport-security"), "");
    rules.0.settings.hsts = None;
    controller.routing(&rules.0);
    crate::ground::settles("it is not told any more", || over_tls("h.com", "/tea").is_empty());
}

fn http2_is_spoken_over_tls(ground: &Ground) {
    let server = Server::start("there", 11);
    let mut rules = Rules::new().prefix("h.com", "/", "there").tls("h.com", &self_signed("h.com"));
    let mut controller = ground.serving(&rules.0, &[("default-there-80", &[server.address])]);
    let ask = || {
        let args = ["-k", "--http2", "--resolve", "h.com:443:127.0.0.1", "-o", "/dev/null", "-w"];
        curl(&[&args[..], &["%{http_version} %{http_code}", "https://h.com/x"]].concat())
    };
    assert_eq!(ask(), "2 200");
    rules.0.settings.http2 = false;
    controller.routing(&rules.0);
    crate::ground::settles("HTTP/1.1 is spoken", || ask() == "1.1 200");
}

/// An endpoint that speaks TLS and answers every connection alike.
fn tls_endpoint(number: u8) -> SocketAddr {
    let own = self_signed("pod");
    let chain = vec![CertificateDer::from_pem_slice(own.chain.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap());
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, number], 8443))).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let server = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut tls = rustls::StreamOwned::new(server, stream);
            let mut request = [0; 4096];
            if std::io::Read::read(&mut tls, &mut request).is_ok() {
                let _ = tls.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 6\r\n\r\nsecret");
                let _ = tls.flush();
            }
        }
    });
    address
}

fn endpoints_may_want_tls(ground: &Ground) {
    let rules = Rules::new().prefix("h.com", "/", "there").backend("there", |b| b.protocol = BackendProtocol::Https);
    let _controller = ground.serving(&rules.0, &[("default-there-80", &[tls_endpoint(11)])]);
    let answer = get("h.com", "/");
    assert_eq!((answer.code, answer.body.as_str()), (200, "secret"));
}

fn a_connection_is_upgraded(ground: &Ground) {
    let server = Server::start("there", 11);
    let rules = Rules::new().prefix("h.com", "/", "there");
    let _controller = ground.serving(&rules.0, &[("default-there-80", &[server.address])]);
    let mut connection = Connection::plain();
    let head = "GET /chat HTTP/1.1\r\nHost: h.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    connection.write(head.as_bytes()).unwrap();
    assert_eq!(connection.read().unwrap().code, 101);
    for words in ["both ways", "and again"] {
        connection.write(words.as_bytes()).unwrap();
        assert_eq!(connection.read_bytes(words.len()), words.as_bytes());
    }
}

fn without_endpoints_the_answer_is_503(ground: &Ground) {
    let server = Server::start("there", 11);
    let rules = Rules::new().prefix("h.com", "/none", "none").prefix("h.com", "/", "there");
    let mut controller = ground.serving(&rules.0, &[]);
    assert_eq!((get("h.com", "/").code, get("h.com", "/none").code), (503, 503));
    controller.endpoints(&[("default-there-80", &[server.address])]);
    crate::ground::until("the endpoint is asked", || get("h.com", "/").code == 200);
    controller.endpoints(&[]);
    crate::ground::until("nobody is asked", || get("h.com", "/").code == 503);
}

/// An address at which nobody listens.
const DEAD: ([u8; 4], u16) = ([127, 0, 0, 99], 8080);

fn another_endpoint_is_tried_where_one_is_dead(ground: &Ground) {
    let server = Server::start("there", 11);
    let rules = Rules::new().prefix("h.com", "/dead", "dead").prefix("h.com", "/", "there");
    let dead = SocketAddr::from(DEAD);
    let all: [(&str, &[SocketAddr]); 2] = [("default-there-80", &[dead, server.address]), ("default-dead-80", &[dead])];
    let _controller = ground.serving(&rules.0, &all);
    assert_eq!(count("h.com", "/", 20), [("there".to_owned(), 20)].into());
    assert_eq!(get("h.com", "/dead").code, 502);
}

fn connections_to_endpoints_are_kept(ground: &Ground) {
    let server = Server::start("there", 11);
    let rules = Rules::new().prefix("h.com", "/", "there");
    let _controller = ground.serving(&rules.0, &[("default-there-80", &[server.address])]);
    let mut connection = Connection::plain();
    for _ in 0..50 {
        assert_eq!(connection.get("h.com", "/").code, 200);
    }
    let used = server.connections.load(Ordering::Relaxed);
    assert!(used <= 2, "{used} connections for 50 requests of one client");
    // One that the endpoint has closed meanwhile is no reason to fail.
    server.cut();
    assert_eq!(connection.get("h.com", "/").code, 200);
}

fn requests_that_could_be_two_are_refused(ground: &Ground) {
    let server = Server::start("there", 11);
    let rules = Rules::new().path("h.com", PathPattern::Prefix("/".to_owned()), "there", |_| {});
    let _controller = ground.serving(&rules.0, &[("default-there-80", &[server.address])]);
    let hostile = [
        "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n-1\r\nhello\r\n0\r\n\r\n",
        "Content-Length: -1\r\n\r\n",
    ];
    for rest in hostile {
        let mut connection = Connection::plain();
        connection.write(format!("POST / HTTP/1.1\r\nHost: h.com\r\n{rest}").as_bytes()).unwrap();
        let code = connection.read().map_or(0, |answer| answer.code);
        assert!([0, 400, 501].contains(&code), "{code}: {rest}");
    }
    // Of both lengths the chunks count, and the endpoint never sees two requests (RFC 9112, 6.1).
    let both =
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h.com\r\n\r\n";
    let mut connection = Connection::plain();
    connection.write(format!("POST / HTTP/1.1\r\nHost: h.com\r\n{both}").as_bytes()).unwrap();
    let answer = connection.read().unwrap();
    assert!(answer.code == 400 || !answer.body.to_ascii_lowercase().contains("content-length: 4"), "{answer:?}");
    let many = "x: y\r\n".repeat(10_000);
    let code = get_with("h.com", "/", &many).code;
    assert!([400, 431].contains(&code), "{code}");
    assert_eq!(get("h.com", "/").code, 200);
}

fn each_request_is_logged(ground: &Ground) {
    let server = Server::start("there", 11);
    let rules = Rules::new().prefix("h.com", "/", "there");
    let controller = ground.serving(&rules.0, &[("default-there-80", &[server.address])]);
    get("h.com", "/in/the/log");
    let line = controller.logs("/in/the/log");
    assert!(line.contains(" 200 ") && line.contains("default-there-80"), "{line}");
}
