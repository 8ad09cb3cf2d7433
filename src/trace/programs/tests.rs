use super::*;
use crate::kernel::record::Recording;
use crate::lab::Lab;
use crate::plan::Plan;
use crate::trace::flow;
use crate::trace::hits::Hits;
use crate::trace::model::Role;
use crate::trace::sample::{self, recording};
use crate::trace::sight::Tunnels;
use crate::trace::walk::prediction;
use crate::trace::who::Who;

/// A client, which asks `door` on port 80, and whom `door` asks in its turn.
const CLIENT: &str = "10.0.0.1:4000";
const DOOR: &str = "10.244.1.2";
const BEHIND: &str = "10.244.1.3:8080";

fn end(text: &str) -> SocketAddr {
    text.parse().expect("an end")
}

fn lab() -> Lab {
    sample::lab(&format!(
        "hosts: {{ node1: {{ podCIDR: 10.244.1.0/24 }} }}\npods: {{ door: {{ host: node1, address: {DOOR} }} }}\n"
    ))
}

/// A SYN of the client's to the door, or of the door's to whom it asks.
fn syn(at: u64, lab: &Lab, from: &str, to: &str) -> Sight {
    let (from, to) = (end(from), end(to));
    let mut sight = Sight { place: lab.pods[0].ns(), ..sample::sight(at, "x", "eth0", from != end(CLIENT)) };
    let header = super::super::model::Header {
        source: from.ip(),
        source_port: from.port(),
        destination: to.ip(),
        destination_port: to.port(),
        ..sample::header()
    };
    (sight.seen, sight.header) = (header.clone(), header);
    sight.essence = Essence::Tcp { sequence: u32::from(from.port()), acknowledged: 0, flags: 2, data: 0 };
    sight
}

fn evidence<'a>((lab, there): (&'a Lab, &'a Plan), sights: Vec<Sight>, told: &'a [(NsName, Event)]) -> Evidence<'a> {
    let nothing: Recording = recording(Vec::new());
    let hits = Hits::read(&nothing, there, Tunnels::default());
    let (arps, entries, who) = (Vec::new(), Vec::new(), Who::new(lab, there));
    Evidence { sights, arps, hits, entries, who, told, there, begin: 0 }
}

/// The source ports of what the door asked for the client, where it told of `connections` and these were seen.
fn ports(connections: &[(u64, Option<&str>)], seen: &[(u64, &str)]) -> Vec<u16> {
    let lab = lab();
    let (there, door) = (prediction(&lab), lab.pods[0].ns());
    let request = Request {
        request: 1,
        client: end(CLIENT),
        method: "GET".into(),
        scheme: "http".into(),
        host: "x".into(),
        path: "/".into(),
        rule: None,
    };
    let passed = |from: Option<&str>| Did::Passed { request: 1, from: from.map(end), to: end(BEHIND) };
    let told =
        std::iter::once((5, Did::Took(request))).chain(connections.iter().map(|(at, from)| (*at, passed(*from))));
    let told: Vec<(NsName, Event)> = told.map(|(at, did)| (door.clone(), Event { at, did })).collect();
    let mut sights = vec![syn(1, &lab, CLIENT, &format!("{DOOR}:80"))];
    sights.extend(seen.iter().map(|(at, from)| syn(*at, &lab, from, BEHIND)));
    let request = flow::flow(Role::Request, sights[0].tuple(), &sights, &[]);
    let evidence = evidence((&lab, &there), sights, &told);
    super::passed(&evidence, &request).into_iter().map(|tuple| tuple.source.1).collect()
}

#[test]
fn a_connection_is_known_by_what_was_told_of_it() {
    assert_eq!(ports(&[(10, Some("10.244.1.2:5001"))], &[]), [5001]);
}

#[test]
fn one_that_did_not_come_about_is_the_first_that_was_begun_after_it_was_told() {
    assert_eq!(ports(&[(10, None)], &[(7, "10.244.1.2:5001"), (12, "10.244.1.2:5002")]), [5002]);
}

#[test]
fn what_was_told_before_it_came_about_is_told_once() {
    let told = [(10, None), (13, Some("10.244.1.2:5002"))];
    assert_eq!(ports(&told, &[(12, "10.244.1.2:5002")]), [5002]);
}

#[test]
fn an_answer_that_was_told_before_a_query_came_is_another_ones() {
    let lab = lab();
    let (there, door) = (prediction(&lab), lab.pods[0].ns());
    let lookup = |name: &str| {
        let (kind, answer, source) = ("A".to_owned(), "1.2.3.4".to_owned(), "a service".to_owned());
        Did::Resolved(Lookup { client: end(CLIENT), id: 7, name: name.into(), kind, answer, source })
    };
    let told = [(10, "before"), (30, "after")];
    let told = told.map(|(at, name)| (door.clone(), Event { at, did: lookup(name) }));
    let mut query = syn(20, &lab, CLIENT, &format!("{DOOR}:53"));
    query.essence = Essence::Tcp { sequence: 1, acknowledged: 1, flags: 0x18, data: 30 };
    let evidence = evidence((&lab, &there), Vec::new(), &told);
    let answered = resolved(&query, &evidence).expect("an answer");
    assert_eq!(answered.what, What::Asked { name: "A after".into(), answer: "1.2.3.4".into() });
}
