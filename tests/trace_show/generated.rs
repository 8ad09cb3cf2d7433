//! What holds for every trace, whatever is in it: generated ones are drawn at any width.

use labctl::trace::model::Trace;
use labctl::trace::show::{NARROWEST, Style, mermaid, text};
use proptest::prelude::*;
use serde_json::{Value, json};
use textwrap::core::display_width;

use super::sample;

/// Texts as they come from programs and servers: with line ends, escape codes, wide letters.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9 .:/→-]{0,60}",
        "\\PC{0,40}",
        Just("a\u{1b}[31mred\r\nb; n0->>n1: x %% #".to_owned()),
        Just("漢字".repeat(60)),
        "-A [A-Z]{1,28} -m comment --comment \"[a-z ]{0,90}\" -j [A-Z-]{1,28}",
        "[a-z]{100,200}",
    ]
}

fn any_header() -> impl Strategy<Value = Value> {
    let ip = prop_oneof![
        any::<std::net::Ipv4Addr>().prop_map(|i| i.to_string()),
        any::<std::net::Ipv6Addr>().prop_map(|i| i.to_string())
    ];
    (
        ip.clone(),
        ip,
        prop::sample::select(vec!["tcp", "icmp", "sctp", "other"]),
        any::<[u16; 2]>(),
        any::<u8>(),
        any::<u32>(),
    )
        .prop_map(|(a, b, protocol, [from, to], ttl, length)| {
            json!({"source": a, "destination": b, "protocol": protocol, "sourcePort": from, "destinationPort": to,
                   "ttl": ttl, "length": length, "dontFragment": true, "macs": ["a", "b"]})
        })
}

fn any_what() -> impl Strategy<Value = Value> {
    let rule = (
        any_text(),
        any_text(),
        0..4u32,
        prop::sample::select(vec!["jump X", "ACCEPT", "DROP", "RETURN", "continue", ""]),
    );
    prop_oneof![
        any_text().prop_map(|t| json!({"kind": "sent", "by": t})),
        Just(json!({"kind": "in"})),
        Just(json!({"kind": "out"})),
        any_text().prop_map(|t| json!({"kind": "bridged", "bridge": t, "flooded": true})),
        rule.prop_map(|(chain, rule, number, verdict)| json!({"kind": "rule", "table": "nat", "chain": chain,
            "rule": rule, "number": number, "verdict": verdict})),
        (any_header(), any_header())
            .prop_map(|(a, b)| json!({"kind": "rewritten", "how": "destination", "before": a, "after": b})),
        any_text().prop_map(|t| json!({"kind": "routed", "route": t})),
        (any_header(), any_text()).prop_map(|(h, t)| json!({"kind": "encapsulated", "how": t, "outer": h, "entry": t})),
        any_text().prop_map(|t| json!({"kind": "proxied", "program": t, "request": t, "backend": t})),
        any_text().prop_map(|t| json!({"kind": "asked", "name": t, "answer": t})),
        any_text().prop_map(|t| json!({"kind": "delivered", "to": t})),
        any_text().prop_map(|t| json!({"kind": "dropped", "cause": "no-route", "by": t, "reason": t})),
    ]
}

fn any_step() -> impl Strategy<Value = Value> {
    let place = prop::sample::select(vec!["router", "host/node1", "pod/kube-system/coredns-1", "client/laptop"]);
    (place, any::<Option<u64>>(), any::<u8>(), any_what(), any_header(), any_text(), any::<bool>()).prop_map(
        |(place, at, layer, what, header, says, seen)| {
            let by = if seen { "tap" } else { "state" };
            json!({"place": place, "at": at, "dev": "veth12345678901", "layer": layer, "what": what, "header": header,
                   "knownBy": [by], "says": says})
        },
    )
}

fn any_packet() -> impl Strategy<Value = Value> {
    let fate = prop::sample::select(vec![
        json!({"how": "dropped"}),
        json!({"how": "lost"}),
        json!({"how": "refused"}),
        json!({"how": "delivered", "to": "router"}),
    ]);
    let direction = prop::sample::select(vec!["there", "back"]);
    let others = any::<(u32, Option<u32>, Option<u32>)>();
    (others, direction, any_text(), prop::collection::vec(any_step(), 0..12), fate).prop_map(
        |((number, again, about), direction, kind, steps, fate)| {
            json!({"number": number, "direction": direction, "kind": kind, "again": again, "about": about,
                   "steps": steps, "fate": fate})
        },
    )
}

/// A trace whose packets, texts and remedies are any.
fn any_trace() -> impl Strategy<Value = Trace> {
    (prop::collection::vec(any_packet(), 0..5), any_text(), any_text()).prop_map(|(packets, words, command)| {
        let mut trace = serde_json::to_value(sample("missing-route")).expect("JSON");
        trace["flows"][0]["packets"] = packets.into();
        for place in [
            "/asked/to",
            "/asked/seen",
            "/verdict/says",
            "/verdict/fault/object",
            "/verdict/fault/evidence/0",
            "/parting/predicted",
            "/notes/0",
            "/flows/0/source/name",
        ] {
            *trace.pointer_mut(place).unwrap_or_else(|| panic!("{place}")) = words.clone().into();
        }
        trace["verdict"]["fault"]["remedy"][0]["command"] = command.into();
        serde_json::from_value(trace).expect("a trace")
    })
}

/// Whether a line is too long because of a word that must not be broken: of a rule or command.
fn is_unbreakable(line: &str) -> bool {
    let line = line.trim_start_matches([' ', '│']).trim_end_matches(" \\");
    !line.contains(' ') || line.starts_with(['-', '"']) || line.contains('"')
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn no_line_of_any_trace_is_wider_than_the_page(trace in any_trace(), width in 0usize..200, wide: bool) {
        let text = text(&trace, &Style { width, colour: false, why: true, wide, reply: wide });
        for line in text.lines() {
            let fits = display_width(line) <= width.max(NARROWEST);
            prop_assert!(fits || is_unbreakable(line), "{} columns at {width}: {line:?}", display_width(line));
            prop_assert!(!line.chars().any(char::is_control), "{line:?}");
        }
    }

    #[test]
    fn a_diagram_of_any_trace_has_only_statements_of_ours(trace in any_trace()) {
        let diagram = mermaid(&trace);
        let mut lines = diagram.lines();
        prop_assert_eq!(lines.next(), Some("sequenceDiagram"));
        for line in lines {
            let statement = line.strip_prefix("    ").unwrap_or_default();
            prop_assert!(is_statement(statement), "{line:?}");
        }
    }
}

/// Whether it is a participant, a note or an arrow, with a text in which every `#` and `;` belongs to
/// an entity.
fn is_statement(line: &str) -> bool {
    let Some((head, text)) = line.split_once(": ").or(line.split_once(" as ")) else { return false };
    let number = |t: &str| t.strip_prefix('n').is_some_and(|n| !n.is_empty() && n.chars().all(|c| c.is_ascii_digit()));
    let known = match head.split(' ').collect::<Vec<_>>().as_slice() {
        ["participant", n] => number(n),
        ["Note", "over", n] => n.split(',').all(number),
        [arrow] => ["-->>", "->>", "-x"].iter().any(|a| arrow.split(a).filter(|n| number(n)).count() == 2),
        _ => false,
    };
    let entity = |rest: &str| rest.split_once(';').is_some_and(|(n, _)| n.chars().all(|c| c.is_ascii_digit()));
    let hashes = text.matches('#').count();
    known && !text.is_empty() && hashes == text.matches(';').count() && text.split('#').skip(1).all(entity)
}
