use std::task::{Context, Waker};

use super::*;
use crate::workload::events::{Did, Request};

fn event(request: u64) -> String {
    let did = Did::Passed { request, from: None, to: ([10, 244, 1, 2], 80).into() };
    serde_json::to_string(&Event { at: request, did }).expect("JSON")
}

/// A program that obeys, and tells of one thing more each time before it does.
fn obedient(telling: &Rc<Telling>, lost: u64) -> NsName {
    let ns = NsName::try_from("pod/ingress/controller-1".to_owned()).expect("a pod");
    let present = telling.enter(&ns);
    tokio::task::spawn_local(async move {
        let mut orders = present.orders();
        loop {
            let line = next_order(&mut orders).await;
            let order = Order::read(line.as_bytes()).expect("an order");
            assert!(present.hear(&event(order.number)));
            assert!(present.hear(&format!("told {} {}", order.number, order.number * lost)));
        }
    });
    ns
}

#[tokio::test(flavor = "current_thread")]
async fn what_is_told_before_the_end_is_heard_and_the_last_listener_ends_it() {
    tokio::task::LocalSet::new()
        .run_until(async {
            let telling = Rc::new(Telling::default());
            let ns = obedient(&telling, 1);
            let (one, other) = (telling.listen().await, telling.listen().await);
            assert!(telling.order.borrow().on);
            let heard = |told: &Told| told.events.iter().map(|(_, event)| event.at).collect::<Vec<_>>();
            let one = one.end().await;
            assert_eq!((heard(&one), one.lost, one.events[0].0.clone()), (vec![1, 2, 3], 2, ns));
            assert!(telling.order.borrow().on, "another one listens");
            let other = other.end().await;
            assert_eq!((heard(&other), other.silent), (vec![2, 3, 4], vec![]));
            assert!(!telling.order.borrow().on && telling.listeners.borrow().is_empty());
            drop(telling.listen().await);
            assert!(!telling.order.borrow().on, "who has gone away does not listen");
        })
        .await;
}

#[tokio::test(flavor = "current_thread")]
async fn who_has_obeyed_is_not_silent_as_another_listener_orders_something_more() {
    tokio::task::LocalSet::new()
        .run_until(async {
            let telling = Rc::new(Telling::default());
            let _program = obedient(&telling, 0);
            let one = telling.listen().await;
            let mut end = std::pin::pin!(one.end());
            let number = telling.order.borrow().number + 1;
            let mut unheard = Context::from_waker(Waker::noop());
            assert!(end.as_mut().poll(&mut unheard).is_pending());
            while telling.programs.borrow().values().any(|p| p.obeyed < number) {
                tokio::task::yield_now().await;
            }
            telling.send();
            assert_eq!(end.await.silent, vec![]);
        })
        .await;
}

/// What is told of a request whose path has so many bytes.
fn long(bytes: usize) -> String {
    let (client, path) = (([10, 0, 0, 1], 4000).into(), "/".repeat(bytes));
    let [method, scheme, host] = ["GET", "http", "cafe"].map(str::to_owned);
    let did = Did::Took(Request { request: 1, client, method, scheme, host, path, rule: None });
    serde_json::to_string(&Event { at: 1, did }).expect("JSON") + "\n"
}

/// What one listener has of a program's output, and how much it has lost.
async fn heard(output: &str) -> (Vec<u64>, u64, Vec<String>) {
    let telling = Rc::new(Telling::default());
    let present = telling.enter(&NsName::Router);
    let kept = Rc::new(Heard::default());
    telling.listeners.borrow_mut().push(Rc::downgrade(&kept));
    let mut others = Vec::new();
    present.hear_all(output.as_bytes(), |line| others.push(line.to_owned())).await;
    let events = kept.events.borrow().iter().map(|(_, event)| event.at).collect();
    (events, kept.lost.get(), others)
}

#[tokio::test]
async fn a_line_that_is_too_long_is_left_out_whole_and_what_it_told_is_lost() {
    let output = [long(LONGEST_LINE), event(7) + "\n", "ready\n".to_owned()].concat();
    assert_eq!(heard(&output).await, (vec![7], 1, vec!["ready".to_owned()]));
    let output = format!("{}ready\ntold 1 0\nready\n", "x".repeat(3 * LONGEST_LINE));
    assert_eq!(heard(&output).await, (vec![], 0, vec!["ready".to_owned()]));
}

#[tokio::test]
async fn what_a_listener_keeps_is_bounded_in_bytes() {
    let line = long(LONGEST_LINE / 2);
    let fit = MOST_BYTES / line.len();
    let (kept, lost, _) = heard(&line.repeat(fit + 3)).await;
    assert_eq!((kept.len(), lost), (fit, 3));
}

#[tokio::test(flavor = "current_thread")]
async fn a_program_that_does_not_obey_is_named_and_one_that_has_ended_is_not_waited_for() {
    tokio::task::LocalSet::new()
        .run_until(async {
            let telling = Rc::new(Telling::default());
            let ns = NsName::try_from("host/node1".to_owned()).expect("a host");
            let stopped = telling.enter(&ns);
            let told = telling.listen().await.end().await;
            assert_eq!(told, Told { silent: vec![ns], ..Told::default() });
            drop(stopped);
            let begun = std::time::Instant::now();
            assert_eq!(telling.listen().await.end().await, Told::default());
            assert!(begun.elapsed() < PATIENCE);
        })
        .await;
}
