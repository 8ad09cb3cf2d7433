//! Labs whose fault is in their file. Their machines are as planned, so what mends them is a change of the file,
//! and is said in words.

use labctl::fault::Question;
use labctl::lab::names::NsName;
use labctl::trace::model::{Cause, Trace};

use crate::as_root_and_ordinary_user;
use crate::broken::Broken;
use crate::harness::Bench;

as_root_and_ordinary_user![
    a_selector_that_selects_nobody_is_named,
    a_target_port_that_nobody_listens_on_is_named,
    a_policy_without_a_local_pod_is_named,
    a_next_hop_behind_a_router_is_named,
];

fn at(path: &str) -> NsName {
    serde_json::from_value(path.into()).expect("a machine")
}

/// The lab's fault is named, with a remedy in these words; and its twin, which differs in that, answers.
fn is_named(bench: &Bench, lab: &str, twin: &str, (question, cause, place, remedy): (Question, Cause, &str, &str)) {
    let broken = Broken::up(bench, lab);
    bench.is_as_planned();
    let Trace { asked, verdict, .. } = broken.trace(&question);
    assert!(!asked.answered, "{asked:?}");
    let fault = verdict.fault.unwrap_or_else(|| panic!("no fault: {} {}", verdict.says, asked.seen));
    assert_eq!((fault.cause, fault.place.path().as_str()), (cause, place), "{fault:#?}\n{}", verdict.says);
    assert!(fault.remedy.iter().all(|r| r.command.is_none()), "{fault:#?}");
    assert!(fault.remedy.iter().any(|r| r.says.contains(remedy)), "{fault:#?}");
    let mended = Broken::up(bench, twin);
    mended.is_answered(&question);
}

fn a_selector_that_selects_nobody_is_named(bench: &Bench) {
    let question = Question::tcp(at("pod/default/shell"), "tea-svc", 80);
    is_named(bench, "selector-wrong", "services", (question, Cause::NoEndpoints, "host/node2", "app=tea"));
}

fn a_target_port_that_nobody_listens_on_is_named(bench: &Bench) {
    let question = Question::tcp(at("pod/default/shell"), "tea-svc", 80);
    let expected = (question, Cause::WrongTargetPort, "pod/default/tea", "targetPort: 8080");
    is_named(bench, "target-port-wrong", "services", expected);
}

fn a_policy_without_a_local_pod_is_named(bench: &Bench) {
    let question = Question::tcp(at("client/laptop"), "node2", 30080);
    let expected = (question, Cause::NoLocalEndpoint, "host/node2", "externalTrafficPolicy: Cluster");
    is_named(bench, "local-without-pod", "services", expected);
}

fn a_next_hop_behind_a_router_is_named(bench: &Bench) {
    let question = Question::ping(at("pod/default/a1"), "c1");
    let expected = (question, Cause::NotOnLink, "host/node1", "put the hosts on one network");
    is_named(bench, "host-gw-across-router", "host-gw", expected);
}
