//! Namespaces for the tests, and running each test twice.

use std::process::Command;
use std::time::{Duration, Instant};

use labctl::kernel::ns::NetNs;

/// How long anything that is waited for may take. Far more than it needs, for slow machines.
const PATIENCE: Duration = Duration::from_secs(30);
/// Set for a test that is already inside a user namespace.
const INSIDE: &str = "LABCTL_TEST_IN_USER_NAMESPACE";

/// Make two tests of each function: in namespaces of the machine's root, and in namespaces that
/// belong to a user namespace, as an ordinary user's do.
#[macro_export]
macro_rules! as_root_and_in_a_user_namespace {
    ($($name:ident),* $(,)?) => { $(
        mod $name {
            #[test]
            fn as_root() {
                $crate::ground::as_root(super::$name);
            }
            #[test]
            fn in_a_user_namespace() {
                let path = concat!(module_path!(), "::in_a_user_namespace");
                $crate::ground::in_a_user_namespace(path, super::$name);
            }
        }
    )* };
}

pub fn as_root(test: fn()) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("NOT RUN: this half of the test needs root; run the tests as root, too");
        return;
    }
    test();
}

/// Run the test called `path` once more, by a process whose capabilities end at a user namespace.
pub fn in_a_user_namespace(path: &str, test: fn()) {
    if std::env::var_os(INSIDE).is_some() {
        return test();
    }
    let name = path.split_once("::").expect("the crate's name comes first").1;
    let myself = std::env::current_exe().expect("the test's own path");
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "--mount"]).arg(myself).env(INSIDE, "1");
    let done = command.args([name, "--exact", "--nocapture"]).output().expect("unshare");
    let said = String::from_utf8_lossy(&done.stdout);
    let told = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && said.contains(" 1 passed;"), "in a user namespace:\n{said}{told}");
}

/// A new namespace with nothing but its loopback device.
pub fn fresh() -> NetNs {
    let made = std::thread::spawn(NetNs::create_and_enter).join().expect("no panic").expect("a namespace");
    sh(&made, "ip link set lo up");
    made
}

/// Run a script in a namespace; each of its lines must succeed.
#[track_caller]
pub fn sh(ns: &NetNs, script: &str) {
    out(ns, script);
}

/// The same; returns what it printed.
#[track_caller]
pub fn out(ns: &NetNs, script: &str) -> String {
    let done = ns.run(|| Command::new("sh").args(["-ec", script]).output());
    let done = done.expect("the namespace").expect("sh");
    assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// Wait until `condition` holds.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "after {PATIENCE:?} still not: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
