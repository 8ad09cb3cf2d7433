//! What is told anew while requests are under way.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use labctl::plan::ingress::{Options, Routing, Update};

use crate::endpoint::Pod;
use crate::process::{Controller, all_to, body, ends, hear, hear_one, status, until};

#[test]
fn a_request_under_way_ends_where_it_began() {
    let (go, may_go) = mpsc::channel::<()>();
    let may_go = Mutex::new(may_go);
    let (asked, was_asked) = mpsc::channel::<()>();
    let slow = Pod::answering(move |request| {
        if !request.starts_with("GET /slow") {
            return "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nslow\n".to_owned();
        }
        asked.send(()).unwrap();
        may_go.lock().unwrap().recv().unwrap();
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nslow\n".to_owned()
    });
    let next = Pod::named("next");
    let mut controller = Controller::of(&[slow.address]);
    let mut stream = controller.connect();
    write!(stream, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    was_asked.recv().unwrap();
    controller.tell(&Update::Endpoints(ends(&[next.address])));
    until("the next one answers", || body(&controller.get("/")).starts_with("next\n"));
    controller.route(&Routing { servers: Vec::new(), ..all_to(Options::default()) });
    until("the rule is gone", || status(&controller.get("/")) == 404);
    go.send(()).unwrap();
    assert_eq!(body(&hear_one(&mut stream)), "slow\n");
    // The connection lives on, under what holds now.
    write!(stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(status(&hear_one(&mut stream)), 404);
}

#[test]
fn idle_connections_to_an_endpoint_end_when_it_goes() {
    let ended = Arc::new(AtomicBool::new(false));
    let noted = Arc::clone(&ended);
    let pod = Pod::raw(move |mut stream| {
        let mut head = [0; 4096];
        let _ = stream.read(&mut head);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        if matches!(stream.read(&mut head), Ok(0)) {
            noted.store(true, Ordering::Relaxed);
        }
    });
    let mut controller = Controller::of(&[pod.address]);
    assert_eq!(status(&controller.get("/")), 200);
    assert!(!ended.load(Ordering::Relaxed));
    controller.tell(&Update::Endpoints(ends(&[])));
    until("its connection is closed", || ended.load(Ordering::Relaxed));
    assert_eq!(status(&controller.get("/")), 503);
}

#[test]
fn under_load_no_request_is_lost_while_endpoints_come_and_go() {
    let pods: Vec<Pod> = ["a", "b", "c"].map(Pod::named).into();
    let addresses: Vec<_> = pods.iter().map(|pod| pod.address).collect();
    let mut controller = Controller::of(&addresses);
    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (mut stream, done) = (controller.connect(), Arc::clone(&done));
            std::thread::spawn(move || {
                let mut count = 0;
                while !done.load(Ordering::Relaxed) {
                    write!(stream, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").unwrap();
                    assert_eq!(status(&hear_one(&mut stream)), 200);
                    count += 1;
                }
                count
            })
        })
        .collect();
    for round in 0..60 {
        let mut left = addresses.clone();
        left.remove(round % 3);
        controller.tell(&Update::Endpoints(ends(&left)));
        controller.route(&all_to(Options { body_size: 1000 + round as u64, ..Options::default() }));
        let before = pods[round % 3].requests.lock().unwrap().len() + controller.log().lines().count();
        until("requests go on", || {
            pods[round % 3].requests.lock().unwrap().len() + controller.log().lines().count() > before + 20
        });
    }
    done.store(true, Ordering::Relaxed);
    let count: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
    println!("{count} requests during 60 changes of endpoints and rules, none failed");
    assert!(count > 100);
}

#[test]
fn an_update_that_is_none_changes_nothing() {
    let pod = Pod::named("a");
    let mut controller = Controller::of(&[pod.address]);
    controller.tell(&Update::Endpoints(ends(&[pod.address])));
    let mut stream = controller.connect();
    write!(stream, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    assert_eq!(status(&hear(&mut stream)), 200);
    assert_eq!(pod.count(), 1);
    assert_eq!(status(&controller.get("/")), 200);
    assert_eq!(pod.count(), 1);
}
