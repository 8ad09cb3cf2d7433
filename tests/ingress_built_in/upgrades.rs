//! WebSocket and other upgrades.

use std::io::{Read, Write};
use std::time::Duration;

use labctl::plan::ingress::Options;

use crate::endpoint::{Pod, read_request};
use crate::process::{Controller, header, hear, hear_one, status};

/// Agrees to speak `echo`, and does.
fn echo() -> Pod {
    Pod::raw(|mut stream| {
        let mut reader = std::io::BufReader::new(stream.try_clone().unwrap());
        let Some(request) = read_request(&mut reader) else { return };
        if header(&request, "upgrade") != Some("echo") {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain");
            return;
        }
        let _ = stream.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\nX-Own: 1\r\n\r\nhi",
        );
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = reader.read(&mut piece) {
            let _ = stream.write_all(&piece[..count]);
        }
    })
}

const ASK: &str = "GET /socket HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: echo\r\n\r\n";

#[test]
fn after_an_upgrade_bytes_go_both_ways_unread() {
    let pod = echo();
    let controller = Controller::of(&[pod.address]);
    let mut stream = controller.connect();
    stream.write_all(ASK.as_bytes()).unwrap();
    let head = hear_one(&mut stream);
    assert_eq!((status(&head), header(&head, "upgrade"), header(&head, "x-own")), (101, Some("echo"), Some("1")));
    let mut two = [0; 2];
    stream.read_exact(&mut two).unwrap();
    assert_eq!(&two, b"hi");
    // Nothing of this would pass for HTTP.
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    for piece in bytes.chunks(1000) {
        stream.write_all(piece).unwrap();
        let mut back = vec![0; piece.len()];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(back, piece);
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(hear(&mut stream), "");
}

#[test]
fn an_upgrade_is_only_what_both_want() {
    let pod = echo();
    let controller = Controller::of(&[pod.address]);
    let mut stream = controller.connect();
    stream.write_all(ASK.replace("Upgrade: echo", "Upgrade: other").as_bytes()).unwrap();
    assert!(hear_one(&mut stream).ends_with("plain"));
    stream.write_all(ASK.replace("Upgrade: echo", "Upgrade: h2c").as_bytes()).unwrap();
    assert!(hear_one(&mut stream).ends_with("plain"));
    // Nobody asked, and the endpoint changes the protocol all the same.
    let pod =
        Pod::answering(|_| "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n".to_owned());
    assert_eq!(status(&Controller::of(&[pod.address]).get("/")), 502);
}

#[test]
fn a_silent_upgraded_connection_ends_and_one_in_use_does_not() {
    let pod = echo();
    let silence = Duration::from_secs(1);
    let controller = Controller::with(Options { read_timeout: silence, ..Options::default() }, &[pod.address]);
    let mut stream = controller.connect();
    stream.write_all(ASK.as_bytes()).unwrap();
    hear_one(&mut stream);
    let mut two = [0; 2];
    stream.read_exact(&mut two).unwrap();
    for _ in 0..5 {
        std::thread::sleep(silence / 3);
        stream.write_all(b"ho").unwrap();
        stream.read_exact(&mut two).unwrap();
    }
    assert_eq!(hear(&mut stream), "");
}
