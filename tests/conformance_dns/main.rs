//! CoreDNS' own cases and the assertions of Kubernetes' DNS specification, asked of the real server
//! process over UDP and TCP. Every case is a test with the case's name.
//!
//! The recordings are beside the project; where they are not, one test is reported as ignored that
//! says so. Sections are compared as sets, with names in the case in which they came. Put
//! aside are an SOA's serial, which the recording calls not comparable, and what `Group::soa` says.
//! `truncated` was recorded of a case whose upstream server had truncated; here there is none.

mod assertions;
#[path = "../harness/mod.rs"]
mod harness;
mod recorded;
mod server;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let arguments = Arguments::from_args();
    let Some(folder) = harness::beside_the_project("shared/conformance/dns") else {
        let missing = Trial::test("recordings", || Ok(()))
            .with_kind("../shared/conformance/dns is not there")
            .with_ignored_flag(true);
        libtest_mimic::run(&arguments, vec![missing]).exit();
    };
    let mut trials = assertions::trials(&folder.join("dns_spec_assertions.json"));
    trials.extend(recorded::trials(&folder.join("coredns_kubernetes_cases.json")));
    libtest_mimic::run(&arguments, trials).exit();
}
