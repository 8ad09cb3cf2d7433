//! What routing tables answered, and which process has sent something: the kernel tells it to root, and then it was seen;
//! others have what was read back.

use labctl::trace::model::{Means, Step, Trace, What};

use crate::as_root_and_ordinary_user;
use crate::broken::Broken;
use crate::harness::{Background, Bench, until};
use crate::pair::{LAB, question, tool};

as_root_and_ordinary_user![
    routes_are_seen_where_the_kernel_tells_of_look_ups,
    a_look_up_that_leads_elsewhere_than_the_state_counts,
    who_sent_it_is_known_where_the_kernel_tells_of_processes,
];

/// The routing decisions of the first packet there and the first one back.
fn routed(trace: &Trace) -> Vec<&Step> {
    let packets = trace.flows.first().map(|f| f.packets.as_slice()).unwrap_or_default();
    let steps = packets.iter().take(2).flat_map(|p| &p.steps);
    steps.filter(|s| matches!(s.what, What::Routed(_))).collect()
}

fn routes_are_seen_where_the_kernel_tells_of_look_ups(bench: &Bench) {
    let broken = Broken::of_text(bench, LAB);
    let trace = broken.is_answered(&question("b1"));
    let all = routed(&trace);
    assert!(all.len() >= 8, "{all:#?}");
    for step in &all {
        assert_eq!(step.known_by.contains(&Means::Lookup), bench.is_root(), "{step:#?}");
        assert!(step.known_by.contains(&Means::State) && step.is_inferred() != bench.is_root(), "{step:#?}");
    }
    assert_eq!(trace.means.contains(&Means::Lookup), bench.is_root());
    assert!(trace.notes.iter().all(|note| !note.contains("look-up led")), "{:?}", trace.notes);
}

fn a_look_up_that_leads_elsewhere_than_the_state_counts(bench: &Bench) {
    let broken = Broken::of_text(bench, LAB);
    broken.is_answered(&question("b1"));
    let node1 = |line: &str| tool(bench, "node1", line);
    // The way leads to nobody, and to another nobody when the first packet has gone it. Those behind it go another one
    // than what was read back when the trace began.
    node1("ip route replace 10.244.2.0/24 via 192.168.1.99 dev eth0");
    let file = bench.path("trace.json").display().to_string();
    let args = ["trace", "a1", "b1", "--tcp", "--port", "8080", "--timeout", "4", "-o", "json", "--out", &file];
    let mut asking = Background::start(bench.labctl(&args));
    until("the next hop is asked for", || !node1("ip neigh show 192.168.1.99").is_empty());
    node1("ip route replace 10.244.2.0/24 via 192.168.1.98 dev eth0");
    asking.end();
    let text = std::fs::read_to_string(&file).expect("a trace");
    let trace: Trace = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    // However long the second change took, the last try is behind it.
    let again = trace.flows[0].packets.iter().rfind(|p| p.again.is_some()).expect("another try");
    let at_node1 = |s: &&Step| s.place.path() == "host/node1" && s.layer == 0;
    let step = again.steps.iter().filter(at_node1).find(|s| matches!(s.what, What::Routed(_))).expect("a route");
    let What::Routed(routed) = &step.what else { panic!("{step:#?}") };
    let notes: Vec<&String> = trace.notes.iter().filter(|note| note.contains("look-up led")).collect();
    if bench.is_root() {
        assert_eq!((routed.via, step.known_by.as_slice()), (None, &[Means::Lookup][..]), "{step:#?}");
        let [note] = notes[..] else { panic!("{notes:?}") };
        assert!(note.contains("node1") && note.contains("via 192.168.1.99 dev eth0"), "{note}");
    } else {
        let via = routed.via.map(|ip| ip.to_string());
        assert_eq!((via.as_deref(), notes.len()), (Some("192.168.1.99"), 0), "{step:#?}");
        assert!(step.is_inferred());
    }
}

fn who_sent_it_is_known_where_the_kernel_tells_of_processes(bench: &Bench) {
    let broken = Broken::of_text(bench, LAB);
    // What waits for its next hop's address is sent by an interrupt.
    broken.is_answered(&question("b1"));
    let trace = broken.is_answered(&question("b1"));
    let packets = &trace.flows[0].packets;
    let senders: Vec<(&What, &str)> = packets
        .iter()
        .flat_map(|p| p.steps.first())
        .filter(|s| s.layer == 0)
        .map(|s| (&s.what, s.says.as_str()))
        .collect();
    let by = |by: &str| What::Sent { by: by.to_owned() };
    let first = if bench.is_root() {
        (by("labctl"), "labctl sends it for a1: SYN")
    } else {
        (by("a program"), "a program of a1 sends it: SYN")
    };
    assert_eq!((senders[0].0, senders[0].1), (&first.0, first.1));
    assert_eq!(trace.means.contains(&Means::Process), bench.is_root(), "{:?}", trace.means);
    // The kernel answers it while it serves an interrupt, whoever is at work then.
    assert_eq!((senders[1].0, senders[1].1), (&by("the answerer"), "b1 answers: SYN-ACK"));
    assert!(trace.parting.is_none(), "{:?}", trace.parting);
}
