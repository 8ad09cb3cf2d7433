//! One test for each thing that can be expected.

use super::super::outcome::{Answer, Failure};
use super::*;

fn nobody(_: &NsName) -> Vec<IpAddr> {
    Vec::new()
}

fn answer(details: Details) -> Observation {
    Observation::new(Some("10.0.0.1:80".into()), Ok(Answer { details, ..Answer::default() }))
}

fn failed(kind: FailureName) -> Observation {
    Observation::new(Some("10.0.0.1:80".into()), Err(Failure::new(kind, "10.0.0.1:80 did it")))
}

fn said_no(details: Details) -> Observation {
    let refusal = Some(Failure::answer(FailureName::Name, "no"));
    Observation::new(None, Ok(Answer { details, text: None, refusal }))
}

fn fits(expect: &Expect, seen: &Observation) -> bool {
    as_expected(expect, seen, &nobody)
}

#[test]
fn success_is_any_answer_and_no_failure() {
    let expect = Expect::default();
    assert!(fits(&expect, &answer(Details::default())));
    assert!(!fits(&expect, &failed(FailureName::Timeout)));
    assert!(!fits(&expect, &said_no(Details { status: Some(404), ..Details::default() })));
}

#[test]
fn a_failure_must_be_of_the_kind_expected() {
    let any = Expect { fail: Some(FailureName::Any), ..Expect::default() };
    let refused = Expect { fail: Some(FailureName::Refused), ..Expect::default() };
    assert!(fits(&any, &failed(FailureName::Timeout)));
    assert!(fits(&refused, &failed(FailureName::Refused)));
    assert!(!fits(&refused, &failed(FailureName::Timeout)));
    assert!(!fits(&any, &answer(Details::default())));
}

#[test]
fn a_question_that_could_not_be_asked_is_never_expected() {
    let any = Expect { fail: Some(FailureName::Any), ..Expect::default() };
    let unasked = Observation::new(None, Err(Failure::unasked("no namespace")));
    assert!(!fits(&any, &unasked));
    assert!(!fits(&Expect::default(), &unasked));
}

#[test]
fn numbers_must_be_equal() {
    let status = Expect { status: Some(200), ..Expect::default() };
    assert!(fits(&status, &answer(Details { status: Some(200), ..Details::default() })));
    assert!(!fits(&status, &answer(Details { status: Some(201), ..Details::default() })));
    let ttl = Expect { ttl: Some(62), ..Expect::default() };
    assert!(fits(&ttl, &answer(Details { ttl: Some(62), ..Details::default() })));
    assert!(!fits(&ttl, &answer(Details { ttl: Some(60), ..Details::default() })));
    let mtu = Expect { mtu: Some(1450), ..Expect::default() };
    assert!(fits(&mtu, &answer(Details { mtu: Some(1450), ..Details::default() })));
    assert!(!fits(&mtu, &answer(Details::default())), "not seen is not equal");
}

#[test]
fn an_answer_that_says_no_can_be_what_was_expected() {
    let no = said_no(Details { status: Some(404), ..Details::default() });
    assert!(fits(&Expect { status: Some(404), ..Expect::default() }, &no));
    assert!(!fits(&Expect { status: Some(200), ..Expect::default() }, &no));
    let ended = said_no(Details { exit_code: Some(3), ..Details::default() });
    assert!(fits(&Expect { exit_code: Some(3), ..Expect::default() }, &ended));
    assert!(!fits(&Expect { exit_code: Some(4), ..Expect::default() }, &ended));
}

#[test]
fn response_codes_and_records_are_compared() {
    let nothing =
        |rcode: &str| said_no(Details { rcode: Some(rcode.into()), answers: Some(Vec::new()), ..Details::default() });
    let rcode = Expect { rcode: Some("NXDOMAIN".into()), ..Expect::default() };
    assert!(fits(&rcode, &nothing("NXDOMAIN")));
    assert!(!fits(&rcode, &nothing("SERVFAIL")));
    assert!(fits(&Expect { fail: Some(FailureName::Name), ..rcode.clone() }, &nothing("NXDOMAIN")));
    let none = Expect { answers: Some(Vec::new()), ..Expect::default() };
    assert!(fits(&none, &nothing("NOERROR")));
    assert!(!fits(&none, &nothing("NXDOMAIN")), "no such name is not an empty answer");
    let two = Expect { answers: Some(vec!["10.0.0.2".into(), "Tea.Default".into()]), ..Expect::default() };
    let got = |answers: &[&str]| {
        let answers = Some(answers.iter().map(|a| (*a).to_owned()).collect());
        answer(Details { rcode: Some("NOERROR".into()), answers, ..Details::default() })
    };
    assert!(fits(&two, &got(&["tea.default.", "10.0.0.2"])));
    assert!(!fits(&two, &got(&["10.0.0.2"])));
    assert!(!fits(&two, &got(&["10.0.0.2", "10.0.0.2", "tea.default."])));
}

#[test]
fn a_source_is_a_range_or_any_address_of_a_machine() {
    let seen = |source: &str| answer(Details { source: source.parse().ok(), ..Details::default() });
    let range = SourceExpect::Range("10.244.0.0/16".parse().expect("a range"));
    let range = Expect { source: Some(range), ..Expect::default() };
    assert!(fits(&range, &seen("10.244.1.2:5000")));
    assert!(fits(&range, &seen("[::ffff:10.244.1.2]:5000")), "an IPv4 address in IPv6's clothes");
    assert!(!fits(&range, &seen("192.168.1.1:5000")));
    assert!(!fits(&range, &answer(Details::default())));
    let node = NsName::try_from("host/node1".to_owned()).expect("a name");
    let machine = Expect { source: Some(SourceExpect::Machine(node)), ..Expect::default() };
    let addresses = |_: &NsName| vec!["192.168.1.1".parse().expect("an address")];
    assert!(as_expected(&machine, &seen("192.168.1.1:5000"), &addresses));
    assert!(!as_expected(&machine, &seen("192.168.1.2:5000"), &addresses));
}

#[test]
fn text_must_contain_the_part() {
    let expect = Expect { body: Some("hello".into()), ..Expect::default() };
    let seen = |text: &str| Observation { text: Some(text.into()), ..Observation::default() };
    assert!(fits(&expect, &seen("say hello twice")));
    assert!(!fits(&expect, &seen("goodbye")));
    assert!(!fits(&expect, &answer(Details::default())));
}

fn shares(a: u64, b: u64) -> Tally<'static> {
    static EXPECT: std::sync::OnceLock<Expect> = std::sync::OnceLock::new();
    let expect = EXPECT.get_or_init(|| Expect {
        distribution: Some([("a-*".to_owned(), 0.5), ("b-*".to_owned(), 0.5)].into()),
        tolerance: 0.1,
        ..Expect::default()
    });
    let mut tally = Tally::new(expect);
    for n in 0..a + b {
        let name = if n < a { "a-1" } else { "b-1" };
        tally.add(answer(Details { answered_by: Some(name.into()), ..Details::default() }), &nobody);
    }
    tally
}

#[test]
fn shares_are_taken_over_all_tries_within_the_tolerance() {
    assert!(shares(50, 50).passed());
    assert!(shares(60, 40).passed(), "exactly at the tolerance");
    let off = shares(61, 39);
    assert!(!off.passed());
    assert_eq!(off.observed(), "100 answers to 100 tries: a-1 61, b-1 39; a-* gave 0.61, b-* gave 0.39");
    assert_eq!(off.into_seen().1.distribution["a-1"], 61);
}

#[test]
fn one_try_that_differs_is_enough_and_is_the_one_shown() {
    let expect = Expect::default();
    let mut tally = Tally::new(&expect);
    for n in 0..10 {
        let seen = if n == 4 { failed(FailureName::Refused) } else { answer(Details::default()) };
        tally.add(seen, &nobody);
    }
    assert!(!tally.passed());
    assert_eq!(tally.observed(), "1 of 10 tries differed, the first: refused: 10.0.0.1:80 did it");
    assert_eq!(tally.into_seen().1.failure, Some(FailureName::Refused));
}

#[test]
fn a_success_against_expectation_is_told_apart() {
    let expect = Expect { fail: Some(FailureName::Refused), ..Expect::default() };
    let mut tally = Tally::new(&expect);
    tally.add(failed(FailureName::Timeout), &nobody);
    assert!(!tally.passed() && !tally.succeeded_against_expectation());
    tally.add(answer(Details::default()), &nobody);
    assert!(tally.succeeded_against_expectation());
    assert!(!Tally::new(&expect).passed(), "no try proves nothing");
}

#[test]
fn the_texts_say_what_was_expected_and_seen() {
    let expect = Expect {
        pod: Some("tea-*".into()),
        status: Some(200),
        source: Some(SourceExpect::Range("10.0.0.9/32".parse().expect("an address"))),
        ..Expect::default()
    };
    assert_eq!(expected(&expect, Kind::Http, 1), "an answer, from tea-*, status 200, seen as coming from 10.0.0.9");
    let details = Details {
        answered_by: Some("coffee-1".into()),
        status: Some(200),
        source: "10.0.0.9:5".parse().ok(),
        ..Details::default()
    };
    assert_eq!(
        observed(&expect, &answer(details)),
        "an answer from coffee-1, status 200, seen as coming from 10.0.0.9"
    );
    let fail = Expect { fail: Some(FailureName::TooBig), ..Expect::default() };
    assert_eq!(expected(&fail, Kind::Ping, 1), "the failure `too-big`");
    let rcode = Expect { rcode: Some("NXDOMAIN".into()), ..Expect::default() };
    assert_eq!(expected(&rcode, Kind::Dns, 1), "an answer, NXDOMAIN");
    assert_eq!(expected(&Expect::default(), Kind::Exec, 1), "exit code 0");
    let nameless = Expect { pod: Some("a".into()), ..Expect::default() };
    assert!(observed(&nameless, &answer(Details::default())).ends_with("which does not say who it is"));
}

#[test]
fn who_does_not_say_who_it_is_has_not_answered_as_someone() {
    let expect = Expect { pod: Some("tea-*".into()), ..Expect::default() };
    assert!(!fits(&expect, &answer(Details::default())));
    let tea = Details { answered_by: Some("tea-1".into()), ..Details::default() };
    assert!(fits(&expect, &answer(tea)));
}
