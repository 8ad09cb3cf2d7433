//! Any bytes and any names: an answer is bounded, can be read by another implementation, and is
//! to the question.

use std::sync::LazyLock;

use hickory_proto::op::{Message, ResponseCode};
use labctl::workload::dns::{Gone, Objects, Records, Transport, Update};
use proptest::prelude::*;

use crate::sample::{query, records, reply, with_edns};

static RECORDS: LazyLock<Records> = LazyLock::new(|| {
    let mut records = records();
    // Thousands of records are slow to read for the other implementation, and nothing new.
    let gone = Gone { slices: vec!["shop/huge-1".to_owned()], ..Gone::default() };
    records.apply(&Update::Change { gone, put: Objects::default() });
    records
});

fn transport() -> impl Strategy<Value = Transport> {
    prop_oneof![Just(Transport::Udp), Just(Transport::Tcp)]
}

/// Names near those that there are, so that look-ups get far.
fn name() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        4 => prop::sample::select(vec![
            "web", "many", "huge", "out", "ring", "shop", "svc", "pod", "cluster", "local", "_http", "_tcp", "ns", "dns",
            "10-244-1-7", "fd00--1", "in-addr", "arpa", "7", "10", "ip6", "dns-version", "_zone", "pin", "example", "com",
        ]).prop_map(str::to_owned),
        1 => "[a-zA-Z0-9_*-]{1,63}",
    ];
    let tail = prop::sample::select(vec!["", ".cluster.local", ".svc.cluster.local", ".shop.svc.cluster.local"]);
    (prop::collection::vec(word, 1..5), tail).prop_map(|(words, tail)| words.join(".") + tail)
}

proptest! {
    #[test]
    fn any_bytes_get_nothing_or_a_short_answer_with_their_id(
        bytes in prop::collection::vec(any::<u8>(), 0..700), transport in transport(),
    ) {
        if let Some(reply) = reply(&RECORDS, &bytes, transport) {
            prop_assert!(reply.len() >= 12 && reply.len() <= 65535);
            prop_assert_eq!(&reply[..2], &bytes[..2]);
            prop_assert!(reply[2] & 0x80 != 0, "an answer says that it is one");
        }
    }

    #[test]
    fn a_query_with_any_bytes_changed_is_survived(
        name in name(), kind in any::<u16>(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut message = with_edns(query(&name, kind, 0x0100), 1232, 0, 0);
        for (at, byte) in changes {
            let at = at.index(message.len());
            message[at] = byte;
        }
        if let Some(reply) = reply(&RECORDS, &message, Transport::Udp) {
            prop_assert!(reply.len() <= 65507);
        }
    }

    #[test]
    fn every_answer_can_be_read_and_is_to_the_question(
        name in name(), kind in prop_oneof![4 => prop::sample::select(vec![1u16, 2, 5, 6, 12, 15, 16, 28, 33, 255]), 1 => any::<u16>()],
        size in 0u16..5000, transport in transport(),
    ) {
        // OPT, and the types from 128 to 255 that are none, mean something else in a question.
        prop_assume!(kind != 41);
        let message = with_edns(query(&name, kind, 0x0100), size, 0, 0);
        let bytes = reply(&RECORDS, &message, transport).expect("an answer");
        let limit = if transport == Transport::Udp { usize::from(size).max(512) } else { 65535 };
        prop_assert!(bytes.len() <= limit, "{} of {limit}", bytes.len());
        let read = Message::from_vec(&bytes).map_err(|e| TestCaseError::fail(format!("{e}: {bytes:02x?}")))?;
        prop_assert_eq!(read.queries.len(), 1);
        let question = 12..12 + name.len() + 2;
        prop_assert_eq!(&bytes[question.clone()], &message[question], "in the case in which it came");
        prop_assert!(read.edns.is_some());
        let code = read.metadata.response_code;
        let known = [ResponseCode::NoError, ResponseCode::NXDomain, ResponseCode::Refused];
        prop_assert!(known.contains(&code), "{code:?}");
        prop_assert!(code == ResponseCode::NoError || read.answers.is_empty());
        for record in &read.answers {
            let is_asked = u16::from(record.record_type()) == kind || record.record_type().is_cname();
            prop_assert!(is_asked, "{record:?}");
        }
    }
}
