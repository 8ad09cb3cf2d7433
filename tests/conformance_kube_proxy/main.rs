//! kube-proxy's recorded cases: the same rules, as the kernel prints them, and the same outcome of
//! every flow, sent as real packets through a real namespace with those rules; and which endpoints
//! are usable. The recordings are in a folder beside the project; where it is missing a test that is
//! reported as ignored says so.
//!
//! Each test runs in a process with namespaces of its own: as root (where the tests are), and again
//! in a user namespace, as an ordinary user would. That process is this program with `inside` as its
//! first word.

#[path = "../harness/mod.rs"]
mod harness;

mod case;
mod categorize;
mod flow;
mod nfacct;
mod peer;
mod rules;
mod sctp;
mod space;

use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};

use case::Case;
use space::Who;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|w| w == "inside") {
        return inside(&words[1..]);
    }
    let mut trials = vec![Trial::test("categorize::a_wrong_expectation_is_seen", || {
        categorize::a_wrong_expectation_is_seen();
        Ok(())
    })];
    match harness::beside_the_project("shared/conformance/kube-proxy") {
        Some(folder) => {
            trials.extend(categorize::trials(&folder));
            let cases = case::read(&folder);
            for who in [Who::Root, Who::Unshared] {
                let of_cases = cases.iter().enumerate().flat_map(|(i, case)| of_case(who, i, case));
                let all = of_cases.chain((0..cases.len()).map(|from| sync(who, &cases, from)));
                trials.extend(all.map(|trial| match who.missing() {
                    Some(missing) => trial.with_kind(missing).with_ignored_flag(true),
                    None => trial,
                }));
            }
        }
        None => {
            let missing = Trial::test("recordings", || Ok(())).with_kind("needs ../shared/conformance/kube-proxy");
            trials.push(missing.with_ignored_flag(true));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn of_case(who: Who, index: usize, case: &Case) -> Vec<Trial> {
    let name = format!("{}::{}", who.name(), case.id);
    let mut trials = vec![trial(format!("rules::{name}"), vec![who.name().into(), index.to_string()])];
    for (number, flow) in case.flows.iter().enumerate() {
        let words = vec![who.name().into(), index.to_string(), number.to_string()];
        trials.push(trial(format!("flow::{name}::{}", flow.name.replace(' ', "_")), words));
    }
    trials
}

/// From each case to the next, and from the last to the first.
fn sync(who: Who, cases: &[Case], from: usize) -> Trial {
    let to = (from + 1) % cases.len();
    let name = format!("sync::{}::to_{}", who.name(), cases[to].id);
    trial(name, vec![who.name().into(), to.to_string(), "from".into(), from.to_string()])
}

fn trial(name: String, words: Vec<String>) -> Trial {
    Trial::test(name, move || {
        let program = std::env::current_exe().map_err(|e| e.to_string())?;
        let output = Command::new(program).arg("inside").args(&words).output().map_err(|e| e.to_string())?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        eprint!("{said}");
        if output.status.success() { Ok(()) } else { Err(Failed::from(said)) }
    })
}

/// `inside WHO CASE [FLOW]`, or `inside WHO CASE from CASE`.
fn inside(words: &[String]) -> ExitCode {
    let folder = harness::beside_the_project("shared/conformance/kube-proxy").expect("the recordings");
    let cases = case::read(&folder);
    let number = |i: usize| words.get(i).and_then(|w| w.parse::<usize>().ok());
    let case = &cases[number(1).expect("a case")];
    Who::named(&words[0]).leave();
    match (number(2), number(3)) {
        (Some(flow), _) => flow::check(case, &case.flows[flow]),
        (None, Some(from)) => rules::sync_from(&cases[from], case),
        (None, None) => rules::compare(case),
    }
    ExitCode::SUCCESS
}
