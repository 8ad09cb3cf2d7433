//! What a sender's kernel remembers of how large packets may be on the way: it changes no verdict, and a trace says so
//! where it has outlived its reason.

use labctl::trace::model::{Cause, Trace};

use crate::as_root_and_ordinary_user;
use crate::broken::{Broken, traced, typed};
use crate::harness::Bench;
use crate::pair::tool;

as_root_and_ordinary_user![
    two_traces_in_a_row_name_the_same_fault,
    what_is_remembered_of_a_mended_way_is_told,
    what_a_tunnel_adds_is_taken_off_what_is_said_to_fit,
];

const LAB: &str = "
cluster: { flannel: { backend: host-gw } }
hosts: { node1: {}, node2: {} }
pods:
  a1: { host: node1, address: 10.244.1.20 }
  b1: { host: node2, address: 10.244.2.20 }
";
const REMEMBERED: &str = "a1 remembers that the way to 10.244.2.20 takes 1450 bytes (learnt, forgotten in ";

/// Trace a ping of 1,500 bytes.
fn ping(bench: &Bench, fragment: bool) -> Trace {
    let mut args = vec!["a1", "b1", "--icmp", "--size", "1500", "--timeout", "1"];
    args.extend(fragment.then_some("--fragment"));
    traced(bench, &args)
}

fn tells(lines: &[String]) -> bool {
    lines.iter().any(|line| line.starts_with(REMEMBERED))
}

fn two_traces_in_a_row_name_the_same_fault(bench: &Bench) {
    Broken::of_text(bench, LAB);
    // The device takes no larger frames either way: a ping in pieces arrives, and its answer is whole.
    tool(bench, "node1", "ip link set eth0 mtu 1450");
    let cut = ping(bench, true);
    for (first, again) in [(ping(bench, false), ping(bench, false)), (cut, ping(bench, true))] {
        for (trace, remembers) in [(&first, false), (&again, true)] {
            let fault = trace.verdict.fault.as_ref().unwrap_or_else(|| panic!("no fault: {trace:#?}"));
            let found = (fault.cause, fault.place.to_string(), fault.object.as_str());
            assert_eq!(found, (Cause::TooBig, "node1".to_owned(), "eth0 mtu 1450"), "{trace:#?}");
            assert_eq!(tells(&fault.evidence), remembers, "{:#?}", fault.evidence);
            assert!(!tells(&trace.notes), "the way takes no more: {:?}", trace.notes);
        }
        assert_eq!(first.verdict.says, again.verdict.says);
    }
}

fn what_is_remembered_of_a_mended_way_is_told(bench: &Bench) {
    Broken::of_text(bench, LAB);
    let set = |mtu: &str| tool(bench, "node1", &format!("ip link set eth0 mtu {mtu}"));
    set("1450");
    assert!(!ping(bench, false).asked.answered);
    set("1500");
    let mended = ping(bench, false);
    assert!(mended.asked.answered, "{mended:#?}");
    let note = mended.notes.iter().find(|note| note.starts_with(REMEMBERED));
    let note = note.unwrap_or_else(|| panic!("nothing is told: {:?}", mended.notes));
    let command = note.split('`').nth(1).expect("a command");
    assert_eq!(typed(bench, command).code, 0, "{command}");
    let forgotten = ping(bench, false);
    assert!(forgotten.asked.answered && !tells(&forgotten.notes), "{forgotten:#?}");
}

fn what_a_tunnel_adds_is_taken_off_what_is_said_to_fit(bench: &Bench) {
    Broken::of_text(bench, &LAB.replace("host-gw", "vxlan"));
    tool(bench, "node2", "ip link set eth0 mtu 900");
    let ping = |size| traced(bench, &["a1", "b1", "--icmp", "--size", size, "--timeout", "1"]);
    let trace = ping("1000");
    let fault = trace.verdict.fault.as_ref().unwrap_or_else(|| panic!("no fault: {trace:#?}"));
    assert_eq!((fault.cause, fault.place.to_string().as_str()), (Cause::TooBig, "node2"), "{fault:#?}");
    assert!(fault.remedy[0].says.starts_with("send at most 850 bytes"), "{fault:#?}");
    assert!(ping("850").asked.answered);
    // A device takes four bytes more, for a VLAN's tag (`is_skb_forwardable`).
    assert!(!ping("855").asked.answered);
}
