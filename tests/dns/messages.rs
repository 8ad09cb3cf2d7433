//! Messages: what is refused and how, EDNS, truncation, aliases, names outside the cluster.

use std::sync::LazyLock;

use hickory_proto::op::ResponseCode;
use labctl::workload::dns::{Records, Transport};

use crate::sample::{data, query, read, records, reply, with_edns};

const A: u16 = 1;
const PTR: u16 = 12;
const TXT: u16 = 16;
const SRV: u16 = 33;
const WEB: &str = "web.shop.svc.cluster.local";

#[track_caller]
fn code(message: &[u8]) -> ResponseCode {
    static RECORDS: LazyLock<Records> = LazyLock::new(records);
    read(&RECORDS, message, Transport::Udp).metadata.response_code
}

#[test]
fn only_queries_are_answered() {
    let records = records();
    let is_answered = |message: &[u8]| reply(&records, message, Transport::Udp).is_some();
    let whole = query(WEB, A, 0x0100);
    for length in 0..12 {
        assert!(!is_answered(&whole[..length]), "{length} bytes");
    }
    assert!(is_answered(&whole[..12]));
    assert!(!is_answered(&query(WEB, A, 0x8100)), "an answer must not be answered");
}

#[test]
fn what_is_not_one_plain_question_is_refused_by_its_kind() {
    for opcode in 1..16 {
        assert_eq!(code(&query(WEB, A, opcode << 11)), ResponseCode::NotImp, "opcode {opcode}");
    }
    for questions in [0, 2, 255] {
        let mut message = query(WEB, A, 0);
        message[5] = questions;
        assert_eq!(code(&message), ResponseCode::FormErr, "{questions} questions");
    }
    for class in [0, 2, 3, 4, 254, 255] {
        let mut message = query(WEB, A, 0);
        *message.last_mut().unwrap() = class;
        assert_eq!(code(&message), ResponseCode::Refused, "class {class}");
    }
    for transfer in [251, 252] {
        assert_eq!(code(&query("cluster.local", transfer, 0)), ResponseCode::Refused);
    }
}

#[test]
fn pointers_that_lead_in_a_circle_end() {
    let mut message = query("", A, 0);
    message.splice(12..13, [0xc0, 12]);
    assert_eq!(code(&message), ResponseCode::FormErr);
    let mut message = with_edns(query(WEB, A, 0), 1232, 0, 0);
    let at = message.len() - 11;
    let own = u16::try_from(at).unwrap() | 0xc000;
    message.splice(at..=at, own.to_be_bytes());
    assert_eq!(code(&message), ResponseCode::FormErr, "an OPT whose name is itself");
}

#[test]
fn any_cut_of_a_query_gets_a_format_error() {
    let message = with_edns(query(WEB, A, 0x0100), 1232, 0, 0);
    for length in 12..message.len() {
        assert_eq!(code(&message[..length]), ResponseCode::FormErr, "{length} bytes");
    }
    assert_eq!(code(&message), ResponseCode::NoError);
}

#[test]
fn edns_is_answered_with_edns_of_version_0() {
    let records = records();
    let plain = read(&records, &query(WEB, A, 0), Transport::Udp);
    assert!(plain.edns.is_none());
    let message = read(&records, &with_edns(query(WEB, A, 0), 4096, 0, 0x8000), Transport::Udp);
    let edns = message.edns.expect("an OPT");
    assert!(edns.flags().dnssec_ok && edns.version() == 0);
    let newer = read(&records, &with_edns(query(WEB, A, 0), 4096, 1, 0), Transport::Udp);
    // 16, which is BADVERS in an OPT record and BADSIG elsewhere.
    assert_eq!(u16::from(newer.metadata.response_code), 16);
    assert!(newer.answers.is_empty() && newer.edns.is_some());
    let twice = with_edns(with_edns(query(WEB, A, 0), 4096, 0, 0), 4096, 0, 0);
    assert_eq!(code(&twice), ResponseCode::FormErr);
}

#[test]
fn recursion_desired_and_the_questions_case_come_back() {
    let records = records();
    let message = read(&records, &query("WeB.sHop.svc.CLUSTER.local", A, 0x0110), Transport::Udp);
    assert!(message.metadata.recursion_desired && message.metadata.checking_disabled && message.metadata.authoritative);
    assert!(!message.metadata.recursion_available && !message.metadata.truncation);
    assert_eq!(message.answers[0].name.to_ascii(), "WeB.sHop.svc.CLUSTER.local.");
}

#[test]
fn an_answer_over_udp_is_cut_to_the_askers_size_and_says_so() {
    let records = records();
    let name = "many.shop.svc.cluster.local";
    let sizes = [(None, 512), (Some(100), 512), (Some(600), 600), (Some(1232), 1232)];
    for (asked, limit) in sizes {
        let query = query(name, A, 0);
        let query = asked.map_or(query.clone(), |size| with_edns(query, size, 0, 0));
        let bytes = reply(&records, &query, Transport::Udp).unwrap();
        let message = read(&records, &query, Transport::Udp);
        assert!(message.metadata.truncation, "{asked:?}");
        assert!(bytes.len() <= limit && bytes.len() + 16 > limit, "{} of {limit}", bytes.len());
        assert_eq!(message.edns.is_some(), asked.is_some());
    }
    let whole = read(&records, &with_edns(query(name, A, 0), 4096, 0, 0), Transport::Udp);
    assert_eq!((whole.answers.len(), whole.metadata.truncation), (200, false));
    assert_eq!(read(&records, &query(name, A, 0), Transport::Tcp).answers.len(), 200);
}

#[test]
fn an_answer_over_tcp_holds_64_kilobytes_and_no_more() {
    let records = records();
    let name = "huge.shop.svc.cluster.local";
    // 4,000 addresses are 64,000 bytes; as many SRV records with their names are not to be had.
    let all = read(&records, &query(name, A, 0), Transport::Tcp);
    assert_eq!((all.answers.len(), all.metadata.truncation), (4000, false));
    let some = reply(&records, &query(name, SRV, 0), Transport::Tcp).unwrap();
    assert!(some.len() <= 65535 && some.len() > 65000);
    assert!(read(&records, &query(name, SRV, 0), Transport::Tcp).metadata.truncation);
    // Beyond 16 kB a pointer no longer reaches a name.
    let many = read(&records, &query("many.shop.svc.cluster.local", SRV, 0), Transport::Tcp);
    assert_eq!((many.answers.len(), many.additionals.len()), (200, 200));
    let targets: Vec<_> =
        many.answers.iter().map(|r| r.data.to_string().rsplit(' ').next().unwrap().to_owned()).collect();
    assert!(many.additionals.iter().all(|r| targets.contains(&r.name.to_string())));
}

#[test]
fn addresses_come_in_a_new_order_each_time_and_each_is_first_about_as_often() {
    let records = records();
    let mut first = 0;
    for _ in 0..400 {
        let both = data(&records, "www.example.com", A);
        assert_eq!(both.len(), 2);
        first += usize::from(both[0].ends_with("192.0.2.1"));
    }
    // 400 throws of a coin; 7 standard deviations.
    assert!((130..=270).contains(&first), "{first} of 400");
}

#[test]
fn aliases_are_followed_into_and_out_of_the_cluster() {
    let records = records();
    let out = data(&records, "out.shop.svc.cluster.local", A);
    assert_eq!(out.len(), 4, "{out:?}");
    assert_eq!(out[0], "out.shop.svc.cluster.local. CNAME alias.example.com.");
    assert_eq!(out[1], "alias.example.com. CNAME WWW.example.com.");
    assert!(out[2].starts_with("WWW.example.com. A 192.0.2."));
    let back = data(&records, "back.example.com", A);
    assert_eq!(
        back,
        ["back.example.com. CNAME web.shop.svc.cluster.local.", "web.shop.svc.cluster.local. A 10.96.0.7"]
    );
    for kept_to_itself in ["nowhere", "ring"] {
        let name = format!("{kept_to_itself}.shop.svc.cluster.local");
        assert_eq!(data(&records, &name, A), [""; 0]);
        assert_eq!(code(&query(&name, A, 0)), ResponseCode::NoError);
    }
    assert_eq!(code(&query("number.shop.svc.cluster.local", A, 0)), ResponseCode::NXDomain);
    assert_eq!(data(&records, "loop.example.com", A).len(), 2, "a circle ends");
}

#[test]
fn names_outside_are_those_that_are_written_down() {
    let records = records();
    assert_eq!(data(&records, "www.example.com", TXT), ["www.example.com. TXT hello"]);
    assert_eq!(data(&records, "1.2.0.192.in-addr.arpa", PTR), ["1.2.0.192.in-addr.arpa. PTR www.example.com."]);
    assert_eq!(code(&query("www.example.com", SRV, 0)), ResponseCode::NoError);
    assert_eq!(code(&query("example.com", A, 0)), ResponseCode::NoError, "it has names below it");
    for gone in ["example.org", "a.www.example.com", "", "web.shop.svc.cluster.local.example.com"] {
        assert_eq!(code(&query(gone, A, 0)), ResponseCode::NXDomain, "`{gone}`");
    }
    let message = read(&records, &query("www.example.com", A, 0), Transport::Udp);
    assert!(message.metadata.recursion_available && !message.metadata.authoritative);
}
