//! Each fault of the catalogue in each lab that it fits: named by the trace of its question, and mended by what that
//! names as remedy. A trial is half of a lab's faults. It has several labs, which take one fault after the other, as
//! most of the time is waiting for answers that do not come.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use labctl::fault::catalogue;
use labctl::trace::model::{Cause, Means, Trace};

use crate::broken::{Broken, Fitting};
use crate::harness::tests::Need;
use crate::harness::{Bench, Who};
use crate::{table, tests};

/// Labs of a trial that are broken side by side.
const LABS: usize = 6;

tests![&[Need::Root];
    the_first_half_of_vxlans_faults_as_root,
    the_second_half_of_vxlans_faults_as_root,
    host_gws_faults_as_root,
    udps_faults_as_root,
];
tests![&[];
    the_first_half_of_vxlans_faults_as_an_ordinary_user,
    the_second_half_of_vxlans_faults_as_an_ordinary_user,
    host_gws_faults_as_an_ordinary_user,
    every_fault_fits_one_of_the_labs_that_are_broken,
];
tests![&[Need::Tun]; udps_faults_as_an_ordinary_user_with_tun];

fn the_first_half_of_vxlans_faults_as_root() {
    are_named_and_mended(Who::Root, "vxlan", Some(0));
}

fn the_second_half_of_vxlans_faults_as_root() {
    are_named_and_mended(Who::Root, "vxlan", Some(1));
}

fn the_first_half_of_vxlans_faults_as_an_ordinary_user() {
    are_named_and_mended(Who::Ordinary, "vxlan", Some(0));
}

fn the_second_half_of_vxlans_faults_as_an_ordinary_user() {
    are_named_and_mended(Who::Ordinary, "vxlan", Some(1));
}

fn host_gws_faults_as_root() {
    are_named_and_mended(Who::Root, "host-gw", None);
}

fn host_gws_faults_as_an_ordinary_user() {
    are_named_and_mended(Who::Ordinary, "host-gw", None);
}

fn udps_faults_as_root() {
    are_named_and_mended(Who::Root, "udp", None);
}

fn udps_faults_as_an_ordinary_user_with_tun() {
    are_named_and_mended(Who::WithTun, "udp", None);
}

/// The kernel's own reasons that root is told of, as it has no others for these.
const REASONS: &[(&str, &str)] = &[
    ("ip-forward-off", "IP_INADDRERRORS"),
    ("route-missing", "IP_INNOROUTES"),
    ("route-loop", "IP_INHDR"),
    ("rp-filter", "IP_RPFILTER"),
    ("mtu-too-large", "PKT_TOO_BIG"),
    ("forward-policy-drop", "NETFILTER_DROP"),
    ("forward-drop", "NETFILTER_DROP"),
    ("pod-firewalled", "NETFILTER_DROP"),
    ("node-port-firewalled", "NETFILTER_DROP"),
    ("conntrack-full", "NETFILTER_DROP"),
    ("fdb-missing", "NO_TX_TARGET"),
    ("vtep-mac-wrong", "OTHERHOST"),
    ("vni-wrong", "VXLAN_VNI_NOT_FOUND"),
    ("vxlan-port-wrong", "NO_SOCKET"),
    ("no-listener", "NO_SOCKET"),
    ("target-port-wrong", "NO_SOCKET"),
];

/// What everybody is told: rules by nf_tables, counters by the namespace.
const TOLD: &[(&str, &str)] = &[
    ("forward-policy-drop", "the kernel told that `-t filter -P FORWARD DROP` dropped it"),
    ("forward-drop", "the kernel told that `-t filter -A FORWARD "),
    ("forward-reject", "--reject-with icmp-port-unreachable` refused it"),
    ("pod-firewalled", "the kernel told that `-t filter -A INPUT "),
    ("node-port-firewalled", "the kernel told that `-t raw -A PREROUTING "),
    ("no-endpoints", "has no endpoints"),
    ("local-without-pod", "has no local endpoints"),
    ("ip-forward-off", "Ip.InAddrErrors went up by 1"),
    ("rp-filter", "TcpExt.IPReversePathFilter went up by 1"),
    ("mtu-too-large", "Ip.FragFails went up by 1"),
    ("conntrack-full", "nf_conntrack.drop went up by "),
    ("vxlan-port-wrong", "Udp.NoPorts went up by "),
];

/// Every second fault that fits the lab, or all.
fn are_named_and_mended(who: Who, lab: &str, half: Option<usize>) {
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    // All before the first program is started: one that is started while a bench's program is copied keeps that from
    // being run (ETXTBSY).
    let benches: Vec<Bench> = (0..LABS).map(|_| Bench::new(who)).collect();
    let work = |bench: &Bench| {
        let broken = Broken::up(bench, lab);
        let all = broken.fitting();
        let mine: Vec<&Fitting> =
            all.iter().enumerate().filter(|(n, _)| half.is_none_or(|half| n % 2 == half)).map(|(_, f)| f).collect();
        assert!(mine.len() > 10, "only {} faults fit {lab}", mine.len());
        while let Some(fitting) = mine.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(why) = is_named_and_mended(&broken, lab, fitting) {
                wrong.lock().expect("no panic").push(format!("{}: {why}", fitting.fault.name));
                bench.run(&["heal"]);
                bench.up(&broken.file);
            }
        }
    };
    thread::scope(|scope| benches.iter().for_each(|bench| drop(scope.spawn(|| work(bench)))));
    let wrong = wrong.into_inner().expect("no panic");
    assert!(wrong.is_empty(), "{} of {lab}'s faults are not diagnosed:\n{}", wrong.len(), wrong.join("\n"));
}

fn is_named_and_mended(broken: &Broken, lab: &str, fitting: &Fitting) -> Result<(), String> {
    let bench = broken.bench;
    let name = fitting.fault.name;
    bench.json(&["break", name]);
    let trace = broken.trace(&fitting.question);
    is_named(bench, fitting, &trace)?;
    if lab == table::lab_of(name) {
        table::row_is(fitting, &trace, &broken.file)?;
    }
    let fault = trace.verdict.fault.as_ref().ok_or("no fault")?;
    broken.mend(fault)?;
    let mended = broken.is_answered(&fitting.question);
    if let (true, Some(fault)) = (mended.asked.answered, &mended.verdict.fault) {
        return Err(format!("a trace that was answered has a fault: {fault:?}"));
    }
    let drift = bench.run(&["diff"]);
    if drift.code != 0 {
        return Err(format!("the remedy {:?} leaves the lab other than planned: {drift}", fault.remedy));
    }
    // The lab must forget that it was broken, too.
    bench.ok(&["heal"]);
    Ok(())
}

fn is_named(bench: &Bench, fitting: &Fitting, trace: &Trace) -> Result<(), String> {
    let seen = &trace.asked.seen;
    if trace.asked.answered {
        return Err(format!("{} is answered: {seen}", fitting.question.words()));
    }
    let Some(fault) = &trace.verdict.fault else {
        return Err(format!("no fault is found: {}, {seen}", trace.verdict.says));
    };
    if !fitting.is_named_by(fault) {
        let wanted = (fitting.fault.cause, &fitting.place, &fitting.object);
        return Err(format!("{wanted:?} is wanted: {fault:#?}\n{}, {seen}", trace.verdict.says));
    }
    if fault.evidence.is_empty() || fault.remedy.is_empty() {
        return Err(format!("it rests on nothing, or nothing mends it: {fault:#?}"));
    }
    rests_on_what_was_seen(bench, fitting.fault.name, trace, &fault.evidence)
}

fn rests_on_what_was_seen(bench: &Bench, fault: &str, trace: &Trace, evidence: &[String]) -> Result<(), String> {
    let wanted = |of: &[(&str, &'static str)]| of.iter().find(|(name, _)| *name == fault).map(|(_, what)| *what);
    let missing = |what: &str| Err(format!("{what:?} is missing: {evidence:#?}"));
    if let Some(what) = wanted(TOLD).filter(|what| !evidence.iter().any(|line| line.contains(what))) {
        return missing(what);
    }
    let reason = wanted(REASONS).filter(|_| bench.is_root());
    if let Some(reason) = reason.filter(|reason| !evidence.iter().any(|line| line.ends_with(&format!(": {reason}")))) {
        return missing(reason);
    }
    if !bench.is_root() && trace.means.contains(&Means::DropReason) {
        return Err("an ordinary user is told drop reasons".to_owned());
    }
    Ok(())
}

fn every_fault_fits_one_of_the_labs_that_are_broken() {
    let mut labs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for fault in catalogue() {
        labs.entry(table::lab_of(fault.name)).or_default().push(fault.name);
    }
    assert_eq!(labs["udp"], ["flanneld-dead"]);
    assert!(labs["vxlan"].len() >= 40);
    let causes: Vec<Cause> = catalogue().map(|f| f.cause).collect();
    assert!(!causes.contains(&Cause::Other), "a fault whose cause has no name");
    let named = |(name, _): &(&str, &str)| catalogue().any(|f| f.name == *name);
    assert!(REASONS.iter().chain(TOLD).all(named));
}
